"""What every encoder in conf/encoder promises; a new YAML file is tested by being there."""

import copy
from pathlib import Path

import hydra
import pytest
import torch
from einops import rearrange
from fake_gpu import GPU, fake_gpu
from hydra.utils import instantiate
from omegaconf import DictConfig

from wmbench.data.normalizer import Normalizer
from wmbench.encoders.base import Encoder, weights_hash
from wmbench.encoders.lewm import LeWM, SmallLeWM
from wmbench.encoders.pixels import Pixels
from wmbench.encoders.random_patch import RandomPatch
from wmbench.encoders.state import State
from wmbench.models.world_model import WorldModel
from wmbench.runs.build import build_world_model
from wmbench.shapes import Batch, Obs

CONF = Path(__file__).parents[2] / "conf"
NAMES = sorted(path.stem for path in (CONF / "encoder").glob("*.yaml"))
SMALL_LEWM = {"image_size": 16, "widths": [2, 3], "embed_dim": 5, "projector_dim": 7}
LEWM = {"image_size": 28, "patch_size": 14, "width": 8, "depth": 1, "num_heads": 2, "embed_dim": 5, "projector_dim": 7}


def build_encoder(cfg: DictConfig, seed: int) -> Encoder:
    """An encoder whose random weights are drawn from `seed`, whether it has a seed of its own or not."""
    torch.manual_seed(seed)
    return instantiate(cfg.encoder, **({"seed": seed} if "seed" in cfg.encoder else {})).eval()


def build_model(cfg: DictConfig) -> WorldModel:
    torch.manual_seed(0)
    return build_world_model(cfg, Normalizer(torch.zeros(2), torch.ones(2), torch.zeros(4), torch.ones(4)))


def random_obs(batch: int, frames: int, side: int) -> Obs:
    generator = torch.Generator().manual_seed(1)
    visual = torch.randint(0, 256, (batch, frames, side, side, 3), dtype=torch.uint8, generator=generator)
    return Obs(visual=visual, proprio=torch.randn(batch, frames, 4, generator=generator))


def train_once(model: WorldModel, cfg: DictConfig) -> None:
    """One optimiser step over every parameter that has a gradient."""
    model.train()
    obs = random_obs(2, 2, model.encoder.image_size)
    action = torch.randn(2, 2, 2 * cfg.frameskip, generator=torch.Generator().manual_seed(2))
    model.loss(Batch(obs, action)).total.backward()
    torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1).step()


@pytest.fixture(scope="module", params=NAMES)
def cfg(request: pytest.FixtureRequest) -> DictConfig:
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = hydra.compose("train", overrides=[f"encoder={request.param}"])
    if "pretrained" in cfg.encoder:
        cfg.encoder.pretrained = False  # the contract does not depend on the weights, and tests download nothing
    if "architecture" in cfg.encoder:
        cfg.encoder.architecture = {"depth": 1, "embed_dim": 48, "num_heads": 3}  # its own size is tested by name
    if "dims" in cfg.encoder:
        cfg.encoder.depths, cfg.encoder.dims = [1] * 4, [8, 12, 20, 24]
    if "depth" in cfg.predictor:
        cfg.predictor.depth = 1  # for speed: it stands behind the encoder
    return cfg


@pytest.fixture(scope="module")
def encoder(cfg: DictConfig) -> Encoder:
    return build_encoder(cfg, seed=0)


@torch.no_grad()
def test_output_has_the_promised_tokens_and_features(encoder: Encoder):
    tokens = encoder(random_obs(2, 3, encoder.image_size))
    assert tokens.shape == (2, 3, encoder.num_tokens, encoder.embed_dim)
    assert tokens.dtype == torch.float32
    assert tokens.isfinite().all()


@torch.no_grad()
def test_it_encodes_on_a_gpu(cfg: DictConfig, encoder: Encoder, request: pytest.FixtureRequest):
    """On one that is not there."""
    name = request.node.callspec.params["cfg"]
    if "_target_" not in (CONF / "encoder" / f"{name}.yaml").read_text():
        pytest.skip("of a family that another file stands for")
    model = copy.deepcopy(encoder)
    with fake_gpu():
        visual = torch.zeros(1, 2, model.image_size + 5, model.image_size + 5, 3, dtype=torch.uint8, device=GPU)
        with torch.autocast("cuda", torch.bfloat16):  # in which frozen encoders keep their precision
            tokens = model.to(GPU)(Obs(visual=visual, proprio=torch.zeros(1, 2, 4, device=GPU)))
    assert (tokens.shape, tokens.device) == ((1, 2, encoder.num_tokens, encoder.embed_dim), GPU)
    assert tokens.dtype == torch.float32 or not encoder.frozen


def test_rows_times_columns_of_the_grid_is_the_number_of_tokens(encoder: Encoder):
    rows, columns = encoder.grid
    assert encoder.num_tokens == rows * columns


@torch.no_grad()
def test_a_frame_alone_gives_the_tokens_that_it_gives_in_a_batch(encoder: Encoder):
    obs = random_obs(2, 3, encoder.image_size)
    alone = encoder(Obs(visual=obs["visual"][:1, 2:], proprio=obs["proprio"][:1, 2:]))
    torch.testing.assert_close(alone, encoder(obs)[:1, 2:])


@torch.no_grad()
def test_frames_of_another_size_are_resized(encoder: Encoder):
    side = encoder.image_size + 5
    own, other = random_obs(1, 2, encoder.image_size), random_obs(1, 2, side)
    assert encoder(other).shape == encoder(own).shape
    colour = torch.tensor([200, 30, 90], dtype=torch.uint8)  # one colour stays itself at any size
    flat = [colour.expand(1, 2, size, size, 3) for size in (encoder.image_size, side)]
    expected, found = (encoder(Obs(visual=visual, proprio=own["proprio"])) for visual in flat)
    torch.testing.assert_close(found, expected)


def test_a_frozen_encoder_does_not_move_while_the_model_trains(cfg: DictConfig):
    model = build_model(cfg)
    if not model.encoder.frozen:
        pytest.skip("trained with the model")
    before = [tensor.clone() for tensor in (*model.encoder.parameters(), *model.encoder.buffers())]
    predictor = [parameter.clone() for parameter in model.predictor.parameters()]
    train_once(model, cfg)
    assert not any(module.training for module in model.encoder.modules())
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in model.encoder.parameters())
    assert not model.encoder(random_obs(1, 1, model.encoder.image_size)).requires_grad
    after = (*model.encoder.parameters(), *model.encoder.buffers())
    assert all(torch.equal(a, b) for a, b in zip(after, before, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(model.predictor.parameters(), predictor, strict=True))


def test_a_trained_encoder_gets_a_gradient_in_every_parameter(cfg: DictConfig):
    model = build_model(cfg)
    if model.encoder.frozen:
        pytest.skip("frozen")
    train_once(model, cfg)
    gradients = {name: parameter.grad for name, parameter in model.encoder.named_parameters()}
    assert gradients
    assert [name for name, gradient in gradients.items() if gradient is None or not gradient.any()] == []


def test_the_hash_names_the_weights(cfg: DictConfig, encoder: Encoder):
    assert weights_hash(build_encoder(cfg, seed=0)) == weights_hash(encoder)
    if encoder.state_dict():
        assert weights_hash(build_encoder(cfg, seed=1)) != weights_hash(encoder)


def test_the_hash_feels_a_single_changed_weight():
    encoder = RandomPatch(image_size=6, grid=3, embed_dim=5, seed=0)
    before = weights_hash(encoder)
    encoder.project.weight[4, 2, 1, 0] += 1e-6
    assert weights_hash(encoder) != before


@pytest.mark.parametrize(
    "encoder",
    [RandomPatch(image_size=6, grid=3, embed_dim=5, seed=0), Pixels(grid=3, patch_size=2)],
    ids=["random_patch", "pixels"],
)
def test_a_changed_patch_changes_its_own_token_alone(encoder: Encoder):
    obs = random_obs(1, 1, 6)
    tokens = encoder(obs)
    for row in range(3):
        for column in range(3):
            visual = obs["visual"].clone()
            visual[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] += 1
            moved = (encoder(Obs(visual=visual, proprio=obs["proprio"])) != tokens).any(-1)[0, 0]
            assert moved.nonzero().flatten().tolist() == [3 * row + column]


def test_pixels_are_the_frame_in_minus_one_to_one_cut_into_patches():
    obs = random_obs(2, 1, 6)
    expected = rearrange(obs["visual"] / 127.5 - 1, "b t (r h) (c w) rgb -> b t (r c) (rgb h w)", h=2, w=2)
    torch.testing.assert_close(Pixels(grid=3, patch_size=2)(obs), expected)


@pytest.mark.parametrize(
    ("build", "settings", "message"),
    [
        (RandomPatch, {"image_size": 7, "grid": 3, "embed_dim": 5, "seed": 0}, r"image_size \(7\).*grid \(3\)"),
        (RandomPatch, {"image_size": 6, "grid": 0, "embed_dim": 5, "seed": 0}, r"grid.*must be positive"),
        (RandomPatch, {"image_size": 6, "grid": 3, "embed_dim": 0, "seed": 0}, r"embed_dim \(0\)"),
        (Pixels, {"grid": 3, "patch_size": 0}, r"image_size \(0\)"),
        (State, {"embed_dim": 3, "velocity_weight": 1.0, "seed": 0}, r"embed_dim \(3\) must be at least 4"),
        (SmallLeWM, SMALL_LEWM | {"image_size": 20}, r"image_size \(20\) must be a multiple of 8"),
        (SmallLeWM, SMALL_LEWM | {"embed_dim": 0}, r"embed_dim \(0\)"),
        (LeWM, LEWM | {"image_size": 30}, r"image_size \(30\).*patch_size \(14\)"),
        (LeWM, LEWM | {"image_size": 0}, r"image_size \(0\)"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_by_name(build: type[Encoder], settings: dict, message: str):
    with pytest.raises(ValueError, match=message):
        build(**settings)
