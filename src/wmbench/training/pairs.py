"""What learns from two frames of an episode: how long the way between them is, or which action leads along it."""

from collections.abc import Generator
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from wmbench.data.windows import CPU, Windows, compute_ahead, observe, send
from wmbench.models.base import Losses
from wmbench.models.reader import LatentPairs
from wmbench.models.world_model import WorldModel
from wmbench.processes.batch import mean_of_all
from wmbench.processes.group import fair_rows, rows
from wmbench.runs.recipe import Recipe
from wmbench.shapes import Obs
from wmbench.training.part import Part, PartTrainee
from wmbench.training.trainee import autocast


class Pairs(NamedTuple):
    """Two frames of an episode each, `blocks` model steps apart, and the block of actions that follows the first one."""

    here: Obs
    later: Obs
    blocks: Int[Tensor, " B"]
    action: Float[Tensor, "B A"]


class PairTrainee(PartTrainee):
    """A distance or a policy, whose loss takes LatentPairs.

    Args:
        train, valid: windows whose first frames begin pairs.
        horizon: blocks between the frames of a pair, at most; an episode's end may come earlier.
    """

    shown = "valid error {valid_error:.4f}"

    def __init__(
        self, model: WorldModel, part: Part, train: Windows, valid: Windows, recipe: Recipe, seed: int, horizon: int
    ):
        super().__init__(model, part, train, valid, recipe, seed)
        self.horizon = horizon

    def batches(self, first_step: int) -> Generator[Any, None, None]:
        order = enumerate(self.windows.batches(self.recipe.batch_size, self.seed, first_step), first_step)
        return compute_ahead(
            lambda drawn: self._draw(self.windows, drawn[1], (self.seed, drawn[0]), rows(len(drawn[1]))), order
        )

    def forward(self, batch: Any) -> Losses:
        z, later = (visual_tokens(self.model, obs) for obs in (batch.here, batch.later))
        action = self.model.normalizer.normalize_action(batch.action)
        with autocast(self.device):
            return self.module.loss(LatentPairs(z, later, batch.blocks, action))  # type: ignore[operator]

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """The mean error over the same held-out pairs every time."""
        self.module.eval()
        order = enumerate(islice(self.valid.batches(self.recipe.batch_size, seed=0), self.recipe.valid_batches))
        batches = (self._draw(self.valid, index, (0, number), fair_rows(len(index))) for number, index in order)
        errors = [self.forward(batch).parts["error"] for batch in batches]
        self.module.train()
        return {"valid_error": mean_of_all(torch.stack(errors).mean()).item()}

    def _draw(self, windows: Windows, index: Int[ndarray, " B"], key: tuple[int, int], which: slice = slice(None)) -> Any:
        return draw_pairs(windows, index, self.horizon, key, self.device, which)


def draw_pairs(
    windows: Windows,
    index: Int[ndarray, " B"],
    horizon: int,
    key: tuple[int, int],
    device: torch.device = CPU,
    which: slice = slice(None),
) -> Pairs:
    """Pairs that begin where the windows numbered `index` do, `which` of them; how far apart they are is keyed by `key`."""
    episodes, start, episode = windows.episodes, windows.start[index], windows.episode[index]
    left = (episodes.ep_len[episode] - 1 - start) // windows.frameskip
    blocks = np.random.default_rng(key).integers(1, np.minimum(horizon, left), endpoint=True)[which]
    start, episode = start[which], episode[which]
    rows = (episodes.ep_offset[episode] + start)[:, None] + np.arange(windows.frameskip)
    action = torch.from_numpy(episodes.action[rows]).flatten(1)
    steps = (start, start + windows.frameskip * blocks)
    here, later = (frames_at(windows, step, episode, device) for step in steps)
    return Pairs(here, later, send(torch.from_numpy(blocks), device), send(action, device))


def frames_at(windows: Windows, step: Int[ndarray, " B"], episode: Int[ndarray, " B"], device: torch.device) -> Obs:
    """Observations (B 1 ...) at steps of their episodes, as the windows show them."""
    given = windows.source, windows.episodes, step[:, None], episode[:, None]
    return observe(*given, windows.lookback, windows.frameskip, device)


def visual_tokens(model: WorldModel, obs: Obs) -> Float[Tensor, "B N D"]:
    """Visual latents of single frames."""
    return model.split(latents(model, obs))[0]


@torch.no_grad()
def latents(model: WorldModel, obs: Obs) -> Float[Tensor, "B N D"]:
    """Latents of single frames, without a gradient."""
    with autocast(obs["proprio"].device):
        return model.encode(obs)[:, 0].float()
