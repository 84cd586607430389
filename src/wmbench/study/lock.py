"""What was fixed before the first run of a study, and whether any of it was changed after its first result."""

import json
import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf import OmegaConf

from wmbench.commands import explain
from wmbench.commands.configuration import compose
from wmbench.envs.maze_sets import RANDOM
from wmbench.evaluation.conditions import digest
from wmbench.evaluation.results import Summary
from wmbench.evaluation.source import source_version
from wmbench.files import write_text
from wmbench.runs.provenance import git_commit
from wmbench.runs.store import load_mapping
from wmbench.study.grid import Study

Facts = dict[str, Any]
UNREAD = ("model_name", "output_dir", "ckpt_base_path", "tasks_dir", "row", "device", "num_videos", "baselines", "encoder")


def lock_now(study: Study, results: Sequence[Summary]) -> Facts:
    """Write lock.json: the facts of now and, where results were there already, what differs from the facts before them.

    Args:
        results: of the study's cells so far.
    """
    path = study.folder / "lock.json"
    before = read_lock(path)
    facts, now = facts_of(study, results), datetime.now(UTC).isoformat(timespec="seconds")
    lock = {
        "study": study.name,
        "about": study.about,
        "locked": before.get("locked", now),
        "commit": before.get("commit", git_commit()),
        "first_result": min((summary["finished"] for summary in results), default=None),
        "hash": digest({"facts": facts}),
        **facts,
        "changes": before["changes"],
    }
    changed = {name: [before[name], facts[name]] for name in facts if name in before and before[name] != facts[name]}
    known = {name: values for name, values in changed.items() if values[0]}
    if "data" in known and set(before["data"]) <= set(facts["data"]):  # a row of another collection was made
        del known["data"]
    if known and results:
        lock["changes"] = [*lock["changes"], {"when": now, "commit": git_commit(), "what": known}]
    elif known:
        lock |= {"locked": now, "commit": git_commit()}
    write_text(path, json.dumps(lock, indent=2) + "\n")
    return lock


def read_lock(path: Path) -> Facts:
    """What was locked before; nothing where there is no lock yet.

    Raises:
        ValueError: a damaged file.
    """
    remedy = "get it back from a copy, or delete it to lock the study as it is now"
    lock = {"changes": []} | (load_mapping(path, remedy) if path.exists() else {})
    if not isinstance(lock["changes"], list) or not all(isinstance(one, dict) and "what" in one for one in lock["changes"]):
        raise ValueError(f"{path} is damaged (its changes are no list of them); {remedy}")
    return lock


def changes(lock: Facts) -> list[str]:
    """What a lock tells of changes after the first result, a sentence each."""
    return [
        f"{' and '.join(change['what'])} changed after the first result (seen {change['when']}, lock.json has both); "
        "what was done before is not made again: study=, a row or folder= of another name makes it anew"
        for change in lock["changes"]
    ]


def facts_of(study: Study, results: Sequence[Summary]) -> Facts:
    """Hashes of all that decides a study's numbers. Of tasks and data only where there are results."""
    return {
        "protocol": digest({name: _settings(name, words) for name, words in study.evaluations.items()}),
        "rows": digest(
            {"rows": dict(study.rows), "train": study.train, "heads": dict(study.heads), "seeds": list(study.seeds)}
        ),
        "contrasts": digest({"contrasts": list(study.contrasts), "margin": study.margin}),
        "code": source_version("wmbench.evaluation.episode_loop", "wmbench.planning.agent", "wmbench.training.loop"),
        "tasks": sorted({summary["tasks_hash"] for summary in results}),
        "data": sorted({hash_ for summary in results if (hash_ := summary.get("data_hash"))}),
    }


def _settings(name: str, words: str) -> Mapping[str, Any]:
    """All settings that the words of an evaluation stand for.

    Raises:
        ValueError: words that plan.py does not take.
    """
    try:
        config = OmegaConf.to_container(compose("plan", shlex.split(words)), resolve=False)
    except HydraException as error:
        raise ValueError(f"study.evaluations: {name} ({words}): {explain(error, 'plan')}") from None
    assert isinstance(config, dict)
    if config["env"]["maze"] != RANDOM:  # as before there were sets of maps
        config["env"] = {name: value for name, value in config["env"].items() if "maze_" not in name and name != "num_mazes"}
    if (look := config.get("appearance")) and look["values"] is None:  # as before they were written so
        look["values"] = {}
    unset = ("goal_appearance",) * (config["goal_appearance"] is None)  # as before there was such a setting
    return {str(name): value for name, value in config.items() if name not in (*UNREAD, *unset)}
