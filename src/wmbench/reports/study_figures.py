"""Pictures of a study: a small panel per row, so that a reader follows one curve at a time, and success against a cost."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wmbench.reports.document import Frame
from wmbench.reports.figures import pyplot, save_figure

BLUE, GREY, INK = "#0b5394", "#c9c9cf", "#33333a"
FONT = {"font.size": 9, "axes.titlesize": 9, "axes.spines.top": False, "axes.spines.right": False}


def draw_curves(path: Path, curves: Frame, rows: list[str], axis: str) -> None:
    """Draw success over x in a panel for each of the rows, with its band, and all the others behind it.

    Args:
        curves: row, x, success, low and high; also of floors and the ceiling, which get no panel.
    """
    plt = pyplot()
    columns = min(2, len(rows))
    height = -(-len(rows) // columns)
    by_row = {row: curve.sort_values("x") for row, curve in curves.groupby("row", sort=False)}
    with plt.rc_context(FONT):
        size = (2.6 * columns + 0.2, 1.45 * height + 0.5)
        figure, grid = plt.subplots(height, columns, figsize=size, squeeze=False, sharex=True, sharey=True)
        for axes in grid.flat[len(rows) :]:
            axes.axis("off")
        for axes, row in zip(grid.flat, rows, strict=False):
            for other, curve in by_row.items():
                style = {"simulator": (INK, "--"), "random": (INK, ":")}.get(str(other), (GREY, "-"))
                axes.plot(curve["x"], 100 * curve["success"], color=style[0], linestyle=style[1], linewidth=0.8)
            own = by_row[row]
            axes.fill_between(own["x"], 100 * own["low"], 100 * own["high"], color=BLUE, alpha=0.2, linewidth=0)
            axes.plot(
                own["x"], 100 * own["success"], color=BLUE, linewidth=1.8, marker="o" if len(own) < 10 else "", markersize=3
            )
            axes.set_title(row, loc="left", fontweight="bold")
            axes.set(ylim=(0, 103), yticks=[0, 50, 100])
            axes.grid(alpha=0.25)
        figure.supxlabel(axis, fontsize=9)
        figure.supylabel("success [%]", fontsize=9)
        save_figure(figure, path)


def draw_against(path: Path, table: Frame, column: str, axis: str, unit: str) -> None:
    """Draw success with its interval against a cost, on a logarithmic axis, each point with its row's name.

    Args:
        table: row, evaluation, the column, success, success_low and success_high.
    """
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    plt = pyplot()
    with plt.rc_context(FONT):
        figure, axes = plt.subplots(figsize=(6.4, 4.4))
        for marker, (evaluation, group) in zip("os^Dv*", table.groupby("evaluation", sort=False), strict=False):
            rates = 100 * group[["success", "success_low", "success_high"]].to_numpy(float).T
            spread = np.nan_to_num(np.abs(rates[1:] - rates[0]))
            style = {"fmt": marker, "color": BLUE, "ecolor": GREY, "markersize": 5, "label": str(evaluation)}
            axes.errorbar(group[column], rates[0], yerr=spread, **style)
        axes.set(xscale="log", xlabel=axis, ylabel="success [%]", ylim=(0, 103))
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(EngFormatter(unit))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.margins(x=0.2)
        axes.grid(alpha=0.25)
        best = table.loc[table.groupby("row", sort=False)["success"].idxmax()]
        _name(axes, dict(zip(best["row"], zip(best[column], 100 * best["success"], strict=True), strict=True)))
        if table["evaluation"].nunique() > 1:
            axes.legend(frameon=False, fontsize=8)
        save_figure(figure, path)


def _name(axes: Any, points: Mapping[str, tuple[float, float]]) -> None:
    """Write names next to points, each as far above its own as it takes to hide no other name."""
    taken: list[Any] = []
    for name, point in sorted(points.items(), key=lambda named: named[1][1]):
        text = axes.annotate(name, point, (4, 4), textcoords="offset points", fontsize=7.5)
        while any(text.get_window_extent().overlaps(other) for other in taken):
            text.xyann = (4, text.xyann[1] + 2)
        taken.append(text.get_window_extent())
