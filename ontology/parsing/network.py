"""What ``FastTagger`` must know of a spaCy pipeline, taken from it where it is built as known.

Known: hash embeddings of a word's own features, a window encoder, a linear tagger, an attribute
ruler whose rules can be asked word by word, and a rule or lookup lemmatizer. That is what spaCy's
small pipelines are, of any version; nothing of one version is written down here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .windows import Floats, Layer, WindowNetwork

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.matcher import Matcher

_PIPES = ["tok2vec", "tagger", "attribute_ruler", "lemmatizer"]
_FEATURES = {"NORM", "PREFIX", "SUFFIX", "SHAPE", "ORTH", "LOWER", "SPACY", "IS_SPACE"}
_EMBED = ["extract_features", "list2ragged", "with_array", "with_array", "ragged2list"]
_LAYER = "residual(expand_window>>maxout>>layernorm>>dropout)"
_OF_THE_WORD = {"LOWER", "ORTH", "TEXT", "IS_SPACE"}  # keys of rules that hold wherever it stands


class NotKnown(Exception):
    """A pipeline is built in another way; says in which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """The parts of a pipeline.

    Attributes:
        columns: what the embedding looks at, such as NORM. width: of a vector.
        windows: what follows the embedding.
        labels: the tagger's tags, in the order of its scores. triggers: finds words at which a
            rule over several words may begin.
    """

    columns: list[int | str]
    embedding: Any
    width: int
    windows: WindowNetwork
    labels: Sequence[str]
    triggers: Matcher

    def embed(self, features: np.ndarray[Any, np.dtype[np.uint64]]) -> Floats:
        """Embed words by their columns, (N, C) as ``Doc.to_array`` gives them: (N, D)."""
        vectors = features
        for layer in self.embedding.layers[2:4]:
            vectors = layer.predict(vectors)
        return np.asarray(vectors, np.float32)


def network_of(nlp: Language) -> Network:
    """Take a pipeline apart.

    Raises:
        NotKnown: it is not built as described above.
    """
    _check_pipes(nlp)
    pipes: list[Any] = [pipe for _, pipe in nlp.pipeline]
    tok2vec, tagger, ruler, _ = pipes
    embedding, encoder = _tok2vec_layers(tok2vec.model)
    listener, output = tagger.model.layers
    _expect(listener.name == "tok2vec-listener", "the tagger has a network of its own")
    _expect(output.name == "with_array(softmax)", "the tagger's last layer is not linear")
    softmax = output.layers[0]
    layers = [_window_layer(residual) for residual in encoder]
    return Network(
        columns=list(embedding.layers[0].attrs["columns"]),
        embedding=embedding,
        width=tok2vec.model.get_dim("nO"),
        windows=WindowNetwork(
            layers, softmax.get_param("W"), softmax.get_param("b"), tok2vec.model.ops.gemm
        ),
        labels=tagger.labels,
        triggers=_triggers(nlp, ruler.patterns),
    )


def hash_lemma_index(lemmatizer: Any) -> None:
    """Turn the lemmatizer's lists of known words into sets: it only asks what is in them."""
    index = lemmatizer.lookups.get_table("lemma_index", {})
    for pos, known in list(index.items()):
        index[pos] = frozenset(known)


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise NotKnown(otherwise)


def _check_pipes(nlp: Language) -> None:
    """Check that every component is spaCy's own class, not one derived from it."""
    from spacy.lang.en.lemmatizer import EnglishLemmatizer
    from spacy.pipeline import AttributeRuler, Lemmatizer, Tagger, Tok2Vec
    from spacy.tokenizer import Tokenizer
    from thinc.api import NumpyOps

    factories = [nlp.get_pipe_meta(name).factory for name in nlp.pipe_names]
    _expect(factories == _PIPES, f"its components are {', '.join(factories)}")
    pipes: list[Any] = [pipe for _, pipe in nlp.pipeline]
    tok2vec, tagger, ruler, lemmatizer = pipes
    kinds = [type(pipe) for pipe in (tok2vec, tagger, ruler)]
    _expect(kinds == [Tok2Vec, Tagger, AttributeRuler], "a component of another class")
    _expect(type(lemmatizer) in (Lemmatizer, EnglishLemmatizer), "an unknown lemmatizer")
    _expect(lemmatizer.mode in ("rule", "lookup"), f"lemmatizer of mode {lemmatizer.mode!r}")
    _expect(type(nlp.tokenizer) is Tokenizer, "an unknown tokenizer")
    _expect(isinstance(tok2vec.model.ops, NumpyOps), "it computes on another device")


def _tok2vec_layers(model: Any) -> tuple[Any, list[Any]]:
    """Return the embedding and the residual layers of the window encoder."""
    _expect(len(model.layers) == 2, "its tok2vec is not an embedding and an encoder")
    embedding, encoder = model.layers
    names = [layer.name.partition("(")[0] for layer in embedding.layers]
    _expect(names == _EMBED, f"embedding {embedding.name}")
    hashes, mixer = embedding.layers[2:4]
    parts = [part.name for part in hashes.layers[0].layers]
    _expect(set(parts) == {"ints-getitem>>hashembed"}, f"embedding {embedding.name}")
    _expect(mixer.name == "with_array(maxout>>layernorm>>dropout)", f"embedding {embedding.name}")
    features = set(embedding.layers[0].attrs["columns"])
    _expect(features <= _FEATURES, f"features {', '.join(sorted(features - _FEATURES))}")
    residuals = list(encoder.layers[0].layers) if encoder.name.startswith("with_array(") else []
    known = residuals and all(layer.name == _LAYER for layer in residuals)
    _expect(bool(known) and encoder.attrs["pad"] == len(residuals), f"encoder {encoder.name}")
    return embedding, residuals


def _window_layer(residual: Any) -> Layer:
    window, rest = residual.layers[0].layers
    maxout, norm = rest.layers[0].layers
    _expect(window.attrs["window_size"] == 1, f"a window of {window.attrs['window_size']}")
    layers = (maxout, maxout, norm, norm)
    params = [layer.get_param(name) for layer, name in zip(layers, "WbGb", strict=True)]
    _expect(all(p.dtype == np.float32 for p in params), "weights of another precision")
    return Layer.of(*params)


def _triggers(nlp: Language, rules: Sequence[Mapping[str, Any]]) -> Matcher:
    """Find the words at which a rule over several words may begin.

    Rules over one word may look at the word and its tag. Those that ask for a dependency never
    apply where no parser runs.
    """
    from spacy.matcher import Matcher

    triggers = Matcher(nlp.vocab)
    for pattern in _patterns(rules):
        keys = {key for token in pattern for key in token}
        _expect(keys <= _OF_THE_WORD | {"TAG"}, f"rules about {', '.join(sorted(keys))}")
        if len(pattern) > 1:
            first = {key: value for key, value in pattern[0].items() if key in _OF_THE_WORD}
            _expect(bool(first), "a rule over several words that begins anywhere")
            triggers.add("trigger", [[first]])
    return triggers


def _patterns(rules: Sequence[Mapping[str, Any]]) -> Iterator[Sequence[Mapping[str, Any]]]:
    for rule in rules:
        for pattern in rule["patterns"]:
            if not any(_never_applies(token.get("DEP")) for token in pattern):
                yield pattern


def _never_applies(dependency: Any) -> bool:
    """Say whether a rule asks for a dependency that a word without any, "", has not."""
    if isinstance(dependency, Mapping) and len(dependency) == 1:
        among = dependency.get("IN")
        apart = dependency.get("NOT_IN", ())
        return "" not in among if among is not None else "" in apart
    return isinstance(dependency, str) and bool(dependency)
