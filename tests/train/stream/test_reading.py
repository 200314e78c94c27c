"""The stream gives exactly the plan: content, order, counts, for any depth and any ranks."""

import gc
import shutil
import threading

import numpy as np
import pytest
import torch
import webdataset

from tonics.errors import ImageNotFound, InputError, PlanMismatch
from tonics.features import FeatureStore
from tonics.features.ahead import THREAD_NAME
from tonics.features.ring import BufferPool
from tonics.features.writer import write_index
from tonics.train.model.encoders import load_text_encoder
from tonics.train.stream import CachedTexts, ReadAhead, TokenisedTexts, stream

PINNED = ("geometry", "cu_seqlens", "texts")  # the features lie in pinned memory from the start


def naive(world, rank=0, of=1, start=0, max_regions=None):
    """The same batches, image by image."""
    for step in range(start, len(world.plan)):
        rows = world.plan.batch(step).reshape(of, -1)[rank]
        at = np.searchsorted(world.plan.pairs.column("pair").to_numpy(), rows)
        images = world.plan.pairs.column("image").to_numpy()[at]
        regions = [world.store[int(i)] for i in images]
        cut = slice(0, max_regions)
        yield (
            step,
            rows,
            np.concatenate([r.features[cut] for r in regions]),
            np.concatenate([r.geometry[cut] for r in regions]),
            np.cumsum([0, *(len(r.features[cut]) for r in regions)]),
            world.vectors[at].astype(np.float32),
        )


def assert_same(batches, expected):
    batches, expected = list(batches), list(expected)
    assert len(batches) == len(expected)
    for batch, row in zip(batches, expected, strict=True):
        names = ("step", "pairs", "features", "geometry", "cu_seqlens", "texts")
        for name, wanted in zip(names, row, strict=True):
            np.testing.assert_array_equal(np.asarray(getattr(batch, name)), wanted)


@pytest.mark.parametrize("prefetch", [0, 1, 2, 50])
def test_equals_the_naive_loop_for_any_depth(world, prefetch):
    found = stream(world.plan, world.store, world.texts, prefetch=prefetch)
    assert isinstance(found, webdataset.DataPipeline)
    assert_same(found, naive(world))


@pytest.mark.parametrize(("prefetch", "threads"), [(0, 1), (1, 1), (3, 2), (20, 4)])
@pytest.mark.parametrize("of", [1, 2, 4])
def test_the_ranks_together_are_the_batch(world, of, prefetch, threads):
    options = {"world": of, "prefetch": prefetch, "threads": threads}
    ranks = [
        list(stream(world.plan, world.store, world.texts, rank=r, **options)) for r in range(of)
    ]
    for r in range(of):
        assert_same(ranks[r], naive(world, r, of))
    whole = naive(world)
    for parts, (step, pairs, features, geometry, cu_seqlens, texts) in zip(
        zip(*ranks, strict=True), whole, strict=True
    ):
        assert {b.step for b in parts} == {step}
        joined = {n: torch.cat([getattr(b, n) for b in parts]) for n in ("features", "geometry")}
        np.testing.assert_array_equal(np.concatenate([b.pairs for b in parts]), pairs)
        np.testing.assert_array_equal(joined["features"], features)
        np.testing.assert_array_equal(joined["geometry"], geometry)
        np.testing.assert_array_equal(torch.cat([b.texts for b in parts]), texts)
        counts = torch.cat([b.cu_seqlens.diff() for b in parts])
        np.testing.assert_array_equal(counts, np.diff(cu_seqlens))


def test_resume_is_one_integer(world):
    assert_same(stream(world.plan, world.store, world.texts, start=9), naive(world, start=9))
    assert list(stream(world.plan, world.store, world.texts, start=len(world.plan))) == []


def test_the_caller_decides_the_steps(world):
    wanted = [5, 2, 2, 15, 0]
    planned = list(naive(world))
    for prefetch in (0, 3):
        found = stream(world.plan, world.store, world.texts, steps=wanted, prefetch=prefetch)
        assert_same(found, [planned[step] for step in wanted])
        assert_same(found, [planned[step] for step in wanted])
    with pytest.raises(InputError, match="batch 16"):
        list(stream(world.plan, world.store, world.texts, steps=[3, 16]))


@pytest.mark.parametrize("prefetch", [0, 2])
def test_steps_are_taken_no_earlier_than_they_must(world, prefetch):
    taken = []

    def deciding():
        for step in (3, 1, 4, 1, 5, 9, 2, 6):
            taken.append(step)
            yield step

    used = 0
    for _ in stream(world.plan, world.store, world.texts, steps=deciding(), prefetch=prefetch):
        used += 1
        assert used <= len(taken) <= used + prefetch
    assert used == len(taken) == 8


def test_max_regions_keeps_the_first(world):
    found = stream(world.plan, world.store, world.texts, max_regions=2)
    assert_same(found, naive(world, max_regions=2))


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_keep_the_order(world, threads):
    found = stream(world.plan, world.store, world.texts, prefetch=4, threads=threads)
    assert_same(found, naive(world))


def test_a_store_that_asks_ahead_gives_the_same(world):
    store = FeatureStore(world.store.path, asks_ahead=True)
    assert_same(stream(world.plan, store, world.texts), naive(world))


def test_batches_that_are_kept_are_not_overwritten(world):
    batches = list(stream(world.plan, world.store, world.texts))
    assert_same(batches, naive(world))
    assert len({b.features.data_ptr() for b in batches}) == len(batches)
    kept = [b.features[1:] for b in stream(world.plan, world.store, world.texts)]
    for features, expected in zip(kept, naive(world), strict=True):
        np.testing.assert_array_equal(features.numpy(), expected[2][1:])


def test_the_memory_of_batches_that_are_not_kept_is_used_again(world, monkeypatch):
    pools = []

    class Watched(BufferPool):  # a buffer that grows moves, so addresses say less than buffers
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            pools.append(self)

    monkeypatch.setattr("tonics.train.stream.reading.BufferPool", Watched)
    places, buffers = [], []
    for batch in stream(world.plan, world.store, world.texts):
        places.append(batch.features.data_ptr())
        buffers.append(len(pools[0]._slots))
    assert len(pools) == 1
    assert max(buffers) <= 2 + 1 + 2 < len(places)
    assert len(set(places)) < len(places)


def test_everything_that_goes_to_a_gpu_is_pinned(world, monkeypatch):
    pinned = []

    def pin(tensor):
        pinned.append(tensor)
        return tensor

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    reader = ReadAhead(world.plan, world.store, world.texts, device="cuda")
    batch = reader._read(BufferPool(world.store.dim), 0, world.plan.batch(0))
    assert [id(t) for t in pinned] == [id(getattr(batch, n)) for n in PINNED]


def test_only_copies_to_a_gpu_are_not_waited_for(world, monkeypatch):
    (batch, *_) = stream(world.plan, world.store, world.texts)
    waited = []

    def to(tensor, device, *, non_blocking):
        waited.append((torch.device(device).type, not non_blocking))
        return tensor

    monkeypatch.setattr(torch.Tensor, "to", to)
    batch.to("cuda").to("cpu")
    assert set(waited) == {("cuda", False), ("cpu", True)}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_pinned_batches_reach_the_device_unharmed(world):
    """Copies lag behind: the device is kept busy, while the memory they read from goes round."""
    busy = torch.ones(4096, 4096, device="cuda")
    found = []
    for batch in stream(world.plan, world.store, world.texts, device="cuda", threads=2):
        assert batch.features.is_pinned()
        for _ in range(20):
            busy = busy @ busy / 4096
        found.append(batch.to("cuda"))
    assert_same([b.to("cpu") for b in found], naive(world))


def test_a_pipeline_can_be_iterated_again_and_extended(world):
    pipeline = stream(world.plan, world.store, world.texts)
    assert_same(pipeline, naive(world))
    steps = pipeline.compose(lambda source: (b.step for b in source))
    assert list(steps) == list(range(16))
    assert_same(pipeline, naive(world))


def test_tokenised_texts(world, encoder_folder):
    tokenizer, _ = load_text_encoder(str(encoder_folder))
    texts = TokenisedTexts.of_plan(tokenizer, world.plan)
    for batch in stream(world.plan, world.store, texts):
        captions = world.plan.captions_of(batch.pairs)
        wanted = tokenizer(captions)["input_ids"]
        cut = np.split(batch.texts.rows.numpy(), batch.texts.cu_seqlens[1:-1].numpy())
        assert [ids.tolist() for ids in cut] == wanted


def test_a_tokenizer_will_do_for_texts(world, encoder_folder):
    tokenizer, _ = load_text_encoder(str(encoder_folder))
    found = stream(world.plan, world.store, tokenizer)
    expected = stream(world.plan, world.store, TokenisedTexts.of_plan(tokenizer, world.plan))
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a.texts.rows, b.texts.rows)
        assert torch.equal(a.texts.cu_seqlens, b.texts.cu_seqlens)
    with pytest.raises(InputError, match="texts: a list, expected CachedTexts"):
        stream(world.plan, world.store, ["a dog"])


class Counting:
    """A tokenizer that says how many captions it was given."""

    def __init__(self, tokenizer):
        self.tokenizer, self.captions = tokenizer, 0

    def __getattr__(self, name):
        return getattr(self.tokenizer, name)

    def __call__(self, captions, **options):
        self.captions += len(captions)
        return self.tokenizer(captions, **options)


def test_captions_are_tokenised_once_and_kept(world, encoder_folder, tmp_path):
    tokenizer, _ = load_text_encoder(str(encoder_folder))
    counting, cache = Counting(tokenizer), tmp_path / "cache"
    plain = TokenisedTexts.of_plan(tokenizer, world.plan)
    for _ in range(2):
        kept = TokenisedTexts.of_plan(counting, world.plan, cache=cache)
        assert kept.identity == plain.identity
        rows = world.plan.batch(3)
        assert torch.equal(kept(rows).rows, plain(rows).rows)
        assert counting.captions == 128
    (file,) = cache.iterdir()
    assert not kept.tokens.ids.flags.owndata  # it is mapped
    short = TokenisedTexts.of_plan(counting, world.plan, 4, cache=cache)
    assert short.identity == TokenisedTexts.of_plan(tokenizer, world.plan, 4).identity
    assert len(list(cache.iterdir())) == 2
    other, _ = load_text_encoder(str(encoder_folder))
    other.add_tokens(["frisbee by"])
    TokenisedTexts.of_plan(other, world.plan, cache=cache)
    assert len(list(cache.iterdir())) == 3
    assert file in cache.iterdir()


@pytest.mark.parametrize("damage", ["cut", "altered", "empty"])
def test_damaged_tokens_are_made_anew(world, encoder_folder, tmp_path, damage):
    tokenizer, _ = load_text_encoder(str(encoder_folder))
    plain = TokenisedTexts.of_plan(tokenizer, world.plan, cache=tmp_path).identity
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    at = whole.index(plain_ids(tokenizer, world)) + 8
    changed = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
    file.write_bytes({"cut": whole[:-100], "altered": changed, "empty": b""}[damage])
    assert TokenisedTexts.of_plan(tokenizer, world.plan, cache=tmp_path).identity == plain
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [whole]


def plain_ids(tokenizer, world):
    return TokenisedTexts.of_plan(tokenizer, world.plan).tokens.ids[:8].tobytes()


def test_the_identity_of_texts_follows_their_content(world, encoder_folder):
    pairs = world.plan.pairs.column("pair").to_numpy()
    other = world.vectors.copy()
    other[3, 3] += 1
    assert CachedTexts.of_rows(world.vectors, pairs).identity == world.texts.identity
    assert CachedTexts.of_rows(other, pairs).identity != world.texts.identity
    assert CachedTexts.of_rows(world.vectors, pairs + 1).identity != world.texts.identity
    tokenizer, _ = load_text_encoder(str(encoder_folder))
    short, long = (TokenisedTexts.of_plan(tokenizer, world.plan, n).identity for n in (4, 40))
    assert short != long


# -- the threads that read ahead ------------------------------------------------------------------


def readers():
    return [t for t in threading.enumerate() if t.name.startswith(THREAD_NAME)]


@pytest.mark.parametrize("prefetch", [0, 1, 3])
def test_an_error_comes_where_its_batch_would_have(world, prefetch):
    class Broken:
        identity = ""

        def __call__(self, pairs):
            if pairs.tolist() == world.plan.batch(3).tolist():
                raise ValueError("broken texts")
            return world.texts(pairs)

    batches = iter(stream(world.plan, world.store, Broken(), prefetch=prefetch, threads=2))
    assert [next(batches).step for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="broken texts"):
        next(batches)
    assert readers() == []


def test_the_thread_ends_when_a_stream_is_dropped(world):
    iterator = iter(stream(world.plan, world.store, world.texts))
    next(iterator)
    assert len(readers()) == 1
    del iterator
    gc.collect()
    assert readers() == []


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start": 17}, r"start=17, expected 0 to 16"),
        ({"start": -1}, r"start=-1"),
        ({"world": 3}, r"batches of 16 .* for 3 ranks"),
        ({"world": 2, "rank": 2}, r"rank 2 of 2"),
    ],
)
def test_bad_positions_are_refused_at_once(world, changes, message):
    with pytest.raises(InputError, match=message):
        stream(world.plan, world.store, world.texts, **changes)


def test_a_store_that_lacks_images_is_refused_at_once(world, big_world):
    with pytest.raises(ImageNotFound):
        stream(big_world.plan, world.store, world.texts)


def named(world, folder, names):
    """A copy of the world's store that knows its images by these names."""
    shutil.copytree(world.store.path, folder)
    write_index(folder, world.store.vocabulary, names)
    return FeatureStore(folder)


def test_the_images_must_be_those_of_the_plan_and_not_only_their_numbers(world, tmp_path):
    names = {int(i): f"{i}.jpg" for i in world.images}
    store = named(world, tmp_path / "same", names)
    assert_same(stream(world.plan, store, world.texts), naive(world))
    partly = named(world, tmp_path / "partly", dict(list(names.items())[5:]))
    stream(world.plan, partly, world.texts)
    last = int(world.images[-1])
    other = named(world, tmp_path / "other", names | {last: "renumbered.jpg"})
    message = rf"1 of 64 images are other images .*'{last}\.jpg'.*another dataset or numbering"
    with pytest.raises(PlanMismatch, match=message):
        stream(world.plan, other, world.texts)


def test_pairs_without_a_vector_are_named(world):
    texts = CachedTexts.of_rows(world.vectors[:5], world.plan.pairs.column("pair").to_numpy()[:5])
    with pytest.raises(PlanMismatch, match="no caption for pairs"):
        list(stream(world.plan, world.store, texts))
    with pytest.raises(PlanMismatch, match="no caption for pairs"):
        CachedTexts.of_rows(np.zeros((0, 3)))(np.array([1]))


def test_worker_processes_are_refused_because_they_would_repeat_batches(world):
    pipeline = stream(world.plan, world.store, world.texts, prefetch=0)
    loader = torch.utils.data.DataLoader(pipeline, batch_size=None, num_workers=2)
    with pytest.raises(RuntimeError, match="a DataLoader with 2 workers, expected one reader"):
        next(iter(loader))


def test_one_reader_in_a_data_loader_is_fine(world):
    pipeline = stream(world.plan, world.store, world.texts)
    loader = torch.utils.data.DataLoader(pipeline, batch_size=None)
    assert [b.step for b in loader] == list(range(16))
