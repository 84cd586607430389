"""The world model's verbs: what it is told, how it rolls out, and where gradients go."""

import pytest
import torch
from torch import Tensor, nn

from wmbench.data.normalizer import Normalizer
from wmbench.encoders.lewm import SmallLeWM
from wmbench.encoders.random_patch import RandomPatch
from wmbench.models.base import Predictor
from wmbench.models.sigreg import SIGReg
from wmbench.models.vit import FrameCausalViT
from wmbench.models.world_model import WorldModel
from wmbench.shapes import Batch, Obs

EMBED, PROPRIO_EMBED, FRAMESKIP, ACTION = 5, 3, 2, 4
NORMALIZER = Normalizer(torch.tensor([0.5, -1.0]), torch.tensor([2.0, 4.0]), torch.arange(4.0), torch.arange(1.0, 5.0))
NUM_FEATURES = {"none": EMBED, "velocity": EMBED + PROPRIO_EMBED, "full": EMBED + PROPRIO_EMBED}


class Guess(Predictor):
    """A predictor that sees nothing: the loss depends on latents through its target alone."""

    def __init__(self, num_features: int):
        super().__init__()
        self.guess = nn.Parameter(torch.zeros(num_features))

    def forward(self, z: Tensor, action: Tensor) -> Tensor:
        return self.guess.expand_as(z)

    def begin(self, z: Tensor, past: Tensor, num_plans: int) -> None:
        pass

    def step(self, state: None, action: Tensor) -> tuple[Tensor, None]:
        return self.guess.expand(len(action), 4, -1), None


def make_model(proprio: str = "none", num_hist: int = 3, blind: bool = False, trained: bool = False) -> WorldModel:
    torch.manual_seed(0)
    if trained:
        encoder = SmallLeWM(image_size=8, widths=[3, 4], embed_dim=EMBED, projector_dim=6)
    else:
        encoder = RandomPatch(image_size=8, grid=2, embed_dim=EMBED, seed=0)
    size = {"action_embed_dim": 7, "depth": 1, "num_heads": 2, "head_dim": 6, "mlp_dim": 11, "dropout": 0.1}
    vit = FrameCausalViT(NUM_FEATURES[proprio], encoder.num_tokens, num_hist, ACTION, **size)
    return WorldModel(
        encoder,
        Guess(NUM_FEATURES[proprio]) if blind else vit,
        NORMALIZER,
        proprio=proprio,
        proprio_embed_dim=PROPRIO_EMBED,
        frameskip=FRAMESKIP,
        num_hist=num_hist,
        regularizer=SIGReg(num_directions=9, weight=0.1) if trained else None,
    ).eval()


@pytest.fixture
def obs() -> Obs:
    generator = torch.Generator().manual_seed(1)
    visual = torch.randint(0, 256, (6, 4, 8, 8, 3), dtype=torch.uint8, generator=generator)
    return Obs(visual=visual, proprio=torch.randn(6, 4, 4, generator=generator))


@pytest.fixture
def action() -> Tensor:
    return torch.randn(6, 4, ACTION, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(
    ("proprio", "felt"), [("none", []), ("velocity", [2, 3]), ("full", [0, 1, 2, 3])], ids=["none", "velocity", "full"]
)
def test_it_is_told_the_chosen_part_of_proprio(proprio: str, felt: list[int], obs: Obs):
    model = make_model(proprio)
    z = model.encode(obs)
    assert z.shape == (6, 4, 4, NUM_FEATURES[proprio])
    for part in range(4):
        changed = obs["proprio"].clone()
        changed[..., part] += 1
        moved = (model.encode(Obs(visual=obs["visual"], proprio=changed)) != z).any((0, 1, 2))
        expected = [False] * EMBED + [part in felt] * (NUM_FEATURES[proprio] - EMBED)
        assert moved.tolist() == expected


def test_every_token_carries_the_embedded_normalised_proprio(obs: Obs):
    model = make_model("full")
    normalised = (obs["proprio"] - torch.arange(4.0)) / torch.arange(1.0, 5.0)
    expected = model.proprio_encoder(normalised)[:, :, None].expand(6, 4, 4, PROPRIO_EMBED)
    torch.testing.assert_close(model.encode(obs)[..., EMBED:], expected)


@torch.no_grad()
@pytest.mark.parametrize("frames", [1, 2, 3, 4])
def test_a_rollout_is_one_prediction_after_another(frames: int, obs: Obs, action: Tensor):
    """Context grows to num_hist frames and then slides."""
    model = make_model(num_hist=3)
    z, past, plan = model.encode(obs)[:, :frames], action[:, : frames - 1], action[:, :].repeat(1, 2, 1)[:, :5]
    found = model.rollout(z, past, plan[:, None])[:, 0]
    blocks = torch.cat([past, plan], 1)
    for step in range(5):
        newest = frames + step
        context = slice(max(0, newest - 3), newest)
        z = torch.cat([z, model.predict(z[:, context], blocks[:, context])[:, -1:]], 1)
    torch.testing.assert_close(found, z[:, frames:])


@torch.no_grad()
def test_plans_are_rolled_out_as_if_each_were_alone(obs: Obs, action: Tensor):
    model = make_model("velocity")
    z, plans = model.encode(obs)[:, :2], torch.randn(6, 3, 5, ACTION)
    together = model.rollout(z, action[:, :1], plans)
    assert together.shape == (6, 3, 5, 4, NUM_FEATURES["velocity"])
    for task in range(6):
        for plan in range(3):
            one = slice(task, task + 1)
            alone = model.rollout(z[one], action[one, :1], plans[one, plan : plan + 1])
            torch.testing.assert_close(alone[0, 0], together[task, plan])


@torch.no_grad()
def test_frames_and_blocks_older_than_num_hist_do_not_matter(obs: Obs, action: Tensor):
    model, plans = make_model(num_hist=2), torch.randn(6, 1, 3, ACTION)
    z = model.encode(obs)
    assert torch.equal(model.rollout(z, action[:, :3], plans), model.rollout(z[:, 2:], action[:, 2:3], plans))


@torch.no_grad()
def test_the_loss_is_the_mean_square_of_one_step_predictions_under_normalised_actions(obs: Obs, action: Tensor):
    model = make_model("full")
    z = model.encode(obs)
    normalised = (action - torch.tensor([0.5, -1.0, 0.5, -1.0])) / torch.tensor([2.0, 4.0, 2.0, 4.0])
    expected = (model.predict(z[:, :3], normalised[:, :3]) - z[:, 1:]).square().mean()
    losses = model.loss(Batch(obs, action))
    torch.testing.assert_close(losses.parts["prediction"], expected)
    assert losses.total == losses.parts["prediction"] and losses.parts["sigreg"] == 0


def test_the_last_action_block_of_a_window_does_not_matter(obs: Obs, action: Tensor):
    changed = action.clone()
    changed[:, -1] += 1
    model = make_model()
    assert model.loss(Batch(obs, changed)).parts["prediction"] == model.loss(Batch(obs, action)).parts["prediction"]


def test_a_frozen_encoders_target_pulls_at_nothing(obs: Obs, action: Tensor):
    model = make_model("full", blind=True)
    model.loss(Batch(obs, action)).total.backward()
    assert model.predictor.guess.grad.any()
    assert model.proprio_encoder.weight.grad is None


def test_a_trained_encoder_feels_its_target(obs: Obs, action: Tensor):
    model = make_model(trained=True, blind=True)
    model.loss(Batch(obs, action)).parts["prediction"].backward()
    assert model.encoder.projector[-1].weight.grad.any()


@torch.no_grad()
def test_the_regularizer_sees_visual_features_alone(obs: Obs, action: Tensor, monkeypatch: pytest.MonkeyPatch):
    model, seen = make_model("full", trained=True), []
    monkeypatch.setattr(model.regularizer, "forward", lambda z: seen.append(z) or torch.tensor(2.0))
    losses = model.loss(Batch(obs, action))
    assert torch.equal(seen[0], model.encode(obs)[..., :EMBED])
    torch.testing.assert_close(losses.total, losses.parts["prediction"] + 0.1 * 128 / 6 * 2.0)
