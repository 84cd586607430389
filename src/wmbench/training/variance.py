"""How much each token changes over the training frames: what tells one place from another."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from wmbench.data.windows import Windows
from wmbench.models.world_model import WorldModel
from wmbench.runs.store import load_tensors, save_tensors
from wmbench.training.pairs import frames_at, visual_tokens

VARIANCE = "variance.safetensors"
CHUNK = 64  # frames encoded at once
ROUNDING = 1e-6  # a standard deviation below this part of a token's size is rounding error


def token_variance(model: WorldModel, train: Windows, num_frames: int = 1000) -> Float[Tensor, " N"]:
    """Variance of each visual token over the first frames of evenly spread windows, on average over its features."""
    device = next(model.parameters()).device
    index = np.unique(np.linspace(0, len(train) - 1, num_frames).astype(int))
    total, squares = torch.zeros(1).double(), torch.zeros(1).double()
    for chunk in np.array_split(index, -(-len(index) // CHUNK)):
        obs = frames_at(train, train.start[chunk], train.episode[chunk], device)
        tokens = visual_tokens(model, obs).cpu().double()
        total, squares = total + tokens.sum(0), squares + tokens.square().sum(0)
    mean, size = total / len(index), squares / len(index)
    variance = (size - mean.square()).mean(-1)
    return torch.where(variance > ROUNDING**2 * size.mean(-1), variance, 0.0).float()


def save_variance(run: Path, variance: Float[Tensor, " N"]) -> None:
    save_tensors(run / VARIANCE, {"variance": variance})


def load_variance(run: Path) -> Float[Tensor, " N"]:
    """Load what train.py measured.

    Raises:
        FileNotFoundError: an older or imported run, which has none.
        ValueError: a damaged file.
    """
    way_out = "the train.py command that made the run measures it again"
    if not (run / VARIANCE).exists():
        raise FileNotFoundError(f"{run} has no {VARIANCE}, which objective=variance needs; {way_out}")
    tensors, _ = load_tensors(run / VARIANCE, f"delete it, and {way_out}")
    return tensors["variance"]
