"""VinVL at 600 x 900: CPU-seconds an image and peak memory, over the model evaluated plainly.

The contenders, on the same weights in the same run, with results that are checked to be equal:
  ours    ``VinVL.detect_tensor``
  plain   ``plain_vinvl.py``: batch norms applied, the fourth stage on every pooled region and once
          more on the final boxes for their attributes, a suppression for each class in Python;
          its pooling is ours, since the reference's is compiled

Weights are random and as large as the published ones (``--checkpoint`` takes a file); biases are
set so that classes and anchors compete. Peak memory is of a process that only loads a checkpoint
and detects. With ``--device cuda``: images a second from JPEG files, and where the time goes.

    python benchmarks/vinvl.py --threads 1 2
    python benchmarks/vinvl.py --device cuda
"""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from measure import (
    compare,
    in_fresh_process,
    median_cpu,
    peak_bytes,
    print_heading,
    print_table,
    ratio,
)

from tonics.features.vinvl import VinVL, VinVLConfig

CLASSES, ATTRIBUTES = 1595, 525
HEIGHT, WIDTH = 600, 900
PARTS = ("backbone", "proposals", "regions", "classes", "post-processing", "attributes")
TOLERANCES = {"features": 2e-4, "boxes": 2e-3, "scores": 5e-5}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--checkpoint", help="a checkpoint instead of random weights")
    parser.add_argument("--label-map", help="the checkpoint's label map")
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--images", type=int, default=256, help="on a GPU")
    parser.add_argument("--precision", default="auto")
    asked = parser.parse_args()
    print_heading(__doc__, "torch", "numpy")
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, labels = asked.checkpoint, asked.label_map or label_map()
        if checkpoint is None:
            checkpoint = Path(folder) / "weights.pth"
            in_fresh_process(write_weights, checkpoint, OMP_NUM_THREADS="1")
        if asked.device != "cpu":
            on_gpu(checkpoint, labels, asked)
            return
        for threads in asked.threads:
            print(f"{threads} thread(s)")
            environment = {"OMP_NUM_THREADS": str(threads)}
            print_alone(*in_fresh_process(alone, checkpoint, labels, asked.rounds, **environment))
            in_fresh_process(against_plain, checkpoint, labels, asked.rounds, **environment)


def alone(checkpoint: Path, labels: Any, rounds: int) -> tuple[list[float], float, dict]:
    """Load and detect, nothing else: CPU-seconds of every round, peak bytes, seconds by part."""
    detector = VinVL.from_checkpoint(checkpoint, labels)
    x = drawn_input(0)
    seconds = []
    with parts_timed(detector, time.process_time) as parts:
        for _ in range(rounds + 1):
            parts.clear()
            start = time.process_time()
            detector.detect_tensor(x)
            seconds.append(time.process_time() - start)
    return seconds[1:], peak_bytes(), dict(parts)


def print_alone(seconds: list[float], peak: float, parts: dict[str, float]) -> None:
    rows = [
        ["an image", f"{statistics.median(seconds):.1f} ({min(seconds):.1f})", f"{peak / 1e9:.2f}"]
    ]
    rows += [[part, f"{parts[part]:.2f}", ""] for part in PARTS]
    print_table(["ours alone", "CPU-s, median (best); parts: last round", "peak GB"], rows)


def against_plain(checkpoint: Path, labels: Any, rounds: int) -> None:
    """Run both in turn, check that they agree, and print the ratio and plain's parts."""
    import torch
    from plain_vinvl import PlainVinVL

    from tonics.features.vinvl.checkpoint import read_checkpoint, unwrapped
    from tonics.features.vinvl.roi_align import roi_align

    detector = VinVL.from_checkpoint(checkpoint, labels)
    state = {k: torch.as_tensor(v) for k, v in unwrapped(read_checkpoint(checkpoint)).items()}
    pool = partial(roi_align, bins=14, scale=1 / 16)
    plain = PlainVinVL(state, detector.config, pool=pool)
    x, found = drawn_input(0), {}
    contenders: dict[str, Callable[[], object]] = {
        "ours": lambda: found.update(ours=detector.detect_tensor(x)),
        "plain": lambda: found.update(plain=plain(x)),
    }
    costs = compare(contenders, rounds, warm_up=False)
    rows = [
        [name, f"{median_cpu(own):.1f}", ratio(own, costs["ours"])] for name, own in costs.items()
    ]
    print_table(["way", "CPU-s an image", "CPU-s over ours"], rows)
    print_table(
        ["part of plain", "CPU-s an image"],
        [[part, f"{seconds / rounds:.2f}"] for part, seconds in plain.seconds.items()],
    )
    ours, theirs = found["ours"], found["plain"]
    assert (ours.labels == theirs["labels"]).all(), "other labels"
    off = {k: float(np.abs(getattr(ours, k) - theirs[k]).max()) for k in TOLERANCES}
    assert all(off[k] < TOLERANCES[k] for k in off), off
    distances = ", ".join(f"{k} {v:.1e}" for k, v in off.items())
    print(f"{len(ours)} detections of the same labels; largest differences: {distances}\n")


def on_gpu(checkpoint: Path, labels: Any, asked: argparse.Namespace) -> None:
    """Print images a second from JPEG bytes to regions, and the time of each part.

    A thread decodes one batch ahead, as ``tonics extract`` does.
    """
    import torch

    config = VinVLConfig(precision=asked.precision)
    detector = VinVL.from_checkpoint(checkpoint, labels, config, asked.device)
    photos, size = drawn_photos(asked.images), detector.batch_size
    batches = [photos[k : k + size] for k in range(0, len(photos), size)]

    def extract() -> float:
        start = time.perf_counter()
        with ThreadPoolExecutor(1) as thread:
            coming = thread.submit(decoded, batches[0])
            for following in [*batches[1:], []]:
                batch = coming.result()
                coming = thread.submit(decoded, following)
                detector(batch)
        return time.perf_counter() - start

    def now() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    extract()
    torch.cuda.reset_peak_memory_stats()
    seconds = min(extract() for _ in range(asked.rounds))
    peak = torch.cuda.max_memory_allocated()
    with parts_timed(detector, now) as parts:
        total = extract()
    print(torch.cuda.get_device_name())
    print_table(
        ["photos", "images/s", "peak GB of the GPU"],
        [
            [
                len(photos),
                f"{len(photos) / seconds:.1f}",
                f"{peak / 1e9:.1f}",
            ]
        ],
    )
    rows = [[part, f"{1000 * parts[part] / len(photos):.2f}"] for part in PARTS]
    rows.append(
        [
            "the rest: decoding, resizing, transfers",
            f"{1000 * (total - sum(parts.values())) / len(photos):.2f}",
        ]
    )
    print_table(["part, each waited for", "ms an image"], rows)


def drawn_photos(count: int) -> list[bytes]:
    """Draw JPEG files of smooth noise, of the sizes that photo collections have."""
    from PIL import Image

    rng = np.random.default_rng(0)
    sizes = [(640, 480), (640, 427), (480, 640), (500, 375)]
    photos = []
    for width, height in (sizes[k % len(sizes)] for k in range(count)):
        coarse = rng.integers(0, 255, (height // 8, width // 8, 3), np.uint8)
        file = io.BytesIO()
        Image.fromarray(coarse).resize((width, height)).save(file, "JPEG", quality=90)
        photos.append(file.getvalue())
    return photos


def decoded(files: list[bytes]) -> list[Any]:
    from PIL import Image

    return [Image.open(io.BytesIO(file)).convert("RGB") for file in files]


@contextmanager
def parts_timed(detector: VinVL, now: Callable[[], float]) -> Iterator[defaultdict[str, float]]:
    """Collect the seconds of each part of the model, while the block runs."""
    from tonics.features.vinvl import model as module

    model, seconds = detector.model, defaultdict(float)

    def timed(part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **keywords: Any) -> Any:
            start = now()
            answer = call(*args, **keywords)
            seconds[part] += now() - start
            return answer

        return run

    places: list[tuple[Any, str, str]] = [
        (model, "backbone", "backbone"),
        (model, "rpn", "proposals"),
        (module, "propose", "proposals"),
        (model.box_head, "open", "regions"),
        (model, "_features", "regions"),
        (model.class_head, "logits", "classes"),
        (module, "detect", "post-processing"),
        (model, "attribute_head", "attributes"),
    ]
    before = [getattr(place, name) for place, name, _ in places]
    anchors = model.rpn.anchors
    for (place, name, part), call in zip(places, before, strict=True):
        setattr(place, name, timed(part, call))
    model.rpn.anchors = anchors  # type: ignore[attr-defined] # what else is read of it
    try:
        yield seconds
    finally:
        for (place, name, _), call in zip(places, before, strict=True):
            setattr(place, name, call)


def label_map() -> dict[str, dict[str, int]]:
    """Names for as many classes and attributes as the published model has."""
    return {
        "label_to_idx": {f"class {k}": k for k in range(1, CLASSES)},
        "attribute_to_idx": {f"attribute {k}": k for k in range(1, ATTRIBUTES)},
    }


def drawn_input(seed: int) -> Any:
    """Smooth noise, (3, 600, 900) float32 about as large as pixels are."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, 3, HEIGHT // 30, WIDTH // 30, generator=generator)
    return torch.nn.functional.interpolate(coarse, (HEIGHT, WIDTH), mode="bicubic")[0] * 60


def write_weights(path: Path) -> None:
    """Write random weights of the published shapes; no class and no anchor wins everywhere."""
    import torch

    from tonics.features.vinvl.checkpoint import expected_shapes
    from tonics.features.vinvl.proposals import propose

    config = VinVLConfig()
    shapes = expected_shapes(config, CLASSES, ATTRIBUTES)
    state = {
        key: torch.from_numpy(drawn_weight(key, shape))
        for key, shape in shapes.items()
        if not key.startswith("attribute.feature_extractor.") and "anchors" not in key
    }
    x = drawn_input(0)
    with torch.inference_mode():
        model = VinVL.from_state_dict(state, label_map(), config).model
        c4 = model.backbone(x[None])
        logits, deltas = model.rpn(c4)
        mean = logits[0].mean(dim=(1, 2))
        logits -= mean[:, None, None]
        boxes, _ = propose(logits[0], deltas[0], model.rpn.anchors, (HEIGHT, WIDTH), config)
        features = model.box_head(model.box_head.open(c4, [c4.shape[2:]])[0], boxes)
        spread = 5 / model.class_head.logits(features).std(dim=0).mean()  # scores up to 1
    state["rpn.head.cls_logits.bias"] -= mean
    state["roi_heads.box.predictor.cls_score.weight"] *= spread
    weight = state["roi_heads.box.predictor.cls_score.weight"]
    state["roi_heads.box.predictor.cls_score.bias"] = -(features @ weight.T).mean(dim=0)
    torch.save({"model": state}, path)


def drawn_weight(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Draw a weight so that numbers neither vanish nor explode on their way through."""
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    z = rng.standard_normal(shape, np.float32)
    if key.endswith("running_var"):
        return 0.5 + np.abs(z)
    if len(shape) == 1:
        norm_gain = 0.1 if ".bn3." in key else 1.0
        return norm_gain + 0.1 * norm_gain * z if key.endswith(".weight") else 0.1 * z
    gains = {"stem": 0.02, "bbox_pred": 0.1, "cls_score": 5.0, "attr_score": 3.0}
    gain = next((g for name, g in gains.items() if name in key), 1.4)
    return (gain / np.sqrt(np.prod(shape[1:], dtype=np.float32))) * z


if __name__ == "__main__":
    main()
