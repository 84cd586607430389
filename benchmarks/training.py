"""Steps per second of training from kept tokens, and the original's way: python benchmarks/training.py device=cpu

DINO-WM's geometry with random weights and frames of noise, its encoder frozen; and LeWM, whose encoder learns. The
original's way (benchmarks/original.py) reads the frames of every window, encodes them, draws them and the predictions with a
decoder, computes all of it in fp32 with dense masks, and waits for every number. output=PATH.json writes the figures;
batch_size=N (0: 32 on a GPU and 128 of LeWM's, 2 on the CPU), repeats=N, lewm=false leaves that out. only=lewm_small
measures the demo's small LeWM alone, its steps in turns with those of our own code before it became faster.
"""

import copy
import json
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import original
import torch
from machine import has_bf16, machine, matmul_peak, medians, seconds_of, settings, shown, where_time_goes
from omegaconf import DictConfig
from operations import operations_of

from wmbench.commands.configuration import compose
from wmbench.data import episodes as storage
from wmbench.data.normalizer import fit_normalizer
from wmbench.data.packing import Packing
from wmbench.data.token_file import TokenFile
from wmbench.data.windows import ResidentFrames, StoredFrames, Windows, compute_ahead
from wmbench.machine import keep_freed_memory, peak_memory, pick_device
from wmbench.models.precision import Precision
from wmbench.models.world_model import WorldModel
from wmbench.runs.build import build_decoder, build_world_model
from wmbench.runs.recipe import Recipe
from wmbench.training.loop import take_step
from wmbench.training.source import identity, make_encode
from wmbench.training.world_model import compile_predictor, losses_of, optimizer_of

DEFAULTS = {"device": "auto", "output": "", "batch_size": 0, "repeats": 3, "lewm": True, "only": ""}
DINO_WM = ["experiment=dino_wm", "encoder.pretrained=false", "decoder=vqvae"]
LEWM = ["encoder=lewm"]
LEWM_SMALL = ["encoder=lewm_small"]
LIMIT = 1e-4  # of the loss; ten times that of the gradient, which shows the features' rounding


def main() -> None:
    given = settings(sys.argv[1:], DEFAULTS)
    device = pick_device(given["device"])
    on_gpu = device.type == "cuda"
    keep_freed_memory()  # as commands do
    figures = machine(device) | lewm_small(device, given["repeats"])
    if given["only"] != "lewm_small":
        figures |= dino_wm(device, given["batch_size"] or (32 if on_gpu else 2), given["repeats"])
    if given["lewm"] and given["only"] != "lewm_small":
        of_lewm = lewm(device, given["batch_size"] or (128 if on_gpu else 2), given["repeats"])
        figures |= {f"lewm_{name}": value for name, value in of_lewm.items()}
    print(shown(figures))
    if given["output"]:
        Path(given["output"]).write_text(json.dumps(figures, indent=2) + "\n")
    differences = (figures.get("loss_difference", 0.0), figures.get("gradient_difference", 0.0) / 10)
    if max(*differences, figures["lewm_small_loss_difference"]) > LIMIT:
        raise SystemExit("error: the two ways give different losses or gradients, so their times cannot be compared")


def dino_wm(
    device: torch.device,
    batch_size: int,
    repeats: int,
    frame_size: int = 224,
    overrides: tuple[str, ...] = (),
    dtype: str = "float16",
) -> dict[str, Any]:
    """Figures of a model over a frozen encoder, its training in each precision in turns with the original's.

    Args:
        dtype: of the kept tokens.
        frame_size: of the recorded frames [pixels].
        overrides: of conf/train.yaml, after DINO-WM's.
    """
    with TemporaryDirectory() as folder, ExitStack() as stack:
        cfg, windows, model = build(Path(folder), [*DINO_WM, *overrides], batch_size, frame_size, device)
        decoder = build_decoder(cfg.decoder, model.encoder.embed_dim, model.encoder.grid, frame_size).to(device)
        packing = Packing(model.encoder.num_tokens, model.encoder.embed_dim, dtype)
        file = TokenFile(
            [Path(folder)], windows.episodes, identity(model.encoder), packing, model.encoder.lookback, cfg.frameskip
        )
        encode = make_encode(model, device)
        encode_s = seconds_of(lambda: file.write(encode), device)
        kept = windows.showing(file.open(device, encode))
        plain = plainly(model)
        figures = {
            "batch_size": batch_size,
            "tokens": model.encoder.num_tokens,
            "features": dtype,
            "encoded_frames_per_s": len(file.numbers) / encode_s,
            **differences(model, plain, windows, kept, batch_size, device),
        }
        trainings = {kind: Training(stack, model, cfg, kept, batch_size, kind) for kind in precisions(device)}
        twice = Training(stack, model, cfg, kept, 2 * batch_size, precisions(device)[-1])
        optimizers = [*plain_optimizers(plain, cfg), torch.optim.Adam(decoder.parameters(), lr=cfg.decoder.training.lr)]
        batches = windows.batches(batch_size, seed=0)

        def plain_step() -> None:
            original.training_step(plain, decoder, optimizers, original.read_batch(windows, next(batches), device))

        return figures | measure(trainings, twice, plain_step, device, repeats)


def lewm(
    device: torch.device, batch_size: int, repeats: int, frame_size: int = 224, overrides: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Figures of a model whose encoder learns with it: frames stay on a GPU; the plain way reads and waits as above."""
    with TemporaryDirectory() as folder, ExitStack() as stack:
        cfg, windows, model = build(Path(folder), [*LEWM, *overrides], batch_size, frame_size, device)
        frames = windows.episodes
        shown = windows.showing(ResidentFrames(frames, device) if device.type == "cuda" else StoredFrames(frames))
        plain = plainly(model)
        trainings = {kind: Training(stack, model, cfg, shown, batch_size, kind) for kind in precisions(device)}
        twice = Training(stack, model, cfg, shown, 2 * batch_size, precisions(device)[-1])
        (optimizer,) = plain_optimizers(plain, cfg)
        batches = windows.batches(batch_size, seed=0)

        def plain_step() -> None:
            losses = plain.loss(original.read_batch(windows, next(batches), device))
            take_step(optimizer, recipe_of(cfg), 1000, losses.total)
            for value in losses.parts.values():
                value.item()

        return {"batch_size": batch_size, **measure(trainings, twice, plain_step, device, repeats)}


def lewm_small(
    device: torch.device, repeats: int, batch_size: int = 64, frame_size: int = 64, overrides: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Steps of the demo's LeWM on one batch: as our code took them before, in fp32, and in bf16 where it can."""
    with TemporaryDirectory() as folder:
        cfg, windows, model = build(Path(folder), [*LEWM_SMALL, *overrides], batch_size, frame_size, device)
        batch = windows.get(next(windows.batches(batch_size, seed=0)), device)
    recipe, regularizer = recipe_of(cfg), cfg.training.regularizer
    models = {"before": copy.deepcopy(model), "fp32": model}
    models["before"].regularizer = original.KnotwiseSIGReg(regularizer.num_directions, regularizer.weight)
    if has_bf16(device) is None:
        models["bf16"] = copy.deepcopy(model)
    losses = {}
    for way in ("before", "fp32"):
        torch.manual_seed(0)
        losses[way] = copy.deepcopy(models[way]).loss(batch).total.item()

    def steps(way: str, optimizer: torch.optim.Optimizer) -> Callable[[], None]:
        def step() -> None:
            with Precision(bf16=way == "bf16").applied():
                take_step(optimizer, recipe, 1000, losses_of(models[way], batch).total)

        return step

    optimizers = {
        way: plain_optimizers(m, cfg)[0] if way == "before" else optimizer_of(m, recipe) for way, m in models.items()
    }
    seconds = medians({way: steps(way, optimizer) for way, optimizer in optimizers.items()}, device, repeats)
    fastest = min(seconds, key=seconds.__getitem__)
    figures: dict[str, Any] = {f"lewm_small_steps_per_s_{way}": 1 / value for way, value in seconds.items()}
    figures |= {f"speedup_lewm_small_{way}": seconds["before"] / value for way, value in seconds.items() if way != "before"}
    figures |= {"speedup_lewm_small": seconds["before"] / seconds[fastest], "lewm_small_fastest": fastest}
    return figures | {"lewm_small_loss_difference": abs(losses["before"] / losses["fp32"] - 1)}


class Training:
    """Steps as training/loop.py takes them, on a copy of the model."""

    def __init__(
        self, stack: ExitStack, model: WorldModel, cfg: DictConfig, windows: Windows, batch_size: int, precision: str
    ):
        self.model, self.recipe, self.precision = copy.deepcopy(model).train(), recipe_of(cfg), precision
        self.device = next(self.model.parameters()).device
        self.optimizer = optimizer_of(self.model, self.recipe)
        order = windows.batches(batch_size, seed=0)
        self.batches = stack.enter_context(closing(compute_ahead(lambda index: windows.get(index, self.device), order)))
        self.waited = self.taken = 0.0

    def run(self, steps: int) -> None:
        began = time.perf_counter()
        for _ in range(steps):
            asked = time.perf_counter()
            batch = next(self.batches)
            self.waited += time.perf_counter() - asked
            losses = losses_of(self.model, batch) if self.precision == "bf16" else self.model.loss(batch)
            take_step(self.optimizer, self.recipe, 1000, losses.total)
        losses.total.item()  # waits for a GPU, once
        self.taken += time.perf_counter() - began


def measure(
    trainings: dict[str, Training], twice: Training, plain_step: Callable[[], None], device: torch.device, repeats: int
) -> dict[str, Any]:
    """Steps per second of each; the last precision also at twice the steps and, in `twice`, at twice the batch."""
    steps, best = (10 if device.type == "cuda" else 1), list(trainings)[-1]
    flops = operations_of(lambda: trainings["fp32"].run(1))
    if device.type == "cuda":
        for training in (*trainings.values(), twice):
            compile_predictor(training.model, lambda t=training: t.run(1))
        torch.cuda.reset_peak_memory_stats(device)
    trainings[best].run(1)
    memory = peak_memory(device)
    trainings[best].waited = trainings[best].taken = 0.0
    runs: dict[str, Callable[[], object]] = {kind: lambda t=t: t.run(steps) for kind, t in trainings.items()}
    runs["twice the steps"] = lambda: trainings[best].run(2 * steps)
    runs["twice the batch"] = lambda: twice.run(steps)
    seconds = medians(runs | {"plain": plain_step}, device, repeats)
    figures: dict[str, Any] = {
        "steps_per_s_plain": 1 / seconds["plain"],
        "loader_share": trainings[best].waited / trainings[best].taken,
        "flops_per_step": flops,
        "peak_memory_bytes": memory,
        "twice_the_steps": seconds["twice the steps"] / seconds[best],
        "twice_the_batch": seconds["twice the batch"] / seconds[best],
        "bf16": "measured" if "bf16" in trainings else "null: for GPUs",
    }
    for kind, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        rate, peak = (steps / seconds[kind], matmul_peak(device, dtype)) if kind in trainings else (None, None)
        figures[f"steps_per_s_{kind}"] = rate
        figures[f"speedup_{kind}"] = rate and rate * seconds["plain"]
        figures[f"flops_per_s_{kind}"] = rate and rate * flops
        figures[f"matmul_peak_{kind}"] = peak
        figures[f"fraction_of_peak_{kind}"] = rate and peak and rate * flops / peak
    where = where_time_goes(lambda: trainings[best].run(1), device)
    return figures | {"speedup": figures[f"speedup_{best}"], "time_goes_to": where}


def differences(
    model: WorldModel, plain: WorldModel, windows: Windows, kept: Windows, batch_size: int, device: torch.device
) -> dict[str, float]:
    """Relative differences of the ways' losses and gradients on the same weights and batch, both in fp32 without dropout."""
    index = next(windows.batches(batch_size, seed=1))
    losses, gradients = [], []
    for way, batch in ((plain, original.read_batch(windows, index, device)), (model, kept.get(index, device))):
        loss = way.eval().loss(batch).parts["prediction"]
        trained = [p for p in way.parameters() if p.requires_grad]
        gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, trained)]))
        losses.append(loss.item())
        way.train()
    gradient = (gradients[0] - gradients[1]).norm() / gradients[0].norm()
    return {"loss_difference": abs(losses[0] - losses[1]) / losses[0], "gradient_difference": gradient.item()}


def build(
    folder: Path, overrides: list[str], batch_size: int, frame_size: int, device: torch.device
) -> tuple[DictConfig, Windows, WorldModel]:
    """A model with random weights, and windows of noise: of 800 frames on a GPU, else of what two batches take."""
    cfg = compose("train", overrides)
    torch.manual_seed(0)
    path, span = folder / "noise.h5", (cfg.num_hist + cfg.num_pred) * cfg.frameskip
    num_episodes = 100 if device.type == "cuda" else batch_size + 1
    manifest = {"num_episodes": num_episodes, "episode_length": 2 * span, "store_every": cfg.frameskip}
    storage.create(path, manifest | {"image_size": frame_size, "hash": "noise"})
    rng = np.random.default_rng(0)
    for name, column in storage.map_columns(path, "r+").items():
        column[:] = rng.integers(0, 256, column.shape, np.uint8) if name == "pixels" else rng.standard_normal(column.shape)
        column.flush()
    episodes = storage.Episodes(path)
    windows = Windows(episodes, np.arange(num_episodes), cfg.num_hist + cfg.num_pred, cfg.frameskip)
    return cfg, windows, build_world_model(cfg, fit_normalizer(episodes)).to(device).train()


def plainly(model: WorldModel) -> WorldModel:
    """A copy with the original's dense attention."""
    plain = copy.deepcopy(model)
    plain.predictor = original.densely(model.predictor, model.num_hist)  # type: ignore[arg-type]
    return plain.train()


def plain_optimizers(plain: WorldModel, cfg: DictConfig) -> list[torch.optim.Optimizer]:
    trained = [p for p in plain.parameters() if p.requires_grad]
    return [torch.optim.AdamW(trained, lr=cfg.training.lr, weight_decay=cfg.training.weight_decay)]


def recipe_of(cfg: DictConfig) -> Recipe:
    return Recipe.of(cfg.training)


def precisions(device: torch.device) -> list[str]:
    return ["fp32", "bf16"] if device.type == "cuda" else ["fp32"]


if __name__ == "__main__":
    main()
