"""The OpenCLIP recipe on a tiny CLIP, in an environment that has OpenCLIP (``make openclip``).

Trains two epochs and, alone, again from the checkpoint of the first; every batch that reaches the
model is audited against the plan. One of several ranks where the environment says so.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

import reader
import torch

TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 16, "patch_size": 8, "layers": 1, "width": 16, "head_width": 8},
    "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
MISSING = [f"{name}(Tensor a, Tensor b, float c) -> Tensor" for name in ("nms", "qnms")]


def declare_operators() -> list[Any]:
    """Let torchvision's wheel be imported beside a CPU build of torch, whose operators it lacks.

    They are declared, not defined: none is called by OpenCLIP.
    """
    binary = Path(importlib.util.find_spec("torchvision").origin).with_name("_C.so")
    try:
        torch.ops.load_library(str(binary))
        return []
    except OSError:
        library = torch.library.Library("torchvision", "DEF")
        for schema in MISSING:
            library.define(schema)
        return [library]  # forgotten with the last reference


class MyPhotos(torch.utils.data.Dataset):
    """Images of one colour, which is the number of their row."""

    def __init__(self, preprocess: Any, tokenizer: Any) -> None:
        self.tokenizer, self.keys = tokenizer, reader.my_keys()

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.full((3, 16, 16), float(row)), self.tokenizer(f"photo {row}")[0]


def prepare(journal: reader.Journal) -> None:
    """A tiny model, which tells the journal what it sees, and DDP on a CPU."""
    from open_clip import add_model_config
    from open_clip.model import CLIP

    config = Path(os.environ.get("RANK", "alone")) / "tiny.json"
    config.parent.mkdir(exist_ok=True)
    config.write_text(json.dumps(TINY))
    add_model_config(config)
    clip, forward, ddp = CLIP, CLIP.forward, torch.nn.parallel.DistributedDataParallel

    def forward_and_tell(self: Any, image: torch.Tensor, text: torch.Tensor) -> Any:
        journal.saw(image[:, 0, 0, 0].long())
        return forward(self, image, text)

    clip.forward = forward_and_tell
    # OpenCLIP 3.3.0 names the device, which DDP refuses on a CPU.
    torch.nn.parallel.DistributedDataParallel = lambda model, device_ids, **more: ddp(model, **more)


def main() -> None:
    journal = reader.Journal()
    prepare(journal)
    fixed = ["--model", "tiny", "--train-data", reader.FOLDER, "--batch-size", str(reader.B)]
    fixed += ["--epochs", "2", "--workers", "0", "--precision", "fp32", "--dist-backend", "gloo"]
    fixed += ["--local-loss", "--gather-with-grad"]
    resumed = ["--name", "resumed", "--resume", "logs/whole/checkpoints/epoch_1.pt"]
    runs = [(0, ["--name", "whole"]), (reader.EPOCHS.index(1), resumed)]
    for start, more in runs[: 1 if "RANK" in os.environ else 2]:
        journal.step = start
        sys.argv[1:] = [*fixed, *more]
        reader.run("openclip", MyPhotos=MyPhotos)
        journal.close()


if __name__ == "__main__":
    declared = declare_operators()
    sys.modules["transformers"] = None  # OpenCLIP would import it, for models that this is not
    main()
