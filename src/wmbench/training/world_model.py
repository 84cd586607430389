"""A world model as a trainee: it learns to predict, and its encoder with it where that is not frozen."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from wmbench.data.windows import Windows
from wmbench.machine import own_draws
from wmbench.models.base import Losses
from wmbench.models.world_model import WorldModel
from wmbench.processes.batch import mean_of_all
from wmbench.processes.group import fair_rows
from wmbench.runs.load import save_weights
from wmbench.runs.recipe import Recipe
from wmbench.shapes import Batch
from wmbench.training.trainee import Trainee, autocast


class WorldModelTrainee(Trainee):
    """The windows to train on and to validate on are of frames or of their tokens."""

    shown = "valid {valid_prediction:.4f}"

    def __init__(self, model: WorldModel, train: Windows, valid: Windows, recipe: Recipe, seed: int):
        super().__init__(model, optimizer_of(model, recipe), train, recipe, seed)
        self.model, self.valid = model, valid

    def forward(self, batch: Batch) -> Losses:
        return losses_of(self.model, batch)

    def validate(self) -> dict[str, float]:
        return {"valid_prediction": validate(self.model, self.valid, self.recipe)}

    def save(self, run: Path, step: int) -> None:
        save_weights(run, step, self.model)

    def num_files(self, num_saves: int) -> int:
        return num_saves


def optimizer_of(model: WorldModel, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW; for an encoder with a rate of its own without weight decay, which makes it DINO-WM's second optimiser, Adam."""
    trained = [p for p in model.parameters() if p.requires_grad]
    own = set() if recipe.encoder_lr is None else set(model.encoder.parameters())
    groups: list[dict[str, Any]] = [{"params": [p for p in trained if p not in own]}]
    if own:
        groups.append({"params": [p for p in trained if p in own], "peak_lr": recipe.encoder_lr, "weight_decay": 0.0})
    return torch.optim.AdamW(groups, lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)


def compile_predictor(model: WorldModel, trial: Callable[[], object]) -> None:
    """Compile what a step is spent on: the predictor, and an encoder that learns.

    Where a trial shows that it cannot be done, say so and leave the model as it was.
    """
    parts = [(model.predictor, "forward")] + [(model.encoder, "tokens")] * (not model.encoder.frozen)
    for module, name in parts:
        setattr(module, name, torch.compile(getattr(module, name)))
    try:
        trial()
    except Exception as error:  # the compiler may lack anything on this machine
        for module, name in parts:
            delattr(module, name)
        print(f"note: torch.compile fails here ({str(error).strip().partition(chr(10))[0]}); training goes on without it")


@torch.no_grad()
def validate(model: WorldModel, valid: Windows, recipe: Recipe) -> float:
    """Mean one-step prediction error over the same held-out windows every time."""
    device = next(model.parameters()).device
    model.eval()
    with own_draws(device):  # SIGReg draws directions; training must not feel that
        losses = [
            losses_of(model, valid.get(index[fair_rows(len(index))], device)).parts["prediction"]
            for index in valid.held_out(recipe.batch_size, recipe.valid_batches)
        ]
    model.train()
    return mean_of_all(torch.stack(losses).mean()).item()


def losses_of(model: WorldModel, batch: Batch) -> Losses:
    with autocast(batch.action.device):
        return model.loss(batch)
