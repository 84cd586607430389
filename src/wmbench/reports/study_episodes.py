"""The best and worst episodes of a study, filmed from above, and how often each kind of failure came."""

import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, UInt8
from numpy import ndarray
from PIL import Image, ImageDraw

from wmbench.data.archives import load_arrays
from wmbench.data.official import open_episodes
from wmbench.envs.maze_sets import MazeSet, maze_of
from wmbench.envs.mazes import BALL_RADIUS, CELL_OFFSET, Maze
from wmbench.envs.physics import SUCCESS_RADIUS
from wmbench.files import file_name
from wmbench.machine import optional
from wmbench.reports.document import Cell, Films, Frame, Section, Sheet, Table, Text
from wmbench.reports.film import write_video
from wmbench.reports.study_failures import MEANINGS, RULE, count_visits, label_failures
from wmbench.reports.study_files import Study

SHOWN = 2  # best and worst episodes of a row
SIDE = 240  # pixels of a film's longer side
COLOURS = {
    "wall": (201, 160, 106),
    "free": (34, 48, 63),
    "path": (120, 230, 255),
    "goal": (255, 110, 110),
    "ball": (255, 255, 255),
}
COLUMNS = ["row", "evaluation", "folder", "task", "geodesic", "success", "steps", "spl", "final_distance", "label"]


def episodes(study: Study, films: Path) -> tuple[list[Section], list[Sheet]]:
    """Films of the best and the worst row, and the failures of every row whose paths are there."""
    section = Section("Best and worst episodes")
    evaluation = study.evaluations[0] if study.evaluations else ""
    frames = []
    for row in study.learned(evaluation):
        for folder in study.folders(row, evaluation):
            played = optional(f"paths of {folder}", lambda row=row, folder=folder: read_episodes(row, evaluation, folder))
            if played is not None:
                frames.append(played)
    if not frames:
        section.text("No paths of episodes are there to be shown.")
        return [section], []
    played = pd.concat(frames)
    failures, shown = count_labels(played), choose_episodes(study.learned(evaluation), played)
    section.text(
        "Seen from above, at half of real time: the ball is white, its path blue, the goal and its radius of half a "
        "metre red. First the episodes that were solved with the longest way and the least detour, then those that ended "
        "farthest from their goals; of the best row and of the worst."
    )
    clips: list[tuple[Path, Text]] = []
    for index, line in enumerate(shown.frame.to_dict("records")):
        ended = "reached" if line["success"] else "failed"
        path = films / file_name(f"{line['row']}_{line['task']}_{ended}.mp4")
        if optional(f"film {path.name}", lambda line=line, path=path: film_episode(line, path) or True):
            clips.append((path, _caption(shown, index)))
    for old in {*films.glob("*.mp4")} - {path for path, _ in clips}:
        old.unlink()  # chosen when the study was not as far
    section.blocks.append(Films(clips))
    section.blocks.append(_failure_table(failures))
    section.text(RULE + ".", kind="note")
    return [section], [shown, failures]


def read_episodes(row: str, evaluation: str, folder: Path) -> Frame:
    """tasks.csv of a result folder, with a label of each failure."""
    tasks = pd.read_csv(folder / "tasks.csv")
    failed = np.flatnonzero(~tasks["success"].astype(bool))
    paths = load_arrays(folder / "paths.npz")
    states = paths["states"][failed].astype(float)
    imagined = paths["imagined"][failed].astype(float) if "imagined" in paths else None
    maze = _maze(folder)
    data = _summary(folder).get("data")
    visits = _visits(data, maze.rows) if data and isinstance(maze, Maze) else None
    labels = pd.Series("", index=tasks.index, dtype=object)
    goal = tasks[["goal_x", "goal_y"]].to_numpy(float)[failed]
    if isinstance(maze, Maze):
        labels[failed] = label_failures(states, goal, maze, visits, imagined)
    else:  # each in its own map
        for k, task in enumerate(failed):
            one = states[k : k + 1], goal[k : k + 1], maze.at(states[k, 0]), None
            labels[task] = label_failures(*one, None if imagined is None else imagined[k : k + 1])[0]
    tasks = tasks.reindex(columns=[*dict.fromkeys([*tasks.columns, *COLUMNS[3:]])])
    return tasks.assign(row=row, evaluation=evaluation, folder=str(folder), label=labels)[COLUMNS]


def _summary(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())


def _maze(folder: Path) -> Maze | MazeSet:
    return maze_of(_summary(folder)["conditions"]["maze"])


@lru_cache
def _visits(data: str, rows: tuple[str, ...]) -> Float[ndarray, "X Y"] | None:
    """Visits of the episodes that a model was trained on; None where they are not here any more."""
    return optional(f"visits of training in {data}", lambda: count_visits(open_episodes(data), Maze(rows)))


def count_labels(played: Frame) -> Sheet:
    """failures.csv: how many failures of a row have which label."""
    counts = played.groupby("row", sort=False)["label"].value_counts().unstack(fill_value=0)
    counts = counts.reindex(columns=[*MEANINGS], fill_value=0)
    counts.insert(0, "failures", counts.sum(axis=1))
    counts.insert(0, "episodes", played.groupby("row", sort=False).size())
    return Sheet("failures.csv", counts.rename_axis("row").reset_index())


def choose_episodes(rows: list[str], played: Frame) -> Sheet:
    """episodes.csv: the best and worst episodes of the first and the last row that have paths, of a task one each."""
    with_paths = [row for row in rows if row in set(played["row"])]
    chosen = []
    for row in dict.fromkeys((with_paths[0], with_paths[-1])):
        own = played[played["row"] == row]
        solved, failed = own[own["success"].astype(bool)], own[~own["success"].astype(bool)]
        solved = solved.assign(worth=solved["geodesic"] * solved["spl"].fillna(1))
        for episodes, column in ((solved, "worth"), (failed, "final_distance")):
            ranked = episodes.sort_values(column, ascending=False, kind="stable")
            chosen.append(ranked.drop_duplicates("task").head(SHOWN)[COLUMNS])
    return Sheet("episodes.csv", pd.concat(chosen, ignore_index=True))


def _caption(sheet: Sheet, index: int) -> Text:
    task, way = sheet.number(index, "task"), sheet.number(index, "geodesic", "{:.1f}")
    head: Text = [sheet.quote(index, "row"), ", task ", task, ", shortest path ", way, " m: "]
    if sheet.value(index, "success"):
        return [*head, "reached in ", sheet.number(index, "steps"), " steps"]
    distance = sheet.number(index, "final_distance", "{:.1f}")
    return [*head, "failed, ", distance, " m away at the end; cause by the rule below: ", sheet.quote(index, "label")]


def _failure_table(sheet: Sheet) -> Table:
    names = ["episodes", "failures", *MEANINGS]
    body = [
        [
            Cell([sheet.quote(index, "row")], str(sheet.value(index, "row"))),
            *(Cell([sheet.number(index, name)], float(sheet.frame.at[index, name])) for name in names),
        ]
        for index in range(len(sheet.frame))
    ]
    return Table(["row", *names], body, "Causes of failure, by a rule")


def film_episode(line: dict, path: Path) -> None:
    folder = Path(line["folder"])
    tasks = pd.read_csv(folder / "tasks.csv")
    place = int(np.flatnonzero(tasks["task"] == line["task"])[0])
    states = load_arrays(folder / "paths.npz")["states"][place].astype(float)
    maze = _maze(folder).at(states[0])
    if line["success"]:
        states = states[: int(line["steps"]) + 1]
    goal = tasks.loc[place, ["goal_x", "goal_y"]].to_numpy(float)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, np.stack(list(film_path(maze, states[:, :2], goal))))


def film_path(maze: Maze, path: Float[ndarray, "steps 2"], goal: Float[ndarray, "2"]) -> Iterator[UInt8[ndarray, "h w 3"]]:
    """Draw the maze from above for each step of a path, and hold the end."""
    scale = SIDE // max(maze.walls.shape)

    def pixel(position: Float[ndarray, "2"]) -> Float[ndarray, "2"]:
        return (position + CELL_OFFSET + 0.5) * scale

    def disc(draw: ImageDraw.ImageDraw, centre: Float[ndarray, "2"], radius: float, **style) -> None:
        draw.ellipse([*(centre - radius * scale), *(centre + radius * scale)], **style)

    background = Image.new("RGB", tuple(scale * size for size in maze.walls.shape), COLOURS["free"])
    draw = ImageDraw.Draw(background)
    for w, h in np.argwhere(maze.walls) * scale:
        draw.rectangle([w, h, w + scale - 1, h + scale - 1], fill=COLOURS["wall"])
    disc(draw, pixel(goal), SUCCESS_RADIUS, outline=COLOURS["goal"], width=2)
    disc(draw, pixel(goal), 0.06, fill=COLOURS["goal"])
    for step in (*range(len(path)), *[len(path) - 1] * 8):
        frame = background.copy()
        draw = ImageDraw.Draw(frame)
        points = [tuple(pixel(position)) for position in path[: step + 1]]
        if len(points) > 1:
            draw.line(points, fill=COLOURS["path"], width=2)
        disc(draw, pixel(path[step]), 1.5 * BALL_RADIUS, fill=COLOURS["ball"])
        yield np.asarray(frame)
