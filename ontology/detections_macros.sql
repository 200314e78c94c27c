-- What people ask of detections, one line each. A macro takes a word or a synset, and names its tables with the catalog in
-- full: see macros.sql, which also says what the schema `here` is for.

-- The synset that a word or a synset's name stands for here; NULL when no label does.
CREATE MACRO main.synset_of(name) AS coalesce(
    (SELECT any_value(_c.ancestor) FROM detections.main.closure _c WHERE _c.ancestor = name),
    (SELECT _g.kept FROM detections.main.merged _g WHERE _g.synset = name),
    (SELECT _w.synset FROM detections.main.words _w WHERE _w.word = lower(trim(replace(name, '_', ' ')))));

-- Images that show it or anything below it, by image number; a row for each feature set.
CREATE MACRO main.images_showing(name) AS TABLE
    SELECT _s.image, _s.features, _s.score, _s.regions, _s.area
    FROM detections.main.seen _s
    WHERE _s.synset = (SELECT detections.main.synset_of(name))
    ORDER BY _s.image, _s.features;

-- The labels that stand for it or for anything below it, the nearest first.
CREATE MACRO main.labels_of(name) AS TABLE
    SELECT _l.features, _l.label, _l.name AS label_name, _l.synset, _c.distance, _l.method, _l.confidence, _l.images, _l.regions
    FROM detections.main.closure _c
    JOIN detections.main.labels _l ON _l.synset = _c.descendant
    WHERE _c.ancestor = (SELECT detections.main.synset_of(name))
    ORDER BY _c.distance, _l.synset, _l.features, _l.label;

-- What was seen in an image, the surest first.
CREATE MACRO main.shown_in(number) AS TABLE
    SELECT _d.features, _l.name AS label_name, _l.synset, _d.regions, _d.score, _d.area
    FROM detections.main.detections _d
    JOIN detections.main.labels _l ON _l.features = _d.features AND _l.label = _d.label
    WHERE _d.image = number
    ORDER BY _d.features, _d.score DESC, _l.label;
