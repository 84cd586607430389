"""How far a study is, in words: what is done and what it took, what failed, what is left and what that takes."""

from collections.abc import Sequence

from wmbench.machine import duration, size
from wmbench.study.grid import Cell, Study
from wmbench.study.runner import Costs, Done, Failures, grouped, is_trained


def problems(study: Study, cells: Sequence[Cell], done: Done) -> list[str]:
    """What went wrong with cells that are not done, a line each."""
    failures = Failures(study.folder)
    return [f"{cell}: {problem}" for cell in cells if cell not in done and (problem := failures.of(cell))]


def status(study: Study, cells: Sequence[Cell], done: Done) -> str:
    """The grid in words: per row and evaluation how many seeds are done, what each took, what failed, and what is left."""
    lines, width, seconds = [], max(len(cell.row) for cell in cells), Costs(study.folder).seconds

    def each(kind: str, row: str) -> str:
        took = seconds.get(f"{kind}_{row if row in study.rows else 'floors'}")
        return "" if took is None else f" ({duration(took)} each)"

    for row, of_row in grouped(cells, lambda cell: cell.row).items():
        seeds = {cell.seed for cell in of_row if cell.seed is not None}
        trained = f"{sum(is_trained(study, row, seed) for seed in seeds)} of {len(seeds)} trained{each('train', row)}"
        parts = [trained] if seeds else []
        for evaluation, here in grouped(of_row, lambda cell: cell.evaluation).items():
            parts.append(f"{evaluation} {sum(cell in done for cell in here)} of {len(here)}{each(evaluation, row)}")
        lines.append(f"{row:<{width}}  {', '.join(parts)}")
        lines += [f"{'':<{width}}  {problem}" for problem in problems(study, of_row, done)]
    return "\n".join([*lines, what_is_left(study, [cell for cell in cells if cell not in done])])


def what_is_left(study: Study, left: Sequence[Cell]) -> str:
    """Hours and disk of the cells that are left."""
    if not left:
        return "nothing is left to do"
    costs, runs = Costs(study.folder), len({cell.run for cell in left})
    seconds = costs.forecast(study, left)
    if not seconds:
        return f"left: {len(left)} cells; what they take is measured with the first of them"
    source = "here" if costs.seconds else "on the machine that conf/study names"
    took = f"about {duration(seconds)} and {size(1e6 * study.run_mb * runs)} of disk"
    return f"left: {len(left)} cells of {runs} runs, {took} (measured {source})"


def plan_of(study: Study, cells: Sequence[Cell], done: Done) -> str:
    """The cells that are left, and what they take."""
    left, costs = [cell for cell in cells if cell not in done], Costs(study.folder)
    seconds = {cell: costs.forecast(study, [cell]) for cell in left}
    lines = [f"{cell}: {f'about {duration(seconds[cell])}' if seconds[cell] else 'not measured yet'}" for cell in left]
    return "\n".join([*lines, what_is_left(study, left)])
