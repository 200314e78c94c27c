"""The demo dataset: scenes of cut-out photographs, with captions and with the truth about both.

``stamps`` finds the photographs (Debian's ``tuxpaint-stamps-default``) and what people call them;
``dealing`` decides which objects share a scene; ``grounds`` draws what they stand on; ``layout``
places them; ``grammar`` writes five captions, from ``phrases`` and true ``relations``;
``scenes.compose`` does all of it for many scenes, and ``summary`` says what came of it;
``truth.measure`` compares a dataset built from them with what was planted.

The tables beside the code are curated by hand: ``objects.tsv`` (a row a photograph), ``nouns.tsv``
(a row a noun, with its WordNet 3.0 synset) and ``excluded.tsv`` (what is left out, and why).
"""
