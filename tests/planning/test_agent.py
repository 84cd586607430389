"""Model-predictive control on a toy: a point that moves by the sum of its actions."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounter

from wmbench.data.normalizer import Normalizer
from wmbench.encoders.random_patch import RandomPatch
from wmbench.models.vit import FrameCausalViT
from wmbench.models.world_model import WorldModel
from wmbench.planning.agent import Agent
from wmbench.planning.cem import CEM
from wmbench.planning.floors import RandomAgent, ZeroAgent
from wmbench.planning.noise import KeyedNoise
from wmbench.planning.objective import Objective
from wmbench.shapes import Obs

FRAMESKIP = 2
ACTION_MEAN, ACTION_STD = torch.tensor([0.1, -0.2]), torch.tensor([0.5, 0.25])
GOALS = torch.tensor([[3.0, 1.0], [-2.0, 4.0], [0.5, -3.0], [-1.0, -2.0]])


class Drift:
    """A position (one token of two features) moves by the sum of the block's normalised actions."""

    frameskip = FRAMESKIP
    lookback = 0

    def __init__(self):
        self.normalizer = Normalizer(ACTION_MEAN, ACTION_STD, torch.zeros(4), torch.ones(4))
        self.contexts: list[tuple[Tensor, Tensor]] = []  # the frames of each rollout and the blocks between them
        self.rolled_out: list[int] = []  # plans in each call

    def encode(self, obs: Obs) -> Tensor:
        return obs["proprio"][:, :, None, :2]

    def split(self, z: Tensor) -> tuple[Tensor, None]:
        return z, None

    def rollout(self, z: Tensor, past: Tensor, plans: Tensor) -> Tensor:
        self.contexts.append((z, past))
        self.rolled_out.append(plans.shape[0] * plans.shape[1])
        return z[:, -1:, None] + displacement(plans).cumsum(2)[:, :, :, None]


class FixedPlan(CEM):
    """A planner that looks at nothing: block h of a plan is h, h + 0.1, h + 0.2, h + 0.3. It keeps what it was given."""

    def __init__(self):
        super().__init__(num_samples=2, num_elites=2, num_iters=1, init_std=1.0)
        self.guesses: list[Tensor] = []
        self.noises: list[KeyedNoise] = []

    def __call__(self, cost, mean, noise, bounds=None) -> Tensor:
        self.guesses.append(mean)
        self.noises.append(noise)
        return fixed_plan(mean.shape[1]).expand_as(mean)


class World:
    """The tasks' true positions, and a record of who looked when.

    limit: of the actions that are executed, in the environment's units; the simulator's is 1.
    """

    def __init__(self, num_tasks: int, limit: float = np.inf):
        self.limit = limit
        self.position = torch.zeros(num_tasks, 2)
        self.looks: list[int] = []  # numbers of the blocks before which someone looked
        self.horizons: list[int] = []  # of the plans
        self.actions: list[np.ndarray] = []  # of the blocks

    def run(self, agent: Agent, blocks: int, actives: list[list[int]] | None = None) -> "World":
        """Episodes of that many blocks; actives[b] are the tasks that still run in block b."""
        everyone = list(range(len(self.position)))
        agent.reset(observed(GOALS[: len(everyone)]), blocks)
        for block in range(blocks):
            active = np.array(actives[block] if actives else everyone)

            def look(block: int = block, active: np.ndarray = active) -> Obs:
                self.looks.append(block)
                return observed(self.position[torch.as_tensor(active)])

            plans_before = len(agent.decisions)
            actions = agent.act(look, active)
            if len(agent.decisions) > plans_before:
                self.horizons.append(agent.imagined.shape[1])
            executed = torch.from_numpy(actions.clip(-self.limit, self.limit))
            normalised = agent.model.normalizer.normalize_action(executed.flatten(1))
            self.position[torch.as_tensor(active)] += displacement(normalised)
            self.actions.append(actions)
        return self


def fixed_plan(horizon: int) -> Tensor:
    return torch.arange(horizon)[:, None] + 0.1 * torch.arange(FRAMESKIP * 2)


def displacement(blocks: Tensor) -> Tensor:
    return blocks.unflatten(-1, (FRAMESKIP, 2)).sum(-2)


def observed(position: Tensor) -> Obs:
    proprio = torch.cat([position, torch.zeros_like(position)], 1)[:, None]
    return Obs(visual=torch.zeros(len(position), 1, 2, 2, 3, dtype=torch.uint8), proprio=proprio)


def make_agent(**changed) -> Agent:
    settings = {
        "horizon": 3,
        "num_taken": 1,
        "shrinking": False,
        "num_context": 1,
        "clip_actions": False,
        "memory_gb": 1,
        "seed": 0,
    }
    planner = changed.pop("planner", None) or CEM(num_samples=30, num_elites=5, num_iters=4, init_std=1.0)
    objective = changed.pop("objective", Objective())
    return Agent(changed.pop("model", None) or Drift(), planner, objective, **settings | changed)


@pytest.mark.parametrize(
    ("num_taken", "num_context", "blocks", "expected"),
    [
        (1, 1, 4, [0, 1, 2, 3]),
        (1, 3, 4, [0, 1, 2, 3]),
        (3, 1, 7, [0, 3, 6]),  # plans before blocks 0, 3 and 6
        (3, 2, 7, [0, 2, 3, 5, 6]),
        (3, 9, 7, [0, 1, 2, 3, 4, 5, 6]),
    ],
)
def test_it_looks_only_for_frames_that_a_plan_starts_from(
    num_taken: int, num_context: int, blocks: int, expected: list[int]
):
    assert World(2).run(make_agent(num_taken=num_taken, num_context=num_context), blocks).looks == expected


def test_it_does_not_look_for_a_plan_that_the_episodes_end_prevents():
    assert World(2).run(make_agent(num_taken=3, num_context=2), blocks=6).looks == [0, 2, 3]


@pytest.mark.parametrize(("num_taken", "num_context"), [(1, 1), (1, 3), (2, 3), (3, 2), (3, 1)])
def test_a_context_is_of_real_frames_with_the_blocks_between_them(num_taken: int, num_context: int):
    """As the simulator executed them: samples of a planner without bounds leave the actuator's range."""
    planner = CEM(num_samples=30, num_elites=5, num_iters=4, init_std=4.0)
    agent = make_agent(planner=planner, num_taken=num_taken, num_context=num_context)
    world = World(3, limit=1.0).run(agent, blocks=7)
    assert np.abs(world.actions).max() > 1
    lengths = set()
    for frames, past in agent.model.contexts:
        assert past.shape[1] == frames.shape[1] - 1
        torch.testing.assert_close(frames[:, 1:, 0] - frames[:, :-1, 0], displacement(past))
        lengths.add(frames.shape[1])
    assert max(lengths) == num_context


@pytest.mark.parametrize(
    ("horizon", "num_taken", "blocks", "expected"),
    [(4, 1, 10, [4, 3, 2, 1, 4, 3, 2, 1, 2, 1]), (5, 2, 8, [5, 3, 1, 3, 1]), (4, 4, 6, [4, 2])],
)
def test_a_shrinking_horizon_looks_to_a_fixed_deadline(horizon: int, num_taken: int, blocks: int, expected: list[int]):
    agent = make_agent(horizon=horizon, num_taken=num_taken, shrinking=True)
    assert World(2).run(agent, blocks).horizons == expected


@pytest.mark.parametrize(
    ("horizon", "num_taken", "blocks", "expected"), [(4, 1, 6, [4, 4, 4, 3, 2, 1]), (3, 2, 7, [3, 3, 3, 1]), (5, 5, 3, [3])]
)
def test_a_sliding_horizon_never_reaches_beyond_the_end(horizon: int, num_taken: int, blocks: int, expected: list[int]):
    agent = make_agent(horizon=horizon, num_taken=num_taken)
    assert World(2).run(agent, blocks).horizons == expected


def test_it_arrives():
    planner = CEM(num_samples=300, num_elites=30, num_iters=30, init_std=1.0)
    world = World(4).run(make_agent(planner=planner, horizon=4, shrinking=True), blocks=4)
    torch.testing.assert_close(world.position, GOALS, rtol=0, atol=0.01)


def test_what_it_imagined_is_what_the_model_predicts_of_its_plan():
    agent = make_agent(horizon=3, num_taken=3)
    world = World(4).run(agent, blocks=3)
    torch.testing.assert_close(agent.imagined[:, -1, 0], world.position)


def test_latents_are_kept_of_the_first_tasks_and_positions_of_all():
    all_of_them, agent = make_agent(horizon=3), make_agent(horizon=3)
    agent.watch(lambda z: z[..., 0, :].numpy(), num_kept=2)
    for each in (all_of_them, agent):
        World(4).run(each, blocks=2, actives=[[0, 1, 2, 3], [1, 3]])
    positions, expected = agent.thoughts()
    assert agent.imagined.shape[0] == len(expected) == 2
    torch.testing.assert_close(expected, all_of_them.expected[:2], rtol=0, atol=0)
    np.testing.assert_array_equal(positions, all_of_them.imagined[:, :, 0])


def test_a_world_model_is_planned_with_like_any_other():
    """The agent's last plan and what it imagined of it are a rollout of the model from the frame that it saw."""
    torch.manual_seed(0)
    size = {"action_embed_dim": 3, "depth": 1, "num_heads": 2, "head_dim": 6, "mlp_dim": 11, "dropout": 0.1}
    model = WorldModel(
        RandomPatch(image_size=8, grid=2, embed_dim=5, seed=0),
        FrameCausalViT(5, 4, 2, 2 * FRAMESKIP, **size),
        Normalizer(ACTION_MEAN, ACTION_STD, torch.zeros(4), torch.ones(4)),
        **{"proprio": "none", "proprio_embed_dim": 1, "frameskip": FRAMESKIP, "num_hist": 2},
    ).eval()
    agent = make_agent(model=model, num_taken=3)
    obs, goal = (Obs(visual=torch.randint(0, 256, (4, 1, 8, 8, 3)).byte(), proprio=torch.zeros(4, 1, 4)) for _ in range(2))
    agent.reset(goal, blocks=3)
    actions = np.stack([agent.act(lambda: obs, np.arange(4)) for _ in range(3)], 1)
    plan = model.normalizer.normalize_action(torch.from_numpy(actions).flatten(2))
    with torch.no_grad():
        expected = model.rollout(model.encode(obs), plan[:, :0], plan[:, None])[:, 0]
    torch.testing.assert_close(agent.imagined, expected)


@pytest.mark.parametrize("at_once", [1, 7, 30, 75, 120])
def test_plans_do_not_change_with_the_number_of_rollouts_at_once(at_once: int, monkeypatch: pytest.MonkeyPatch):
    """One sample of one task, part of one, one, two or all four at a time."""
    expected = World(4).run(make_agent(num_context=2), blocks=4)
    monkeypatch.setattr("wmbench.planning.rollout_cost.rollouts_at_once", lambda *_: at_once)
    found = World(4).run(make_agent(num_context=2), blocks=4)
    np.testing.assert_array_equal(found.actions, expected.actions)


@pytest.mark.parametrize("at_once", [3, 30, 70])
def test_never_more_rollouts_run_than_fit_into_memory(at_once: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("wmbench.planning.rollout_cost.rollouts_at_once", lambda *_: at_once)
    agent = make_agent()
    World(4).run(agent, blocks=2)
    at_a_time = [rolled_out for rolled_out in agent.model.rolled_out if rolled_out > 1]
    assert max(at_a_time) <= at_once
    assert sum(at_a_time) >= 2 * 4 * 30 * 4  # plans, tasks, samples, iterations


def test_running_out_of_memory_halves_what_runs_at_once_and_changes_nothing_else(monkeypatch: pytest.MonkeyPatch):
    class Small(Drift):
        def rollout(self, z: Tensor, past: Tensor, plans: Tensor) -> Tensor:
            if plans.shape[0] * plans.shape[1] > 9:
                raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1 byte")
            return super().rollout(z, past, plans)

    expected = World(4).run(make_agent(), blocks=3)
    monkeypatch.setattr("wmbench.planning.rollout_cost.rollouts_at_once", lambda *_: 100)
    found = World(4).run(make_agent(model=Small()), blocks=3)
    np.testing.assert_array_equal(found.actions, expected.actions)


def test_other_errors_of_a_model_are_not_taken_for_a_lack_of_memory():
    class Broken(Drift):
        def rollout(self, z: Tensor, past: Tensor, plans: Tensor) -> Tensor:
            raise RuntimeError("the weights are on another device")

    with pytest.raises(RuntimeError, match="another device"):
        World(4).run(make_agent(model=Broken()), blocks=1)


def test_a_task_that_leaves_the_batch_does_not_change_the_others_plans():
    stay = World(4).run(make_agent(num_context=2, num_taken=2), blocks=6)
    actives = [[0, 1, 2, 3], [0, 2, 3], [0, 2, 3], [2, 3], [3], [3]]
    leave = World(4).run(make_agent(num_context=2, num_taken=2), blocks=6, actives=actives)
    for active, found, expected in zip(actives, leave.actions, stay.actions, strict=True):
        np.testing.assert_array_equal(found, expected[active])


def test_an_episode_alone_is_that_episode_in_a_batch():
    together = World(4).run(make_agent(num_context=3), blocks=5)
    alone = World(4).run(make_agent(num_context=3), blocks=5, actives=[[2]] * 5)
    np.testing.assert_array_equal(np.concatenate(alone.actions), np.stack(together.actions)[:, 2])


def test_the_seed_changes_the_plans():
    first, same, other = (World(2).run(make_agent(seed=seed), blocks=2).actions for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, other)


def test_an_agent_forgets_its_last_episodes():
    agent = make_agent(num_context=3, num_taken=2)
    first, again = (World(3).run(agent, blocks=5) for _ in range(2))
    np.testing.assert_array_equal(again.actions, first.actions)


@pytest.mark.parametrize("shrinking", [True, False])
def test_a_plan_starts_from_what_is_left_of_the_last_one(shrinking: bool):
    planner = FixedPlan()
    World(3).run(make_agent(planner=planner, horizon=4, num_taken=1, shrinking=shrinking), blocks=6)
    first, second = planner.guesses[:2]
    assert torch.equal(first, torch.zeros(3, 4, FRAMESKIP * 2))
    assert torch.equal(second[:, :3], fixed_plan(4)[1:].expand(3, 3, FRAMESKIP * 2))
    assert torch.equal(second[:, 3:], torch.zeros(3, 0 if shrinking else 1, FRAMESKIP * 2))


def test_noise_is_named_after_the_seed_the_tasks_and_the_plan():
    planner = FixedPlan()
    actives = [[0, 1, 3], [0, 1, 3], [1, 3], [1, 3]]
    World(4).run(make_agent(planner=planner, seed=8, num_taken=2), blocks=4, actives=actives)
    names = [(noise.seed, noise.tasks.tolist(), noise.plan) for noise in planner.noises]
    assert names == [(8, [0, 1, 3], 0), (8, [1, 3], 1)]


@pytest.mark.parametrize(("mode", "share"), [("last", 0.5), ("all", 1.0)])
def test_the_objective_judges_the_last_frame_or_all(mode: str, share: float):
    """To be at the goal in two blocks, the least effort goes half the way in each; to be there all the time, go at once."""
    planner = CEM(num_samples=300, num_elites=30, num_iters=30, init_std=1.0)
    agent = make_agent(planner=planner, horizon=2, num_taken=2, objective=Objective(mode))
    World(4).run(agent, blocks=2)
    torch.testing.assert_close(agent.imagined[:, 1, 0], GOALS, rtol=0, atol=0.02)
    done = (agent.imagined[:, 0, 0] * GOALS).sum(-1) / GOALS.square().sum(-1)  # of the way, in the first block
    torch.testing.assert_close(done.mean(), torch.tensor(share), rtol=0, atol=0.1)


@pytest.mark.parametrize(
    ("num_taken", "num_context", "expected"),
    [
        (1, 1, [[0], [0, 1], [1, 2], [2, 3]]),
        (2, 1, [[0], [0, 1], [1, 2]]),  # before block 1 only for the plan before block 2; none follows block 3
        (3, 1, [[0], [2], [2, 3]]),  # nobody looked before block 1, so the frame before block 2 stands alone
        (4, 1, [[0]]),
    ],
)
def test_an_encoder_of_pairs_sees_the_frame_of_one_block_earlier(num_taken: int, num_context: int, expected: list):
    class Pairs(Drift):
        lookback = 1

        def __init__(self):
            super().__init__()
            self.seen: list[list[float]] = []

        def encode(self, obs: Obs) -> Tensor:
            self.seen.append(obs["proprio"][-1, :, 0].tolist())  # the last task's positions
            return super().encode(obs)

    model = Pairs()
    agent = make_agent(model=model, horizon=4, num_taken=num_taken, num_context=num_context)
    agent.reset(observed(GOALS[:3]), 4)
    for block in range(4):
        active = np.array([0, 1, 2] if block < 2 else [0, 2])
        position = 10.0 * torch.as_tensor(active)[:, None] + torch.tensor([block, 0.0])
        agent.act(lambda position=position: observed(position), active)
    assert model.seen[1:] == [[20.0 + block for block in frames] for frames in expected]


def test_what_it_expects_is_the_plans_latent_at_the_end_of_the_block_that_it_gave():
    agent, position = make_agent(horizon=3, num_taken=2), torch.zeros(2, 2)
    agent.reset(observed(GOALS[:2]), 3)
    for _ in range(3):
        actions = agent.act(lambda position=position: observed(position), np.arange(2))
        position = position + displacement(agent.model.normalizer.normalize_action(torch.from_numpy(actions).flatten(1)))
        torch.testing.assert_close(agent.expected[:, 0], position)


def test_a_forecast_counts_the_steps_of_every_rollout(monkeypatch: pytest.MonkeyPatch):
    """Seconds of one rolled out step (a clock that adds one a rollout) times samples, iterations, tasks and horizons."""
    ticks = iter(range(100))
    monkeypatch.setattr("wmbench.planning.agent.time.perf_counter", lambda: float(next(ticks)))
    monkeypatch.setattr("wmbench.planning.rollout_cost.rollouts_at_once", lambda *_: 3)
    agent = make_agent(horizon=4, shrinking=True)
    steps = 4 + 3 + 2 + 1 + 3 + 2 + 1  # seven blocks
    assert agent.forecast(observed(GOALS[:1]), num_tasks=4, blocks=7) == pytest.approx(4 * 30 * 4 * steps / (3 * 4))


def test_a_forecast_under_a_budget_of_seconds_is_that_budget_for_every_plan():
    planner = CEM(num_samples=30, num_elites=5, num_iters=4, init_std=1.0, budget="0.5s")
    agent = make_agent(horizon=4, shrinking=True, planner=planner)
    assert agent.forecast(observed(GOALS[:1]), num_tasks=4, blocks=7) == pytest.approx(4 * 7 * 0.5)


def test_a_decision_is_the_looks_since_the_last_one_and_its_plan(monkeypatch: pytest.MonkeyPatch):
    """A clock on which a look takes 10 seconds and a plan 1: the second decision has two frames in its context."""
    now = [0.0]
    monkeypatch.setattr("wmbench.planning.agent.time.perf_counter", lambda: now[0])

    class Slow(FixedPlan):
        def __call__(self, cost, mean, noise, bounds=None) -> Tensor:
            now[0] += 1.0
            return super().__call__(cost, mean, noise, bounds)

    agent = make_agent(planner=Slow(), num_taken=2, num_context=2)
    agent.reset(observed(GOALS), 4)

    def look(active: np.ndarray) -> Obs:
        now[0] += 10.0
        return observed(GOALS[torch.as_tensor(active)])

    for active in ([0, 1, 2, 3], [0, 1, 2], [0, 1, 2], [2]):
        agent.act(lambda active=active: look(np.array(active)), np.array(active))
    assert agent.decisions == [(11.0, 1.0, 4, True), (21.0, 1.0, 3, False)]


def test_a_forecast_and_the_measuring_of_memory_compile_nothing():
    compiler = CompileCounter()

    class Compiled(Drift):
        rolled = staticmethod(torch.compile(lambda plans: displacement(plans).cumsum(2), backend=compiler))

        def rollout(self, z: Tensor, past: Tensor, plans: Tensor) -> Tensor:
            return z[:, -1:, None] + self.rolled(plans)[:, :, :, None]

    agent = make_agent(model=Compiled())
    agent.forecast(observed(GOALS[:1]), num_tasks=4, blocks=7)
    assert compiler.frame_count == 0
    World(4).run(agent, blocks=1)
    assert compiler.frame_count > 0


def test_actions_are_the_plans_in_environment_units():
    actions = World(3).run(make_agent(planner=FixedPlan(), num_taken=2), blocks=2).actions
    for block, found in enumerate(actions):
        assert found.shape == (3, FRAMESKIP, 2)
        normalised = block + np.array([[0.0, 0.1], [0.2, 0.3]])  # frameskip steps, in time order
        expected = normalised * ACTION_STD.numpy() + ACTION_MEAN.numpy()
        np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), rtol=1e-6)


def test_clipped_actions_stay_inside_the_actuators_range():
    planner = CEM(num_samples=30, num_elites=5, num_iters=4, init_std=4.0)
    free = World(4).run(make_agent(planner=planner), blocks=2).actions
    clipped = World(4).run(make_agent(planner=planner, clip_actions=True), blocks=2).actions
    assert np.abs(free).max() > 1
    assert np.abs(clipped).max() <= 1 + 1e-6  # normalised and back in float32


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"horizon": 0}, r"agent.horizon \(0\) must be positive"),
        ({"num_context": 0}, r"agent.num_context \(0\) must be positive"),
        ({"memory_gb": 0}, r"agent.memory_gb \(0\) must be positive"),
        ({"memory_gb": np.nan}, r"agent.memory_gb \(nan\) must be positive"),
        ({"num_taken": 0}, r"agent.num_taken \(0\) must be between 1 and horizon \(3\)"),
        ({"num_taken": 4}, r"agent.num_taken \(4\) must be between 1 and horizon \(3\)"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(changed: dict, message: str):
    with pytest.raises(ValueError, match=message):
        make_agent(**changed)


def test_weighing_proprio_that_the_model_lacks_is_refused():
    with pytest.raises(ValueError, match=r"objective.alpha \(0.5\) weighs proprio, which this model has none of"):
        World(2).run(make_agent(objective=Objective(alpha=0.5)), blocks=1)


def test_a_planner_without_a_warm_start_begins_with_its_own_guess_and_with_one_at_the_plans_tail():
    class Eager(FixedPlan):
        def first_guess(self, zero: Tensor, noise: KeyedNoise) -> Tensor:
            return torch.full_like(zero, 7.0)

    planner = Eager()
    World(2).run(make_agent(planner=planner, horizon=3, num_taken=1), blocks=4)
    first, second = planner.guesses[:2]
    assert torch.equal(first, torch.full((2, 3, 4), 7.0))
    assert torch.equal(second[:, :2], fixed_plan(3)[1:].expand(2, 2, 4))
    assert torch.equal(second[:, 2:], torch.full((2, 1, 4), 7.0))


def test_the_random_floor_draws_uniform_actions_for_each_task():
    agent, active = RandomAgent(FRAMESKIP, 2, seed=3), np.arange(4)
    agent.reset(observed(GOALS), blocks=500)
    together = np.stack([agent.act(lambda: observed(GOALS), active) for _ in range(500)])
    assert together.shape == (500, 4, FRAMESKIP, 2)
    assert np.abs(together).max() <= 1
    np.testing.assert_allclose(together.std((0, 2)), 3**-0.5, atol=4 * 3**-0.5 / 2000**0.5)  # four standard errors
    agent.reset(observed(GOALS), blocks=500)
    alone = np.concatenate([agent.act(lambda: observed(GOALS[2:3]), np.array([2])) for _ in range(500)])
    np.testing.assert_array_equal(alone, together[:, 2])


def test_the_idle_floor_does_nothing():
    agent = ZeroAgent(FRAMESKIP, 2)
    agent.reset(observed(GOALS), blocks=1)
    actions = agent.act(lambda: observed(GOALS[:3]), np.array([0, 1, 3]))
    assert actions.shape == (3, FRAMESKIP, 2) and not actions.any()


@pytest.mark.parametrize("spoilt", [slice(None), 1])
def test_a_model_whose_costs_are_not_finite_stops_the_planning(spoilt: slice | int):
    """All of them would make any plan the best one, and a single one would be passed over in silence."""

    class Broken(Drift):
        def rollout(self, z: Tensor, past: Tensor, plans: Tensor) -> Tensor:
            rolled_out = super().rollout(z, past, plans)
            if plans.shape[1] > 1:
                rolled_out[:, spoilt] = torch.nan
            return rolled_out

    with pytest.raises(ValueError, match="costs of plans are NaN or Inf"):
        World(4).run(make_agent(model=Broken()), blocks=1)
