"""Commands that play the floors and the ceiling which a table lacks."""

import json
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from wmbench.commands.configuration import choices, compose
from wmbench.commands.quoting import command_line
from wmbench.envs.mazes import MAPS
from wmbench.evaluation.conditions import flat
from wmbench.runs.trust import check_names, read_plain

READ = ("protocol", "planner", "objective", "agent", "seed")  # settings of plan.py that reach a floor or the ceiling


def baseline_command(name: str, folder: Path, output: Path) -> str:
    """The command that plays a floor or the ceiling under the conditions of the result in a folder; `output` gets it.

    A result that names code which conf/ does not name is not turned into a command, where it would be trusted.
    """
    path, by_hand = folder / "config.yaml", f"python plan.py model_name={name}, with the settings of {folder}"
    if not path.exists():
        return by_hand
    try:
        config = read_plain(path)
        for group in ("planner", "objective"):
            check_names(config.get(group), group, str(path), "plan it again")
        if config["protocol"]["name"] not in choices("protocol"):
            raise ValueError(f"{path}: protocol.name ({config['protocol']['name']}) is none of conf/protocol; plan it again")
    except ValueError as error:
        return f"{by_hand} ({error})"
    ran = OmegaConf.create(config)
    maze = json.loads((folder / "summary.json").read_text())["conditions"]["maze"]
    protocol = {"protocol": ran.protocol.name}
    ways = [protocol, *(protocol | {"planner": planner} for planner in choices("planner"))]
    given, changed = min(((way, _changed(ran, way)) for way in ways), key=lambda found: len(found[1]))
    known = next((known for known, rows in MAPS.items() if list(rows) == maze), json.dumps(maze))
    where = {"env.maze": known, "env.frameskip": ran.env.frameskip, "output_dir": str(output), "tasks_dir": ran.tasks_dir}
    plain = dict(flat(OmegaConf.to_container(compose("plan"))))
    where = {key: value for key, value in where.items() if value != plain[key]}
    return command_line("plan.py", {"model_name": name} | given | where | changed)


def _changed(ran: Any, given: dict[str, str]) -> dict[str, Any]:
    """Settings of a result that plan.py would not have by itself under what is given."""
    usual = compose("plan", [f"{key}={value}" for key, value in given.items()])
    before, after = (dict(flat(_read(cfg))) for cfg in (usual, ran))
    return {key: "null" if value is None else value for key, value in after.items() if before.get(key, "") != value}


def _read(cfg: Any) -> Any:
    return OmegaConf.to_container(OmegaConf.masked_copy(cfg, list(READ)), resolve=False)
