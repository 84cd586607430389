"""What a predictor is asked to roll out, each of its sizes another number."""

import torch
from torch import Tensor

from wmbench.data.normalizer import Normalizer
from wmbench.encoders.random_patch import RandomPatch
from wmbench.models.base import Predictor
from wmbench.models.world_model import WorldModel

TASKS, PLANS, HORIZON, NUM_HIST, TOKENS, DIM, ACTION = 2, 5, 6, 3, 4, 7, 9


def model_around(predictor: Predictor) -> WorldModel:
    blank = Normalizer(torch.zeros(3), torch.ones(3), torch.zeros(4), torch.ones(4))
    sizes = {"proprio": "none", "proprio_embed_dim": 1, "frameskip": 3, "num_hist": NUM_HIST}
    return WorldModel(RandomPatch(8, 2, DIM, 0), predictor, blank, **sizes)


def situation(frames: int) -> tuple[Tensor, Tensor, Tensor]:
    """Latents, the blocks between them, plans."""
    torch.manual_seed(1)
    return (
        torch.randn(TASKS, frames, TOKENS, DIM),
        torch.randn(TASKS, frames - 1, ACTION),
        torch.randn(TASKS, PLANS, HORIZON, ACTION),
    )
