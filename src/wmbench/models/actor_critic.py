"""Dreamer's actor and critic (arXiv 1912.01603) with a goal: both on what is seen, remembered and wanted."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Normal
from torch.func import functional_call

from wmbench.processes.batch import with_noise

MIN_STD = 0.1  # of an action while the actor learns, before tanh


class ActorCritic(nn.Module):
    """A block is tanh of a Gaussian within the actuator's range: a sample while it learns, its mean when it acts.

    Args:
        dim, num_tokens: of the visual latents.
        action_dim: numbers of an action block.
        memory_dim: numbers that the predictor's state remembers.
        width: inner width of both networks.
        discount: of the reward of a block later.
        trace: how far returns trust dreamt rewards (1) rather than the critic (0): lambda.
        entropy: what a nat of the actor's entropy is worth.
    """

    called, remembers = "actor-critic", True
    lowest: Tensor
    highest: Tensor

    def __init__(
        self,
        dim: int,
        num_tokens: int,
        action_dim: int,
        memory_dim: int,
        width: int,
        discount: int | float,
        trace: int | float,
        entropy: int | float,
    ):
        super().__init__()
        for name, value in (("discount", discount), ("trace", trace)):
            if not 0 <= value <= 1:
                raise ValueError(f"policy.{name} ({value}) must be between 0 and 1")
        self.discount, self.trace, self.entropy = discount, trace, entropy
        told = 2 * num_tokens * dim + memory_dim
        self.actor, self.critic = _network(told, width, 2 * action_dim), _network(told, width, 1)
        self.register_buffer("lowest", -torch.ones(action_dim))
        self.register_buffer("highest", torch.ones(action_dim))

    def within(self, lowest: Float[Tensor, " A"], highest: Float[Tensor, " A"]) -> None:
        """Set the actuator's range in normalised numbers."""
        self.lowest.copy_(lowest)
        self.highest.copy_(highest)

    def forward(
        self, z: Float[Tensor, "B N D"], memory: Float[Tensor, "B M"], goal: Float[Tensor, "B N D"]
    ) -> Float[Tensor, "B A"]:
        """The block that it takes for the best."""
        return self._block(self._gaussian(told(z, memory, goal))[0])

    def act(self, seen: Float[Tensor, "B K"]) -> tuple[Float[Tensor, "B A"], Float[Tensor, " B"]]:
        """A block through which gradients pass, in training with noise, and the entropy of its Gaussian [nats]."""
        mean, std = self._gaussian(seen)
        raw = mean + std * with_noise(torch.randn_like, mean) if self.training else mean
        return self._block(raw), Normal(mean, std, validate_args=False).entropy().sum(-1)

    def value(self, seen: Float[Tensor, "*B K"], is_judged: bool = False) -> Float[Tensor, "*B"]:
        """Return that the critic expects.

        Args:
            is_judged: as the actor is judged by: a gradient reaches what is seen and not the critic.
        """
        if not is_judged:
            return self.critic(seen)[..., 0]
        weights: dict[str, Tensor] = {name: weight.detach() for name, weight in self.critic.named_parameters()}
        return functional_call(self.critic, weights, seen)[..., 0]

    def returns(self, reward: Float[Tensor, "B T"], value: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        """Lambda-returns (Sutton and Barto, 2018, 12.1) of the moments before each reward; value is of those after it."""
        found, later = [], value[:, -1]
        for now, after in zip(reward.unbind(1)[::-1], value.unbind(1)[::-1], strict=True):
            later = now + self.discount * ((1 - self.trace) * after + self.trace * later)
            found.append(later)
        return torch.stack(found[::-1], dim=1)

    def _block(self, raw: Float[Tensor, "B A"]) -> Float[Tensor, "B A"]:
        return self.lowest + (self.highest - self.lowest) * (1 + raw.tanh()) / 2

    def _gaussian(self, seen: Float[Tensor, "B K"]) -> tuple[Float[Tensor, "B A"], Float[Tensor, "B A"]]:
        mean, raw = self.actor(seen).chunk(2, dim=-1)
        return mean, nn.functional.softplus(raw) + MIN_STD


def told(z: Float[Tensor, "B N D"], memory: Float[Tensor, "B M"], goal: Float[Tensor, "B N D"]) -> Float[Tensor, "B K"]:
    """What actor and critic are told."""
    return torch.cat([z.flatten(1), memory, goal.flatten(1)], dim=1)


def _network(width_in: int, width: int, width_out: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before in (width_in, width):
        layers += [nn.Linear(before, width), nn.LayerNorm(width), nn.SiLU()]
    last = nn.Linear(width, width_out)
    nn.init.zeros_(last.weight)  # it begins in the middle of the range, and expects nothing
    nn.init.zeros_(last.bias)
    return nn.Sequential(*layers, last)
