"""Reads the model's weights: strictly, with batch norms folded, never two copies at once.

The reference skips what is missing or has another shape without a word. Here the keys must be
exactly the model's, but for what a checkpoint may leave out: the attribute head's second copy of
the fourth stage, and the anchors.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash
from torch import Tensor

from ...errors import ConfigError, InputError, MissingAsset, first_ten
from .config import DOWNLOAD, VinVLConfig

ANCHORS = "rpn.anchor_generator.cell_anchors.0"
_ALIAS, _TWIN = "attribute.feature_extractor.", "roi_heads.box.feature_extractor."
_NORM = ("weight", "bias", "running_mean", "running_var")
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"  # what torch.save writes, since 1.6 and before
_UNREADABLE = (RuntimeError, OSError, EOFError, ValueError, LookupError, struct.error)
_CONVERT = (
    "download it again, or, if you trust it, keep its weights only: "
    "torch.save({'model': torch.load(OLD, weights_only=False)['model']}, NEW)"
)
_HINT = "take the checkpoint and the label map of the same model; docs/vinvl.md says where they are"


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a file that ``torch.save`` wrote, mapped into memory where its format allows.

    Raises:
        MissingAsset: there is no such file.
        InputError: it is no checkpoint, or holds more than tensors.
    """
    if not Path(path).is_file():
        raise MissingAsset(path, "no such file", do=DOWNLOAD)
    mapped = _begins(path) == _ZIP  # files of torch before 1.6 cannot be mapped
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise InputError(path, "holds more than tensors, or is damaged", do=_CONVERT) from error
    except _UNREADABLE as error:
        found = "cannot be read: cut short, damaged, or no checkpoint"
        raise InputError(path, found, do="download it again") from error
    if not isinstance(state, Mapping):
        found = f"holds a {type(state).__name__}"
        raise InputError(path, found, expected="a dict of tensors, or {'model': such a dict}")
    return dict(state)


def _begins(path: str | Path) -> bytes:
    """Read a file's first bytes.

    Raises:
        InputError: they are those of no file that ``torch.save`` wrote, such as a web page.
    """
    try:
        with Path(path).open("rb") as file:
            start = file.read(16)
    except OSError as error:
        raise InputError(path, f"cannot be read: {error.strerror}") from error
    if not start.startswith((_ZIP, _PICKLE)):
        found = f"not a checkpoint: it begins with {start.decode('ascii', 'replace')!r}"
        do = "download it again: the file itself, not a page about it"
        raise InputError(path, found if start else "not a checkpoint: it is empty", do=do)
    return start[:4]


def state_hash(state: Mapping[str, Any]) -> str:
    """Hash the names, types, shapes and bytes of a state dict, in the order of the names."""
    hashed = xxhash.xxh3_128()
    for key, value in sorted(unwrapped(state).items()):
        array = np.ascontiguousarray(_tensor(key, value).numpy())
        hashed.update(f"{key} {array.dtype} {array.shape};".encode())
        hashed.update(array.reshape(-1).view(np.uint8).data)
    return hashed.hexdigest()


def unwrapped(state: Mapping[str, Any]) -> dict[str, Any]:
    """Take the weights out of ``{'model': ...}``, and ``module.`` from their names if all have it.

    They may also lie under ``state_dict``, where other trainers put them.

    >>> unwrapped({"model": {"module.a.weight": 1, "module.a.bias": 2}})
    {'a.weight': 1, 'a.bias': 2}
    """
    wrappers = (state.get(key) for key in ("model", "state_dict"))
    inner = next((own for own in wrappers if isinstance(own, Mapping)), state)
    prefix = "module."
    if inner and all(str(key).startswith(prefix) for key in inner):
        return {str(key).removeprefix(prefix): value for key, value in inner.items()}
    return {str(key): value for key, value in inner.items()}


def expected_shapes(config: VinVLConfig, classes: int, attributes: int) -> dict[str, tuple]:
    """List every key of a full state dict with its shape; 841 for the published model."""
    shapes = dict(_backbone_shapes(config))
    width, anchors, dim = config.stage_width * 4, config.num_anchors, config.dim
    joined = dim + config.embedding_width
    shapes |= {ANCHORS: (anchors, 4)}
    shapes |= _layer("rpn.head.conv", (width, width, 3, 3))
    shapes |= _layer("rpn.head.cls_logits", (anchors, width, 1, 1))
    shapes |= _layer("rpn.head.bbox_pred", (4 * anchors, width, 1, 1))
    shapes |= _layer("roi_heads.box.predictor.cls_score", (classes, dim))
    shapes |= _layer("roi_heads.box.predictor.bbox_pred", (4 * classes, dim))
    shapes |= {"attribute.predictor.cls_embedding.weight": (classes, config.embedding_width)}
    shapes |= _layer("attribute.predictor.fc_attr", (config.attribute_width, joined))
    shapes |= _layer("attribute.predictor.attr_score", (attributes, config.attribute_width))
    twins = {k: v for k, v in shapes.items() if k.startswith(_TWIN)}
    return shapes | {_ALIAS + k.removeprefix(_TWIN): v for k, v in twins.items()}


def _layer(name: str, shape: tuple[int, ...]) -> dict[str, tuple]:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def _backbone_shapes(config: VinVLConfig) -> Iterator[tuple[str, tuple]]:
    body = "backbone.body"
    yield from _conv_shapes(f"{body}.stem.conv1", f"{body}.stem.bn1", (config.stem_width, 3, 7, 7))
    into = config.stem_width
    stages = [f"{body}.layer{k}" for k in (1, 2, 3)] + [f"{_TWIN}head.layer4"]
    for index, (prefix, depth) in enumerate(zip(stages, config.depths, strict=True)):
        narrow = config.groups * config.group_width * 2**index
        wide = config.stage_width * 2**index
        for number in range(depth):
            block = f"{prefix}.{number}"
            shapes = (
                (narrow, into, 1, 1),
                (narrow, narrow // config.groups, 3, 3),
                (wide, narrow, 1, 1),
            )
            for k, shape in enumerate(shapes, start=1):
                yield from _conv_shapes(f"{block}.conv{k}", f"{block}.bn{k}", shape)
            if into != wide:
                names = (f"{block}.downsample.0", f"{block}.downsample.1")
                yield from _conv_shapes(*names, (wide, into, 1, 1))
            into = wide


def _conv_shapes(name: str, norm: str, shape: tuple[int, ...]) -> Iterator[tuple[str, tuple]]:
    yield f"{name}.weight", shape
    yield from ((f"{norm}.{part}", shape[:1]) for part in _NORM)


def checked(
    state: Mapping[str, Any], expected: Mapping[str, tuple], where: object
) -> dict[str, Tensor]:
    """Check a state dict against what the model needs, and drop second copies.

    Args:
        state: names to tensors or numpy arrays, as ``unwrapped`` gives them.
        where: the file, for messages.

    Raises:
        InputError: keys are missing, unexpected or of another shape, values are no finite
            numbers, or two copies of a weight differ; the message lists the first ten of each kind.
    """
    optional = {k for k in expected if k.startswith(_ALIAS)} | {ANCHORS}
    tensors = {k: _tensor(k, v, where) for k, v in state.items() if k in expected}
    wrong = {k: tuple(v.shape) for k, v in tensors.items() if tuple(v.shape) != expected[k]}
    troubles = {
        "missing": [k for k in expected if k not in state and k not in optional],
        "unexpected": [k for k in state if k not in expected],
        "of another shape": [f"{k} {v} not {expected[k]}" for k, v in wrong.items()],
        "not finite": [k for k, v in tensors.items() if not bool(v.isfinite().all())],
    }
    if not wrong:
        troubles["unlike their second copy"] = _unlike_their_twin(tensors)
    if any(troubles.values()):
        _refuse(troubles, where)
    return {k: v for k, v in tensors.items() if not k.startswith(_ALIAS)}


def _unlike_their_twin(tensors: Mapping[str, Tensor]) -> list[str]:
    aliases = [k for k in tensors if k.startswith(_ALIAS)]
    twins = ((k, _TWIN + k.removeprefix(_ALIAS)) for k in aliases)
    return [k for k, twin in twins if twin in tensors and not tensors[k].equal(tensors[twin])]


def _refuse(troubles: Mapping[str, list[str]], where: object) -> None:
    some = {kind: keys for kind, keys in troubles.items() if keys}
    counts = ", ".join(f"{len(keys)} {kind}" for kind, keys in some.items())
    lists = "; ".join(f"{kind}: {first_ten(list(keys))}" for kind, keys in some.items())
    raise InputError(where, f"the model's keys do not fit ({counts}); {lists}", do=_HINT)


def _tensor(key: str, value: Any, where: object = "state dict") -> Tensor:
    """Take a tensor or an array of numbers as a float32 tensor on the CPU."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiu":
        value = torch.from_numpy(np.ascontiguousarray(value))
    if not isinstance(value, Tensor) or value.is_complex():
        found = f"{key!r} is a {type(value).__name__}"
        raise InputError(where, found, expected="a tensor or an array of numbers", do=_HINT)
    return value.detach().to("cpu", torch.float32)


class Weights:
    """Hands out a state dict's tensors, each once: what was handed out is no longer held here.

    Args:
        state: as ``checked`` gives it.
        device: where the weights go.
        dtype: of convolutions; everything else stays float32.
        where: the file, for messages.

    Raises:
        ConfigError: this torch does not know the device, or the machine has none.
    """

    def __init__(
        self,
        state: dict[str, Tensor],
        device: str,
        dtype: torch.dtype,
        where: object = "state dict",
    ) -> None:
        self._state, self._device, self._dtype, self._where = state, device, dtype, where
        try:
            torch.zeros(1, device=device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            expected = "a device of this machine, such as 'cpu'"
            raise ConfigError("device", f"{device!r} ({reason})", expected=expected) from error

    def __contains__(self, key: str) -> bool:
        return key in self._state

    def plain(self, key: str) -> Tensor:
        """Take a tensor as it is, float32."""
        return self._state.pop(key).to(self._device, copy=True)

    def convolution(self, name: str, norm: str = "") -> tuple[Tensor, Tensor]:
        """Take a convolution's weight (channels last) and bias.

        Args:
            norm: the frozen batch norm to fold in: scale = weight / sqrt(variance), without the
                usual epsilon, as in the reference.

        Raises:
            InputError: a number is too large for the dtype, or a variance is not positive.
        """
        weight = self._state.pop(f"{name}.weight")
        if norm:
            scale, bias, mean, variance = (self._state.pop(f"{norm}.{part}") for part in _NORM)
            scale = scale * variance.rsqrt()
            weight, bias = weight * scale[:, None, None, None], bias - mean * scale
        else:
            bias = self._state.pop(f"{name}.bias")
        placed = weight.to(self._device, self._dtype, copy=True, memory_format=torch.channels_last)
        shift = bias.to(self._device, self._dtype, copy=True)
        if not bool(placed.isfinite().all() & shift.isfinite().all()):
            found = f"{name!r}, with its norm, is beyond {self._dtype}"
            raise InputError(self._where, found, do=precision_hint(self._dtype))
        return placed, shift

    def check_anchors(self, made: np.ndarray) -> None:
        """Refuse a checkpoint that was trained with other anchors (n, 4) than the config says.

        Raises:
            InputError: they differ by more than rounding.
        """
        own = self._state.pop(ANCHORS, None)
        if own is not None and not np.allclose(own.numpy(), made, rtol=0, atol=0.01):
            row = int(np.abs(own.numpy() - made).max(axis=1).argmax())
            found = f"anchor {row} is {own[row].tolist()}"
            do = "set anchor_sizes and anchor_ratios as the model was trained"
            raise InputError(self._where, found, expected=f"{made[row].tolist()}", do=do)


def precision_hint(dtype: torch.dtype) -> str:
    """Say what helps against numbers that are not finite."""
    if dtype == torch.float16:
        return "set precision = 'bfloat16' or 'float32', or check the checkpoint"
    return "check the checkpoint, and what it is given"
