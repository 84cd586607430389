"""DINO-WM's ViT under other losses: a Gaussian, codes, V-JEPA 2-AC's switches, straight paths."""

from functools import partial
from typing import Any

import pytest
import torch
from situations import ACTION, DIM, NUM_HIST, TOKENS, model_around, situation
from torch.distributions import Normal

from wmbench.models.categorical import CategoricalViT
from wmbench.models.gaussian import GaussianViT
from wmbench.models.projected import Projected
from wmbench.models.straightened import StraightenedViT, curvature
from wmbench.models.vit import FrameCausalViT
from wmbench.models.vit_rope import RotaryViT
from wmbench.models.vjepa2_ac import VJEPA2AC, Rotary3D
from wmbench.planning.objective import OwnSpace

SIZES = {"depth": 2, "num_heads": 2, "head_dim": 8, "mlp_dim": 11, "dropout": 0.0, "action_embed_dim": 3}
GIVEN = {"dim": DIM, "num_tokens": TOKENS, "num_hist": NUM_HIST, "action_dim": ACTION}
DINO_WM = {"concat_dim": 1, "rope": "none", "l1": False, "layer_norm": False, "rollout_steps": 1}
V_JEPA = {"concat_dim": 0, "rope": "3d", "l1": True, "layer_norm": True, "rollout_steps": 2}


def build(kind: type, **settings: Any) -> Any:
    torch.manual_seed(0)
    return kind(**(GIVEN | SIZES | settings))


def window() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    z, action, _ = situation(NUM_HIST + 1)
    return z[:, :-1], action, z[:, 1:]


def test_a_gaussians_loss_is_its_likelihood_and_a_tenth_of_the_means_error():
    gaussian, (z, action, target) = build(GaussianViT, mse_weight=0.1), window()
    mean = gaussian(z, action)
    log_std = gaussian.log_std(gaussian.transform(gaussian.join(z, action))[:, :, :TOKENS])
    likelihood = -Normal(mean, log_std.exp()).log_prob(target).mean() - 0.5 * torch.tensor(2 * torch.pi).log()
    losses = gaussian.loss(z, action, target)
    torch.testing.assert_close(losses.total, likelihood + 0.1 * (mean - target).square().mean())
    torch.testing.assert_close(mean, FrameCausalViT.forward(gaussian, z, action))


def test_codes_are_told_by_cross_entropy_and_foreseen_as_their_expectation():
    categorical, (z, action, target) = build(CategoricalViT, num_codes=5).eval(), window()
    codes = categorical.codebook.embed.T
    seen = categorical.transform(categorical.join(z, action))[:, :, :TOKENS]
    probabilities = categorical.logits(seen).softmax(-1)
    nearest = (target[..., None, :] - codes).square().sum(-1).argmin(-1)
    told = probabilities.gather(-1, nearest[..., None]).log()
    losses = categorical.loss(z, action, target)
    torch.testing.assert_close(losses.total, -told.mean())
    torch.testing.assert_close(categorical(z, action), (probabilities[..., None] * codes).sum(-2))
    before = codes.clone()
    categorical.train().loss(z, action, target)
    assert not torch.equal(categorical.codebook.embed.T, before)


def test_with_every_switch_at_dino_wms_it_is_dino_wms():
    plain, switched, (z, action, target) = build(FrameCausalViT), build(VJEPA2AC, **DINO_WM), window()
    switched.load_state_dict(plain.state_dict())
    torch.testing.assert_close(switched.loss(z, action, target).total, plain.loss(z, action, target).total)
    torch.testing.assert_close(*(model_around(p.eval()).rollout(*situation(2)) for p in (plain, switched)))
    rotary, in_time = build(RotaryViT), build(VJEPA2AC, **(DINO_WM | {"rope": "time"}))
    in_time.load_state_dict(rotary.state_dict())
    torch.testing.assert_close(*(model_around(p.eval()).rollout(*situation(2)) for p in (rotary, in_time)))


def test_its_loss_adds_the_last_of_two_steps_on_own_predictions_in_its_own_measure():
    predictor, (z, action, target) = build(VJEPA2AC, **V_JEPA), window()
    losses = predictor.loss(z, action, target)
    first = predictor(z[:, :1], action[:, :1])
    second = predictor(torch.cat([z[:, :1], first], 1), action[:, :2])[:, 1]
    expected = (predictor(z, action) - target).abs().mean() + (second - target[:, 1]).abs().mean()
    torch.testing.assert_close(losses.total, expected)
    torch.testing.assert_close(first.mean(-1), torch.zeros(2, 1, TOKENS), atol=1e-5, rtol=0)
    torch.testing.assert_close(first.var(-1, correction=0), torch.ones(2, 1, TOKENS), atol=1e-3, rtol=0)


def test_rotary_products_depend_on_how_far_apart_patches_are_and_an_action_has_no_place():
    rotary, (frames, side, width) = Rotary3D(6, 1, 14, 0.0), (2, 3, 14)
    torch.manual_seed(0)
    same = torch.randn(2, width)[:, None, None, None].expand(2, 1, 1, frames * (side**2 + 1), width)
    query, key = (rotary.place(x, side**2 + 1)[0, 0].view(frames, side**2 + 1, width) for x in same)
    products = torch.einsum("tpd,sqd->tpsq", query, key)
    torch.testing.assert_close(products[0, 0, 1, 4], products[0, 4, 1, 8])  # one row and one column on
    torch.testing.assert_close(products[0, 0, 0, 1], products[1, 7, 1, 8])  # one column on, in whichever frame
    assert abs(products[0, 0, 0, 1] - products[0, 0, 0, 3]) > 1e-3  # a column is no row
    action = query[0, side**2]
    third = width // 6 * 2
    assert torch.equal(action[third:], same[0, 0, 0, 0, third:]) and not torch.equal(
        action[:third], same[0, 0, 0, 0, :third]
    )


def test_a_path_bends_by_none_on_a_line_by_one_at_a_corner_and_by_two_where_it_turns_back():
    for path, bend in (([0, 1, 3], 0.0), ([0, 1, 1 + 1j], 1.0), ([0, 1, 0.5], 2.0)):
        points = torch.view_as_real(torch.tensor(path, dtype=torch.complex64))[None]
        torch.testing.assert_close(curvature(points), torch.tensor(bend))
    points = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(curvature, points)


def test_straightened_channels_are_read_back_foreseen_and_compared():
    settings = {"channels": 3, "width": 10, "curvature_weight": 0.5}
    predictor, (z, action, target) = build(StraightenedViT, **settings), window()
    losses, path = predictor.loss(z, action, target), predictor.narrow(torch.cat([z, target[:, -1:]], 1))
    expected = (predictor.narrow(predictor(z, action)) - path[:, 1:]).square().mean()
    expected = expected + (predictor.widen(path) - torch.cat([z, target[:, -1:]], 1)).square().mean()
    torch.testing.assert_close(losses.total, expected + 0.5 * curvature(path.flatten(2)))
    world = model_around(predictor.eval().requires_grad_(False))
    seen = world.rollout(*situation(2))
    cost = OwnSpace()(world, z[:, -1], seen, z[:, 0])
    torch.testing.assert_close(cost, (predictor.narrow(seen[:, :, -1]) - predictor.narrow(z[:, :1])).square().mean((-2, -1)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rope": "4d"}, r"predictor\.rope \('4d'\) must be one of 3d, time, none"),
        ({"head_dim": 4}, r"predictor\.head_dim \(4\) must be at least 6 with rope=3d"),
        ({"rollout_steps": 4}, r"predictor\.rollout_steps \(4\) must be between 1 and num_hist \(3\)"),
    ],
)
def test_switches_that_cannot_be_are_refused(settings: dict, message: str):
    with pytest.raises(ValueError, match=message):
        build(VJEPA2AC, **(V_JEPA | settings))


def test_a_learned_projection_takes_no_predictor_with_a_loss_of_its_own():
    inside = partial(GaussianViT, **{n: v for n, v in (GIVEN | SIZES).items() if n != "dim"}, mse_weight=0.1)
    with pytest.raises(ValueError, match="GaussianViT has a loss of its own"):
        Projected(inside, DIM, 10)
