"""The parts of diagnostics.json: what each asks of a run, and how many frames and rollout steps that takes."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from wmbench.diagnostics.estimate import Values, mean, ratio
from wmbench.diagnostics.linear_probes import linear_probes
from wmbench.diagnostics.looks import SCALES, found_at_scales
from wmbench.diagnostics.objectives import of_positions
from wmbench.diagnostics.open_loop import open_loop, open_loop_errors
from wmbench.diagnostics.probe import NUM_FEATURES, folded
from wmbench.diagnostics.ranking import regret, spearman
from wmbench.diagnostics.search import Recorded
from wmbench.diagnostics.simulated import reached, simulate
from wmbench.diagnostics.straightness import straightness
from wmbench.diagnostics.subject import Subject
from wmbench.diagnostics.two_by_two import two_by_two
from wmbench.diagnostics.untouched import touched, untouched_share
from wmbench.models.effective_rank import effective_rank
from wmbench.planning.rollout_cost import Distance

GROUP = 12  # plans of a kind whose order is asked for
MOST_ITERATIONS = 10


def measure_open_loop(subject: Subject) -> Values:
    model, ahead = subject.model, subject.steps_ahead
    return open_loop(open_loop_errors(model, subject.encoded, model.num_hist, ahead, subject.device))


def measure_probes(subject: Subject) -> Values:
    model, ahead = subject.model, subject.steps_ahead
    return linear_probes(model, subject.encoded, subject.env.single[0], model.num_hist, ahead, subject.device)


def measure_landscape(subject: Subject) -> Values:
    """Spearman of latent with geodesic distance, and local minima of the cost away from the goal, over the tasks' goals."""
    positions, is_free = subject.places
    here, goals = positions[is_free], subject.tasks.goal[:, :2]
    ways = np.stack([subject.env.maze.geodesic(here, np.broadcast_to(goal, here.shape)) for goal in goals])
    orders = spearman(subject.costs[:, is_free], ways)
    minima = subject.minima.sum((1, 2)).astype(np.float64)
    return mean(orders).named("spearman_geodesic") | mean(minima).named("local_minima")


def measure_geometry(subject: Subject) -> Values:
    """Effective rank, straightness, and the share of the squared distance from tokens without the ball."""
    z = subject.model.split(subject.encoded.z)[0].flatten(2)
    visual, goals = (subject.model.split(some)[0] for some in (subject.landscape, subject.goals))
    positions, is_free = subject.places
    physics, grid = subject.env.single[1], subject.model.encoder.grid
    on_ball, on_goal = touched(physics, grid, positions[is_free]), touched(physics, grid, subject.tasks.goal[:, :2])
    shares = [untouched_share(visual, goal, on_ball, on) for goal, on in zip(goals, on_goal, strict=True)]
    return {
        "effective_rank": effective_rank(folded(z, NUM_FEATURES).flatten(0, 1).double().numpy()),
        **mean(straightness(z)).named("straightness"),
        **mean(np.array(shares)).named("untouched_share"),
    }


def measure_ranking(subject: Subject) -> Values:
    """Whether imagined costs order plans as real costs and true distances do, and what the imagined best of them loses."""
    plans, imagined = candidates(subject.searched)
    states = simulate(subject.env.single[1], subject.model, subject.tasks.start, plans)
    real = subject.simulated_cost(subject.distance).of(states).double().numpy()
    away = ways_left(subject, states)
    values: Values = {}
    kinds = {"random": slice(0, GROUP), "middle": slice(GROUP, -GROUP), "elite": slice(-GROUP, None), "all": slice(None)}
    for kind, some in kinds.items():
        values |= mean(spearman(imagined[:, some], real[:, some])).named(f"spearman_cost_{kind}")
        values |= mean(spearman(imagined[:, some], away[:, some])).named(f"spearman_distance_{kind}")
    return values | mean(regret(imagined, away)).named("regret_m")


def measure_iterations(subject: Subject) -> Values:
    """Imagined cost, real cost and true distance of the best plan so far, by iteration; the optimism is their last ratio."""
    plans, imagined = subject.searched.best_so_far()
    shown = np.unique(np.linspace(0, plans.shape[1] - 1, MOST_ITERATIONS).round().astype(int))
    states = simulate(subject.env.single[1], subject.model, subject.tasks.start, plans[:, shown])
    real = subject.simulated_cost(subject.distance).of(states).double().numpy()
    away, expected = ways_left(subject, states), imagined[:, shown].double().numpy()
    values: Values = {}
    for k, iteration in enumerate(shown):
        for name, column in (("imagined_cost", expected), ("real_cost", real), ("distance_m", away)):
            values |= mean(column[:, k]).named(f"{name}_{iteration + 1}")
    return values | ratio(real[:, -1], expected[:, -1]).named("optimism")


def measure_two_by_two(subject: Subject) -> Values:
    """The 2 x 2 and its ceiling: true dynamics and the length of the way, under the same planner and budget."""
    tasks, goal = subject.tasks, subject.tasks.goal

    def true_distance(plans: Float[Tensor, "B S H A"]) -> Float[Tensor, "B S"]:
        states = simulate(subject.env.single[1], subject.model, tasks.start, plans)
        return torch.from_numpy(ways_left(subject, states)).to(plans)

    distances: dict[str, Distance] = {"latent": subject.distance, "probe": of_positions(subject.reader)}
    costs = {f"true_{name}": subject.simulated_cost(distance) for name, distance in distances.items()}
    costs |= {f"learned_{name}": subject.imagined_cost(distance) for name, distance in distances.items()}
    values, solved, held = {}, {}, {}
    for cell, cost in (costs | {"ceiling": true_distance}).items():
        plans = subject.plan(subject.cell, cost)
        states = simulate(subject.env.single[1], subject.model, tasks.start, plans[:, None])
        solved[cell], held[cell] = reached(states[:, 0], goal)
        values |= mean(ways_left(subject, states)[:, 0]).named(f"distance_m_{cell}")
    at_end = {name.replace("success", "held"): value for name, value in two_by_two(held).items() if "success" in name}
    return two_by_two(solved) | at_end | values


def candidates(searched: Recorded) -> tuple[Float[Tensor, "B S H A"], Float[ndarray, "B S"]]:
    """Random, middle and elite plans of each task, GROUP of each at most, and their imagined costs."""
    plans, costs = searched.plans, searched.costs
    count = min(GROUP, plans[-1].shape[1])
    middle, elite = len(plans) // 2, costs[-1].topk(count, largest=False).indices
    tasks = torch.arange(len(elite))[:, None]
    kinds = [(plans[0][:, :GROUP], costs[0][:, :GROUP]), (plans[middle][:, :GROUP], costs[middle][:, :GROUP])]
    kinds.append((plans[-1][tasks, elite], costs[-1][tasks, elite]))
    chosen, imagined = (torch.cat(parts, 1) for parts in zip(*kinds, strict=True))
    return chosen, imagined.double().numpy()


def ways_left(subject: Subject, states: Float[ndarray, "B S steps 4"]) -> Float[ndarray, "B S"]:
    """Length [m] of the way from where each plan ends to its task's goal."""
    ends = states[:, :, -1, :2]
    goal = np.broadcast_to(subject.tasks.goal[:, None, :2], ends.shape)
    return subject.env.maze.geodesic(ends.reshape(-1, 2), goal.reshape(-1, 2)).reshape(ends.shape[:2])


@dataclass(frozen=True)
class Part:
    """One part: how it is measured, and what it takes.

    shared: inputs of a subject that it looks at.
    frames, steps: drawn and encoded frames, and steps of rollouts, beyond those of its inputs.
    asks: settings that decide its numbers, in addition to the run, its data and the code.
    """

    measure: Callable[[Subject], Values]
    shared: tuple[str, ...]
    asks: tuple[str, ...]
    frames: Callable[[Subject], int] = lambda subject: 0
    steps: Callable[[Subject], int] = lambda subject: 0


EPISODES, TASKS = ("num_episodes", "horizon"), ("tasks", "objective")
SEARCH = (*TASKS, "planner", "horizon", "seed")
PARTS = {
    "open_loop": Part(measure_open_loop, ("encoded",), EPISODES),
    "probes": Part(measure_probes, ("encoded",), EPISODES),
    "landscape": Part(measure_landscape, ("landscape", "goals"), (*TASKS, "spacing")),
    "geometry": Part(measure_geometry, ("encoded", "landscape", "goals"), (*EPISODES, *TASKS, "spacing")),
    "ranking": Part(measure_ranking, ("starts", "goals", "searched"), SEARCH, frames=lambda s: len(s.tasks) * 3 * GROUP),
    "iterations": Part(
        measure_iterations, ("starts", "goals", "searched"), SEARCH, frames=lambda s: len(s.tasks) * MOST_ITERATIONS
    ),
    "two_by_two": Part(
        measure_two_by_two,
        ("starts", "goals"),
        (*SEARCH, "evaluations"),
        frames=lambda s: 2 * len(s.tasks) * s.cell.num_evaluations,
        steps=lambda s: 2 * len(s.tasks) * s.cell.num_evaluations * s.horizon,
    ),
    "looks": Part(found_at_scales, (), ("tasks",), frames=lambda s: 2 * len(SCALES) * len(s.tasks)),
}


def work(subject: Subject, parts: list[str]) -> tuple[int, int]:
    """Frames to encode and steps of rollouts that the parts take, what they share counted once."""
    shared = set(chain.from_iterable(PARTS[name].shared for name in parts))
    tasks = len(subject.tasks)
    each = {
        "encoded": len(np.unique(subject.windows.episode)) * subject.windows.num_frames,
        "landscape": int(subject.places[1].sum()),
        "goals": tasks,
        "starts": tasks,
    }
    frames = sum(each.get(name, 0) for name in shared) + sum(PARTS[name].frames(subject) for name in parts)
    search = tasks * subject.search.num_evaluations * subject.horizon if "searched" in shared else 0
    return frames, search + sum(PARTS[name].steps(subject) for name in parts)
