"""DINO-WM's predictor: causal from frame to frame, and as large as the original."""

from pathlib import Path

import pytest
import torch

from wmbench.models.vit import FrameCausalViT

CONF = Path(__file__).parents[2] / "conf" / "predictor"
FRAMES, TOKENS, DIM, ACTION = 4, 3, 5, 7


@pytest.fixture
def predictor() -> FrameCausalViT:
    torch.manual_seed(0)
    size = {"depth": 2, "num_heads": 2, "head_dim": 6, "mlp_dim": 11, "dropout": 0.1}
    return FrameCausalViT(DIM, TOKENS, FRAMES, ACTION, action_embed_dim=4, **size).eval()


@pytest.fixture
def z() -> torch.Tensor:
    return torch.randn(2, FRAMES, TOKENS, DIM, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def action() -> torch.Tensor:
    return torch.randn(2, FRAMES, ACTION, generator=torch.Generator().manual_seed(2))


def changed_from(frame: int, sequence: torch.Tensor) -> torch.Tensor:
    changed = sequence.clone()
    changed[:, frame:] += 1
    return changed


def assert_only_the_future_differs(before: torch.Tensor, after: torch.Tensor, frame: int) -> None:
    assert torch.equal(after[:, :frame], before[:, :frame])
    assert (after[:, frame:] != before[:, frame:]).any(-1).all()


@torch.no_grad()
def test_a_prediction_has_the_shape_of_z(predictor: FrameCausalViT, z: torch.Tensor, action: torch.Tensor):
    assert predictor(z, action).shape == z.shape


@torch.no_grad()
@pytest.mark.parametrize("frame", range(1, FRAMES))
def test_future_frames_do_not_change_the_past(predictor: FrameCausalViT, z: torch.Tensor, action: torch.Tensor, frame: int):
    assert_only_the_future_differs(predictor(z, action), predictor(changed_from(frame, z), action), frame)


@torch.no_grad()
@pytest.mark.parametrize("frame", range(1, FRAMES))
def test_future_actions_do_not_change_the_past(predictor: FrameCausalViT, z: torch.Tensor, action: torch.Tensor, frame: int):
    assert_only_the_future_differs(predictor(z, action), predictor(z, changed_from(frame, action)), frame)


def test_every_token_sees_all_tokens_of_its_own_and_earlier_frames(
    predictor: FrameCausalViT, z: torch.Tensor, action: torch.Tensor
):
    jacobian = torch.autograd.functional.jacobian(lambda z: predictor(z[None], action[:1])[0], z[0])
    seen = jacobian.abs().sum((2, 5)) > 0  # (frame, token) of the output by (frame, token) of the input
    earlier = torch.ones(FRAMES, FRAMES).tril().bool()
    assert torch.equal(seen, earlier[:, None, :, None].expand(FRAMES, TOKENS, FRAMES, TOKENS))


def test_every_token_sees_the_actions_of_its_own_and_earlier_frames(
    predictor: FrameCausalViT, z: torch.Tensor, action: torch.Tensor
):
    jacobian = torch.autograd.functional.jacobian(lambda action: predictor(z[:1], action[None])[0], action[0])
    seen = jacobian.abs().sum((2, 4)) > 0  # (frame, token) of the output by frame of the action
    earlier = torch.ones(FRAMES, FRAMES).tril().bool()
    assert torch.equal(seen, earlier[:, None].expand(FRAMES, TOKENS, FRAMES))


@torch.no_grad()
def test_a_shorter_context_gives_the_same_predictions(predictor: FrameCausalViT, z: torch.Tensor, action: torch.Tensor):
    torch.testing.assert_close(predictor(z[:, :2], action[:, :2]), predictor(z, action)[:, :2])
