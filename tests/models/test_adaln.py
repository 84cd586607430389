"""LeWM's predictor: causal, steered by the action, and as large as the release."""

from pathlib import Path

import hydra
import pytest
import torch
from torch import Tensor, nn

from wmbench.data.normalizer import Normalizer
from wmbench.models.adaln import AdaLNPredictor
from wmbench.runs.build import build_world_model

CONF = Path(__file__).parents[2] / "conf"
FRAMES, DIM, ACTION = 4, 5, 7
SIZE = {"depth": 2, "num_heads": 2, "head_dim": 6, "mlp_dim": 11, "dropout": 0.1, "projector_dim": 13}


def new_predictor(num_tokens: int) -> AdaLNPredictor:
    torch.manual_seed(0)
    return AdaLNPredictor(DIM, num_tokens, FRAMES, ACTION, smoothed_dim=3, **SIZE).eval()


@pytest.fixture(params=[1, 3], ids=["one token", "three tokens"])
def predictor(request: pytest.FixtureRequest) -> AdaLNPredictor:
    """A predictor whose gates are open; those of a new one are shut."""
    predictor = new_predictor(request.param)
    for layer in predictor.layers:
        nn.init.normal_(layer.modulation[-1].weight)
        nn.init.normal_(layer.modulation[-1].bias)
    return predictor


@pytest.fixture
def z(predictor: AdaLNPredictor) -> Tensor:
    return torch.randn(2, FRAMES, predictor.num_tokens, DIM, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def action() -> Tensor:
    return torch.randn(2, FRAMES, ACTION, generator=torch.Generator().manual_seed(2))


@torch.no_grad()
@pytest.mark.parametrize("frame", range(1, FRAMES))
def test_future_frames_do_not_change_the_past(predictor: AdaLNPredictor, z: Tensor, action: Tensor, frame: int):
    changed = z.clone()
    changed[:, frame:] = -changed[:, frame:]
    before, after = predictor(z, action), predictor(changed, action)
    assert torch.equal(after[:, :frame], before[:, :frame])
    assert (after[:, frame:] != before[:, frame:]).any(-1).all()


@torch.no_grad()
@pytest.mark.parametrize("frame", range(1, FRAMES))
def test_future_actions_do_not_change_the_past(predictor: AdaLNPredictor, z: Tensor, action: Tensor, frame: int):
    changed = action.clone()
    changed[:, frame:] += 1
    before, after = predictor(z, action), predictor(z, changed)
    assert torch.equal(after[:, :frame], before[:, :frame])
    assert (after[:, frame:] != before[:, frame:]).any(-1).all()


def test_every_token_sees_all_tokens_of_its_own_and_earlier_frames(predictor: AdaLNPredictor, z: Tensor, action: Tensor):
    jacobian = torch.autograd.functional.jacobian(lambda z: predictor(z[None], action[:1])[0], z[0])
    seen = jacobian.abs().sum((2, 5)) > 0  # (frame, token) of the output by (frame, token) of the input
    earlier = torch.ones(FRAMES, FRAMES).tril().bool()
    assert torch.equal(seen, earlier[:, None, :, None].expand_as(seen))


def test_every_token_sees_the_actions_of_its_own_and_earlier_frames(predictor: AdaLNPredictor, z: Tensor, action: Tensor):
    jacobian = torch.autograd.functional.jacobian(lambda action: predictor(z[:1], action[None])[0], action[0])
    seen = jacobian.abs().sum((2, 4)) > 0  # (frame, token) of the output by frame of the action
    earlier = torch.ones(FRAMES, FRAMES).tril().bool()
    assert torch.equal(seen, earlier[:, None].expand_as(seen))


@torch.no_grad()
def test_a_new_predictor_is_constant_in_its_action():
    predictor = new_predictor(num_tokens=3)
    z, action = torch.randn(2, FRAMES, 3, DIM), torch.randn(2, FRAMES, ACTION)
    assert torch.equal(predictor(z, 2 * action + 1), predictor(z, action))
    assert not torch.equal(predictor(-z, action), predictor(z, action))


@torch.no_grad()
def test_tokens_of_a_frame_are_steered_by_that_frames_action():
    """With attention's gates shut, an action reaches the tokens of its own frame and no other."""
    predictor = new_predictor(num_tokens=3)
    for layer in predictor.layers:
        gate = layer.modulation[-1].weight.view(6, DIM, DIM)[5]  # of the feed-forward layer
        nn.init.normal_(gate)
    z, action = torch.randn(2, FRAMES, 3, DIM), torch.randn(2, FRAMES, ACTION)
    changed = action.clone()
    changed[:, 1] += 1
    moved = (predictor(z, changed) != predictor(z, action)).any(-1)
    expected = torch.zeros(2, FRAMES, 3, dtype=torch.bool)
    expected[:, 1] = True
    assert torch.equal(moved, expected)


def test_the_shipped_lewm_has_as_many_parameters_as_the_release():
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = hydra.compose("train", overrides=["encoder=lewm"])
    with torch.device("meta"):
        model = build_world_model(cfg, Normalizer(torch.zeros(2), torch.ones(2), torch.zeros(4), torch.ones(4)))

    def millions(module: nn.Module) -> float:
        return sum(p.numel() for p in module.parameters()) / 1e6

    encoder, predictor = model.encoder, model.predictor
    transformer = millions(predictor) - millions(predictor.action_encoder) - millions(predictor.projector)
    assert round(millions(encoder.trunk), 2) == 5.50
    assert round(millions(encoder.projector), 2) == 0.79
    assert round(millions(predictor.action_encoder), 2) == 0.16
    assert round(transformer, 2) == 10.79
    assert round(millions(predictor.projector), 2) == 0.79
    assert round(millions(model), 1) == 18.0
