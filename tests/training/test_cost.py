"""What a training will take, told before it starts."""

import re

import numpy as np
import pytest
import torch

from wmbench.encoders.matched import matched, unmatched
from wmbench.encoders.random_patch import RandomPatch
from wmbench.training.cost import RandomTokens, evening, seconds_of


def test_a_training_within_an_evening_needs_no_note():
    assert evening(14_000, 1.0, 400, 1.0) is None
    assert evening(14_001, 1.0, 400, 1.0)


def test_the_recipe_of_an_evening_takes_what_encoding_leaves_of_it():
    """455,700 steps of 2 s are 253 h; after 2,000 s of encoding 12,400 s are left of four hours, 6,200 steps."""
    told = evening(455_700, 2.0, 20_000, 0.1)
    assert "455,700 steps will take about 253 h 10 min here, after 33 min 20 s for encoding 20,000 frames" in told
    assert re.search(r"training.max_steps=6200 ", told)


def test_encoding_that_takes_longer_than_an_evening_leaves_one_step():
    assert "training.max_steps=1 " in evening(10, 1.0, 20_000, 1.0)


@pytest.mark.parametrize("arm", [{}, {"pool": 1}, {"width": 3}, {"pool": 1, "width": 3, "standardise": True}], ids=str)
def test_random_tokens_are_those_that_a_matched_arm_reads(arm):
    encoder = matched(
        RandomPatch(image_size=8, grid=2, embed_dim=5, seed=0), **{"width": None, "standardise": False, "pool": None} | arm
    )
    steps = np.zeros((2, 3), int)
    tokens = RandomTokens(encoder).visual(steps, steps, torch.device("cpu"))
    assert tokens.shape == (2, 3, 4, 5)
    assert encoder is unmatched(encoder) or encoder.match(tokens).shape == (2, 3, encoder.num_tokens, encoder.embed_dim)


def test_the_first_call_does_not_count():
    calls = []
    assert seconds_of(lambda: calls.append(1)) >= 0 and len(calls) == 2
