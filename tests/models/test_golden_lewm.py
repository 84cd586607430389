"""LeWorldModel's released code, recorded with random weights, is reproduced."""

from pathlib import Path

import torch

from wmbench.importers.golden import relative_error
from wmbench.importers.golden_lewm import recompute_lewm

NAMES = {
    "embedding",
    "action_embedding",
    "prediction",
    "prediction_loss",
    "rollout",
    "cost",
    "sigreg.statistic",
    "sigreg.mean",
}


def test_everything_recorded_of_lewm_is_the_same(golden: Path):
    record = torch.load(golden / "lewm_tiny.pt", weights_only=True)
    errors = {name: relative_error(ours, recorded) for name, ours, recorded, _ in recompute_lewm(record)}
    assert errors.keys() == NAMES
    assert max(errors.values()) < 1e-5, errors
