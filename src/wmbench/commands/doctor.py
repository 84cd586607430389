"""What this machine has, what it lacks and for what, and the remedy of each: python scripts/doctor.py

Nothing but Python's own library is imported here, so that it also runs where nothing is installed yet. What loads a library
is asked (libraries.py) in a process of its own, all at once: where a driver crashes or hangs, that is the answer.
"""

from __future__ import annotations  # an older Python is told that it is too old

import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.request import urlopen

SOURCE = Path(__file__).resolve().parents[2]
QUESTIONS = Path(__file__).with_name("libraries.py")
HUB = "https://huggingface.co"
ANYTHING = "command at all"
INSTALL = "make setup, or pip install -e '.[dev]'"
PATIENCE_S = 90  # with a process that asks a library
LATE = "no answer within"
NETWORK_S = 3
LEAST_DISK, LEAST_MEMORY = 10e9, 4e9  # the environment and the demo; the demo and its processes


class Finding(NamedTuple):
    """One thing that a machine has or lacks.

    found: what there is, or why there is nothing.
    lacks: what does not work here for want of it; empty where all is well.
    needed: whether nothing works without it.
    """

    name: str
    found: str
    lacks: str = ""
    remedy: str = ""
    needed: bool = False


def main(words: list[str]) -> None:
    about = "Exit status 1 where something is lacking without which nothing works."
    if {"-h", "--help"} & set(words):
        return print(f"{(__doc__ or '').partition(chr(10))[0]}\n\n{about}")
    if words:
        sys.exit(f"error: {' '.join(words)}: nothing can be given; doctor.py --help says what it prints")
    found = []
    for finding in findings():
        found.append(finding)
        print(in_words(finding), flush=True)
    lacking = [finding.name for finding in found if finding.needed and finding.lacks]
    if lacking:
        sys.exit(f"error: nothing works here yet for want of: {', '.join(lacking)}")
    print("\nmake demo runs here" + ("; what else does not is told above" if any(one.lacks for one in found) else ""))


def in_words(finding: Finding) -> str:
    """Two lines, or one where all is well."""
    line = f"{'lacks' if finding.lacks else 'ok':<6}{finding.name:<17}{finding.found}"
    return line + (f"\n{'':<23}without it: no {finding.lacks}; remedy: {finding.remedy}" if finding.lacks else "")


def findings() -> Iterator[Finding]:
    """Ask everything; the slowest answers come last."""
    asked = {name: ask(f"driver('{name}')") for name in ("egl", "osmesa", "warp")}
    asked_torch, asked_weights = ask("torch_facts()"), ask("weights()")
    yield python(sys.version_info[:2])
    for name, find in (
        ("packages", packages),
        ("disk", lambda: disk(Path("."))),
        ("memory", memory),
        ("git", lambda: program("git", ["git", "--version"], "record of the commit in results", "install git")),
        ("ffmpeg", ffmpeg),
        ("network", network),
    ):
        yield safely(name, find)
    yield from torch(answer(asked_torch))
    yield from renderers({kind: answer(process) for kind, process in asked.items()})
    yield weights_kept(answer(asked_weights))


def safely(name: str, find: Callable[[], Finding]) -> Finding:
    """What is found, or that looking for it failed: whatever a broken machine does, the other lines are printed."""
    try:
        return find()
    except Exception as error:
        return Finding(name, f"not known ({reason_of(error)})", "answer to what there is", INSTALL)


def python(version: tuple[int, ...]) -> Finding:
    found = f"{platform.python_version()}, {sys.executable}"
    if (3, 11) <= version <= (3, 13):
        return Finding("python", found)
    return Finding("python", found, ANYTHING, "make setup PYTHON=python3.12 (3.11 to 3.13 will do)", True)


def packages() -> Finding:
    """What pyproject.toml asks for, at least by name; pip has checked the versions."""
    try:
        required = importlib.metadata.requires("wmbench") or []
    except importlib.metadata.PackageNotFoundError:
        return Finding("packages", "wmbench is not installed for this Python", ANYTHING, INSTALL, True)
    names = [re.split(r"[^\w.-]", line)[0] for line in required if "extra ==" not in line]
    missing = [name for name in names if not is_installed(name)]
    if missing:
        return Finding("packages", f"no {', '.join(missing)}", "command that imports them", INSTALL, True)
    return Finding("packages", f"all {len(names)} that are needed")


def is_installed(name: str) -> bool:
    try:
        return bool(importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return False


def disk(folder: Path) -> Finding:
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Finding("disk", str(error), "file written here", "work in another folder")
    found = f"{gigabytes(free)} free in {folder}"
    if not os.access(folder, os.W_OK):
        return Finding("disk", f"{found}, which is read-only", "file written here", "work in another folder")
    if free < LEAST_DISK:
        wanted = f"make room (python scripts/latents.py lists kept tokens), {gigabytes(LEAST_DISK)} are enough to begin with"
        return Finding("disk", found, "room for an environment (6 GB), data and runs", wanted)
    return Finding("disk", found)


def memory() -> Finding:
    try:
        import psutil

        free, total = psutil.virtual_memory().available, psutil.virtual_memory().total
        cores = psutil.cpu_count(logical=False) or os.cpu_count()
    except Exception as error:
        return Finding("memory", f"not known ({reason_of(error)})", "plan in as many rollouts as fit into it", INSTALL)
    found = f"{gigabytes(free)} free of {gigabytes(total)}, {cores} cores"
    if free < LEAST_MEMORY:
        return Finding("memory", found, "room for the demo, which takes about 3 GB", "close other programs")
    return Finding("memory", found)


def program(name: str, command: list[str], lacks: str, remedy: str) -> Finding:
    """A program by the first line that it answers with."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=10)
    except (OSError, subprocess.SubprocessError) as error:
        return Finding(name, "none" if isinstance(error, FileNotFoundError) else reason_of(error), lacks, remedy)
    if done.returncode:
        return Finding(name, f"it fails with exit status {done.returncode}", lacks, remedy)
    return Finding(name, done.stdout.strip().partition("\n")[0].partition(" Copyright")[0])


def ffmpeg() -> Finding:
    """What imageio writes films with: its own binary, or the system's."""
    try:
        from imageio_ffmpeg import get_ffmpeg_exe

        path = get_ffmpeg_exe()
    except Exception:
        path = "ffmpeg"
    return program("ffmpeg", [path, "-version"], "films of plans; num_videos=0 asks for none", "pip install imageio-ffmpeg")


def network() -> Finding:
    lacks = "download of weights"
    remedy = "set HTTPS_PROXY, or scripts/fetch.py on another machine, whose files go to the same place here"
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return Finding("network", "HF_HUB_OFFLINE is set", lacks, "unset HF_HUB_OFFLINE")
    try:
        with urlopen(HUB, timeout=NETWORK_S):
            return Finding("network", f"{HUB} answers")
    except HTTPError as error:
        return Finding("network", f"{HUB} answers with {error.code} {error.reason}", lacks, remedy)
    except Exception as error:
        why = reason_of(getattr(error, "reason", error))
        return Finding("network", f"{HUB} does not answer ({why})", lacks, remedy)


def torch(answered: tuple[Any, str]) -> Iterator[Finding]:
    facts, reason = answered
    if facts is None:
        yield Finding("torch", reason, ANYTHING, remedy_of(reason, INSTALL), needed=not reason.startswith(LATE))
        return
    yield Finding("torch", f"{facts['version']}, {facts['threads']} threads")
    lacks = "large encoder or full budget of planning within hours, which take days on a CPU"
    if facts["gpus"]:
        yield Finding("CUDA", f"{facts['cuda']}, {'; '.join(facts['gpus'])}")
    elif facts["mps"]:
        yield Finding("CUDA", "none; Apple's GPU is used")
    elif facts["cuda"] is None:
        yield Finding(
            "CUDA", "torch is built without it", lacks, "install torch with CUDA (https://pytorch.org/get-started)"
        )
    else:
        remedy = "a GPU, and a driver for it that nvidia-smi shows"
        yield Finding("CUDA", f"torch is built with {facts['cuda']}, and sees no GPU ({facts['why']})", lacks, remedy)


def renderers(drivers: dict[str, tuple[Any, str]]) -> Iterator[Finding]:
    """One of them is enough; each is only missing for data and runs whose frames it drew."""
    is_dark = all(driver is None for driver, _ in drivers.values())
    remedies = {
        "egl": "a GPU's driver, or apt-get install libegl1 (Mesa); new data need none: env.renderer=warp",
        "osmesa": "apt-get install libosmesa6; new data need none: env.renderer=warp",
        "warp": INSTALL,
    }
    for kind, (driver, reason) in drivers.items():
        if driver is not None:
            yield Finding(f"renderer {kind}", driver)
        else:
            lacks = "frame at all" if is_dark else f"planning or training with frames that {kind} drew"
            is_needed = is_dark and not reason.startswith(LATE)
            yield Finding(f"renderer {kind}", reason, lacks, remedy_of(reason, remedies[kind]), is_needed)


def weights_kept(answered: tuple[Any, str]) -> Finding:
    are_here, reason = answered
    if are_here is None:
        return Finding("weights", reason, "answer to which weights are here", remedy_of(reason, INSTALL))
    found = f"those of {', '.join(name for name, is_here in are_here.items() if is_here) or 'no encoder'} are here"
    if not (absent := [name for name, is_here in are_here.items() if not is_here]):
        return Finding("weights", found)
    get = "python scripts/fetch.py encoder=NAME, or encoder.weights=PATH where the file is elsewhere"
    return Finding("weights", found, f"encoder={','.join(absent)}, and what is built on them", get)


def ask(question: str) -> subprocess.Popen[str] | None:
    """Begin a process that prints what a function of libraries.py returns."""
    code = f"import json, runpy; asked = runpy.run_path({str(QUESTIONS)!r}); print()\n"
    code += f"print(json.dumps(eval({question!r}, asked)))"
    command = [sys.executable, *(["-S"] if sys.flags.no_site else []), "-c", code]  # a process that sees what this one sees
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SOURCE), *(path or "." for path in sys.path)])}
    pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    try:
        return subprocess.Popen(command, env=environment, text=True, errors="replace", **pipes)
    except OSError:
        return None


def answer(asked: subprocess.Popen[str] | None) -> tuple[Any, str]:
    """What a process printed, or None and why there is nothing."""
    if asked is None:
        return None, "no process can be started"
    try:
        out, err = asked.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        asked.kill()
        asked.communicate()
        return None, f"{LATE} {PATIENCE_S} s"
    if asked.returncode < 0:
        return None, f"it crashed with signal {-asked.returncode}"
    try:
        return json.loads(out.splitlines()[-1]), ""
    except (ValueError, IndexError):
        last = (err.strip().splitlines() or [f"exit status {asked.returncode}"])[-1]
        return None, re.sub(r"^[\w.]+: ", "", last).partition("; ")[0]


def remedy_of(reason: str, remedy: str) -> str:
    """What helps; a machine that is only busy lacks nothing."""
    is_late = reason.startswith(LATE)
    return f"try again when this machine is less busy; if it stays so, {remedy}" if is_late else remedy


def gigabytes(number: float) -> str:
    return f"{number / 1e9:.1f} GB"


def reason_of(error: object) -> str:
    return " ".join(str(error).split()) or type(error).__name__


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(130)
