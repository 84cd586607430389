"""Running what a study still lacks. Its state is what is on disk, so a study that was stopped anywhere goes on."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from wmbench.commands.entry import PARENT
from wmbench.diagnostics.diagnose import FILE as DIAGNOSTICS
from wmbench.evaluation.results import Summary, find_summaries
from wmbench.files import ROOT, in_turn, parse_json, regular, write_text, writing
from wmbench.machine import progress_bar
from wmbench.study.grid import Cell, Study, run_name

LOG_LINES = 15  # of a command that failed, where it printed no error of its own
SAVING_S = 30  # that a command which was stopped by hand has to save what it made

Done = Mapping[Cell, Summary]  # finished cells and their results


def finished(study: Study) -> dict[Cell, Summary]:
    """Every cell whose result is on disk, in the study's order; of equal ones the newest."""
    cells = {(cell.run, cell.evaluation): cell for cell in study.cells}
    found = {}
    for evaluation in study.evaluations:
        for summary in find_summaries(study.results_folder(evaluation)):
            if cell := cells.get((summary["row"], evaluation)):
                found[cell] = summary
    return {cell: found[cell] for cell in study.cells if cell in found}


def is_trained(study: Study, row: str, seed: int) -> bool:
    """Whether a run is complete: its probe is what training saves last."""
    return (study.run_folder(row, seed) / "probe.safetensors").exists()


class Runner:
    """Makes the cells that are missing, one command at a time, and notes what failed and what each part took.

    A run, and a file that several rows need, is made by one process at a time; another one waits, and finds it made.

    Args:
        cells: those to make, such as a shard's.
        on_result: called with what is finished after every command that may have made results.
    """

    def __init__(self, study: Study, cells: Sequence[Cell], on_result: Callable[[Done], None] = lambda done: None):
        self.study, self.cells, self.on_result = study, cells, on_result
        self.failures = Failures(study.folder)
        self.costs = Costs(study.folder)

    def run(self) -> None:
        """Make every missing cell, as far as it can be made."""
        done = finished(self.study)
        missing = [cell for cell in self.cells if cell not in done]
        with progress_bar(total=len(self.cells), initial=len(self.cells) - len(missing), unit=" cells") as self.bar:
            if missing and self.study.data_file in map(self.study.data_of, self.study.rows):
                self._once(self.study.data_file, "data", self.study.collect_command(self.study.data_file))
            floors = [cell for cell in missing if cell.seed is None]
            for evaluation, cells in grouped(floors, lambda cell: cell.evaluation).items():
                with self._alone(cells) as left:
                    self._plan(evaluation, left)
            trained = [cell for cell in missing if cell.seed is not None]
            for row, cells in grouped(trained, lambda cell: cell.row).items():
                with self._alone(cells) as left:
                    self._row(row, left)
            self._diagnose()

    @contextmanager
    def _alone(self, cells: list[Cell]) -> Iterator[list[Cell]]:
        """Hold the runs of the cells, once no other process does; gives the cells that are then still missing."""
        with ExitStack() as held:
            for run in sorted({cell.run for cell in cells}):  # in one order, so that no two wait for each other
                held.enter_context(in_turn(self.study.folder / "at_work" / run))
            done = finished(self.study)
            self.bar.update(sum(cell in done for cell in cells))
            yield [cell for cell in cells if cell not in done]

    def _once(self, file: Path, name: str, words: list[str]) -> None:
        """Make a file that several rows need, unless it is there; another shard may make it just now.

        Raises:
            ValueError: it could not be made.
        """
        if not file.exists():
            with in_turn(self.study.folder / name):
                if not file.exists():
                    self._command(name, words, [name])
        if not file.exists():
            raise ValueError(f"{file} could not be made: {self._log(name)} says why")

    def _row(self, row: str, cells: list[Cell]) -> None:
        """Train what is not trained of a row, then evaluate it."""
        study = self.study
        try:
            self._once(file := study.data_of(row), f"data_{file.stem}", study.collect_command(file))
            for head in study.heads:
                if str(study.head_file(head)) in study.rows[row]:
                    self._once(study.head_file(head), f"head_{head}", study.head_command(head))
        except ValueError as error:
            for cell in cells:
                self.failures.note(cell, f"error: {error}\n")
            return
        seeds = sorted({cell.seed for cell in cells if cell.seed is not None})
        if untrained := [seed for seed in seeds if not is_trained(study, row, seed)]:
            runs = [run_name(row, seed) for seed in untrained]
            problem = self._command(f"train_{row}", study.train_command(row, untrained), runs)
            for cell in cells:
                assert cell.seed is not None
                if not is_trained(study, row, cell.seed):
                    self.failures.note(cell, problem(cell.run))
        for evaluation, here in grouped(cells, lambda cell: cell.evaluation).items():
            ready = [cell for cell in here if cell.seed is not None and is_trained(study, row, cell.seed)]
            if ready:
                self._plan(evaluation, ready, row)

    def _diagnose(self) -> None:
        """Look for the reasons in the first seed of each row that is trained. Where that fails, the log says why."""
        for row in self.study.rows if self.study.diagnose is not None else ():
            run = run_name(row, seed := self.study.seeds[0])
            file = self.study.run_folder(row, seed) / DIAGNOSTICS
            if all(cell.run != run for cell in self.cells) or not is_trained(self.study, row, seed) or file.exists():
                continue
            with in_turn(self.study.folder / "at_work" / run):
                if not file.exists():
                    self._command(f"diagnose_{row}", self.study.diagnose_command(row), [run])

    def _plan(self, evaluation: str, cells: list[Cell], row: str = "floors") -> None:
        if not cells:
            return
        runs = [cell.run for cell in cells]
        problem = self._command(f"{evaluation}_{row}", self.study.plan_command(evaluation, runs), runs)
        done = finished(self.study)
        for cell in cells:
            if cell in done:
                self.failures.forget(cell)
                self.bar.update()
            else:
                self.failures.note(cell, problem(cell.run))
        self.on_result(done)

    def _command(self, name: str, words: list[str], makes: Sequence[str]) -> Callable[[str], str]:
        """Run one of the project's commands into its log; returns what tells why it did not make one of its parts.

        Args:
            name: of what it costs.
            makes: its parts; the first one also names the log, which no other shard's command shares.

        Raises:
            KeyboardInterrupt: it was stopped by hand.
        """
        self.bar.set_postfix_str(name)
        log = self._log(name if name == makes[0] else f"{name.partition('_')[0]}_{makes[0]}")
        log.parent.mkdir(parents=True, exist_ok=True)
        began = time.perf_counter()
        with writing(log, "make room, or folder=FOLDER moves it"):
            log.write_text(f"$ python {' '.join(words)}\n")
        environment = {**os.environ, PARENT: str(os.getpid())}
        command = [sys.executable, str(ROOT / words[0]), *words[1:]]
        with log.open("a") as file:
            code = call(command, stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=environment)
        if code in (130, -2):
            raise KeyboardInterrupt
        if code == 0:
            self.costs.note(name, (time.perf_counter() - began) / len(makes))
        return lambda part: problem_of(part, code, log)

    def _log(self, name: str) -> Path:
        return self.study.folder / "logs" / f"{name}.log"


def call(command: Sequence[str], **options: Any) -> int:
    """Run a command; returns its exit status. Where this process is stopped by hand, the command saves what it made."""
    child = subprocess.Popen(command, **options)
    try:
        return child.wait()
    except KeyboardInterrupt:
        try:
            child.wait(SAVING_S / 2)  # Ctrl-C reached it too
        except subprocess.TimeoutExpired:
            child.terminate()
            child.wait(SAVING_S / 2)
        raise


def problem_of(run: str, code: int, log: Path) -> str:
    """Why a command did not make a run's part, from its log."""
    lines = log.read_text(errors="replace").replace("\r", "\n").splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    own = [line for line in errors if f"seed={run.rpartition('_s')[2]} " in line or f"model_name={run}" in line]
    reason = (own or errors or ["\n".join(lines[-LOG_LINES:])])[0]
    return f"{reason}\nexit status {code}; {log} has the rest\n"


def grouped(cells: Iterable[Cell], key: Callable[[Cell], str]) -> dict[str, list[Cell]]:
    """Cells by a key, in the order in which the keys first come."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(key(cell), []).append(cell)
    return groups


class Failures:
    """What went wrong, a file per cell in `failed/`, until the cell is made."""

    def __init__(self, folder: Path):
        self.folder = folder / "failed"

    def note(self, cell: Cell, problem: str) -> None:
        write_text(self._file(cell), problem)

    def forget(self, cell: Cell) -> None:
        self._file(cell).unlink(missing_ok=True)

    def of(self, cell: Cell) -> str | None:
        """The first line of a cell's problem."""
        file = self._file(cell)
        return file.read_text().partition("\n")[0] if file.exists() else None

    def _file(self, cell: Cell) -> Path:
        return self.folder / f"{cell.run}_{cell.evaluation}.txt"


class Costs:
    """Seconds that each part took here, by name, for the forecasts of `dry_run` and `status`."""

    def __init__(self, folder: Path):
        self.path = folder / "costs.json"

    @property
    def seconds(self) -> dict[str, float]:
        """Nothing where the file is damaged: a forecast is then the study's own, and the next part is measured."""
        try:
            found = dict(parse_json(regular(self.path).read_text()))
        except (OSError, TypeError, ValueError):
            return {}
        return {name: cost for name, cost in found.items() if isinstance(cost, int | float)}

    def note(self, name: str, seconds: float) -> None:
        with in_turn(self.path):  # other shards note theirs
            write_text(self.path, json.dumps(self.seconds | {name: round(seconds, 1)}, indent=2) + "\n")

    def forecast(self, study: Study, cells: Sequence[Cell]) -> float:
        """Seconds that making the cells takes: as measured for their row, else on average, else as the study's file says."""
        measured = self.seconds

        def part(kind: str, row: str) -> float:
            same = [seconds for name, seconds in measured.items() if name.startswith(f"{kind}_")]
            known = 60.0 * study.minutes.get(kind, 0)
            return measured.get(f"{kind}_{row}", sum(same) / len(same) if same else known)

        untrained = {(cell.row, cell.seed) for cell in cells if cell.seed is not None}
        untrained = {(row, seed) for row, seed in untrained if not is_trained(study, row, seed)}
        plans = sum(part(cell.evaluation, "floors" if cell.seed is None else cell.row) for cell in cells)
        return plans + sum(part("train", row) for row, _ in untrained)
