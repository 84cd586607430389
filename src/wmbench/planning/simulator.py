"""The simulator itself as a world model: the ceiling for a planner under given settings."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from wmbench.data.normalizer import Normalizer
from wmbench.envs.many_physics import ManyPhysics
from wmbench.envs.physics import Physics
from wmbench.shapes import Obs


class SimulatorModel:
    """Latents are true states in one token: positions to be compared, velocities to be carried along.

    The velocity is scaled to 1e-3 of its value inside a latent, so that a goal distance sees only the position.
    """

    VELOCITY_SCALE = 1e-3
    lookback = 0

    def __init__(self, physics: Physics | ManyPhysics, frameskip: int):
        self.physics, self.frameskip = physics, frameskip
        self.normalizer = Normalizer(torch.zeros(2), torch.ones(2), torch.zeros(4), torch.ones(4))
        self._scale = torch.tensor([1.0, 1.0, self.VELOCITY_SCALE, self.VELOCITY_SCALE, 1.0])

    def _scale_of(self, state: Float[Tensor, "*B S"]) -> Float[Tensor, " S"]:
        """Of the state's four numbers, and of the map's where there are several, in which state and goal agree."""
        return self._scale[: state.shape[-1]]

    def encode(self, obs: Obs) -> Float[Tensor, "B T 1 S"]:
        return (obs["proprio"] * self._scale_of(obs["proprio"]))[:, :, None]

    def split(self, z: Float[Tensor, "*B 1 S"]) -> tuple[Float[Tensor, "*B 1 S"], None]:
        return z, None

    def rollout(
        self, z: Float[Tensor, "B T 1 S"], past: Float[Tensor, "B T-1 A"], plans: Float[Tensor, "B K H A"]
    ) -> Float[Tensor, "B K H 1 S"]:
        """States at the end of each block, from the last state of z."""
        num_plans = plans.shape[1]
        scale = self._scale_of(z)
        state = (z[:, -1, 0] / scale).repeat_interleave(num_plans, dim=0)
        actions = rearrange(plans, "b s h (f a) -> (b s) (h f) a", f=self.frameskip)
        states = self.physics.rollout(state.double().numpy(), actions.double().numpy())[
            :, self.frameskip - 1 :: self.frameskip
        ]
        latents = torch.from_numpy(states).float() * scale
        return rearrange(latents, "(b s) h p -> b s h 1 p", s=num_plans)
