"""Compose the demo dataset: many scenes, their captions, and the truth about both.

The scenes are made a chunk at a time in ``OUT/.scenes``, each chunk whole or not at all; then the
pictures, the captions and the truth are put in their places, and ``scenes.json`` comes last. So a
run that is killed leaves nothing half-written, and the next one goes on with the missing chunks.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ...artifact import (
    atomic_file,
    atomic_folder,
    hash_file,
    hash_json,
    read_json,
    remove_leftovers,
    write_json,
)
from ...errors import FormatError, InputError
from .dealing import BLOCK, Dealer, Hand
from .grammar import Phrase, captions
from .layout import Placed, Studio
from .stamps import Noun, Stamp, load_stamps, table
from .summary import SceneSummary, summarize

logger = logging.getLogger(__name__)

FORMAT = 1  # raise it when the same settings give other scenes
_CHUNK = 2 * BLOCK
_QUALITY = 88


def compose(
    out: Path, *, scenes: int = 1500, seed: int = 0, stamps: Path, workers: int = 1
) -> SceneSummary:
    """Write ``images/*.jpg``, ``captions.json`` (COCO's form) and ``truth.jsonl`` below a folder.

    The bytes depend on the seed and the photographs alone, scene by scene: not on the workers, and
    the first scenes of a larger dataset are those of a smaller one. What is complete is not made
    again.

    Args:
        stamps: the folder of photographs (``find_stamps``).
        workers: processes that compose.

    Raises:
        InputError: an argument is out of range, or ``images`` holds pictures that are not ours.
        MissingAsset: the folder holds none of the photographs.
    """
    for name, value, least in (("scenes", scenes, 1), ("seed", seed, 0), ("workers", workers, 1)):
        if value < least:
            raise InputError(f"demo {name}", f"{value!r}", expected=f"at least {least}")
    loaded = load_stamps(stamps)
    settings = _settings(stamps, loaded, scenes, seed)
    if not _complete(out, settings):
        composed = _compose_missing(out, settings, stamps, workers)
    else:
        composed = 0
    summary = summarize(out, composed)
    logger.info("; ".join(summary.lines()))
    return summary


def scene(studio: Studio, hand: Hand, seed: int, number: int) -> tuple[Any, dict[str, Any]]:
    """Compose one scene.

    Returns:
        the picture (RGB), and the truth about it as a JSON value.
    """
    rng = np.random.default_rng([seed, 2, number])
    picture, placed, tint = studio.compose(hand, rng)
    texts = captions(hand, placed, tint, rng)
    truth = {
        "image": f"{number:06d}.jpg",
        "image_id": number + 1,
        "width": picture.width,
        "height": picture.height,
        "ground": hand.ground.name,
        "objects": [_object(hand, index, placed) for index in range(len(hand.stamps))],
        "captions": [_caption(text) for text in texts],
    }
    return picture, truth


def _object(hand: Hand, index: int, placed: Sequence[Placed]) -> dict[str, Any]:
    stamp, own = hand.stamps[index], [p for p in placed if p.object == index]
    return {
        "noun": stamp.noun.noun,
        "plural": stamp.noun.plural,
        "synset": stamp.noun.synset,
        "also": [_name(noun) for noun in stamp.names[1:]],
        "count": hand.counts[index],
        "size": stamp.size,
        "scale": round(float(np.mean([p.scale for p in own])), 3),
        "stamp": stamp.path,
        "boxes_xyxy": [list(p.box_xyxy) for p in own],
        "visible": [p.visible for p in own],
    }


def _name(noun: Noun) -> dict[str, str]:
    return {"noun": noun.noun, "synset": noun.synset}


def _caption(text: Phrase) -> dict[str, Any]:
    return {"caption": text.text, "nouns": [asdict(mention) for mention in text.mentions]}


def _settings(folder: Path, stamps: Sequence[Stamp], scenes: int, seed: int) -> dict[str, Any]:
    files = [(s.path, s.description, hash_file(folder / s.path)) for s in stamps]
    tables = [table("objects.tsv"), table("nouns.tsv"), table("excluded.tsv")]
    return {
        "format": FORMAT,
        "seed": seed,
        "stamps": hash_json([files, tables]),
        "scenes": scenes,
    }


def _complete(out: Path, settings: dict[str, Any]) -> bool:
    try:
        done = read_json(out / "scenes.json")
    except (FileNotFoundError, FormatError):
        return False
    files = [out / "captions.json", out / "truth.jsonl", out / "images"]
    return done == settings and all(f.exists() for f in files) and _count(out) == settings["scenes"]


def _count(out: Path) -> int:
    return sum(name.endswith(".jpg") for name in os.listdir(out / "images"))


def _compose_missing(out: Path, settings: dict[str, Any], stamps: Path, workers: int) -> int:
    _refuse_foreign(out)
    remove_leftovers(out / ".scenes")
    for leftover in out.glob("images.*.tmp"):
        shutil.rmtree(leftover, ignore_errors=True)
    # Of an older dataset nothing may stay that could be taken for this one.
    for stale in ("scenes.json", "captions.json", "truth.jsonl"):
        (out / stale).unlink(missing_ok=True)
    chunks = out / ".scenes" / hash_json({k: settings[k] for k in ("format", "seed", "stamps")})
    ranges = [
        (start, min(start + _CHUNK, settings["scenes"]))
        for start in range(0, settings["scenes"], _CHUNK)
    ]
    folders = [chunks / f"{start:06d}-{stop:06d}" for start, stop in ranges]
    missing = [(f, *r) for f, r in zip(folders, ranges, strict=True) if not f.is_dir()]
    _run(missing, stamps, settings["seed"], workers)
    _gather(out, folders)
    write_json(out / "scenes.json", settings)
    shutil.rmtree(out / ".scenes", ignore_errors=True)
    return sum(stop - start for _, start, stop in missing)


def _refuse_foreign(out: Path) -> None:
    ours = (out / "scenes.json").exists() or (out / ".scenes").exists()
    if (out / "images").exists() and not ours:
        do = "choose another folder, or move the images away"
        raise InputError(out / "images", "exists and was not made by the demo", do=do)


def _run(missing: Sequence[tuple[Path, int, int]], stamps: Path, seed: int, workers: int) -> None:
    if workers == 1 or len(missing) < 2:
        composer = _Composer(stamps, seed)
        for chunk in missing:
            composer.chunk(*chunk)
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        min(workers, len(missing)), spawn, initializer=_start, initargs=(stamps, seed)
    ) as pool:
        for _ in pool.map(_chunk, missing):
            pass


class _Composer:
    """Composes chunks of scenes in one process."""

    def __init__(self, stamps: Path, seed: int) -> None:
        self.studio, self.seed = Studio(stamps), seed
        self.dealer = Dealer(load_stamps(stamps))

    def chunk(self, folder: Path, start: int, stop: int) -> None:
        """Compose the scenes from ``start`` up to ``stop`` into a folder of their own."""
        with (
            atomic_folder(folder) as tmp,
            (tmp / "truth.jsonl").open("w", encoding="utf-8") as lines,
        ):
            for number, hand in self._hands(start, stop):
                picture, truth = scene(self.studio, hand, self.seed, number)
                picture.save(tmp / truth["image"], "JPEG", quality=_QUALITY)
                lines.write(json.dumps(truth, ensure_ascii=False) + "\n")

    def _hands(self, start: int, stop: int) -> Iterator[tuple[int, Hand]]:
        for block in range(start // BLOCK, -(-stop // BLOCK)):
            for place, hand in enumerate(self.dealer.block(self.seed, block)):
                number = block * BLOCK + place
                if start <= number < stop:
                    yield number, hand


_composer: _Composer | None = None


def _start(stamps: Path, seed: int) -> None:
    global _composer
    _composer = _Composer(stamps, seed)


def _chunk(chunk: tuple[Path, int, int]) -> None:
    assert _composer is not None, "the pool's initializer has run"
    _composer.chunk(*chunk)


def _gather(out: Path, folders: Sequence[Path]) -> None:
    """Put the finished chunks together: the pictures by hard links, the captions, the truth."""
    truth = [line for f in folders for line in (f / "truth.jsonl").read_text("utf-8").splitlines()]
    with atomic_folder(out / "images") as images:
        for picture in (p for f in folders for p in sorted(f.glob("*.jpg"))):
            _link(picture, images / picture.name)
    with atomic_file(out / "captions.json") as tmp:
        text = json.dumps(_coco([json.loads(line) for line in truth]), ensure_ascii=False, indent=1)
        tmp.write_text(text + "\n", encoding="utf-8")
    with atomic_file(out / "truth.jsonl") as tmp:
        tmp.write_text("".join(line + "\n" for line in truth), encoding="utf-8")


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)


def _coco(truths: Sequence[dict[str, Any]]) -> dict[str, Any]:
    pairs = [(t["image_id"], c["caption"]) for t in truths for c in t["captions"]]
    return {
        "info": {
            "description": "Scenes composed by 'tonics demo' from Tux Paint's photographic stamps",
            "version": str(FORMAT),
        },
        "licenses": [
            {
                "id": 1,
                "name": "GPL-2",
                "url": "https://www.gnu.org/licenses/old-licenses/gpl-2.0.html",
            }
        ],
        "images": [
            {
                "id": t["image_id"],
                "file_name": t["image"],
                "width": t["width"],
                "height": t["height"],
                "license": 1,
            }
            for t in truths
        ],
        "annotations": [
            {"id": number, "image_id": image, "caption": text}
            for number, (image, text) in enumerate(pairs, 1)
        ],
    }
