"""From a caption to its nouns: spaCy's tags, many captions at once, and rules that read them."""
