-- Views and macros: the questions people ask most, one line each; docs/ontology.md shows them with answers.
--
-- A macro takes a word or a synset ('dog', 'dog.n.01') and names every table with the catalog in full: DuckDB resolves the
-- names within a macro in the client's current database, so that these answer when the file is open as `ontology` (its own
-- name) or attached so. The builder repeats each in the schema `here` with names of the current database, for a file
-- that goes by another name: USE other; FROM here.pairs_of('dog'). Views work under any name.
-- The synset is looked up in a subquery of its own: then its value reaches the scans below and their zone maps.

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
    (SELECT s.synset FROM ontology.main.synsets s WHERE s.synset = name),
    (SELECT g.kept FROM ontology.main.merged g WHERE g.synset = name),
    (SELECT w.synset FROM ontology.main.words w WHERE w.word = lower(name)));

-- Pairs whose captions mention it or anything below it, by pair number.
CREATE MACRO main.pairs_of(name) AS TABLE
    SELECT p.pair, p.pair_key, p.image, p.caption, p.split
    FROM ontology.main.pairs p
    WHERE p.pair IN (SELECT sp.pair FROM ontology.main.synset_pairs sp WHERE sp.synset = (SELECT ontology.main.synset_of(name)))
    ORDER BY p.pair;

-- Such captions with the first noun that speaks of it in [brackets]; written for the rows that are asked for alone.
CREATE MACRO main.captions_of(name) AS TABLE
    SELECT q.pair, q.pair_key,
           q.caption[:q.start] || '[' || q.caption[q.start + 1:q."end"] || ']' || q.caption[q."end" + 1:] AS caption
    FROM (SELECT p.pair, p.pair_key, p.caption, sp.start, sp."end"
          FROM ontology.main.pairs p JOIN ontology.main.synset_pairs sp ON sp.pair = p.pair
          WHERE sp.synset = (SELECT ontology.main.synset_of(name))
          ORDER BY p.pair) q;

-- Images with such a caption, and in how many of their captions it is mentioned, by image number.
CREATE MACRO main.images_of(name) AS TABLE
    SELECT i.image, i.image_id, i.path, i.width, i.height, si.pairs
    FROM ontology.main.images i JOIN ontology.main.synset_images si ON si.image = i.image
    WHERE si.synset = (SELECT ontology.main.synset_of(name))
    ORDER BY i.image;

-- The synset and everything below it in the whole graph: pairs that mention just that, and with all below.
CREATE MACRO main.subtree(name) AS TABLE
    SELECT s.synset, c.distance, s.definition, o.object, s.self_pairs, s.subtree_pairs
    FROM ontology.main.closure c
    JOIN ontology.main.synsets s ON s.synset = c.descendant
    LEFT JOIN ontology.main.objects o ON o.synset = s.synset
    WHERE c.ancestor = (SELECT ontology.main.synset_of(name))
    ORDER BY c.distance, s.synset;

-- The synset and everything above it in the whole graph, the nearest first.
CREATE MACRO main.ancestors(name) AS TABLE
    SELECT s.synset, c.distance, s.definition, o.object
    FROM ontology.main.closure c
    JOIN ontology.main.synsets s ON s.synset = c.ancestor
    LEFT JOIN ontology.main.objects o ON o.synset = s.synset
    WHERE c.descendant = (SELECT ontology.main.synset_of(name))
    ORDER BY c.distance, s.synset;

-- The objects below it in the whole graph, the most images first.
CREATE MACRO main.objects_under(name) AS TABLE
    SELECT o.synset, s.subtree_images AS images, s.subtree_pairs AS pairs, s.self_images, c.distance, s.definition
    FROM ontology.main.closure c
    JOIN ontology.main.objects o ON o.synset = c.descendant
    JOIN ontology.main.synsets s ON s.synset = c.descendant
    WHERE c.ancestor = (SELECT ontology.main.synset_of(name)) AND c.distance > 0
    ORDER BY s.subtree_images DESC, o.synset;

-- What the captions of an object (with its subtree; objects only) name beside it; lift > 1: more often than by chance.
CREATE MACRO main.cooccurring(name) AS TABLE
    SELECT b.synset, x.pairs,
           round(x.pairs * (SELECT count(*) FROM ontology.main.pairs) / (a.subtree_pairs * b.own_pairs), 2) AS lift
    FROM ontology.main.cooccurrences x
    JOIN ontology.main.objects a ON a.object = x.object
    JOIN ontology.main.objects b ON b.object = x.other
    WHERE a.synset = (SELECT ontology.main.synset_of(name))
    ORDER BY x.place;

-- How a noun, or any compound that ends in it, was decided.
CREATE MACRO main.decided(noun) AS TABLE
    SELECT n.lemma, n.synset, n.method, n.confidence, n.mentions, s.definition, n.alternatives
    FROM ontology.main.senses n LEFT JOIN ontology.main.synsets s ON s.synset = n.synset
    WHERE n.lemma = lower(noun) OR n.head = lower(noun)
    ORDER BY n.lemma <> lower(noun), n.mentions DESC, n.lemma, n.synset;
