"""Who plans, and where: a trained model, a floor or the ceiling, and what it is asked, from plan.py's configuration."""

import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from jaxtyping import Float, UInt8
from numpy import ndarray
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from wmbench.commands.arms import note_of
from wmbench.commands.budgets import settle
from wmbench.commands.goals import head_facts, load_objective, objective_class
from wmbench.data.official import PUBLISHED, recorded_path
from wmbench.diagnostics.probe import Probe, load_probe
from wmbench.encoders.base import weights_hash
from wmbench.encoders.matched import unmatched
from wmbench.encoders.weights import file_hash
from wmbench.envs.appearance import TASK_SEED, Appearance
from wmbench.envs.maze_sets import MazeSet, played_maze
from wmbench.envs.mazes import Maze
from wmbench.envs.rendering import resolve
from wmbench.envs.vector import PointMazes
from wmbench.envs.view import EnvSpec, View
from wmbench.evaluation.conditions import Conditions
from wmbench.evaluation.episode_loop import Rules
from wmbench.evaluation.evaluate import Evaluation, Player
from wmbench.evaluation.row import BASELINES, Row, cache_of, recipe_of
from wmbench.evaluation.shipped import shipped_tasks
from wmbench.evaluation.source import source_version
from wmbench.evaluation.tasks import Tasks, make_tasks
from wmbench.importers.checkpoint import convert_once, is_released
from wmbench.machine import optional, pick_device
from wmbench.models.decoder import decode_frames
from wmbench.models.precision import set_precision
from wmbench.models.world_model import WorldModel
from wmbench.planning.actor import Actor
from wmbench.planning.agent import Agent
from wmbench.planning.floors import RandomAgent, ZeroAgent
from wmbench.planning.inverse import InverseAgent
from wmbench.planning.objective import Objective
from wmbench.planning.simulator import SimulatorModel
from wmbench.processes.meeting import by_first
from wmbench.reports.show import show_outcome
from wmbench.runs.find import find_run, step_of, step_path
from wmbench.runs.load import load_decoder, load_head, load_run
from wmbench.runs.provenance import git_commit

# Of a protocol's settings: the tasks' hash says more than their file, and the agent's settings and budgets what follows.
TOLD_ELSEWHERE = ("goal_file", "budgets", "plans")
INVERSE = f"{InverseAgent.__module__}.{InverseAgent.__name__}"


def run_of(cfg: DictConfig) -> tuple[Path, int | None]:
    """Folder and step of the run model_name; a checkpoint that DINO-WM released is converted once, that step only."""
    step = step_of(cfg.checkpoint)
    run = find_run(Path(cfg.ckpt_base_path), cfg.model_name)
    if is_released(run):
        return convert_once(run, step, Path(cfg.output_dir) / "converted" / run.name), None
    return run, step


def load_trained(cfg: DictConfig) -> Player:
    """Load a trained model as an agent, in the environment whose pixels it was trained on."""
    device = pick_device(cfg.device)
    run, step = by_first(lambda: run_of(cfg))
    model, train_cfg, provenance = load_run(run, step, cfg.get("encoder"))
    encoder, data = model.encoder, provenance["data"]
    where = f"{run / 'provenance.json'}, data,"
    view, spec = View.from_manifest(data, where), EnvSpec.from_manifest(data, where)
    if data["renderer"] == PUBLISHED["renderer"]:
        data["renderer"] = resolve(cfg.env.renderer or "auto")
        print(f"the training frames were drawn by {PUBLISHED['renderer']}; {data['renderer']} draws a little differently")
    if cfg.env.renderer not in (None, data["renderer"]):
        raise ValueError(
            f"run {cfg.model_name} was trained on frames drawn by {data['renderer']}, not {cfg.env.renderer}: "
            f"planning must see the same pixels; leave env.renderer out"
        )
    shape = played_maze(spec.maze, cfg.env), data["renderer"], view.image_size, view.render_lag
    env = PointMazes(*shape, device=str(device), **looks_of(cfg, view.appearance))
    if view.probe and shape[0] == spec.maze and str(env.appearance) == view.appearance and view.probe != env.probe():
        print(f"note: frames differ here from those of the training, which {view.driver} drew", file=sys.stderr)
    probe = optional("its probe", lambda: load_probe(run))
    decoder = optional("its decoder", lambda: load_decoder(run, encoder.embed_dim, encoder.grid, view.image_size))

    def draw(z: Float[Tensor, "F N D"]) -> UInt8[ndarray, "F h w 3"]:
        assert decoder is not None
        return decode_frames(decoder.to(device), model.split(z.to(device))[0])

    row = describe(cfg, model, train_cfg, provenance, file_hash(step_path(run, provenance["step"])), probe)
    set_precision(model.to(device), cfg.precision, cfg.compile)
    match cfg.actor:
        case "planner":
            objective, fitted = load_objective(cfg, run, model)
            agent = make_agent(cfg, model, env.maze, objective)
        case "inverse":
            agent, fitted = make_inverse(cfg, run, model, env.maze), head_facts(run, "policy")
            row = replace(
                row, actor="inverse", note=", ".join(filter(None, (row.note, f"{agent.policy.called}, no planner")))
            )
        case _:
            raise ValueError(f"actor ({cfg.actor!r}) must be planner or inverse")
    split = {name: train_cfg[name] for name in ("train_fraction", "split_seed") if name in train_cfg}
    row = replace(row, fitted=fitted)
    return Player(row, agent, env, model.frameskip, device, probe, draw if decoder else None, **split)


def describe(
    cfg: DictConfig, model: WorldModel, train_cfg: DictConfig, provenance: dict[str, Any], weights: str, probe: Probe | None
) -> Row:
    """Gather what a table says of a run.

    Args:
        weights: hash of the file of weights.
        probe: the run's.
    """
    config: dict[str, Any] = OmegaConf.to_container(train_cfg, resolve=True)  # type: ignore[assignment]
    encoder, settings, data = model.encoder, config["encoder"], provenance["data"]
    cache_dtype, look = cache_of(config, provenance, encoder.frozen), data.get("appearance", "clean")
    notes = [
        note_of(encoder, train_cfg, provenance),
        "" if cache_dtype in (None, "float16") else f"{cache_dtype} cache",
        "compiled training" if config.get("compile") is True else "",
        "" if cfg.precision == "fp32" else f"{cfg.precision} rollouts",
        "compiled rollouts" if cfg.compile else "",
        "" if look == "clean" else f"trained on {look}",
    ]
    return Row(
        cfg.row,
        environment=config["env"]["name"],
        encoder=settings["_target_"].rpartition(".")[2],
        encoder_name=provenance["encoder"].get("name"),
        encoder_source=encoder.source,
        encoder_weights=provenance["encoder"]["weights_hash"] or weights_hash(unmatched(encoder)),
        arm=config.get("arm"),
        pixels=settings.get("pixels"),
        output=settings.get("output"),
        temporal=settings.get("temporal"),
        input_size=encoder.image_size,
        predictor=config["predictor"],
        parameters=provenance["encoder"]["parameters"] + provenance["predictor_parameters"],
        recipe=recipe_of(config),
        proprio=config["proprio"],
        cache_dtype=cache_dtype,
        train_seed=config.get("seed"),
        step=provenance["step"],
        weights_hash=weights[:12],
        data=recorded_path(data),
        data_hash=data["hash"][:12],
        renderer=data["renderer"],
        image_size=data["image_size"],
        appearance=look,
        position_r2=probe and probe.r2,
        effective_rank=probe and probe.rank,
        note=", ".join(filter(None, notes)),
        code=source_version(*(type(part).__module__ for part in (unmatched(encoder), model.predictor, model))),
    )


def make_baseline(cfg: DictConfig, name: str, maze: Any, frameskip: int, row: str | None = None) -> Player:
    """Make a floor (random actions, do nothing) or the ceiling (the simulator as the model, under the same planner)."""
    env, model = PointMazes(maze, image_size=0, **looks_of(cfg)), None
    if name == "random":
        agent: Actor = RandomAgent(frameskip, env.action_dim, cfg.seed)
    elif name == "zero":
        if not _has_end(cfg.protocol):
            raise ValueError("doing nothing never solves every task; set protocol.max_rounds (max_iter)")
        agent = ZeroAgent(frameskip, env.action_dim)
    else:
        model = SimulatorModel(env.physics, frameskip)
        if objective_class(cfg) is not Objective:
            raise ValueError("the simulator knows where the ball is, and needs no other objective; leave objective= out")
        agent = make_agent(cfg, model, env.maze)
    code = source_version(type(model or agent).__module__)
    return Player(Row(row or name, actor=name, code=code), agent, env, frameskip, torch.device("cpu"))


def looks_of(cfg: DictConfig, own: str = "clean") -> dict[str, Any]:
    """What PointMazes draws for an evaluation: the run's own appearance, or the configured one.

    Raises:
        ValueError: an unknown factor, or a scale outside its range.
    """
    asked = Appearance.of(OmegaConf.to_container(cfg.appearance) if cfg.get("appearance") else own)
    goal = cfg.get("goal_appearance")
    return {
        "appearance": asked,
        "goal_appearance": Appearance.of(own if goal is None else goal, scale=asked.scale),
        "look_seed": TASK_SEED,
    }


def possible_baselines(cfg: DictConfig) -> list[str]:
    """Names of those that can run: doing nothing needs a limit on rounds, a simulator plans, by positions only, without
    gradients."""
    is_ceiling = cfg.actor == "planner" and objective_class(cfg) is Objective and not cfg.objective.alpha
    left_out = set() if is_ceiling and not instantiate(cfg.planner).needs_gradients else {"simulator"}
    if not _has_end(cfg.protocol):
        left_out.add("zero")
    return [name for name in BASELINES if name not in left_out]


def _has_end(protocol: DictConfig) -> bool:
    return protocol.max_rounds is not None or protocol.max_steps is not None or "budgets" in protocol


def make_agent(cfg: DictConfig, model: Any, maze: Maze | MazeSet, objective: Objective | None = None) -> Agent:
    """Make an agent that plans; the objective is the configured one, unless a run has brought it."""
    cfg = settle(cfg, maze, model.frameskip)
    objective = instantiate(cfg.objective) if objective is None else objective
    return Agent(model, instantiate(cfg.planner), objective, seed=cfg.seed, **cfg.agent)  # type: ignore[arg-type]


def make_inverse(cfg: DictConfig, run: Path, model: Any, maze: Maze | MazeSet) -> InverseAgent:
    """Make the actor of the run's inverse model, which plans nothing and looks as often as the protocol lets a planner."""
    policy: Any = load_head(run, "policy", model).to(model.encoder.pixel_mean.device)
    settings = settle(cfg, maze, model.frameskip).agent
    return InverseAgent(model, policy, **{n: value for n, value in settings.items() if n not in ("horizon", "shrinking")})


def load_tasks(cfg: DictConfig, player: Player) -> Tasks:
    """Load the protocol's tasks; the first time, sample and save them."""
    protocol = cfg.protocol
    if protocol.goal_source == "bench":
        return shipped_tasks(player.env.maze, protocol.get("split"), protocol.num_tasks)
    return make_tasks(
        Path(cfg.tasks_dir),
        player.env.physics,
        goal_source=protocol.goal_source,
        num_tasks=protocol.num_tasks,
        seed=protocol.task_seed,
        skip_solved=protocol.skip_solved,
        goal_at_rest=protocol.goal_at_rest,
        start_at_rest=protocol.start_at_rest,
        num_steps=protocol.goal_H * player.frameskip,
        data=cfg.env.data or player.row.data,
        data_hash=None if cfg.env.data else player.row.data_hash,
        train_fraction=player.train_fraction,
        split_seed=player.split_seed,
    )


def evaluation_of(cfg: DictConfig, player: Player, tasks: Tasks) -> Evaluation:
    """Gather what a player is asked and all that decides its outcome.

    Raises:
        ValueError: rules that cannot work.
    """
    if cfg.num_videos < 0:
        raise ValueError(f"num_videos ({cfg.num_videos}) must not be negative")
    actor, cfg = player.row.actor, settle(cfg, player.env.maze, player.frameskip)
    settings: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    protocol, agent = settings["protocol"], settings["agent"]
    round_steps = agent["num_taken"] * player.frameskip
    if protocol["max_rounds"] is not None and protocol["max_rounds"] < 1:
        raise ValueError(f"protocol.max_rounds ({protocol['max_rounds']}) must be positive, or null for no limit")
    max_steps = protocol["max_steps"] if protocol["max_rounds"] is None else protocol["max_rounds"] * round_steps
    further = {name: protocol[name] for name in ("play_on", "short_steps") if name in protocol}
    rules = Rules(player.frameskip, max_steps, round_steps, protocol["check"], protocol["coast"], **further)
    is_model, plans = actor in ("model", "inverse"), actor in ("model", "simulator")
    planner: dict[str, Any] | None = settings["planner"] if plans else {"_target_": INVERSE} if is_model else None
    conditions = Conditions(
        maze=list(player.env.maze.rows),
        frameskip=player.frameskip,
        tasks=tasks.hash,
        protocol={name: value for name, value in protocol.items() if name not in TOLD_ELSEWHERE},
        max_steps=max_steps,
        round_steps=round_steps if protocol["max_rounds"] is not None or protocol["check"] == "every_round" else None,
        agent={name: value for name, value in agent.items() if name != "memory_gb"} if planner else None,
        planner=planner,
        objective=settings["objective"] if plans else None,
        seed=None if actor == "zero" else settings["seed"],
        view=_view_of(player.env, player.row.renderer) if player.row.renderer else None,
        precision=settings["precision"] if is_model else None,
        compile=settings["compile"] if is_model else None,
        code=_code(planner["_target_"] if planner else None),
    )
    config = OmegaConf.to_yaml(
        cfg if is_model else OmegaConf.merge(cfg, {"model_name": actor, "row": player.row.row}), resolve=True
    )
    return Evaluation(player, tasks, rules, conditions, config, cfg.num_videos, show_outcome, git_commit())


def _view_of(env: PointMazes, renderer: str) -> dict[str, Any]:
    """What a model sees, of which another appearance of goals is told where there is one."""
    appearance, goal = str(env.appearance), str(env.goal_appearance)
    view = View(renderer, env.image_size, env.render_lag, appearance, None if goal == appearance else goal)
    return {name: value for name, value in asdict(view).items() if name not in ("driver", "probe") and value is not None}


def _code(planner: str | None) -> dict[str, str]:
    """Versions of the code that plays, and of the code that plans."""
    code = {"episodes": source_version("wmbench.evaluation.episode_loop")}
    if planner is not None:
        code["planner"] = source_version("wmbench.planning.agent", planner.rpartition(".")[0])
    return code
