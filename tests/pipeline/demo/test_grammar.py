from __future__ import annotations

import re

import numpy as np
import pytest

from tonics.pipeline.demo.dealing import Dealer
from tonics.pipeline.demo.grammar import captions
from tonics.pipeline.demo.layout import Studio
from tonics.pipeline.demo.phrases import Phrase, article
from tonics.pipeline.demo.relations import Thing, relations, things
from tonics.pipeline.demo.stamps import load_stamps, nouns


@pytest.fixture(scope="module")
def scenes(stamps):
    """(hand, placed, captions) of 90 scenes."""
    dealer, studio, made = Dealer(load_stamps(stamps)), Studio(stamps), []
    for number in range(90):
        hand = dealer.block(0, number // 30)[number % 30]
        rng = np.random.default_rng([0, number])
        _, placed, tint = studio.compose(hand, rng)
        made.append((hand, placed, captions(hand, placed, tint, rng)))
    return made


def test_five_captions_that_differ(scenes):
    for _, _, texts in scenes:
        assert len({text.text for text in texts}) == 5


def test_every_object_is_named_twice_and_some_caption_leaves_one_out(scenes):
    for hand, _, texts in scenes:
        named = [{m.object for m in text.mentions} - {-1} for text in texts]
        for index in range(len(hand.stamps)):
            assert sum(index in objects for objects in named) >= 2
        assert min(len(objects) for objects in named) < len(hand.stamps)


def test_mentions_point_at_the_noun_in_the_text(scenes):
    for hand, _, texts in scenes:
        for text in texts:
            for mention in text.mentions:
                word = text.text[mention.start : mention.end]
                if mention.object < 0:
                    assert word == mention.noun
                    continue
                noun = nouns()[mention.noun]
                assert word in (noun.noun, noun.plural)
                assert noun in hand.stamps[mention.object].names
                assert mention.synset == noun.synset


def test_number_words_are_true(scenes):
    words = {
        1: r"\b(an?|A|An|some|Some)( \S+)*$|\b(pair|bunch|head|piece|ear|bulb) of\b|[Tt]he\b",
        2: r"\b([Tt]wo|[Aa] pair of|[Aa] couple of)\b",
        3: r"\b([Tt]hree|[Ss]everal|[Aa] group of)\b",
    }
    for hand, _, texts in scenes:
        for text in texts:
            end = 0
            for mention in text.mentions:
                if mention.object >= 0:
                    before = text.text[end : mention.start].strip()
                    assert re.search(words[hand.counts[mention.object]], before), text.text
                end = mention.end


def test_articles_fit_the_next_word(scenes):
    for _, _, texts in scenes:
        for text in texts:
            for found, word in re.findall(r"\b([Aa]n?) (\S+)", text.text):
                assert article(word) == found.lower(), text.text


def test_texts_are_clean_sentences(scenes):
    for _, _, texts in scenes:
        for text in texts:
            assert text.text[0].isupper()
            assert not re.search(r"[{}]|  | [.,]|\b(\w+) \1\b", text.text), text.text
            assert not re.search(r"\b(with|and|near|of|to|in|on)\.?$", text.text), text.text


def test_left_and_right_are_true(scenes):
    checked = 0
    for hand, placed, texts in scenes:
        scene = things(hand, placed)
        for text in texts:
            found = re.search(r"(to|on) the (left|right) of", text.text)
            if not found:
                continue
            before = [m.object for m in text.mentions if m.end <= found.start() and m.object >= 0]
            after = [m.object for m in text.mentions if m.start >= found.end() and m.object >= 0]
            one, other = scene[before[0]].box, scene[after[0]].box
            centers = one[0] + one[2], other[0] + other[2]
            assert (centers[0] < centers[1]) == (found[2] == "left"), text.text
            checked += 1
    assert checked > 30


def thing(box):
    return Thing(index=0, stamp=None, count=1, box=box, scale=1.0, in_sky=False)


@pytest.mark.parametrize(
    ("a", "b", "horizon", "expected"),
    [
        ((0, 0, 50, 50), (60, 0, 110, 50), True, {"to the left of", "next to"}),
        ((300, 0, 350, 50), (60, 0, 110, 50), True, {"to the right of"}),
        ((0, 0, 50, 50), (5, 60, 55, 110), False, {"above"}),
        ((5, 60, 55, 110), (0, 0, 50, 50), False, {"below"}),
        ((0, 0, 50, 50), (5, 60, 55, 110), True, {"behind"}),
        ((5, 60, 55, 110), (0, 0, 50, 50), True, {"in front of"}),
    ],
)
def test_relations_follow_the_boxes(a, b, horizon, expected):
    found = set(relations(thing(a), thing(b), horizon))
    assert expected <= found
    opposite = {"to the left of": "to the right of", "above": "below", "behind": "in front of"}
    for one, other in opposite.items():
        assert not {one, other} <= found


def test_far_apart_things_are_not_next_to_each_other():
    found = relations(thing((0, 0, 40, 40)), thing((300, 0, 340, 40)), True)
    assert not {"next to", "beside", "near"} & set(found)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("apple", "an"),
        ("green apple", "a"),
        ("old sailboat", "an"),
        ("one-humped camel", "a"),
        ("European bear", "a"),
        ("hour", "an"),
        ("UK post box", "a"),
    ],
)
def test_article(words, expected):
    assert article(words) == expected


def test_phrase_offsets_survive_nesting():
    from tonics.pipeline.demo.phrases import Mention, fill

    dog = Mention(start=2, end=5, noun="dog", synset="dog.n.01", object=0)
    inner = fill("{A} here", {"A": Phrase(text="a dog", mentions=(dog,))})
    outer = fill("look: {B}", {"B": inner})
    (mention,) = outer.mentions
    assert outer.text[mention.start : mention.end] == "dog"
