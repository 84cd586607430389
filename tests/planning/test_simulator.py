"""The simulator as a model: true dynamics, and distances that see the position alone."""

import numpy as np
import pytest
import torch

from wmbench.envs.mazes import Maze
from wmbench.envs.physics import Physics
from wmbench.planning.objective import Objective
from wmbench.planning.simulator import SimulatorModel
from wmbench.shapes import Obs

FRAMESKIP = 3


@pytest.fixture(scope="module")
def physics() -> Physics:
    return Physics(Maze("umaze"), num_threads=1)


@pytest.fixture
def model(physics: Physics) -> SimulatorModel:
    return SimulatorModel(physics, FRAMESKIP)


def observed(states: np.ndarray) -> Obs:
    proprio = torch.from_numpy(states).float()[:, None]
    return Obs(visual=torch.zeros(len(states), 1, 2, 2, 3, dtype=torch.uint8), proprio=proprio)


def test_a_rollout_is_that_of_the_physics(model: SimulatorModel, physics: Physics):
    states = np.array([[0.8, 1.5, 0.3, -0.5], [2.8, 2.0, -0.2, 0.6]])
    # Tasks, plans, horizon, action block: pushes that lead to no wall, which would magnify single precision.
    plans = np.random.default_rng(0).uniform(-0.2, 0.2, (2, 4, 5, FRAMESKIP * 2))
    z = model.rollout(model.encode(observed(states)), torch.zeros(2, 0, FRAMESKIP * 2), torch.from_numpy(plans).float())
    assert z.shape == (2, 4, 5, 1, 4)
    found = z[..., 0, :] / torch.tensor([1, 1, 1e-3, 1e-3])
    for task in range(2):
        for plan in range(4):
            actions = plans[task, plan].reshape(1, 5 * FRAMESKIP, 2)
            path = torch.from_numpy(physics.rollout(states[task : task + 1], actions)[0]).float()
            torch.testing.assert_close(found[task, plan], path[FRAMESKIP - 1 :: FRAMESKIP])


def test_a_rollout_starts_from_the_newest_frame(model: SimulatorModel):
    old, new = (observed(np.array([[x, 0.8, 0.0, 0.0]])) for x in (0.6, 1.0))
    z_old, z_new = model.encode(old), model.encode(new)
    plans, past = torch.ones(1, 2, 3, FRAMESKIP * 2), torch.zeros(1, 1, FRAMESKIP * 2)
    assert torch.equal(model.rollout(torch.cat([z_old, z_new], 1), past, plans), model.rollout(z_new, past[:, :0], plans))


def test_the_distance_to_the_goal_ranks_by_position(model: SimulatorModel):
    """A centimetre weighs more than the whole range of velocities."""
    goal = model.encode(observed(np.array([[1.0, 2.0, 0.0, 0.0]])))[:, 0]
    states = np.array([[1.00, 2.0, 6.0, -6.0], [1.02, 2.0, 0.0, 0.0], [1.02, 2.01, 6.0, 6.0], [1.0, 1.97, 0.0, 1.0]])
    z = model.encode(observed(states))[None]  # one task, four plans, one frame
    assert Objective()(model, goal, z, goal)[0].argsort().tolist() == [0, 1, 2, 3]
