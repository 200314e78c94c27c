"""The dataset folder's tables and what recognises their rows."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tonics.artifact import Manifest, hash_rows
from tonics.errors import FormatError, StaleInput
from tonics.pipeline.dataset import (
    IMAGES_SCHEMA,
    PAIRS_SCHEMA,
    Dataset,
    caption_hash,
    read_table,
    write_table,
)
from tonics.pipeline.graph import stages_of
from tonics.pipeline.stage import manifest_file

SCHEMA = pa.schema([("n", pa.int64()), ("text", pa.string())])


def table(rows: list[tuple[int, str]]) -> pa.Table:
    return pa.table({"n": [n for n, _ in rows], "text": [t for _, t in rows]}, schema=SCHEMA)


def test_the_same_rows_give_the_same_bytes_however_chunked(tmp_path: Path) -> None:
    rows = [(k, f"text {k}") for k in range(1000)]
    parts = pa.concat_tables([table(rows[:7]), table(rows[7:800]), table(rows[800:])])
    write_table(tmp_path / "one.parquet", table(rows))
    write_table(tmp_path / "two.parquet", parts)
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()
    assert hash_rows(parts, ["n", "text"]) == hash_rows(table(rows), ["n", "text"])


def test_rows_hash_sees_every_change() -> None:
    base = table([(1, "ab"), (2, "c")])
    others = [
        table([(1, "a"), (2, "bc")]),  # the border between texts
        table([(2, "ab"), (1, "c")]),
        table([(1, "ab")]),
        table([(1, "ab"), (2, "c"), (2, "")]),
    ]
    hashes = [hash_rows(t, ["n", "text"]) for t in (base, *others)]
    assert len(set(hashes)) == len(hashes)
    assert hash_rows(base, ["n"]) != hash_rows(base, ["text"])
    assert hash_rows(base.slice(1, 1), ["n", "text"]) == hash_rows(table([(2, "c")]), ["n", "text"])


def test_reading_says_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    with pytest.raises(StaleInput, match="has not been made yet; run 'tonics run' first"):
        read_table(path, SCHEMA)
    path.write_bytes(b"PAR1 nothing")
    with pytest.raises(FormatError, match="cannot be read"):
        read_table(path, SCHEMA)
    pq.write_table(table([(1, "a")]).select(["n"]), path)
    with pytest.raises(FormatError, match=r"columns \['n'\], expected \['n', 'text'\]"):
        read_table(path, SCHEMA)


def test_captions_are_recognised_to_the_letter() -> None:
    texts = ["a dog", "a dog ", "A dog", "a\u0301", "á", ""]
    assert len({caption_hash(text) for text in texts}) == len(texts)


def test_the_folder_is_laid_out_as_documented(built: Path) -> None:
    names = {p.relative_to(built).as_posix() for p in built.rglob("*") if p.is_file()}
    assert names >= {
        "tonics.toml", "images.parquet", "pairs.parquet", "ontology.duckdb", "detections.duckdb",
        "features/grid/00000.arrow", "features/grid/index.arrow", "features/grid/vocabulary.json",
        "nouns/00000.parquet", "embeddings/captions/00000.npy", "evaluation/test.parquet",
        "evaluation/test.same-object.parquet",
        "plans/tonics/plan.json", "plans/tonics/batches.arrow", "plans/tonics/pairs.arrow",
        "plans/tonics/remainder.arrow", "plans/tonics/quality.json",
        "runs/tonics/config.json", "runs/tonics/metrics.jsonl", "runs/tonics/eval.json",
        "runs/tonics/eval.parquet",
    }  # fmt: skip
    assert {name for name in names if name.endswith(".tmp")} == set()
    known = {"tonics.toml", "captions.jsonl"}
    tops = {"images", "features", "nouns", "embeddings", "evaluation", "plans", "runs", ".tonics"}
    assert {n for n in names if "/" not in n} - known == {
        "images.parquet", "pairs.parquet", "ontology.duckdb", "detections.duckdb",
    }  # fmt: skip
    assert {n.partition("/")[0] for n in names if "/" in n} == tops  # and nothing was rejected


def test_tables_hold_dense_numbers_and_their_schema(built: Path) -> None:
    dataset = Dataset.open(built)
    for rows, key, schema in (
        (dataset.images(), "image", IMAGES_SCHEMA),
        (dataset.pairs(), "pair", PAIRS_SCHEMA),
    ):
        assert rows.schema == schema
        assert rows.column(key).to_pylist() == list(range(rows.num_rows))


def test_every_file_a_stage_made_is_in_a_manifest_with_its_hash(built: Path) -> None:
    listed = set()
    for key in stages_of(Dataset.open(built)):
        for file in manifest_file(Dataset.open(built), key).parent.glob("*.json"):
            manifest = Manifest.read(file)
            assert manifest is not None
            assert [o.damaged(built) for o in manifest.outputs if o.damaged(built)] == []
            assert {"wall_s", "cpu_s"} <= set(manifest.cost)
            listed |= {o.path for o in manifest.outputs}
    written = {
        p.relative_to(built).as_posix()
        for place in ("features", "nouns", "embeddings", "evaluation", "plans", "runs")
        for p in (built / place).rglob("*")
        if p.is_file() and "checkpoints" not in p.parts and p.name != "metrics.jsonl"
    }
    assert listed == written | {
        "images.parquet", "pairs.parquet", "ontology.duckdb", "detections.duckdb",
        ".tonics/probed/00000.parquet",
    }  # fmt: skip
