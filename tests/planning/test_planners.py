"""Every planner of conf/planner, held to what a planner promises; a new YAML is picked up by itself."""

import functools
from pathlib import Path
from types import SimpleNamespace

import hydra
import numpy as np
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from wmbench.commands import CONF
from wmbench.commands.players import make_agent
from wmbench.envs.mazes import Maze
from wmbench.planning.noise import KeyedNoise
from wmbench.planning.planner import Planner

TASKS, HORIZON, FRAMESKIP, ACTION = 3, 2, 5, 5  # ACTION: of a block
BOTTOM = torch.linspace(0.8, 1.6, TASKS * HORIZON * ACTION).reshape(TASKS, HORIZON, ACTION)  # of each task's bowl
START = torch.zeros(TASKS, HORIZON, ACTION)
NUMBERS = [4, 9, 7]  # of the tasks
LOW, HIGH = torch.tensor([-2.1, -2.2, -2.3, -2.4, -2.5]), torch.tensor([1.4, 1.3, 1.2, 1.1, 1.0])

NAMES = sorted(path.stem for path in Path(CONF, "planner").glob("*.yaml"))
every_planner = pytest.mark.parametrize("name", NAMES)


@functools.cache
def settings(name: str) -> DictConfig:
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(CONF, version_base="1.3"):
        return hydra.compose("plan", [f"planner={name}", f"env.frameskip={FRAMESKIP}"])


def make(name: str, **changed) -> Planner:
    """The planner of that file, small enough for a test."""
    cfg = settings(name).copy()
    small = {"num_samples": 20, "num_elites": 5, "num_iters": 6} | changed
    cfg.planner = OmegaConf.merge(cfg.planner, {k: v for k, v in small.items() if k in cfg.planner})
    return instantiate(cfg.planner)


class Bowl:
    """Half the squared distance to a bottom. It keeps the plans that it scored, and counts what they cost."""

    def __init__(self, bottom: Tensor = BOTTOM):
        self.bottom, self.scored, self.evaluations = bottom, [], 0

    def __call__(self, plans: Tensor) -> Tensor:
        self.scored.append(plans.detach().clone())
        self._count(plans.shape[1])
        plans = plans.clone()
        if plans.requires_grad:
            plans.register_hook(lambda gradient: self._count(2 * gradient.shape[1]))
        return self.depth(plans)

    def depth(self, plans: Tensor) -> Tensor:
        return (plans - self.bottom[:, None]).square().sum((2, 3)) / 2

    def _count(self, number: int) -> None:
        self.evaluations += number


def plan(planner: Planner, bowl: Bowl, start: Tensor = START, tasks: list[int] = NUMBERS, bounds=None) -> Tensor:
    with torch.no_grad():  # as an agent calls it
        return planner(bowl, start, KeyedNoise(5, np.array(tasks), 0), bounds)


@every_planner
def test_it_finds_the_minimum_of_every_tasks_bowl(name: str):
    bowl, start = Bowl(), START.clone()
    found = plan(make(name, num_samples=30, num_iters=12, num_elites=6), bowl, start)
    left = bowl.depth(found[:, None]) / bowl.depth(START[:, None])
    assert left.max() < (0.6 if name == "random_shooting" else 0.15)
    assert torch.equal(start, START) and not found.requires_grad


@every_planner
def test_a_task_planned_alone_gives_the_same_plan_as_in_a_batch_and_in_chunks(name: str):
    planner = make(name)
    together = plan(planner, Bowl())
    for rows in ([0], [1], [2], [0, 1], [1, 2]):
        found = plan(planner, Bowl(BOTTOM[rows]), START[rows], [NUMBERS[row] for row in rows])
        if planner.needs_gradients:  # PyTorch may fuse the arithmetic of some elements and not of others
            torch.testing.assert_close(found, together[rows], rtol=1e-5, atol=1e-6)
        else:
            assert torch.equal(found, together[rows])


@every_planner
def test_it_starts_from_the_first_guess(name: str):
    """With a single iteration nobody finds a bottom far away who does not begin there."""
    far = BOTTOM + 40
    bowl = Bowl(far)
    found = plan(make(name, num_iters=1), bowl, far)
    assert bowl.depth(found[:, None]).max() < 0.05 * bowl.depth(START[:, None]).min()
    assert bowl.depth(bowl.scored[0]).amin(1).max() < 1e-6  # the guess itself was scored


@every_planner
def test_with_bounds_every_plan_is_inside_and_without_them_some_are_not(name: str):
    planner, bowl = make(name, num_iters=2), Bowl(BOTTOM + 3)
    found = plan(planner, bowl, START + 5, bounds=(LOW, HIGH))  # the first guess lies outside, as the bottom does
    assert all(((plans >= LOW) & (plans <= HIGH)).all() for plans in bowl.scored)
    assert ((found >= LOW - 1e-6) & (found <= HIGH + 1e-6)).all()  # a mean of float32 numbers is rounded
    free = Bowl()
    plan(planner, free)
    assert any(((plans < LOW) | (plans > HIGH)).any() for plans in free.scored)


@every_planner
def test_it_counts_the_evaluations_that_it_makes(name: str):
    planner, bowl = make(name), Bowl()
    plan(planner, bowl)
    assert bowl.evaluations == planner.num_evaluations == planner.budget.evaluations_per_plan


@every_planner
@pytest.mark.parametrize("budget", [1, 77, 200])
def test_a_budget_of_evaluations_is_used_up_and_not_exceeded_by_more_than_a_first_iteration(name: str, budget: int):
    planner, bowl = make(name, budget=budget), Bowl()
    plan(planner, bowl)
    assert bowl.evaluations == planner.num_evaluations
    one = make(name, num_iters=1).num_evaluations
    assert budget - one < bowl.evaluations <= max(budget, one)


@every_planner
def test_a_budget_of_seconds_is_each_tasks_own(name: str, monkeypatch: pytest.MonkeyPatch):
    """By a clock that only goes on when plans are scored, one second a time."""
    bowl = Bowl()
    monkeypatch.setattr("wmbench.planning.budget.time.perf_counter", lambda: float(len(bowl.scored)))
    plan(make(name, budget="10s"), bowl)
    assert len(bowl.scored) in (10 * TASKS, 10 * TASKS + 1)  # Adam scores its starts before it steps


def test_an_agent_tells_its_planner_how_many_actions_a_block_of_its_model_has():
    cfg = settings("icem").copy()
    assert make_agent(cfg, SimpleNamespace(frameskip=3), Maze("umaze")).planner.frameskip == 3


@every_planner
def test_a_budget_of_another_form_is_refused(name: str):
    with pytest.raises(Exception, match=r"planner.budget \('2 hours'\) must be null, a positive number of evaluations"):
        make(name, budget="2 hours")


@pytest.mark.parametrize(
    ("name", "changed", "message"),
    [
        ("cem", {"init_std": 0.0}, r"init_std \(0.0\) must be positive"),
        ("icem", {"num_elites": 11}, r"num_elites \(11\) must be at least 2 and at most half of num_samples \(20\)"),
        ("icem", {"noise_beta": -1}, r"noise_beta \(-1\) must not be negative"),
        ("icem", {"sample_decay": 0.5}, r"sample_decay \(0.5\) must be at least 1"),
        ("icem", {"kept_fraction": 2}, r"kept_fraction \(2\) must be in \[0, 1\]"),
        ("icem", {"momentum": 1}, r"momentum \(1\) must be in \[0, 1\)"),
        ("mppi", {"num_samples": 1}, r"num_samples \(1\) must be at least 2"),
        ("mppi", {"temperature": 0}, r"temperature \(0\) must be positive"),
        ("mppi", {"std_decay": 1.5}, r"std_decay \(1.5\) must be above 0 and at most 1"),
        ("adam", {"lr": 0}, r"lr \(0\) must be positive"),
        ("random_shooting", {"num_samples": 0}, r"num_samples \(0\) must be positive"),
        *(
            (name, {setting: number}, rf"{setting} \({number}\)")
            for name, setting in (
                *(("cem", "init_std"), ("adam", "lr"), ("gd", "lr"), ("gd", "action_noise"), ("mppi", "temperature")),
                *(("mppi", "std_decay"), ("icem", "noise_beta"), ("icem", "sample_decay"), ("icem", "momentum")),
                ("icem", "kept_fraction"),
            )
            for number in ("nan", "inf", -1)
        ),
        ("nevergrad", {"num_iters": 0}, r"num_iters \(0\) must be positive"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(name: str, changed: dict, message: str):
    changed = {setting: float(value) if isinstance(value, str) else value for setting, value in changed.items()}
    with pytest.raises(Exception, match=rf"planner\.{message}") as raised:
        make(name, **changed)
    assert isinstance(raised.value.__cause__, ValueError)
