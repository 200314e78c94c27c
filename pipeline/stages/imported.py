"""Imported features: an origin, like the photos themselves.

``tonics features import`` makes the survey; from then on this stage is what ``[features.NAME]
detector = "import"`` stands for. Its shards are those of the survey, and nothing that happens
elsewhere makes them stale: images that are added, settings, feature files that are deleted. Only a
shard that is damaged has to be read again, from its file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import pyarrow.compute as pc

from ...artifact import Manifest, atomic_file, hash_json, hash_rows
from ...errors import FormatError, InputError, plain
from ...features import FeatureStore
from ...features.formats.conversion import BOX_SLACK_PX, to_regions
from ...features.formats.row import BadLine
from ...features.regions import Regions
from ...features.schema import SHARD_VERSION
from ...features.shard import Shard as StoredShard
from ...features.writer import shard_paths, write_index, write_shard
from ..dataset import Dataset
from ..stage import (
    Estimate,
    Made,
    Reject,
    Shard,
    Stage,
    add_counts,
    check_rejects,
    manifest_file,
    shard_manifests,
)
from ..staleness import status_of
from ..survey import SCHEMA, LineReaders, Source, Survey

_IDENTITY = [name for name in SCHEMA.names if name not in ("shard", "problem", "detail")]
_CLIPPED, _OTHER_SIZE = "clipped_images", "images_of_other_size"


class ImportStage(Stage):
    """Reads feature files of other programs; inputs are their lines."""

    kind: ClassVar[str] = "extract"
    format: ClassVar[int] = SHARD_VERSION
    estimate: ClassVar[Estimate] = Estimate(cpu_s=0.003, bytes=160_000)
    unit: ClassVar[str] = "images"

    @property
    def max_rejected(self) -> float:  # type: ignore[override]
        return self.dataset.config.features[self.name].max_rejected

    @property
    def folder(self) -> Path:
        return self.dataset.features(self.name)

    @cached_property
    def survey(self) -> Survey:
        """What is imported.

        Raises:
            InputError: nothing yet. FormatError: it is damaged.
        """
        found = Survey.read(survey_file(self.dataset, self.name))
        if found is None:
            do = f"run 'tonics features import {self.name} FILE', after 'tonics ingest'"
            raise InputError(f"features.{self.name}", "nothing imported yet", do=do)
        return found

    @property
    def survey_before(self) -> Path:
        """Where the survey lies that an import under way adds to."""
        return survey_file(self.dataset, self.name).with_name("survey_before.parquet")

    @property
    def empty(self) -> bool:
        """Nothing was imported yet."""
        known = survey_file(self.dataset, self.name).exists()
        return not known and not self._finished_without_survey

    @property
    def waits_for(self) -> str:
        return f"tonics features import {self.name} FILE" if self.empty else ""

    def check(self) -> None:
        """Refuse what cannot be made any more, before any stage of a run begins."""
        if self._finished_without_survey:
            return
        self._check_numbers()
        status = status_of(self)
        if any(s.old and s.old.identity.get("format") != self.format for s in status.stale):
            do = f"run 'tonics features migrate {self.name}'"
            raise InputError(self.folder, "is of an older format version", do=do)
        for stale in status.stale:
            self._check_source(int(stale.shard.work))

    def irreplaceable(self, shard: str) -> str:
        if self._finished_without_survey:
            return "what is known of its files is gone (survey.parquet beside its manifests)"
        try:
            shards = self.survey.num_shards
            self._check_numbers()
            if shard.isdigit() and int(shard) < shards:
                self._check_source(int(shard))
        except (InputError, FormatError) as error:
            return f"{error.where}: {error.found}; {error.do}"
        return ""

    def discard(self) -> None:
        """Refuse to rebuild what cannot be read again."""
        for number in range(self.survey.num_shards):
            self._check_source(number)

    def _check_numbers(self) -> None:
        """Refuse to go on where images were numbered afresh: rows would be of other images."""
        if not self.dataset.images_file.exists():
            return
        ids = self.dataset.images().column("image_id")
        numbers = self.survey.used.column("image")
        known = (pc.max(numbers).as_py() or 0) < len(ids)
        if not known or not ids.take(numbers).equals(self.survey.used.column("image_id")):
            do = f"'tonics features import {self.name} FILE --replace' imports them anew"
            raise InputError(self.folder, "the images were numbered afresh since", do=do)

    def _check_source(self, number: int) -> None:
        lines = self.survey.shard(number)
        source = self.survey.sources[lines.column("source")[0].as_py()]
        first, last = lines.column("line")[0].as_py(), lines.column("line")[-1].as_py()
        if problem := _changed(self.dataset, source):
            found = f"lines {first} to {last} have to be read again, and the file {problem}"
            do = f"put it back as it was ('cp -p' keeps its time) and run 'tonics run {self.key}'"
            raise InputError(self.dataset.root / source.path, found, do=do)

    @cached_property
    def _finished_without_survey(self) -> dict[str, Manifest]:
        """Manifests of the shards of an import whose survey is lost: they are what there is."""
        if survey_file(self.dataset, self.name).exists():
            return {}
        return {m.shard: m for m in shard_manifests(self.dataset, self.key)}

    def shards(self) -> list[Shard]:
        if made := self._finished_without_survey:
            return [Shard(name=m.shard, rows=m.counts["in"], work=-1) for m in made.values()]
        if self.empty:
            return []  # 'tonics run -n' and 'status' list it; check() says what is to be done
        lines = self.survey.used.column("shard").value_counts().to_pylist()
        return [Shard(name=f"{c['values']:05d}", rows=c["counts"], work=c["values"]) for c in lines]

    def identity(self, shard: Shard) -> dict[str, Any]:
        if shard.work < 0:
            return dict(self._finished_without_survey[shard.name].identity)
        lines = self.survey.shard(shard.work)
        source = self.survey.sources[lines.column("source")[0].as_py()]
        settings = {"format": self.survey.format, "dim": self.survey.dim}
        return {
            "source": source.stamp(),
            "lines": hash_rows(lines, _IDENTITY),
            "settings": settings,
        }

    def make(self, shard: Shard) -> Made:
        self._check_source(shard.work)
        rejects: list[Reject] = []
        counts: Counter[str] = Counter({_CLIPPED: 0, _OTHER_SIZE: 0})
        output = self.folder / f"{shard.name}.arrow"
        with atomic_file(output) as tmp:
            rows = self._regions(shard.work, rejects, counts)
            count = write_shard(tmp, rows, dim=self.survey.dim, ordered=False)
        return Made(outputs=[output], rows=count, rejected=rejects, counts=dict(counts))

    def _regions(
        self, number: int, rejects: list[Reject], counts: Counter[str]
    ) -> Iterator[tuple[int, Regions]]:
        """Read the lines of a shard one by one."""
        lines, survey = self.survey.shard(number), self.survey
        source = survey.sources[lines.column("source")[0].as_py()]
        with LineReaders(self.dataset, source) as readers:
            for line in lines.to_pylist():
                size = line["width"], line["height"]
                try:
                    row = survey.family.read(*readers.columns(line))
                    regions, clipped = to_regions(row, survey.names, survey.dim, *size)
                except BadLine as bad:
                    rejects.append(_reject(source, line, bad.reason, bad.detail))
                    self.advance(1, 1)
                    continue
                counts[_CLIPPED] += clipped
                counts[_OTHER_SIZE] += min(size) > 0 and size != (regions.width, regions.height)
                yield line["image"], regions
                self.advance(1, 0)

    def merge_identity(self) -> dict[str, Any]:
        if not survey_file(self.dataset, self.name).exists():
            merged = Manifest.read(manifest_file(self.dataset, self.key))
            return {k: merged.identity[k] for k in ("read",) if merged and k in merged.identity}
        sources = [[s.lines, dict(s.matched), dict(s.ignored)] for s in self.survey.sources]
        columns = ["source", "line", "problem", "detail"]
        return {"read": hash_json([sources, hash_rows(self.survey.refused, columns)])}

    def merge(self, shards: Sequence[Manifest]) -> Made:
        survey = self.survey
        rejects = [
            _reject(survey.sources[line["source"]], line, line["problem"], line["detail"])
            for line in survey.refused.to_pylist()
        ]
        rejected = add_counts(
            [*(m.counts["rejected"] for m in shards), Counter(r.reason for r in rejects)]
        )
        check_rejects(self, survey.lines.num_rows, rejected)
        ids = (survey.used.column(name).to_pylist() for name in ("image", "image_id"))
        write_index(self.folder, self._vocabulary(), image_ids=dict(zip(*ids, strict=True)))
        self.survey_before.unlink(missing_ok=True)
        store = FeatureStore(self.folder)
        return Made(
            outputs=[self.folder / "index.arrow", self.folder / "vocabulary.json"],
            rejected=rejects,
            ignored=add_counts(source.ignored for source in survey.sources),
            counts={
                "in": sum(source.lines for source in survey.sources),
                "regions": int(store.num_regions(store.images).sum()),
                "dim": store.dim,
                "content_hash": store.content_hash,
                "notes": [plain(note) for note in self._notes(store, shards)],
            },
        )

    def _vocabulary(self) -> Any:
        """The names of labels and attributes, or as many as there are numbers."""
        if not self.survey.names.numbered:
            return self.survey.names.vocabulary()
        label = attribute = -1
        for shard in map(StoredShard, shard_paths(self.folder)):
            for batch in map(shard.batch, range(shard.num_batches)):
                label = max(label, int(batch.labels.max(initial=0)))
                attribute = max(attribute, int(batch.attributes.max(initial=0)))
        return self.survey.names.vocabulary(label, attribute)

    def _notes(self, store: FeatureStore, shards: Sequence[Manifest]) -> Iterator[str]:
        """What a person should know about an import that went well."""
        survey, images = self.survey, self.dataset.images()
        matched = add_counts(source.matched for source in survey.sources)
        listed = ", ".join(f"{n:,} by {rule}" for rule, n in matched.items())
        yield f"format {survey.format}, images recognised: {listed or 'none'}"
        active = images.filter(pc.not_equal(images.column("content_hash"), "")).num_rows
        if active > len(store):
            missing = f"{active - len(store):,} of the dataset's {active:,} images"
            yield f"{missing} have no features here"
        if clipped := sum(m.counts[_CLIPPED] for m in shards):
            yield f"{clipped:,} images had boxes up to {BOX_SLACK_PX:g} px outside: cut off"
        if other := sum(m.counts[_OTHER_SIZE] for m in shards):
            yield f"{other:,} images have another size in the feature file: its own was kept"
        if survey.names.numbered:
            yield "labels have no names (label_17): --replace with --vocabulary gives them"
        elif not survey.names.labels:
            yield "the file has no labels and scores: all regions are 'unlabelled', with score 1"


def survey_file(dataset: Dataset, name: str) -> Path:
    """Where the survey of an import lies."""
    return manifest_file(dataset, f"extract/{name}").with_name("survey.parquet")


def _reject(source: Source, line: Mapping[str, Any], reason: str, detail: str) -> Reject:
    where = f"{source.name}:{line['line']}"
    return Reject(where=where, reason=reason, detail=f"{line['image_id']}: {detail}")


def _changed(dataset: Dataset, source: Source) -> str:
    """Say that a source or its second file is not what it was, or nothing."""
    stamps = [(source.path, (source.bytes, source.mtime_ns)), (source.mate, source.mate_stamp)]
    for path, stamp in stamps:
        if path:
            file = dataset.root / path
            if not file.is_file():
                return "is gone" if path == source.path else f"{file.name} is gone"
            if (file.stat().st_size, file.stat().st_mtime_ns) != tuple(stamp):
                return "changed since" if path == source.path else f"{file.name} changed since"
    return ""
