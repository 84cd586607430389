"""The loop between agent and environment, over all tasks at once."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from wmbench.envs.physics import is_success
from wmbench.envs.vector import PointMazes
from wmbench.evaluation.tasks import Tasks
from wmbench.planning.actor import Actor, Decision
from wmbench.processes.group import mine, num_processes
from wmbench.processes.meeting import gathered, woven
from wmbench.shapes import Obs

CHECKS = ("every_step", "every_round", "last_step")


@dataclass(frozen=True)
class Rules:
    """When an episode ends, and what counts as success.

    Args:
        frameskip: env steps of a block of actions.
        max_steps: env steps of an episode; None: until every task is solved.
        round_steps: env steps of a round of MPC.
        check: when a ball within the success radius counts: after every_step, at the end of every_round, or at the last_step
            only. Once solved, a task stays solved.
        coast: a solved task goes on under zero actions until the others are done too, as in the original; else it ends.
        play_on: the agent goes on acting in a solved task, to the budget's end, so that its whole path can be scored.
        short_steps: env steps of a smaller budget, which is scored from the same paths.

    Raises:
        ValueError: an unknown check, budgets that do not divide, or settings that contradict one another.
    """

    frameskip: int
    max_steps: int | None
    round_steps: int
    check: str
    coast: bool
    play_on: bool = False
    short_steps: int | None = None

    def __post_init__(self) -> None:
        if self.check not in CHECKS:
            raise ValueError(f"unknown check {self.check!r}; known: {', '.join(CHECKS)} (protocol.check)")
        if self.play_on and (self.max_steps is None or self.coast or self.check != "every_step"):
            raise ValueError(
                "protocol.play_on acts to the end of a budget and scores the whole path: it needs protocol.max_steps, "
                "check=every_step and coast=false"
            )
        if self.short_steps is not None and not 1 <= self.short_steps <= (self.max_steps or self.short_steps):
            raise ValueError(f"protocol.short_steps ({self.short_steps}) must be from 1 to max_steps ({self.max_steps})")
        if self.max_steps is None:
            if self.check == "last_step":
                raise ValueError("without a limit there is no last_step to check; set protocol.max_rounds or max_steps")
        elif self.max_steps < self.frameskip:
            raise ValueError(
                f"protocol.max_steps ({self.max_steps}) must be at least one block of {self.frameskip} env steps"
            )
        elif self.max_steps % self.frameskip:
            near = self.max_steps // self.frameskip * self.frameskip
            raise ValueError(
                f"protocol.max_steps ({self.max_steps}) must be a multiple of frameskip ({self.frameskip}), such as {near}"
            )

    @property
    def blocks(self) -> int | float:
        return math.inf if self.max_steps is None else self.max_steps // self.frameskip


@dataclass(frozen=True)
class Outcome:
    """What happened in n episodes of T env steps, the longest of them."""

    # From the start on; after success the ball is played on with or rolls on, or its last state is repeated.
    states: Float[ndarray, "n steps 4"]
    success: Bool[ndarray, " n"]
    steps: Int[ndarray, " n"]  # env steps taken, until success or the budget's end
    final_distance: Float[ndarray, " n"]  # to the goal in the last of the states [m]
    seconds_per_plan: float  # of one task, batched with the others; 0 for agents that do not plan
    seconds_per_decision: float = 0.0  # likewise: looking and encoding too


def run_episodes(
    agent: Actor,
    env: PointMazes,
    tasks: Tasks,
    rules: Rules,
    device: torch.device,
    on_block: Callable[[int, ndarray], None] = lambda block, active: None,
) -> Outcome:
    """Run every task to its success or to the end of its episode; of several processes each runs its share of them.

    Args:
        on_block: called after each block of actions with its number and the tasks that are not solved yet.
    """
    number = np.arange(len(tasks))[mine()]  # of each task among all
    start, ends = tasks.start[number], tasks.goal[number]
    env.set_state(start)
    states = [env.state.copy()]
    success, steps = np.zeros(len(number), bool), np.zeros(len(number), int)
    active, block = np.arange(len(number)), np.empty(0)
    agent.reset(observe(env, ends, device, was_set=True, episode=number, is_goal=True), rules.blocks, number)
    while len(active):
        step = len(states)  # the one to be taken, counted from 1
        if (step - 1) % rules.frameskip == 0:
            block = np.zeros((len(number), rules.frameskip, env.action_dim))
            look = partial(observe, env, env.state[active], device, was_set=step == 1, episode=number[active], step=step - 1)
            block[active] = agent.act(look, active)
            if not np.isfinite(block).all():
                raise ValueError(f"the actions of env step {step} are NaN or Inf; the model that gives them is not sound")
        moving = np.arange(len(number)) if rules.coast else active
        is_over = success & (not rules.play_on)
        action = np.where(is_over[:, None], 0.0, block[:, (step - 1) % rules.frameskip])
        env.step(action[moving], moving)
        states.append(env.state.copy())
        steps[~success] = step
        is_end, is_round = step == rules.max_steps, step % rules.round_steps == 0
        if is_end or rules.check == "every_step" or (rules.check == "every_round" and is_round):
            success[active] |= is_success(env.state[active], ends[active])
            active = active if rules.play_on else active[~success[active]]
        if step % rules.frameskip == 0 or not len(active):
            on_block((step - 1) // rules.frameskip, np.flatnonzero(~success))
        if is_end:
            break
    for _ in range(max(gathered(len(states))) - len(states)):  # other processes' tasks go on
        if rules.coast:
            env.step(np.zeros((len(number), env.action_dim)))
        states.append(env.state.copy())
    distance = np.linalg.norm(states[-1][:, :2] - ends[:, :2], axis=-1)
    return of_all(Outcome(np.stack(states, 1), success, steps, distance, *seconds_of(agent.decisions)))


def of_all(own: Outcome) -> Outcome:
    """The outcome of all tasks, of which each process has its share; seconds are those of a mean process."""
    kept = {field.name: getattr(own, field.name) for field in fields(own)}
    seconds = {n: sum(gathered(value)) / num_processes() for n, value in kept.items() if n.startswith("seconds")}
    return replace(own, **{n: woven(value) for n, value in kept.items() if n not in seconds}, **seconds)


def seconds_of(decisions: Sequence[Decision]) -> tuple[float, float]:
    """Seconds that the plan and the whole decision of one task took, on average over all tasks of all plans.

    The first plan also compiles and warms up; it counts only where there is no other.
    """
    counted = [decision for decision in decisions if not decision.is_first] or decisions
    number = max(1, sum(decision.num_tasks for decision in counted))
    plans, all_of_it = (sum(d.plan_seconds for d in counted), sum(d.decision_seconds for d in counted))
    return plans / number, all_of_it / number


def observe(env: PointMazes, state: Float[ndarray, "B 4"], device: torch.device, was_set: bool, **look: Any) -> Obs:
    """Observations (B 1 ...) of any states, which were set or stepped to.

    Args:
        look: episode, step and is_goal, as PointMazes.frames takes them.
    """
    return Obs(
        visual=torch.from_numpy(env.frames(state, was_set, **look))[:, None].to(device),
        proprio=torch.from_numpy(state).float()[:, None].to(device),
    )
