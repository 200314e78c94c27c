-- The ontology of a dataset: what its captions talk about.
--
-- Each `--` comment behind a column or above a table is also stored in the file (duckdb_columns(), duckdb_tables()).
-- Tables are sorted as they are mostly asked for and carry no keys or indexes: zone maps on sorted columns
-- are enough, and a plain file opens in older clients. Numbers of pairs and images are those of the dataset.
-- A mention is confident when it has a synset and at least meta.confident; only those count as membership.

-- The WordNet noun synsets that some caption mentions, and all their ancestors.
CREATE TABLE main.synsets (
    synset         VARCHAR,    -- name, such as dog.n.01
    lemmas         VARCHAR[],  -- the words for it, with spaces: [dog, domestic dog, Canis familiaris]
    definition     VARCHAR,    -- WordNet's gloss
    lexname        VARCHAR,    -- WordNet's coarse class, such as noun.animal
    depth          INTEGER,    -- steps to entity.n.01 along the primary parents (0: entity.n.01 itself)
    parent         VARCHAR,    -- primary parent: of its hypernyms one under physical_entity.n.01 first, then the deepest below the root, then the first by name; NULL for the root
    object         INTEGER,    -- the nearest object at or above it along the primary parents
    self_pairs     BIGINT,     -- pairs with a confident mention of exactly this synset
    self_images    BIGINT,     -- their distinct images
    subtree_pairs  BIGINT,     -- pairs with a confident mention of it or of anything below it over all hypernyms
    subtree_images BIGINT      -- their distinct images
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

-- Synsets that WordNet keeps apart and photographs do not: the first stands nowhere else in this file.
CREATE TABLE main.merged (
    synset VARCHAR,  -- what it is called in WordNet: food.n.02
    kept   VARCHAR,  -- the synset that stands for both here: food.n.01
    why    VARCHAR   -- the reason
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
    synset     VARCHAR,  -- what it means; NULL when unknown or a word that only frames or measures what the picture shows
    method     VARCHAR,  -- rule that decided, as in table senses
    confidence FLOAT     -- 0..1; only mentions of at least meta.confident count for objects
);

-- What each distinct noun was decided to mean, by which rule, and how often captions use it so.
CREATE TABLE main.senses (
    lemma        VARCHAR,    -- the noun or compound
    head         VARCHAR,    -- lemma of its last word
    synset       VARCHAR,    -- what it means; NULL when left out
    method       VARCHAR,    -- rule that decided: see ontology/senses.py; frame, measure and unknown have no synset
    confidence   FLOAT,      -- 0..1
    alternatives VARCHAR[],  -- the other WordNet senses of the noun, the most frequent first
    mentions     BIGINT,     -- how often
    pairs        BIGINT,     -- in how many captions
    images       BIGINT      -- of how many images
);

-- Which synset a word stands for in this dataset: the one that most mentions of it mean (confident ones first), else
-- the first synset of the dataset that WordNet lists it under.
CREATE TABLE main.words (
    word     VARCHAR,  -- lower case, with spaces; as captions write it (dogs), as a lemma (dog), or a word for a synset
    synset   VARCHAR,  -- what it stands for
    mentions BIGINT    -- how many mentions say so; 0 when only WordNet does
);

-- Which pairs speak of a synset or of anything below it in the whole graph (subtree membership over all hypernyms).
CREATE TABLE main.synset_pairs (
    synset VARCHAR,  -- the synset
    pair   BIGINT,   -- a pair with a confident mention of it or of something below it
    start  INTEGER,  -- first character of the first such noun in the caption (0-based)
    "end"  INTEGER,  -- one past its last character
    self   BOOLEAN   -- some mention means exactly this synset (self membership)
);

-- Which images have such a pair.
CREATE TABLE main.synset_images (
    synset VARCHAR,  -- the synset
    image  BIGINT,   -- an image one of whose captions mentions it or something below it
    pairs  INTEGER   -- in how many of its captions
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
    subtree_pairs  BIGINT,   -- pairs with a mention of this object or of one below it in this tree
    subtree_images BIGINT    -- their distinct images
);

-- Which pairs speak of which object, itself or through one below it in the tree (subtree membership along primary parents).
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

-- What the dataset is about, by WordNet's coarse classes of nouns.
CREATE TABLE main.classes (
    class    VARCHAR,   -- animal, artifact, person, ...: the lexname of a mentioned synset; a topmost synset (person.n.01) is of the class it begins
    images   BIGINT,    -- images with a confident mention of that class
    pairs    BIGINT,    -- pairs with one
    foremost VARCHAR[]  -- its five synsets with the most images
);

-- How this file was made: format, min_images, confident, content_hash and the versions of all that decided it.
CREATE TABLE main.meta (
    key   VARCHAR,  -- name
    value VARCHAR   -- text
);
