"""Matched arms: what pooling, standardising and projecting promise, and that a run keeps them."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import load_file
from tiny_run import FROZEN, REST
from torch import Tensor

from wmbench.commands import encoder_config
from wmbench.data.normalizer import Normalizer, fit_normalizer
from wmbench.data.windows import Windows
from wmbench.encoders.base import Encoder, weights_hash
from wmbench.encoders.lewm import SmallLeWM
from wmbench.encoders.matched import Matched, matched, random_projection
from wmbench.encoders.pixels import Pixels
from wmbench.encoders.random_patch import RandomPatch
from wmbench.encoders.state import State
from wmbench.models.base import Predictor
from wmbench.models.projected import Projected
from wmbench.models.world_model import WorldModel
from wmbench.runs.build import UNMATCHED, build_world_model
from wmbench.runs.find import step_path
from wmbench.runs.folder import open_run
from wmbench.runs.load import load_run, save_weights
from wmbench.runs.store import load_resume, save_resume
from wmbench.shapes import Obs

ALL = {"pool": 2, "width": 7, "standardise": True}
OFF = {"pool": None, "width": None, "standardise": False}
PATCHES = FROZEN["encoder"] | {"grid": 4}
RUN = FROZEN | REST | {"encoder": PATCHES, "frameskip": 2, "proprio_embed_dim": 3}
NO_SCALE = Normalizer(torch.zeros(2), torch.ones(2), torch.zeros(4), torch.ones(4))


def patches(grid: int = 4, embed_dim: int = 5) -> RandomPatch:
    return RandomPatch(image_size=2 * grid, grid=grid, embed_dim=embed_dim, seed=0)


def trained() -> SmallLeWM:
    return SmallLeWM(image_size=8, widths=[3, 4], embed_dim=5, projector_dim=6)


def random_obs(batch: int, frames: int, side: int) -> Obs:
    generator = torch.Generator().manual_seed(1)
    visual = torch.randint(0, 256, (batch, frames, side, side, 3), dtype=torch.uint8, generator=generator)
    return Obs(visual=visual, proprio=torch.randn(batch, frames, 4, generator=generator))


@pytest.fixture
def windows(numbered_episodes: Callable) -> Windows:
    """24 windows of 3 frames; their pixels are noise."""
    episodes = numbered_episodes(num_episodes=4, length=11)
    episodes.pixels = np.random.default_rng(0).integers(0, 256, episodes.pixels.shape, dtype=np.uint8)
    return Windows(episodes, np.arange(4), num_frames=3, frameskip=2)


def config(**changed: object) -> DictConfig:
    return OmegaConf.create(RUN | changed)


def build(cfg: DictConfig) -> WorldModel:
    torch.manual_seed(0)
    return build_world_model(cfg, NO_SCALE)


def fitted(model: WorldModel, windows: Windows) -> WorldModel:
    assert isinstance(model.encoder, Matched)
    model.encoder.fit(windows, model.normalizer)
    return model


def test_a_pooled_token_is_the_mean_of_its_square_and_tokens_stay_row_major():
    encoder = patches(grid=6)
    pooled = Matched(encoder, pool=3, width=None, standardise=False)
    obs = random_obs(2, 3, 12)
    tokens, found = encoder(obs), pooled(obs)
    assert (pooled.grid, pooled.num_tokens, found.shape) == ((3, 3), 9, (2, 3, 9, 5))
    for row in range(3):
        for column in range(3):
            corner = 6 * 2 * row + 2 * column
            expected = sum(tokens[:, :, corner + step] for step in (0, 1, 6, 7)) / 4
            torch.testing.assert_close(found[:, :, 3 * row + column], expected)


def test_features_have_mean_zero_and_variance_one_over_the_frames_they_were_measured_on(windows: Windows):
    encoder = patches()
    encoder.project.weight[1] *= 300.0
    encoder.project.weight[2] = 0.0  # this feature never moves
    arm = Matched(encoder, pool=2, width=None, standardise=True)
    arm.fit(windows, NO_SCALE)
    tokens = arm(windows.get(np.arange(len(windows))).obs).flatten(0, 2)
    assert len(tokens) == 24 * 3 * 4
    torch.testing.assert_close(tokens.mean(0), torch.zeros(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(tokens.std(0, unbiased=False), torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0]))


def test_by_token_each_token_has_mean_zero_and_variance_one_so_that_a_still_scene_does_not_count(windows: Windows):
    shared, own = (Matched(patches(), pool=2, width=None, standardise=True, by_token=value) for value in (False, True))
    frames = windows.get(np.arange(len(windows))).obs
    for arm in (shared, own):
        arm.fit(windows, NO_SCALE)
    tokens = own(frames).flatten(0, 1)
    torch.testing.assert_close(tokens.mean(0), torch.zeros(4, 5), atol=1e-5, rtol=0)
    torch.testing.assert_close(tokens.std(0, unbiased=False), torch.ones(4, 5))
    assert own.source == "untrained, seed 0, pooled to 2 x 2, standardised by token"
    assert not torch.allclose(shared(frames).flatten(0, 1).mean(0), torch.zeros(4, 5), atol=1e-3)


def test_statistics_come_from_a_bounded_number_of_evenly_spread_frames(windows: Windows):
    arm = Matched(patches(), pool=None, width=None, standardise=True)
    arm.fit(windows, NO_SCALE, num_frames=11)  # three windows of three frames: the first, a middle one, the last
    tokens = arm(windows.get(np.array([0, 11, 23])).obs).flatten(0, 2)
    torch.testing.assert_close(tokens.mean(0), torch.zeros(5), atol=1e-5, rtol=0)
    before = tokens.clone()
    arm.fit(windows, NO_SCALE, num_frames=11)
    assert torch.equal(arm(windows.get(np.array([0, 11, 23])).obs).flatten(0, 2), before)


def test_an_encoder_that_reads_proprio_is_measured_on_what_the_world_model_gives_it(windows: Windows):
    normalizer = fit_normalizer(windows.episodes)
    encoder = Matched(State(embed_dim=6, velocity_weight=0.2, seed=0), pool=None, width=4, standardise=True)
    encoder.fit(windows, normalizer)
    obs = windows.get(np.arange(len(windows))).obs
    tokens = encoder(Obs(visual=obs["visual"], proprio=normalizer.normalize_proprio(obs["proprio"]))).flatten(0, 2)
    torch.testing.assert_close(tokens.mean(0), torch.zeros(4), atol=1e-5, rtol=0)


def test_tokens_are_not_a_number_until_they_are_measured():
    assert Matched(patches(), **ALL)(random_obs(1, 1, 8)).isnan().all()


@pytest.mark.parametrize(("before", "after"), [(7, 19), (19, 7)], ids=["wider", "narrower"])
def test_a_projection_keeps_mean_squares_and_is_the_same_each_time(before: int, after: int):
    matrix = random_projection(before, after)
    x = torch.randn(20_000, before, generator=torch.Generator().manual_seed(2))
    ratio = (x @ matrix).square().mean(1) / x.square().mean(1)
    if after > before:
        torch.testing.assert_close(ratio, torch.ones(20_000))
    else:
        torch.testing.assert_close(matrix.T @ matrix, torch.eye(after))
        assert abs(ratio.mean() - 1) < 0.02
    assert torch.equal(matrix, random_projection(before, after))


def test_a_large_feature_does_not_fill_the_projected_ones(windows: Windows):
    encoder = patches(embed_dim=6)
    plain, loud = Matched(encoder, pool=None, width=4, standardise=True), patches(embed_dim=6)
    loud.project.weight[3] *= 1000.0
    loud = Matched(loud, pool=None, width=4, standardise=True)
    plain.fit(windows, NO_SCALE)
    loud.fit(windows, NO_SCALE)
    obs = random_obs(1, 2, 8)
    torch.testing.assert_close(loud(obs), plain(obs), atol=1e-4, rtol=1e-4)


def test_the_rest_of_the_contract_is_the_encoders_own():
    encoder = patches()
    encoder.lookback, encoder.prefix_tokens, encoder.licence = 1, 5, "Apache-2.0"
    arm = Matched(encoder, **ALL)
    assert (arm.grid, arm.embed_dim, arm.image_size, arm.frozen) == ((2, 2), 7, 8, True)
    assert (arm.lookback, arm.prefix_tokens, arm.licence) == (1, 5, "Apache-2.0")
    assert arm.source == "untrained, seed 0, pooled to 2 x 2, standardised, projected to 7"
    assert not any(module.training for module in arm.train().modules())
    visual = random_obs(1, 2, 11)["visual"]
    plain = Matched(encoder, pool=2, width=7, standardise=False)
    torch.testing.assert_close(plain.tokens(plain.preprocess(visual)), plain(random_obs(1, 2, 11)).flatten(0, 1))


def test_a_width_that_the_encoder_has_changes_nothing():
    arm, obs = Matched(patches(), pool=4, width=5, standardise=False), random_obs(1, 2, 8)
    assert torch.equal(arm(obs), patches()(obs))
    assert arm.projection is None and "projected" not in arm.source


def test_a_trained_encoder_learns_through_its_projection():
    arm = matched(trained(), pool=None, width=9, standardise=False).train()
    assert arm.training and not arm.frozen
    arm(random_obs(3, 2, 8)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in arm.parameters())
    assert len(list(arm.parameters())) == len(list(trained().parameters()))


@pytest.mark.parametrize(
    ("encoder", "changed", "message"),
    [
        (patches(), {"pool": 3}, r"matched\.pool \(3\) must divide the encoder's 4 x 4 tokens: 1, 2, 4"),
        (patches(), {"pool": 8}, r"matched\.pool \(8\) must divide"),
        (patches(), {"pool": 0}, r"matched\.pool \(0\) must divide"),
        (trained(), {"pool": 1}, r"matched\.pool \(1\) needs a grid.*one token a frame"),
        (patches(), {"width": 0}, r"matched\.width \(0\) must be at least 1; null keeps the encoder's 5"),
        (patches(), {"projection": "fixed"}, r"matched\.projection \('fixed'\) must be one of random, learned"),
        (patches(), {"projection": "learned", "width": 0}, r"matched\.width \(0\) must be at least 1"),
        (trained(), {"standardise": True}, r"matched\.standardise=true needs a frozen encoder"),
        (
            patches(),
            {"by_token": True},
            r"matched\.by_token=true says how to standardise and needs matched\.standardise=true",
        ),
    ],
)
def test_what_cannot_be_matched_is_refused_by_name(encoder: Encoder, changed: dict, message: str):
    with pytest.raises(ValueError, match=message):
        matched(encoder, **OFF | changed)


@pytest.mark.parametrize(
    ("name", "pool", "message"),
    [
        ("vjepa2", 7, r"16 x 16 tokens: 1, 2, 4, 8, 16; or take encoder\.image_size=224, which gives 14 x 14$"),
        ("vjepa2", 20, r"16 x 16 tokens: .*; or take encoder\.image_size=320, which gives 20 x 20$"),
        ("vjepa2", 0, r"16 x 16 tokens: 1, 2, 4, 8, 16$"),
        ("dinov2", 8, r"14 x 14 tokens: 1, 2, 7, 14; or take encoder\.image_size=224, which gives 16 x 16$"),
        ("resnet18_layer3", 4, r"14 x 14 tokens: .*; or take encoder\.image_size=256, which gives 16 x 16$"),
        ("random_patch", 3, r"8 x 8 tokens: 1, 2, 4, 8$"),
        ("pixels", 3, r"8 x 8 tokens: 1, 2, 4, 8$"),
        ("dino_tok_s", 3, r"16 x 16 tokens: 1, 2, 4, 8, 16$"),
    ],
)
def test_a_grid_that_cannot_be_pooled_is_told_with_the_size_that_can(name: str, pool: int, message: str):
    settings = OmegaConf.create(encoder_config(name))
    if "pretrained" in settings:
        settings.pretrained = False
    if "architecture" in settings:
        settings.architecture = {"depth": 1, "embed_dim": 48, "num_heads": 3}
    encoder = instantiate(settings)
    with pytest.raises(ValueError, match=message):
        matched(encoder, **OFF | {"pool": pool})
    if found := re.search(r"image_size=(\d+)", message):
        settings.image_size = int(found[1])
        assert matched(instantiate(settings), **OFF | {"pool": pool}).grid == (pool, pool)


def test_with_everything_off_the_model_is_the_one_without_the_setting():
    plain, off = build(config()), build(config(matched=OFF))
    assert type(off.encoder) is RandomPatch
    assert plain.state_dict().keys() == off.state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(plain.state_dict().values(), off.state_dict().values(), strict=True))


def saved(windows: Windows, folder: Path, settings: dict) -> tuple[Path, WorldModel]:
    cfg = config(ckpt_base_path=str(folder), **settings)
    model = build(cfg)
    run = open_run(cfg, model, windows.episodes)
    if isinstance(model.encoder, Matched):
        fitted(model, windows)
    save_weights(run, 20, model)
    return run, model.eval()


@torch.no_grad()
def test_a_loaded_run_computes_the_same_latents_without_the_data(windows: Windows, tmp_path: Path):
    run, model = saved(windows, tmp_path, {"matched": ALL})
    windows.episodes.path.unlink()
    loaded, _, provenance = load_run(run)
    obs = random_obs(2, 3, 8)
    assert torch.equal(loaded.encode(obs), model.encode(obs))
    assert loaded.encode(obs).isfinite().all() and loaded.encode(obs).shape == (2, 3, 4, 7 + 3)
    assert provenance["encoder"]["source"].endswith("pooled to 2 x 2, standardised, projected to 7")
    assert provenance["encoder"]["weights_hash"] == weights_hash(instantiate(config().encoder))


def test_a_run_keeps_what_matching_adds_and_leaves_the_frozen_encoder_out(windows: Windows, tmp_path: Path):
    run, _ = saved(windows, tmp_path, {"matched": ALL})
    held = {name: tensor for name, tensor in load_file(step_path(run, 20)).items() if name.startswith("encoder.")}
    assert {name: tuple(tensor.shape) for name, tensor in held.items()} == {
        "encoder.mean": (5,),
        "encoder.std": (5,),
        "encoder.projection": (5, 7),
    }
    edited = OmegaConf.load(run / "config.yaml")
    OmegaConf.save(OmegaConf.merge(edited, {"encoder": {"seed": 1}}), run / "config.yaml")
    with pytest.raises(ValueError, match=rf"was trained on encoder weights {weights_hash(patches())}"):
        load_run(run)
    OmegaConf.save(OmegaConf.merge(edited, {"matched": {"standardise": False}}), run / "config.yaml")
    with pytest.raises(ValueError, match=r"unknown encoder\.mean"):
        load_run(run)


def test_statistics_come_back_when_training_goes_on(windows: Windows, tmp_path: Path):
    _, model = saved(windows, tmp_path, {"matched": ALL})
    optimizer = torch.optim.AdamW(model.parameters())
    save_resume(tmp_path, 3, model, optimizer)
    other = build(config(matched=ALL))
    assert load_resume(tmp_path, other, torch.optim.AdamW(other.parameters())) == 3
    obs = random_obs(2, 3, 8)
    assert torch.equal(other.encoder(obs), model.encoder(obs))


def test_a_run_older_than_the_setting_loads_and_goes_on(windows: Windows, tmp_path: Path):
    run, model = saved(windows, tmp_path, {})
    assert "matched" not in OmegaConf.load(run / "config.yaml")
    loaded, cfg, _ = load_run(run)
    assert type(loaded.encoder) is RandomPatch and cfg.matched == UNMATCHED
    newer = config(ckpt_base_path=str(tmp_path), matched=OFF)
    assert open_run(newer, model, windows.episodes) == run
    with pytest.raises(ValueError, match=r"holds a run with other matched\.pool;"):
        open_run(config(ckpt_base_path=str(tmp_path), matched=OFF | {"pool": 2}), model, windows.episodes)
    assert json.loads((run / "provenance.json").read_text())["encoder"]["source"] == "untrained, seed 0"


def test_pixels_are_pooled_like_any_other_grid():
    arm = Matched(Pixels(grid=4, patch_size=1), pool=2, width=None, standardise=False)
    halved: Tensor = torch.nn.functional.avg_pool2d(arm.preprocess(random_obs(1, 1, 4)["visual"]), 2)
    torch.testing.assert_close(arm(random_obs(1, 1, 4))[0, 0].T.reshape(3, 2, 2), halved[0])


def test_each_token_has_mean_zero_and_variance_one_after_its_norm_and_statistics_are_of_that(windows: Windows):
    arm = Matched(patches(), pool=2, width=None, standardise=False, layer_norm=True)
    tokens = arm(random_obs(2, 3, 8))
    torch.testing.assert_close(tokens.mean(-1), torch.zeros(2, 3, 4), atol=1e-5, rtol=0)
    torch.testing.assert_close(tokens.var(-1, correction=0), torch.ones(2, 3, 4), atol=5e-3, rtol=0)  # less its eps
    assert arm.changes == ["pooled to 2 x 2", "layer-normalised"] and not list(arm.parameters(recurse=False))
    both = Matched(patches(), pool=2, width=None, standardise=True, layer_norm=True)
    both.fit(windows, NO_SCALE)
    shown = both(windows.get(np.arange(len(windows))).obs).flatten(0, 2)
    torch.testing.assert_close(shown.mean(0), torch.zeros(5), atol=1e-5, rtol=0)


def test_a_learned_projection_leaves_tokens_as_they_are_and_the_predictor_learns_it():
    """In the encoder's own features, of whatever scale: here a constant that no LayerNorm could give."""
    model = build(config(matched=OFF | {"width": 6, "projection": "learned"}))
    assert type(model.encoder) is RandomPatch and isinstance(model.predictor, Projected)
    assert (model.predictor.inward.in_features, model.predictor.inward.out_features) == (5 + 3, 6)
    z, action = torch.randn(4, 2, 16, 8, generator=torch.Generator().manual_seed(0)), torch.zeros(4, 2, 4)
    target = torch.full_like(z, 40.0)
    optimizer = torch.optim.Adam(model.predictor.parameters(), lr=0.3)
    for _ in range(200):
        optimizer.zero_grad()
        loss = model.predictor.loss(z, action, target).total
        loss.backward()
        optimizer.step()
    assert loss < 5 and all(parameter.grad is not None for parameter in model.predictor.parameters())


@torch.no_grad()
@pytest.mark.parametrize("width", [None, 6])
def test_a_rollout_between_learned_layers_is_the_prediction_repeated(width: int | None):
    """Each frame from the head's latents of the frames before it, as training shows them."""
    model = build(config(matched=OFF | {"width": width, "projection": "learned"})).eval()
    generator = torch.Generator().manual_seed(1)
    z, past, plans = (torch.randn(size, generator=generator) for size in ((2, 2, 16, 8), (2, 1, 4), (2, 3, 4, 4)))
    found = model.rollout(z, past, plans)
    for task in range(2):
        for plan in range(3):
            frames, actions = list(z[task]), list(past[task])
            for block in plans[task, plan]:
                actions.append(block)
                window, blocks = torch.stack(frames[-2:])[None], torch.stack(actions[-2:])[None]
                frames.append(model.predict(window, blocks)[0, -1])
            torch.testing.assert_close(found[task, plan], torch.stack(frames[2:]), atol=1e-5, rtol=1e-5)


def test_a_predictor_without_a_window_has_no_learned_projection():
    with pytest.raises(ValueError, match=r"matched\.projection=learned needs a predictor that sees a window.*Alone does"):
        Projected(Alone, dim=3, width=4)


class Alone(Predictor):
    def __init__(self, dim: int):
        super().__init__()

    def forward(self, z: Tensor, action: Tensor) -> Tensor:
        return z

    def begin(self, z: Tensor, past: Tensor, num_plans: int) -> Tensor:
        return z

    def step(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        return state, state
