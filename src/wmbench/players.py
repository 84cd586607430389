"""Who plans, and where: a trained model, a floor or the ceiling, from plan.py's configuration."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from jaxtyping import Float, UInt8
from numpy import ndarray
from omegaconf import DictConfig
from torch import Tensor

from wmbench.arms import note_of
from wmbench.checkpoint import find_run, load_decoder, load_run, step_path
from wmbench.data.official import PUBLISHED
from wmbench.encoders.weights import file_hash
from wmbench.envs.rendering import resolve
from wmbench.envs.vector import PointMazes
from wmbench.evaluation.diagnostics import load_probe
from wmbench.evaluation.episodes import Actor
from wmbench.evaluation.table import BASELINES
from wmbench.importers.checkpoint import converted, is_released
from wmbench.machine import pick_device
from wmbench.models.decoder import decode_frames
from wmbench.models.precision import set_precision
from wmbench.planning.agent import Agent, RandomAgent, ZeroAgent
from wmbench.planning.objective import Objective
from wmbench.planning.simulator import SimulatorModel


@dataclass
class Player:
    """A row in the making: who acts, where, and what the table should say of it.

    read_position: the ball's positions (x, y) [m] in latents, where the run has a probe.
    draw: frames of latents, where the run has a decoder.
    train_fraction, split_seed: which episodes of its data the run was trained on.
    """

    agent: Actor
    env: PointMazes
    frameskip: int
    device: torch.device
    facts: dict[str, Any] = field(default_factory=dict)
    read_position: Callable[[Float[Tensor, "*B N D"]], Float[ndarray, "*B 2"]] | None = None
    draw: Callable[[Float[Tensor, "F N D"]], UInt8[ndarray, "F h w 3"]] | None = None
    train_fraction: float = 0.9
    split_seed: int = 42


def trained(cfg: DictConfig) -> Player:
    """An agent with a trained model, in the environment whose pixels it was trained on."""
    device = pick_device(cfg.device)
    step = None if cfg.checkpoint == "latest" else int(cfg.checkpoint)
    run = find_run(Path(cfg.ckpt_base_path), cfg.model_name)
    if is_released(run):
        run, step = converted(run, step, Path(cfg.output_dir) / "converted" / run.name), None
    model, train_cfg, provenance = load_run(run, step, cfg.get("encoder"))
    encoder, data = model.encoder, provenance["data"]
    if data["renderer"] == PUBLISHED["renderer"]:
        data["renderer"] = resolve(cfg.env.renderer or "auto")
        print(f"the training frames were drawn by {PUBLISHED['renderer']}; {data['renderer']} draws a little differently")
    if cfg.env.renderer not in (None, data["renderer"]):
        raise ValueError(
            f"run {cfg.model_name} was trained on frames drawn by {data['renderer']}, not {cfg.env.renderer}: "
            f"planning must see the same pixels; leave env.renderer out"
        )
    env = PointMazes(data["maze"], data["renderer"], data["image_size"], data["render_lag"])
    probe = load_probe(run)
    decoder = load_decoder(run, encoder.embed_dim, encoder.grid, data["image_size"])

    def draw(z: Float[Tensor, "F N D"]) -> UInt8[ndarray, "F h w 3"]:
        assert decoder is not None
        return decode_frames(decoder, model.split(z.to(device))[0])

    facts = {
        "parameters": provenance["encoder"]["parameters"] + provenance["predictor_parameters"],
        "encoder": train_cfg.encoder._target_.rpartition(".")[2],
        "encoder_source": encoder.source,
        "weights_hash": file_hash(step_path(run, provenance["step"]))[:12],
        "step": provenance["step"],
        "note": ", ".join(
            filter(
                None,
                [note_of(encoder, train_cfg, provenance), "" if cfg.precision == "fp32" else f"{cfg.precision} rollouts"],
            )
        ),
        "train_seed": train_cfg.get("seed"),
        "proprio": train_cfg.proprio,
        "data": data.get("path"),
        "data_hash": data["hash"][:12],
        "renderer": data["renderer"],
        "image_size": data["image_size"],
        "position_r2": probe.r2 if probe else None,
    }
    if decoder is not None:
        decoder.to(device)
    set_precision(model.to(device), cfg.precision, cfg.compile)
    split = {name: train_cfg[name] for name in ("train_fraction", "split_seed") if name in train_cfg}
    return Player(make_agent(cfg, model), env, model.frameskip, device, facts, probe, draw if decoder else None, **split)


def baseline(cfg: DictConfig, name: str, maze: Any, frameskip: int) -> Player:
    """A floor (random actions, do nothing) or the ceiling (the simulator as the model, under the same planner)."""
    env = PointMazes(maze, image_size=0)
    if name == "random":
        agent: Actor = RandomAgent(frameskip, env.action_dim, cfg.seed)
    elif name == "zero":
        agent = ZeroAgent(frameskip, env.action_dim)
    else:
        agent = make_agent(cfg, SimulatorModel(env.physics, frameskip))
    return Player(agent, env, frameskip, torch.device("cpu"))


def possible_baselines(cfg: DictConfig) -> list[str]:
    """Those that end: without a limit on rounds doing nothing does not. A simulator has no gradients to follow."""
    left_out = {"simulator"} if instantiate(cfg.planner).needs_gradients else set()
    if cfg.protocol.max_rounds is None and cfg.protocol.max_steps is None:
        left_out.add("zero")
    return [name for name in BASELINES if name not in left_out]


def make_agent(cfg: DictConfig, model: Any) -> Agent:
    cfg.env.frameskip = model.frameskip  # planners may ask for it
    return Agent(model, instantiate(cfg.planner), Objective(**cfg.objective), seed=cfg.seed, **cfg.agent)
