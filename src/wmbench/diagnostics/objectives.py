"""Distances between the end of a plan and its goal: the run's own in latents, and that of positions read from them."""

import torch
from jaxtyping import Float
from torch import Tensor

from wmbench.diagnostics.probe import Probe
from wmbench.planning.agent import Dynamics
from wmbench.planning.rollout_cost import Distance


def at_end(objective: Distance) -> Distance:
    """The objective on a plan's last frame only, in either of its modes, so that drawn and foreseen ends cost alike."""

    def distance(
        model: Dynamics, start: Float[Tensor, "B N D"], z: Float[Tensor, "B S H N D"], goal: Float[Tensor, "B N D"]
    ) -> Float[Tensor, "B S"]:
        return objective(model, goal, z[:, :, -1:], goal)

    return distance


def of_positions(probe: Probe) -> Distance:
    """Squared distance [m^2] of the positions that a probe reads from a plan's last frame and from the goal's."""

    def distance(
        model: Dynamics, start: Float[Tensor, "B N D"], z: Float[Tensor, "B S H N D"], goal: Float[Tensor, "B N D"]
    ) -> Float[Tensor, "B S"]:
        end, wanted = (torch.from_numpy(probe(latents)).to(z) for latents in (z[:, :, -1], goal[:, None]))
        return (end - wanted).square().sum(-1)

    return distance
