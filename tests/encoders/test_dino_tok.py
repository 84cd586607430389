"""Tokenizers trained here: DINOv3's tokens with texture beside them, a VAE's mean, and heads that fit or are refused."""

from pathlib import Path

import pytest
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from in_process import encoder_config
from safetensors.torch import load_file, save_file

from wmbench.encoders.dino_tok import DinoTok
from wmbench.encoders.latent_vae import LatentVAE, divergence
from wmbench.encoders.tokenizer import Tokenizer
from wmbench.shapes import Obs

TINY = {"depth": 12, "embed_dim": 48, "num_heads": 3}
SIZE = ["encoder.pretrained=false", "encoder.backbone.image_size=32"]


def build(name: str = "dino_tok", *settings: str, **given) -> Tokenizer:
    return instantiate(encoder_config(name, *SIZE, *settings), **{"architecture": TINY, **given})


@pytest.fixture(scope="module")
def dino_tok() -> DinoTok:
    encoder = build("dino_tok", "encoder.texture_dim=5")
    assert isinstance(encoder, DinoTok)
    return encoder


@torch.no_grad()
def test_deep_features_are_the_backbones_own_tokens(dino_tok: DinoTok):
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    tokens = dino_tok.tokens(pixels)
    assert tokens.shape == (2, 4, 48 + 5)
    assert torch.equal(tokens[..., :48], dino_tok.backbone.tokens(pixels))


@torch.no_grad()
def test_texture_is_read_from_the_patches_behind_the_first_and_the_third_block(dino_tok: DinoTok):
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    seen = {}
    for index, block in enumerate(dino_tok.backbone.trunk.blocks):
        block.register_forward_hook(lambda module, inputs, output, index=index: seen.update({index + 1: output}))
    tokens = dino_tok.tokens(pixels)
    shallow = torch.cat([seen[1], seen[3]], dim=-1)[:, -4:]  # the last four tokens are the patches
    normal = (shallow - shallow.mean(-1, keepdim=True)) / (shallow.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    head = dino_tok.head.state_dict()
    torch.testing.assert_close(tokens[..., 48:], normal @ head["texture.weight"].T + head["texture.bias"])


def test_frames_that_differ_in_texture_alone_differ_in_their_texture_features(dino_tok: DinoTok):
    smooth = torch.full((1, 1, 32, 32, 3), 120, dtype=torch.uint8)
    rough = smooth.clone()
    rough[:, :, ::2, ::2] += 8
    rough[:, :, 1::2, 1::2] -= 8
    a, b = (dino_tok(Obs(visual=visual, proprio=torch.zeros(1, 1, 4)))[..., 48:] for visual in (smooth, rough))
    assert (a - b).norm() > 0.01 * a.norm()


@torch.no_grad()
def test_quantised_tokens_are_the_codes_nearest_to_the_continuous_ones(dino_tok: DinoTok):
    """Untrained codebooks weigh all features alike, so nearest is nearest by distance."""
    quantised = build("dino_tok_vq", "encoder.texture_dim=5", "encoder.num_codes=7")
    quantised.head.load_state_dict(dino_tok.head.state_dict(), strict=False)
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found, continuous = (encoder.tokens(pixels).split([48, 5], dim=-1) for encoder in (quantised, dino_tok))
    for tokens, whole, codebook in zip(found, continuous, quantised.head.codebooks, strict=True):
        codes = codebook.embed.T
        assert torch.equal(tokens, codes[(whole[..., None, :] - codes).norm(dim=-1).argmin(dim=-1)])
    assert quantised.source.startswith("reimplemented after DINO-Tok's abstract, quantised, head untrained")


def test_quantised_training_pulls_texture_towards_its_codes_and_lets_the_decoder_reach_it():
    tokenizer = build("dino_tok_vq", "encoder.texture_dim=5", "encoder.num_codes=7", "+encoder.for_training=true")
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    _, texture = tokenizer.parts(pixels)
    codes = tokenizer.head.codebooks[1].codes(texture)
    tokens, penalty = tokenizer.sample(pixels)
    torch.testing.assert_close(tokens[..., 48:], codes)
    torch.testing.assert_close(penalty, 0.25 * (texture - codes).square().mean())
    (through,) = torch.autograd.grad(tokens[..., 48:].sum(), tokenizer.head.texture.bias, retain_graph=True)
    assert through.tolist() == [8] * 5  # as if there were no codes, of 2 x 4 tokens
    (pull,) = torch.autograd.grad(penalty, tokenizer.head.texture.bias)
    torch.testing.assert_close(pull, 0.25 * 2 * (texture - codes).sum(dim=(0, 1)) / texture.numel())


def test_names_of_a_file_of_the_authors_are_translated_and_nothing_else_passes(
    dino_tok: DinoTok, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    own = dino_tok.head.state_dict()
    theirs = {f"encoder.shallow.{name}": tensor + 1 for name, tensor in own.items()}
    torch.save(theirs, tmp_path / "dino_tok.pth")
    wanted = ("dino_tok", "encoder.texture_dim=5", f"encoder.weights={tmp_path / 'dino_tok.pth'}")
    with pytest.raises(InstantiationException, match=r"missing norm\.weight.*DINO-Tok's authors have published none"):
        build(*wanted)
    monkeypatch.setattr(DinoTok, "official", {name: f"encoder.shallow.{name}" for name in own})
    loaded = build(*wanted).head.state_dict()
    assert all(torch.equal(loaded[name], tensor + 1) for name, tensor in own.items())
    torch.save({**theirs, "encoder.deep.weight": torch.zeros(3)}, tmp_path / "dino_tok.pth")
    with pytest.raises(InstantiationException, match=r"unknown encoder\.deep\.weight"):
        build(*wanted)


@pytest.mark.parametrize("name", ["dino_tok", "dino_tok_s", "dino_tok_vq", "vfm_vae_pointmaze"])
def test_a_missing_head_names_the_command_that_trains_it(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DATASET_DIR", str(tmp_path))
    with pytest.raises(InstantiationException, match=f"pretrain.py encoder={name} ") as error:
        build(name, "encoder.pretrained=true")
    assert f"no trained tokenizer {tmp_path / 'tokenizers' / name}.safetensors" in str(error.value.__cause__)


def test_the_source_says_what_is_trained_and_what_is_not(tmp_path: Path):
    untrained = build("dino_tok", seed=3)
    said = "reimplemented after DINO-Tok's abstract, head untrained, seed 3, over untrained, seed 3"
    assert (untrained.source, untrained.note) == (said, "reimplemented, head untrained")
    untrained.save_head(tmp_path / "head.safetensors", {})
    trained = build("dino_tok", weights=str(tmp_path / "head.safetensors"), seed=3)
    assert trained.source.startswith(f"reimplemented after DINO-Tok's abstract, trained on PointMaze ({tmp_path}")
    assert trained.note == "reimplemented, trained on PointMaze"


def test_backbone_and_head_follow_the_seed():
    same, other = (build("vfm_vae_pointmaze", seed=seed).state_dict() for seed in (0, 1))
    for name in ("backbone.trunk.blocks.0.attn.qkv.weight", "head.1.weight"):
        assert not torch.equal(same[name], other[name])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"texture.bias": None}, r"missing texture\.bias"),
        ({"deep.bias": torch.zeros(3)}, r"unknown deep\.bias"),
        ({"norm.weight": torch.zeros(95)}, r"norm\.weight is \(95,\) instead of \(96,\)"),
        ({}, r"trained with another backbone \(None"),  # the tensors without what they are tied to
    ],
)
def test_a_head_that_does_not_fit_is_refused_by_name(dino_tok: DinoTok, tmp_path: Path, changed: dict, message: str):
    path = tmp_path / "head.safetensors"
    dino_tok.save_head(path, {})
    state = {name: tensor for name, tensor in {**load_file(path), **changed}.items() if tensor is not None}
    save_file(state, path)
    with pytest.raises(InstantiationException, match=message):
        build("dino_tok", "encoder.texture_dim=5", weights=str(path))
    with pytest.raises(InstantiationException, match=r"missing codebooks\.0\.embed"):
        build("dino_tok_vq", "encoder.texture_dim=5", "encoder.num_codes=3", weights=str(path))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("encoder.seed=1", r"another backbone \("),
        ("encoder.backbone.image_size=48", r"another image_size \(32, here 48\)"),
        ("encoder.backbone.pixels=dino_wm", r"another pixel_mean \(\[0\.48"),
    ],
)
def test_a_head_of_another_backbone_or_other_pixels_is_refused(
    dino_tok: DinoTok, tmp_path: Path, setting: str, message: str
):
    dino_tok.save_head(tmp_path / "head.safetensors", {})
    weights = f"encoder.weights={tmp_path / 'head.safetensors'}"
    build("dino_tok", "encoder.texture_dim=5", weights)
    with pytest.raises(InstantiationException, match=message):
        build("dino_tok", "encoder.texture_dim=5", weights, setting)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("dino_tok", ["encoder.texture_dim=0"], r"texture_dim \(0\)"),
        ("dino_tok_vq", ["encoder.num_codes=0"], r"num_codes \(0\)"),
        ("dino_tok", ["encoder.backbone.output=cls"], "grid of tokens"),
        ("dino_tok", ["encoder.backbone.image_size=40"], r"image_size \(40\) must be a multiple of the patch \(16\)"),
        ("dino_tok", ["+encoder.for_training=true", "encoder.weights=a.safetensors"], "would go unread"),
        ("dino_tok", ["encoder@encoder.backbone=siglip2"], "not on TimmViT"),
        ("vfm_vae_pointmaze", ["encoder.z_dim=0"], r"z_dim \(0\)"),
        ("vfm_vae_pointmaze", ["encoder.kl_weight=-1"], r"kl_weight \(-1\)"),
    ],
)
def test_what_cannot_be_built_is_refused_by_name(name: str, settings: list[str], message: str):
    with pytest.raises(InstantiationException, match=message):
        build(name, *settings)


@torch.no_grad()
def test_a_vae_gives_its_mean_and_trains_on_samples_around_it():
    vae = build("vfm_vae_pointmaze", "encoder.z_dim=3", "encoder.kl_weight=0.5", "encoder@encoder.backbone=dinov3")
    assert isinstance(vae, LatentVAE)
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    mean, log_variance = vae.moments(pixels)
    assert torch.equal(vae.tokens(pixels), mean) and mean.shape == (2, 4, 3)
    torch.manual_seed(1)
    tokens, penalty = vae.sample(pixels)
    torch.manual_seed(1)
    torch.testing.assert_close((tokens - mean) / (log_variance / 2).exp(), torch.randn(2, 4, 3), rtol=1e-4, atol=1e-5)
    normal = torch.distributions.Normal(mean, (log_variance / 2).exp())
    expected = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0)).sum(-1).mean()
    torch.testing.assert_close(divergence(mean, log_variance), expected)
    torch.testing.assert_close(penalty, 0.5 * expected)
