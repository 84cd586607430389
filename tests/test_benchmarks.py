"""The benchmarks compare two ways that give the same results, and say what they measured."""

import importlib
import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from wmbench.envs import painter
from wmbench.models.attention import Attention
from wmbench.models.vit import FrameCausalViT

FOLDER = Path(__file__).parents[1] / "benchmarks"
SMALL = ("predictor.depth=2", "predictor.num_heads=2", "predictor.head_dim=8", "predictor.mlp_dim=32")
FAKE = """
import torch
from torch import nn

class Attention(nn.Module):
    def __init__(self, dim, heads, dim_head, dropout, patches, frames):
        super().__init__()
        self.heads, self.patches = heads, patches
        self.norm = nn.LayerNorm(dim)
        self.to_qkv = nn.Linear(dim, 3 * heads * dim_head, bias=False)
        self.to_out = nn.Sequential(nn.Linear(heads * dim_head, dim), nn.Dropout(dropout))

    def forward(self, x):
        frame = torch.arange(x.shape[1]) // self.patches
        attention = nn.functional.scaled_dot_product_attention
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in self.to_qkv(self.norm(x)).chunk(3, -1))
        return self.to_out(attention(q, k, v, attn_mask=frame[None] <= frame[:, None]).transpose(1, 2).flatten(2))

class FeedForward(nn.Module):
    def __init__(self, dim, hidden):
        super().__init__()
        self.net = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, hidden), nn.GELU(), nn.Dropout(), nn.Linear(hidden, dim), nn.Dropout()
        )

    def forward(self, x):
        return self.net(x)

class Transformer(nn.Module):
    def __init__(self, dim, depth, heads, dim_head, mlp_dim, dropout, patches, frames):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.layers = nn.ModuleList(
            nn.ModuleList([Attention(dim, heads, dim_head, dropout, patches, frames), FeedForward(dim, mlp_dim)])
            for _ in range(depth)
        )

class ViTPredictor(nn.Module):
    def __init__(self, *, num_patches, num_frames, dim, depth, heads, mlp_dim, pool="cls", dim_head=64, dropout=0.0):
        super().__init__()
        self.pos_embedding = nn.Parameter(torch.randn(1, num_frames * num_patches, dim))
        self.transformer = Transformer(dim, depth, heads, dim_head, mlp_dim, dropout, num_patches, num_frames)

    def forward(self, x):
        x = x + self.pos_embedding[:, : x.shape[1]]
        for attention, feed_forward in self.transformer.layers:
            x = attention(x) + x
            x = feed_forward(x) + x
        return self.transformer.norm(x)
"""


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch):
    """A benchmark as a module, as if it was started from its folder."""

    def load(name: str) -> ModuleType:
        monkeypatch.syspath_prepend(str(FOLDER))
        return importlib.import_module(name)

    return load


@pytest.fixture
def predictor() -> FrameCausalViT:
    torch.manual_seed(0)
    size = {"action_embed_dim": 3, "depth": 2, "num_heads": 3, "head_dim": 4, "mlp_dim": 11, "dropout": 0.1}
    return FrameCausalViT(5, 4, 3, 7, **size).eval()


@torch.no_grad()
def test_the_plain_predictor_is_ours_written_otherwise(load, predictor: FrameCausalViT):
    original = load("original")
    z, action = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 7)
    dense = original.densely(predictor, num_frames=3)
    torch.testing.assert_close(dense(z, action), predictor(z, action))
    assert not any(isinstance(module, Attention) for module in dense.children())
    assert sum(isinstance(module, original.DenseAttention) for module in dense.modules()) == 2


@torch.no_grad()
def test_a_checkout_of_the_published_predictor_takes_our_weights(load, predictor: FrameCausalViT, tmp_path: Path):
    original = load("original")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "vit.py").write_text(FAKE)
    z, action = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 7)
    theirs = original.TheirViT(tmp_path, predictor).eval()
    torch.testing.assert_close(theirs(z, action), predictor(z, action))
    torch.testing.assert_close(theirs(z[:, :2], action[:, :2]), predictor(z[:, :2], action[:, :2]))
    with pytest.raises(ValueError, match=r"is no checkout of DINO-WM: it has no models/vit\.py"):
        original.TheirViT(tmp_path / "models", predictor)


def test_each_product_costs_two_operations_a_term(load):
    """And its gradient as much again for each factor that needs one."""
    operations_of = load("operations").operations_of
    x, weight, image, kernel = torch.randn(2, 3, 5), torch.randn(7, 5), torch.randn(1, 3, 8, 8), torch.randn(4, 3, 2, 2)
    q, k = torch.randn(2, 3, 5, 7), torch.randn(2, 3, 11, 7)
    attention = torch.nn.functional.scaled_dot_product_attention
    assert operations_of(lambda: torch.nn.functional.linear(x, weight)) == 2 * (2 * 3) * 5 * 7
    assert operations_of(lambda: x @ weight.T) == 2 * (2 * 3) * 5 * 7
    assert operations_of(lambda: torch.nn.functional.conv2d(image, kernel, stride=2)) == 2 * (2 * 2 * 3) * 4 * (4 * 4)
    assert operations_of(lambda: attention(q, k, k)) == 2 * (2 * 3) * 5 * 11 * (7 + 7)
    assert operations_of(lambda: attention(q, q, q, is_causal=True)) == 2 * (2 * 3) * (1 + 2 + 3 + 4 + 5) * (7 + 7)
    assert operations_of(lambda: x.exp() + 1) == 0
    weight.requires_grad_()
    assert operations_of(lambda: torch.nn.functional.linear(x, weight)) == 2 * 2 * (2 * 3) * 5 * 7
    with torch.no_grad():
        assert operations_of(lambda: torch.nn.functional.linear(x, weight)) == 2 * (2 * 3) * 5 * 7
    with pytest.raises(NotImplementedError, match="operations of einsum are not counted"):
        operations_of(lambda: torch.einsum("bik,jk->bij", x, weight))


@pytest.mark.parametrize("horizon", [1, 2, 3, 5])
def test_the_closed_form_counts_every_product_of_a_rollout(load, horizon: int):
    """Of all samples; but for the embedding of the actions, which it leaves out."""
    planning, operations = load("planning"), load("operations")
    size = {"tasks": 1, "samples": 2, "iterations": 1, "horizon": horizon, "tokens": 6, "width": 8}
    plan = planning.plan_of(size, torch.device("cpu"))
    with torch.no_grad():
        plan()  # measures memory first
        counted = operations.operations_of(plan)
    embedded = horizon + 2 * max(0, horizon - 3)  # frames; beyond the window each step embeds its three anew
    expected = 2 * (planning.rollout_flops(planning.predictor_of(size), horizon) + embedded * 2 * 10 * 16)
    assert counted == expected


def test_the_closed_form_is_that_of_a_transformer(load):
    """One frame of N tokens into a layer of width D, inner width I and M hidden features: counted by hand."""
    planning = load("planning")
    predictor = FrameCausalViT(8, 6, 3, 10, 2, depth=1, num_heads=3, head_dim=4, mlp_dim=11, dropout=0.0)
    n, d, i, m = 6, 8 + 2, 3 * 4, 11
    query_key_value_out, attention, perceptron = 4 * n * d * i, 2 * n * n * i, 2 * n * d * m
    assert planning.rollout_flops(predictor, 1) == 2 * (query_key_value_out + attention + perceptron)


def test_the_planning_benchmark_finds_equal_plans_and_writes_its_figures(load, tmp_path: Path, monkeypatch, capsys):
    planning = load("planning")
    monkeypatch.setattr(planning, "DINO_WM", ("encoder=random_patch", "proprio=full", *SMALL))
    monkeypatch.setattr(planning, "LEWM", ("encoder=lewm_small", *SMALL))
    monkeypatch.setattr(planning, "DECODER", ("decoder=vqvae", "decoder.channel=4", "decoder.num_res_blocks=1"))
    monkeypatch.setattr(planning, "ROPE_SIZE", {"tokens": 4, "width": 8})
    monkeypatch.setattr(planning, "INSIDE", planning.INSIDE | {"depth": 2})
    monkeypatch.setattr(planning, "matmul_peak", lambda device, dtype: 1e12)
    output = tmp_path / "planning.json"
    words = ["device=cpu", "repeats=1", "samples=6", "scaling=false", f"output={output}"]
    monkeypatch.setattr(sys, "argv", ["planning.py", *words])
    planning.main()
    figures = json.loads(output.read_text())
    assert figures["cost_difference_fp32"] <= 1e-5 and figures["lewm_cost_difference"] <= 1e-5
    assert figures["plan_difference_fp32"] <= 1e-4 and figures["lewm_plan_difference"] <= 1e-4
    assert figures["plans_changed_fp32"] == figures["lewm_plans_changed"] == 0
    assert figures["speedup_lewm_previous"] >= 1 and figures["lewm_fastest"] in ("fp32", "bf16")
    assert 0 < figures["lewm_fraction_of_peak_fp32"] < 2
    assert figures["speedup_fp32"] == figures["seconds_plain"] / figures["seconds_fp32"]
    assert (figures["speedup_bf16"] is None) == (figures["bf16_reason"] is not None)
    assert figures["fraction_of_peak_fp32"] == figures["flops_per_s_fp32"] / 1e12
    peaks = [row["peak [GB]"] for row in figures["memory"]]
    assert all(peak <= row["bound [GB]"] for peak, row in zip(peaks, figures["memory"], strict=True))
    assert peaks[0] * 16 > 2 * figures["memory"][0]["bound [GB]"]  # what 16 tasks would take together
    assert sum(figures["time_goes_to"].values()) == pytest.approx(1)
    assert "speedup_fp32" in capsys.readouterr().out


def test_plans_that_change_places_by_rounding_do_not_count_as_different(load, monkeypatch):
    """Their costs are the same; the share of tasks whose plan is another one is told."""
    planning = load("planning")
    iteration = planning.Iteration(planning.build(("encoder=lewm_small", *SMALL), torch.device("cpu")), 2, 5)
    dense = planning.original.densely(iteration.model.predictor, 3)
    ours = iteration.ours(iteration.model)()
    swapped = ours.clone()
    swapped[1, 2, 3] += 0.5
    found = iteration.differences(dense, ours, swapped)
    assert found["cost_difference"] <= 1e-5
    assert found["plan_difference"] == pytest.approx(0.5) and found["plans_changed"] == 0.5
    monkeypatch.setattr(planning.original, "costs", lambda *_: iteration.cost(iteration.model)(iteration.plans)[0] * 1.01)
    assert iteration.differences(dense, ours, ours)["cost_difference"] > 1e-3


def test_time_on_a_gpu_is_counted_once(load):
    """The profiler gives each kernel's time with its operator too."""
    kind = torch.autograd.DeviceType
    operator = {"device_type": kind.CPU, "self_cpu_time_total": 100.0}
    events = [
        SimpleNamespace(key="aten::addmm", self_device_time_total=6.0, **operator),
        SimpleNamespace(key="aten::native_layer_norm", self_device_time_total=3.0, **operator),
        SimpleNamespace(key="ampere_sgemm_128x64_tn", self_device_time_total=6.0, device_type=kind.CUDA),
        SimpleNamespace(key="vectorized_layer_norm_kernel", self_device_time_total=3.0, device_type=kind.CUDA),
        SimpleNamespace(key="triton_fused_0", self_device_time_total=1.0, device_type=kind.CUDA),
        SimpleNamespace(key="plan", self_device_time_total=10.0, device_type=kind.CUDA, is_user_annotation=True),
    ]
    found = load("machine").time_by_kind(events, on_gpu=True)
    assert found == {"matrix products": 0.6, "LayerNorm": 0.3, "the rest": pytest.approx(0.1)}


def test_an_unknown_setting_of_a_benchmark_is_named(load):
    machine = load("machine")
    with pytest.raises(SystemExit, match="unknown setting 'sample=3'; known: samples=4"):
        machine.settings(["sample=3"], {"samples": 4})
    with pytest.raises(SystemExit, match=r"samples \('many'\) must be like 4"):
        machine.settings(["samples=many"], {"samples": 4})
    assert machine.settings(["samples=7", "scaling=false"], {"samples": 4, "scaling": True}) == {
        "samples": 7,
        "scaling": False,
    }


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@torch.no_grad()
def test_planning_50_tasks_at_dino_wms_geometry_fits_a_common_card(load):
    """A card of 20 GB: what is beyond it cannot be allocated."""
    planning, device = load("planning"), torch.device("cuda")
    torch.cuda.set_per_process_memory_fraction(20e9 / torch.cuda.get_device_properties(device).total_memory)
    try:
        size = {"tasks": 50, "samples": 300, "iterations": 1, "horizon": 5, "tokens": 196, "width": 394}
        torch.cuda.reset_peak_memory_stats()
        planning.plan_of(size, device)()
        assert torch.cuda.max_memory_allocated() < 20e9
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_rendering_and_collection_draw_as_many_frames(load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """In a thread in place of processes, with frames that need no renderer; 10 episodes are a whole chunk and a part."""
    rendering, drawn = load("rendering"), []

    class Noise:
        name = driver = "noise"

        def frames(self, position: np.ndarray, scenes: None) -> np.ndarray:
            drawn.append(len(position))
            return np.zeros((len(position), 8, 8, 3), np.uint8)

    def pool(workers: int, context: object, start: Callable, given: tuple) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(workers, "", start, given)

    monkeypatch.setattr(painter, "make_renderer", lambda *given: Noise())
    monkeypatch.setattr(rendering, "ProcessPoolExecutor", pool)
    words = "--episodes 10 --image-size 8 --store-every 50 --workers 1 --repeats 1"
    monkeypatch.setattr(sys, "argv", ["rendering.py", *words.split(), "--output", str(tmp_path / "figures.json")])
    rendering.main()
    assert drawn == [16, 4] * 4  # twice to warm up, then by themselves and in a collection
    assert json.loads((tmp_path / "figures.json").read_text())["ratio"] > 0
