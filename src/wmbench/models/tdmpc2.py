"""TD-MPC2's dynamics (arXiv 2310.16828) without reward: a perceptron that learns from its own roll-outs."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from wmbench.encoders.tdmpc2 import SimNorm
from wmbench.models.base import Losses, Predictor

CONSISTENCY = 20.0  # weight
DISCOUNT = 0.5  # of the weight with each step


class TDMPC2Dynamics(Predictor):
    """The next latent from the newest one and a block; nothing else is remembered.

    What training leaves of TD-MPC2 without a reward is consistency: the latents of a roll-out from a window's first frame
    are to be those that the encoder gives. They are detached, so an encoder that gives one latent for all frames has no
    error, and only a regularizer keeps it from that.

    Args:
        mlp_dim: of two layers.
        group: features of a simplex, as the encoder's.

    Raises:
        ValueError: latents that groups do not divide.
    """

    def __init__(self, dim: int, num_tokens: int, num_hist: int, action_dim: int, mlp_dim: int, group: int):
        super().__init__()
        width = num_tokens * dim
        if group < 2 or width % group:
            raise ValueError(f"predictor.group ({group}) must be at least 2 and divide the latent's {width} numbers")
        self.num_tokens = num_tokens
        layers: list[nn.Module] = []
        for size in (width + action_dim, mlp_dim):
            layers += [nn.Linear(size, mlp_dim), nn.LayerNorm(mlp_dim), nn.Mish()]
        self.net = nn.Sequential(*layers, nn.Linear(mlp_dim, width), SimNorm(group))

    def forward(self, z: Float[Tensor, "B T N D"], action: Float[Tensor, "B T A"]) -> Float[Tensor, "B T N D"]:
        return self.step(z.flatten(0, 1), action.flatten(0, 1))[0].unflatten(0, z.shape[:2])

    def loss(self, z: Float[Tensor, "B T N D"], action: Float[Tensor, "B T A"], target: Float[Tensor, "B T N D"]) -> Losses:
        latent, errors = z[:, 0], []
        for step, block in enumerate(action.unbind(1)):
            latent = self.step(latent, block)[0]
            errors.append(DISCOUNT**step * nn.functional.mse_loss(latent, target[:, step].detach()))
        consistency = torch.stack(errors).mean()
        return Losses(CONSISTENCY * consistency, {"prediction": errors[0].detach(), "consistency": consistency.detach()})

    def begin(self, z: Float[Tensor, "B T N D"], past: Float[Tensor, "B T-1 A"], num_plans: int) -> Tensor:
        return z[:, -1].repeat_interleave(num_plans, 0)

    def step(self, state: Tensor, action: Float[Tensor, "BS A"]) -> tuple[Float[Tensor, "BS N D"], Tensor]:
        told = self.net(torch.cat([state.flatten(1), action], dim=1))
        z = rearrange(told, "b (n d) -> b n d", n=self.num_tokens)
        return z, z
