"""An actor without a planner: a goal-conditioned policy says the action."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from wmbench.models.base import Predictor
from wmbench.planning.agent import Agent, Dynamics, Situation
from wmbench.planning.noise import KeyedNoise
from wmbench.planning.objective import Objective
from wmbench.planning.random_shooting import RandomShooting
from wmbench.shapes import Obs


class InverseAgent(Agent):
    """Looks as often as an agent that plans, and acts as the policy says; between two looks it goes by what the world model
    expects to see.

    Args:
        policy: called with latent and goal; one that `remembers`, also with what the predictor remembers, between them.
        num_taken: blocks between two looks.
        options: the other arguments of Agent.
    """

    def __init__(self, model: Dynamics, policy: Any, *, num_taken: int, **options: Any):
        nothing = RandomShooting(num_samples=1, num_iters=1, init_std=1.0)  # an agent has a planner; nobody asks this one
        super().__init__(
            model, nothing, Objective(), horizon=num_taken, num_taken=num_taken, shrinking=False, seed=0, **options
        )
        self.policy = policy

    def forecast(self, example: Obs, num_tasks: int, blocks: int) -> float:
        return 0.0

    def propose(self, here: Situation, guess: Float[Tensor, "B H A"], noise: KeyedNoise) -> Float[Tensor, "B H A"]:
        """The policy's blocks, one for each of the guess."""
        if self.policy.remembers:
            return self._remembering(here, guess.shape[1])
        latent, wanted = here.z[:, -1], self.model.split(here.goal)[0]
        blocks: list[Tensor] = []
        while len(blocks) < guess.shape[1]:
            if blocks:
                latent = self.model.rollout(here.z, here.past, torch.stack(blocks, 1)[:, None])[:, 0, -1]
            block = self.policy(self.model.split(latent)[0], wanted)
            blocks.append(block.clamp(*self._limits) if self.clip_actions else block)
        return torch.stack(blocks, 1)

    def _remembering(self, here: Situation, num_blocks: int) -> Float[Tensor, "B H A"]:
        """Blocks of a policy that is also told what the predictor remembers."""
        predictor: Predictor = self.model.predictor  # type: ignore[attr-defined] - no simulator has a policy
        wanted, blocks = self.model.split(here.goal)[0], []
        state, latent = predictor.begin(here.z, here.past, 1), here.z[:, -1]
        for _ in range(num_blocks):
            block = self.policy(self.model.split(latent)[0], predictor.memory(state), wanted)
            blocks.append(block.clamp(*self._limits) if self.clip_actions else block)
            latent, state = predictor.step(state, blocks[-1])
        return torch.stack(blocks, 1)
