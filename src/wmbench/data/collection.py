"""Collecting episodes: processes render different episodes straight into one file.

What is done is kept next to the file, so that a collection that was stopped at any point goes on from there.
"""

import hashlib
import json
import multiprocessing
import os
import shutil
import threading
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from wmbench.data import episodes as storage
from wmbench.data.behaviour import actions_of, behaviour_words
from wmbench.envs.maze_sets import MazeSet, asked_maze
from wmbench.envs.physics import GEOM_MARGIN, SUBSTEP_S, SUBSTEPS
from wmbench.envs.rendering import resolve
from wmbench.envs.vector import PointMazes
from wmbench.files import put, write_text
from wmbench.machine import num_cores, progress_bar, size

CHUNK = 8  # episodes between two entries of the progress file

_world: PointMazes | None = None  # one per process


def checked_output(name: str | None, num_workers: int | None) -> Path:
    """The file to write.

    Raises:
        ValueError: the name of another collection or of another kind of file, or an impossible number of processes.
    """
    if not name:
        raise ValueError("output must name a file, such as output=data/point_maze.h5")
    output = Path(name).expanduser()
    twin = output.with_suffix("") if output.suffix == ".h5" else output.with_name(output.name + ".h5")
    if twin.is_file() or storage.partial_path(twin).is_file():
        raise ValueError(f"{output} would share {storage.manifest_path(output)} with {twin}; give another output=")
    if output.suffix == ".zip":
        raise ValueError(f"output ({output}) is HDF5 and no zip; name it {output.with_suffix('.h5')}")
    if num_workers is not None and num_workers < 0:
        raise ValueError(f"num_workers ({num_workers}) must be at least 1, or null for one per core")
    return output


def make_manifest(settings: Mapping[str, Any], versions: Mapping[str, str | None]) -> dict[str, Any]:
    """Everything that decides the contents, from collect.py's settings.

    Raises:
        ValueError: numbers that do not fit.
    """
    for name in ("num_episodes", "episode_length", "image_size", "store_every"):
        if not isinstance(settings[name], int) or settings[name] < 1:
            raise ValueError(f"{name} ({settings[name]}) must be positive, a whole number")
    if settings["store_every"] > settings["episode_length"]:
        raise ValueError(
            f"store_every ({settings['store_every']}) must not exceed episode_length ({settings['episode_length']}): "
            f"an episode would keep only its first frame"
        )
    if not isinstance(settings["seed"], int) or settings["seed"] < 0:
        raise ValueError(f"seed ({settings['seed']}) must be a whole number of at least 0")
    env = settings["env"]
    world = PointMazes(asked_maze(env, "train"), appearance=settings["appearance"])
    behaviour, noise = settings.get("behaviour", "uniform"), settings.get("behaviour_noise", 0.0)
    return {
        "format": "wmbench-episodes-1",
        "env": env["name"],
        "maze": list(world.maze.rows),
        "physics": {"substeps": SUBSTEPS, "substep_s": SUBSTEP_S, "geom_margin_m": GEOM_MARGIN},
        "policy": behaviour_words(behaviour, noise),
        **({} if behaviour == "uniform" else {"behaviour": behaviour, "behaviour_noise": noise}),
        **({"num_maps": len(world.maze)} if isinstance(world.maze, MazeSet) else {}),
        "seed": settings["seed"],
        "num_episodes": settings["num_episodes"],
        "episode_length": settings["episode_length"],
        "store_every": settings["store_every"],
        "renderer": resolve(env["renderer"]),
        "render_lag": env["render_lag"],
        "appearance": str(world.appearance),
        "image_size": settings["image_size"],
        "rows": "y grows downwards (OpenGL order, as published)",
        "versions": dict(versions),
    }


def collect(output: Path, manifest: dict[str, Any], num_workers: int | None) -> None:
    """Fill the file, or the part of it that an earlier run has left."""
    num_episodes = manifest["num_episodes"]
    done = open_partial(output, manifest)
    chunks = [range(k, min(k + CHUNK, num_episodes)) for k in range(0, num_episodes, CHUNK)]
    todo = [chunk for chunk in chunks if chunk.start not in done]
    frames_per_episode = -(-manifest["episode_length"] // manifest["store_every"])
    workers = min(num_workers or num_cores(), max(1, len(todo)))
    partial = storage.partial_path(output)
    bar = progress_bar(
        total=num_episodes * frames_per_episode,
        initial=sum(len(c) for c in chunks if c.start in done) * frames_per_episode,
        unit=" frames",
        desc="collecting",
    )
    # Spawned, not forked: a renderer's GL context or Warp runtime does not survive a fork.
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=start_worker, initargs=(manifest,))
    with bar, pool:
        futures = {pool.submit(collect_chunk, partial, chunk, manifest): chunk for chunk in todo}
        try:
            with progress_path(output).open("a") as progress:
                for future in as_completed(futures):
                    done[futures[future].start] = future.result()
                    progress.write(json.dumps([futures[future].start, future.result()]) + "\n")
                    progress.flush()
                    os.fsync(progress.fileno())
                    bar.update(len(futures[future]) * frames_per_episode)
        except BrokenProcessPool:
            raise ValueError(
                f"a process that collects was killed, by the system for want of memory or by hand; {len(done)} of "
                f"{len(chunks)} parts are kept and the same command goes on; lower num_workers={workers} if it happens again"
            ) from None
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    finish(output, manifest, [done[chunk.start] for chunk in chunks])
    print(f"{output}: {num_episodes} episodes, {size(output.stat().st_size)}, drawn by {manifest['renderer']}")


def report_existing(output: Path, manifest: dict[str, Any]) -> None:
    """Say that there is nothing to do, or refuse to overwrite other data."""
    refuse_other(output, storage.Episodes(output).manifest, manifest | {"versions": None})
    print(f"{output} is complete already")


def refuse_other(output: Path, found: dict[str, Any], manifest: dict[str, Any]) -> None:
    """Raise where a value of the manifest differs from what is there; None matches anything."""
    if not found:
        raise ValueError(f"{output} has no manifest that says what it holds; give another output= or delete it")
    found = {"appearance": "clean"} | found  # as all data were before there was another
    if differing := [key for key, value in manifest.items() if value is not None and found.get(key) != value]:
        changes = ", ".join(f"{key} {found.get(key)!r} instead of {manifest[key]!r}" for key in differing)
        raise ValueError(f"{output} holds other data ({changes}); give another output= or delete it")


def open_partial(output: Path, manifest: dict[str, Any]) -> dict[int, str]:
    """Lay out the file, or find the chunks that an earlier, stopped run has finished: first episode -> digest."""
    output.parent.mkdir(parents=True, exist_ok=True)
    partial, progress = storage.partial_path(output), progress_path(output)
    if partial.exists() and progress.exists() and len(lines := progress.read_text().splitlines()) > 1:
        done = [line for line in lines[1:] if line.endswith("]")]
        try:
            begun, chunks = json.loads(lines[0]), dict(json.loads(line) for line in done)
        except (ValueError, TypeError):
            raise ValueError(f"{progress} is damaged; delete it to collect {output} from the beginning") from None
        refuse_other(output, begun, manifest)
        manifest.update(begun)  # with the driver that has drawn so far
        write_text(progress, "\n".join([lines[0], *done]) + "\n")  # without a line that a kill cut short
        return chunks
    frames = manifest["num_episodes"] * -(-manifest["episode_length"] // manifest["store_every"])
    needed = frames * manifest["image_size"] ** 2 * 3 + manifest["num_episodes"] * manifest["episode_length"] * 40
    free = shutil.disk_usage(output.parent).free
    if needed > free:
        raise ValueError(f"{output} needs {size(needed)}, the disk has {size(free)} free; lower num_episodes or image_size")
    print(f"{output} will take {size(needed)} ({size(free)} free)")
    shape = manifest["maze"], manifest["renderer"], manifest["image_size"], manifest["render_lag"]
    world = PointMazes(*shape, appearance=manifest["appearance"])  # refuses frames larger than it can draw
    world.frames(np.zeros((64, world.state_dim)))  # compiles
    manifest |= {"driver": world.renderer.driver, "probe": world.probe()}
    storage.create(partial, manifest)
    write_text(progress, json.dumps(manifest) + "\n")
    return {}


def progress_path(output: Path) -> Path:
    """The file with one line of manifest, then one line per finished chunk."""
    return output.with_name(output.name + ".progress")


def start_worker(manifest: dict[str, Any]) -> None:
    global _world
    threading.Thread(target=end_with_parent, daemon=True).start()
    _world = PointMazes(
        manifest["maze"],
        manifest["renderer"],
        manifest["image_size"],
        manifest["render_lag"],
        num_threads=1,
        appearance=manifest.get("appearance", "clean"),
        look_seed=manifest["seed"],
    )


def end_with_parent() -> None:
    """End this worker with the main process: a killed one cannot tell its workers to stop, and their queue never closes."""
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)


def collect_chunk(path: Path, chunk: range, manifest: dict[str, Any]) -> str:
    """Fill these episodes' rows of the file, the same in any process; returns the digest of what was written."""
    assert _world is not None
    length, store_every = manifest["episode_length"], manifest["store_every"]
    rngs = [np.random.RandomState(np.random.MT19937(np.random.SeedSequence((manifest["seed"], k)))) for k in chunk]
    num_maps = len(_world.maze) if isinstance(_world.maze, MazeSet) else 1
    start = np.stack([_world.maze.sample_state(rng, k % num_maps) for k, rng in zip(chunk, rngs, strict=True)])
    behaviour = manifest.get("behaviour", "uniform"), manifest.get("behaviour_noise", 0.0)
    action = actions_of(_world, start, rngs, length, *behaviour)
    state = np.concatenate([start[:, None], _world.physics.rollout(start, action[:, :-1])], axis=1)
    shown = state[:, ::store_every]
    step, episode = np.tile(np.arange(shown.shape[1]) * store_every, len(chunk)), np.repeat(chunk, shown.shape[1])
    columns = {
        "pixels": _world.frames(shown.reshape(-1, _world.state_dim), step == 0, episode, step),
        "action": action.reshape(-1, 2),
        "state": state[..., :4].reshape(-1, 4).astype(np.float32),
        "proprio": state[..., :4].reshape(-1, 4).astype(np.float32),
    }
    digest = hashlib.sha256()
    for name, column in storage.map_columns(path, "r+").items():
        rows_per_episode = len(columns[name]) // len(chunk)
        first = chunk.start * rows_per_episode
        column[first : first + len(columns[name])] = columns[name]
        column.flush()  # before the main process notes that this chunk is done
        digest.update(memoryview(columns[name]).cast("B"))
    return digest.hexdigest()


def finish(output: Path, manifest: dict[str, Any], digests: list[str]) -> None:
    """Name the contents by their hash and move the file to its place."""
    manifest["hash"] = hashlib.sha256("".join(digests).encode()).hexdigest()
    partial = storage.partial_path(output)
    storage.write_manifest(partial, manifest)
    put(storage.manifest_path(partial), storage.manifest_path(output))
    put(partial, output)
    progress_path(output).unlink()
