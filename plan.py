"""Plan with a trained world model: python plan.py model_name=point_maze_lewm

Common options: protocol=demo, planner.num_samples=300, agent.horizon=6, num_videos=0, -m model_name=a,b (or a glob such as
'point_maze_*'). model_name may also be random, zero or simulator. Writes plan_outputs/<time>_<model_name>_<protocol>.
"""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from wmbench.checkpoint import find_run, list_runs, load_run, step_path
from wmbench.commands import command, duration, peak_memory, pick_device, size
from wmbench.envs.vector import PointMazes
from wmbench.evaluation.diagnostics import load_probe
from wmbench.evaluation.episodes import Actor, observe, run_episodes
from wmbench.evaluation.figures import paths_figure
from wmbench.evaluation.film import Plans, write_videos
from wmbench.evaluation.results import sentence, write_results
from wmbench.evaluation.table import BASELINES
from wmbench.evaluation.tasks import Tasks, load_or_sample
from wmbench.planning.agent import Agent, RandomAgent, ZeroAgent
from wmbench.planning.simulator import SimulatorModel
from wmbench.progress import progress_bar
from wmbench.runs import git_commit


@dataclass
class Player:
    """A row in the making: who acts, where, and what the table should say of it."""

    agent: Actor
    env: PointMazes
    frameskip: int
    device: torch.device
    facts: dict[str, Any] = field(default_factory=dict)
    read_position: Callable[[Tensor], Any] | None = None


@command("plan")
def main(cfg: DictConfig) -> None:
    if OmegaConf.is_missing(cfg, "model_name"):
        found = [*list_runs(Path(cfg.ckpt_base_path)), *BASELINES]
        raise ValueError(f"which model? model_name=NAME; found: {', '.join(found)}")
    if cfg.protocol.goal_source != "random_state":
        raise ValueError(f"protocol.goal_source ({cfg.protocol.goal_source}) must be random_state")
    is_baseline = cfg.model_name in BASELINES
    if is_baseline:
        player = baseline(cfg, cfg.model_name, cfg.env.maze, cfg.env.frameskip)
    else:
        player = trained(cfg, pick_device(cfg.device))
    protocol = cfg.protocol
    tasks = load_or_sample(
        Path(cfg.tasks_dir),
        player.env.maze,
        protocol.num_tasks,
        protocol.task_seed,
        protocol.skip_solved,
        protocol.goal_at_rest,
    )
    print(f"{cfg.row}: protocol {protocol.name}, {len(tasks)} tasks ({tasks.hash}) in {player.env.maze.name}")
    if cfg.baselines and not is_baseline:
        for name in BASELINES:
            folder = baseline_folder(cfg, name, tasks)
            if not (folder / "summary.json").exists():
                play(cfg, baseline(cfg, name, player.env.maze.rows, player.frameskip), tasks, folder, name)
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    folder = Path(cfg.output_dir) / f"{stamp}_{cfg.model_name.replace('/', '_')}_{protocol.name}"
    summary = play(cfg, player, tasks, baseline_folder(cfg, cfg.model_name, tasks) if is_baseline else folder, cfg.row)
    print(f"{sentence(summary)}\nwrote {summary['folder']}")


def trained(cfg: DictConfig, device: torch.device) -> Player:
    """An agent with a trained model, in the environment whose pixels it was trained on."""
    run = find_run(Path(cfg.ckpt_base_path), cfg.model_name)
    model, train_cfg, provenance = load_run(run, None if cfg.checkpoint == "latest" else int(cfg.checkpoint))
    data = provenance["data"]
    if cfg.env.renderer not in (None, data["renderer"]):
        raise ValueError(
            f"run {run.name} was trained on frames drawn by {data['renderer']}, not {cfg.env.renderer}: "
            f"planning must see the same pixels; leave env.renderer out"
        )
    env = PointMazes(data["maze"], data["renderer"], data["image_size"], data["render_lag"])
    probe = load_probe(run)
    weights = hashlib.sha256(step_path(run, provenance["step"]).read_bytes()).hexdigest()[:12]
    facts = {
        "parameters": provenance["encoder"]["parameters"] + provenance["predictor_parameters"],
        "encoder": train_cfg.encoder._target_.rpartition(".")[2],
        "encoder_source": model.encoder.source,
        "weights_hash": weights,
        "step": provenance["step"],
        "train_seed": train_cfg.seed,
        "proprio": train_cfg.proprio,
        "data_hash": data["hash"][:12],
        "renderer": data["renderer"],
        "image_size": data["image_size"],
        "position_r2": probe.r2 if probe else None,
    }
    agent = Agent(model.to(device), instantiate(cfg.planner), seed=cfg.seed, **cfg.agent)
    return Player(agent, env, model.frameskip, device, facts, probe)


def baseline(cfg: DictConfig, name: str, maze: Any, frameskip: int) -> Player:
    """A floor (random actions, do nothing) or the ceiling (the simulator as the model, under the same planner)."""
    env = PointMazes(maze, image_size=0)
    if name == "random":
        agent: Actor = RandomAgent(frameskip, env.action_dim, cfg.seed)
    elif name == "zero":
        agent = ZeroAgent(frameskip, env.action_dim)
    else:
        agent = Agent(SimulatorModel(env.physics, frameskip), instantiate(cfg.planner), seed=cfg.seed, **cfg.agent)
    return Player(agent, env, frameskip, torch.device("cpu"))


def baseline_folder(cfg: DictConfig, name: str, tasks: Tasks) -> Path:
    """One place for each baseline under given tasks and settings, so that it runs once."""
    settings = OmegaConf.to_yaml(OmegaConf.create([cfg.protocol, cfg.planner, cfg.agent, cfg.seed]), resolve=True)
    key = hashlib.sha256((settings + tasks.hash).encode()).hexdigest()[:8]
    return Path(cfg.output_dir) / "baselines" / f"{cfg.protocol.name}_{key}" / name


def play(cfg: DictConfig, player: Player, tasks: Tasks, folder: Path, row: str) -> dict[str, Any]:
    """Run every task and write the results."""
    protocol = cfg.protocol
    round_steps = cfg.agent.num_taken * player.frameskip
    max_steps = protocol.max_steps if protocol.max_rounds is None else protocol.max_rounds * round_steps
    if max_steps < player.frameskip:
        raise ValueError(f"protocol.max_steps ({max_steps}) must be at least one block of {player.frameskip} env steps")
    blocks = max_steps // player.frameskip
    if isinstance(player.agent, Agent):
        seconds = player.agent.forecast(observe(player.env, tasks.goal, player.device), blocks)
        memory = size(peak_memory(player.device))
        print(f"{row}: at most about {duration(seconds)} on {player.device}, {memory} of memory, a few MB of disk")
    plans: Plans = {}
    bar = progress_bar(total=blocks, desc=row, unit=" blocks")

    def on_block(block: int, active: Any) -> None:
        if player.read_position is not None and isinstance(player.agent, Agent):
            plans[block] = player.read_position(player.agent.imagined)
        bar.set_postfix_str(f"{len(tasks) - len(active)} of {len(tasks)} solved", refresh=False)
        bar.update()

    began = time.perf_counter()
    with torch.inference_mode(), bar:
        outcome = run_episodes(
            player.agent,
            player.env,
            tasks,
            max_steps=max_steps,
            frameskip=player.frameskip,
            check=protocol.check,
            round_steps=round_steps,
            device=player.device,
            on_block=on_block,
        )
    facts = {
        "row": row,
        "protocol": protocol.name,
        "max_steps": max_steps,
        "settings": OmegaConf.to_container(OmegaConf.create({k: cfg[k] for k in ("protocol", "planner", "agent")})),
        "seed": cfg.seed,
        "seconds": time.perf_counter() - began,
        "device": str(player.device),
        "commit": git_commit(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(cfg, folder / "config.yaml", resolve=True)
    if row not in BASELINES:
        write_videos(folder, player.env, tasks, outcome, plans, player.frameskip, cfg.num_videos)
    paths_figure(folder / "paths.png", player.env.maze, tasks, outcome)
    summary = write_results(folder, tasks, outcome, player.env.maze, facts | player.facts)
    return summary | {"folder": str(folder)}


if __name__ == "__main__":
    main()
