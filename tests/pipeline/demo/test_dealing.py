from __future__ import annotations

from collections import Counter

import pytest

from tonics.pipeline.demo.dealing import BLOCK, COPIES_PER_BLOCK, Dealer
from tonics.pipeline.demo.stamps import DEBIAN_FOLDER, commons, load_stamps


def scenes_with(hands):
    names = Counter()
    for hand in hands:
        names.update({noun.noun for stamp in hand.stamps for noun in stamp.names})
    return names


@pytest.mark.skipif(
    not DEBIAN_FOLDER.is_dir(), reason="Debian's tuxpaint-stamps-default is not installed"
)
@pytest.mark.parametrize("seed", [0, 5])
def test_every_common_object_is_in_200_of_1500_scenes(seed):
    stamps = load_stamps(DEBIAN_FOLDER)
    dealer = Dealer(stamps)
    hands = [hand for block in range(1500 // BLOCK) for hand in dealer.block(seed, block)]
    names = scenes_with(hands)
    assert len(commons(stamps)) == 29
    assert {name: names[name] for name in commons(stamps) if names[name] < 200} == {}
    rare = {s.noun.noun for s in stamps} - set(commons(stamps))
    assert len(rare) > 150
    assert [name for name in rare if not names[name]] == []
    assert all(2 <= len(hand.stamps) <= 4 for hand in hands)
    assert all(hand.accepts(stamp) for hand in hands for stamp in hand.stamps), "a cow at sea"


def test_no_scene_shows_what_a_caption_could_confuse(stamps):
    for hand in Dealer(load_stamps(stamps)).block(0, 0):
        nouns = [stamp.noun.noun for stamp in hand.stamps]
        assert len(set(nouns)) == len(nouns)


def test_every_common_object_is_dealt_evenly_from_few_stamps_too(stamps):
    dealer = Dealer(load_stamps(stamps))
    assert "duck" in dealer.dealt
    assert "bird" not in dealer.dealt  # a duck is one
    for number in range(5):
        names = scenes_with(dealer.block(3, number))
        assert all(names[name] >= COPIES_PER_BLOCK for name in dealer.dealt), names


def test_a_block_depends_on_seed_and_number(stamps):
    def plan(seed, number):
        hands = Dealer(load_stamps(stamps)).block(seed, number)
        return [(h.ground.name, [s.path for s in h.stamps], h.counts) for h in hands]

    assert plan(1, 4) == plan(1, 4)
    assert plan(1, 4) != plan(1, 5)
    assert plan(1, 4) != plan(2, 4)


def test_scissors_are_never_counted(stamps):
    dealer = Dealer(load_stamps(stamps))
    counts = [
        count
        for number in range(20)
        for hand in dealer.block(0, number)
        for stamp, count in zip(hand.stamps, hand.counts, strict=True)
        if stamp.noun.noun == "scissors"
    ]
    assert counts
    assert set(counts) == {1}
