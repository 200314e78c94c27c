"""What a user may set, and what is refused."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tonics.errors import ConfigError
from tonics.features.vinvl import VinVLConfig
from tonics.features.vinvl.config import config_from


def test_the_published_model_is_the_default():
    config = VinVLConfig()
    assert (config.dim, config.num_anchors) == (2048, 15)
    assert (config.nms_filter, config.score_thresh, config.ignore_box_regression) == (1, 0.2, True)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"scores": 1}, "unknown setting 'scores'"),
        ({"nms_filter": 3}, "nms_filter = 3, expected one of 0, 1, 2"),
        ({"nms_filter": True}, "nms_filter = True"),
        ({"nms": "soft"}, "nms = 'soft', expected one of 'torchvision', 'legacy'"),
        ({"score_thresh": "high"}, "score_thresh = 'high', expected a number from 0 to 1"),
        ({"score_thresh": float("nan")}, "score_thresh = nan"),
        ({"min_detections": 20, "max_detections": 10}, "min_detections = 20"),
        ({"max_size": 500}, "max_size = 500, expected min_size or more"),
        ({"depths": [3, 8, 36]}, "depths = (3, 8, 36), expected 4 whole numbers"),
        ({"depths": [3, 8, 36.0, 3]}, "depths"),
        ({"anchor_ratios": [0.0]}, "anchor_ratios"),
        ({"proposals": 0}, "proposals = 0, expected a whole number, 1 or more"),
        ({"num_classes": 1}, "num_classes = 1"),
        ({"precision": "half"}, "precision = 'half'"),
    ],
)
def test_what_no_model_can_have_is_refused(settings, says):
    with pytest.raises(ConfigError) as error:
        config_from(settings)
    assert says in str(error.value)


def test_lists_of_a_settings_file_become_tuples():
    assert config_from({"depths": [1, 1, 1, 1]}).depths == (1, 1, 1, 1)
    assert VinVLConfig(depths=[1, 1, 1, 1]) == VinVLConfig(depths=(1, 1, 1, 1))


def test_how_fast_it_computes_decides_no_numbers():
    assert VinVLConfig().deciding() == VinVLConfig(batch_size=3, padded_batch=2).deciding()
    assert VinVLConfig().deciding() != VinVLConfig(score_thresh=0.3).deciding()


def test_importing_the_detector_loads_no_torch():
    code = "import sys, tonics.features.vinvl; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
