"""Budgets: iterations, evaluations or seconds."""

from collections.abc import Callable

import pytest

from wmbench.planning.budget import Budget


def run(budget: Budget, num_tasks: int = 3, on_iteration: Callable[[int], None] = lambda iteration: None) -> list[int]:
    done = []
    for iteration in budget.iterations(num_tasks):
        done.append(iteration)
        on_iteration(iteration)
    return done


def falling(iteration: int) -> int:
    return 8 // 2**iteration + 1  # 9, 5, 3, 2, 1, 1, ...


@pytest.mark.parametrize(
    ("limit", "expected"), [(None, [0, 1, 2, 3]), (1, [0]), (9, [0]), (13, [0]), (14, [0, 1]), (21, [0, 1, 2, 3, 4, 5])]
)
def test_iterations_run_as_long_as_the_next_one_fits(limit: int | None, expected: list[int]):
    budget = Budget(limit, num_iters=4, evaluations=falling)
    assert run(budget) == expected
    assert budget.num_evaluations == budget.evaluations_per_plan == sum(map(falling, expected))


@pytest.mark.parametrize(
    ("limit", "seconds", "expected"), [("6s", 2, 9), ("6.5s", 2, 9), ("0.5s", 2, 1), ("6s", 4, 4), ("7s", 4, 5)]
)
def test_seconds_are_those_of_every_task_and_an_iteration_that_would_be_late_does_not_begin(
    limit: str, seconds: int, expected: int, monkeypatch: pytest.MonkeyPatch
):
    now = [100.0]
    monkeypatch.setattr("wmbench.planning.budget.time.perf_counter", lambda: now[0])

    def wait(iteration: int) -> None:
        now[0] += seconds

    budget = Budget(limit, num_iters=1, evaluations=falling)
    assert len(run(budget, num_tasks=3, on_iteration=wait)) == expected
    assert budget.evaluations_per_plan == sum(map(falling, range(expected)))


def test_evaluations_per_plan_are_the_mean_over_tasks(monkeypatch: pytest.MonkeyPatch):
    """Four iterations in the four seconds of one task, two in the twelve of three."""
    now = [0.0]
    monkeypatch.setattr("wmbench.planning.budget.time.perf_counter", lambda: now[0])
    budget = Budget("4s", num_iters=1, evaluations=lambda iteration: 10)
    for num_tasks, seconds in ((1, 1), (3, 6)):

        def wait(iteration: int, seconds: int = seconds) -> None:
            now[0] += seconds

        run(budget, num_tasks, wait)
    assert budget.evaluations_per_plan == (1 * 40 + 3 * 20) / 4


@pytest.mark.parametrize("limit", [0, -3, 2.5, True, "2", "0s", "-1s", "2 s", "1min", "s"])
def test_a_limit_of_another_form_is_refused(limit: object):
    with pytest.raises(ValueError, match=rf"planner.budget \({limit!r}\) must be null, a positive number"):
        Budget(limit, 4, falling)  # pyright: ignore[reportArgumentType]


def test_no_iterations_are_refused():
    with pytest.raises(ValueError, match=r"num_iters \(0\) must be positive"):
        Budget(None, 0, falling)
