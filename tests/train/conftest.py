"""Tiny real artefacts, made by the real writers: a feature store, a plan, caption vectors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from tonics.artifact import atomic_folder
from tonics.features import FeatureStore
from tonics.features.detector import Label, Vocabulary
from tonics.features.regions import MAX_ATTRIBUTES, Regions
from tonics.features.writer import write_index, write_shard
from tonics.train.plan import Plan
from tonics.train.plan_files import REMAINDER_SCHEMA, Batches, write_plan
from tonics.train.stream import CachedTexts

DIM, TEXT_DIM = 16, 12
TOPICS = ["dog", "cat", "frisbee", "sofa", "boat", "tree", "hat", "cup"]


@dataclass(frozen=True, kw_only=True)
class World:
    """Images whose regions, and captions whose vectors, show the same hidden numbers."""

    store: FeatureStore
    plan: Plan
    texts: CachedTexts
    images: np.ndarray
    vectors: np.ndarray

    def queries(self) -> pa.Table:
        return self.plan.pairs.select(["pair", "image", "caption"])


def make_store(folder: Path, images: np.ndarray, hidden: np.ndarray, seed: int = 0) -> FeatureStore:
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    rows = [(int(i), _regions(rng, hidden[k], k)) for k, i in enumerate(images)]
    half = len(rows) // 2
    for number, part in enumerate((rows[:half], rows[half:])):
        write_shard(folder / f"{number:05d}.arrow", part, dim=hidden.shape[1], batch_bytes=4096)
    write_index(folder, Vocabulary(labels=(Label("thing"),)))
    return FeatureStore(folder)


def _regions(rng: np.random.Generator, hidden: np.ndarray, k: int) -> Regions:
    n = 1 + k % 5
    low = rng.uniform(0, 50, (n, 2))
    boxes = np.concatenate([low, low + rng.uniform(1, 40, (n, 2))], 1).astype(np.float32)
    return Regions(
        features=(hidden + 0.3 * rng.normal(size=(n, len(hidden)))).astype(np.float16),
        boxes=boxes,
        labels=np.zeros(n, np.uint16),
        scores=np.linspace(1, 0.5, n, dtype=np.float32),
        attributes=np.zeros((0, MAX_ATTRIBUTES), np.uint16),
        attribute_scores=np.zeros((0, MAX_ATTRIBUTES), np.float16),
        width=100,
        height=100,
    )


def make_plan(folder: Path, images: np.ndarray, epochs: int, batch_size: int = 16) -> Plan:
    """Two captions an image, each image once a batch; pair numbers start at 10 and skip some."""
    rng = np.random.default_rng(1)
    count = 2 * len(images)
    pair = 10 + 3 * np.arange(count)
    image = np.repeat(images, 2)
    captions = [f"a {TOPICS[k % 8]} by the {TOPICS[(k // 8) % 8]} {k}" for k in range(count)]
    batches = []
    for epoch in range(epochs):
        rows = 2 * rng.permutation(len(images)) + epoch % 2
        batches += list(pair[rows[: len(rows) // batch_size * batch_size]].reshape(-1, batch_size))
    per_epoch = len(images) // batch_size
    table = pa.table(
        {
            "pair": pair,
            "pair_key": [f"{i}#{k % 2}" for k, i in enumerate(image)],
            "image": image,
            "image_id": [f"{i}.jpg" for i in image],
            "caption": captions,
            "split": ["train"] * count,
            "caption_hash": np.arange(count, dtype=np.uint64),
        }
    )
    header = {
        "batch_size": batch_size,
        "sub_block": 1,
        "nodes": [],
        "inputs": {},
        "phases": [],
        "counts": {"epochs": epochs},
    }
    epoch = np.repeat(np.arange(epochs, dtype=np.int32), per_epoch)
    rows = Batches(
        epoch=epoch,
        phase=(epoch >= epochs // 2).astype(np.int16),
        node=np.full(len(epoch), -1, np.int32),
        pairs=np.array(batches, np.int64),
    )
    empty = pa.table({f.name: pa.array([], f.type) for f in REMAINDER_SCHEMA})
    with atomic_folder(folder) as tmp:
        write_plan(tmp, header, rows, table, empty, {})
    return Plan(folder)


def make_world(folder: Path, count: int = 64, epochs: int = 4, batch_size: int = 16) -> World:
    rng = np.random.default_rng(2)
    hidden = rng.normal(size=(count, DIM))
    images = np.sort(rng.choice(3 * count, count, replace=False)).astype(np.int64)
    plan = make_plan(folder / "plans" / "tiny", images, epochs, batch_size)
    shown = np.repeat(hidden, 2, axis=0) @ rng.normal(size=(DIM, TEXT_DIM))
    vectors = (shown + 0.3 * rng.normal(size=shown.shape)).astype(np.float16)
    return World(
        store=make_store(folder / "features", images, hidden),
        plan=plan,
        texts=CachedTexts.of_rows(vectors, plan.pairs.column("pair").to_numpy()),
        images=images,
        vectors=vectors,
    )


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """64 images, 128 captions, 4 epochs of 4 batches of 16."""
    return make_world(tmp_path_factory.mktemp("world"))


POOLS = {"steps": 22, "threshold": 0.2, "block": 5, "root_share": 0.25}


@pytest.fixture(scope="session")
def pools_plan(world: World, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """The batches of ``world``'s plan as pools: a root, two objects below it, one below those."""
    plan, folder = world.plan, tmp_path_factory.mktemp("pools") / "pools"
    node = np.repeat(np.arange(4, dtype=np.int32), 4)
    zeros = np.zeros(16, np.int32)
    batches = Batches(
        epoch=zeros, phase=zeros.astype(np.int16), node=node, pairs=np.array(plan.batches.pairs)
    )
    outside = ("plan_id", "batches_hash", "groups_hash", "pairs_hash", "remainder_hash")
    header = {key: value for key, value in plan.header.items() if key not in outside}
    phase = {"name": "pools", "builder": "pools", "params": {}, "first_epoch": 0, "epochs": 1}
    header |= {
        "nodes": ["entity.n.01", "animal.n.01", "vehicle.n.01", "dog.n.01"],
        "counts": {"batches": 16, "epochs": 1, "pairs": plan.pairs.num_rows, "remainder": 0},
        "phases": [phase],
        "schedule": {**POOLS, "kind": "adaptive", "pools": [0, 1, 2, 3], "parents": [-1, 0, 0, 1]},
    }
    with atomic_folder(folder) as tmp:
        write_plan(tmp, header, batches, plan.pairs, plan.remainder, {})
    return Plan(folder)


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of two layers with random weights, and a tokenizer of some twenty words."""
    from transformers import BertConfig, BertModel, BertTokenizer

    folder = tmp_path_factory.mktemp("encoder")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "by", "the", *TOPICS, *"0123456789"]
    words += [f"##{d}" for d in range(10)]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    BertTokenizer(str(folder / "vocab.txt"), model_max_length=64).save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        shape = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
        config = BertConfig(
            vocab_size=len(words), hidden_size=32, max_position_embeddings=64, **shape
        )
        BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def big_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """320 images, 640 captions, 10 epochs of 10 batches of 32."""
    return make_world(tmp_path_factory.mktemp("big"), count=320, epochs=10, batch_size=32)
