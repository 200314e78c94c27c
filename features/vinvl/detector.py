"""VinVL as a detector: photos in, regions out; light to import, torch comes with the weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import ConfigError, MissingAsset, first_ten
from ..detector import FILE_SETTINGS, Undescribed, Vocabulary
from ..regions import Regions
from .answer import raw, stored
from .config import DOWNLOAD, WHERE, VinVLConfig, config_from, on_cpu
from .given import GivenBoxes, check_given, scaled
from .inputs import check_images, check_tensors
from .label_map import read_vocabulary
from .source import WeightSource, file_source, no_folder

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from .model import Found, Model

CODE_VERSION = "1"  # raise it when the numbers change
_RESIZERS = 8  # threads that prepare images for a GPU
# CPU-seconds of the published model at 600 x 900: what grows with the image, and with proposals.
_CPU_S_MAP, _CPU_S_REGIONS = 7.5, 9.5


def load(settings: Mapping[str, Any], device: str = "cpu") -> VinVL:
    """Make the detector from plain settings, as ``load_detector`` does; the weights come later.

    Raises:
        ConfigError: an unknown setting or a value that is not allowed.
        MissingAsset: the checkpoint or the label map is not named, or not there.
        InputError: the label map is none.
    """
    values = dict(settings)
    files = FILE_SETTINGS["vinvl"]
    checkpoint, label_map = (_path_of(values.pop(key, None), key) for key in files)
    config = config_from(values)
    return VinVL(file_source(checkpoint), read_vocabulary(label_map, config), config, device)


def _path_of(value: Any, key: str) -> Path:
    if value is None:
        raise MissingAsset(WHERE, f"no {key} is set", do=f"{DOWNLOAD} and set {key} to its path")
    if not isinstance(value, str | Path) or not str(value):
        raise ConfigError(WHERE, f"{key} = {value!r}", expected="the path of a file")
    no_folder(Path(value))
    if not Path(value).is_file():
        raise MissingAsset(WHERE, f"{key} = {str(value)!r} is not there", do=DOWNLOAD)
    return Path(value)


class VinVL:
    """The object-attribute detector; see ``Detector`` for what every detector promises.

    Made by ``from_checkpoint``, ``from_state_dict`` or ``load_detector("vinvl", settings)``.

    Attributes:
        bytes_per_image: what a photo's regions take in a store, about: 36 regions of 4.2 kB.
    """

    bytes_per_image = 150_000

    def __init__(
        self, source: WeightSource, vocabulary: Vocabulary, config: VinVLConfig, device: object
    ) -> None:
        self.config = config
        self.device = str(device)
        self.vocabulary = vocabulary
        self.dim = config.dim
        self._source = source
        self._model: Model | None = None

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: str | Path,
        label_map: str | Path | Mapping[str, Any],
        config: VinVLConfig | None = None,
        device: str | torch.device = "cpu",
    ) -> VinVL:
        """Load a checkpoint file: a state dict, bare or as ``{'model': ...}``.

        Only tensors are unpickled. Keys, shapes and counts of classes must fit.

        Args:
            label_map: the JSON file, or what it holds.
            config: the published model when omitted.
            device: where to compute, as torch names it.

        Raises:
            MissingAsset: a file is not there.
            InputError: the checkpoint or the label map is damaged, or they do not fit the model;
                the message lists missing, unexpected and mis-shaped keys.
        """
        config = config or VinVLConfig()
        vocabulary = read_vocabulary(label_map, config)
        detector = cls(file_source(Path(checkpoint)), vocabulary, config, device)
        detector.model  # noqa: B018 - errors belong here, not to the first image
        return detector

    @classmethod
    def from_state_dict(
        cls,
        state_dict: Mapping[str, Any],
        label_map: str | Path | Mapping[str, Any],
        config: VinVLConfig | None = None,
        device: str | torch.device = "cpu",
    ) -> VinVL:
        """Take the weights from a state dict of tensors or numpy arrays, which stays as it is."""
        from .checkpoint import state_hash

        config = config or VinVLConfig()
        vocabulary = read_vocabulary(label_map, config)
        name = f"state dict {state_hash(state_dict)}"
        source = WeightSource("state dict", lambda: dict(state_dict), lambda: name)
        detector = cls(source, vocabulary, config, device)
        detector.model  # noqa: B018 - loaded now, so that the caller may let go of the state dict
        source.read = dict
        return detector

    @property
    def model(self) -> Model:
        """The model itself, for parity work; loaded when first asked for."""
        if self._model is None:
            self._model = self._loaded()
        return self._model

    def _loaded(self) -> Model:
        from .checkpoint import Weights, checked, expected_shapes, unwrapped
        from .model import Model

        vocabulary = self.vocabulary
        counts = (len(vocabulary.labels), len(vocabulary.attributes))
        expected = expected_shapes(self.config, *counts)
        source = self._source
        source.check_unchanged()
        state = checked(unwrapped(source.read()), expected, source.where)
        model = Model(Weights(state, self.device, self._dtype(), source.where), self.config)
        source.check_unchanged()
        return model

    @property
    def batch_size(self) -> int:
        """Images to pass at once: on a CPU one, since they are computed one by one."""
        return 1 if on_cpu(self.device) else self.config.batch_size

    @property
    def cpu_s_per_image(self) -> float:
        """What a photo takes on a CPU, about, if the model is as wide and deep as the published."""
        published = VinVLConfig()
        area = (self.config.min_size / published.min_size) ** 2
        regions = self.config.proposals / published.proposals
        return _CPU_S_MAP * area + _CPU_S_REGIONS * regions

    def _dtype(self) -> torch.dtype:
        import torch

        name = self.config.precision
        if name == "auto":
            name = "float32" if on_cpu(self.device) else "float16"
        dtype: torch.dtype = getattr(torch, name)
        return dtype

    def fingerprint(self) -> dict[str, Any]:
        """Name the code, the settings, the weights and the labels that decide the numbers."""
        return {
            "detector": "vinvl",
            "code": CODE_VERSION,
            "settings": self.config.deciding(),
            "weights": self._source.content_hash(),
            "label_map": self.vocabulary.content_hash(),
        }

    def __call__(
        self, images: Sequence[Image.Image], boxes: GivenBoxes | None = None
    ) -> list[Regions]:
        """Find the regions of RGB images, or describe given boxes.

        Args:
            images: of any size; an EXIF rotation is ignored, as the reference does.
            boxes: for every image (n, 4) x1 y1 x2 y2 in its pixels, or None to search it. Given
                boxes are all answered, in their order; only what lies up to 2 pixels outside the
                image is cut off.

        Returns:
            Regions in pixels of the images, best first, features and attribute scores as float16.

        Raises:
            InputError: no list of images; given boxes are no boxes, or leave their image.
            Undescribed: numbers of some images are not finite, or beyond float16.
        """
        check_images(images)
        given = check_given(boxes, [image.size for image in images])
        found: list[Regions | None] = [None] * len(images)
        for part, inputs in self._prepared(images):
            boxes_of = [_resized(given[k], images[k], x) for k, x in zip(part, inputs, strict=True)]
            answers = self._detect(inputs, boxes_of)
            for k, x, answer in zip(part, inputs, answers, strict=True):
                if answer is not None:
                    found[k] = stored(answer, x, images[k].size, given[k])
        return self._all_described(found)

    def detect_tensor(
        self, x: torch.Tensor | np.ndarray, boxes: np.ndarray | None = None
    ) -> Regions:
        """Find the regions of one preprocessed image, or describe given boxes; for parity work.

        Args:
            x: (3, H, W) float32, a tensor or an array; blue first, mean subtracted.
            boxes: (n, 4), in pixels of x.

        Returns:
            Regions in pixels of x, with float32 features and attribute scores: nothing is rounded.

        Raises:
            InputError: x or the boxes have another shape, or leave x.
            Undescribed: numbers are not finite.
        """
        return self.detect_tensors([x], [boxes])[0]

    def detect_tensors(
        self, inputs: Sequence[torch.Tensor | np.ndarray], boxes: GivenBoxes | None = None
    ) -> list[Regions]:
        """Do as ``detect_tensor`` for images of any sizes, computed as one padded batch."""
        tensors = check_tensors(inputs)
        given = check_given(boxes, [(x.shape[2], x.shape[1]) for x in tensors])
        placed = [x.to(self.device).float() for x in tensors]
        answers = [
            None if own is None else raw(own, (x.shape[2], x.shape[1]))
            for own, x in zip(self._detect(placed, given), tensors, strict=True)
        ]
        return self._all_described(answers)

    def _detect(
        self, inputs: Sequence[torch.Tensor], boxes: Sequence[np.ndarray | None]
    ) -> list[Found | None]:
        """Run the model on one batch; None where a number was not finite."""
        import torch

        if not inputs:
            return []
        given = [None if b is None else torch.from_numpy(b).to(self.device) for b in boxes]
        found = self.model.detect(inputs, given)
        sound = torch.stack([own.sound for own in found]).tolist()  # waits for the device, once
        return [own if good else None for own, good in zip(found, sound, strict=True)]

    def _all_described(self, found: Sequence[Regions | None]) -> list[Regions]:
        """Refuse answers that lack an image, without losing the others."""
        described = [regions for regions in found if regions is not None]
        if len(described) == len(found):
            return described
        from .checkpoint import precision_hint

        lacking = first_ten([k for k, regions in enumerate(found) if regions is None])
        what = f"numbers that are not finite, or beyond float16 (image {lacking} of {len(found)})"
        raise Undescribed(WHERE, what, do=precision_hint(self._dtype()), answers=found)

    def _prepared(
        self, images: Sequence[Image.Image]
    ) -> Iterator[tuple[list[int], list[torch.Tensor]]]:
        """Yield the images' numbers and inputs in the groups they are computed in."""
        from .preprocess import resized_pixels, resized_size, similar_shapes, to_input

        config = self.config
        if on_cpu(self.device):  # one by one: the maps stay in the cache, and nothing is padded
            for k, image in enumerate(images):
                yield [k], [to_input(resized_pixels(image, config), config)]
            return
        groups = similar_shapes([resized_size(*i.size, config) for i in images], config)
        for image in images:
            image.load()  # Pillow opens lazily, and not from two threads at once
        pool = self._resizers
        work = [[pool.submit(resized_pixels, images[k], config) for k in g] for g in groups]
        for group, pixels in zip(groups, work, strict=True):
            yield group, [to_input(p.result(), config, self.device) for p in pixels]

    @cached_property
    def _resizers(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(_RESIZERS)


def _resized(boxes: np.ndarray | None, image: Image.Image, x: torch.Tensor) -> np.ndarray | None:
    """Bring given boxes from an image's pixels to those of its input."""
    return None if boxes is None else scaled(boxes, image.size, (x.shape[2], x.shape[1]))
