"""What all tests share: the marker ``shared``, and one tiny real dataset, drawn and built once."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED = REPOSITORY.parent / "shared"

TINY_CONFIG = """
[ingest]
image_root = "images"
max_rejected = 0.5
splits = { val = 0.0, test = 0.25 }
[[ingest.sources]]
captions = "captions.jsonl"
columns = { caption = "captions" }
[features.grid]
shard_images = 16
[nouns]
shard_pairs = 40
[ontology]
min_images = 4
[embeddings.captions]
shard_pairs = 40
[plans.random]
batch_size = 8
epochs = 2
[plans.tonics]
batch_size = 4
epochs = 4
embeddings = "captions"
phases = [
  { builder = "random", share = 0.5 },
  { builder = "ontology", share = 0.5, params = { depth = "leaves" } },
]
[evaluation]
same_object = 3
[runs.tonics]
plan = "tonics"
embeddings = "captions"
train = { embedding_dim = 16, hidden = 16, checkpoint_every = 10, log_every = 5 }
"""

LONG_FILES = ("test_bad_inputs.py", "test_end_to_end.py", "test_ray.py", "test_resume.py")

OBJECTS = ("dog", "cat", "ball", "bus", "umbrella")
COLOURS = ("red", "green", "blue", "yellow", "white", "brown", "black", "orange")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with files that take long, and skip what needs ../shared where it is not.

    Files are dealt to processes one by one: a long one that begins last would run alone.
    """
    items.sort(key=lambda item: item.path.name not in LONG_FILES)
    if SHARED.is_dir():
        return
    skip = pytest.mark.skip(reason="the folder ../shared with real photos is not here")
    for item in items:
        if "shared" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder ../shared."""
    return SHARED


def draw_dataset(folder: Path, images: int = 40) -> Path:
    """Draw images of shapes and write their captions and a ``tonics.toml``; takes milliseconds."""
    from PIL import Image, ImageDraw

    (folder / "images").mkdir(parents=True)
    lines = []
    for number in range(images):
        noun, colour = OBJECTS[number % len(OBJECTS)], COLOURS[number % len(COLOURS)]
        image = Image.new("RGB", (96 + number % 3 * 16, 72), COLOURS[(number + 3) % len(COLOURS)])
        pen = ImageDraw.Draw(image)
        shape = pen.ellipse if number % 2 else pen.rectangle
        shape((10 + number, 10, 40 + number, 60 - number // 2), fill=colour)
        name = f"{number:03d}.png"
        image.save(folder / "images" / name)
        os.utime(folder / "images" / name, (1e9, 1e9))  # the same for every drawing
        captions = [
            f"A {colour} {noun} on the grass.",
            f"The {noun} number {number} beside a {OBJECTS[(number + 2) % 5]}",
            f"a {noun} in picture {number}",
        ]
        lines.append(json.dumps({"image": name, "captions": captions}))
    (folder / "captions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "tonics.toml").write_text(TINY_CONFIG, encoding="utf-8")
    return folder


def tonics(*arguments: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does, in a process of its own."""
    return subprocess.run(
        tonics_command(*arguments), capture_output=True, text=True, check=False, **options
    )  # type: ignore[call-overload]


def tonics_command(*arguments: str | Path) -> list[str]:
    """The words of a command, for this interpreter."""
    start = "from tonics.pipeline.cli import main; main()"
    return [sys.executable, "-c", start, *map(str, arguments)]


@pytest.fixture(scope="session")
def run_tonics() -> Callable[..., subprocess.CompletedProcess[str]]:
    """The function that runs the command."""
    return tonics


@pytest.fixture(scope="session")
def command() -> Callable[..., list[str]]:
    """The function that spells a command out."""
    return tonics_command


@pytest.fixture
def run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., types.SimpleNamespace]]:
    """The command, in this process: exit code, standard output, standard error."""
    from tonics.pipeline.cli import main

    handlers = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}

    def command(*words: object) -> types.SimpleNamespace:
        monkeypatch.setattr(sys, "argv", ["tonics", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as done:
            main()
        out, err = capsys.readouterr()
        return types.SimpleNamespace(code=done.value.code or 0, out=out, err=err)

    yield command
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def draw() -> Callable[..., Path]:
    """The function that draws a tiny dataset."""
    return draw_dataset


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny dataset with every stage up to date; read it, never change it."""
    folder = draw_dataset(tmp_path_factory.mktemp("tiny") / "dataset")
    done = tonics("-C", folder, "run", "--workers", "1")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def copy(built: Path, tmp_path: Path) -> Path:
    """A copy of the tiny dataset, for tests that change it."""
    folder = tmp_path / "dataset"
    shutil.copytree(built, folder)
    return folder


@pytest.fixture(scope="session")
def feature_files() -> ModuleType:
    """The module that writes small feature files of every family."""
    path = Path(__file__).with_name("feature_files.py")
    spec = importlib.util.spec_from_file_location("feature_files", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["feature_files"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP of one layer a side with random weights, whose tokens are single letters."""
    import torch
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

    folder = tmp_path_factory.mktemp("clip") / "tiny-clip"
    folder.mkdir()
    letters = "abcdefghijklmnopqrstuvwxyz0123456789."
    words = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: k for k, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    tokenizer.save_pretrained(folder)
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    size |= {"num_attention_heads": 2}
    end = len(words) - 1
    ids = {"bos_token_id": end - 1, "eos_token_id": end, "pad_token_id": end}
    text = {**size, **ids, "vocab_size": len(words), "max_position_embeddings": 77}
    vision = {**size, "image_size": 32, "patch_size": 16}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
        CLIPModel(config).save_pretrained(folder)
    crop = {"height": 32, "width": 32}
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=crop).save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test asks a hub for anything."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.setitem(os.environ, name, "1")
