"""All diagnostics of a run, part by part, into its diagnostics.json; a part that is there under the same settings stays."""

import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from wmbench.diagnostics.parts import PARTS, work
from wmbench.diagnostics.subject import Subject
from wmbench.evaluation.conditions import digest, flat
from wmbench.evaluation.source import source_version
from wmbench.files import parse_json, regular, write_text
from wmbench.machine import duration, peak_memory, progress_bar, size
from wmbench.planning.rollout_cost import block_dim

FILE = "diagnostics.json"
TIMED = (8, 32)  # frames and plans that the forecast is made from
Diagnostics = dict[str, Any]  # what the file holds


def check_parts(parts: object) -> list[str]:
    """The parts that are asked for: `all`, a name, or a list of names.

    Raises:
        ValueError: something else, or a name that no part has.
    """
    names = list(PARTS) if parts == "all" else parts if isinstance(parts, list) else [parts]
    if not names or any(name not in PARTS for name in names):
        raise ValueError(f"parts ({parts}) must be all or some of [{','.join(PARTS)}]")
    return [str(name) for name in names]


def diagnose(run: Path, subject: Subject, parts: Sequence[str], facts: Mapping[str, Any]) -> tuple[Diagnostics, list[str]]:
    """Measure what the file lacks, and say before what that takes; returns the file's contents and the parts made now.

    Args:
        facts: of the run and its data, on which every part depends, and the settings that some parts ask for; `run` names
            the model with all that it computes with.
    """
    found = read_diagnostics(run)
    if found.get("run") != facts["run"]:  # trained further, say: parts of two models do not share a file
        found = {}
    asks = {name: _asked(name, facts) for name in parts}
    todo = [name for name in parts if found.get("made", {}).get(name, {}).get("settings") != asks[name]]
    if not todo:
        print(f"nothing to do: {run / FILE} holds {', '.join(parts)} under these settings")
        return found, todo
    frames, steps = work(subject, todo)
    seconds = forecast(subject, frames, steps)
    print(
        f"{', '.join(todo)}: {frames:,} frames drawn and encoded, {steps:,} steps of rollouts, about {duration(seconds)} on "
        f"{subject.device}, {size(peak_memory(subject.device))} of memory"
    )
    with progress_bar(total=frames, desc=str(facts["model_name"]), unit=" frames") as bar:
        subject.on_frames = bar.update
        for name in todo:
            bar.set_postfix_str(name)
            began = time.perf_counter()
            values = PARTS[name].measure(subject)
            if bad := [key for key, value in values.items() if not math.isfinite(value)]:
                raise ValueError(
                    f"{name}: {bad[0]} of {run} is {values[bad[0]]}, which is no number; the model diverges there"
                )
            known = {key: facts[key] for key in ("model_name", "run", "weights_hash", "step", "data_hash", "tasks")}
            made = found.get("made", {}) | {name: {"settings": asks[name], "seconds": round(time.perf_counter() - began, 1)}}
            found = found | known | {"made": made, name: values}
            write_text(run / FILE, json.dumps(found, indent=2, allow_nan=False) + "\n")
    return found, todo


def read_diagnostics(run: Path) -> Diagnostics:
    """What a run's file holds; nothing where there is none.

    Raises:
        ValueError: a damaged file.
    """
    path = run / FILE
    if not path.exists():
        return {}
    try:
        found = parse_json(regular(path).read_text())
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); delete it and it is made again") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} is damaged (it holds no facts by name); delete it and it is made again")
    return found


@torch.no_grad()
def forecast(subject: Subject, frames: int, steps: int) -> float:
    """Seconds that so many frames and steps of rollouts take, from a few of each."""
    num_frames, num_plans = TIMED
    one = subject.tasks.start[:1].repeat(num_frames, axis=0)
    z = subject.at_rest(one)[:1]  # draws and encodes once before the clock runs
    began = time.perf_counter()
    subject.at_rest(one)
    frame_s = (time.perf_counter() - began) / num_frames
    z = z[:, None].to(subject.device)
    plans = z.new_zeros(1, num_plans, 2, block_dim(subject.model))
    began = time.perf_counter()
    subject.model.rollout(z, plans[:, 0, :0], plans).sum().item()
    step_s = (time.perf_counter() - began) / (2 * num_plans)
    return frames * frame_s + steps * step_s


def _asked(name: str, facts: Mapping[str, Any]) -> str:
    """Names all that decides a part's numbers: the run, its data, the settings that the part asks for, and the code."""
    own = {key: facts[key] for key in ("run", "data_hash", *PARTS[name].asks)}
    modules = (f"wmbench.diagnostics.{path.stem}" for path in sorted(Path(__file__).parent.glob("*.py")))
    return digest(dict(flat(own | {"code": source_version(*modules)})))
