"""A recipe of few steps on the numbered episodes, and what it measures."""

import csv
from pathlib import Path

import torch

from wmbench.data.normalizer import Normalizer

NUM_HIST, FRAMESKIP = 2, 3
FEW_STEPS = {
    "max_steps": 11,
    "batch_size": 4,
    "lr": 0.01,
    "weight_decay": 0.01,
    "warmup_fraction": 0.2,
    "cosine": True,
    "grad_clip": 1.0,
    "save_every": 4,
    "valid_every": 3,
    "valid_batches": 2,
}


def new_normalizer() -> Normalizer:
    """Of the numbered episodes: actions are (episode, step)."""
    return Normalizer(torch.tensor([2.0, 6.0]), torch.tensor([2.0, 4.0]), torch.zeros(4), torch.ones(4))


def read_metrics(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV of metrics, without the speed."""
    with path.open(newline="") as file:
        return [{key: value for key, value in row.items() if key != "steps_per_s"} for row in csv.DictReader(file)]
