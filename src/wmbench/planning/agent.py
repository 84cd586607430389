"""Model-predictive control: look, encode, plan, act."""

import time
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from wmbench.data.normalizer import Normalizer
from wmbench.models.compiled import as_written
from wmbench.planning.actor import Decision, Look, Read
from wmbench.planning.memory import MEASURED
from wmbench.planning.noise import KeyedNoise
from wmbench.planning.objective import Objective
from wmbench.planning.planner import Cost, Planner
from wmbench.planning.rollout_cost import RolloutCost, block_dim
from wmbench.shapes import Obs

ENCODED_AT_ONCE = 64  # frames

if TYPE_CHECKING:

    class Dynamics(Protocol):
        """What an agent needs of a world model; the simulator itself is one too."""

        normalizer: Normalizer
        frameskip: int

        @property
        def lookback(self) -> int: ...  # 1 where a frame's latent also depends on the frame before it
        def encode(self, obs: Obs) -> Tensor: ...
        def split(self, z: Tensor) -> tuple[Tensor, Tensor | None]: ...
        def rollout(self, z: Tensor, past: Tensor, plans: Tensor) -> Tensor: ...

else:
    Dynamics = Any  # isinstance cannot see a torch module's submodules as attributes


class Situation(NamedTuple):
    """What plans are made from: latents of the newest frames, the normalised blocks between them, and the goal's."""

    z: Float[Tensor, "B T N D"]
    past: Float[Tensor, "B T-1 A"]
    goal: Float[Tensor, "B N D"]


class Agent:
    """Plans `horizon` action blocks, executes `num_taken` of them, looks and plans again.

    Args:
        horizon: model steps of a plan. It never reaches beyond the end of the episode.
        num_taken: blocks executed before replanning.
        shrinking: plan towards a fixed deadline `horizon` blocks after the last one, so that replanning looks less and less
            far ahead; a horizon that always slides would keep the goal `horizon` steps away and never arrive.
        num_context: past real frames, with the actions between them, that a plan starts from; fewer at the episode's start.
        clip_actions: keep sampled actions inside the actuator's range; the original's samples leave it.
        memory_gb: that rollouts may take, or half of what is free, if that is less; how many then run at once is measured
            before the first plan, and halved where memory runs out all the same. Costs feel it by their last digits alone.
        seed: of the planner's noise.
    """

    def __init__(
        self,
        model: Dynamics,
        planner: Planner,
        objective: Objective,
        *,
        horizon: int,
        num_taken: int,
        shrinking: bool,
        num_context: int,
        clip_actions: bool,
        memory_gb: int | float,
        seed: int,
    ):
        for name, value in (("horizon", horizon), ("num_context", num_context)):
            if value < 1:
                raise ValueError(f"agent.{name} ({value}) must be positive")
        if not memory_gb > 0:  # nor nan
            raise ValueError(f"agent.memory_gb ({memory_gb}) must be positive")
        if not 1 <= num_taken <= horizon:
            raise ValueError(f"agent.num_taken ({num_taken}) must be between 1 and horizon ({horizon})")
        if seed < 0:
            raise ValueError(f"seed ({seed}) must not be negative")
        self.model, self.planner, self.objective = model, planner, objective
        self.horizon, self.num_taken, self.shrinking, self.num_context = horizon, num_taken, shrinking, num_context
        self.clip_actions, self.memory_gb, self.seed = clip_actions, memory_gb, seed
        self._costs = RolloutCost(
            model,
            objective,
            num_context=num_context,
            horizon=horizon,
            memory_gb=memory_gb,
            has_gradients=planner.needs_gradients,
        )
        self.decisions: list[Decision] = []
        self._read: Read | None = None
        self._num_kept: int | None = None  # all

    @torch.no_grad()
    def forecast(self, example: Obs, num_tasks: int, blocks: int) -> float:
        """Seconds that planning `blocks` model steps for each task takes if none is solved early, from one rollout."""
        self._device = example["visual"].device
        z = self._encode(example).to(self._device)[:, None]
        room, seconds = self._costs.room(z[:, 0]), 0.0
        for at_once in (min(room, MEASURED[1]), min(room, 512)):
            if seconds > 0.2:
                break  # more at once would take long to try, and a rollout hardly less time
            plans = z.new_zeros(1, at_once, self.horizon, block_dim(self.model))
            began = time.perf_counter()
            with as_written():  # compiling, a minute once, says nothing of the rest
                self.model.rollout(z, plans[:, 0, :0], plans).sum().item()
            seconds = time.perf_counter() - began
        plans_made, steps, rest, left = 0, 0, 0, blocks
        while left > 0:
            rest = rest if self.shrinking and rest else min(self.horizon, left)
            steps, plans_made = steps + rest, plans_made + 1
            rest, left = max(0, rest - self.num_taken), left - self.num_taken
        if self.planner.budget.seconds is not None:
            return num_tasks * plans_made * self.planner.budget.seconds
        rollouts = num_tasks * self.planner.num_evaluations * steps
        return seconds * rollouts / (plans.shape[1] * self.horizon)

    @torch.no_grad()
    def reset(self, goal: Obs, blocks: int | float, number: Int[ndarray, " B"] | None = None) -> None:
        """Begin episodes of at most `blocks` model steps (may be math.inf) towards the last frame of goal (B 1 ...).

        Args:
            number: of each task, which its noise is keyed by, where they are some of more; by default its place in goal.
        """
        self._device = goal["visual"].device
        self._goal = self._encode(goal)  # latents of all tasks stay on the CPU; a plan takes those of its tasks
        if self.objective.alpha and self.model.split(self._goal)[1] is None:
            raise ValueError(
                f"objective.alpha ({self.objective.alpha}) weighs proprio, which this model has none of; set it to 0"
            )
        self._num_tasks, self._blocks_left = len(self._goal), blocks
        self._number = np.arange(self._num_tasks) if number is None else number
        self._frames: list[Tensor] = []  # latents (B N D) of the newest frames
        self._past: list[Tensor] = []  # normalised blocks (B A) taken after each of them
        self._last_look: tuple[int, ndarray, Obs] | None = None  # before which block, at which tasks, and what was seen
        self._block = 0  # the one to act next
        self._plan = torch.zeros(
            self._num_tasks, 0, block_dim(self.model), device=self._device
        )  # what is left of it (B H A)
        self._queue = 0  # blocks of it to execute before replanning
        self._num_plans = 0
        self._look_seconds = 0.0  # since the last decision
        # of the newest plan: latents of the first tasks, positions of all
        self.imagined = self._goal[: self._num_kept, None].repeat(1, 0, 1, 1).to(self._device)
        self._positions: Float[ndarray, "B H 2"] | None = None
        self._goal_position = self._read(self._goal) if self._read else None

    @torch.no_grad()
    def act(self, look: Look, active: Int[ndarray, " B"]) -> Float[ndarray, "B frameskip a"]:
        """The next block of actions, in the environment's units, for the tasks numbered `active`.

        `look` is called only when a frame is needed, by a plan made now or within the next num_context - 1 blocks (one more
        for an encoder that looks at pairs of frames).
        """
        began = time.perf_counter()
        if self._queue < min(self.num_context + self.model.lookback, self._blocks_left):
            self._see(look, active)
        looked = time.perf_counter()
        self._look_seconds += looked - began
        if self._queue == 0:
            self._make_plan(active)
            self._note_decision(time.perf_counter() - looked, len(active))
        block, self._plan = self._plan[:, 0], self._plan[:, 1:]
        self._past.append(block.clamp(*self._limits))  # what the actuator executes of it
        self._queue -= 1
        self._block += 1
        self._blocks_left -= 1
        actions = self.model.normalizer.denormalize_action(block[torch.as_tensor(active, device=self._device)])
        return rearrange(actions, "b (f a) -> b f a", f=self.model.frameskip).cpu().numpy()

    def watch(self, read: Read | None, num_kept: int) -> None:
        self._read, self._num_kept = read, num_kept

    def thoughts(self) -> tuple[Float[ndarray, "B H 2"] | None, Float[Tensor, "K N D"]]:
        """The newest plan's positions, and latents that it expects at the end of the block that `act` gave last."""
        return self._positions, self.expected

    @property
    def evaluations_per_plan(self) -> float:
        return self.planner.budget.evaluations_per_plan

    @property
    def expected(self) -> Float[Tensor, "K N D"]:
        return self.imagined[:, self.imagined.shape[1] - self._plan.shape[1] - 1]

    def cost(self, z: Float[Tensor, "B T N D"], past: Float[Tensor, "B T-1 A"], goal: Float[Tensor, "B N D"]) -> Cost:
        """Cost of plans from z."""
        return self._costs.of(z, past, goal)

    def propose(self, here: Situation, guess: Float[Tensor, "B H A"], noise: KeyedNoise) -> Float[Tensor, "B H A"]:
        """The plan for each task."""
        return self.planner(self.cost(*here), guess, noise, self._limits if self.clip_actions else None)

    @property
    def _limits(self) -> tuple[Float[Tensor, " A"], Float[Tensor, " A"]]:
        return limits(self.model, self._device)

    def _encode(self, obs: Obs) -> Float[Tensor, "B N D"]:
        """Latents of the last frames, a few at a time, so that memory does not grow with the number of tasks."""
        chunks = zip(obs["visual"].split(ENCODED_AT_ONCE), obs["proprio"].split(ENCODED_AT_ONCE), strict=True)
        return torch.cat([self.model.encode(Obs(visual=visual, proprio=proprio))[:, -1].cpu() for visual, proprio in chunks])

    def _see(self, look: Look, active: Int[ndarray, " B"]) -> None:
        latent = self._goal.clone()  # tasks that are over keep any latent; nobody reads it
        latent[torch.as_tensor(active)] = self._encode(self._look_back(look(), active))
        self._frames.append(latent)
        self._frames = self._frames[-self.num_context :]
        self._past = self._past[len(self._past) - len(self._frames) + 1 :]

    def _look_back(self, obs: Obs, active: Int[ndarray, " B"]) -> Obs:
        """obs (B 1 ...) behind what was seen one block earlier, if the model asks for it and someone looked then."""
        last, self._last_look = self._last_look, (self._block, active, obs)
        if not self.model.lookback or last is None or last[0] != self._block - 1:
            return obs
        _, tasks, before = last
        rows = torch.as_tensor(np.searchsorted(tasks, active))
        visual = torch.cat([before["visual"][rows], obs["visual"]], dim=1)
        return Obs(visual=visual, proprio=torch.cat([before["proprio"][rows], obs["proprio"]], dim=1))

    def _make_plan(self, active: Int[ndarray, " B"]) -> None:
        rest = self._plan.shape[1]
        horizon = rest if self.shrinking and rest else int(min(self.horizon, self._blocks_left))
        nothing = torch.zeros(self._num_tasks, horizon, block_dim(self.model), device=self._device)
        zero = self.model.normalizer.normalize_action(nothing)
        mean = zero.clone()
        z = torch.stack(self._frames, 1)
        past = torch.stack(self._past, 1) if self._past else mean[:, :0]
        room = self._costs.room(z[:1, -1].to(self._device))
        chunk = max(1, room // self.planner.num_samples)
        self.imagined = self._goal[: self._num_kept, None].repeat(1, horizon, 1, 1).to(self._device)
        if self._goal_position is not None:
            self._positions = self._goal_position[:, None].repeat(horizon, 1)
        for first in range(0, len(active), chunk):
            tasks = active[first : first + chunk]
            here, which = torch.as_tensor(tasks), torch.as_tensor(tasks, device=self._device)
            seen, goal = z[here].to(self._device), self._goal[here].to(self._device)
            noise = KeyedNoise(self.seed, self._number[tasks], self._num_plans, is_ahead=self._device.type != "cpu")
            guess = self.planner.first_guess(zero[which], noise)
            guess[:, :rest] = self._plan[which, :horizon]  # warm start from the unexecuted tail
            mean[which] = self.propose(Situation(seen, past[which], goal), guess, noise)
            imagined = self.model.rollout(seen, past[which], mean[which][:, None])[:, 0]
            kept = torch.from_numpy(np.flatnonzero(tasks < len(self.imagined)))
            self.imagined[which[kept]] = imagined[kept]
            if self._read and self._positions is not None:
                self._positions[tasks] = self._read(imagined)
        self._costs.check()
        self._plan = mean
        self._queue = min(self.num_taken, horizon)
        self._num_plans += 1

    def _note_decision(self, plan_seconds: float, num_tasks: int) -> None:
        self.decisions.append(Decision(self._look_seconds + plan_seconds, plan_seconds, num_tasks, not self.decisions))
        self._look_seconds = 0.0


def limits(model: Dynamics, device: torch.device) -> tuple[Float[Tensor, " A"], Float[Tensor, " A"]]:
    """The actuator's range, in a model's normalised units."""
    blocks = torch.ones(block_dim(model), device=device)
    return model.normalizer.normalize_action(-blocks), model.normalizer.normalize_action(blocks)
