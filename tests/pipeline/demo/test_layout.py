from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tonics.pipeline.demo.dealing import Dealer
from tonics.pipeline.demo.grounds import GROUNDS, draw_ground
from tonics.pipeline.demo.layout import Studio, _Cutout, _placed, _visible
from tonics.pipeline.demo.stamps import load_stamps


def square(left, top, side=20, **more):
    image = Image.new("RGBA", (side, side), (255, 0, 0, 255))
    return _Cutout(image=image, left=left, top=top, **more)


def test_a_box_is_around_what_is_visible():
    behind, before = square(10, 10, object=0), square(6, 0, side=12, object=1)
    masks = _visible([behind, before], 100, 60)
    hidden, whole = (_placed(c, *m) for c, m in zip((behind, before), masks, strict=True))
    assert whole.box_xyxy == (6, 0, 18, 12)
    assert whole.visible == 1.0
    assert hidden.box_xyxy == (10, 10, 30, 30)  # only its corner is covered
    assert hidden.visible == pytest.approx(1 - 8 * 2 / 400)


def test_a_box_shrinks_when_a_side_is_covered():
    behind, before = square(10, 10), square(0, 0, side=14)
    before.image = Image.new("RGBA", (14, 60), (0, 0, 0, 255))
    masks = _visible([behind, before], 100, 60)
    assert _placed(behind, *masks[0]).box_xyxy == (14, 10, 30, 30)


def test_faint_pixels_do_not_count():
    ghost = square(10, 10)
    ghost.image.putalpha(Image.new("L", (20, 20), 40))
    ghost.image.paste((0, 0, 0, 255), (5, 5, 9, 9))
    (mask,) = _visible([ghost], 60, 60)
    assert _placed(ghost, *mask).box_xyxy == (15, 15, 19, 19)


def test_large_things_are_drawn_larger_than_small_ones(stamps):
    dealer, studio = Dealer(load_stamps(stamps)), Studio(stamps)
    areas = {"small": [], "large": []}
    for number in range(40):
        hand = dealer.block(0, number // 30)[number % 30]
        picture, placed, _ = studio.compose(hand, np.random.default_rng(number))
        for p in placed:
            size = hand.stamps[p.object].size
            longest = max(p.box_xyxy[2] - p.box_xyxy[0], p.box_xyxy[3] - p.box_xyxy[1])
            if size in areas and not hand.counts[p.object] > 1:
                areas[size].append(longest / min(picture.size))
    assert np.mean(areas["large"]) > 1.25 * np.mean(areas["small"])


@pytest.mark.parametrize("horizon", [0, 90])
def test_grounds_look_different(horizon):
    looks = {}
    for ground in GROUNDS.values():
        rng = np.random.default_rng(0)
        picture = draw_ground(ground, next(iter(ground.tints)), 160, 120, horizon, rng)
        assert picture.shape == (120, 160, 3)
        lower = picture[100:].reshape(-1, 3).astype(float)
        looks[ground.name] = np.concatenate([lower.mean(0), 2 * lower.std(0)])
    names = sorted(looks)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            assert np.abs(looks[one] - looks[other]).max() > 8, (one, other)


def test_a_ground_is_the_same_for_the_same_draw():
    first, again = (
        draw_ground(GROUNDS["road"], "", 100, 80, 30, np.random.default_rng(4)) for _ in range(2)
    )
    assert (first == again).all()
