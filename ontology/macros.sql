-- Views hold the joins and work wherever the file is attached: SELECT * FROM onto.synset_pairs WHERE synset = 'dog.n.01'.
-- Macros are one line over them. They name every table with its schema; DuckDB resolves a macro's names in the
-- client's current database, so in an attached file say USE onto first.

-- Mentions sure enough to count for objects.
CREATE VIEW main.confident_mentions AS
    SELECT m.* FROM main.mentions m
    WHERE m.synset IS NOT NULL AND m.confidence >= (SELECT CAST(value AS FLOAT) FROM main.meta WHERE key = 'confident');

-- Which pairs speak of a synset or of anything below it in the whole graph, once each.
CREATE VIEW main.synset_pairs AS
    SELECT DISTINCT c.ancestor AS synset, m.pair
    FROM main.closure c JOIN main.confident_mentions m ON m.synset = c.descendant;

-- What each distinct noun was decided to mean, and how often it occurs.
CREATE VIEW main.senses AS
    SELECT lemma, head, synset, method, confidence, count(*) AS mentions, count(DISTINCT pair) AS pairs
    FROM main.mentions GROUP BY ALL;

-- The objects by the names of their synsets, with gloss.
CREATE VIEW main.object_names AS
    SELECT o.object, o.synset, p.synset AS parent, o.depth, o.own_pairs, o.own_images,
           o.subtree_pairs, o.subtree_images, s.definition
    FROM main.objects o JOIN main.synsets s USING (synset) LEFT JOIN main.objects p ON p.object = o.parent;

-- Pairs whose captions mention a synset or anything below it: FROM pairs_of('dog.n.01') LIMIT 10.
CREATE MACRO main.pairs_of(name) AS TABLE
    SELECT p.pair, p.pair_key, p.image, p.caption, p.split
    FROM main.pairs p
    WHERE p.pair IN (SELECT sp.pair FROM main.synset_pairs sp WHERE sp.synset = name)
    ORDER BY p.pair;

-- Images with such a caption, and in how many of their captions it is mentioned.
CREATE MACRO main.images_of(name) AS TABLE
    SELECT i.image, i.image_id, i.path, i.width, i.height, count(*) AS pairs
    FROM main.synset_pairs sp JOIN main.pairs p USING (pair) JOIN main.images i USING (image)
    WHERE sp.synset = name
    GROUP BY ALL ORDER BY i.image;

-- The synset and everything below it in the whole graph, with the pairs that mention exactly that synset.
CREATE MACRO main.subtree(name) AS TABLE
    SELECT s.synset, c.distance, s.definition, o.object, coalesce(n.pairs, 0) AS pairs
    FROM main.closure c
    JOIN main.synsets s ON s.synset = c.descendant
    LEFT JOIN main.objects o ON o.synset = s.synset
    LEFT JOIN (SELECT m.synset, count(DISTINCT m.pair) AS pairs FROM main.confident_mentions m GROUP BY m.synset) n
        ON n.synset = s.synset
    WHERE c.ancestor = name
    ORDER BY c.distance, s.synset;

-- The synset and everything above it in the whole graph, the nearest first.
CREATE MACRO main.ancestors(name) AS TABLE
    SELECT s.synset, c.distance, s.definition, o.object
    FROM main.closure c
    JOIN main.synsets s ON s.synset = c.ancestor
    LEFT JOIN main.objects o ON o.synset = s.synset
    WHERE c.descendant = name
    ORDER BY c.distance, s.synset;

-- What the captions of an object (with its subtree; objects only) name beside it; lift > 1: more often than by chance.
CREATE MACRO main.cooccurring(name) AS TABLE
    SELECT b.synset, x.pairs,
           round(x.pairs * (SELECT count(*) FROM main.pairs) / (a.subtree_pairs * b.own_pairs), 2) AS lift
    FROM main.cooccurrences x
    JOIN main.objects a ON a.object = x.object
    JOIN main.objects b ON b.object = x.other
    WHERE a.synset = name
    ORDER BY x.place;
