"""The photographs of the demo: where they are, which are used, and what people call them."""

from __future__ import annotations

import csv
import fnmatch
import functools
import logging
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from ...errors import InputError, MissingAsset

logger = logging.getLogger(__name__)

DEBIAN_FOLDER = Path("/usr/share/tuxpaint/stamps")
HOW_TO_GET = (
    "run 'apt-get install tuxpaint-stamps-default', or without root "
    "'apt-get download tuxpaint-stamps-default && dpkg-deb -x tuxpaint-stamps-default_*.deb DIR' "
    "and name DIR with --stamps or $TONICS_STAMPS"
)
# Sizes are the composition's business: a caption may only call large what it draws large.
_UNTRUE_WORDS = {"very", "small", "little", "large", "big", "male", "female", "baby", "pair", "of"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Noun:
    """What a caption writer calls a thing.

    Attributes:
        counter: "a pair of", "some", ...: how one of it is counted; empty for "a" or "an".
        synset: its sense in WordNet 3.0.
        general: a wider noun of the table that people use as well ("bird" for "owl"), or empty.
        common: one of the everyday objects that fill same-object batches.
    """

    noun: str
    plural: str
    counter: str
    synset: str
    general: str
    common: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """One cut-out photograph.

    Attributes:
        path: relative to the stamps' folder, with "/".
        description: the first line of the text beside it, as its author wrote it; empty when there
            is none.
        names: its noun and the wider ones, narrowest first.
        size: tiny, small, medium, large or huge, as such things are beside each other.
        places: letters of where it can be: g(round outdoors), i(ndoors), t(able), w(ater),
            b(each), s(ky).
        pose: "standing", "parked", ...; empty when nothing fits.
        modifier: what the caption says before the noun: "Sumatran", "red and white", or nothing.
    """

    path: str
    description: str
    names: tuple[Noun, ...]
    size: str
    places: str
    pose: str
    modifier: str

    @property
    def noun(self) -> Noun:
        """The narrowest noun."""
        return self.names[0]


def find_stamps(folder: Path | None = None) -> Path:
    """Find the folder of photographs: the one given, else $TONICS_STAMPS, else Debian's.

    A folder into which the Debian package was unpacked serves as well.

    Raises:
        MissingAsset: there is no such folder, or none of the photographs is in it.
    """
    asked = folder or Path(os.environ.get("TONICS_STAMPS") or DEBIAN_FOLDER)
    inside = asked / DEBIAN_FOLDER.relative_to("/")
    if not asked.is_dir():
        raise MissingAsset(asked, "no such folder of photographs", do=HOW_TO_GET)
    for candidate in (asked, inside):
        if any((candidate / path).is_file() for path in object_rows()):
            return candidate
    raise MissingAsset(asked, "holds none of the demo's photographs", do=HOW_TO_GET)


def load_stamps(folder: Path) -> list[Stamp]:
    """Describe the usable photographs of a folder, ordered by path.

    What ``excluded.tsv`` names is left out, and so is a picture that the tables do not know.

    Raises:
        MissingAsset: not one photograph of ``objects.tsv`` is there.
    """
    present = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.png"))
    rows = object_rows()
    used = [path for path in present if path in rows]
    unknown = [path for path in present if path not in rows and not excluded_because(path)]
    if unknown:
        logger.info("%d pictures of %s are not in the demo's tables", len(unknown), folder)
    if not used:
        raise MissingAsset(folder, "holds none of the demo's photographs", do=HOW_TO_GET)
    return [_stamp(folder, rows[path]) for path in used]


def excluded_because(path: str) -> str:
    """Say why a picture is left out, or nothing.

    >>> excluded_because("household/tools/measuring_tape_mirror.png")
    'the mirrored copy of another stamp'
    """
    for row in table("excluded.tsv"):
        if fnmatch.fnmatchcase(path, row["pattern"]):
            return row["why"]
    return ""


def commons(stamps: Iterable[Stamp]) -> list[str]:
    """List the everyday nouns that these stamps can show, in the order of the table."""
    shown = {noun.noun for stamp in stamps for noun in stamp.names}
    return [name for name, noun in nouns().items() if noun.common and name in shown]


def open_stamp(folder: Path, path: str):  # type: ignore[no-untyped-def]
    """Decode a photograph and trim it to what can be seen of it.

    Returns:
        a PIL image of mode RGBA.

    Raises:
        InputError: it is not a readable picture, or nothing in it can be seen.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        image = Image.open(folder / path).convert("RGBA")
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise InputError(folder / path, f"cannot be read ({error})", do=HOW_TO_GET) from error
    box = image.getchannel("A").point(lambda alpha: 255 * (alpha > 24)).getbbox()
    if box is None:
        raise InputError(folder / path, "is wholly transparent", do=HOW_TO_GET)
    return image.crop(box)


@functools.cache
def nouns() -> dict[str, Noun]:
    """Read ``nouns.tsv``, in its order."""
    return {
        row["noun"]: Noun(**{**row, "common": row["common"] == "x"})  # type: ignore[arg-type]
        for row in table("nouns.tsv")
    }


@functools.cache
def object_rows() -> dict[str, dict[str, str]]:
    """Read ``objects.tsv``, by the path of the photograph."""
    return {row["stamp"]: row for row in table("objects.tsv")}


@functools.cache
def table(name: str) -> tuple[dict[str, str], ...]:
    """Read one of the tables beside the code."""
    text = resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
    return tuple(csv.DictReader(text.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE))


def _stamp(folder: Path, row: dict[str, str]) -> Stamp:
    description = _first_line((folder / row["stamp"]).with_suffix(".txt"))
    names = _chain(row["noun"])
    modifier = row["modifier"]
    if modifier == "=":
        modifier = modifier_of(description, names[0])
    return Stamp(
        path=row["stamp"],
        description=description,
        names=names,
        size=row["size"],
        places=row["places"],
        pose=row["pose"],
        modifier=modifier,
    )


def _chain(name: str) -> tuple[Noun, ...]:
    chain = [nouns()[name]]
    while chain[-1].general:
        chain.append(nouns()[chain[-1].general])
    return tuple(chain)


def _first_line(text: Path) -> str:
    try:
        lines = text.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return ""
    return lines[0].strip() if lines else ""


def modifier_of(description: str, noun: Noun) -> str:
    """Take from a description what it says before the noun; nothing when it is not of that form.

    >>> modifier_of("A Sumatran tiger.", nouns()["tiger"])
    'Sumatran'
    >>> modifier_of("A peacock (a male peafowl).", nouns()["peacock"])
    ''
    """
    text = re.sub(r"\(.*?\)|[“”\"!.,]", "", description).strip()
    found = re.fullmatch(r"(?:An?|Some|The) (.+) (\S+)", text)
    if not found or not text.lower().endswith((noun.noun.lower(), noun.plural.lower())):
        return ""
    words = text.split()[1 : -len(noun.noun.split())]
    return " ".join(word for word in words if word.lower() not in _UNTRUE_WORDS)
