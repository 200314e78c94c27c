"""A run that is killed at any moment and run again ends with the artefacts of one that was not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import pytest

# A run is killed as soon as a file like this is there; each in turn, on one dataset folder.
MOMENTS = [
    ".tonics/probed/00000.parquet",
    "images.parquet",
    "features/grid/*.tmp",
    "features/grid/00001.arrow",
    "detections.duckdb*",
    "nouns/00001.parquet",
    "ontology.duckdb*",
    "embeddings/captions/00000.npy",
    "plans/*.tmp",
    "runs/tonics/checkpoints/step-*",
]


@pytest.fixture(scope="module")
def killed(
    tmp_path_factory: pytest.TempPathFactory,
    draw: Callable[..., Path],
    command: Callable[..., list],
) -> Path:
    """A dataset whose runs were killed at every moment above, then finished."""
    folder = draw(tmp_path_factory.mktemp("killed") / "dataset")
    for pattern in MOMENTS:
        _kill_when(folder, pattern, command("-C", folder, "run", "--workers", "1"))
    done = subprocess.run(command("-C", folder, "run", "--workers", "1"), capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return folder


def _kill_when(folder: Path, pattern: str, words: list[str]) -> None:
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not any(folder.glob(pattern)):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()


def _artefacts(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every file whose bytes are promised: not logs, locks, checkpoints and DuckDB's pages."""
    skipped = ("locks", "checkpoints")
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() or any(part in skipped for part in path.parts) or "duckdb" in name:
            continue
        if name.startswith(".tonics/manifests"):
            manifest = json.loads(path.read_text())
            del manifest["cost"]
            manifest["outputs"] = [
                o for o in manifest["outputs"] if not o["path"].endswith(".duckdb")
            ]
            yield name, json.dumps(manifest).encode()
        elif name.endswith("metrics.jsonl"):
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            timeless = [
                {k: v for k, v in line.items() if k not in ("samples_per_s", "data_wait")}
                for line in lines
            ]
            yield name, json.dumps(timeless).encode()
        else:
            yield name, path.read_bytes()


def test_killed_and_finished_equals_uninterrupted(built: Path, killed: Path) -> None:
    expected, found = dict(_artefacts(built)), dict(_artefacts(killed))
    assert sorted(found) == sorted(expected)
    assert [name for name in expected if found[name] != expected[name]] == []


@pytest.mark.parametrize("name", ["ontology.duckdb", "detections.duckdb"])
def test_databases_have_the_same_content(built: Path, killed: Path, name: str) -> None:
    hashes = []
    for folder in (built, killed):
        with duckdb.connect(str(folder / name), read_only=True) as con:
            sql = "SELECT value FROM meta WHERE key = 'content_hash'"
            hashes.append(con.execute(sql).fetchall())
    assert len(hashes[0]) == 1
    assert hashes[0] == hashes[1]


def test_nothing_half_written_stays(killed: Path) -> None:
    assert list(killed.rglob("*.tmp")) == []


def test_two_workers_give_the_same_bytes(
    built: Path, tmp_path: Path, draw: Callable[..., Path], run_tonics: Callable
) -> None:
    folder = draw(tmp_path / "dataset")
    for stage in ("extract", "parse", "embed"):
        done = run_tonics("-C", folder, "run", stage, "--workers", "2")
        assert done.returncode == 0, done.stderr
    for pattern in ("features/grid/*", "nouns/*", "embeddings/captions/*"):
        for path in folder.glob(pattern):
            same = built / path.relative_to(folder)
            assert path.read_bytes() == same.read_bytes(), path.name


def test_a_killed_worker_pool_leaves_no_process(
    tmp_path: Path, draw: Callable[..., Path], command: Callable[..., list]
) -> None:
    folder = draw(tmp_path / "dataset")
    words = command("-C", folder, "run", "parse", "--workers", "2")
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not _children(process.pid):
        time.sleep(0.01)
    workers = _children(process.pid)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 20
    while any(_alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [pid for pid in workers if _alive(pid)] == []


def _children(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in path.read_text().split()] if path.exists() else []


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
