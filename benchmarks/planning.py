"""Planning at DINO-WM's size and the original's way: python benchmarks/planning.py device=cpu output=planning.json

Settings (key=value): device, tasks, samples (0: 4 on the CPU, 300 on a GPU), repeats, scaling=false (leaves out the table of
doubled sizes), dino_wm=PATH (a checkout of the published code, whose predictor is timed in place of our plain version of
it), output. Weights are random, since speed does not depend on them; both ways have the same.

An iteration scores the samples of each task and refits. Start and goal are encoded before it, once per plan; the plain way's
iteration encodes the start for each sample, as the original does. The original's evaluator, which then draws what the new
mean leads to, is timed separately (plain_with_decoder): with few samples it would be much of an iteration.
"""

import copy
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import original
import pandas as pd
import torch
from machine import has_bf16, machine, matmul_peak, medians, seconds_of, settings, shown, where_time_goes
from operations import operations_of, rollout_flops
from torch import Tensor, nn

from wmbench.commands.configuration import compose
from wmbench.data.normalizer import Normalizer
from wmbench.encoders.state import State
from wmbench.machine import pick_device
from wmbench.models.adaln import AdaLNBlock
from wmbench.models.precision import Precision, set_precision
from wmbench.models.vit import FrameCausalViT
from wmbench.models.vit_rope import RotaryViT
from wmbench.models.world_model import WorldModel
from wmbench.planning.agent import Agent
from wmbench.planning.cem import CEM
from wmbench.planning.memory import peak_bytes
from wmbench.planning.noise import KeyedNoise
from wmbench.planning.objective import Objective
from wmbench.reports.formats import markdown_of
from wmbench.runs.build import build_decoder, build_world_model
from wmbench.shapes import Obs

DEFAULTS = {"device": "auto", "tasks": 1, "samples": 0, "repeats": 5, "scaling": True, "dino_wm": "", "output": ""}
HORIZON, NUM_HIST, FRAMESKIP, ACTION = 5, 3, 5, 10
ROPE_HORIZON, ROPE_SIZE = 7, {"tokens": 196, "width": 384}
INSIDE = {"action_embed_dim": 16, "depth": 6, "num_heads": 16, "head_dim": 64, "mlp_dim": 2048, "dropout": 0.0}
LIMIT = 1e-4  # between the costs of the two ways in fp32, relative
DINO_WM = ("experiment=dino_wm", "encoder.pretrained=false")
LEWM = ("encoder=lewm",)
DECODER = ("decoder=vqvae",)


def main() -> None:
    given = settings(sys.argv[1:], DEFAULTS)
    device = pick_device(given["device"])
    is_gpu = device.type == "cuda"
    torch.manual_seed(0)
    figures: dict[str, Any] = machine(device)
    with torch.no_grad():
        dino = Iteration(build(DINO_WM, device), given["tasks"], given["samples"] or (300 if is_gpu else 4))
        figures |= dino_wm_iteration(dino, given["repeats"], given["dino_wm"])
        figures |= lewm_iteration(Iteration(build(LEWM, device), *((50, 300) if is_gpu else (2, 32))), given["repeats"])
        figures |= rotary(device, given["samples"] or (64 if is_gpu else 4), given["repeats"])
        figures |= rounds(device)
        print(shown(figures), flush=True)
        figures["memory"] = memory(device)
        figures["scaling"] = scaling(device, given["repeats"]) if given["scaling"] else []
    for name in ("memory", "scaling"):
        if figures[name]:
            print(f"\n{markdown_of(pd.DataFrame(figures[name]).map(str))}")
    if given["output"]:
        Path(given["output"]).write_text(json.dumps(figures, indent=2) + "\n")
    if max(figures["cost_difference_fp32"], figures["lewm_cost_difference"]) > LIMIT:
        raise SystemExit("error: the two ways give different costs, so their times cannot be compared")


def build(overrides: tuple[str, ...], device: torch.device) -> WorldModel:
    """The model of a training configuration, with random weights."""
    model = build_world_model(compose("train", overrides), standard_normalizer())
    for block in (module for module in model.modules() if isinstance(module, AdaLNBlock)):
        nn.init.normal_(block.modulation[-1].weight, std=0.1)  # type: ignore[arg-type]  # a new one feels no action
    return model.to(device).eval().requires_grad_(False)


def standard_normalizer() -> Normalizer:
    return Normalizer(torch.zeros(2), torch.ones(2), torch.zeros(4), torch.ones(4))


class Iteration:
    """One CEM iteration on given tasks and noise, which every way of computing it shares."""

    def __init__(self, model: WorldModel, num_tasks: int, num_samples: int):
        self.model, self.device = model, next(model.parameters()).device
        self.obs, self.goal = (look(num_tasks, self.device) for _ in range(2))
        self.z, self.target = model.encode(self.obs), model.encode(self.goal)[:, -1]
        self.planner = CEM(num_samples, max(2, num_samples // 10), 1, 1.0)
        self.noise = KeyedNoise(0, np.arange(num_tasks), 0)
        self.guess = torch.zeros(num_tasks, HORIZON, ACTION, device=self.device)
        self.plans = self.noise(0, (num_samples, HORIZON, ACTION), self.device)  # as CEM draws them around the guess
        self.plans[:, 0] = 0

    def cost(self, model: WorldModel) -> Callable[[Tensor], Tensor]:
        return agent_of(model, self.planner).cost(self.z, self.guess[:, :0], self.target)

    def ours(self, model: WorldModel) -> Callable[[], Tensor]:
        cost = self.cost(model)  # measures memory once, as an agent does
        return lambda: self.planner(cost, self.guess, self.noise)

    def plain(self, dense: nn.Module, decoder: nn.Module | None = None, encode_start: bool = True) -> Tensor:
        model = self.model if encode_start else original.Encoded(self.model, self.z)
        goal = self.model.split(self.target)[0]
        return original.cem_iteration(model, dense, self.obs, goal, self.plans, self.planner.num_elites, decoder)

    def differences(self, dense: nn.Module, ours: Tensor, plain: Tensor) -> dict[str, float]:
        """Differences between the two ways: of costs, relative; of plans; and the share of tasks that get another plan.

        Plans of nearly one cost at the border of the elites may change places by rounding, so only costs can be compared.
        """
        goal, tasks = self.model.split(self.target)[0], range(len(self.plans))
        there = [original.costs(self.model, dense, original.one(self.obs, k), goal[k], self.plans[k]) for k in tasks]
        here = self.cost(self.model)(self.plans)
        return {
            "cost_difference": ((torch.stack(there) - here) / here).abs().max().item(),
            "plan_difference": (ours - plain).abs().max().item(),
            "plans_changed": ((ours - plain).abs().amax((1, 2)) > LIMIT).float().mean().item(),
        }

    def rollout_flops(self) -> float:
        """Operations of the predictor for all samples, by our way."""
        predictor = self.model.predictor
        assert isinstance(predictor, FrameCausalViT)
        return self.plans.shape[0] * self.plans.shape[1] * rollout_flops(predictor, HORIZON)


def dino_wm_iteration(iteration: Iteration, repeats: int, checkout: str) -> dict[str, Any]:
    model, device = iteration.model, iteration.device
    predictor = model.predictor
    assert isinstance(predictor, FrameCausalViT)
    dense = original.TheirViT(Path(checkout), predictor) if checkout else original.densely(predictor, NUM_HIST)
    config = compose("train", DECODER).decoder
    decoder = build_decoder(config, model.encoder.embed_dim, model.encoder.grid, 224).to(device).eval()
    ways: dict[str, Callable[[], Tensor]] = {"plain": partial(iteration.plain, dense), "fp32": iteration.ours(model)}
    models = {"fp32": model}
    for name in fast_ways(device):
        models[name] = build(DINO_WM, device)
        models[name].load_state_dict(model.state_dict())
        set_precision(models[name], name.removesuffix("_compiled"), compiled=name.endswith("_compiled"))
        ways[name] = iteration.ours(models[name])
    seconds = {}
    if "tf32" in ways:
        with Precision(tf32=True).applied():
            seconds = medians({"tf32": ways.pop("tf32")}, device, repeats)
    seconds |= medians(ways, device, repeats)
    seconds["plain_with_decoder"] = seconds_of(partial(iteration.plain, dense, decoder), device)
    figures: dict[str, Any] = {"tasks": len(iteration.plans), "samples": iteration.plans.shape[1], "horizon": HORIZON}
    figures |= {f"seconds_{name}": value for name, value in seconds.items()}
    figures |= {"speedup_bf16": None, "bf16_reason": has_bf16(device)}
    figures |= {f"speedup_{name}": seconds["plain"] / value for name, value in seconds.items() if "plain" not in name}
    figures["speedup_fp32_with_decoder"] = seconds["plain_with_decoder"] / seconds["fp32"]
    differences = iteration.differences(dense, ways["fp32"](), ways["plain"]())
    figures |= {f"{name}_fp32": value for name, value in differences.items()}
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        if precision in models:
            best = min(value for name, value in seconds.items() if name.startswith(precision))
            peak, achieved = matmul_peak(device, dtype), iteration.rollout_flops() / best
            figures |= {f"flops_per_s_{precision}": achieved, f"matmul_peak_{precision}": peak}
            figures[f"fraction_of_peak_{precision}"] = achieved / peak
    if "bf16" in models:
        exact, rounded = (iteration.cost(models[name])(iteration.plans) for name in ("fp32", "bf16"))
        figures["bf16_cost_change"] = ((rounded - exact) / exact).abs().max().item()
        figures["cost_spread"] = (exact.std(1) / exact.mean(1)).mean().item()  # what the change is to be compared with
    return figures | {"time_goes_to": where_time_goes(ways["fp32"], device)}


def fast_ways(device: torch.device) -> list[str]:
    """Ways other than fp32 that this device can compute in."""
    ways = [] if has_bf16(device) else ["bf16"]
    return [*ways, "tf32", "fp32_compiled", "bf16_compiled"] if device.type == "cuda" else ways


def lewm_iteration(iteration: Iteration, repeats: int) -> dict[str, Any]:
    """Time LeWM's released sizes: one token per frame.

    What fp32 computes has not changed since 2026-11-21, so it is the previous way; speedup_lewm_previous is over it.
    """
    device, rounded = iteration.device, copy.deepcopy(iteration.model)
    dense = original.densely(iteration.model.predictor, NUM_HIST)  # type: ignore[arg-type]
    ways = {
        "plain": partial(iteration.plain, dense),
        "plain_start_encoded_once": partial(iteration.plain, dense, encode_start=False),
        "fp32": iteration.ours(iteration.model),
    }
    if has_bf16(device) is None:
        set_precision(rounded, "bf16", compiled=False)
        ways["bf16"] = iteration.ours(rounded)
    seconds = medians(ways, device, repeats)
    figures: dict[str, Any] = {"lewm_tasks": len(iteration.plans), "lewm_samples": iteration.plans.shape[1]}
    figures |= {f"lewm_seconds_{name}": value for name, value in seconds.items()}
    figures["lewm_speedup_fp32"] = seconds["plain"] / seconds["fp32"]
    figures["lewm_fastest"] = min(seconds.keys() & {"fp32", "bf16"}, key=seconds.__getitem__)
    figures["speedup_lewm_previous"] = seconds["fp32"] / seconds[figures["lewm_fastest"]]
    work, peak = operations_of(ways["fp32"]), matmul_peak(device, torch.float32)
    figures["lewm_fraction_of_peak_fp32"] = work / seconds["fp32"] / peak
    figures["lewm_speedup_over_start_encoded_once"] = seconds["plain_start_encoded_once"] / seconds["fp32"]
    differences = iteration.differences(dense, ways["fp32"](), ways["plain"]())
    return figures | {f"lewm_{name}": value for name, value in differences.items()}


def rounds(device: torch.device) -> dict[str, Any]:
    """50 tasks, one MPC round of CEM 300 x 10 with everything that belongs to it; only on a GPU."""
    if device.type != "cuda":
        return {"round_seconds": None, "lewm_round_seconds": None, "round_reason": "wants a GPU"}
    figures = {}
    for name, overrides in (("round", DINO_WM), ("lewm_round", LEWM)):
        model = build(overrides, device)
        set_precision(model, "bf16", compiled=True)
        agent, obs, goal = agent_of(model, CEM(300, 30, 10, 1.0)), look(50, device), look(50, device)

        def play(agent: Agent = agent, obs: Obs = obs, goal: Obs = goal) -> None:
            agent.reset(goal, HORIZON)
            agent.act(lambda: obs, np.arange(50))

        figures[f"{name}_seconds"] = medians({name: play}, device, 1)[name]
        figures[f"{name}_peak_gb"] = peak_bytes(play, device) / 1e9
    return figures


def rotary(device: torch.device, samples: int, repeats: int) -> dict[str, Any]:
    """Plans of 7 blocks at DINO-WM's size: learned places in the window, and rotary positions."""
    size = {"tasks": 1, "samples": samples, "iterations": 1, "horizon": ROPE_HORIZON} | ROPE_SIZE
    kinds = {"vit": FrameCausalViT, "vit_rope": RotaryViT}
    seconds = medians({name: plan_of(size, device, kind=kind) for name, kind in kinds.items()}, device, repeats)
    return {"rope_horizon": ROPE_HORIZON, "rope_samples": samples, "speedup_rope": seconds["vit"] / seconds["vit_rope"]}


def memory(device: torch.device) -> list[dict[str, Any]]:
    """Memory that plans of more and more tasks take, the model not counted, under the same bound."""
    bound, size = 0.02, {"samples": 4, "iterations": 1, "horizon": HORIZON, "tokens": 16, "width": 64}
    peaks = {tasks: peak_bytes(plan_of(size | {"tasks": tasks}, device, bound), device) for tasks in (1, 4, 16)}
    return [{"tasks": tasks, "bound [GB]": bound, "peak [GB]": round(peak / 1e9, 4)} for tasks, peak in peaks.items()]


def scaling(device: torch.device, repeats: int) -> list[dict[str, Any]]:
    """A plan with one size doubled at a time: how its time and its operations grow."""
    base = {"tasks": 2, "samples": 8, "iterations": 2, "horizon": HORIZON, "tokens": 16, "width": 128}
    if device.type == "cuda":
        base |= {"tasks": 8, "samples": 64, "tokens": 196, "width": 384}
    sizes = {"nothing": base} | {name: base | {name: 2 * base[name]} for name in base}
    seconds = medians({name: plan_of(size, device) for name, size in sizes.items()}, device, repeats)
    work = {
        name: size["tasks"] * size["samples"] * size["iterations"] * rollout_flops(predictor_of(size), size["horizon"])
        for name, size in sizes.items()
    }
    return [
        {
            "doubled": name,
            "from": base.get(name, ""),
            "seconds": round(seconds[name], 4),
            "time, times": round(seconds[name] / seconds["nothing"], 2),
            "operations, times": round(work[name] / work["nothing"], 2),
        }
        for name in sizes
    ]


def plan_of(
    size: dict[str, int], device: torch.device, memory_gb: float = 4.0, kind: type[FrameCausalViT] = FrameCausalViT
) -> Callable[[], Tensor]:
    """A whole plan from latents."""
    encoder = State(size["width"], velocity_weight=1.0, seed=0)  # which nobody asks: the plan starts from latents
    told = {"proprio": "none", "proprio_embed_dim": 1, "frameskip": FRAMESKIP, "num_hist": NUM_HIST}
    model = WorldModel(encoder, predictor_of(size, kind), standard_normalizer(), **told)
    model = model.to(device).eval().requires_grad_(False)
    z = torch.randn(size["tasks"], 1, size["tokens"], size["width"], device=device)
    planner, noise = CEM(size["samples"], 2, size["iterations"], 1.0), KeyedNoise(0, np.arange(size["tasks"]), 0)
    guess = torch.zeros(size["tasks"], size["horizon"], ACTION, device=device)
    cost = agent_of(model, planner, size["horizon"], memory_gb).cost(z, guess[:, :0], z[:, 0] + 1)
    return lambda: planner(cost, guess, noise)


def predictor_of(size: dict[str, int], kind: type[FrameCausalViT] = FrameCausalViT) -> FrameCausalViT:
    return kind(dim=size["width"], num_tokens=size["tokens"], num_hist=NUM_HIST, action_dim=ACTION, **INSIDE)


def agent_of(model: WorldModel, planner: CEM, horizon: int = HORIZON, memory_gb: float = 4.0) -> Agent:
    settings = {"horizon": horizon, "num_taken": horizon, "shrinking": False, "num_context": 1, "clip_actions": False}
    return Agent(model, planner, Objective(), **settings, memory_gb=memory_gb, seed=0)


def look(num_tasks: int, device: torch.device) -> Obs:
    """Frames of noise and states."""
    visual = torch.randint(0, 256, (num_tasks, 1, 224, 224, 3), dtype=torch.uint8, device=device)
    return Obs(visual=visual, proprio=torch.randn(num_tasks, 1, 4, device=device))


if __name__ == "__main__":
    main()
