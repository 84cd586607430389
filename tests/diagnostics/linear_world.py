"""A world whose next latent is the last one plus a gain times the action block, plus a push."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from wmbench.data.normalizer import Normalizer
from wmbench.diagnostics.latents import Encoded

TOKENS, WIDTH = 3, 4  # the block has WIDTH actions: 2 env steps of 2


@dataclass
class LinearWorld:
    gain: float = 1.0
    push: float = 0.0
    frameskip = 2
    lookback = 0
    normalizer = Normalizer(torch.zeros(2), torch.ones(2), torch.zeros(4), torch.ones(4))

    def split(self, z: torch.Tensor) -> tuple[torch.Tensor, None]:
        return z, None

    def rollout(self, z: Any, past: Any, plans: torch.Tensor) -> torch.Tensor:
        moved = (self.gain * plans + self.push).cumsum(2)  # B S H WIDTH
        return z[:, -1][:, None, None] + moved[:, :, :, None]


def encoded_by(world: LinearWorld, num_episodes: int, num_frames: int, actions: float = 1.0, seed: int = 0) -> Encoded:
    """Episodes of that world under random actions."""
    generator = torch.Generator().manual_seed(seed)
    action = actions * torch.randn(num_episodes, num_frames, WIDTH, generator=generator)
    start = torch.randn(num_episodes, 1, TOKENS, WIDTH, generator=generator)
    moved = (world.gain * action + world.push).cumsum(1)[:, :-1, None]
    z = torch.cat([start, start + moved], 1)
    return Encoded(z, action, z[:, :, 0].double().numpy().astype(np.float32))
