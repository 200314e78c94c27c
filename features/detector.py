"""What every detector promises, what its labels mean, and how one is chosen by name.

Light to import: a detector's module, and torch with it, is loaded when it is asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ..artifact import hash_json, read_json, write_json
from ..errors import ConfigError, FormatError, InputError
from .regions import Regions
from .schema import REBUILD

if TYPE_CHECKING:
    from PIL import Image

# name -> (module, function); the function takes (settings, device) and returns a Detector
DETECTORS = {"grid": (".grid", "load"), "vinvl": (".vinvl.detector", "load")}
# name -> settings that are paths; a dataset's relative ones begin at its folder
FILE_SETTINGS = {"vinvl": ("checkpoint", "label_map")}


class Label(NamedTuple):
    """What a label number stands for; synset and wnid are empty where nobody decided them."""

    name: str
    synset: str = ""
    wnid: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """The meaning of a detector's numbers: ``labels[k]`` and ``attributes[k]``."""

    labels: tuple[Label, ...]
    attributes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", tuple(Label(*label) for label in self.labels))

    def to_json(self) -> dict[str, Any]:
        """Turn into a JSON value: labels as objects, so that a reader needs no manual."""
        labels = [label._asdict() for label in self.labels]
        return {"labels": labels, "attributes": list(self.attributes)}

    @classmethod
    def from_json(cls, value: Any) -> Vocabulary:
        """Read back what ``to_json`` gave; raises KeyError or TypeError on anything else."""
        labels = tuple(Label(**label) for label in value["labels"])
        return cls(labels=labels, attributes=tuple(value["attributes"]))

    def content_hash(self) -> str:
        """Hash the vocabulary, for whatever is made from labels by name."""
        return hash_json(self.to_json())

    def write(self, path: Path) -> None:
        """Write as JSON, atomically."""
        write_json(path, self.to_json())

    @classmethod
    def read(cls, path: Path) -> Vocabulary:
        """Read from JSON.

        Raises:
            FormatError: the file is missing or is not a vocabulary.
        """
        try:
            return cls.from_json(read_json(path))
        except FileNotFoundError as error:
            raise FormatError(path, "is missing", do="run 'tonics run'") from error
        except (KeyError, TypeError) as error:
            raise FormatError(path, f"not a vocabulary ({error})", do=REBUILD) from error


class Undescribed(InputError):
    """A detector has no usable numbers for some images of a batch.

    Attributes:
        answers: of all images, in their order; None for those.
    """

    def __init__(
        self,
        where: object,
        found: str,
        *,
        expected: str = "",
        do: str = "",
        answers: Sequence[Regions | None] = (),
    ) -> None:
        super().__init__(where, found, expected=expected, do=do)
        self.answers = list(answers)

    @property
    def reason(self) -> str:
        """A few words, the same for all such images, so that rejects can be counted by it."""
        return self.found.partition(" (")[0]


class Detector(Protocol):
    """Turns images into regions.

    Attributes:
        dim: D, the numbers in one region's feature.
        vocabulary: what the label and attribute numbers mean.
        batch_size: how many images to pass at once; the last batch of a shard may be smaller. May
            depend on the device.
        cpu_s_per_image: general figure, for forecasts: CPU-seconds an image on a CPU.
        bytes_per_image: general figure, for forecasts: bytes an image in a store.
    """

    dim: int
    vocabulary: Vocabulary
    bytes_per_image: int

    @property
    def batch_size(self) -> int: ...

    @property
    def cpu_s_per_image(self) -> float: ...

    def fingerprint(self) -> dict[str, Any]:
        """Name everything that decides the numbers: model file hash, settings, code version.

        JSON values; what nests is compared, and its changes told, key by key.
        """
        ...

    def __call__(self, images: list[Image.Image]) -> list[Regions]:
        """Detect in RGB images; the answers come in their order.

        The same batch gives the same bytes (for one number of threads); other images in the
        batch change a result by float noise at most.

        Raises:
            Undescribed: some of the images have no usable numbers; it brings those of the others.
        """
        ...


def load_detector(name: str, settings: Mapping[str, Any], device: str = "cpu") -> Detector:
    """Make a detector by its name; the model itself is loaded with the first batch.

    Args:
        name: a key of ``DETECTORS``.
        settings: the detector's own settings; those left out take their documented defaults.
        device: where it computes, as torch names it; not part of the fingerprint.

    Raises:
        ConfigError: unknown name, unknown setting, or a value that is not allowed.
        MissingAsset: the model's files are not on this machine.
    """
    if name not in DETECTORS:
        known = ", ".join(repr(known) for known in sorted(DETECTORS))
        do = "or 'import' in tonics.toml: features that another program extracted"
        raise ConfigError("detector", repr(name), expected=f"one of {known}", do=do)
    module, function = DETECTORS[name]
    made: Detector = getattr(importlib.import_module(module, __package__), function)(
        settings, device
    )
    return made
