"""The loop between agent and environment, over all tasks at once."""

import math
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

    def reset(self, goal: Obs, blocks: int | float) -> None: ...
    def act(self, look: Look, active: ndarray) -> ndarray: ...


@dataclass(frozen=True)
class Outcome:
    """What happened in n episodes of T env steps, the longest of them."""

    states: Float[ndarray, "n steps 4"]  # from the start on; after success the ball rolls on or its last state is repeated
    success: Bool[ndarray, " n"]
    steps: Int[ndarray, " n"]  # env steps taken, until success or the budget's end
    final_distance: Float[ndarray, " n"]  # to the goal in the last of the states [m]
    seconds_per_plan: float  # of one task, batched with the others; 0 for agents that do not plan


def run_episodes(
    agent: Actor,
    env: PointMazes,
    tasks: Tasks,
    *,
    max_steps: int | None,
    frameskip: int,
    check: str,
    round_steps: int,
    coast: bool,
    device: torch.device,
    on_block: Callable[[int, ndarray], None] = lambda block, active: None,
) -> Outcome:
    """Run every task to its success or to max_steps (None: until every task is solved).

    Args:
        check: when a ball within the success radius counts: after every_step, at the end of every_round of round_steps, or
            at the last_step only. Once solved, a task stays solved.
        coast: a solved task goes on under zero actions until the others are done too, as in the original; else it ends.
        on_block: called after each block of actions with its number and the tasks that still run.

    Raises:
        ValueError: an unknown check, or budgets that do not divide.
    """
    if check not in CHECKS:
        raise ValueError(f"unknown check {check!r}; known: {', '.join(CHECKS)}")
    if max_steps is None and check == "last_step":
        raise ValueError("without a limit there is no last_step to check; set protocol.max_rounds or max_steps")
    if max_steps is not None and max_steps % frameskip:
        raise ValueError(f"max_steps ({max_steps}) must be a multiple of frameskip ({frameskip})")
    env.set_state(tasks.start)
    states = [env.state.copy()]
    success, steps = np.zeros(len(tasks), bool), np.zeros(len(tasks), int)
    active = np.arange(len(tasks))
    agent.reset(observe(env, tasks.goal, device, was_set=True), math.inf if max_steps is None else max_steps // frameskip)
    while len(active):
        step = len(states)  # the one to be taken, counted from 1
        if (step - 1) % frameskip == 0:
            block = np.zeros((len(tasks), frameskip, env.action_dim))
            look = partial(observe, env, env.state[active], device, was_set=step == 1)
            block[active] = agent.act(look, active)
        moving = np.arange(len(tasks)) if coast else active
        action = np.where(success[:, None], 0.0, block[:, (step - 1) % frameskip])
        env.step(action[moving], moving)
        states.append(env.state.copy())
        steps[active] = step
        if check == "every_step" or (check == "every_round" and step % round_steps == 0) or step == max_steps:
            success[active] = is_success(env.state[active], tasks.goal[active])
            active = active[~success[active]]
        if step % frameskip == 0 or not len(active):
            on_block((step - 1) // frameskip, active)
        if step == max_steps:
            break
    distance = np.linalg.norm(states[-1][:, :2] - tasks.goal[:, :2], axis=-1)
    return Outcome(np.stack(states, 1), success, steps, distance, float(np.mean(agent.plan_seconds or [0.0])))


def observe(env: PointMazes, state: Float[ndarray, "B 4"], device: torch.device, was_set: bool) -> Obs:
    """Observations (B 1 ...) of any states, which were set or stepped to."""
    return Obs(
        visual=torch.from_numpy(env.frames(state, was_set))[:, None].to(device),
        proprio=torch.from_numpy(state).float()[:, None].to(device),
    )
