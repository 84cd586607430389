"""How straight latents run while the ball rolls."""

import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor


def straightness(z: Float[Tensor, "E T K"]) -> Float[ndarray, " E"]:
    """Mean cosine of consecutive differences in each episode: 1 on a straight line, -1 back and forth, 0 at random."""
    change = z.diff(dim=1)
    return torch.cosine_similarity(change[:, 1:], change[:, :-1], dim=-1).mean(1).double().numpy()
