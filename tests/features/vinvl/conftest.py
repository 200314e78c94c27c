"""The reference's golden files, a tiny model with its weights, and one with weights of our own."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tonics.features.vinvl import VinVL, VinVLConfig  # noqa: E402
from tonics.features.vinvl.checkpoint import expected_shapes  # noqa: E402

REPOSITORY = Path(__file__).resolve().parents[3]
GOLDEN = REPOSITORY.parent / "shared" / "golden" / "vinvl"
ANCHORS = "rpn.anchor_generator.cell_anchors.0"
# The configuration of the golden files: a ResNet-50's depths, narrow groups, small images.
GOLDEN_CONFIG = VinVLConfig(
    depths=(3, 4, 6, 3),
    groups=8,
    group_width=4,
    min_size=240,
    max_size=400,
    proposals=60,
)
# Small enough for tests that load and run a model of their own; with everything the large one has.
SMALL = VinVLConfig(
    depths=(1, 2, 2, 2),
    groups=2,
    group_width=4,
    stem_width=8,
    stage_width=16,
    embedding_width=6,
    attribute_width=10,
    min_size=96,
    max_size=160,
    candidates=400,
    proposals=30,
    score_thresh=0.05,
)
SMALL_LABELS = {
    "label_to_idx": {f"thing {k}": k for k in range(1, 12)},
    "attribute_to_idx": {f"like {k}": k for k in range(1, 20)},
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of golden files; for tests marked ``shared``."""
    return GOLDEN


@pytest.fixture(scope="session")
def numbers() -> dict[str, np.ndarray]:
    """The reference's numbers, by name."""
    with np.load(GOLDEN / "golden_tiny.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="session")
def ops() -> dict[str, np.ndarray]:
    """The reference's NMS and RoIAlign, by name."""
    with np.load(GOLDEN / "ops_golden.npz") as arrays:
        return dict(arrays)


def program(path: Path) -> ModuleType:
    """Load a Python file that is in no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    sys.modules[path.stem] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    sys.dont_write_bytecode = before
    return module


def recipe() -> ModuleType:
    """The program that makes weights from their names."""
    return program(GOLDEN / "weight_recipe.py")


@pytest.fixture(scope="session")
def plain() -> ModuleType:
    """The model written down step by step, sharing no code with ours."""
    return program(REPOSITORY / "benchmarks" / "plain_vinvl.py")


@pytest.fixture(scope="session")
def golden_state() -> dict[str, np.ndarray]:
    """The weights of the golden files."""
    make = recipe().make
    labels = json.loads((GOLDEN / "labelmap_tiny.json").read_text())
    counts = (len(labels["label_to_idx"]) + 1, len(labels["attribute_to_idx"]) + 1)
    shapes = expected_shapes(GOLDEN_CONFIG, *counts)
    state = {key: make(key, shape) for key, shape in shapes.items() if key != ANCHORS}
    with np.load(GOLDEN / "overrides_tiny.npz") as overrides:
        return state | dict(overrides)


@pytest.fixture(scope="session")
def reference(golden_state: dict[str, np.ndarray]) -> VinVL:
    """Our detector with the weights of the golden files."""
    return VinVL.from_state_dict(golden_state, GOLDEN / "labelmap_tiny.json", GOLDEN_CONFIG)


def small_state(seed: int = 0, config: VinVLConfig = SMALL) -> dict[str, Any]:
    """Random weights that make a model find something: several classes, boxes of all sizes."""
    rng = np.random.default_rng(seed)
    counts = (len(SMALL_LABELS["label_to_idx"]) + 1, len(SMALL_LABELS["attribute_to_idx"]) + 1)
    state = {}
    shapes = expected_shapes(config, *counts)
    for key, shape in sorted(shapes.items()):
        if key == ANCHORS or key.startswith("attribute.feature_extractor."):
            continue
        fan_in = np.prod(shape[1:]) if len(shape) > 1 else 1
        values = rng.standard_normal(shape)
        if key.endswith("running_var"):
            values = 0.5 + rng.random(shape)
        elif len(shape) == 1:
            norm = key.endswith((".weight",))
            values = (1 if norm else 0) + 0.1 * values
        else:
            gain = 1 / 60 if "stem" in key else 1.4
            values = gain * values / np.sqrt(fan_in)
        state[key] = torch.from_numpy(values.astype(np.float32))
    state["rpn.head.bbox_pred.weight"] *= 0.05
    return state


def drawn_input(seed: int, height: int, width: int) -> torch.Tensor:
    """Draw smooth noise, (3, h, w) float32 about as large as pixels are."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, 3, height // 8 + 2, width // 8 + 2, generator=generator)
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")[0] * 80


@pytest.fixture(scope="session")
def weights() -> dict[str, Any]:
    """The small model's weights; read them, never change them.

    The biases of classes and anchors are set so that none of them wins everywhere.
    """
    state, x = small_state(), drawn_input(99, 128, 128)
    detector = VinVL.from_state_dict(state, SMALL_LABELS, SMALL)
    logits, _ = detector.model.rpn(detector.model.backbone(x[None]))
    state["rpn.head.cls_logits.bias"] -= logits[0].mean(dim=(1, 2))
    corners = torch.rand(200, 2, 2, generator=torch.Generator().manual_seed(0)).sort(dim=1).values
    boxes = (corners.flatten(1) * 127).numpy()
    features = torch.from_numpy(detector.detect_tensor(x, boxes).features)
    key = "roi_heads.box.predictor.cls_score"
    logits = features @ state[f"{key}.weight"].T
    state[f"{key}.weight"] *= 4 / logits.std(dim=0, keepdim=True).T
    state[f"{key}.bias"] = -(features @ state[f"{key}.weight"].T).mean(dim=0)
    return state


@pytest.fixture(scope="session")
def small(weights: dict[str, Any]) -> VinVL:
    """The small detector."""
    return VinVL.from_state_dict(weights, SMALL_LABELS, SMALL)


@pytest.fixture
def photo() -> Any:
    """The function that draws inputs."""
    return drawn_input
