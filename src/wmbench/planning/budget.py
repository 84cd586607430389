"""How long a planner goes on: its own iterations, a number of model evaluations, or seconds."""

import re
import time
from collections.abc import Callable, Iterator
from itertools import accumulate, count, takewhile

import torch

Limit = int | float | str | None  # of Budget


class Budget:
    """The iterations of one planner, and what they came to.

    Args:
        limit: None gives the planner its num_iters; a whole number, such as 3000, is the evaluations of one task's plan;
            text, such as "2s", its seconds. Tasks that are planned together share theirs. A first iteration always runs.
        evaluations: of an iteration, given its number: plans scored for each task.

    Raises:
        ValueError: no iterations, or a limit of another form.
    """

    def __init__(self, limit: Limit, num_iters: int, evaluations: Callable[[int], int]):
        if num_iters < 1:
            raise ValueError(f"planner.num_iters ({num_iters}) must be positive")
        seconds = re.fullmatch(r"(\d+\.?\d*)s", str(limit))
        self.seconds = float(seconds[1]) if seconds else None
        most = limit if isinstance(limit, int) and not isinstance(limit, bool) else None
        if limit is not None and (self.seconds or most or 0) <= 0:
            raise ValueError(
                f"planner.budget ({limit!r}) must be null, a positive number of evaluations for each task's plan, such as "
                f"3000, or its seconds, such as 2s"
            )
        self.num_iters, self._evaluations = num_iters, evaluations
        if most:
            fitting = takewhile(lambda spent: spent <= most, accumulate(map(evaluations, count())))
            self.num_iters = max(1, sum(1 for _ in fitting))
        self._plans, self._spent = 0, 0

    @property
    def num_evaluations(self) -> int:
        """Evaluations that a task's plan takes; under a budget of seconds nobody knows, and it is that of num_iters."""
        return sum(map(self._evaluations, range(self.num_iters)))

    @property
    def evaluations_per_plan(self) -> float:
        """Evaluations that a task's plan took on average, of all plans so far."""
        return self._spent / max(1, self._plans)

    def iterations(self, num_tasks: int) -> Iterator[int]:
        """Numbers of the iterations that a plan of so many tasks may take."""
        began, done, spent = time.perf_counter(), 0, 0
        while done < self.num_iters if self.seconds is None else self._has_time(began, done, num_tasks):
            yield done
            spent += self._evaluations(done)
            done += 1
        self._plans += num_tasks
        self._spent += num_tasks * spent

    def _has_time(self, began: float, done: int, num_tasks: int) -> bool:
        """Whether one more iteration, as long as those before it, ends in time."""
        if not done:
            return True
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()  # what is queued has not been paid for yet
        assert self.seconds is not None
        return (time.perf_counter() - began) * (done + 1) / done <= self.seconds * num_tasks
