-- The ontology of a dataset: what its captions talk about.
--
-- Each `--` comment behind a column or above a table is also stored in the file (duckdb_columns(), duckdb_tables()).
-- Tables are sorted as they are mostly asked for and carry no keys or indexes: zone maps on sorted columns
-- are enough, and a plain file opens in older clients. Numbers of pairs and images are those of the dataset.

-- The WordNet noun synsets that some caption mentions, and all their ancestors.
CREATE TABLE main.synsets (
    synset     VARCHAR,    -- name, such as dog.n.01
    lemmas     VARCHAR[],  -- the words for it, with spaces: [dog, domestic dog, Canis familiaris]
    definition VARCHAR,    -- WordNet's gloss
    lexname    VARCHAR,    -- WordNet's coarse class, such as noun.animal
    depth      INTEGER,    -- steps to entity.n.01 along the primary parents (0: entity.n.01 itself)
    parent     VARCHAR,    -- primary parent: of its hypernyms one under physical_entity.n.01 first, then the deepest below the root, then the first by name; NULL for the root
    object     INTEGER     -- the nearest object at or above it along the primary parents
);

-- WordNet's hypernym relation between those synsets: a directed acyclic graph, not a tree.
CREATE TABLE main.hypernyms (
    synset    VARCHAR,  -- the narrower one
    hypernym  VARCHAR,  -- the broader one, one step up
    instance  BOOLEAN,  -- the narrower one is an individual (paris.n.01), not a kind
    is_parent BOOLEAN   -- this hypernym is the primary parent
);

-- Every (ancestor, descendant) of the whole graph, over all hypernyms; each synset with itself at distance 0.
CREATE TABLE main.closure (
    ancestor   VARCHAR,  -- the broader synset
    descendant VARCHAR,  -- the narrower synset, or the same
    distance   INTEGER   -- steps along the shortest way
);

-- The images of the dataset.
CREATE TABLE main.images (
    image    BIGINT,   -- dense number
    image_id VARCHAR,  -- the source's name for it
    path     VARCHAR,  -- file below the image root, or tar member; NULL or empty when only features are at hand
    width    INTEGER,  -- pixels, before any EXIF rotation
    height   INTEGER   -- pixels
);

-- The image-caption pairs of the dataset.
CREATE TABLE main.pairs (
    pair     BIGINT,   -- dense number
    pair_key VARCHAR,  -- stable name: image_id#k, the k-th caption in source order
    image    BIGINT,   -- its image
    caption  VARCHAR,  -- the text as the source has it
    split    VARCHAR   -- train, val, test
);

-- Every noun or compound of every caption, in the order of the text, with the sense decided for it.
CREATE TABLE main.mentions (
    pair       BIGINT,   -- whose caption
    start      INTEGER,  -- first character of the noun in the caption (0-based)
    "end"      INTEGER,  -- one past its last character
    surface    VARCHAR,  -- the words as written
    lemma      VARCHAR,  -- lower case, head in the singular
    head       VARCHAR,  -- lemma of the last word
    synset     VARCHAR,  -- what it means; NULL when unknown or a word that only frames the picture
    method     VARCHAR,  -- rule that decided: curated, action, only, physical, first, head, frame, unknown
    confidence FLOAT     -- 0..1; only mentions of at least meta.confident count for objects
);

-- The training ontology: a tree of synsets rooted at entity.n.01, along the primary parents. A synset is an
-- object when at least meta.min_images images mention it or something below it in that tree, unless it has exactly
-- one such synset among its children and fewer than min_images images beside that child's (a unary chain, compressed).
CREATE TABLE main.objects (
    object         INTEGER,  -- dense number; a parent's is smaller than its children's; 0 is the root
    synset         VARCHAR,  -- its name
    parent         INTEGER,  -- the next object above; -1 for the root
    depth          INTEGER,  -- steps to the root in this tree
    own_pairs      BIGINT,   -- pairs with a mention whose nearest object is this one (itself, or a kind too rare to be an object)
    own_images     BIGINT,   -- their distinct images
    subtree_pairs  BIGINT,   -- pairs with a mention of this object or of one below it
    subtree_images BIGINT    -- their distinct images
);

-- Which pairs speak of which object, itself or through one below it in the tree (subtree membership).
CREATE TABLE main.members (
    object  INTEGER,  -- the object
    pair    BIGINT,   -- a pair that mentions it or something below it
    own     BOOLEAN,  -- some mention's nearest object is this one (self membership)
    deepest BOOLEAN   -- own, and the pair mentions no object below this one
);

-- For every object (with its subtree) what else the same captions name; the 200 most frequent others of each.
CREATE TABLE main.cooccurrences (
    object  INTEGER,  -- pairs of this object or of one below it ...
    other   INTEGER,  -- ... that also have a mention whose nearest object is this; neither above nor below it
    pairs   BIGINT,   -- how many such pairs
    place   INTEGER   -- rank by pairs, from 1
);

-- How this file was made: format, min_images, confident, content_hash and the versions of all that decided it.
CREATE TABLE main.meta (
    key   VARCHAR,  -- name
    value VARCHAR   -- text
);
