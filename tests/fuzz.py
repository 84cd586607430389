"""Every reader of files on damaged copies: python tests/fuzz.py 10000

A case is told by its reader and number: its damage is drawn with a generator keyed by both. Only errors of ours may come:
a ValueError or OSError that names the file (or, where the damage does not matter, none), within bounds of time and memory.
"""

import csv
import json
import os
import pickle
import resource
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import yaml
from forked import COLLECT, PLAN, TRAIN, quick
from hydra.utils import instantiate
from in_process import run_here
from omegaconf import OmegaConf

from wmbench.data import token_list
from wmbench.data.episodes import Episodes, create, map_columns
from wmbench.data.facts import complete
from wmbench.data.official import OfficialEpisodes
from wmbench.data.packing import Packing
from wmbench.data.token_file import TokenFile
from wmbench.diagnostics.diagnose import FILE, read_diagnostics
from wmbench.diagnostics.probe import load_probe
from wmbench.encoders.scratch import ConvTrunk, Scratch
from wmbench.encoders.weights import read_state
from wmbench.envs.maze_sets import MazeSet
from wmbench.evaluation.results import read_summary
from wmbench.evaluation.targets import read_targets
from wmbench.evaluation.tasks import load
from wmbench.importers.lewm import load_lewm
from wmbench.importers.published_data import export_data
from wmbench.models.controller import LinearController
from wmbench.reports.study_files import read_study
from wmbench.runs.load import load_decoder, load_part, load_run, save_part
from wmbench.runs.store import load_resume
from wmbench.study.lock import read_lock
from wmbench.study.runner import Costs
from wmbench.training.metrics import Metrics
from wmbench.training.variance import load_variance, save_variance

SECONDS, BYTES = 4.0, 1_000_000_000  # of processor time, and of memory beyond what was taken before: most for one case
WAIT_S = 60.0  # that a case may wait for
KINDS = ("FIFO", "folder", "device", "socket")
DECODER = " decoder=vqvae decoder.channel=4 decoder.res_channel=2 decoder.num_res_blocks=1 decoder.num_codes=3"
DECODER += " decoder.training.max_steps=2 decoder.training.batch_size=4"
ENV: dict[str, Any] = {"name": "point_maze", "maze": "umaze", "renderer": "warp", "render_lag": False}
ODD = (
    None,
    True,
    -1,
    0,
    3,
    10**30,
    -(10**400),
    0.5,
    float("nan"),
    float("inf"),
    "",
    "x",
    "../x",
    "${oc.env:HOME}",
    [],
    [[]],
)
ODD += ({}, {"_target_": "os.system"}, [1, "a"], "\x00", "9" * 400, 1e308, json.loads("[" * 300 + "]" * 300))
TOKENS = ("nan", "-inf", "1e999", "-1", "", '"', "\n", ",,,", "9" * 40, "\x00", "é", "[", "}", ":", "null", "- ", "True")


@dataclass(frozen=True)
class Reader:
    """What reads a file, and one that can be read.

    folder: copied for each case; `file` in it is damaged.
    read: given the copy.
    """

    folder: Path
    file: str
    read: Callable[[Path], object]


def corpus(root: Path) -> dict[str, Reader]:
    """Make files of every kind below root, by the commands themselves, and say what reads them."""
    with pytest.MonkeyPatch.context() as patch:
        quick(patch)
        for command in (COLLECT, TRAIN + DECODER, PLAN):
            run_here(root, command)
    episodes = Episodes(root / "maze.h5")
    run, (result,) = root / "checkpoints/outputs/a", (root / "plan_outputs").glob("*_a_demo")
    (root / "data_only").mkdir()
    shutil.copy(root / "maze.h5", root / "data_only")
    folders = {"study": root / "study", "tokens": root / "kept", "targets": root / "targets", "weights": root / "weights"}
    for folder in folders.values():
        folder.mkdir()
    write_study(folders["study"], result)
    targets = {"state_0": np.ones((2, 4)), "state_g": np.zeros((2, 4)), "goal_H": 3, "gt_actions": None}
    (folders["targets"] / "plan_targets.pkl").write_bytes(pickle.dumps(targets))
    torch.save({"a": torch.ones(3, 4), "b": torch.arange(5)}, folders["weights"] / "vit.pth")
    shutil.copy(run / "step_000012.safetensors", folders["weights"] / "vit.safetensors")
    released = Path(__file__).parent / "data/dino_wm_checkpoint/outputs/point_maze_tiny"
    (root / "dense").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        quick(patch)
        run_here(root, COLLECT.replace("store_every=5", "store_every=1").replace("maze.h5", "dense/dense.h5"))
    export_data(root / "dense/dense.h5", root / "published")
    dense = Episodes(root / "dense/dense.h5")  # of frames for more than one file of tokens
    kept = tokens(folders["tokens"], dense)
    kept.write(lambda obs: torch.ones(len(obs["visual"]), 1, 4, 6))
    of_tokens = {"": kept.path, " shard": kept.shards[1].path, " facts": kept.about_path}
    write_parts(root / "parts", root / "lewm", episodes)
    (task_file,) = (root / "data/tasks").glob("*.npz")
    of_run = {"config": "config.yaml", "provenance": "provenance.json", "step": "step_000012.safetensors"}
    return {
        "HDF5": Reader(root / "data_only", "maze.h5", read_episodes),
        "manifest": Reader(root / "data_only", "maze.h5", read_episodes),
        "published": Reader(root / "published", "states.pth", read_published),
        "published frames": Reader(root / "published", "obses/episode_000.pth", read_published),
        "tasks": Reader(task_file.parent, task_file.name, lambda folder: load(folder / task_file.name)),
        "targets": Reader(
            folders["targets"], "plan_targets.pkl", lambda folder: read_targets(folder / "plan_targets.pkl", 3)
        ),
        **{f"run {name}": Reader(run, file, lambda folder: load_run(folder)) for name, file in of_run.items()},
        "run state": Reader(run, "resume.safetensors", read_resume),
        "run metrics": Reader(run, "metrics.csv", lambda folder: Metrics(folder / "metrics.csv", 12)),
        "run probe": Reader(run, "probe.safetensors", load_probe),
        "decoder": Reader(run, "decoder.safetensors", read_decoder),
        "decoder config": Reader(run, "decoder.yaml", read_decoder),
        "summary": Reader(result, "summary.json", read_summary),
        "outcomes": Reader(result, "tasks.csv", read_summary),
        "paths": Reader(result, "paths.npz", read_paths),
        **{f"tokens{kind}": Reader(folders["tokens"], path.name, read_tokens(dense)) for kind, path in of_tokens.items()},
        "weights pth": Reader(folders["weights"], "vit.pth", lambda folder: read_state(folder / "vit.pth")),
        "weights": Reader(folders["weights"], "vit.safetensors", lambda folder: read_state(folder / "vit.safetensors")),
        "lock": Reader(folders["study"], "lock.json", lambda folder: read_lock(folder / "lock.json")),
        "costs": Reader(folders["study"], "costs.json", lambda folder: Costs(folder).seconds),
        "study outcomes": Reader(folders["study"], "outcomes.csv", read_study),
        "mazes manifest": Reader(root / "parts", "maps.h5", lambda folder: read_episodes(folder, "maps.h5")),
        "scratch": Reader(
            root / "parts", "scratch.safetensors", lambda folder: scratch(str(folder / "scratch.safetensors"))
        ),
        **{
            f"controller{kind}": Reader(root / "parts", f"policy{kind}", read_controller)
            for kind in (".safetensors", ".yaml")
        },
        "variance": Reader(root / "parts", "variance.safetensors", load_variance),
        "diagnostics": Reader(root / "parts", "diagnostics.json", read_diagnostics),
        "lewm": Reader(root / "lewm", "weights.pt", load_lewm),
        "lewm config": Reader(root / "lewm", "config.json", load_lewm),
        "released": Reader(released, "hydra.yaml", read_release),
        "released weights": Reader(released, "checkpoints/model_latest.pth", read_release),
    }


def write_study(folder: Path, result: Path) -> None:
    (folder / "lock.json").write_text(
        json.dumps({"study": "a", "locked": "2026", "changes": [], "tasks": ["a"], "code": "x"})
    )
    (folder / "costs.json").write_text(json.dumps({"train_a": 3.5, "data": 2.0}))
    tasks = list(csv.DictReader((result / "tasks.csv").open()))
    known = {"row": "a", "seed": 0, "evaluation": "closed", "protocol": "bench", "planner": "cem", "conditions": "c"}
    lines = [known | {"stratum": 0, "held": True, "spl": 0.5} | task for task in tasks]
    with (folder / "outcomes.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)


def write_parts(folder: Path, lewm: Path, episodes: Episodes) -> None:
    """Write data of many maps, trained encoders and controllers, and what is measured of a run; and LeWM's release."""
    folder.mkdir()
    lewm.mkdir()
    maps = {"maze": MazeSet("door", 0, 3, "train").rows, "num_maps": 3, "num_episodes": 2, "episode_length": 3}
    create(folder / "maps.h5", episodes.manifest | maps)
    columns = map_columns(folder / "maps.h5", "r+")
    for name, column in columns.items():
        column[:] = np.arange(column.size).reshape(column.shape) % 200 if name == "pixels" else np.eye(*column.shape)
    scratch(None, for_training=True).save_head(folder / "scratch.safetensors", {"objective": "jepa", "steps": 3})
    sizes = {"_target_": "wmbench.models.controller.LinearController", "action_size": 2, "horizon": 3}
    save_part(folder, "policy", sizes, controller(sizes))
    save_variance(folder, torch.ones(4))
    (folder / FILE).write_text(json.dumps({name: {"asked": "x", "angle": 0.5} for name in "abc"}))
    torch.save(torch.load(Path(__file__).parent / "data/lewm_tiny.pt", weights_only=True)["weights"], lewm / "weights.pt")
    encoder = {"num_attention_heads": 3, "patch_size": 14, "image_size": 28, "hidden_size": 24}
    predictor = {"num_frames": 3, "input_dim": 16, "depth": 2, "heads": 2, "mlp_dim": 32, "dim_head": 8}
    described = {"encoder": encoder, "predictor": predictor, "action_encoder": {"input_dim": 10, "emb_dim": 16}}
    (lewm / "config.json").write_text(json.dumps(described))
    load_lewm(lewm)  # imports here what children then need not


def scratch(weights: str | None, for_training: bool = False) -> Scratch:
    trunk = partial(ConvTrunk, widths=[4])
    return Scratch(trunk, 8, "patches", 3, pretrained=True, weights=weights, seed=0, for_training=for_training)


def controller(config: Mapping[str, Any]) -> LinearController:
    sizes = {"dim": 4, "num_tokens": 2, "action_dim": 6, "memory_dim": 5}
    return instantiate({name: value for name, value in config.items() if name != "horizon"}, **sizes)


def read_controller(folder: Path) -> None:
    load_part(folder, "policy", controller)


def tokens(folder: Path, episodes: Episodes) -> TokenFile:
    return TokenFile([folder], episodes, {"name": "Ones"}, Packing(4, 6, "float16"), lookback=0, frameskip=5, shard_bytes=1)


def read_episodes(folder: Path, name: str = "maze.h5") -> None:
    episodes = Episodes(folder / name)
    complete(episodes, **ENV)
    episodes.frames(np.zeros(len(episodes), int), np.arange(len(episodes)))


def read_published(folder: Path) -> None:
    complete(OfficialEpisodes(folder), **ENV)


def read_resume(folder: Path) -> None:
    (folder / "resume_before.safetensors").unlink()
    model, _, _ = load_run(folder)
    load_resume(folder, model, torch.optim.AdamW(model.predictor.requires_grad_(True).parameters()))


def read_decoder(folder: Path) -> None:
    load_decoder(folder, dim=6, grid=(2, 2), image_size=16)


def read_paths(folder: Path) -> None:
    from wmbench.data.archives import load_arrays

    load_arrays(folder / "paths.npz")


def read_tokens(episodes: Episodes) -> Callable[[Path], None]:
    def read(folder: Path) -> None:
        for name, paths in token_list.sets_in([folder]).items():
            token_list.describe(name, paths)
        file = tokens(folder, episodes)
        file.check(encode := lambda obs: torch.ones(len(obs["visual"]), 1, 4, 6))
        file.open(torch.device("cpu"), encode)

    return read


def read_release(folder: Path) -> None:
    from wmbench.importers.checkpoint import import_checkpoint

    import_checkpoint(folder, folder.parent / "converted", None, None)


def damaged(rng: np.random.Generator, name: str, path: Path) -> None:
    """Damage a file: its bytes; of text, its words; of mappings, the type of a value."""
    if name.endswith("manifest"):
        with h5py.File(path, "r+") as file:
            manifest = json.loads(file.attrs["manifest"])
            swap(rng, manifest)
            file.attrs["manifest"] = dumped(manifest)
        return
    kind, is_text = path.suffix, path.suffix in (".json", ".yaml", ".csv")
    if kind in (".json", ".yaml") and rng.random() < 0.7:
        text = path.read_text()
        content = json.loads(text) if kind == ".json" else OmegaConf.to_container(OmegaConf.create(text))
        for _ in range(rng.integers(1, 3)):
            swap(rng, content)
        path.write_text(dumped(content) if kind == ".json" else yaml.safe_dump(content))
    elif is_text and rng.random() < 0.6:
        text = path.read_text()
        at = sorted(rng.integers(0, len(text) + 1, 2))
        path.write_text(text[: at[0]] + str(rng.choice(TOKENS)) + text[at[0] + (at[1] - at[0]) % 30 :])
    else:
        path.write_bytes(bytes_of(rng, bytearray(path.read_bytes())))


def dumped(content: Any) -> str:
    return json.dumps(content, default=str)


def swap(rng: np.random.Generator, content: Any) -> None:
    """Put a value of another type, or nothing, in place of one that is anywhere inside."""
    places = list(inside(content))
    node, key = places[rng.integers(len(places))] if places else (content, "new")
    match rng.integers(4):
        case 0:
            del node[key]
        case 1 if isinstance(node, dict):
            node[f"{key}x"] = node.pop(key)
        case _:
            node[key] = ODD[rng.integers(len(ODD))]


def inside(node: Any) -> Iterator[tuple[Any, Any]]:
    children = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
    for key, child in list(children):
        yield node, key
        yield from inside(child)


def bytes_of(rng: np.random.Generator, contents: bytearray) -> bytes:
    size = len(contents)
    first = int(rng.integers(size if rng.random() < 0.5 else min(size, 600)))  # headers decide most
    length = int(rng.integers(1, 65))
    match rng.integers(7):
        case 0:
            del contents[first:]
        case 1:
            del contents[first : first + length]
        case 2:
            contents[first:first] = rng.bytes(length)
        case 3:
            contents[first : first + length] = bytes([rng.choice((0, 255))]) * length
        case 4:
            contents[first : first + length] = rng.bytes(length)
        case _:
            for at in (first, *rng.integers(size, size=rng.integers(8))):
                contents[at] ^= 1 << int(rng.integers(8))
    return bytes(contents)


def fault(reader: Reader, name: str, case: int) -> str | None:
    """What is wrong with how a case ended; None where all is well."""
    rng = np.random.default_rng([max(case, 0), *name.encode()])
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "case")
        shutil.copytree(reader.folder, folder)
        if case < 0:
            no_file(KINDS[-case - 1], folder / reader.file)
        else:
            damaged(rng, name, folder / reader.file)
        began, problem = time.process_time(), None
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
            try:
                reader.read(folder)
            except (ValueError, OSError) as error:
                if str(folder) not in str(error) and Path(reader.file).name not in str(error):
                    problem = f"an error that names no file: {type(error).__name__}: {str(error)[:200]}"
            except BaseException as error:
                problem = f"{type(error).__name__}: {str(error)[:200]}"
        seconds = time.process_time() - began
        grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    if seconds > SECONDS:
        problem = f"{seconds:.1f} s, then {problem}"
    return f"{grown / 1e6:.0f} MB, then {problem}" if grown > BYTES else problem


def no_file(kind: str, path: Path) -> None:
    """Put something else in a file's place."""
    path.unlink()
    match kind:
        case "FIFO":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "device":
            path.symlink_to("/dev/zero")
        case "socket":
            here = os.open(path.parent, os.O_RDONLY)  # a socket's path may have 107 bytes
            socket.socket(socket.AF_UNIX).bind(f"/proc/self/fd/{here}/{path.name}")


def faults(readers: dict[str, Reader], cases: int) -> Iterator[tuple[str, int, str]]:
    """Every case of every reader that does not end as it should, each reader's in a child that may crash.

    In negative cases there is no file but one of KINDS.
    """
    for name, reader in readers.items():
        first = -len(KINDS)
        while first < cases:
            ended, found = in_child(reader, name, range(first, cases))
            yield from ((name, case, problem) for case, problem in found)
            if ended < cases:
                yield name, ended, "the process crashed"
            first = ended + 1


def in_child(reader: Reader, name: str, cases: range) -> tuple[int, list[tuple[int, str]]]:
    """Run cases until one crashes; returns its number, or the end, and the problems of those before it."""
    source, sink = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(source)
            limit = resource.getrlimit(resource.RLIMIT_AS)[1]
            resource.setrlimit(resource.RLIMIT_AS, (address_space() + 8 * BYTES, limit))
            with os.fdopen(sink, "w") as told:
                for case in cases:
                    signal.setitimer(signal.ITIMER_REAL, WAIT_S)  # ends a child that waits
                    print(json.dumps([case, fault(reader, name, case)]), file=told, flush=True)
        finally:
            os._exit(0)
    os.close(sink)
    with os.fdopen(source) as lines:
        done = [json.loads(line) for line in lines]
    os.waitpid(child, 0)
    return cases.start + len(done), [(case, problem) for case, problem in done if problem]


def address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def main() -> None:
    total, began, number = int(sys.argv[1]), time.time(), 0
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        readers = {name: one for name, one in corpus(Path(place)).items() if not sys.argv[2:] or name in sys.argv[2:]}
        cases = -(-total // len(readers))
        for name, case, problem in faults(readers, cases):
            number += 1
            print(f"{name} {case}: {problem}", flush=True)
        print(f"{len(readers)} readers, {cases * len(readers)} cases, {number} faults, {time.time() - began:.0f} s")
    sys.exit(bool(number))


if __name__ == "__main__":
    main()
