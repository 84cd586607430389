"""Plans as the simulator carries them out, and their cost by what would then be seen."""

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor

from wmbench.diagnostics.latents import OnFrames, encode_states
from wmbench.envs.physics import Physics, is_success
from wmbench.envs.vector import PointMazes
from wmbench.planning.agent import Dynamics
from wmbench.planning.rollout_cost import Distance


def simulate(
    physics: Physics, model: Dynamics, start: Float[ndarray, "B 4"], plans: Float[Tensor, "B S H A"]
) -> Float[ndarray, "B S steps 4"]:
    """States from the start on, one for each env step of the plans' normalised blocks."""
    blocks = model.normalizer.denormalize_action(plans).cpu().double().numpy()
    actions = rearrange(blocks, "b s h (f a) -> (b s) (h f) a", f=model.frameskip)
    first = start.repeat(plans.shape[1], axis=0)
    states = np.concatenate([first[:, None], physics.rollout(first, actions)], axis=1)
    return rearrange(states, "(b s) t p -> b s t p", b=len(plans))


class SimulatedCost:
    """Cost of plans under true dynamics: each one's last frame is simulated, drawn, encoded and compared with the goal's.

    Args:
        start: of each task.
        goal: latents of each task's goal, on the CPU.
    """

    def __init__(
        self,
        model: Dynamics,
        env: PointMazes,
        objective: Distance,
        start: Float[ndarray, "B 4"],
        goal: Float[Tensor, "B N D"],
        device: torch.device,
        on_frames: OnFrames = lambda count: None,
    ):
        self.model, self.env, self.objective, self.start, self.goal = model, env, objective, start, goal
        self.device, self.on_frames = device, on_frames

    def __call__(self, plans: Float[Tensor, "B S H A"]) -> Float[Tensor, "B S"]:
        return self.of(simulate(self.env.single[1], self.model, self.start, plans)).to(plans.device)

    def of(self, states: Float[ndarray, "B S steps 4"]) -> Float[Tensor, "B S"]:
        """Cost of where simulated plans end, on the CPU."""
        apart = self.model.frameskip
        shown = states[:, :, ::apart][:, :, -1 - self.model.lookback :]
        costs = []
        for seen, goal in zip(shown, self.goal, strict=True):  # a task at a time, so that memory holds the latents of one
            z = encode_states(self.model, self.env, seen, self.device, was_set=False, on_frames=self.on_frames)
            goal = goal[None].to(self.device)
            costs.append(self.objective(self.model, goal, z[None, :, None].to(self.device), goal).cpu())
        return torch.cat(costs)


def reached(
    states: Float[ndarray, "B steps 4"], goal: Float[ndarray, "B 4"]
) -> tuple[Bool[ndarray, " B"], Bool[ndarray, " B"]]:
    """Whether each task's ball is within 0.5 m of its goal at any step, and at the last."""
    inside = is_success(states, goal[:, None])
    return np.asarray(inside.any(1)), inside[:, -1]
