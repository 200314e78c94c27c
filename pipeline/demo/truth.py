"""Compare a dataset built from composed scenes with what was planted in them."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import FormatError, InputError, StaleInput

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LISTED = 20  # of the misses and confusions


@dataclass(frozen=True, slots=True, kw_only=True)
class _Planted:
    """A noun planted in a caption, by the pair's key."""

    pair_key: str
    start: int
    end: int
    noun: str
    synset: str


@dataclass(frozen=True, slots=True)
class _Found:
    """What the dataset says about a place in a caption."""

    start: int
    end: int
    lemma: str
    head: str
    synset: str | None = None


def measure(dataset: Path, truth: Path, feature_set: str = "grid") -> dict[str, Any]:
    """Measure what a build found of what was planted.

    A planted noun is found when a parsed noun ends where it ends, with the same last word in the
    singular; it is exact when the whole lemma is the planted one ("fire truck", not "truck"). Its
    synset is right when the mention at that place has the planted one. A planted object is located
    by the region of its image that overlaps each visible box best.

    Args:
        dataset: the dataset folder, with parse, ontology and extract done.
        truth: ``truth.jsonl`` of ``compose``.

    Returns:
        counts (``nouns_planted``, ``nouns_found``, ``nouns_exact``, ``synsets_right``, ``boxes``),
        shares between 0 and 1 (``noun_share``, ``synset_share``, ``iou_half_share``), ``iou_mean``,
        ``iou_by_size``, and what went wrong most: ``missed`` (noun: times) and ``confused`` (rows
        of noun, planted synset, found synset, times).

    Raises:
        StaleInput: a stage has not been run. InputError: the truth is about other images.
    """
    scenes = list(_scenes(truth))
    pairs = _read(dataset / "pairs.parquet", ["pair", "pair_key", "image"])
    known = set(pairs["pair_key"])
    planted = [p for scene in scenes for p in _planted(scene) if p.pair_key in known]
    if not planted:
        expected = "pairs of the composed scenes"
        raise InputError(dataset / "pairs.parquet", f"no pair of {truth.name}", expected=expected)
    keys = dict(zip(pairs["pair"], pairs["pair_key"], strict=True))
    return {
        "scenes": len(scenes),
        "pairs": len({p.pair_key for p in planted}),
        **_measure_nouns(planted, _nouns(dataset, keys)),
        **_measure_synsets(planted, _mentions(dataset, keys)),
        **_measure_regions(scenes, _image_numbers(dataset), dataset / "features" / feature_set),
    }


def iou(box: Sequence[float], boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Measure how much a box shares with each of many: intersection over union.

    >>> iou([0, 0, 2, 2], np.array([[0, 0, 2, 2], [1, 0, 3, 2], [5, 5, 6, 6]], np.float32)).round(2)
    array([1.  , 0.33, 0.  ], dtype=float32)
    """
    own = np.asarray(box, np.float32)
    inner = np.minimum(boxes[:, 2:], own[2:]) - np.maximum(boxes[:, :2], own[:2])
    shared = np.prod(np.clip(inner, 0, None), 1)
    union = np.prod(boxes[:, 2:] - boxes[:, :2], 1) + np.prod(own[2:] - own[:2]) - shared
    return shared / np.maximum(union, np.float32(1e-6))


def _scenes(truth: Path) -> Iterator[dict[str, Any]]:
    try:
        with truth.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                yield _scene(truth, number, line)
    except FileNotFoundError:
        do = "compose the scenes first: tonics demo"
        raise StaleInput(truth, "is not there", do=do) from None


def _scene(truth: Path, number: int, line: str) -> dict[str, Any]:
    try:
        scene = json.loads(line)
    except ValueError as error:
        raise FormatError(f"{truth}:{number}", f"not valid JSON ({error})") from error
    if not {"image_id", "objects", "captions"} <= set(scene):
        raise FormatError(f"{truth}:{number}", "not the truth about a scene")
    return scene


def _planted(scene: Mapping[str, Any]) -> Iterator[_Planted]:
    for order, caption in enumerate(scene["captions"]):
        for noun in caption["nouns"]:
            yield _Planted(
                pair_key=f"{scene['image_id']}#{order}",
                start=noun["start"],
                end=noun["end"],
                noun=noun["noun"].lower(),
                synset=noun["synset"],
            )


def _measure_nouns(
    planted: Sequence[_Planted], found: Mapping[str, Sequence[_Found]]
) -> dict[str, Any]:
    right = exact = 0
    missed: Counter[str] = Counter()
    for noun in planted:
        here = [f for f in found.get(noun.pair_key, ()) if f.end == noun.end]
        same = any(f.head == noun.noun.split()[-1] for f in here)
        right += same
        exact += any(f.lemma == noun.noun for f in here)
        missed[noun.noun] += not same
    return {
        "nouns_planted": len(planted),
        "nouns_found": right,
        "nouns_exact": exact,
        "noun_share": right / len(planted),
        "missed": {noun: times for noun, times in missed.most_common(_LISTED) if times},
    }


def _measure_synsets(
    planted: Sequence[_Planted], found: Mapping[str, Sequence[_Found]]
) -> dict[str, Any]:
    right, confused = 0, Counter[tuple[str, str, str]]()
    for noun in planted:
        here = [f for f in found.get(noun.pair_key, ()) if f.end == noun.end]
        if any(f.synset == noun.synset for f in here):
            right += 1
        else:
            # The longest noun that ends here is what the dataset takes the place to mean.
            said = min(here, key=lambda f: f.start).synset if here else None
            confused[noun.noun, noun.synset, said or ""] += 1
    return {
        "synsets_right": right,
        "synset_share": right / len(planted),
        "confused": [[*what, times] for what, times in confused.most_common(_LISTED)],
    }


def _measure_regions(
    scenes: Iterable[Mapping[str, Any]], numbers: Mapping[str, int], folder: Path
) -> dict[str, Any]:
    from ...features import FeatureStore

    store = FeatureStore(folder)
    best: dict[str, list[float]] = defaultdict(list)
    for scene in scenes:
        image = numbers.get(str(scene["image_id"]))
        if image is None or image not in store:
            continue
        boxes = np.asarray(store[image].boxes, np.float32)
        for planted in scene["objects"]:
            for box in planted["boxes_xyxy"]:
                overlap = iou(box, boxes) if len(boxes) else np.zeros(1, np.float32)
                best[planted["size"]].append(float(overlap.max()))
    if not best:
        raise InputError(folder, "holds no image of the scenes", do="run 'tonics extract'")
    every = np.concatenate([np.asarray(values) for _, values in sorted(best.items())])
    return {
        "boxes": len(every),
        "iou_mean": float(every.mean()),
        "iou_half_share": float((every >= 0.5).mean()),
        "iou_by_size": {size: float(np.mean(values)) for size, values in sorted(best.items())},
    }


def _image_numbers(dataset: Path) -> dict[str, int]:
    images = _read(dataset / "images.parquet", ["image", "image_id"])
    return dict(zip(images["image_id"], images["image"], strict=True))


def _nouns(dataset: Path, keys: Mapping[int, str]) -> dict[str, list[_Found]]:
    files = sorted((dataset / "nouns").glob("*.parquet"))
    if not files:
        raise StaleInput(dataset / "nouns", "has no noun tables", do="run 'tonics run parse'")
    found: dict[str, list[_Found]] = defaultdict(list)
    for file in files:
        columns = _read(file, ["pair", "start", "end", "lemma", "head"])
        for pair, *rest in zip(*columns.values(), strict=True):
            if pair in keys:
                found[keys[pair]].append(_Found(*rest))
    return found


def _mentions(dataset: Path, keys: Mapping[int, str]) -> dict[str, list[_Found]]:
    import duckdb

    file = dataset / "ontology.duckdb"
    if not file.exists():
        raise StaleInput(file, "is not there", do="run 'tonics run ontology'")
    found: dict[str, list[_Found]] = defaultdict(list)
    with duckdb.connect(str(file), read_only=True) as database:
        rows = database.execute(
            'SELECT pair, start, "end", lemma, head, synset FROM mentions ORDER BY pair, start'
        ).fetchall()
    for pair, *rest in rows:
        if pair in keys:
            found[keys[pair]].append(_Found(*rest))
    return found


def _read(file: Path, columns: Sequence[str]) -> dict[str, list[Any]]:
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(file, columns=list(columns), partitioning=None)
    except FileNotFoundError:
        raise StaleInput(file, "is not there", do="run 'tonics run'") from None
    return {name: table.column(name).to_pylist() for name in columns}
