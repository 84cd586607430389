"""TD-MPC2 without reward: simplices, consistency along a roll-out, random shifts."""

import pytest
import torch
from situations import ACTION, DIM, TOKENS, situation

from wmbench.encoders.tdmpc2 import TDMPC2, SimNorm
from wmbench.models.tdmpc2 import TDMPC2Dynamics

GROUP = 4


def test_a_simplex_has_mean_zero_and_one_hot_variance_one_and_its_gradient():
    torch.manual_seed(0)
    x = torch.randn(3, 2 * GROUP, dtype=torch.float64, requires_grad=True)
    share = torch.stack([torch.softmax(part, -1) for part in x.split(GROUP, -1)], 1).flatten(1)
    torch.testing.assert_close(SimNorm(GROUP)(x), (share - 1 / GROUP) / (1 / GROUP * (1 - 1 / GROUP)) ** 0.5)
    hot = SimNorm(GROUP)(1e3 * torch.eye(GROUP))
    torch.testing.assert_close((hot.mean(0), hot.var(0, correction=0)), (torch.zeros(GROUP), torch.ones(GROUP)))
    assert torch.autograd.gradcheck(SimNorm(GROUP), x)


def test_consistency_counts_each_step_of_a_roll_out_half_as_much_and_leaves_targets_alone():
    torch.manual_seed(0)
    predictor = TDMPC2Dynamics(DIM, TOKENS, 3, ACTION, mlp_dim=8, group=GROUP)
    z, action, _ = situation(4)
    target = z[:, 1:].requires_grad_()
    losses = predictor.loss(z[:, :-1], action, target)
    first = predictor.step(z[:, 0], action[:, 0])[0]
    second = predictor.step(first, action[:, 1])[0]
    third = predictor.step(second, action[:, 2])[0]
    errors = [(latent - target[:, step]).square().mean() for step, latent in enumerate((first, second, third))]
    torch.testing.assert_close(losses.total, 20 * (errors[0] + errors[1] / 2 + errors[2] / 4) / 3)
    losses.total.backward()
    assert target.grad is None


def test_an_encoder_shifts_frames_in_training_alone():
    torch.manual_seed(0)
    encoder = TDMPC2(image_size=40, channels=2, embed_dim=2 * GROUP, group=GROUP, max_shift=3)
    pixels = torch.randn(5, 3, 40, 40)
    shifted = encoder.shifted(pixels)
    padded = torch.nn.functional.pad(pixels, (3, 3, 3, 3), mode="replicate")
    places = [[padded[f, :, r : r + 40, c : c + 40].equal(shifted[f]) for r in range(7) for c in range(7)] for f in range(5)]
    assert [sum(found) for found in places] == 5 * [1] and len({found.index(True) for found in places}) > 1
    assert not torch.equal(encoder.tokens(pixels), encoder.tokens(pixels))
    assert torch.equal(encoder.eval().tokens(pixels), encoder.tokens(pixels))
    assert encoder.tokens(pixels).shape == (5, 1, 2 * GROUP)


@pytest.mark.parametrize("image_size", [39, 40, 64, 65])
def test_an_encoder_takes_frames_of_any_size_it_allows(image_size: int):
    encoder = TDMPC2(image_size=image_size, channels=1, embed_dim=GROUP, group=GROUP, max_shift=0)
    assert encoder.tokens(torch.zeros(1, 3, image_size, image_size)).shape == (1, 1, GROUP)


def test_groups_that_do_not_divide_a_latent_are_refused():
    with pytest.raises(ValueError, match=r"predictor\.group \(3\) must be at least 2 and divide the latent's 28 numbers"):
        TDMPC2Dynamics(DIM, TOKENS, 3, ACTION, mlp_dim=8, group=3)
    with pytest.raises(ValueError, match=r"encoder\.group \(3\) must be at least 2 and divide embed_dim \(8\)"):
        TDMPC2(image_size=40, channels=2, embed_dim=8, group=3, max_shift=3)
    with pytest.raises(ValueError, match=r"image_size \(38\) must be at least 39"):
        TDMPC2(image_size=38, channels=2, embed_dim=8, group=4, max_shift=3)
