"""Making a survey: goes through feature files and finds the dataset's images in them."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from ..errors import InputError
from ..features.formats import FORMATS, Mates, default_names, mate_of
from ..features.formats import sizes as image_sizes
from ..features.formats.lines import Line, lines_of
from ..features.formats.names import Names, read_names
from ..features.formats.row import BadLine, FeatureFormat, Row, columns_of
from .dataset import Dataset
from .feature_files import Wanted, files_of, labels_of, source_of
from .matching import RULES, ImageIds, Match, settle
from .progress import Meter, Progress
from .survey import SCHEMA, LineReaders, Source, Survey

TWICE = "image id twice"
NOT_OURS, AMBIGUOUS_ID, EMPTY = "not in this dataset", "ambiguous image id", "empty line"
_MEGABYTE = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """A line whose id may be that of an image.

    Attributes:
        source: position in the sources. line: its text is dropped.
        mate: place and size of its line in the second file. problem, detail: why it is rejected.
    """

    source: int
    line: Line
    key: str
    match: Match
    mate: tuple[int, int] = (-1, 0)
    problem: str = ""
    detail: str = ""


def make_survey(
    dataset: Dataset, name: str, wanted: Wanted, before: Survey | None, progress: Progress
) -> Survey:
    """Go through feature files and find the dataset's images in them.

    Args:
        name: of the feature set, for its ``shard_images``.
        before: what was imported already, and stays; lines and images that it has are left out.

    Raises:
        InputError: files that cannot be imported as they are.
    """
    files, kind = files_of(wanted, before)
    surveyor = _Surveyor(dataset, FORMATS[kind], wanted, before)
    with progress.task(f"survey {name}", sum(_megabytes(f) for f in files), "MB") as meter:
        for file, label in zip(files, labels_of(files), strict=True):
            surveyor.look(file, label, meter)
    found = surveyor.settle(before)
    if not found and not before:
        raise surveyor.nothing_found(files[0])
    first = before.num_shards if before else 0
    lines = surveyor.table(found, dataset.config.features[name].shard_images, first)
    dim = surveyor.check_first(lines, before.dim if before else 0)
    return Survey(
        lines=pa.concat_tables([before.lines, lines]) if before else lines,
        sources=tuple(surveyor.sources),
        format=kind,
        dim=dim,
        names=surveyor.names,
        options=before.options if before else wanted.options(),
    )


def goes_on(dataset: Dataset, before: Survey, wanted: Wanted) -> Survey | None:
    """The survey of an import of the very same files, with the places where they are now."""
    files, kind = files_of(wanted)
    labels = zip(files, labels_of(files), strict=True)
    now = [source_of(dataset, file, label, FORMATS[kind]) for file, label in labels]
    same = len(now) == len(before.sources) and kind == before.format
    pairs = list(zip(before.sources, now, strict=False))
    if not same or before.options != wanted.options() or not all(a.same_file(b) for a, b in pairs):
        return None
    moved = tuple(replace(old, path=new.path, mate=new.mate) for old, new in pairs)
    return replace(before, sources=moved)


class _Surveyor:
    """Looks through files, with the dataset's images at hand.

    Attributes:
        sources: of the survey before, then those looked at. names: grow with what is found.
    """

    def __init__(
        self, dataset: Dataset, family: FeatureFormat, wanted: Wanted, before: Survey | None
    ) -> None:
        self.dataset, self.family = dataset, family
        self.names = _names(wanted, before, family)
        self.sources = list(before.sources) if before else []
        images = dataset.images()
        self.images = images.filter(pc.not_equal(images.column("content_hash"), ""))
        self._ids = ImageIds(self.images, wanted.rules)
        self._sizes = image_sizes.read_sizes(wanted.sizes) if wanted.sizes else {}
        self._sizes_said = wanted.sizes is not None
        self._found: list[_Found] = []

    def look(self, file: Path, label: str, meter: Meter) -> None:
        """Find the lines of a file that may be of the dataset's images."""
        source = source_of(self.dataset, file, label, self.family)
        at = self._place(source)
        if not self._sizes_said and file.with_name(image_sizes.NAME).is_file():
            self._sizes |= image_sizes.read_sizes(file.with_name(image_sizes.NAME))
        with contextlib.closing(Mates(file, self.family)) as mates:
            lines, ignored = self._go_through(file, label, at, mates, meter)
        self.sources[at] = replace(self.sources[at], lines=lines, ignored=ignored)

    def _go_through(
        self, file: Path, label: str, at: int, mates: Mates, meter: Meter
    ) -> tuple[int, Counter[str]]:
        """Look at every line; how many there are, and how many are ignored by reason."""
        ignored, lines = Counter[str](), 0
        collects = self.family.objects is not None and not self.names.fixed
        # Names that are in the lines themselves are worth reading the lines for.
        for line in lines_of(file, ids_only=not (collects and mates.path is None)):
            lines = line.number
            meter.reached(label, line.offset // _MEGABYTE, 0)
            found = self._look_at(line, at, mates)
            if isinstance(found, str):
                ignored[found] += 1
                continue
            if collects and not found.problem:
                self._collect(line, found, mates)
            self._found.append(replace(found, line=replace(line, text=b"")))
        return lines, ignored

    def _place(self, source: Source) -> int:
        """Where a source is in the list: one that was imported before keeps its place."""
        for at, known in enumerate(self.sources):
            if known.same_file(source):
                self.sources[at] = replace(known, path=source.path, mate=source.mate)
                return at
        if source.name in {known.name for known in self.sources}:
            source = replace(source, name=f"{Path(source.path).parent.name}/{source.name}")
        self.sources.append(source)
        return len(self.sources) - 1

    def _look_at(self, line: Line, source: int, mates: Mates) -> _Found | str:
        """A line that may be an image's, or why it does not concern this dataset."""
        if line.size <= 2 and not line.text.strip():
            return EMPTY
        key = line.key.decode("utf-8", "backslashreplace")
        match = self._ids.find(key)
        if match is None:
            return NOT_OURS
        found = _Found(source=source, line=line, key=key, match=match)
        try:
            return replace(found, mate=mates.place(line.number, key) or (-1, 0))
        except BadLine as bad:
            return replace(found, problem=bad.reason, detail=bad.detail)

    def _collect(self, line: Line, found: _Found, mates: Mates) -> None:
        assert self.family.objects is not None, "collects names of a family that has none"
        with contextlib.suppress(BadLine):  # it is rejected when it is read
            mate = mates.of(line.number, found.key)
            self.names.collect(self.family.objects(columns_of(line.text), mate))

    def settle(self, before: Survey | None) -> list[_Found]:
        """Choose the line of every image; what the others are is counted with their source."""
        lines, images = _taken(before)
        matched = [Counter(source.matched) for source in self.sources]
        ignored = [Counter(source.ignored) for source in self.sources]
        kept = []
        verdicts = settle([(one.key, one.match) for one in self._found])
        for one, verdict in zip(self._found, verdicts, strict=True):
            if (one.source, one.line.number) in lines:
                continue
            if verdict in ("ambiguous", "other"):
                ignored[one.source][AMBIGUOUS_ID if verdict == "ambiguous" else NOT_OURS] += 1
            elif verdict == "twice" or one.match.image in images:
                kept.append(replace(one, problem=TWICE, detail=one.key))
            else:
                matched[one.source][RULES[one.match.rule]] += 1
                kept.append(one)
        counts = zip(self.sources, matched, ignored, strict=True)
        self.sources = [replace(s, matched=dict(m), ignored=dict(i)) for s, m, i in counts]
        return kept

    def table(self, found: Sequence[_Found], shard_images: int, first_shard: int) -> pa.Table:
        """Turn lines into the rows of a survey."""
        columns = (self.images.column(c).to_pylist() for c in ("image_id", "width", "height"))
        numbers = self.images.column("image").to_pylist()
        known = dict(zip(numbers, zip(*columns, strict=True), strict=True))
        images = [known[one.match.image] for one in found]
        sizes = [
            self._sizes.get(one.key, image[1:]) for one, image in zip(found, images, strict=True)
        ]
        values = {
            "shard": list(_shards(found, shard_images, first_shard)),
            "source": [one.source for one in found],
            "line": [one.line.number for one in found],
            "offset": [one.line.offset for one in found],
            "size": [one.line.size for one in found],
            "mate_offset": [one.mate[0] for one in found],
            "mate_size": [one.mate[1] for one in found],
            "image": [one.match.image for one in found],
            "image_id": [image_id for image_id, *_ in images],
            "width": [width for width, _ in sizes],
            "height": [height for _, height in sizes],
            "names": [self.names.content_hash()] * len(found),
            "problem": [one.problem for one in found],
            "detail": [one.detail for one in found],
        }
        return pa.table(values, schema=SCHEMA)

    def nothing_found(self, file: Path) -> InputError:
        """Say that no line is of this dataset, with an id of either side."""
        key = next((line.key for line in lines_of(file)), b"").decode("utf-8", "backslashreplace")
        ours = next(iter(self.images.column("image_id").to_pylist()), "")
        found = f"none of its images is in this dataset (its first id is {key[:80]!r})"
        return InputError(file, found, expected=f"ids such as {ours!r}")

    def check_first(self, lines: pa.Table, dim: int) -> int:
        """Refuse files whose lines all lack the same.

        Returns:
            D, the numbers in one region's feature, as the first line says that can be read; ``dim``
            where it is known already.
        """
        problem = "no line has regions"
        for batch in lines.filter(pc.equal(lines.column("problem"), "")).to_batches(100):
            for line in batch.to_pylist():
                source = self.sources[line["source"]]
                row = self._read(source, line)
                if isinstance(row, Row):
                    self._check(self.dataset.root / source.path, row, lines)
                    return dim or row.features.shape[1]
                problem = row or problem
        if lines.num_rows and not dim:
            do = "another format can be named with --format"
            raise InputError(self.sources[0].name, f"no line can be read: {problem}", do=do)
        return dim

    def _read(self, source: Source, line: Mapping[str, int]) -> Row | str:
        """Read a line that has regions; else say what is wrong with it, or nothing."""
        with LineReaders(self.dataset, source) as readers:
            try:
                row = self.family.read(*readers.columns(line))
            except BadLine as bad:
                return f"line {line['line']}, {bad}"
            return row if len(row) else ""

    def _check(self, file: Path, row: Row, lines: pa.Table) -> None:
        if row.objects is None and row.boxes is None and row.geometry is None:
            beside = self.family.mate.path(file).name if self.family.mate else "its second file"
            raise InputError(file, "has no boxes and no geometry", do=f"put {beside} beside it")
        if row.objects is None and row.labels is None and self.names.labels:
            found = "has no labels: a vocabulary says nothing of it"
            raise InputError(file, found, do="leave --vocabulary out")
        if not row.width and not pc.max(lines.column("width")).as_py():
            found = "does not say how large its images are, and images.parquet does not know"
            do = "give an hw.tsv with --sizes"
            if self.family.mate and mate_of(file, self.family) is None:
                beside = self.family.mate.path(file).name
                found, do = f"{found}; there is no {beside} beside it", f"put it there, or {do}"
            raise InputError(file, found, do=do)


def _names(wanted: Wanted, before: Survey | None, family: FeatureFormat) -> Names:
    """The vocabulary to number by: of the user's files, of the import before, or none yet."""
    if wanted.attributes and not wanted.vocabulary:
        raise InputError("--attributes", "without --vocabulary", expected="both or none")
    given = read_names(wanted.vocabulary, wanted.attributes) if wanted.vocabulary else None
    if before is None:
        return given or default_names(family)
    if given is not None and given.content_hash() != before.names.content_hash():
        found = "is not the one the first files were imported with"
        raise InputError(wanted.vocabulary, found, do="leave it out, or --replace everything")
    return Names.from_json(before.names.to_json())


def _taken(before: Survey | None) -> tuple[set[tuple[int, int]], set[int]]:
    """Lines (source, line) and images that were imported before."""
    if before is None:
        return set(), set()
    columns = (before.lines.column(name).to_pylist() for name in ("source", "line"))
    return set(zip(*columns, strict=True)), set(before.used.column("image").to_pylist())


def _shards(found: Sequence[_Found], size: int, first: int) -> Iterator[int]:
    """Cut the lines of every source into shards of so many images; -1 for those in none."""
    shard, filled, source = first - 1, size, -1
    for one in found:
        if one.problem:
            yield -1
            continue
        if filled == size or one.source != source:
            shard, filled, source = shard + 1, 0, one.source
        filled += 1
        yield shard


def _megabytes(file: Path) -> int:
    return max(1, file.stat().st_size // _MEGABYTE)
