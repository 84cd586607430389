"""An actor and a critic that learn in a world model's dreams; the model and the environment are left alone."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from wmbench.data.windows import Windows
from wmbench.models.actor_critic import ActorCritic, told
from wmbench.models.base import Losses
from wmbench.models.world_model import WorldModel
from wmbench.planning.agent import limits
from wmbench.shapes import Obs
from wmbench.training.pairs import PairTrainee, frames_at, latents
from wmbench.training.part import Part
from wmbench.training.trainee import autocast


class ImaginationTrainee(PairTrainee):
    """Dreams begin at recorded frames, last `horizon` blocks, and want what any other recorded frame shows."""

    def __init__(self, model: WorldModel, part: Part, *given: Any):
        super().__init__(model, part, *given)
        model.requires_grad_(False)  # gradients pass through it
        self.module.within(*limits(model, self.device))  # type: ignore[arg-type, operator] - as an agent's

    def forward(self, batch: tuple[Obs, Obs]) -> Losses:
        z, goal = (latents(self.model, obs) for obs in batch)
        with autocast(self.device):
            return dreamt_losses(self.model, self.module, z, goal, self.horizon)  # type: ignore[arg-type]

    def _draw(
        self, windows: Windows, index: Int[ndarray, " B"], key: tuple[int, int], which: slice = slice(None)
    ) -> tuple[Obs, Obs]:
        goals = np.random.default_rng((*key, 1)).integers(0, len(windows), len(index))
        begun, wanted = (
            frames_at(windows, windows.start[k[which]], windows.episode[k[which]], self.device) for k in (index, goals)
        )
        return begun, wanted


def dreamt_losses(
    model: WorldModel, policy: ActorCritic, z: Float[Tensor, "B N D"], goal: Float[Tensor, "B N D"], blocks: int
) -> Losses:
    """The actor's loss, the negative returns of its dreams, and the critic's squared error.

    A block's reward is the negative squared distance from the goal at its end.
    """
    wanted, predictor = model.split(goal)[0], model.predictor
    state, latent = predictor.begin(z[:, None], z.new_zeros(len(z), 0, len(policy.lowest)), 1), z
    moments, rewards, entropies = [], [], []
    for _ in range(blocks):
        moments.append(seen := told(model.split(latent)[0], predictor.memory(state), wanted))
        block, entropy = policy.act(seen)
        latent, state = predictor.step(state, block)
        rewards.append(-(model.split(latent)[0] - wanted).square().mean((1, 2)))
        entropies.append(entropy)
    moments.append(told(model.split(latent)[0], predictor.memory(state), wanted))
    reward, dreamt = torch.stack(rewards, dim=1), torch.stack(moments, dim=1)
    returns = policy.returns(reward, policy.value(dreamt[:, 1:], is_judged=True))
    actor = -(returns + policy.entropy * torch.stack(entropies, dim=1)).mean()
    critic = (policy.value(dreamt[:, :-1].detach()) - returns.detach()).square().mean()
    parts = {"error": -reward[:, -1].mean().detach(), "actor": actor.detach(), "critic": critic.detach()}
    return Losses(actor + critic, parts)
