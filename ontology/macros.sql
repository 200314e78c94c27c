-- Views and macros: the questions people ask most, one line each; docs/ontology.md shows them with answers.
--
-- A macro takes a word or a synset ('dog', 'dog.n.01') and names every table with the catalog in full: DuckDB resolves the
-- names within a macro in the client's current database, so that these answer when the file is open as `ontology` (its own
-- name) or attached so. The builder repeats each in the schema `here` with names of the current database, for a file
-- that goes by another name: USE other; FROM here.pairs_of('dog'). Views work under any name.
-- The synset is looked up in a subquery of its own: then its value reaches the scans below and their zone maps. Aliases
-- begin with an underscore: an argument such as s.synset must mean the caller's s.

-- What the dataset is about: coarse classes of what captions name, the most images first.
CREATE VIEW main.about AS
    SELECT c.class, c.images, round(c.images / (SELECT count(*) FROM main.images), 3) AS share, c.pairs, c.foremost
    FROM main.classes c ORDER BY c.images DESC, c.class;

-- The objects with names and gloss.
CREATE VIEW main.object_names AS
    SELECT o.object, o.synset, p.synset AS parent, o.depth, o.own_pairs, o.own_images,
           o.subtree_pairs, o.subtree_images, s.definition
    FROM main.objects o JOIN main.synsets s USING (synset) LEFT JOIN main.objects p ON p.object = o.parent;

-- The objects that most images name, each by itself: neither what is below it nor kinds too rare to be objects.
CREATE VIEW main.most_frequent AS
    SELECT o.synset, s.self_images AS images, s.self_pairs AS pairs, s.definition
    FROM main.objects o JOIN main.synsets s USING (synset) ORDER BY s.self_images DESC, o.synset;

-- The objects that fewest images name, with everything below them.
CREATE VIEW main.least_frequent AS
    SELECT o.synset, o.subtree_images AS images, o.subtree_pairs AS pairs, s.definition
    FROM main.objects o JOIN main.synsets s USING (synset) ORDER BY o.subtree_images, o.synset;

-- Nouns that WordNet gives several senses, which one was taken, and by which rule; the most frequent first.
CREATE VIEW main.ambiguous AS
    SELECT n.lemma, n.mentions, n.synset, n.method, n.confidence, s.definition, n.alternatives
    FROM main.senses n JOIN main.synsets s USING (synset)
    WHERE len(n.alternatives) > 0 ORDER BY n.mentions DESC, n.lemma, n.head;

-- Nouns that belong to no object, and why: frame, measure, unknown, or a sense too unsure.
CREATE VIEW main.left_out AS
    SELECT n.lemma, n.mentions, n.images,
           CASE WHEN n.synset IS NULL THEN n.method ELSE 'unsure: ' || n.method END AS why, n.synset, n.confidence
    FROM main.senses n
    WHERE n.synset IS NULL OR n.confidence < (SELECT CAST(value AS FLOAT) FROM main.meta WHERE key = 'confident')
    ORDER BY n.mentions DESC, n.lemma, n.head;

-- Mentions sure enough to count for objects.
CREATE VIEW main.confident_mentions AS
    SELECT m.* FROM main.mentions m
    WHERE m.synset IS NOT NULL AND m.confidence >= (SELECT CAST(value AS FLOAT) FROM main.meta WHERE key = 'confident');

-- The synset that a word or a synset's name stands for here; NULL when no caption mentions it.
CREATE MACRO main.synset_of(name) AS coalesce(
    (SELECT _s.synset FROM ontology.main.synsets _s WHERE _s.synset = name),
    (SELECT _g.kept FROM ontology.main.merged _g WHERE _g.synset = name),
    (SELECT _w.synset FROM ontology.main.words _w WHERE _w.word = lower(trim(replace(name, '_', ' ')))));

-- Pairs whose captions mention it or anything below it, by pair number.
CREATE MACRO main.pairs_of(name) AS TABLE
    SELECT _p.pair, _p.pair_key, _p.image, _p.caption, _p.split
    FROM ontology.main.pairs _p
    WHERE _p.pair IN (SELECT _sp.pair FROM ontology.main.synset_pairs _sp WHERE _sp.synset = (SELECT ontology.main.synset_of(name)))
    ORDER BY _p.pair;

-- Such captions with the first noun that speaks of it in [brackets]; written for the rows that are asked for alone.
CREATE MACRO main.captions_of(name) AS TABLE
    SELECT _q.pair, _q.pair_key,
           _q.caption[:_q.start] || '[' || _q.caption[_q.start + 1:_q."end"] || ']' || _q.caption[_q."end" + 1:] AS caption
    FROM (SELECT _p.pair, _p.pair_key, _p.caption, _sp.start, _sp."end"
          FROM ontology.main.pairs _p JOIN ontology.main.synset_pairs _sp ON _sp.pair = _p.pair
          WHERE _sp.synset = (SELECT ontology.main.synset_of(name))
          ORDER BY _p.pair) _q;

-- Images with such a caption, and in how many of their captions it is mentioned, by image number.
CREATE MACRO main.images_of(name) AS TABLE
    SELECT _i.image, _i.image_id, _i.path, _i.width, _i.height, _si.pairs
    FROM ontology.main.images _i JOIN ontology.main.synset_images _si ON _si.image = _i.image
    WHERE _si.synset = (SELECT ontology.main.synset_of(name))
    ORDER BY _i.image;

-- The synset and everything below it in the whole graph: pairs that mention just that, and with all below.
CREATE MACRO main.subtree(name) AS TABLE
    SELECT _s.synset, _c.distance, _s.definition, _o.object, _s.self_pairs, _s.subtree_pairs
    FROM ontology.main.closure _c
    JOIN ontology.main.synsets _s ON _s.synset = _c.descendant
    LEFT JOIN ontology.main.objects _o ON _o.synset = _s.synset
    WHERE _c.ancestor = (SELECT ontology.main.synset_of(name))
    ORDER BY _c.distance, _s.synset;

-- The synset and everything above it in the whole graph, the nearest first.
CREATE MACRO main.ancestors(name) AS TABLE
    SELECT _s.synset, _c.distance, _s.definition, _o.object
    FROM ontology.main.closure _c
    JOIN ontology.main.synsets _s ON _s.synset = _c.ancestor
    LEFT JOIN ontology.main.objects _o ON _o.synset = _s.synset
    WHERE _c.descendant = (SELECT ontology.main.synset_of(name))
    ORDER BY _c.distance, _s.synset;

-- The objects below it in the whole graph, the most images first.
CREATE MACRO main.objects_under(name) AS TABLE
    SELECT _o.synset, _s.subtree_images AS images, _s.subtree_pairs AS pairs, _s.self_images, _c.distance, _s.definition
    FROM ontology.main.closure _c
    JOIN ontology.main.objects _o ON _o.synset = _c.descendant
    JOIN ontology.main.synsets _s ON _s.synset = _c.descendant
    WHERE _c.ancestor = (SELECT ontology.main.synset_of(name)) AND _c.distance > 0
    ORDER BY _s.subtree_images DESC, _o.synset;

-- What the captions of an object (with its subtree) name beside it; lift > 1: more often than by chance. Of a synset that is
-- no object of its own: what stands beside the object it counts as.
CREATE MACRO main.cooccurring(name) AS TABLE
    SELECT _b.synset, _x.pairs,
           round(_x.pairs * (SELECT count(*) FROM ontology.main.pairs) / (_a.subtree_pairs * _b.own_pairs), 2) AS lift
    FROM ontology.main.cooccurrences _x
    JOIN ontology.main.objects _a ON _a.object = _x.object
    JOIN ontology.main.objects _b ON _b.object = _x.other
    WHERE _a.object = (SELECT _s.object FROM ontology.main.synsets _s
                       WHERE _s.synset = (SELECT ontology.main.synset_of(name)))
    ORDER BY _x.place;

-- How a noun, or any compound that ends in it, was decided.
CREATE MACRO main.decided(noun) AS TABLE
    SELECT _n.lemma, _n.synset, _n.method, _n.confidence, _n.mentions, _s.definition, _n.alternatives
    FROM ontology.main.senses _n LEFT JOIN ontology.main.synsets _s ON _s.synset = _n.synset
    WHERE _n.lemma = lower(noun) OR _n.head = lower(noun)
    ORDER BY _n.lemma <> lower(noun), _n.mentions DESC, _n.lemma, _n.synset;
