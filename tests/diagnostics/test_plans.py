"""Plans that are imagined, carried out and compared: against the simulator, closed forms and planted answers."""

import numpy as np
import pytest
import torch
from linear_world import LinearWorld

from wmbench.diagnostics import parts
from wmbench.diagnostics.objectives import at_end, of_positions
from wmbench.diagnostics.probe import Probe
from wmbench.diagnostics.search import Recorded, plan_tasks
from wmbench.diagnostics.simulated import SimulatedCost, reached, simulate
from wmbench.diagnostics.two_by_two import two_by_two
from wmbench.envs.vector import PointMazes
from wmbench.planning.icem import ICEM
from wmbench.planning.objective import Objective
from wmbench.planning.simulator import SimulatorModel

CPU = torch.device("cpu")
START = np.array([[1.0, 1.0, 0.5, 0.0], [3.0, 1.0, 0.0, 0.0]])


@pytest.fixture
def env() -> PointMazes:
    return PointMazes("umaze", image_size=0, num_threads=1)


def test_simulated_plans_cost_what_the_simulator_as_a_model_says(env: PointMazes):
    """A model whose latents are states: drawn and encoded ends cost the same as foreseen ones."""
    model = SimulatorModel(env.physics, 3)
    plans = torch.randn(2, 4, 2, 6, generator=torch.Generator().manual_seed(0))
    goal = torch.rand(2, 1, 4, generator=torch.Generator().manual_seed(1))
    start = torch.from_numpy(START).float()[:, None, None]
    start = start * model._scale_of(start)
    foreseen = at_end(Objective())(model, start[:, 0], model.rollout(start, plans[:, 0, :0], plans), goal)
    counted = []
    cost = SimulatedCost(model, env, at_end(Objective()), START, goal, CPU, counted.append)
    torch.testing.assert_close(cost(plans), foreseen, rtol=1e-4, atol=1e-6)
    assert sum(counted) == 8, "one frame is drawn for each plan"


def test_an_encoder_that_looks_back_sees_the_frame_a_block_before_the_end(env: PointMazes):
    seen = []

    class Pairs(SimulatorModel):
        lookback = 1

        def encode(self, obs):
            seen.append(obs["proprio"])
            return super().encode(obs)

    model = Pairs(env.physics, 3)
    plans = torch.rand(2, 1, 2, 6, generator=torch.Generator().manual_seed(0))
    cost = SimulatedCost(model, env, at_end(Objective()), START, torch.zeros(2, 1, 4), CPU)
    cost(plans)
    states = torch.from_numpy(simulate(env.physics, model, START, plans)[:, 0]).float()
    torch.testing.assert_close(torch.cat(seen), states[:, [3, 6]])
    cost(plans[:, :, :1])
    torch.testing.assert_close(torch.cat(seen[2:]), states[:, [0, 3]], msg="of a single block: the start")


def test_simulated_states_begin_at_the_start_and_follow_denormalised_actions(env: PointMazes):
    world = LinearWorld()
    plans = torch.full((2, 1, 2, 4), 0.5)
    states = simulate(env.physics, world, START, plans)
    assert states.shape == (2, 1, 5, 4)
    np.testing.assert_array_equal(states[:, 0, 0], START)
    np.testing.assert_allclose(states[:, 0, 1:], env.physics.rollout(START, np.full((2, 4, 2), 0.5)))


def test_an_objective_at_the_end_is_that_of_the_last_frame_whatever_its_mode():
    z, goal = torch.randn(2, 3, 4, 5, 6), torch.randn(2, 5, 6)
    world = LinearWorld()
    last = Objective()(world, goal, z, goal)
    torch.testing.assert_close(at_end(Objective())(world, z[:, 0, 0], z, goal), last)
    whole = at_end(Objective(mode="all"))(world, z[:, 0, 0], z, goal)
    torch.testing.assert_close(whole.argsort(1), last.argsort(1))


def test_the_distance_of_a_probe_is_that_of_the_positions_it_reads():
    probe = Probe(torch.eye(6)[:, :2] * 2, torch.ones(2), r2=1.0)
    z, goal = torch.zeros(1, 2, 3, 1, 6), torch.zeros(1, 1, 6)
    z[0, 0, -1, 0, :2] = torch.tensor([3.0, 4.0])
    z[0, :, 0] = 9.0  # earlier frames do not count
    z[0, :, :, :, 2:] = 7.0  # nor what the probe does not read
    assert of_positions(probe)(LinearWorld(), goal, z, goal).tolist() == [[100.0, 0.0]]


def test_the_best_plan_so_far_never_gets_worse_and_is_one_that_was_scored():
    recorded = Recorded(lambda plans: plans[:, :, 0, 0].square())
    for value in (3.0, -1.0, 2.0):
        recorded(torch.full((2, 4, 1, 2), value) + torch.arange(4.0)[None, :, None, None])
    plans, costs = recorded.best_so_far()
    assert costs.tolist() == [[9.0, 0.0, 0.0]] * 2 and plans[:, :, 0, 0].tolist() == [[3.0, 0.0, 0.0]] * 2


def test_plans_stay_in_the_actuators_range_and_do_not_depend_on_other_tasks():
    planner = ICEM(20, 4, 6, 1.0, noise_beta=2.0, frameskip=2, sample_decay=1.0, kept_fraction=0.3, momentum=0.1)
    world, target = LinearWorld(), torch.tensor([0.5, -3.0])

    def cost(plans: torch.Tensor) -> torch.Tensor:
        return (plans - target.repeat(2)).square().mean((2, 3))

    both, alone = (plan_tasks(world, planner, cost, count, 2, 0, CPU) for count in (2, 1))
    assert torch.equal(both[:1], alone)
    assert both.abs().max() <= 1 and both[..., 1].mean() < -0.7, "the second action wants more than there is"


def test_success_is_a_touch_on_the_way_and_held_is_the_end():
    states = np.zeros((3, 4, 4))
    states[0, :, 0] = [3, 0.4, 2, 3]  # passes
    states[1, :, 0] = [3, 2, 1, 0.4]  # arrives
    states[2, :, 0] = 0.5  # strictly within
    touched, held = reached(states, np.zeros((3, 4)))
    assert touched.tolist() == [True, True, False] and held.tolist() == [False, True, False]


def test_the_two_by_two_has_wilson_intervals_and_paired_gains():
    few, many = np.arange(20) < 5, np.arange(20) < 15
    cells = {"true_latent": many, "true_probe": many, "learned_latent": few, "learned_probe": few}
    values = two_by_two(cells)
    assert values["success_true_latent"] == 0.75
    assert (values["success_true_latent_low"], values["success_true_latent_high"]) == pytest.approx((0.531, 0.888), abs=1e-3)
    assert values["gain_of_true_dynamics_latent"] == 0.5 and values["gain_of_true_dynamics_latent_low"] > 0.2
    assert values["gain_of_probe_true"] == values["gain_of_probe_true_high"] == 0


def test_candidates_are_of_the_first_the_middle_and_the_best_of_the_last_iteration(monkeypatch):
    monkeypatch.setattr(parts, "GROUP", 2)
    recorded = Recorded(lambda plans: plans[:, :, 0, 0])
    for iteration in range(3):
        recorded(10.0 * iteration + torch.tensor([4.0, 1, 3, 2])[None, :, None, None].expand(1, 4, 1, 2))
    plans, imagined = parts.candidates(recorded)
    assert imagined.tolist() == [[4, 1, 14, 11, 21, 22]] and plans[0, :, 0, 0].tolist() == imagined[0].tolist()
