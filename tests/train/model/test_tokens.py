"""Packing captions, and cutting them into groups of like length."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tonics.errors import InputError
from tonics.train.model.encoders import load_text_encoder
from tonics.train.model.tokens import Tokens, length_batches, tokenise


def pack(rows):
    lengths = [len(r) for r in rows]
    ids = np.concatenate([*map(np.array, rows), np.zeros(0)]).astype(np.int32)
    return Tokens(ids=ids, cu_seqlens=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))


rows_of_ids = st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=9), min_size=1, max_size=9)


@given(rows_of_ids, st.data())
def test_take_equals_indexing_a_list(rows, data):
    asked = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=12))
    taken = pack(rows).take(np.array(asked, np.int64))
    cut = [taken.ids[a:b].tolist() for a, b in pairwise(taken.cu_seqlens)]
    assert cut == [rows[k] for k in asked]


@given(rows_of_ids)
def test_padding_and_mask(rows):
    ids, mask = pack(rows).padded(pad=0)
    longest = max(map(len, rows))
    assert ids.tolist() == [r + [0] * (longest - len(r)) for r in rows]
    assert mask.tolist() == [[1] * len(r) + [0] * (longest - len(r)) for r in rows]


@given(st.lists(st.integers(1, 40), max_size=60), st.integers(1, 200))
def test_groups_hold_every_row_once_within_the_budget(lengths, budget):
    lengths = np.array(lengths, np.int64)
    groups = length_batches(lengths, budget)
    assert sorted(np.concatenate([*groups, []]).tolist()) == list(range(len(lengths)))
    for group in groups:
        padded = len(group) * lengths[group].max()
        assert len(group) == 1 or padded <= budget
        assert padded <= 1.125 * lengths[group].sum()
    order = np.concatenate([*groups, []]).astype(int)
    assert (np.diff(lengths[order]) >= 0).all()


def test_captions_are_cut_off_and_empty_ones_still_have_their_special_tokens(encoder_folder):
    tokenizer, _ = load_text_encoder(str(encoder_folder))
    tokens = tokenise(tokenizer, ["a dog by the sofa", "", "a " * 10_000], max_tokens=8)
    assert tokens.lengths.tolist() == [7, 2, 8]
    assert tokens.ids.dtype == np.int32


def test_max_tokens_beyond_the_model_is_limited_to_it(encoder_folder):
    tokenizer, _ = load_text_encoder(str(encoder_folder))
    assert tokenise(tokenizer, ["a " * 500], max_tokens=400).lengths.tolist() == [64]


def test_a_caption_without_any_token_is_an_error():
    class Silent:
        model_max_length = 64

        def __call__(self, captions, **_):
            return {"input_ids": [[1, 2] if c else [] for c in captions]}

    with pytest.raises(InputError, match="caption 1: '' has no tokens"):
        tokenise(Silent(), ["a dog", ""])
