"""The dataset folder: where everything a build makes lies, and the tables all stages share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from ..artifact import atomic_file
from ..errors import FormatError, StaleInput
from .config import Config, load_config

IMAGES_SCHEMA = pa.schema(
    [
        ("image", pa.int64()),  # dense, append-only
        ("image_id", pa.string()),  # the source's
        ("path", pa.string()),  # relative to image_root
        ("width", pa.int32()),  # pixels of the stored image, before any EXIF rotation
        ("height", pa.int32()),
        ("bytes", pa.int64()),
        ("content_hash", pa.string()),  # xxh3-128 of the file
    ]
)
PAIRS_SCHEMA = pa.schema(
    [
        ("pair", pa.int64()),  # dense, append-only
        ("pair_key", pa.string()),  # image_id#k, the k-th caption in source order, from 0
        ("image", pa.int64()),
        ("caption", pa.string()),
        ("split", pa.string()),
        ("caption_hash", pa.uint64()),  # xxh3-64 of the caption's UTF-8 bytes
    ]
)
REJECTED_SCHEMA = pa.schema(
    [
        ("stage", pa.string()),
        ("where", pa.string()),  # image_id, pair_key, or file:line
        ("reason", pa.string()),  # one of a few words, counted
        ("detail", pa.string()),
    ]
)


def caption_hash(caption: str) -> int:
    """The 64-bit hash a caption is recognised by.

    >>> caption_hash("a dog") == caption_hash("a dog ")
    False
    """
    return xxhash.xxh3_64_intdigest(caption.encode("utf-8", "surrogatepass"))


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset folder and its configuration; cheap to make, to copy and to send to a worker."""

    root: Path
    config: Config

    @classmethod
    def open(cls, root: Path) -> Dataset:
        """Read the folder's ``tonics.toml``."""
        return cls(root.resolve(), load_config(root))

    def local(self, name: str) -> str:
        """What a name in ``tonics.toml`` stands for: a folder is relative to the dataset's."""
        folder = self.root / Path(name).expanduser()
        return str(folder) if name and folder.is_dir() else name

    @property
    def image_root(self) -> Path:
        """The folder image paths are relative to."""
        return self.root / self.config.ingest.image_root

    @property
    def images_file(self) -> Path:
        """images.parquet"""
        return self.root / "images.parquet"

    @property
    def pairs_file(self) -> Path:
        """pairs.parquet"""
        return self.root / "pairs.parquet"

    @property
    def ontology_file(self) -> Path:
        """ontology.duckdb"""
        return self.root / "ontology.duckdb"

    @property
    def detections_file(self) -> Path:
        """detections.duckdb"""
        return self.root / "detections.duckdb"

    @property
    def nouns(self) -> Path:
        """The folder of noun tables, a file a shard of pairs."""
        return self.root / "nouns"

    def features(self, name: str) -> Path:
        """The folder of a feature set."""
        return self.root / "features" / name

    def embeddings(self, name: str) -> Path:
        """The folder of a set of caption vectors."""
        return self.root / "embeddings" / name

    def plan(self, name: str) -> Path:
        """The folder of a plan."""
        return self.root / "plans" / name

    def pack(self, name: str) -> Path:
        """The folder of a plan's tars."""
        return self.root / "shards" / name

    def run(self, name: str) -> Path:
        """The folder of a training run."""
        return self.root / "runs" / name

    @property
    def evaluation(self) -> Path:
        """The folder of query sets."""
        return self.root / "evaluation"

    @property
    def rejected(self) -> Path:
        """The folder of everything that was left out, with reasons."""
        return self.root / "rejected"

    @property
    def state(self) -> Path:
        """Manifests, locks and logs."""
        return self.root / ".tonics"

    def images(self) -> pa.Table:
        """The image table (``IMAGES_SCHEMA``), by image number."""
        return read_table(self.images_file, IMAGES_SCHEMA)

    def pairs(self) -> pa.Table:
        """The pair table (``PAIRS_SCHEMA``), by pair number."""
        return read_table(self.pairs_file, PAIRS_SCHEMA)


def read_table(path: Path, schema: pa.Schema) -> pa.Table:
    """Read a parquet table of ours and check its columns.

    Raises:
        StaleInput: it has not been made yet. FormatError: it is not what it should be.
    """
    if not path.exists():
        raise StaleInput(path, "has not been made yet", do="run 'tonics run' first")
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        do = "'tonics verify', then 'tonics run', makes it anew"
        raise FormatError(path, f"cannot be read ({error})", do=do) from error
    if table.schema.names != schema.names:
        do = "run 'tonics run --rebuild ingest'"
        raise FormatError(path, f"columns {table.schema.names}", expected=f"{schema.names}", do=do)
    return table.cast(schema)


def write_table(path: Path, table: pa.Table) -> None:
    """Write a parquet table atomically; the same rows give the same bytes."""
    with atomic_file(path) as tmp:
        pq.write_table(table.combine_chunks(), tmp, compression="zstd", row_group_size=100_000)
