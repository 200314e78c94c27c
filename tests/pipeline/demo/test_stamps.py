from __future__ import annotations

import shutil

import pytest

from tonics.errors import InputError, MissingAsset
from tonics.pipeline.demo.stamps import (
    DEBIAN_FOLDER,
    commons,
    excluded_because,
    find_stamps,
    load_stamps,
    modifier_of,
    nouns,
    object_rows,
    open_stamp,
    table,
)

from .conftest import USED

real_stamps = pytest.mark.skipif(
    not DEBIAN_FOLDER.is_dir(), reason="Debian's tuxpaint-stamps-default is not installed"
)


def test_a_given_folder_wins_over_the_environment(stamps, tmp_path, monkeypatch):
    monkeypatch.setenv("TONICS_STAMPS", str(tmp_path))
    assert find_stamps(stamps) == stamps


def test_the_environment_names_a_folder(stamps, monkeypatch):
    monkeypatch.setenv("TONICS_STAMPS", str(stamps))
    assert find_stamps() == stamps


def test_a_folder_with_the_unpacked_package_is_enough(stamps, tmp_path):
    inside = tmp_path / DEBIAN_FOLDER.relative_to("/")
    shutil.copytree(stamps, inside)
    assert find_stamps(tmp_path) == inside


@pytest.mark.parametrize("there", [True, False])
def test_missing_stamps_are_one_line_that_says_how_to_get_them(tmp_path, there):
    folder = tmp_path / "stamps"
    if there:
        folder.mkdir()
        (folder / "unknown.png").write_bytes(b"")
    with pytest.raises(MissingAsset) as caught:
        find_stamps(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert "apt-get install tuxpaint-stamps-default" in message
    assert "dpkg-deb -x" in message
    assert caught.value.exit_code == 2


def test_drawings_and_mirrored_copies_are_left_out(stamps):
    paths = [s.path for s in load_stamps(stamps)]
    assert len(paths) == USED
    assert paths == sorted(paths)
    assert not any("cartoon" in path or "mirror" in path for path in paths)


def test_a_stamp_knows_what_people_call_it(stamps):
    by_noun = {s.noun.noun: s for s in load_stamps(stamps)}
    tiger = by_noun["tiger"]
    assert tiger.modifier == "Sumatran"
    assert tiger.description == "A Sumatran tiger."
    assert tiger.noun.synset == "tiger.n.02"
    assert [n.noun for n in by_noun["duck"].names] == ["duck", "bird", "animal"]


def test_commons_are_the_everyday_nouns_that_can_be_shown(stamps):
    shown = commons(load_stamps(stamps))
    assert {"dog", "bird", "duck", "truck", "vehicle", "fruit"} <= set(shown)
    assert "tiger" not in shown  # rare
    assert "guitar" not in shown  # everyday, but there is no photograph of one


def test_size_words_of_a_description_are_dropped():
    # Sizes are drawn, so "a large mallet" may be false in a scene.
    assert modifier_of("A large metal mallet.", nouns()["mallet"]) == "metal"
    assert modifier_of("Eat your broccoli!", nouns()["broccoli"]) == ""


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_an_unreadable_photograph_is_named(tmp_path, content):
    (tmp_path / "dog.png").write_bytes(content)
    with pytest.raises(InputError, match=r"dog\.png: cannot be read"):
        open_stamp(tmp_path, "dog.png")


def test_every_row_of_the_tables_is_complete():
    for row in object_rows().values():
        assert row["noun"] in nouns(), row
        assert row["size"] in {"tiny", "small", "medium", "large", "huge"}, row
        assert set(row["places"]) <= set("gitwbs"), row
        assert row["places"], row
    for noun in nouns().values():
        assert not noun.general or noun.general in nouns(), noun
    assert len(object_rows()) == len(table("objects.tsv")), "a photograph is listed twice"
    assert len(nouns()) == len(table("nouns.tsv")), "a noun is listed twice"
    assert 25 <= sum(noun.common for noun in nouns().values()) <= 35


def test_no_photograph_is_both_used_and_left_out():
    assert [path for path in object_rows() if excluded_because(path)] == []


@real_stamps
def test_every_real_photograph_is_either_used_or_left_out_for_a_reason():
    present = {p.relative_to(DEBIAN_FOLDER).as_posix() for p in DEBIAN_FOLDER.rglob("*.png")}
    assert set(object_rows()) <= present
    forgotten = [p for p in present if p not in object_rows() and not excluded_because(p)]
    assert forgotten == []


@real_stamps
def test_every_real_photograph_has_a_description_and_can_be_opened():
    loaded = load_stamps(DEBIAN_FOLDER)
    assert [s.path for s in loaded if not s.description] == []
    sizes = [open_stamp(DEBIAN_FOLDER, s.path).size for s in loaded]
    assert min(max(size) for size in sizes) >= 32


def test_every_synset_is_in_wordnet():
    from tonics.ontology.wordnet import open_wordnet

    try:
        wordnet = open_wordnet()
    except MissingAsset as missing:
        pytest.skip(str(missing))
    if wordnet.version != "3.0":
        pytest.skip(f"the table is for WordNet 3.0, here is {wordnet.version}")
    assert [n for n in nouns().values() if wordnet.resolve(n.synset) != n.synset] == []
