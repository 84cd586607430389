"""iCEM's own parts: coloured samples across blocks, kept elites, momentum, a shrinking population."""

import numpy as np
import torch
from torch import Tensor

from wmbench.planning.icem import ICEM
from wmbench.planning.noise import KeyedNoise

B, H, FRAMESKIP, ACTION_DIM = 2, 4, 3, 2
START = torch.zeros(B, H, FRAMESKIP * ACTION_DIM)
BOTTOM = torch.linspace(-1, 2, START.numel()).reshape(START.shape)


def search(**changed) -> tuple[Tensor, list[Tensor]]:
    """The plan from zero and the plans scored in each iteration."""
    settings = {"num_samples": 40, "num_elites": 5, "num_iters": 3, "init_std": 1.0, "noise_beta": 1.0}
    settings |= {"frameskip": FRAMESKIP, "sample_decay": 1.25, "kept_fraction": 0.0, "momentum": 0.0}
    scored = []

    def scoring(plans: Tensor) -> Tensor:
        scored.append(plans)
        return bowl(plans)

    return ICEM(**settings | changed)(scoring, START, KeyedNoise(1, np.arange(B), 0)), scored


def bowl(plans: Tensor) -> Tensor:
    return (plans - BOTTOM[:, None]).square().sum((2, 3))


def elites(plans: Tensor) -> Tensor:
    order = bowl(plans).argsort(1)[:, :5]
    return torch.stack([plans[task, order[task]] for task in range(B)])


def test_the_population_shrinks_to_twice_the_elites():
    _, scored = search(num_iters=8)
    assert [plans.shape[1] for plans in scored] == [40, 32, 25, 20, 16, 13, 10, 10]


def test_samples_are_as_smooth_across_blocks_as_within_them():
    _, scored = search(num_samples=4000, num_iters=1, noise_beta=2.0, init_std=3.0)
    actions = scored[0][:, 1:].reshape(-1, H * FRAMESKIP, ACTION_DIM)  # in time order
    correlation = torch.corrcoef(actions.flatten(1).T).reshape(H * FRAMESKIP, ACTION_DIM, H * FRAMESKIP, ACTION_DIM)
    neighbours = torch.stack([correlation[t, 0, t + 1, 0] for t in range(H * FRAMESKIP - 1)])
    assert neighbours.min() > 0.7 and neighbours.max() - neighbours.min() < 0.05
    assert correlation[:, 0, :, 1].abs().max() < 0.06  # x and y know nothing of each other: four standard errors
    torch.testing.assert_close(actions.std(0), torch.full((H * FRAMESKIP, ACTION_DIM), 3.0), rtol=0.05, atol=0)


def test_the_plan_is_the_elites_mean_with_some_of_the_old_one():
    found, scored = search(num_iters=1, momentum=0.0)
    torch.testing.assert_close(found, elites(scored[0]).mean(1))
    found, scored = search(num_iters=2, momentum=0.25)
    first = 0.75 * elites(scored[0]).mean(1)  # the start is zero
    torch.testing.assert_close(found, 0.25 * first + 0.75 * elites(scored[1]).mean(1))


def test_samples_spread_by_the_elites_deviation_with_some_of_the_old_one():
    _, scored = search(num_samples=4000, num_iters=2, momentum=0.25, init_std=2.0)
    expected = 0.25 * 2.0 + 0.75 * elites(scored[0]).std(1)
    torch.testing.assert_close(scored[1].std(1), expected, rtol=0.08, atol=0)


def test_kept_elites_compete_again_without_being_scored_again():
    found, scored = search(num_iters=2, kept_fraction=0.6)
    kept = elites(scored[0])[:, :3]
    torch.testing.assert_close(found, elites(torch.cat([kept, scored[1]], 1)).mean(1))
    assert not torch.equal(found, search(num_iters=2)[0])
    assert [plans.shape[1] for plans in scored] == [40, 32]
