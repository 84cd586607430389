"""Zero mean and unit variance for actions and proprio; the numbers travel with the model."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wmbench.data.episodes import EpisodeSet


class Normalizer(nn.Module):
    """Statistics as buffers, so that planning needs a checkpoint and never the data.

    Args:
        action_mean, action_std: of single actions (A,), not of blocks.
        proprio_mean, proprio_std: (P,).
    """

    action_mean: Tensor
    action_std: Tensor
    proprio_mean: Tensor
    proprio_std: Tensor

    def __init__(
        self,
        action_mean: Float[Tensor, " a"],
        action_std: Float[Tensor, " a"],
        proprio_mean: Float[Tensor, " P"],
        proprio_std: Float[Tensor, " P"],
    ):
        super().__init__()
        self.register_buffer("action_mean", action_mean)
        self.register_buffer("action_std", action_std)
        self.register_buffer("proprio_mean", proprio_mean)
        self.register_buffer("proprio_std", proprio_std)

    def normalize_action(self, block: Float[Tensor, "*B A"]) -> Float[Tensor, "*B A"]:
        """Normalise blocks of one or more single actions, concatenated in time order."""
        repeats = block.shape[-1] // len(self.action_mean)
        return (block - self.action_mean.repeat(repeats)) / self.action_std.repeat(repeats)

    def denormalize_action(self, block: Float[Tensor, "*B A"]) -> Float[Tensor, "*B A"]:
        repeats = block.shape[-1] // len(self.action_mean)
        return block * self.action_std.repeat(repeats) + self.action_mean.repeat(repeats)

    def normalize_proprio(self, proprio: Float[Tensor, "*B S"]) -> Float[Tensor, "*B P"]:
        proprio = proprio[..., : len(self.proprio_mean)]  # a map's number, which may follow, is not for models
        return (proprio - self.proprio_mean) / self.proprio_std


def fit_normalizer(episodes: EpisodeSet) -> Normalizer:
    """Measure statistics over all steps, also of validation episodes, with the unbiased std, as DINO-WM does."""
    action, proprio = Tensor(episodes.action), Tensor(episodes.proprio)
    action_std, proprio_std = (torch.where(std > 0, std, 1.0) for std in (action.std(0), proprio.std(0)))
    return Normalizer(action.mean(0), action_std, proprio.mean(0), proprio_std)
