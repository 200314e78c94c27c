"""What decides VinVL's numbers: the shape of the model, its thresholds, how it computes.

The defaults are the published X152-C4 model and the settings of its feature extraction; a small
model for tests is the same code with other numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from ...errors import ConfigError

WHERE = "detector 'vinvl'"
DOWNLOAD = (
    "download VinVL's X152-C4 object-attribute checkpoint and its label map "
    "VG-SGG-dicts-vgoi6-clipped.json (Hugging Face: michelecafagna26/vinvl_vg_x152c4)"
)
STRIDE = 16  # pixels of input under one cell of the map that regions are cut from
# What decides only how fast it is, not what comes out.
RUNTIME = ("batch_size", "padded_batch")


@dataclass(frozen=True, slots=True, kw_only=True)
class VinVLConfig:
    """The published model unless told otherwise; every field can be set in ``tonics.toml``.

    Attributes:
        depths: blocks of the four stages; the last stage describes regions.
        groups: groups of every 3x3 convolution.
        group_width: channels of a group in the first stage; doubled from stage to stage.
        stem_width: channels of the first convolution.
        stage_width: channels the first stage gives; doubled from stage to stage.
        num_classes: classes with the background; None: as many as the label map names, and one.
        num_attributes: attributes with "none"; None: as many as the label map names, and one.
        embedding_width: numbers that stand for a class in the attribute head.
        attribute_width: numbers between the attribute head's two layers.
        anchor_sizes: sides of the anchors, in pixels of the input.
        anchor_ratios: heights of the anchors over their widths.
        pooled_size: cells along each side of a pooled region.
        min_size: the short side is resized to this many pixels,
        max_size: unless the long side would pass this many.
        pixel_mean: blue, green and red, subtracted from the pixels (0 to 255).
        candidates: boxes, best first, that go into the suppression of proposals.
        proposals: boxes that leave it.
        proposal_nms_thresh: the overlap (IoU) above which a proposal is suppressed.
        ignore_box_regression: keep the proposals as boxes (extraction), or move them as the class
            head says (the reference's demo); attributes then come from the moved boxes.
        nms_filter: 0: suppression within each class, a proposal may appear under several classes;
            1: one class a proposal, the best that survives in its class; 2: one class a proposal,
            suppression regardless of class (fast).
        nms: "torchvision": suppress if IoU > threshold; "legacy": boxes are one pixel wider and
            higher, suppress if IoU >= threshold.
        nms_thresh: the overlap of filters 0 and 2.
        class_nms_thresh: the overlap of filter 1, 0.3 in the reference's code.
        score_thresh: what a detection must score, between
        min_detections: detections at least, as far as there are any, and
        max_detections: detections at most.
        attribute_thresh: attributes that score no more get score 0.
        precision: numbers of the convolutions: "float32", "float16", "bfloat16", or "auto":
            float32 on a CPU and float16 elsewhere. Boxes and scores are always float32.
        batch_size: images passed at once on a GPU; on a CPU it is always one.
        padded_batch: images of similar shape computed together on a GPU; a CPU computes one by one.
    """

    depths: tuple[int, ...] = (3, 8, 36, 3)
    groups: int = 32
    group_width: int = 8
    stem_width: int = 64
    stage_width: int = 256
    num_classes: int | None = None
    num_attributes: int | None = None
    embedding_width: int = 256
    attribute_width: int = 512
    anchor_sizes: tuple[int, ...] = (32, 64, 128, 256, 512)
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    pooled_size: int = 14
    min_size: int = 600
    max_size: int = 1000
    pixel_mean: tuple[float, ...] = (103.530, 116.280, 123.675)
    candidates: int = 6000
    proposals: int = 300
    proposal_nms_thresh: float = 0.7
    ignore_box_regression: bool = True
    nms_filter: Literal[0, 1, 2] = 1
    nms: Literal["torchvision", "legacy"] = "torchvision"
    nms_thresh: float = 0.5
    class_nms_thresh: float = 0.3
    score_thresh: float = 0.2
    min_detections: int = 10
    max_detections: int = 100
    attribute_thresh: float = 0.05
    precision: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    batch_size: int = 16
    padded_batch: int = 8

    def __post_init__(self) -> None:
        for field in fields(self):
            if isinstance(value := getattr(self, field.name), list):
                object.__setattr__(self, field.name, tuple(value))
        _check(self)

    @property
    def dim(self) -> int:
        """D, the numbers that describe a region."""
        return self.stage_width * 2 ** (len(self.depths) - 1)

    @property
    def num_anchors(self) -> int:
        """Anchors of one cell of the map."""
        return len(self.anchor_sizes) * len(self.anchor_ratios)

    def deciding(self) -> dict[str, Any]:
        """Name what decides the numbers, for a fingerprint."""
        values = asdict(self)
        for name in RUNTIME:
            del values[name]
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


def on_cpu(device: object) -> bool:
    """Tell whether a device, or its name, is the CPU: there images are computed one by one."""
    return str(device).partition(":")[0] == "cpu"


def config_from(settings: Mapping[str, Any]) -> VinVLConfig:
    """Make a config from the plain values of ``tonics.toml``.

    Raises:
        ConfigError: unknown setting, or a value that is not allowed.
    """
    known = [field.name for field in fields(VinVLConfig)]
    for key in settings:
        if key not in known:
            expected = f"one of checkpoint, label_map, {', '.join(known)}"
            raise ConfigError(WHERE, f"unknown setting {key!r}", expected=expected)
    return VinVLConfig(**settings)


_COUNTS = (
    *("groups", "group_width", "stem_width", "stage_width", "embedding_width", "attribute_width"),
    *("pooled_size", "min_size", "max_size", "candidates", "proposals", "max_detections"),
    *("batch_size", "padded_batch"),
)
_SHARES = (
    *("proposal_nms_thresh", "nms_thresh", "class_nms_thresh", "score_thresh"),
    "attribute_thresh",
)
_CHOICES: dict[str, tuple[object, ...]] = {
    "ignore_box_regression": (True, False),
    "nms_filter": (0, 1, 2),
    "nms": ("torchvision", "legacy"),
    "precision": ("auto", "float32", "float16", "bfloat16"),
}


def _check(config: VinVLConfig) -> None:
    """Refuse values no model can have.

    Raises:
        ConfigError: the message names the setting, its value and what is allowed.
    """

    def demand(key: str, good: bool, expected: str) -> None:
        if not good:
            found = f"{key} = {getattr(config, key)!r}"
            raise ConfigError(WHERE, found, expected=expected)

    def whole(value: object, low: int) -> bool:
        return type(value) is int and low <= value < 2**31

    def numbers(key: str, count: int | None, low: float) -> bool:
        values = getattr(config, key)
        good = isinstance(values, tuple) and 0 < len(values) == (count or len(values))
        return good and all(type(v) in (int, float) and low < v < 1e9 for v in values)

    for key in _COUNTS:
        demand(key, whole(getattr(config, key), 1), "a whole number, 1 or more")
    for key in ("num_classes", "num_attributes"):
        value = getattr(config, key)
        demand(key, value is None or whole(value, 2), "a whole number, 2 or more")
    demand("min_detections", whole(config.min_detections, 0), "a whole number, 0 or more")
    for key in _SHARES:
        value = getattr(config, key)
        demand(key, type(value) in (int, float) and 0 <= value <= 1, "a number from 0 to 1")
    for key, choices in _CHOICES.items():
        value = getattr(config, key)
        good = any(type(value) is type(choice) and value == choice for choice in choices)
        demand(key, good, f"one of {', '.join(map(repr, choices))}")
    whole_depths = numbers("depths", 4, 0) and all(whole(v, 1) for v in config.depths)
    demand("depths", whole_depths, "4 whole numbers, 1 or more")
    demand("anchor_sizes", numbers("anchor_sizes", None, 0), "positive numbers")
    demand("anchor_ratios", numbers("anchor_ratios", None, 0), "positive numbers")
    demand("pixel_mean", numbers("pixel_mean", 3, -1e9), "3 numbers")
    demand("max_size", config.max_size >= config.min_size, "min_size or more")
    demand(
        "min_detections",
        config.min_detections <= config.max_detections,
        "max_detections or less",
    )
