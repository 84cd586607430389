"""Make the tasks of protocol=bench: python scripts/make_tasks.py

Writes MAZE_SPLIT.npz for umaze, medium and large, validation and test, and their hashes in SHA256SUMS. A task is kept where
the simulator row touches the goal within the larger budget with one of the numbers of evaluations. As none had to be left
out, the files depend on NumPy's legacy generator (RandomState), whose numbers are fixed for good, and the last digits of
their distances on the processor.
"""

from functools import partial
from pathlib import Path
from typing import Any

from jaxtyping import Bool
from numpy import ndarray

from wmbench.commands import Arguments, door
from wmbench.commands.configuration import compose

MAZES = ("umaze", "medium", "large")


def simulator_touches(maze: str, evaluations: int, tasks: Any) -> Bool[ndarray, " n"]:
    """Which goals the simulator row touches within the maze's larger budget, planning with several iterations of iCEM."""
    from wmbench.commands.players import evaluation_of, make_baseline
    from wmbench.evaluation.episode_loop import run_episodes

    samples = evaluations // 6
    planner = {"num_samples": samples, "num_elites": samples // 4, "budget": evaluations}
    settings = ["protocol=bench", "protocol.play_on=false", "planner=icem", "model_name=simulator"]
    cfg = compose("plan", settings + [f"planner.{name}={value}" for name, value in planner.items()])
    player = make_baseline(cfg, "simulator", maze, cfg.env.frameskip)
    rules = evaluation_of(cfg, player, tasks).rules
    return run_episodes(player.agent, player.env, tasks, rules, player.device).success


@door
def main() -> None:
    arguments = Arguments(description=__doc__)
    arguments.add_argument("--output", type=Path, help="where to write; by default in their place")
    arguments.add_argument("--mazes", nargs="+", choices=MAZES, default=MAZES)
    arguments.add_argument("--validation", type=int, default=200, help="number of validation tasks of a maze")
    arguments.add_argument("--test", type=int, default=500, help="number of its test tasks")
    arguments.add_argument("--evaluations", type=int, nargs="+", default=[100, 1000, 3000], help="of a plan, tried in turn")
    given = arguments.parse_args()
    from wmbench.envs.mazes import Maze  # after --help, which does not wait for PyTorch
    from wmbench.evaluation.shipped import FOLDER, SPLITS, write_tasks
    from wmbench.evaluation.stratified import SEEDS, stratified_tasks
    from wmbench.files import shipped

    for maze in given.mazes:
        for split in SPLITS:
            attempts = [partial(simulator_touches, maze, evaluations) for evaluations in given.evaluations]
            tasks, dropped = stratified_tasks(maze, getattr(given, split), SEEDS[split], attempts)
            path = write_tasks(given.output or shipped(FOLDER), f"{maze}_{split}", Maze(maze), tasks)
            print(f"wrote {path}: {len(tasks)} tasks ({tasks.hash}); {dropped} more were out of the simulator's reach")


if __name__ == "__main__":
    main()
