"""What builders work on, read from a dataset: eligible pairs, the object tree, vectors."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...features import FeatureStore
from ..config import Plan
from ..dataset import Dataset
from ..vectors import Vectors
from .eligible import Eligible, Objects, find_eligible
from .pooled import pooled_images
from .similarity import Codes, encode

Read = Callable[[np.ndarray], np.ndarray]


def load_eligible(
    dataset: Dataset, plan: Plan, store: FeatureStore, needs: Collection[str]
) -> Eligible:
    """Read the pairs a plan may use, with what its builders need: ``objects, text, image``.

    Raises:
        InputError: no pair is eligible, or a vector is not finite.
    """
    eligible = find_eligible(dataset.pairs(), dataset.images(), store, plan.split)
    vectors: dict[str, Codes] = {}
    if "text" in needs:
        read = Vectors(dataset, plan.embeddings)
        vectors["text"] = encode(f"embeddings/{plan.embeddings}, by pair", read, eligible.pair)
    if "image" in needs:
        vectors["image"] = image_codes(eligible, store)
    objects = load_objects(dataset.ontology_file, eligible.pair) if "objects" in needs else None
    return replace(eligible, objects=objects, vectors=vectors)


def image_codes(eligible: Eligible, store: FeatureStore) -> Codes:
    """One vector an image, which its pairs share."""
    images, index = np.unique(eligible.table.column("image").to_numpy(), return_inverse=True)
    pooled = pooled_images(store, images)

    def read(numbers: np.ndarray) -> np.ndarray:
        return pooled[np.searchsorted(images, numbers)]

    codes = encode(f"{store.path}, by image", read, images)
    return Codes(codes=codes.codes, index=index)


def load_objects(ontology_file: Path, pairs: np.ndarray) -> Objects:
    """Read the object tree, and the deepest objects of some pairs (increasing numbers)."""
    from ...ontology import Ontology

    with Ontology(ontology_file) as ontology:
        tree, deepest = ontology.objects(), ontology.deepest_objects()
    pair, member = deepest.column("pair").to_numpy(), deepest.column("object").to_numpy()
    row = np.searchsorted(pairs, pair)
    known = pairs[np.minimum(row, len(pairs) - 1)] == pair
    counts = np.bincount(row[known], minlength=len(pairs))
    return Objects(
        names=tree.column("synset").to_pylist(),
        parent=tree.column("parent").fill_null(-1).to_numpy().astype(np.int32),
        depth=tree.column("depth").to_numpy().astype(np.int32),
        starts=np.concatenate([[0], np.cumsum(counts)]),
        members=member[known].astype(np.int32),
    )
