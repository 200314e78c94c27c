-- What people ask of detections, one line each. A macro takes a word or a synset, and names its tables with the catalog in
-- full: see macros.sql, which also says what the schema `here` is for.

-- The synset that a word or a synset's name stands for here; NULL when no label does.
CREATE MACRO main.synset_of(name) AS coalesce(
    (SELECT any_value(c.ancestor) FROM detections.main.closure c WHERE c.ancestor = name),
    (SELECT w.synset FROM detections.main.words w WHERE w.word = lower(name)));

-- Images that show it or anything below it, by image number; a row for each feature set.
CREATE MACRO main.images_showing(name) AS TABLE
    SELECT s.image, s.features, s.score, s.regions, s.area
    FROM detections.main.seen s
    WHERE s.synset = (SELECT detections.main.synset_of(name))
    ORDER BY s.image, s.features;

-- The labels that stand for it or for anything below it, the nearest first.
CREATE MACRO main.labels_of(name) AS TABLE
    SELECT l.features, l.label, l.name AS label_name, l.synset, c.distance, l.method, l.confidence, l.images, l.regions
    FROM detections.main.closure c
    JOIN detections.main.labels l ON l.synset = c.descendant
    WHERE c.ancestor = (SELECT detections.main.synset_of(name))
    ORDER BY c.distance, l.synset, l.features, l.label;

-- What was seen in an image, the surest first.
CREATE MACRO main.shown_in(number) AS TABLE
    SELECT d.features, l.name AS label_name, l.synset, d.regions, d.score, d.area
    FROM detections.main.detections d
    JOIN detections.main.labels l ON l.features = d.features AND l.label = d.label
    WHERE d.image = number
    ORDER BY d.features, d.score DESC, l.label;
