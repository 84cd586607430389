"""Pictures of one evaluation: the paths, and videos of what the model had in mind."""

from pathlib import Path

from wmbench.evaluation.episode_loop import Outcome
from wmbench.evaluation.evaluate import Evaluation, Thoughts
from wmbench.machine import optional
from wmbench.reports.figures import draw_paths
from wmbench.reports.film import write_videos


def show_outcome(evaluation: Evaluation, outcome: Outcome, thoughts: Thoughts, folder: Path) -> None:
    player, tasks, videos = evaluation.player, evaluation.tasks, evaluation.num_videos
    optional("paths.png", lambda: draw_paths(folder / "paths.png", player.env.maze, tasks, outcome))
    if videos and not player.row.is_baseline:
        material = (thoughts.plans, player.frameskip, videos, thoughts.imagine)
        optional("videos", lambda: write_videos(folder, player.env, tasks, outcome, *material))
