"""LeWorldModel's released code, recorded with random weights, is reproduced."""

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from einops import rearrange
from torch import Tensor

from wmbench.data.normalizer import Normalizer
from wmbench.encoders.lewm import LeWM
from wmbench.models.adaln import AdaLNPredictor
from wmbench.models.sigreg import epps_pulley
from wmbench.models.world_model import WorldModel
from wmbench.planning.objective import goal_distance
from wmbench.shapes import Obs

# Released names and ours, in order; the ViT's are those of transformers 5.
RENAMED = (
    (r"^encoder\.encoder\.layer\.", "encoder.trunk.layers."),
    (r"^encoder\.(embeddings|layernorm)\.", r"encoder.trunk.\1."),
    (r"\.attention\.attention\.(query|key|value)\.", lambda match: f".attention.{match[1][0]}_proj."),
    (r"\.attention\.output\.dense\.", ".attention.o_proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"(trunk\.layers\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
    (r"^projector\.net\.", "encoder.projector."),
    (r"^pred_proj\.net\.", "predictor.projector."),
    (r"^predictor\.transformer\.", "predictor."),
    (r"\.adaLN_modulation\.", ".modulation."),
    (r"^action_encoder\.patch_embed\.", "predictor.action_encoder.0."),
    (r"^action_encoder\.embed\.0\.", "predictor.action_encoder.1."),
    (r"^action_encoder\.embed\.2\.", "predictor.action_encoder.3."),
)


class NormalisedLeWM(LeWM):
    """LeWM for frames (B T 3 h w) that are normalised already."""

    def preprocess(self, visual: Tensor) -> Tensor:
        return rearrange(visual, "b t c h w -> (b t) c h w")


def rename(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for name, tensor in weights.items():
        for pattern, replacement in RENAMED:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor.squeeze(-1) if name == "predictor.action_encoder.0.weight" else tensor
    return renamed


@pytest.fixture
def record(golden: Path) -> SimpleNamespace:
    return SimpleNamespace(**torch.load(golden / "lewm_tiny.pt", weights_only=True))


@pytest.fixture
def model(record: SimpleNamespace) -> WorldModel:
    config = SimpleNamespace(**record.config)
    encoder = NormalisedLeWM(
        image_size=config.image_size,
        patch_size=config.patch_size,
        width=config.width,
        depth=config.depth,
        num_heads=config.heads,
        embed_dim=config.embed_dim,
        projector_dim=config.projector_hidden,
    )
    predictor = AdaLNPredictor(
        dim=config.embed_dim,
        num_tokens=1,
        num_hist=config.num_hist,
        action_dim=config.action_dim,
        smoothed_dim=10,
        depth=config.predictor_depth,
        num_heads=config.predictor_heads,
        head_dim=config.predictor_dim_head,
        mlp_dim=config.predictor_mlp,
        dropout=0.1,
        projector_dim=config.projector_hidden,
    )
    identity = Normalizer(torch.zeros(2), torch.ones(2), torch.zeros(4), torch.ones(4))
    options = {"proprio": "none", "proprio_embed_dim": 1, "frameskip": 5, "num_hist": config.num_hist}
    model = WorldModel(encoder, predictor, identity, **options)
    own = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("normalizer.")}
    weights = rename(record.weights)
    assert weights.keys() == own.keys()
    model.load_state_dict(weights, strict=False)  # strict by the line above, up to the normalizer
    return model.eval().requires_grad_(False)


@pytest.fixture
def obs(record: SimpleNamespace) -> Obs:
    return Obs(visual=record.pixels, proprio=torch.zeros(*record.pixels.shape[:2], 4))


def test_embedding_is_the_released_one(model: WorldModel, record: SimpleNamespace, obs: Obs, assert_recorded: Callable):
    assert_recorded(model.encode(obs)[:, :, 0], record.embedding)


def test_action_embedding_is_the_released_one(model: WorldModel, record: SimpleNamespace, assert_recorded: Callable):
    assert_recorded(model.predictor.action_encoder(record.action), record.action_embedding)


def test_prediction_is_the_released_one(model: WorldModel, record: SimpleNamespace, obs: Obs, assert_recorded: Callable):
    prediction = model.predict(model.encode(obs)[:, :-1], record.action[:, :-1])
    assert_recorded(prediction[:, :, 0], record.prediction)


def test_prediction_loss_is_the_released_one(
    model: WorldModel, record: SimpleNamespace, obs: Obs, assert_recorded: Callable
):
    assert_recorded(model.loss(obs, record.action).prediction, record.prediction_loss)


def test_rollout_is_the_released_one(model: WorldModel, record: SimpleNamespace, obs: Obs, assert_recorded: Callable):
    z = model.encode(obs)[:, :1]
    rollout = model.rollout(z, record.action[:, :0], record.candidates)
    assert_recorded(rollout[:, :, :, 0], record.rollout[:, :, 1:])  # theirs begins with the observed frame
    assert_recorded(z[:, None, :, 0].expand_as(record.rollout[:, :, :1]), record.rollout[:, :, :1])


def test_cost_is_the_released_one(model: WorldModel, record: SimpleNamespace, obs: Obs, assert_recorded: Callable):
    z = model.encode(obs)
    rollout = model.rollout(z[:, :1], record.action[:, :0], record.candidates)
    distance = goal_distance(rollout, z[:, -1], "last")
    assert_recorded(distance * model.encoder.embed_dim, record.cost)  # theirs sums over features, ours averages


def test_sigreg_is_the_released_one(record: SimpleNamespace, assert_recorded: Callable):
    statistic = epps_pulley(record.sigreg["z"] @ record.sigreg["directions"])
    assert_recorded(statistic, record.sigreg["statistic"])
    assert_recorded(statistic.mean(), record.sigreg["mean"])
