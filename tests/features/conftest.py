"""Small feature stores made by code, and the way to the real photos beside the repository."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from tonics.artifact import atomic_file
from tonics.features import Regions
from tonics.features.detector import Label, Vocabulary
from tonics.features.writer import write_index, write_shard

DIM = 6
WIDTH, HEIGHT = 320, 240
ARRAYS = ("features", "boxes", "labels", "scores", "attributes", "attribute_scores")


def make_regions(seed: int, n: int, *, attributes: bool = True, dim: int = DIM) -> Regions:
    """Invent n regions of one image."""
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.random((n, 2, 2)), axis=1).reshape(n, 4)
    k = n if attributes else 0
    return Regions(
        features=rng.standard_normal((n, dim)).astype(np.float16),
        boxes=(corners * [WIDTH, HEIGHT, WIDTH, HEIGHT]).astype(np.float32),
        labels=rng.integers(0, 5, n).astype(np.uint16),
        scores=np.sort(rng.random(n))[::-1].astype(np.float32),
        attributes=rng.integers(0, 3, (k, 16)).astype(np.uint16),
        attribute_scores=rng.random((k, 16)).astype(np.float16),
        width=WIDTH,
        height=HEIGHT,
    )


def assert_same(found: Regions, expected: Regions) -> None:
    """Compare two images' regions bit by bit."""
    for name in ARRAYS:
        one, other = getattr(found, name), getattr(expected, name)
        assert one.dtype == other.dtype, name
        np.testing.assert_array_equal(one, other, err_msg=name)
    assert (found.width, found.height) == (expected.width, expected.height)


def build_store(
    folder: Path,
    rows: Mapping[int, Regions],
    *,
    shard_rows: int = 1000,
    batch_bytes: int = 1 << 20,
    dim: int = DIM,
) -> Path:
    """Write rows as a store of several shards."""
    images = sorted(rows)
    for shard, start in enumerate(range(0, max(1, len(images)), shard_rows)):
        part = [(image, rows[image]) for image in images[start : start + shard_rows]]
        with atomic_file(folder / f"{shard:05d}.arrow") as tmp:
            write_shard(tmp, part, dim=dim, batch_bytes=batch_bytes)
    write_index(folder, vocabulary())
    return folder


def vocabulary() -> Vocabulary:
    labels = (Label("dog", "dog.n.01", "n02084071"), *(Label(f"thing {k}") for k in range(4)))
    return Vocabulary(labels=labels, attributes=("red", "large", "wet"))


@pytest.fixture(scope="session")
def regions() -> Callable[..., Regions]:
    return make_regions


@pytest.fixture(scope="session")
def same() -> Callable[[Regions, Regions], None]:
    return assert_same


@pytest.fixture(scope="session")
def build() -> Callable[..., Path]:
    return build_store


@pytest.fixture
def rows() -> dict[int, Regions]:
    """Thirty images with gaps in their numbers: 0 to 4 regions, every third one no attributes."""
    return {7 * k + 2: make_regions(k, k % 5, attributes=k % 3 != 0) for k in range(30)}


@pytest.fixture
def folder(tmp_path: Path, rows: dict[int, Regions]) -> Path:
    """A store of the rows: three shards of many record batches."""
    return build_store(tmp_path / "store", rows, shard_rows=12, batch_bytes=500)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real photos beside the repository; for tests marked ``shared``."""
    path = Path(__file__).resolve().parents[3] / "shared" / "data"
    if not path.is_dir():
        pytest.skip("no ../shared/data beside the repository")
    return path
