"""The report of a study: one page with its results, what its models did, see and imagine, and how they were trained."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from wmbench.data.official import open_episodes
from wmbench.evaluation.results import sentence
from wmbench.evaluation.row import BASELINES
from wmbench.files import whole
from wmbench.reports.feature_maps import FeatureMap, encode_frames, feature_map, feature_sheet, spread_frames
from wmbench.reports.figures import draw_success, draw_training
from wmbench.reports.page import Page
from wmbench.reports.table import comparisons, to_html
from wmbench.runs.find import planned_run
from wmbench.runs.load import load_encoder

Row = dict[Any, Any]  # of a table
NUM_FRAMES = 6  # of a row of maps
NOTE = (
    "Grey rows are floors (random actions, doing nothing) and the ceiling (the simulator itself as the model, under the "
    "same planner). Only rows of the same conditions compare: where a table has several, a column says in which settings "
    "they differ. differs in: what is not the same in all models of these conditions, apart from their encoders. p vs best: "
    "exact McNemar test against the best trained row of these conditions; above 0.05 two rows cannot be told apart. A "
    "decision is looking, encoding and planning, of one task among those planned together; the first one, which warms up, "
    "is not counted."
)
PANELS = (
    "Left the plan at that moment (yellow: where the model imagines the ball at the end of each planned block, read "
    "linearly from its latents), in the middle what happened, right the goal frame with the success radius."
)
MAPS = (
    "The first three principal components of an encoder's tokens over all of these frames, as red, green and blue: tokens "
    "of one colour are alike to the model."
)


def write_report(table: pd.DataFrame, folder: Path, title: str, intro: Sequence[str] = (), star: str | None = None) -> Path:
    """Write folder/report.html, with its pictures inside and in folder/report.

    Args:
        table: as make_table gives it, of at least one row.
        intro: texts below the title; by default a sentence on the best row of each task set.
        star: the row whose videos are shown; by default the best trained one of each task set.
    """
    groups = comparisons(table)
    shown = [best for group in groups if (best := _best(group.to_dict("records"), star))]
    page, pictures = Page(title), folder / "report"
    for text in intro or [f"{row['protocol']}, task set {row['tasks_hash']}: {sentence(row)}." for row in shown]:
        page.text(text)
    page.section("Results")
    page.raw(to_html(table))
    page.text(NOTE)
    for number, group in enumerate(groups):
        protocol, tasks, conditions = group.iloc[0][["protocol", "tasks_hash", "conditions"]]
        caption = f"Tasks solved by each step: {protocol}, task set {tasks}"
        path = pictures / f"success_{number}.png"

        def draw(path: Path = path, group: pd.DataFrame = group) -> None:
            draw_success(path, group)

        _picture(page, path, caption + (f", conditions {conditions}" if len(groups) > 1 else ""), draw)
    _add_plans(page, shown)
    trained = {row["row"]: row for row in table.to_dict("records") if row["actor"] not in BASELINES}
    runs, lost = _find_runs(trained)
    _add_maps(page, pictures, runs, lost)
    _add_decoders(page, runs)
    _add_training(page, pictures, runs, trained)
    page.write(folder / "report.html")
    return folder / "report.html"


def _best(rows: list[Row], star: str | None) -> Row | None:
    candidates = [row for row in rows if (row["row"] == star if star else row["actor"] not in BASELINES)]
    return max(candidates, key=lambda row: row["success"], default=None)


def _find_runs(trained: dict[str, Row]) -> tuple[dict[str, Path], dict[str, str]]:
    """Find runs by their rows, and say why others cannot be found from here."""
    runs, lost = {}, {}
    for name, row in trained.items():
        try:
            runs[name] = planned_run(Path(row["folder"]))
        except Exception as error:  # as for _add_maps
            lost[name] = str(error)
    return runs, lost


def _picture(page: Page, path: Path, caption: str, draw: Callable[[], None] = lambda: None, columns: int = 1) -> None:
    """Draw a picture and put it on the page; if that fails, a line takes its place."""
    try:
        draw()
        page.picture(path, caption, columns)
    except Exception as error:
        page.text(f"{caption}: the picture is left out: {error}")


def _add_plans(page: Page, shown: Sequence[Row]) -> None:
    if not shown:
        return
    page.section("What it does")
    page.text(PANELS)
    for row in shown:
        results = Path(row["folder"])
        for video in sorted((results / "videos").glob("*.mp4")):
            caption = f"{row['row']}: {video.stem.replace('_', ' ')}"
            try:
                page.video(video, caption, columns=2)
            except (OSError, ValueError) as error:
                page.text(f"{caption}: the video is left out: {error}")
        if (results / "paths.png").exists():
            _picture(page, results / "paths.png", f"{row['row']}: paths of the first tasks, start green, goal red")


def _add_maps(page: Page, pictures: Path, runs: dict[str, Path], lost: dict[str, str]) -> None:
    """Add a sheet for each data set; no section where there is no map and none is missing."""
    sheets: dict[str, dict[str, FeatureMap]] = {}
    frames, left_out, single = {}, dict(lost), []
    for row, run in runs.items():
        try:
            encoder, data = load_encoder(run)
            if encoder.num_tokens == 1:
                single.append(row)
                continue
            if data not in frames:
                frames[data] = spread_frames(open_episodes(data), NUM_FRAMES)
            sheets.setdefault(data, {})[row] = feature_map(encode_frames(encoder, frames[data]), encoder.grid)
        except Exception as error:  # a run that cannot be opened here costs a line, not the page
            left_out[row] = str(error.__cause__ or error)
    if not sheets and not left_out:
        return
    page.section("What the encoders see")
    if sheets:
        page.text(MAPS)
    for number, (data, maps) in enumerate(sheets.items()):
        path = pictures / f"maps_{number}.png"
        with whole(path) as temporary:
            Image.fromarray(feature_sheet(frames[data], maps)).save(temporary)
        page.picture(path, f"Frames of {data}")
    if single:
        page.text(f"One token a frame is no map: {', '.join(single)}.")
    for row, why in left_out.items():
        page.text(f"{row} is left out: {why}")


def _add_decoders(page: Page, runs: dict[str, Path]) -> None:
    found = {row: run / "decoder.png" for row, run in runs.items() if (run / "decoder.png").exists()}
    if found:
        page.section("What the models imagine")
        page.text("Held-out frames, drawn by a decoder from their latents and from the model's predictions.")
    for row, path in found.items():
        _picture(page, path, row)


def _add_training(page: Page, pictures: Path, runs: dict[str, Path], trained: dict[str, Row]) -> None:
    found = {row: run / "metrics.csv" for row, run in runs.items() if (run / "metrics.csv").exists()}
    if found:
        page.section("How they were trained")
    for number, (row, metrics) in enumerate(found.items()):
        path, r2 = pictures / f"training_{number}.png", trained[row]["position_r2"]
        can_read = "" if pd.isna(r2) else f": the ball's position can be read from a frame's latent with R2 {r2:.4f}"

        def draw(path: Path = path, metrics: Path = metrics) -> None:
            draw_training(path, metrics)

        _picture(page, path, f"{row}{can_read}", draw, columns=2)
