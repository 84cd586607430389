"""What the loop asks of everything that learns."""

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from numpy import ndarray
from PIL import Image
from torch import nn

from wmbench.data.windows import Windows, compute_ahead
from wmbench.models.base import Losses
from wmbench.models.precision import applied_precision
from wmbench.processes.group import rows
from wmbench.runs.recipe import Recipe
from wmbench.runs.store import RESUME


class Trainee(ABC):
    """Something that learns: its module, the optimiser over it, and its files in a run's folder.

    A subclass may change: `what` it is called while it trains, the names of its files `resume` and `metrics`, what the
    progress bar shows of a row of metrics (`shown`), how a user trains it with another recipe (`anew`), and which setting
    moves its files (`moved_by`).

    Args:
        module: what learns, with all buffers that a step moves.
        train: windows that batches are drawn from.
        seed: of the batches' order.
    """

    what, resume, metrics, shown, anew = "training", RESUME, "metrics.csv", "", "under another model_name="
    moved_by = "ckpt_base_path"

    def __init__(self, module: nn.Module, optimizer: torch.optim.Optimizer, train: Windows, recipe: Recipe, seed: int):
        self.module, self.optimizer, self.windows, self.recipe, self.seed = module, optimizer, train, recipe, seed
        self.device = next(module.parameters()).device

    def batches(self, first_step: int) -> Generator[Any, None, None]:
        """Endless batches, this process's rows of them, on the device; the next one is read while one is in use."""
        order: Iterator[ndarray] = self.windows.batches(self.recipe.batch_size, self.seed, first_step)
        return compute_ahead(lambda index: self.windows.get(index[rows(len(index))], self.device), order)

    @abstractmethod
    def forward(self, batch: Any) -> Losses:
        """Means over the rows of the batch, or numbers of the whole batch by processes/batch.py."""

    @abstractmethod
    def validate(self) -> dict[str, float]:
        """Columns of metrics in addition to the losses; weights, buffers, modes and random state are left as they were."""

    @abstractmethod
    def save(self, run: Path, step: int) -> None:
        """Write the weights that others load."""

    def num_files(self, num_saves: int) -> int:
        """Number of files of weights that this many saves leave."""
        return 1


class EncoderTrainee(Trainee):
    """An encoder in pretraining, which is written once, when it is finished.

    encoder: what is kept; valid: windows to validate with; learns: False for one that stays as it is.
    """

    anew, moved_by = "with another output=", "output"
    encoder: Any  # an Encoder with save_head
    valid: Windows
    learns: bool = True

    def save(self, run: Path, step: int) -> None:
        """Nothing: see above."""

    @abstractmethod
    def told(self, results: Mapping[str, Any]) -> str:
        """What validation measured, in words."""

    @abstractmethod
    def picture(self) -> Image.Image | None:
        """Held-out frames above, as they are drawn from their tokens below; None where nothing is drawn."""


def autocast(device: torch.device) -> AbstractContextManager:
    """Context in which losses are computed: the command's precision, by default bf16 on a GPU and fp32 on the CPU."""
    return applied_precision(device).autocast(device)
