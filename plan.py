"""Plan with a trained world model: python plan.py model_name=point_maze_lewm

Common options: protocol=demo, planner.num_samples=300, agent.horizon=6, num_videos=0, -m model_name=a,b (or a glob such as
'point_maze_*'). model_name may also be random, zero or simulator, or a checkpoint that DINO-WM released, which is converted
once. Writes plan_outputs/<time>_<model_name>_<protocol>.
"""

import hashlib
import json
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from wmbench.checkpoint import list_runs
from wmbench.commands import command
from wmbench.evaluation.episodes import observe, run_episodes
from wmbench.evaluation.figures import paths_figure
from wmbench.evaluation.film import Plans, write_videos
from wmbench.evaluation.results import sentence, write_results
from wmbench.evaluation.table import BASELINES
from wmbench.evaluation.targets import read_targets
from wmbench.evaluation.tasks import Tasks, make_tasks
from wmbench.machine import duration, peak_memory, progress_bar, size
from wmbench.planning.agent import Agent, ZeroAgent
from wmbench.players import Player, baseline, possible_baselines, trained
from wmbench.provenance import git_commit

FILMABLE = 16  # tasks whose expected latents are kept, to be drawn in a video


@command("plan")
def main(cfg: DictConfig) -> None:
    if OmegaConf.is_missing(cfg, "model_name"):
        found = [*list_runs(Path(cfg.ckpt_base_path)), *BASELINES]
        raise ValueError(f"which model? model_name=NAME; found: {', '.join(found)}")
    protocol = cfg.protocol
    given = None
    if protocol.goal_source == "file":
        given, protocol.goal_H = read_targets(protocol.goal_file, protocol.goal_H)
    is_baseline = cfg.model_name in BASELINES
    player = baseline(cfg, cfg.model_name, cfg.env.maze, cfg.env.frameskip) if is_baseline else trained(cfg)
    tasks = given or tasks_of(cfg, player)
    print(f"{cfg.row}: protocol {protocol.name}, {len(tasks)} tasks ({tasks.hash}) in {player.env.maze.name}")
    if unreachable := int((~player.env.maze.has_path(tasks.start[:, :2], tasks.goal[:, :2])).sum()):
        print(f"note: {unreachable} of the {len(tasks)} goals cannot be reached from their starts in this maze")
    if cfg.baselines and not is_baseline:
        for name in possible_baselines(cfg):
            folder = baseline_folder(cfg, name, tasks)
            if not (folder / "summary.json").exists():
                play(cfg, baseline(cfg, name, player.env.maze.rows, player.frameskip), tasks, folder, name)
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    folder = Path(cfg.output_dir) / f"{stamp}_{cfg.model_name.replace('/', '_')}_{protocol.name}"
    summary = play(cfg, player, tasks, baseline_folder(cfg, cfg.model_name, tasks) if is_baseline else folder, cfg.row)
    print(f"{sentence(summary)}\nwrote {summary['folder']}")


def tasks_of(cfg: DictConfig, player: Player) -> Tasks:
    """The tasks of the protocol, saved the first time."""
    protocol = cfg.protocol
    return make_tasks(
        Path(cfg.tasks_dir),
        player.env.physics,
        goal_source=protocol.goal_source,
        num_tasks=protocol.num_tasks,
        seed=protocol.task_seed,
        skip_solved=protocol.skip_solved,
        goal_at_rest=protocol.goal_at_rest,
        num_steps=protocol.goal_H * player.frameskip,
        data=cfg.env.data or player.facts.get("data"),
        train_fraction=player.train_fraction,
        split_seed=player.split_seed,
    )


def baseline_folder(cfg: DictConfig, name: str, tasks: Tasks) -> Path:
    """One place for each baseline under given tasks and settings, so that it runs once."""
    settings = json.dumps([deciding_settings(cfg), cfg.seed])
    key = hashlib.sha256((settings + tasks.hash).encode()).hexdigest()[:8]
    return Path(cfg.output_dir) / "baselines" / f"{cfg.protocol.name}_{key}" / name


def deciding_settings(cfg: DictConfig) -> dict[str, Any]:
    """Everything but the model that decides a row."""
    whole = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(whole, dict)
    return {str(key): whole[key] for key in ("protocol", "planner", "objective", "agent")}


def play(cfg: DictConfig, player: Player, tasks: Tasks, folder: Path, row: str) -> dict[str, Any]:
    """Run every task and write the results."""
    protocol = cfg.protocol
    round_steps = cfg.agent.num_taken * player.frameskip
    max_steps = protocol.max_steps if protocol.max_rounds is None else protocol.max_rounds * round_steps
    if max_steps is not None and max_steps < player.frameskip:
        raise ValueError(f"protocol.max_steps ({max_steps}) must be at least one block of {player.frameskip} env steps")
    if max_steps is None and isinstance(player.agent, ZeroAgent):
        raise ValueError("doing nothing never solves every task; set protocol.max_rounds (max_iter)")
    blocks = None if max_steps is None else max_steps // player.frameskip
    if isinstance(player.agent, Agent):
        example = observe(player.env, tasks.goal[:1], player.device, was_set=True)
        seconds = player.agent.forecast(example, len(tasks), blocks or cfg.agent.num_taken)
        limit = "at most about" if blocks else "without a limit on rounds; a round takes about"
        memory = size(peak_memory(player.device))
        print(f"{row}: {limit} {duration(seconds)} on {player.device}, {memory} of memory, a few MB of disk")
    plans: Plans = {}
    expected: list[Tensor] = []  # latents (FILMABLE N D) at the end of each block
    bar = progress_bar(total=blocks, desc=row, unit=" blocks")

    def on_block(block: int, active: Any) -> None:
        if player.read_position is not None and isinstance(player.agent, Agent):
            plans[block] = player.read_position(player.agent.imagined)
        if player.draw is not None and cfg.num_videos and isinstance(player.agent, Agent):
            expected.append(player.agent.expected[:FILMABLE].cpu())
        bar.set_postfix_str(f"{len(tasks) - len(active)} of {len(tasks)} solved", refresh=False)
        bar.update()

    began = time.perf_counter()
    with torch.no_grad(), bar:
        outcome = run_episodes(
            player.agent,
            player.env,
            tasks,
            max_steps=max_steps,
            frameskip=player.frameskip,
            check=protocol.check,
            round_steps=round_steps,
            coast=protocol.coast,
            device=player.device,
            on_block=on_block,
        )
    facts = {
        "row": row,
        "protocol": protocol.name,
        "max_steps": max_steps or outcome.states.shape[1] - 1,
        "settings": deciding_settings(cfg),
        "seed": cfg.seed,
        "evaluations_per_plan": player.agent.planner.budget.evaluations_per_plan if isinstance(player.agent, Agent) else 0.0,
        "seconds": time.perf_counter() - began,
        "device": str(player.device),
        "commit": git_commit(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(cfg, folder / "config.yaml", resolve=True)
    if row not in BASELINES:

        def imagine(task: int) -> Any:
            return player.draw(torch.stack([z[task] for z in expected])) if player.draw and task < FILMABLE else None

        write_videos(folder, player.env, tasks, outcome, plans, player.frameskip, cfg.num_videos, imagine)
    paths_figure(folder / "paths.png", player.env.maze, tasks, outcome)
    summary = write_results(folder, tasks, outcome, player.env.maze, facts | player.facts)
    return summary | {"folder": str(folder)}


if __name__ == "__main__":
    main()
