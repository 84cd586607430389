"""Decoders: the original's numbers and names, and quantisation by its definition."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from wmbench.encoders.codebook import Codebook
from wmbench.models.decoder import (
    COMMITMENT,
    TransposedConvDecoder,
    VQVAEDecoder,
    decode_frames,
    decoder_loss,
    frames_to_pixels,
    pixels_to_frames,
)

TINY = {"channel": 8, "num_res_blocks": 1, "res_channel": 4, "num_codes": 16}  # of the record, seen in its weights


@pytest.fixture
def record(golden: Path) -> SimpleNamespace:
    return SimpleNamespace(**torch.load(golden / "world_model_tiny.pt", weights_only=True))


@pytest.fixture
def recorded_decoder(record: SimpleNamespace) -> VQVAEDecoder:
    decoder = VQVAEDecoder(dim=16, grid=(2, 2), quantize=False, **TINY)
    decoder.load_state_dict(record.decoder)
    return decoder.eval()


def make(**changed) -> VQVAEDecoder:
    torch.manual_seed(0)
    settings = {"dim": 5, "grid": (2, 3), "channel": 6, "num_res_blocks": 2, "res_channel": 4, "num_codes": 7}
    return VQVAEDecoder(**settings | {"quantize": True} | changed)


def latents(frames: int, tokens: int, dim: int) -> Tensor:
    return torch.randn(frames, tokens, dim, generator=torch.Generator().manual_seed(1))


def test_decoded_frames_are_the_originals(
    recorded_decoder: VQVAEDecoder, record: SimpleNamespace, assert_recorded: Callable
):
    pixels, diff = recorded_decoder(record.z[..., :16].flatten(0, 1))
    assert_recorded(pixels.view_as(record.decoded), record.decoded)
    assert diff == 0


@pytest.mark.parametrize("kind", ["reconstructed", "pred"])
def test_losses_are_the_originals(
    kind: str, recorded_decoder: VQVAEDecoder, record: SimpleNamespace, assert_recorded: Callable
):
    z, frames = (
        (record.z, record.obs["visual"]) if kind == "reconstructed" else (record.predict["T3"], record.obs["visual"][:, 1:])
    )
    loss = decoder_loss(recorded_decoder, z[..., :16].flatten(0, 1), frames.flatten(0, 1))
    assert_recorded(loss.parts["reconstruction"][None], record.loss[f"decoder_recon_loss_{kind}"])
    assert_recorded(loss.total[None], record.loss[f"decoder_loss_{kind}"])
    assert loss.parts["diff"] == record.loss[f"decoder_vq_loss_{kind}"].item() == 0
    if kind == "reconstructed":
        assert_recorded(loss.total[None] + record.loss["z_loss"], record.loss["loss"])


def test_the_released_size_has_the_originals_number_of_parameters():
    decoder = VQVAEDecoder(384, (14, 14), channel=384, num_res_blocks=4, res_channel=128, num_codes=2048, quantize=False)
    assert sum(p.numel() for p in decoder.parameters()) == 10_140_163
    assert sum(b.numel() for b in decoder.buffers()) == 1_574_912


@pytest.mark.parametrize(("image_size", "side"), [(None, (32, 48)), (32, (32, 32)), (9, (9, 9))])
def test_a_grid_gives_16_pixels_a_token_unless_frames_have_another_size(image_size: int | None, side: tuple[int, int]):
    pixels, _ = make(image_size=image_size)(latents(4, 6, 5))
    assert pixels.shape == (4, 3, *side)


@pytest.mark.parametrize("image_size", [224, 20])
def test_one_token_gives_a_frame(image_size: int):
    torch.manual_seed(0)
    decoder = TransposedConvDecoder(dim=5, image_size=image_size)
    sizes: list[int] = []
    for layer in decoder.layers:
        if isinstance(layer, nn.ConvTranspose2d):
            layer.register_forward_hook(lambda layer, inputs, output: sizes.append(output.shape[-1]))
    pixels, diff = decoder(latents(2, 1, 5))
    assert pixels.shape == (2, 3, image_size, image_size) and diff == 0
    assert sizes == [3, 9, 27, 81, 243]
    assert (pixels[0] - pixels[1]).std() > 0.01  # initialisation keeps the signal alive through all layers
    assert (pixels < 0).any()


def test_a_decoder_for_the_other_kind_of_latent_is_refused_with_the_way_out():
    with pytest.raises(ValueError, match=r"there is one token: use decoder=transposed_conv"):
        make(grid=(1, 1))
    with pytest.raises(ValueError, match=r"not from 2 x 3: use decoder=vqvae"):
        TransposedConvDecoder(dim=5, image_size=20, grid=(2, 3))


def test_every_token_becomes_its_nearest_code():
    codebook, x = Codebook(dim=5, num_codes=7).eval(), latents(4, 6, 5)
    codes, diff = codebook(x)
    for frame in range(4):
        for token in range(6):
            distances = [(x[frame, token] - codebook.embed[:, k]).square().sum().item() for k in range(7)]
            torch.testing.assert_close(codes[frame, token], codebook.embed[:, distances.index(min(distances))])
    torch.testing.assert_close(diff, (codes - x).square().mean())


def test_the_gradient_passes_straight_through_quantisation():
    """What the decoder's convolutions pass back to the codes arrives at the latents unchanged."""
    decoder = make().eval()
    plain = make(quantize=False).eval()
    plain.load_state_dict(decoder.state_dict())
    x = latents(4, 6, 5).requires_grad_()
    codes = decoder.quantize_b(x)[0].detach().requires_grad_()
    decoder(x)[0].square().sum().backward()
    plain(codes)[0].square().sum().backward()
    assert x.grad is not None and x.grad.abs().max() > 0
    torch.testing.assert_close(x.grad, codes.grad)


def test_diff_pulls_latents_towards_their_codes():
    codebook, x = Codebook(dim=5, num_codes=7).eval(), latents(4, 6, 5).requires_grad_()
    codes, diff = codebook(x)
    diff.backward()
    torch.testing.assert_close(x.grad, 2 * (x - codes).detach() / x.numel())


def test_a_step_of_training_moves_the_codes_to_the_moving_averages():
    """cluster_size and embed_avg are averages with decay 0.99; a code is their ratio, with Laplace-smoothed counts."""
    codebook, x = Codebook(dim=5, num_codes=7).train(), latents(4, 6, 5)
    codebook.cluster_size.copy_(torch.arange(7.0))
    before = {name: buffer.clone() for name, buffer in codebook.named_buffers()}
    codebook(x)
    flat = x.flatten(0, 1)
    nearest = (flat[:, None] - before["embed"].T).square().sum(2).argmin(1)
    counts = torch.stack([(nearest == k).sum() for k in range(7)])
    sums = torch.stack([flat[nearest == k].sum(0) for k in range(7)], dim=1)
    size = 0.99 * before["cluster_size"] + 0.01 * counts
    average = 0.99 * before["embed_avg"] + 0.01 * sums
    torch.testing.assert_close(codebook.cluster_size, size)
    torch.testing.assert_close(codebook.embed_avg, average)
    smoothed = (size + 1e-5) / (size.sum() + 7 * 1e-5) * size.sum()
    torch.testing.assert_close(codebook.embed, average / smoothed)


@pytest.mark.parametrize(("training", "quantize"), [(False, True), (True, False)])
def test_codes_stay_outside_training_and_where_they_are_not_used(training: bool, quantize: bool):
    decoder = make(quantize=quantize).train(training)
    before = {name: buffer.clone() for name, buffer in decoder.named_buffers()}
    decoder(latents(4, 6, 5))
    assert before.keys() == {"quantize_b.embed", "quantize_b.cluster_size", "quantize_b.embed_avg"}
    assert all(torch.equal(buffer, before[name]) for name, buffer in decoder.named_buffers())


def test_nothing_behind_the_latents_learns_from_the_loss():
    x, decoder = latents(4, 6, 5).requires_grad_(), make(image_size=8)
    loss = decoder_loss(decoder, x, torch.zeros(4, 3, 8, 8))
    loss.total.backward()
    assert x.grad is None
    assert all(p.grad is not None for p in decoder.parameters())
    torch.testing.assert_close(loss.total, loss.parts["reconstruction"] + COMMITMENT * loss.parts["diff"])
    assert COMMITMENT == 0.25 and loss.parts["diff"] > 0


def test_frames_survive_the_way_to_pixels_and_back():
    frames = torch.arange(256, dtype=torch.uint8).repeat(3).view(2, 16, 8, 3)
    pixels = frames_to_pixels(frames)
    assert pixels.shape == (2, 3, 16, 8) and (pixels.min(), pixels.max()) == (-1, 1)
    assert (pixels_to_frames(pixels) == frames.numpy()).all()
    assert (pixels_to_frames(3 * pixels) == pixels_to_frames((3 * pixels).clamp(-1, 1))).all()


def test_many_frames_are_decoded_as_one_is(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("wmbench.models.decoder.DECODED_AT_ONCE", 2)
    decoder, x = make(image_size=9).eval(), latents(5, 6, 5)
    frames = decode_frames(decoder, x)
    assert frames.shape == (5, 9, 9, 3) and frames.dtype == "uint8"
    assert (frames[4] == pixels_to_frames(decoder(x[4:])[0])[0]).all()
