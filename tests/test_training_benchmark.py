"""The training benchmark compares like with like: both ways compute the same loss and gradient."""

import runpy
from pathlib import Path

import pytest
import torch

TINY = (
    *("encoder.image_size=28", "++encoder.architecture={embed_dim:24,depth:1,num_heads:2}"),
    *("predictor.depth=2", "predictor.num_heads=2", "predictor.head_dim=6", "predictor.mlp_dim=11"),
    *("decoder.channel=4", "decoder.num_res_blocks=1", "decoder.res_channel=3", "decoder.num_codes=7"),
)
TINY_LEWM = (
    *("encoder.image_size=28", "encoder.width=12", "encoder.depth=1", "encoder.embed_dim=6", "encoder.projector_dim=9"),
    *("predictor.depth=1", "predictor.num_heads=2", "predictor.head_dim=6", "predictor.mlp_dim=11"),
    *("predictor.projector_dim=9", "training.regularizer.num_directions=5"),
)
RATES = ("steps_per_s_plain", "steps_per_s_fp32", "speedup_fp32", "speedup", "fraction_of_peak_fp32", "twice_the_batch")


@pytest.fixture(scope="module")
def script() -> dict:
    folder = Path(__file__).parents[1] / "benchmarks"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        names = runpy.run_path(str(folder / "training.py"))
    names["measure"].__globals__["matmul_peak"] = lambda device, dtype: 1e12  # seconds to measure
    return names


def test_the_plain_and_the_fast_way_compute_the_same_loss_and_gradient(script: dict):
    figures = script["dino_wm"](torch.device("cpu"), 3, 1, frame_size=32, overrides=TINY, dtype="float32")
    assert figures["loss_difference"] < 1e-6 and figures["gradient_difference"] < 1e-4
    assert all(figures[name] > 0 for name in (*RATES, "encoded_frames_per_s", "twice_the_steps", "peak_memory_bytes"))
    assert 0 <= figures["loader_share"] < 1
    assert figures["speedup_bf16"] is None and figures["bf16"] == "null: for GPUs"


def test_it_measures_lewm_too(script: dict):
    figures = script["lewm"](torch.device("cpu"), 3, 1, frame_size=28, overrides=TINY_LEWM)
    assert all(figures[name] > 0 for name in RATES)


def test_the_small_lewm_takes_the_steps_that_it_took_before(script: dict):
    tiny = ("encoder.widths=[3,4]", "training.regularizer.num_directions=5", "predictor.depth=1", "predictor.mlp_dim=11")
    figures = script["lewm_small"](torch.device("cpu"), 1, batch_size=3, frame_size=64, overrides=tiny)
    assert figures["lewm_small_loss_difference"] < 1e-5
    assert figures["speedup_lewm_small"] > 0 and figures["lewm_small_steps_per_s_before"] > 0
    assert figures["lewm_small_fastest"] in ("before", "fp32", "bf16")


def test_a_difference_between_the_ways_would_be_seen(script: dict, tmp_path: Path):
    """Another attention mask: of the frames themselves alone."""
    device = torch.device("cpu")
    _, windows, model = script["build"](tmp_path, [*script["DINO_WM"], *TINY], 3, 32, device)
    plain = script["plainly"](model)
    kept = windows  # frames of the same windows
    assert script["differences"](model, plain, windows, kept, 3, device)["loss_difference"] < 1e-6
    for module in plain.predictor.modules():
        if hasattr(module, "mask"):
            module.mask = torch.eye(len(module.mask))
    found = script["differences"](model, plain, windows, kept, 3, device)
    assert found["loss_difference"] > 1e-4 and found["gradient_difference"] > 1e-2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_training_at_dino_wms_geometry_fits_a_common_card(script: dict):
    figures = script["dino_wm"](torch.device("cuda"), 32, 1)
    assert figures["peak_memory_bytes"] < 20e9
