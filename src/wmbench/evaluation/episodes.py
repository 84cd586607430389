"""The loop between agent and environment, over all tasks at once."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from wmbench.envs.physics import is_success
from wmbench.envs.vector import PointMazes
from wmbench.evaluation.tasks import Tasks
from wmbench.planning.agent import Look
from wmbench.shapes import Obs

CHECKS = ("every_step", "every_round", "last_step")


@runtime_checkable
class Actor(Protocol):
    plan_seconds: list[float]

    def reset(self, goal: Obs, blocks: int) -> None: ...
    def act(self, look: Look, active: ndarray) -> ndarray: ...


@dataclass(frozen=True)
class Outcome:
    """What happened in n episodes of at most T env steps; an episode ends with its success."""

    states: Float[ndarray, "n T 4"]  # from the start on; a finished episode's last state is repeated
    success: Bool[ndarray, " n"]
    steps: Int[ndarray, " n"]  # env steps taken, until success or the budget's end
    final_distance: Float[ndarray, " n"]  # to the goal when the episode ended [m]
    seconds_per_plan: float  # of one task, batched with the others; 0 for agents that do not plan


def run_episodes(
    agent: Actor,
    env: PointMazes,
    tasks: Tasks,
    *,
    max_steps: int,
    frameskip: int,
    check: str,
    round_steps: int,
    device: torch.device,
    on_block: Callable[[int, ndarray], None] = lambda block, active: None,
) -> Outcome:
    """Run every task to its success or to max_steps.

    Args:
        check: when a ball within the success radius counts: after every_step, at the end of every_round of round_steps, or
            at the last_step only.
        on_block: called after each block of actions with its number and the tasks that still run.

    Raises:
        ValueError: an unknown check, or budgets that do not divide.
    """
    if check not in CHECKS:
        raise ValueError(f"unknown check {check!r}; known: {', '.join(CHECKS)}")
    if max_steps % frameskip:
        raise ValueError(f"max_steps ({max_steps}) must be a multiple of frameskip ({frameskip})")
    env.set_state(tasks.start)
    states = np.repeat(tasks.start[:, None], max_steps + 1, axis=1)
    success, steps = np.zeros(len(tasks), bool), np.full(len(tasks), max_steps)
    active = np.arange(len(tasks))
    agent.reset(observe(env, tasks.goal, device), max_steps // frameskip)
    for step in range(max_steps):
        if step % frameskip == 0:
            actions = agent.act(partial(observe, env, env.state[active], device), active)
            running = active
        env.step(actions[np.isin(running, active), step % frameskip], active)
        states[active, step + 1 :] = env.state[active, None]
        if check == "every_step" or (check == "every_round" and (step + 1) % round_steps == 0) or step + 1 == max_steps:
            reached = active[is_success(env.state[active], tasks.goal[active])]
            success[reached], steps[reached] = True, step + 1
            active = np.setdiff1d(active, reached)
        if (step + 1) % frameskip == 0 or not len(active):
            on_block(step // frameskip, active)
        if not len(active):
            break
    distance = np.linalg.norm(states[:, -1, :2] - tasks.goal[:, :2], axis=-1)
    return Outcome(states, success, steps, distance, float(np.mean(agent.plan_seconds or [0.0])))


def observe(env: PointMazes, state: Float[ndarray, "B 4"], device: torch.device) -> Obs:
    """Observations (B 1 ...) of any states."""
    return Obs(
        visual=torch.from_numpy(env.frames(state))[:, None].to(device),
        proprio=torch.from_numpy(state).float()[:, None].to(device),
    )
