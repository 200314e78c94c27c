"""Finding WordNet, making it, and reading its nouns."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import nltk
import pytest

from tonics.errors import MissingAsset, NotWritable
from tonics.ontology import wordnet as module
from tonics.ontology.wordnet import open_wordnet, provide_wordnet


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """An nltk that finds nothing, and a machine without Debian's WordNet."""
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path / "nltk_data")])
    monkeypatch.setattr(module, "_SYSTEM", tmp_path / "no/such/folder")
    return tmp_path


@pytest.fixture(scope="module")
def files(tmp_path_factory, wordnet_folder):
    """A WordNet as Debian's package lays it out; of most files only the headers, to be light."""
    folder = tmp_path_factory.mktemp("debian")
    for name in (*module._DATABASE, *module._EXCEPTIONS, *module._OPTIONAL):
        places = [wordnet_folder / name, module._SYSTEM / name]
        source = next((p for p in places if p.is_file()), None)
        if source is None:
            pytest.skip(f"no {name} on this machine")
        with source.open() as file:
            whole = name in ("data.noun", "index.noun", "noun.exc")
            lines = file.readlines() if whole else list(_few(file))
        (folder / name).write_text("".join(lines))
    return folder


def _few(file):
    """Keep the licence, which names the version, and a few lines that the tests look up."""
    yield from (x for x in file if x.startswith((" ", "frisbee ", "entity ", "physical_entity ")))


@pytest.fixture
def package(tmp_path, files):
    """That package unpacked."""
    shutil.copytree(files, tmp_path / "package/usr/share/wordnet")
    return tmp_path / "package"


def test_nouns(wordnet):
    assert wordnet.version in ("3.0", "3.1")
    assert wordnet.noun_synsets("dog")[0] == "dog.n.01"
    assert wordnet.noun_synsets("geese") == ()
    assert wordnet.noun_synsets("fire hydrant") == ("fireplug.n.01",)
    assert wordnet.morphy("geese") == "goose"
    assert wordnet.morphy("qzxv") is None
    assert wordnet.knows("Fire Hydrant")
    assert not wordnet.knows("the city park")
    assert wordnet.resolve("chest.n.01") == "thorax.n.02"
    assert wordnet.resolve("run.v.01") is None
    assert wordnet.resolve("no_such.n.01") is None
    assert wordnet.resolve("nonsense") is None
    assert wordnet.is_physical("dog.n.01")
    assert not wordnet.is_physical("music.n.01")
    assert set(wordnet.hypernyms("dog.n.01")) == {"canine.n.02", "domestic_animal.n.01"}


def test_made_from_an_unpacked_package(nowhere, package):
    target = nowhere / "made"
    folder, how = provide_wordnet(sources=[package], target=target, download=False)
    assert folder == target / "corpora/wordnet"
    assert "copied from" in how
    assert not any(p.is_symlink() for p in folder.iterdir())
    lexnames = (folder / "lexnames").read_text().splitlines()
    assert len(lexnames) == 45
    assert lexnames[5] == "05\tnoun.animal\t1"
    assert open_wordnet().synset("entity.n.01").lexname == "noun.Tops"
    again, how = provide_wordnet(sources=[package], target=target, download=False)
    assert again == folder
    assert "already" in how


def test_fingerprint_is_of_the_content(nowhere, package):
    provide_wordnet(sources=[package], target=nowhere / "one", download=False)
    one = open_wordnet().fingerprint
    nltk.data.path[:] = []
    with (package / "usr/share/wordnet/noun.exc").open("a") as file:
        file.write("zzz zz\n")
    provide_wordnet(sources=[package], target=nowhere / "two", download=False)
    two = open_wordnet()
    assert two.fingerprint != one
    nltk.data.path[:] = []
    shutil.copytree(nowhere / "two", nowhere / "three")
    nltk.data.path.append(str(nowhere / "three"))
    assert open_wordnet() is not two
    assert open_wordnet().fingerprint == module._open_wordnets[two.folder].fingerprint


def test_read_from_a_zip_file(nowhere, package):
    folder, _ = provide_wordnet(sources=[package], target=nowhere / "made", download=False)
    corpora = nowhere / "nltk_data/corpora"
    corpora.mkdir(parents=True)
    with zipfile.ZipFile(corpora / "wordnet.zip", "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, f"wordnet/{file.name}")
    shutil.rmtree(folder)
    assert open_wordnet().noun_synsets("frisbee") == ("frisbee.n.01",)
    assert "already" in provide_wordnet(download=False)[1]


def test_a_broken_one_is_named_and_replaced(nowhere, package):
    broken = nowhere / "nltk_data/corpora/wordnet"
    shutil.copytree(package / "usr/share/wordnet", broken)
    with pytest.raises(MissingAsset, match=r"lacks lexnames.*tonics assets"):
        open_wordnet()
    provide_wordnet(sources=[package], target=nowhere / "made", download=False)
    assert open_wordnet().folder == str(nowhere / "made/corpora/wordnet")


def test_files_that_do_not_belong_together_are_named(nowhere, package):
    folder, _ = provide_wordnet(sources=[package], target=nowhere / "nltk_data", download=False)
    module._open_wordnets.pop(str(folder), None)
    (folder / "data.noun").write_text(
        "  1 WordNet 3.0 Copyright\n00001740 03 n 01 thing 0 000 | x\n"
    )
    with pytest.raises(MissingAsset, match=r"not a WordNet that nltk can read.*tonics assets"):
        open_wordnet()
    (folder / "index.noun").write_text("nonsense")
    with pytest.raises(MissingAsset, match=r"not a WordNet that nltk can read.*tonics assets"):
        open_wordnet()


def test_nothing_to_be_had(nowhere):
    with pytest.raises(MissingAsset, match=r"wordnet-base wordnet-sense-index.*nltk.downloader"):
        provide_wordnet(sources=[nowhere], target=nowhere / "made", download=False)
    assert not (nowhere / "made").exists()
    with pytest.raises(MissingAsset, match="tonics assets"):
        open_wordnet()


def test_an_incomplete_package_is_not_used(nowhere, package):
    (package / "usr/share/wordnet/data.noun").unlink()
    with pytest.raises(MissingAsset, match="apt install"):
        provide_wordnet(sources=[package], target=nowhere / "made", download=False)


def test_the_systems_own_files_are_used(nowhere, files, monkeypatch):
    monkeypatch.setattr(module, "_SYSTEM", files)
    folder, _ = provide_wordnet(target=nowhere / "made", download=False)
    assert (folder / "data.noun").read_bytes() == (files / "data.noun").read_bytes()


def test_download_is_the_last_resort(nowhere, files, monkeypatch):
    asked = []

    def download(name, *, download_dir, quiet):
        asked.append(name)
        made = Path(download_dir) / "corpora/wordnet"
        shutil.copytree(files, made)
        shutil.copyfile(module._LEXNAMES, made / "lexnames")
        return True

    monkeypatch.setattr(nltk, "download", download)
    _, how = provide_wordnet(target=nowhere / "made")
    assert asked == ["wordnet"]
    assert "downloaded" in how


def test_failed_download(nowhere, monkeypatch):
    monkeypatch.setattr(nltk, "download", lambda *_, **__: False)
    with pytest.raises(MissingAsset, match="not downloaded"):
        provide_wordnet(target=nowhere / "made")


def test_target_that_cannot_be_written(nowhere, package, monkeypatch):
    import errno

    def refuse(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(NotWritable):
        provide_wordnet(sources=[package], target=nowhere / "made", download=False)
