"""Make the tasks of protocol=bench: python scripts/make_tasks.py

Writes MAZE_SPLIT.npz for umaze, medium and large, validation and test, and their hashes in SHA256SUMS. A task is kept where
the simulator row touches the goal within the larger budget, at the first of some numbers of evaluations. The same versions
of numpy, torch and MuJoCo on the same kind of processor give the same files bit for bit.
"""

import argparse
from pathlib import Path

import torch
from jaxtyping import Bool
from numpy import ndarray

from wmbench.commands import fail, told
from wmbench.commands.configuration import compose
from wmbench.commands.players import evaluation_of, make_baseline
from wmbench.envs.mazes import Maze
from wmbench.evaluation.episode_loop import run_episodes
from wmbench.evaluation.shipped import FOLDER, SPLITS, write_tasks
from wmbench.evaluation.stratified import EDGES, SEEDS, stratified_tasks
from wmbench.evaluation.tasks import Tasks
from wmbench.files import shipped


def simulator_touches(tasks: Tasks, maze: str, evaluations: int) -> Bool[ndarray, " n"]:
    """Which goals the simulator row touches within the maze's larger budget, planning with several iterations of iCEM."""
    samples = evaluations // 6
    planner = {"num_samples": samples, "num_elites": samples // 4, "budget": evaluations}
    settings = ["protocol=bench", "protocol.play_on=false", "planner=icem", "model_name=simulator"]
    cfg = compose("plan", settings + [f"planner.{name}={value}" for name, value in planner.items()])
    player = make_baseline(cfg, "simulator", maze, cfg.env.frameskip)
    rules = evaluation_of(cfg, player, tasks).rules
    return run_episodes(player.agent, player.env, tasks, rules, torch.device("cpu")).success


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=shipped(FOLDER), help="where to write; by default in their place")
    parser.add_argument("--mazes", nargs="+", choices=list(EDGES), default=list(EDGES))
    parser.add_argument("--validation", type=int, default=200, help="number of validation tasks of a maze")
    parser.add_argument("--test", type=int, default=500, help="number of its test tasks")
    parser.add_argument("--evaluations", type=int, nargs="+", default=[100, 1000, 3000], help="of a plan, tried in turn")
    arguments = parser.parse_args()
    for maze in arguments.mazes:
        for split in SPLITS:
            number = getattr(arguments, split)
            attempts = [lambda tasks, n=n, maze=maze: simulator_touches(tasks, maze, n) for n in arguments.evaluations]
            tasks, dropped = stratified_tasks(maze, number, SEEDS[split], attempts)
            path = write_tasks(arguments.output, f"{maze}_{split}", Maze(maze), tasks)
            print(f"wrote {path}: {len(tasks)} tasks ({tasks.hash}); {dropped} more were out of the simulator's reach")


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        fail(told(error))
