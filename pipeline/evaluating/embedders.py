"""Models that embed any image of the dataset and any caption: runs, and CLIP."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ...errors import InputError
from ...features.images import BadImage, open_image
from ..dataset import Dataset
from ..engines.machine import device_of, torch_threads, worker_count
from ..stage import Reject
from ..stages.evaluate import EvalStage
from ..stages.extract import load_store
from ..stages.train import TrainStage, cached_texts
from .evaluations import Evaluation, other_name

if TYPE_CHECKING:
    from ...train.evaluation.clip import Clip
    from ...train.stream import Texts

_IMAGES = 256  # decoded at once


class Embedder(Protocol):
    """What can be asked for vectors.

    Attributes:
        evaluation: where its scores go. split: of the query set it is scored on.
    """

    evaluation: Evaluation
    split: str

    def usable(self, images: np.ndarray) -> np.ndarray:
        """Say which images of the dataset it can embed: (n,) bool."""

    def images(self, images: np.ndarray) -> np.ndarray:
        """Embed usable images, by number: (n, E) float32."""

    def captions(self, captions: Sequence[str]) -> np.ndarray:
        """Embed any captions: (n, E) float32."""

    def queries(self, queries: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        """Embed a query set of usable images, in the orders of ``Queries``."""


class RunEmbedder:
    """A finished run."""

    def __init__(self, stage: EvalStage) -> None:
        from ...train.evaluation import load_model
        from ...train.evaluation.runs import read_config

        self.stage, self.split = stage.train, stage.split
        self.evaluation = Evaluation.of_run(stage.dataset, stage.name)
        self.model = load_model(stage.folder, device_of(stage.dataset))
        self.settings = read_config(stage.folder)["train"]
        self.store = load_store(stage.dataset, self.stage.plan_config.features)

    def usable(self, images: np.ndarray) -> np.ndarray:
        return np.isin(images, self.store.images)

    def images(self, images: np.ndarray) -> np.ndarray:
        from ...train.evaluation import embed_images

        with torch_threads(self.stage.threads):
            return embed_images(self.model, self.store, images, self.settings["max_regions"])

    def captions(self, captions: Sequence[str]) -> np.ndarray:
        from ...train.evaluation import embed_texts

        with torch_threads(self.stage.threads):
            texts = texts_of(self.stage, captions)
            return embed_texts(self.model, texts, np.arange(len(captions)))

    def queries(self, queries: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        from ...train.evaluation import embed_queries

        with torch_threads(self.stage.threads):
            texts = cached_texts(self.stage)
            return embed_queries(self.stage.folder, self.model, self.store, texts, queries)


class ClipEmbedder:
    """A CLIP-like model of transformers, which reads the image files.

    Attributes:
        rejects: images that could not be read, as far as they were asked for.
    """

    def __init__(self, dataset: Dataset, name: str, split: str) -> None:
        self.dataset, self.name, self.split = dataset, name, split
        self.evaluation = Evaluation.of_other(dataset, other_name("clip", name))
        self.rejects: dict[int, Reject] = {}
        self._vectors: dict[int, np.ndarray] = {}
        if not dataset.config.ingest.image_files:
            found = "ingest.image_files = false: there are no images to read"
            raise InputError("--clip", found, do="evaluate its vectors with --embeddings")

    @cached_property
    def clip(self) -> Clip:
        """The model."""
        from ...train.evaluation.clip import load_clip

        return load_clip(self.dataset.local(self.name), device_of(self.dataset))

    @property
    def fingerprint(self) -> str:
        """Hash of the model's files, wherever they lie."""
        from ...train.evaluation.clip import clip_fingerprint

        return clip_fingerprint(self.dataset.local(self.name))

    @cached_property
    def _table(self) -> pa.Table:
        return self.dataset.images()

    def usable(self, images: np.ndarray) -> np.ndarray:
        """Read and embed images; those that cannot be read are rejected with a reason."""
        asked = np.unique(images)
        new = [k for k in asked.tolist() if k not in self._vectors and k not in self.rejects]
        with ThreadPoolExecutor(worker_count(0)) as threads:
            for first in range(0, len(new), _IMAGES):
                some = new[first : first + _IMAGES]
                opened = list(threads.map(self._open, some))
                read = {k: image for k, image in zip(some, opened, strict=True) if image}
                if read:
                    vectors = self.clip.encode_images(list(read.values()))
                    self._vectors.update(zip(read, vectors, strict=True))
        return np.isin(images, list(self._vectors))

    def _open(self, image: int) -> Any:
        row = self._table.slice(image, 1).to_pylist()[0]
        path, most = self.dataset.image_root / row["path"], self.dataset.config.ingest.max_pixels
        try:
            return open_image(path, most)
        except BadImage as error:
            where, detail = row["image_id"], str(error)
            self.rejects[image] = Reject(where=where, reason=error.reason, detail=detail)
            return None

    def images(self, images: np.ndarray) -> np.ndarray:
        assert self.usable(images).all(), "only images that can be read are asked for"
        return np.stack([self._vectors[k] for k in images.tolist()])

    def captions(self, captions: Sequence[str]) -> np.ndarray:
        return self.clip.encode_texts(captions)

    def queries(self, queries: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        numbers = np.unique(queries.column("image").to_numpy())
        return self.images(numbers), self.captions(queries.column("caption").to_pylist())


def texts_of(stage: TrainStage, captions: Sequence[str]) -> Texts:
    """What a run's text tower needs of captions that are not the dataset's; k is their k-th.

    A frozen tower needs what the stage ``embed`` computed: the same encoder, tokens and precision.
    """
    numbers = np.arange(len(captions))
    if not stage.config.embeddings:
        from ...train.evaluation.runs import read_config, tokenised

        table = pa.table({"pair": numbers, "caption": pa.array(captions, pa.string())})
        return tokenised(stage.folder, read_config(stage.folder), table)
    from ...train.model.encoders import TextEncoder, load_text_encoder
    from ...train.stream import CachedStates, CachedTexts

    config = stage.dataset.config.embeddings[stage.config.embeddings]
    name = stage.dataset.local(config.encoder)
    tokenizer, model = load_text_encoder(name, config.revision or None)
    encoder = TextEncoder(tokenizer, model, device_of(stage.dataset), config.precision)
    if stage.pools_states:
        _, states, lengths = encoder.encode_tokens(captions, max_tokens=config.max_tokens)
        return CachedStates.of_rows(states, lengths)
    vectors = encoder.encode(captions, max_tokens=config.max_tokens)
    return CachedTexts.of_rows(vectors.astype(np.float16))


def usable_queries(embedder: Embedder, queries: pa.Table) -> pa.Table:
    """The queries whose image can be embedded.

    Raises:
        InputError: there is none.
    """
    usable = embedder.usable(queries.column("image").to_numpy())
    kept = queries.filter(pa.array(usable))
    if not kept.num_rows:
        found = f"none of {pc.count_distinct(queries.column('image'))} images can be embedded"
        raise InputError("eval", found, do="see 'tonics show rejected'")
    return kept
