"""Small feature files of every family, written here by hand, not by the package."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

DIM = 8
NAMES = ("dog", "cat", "bus")
ATTRIBUTES = ("red", "wet", "old")


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a detector saw in one image."""

    key: str
    width: int = 64
    height: int = 48
    count: int = 3
    seed: int = 0
    arrays: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rng, n = np.random.default_rng(self.seed), self.count
        corners = np.sort(rng.random((n, 2, 2)), axis=1).reshape(n, 4)
        made = {
            "features": rng.standard_normal((n, DIM)).astype("<f4"),
            "boxes": (corners * np.tile([self.width, self.height], 2)).astype("<f4"),
            "labels": rng.integers(0, len(NAMES), n),
            "scores": np.sort(rng.random(n))[::-1].astype("<f4"),
            "attributes": np.array([rng.permutation(3) for _ in range(n)], int).reshape(n, 3),
            "attribute_scores": np.tile(np.array([0.5, 0.25, 0.0], "<f4"), (n, 1)),
        }
        for name, array in made.items():
            self.arrays.setdefault(name, array)

    def __getattr__(self, name: str) -> Any:
        try:
            return self.arrays[name]
        except KeyError:
            raise AttributeError(name) from None

    @property
    def geometry(self) -> np.ndarray:
        size = np.array([self.width, self.height], "<f4")
        low, high = self.boxes[:, :2] / size, self.boxes[:, 2:] / size
        return np.concatenate([low, high, high - low], axis=1).astype("<f4")


def b64(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def objects(one: Seen, *, attributes: bool = True) -> list[dict[str, Any]]:
    found = []
    for k in range(one.count):
        item = {
            "class": NAMES[one.labels[k]],
            "conf": float(one.scores[k]),
            "rect": [float(v) for v in one.boxes[k]],
        }
        if attributes:
            item["attributes"] = [ATTRIBUTES[a] for a in one.attributes[k]]
            item["attr_scores"] = [float(s) for s in one.attribute_scores[k]]
        found.append(item)
    return found


def scene_graph(one: Seen) -> str:
    items = objects(one)
    for k, item in enumerate(items):
        item["feature"] = b64(one.features[k])
    return f"{one.key}\t{json.dumps({'objects': items, 'relations': None})}"


def oscar(one: Seen, *, geometry: bool = True) -> str:
    values = np.concatenate([one.features, one.geometry], axis=1) if geometry else one.features
    return f"{one.key}\t{one.count}\t{b64(values.astype('<f4'))}"


def predictions(one: Seen) -> str:
    value = {"image_h": one.height, "image_w": one.width, "objects": objects(one)}
    return f"{one.key}\t{json.dumps(value)}"


def captioning(one: Seen) -> str:
    values = np.concatenate([one.features, one.geometry], axis=1).astype("<f4")
    return f"{one.key}\t{json.dumps({'num_boxes': one.count, 'features': b64(values)})}"


def captioning_label(one: Seen) -> str:
    return f"{one.key}\t{json.dumps(objects(one, attributes=False))}"


def bottom_up(one: Seen) -> str:
    cells = [one.key, one.width, one.height, one.count, b64(one.boxes), b64(one.features)]
    return "\t".join(map(str, cells))


def lxmert(one: Seen) -> str:
    best, score = one.attributes[:, :1], one.attribute_scores[:, :1]
    return _ten(one, one.labels, best, score)


def vinvl_fe(one: Seen) -> str:
    numbers, scores = np.zeros((one.count, 16), int), np.zeros((one.count, 16), "<f4")
    numbers[:, :3], scores[:, :3] = one.attributes + 1, one.attribute_scores
    return _ten(one, one.labels + 1, numbers, scores)


def _ten(one: Seen, labels: np.ndarray, attributes: np.ndarray, scores: np.ndarray) -> str:
    arrays = [labels.astype("<i8"), one.scores, attributes.astype("<i8"), scores]
    cells = [one.key, one.height, one.width, *map(b64, arrays), one.count]
    return "\t".join(map(str, [*cells, b64(one.boxes), b64(one.features)]))


def write_lines(path: Path, lines: Sequence[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


# family -> (file name, line writer, second file, its line writer)
FAMILIES: Mapping[str, tuple[str, Callable[[Seen], str], str, Callable[[Seen], str] | None]] = {
    "scene_graph": ("predictions.tsv", scene_graph, "", None),
    "oscar": ("features.tsv", oscar, "predictions.tsv", predictions),
    "oscar_captioning": ("x.feature.tsv", captioning, "x.label.tsv", captioning_label),
    "bottom_up": ("up.tsv", bottom_up, "", None),
    "lxmert": ("lx.tsv", lxmert, "", None),
    "vinvl_fe": ("fe.tsv", vinvl_fe, "", None),
}


def write_family(folder: Path, family: str, seen: Sequence[Seen]) -> Path:
    """Write the files of a family; return the one with the features."""
    name, line, mate, mate_line = FAMILIES[family]
    if mate_line is not None:
        write_lines(folder / mate, [mate_line(one) for one in seen])
    return write_lines(folder / name, [line(one) for one in seen])
