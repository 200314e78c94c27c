-- What detectors saw in the images of a dataset: a label of a feature set stands for a WordNet synset.
--
-- Each `--` comment behind a column or above a table is also stored in the file (duckdb_columns(), duckdb_tables()).
-- Tables are sorted as they are mostly asked for and carry no keys or indexes, as in ontology.duckdb, which this
-- file does not need: image numbers are those of the dataset, and the closure of the labels' synsets is its own.
-- Macros are in detections_macros.sql.

-- The feature sets whose labels are in here.
CREATE TABLE main.feature_sets (
    features        VARCHAR,  -- name of the feature set, as in tonics.toml
    images          BIGINT,   -- images it covers
    empty_images    BIGINT,   -- of those, images in which it has no region
    regions         BIGINT,   -- regions of all images
    labels          INTEGER,  -- labels of its vocabulary
    with_synset     INTEGER,  -- of those, labels that stand for a synset
    content_hash    VARCHAR,  -- of the feature store that was read
    vocabulary_hash VARCHAR   -- of its vocabulary
);

-- The labels of every vocabulary, and what each was decided to stand for.
CREATE TABLE main.labels (
    features   VARCHAR,  -- feature set
    label      INTEGER,  -- number in its vocabulary, from 0
    name       VARCHAR,  -- name in its vocabulary
    synset     VARCHAR,  -- what a region with this label shows; NULL when unknown or a word for no thing
    method     VARCHAR,  -- rule that decided: given (by the vocabulary), label (by the table of labels), else as in mentions of ontology.duckdb
    confidence FLOAT,    -- 0..1; only labels of at least meta.confident count in seen and synsets
    images     BIGINT,   -- images with a region of this label
    regions    BIGINT    -- their regions of this label
);

-- Every (ancestor, descendant) above the labels' synsets, over all hypernyms; each synset with itself at distance 0.
CREATE TABLE main.closure (
    ancestor   VARCHAR,  -- the broader synset
    descendant VARCHAR,  -- the narrower synset, or the same
    distance   INTEGER   -- steps along the shortest way
);

-- The synsets that some label of a feature set stands for, and all above them, with how often they were seen.
CREATE TABLE main.synsets (
    synset   VARCHAR,  -- name, such as dog.n.01
    features VARCHAR,  -- feature set with a label for it or for something below it
    images   BIGINT,   -- images with a region that shows it or something below it; 0 when it was never seen
    regions  BIGINT    -- regions that show it or something below it
);

-- Synsets that WordNet keeps apart and photographs do not, as in ontology.duckdb.
CREATE TABLE main.merged (
    synset VARCHAR,  -- what it is called in WordNet
    kept   VARCHAR   -- the synset that stands for both here
);

-- Which synset a word stands for here: as a label has it, else the synset with the most images that WordNet lists it under.
CREATE TABLE main.words (
    word   VARCHAR,  -- lower case, with spaces
    synset VARCHAR   -- what it stands for
);

-- The images that each feature set covers: one that is absent from seen was looked at, one that is absent here was not.
CREATE TABLE main.images (
    features VARCHAR,  -- feature set
    image    BIGINT,   -- the dataset's number
    regions  INTEGER   -- how many regions it has; 0 when nothing was found
);

-- What was seen in every image: a row for each label with at least one region.
CREATE TABLE main.detections (
    features VARCHAR,  -- feature set
    image    BIGINT,   -- the dataset's number
    label    INTEGER,  -- number in the vocabulary
    regions  INTEGER,  -- how many regions have this label
    score    FLOAT,    -- the best of their scores
    area     FLOAT     -- share of the image that the largest of their boxes covers, 0..1
);

-- Which images show a synset or anything below it in the whole graph, once for each feature set.
CREATE TABLE main.seen (
    synset   VARCHAR,  -- the synset
    features VARCHAR,  -- feature set
    image    BIGINT,   -- an image with a region that shows it or something below it
    regions  INTEGER,  -- how many such regions
    score    FLOAT,    -- the best of their scores
    area     FLOAT     -- share of the image that the largest of their boxes covers, 0..1
);

-- How this file was made: format, confident, content_hash and the versions of all that decided it.
CREATE TABLE main.meta (
    key   VARCHAR,  -- name
    value VARCHAR   -- text
);
