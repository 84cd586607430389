"""Task files of protocol=bench, which come with the source: the same for everybody, told by their hashes."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from wmbench.encoders.weights import file_hash
from wmbench.envs.maze_sets import MazeSet
from wmbench.envs.mazes import Maze
from wmbench.evaluation.tasks import Tasks, load
from wmbench.files import shipped, whole, write_text

FOLDER = "data/tasks/bench"
SPLITS = ("validation", "test")
HASHES = "SHA256SUMS"  # of every file, as sha256sum writes and checks them


def shipped_tasks(maze: Maze | MazeSet, split: str | None, num_tasks: int | None) -> Tasks:
    """Load a maze's validation or test tasks, the first num_tasks of them or all.

    They are sorted so that any number of first tasks holds every stratum equally often, or nearly.

    Raises:
        ValueError: no such tasks, or a file that was changed.
    """
    folder = shipped(FOLDER)
    if split not in SPLITS:
        raise ValueError(f"protocol.split ({split}) of goal_source=bench must be {' or '.join(SPLITS)}; use protocol=bench")
    path = folder / f"{maze.name}_{split}.npz"
    hashes = read_hashes(folder)
    if path.name not in hashes or not path.is_file():
        known = ", ".join(dict.fromkeys(name.rpartition("_")[0] for name in hashes))
        raise ValueError(
            f"protocol=bench has no tasks in {maze.name}, but in {known}; sample some with protocol.goal_source=random_state"
        )
    if file_hash(path) != hashes[path.name]:
        raise ValueError(
            f"{path} is not the file that {HASHES} next to it names; get it back (git checkout -- {FOLDER}), or give a task "
            f"set of your own with protocol.goal_source=file protocol.goal_file=PATH"
        )
    tasks = load(path)
    if num_tasks is not None and not 1 <= num_tasks <= len(tasks):
        raise ValueError(
            f"protocol.num_tasks ({num_tasks}) must be from 1 to the {len(tasks)} in {path.name}, or null for all"
        )
    first = slice(num_tasks)
    assert tasks.stratum is not None
    return replace(
        tasks, start=tasks.start[first], goal=tasks.goal[first], seeds=tasks.seeds[first], stratum=tasks.stratum[first]
    )


def read_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of each task file of a folder, by its name; none where no file was written yet."""
    path = folder / HASHES
    return dict(line.split()[::-1] for line in path.read_text().splitlines()) if path.is_file() else {}


def write_tasks(folder: Path, name: str, maze: Maze, tasks: Tasks) -> Path:
    """Write a task file, with the lengths of its shortest ways [m], and its hash."""
    assert tasks.stratum is not None
    path = folder / f"{name}.npz"
    geodesic = maze.geodesic(tasks.start[:, :2], tasks.goal[:, :2])
    arrays = {"start": tasks.start, "goal": tasks.goal, "geodesic": geodesic, "seeds": tasks.seeds}
    with whole(path) as temporary:
        np.savez(temporary, stratum=tasks.stratum, **arrays)  # plain, as zlib's versions compress differently
    hashes = read_hashes(folder) | {path.name: file_hash(path)}
    write_text(folder / HASHES, "".join(f"{hashes[known]}  {known}\n" for known in sorted(hashes)))
    return path
