"""Pictures of results: paths through the maze, success over time, training curves."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray

from wmbench.envs.maze_sets import MazeSet
from wmbench.envs.mazes import CELL_OFFSET, Maze
from wmbench.envs.physics import SUCCESS_RADIUS
from wmbench.evaluation.episode_loop import Outcome
from wmbench.evaluation.row import BASELINES
from wmbench.evaluation.tasks import Tasks
from wmbench.files import whole

WALL, FREE, PATH, START, GOAL, FAILED = "#c9a06a", "#22303f", "#78e6ff", "#66c266", "#ff5a5a", "#ffb000"


def draw_maze(axes: Any, maze: Maze) -> None:
    """Draw the map from above as frames show it: y grows downwards."""
    from matplotlib.patches import Rectangle

    axes.set_facecolor(FREE)
    for w, h in np.argwhere(maze.walls) - CELL_OFFSET:
        axes.add_patch(Rectangle((w - 0.5, h - 0.5), 1, 1, color=WALL, linewidth=0))
    rows, columns = np.array(maze.walls.shape) - 0.5 - CELL_OFFSET
    axes.set(xlim=(-0.5 - CELL_OFFSET, rows), ylim=(columns, -0.5 - CELL_OFFSET), aspect="equal", xticks=[], yticks=[])


def draw_paths(path: Path, maze: Maze | MazeSet, tasks: Tasks, outcome: Outcome, count: int = 12) -> None:
    """Draw the ball's paths in the first tasks, start green, goal red."""
    count = min(count, len(tasks))
    columns = min(4, count)
    rows = -(-count // columns)
    from matplotlib.patches import Circle

    figure, grid = pyplot().subplots(rows, columns, figsize=(2.6 * columns, 2.8 * rows), squeeze=False)
    for axes in grid.flat[count:]:
        axes.axis("off")
    for task, axes in enumerate(grid.flat[:count]):
        success, steps = outcome.success[task], outcome.steps[task]
        line = outcome.states[task, : steps + 1]
        draw_maze(axes, maze.at(tasks.start[task]))
        axes.plot(line[:, 0], line[:, 1], ".-", color=PATH if success else FAILED, markersize=3, linewidth=1)
        axes.plot(*line[0, :2], "o", color=START, markersize=6)
        axes.add_patch(Circle(tuple(tasks.goal[task, :2]), SUCCESS_RADIUS, fill=False, color=GOAL))
        verdict = f"solved in {steps} steps" if success else "not solved"
        axes.set_title(f"task {task}: {verdict}", fontsize=8)
    save_figure(figure, path)


def draw_success(path: Path, table: pd.DataFrame) -> None:
    """Draw the share of tasks solved by each env step, for every row of one protocol's table."""
    figure, axes = pyplot().subplots(figsize=(7.5, max(3.8, 0.2 * len(table))))
    dashes = dict(zip(BASELINES, (":", "-.", "--"), strict=True))
    for name, folder, max_steps in zip(table["row"], table["folder"], table["max_steps"], strict=True):
        outcomes = pd.read_csv(Path(folder) / "tasks.csv")
        steps = np.arange(max_steps + 1)
        solved = [(outcomes["success"] & (outcomes["steps"] <= step)).mean() * 100 for step in steps]
        style = {"color": "grey", "linestyle": dashes[name]} if name in BASELINES else {}
        axes.step(steps, solved, where="post", label=name, **style)
    axes.set(xlabel="env steps (0.05 s each)", ylabel="tasks solved [%]", ylim=(0, 103), xlim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    save_figure(figure, path)


def draw_training(path: Path, metrics: Path) -> None:
    """Draw the training and validation curves of a run."""
    table = pd.read_csv(metrics)
    figure, axes = pyplot().subplots(figsize=(6, 3.2))
    axes.plot(table["step"], table["prediction"], ".-", label="prediction error, training batch", alpha=0.6)
    axes.plot(table["step"], table["valid_prediction"], ".-", label="prediction error, held-out episodes")
    if (table["sigreg"] > 0).to_numpy().any():
        axes.plot(table["step"], table["sigreg"], ".-", label="SIGReg statistic (floor 1.05)", alpha=0.6)
    axes.set(xlabel="optimiser steps", yscale="log")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    save_figure(figure, path)


def draw_decoder(path: Path, frames: UInt8[ndarray, "3 n h w 3"]) -> None:
    """Draw what training.decoder.draw_samples gives, a column for each window."""
    figure, grid = pyplot().subplots(*frames.shape[:2], figsize=(1.7 * frames.shape[1] + 0.9, 5.4), squeeze=False)
    for row, name, pictures in zip(grid, ("real", "reconstructed", "predicted\none step ahead"), frames, strict=True):
        row[0].set_ylabel(name)
        for axes, picture in zip(row, pictures, strict=True):
            axes.imshow(picture)
            axes.set(xticks=[], yticks=[])
    save_figure(figure, path)


def draw_landscapes(
    path: Path,
    maze: Maze,
    positions: Float[ndarray, "R C 2"],
    costs: Float[ndarray, "G R C"],
    goals: Float[ndarray, "G 2"],
    minima: Bool[ndarray, "G R C"],
) -> None:
    """Draw the cost of being at each place, for some goals: a red circle; white dots are local minima elsewhere.

    Args:
        costs: inf where the ball cannot be.
    """
    from matplotlib.patches import Circle

    figure, grid = pyplot().subplots(1, len(goals), figsize=(4.2 * len(goals), 3.8), squeeze=False)
    for axes, cost, goal, holes in zip(grid[0], costs, goals, minima, strict=True):
        draw_maze(axes, maze)
        shown = np.ma.masked_invalid(np.where(np.isfinite(cost), cost, np.nan))
        mesh = axes.pcolormesh(positions[..., 0], positions[..., 1], shown, shading="nearest", cmap="viridis", zorder=2)
        figure.colorbar(mesh, ax=axes, fraction=0.046, label="cost")
        axes.add_patch(Circle(tuple(goal), SUCCESS_RADIUS, fill=False, color=GOAL, linewidth=2, zorder=3))
        axes.plot(*positions[holes].T, "o", color="white", markersize=5, zorder=3)
        axes.set_title(f"{holes.sum()} local minima elsewhere", fontsize=9)
    save_figure(figure, path)


def save_figure(figure: Any, path: Path) -> None:
    figure.tight_layout()
    try:
        with whole(path) as temporary:
            figure.savefig(temporary, dpi=110)
    finally:
        pyplot().close(figure)


def pyplot() -> Any:
    """Import pyplot for drawing into files only; done when a figure is drawn, since it takes two seconds."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt
