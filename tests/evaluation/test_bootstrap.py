"""The crossed bootstrap against closed forms, and its coverage of a known truth in simulated studies."""

from math import sqrt

import numpy as np
import pytest
from scipy.stats import beta, binom, norm, t

from wmbench.evaluation.bootstrap import crossed_bootstrap, welch_freedom
from wmbench.evaluation.statistics import welch

DIFFICULTY = np.array([0.8, 0.3, -0.3, -0.8])  # of the four strata, in probits
TASK_SD, INTERACTION_SD = 0.7, 0.5  # in probits: of a task for both rows, and of a task for one of them


def study(rng, num_seeds: int, num_tasks: int, seed_sd: float, ability: float) -> tuple[list[np.ndarray], float]:
    """Outcomes of two rows, the better one first, and their true difference over all training runs and tasks.

    A probit model: its mean over normal effects is known in closed form.
    """
    strata = np.arange(num_tasks) % 4
    task = DIFFICULTY[strata] + rng.normal(0, TASK_SD, num_tasks)
    sides, truths = [], []
    spread = sqrt(1 + TASK_SD**2 + INTERACTION_SD**2)
    for mean in (ability, 0.0):
        probit_sd = seed_sd * spread / norm.pdf((mean + DIFFICULTY) / spread).mean()  # by the slope of success
        probits = mean + task + rng.normal(0, INTERACTION_SD, num_tasks) + rng.normal(0, probit_sd, (num_seeds, 1))
        sides.append((rng.random(probits.shape) < norm.cdf(probits)).astype(float))
        truths.append(norm.cdf((mean + DIFFICULTY) / sqrt(spread**2 + probit_sd**2)).mean())
    return sides, float(truths[0] - truths[1])


def coverage(
    num_seeds: int, num_tasks: int, seed_sd: float, ability: float, studies: int, replicates: int = 1000
) -> tuple[float, float]:
    """Shares of simulated studies whose 95 % interval holds the true difference: the bootstrap's, and Welch's t interval."""
    rng, strata, covered = np.random.default_rng(7), np.arange(num_tasks) % 4, np.zeros(2)
    for _ in range(studies):
        (a, b), truth = study(rng, num_seeds, num_tasks, seed_sd, ability)
        intervals = crossed_bootstrap(a, b, strata.tolist(), replicates=replicates).interval(), welch(a.mean(1), b.mean(1))
        covered += [interval is not None and interval[0] <= truth <= interval[1] for interval in intervals]
    bootstrap, by_runs = covered / studies
    return bootstrap, by_runs


@pytest.mark.parametrize("seed_sd", [0.0, 0.03, 0.06])
@pytest.mark.parametrize("num_seeds", [3, 5, 10])
def test_the_interval_covers_the_truth_as_often_as_it_says(num_seeds: int, seed_sd: float):
    """At least 95 % less what chance takes from 200 studies in one test of a thousand; never by being much too wide."""
    studies = 200
    share, _ = coverage(num_seeds, 60, seed_sd, 0.3, studies, replicates=400)
    assert share >= binom.ppf(0.001, studies, 0.95) / studies
    assert share < 1


@pytest.mark.slow
@pytest.mark.parametrize("num_tasks", [100, 500])
@pytest.mark.parametrize("ability", [0.0, 0.3])
@pytest.mark.parametrize("seed_sd", [0.0, 0.03, 0.06])
@pytest.mark.parametrize("num_seeds", [3, 5, 10])
def test_the_interval_covers_the_truth_in_many_studies(num_seeds: int, seed_sd: float, ability: float, num_tasks: int):
    """The figures of docs/statistics.md; equal abilities tell the rate of false alarms, 1 - coverage."""
    share, by_runs = coverage(num_seeds, num_tasks, seed_sd, ability, studies=1000)
    kind = "different" if ability else "equal"
    print(f"| {num_tasks} | {num_seeds} | {100 * seed_sd:.0f} | {kind} | {100 * share:.1f} | {100 * by_runs:.1f} |")
    assert share >= binom.ppf(0.001, 1000, 0.95) / 1000


def test_tasks_of_one_run_each_vary_as_the_paired_t_test_says():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 1, 400))
    low, high = crossed_bootstrap(a, b, replicates=20_000).interval()
    half = t.ppf(0.975, 399) * (a - b).std(ddof=1) / sqrt(400)
    assert (low, high) == pytest.approx(((a - b).mean() - half, (a - b).mean() + half), abs=0.03 * half)


def test_runs_that_solve_all_tasks_alike_vary_as_welch_says():
    """Tasks add nothing, so that only the spread of training runs is left."""
    a, b = np.array([0.31, 0.4, 0.52, 0.6, 0.45, 0.38]), np.array([0.2, 0.26, 0.22, 0.31])
    estimate = crossed_bootstrap(np.tile(a[:, None], 30), np.tile(b[:, None], 30), replicates=40_000)
    variances = [a.var(ddof=1) / 6, b.var(ddof=1) / 4]
    freedom = welch_freedom(variances, [5, 3])
    assert estimate.value == pytest.approx(a.mean() - b.mean())
    for confidence in (0.9, 0.95):
        half = t.ppf((1 + confidence) / 2, freedom) * sqrt(sum(variances))
        assert estimate.interval(confidence) == pytest.approx(
            (estimate.value - half, estimate.value + half), abs=0.06 * half
        )


def test_noise_of_single_outcomes_counts_once():
    """Coins without any effect of runs or tasks: the variance is that of all S x T coins, not two or three times as much."""
    rng = np.random.default_rng(1)
    ratios = []
    for _ in range(200):
        coins = (rng.random((5, 80)) < 0.5).astype(float)
        ratios.append(sum(crossed_bootstrap(coins, replicates=200).variances) / (0.25 / coins.size))
    assert 1 <= np.mean(ratios) < 1.4  # a variance is never below 0, which leaves a little


def test_paired_tasks_cancel_and_unpaired_ones_do_not():
    hard = np.repeat([1.0, 0.0], 50)
    worse = hard.copy()
    worse[:4] = 0
    estimate = crossed_bootstrap(np.tile(hard, (5, 1)), np.tile(worse, (5, 1)))
    low, high = estimate.interval()
    assert 0 < low < estimate.value < high < 0.1
    shuffled = np.random.default_rng(3).permutation(worse)
    wide_low, wide_high = crossed_bootstrap(np.tile(hard, (5, 1)), np.tile(shuffled, (5, 1))).interval()
    assert wide_high - wide_low > 2 * (high - low)


def test_strata_take_their_differences_out_of_the_interval():
    strata = [0] * 40 + [1] * 40
    outcomes = np.random.default_rng(4).random((5, 80)) * 0.1 + np.array(strata)
    low, high = crossed_bootstrap(outcomes, strata=strata).interval()
    wide_low, wide_high = crossed_bootstrap(outcomes).interval()
    assert high - low < 0.02 < 0.15 < wide_high - wide_low


def test_the_order_of_rows_turns_the_interval_round():
    (a, b), _ = study(np.random.default_rng(5), 5, 100, 0.03, 0.5)
    there, back = crossed_bootstrap(a, b), crossed_bootstrap(b, a)
    assert there.value == -back.value
    assert there.interval() == pytest.approx(tuple(-end for end in reversed(back.interval())), abs=0.01)
    assert there.p == pytest.approx(back.p, abs=0.02)


def test_the_same_outcomes_give_the_same_interval():
    (a, b), _ = study(np.random.default_rng(6), 3, 40, 0.03, 0.5)
    assert crossed_bootstrap(a, b).interval() == crossed_bootstrap(a.copy(), b.copy()).interval()


def test_p_is_below_5_percent_where_0_is_outside_the_interval():
    rng = np.random.default_rng(8)
    for ability in (0.0, 0.2, 0.3, 0.5):
        (a, b), _ = study(rng, 5, 100, 0.03, ability)
        estimate = crossed_bootstrap(a, b)
        low, high = estimate.interval()
        assert (estimate.p < 0.05) == (low > 0 or high < 0)


@pytest.mark.parametrize(("solved", "num_tasks"), [(1.0, 100), (0.0, 40)])
def test_rows_without_any_variation_are_not_known_exactly(solved: float, num_tasks: int):
    """Jeffreys' interval of 0 of T tasks, also where five runs agree, and the rows' difference may be either way."""
    everything = np.full((5, num_tasks), solved)
    low, high = crossed_bootstrap(everything).interval(0.9)
    assert (1 - low if solved else high) == pytest.approx(beta.ppf(0.95, 0.5, num_tasks + 0.5), rel=0.08)
    assert (high if solved else low) == pytest.approx(solved, abs=1e-3)
    both = crossed_bootstrap(everything, everything)
    assert both.value == 0
    assert both.p > 0.9
    low, high = both.interval()
    assert low < 0 < high


def test_a_floor_of_one_play_is_compared_by_tasks_and_the_other_rows_runs():
    (a, b), _ = study(np.random.default_rng(9), 5, 100, 0.06, 1.0)
    against_floor, against_runs = crossed_bootstrap(a, b[:1]), crossed_bootstrap(a, b)
    assert against_floor.variances[1] == 0 < against_floor.variances[0]
    assert len(against_floor.variances) == len(against_runs.variances) == 3
