"""The inverse model: it recovers actions, and acts without a planner under the rules that planners have."""

import numpy as np
import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from wmbench.data.normalizer import Normalizer
from wmbench.models.inverse import InverseModel
from wmbench.models.reader import LatentPairs
from wmbench.planning.inverse import InverseAgent
from wmbench.shapes import Obs

FRAMESKIP = 2


class Plane:
    """A point that each block (four numbers) moves by the sum of its two actions."""

    frameskip, lookback = FRAMESKIP, 0
    normalizer = Normalizer(torch.zeros(2), torch.ones(2), torch.zeros(4), torch.ones(4))

    def encode(self, obs: Obs) -> Tensor:
        return obs["proprio"][:, :, None, :2]

    def split(self, z: Tensor) -> tuple[Tensor, None]:
        return z, None

    def rollout(self, z: Tensor, past: Tensor, plans: Tensor) -> Tensor:
        return z[:, None, -1:] + plans.unflatten(-1, (FRAMESKIP, 2)).sum(-2).cumsum(2)[:, :, :, None]


class Halfway(InverseModel):
    """Goes half of the way in each block."""

    def __init__(self):
        super().__init__(dim=2, num_tokens=1, action_dim=4, token_width=1, width=1)

    def forward(self, z: Float[Tensor, "B N D"], goal: Float[Tensor, "B N D"]) -> Float[Tensor, "B A"]:
        return ((goal - z)[:, 0] / 4).repeat(1, FRAMESKIP)


def observed(position: Tensor) -> Obs:
    proprio = torch.cat([position, torch.zeros_like(position)], dim=-1)[:, None]
    return Obs(visual=torch.zeros(len(position), 1, 2, 2, 3, dtype=torch.uint8), proprio=proprio)


def play(num_taken: int, start: Tensor, goal: Tensor, blocks: int = 4, policy: InverseModel | None = None) -> np.ndarray:
    """Where the point is after each block (B blocks 2), and how often it was looked at, in the first entry of that axis."""
    settings = {"num_taken": num_taken, "num_context": 1, "clip_actions": True, "memory_gb": 1}
    agent = InverseAgent(Plane(), (policy or Halfway()).eval(), **settings)
    agent.reset(observed(goal), blocks)
    position, places, looks = start.clone(), [], []

    def look() -> Obs:
        looks.append(1)
        return observed(position)

    for _ in range(blocks):
        position = position + torch.from_numpy(agent.act(look, np.arange(len(start)))).sum(1)
        places.append(position)
    assert agent.evaluations_per_plan == 0 and len(agent.decisions) == len(looks) == -(-blocks // num_taken)
    return torch.stack(places, 1).numpy()


START, GOALS = torch.tensor([[0.0, 0], [1, -1], [0.5, 2]]), torch.tensor([[1.0, 0.5], [0, 1], [-1, 1]])


@pytest.mark.parametrize("num_taken", [1, 2, 3])
def test_between_two_looks_it_reads_what_the_model_expects_so_that_a_right_model_makes_them_needless(num_taken: int):
    places = play(num_taken, START, GOALS)
    share = 1 - 0.5 ** torch.arange(1, 5.0)
    expected = START[:, None] + share[:, None] * (GOALS - START)[:, None]
    np.testing.assert_allclose(places, expected.numpy(), atol=1e-6)


def test_a_task_alone_acts_as_it_does_in_a_batch():
    policy = InverseModel(dim=2, num_tokens=1, action_dim=4, token_width=8, width=16).requires_grad_(False)
    together = play(2, START, GOALS, policy=policy)
    for task in range(3):
        alone = play(2, START[task : task + 1], GOALS[task : task + 1], policy=policy)[0]
        np.testing.assert_allclose(alone, together[task], atol=1e-6)


def test_actions_stay_within_the_actuators_range():
    assert np.abs(np.diff(play(1, START, 100 * GOALS), axis=1)).max() <= FRAMESKIP + 1e-6


def test_it_learns_the_actions_of_a_linear_system():
    torch.manual_seed(0)
    policy = InverseModel(dim=2, num_tokens=1, action_dim=4, token_width=16, width=64).train()
    adam = torch.optim.Adam(policy.parameters(), lr=3e-3)

    def pairs() -> tuple[Tensor, Tensor, Tensor]:
        action, here = torch.rand(128, 2) * 2 - 1, torch.randn(128, 1, 2)
        return here, here + 2 * action[:, None], action.repeat(1, 2)

    for _ in range(200):
        here, later, action = pairs()
        loss = policy.loss(LatentPairs(here, later, torch.ones(128, dtype=torch.long), action)).total
        adam.zero_grad()
        loss.backward()
        adam.step()
    here, later, action = pairs()
    error = (policy.eval()(here, later) - action).square().mean()
    assert error < 0.02 * action.square().mean()
