"""C of World Models (arXiv 1803.10122) with a goal: a linear policy on what is seen, remembered and wanted."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class LinearController(nn.Module):
    """The same action for all steps of a block, so that there are few enough numbers for an evolution strategy.

    Args:
        dim, num_tokens: of the visual latents.
        action_dim: numbers of an action block.
        memory_dim: numbers that the predictor's state remembers.
        action_size: numbers of a single action.
    """

    called, remembers = "controller", True

    def __init__(self, dim: int, num_tokens: int, action_dim: int, memory_dim: int, action_size: int):
        super().__init__()
        if action_dim % action_size:
            raise ValueError(f"policy.action_size ({action_size}) must divide the {action_dim} numbers of a block")
        self.num_steps = action_dim // action_size
        self.act = nn.Linear(2 * num_tokens * dim + memory_dim, action_size)

    def forward(
        self, z: Float[Tensor, "*B N D"], memory: Float[Tensor, "*B M"], goal: Float[Tensor, "*B N D"]
    ) -> Float[Tensor, "*B A"]:
        return self.blocks(z, memory, goal, self.act.weight, self.act.bias)

    def blocks(
        self,
        z: Float[Tensor, "*B N D"],
        memory: Float[Tensor, "*B M"],
        goal: Float[Tensor, "*B N D"],
        weight: Float[Tensor, "*#B a I"],
        bias: Float[Tensor, "*#B a"],
    ) -> Float[Tensor, "*B A"]:
        """Normalised blocks under weights that may differ from row to row."""
        seen = torch.cat([z.flatten(-2), memory, goal.flatten(-2)], dim=-1)
        action = (weight @ seen[..., None])[..., 0] + bias
        return action.tile((self.num_steps,))

    @property
    def num_weights(self) -> int:
        return self.act.weight.numel() + self.act.bias.numel()

    def unpack(self, vector: Float[Tensor, "*B W"]) -> tuple[Float[Tensor, "*B a I"], Float[Tensor, "*B a"]]:
        """Weight and bias from one vector."""
        weight, bias = vector.split([self.act.weight.numel(), self.act.bias.numel()], dim=-1)
        return weight.unflatten(-1, self.act.weight.shape), bias
