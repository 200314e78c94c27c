"""A packed plan gives the batches of the plan, to us and to webdataset; damage is named."""

import json
import re
import tarfile
from pathlib import Path
from types import SimpleNamespace

import fsspec
import numpy as np
import pytest
import torch
import webdataset

from tonics.artifact import hash_file
from tonics.errors import FormatError, ImageNotFound, InputError, PlanMismatch, TonicsError
from tonics.features import FeatureStore
from tonics.train.model.encoders import load_text_encoder
from tonics.train.stream import Pack, TokenisedTexts, pack_places, packed, stream
from tonics.train.stream.pack_files import (
    MEMBERS,
    TarEntry,
    manifest_bytes,
    parse_index,
    parse_manifest,
)
from tonics.train.stream.packing import lay_out, write_pack

DOCS = Path(__file__).resolve().parents[3] / "docs" / "packs.md"
NAMES = ("features", "geometry", "cu_seqlens", "texts")
SEVEN = 80_000  # bytes of a tar with some seven batches, in which images occur twice


def make_pack(folder, world, ranks=1, shard_bytes=SEVEN):
    folder.mkdir()
    cuts = lay_out(world.plan, world.store, ranks=ranks, shard_bytes=shard_bytes)
    write_pack(folder, world.plan, world.store, cuts, created_by="tests")
    return folder


@pytest.fixture(scope="module")
def packs(world, tmp_path_factory):
    """The plan packed whole, and for two ranks; read them, never change them."""
    root = tmp_path_factory.mktemp("packs")
    return SimpleNamespace(
        whole=make_pack(root / "whole", world), halves=make_pack(root / "halves", world, ranks=2)
    )


def assert_same(found, expected):
    found, expected = list(found), list(expected)
    assert [b.step for b in found] == [b.step for b in expected]
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a.pairs, b.pairs)
        assert a.longest == b.longest
        for name in NAMES:
            assert getattr(a, name).dtype == getattr(b, name).dtype
            assert torch.equal(getattr(a, name), getattr(b, name)), name


# -- what is written -------------------------------------------------------------------------------


def test_an_image_is_stored_once_a_tar(world, packs):
    tars = Pack(packs.whole).tars()
    assert len(tars) > 1
    assert max(tar.batches for tar in tars) > 4  # more than an epoch: images come again
    for tar in tars:
        rows = 0
        steps = range(tar.first, tar.first + tar.batches)
        images = np.unique(world.plan.images_of(world.plan.batches.pairs[steps].reshape(-1)))
        for sample in webdataset.WebDataset(
            str(packs.whole / tar.name), shardshuffle=False
        ).decode():
            rows += len(sample["features.npy"])
        assert rows == world.store.num_regions(images).sum()


def test_the_bytes_are_known_beforehand(world, packs):
    for folder, ranks in ((packs.whole, 1), (packs.halves, 2)):
        cuts = lay_out(world.plan, world.store, ranks=ranks, shard_bytes=SEVEN)
        for rank in range(ranks):
            sizes = [(folder / tar.name).stat().st_size for tar in Pack(folder).tars(rank)]
            assert [cut.bytes[rank] for cut in cuts] == sizes
            assert max(sizes) <= SEVEN
        whole = sum(f.stat().st_size for f in folder.rglob("*") if f.name != "pack.json")
        assert sum(c.total for c in cuts) * 0.9 < whole <= sum(c.total for c in cuts)


def test_a_batch_larger_than_a_tar_has_one_to_itself(world):
    cuts = lay_out(world.plan, world.store, shard_bytes=1)
    assert [(c.first, c.stop) for c in cuts] == [(k, k + 1) for k in range(16)]


def test_the_same_plan_gives_the_same_bytes(world, packs, tmp_path):
    def hashes(folder):
        return {f.relative_to(folder): hash_file(f) for f in folder.rglob("*") if f.is_file()}

    assert hashes(make_pack(tmp_path / "again", world)) == hashes(packs.whole)
    with tarfile.open(packs.whole / "00000.tar") as tar:
        assert {(m.mtime, m.mode, m.uid, m.uname) for m in tar} == {(0, 0o644, 0, "")}


def test_the_index_says_where_members_lie(packs):
    index = json.loads((packs.whole / "00001.json").read_text())
    with tarfile.open(packs.whole / "00001.tar") as tar:
        listed = [(m.name, m.offset_data, m.size) for m in tar]
    assert [(m["name"], m["offset"], m["size"]) for m in index["members"]] == listed


# -- who reads it ----------------------------------------------------------------------------------


def test_webdataset_alone_reads_every_batch(world, packs):
    (source,) = re.findall(r"```python\n(import numpy.*?)```", DOCS.read_text(), re.S)
    assert len(source.strip().splitlines()) <= 13
    exec(source, scope := {})
    tars = [str(packs.whole / tar.name) for tar in Pack(packs.whole).tars()]
    dataset = webdataset.WebDataset(tars, shardshuffle=False).decode()
    samples = list(dataset.compose(scope["whole_batches"]))
    assert len(samples) == 16
    for sample, batch in zip(samples, stream(world.plan, world.store, world.texts), strict=True):
        rows = world.plan.rows(batch.pairs)
        keys = world.plan.pairs.column("pair_key").take(rows.tolist()).to_pylist()
        assert sample["batch.json"]["step"] == batch.step == int(sample["__key__"])
        assert sample["batch.json"]["epoch"] == world.plan.epoch_of(batch.step)
        assert sample["captions.json"] == world.plan.captions_of(batch.pairs)
        assert sample["pair_keys.json"] == keys
        for name in ("features", "geometry", "cu_seqlens", "pairs"):
            np.testing.assert_array_equal(sample[f"{name}.npy"], getattr(batch, name))
        np.testing.assert_array_equal(sample["images.npy"], world.plan.images_of(batch.pairs))
        assert set(MEMBERS) < set(sample)


@pytest.mark.parametrize(
    "options",
    [{}, {"prefetch": 0}, {"start": 9}, {"start": 16}, {"max_regions": 2}, {"prefetch": 9}],
)
def test_equals_the_stream(world, packs, options):
    found = packed(packs.whole, world.texts, plan=world.plan, threads=3, **options)
    assert_same(found, stream(world.plan, world.store, world.texts, **options))


@pytest.mark.parametrize("of", [1, 2, 4])
def test_ranks_take_their_rows(world, packs, of):
    for rank in range(of):
        ours = {"rank": rank, "world": of}
        expected = list(stream(world.plan, world.store, world.texts, **ours))
        assert_same(packed(packs.whole, world.texts, **ours), expected)
        if of == 2:
            assert_same(packed(packs.halves, world.texts, **ours), expected)
            assert_same(packed(packs.halves, world.texts, start=9, **ours), expected[9:])


def test_what_lies_together_is_not_copied(world, packs):
    batches = list(packed(packs.whole, world.texts))
    geometry, features = (
        member_at(packs.whole, "00000", 0, f"{k}.npy")["offset"] for k in ("geometry", "features")
    )
    apart = batches[0].features.data_ptr() - batches[0].geometry.data_ptr()
    assert apart == features - geometry
    assert batches[0].features.data_ptr() % 64 == 0
    batches[0].features.zero_()  # stays in this process
    expected = stream(world.plan, world.store, world.texts)
    assert_same(packed(packs.whole, world.texts), expected)


def test_memory_of_batches_that_are_not_kept_is_used_again(world, tmp_path):
    pack = make_pack(tmp_path / "pack", world, shard_bytes=1 << 30)  # from step 4 on in pieces
    found = packed(pack, world.texts, prefetch=1)
    places = [batch.features.data_ptr() for batch in found]
    assert len(set(places[4:])) <= 4
    kept = [batch.features[1:] for batch in packed(pack, world.texts, threads=2)]
    for features, batch in zip(kept, stream(world.plan, world.store, world.texts), strict=True):
        assert torch.equal(features, batch.features[1:])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_what_goes_to_a_gpu_is_pinned(world, packs):
    busy, found = torch.ones(4096, 4096, device="cuda"), []
    for batch in packed(packs.whole, world.texts, device="cuda"):
        assert all(getattr(batch, name).is_pinned() for name in NAMES)
        for _ in range(20):
            busy = busy @ busy / 4096
        found.append(batch.to("cuda"))
    expected = stream(world.plan, world.store, world.texts)
    assert_same([batch.to("cpu") for batch in found], expected)


def test_a_tokenizer_reads_the_captions(world, packs, encoder_folder):
    tokenizer, _ = load_text_encoder(str(encoder_folder))
    texts = TokenisedTexts.of_plan(tokenizer, world.plan)
    found = packed(packs.whole, tokenizer, rank=1, world=2)
    for a, b in zip(found, stream(world.plan, world.store, texts, rank=1, world=2), strict=True):
        assert torch.equal(a.texts.rows, b.texts.rows)
        assert torch.equal(a.texts.cu_seqlens, b.texts.cu_seqlens)


# -- from elsewhere --------------------------------------------------------------------------------


class Flaky(fsspec.AbstractFileSystem):
    """Fails, or sends too little, every other time; counts what it was asked."""

    protocol = "flaky"
    files, asked, broken = {}, 0, False

    def info(self, path, **options):
        return {"name": path, "type": "file", "size": len(self.files[path])}

    def cat_file(self, path, start=None, end=None, **options):
        type(self).asked += 1
        if self.broken or self.asked % 4 == 1:
            raise ConnectionError("reset by peer")
        found = self.files[path][start:end]
        return found[:-5] if self.asked % 4 == 3 else found


@pytest.fixture
def elsewhere(packs, monkeypatch):
    """The packed plan in memory, and behind a connection that fails."""
    fsspec.register_implementation("flaky", Flaky, clobber=True)
    monkeypatch.setattr(pack_places, "FIRST_WAIT_S", 0.0)
    monkeypatch.setattr(
        Flaky, "files", {f"pack/{p.name}": p.read_bytes() for p in packs.whole.iterdir()}
    )
    monkeypatch.setattr(Flaky, "asked", 0)
    memory = fsspec.filesystem("memory")
    for path, data in Flaky.files.items():
        memory.pipe_file(f"/{path}", data)
    yield
    memory.rm("/pack", recursive=True)


@pytest.mark.filterwarnings("error")
def test_reads_from_afar(world, elsewhere):
    expected = list(stream(world.plan, world.store, world.texts))
    assert_same(packed("memory://pack", world.texts, threads=2), expected)
    assert_same(packed("memory://pack", world.texts, start=5), expected[5:])


def test_tries_again_when_a_connection_fails(world, elsewhere):
    expected = list(stream(world.plan, world.store, world.texts))
    assert_same(packed("flaky://pack", world.texts), expected)
    files = 1 + len(Pack("memory://pack").tars())  # the manifest and the indexes
    assert Flaky.asked >= 2 * (16 + files) - 1  # each asked for twice, and a batch is one request


def test_gives_up_on_what_never_works(world, elsewhere, monkeypatch):
    monkeypatch.setattr(Flaky, "broken", True)
    with pytest.raises(TonicsError, match=r"flaky://pack/pack\.json: cannot be read, 5 times"):
        packed("flaky://pack", world.texts)
    assert Flaky.asked == 5
    with pytest.raises(InputError, match=r"memory://nothing/pack\.json: is not there"):
        packed("memory://nothing", world.texts)


def test_too_little_from_afar_is_named(world, elsewhere):
    files = fsspec.filesystem("memory")
    files.pipe_file("/pack/00000.tar", files.cat_file("/pack/00000.tar")[:-2000])
    with pytest.raises(FormatError, match=r"memory://pack/00000\.tar: member 0.*npy: .* bytes"):
        list(packed("memory://pack", world.texts))


# -- damage ----------------------------------------------------------------------------------------


@pytest.fixture
def damaged(world, tmp_path):
    """A pack to be spoiled."""
    return make_pack(tmp_path / "pack", world)


def member_at(folder, tar, number, kind):
    members = json.loads((folder / f"{tar}.json").read_text())["members"]
    return members[len(MEMBERS) * number + MEMBERS.index(kind)]


@pytest.mark.parametrize("kind", ["features.npy", "captions.json", "source.npy"])
def test_an_altered_member_is_named_where_its_batch_would_come(world, damaged, kind):
    member = member_at(damaged, "00000", 2, kind)
    data = bytearray((damaged / "00000.tar").read_bytes())
    data[member["offset"] + member["size"] - 3] ^= 1
    (damaged / "00000.tar").write_bytes(data)
    batches = packed(damaged, world.texts)
    assert [next(batches).step for _ in range(2)] == [0, 1]
    message = rf"00000\.tar: member 00000002\.{kind}: has hash \w{{32}}, expected {member['xxh3']}"
    with pytest.raises(FormatError, match=message):
        next(batches)


def test_a_tar_that_was_cut_short_is_named(world, damaged):
    member = member_at(damaged, "00001", 3, "features.npy")
    with (damaged / "00001.tar").open("r+b") as file:
        file.truncate(member["offset"] + 10)
    first = Pack(damaged).tars()[1].first + 3
    message = rf"00001\.tar: member {first:08d}\.features\.npy: 10 bytes, .*{member['size']}"
    with pytest.raises(FormatError, match=message):
        list(packed(damaged, world.texts))
    (damaged / "00001.tar").unlink()
    with pytest.raises(InputError, match=r"00001\.tar: is not there"):
        list(packed(damaged, world.texts))


def test_an_altered_index_or_manifest_is_refused(world, damaged):
    index = damaged / "00000.json"
    index.write_text(index.read_text().replace('"offset": 512', '"offset": 513', 1))
    with pytest.raises(FormatError, match=r"00000\.json: has hash"):
        list(packed(damaged, world.texts))
    manifest = damaged / "pack.json"
    for old, new in (('"ranks": 1', '"ranks": 2'), ('"00000.tar"', '"../0.tar"'), ("{", "")):
        (damaged / "pack.json").write_text(manifest.read_text().replace(old, new, 1))
        with pytest.raises(FormatError, match=r"pack\.json"):
            Pack(damaged)


@pytest.mark.parametrize(
    "changes", [{"ranks": 10**12}, {"ranks": 0}, {"dim": -1}, {"batch_size": "x"}, {"batches": 1.5}]
)
def test_a_manifest_of_absurd_counts_is_refused_at_once(changes):
    about = {"plan_id": "p", "features": "f", "batch_size": 4, "batches": 0, "ranks": 1, "dim": 4}
    data = manifest_bytes({**about, **changes}, [])
    with pytest.raises(FormatError, match="not a pack's manifest"):
        parse_manifest("pack.json", data)


@pytest.mark.parametrize("data", [b"[" * 200_000, b'{"members": []}'])
def test_what_is_nested_without_end_or_counted_without_bound_is_refused_at_once(data):
    entry = TarEntry(name="00000.tar", rank=0, first=0, batches=10**12, bytes=1, index_xxh3="")
    with pytest.raises(FormatError):
        parse_manifest("pack.json", data)
    with pytest.raises(FormatError):
        parse_index("00000.json", data, entry)


def test_a_tar_elsewhere_is_refused_even_if_the_manifest_says_so(damaged):
    from tonics.train.stream.pack_files import pack_id_of

    manifest = json.loads((damaged / "pack.json").read_text())
    manifest["tars"][0]["name"] = "../../00000.tar"
    manifest["pack_id"] = pack_id_of(manifest)
    (damaged / "pack.json").write_text(json.dumps(manifest))
    with pytest.raises(FormatError, match="leaves the pack"):
        Pack(damaged)


def test_nothing_is_unpickled(world, damaged):
    import io

    from tonics.train.stream.pack_files import parse_npy

    out = io.BytesIO()
    np.save(out, np.array([print], object), allow_pickle=True)
    with pytest.raises(ValueError, match="an array of object"):
        parse_npy("pairs.npy", memoryview(out.getvalue()))


# -- what is refused -------------------------------------------------------------------------------


def test_what_cannot_be_read_is_refused_at_once(world, big_world, packs):
    texts = world.texts
    with pytest.raises(InputError, match="runs a command"):
        packed("pipe:cat pack", texts)
    with pytest.raises(InputError, match="no such folder"):
        packed(packs.whole / "nothing", texts)
    with pytest.raises(InputError, match="start=17, expected 0 to 16"):
        packed(packs.whole, texts, start=17)
    with pytest.raises(InputError, match=r"packed for 2 ranks, read by 4, .*--ranks 4"):
        packed(packs.halves, texts, world=4)
    with pytest.raises(InputError, match="rank 2 of 2"):
        packed(packs.whole, texts, rank=2, world=2)
    with pytest.raises(InputError, match="texts: a int"):
        packed(packs.whole, 3)
    with pytest.raises(PlanMismatch, match="packed plan"):
        packed(packs.whole, texts, plan=big_world.plan)


def test_what_cannot_be_packed_is_refused(world, big_world):
    with pytest.raises(InputError, match="for 3 ranks"):
        lay_out(world.plan, world.store, ranks=3)
    with pytest.raises(ImageNotFound):
        lay_out(big_world.plan, FeatureStore(world.store.path))
