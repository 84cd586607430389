"""Whom the diagnostics ask, and what several of them look at, computed when it is first needed."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from wmbench.data.windows import Windows
from wmbench.diagnostics.landscape import grid_of, local_minima
from wmbench.diagnostics.latents import Encoded, OnFrames, encode_episodes, encode_states
from wmbench.diagnostics.objectives import at_end
from wmbench.diagnostics.probe import NUM_FEATURES, Probe, fit_ridge, folded
from wmbench.diagnostics.search import Recorded, plan_tasks
from wmbench.diagnostics.simulated import SimulatedCost
from wmbench.envs.vector import PointMazes
from wmbench.evaluation.tasks import Tasks
from wmbench.models.world_model import WorldModel
from wmbench.planning.planner import Cost, Planner
from wmbench.planning.rollout_cost import Distance, RolloutCost, block_dim


@dataclass
class Subject:
    """A trained model with its validation episodes and tasks.

    Args:
        objective: the run's own distance, between the end of a plan and a goal.
        search, cell: planners, which take no gradients, of imagined plans and of the 2 x 2.
        probe: the run's own; None fits one to the episodes.
        windows: of each episode the first one is looked at.
        horizon: blocks of a plan.
        spacing: of the landscape's grid [m].
        memory_gb: that rollouts may take.
    """

    model: WorldModel
    env: PointMazes
    objective: Distance
    search: Planner
    cell: Planner
    probe: Probe | None
    windows: Windows
    tasks: Tasks
    horizon: int
    spacing: float
    seed: int
    memory_gb: float
    device: torch.device
    on_frames: OnFrames = field(default=lambda count: None)

    def __post_init__(self) -> None:
        if self.search.needs_gradients:
            raise ValueError(f"{type(self.search).__name__} differentiates its costs; take another, such as planner=icem")
        self.distance = at_end(self.objective)

    @property
    def steps_ahead(self) -> int:
        """Steps of a rollout that the episodes can be compared with."""
        return min(self.horizon, self.windows.num_frames - self.model.num_hist)

    @cached_property
    def encoded(self) -> Encoded:
        return encode_episodes(self.model, self.windows, self.device, self.on_frames)

    @cached_property
    def starts(self) -> Float[Tensor, "B N D"]:
        return self.at_rest(self.tasks.start)

    @cached_property
    def goals(self) -> Float[Tensor, "B N D"]:
        return self.at_rest(self.tasks.goal)

    @cached_property
    def places(self) -> tuple[Float[ndarray, "R C 2"], Bool[ndarray, "R C"]]:
        return grid_of(self.env.single[0], self.spacing)

    @cached_property
    def landscape(self) -> Float[Tensor, "P N D"]:
        """Latents of the ball at rest at every place that is free."""
        positions, is_free = self.places
        here = positions[is_free]
        return self.at_rest(np.concatenate([here, np.zeros_like(here)], 1))

    @cached_property
    def costs(self) -> Float[ndarray, "B R C"]:
        """Cost of being at each place, for each task's goal; inf where the ball cannot be."""
        is_free, z = self.places[1], self.landscape[None, :, None].to(self.device)
        costs = np.full((len(self.tasks), *is_free.shape), np.inf)
        for cost, goal in zip(costs, self.goals.to(self.device), strict=True):
            cost[is_free] = self.distance(self.model, goal[None], z, goal[None])[0].double().cpu().numpy()
        return costs

    @cached_property
    def minima(self) -> Bool[ndarray, "B R C"]:
        """Local minima of the costs, away from the goals."""
        goals = self.tasks.goal[:, :2]
        return np.stack([local_minima(cost, self.places[0], goal) for cost, goal in zip(self.costs, goals, strict=True)])

    @cached_property
    def searched(self) -> Recorded:
        """All plans that the planner looks at on its way to one for each task, with their imagined costs."""
        recorded = Recorded(self.imagined_cost(self.distance))
        self.plan(self.search, recorded)
        return recorded

    @cached_property
    def reader(self) -> Probe:
        """The run's own probe of the ball's position, or one fitted to the validation episodes."""
        if self.probe is not None:
            return self.probe
        z = folded(self.encoded.z.flatten(2), NUM_FEATURES).flatten(0, 1).double().numpy()
        episode = np.repeat(np.arange(len(self.encoded.z)), self.encoded.z.shape[1])
        weight, bias = fit_ridge(z, self.encoded.state[..., :2].reshape(-1, 2).astype(np.float64), episode)
        return Probe(torch.from_numpy(weight).float(), torch.from_numpy(bias).float(), r2=float("nan"))

    def imagined_cost(self, distance: Distance) -> Cost:
        """Cost of plans for all tasks by what the model foresees."""
        start, goal = self.starts[:, None].to(self.device), self.goals.to(self.device)
        past = start.new_zeros(len(start), 0, block_dim(self.model))
        costs = RolloutCost(
            self.model, distance, num_context=1, horizon=self.horizon, memory_gb=self.memory_gb, has_gradients=False
        )
        return costs.of(start, past, goal)

    def simulated_cost(self, distance: Distance) -> SimulatedCost:
        """Cost of plans for all tasks by what happens."""
        return SimulatedCost(self.model, self.env, distance, self.tasks.start, self.goals, self.device, self.on_frames)

    def plan(self, planner: Planner, cost: Cost) -> Float[Tensor, "B H A"]:
        return plan_tasks(self.model, planner, cost, len(self.tasks), self.horizon, self.seed, self.device)

    def at_rest(self, states: Float[ndarray, "n 4"], episode: Int[ndarray, " n"] | None = None) -> Float[Tensor, "n N D"]:
        """Latents of states that were not stepped to, drawn and encoded, with these episodes' looks."""
        return encode_states(
            self.model, self.env, states[:, None], self.device, was_set=True, on_frames=self.on_frames, episode=episode
        )
