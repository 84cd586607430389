"""The contract of whoever acts: an agent that plans, or a floor that does not."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from wmbench.shapes import Obs

Look = Callable[[], Obs]  # observations (B 1 ...) of the tasks that still run
Read = Callable[[Float[Tensor, "*B N D"]], Float[ndarray, "*B 2"] | None]  # positions (x, y) [m] in latents, if it can


class Decision(NamedTuple):
    """What one replanning took, of all its tasks together.

    decision_seconds: looking and encoding since the last decision, and the plan itself.
    plan_seconds: only the plan.
    is_first: the agent's first, which also measures memory, compiles and warms up.
    """

    decision_seconds: float
    plan_seconds: float
    num_tasks: int
    is_first: bool


@runtime_checkable
class Actor(Protocol):
    """Who acts in all tasks at once, and what it can tell of itself.

    decisions: what each plan took, of actors that plan.
    watch: says how positions are read in latents, and of how many tasks, the first ones, latents are kept.
    thoughts: of actors that plan, the positions of the newest plan where they can be read, and of the kept tasks the latents
        that it expects at the end of the running block.
    """

    @property
    def decisions(self) -> Sequence[Decision]: ...
    @property
    def evaluations_per_plan(self) -> float: ...
    def watch(self, read: Read | None, num_kept: int) -> None: ...
    def thoughts(self) -> tuple[Float[ndarray, "B H 2"] | None, Float[Tensor, "K N D"]] | None: ...
    def forecast(self, example: Obs, num_tasks: int, blocks: int) -> float: ...
    def reset(self, goal: Obs, blocks: int | float, number: Int[ndarray, " B"] | None = None) -> None: ...
    def act(self, look: Look, active: ndarray) -> ndarray: ...
