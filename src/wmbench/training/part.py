"""A part as a trainee: what is trained after a world model, on its latents, and leaves the model as it is."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from wmbench.data.windows import Windows
from wmbench.models.world_model import WorldModel
from wmbench.runs.load import save_part
from wmbench.runs.recipe import Recipe
from wmbench.training.trainee import Trainee


class Part(NamedTuple):
    """What learns, and under which name and configuration it is kept in the run."""

    name: str  # decoder, distance or policy
    config: Mapping[str, Any]
    module: nn.Module


class PartTrainee(Trainee):
    """A part of a run, with files of its own there."""

    optimizer_class: type[torch.optim.Optimizer] = torch.optim.AdamW

    def __init__(self, model: WorldModel, part: Part, train: Windows, valid: Windows, recipe: Recipe, seed: int):
        options: dict[str, Any] = {"lr": recipe.lr, "weight_decay": recipe.weight_decay, "fused": True}
        super().__init__(part.module, self.optimizer_class(part.module.parameters(), **options), train, recipe, seed)
        self.model, self.part, self.valid = model.eval(), part, valid
        name = part.name
        self.what, self.resume, self.metrics = f"training {name}", f"{name}_resume.safetensors", f"{name}_metrics.csv"
        self.anew = f"another {name} (delete this run's {name}* files)"

    def save(self, run: Path, step: int) -> None:
        save_part(run, *self.part)
