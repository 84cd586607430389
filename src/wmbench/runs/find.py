"""Runs by their names, in their folders, and their saved steps."""

import fnmatch
from pathlib import Path

from wmbench.files import shipped
from wmbench.runs.trust import read_plain

RUN_FILES = ("config.yaml", "hydra.yaml")  # one of them makes a folder a run; the second is DINO-WM's
NEIGHBOURS = ("pusht", "wall", "wall_single")  # released together with point_maze
SHIPPED = shipped("checkpoints")


def find_run(base: Path, name: str) -> Path:
    """Find a run's folder under base/outputs, base or, from any working folder, among the shipped ones.

    Raises:
        FileNotFoundError: no such run; the message lists those there are.
        ValueError: a name that leads out of these folders.
    """
    check_below(name)
    for folder in (base / "outputs" / name, base / name, SHIPPED / name):
        if any((folder / kind).exists() for kind in RUN_FILES):
            return folder
    if name in NEIGHBOURS:
        raise FileNotFoundError(f"{name!r} is DINO-WM's model of another environment, and wmbench has only PointMaze")
    names = list_runs(base)
    found = ", ".join(names) if names else "none; train one with: python train.py env=point_maze encoder=lewm_small"
    raise FileNotFoundError(f"no run {name!r} in {base / 'outputs'} or {base}; found: {found}")


def check_below(name: str) -> None:
    """Refuse a run's name that leads out of the folder of runs.

    Raises:
        ValueError: naming the rule.
    """
    if any(part == "" or part.startswith(".") for part in name.split("/")) or not name.isprintable():
        raise ValueError(f"model_name ({name!r}) must name a folder below checkpoints/outputs, such as maze or exp1/maze")


def list_runs(base: Path, pattern: str = "*") -> list[str]:
    """Names of the runs that match a glob, whose * also matches folders: exp1/maze is a run in a folder of runs."""
    names = set()
    for folder in (base, SHIPPED, base / "outputs"):
        configs = [path for kind in RUN_FILES for path in folder.glob(f"*/**/{kind}")]
        names |= {path.parent.relative_to(folder).as_posix() for path in configs}
    inside = {name for name in names if any(str(folder) in names for folder in Path(name).parents)}  # of a run
    shown = [name for name in names - inside if not name.startswith(("outputs/", ".")) and "/." not in name]
    return sorted(name for name in shown if fnmatch.fnmatchcase(name, pattern))


def step_path(run: Path, step: int) -> Path:
    return run / f"step_{step:06d}.safetensors"


def saved_steps(run: Path) -> list[int]:
    names = (path.stem.removeprefix("step_") for path in run.glob("step_*.safetensors"))
    return sorted(int(name) for name in names if name.isdigit())


def latest_step(run: Path) -> int | None:
    return max(saved_steps(run), default=None)


def step_of(checkpoint: object) -> int | None:
    """The step that `checkpoint` asks for; None for the latest.

    Raises:
        ValueError: neither `latest` nor a step.
    """
    if checkpoint == "latest":
        return None
    if not isinstance(checkpoint, int) or isinstance(checkpoint, bool) or checkpoint < 0:
        raise ValueError(f"checkpoint ({checkpoint!r}) must be latest or the number of a saved step, such as checkpoint=500")
    return checkpoint


def planned_run(results: Path) -> Path:
    """The run that plan.py wrote a result folder with, found as plan.py found it.

    Raises:
        FileNotFoundError: it is not there any more.
    """
    cfg = read_plain(results / "config.yaml")
    return find_run(Path(cfg["ckpt_base_path"]), str(cfg["model_name"]))
