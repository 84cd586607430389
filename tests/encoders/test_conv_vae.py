"""World Models' V: its sizes, its loss, and a training by pretrain.py that a world model then reads."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from in_process import run_here
from torch.distributions import Normal, kl_divergence

from wmbench.encoders.conv_vae import NUM_PIXELS, ConvDecoder, ConvVAE, floored_divergence


def build(**settings) -> ConvVAE:
    given = {"z_dim": 5, "free_nats": 0.0, "pretrained": False, "weights": None, "file": "x.safetensors", "seed": 0}
    return ConvVAE(**(given | settings))


def test_a_frame_is_one_token_from_a_map_of_two_by_two_and_is_drawn_at_any_size():
    vae = build()
    assert [vae.head[layer].weight.shape for layer in (1, 3, 5, 7)] == [
        (32, 3, 4, 4),
        (64, 32, 4, 4),
        (128, 64, 4, 4),
        (256, 128, 4, 4),
    ]
    tokens = vae({"visual": torch.randint(256, (2, 3, 80, 80, 3), dtype=torch.uint8), "proprio": torch.zeros(2, 3, 4)})
    assert tokens.shape == (2, 3, 1, 5)
    pixels, diff = ConvDecoder(5, 40)(tokens[0])
    assert pixels.shape == (3, 3, 40, 40) and pixels.abs().max() <= 1 and diff == 0
    assert ConvDecoder(5, 64)(tokens[0])[0].shape == (3, 3, 64, 64)


def test_its_divergence_is_a_gaussians_with_a_floor_for_each_frame_and_weighs_as_published():
    torch.manual_seed(0)
    told = torch.randn(2, 4, 1, 3, dtype=torch.float64, requires_grad=True)
    mean, log_variance = told
    apart = kl_divergence(Normal(mean, (0.5 * log_variance).exp()), Normal(0.0, 1.0)).sum((1, 2))
    floor = apart.median().item() / 3
    torch.testing.assert_close(floored_divergence(mean, log_variance, floor), apart.clamp(min=3 * floor).mean())
    assert torch.autograd.gradcheck(lambda told: floored_divergence(told[0], told[1], 0.0), told)
    vae, pixels = build(for_training=True), torch.rand(4, 3, 64, 64)
    tokens, penalty = vae.sample(pixels)
    drawn = torch.tanh(torch.randn_like(pixels))
    published = ((drawn - pixels) / 2).square().sum((1, 2, 3)).mean() + floored_divergence(*vae.moments(pixels), 0.0)
    torch.testing.assert_close(((drawn - pixels).square().mean() + penalty) * NUM_PIXELS / 4, published)
    assert not torch.equal(tokens, vae.tokens(pixels)) and torch.equal(
        build().sample(pixels)[0].isfinite().all(), torch.tensor(True)
    )


def test_sizes_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match=r"encoder\.z_dim \(0\) must be positive, free_nats \(0\.0\) not negative"):
        build(z_dim=0)


def test_it_is_trained_by_pretrain_and_read_by_a_world_model(numbered_episodes: Callable, tmp_path: Path):
    data = numbered_episodes(num_episodes=4, length=12).path
    few = "training.max_steps=1 training.batch_size=2 training.valid_batches=1 device=cpu"
    told = run_here(tmp_path, f"pretrain.py encoder=conv_vae encoder.z_dim=3 env.data={data} output=v.safetensors {few}")
    assert "ball's position can be read linearly" in told and (tmp_path / "v" / "reconstructions.png").exists()
    words = (
        "encoder=conv_vae encoder.z_dim=3 encoder.weights=v.safetensors predictor=mdn_rnn predictor.hidden_dim=4 num_hist=2"
    )
    assert "trained: " in run_here(tmp_path, f"train.py {words} frameskip=3 env.data={data} {few}")
