"""Which runs are diagnosed, and on what, from conf/diagnose.yaml; and their table."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from wmbench.commands.budgets import settle
from wmbench.commands.players import load_trained, run_of
from wmbench.data.episodes import EpisodeSet
from wmbench.data.official import open_episodes
from wmbench.data.windows import Windows
from wmbench.diagnostics.diagnose import FILE, Diagnostics, check_parts, diagnose
from wmbench.diagnostics.predictors import FEWEST_ROWS, features, predictors_of_success
from wmbench.diagnostics.probe import Probe
from wmbench.diagnostics.subject import Subject
from wmbench.envs.mazes import Maze
from wmbench.evaluation.conditions import digest
from wmbench.evaluation.evaluate import Player
from wmbench.evaluation.results import Result, find_summaries
from wmbench.evaluation.shipped import FOLDER, shipped_tasks
from wmbench.evaluation.tasks import Tasks, sample_tasks
from wmbench.files import exclusive, shipped
from wmbench.machine import optional
from wmbench.planning.agent import Agent
from wmbench.reports.figures import draw_landscapes
from wmbench.runs.find import list_runs

VALIDATION_SEED = 2024  # of tasks that are sampled, where a maze has no validation file
MOST_FRAMES = 20  # of an episode
DRAWN = 3  # goals in landscape.png
OPEN_LOOP = {"shrinking": False, "num_context": 1, "clip_actions": True}  # an agent that looks once
SHOWN = (
    "open_loop.copy_ratio_1",
    "probes.position_true",
    "landscape.spearman_geodesic",
    "ranking.spearman_cost_all",
    "two_by_two.success_true_latent",
    "two_by_two.success_true_probe",
    "two_by_two.success_learned_latent",
    "two_by_two.success_learned_probe",
)


def runs_asked(cfg: DictConfig) -> list[str]:
    """Names of the runs that model_name is or matches.

    Raises:
        ValueError: no name, or a glob that matches nothing.
    """
    base = Path(cfg.ckpt_base_path)
    if OmegaConf.is_missing(cfg, "model_name"):
        raise ValueError(f"which model? model_name=NAME; found: {', '.join(list_runs(base)) or 'none'}")
    names = list_runs(base, cfg.model_name) if "*" in cfg.model_name else [cfg.model_name]
    if not names:
        raise ValueError(f"no run matches {cfg.model_name!r} in {base}; found: {', '.join(list_runs(base)) or 'none'}")
    return names


def diagnose_run(cfg: DictConfig, name: str) -> Diagnostics:
    """Diagnose a run, and draw its landscape."""
    agent = OPEN_LOOP | {"horizon": cfg.horizon, "num_taken": cfg.horizon, "memory_gb": cfg.memory_gb}
    settings: Any = OmegaConf.to_container(cfg)
    parts = check_parts(settings["parts"])
    cfg = DictConfig(settings | {"model_name": name, "row": name, "actor": "planner", "agent": agent, "protocol": {}})
    player = load_trained(cfg)
    run, cfg = run_of(cfg)[0], settle(cfg, player.env.maze, player.frameskip)
    subject = make_subject(cfg, player)
    tasks, picture = subject.tasks, run / "landscape.png"
    facts = {
        "model_name": name,
        "run": digest({"row": player.row.hash, "probe": player.row.position_r2}),
        "weights_hash": player.row.weights_hash,
        "step": player.row.step,
        "data_hash": subject.windows.episodes.hash[:12],
        "tasks": tasks.hash,
        "objective": [OmegaConf.to_container(cfg.objective, resolve=True), player.row.fitted],
        "planner": OmegaConf.to_container(cfg.planner, resolve=True),
        **{key: cfg[key] for key in ("num_episodes", "horizon", "evaluations", "spacing", "seed")},
    }
    with exclusive(run / FILE, "wait for it, then run the same command again"):
        found, made = diagnose(run, subject, parts, facts)
        if "landscape" in made or ("landscape" in parts and not picture.exists()):
            several = np.linspace(0, len(tasks) - 1, min(DRAWN, len(tasks))).round().astype(int)
            shown = (subject.places[0], subject.costs[several], tasks.goal[several, :2], subject.minima[several])
            optional(picture.name, lambda: draw_landscapes(picture, subject.env.single[0], *shown))
    return found


def make_subject(cfg: DictConfig, player: Player) -> Subject:
    """A run with its validation episodes and tasks.

    Raises:
        ValueError: settings out of range, or episodes of another maze or size than those that the run was trained on.
    """
    for name, least in (("num_episodes", 2), ("num_tasks", 2), ("horizon", 1), ("evaluations", 1)):
        if cfg[name] < least:
            raise ValueError(f"{name} ({cfg[name]}) must be at least {least}")
    agent = player.agent
    assert isinstance(agent, Agent)
    model: Any = agent.model
    return Subject(
        model,
        player.env,
        agent.objective,
        search=agent.planner,
        cell=instantiate(cfg.planner, budget=cfg.evaluations),
        probe=player.read_position if isinstance(player.read_position, Probe) else None,
        windows=validation_windows(cfg, player, model),
        tasks=validation_tasks(player.env.single[0], cfg.num_tasks),
        horizon=cfg.horizon,
        spacing=cfg.spacing,
        seed=cfg.seed,
        memory_gb=cfg.memory_gb,
        device=player.device,
    )


def validation_windows(cfg: DictConfig, player: Player, model: Any) -> Windows:
    """At most num_episodes of the run's validation episodes, evenly spread, each as one window from its start.

    Raises:
        ValueError, FileNotFoundError: no data, or data of another maze or frame size than the run was trained on.
    """
    path = cfg.env.data or player.row.data
    if path is None:
        raise ValueError(f"{player.row.row} does not say what it was trained on; say where its episodes are: env.data=PATH")
    try:
        episodes = open_episodes(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}, or say where the run's episodes are now: env.data=PATH") from None
    check_data(episodes, player)
    valid = episodes.split(player.train_fraction, player.split_seed)[1]
    if len(valid) < 2:
        raise ValueError(
            f"{episodes.path} has {len(valid)} validation episodes; an interval needs 2: give more, env.data=PATH"
        )
    which = valid[np.unique(np.linspace(0, len(valid) - 1, cfg.num_episodes).round().astype(int))]
    frames = min(MOST_FRAMES, int(episodes.ep_len[which].min()) // player.frameskip)
    return Windows(episodes, which, max(frames, model.num_hist + 1), player.frameskip).looking_back(model.lookback)


def check_data(episodes: EpisodeSet, player: Player) -> None:
    """Refuse episodes of another maze or size; say where they are others than those that the run was trained on."""
    own, given = list(player.env.maze.rows), episodes.manifest.get("maze")
    if given not in (None, own):
        raise ValueError(f"{episodes.path} was recorded in the maze {given}, and the run was trained in {own}")
    if episodes.image_size != player.env.image_size:
        raise ValueError(
            f"{episodes.path} has frames of {episodes.image_size} pixels, and the run was trained on {player.env.image_size}"
        )
    if episodes.hash[:12] != player.row.data_hash:
        print(f"note: {episodes.path} holds other episodes than the run was trained on")


def validation_tasks(maze: Maze, number: int) -> Tasks:
    """The first validation tasks of protocol=bench; in a maze without any, as many sampled ones, at rest at both ends."""
    if (shipped(FOLDER) / f"{maze.name}_validation.npz").exists():
        return shipped_tasks(maze, "validation", number)
    return sample_tasks(maze, number, VALIDATION_SEED, skip_solved=True, goal_at_rest=True, start_at_rest=True)


def tell(cfg: DictConfig, found: dict[str, Diagnostics]) -> None:
    """Print a table of the runs, and which diagnostics go with the success that plan.py wrote to output_dir."""
    rows = {name: features(diagnostics) for name, diagnostics in found.items()}
    table = pd.DataFrame.from_dict(rows, orient="index").reindex(columns=list(SHOWN)).dropna(axis="columns", how="all")
    print(table.round(3).to_string())
    success = success_of(
        Path(cfg.output_dir), {name: str(diagnostics["weights_hash"]) for name, diagnostics in found.items()}
    )
    if len(success) >= FEWEST_ROWS:
        together = predictors_of_success([rows[name] for name in success], list(success.values()))
        print(f"Spearman with success over {len(success)} runs, with 95% intervals over runs:")
        print(together.head(20).round(3).to_string(index=False))


def success_of(results: Path, weights: dict[str, str]) -> dict[str, float]:
    """Success of each run (name -> hash of its weights) under the conditions that most of them were evaluated under."""
    names = {digits: name for name, digits in weights.items()}
    known = [Result.of(summary) for summary in find_summaries(results)]
    known = [result for result in known if result.row.weights_hash in names]
    if not known:
        return {}
    most, _ = Counter(result.conditions.hash for result in known).most_common(1)[0]
    return {names[str(r.row.weights_hash)]: r.score.success for r in known if r.conditions.hash == most}
