"""Curricula: phases as ``tonics.toml`` says them, ready-made ones, and the epochs they get."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import ValidationError

from ...errors import ConfigError
from ..config import IMPORTED, Phase, Plan
from ..config import Section as Params
from . import BUILDERS
from .builder import Builder

CURRICULA: dict[str, tuple[Phase, ...]] = {
    "random": (Phase(builder="random"),),
    # From any objects to the same object, level by level; ends in mixed batches, because training
    # that ends in same-object batches forgets how to tell objects apart.
    "tonics": (
        Phase(builder="random", share=0.3),
        Phase(builder="ontology", share=0.2, params={"depth": "middle"}),
        Phase(builder="ontology", share=0.3, params={"depth": "leaves"}),
        Phase(builder="random", share=0.2),
    ),
    # Random batches are hard enough at first; then tight groups of one object each, mixed widely.
    "tonics-mixed": (
        Phase(builder="random", share=0.34),
        Phase(builder="communities", share=0.66),
    ),
    # Pools of batches for every object; the trainer opens objects as it learns.
    "adaptive": (Phase(builder="pools"),),
}
_TOPIC_PURE = "kmeans"  # training that ends in its batches lost 15 of 290 points of recall


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A builder with its checked settings and its share of a phase's pairs.

    Attributes:
        rotation: how many different epochs are built and taken in turn; 0: all are built.
    """

    builder: Builder
    params: Params
    share: float
    rotation: int

    @property
    def needs(self) -> frozenset[str]:
        """What must be loaded into ``Eligible``."""
        return self.builder.needs(self.params)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """One phase as it will be built: which epochs, with which builders and checked settings.

    Attributes:
        name: unlike that of any other phase of the plan.
    """

    name: str
    parts: tuple[Part, ...]
    epochs: range

    @property
    def builder(self) -> str:
        """The builder's name, or those of a mix."""
        return " + ".join(part.builder.name for part in self.parts)

    @property
    def params(self) -> dict[str, Any]:
        """The settings as JSON; of a mix, with the share, by builder."""
        if len(self.parts) == 1:
            return self.parts[0].params.model_dump(mode="json")
        return {
            p.builder.name: {"share": p.share, **p.params.model_dump(mode="json")}
            for p in self.parts
        }


def stretches(where: str, plan: Plan) -> list[Stretch]:
    """Turn a plan's section into phases with whole epochs.

    Raises:
        ConfigError: an unknown builder, curriculum or setting; shares that do not add up to 1; more
            phases than epochs; a batch that ranks or groups do not divide; an end in batches of
            one topic.
    """
    check_world(where, plan)
    phases = _phases(where, plan)
    _check_sum(f"{where}.phases", [phase.share for phase in phases])
    parts = [_parts(f"{where}.phases[{i}]", phase, plan) for i, phase in enumerate(phases)]
    _check_end(where, parts)
    _check_pools(where, parts)
    counts = apportion([phase.share for phase in phases], plan.epochs)
    if 0 in counts:
        raise ConfigError(
            f"{where}.epochs",
            f"{plan.epochs} epochs for {len(phases)} phases",
            expected="at least one epoch a phase",
            do="raise epochs, or give the phases more even shares",
        )
    starts = np.cumsum([0, *counts]).tolist()
    if parts[0][0].builder.pools:
        starts = [0, 1]  # they are built once, however many epochs are drawn from them
    return [
        Stretch(
            name=name,
            parts=parts[i],
            epochs=range(starts[i], starts[i + 1]),
        )
        for i, name in enumerate(_names(parts))
    ]


def _phases(where: str, plan: Plan) -> Sequence[Phase]:
    if plan.phases and plan.curriculum:
        do = "keep one of the two"
        raise ConfigError(where, "both curriculum and phases", expected="one of them", do=do)
    if plan.phases:
        return plan.phases
    name = plan.curriculum or "random"
    if name not in CURRICULA:
        raise _unknown(f"{where}.curriculum", name, (*CURRICULA, IMPORTED))
    return CURRICULA[name]


def _unknown(where: str, name: str, known: Collection[str]) -> ConfigError:
    close = difflib.get_close_matches(name, known, 1)
    do = f"did you mean {close[0]!r}?" if close else ""
    return ConfigError(where, f"value {name!r}", expected=f"one of {', '.join(known)}", do=do)


def _parts(where: str, phase: Phase, plan: Plan) -> tuple[Part, ...]:
    if bool(phase.builder) == bool(phase.mix):
        found = "both builder and mix" if phase.mix else "neither builder nor mix"
        raise ConfigError(where, found, expected="one of them", do="mix = { random = 0.5, ... }")
    if phase.mix:
        _check_sum(f"{where}.mix", list(phase.mix.values()))
        if unknown := sorted(set(phase.params) - set(phase.mix)):
            expected = f"a table for each of {', '.join(phase.mix)}"
            raise ConfigError(f"{where}.params.{unknown[0]}", "not in mix", expected=expected)
    shares = phase.mix or {phase.builder: 1.0}
    return tuple(_part(where, name, share, phase, plan) for name, share in shares.items())


def _part(where: str, name: str, share: float, phase: Phase, plan: Plan) -> Part:
    if name not in BUILDERS:
        key = "mix" if phase.mix else "builder"
        raise _unknown(f"{where}.{key}", name, BUILDERS)
    builder = BUILDERS[name]
    at = f"{where}.params.{name}" if phase.mix else f"{where}.params"
    params = _params(at, builder, phase.params.get(name, {}) if phase.mix else phase.params)
    group = builder.group_size(params, plan.batch_size)
    if group < 2 or plan.batch_size % group:
        raise ConfigError(
            where.partition(".phases")[0] + ".batch_size",
            f"{plan.batch_size}, which builder {name!r} cannot divide into groups of {group}",
            expected="groups of two pairs or more that divide it, such as 16, or 8 up to 64",
        )
    if not plan.embeddings and "text" in builder.needs(params):
        raise ConfigError(
            where.partition(".phases")[0] + ".embeddings",
            f"none, and builder {name!r} compares captions",
            expected="the NAME of an [embeddings.NAME] section",
        )
    rotation = builder.rotation if phase.rotation is None else phase.rotation
    return Part(builder=builder, params=params, share=share, rotation=rotation)


def _params(where: str, builder: Builder, values: Any) -> Params:
    model = builder.params
    allowed = ", ".join(model.model_fields) or "none"
    expected = f"settings of builder {builder.name!r}: {allowed}"
    if not isinstance(values, Mapping):
        raise ConfigError(where, f"value {values!r}", expected=expected)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0]) if first["loc"] else "?"
        if first["type"] == "extra_forbidden":
            close = difflib.get_close_matches(key, model.model_fields, 1)
            do = f"did you mean {close[0]!r}?" if close else ""
            raise ConfigError(f"{where}.{key}", "unknown", expected=expected, do=do) from error
        wanted = " or ".join(
            dict.fromkeys(e["msg"] for e in error.errors() if e["loc"][:1] == (key,))
        )
        found = f"{first['input']!r} ({wanted or first['msg']})"
        raise ConfigError(f"{where}.{key}", found, expected=expected) from error


def check_world(where: str, plan: Plan) -> None:
    """Refuse a batch that the ranks do not divide.

    Raises:
        ConfigError: naming both, and the next size that would do.
    """
    if plan.batch_size % plan.world_size:
        raise ConfigError(
            f"{where}.world_size",
            f"{plan.world_size} processes for batches of {plan.batch_size}",
            expected="a number that divides batch_size",
            do=f"set batch_size = {-(-plan.batch_size // plan.world_size) * plan.world_size}",
        )


def _check_sum(where: str, shares: list[float]) -> None:
    total = sum(shares)
    if abs(total - 1) > 1e-6:
        raise ConfigError(where, f"shares {shares} add up to {total:g}", expected="1")


def _check_end(where: str, parts: Sequence[Sequence[Part]]) -> None:
    """Refuse a curriculum with batches of one topic and no random phase after them."""
    names = [[part.builder.name for part in phase] for phase in parts]
    pure = [i for i, phase in enumerate(names) if _TOPIC_PURE in phase]
    if pure and ["random"] not in names[pure[-1] + 1 :]:
        raise ConfigError(
            f"{where}.phases",
            f"phase {pure[-1]} ({_TOPIC_PURE}) has no random phase after it",
            expected="a plan that does not end in batches of one topic: a model forgets the others",
            do='add { builder = "random", share = 0.3 } and lower the other shares',
        )


def _check_pools(where: str, parts: Sequence[Sequence[Part]]) -> None:
    pools = any(part.builder.pools for phase in parts for part in phase)
    if pools and (len(parts) > 1 or len(parts[0]) > 1):
        found = "pools beside other builders"
        do = "give the plan one phase, or curriculum = 'adaptive'"
        raise ConfigError(f"{where}.phases", found, expected="pools alone", do=do)


def _names(phases: Sequence[Sequence[Part]]) -> list[str]:
    """Name phases by builder and by settings that are not its defaults; a second one gets 2."""
    names: list[str] = []
    seen: Counter[str] = Counter()
    for parts in phases:
        name = " + ".join(_part_name(part) for part in parts)
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name} {seen[name]}")
    return names


def _part_name(part: Part) -> str:
    values = part.params.model_dump(mode="json", exclude_defaults=True)
    if part.builder.name == "ontology":
        values = {"depth": part.params.model_dump()["depth"], **values}
    words = [str(v) if isinstance(v, str) else f"{key} {v}" for key, v in values.items()]
    return " ".join([part.builder.name, *words])


def apportion(shares: Sequence[float], total: int) -> list[int]:
    """Divide whole epochs by shares, the largest remainders first; every phase gets one if it can.

    >>> apportion([0.34, 0.66], 10), apportion([0.05, 0.95], 10)
    ([3, 7], [1, 9])
    """
    exact = np.array(shares) * total
    counts = np.floor(exact + 1e-9).astype(int)
    for i in np.argsort(-(exact - counts), kind="stable")[: total - counts.sum()]:
        counts[i] += 1
    for i in np.flatnonzero(counts == 0):
        richest = int(np.argmax(counts))
        if counts[richest] > 1:
            counts[i], counts[richest] = 1, counts[richest] - 1
    return counts.tolist()
