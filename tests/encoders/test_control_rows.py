"""Control rows: one token that has lost where things are, and encoders without weights at the token counts of others."""

import pytest
import torch
from hydra.utils import instantiate
from in_process import build_encoder, encoder_config

SIZES = {
    "dinov2": {"architecture": {"embed_dim": 48, "depth": 1, "num_heads": 3}, "image_size": 42},
    "dinov3": {"architecture": {"embed_dim": 48, "depth": 1, "num_heads": 3}, "image_size": 48},
    "siglip2": {"architecture": {"embed_dim": 48, "depth": 1, "num_heads": 3}, "image_size": 48},
}


@torch.no_grad()
@pytest.mark.parametrize("name", SIZES)
def test_the_mean_of_patches_is_one_token_the_mean_of_those_of_the_same_network(name: str):
    pixels = torch.randn(2, 3, *[SIZES[name]["image_size"]] * 2, generator=torch.Generator().manual_seed(0))
    patches, mean = (build_encoder(row, **SIZES[name]) for row in (name, f"{name}_mean"))
    assert (mean.num_tokens, mean.embed_dim) == (1, patches.embed_dim) and patches.num_tokens == 9
    torch.testing.assert_close(mean.tokens(pixels), patches.tokens(pixels).mean(1, keepdim=True))


@pytest.mark.parametrize("name", ["pixels", "random_patch"])
@pytest.mark.parametrize("side", [4, 7, 8, 14])
def test_encoders_without_weights_have_as_many_tokens_as_others_by_one_setting(name: str, side: int):
    encoder = instantiate(encoder_config(name, f"encoder.grid={side}"))
    assert encoder.grid == (side, side)
    if name == "random_patch":
        assert encoder.image_size == 8 * side, "64 pixels at the default grid, as ever"
