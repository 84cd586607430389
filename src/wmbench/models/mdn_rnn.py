"""M of World Models (arXiv 1803.10122): an LSTM that says the next latent as a mixture of Gaussians."""

import math
from typing import NamedTuple, Unpack

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from wmbench.models.base import Latents, Losses
from wmbench.models.recurrent import Recurrent

LOG_STD = (-7.0, 2.0)  # lowest and highest


class Mixture(NamedTuple):
    """What is foreseen, the LSTM's hidden and cell state, and the mixture of K Gaussians of each number of the latent."""

    z: Float[Tensor, "B N D"]
    hidden: Float[Tensor, "B W"]
    cell: Float[Tensor, "B W"]
    log_weight: Float[Tensor, "B N D K"]
    mean: Float[Tensor, "B N D K"]
    log_std: Float[Tensor, "B N D K"]


class MDNRNN(Recurrent):
    """Learns from real frames alone; plans with the mixture's mean, so that a plan's cost has no noise.

    The Gaussians are of the change from the newest latent, which only moves their means.

    Args:
        hidden_dim: of the LSTM.
        components: Gaussians of each number.
        temperature: divides the weights' logits in rollouts, as World Models does where it dreams.
    """

    def __init__(self, hidden_dim: int, components: int, temperature: int | float, **latents: Unpack[Latents]):
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"predictor.temperature ({temperature}) must be positive")
        num_tokens, dim = latents["num_tokens"], latents["dim"]
        self.shape, self.components, self.temperature = (num_tokens, dim, 3, components), components, temperature
        self.lstm = nn.LSTMCell(num_tokens * dim + latents["action_dim"], hidden_dim)
        self.head = nn.Linear(hidden_dim, math.prod(self.shape))

    def loss(self, z: Float[Tensor, "B T N D"], action: Float[Tensor, "B T A"], target: Float[Tensor, "B T N D"]) -> Losses:
        states = self.states(z, action)
        mixture = (torch.stack(parts, dim=1) for parts in zip(*(state[3:] for state in states), strict=True))
        likelihood = negative_log_likelihood(target, *mixture)
        prediction = nn.functional.mse_loss(torch.stack([state.z for state in states], dim=1).detach(), target.detach())
        return Losses(likelihood, {"prediction": prediction, "nll": likelihood.detach()})

    def blank(self, z: Float[Tensor, "B N D"]) -> Mixture:
        nothing = z.new_zeros(len(z), self.lstm.hidden_size)
        none = z.new_zeros(*z.shape, self.components)
        return Mixture(z, nothing, nothing, none, none, none)

    def step(self, state: Mixture, action: Float[Tensor, "B A"]) -> tuple[Float[Tensor, "B N D"], Mixture]:
        hidden, cell = self.lstm(torch.cat([state.z.flatten(1), action], dim=1), (state.hidden, state.cell))
        logits, change, log_std = self.head(hidden).float().unflatten(1, self.shape).unbind(3)
        mean, log_weight = state.z[..., None] + change, logits.log_softmax(-1)
        weight = logits if self.training else logits / self.temperature
        z = (weight.softmax(-1) * mean).sum(-1)
        return z, Mixture(z, hidden, cell, log_weight, mean, log_std.clamp(*LOG_STD))

    @property
    def memory_dim(self) -> int:
        return self.lstm.hidden_size

    def memory(self, state: Mixture) -> Float[Tensor, "B M"]:
        return state.hidden

    def doubt(self, state: Mixture) -> Float[Tensor, " B"]:
        weight = state.log_weight.exp()
        square = (weight * (state.mean.square() + (2 * state.log_std).exp())).sum(-1)
        variance = square - (weight * state.mean).sum(-1).square()
        return rearrange(variance.clamp(min=0).sqrt(), "b n d -> b (n d)").mean(1)


def negative_log_likelihood(
    target: Float[Tensor, "*B"],
    log_weight: Float[Tensor, "*B K"],
    mean: Float[Tensor, "*B K"],
    log_std: Float[Tensor, "*B K"],
) -> Float[Tensor, ""]:
    """Of each number under its mixture [nats], on average."""
    away = (target[..., None] - mean) * (-log_std).exp()
    log_density = -0.5 * away.square() - log_std - 0.5 * math.log(2 * math.pi)
    return -(log_weight + log_density).logsumexp(-1).mean()
