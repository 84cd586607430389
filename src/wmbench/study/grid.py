"""The grid of a study: rows, training seeds and evaluations, as the command lines that make them."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from wmbench.evaluation.conditions import digest
from wmbench.evaluation.multiplicity import MARGIN
from wmbench.evaluation.row import BASELINES
from wmbench.study.contrasts import read_contrasts

NAME = re.compile(r"[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class Cell:
    """One result of a study: a row's run, or a floor or ceiling, under one evaluation.

    seed: of the training; None for what is not trained.
    """

    row: str
    seed: int | None
    evaluation: str

    @property
    def run(self) -> str:
        """The run's name, and that of its row in a single result."""
        return self.row if self.seed is None else run_name(self.row, self.seed)

    def __str__(self) -> str:
        return f"{self.run} {self.evaluation}"


@dataclass(frozen=True)
class Study:
    """What conf/study/NAME.yaml asks for; every text is the words of a command line.

    folder: where all of it is kept.
    data: words for scripts/collect.py; or env_data, a file of episodes that are there already.
    heads: for pretrain.py, each trained once, before the rows that load it.
    train: for every train.py, before a row's own.
    rows: a name in tables for the words that make it.
    evaluations: likewise for plan.py.
    floors: actors that are not trained, of BASELINES.
    floors_in: evaluations that they play, None for all. The simulator has no gradients for adam, and no latents.
    diagnose: words for scripts/diagnose.py, which looks at the first seed of each row; None: at none.
    contrasts: expectations, written down before the first run.
    margin: of success, below which a difference does not matter.
    words: pieces of command lines that the YAML file is written with.
    minutes: that a training (`train`) and each evaluation of a run took on one core of the machine named in `about`.
    run_mb: disk that a run and its results took there.
    """

    name: str
    folder: Path
    rows: Mapping[str, str]
    seeds: Sequence[int]
    evaluations: Mapping[str, str]
    data: str = ""
    env_data: str | None = None
    datasets: Mapping[str, str] = field(default_factory=dict)
    heads: Mapping[str, str] = field(default_factory=dict)
    train: str = ""
    floors: Sequence[str] = BASELINES
    floors_in: Sequence[str] | None = None
    diagnose: str | None = None
    contrasts: Sequence[Mapping[str, Any]] = ()
    margin: int | float = MARGIN
    about: str = ""
    words: Mapping[str, str] = field(default_factory=dict)
    minutes: Mapping[str, int | float] = field(default_factory=dict)
    run_mb: int | float = 0

    def __post_init__(self) -> None:
        for kind in ("rows", "seeds", "evaluations"):
            if not getattr(self, kind):
                raise ValueError(f"study.{kind} is empty; a study needs at least one")
        if len(set(self.seeds)) < len(self.seeds) or not all(type(seed) is int and seed >= 0 for seed in self.seeds):
            raise ValueError(f"study.seeds ({list(self.seeds)}) must be different whole numbers of at least 0")
        if unknown := set(self.floors) - set(BASELINES):
            raise ValueError(f"study.floors: unknown {', '.join(sorted(unknown))}; known: {', '.join(BASELINES)}")
        if unknown := set(self.floors_in or ()) - set(self.evaluations):
            raise ValueError(f"study.floors_in: unknown {', '.join(sorted(unknown))}; known: {', '.join(self.evaluations)}")
        if taken := set(self.rows) & set(BASELINES):
            raise ValueError(f"study.rows: {', '.join(sorted(taken))} names a floor; give the row another name")

    @classmethod
    def of(cls, config: Mapping[str, Any], folder: Path) -> "Study":
        """Read the group `study` of a configuration.

        Raises:
            ValueError: settings that a study does not have, lacks, or that cannot work.
        """
        known = {field.name for field in fields(cls)} - {"folder"}
        if unknown := set(config) - known:
            raise ValueError(f"study has no {', '.join(sorted(unknown))}; known: {', '.join(sorted(known))}")
        if missing := {"name", "rows", "seeds", "evaluations"} - set(config):
            raise ValueError(f"study lacks {', '.join(sorted(missing))}")
        _check_words("name", {config["name"]: ""})
        for kind in ("rows", "evaluations", "heads", "datasets"):
            _check_words(kind, config.get(kind, {}))
        for kind in ("data", "train", "diagnose"):
            _check_words(kind, {kind: config.get(kind) or ""})
        for kind in ("seeds", "floors", "floors_in", "contrasts"):
            if not isinstance(config.get(kind) or [], list):
                raise ValueError(f"study.{kind} ({config[kind]!r}) must be a list")
        read_contrasts(config.get("contrasts", ()))
        return cls(folder=folder, **config)

    @property
    def notes(self) -> list[str]:
        """Contrasts that no cell of this study can test."""
        known = {*self.rows, *self.floors}
        notes = []
        for one in read_contrasts(self.contrasts):
            lacking = [name for name in (one.a, one.b) if name not in known]
            lacking += [
                name for name in (one.evaluation, one.b_evaluation, one.against) if name and name not in self.evaluations
            ]
            if lacking:
                notes.append(f"contrast {one.name} stays untested: the study has no {' and no '.join(lacking)}")
        return notes

    @property
    def cells(self) -> list[Cell]:
        """All cells: floors first, since they take minutes and say what the others are worth, then row by row."""
        played = self.evaluations if self.floors_in is None else self.floors_in
        floors = [Cell(floor, None, evaluation) for floor in self.floors for evaluation in played]
        return floors + [
            Cell(row, seed, evaluation) for row in self.rows for seed in self.seeds for evaluation in self.evaluations
        ]

    def shard(self, which: str | None) -> list[Cell]:
        """The cells of a shard such as `2/4`, or all; a run's cells are all in one shard.

        Raises:
            ValueError: something else.
        """
        if which is None:
            return self.cells
        match = re.fullmatch(r"(\d+)/(\d+)", str(which))
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise ValueError(f"shard ({which}) must be one of several, such as shard=2/4: the second of four")
        runs = list(dict.fromkeys(cell.run for cell in self.cells))
        mine = set(runs[int(match[1]) - 1 :: int(match[2])])
        return [cell for cell in self.cells if cell.run in mine]

    @property
    def data_file(self) -> Path:
        return Path(self.env_data).expanduser() if self.env_data else self.folder / "data.h5"

    @property
    def runs_folder(self) -> Path:
        return self.folder / "runs"

    def run_folder(self, row: str, seed: int) -> Path:
        return self.runs_folder / "outputs" / run_name(row, seed)

    def head_file(self, head: str) -> Path:
        return self.folder / "heads" / f"{head}.safetensors"

    def results_folder(self, evaluation: str) -> Path:
        """Where an evaluation's results are; other words for it lead to another folder, so that old ones never mix in."""
        return self.folder / "results" / f"{evaluation}_{digest({'words': self.evaluations[evaluation]})}"

    def data_of(self, row: str) -> Path:
        """The file that a row learns from: the study's own, unless its words name one of `datasets`."""
        named = [self._dataset(name) for name in self.datasets if str(self._dataset(name)) in self.rows[row]]
        return named[0] if named else self.data_file

    def _dataset(self, name: str) -> Path:
        return self.folder / "datasets" / f"{name}.h5"

    def collect_command(self, file: Path) -> list[str]:
        words = self.data if file == self.data_file else self.datasets[file.stem]
        return ["scripts/collect.py", "env=point_maze", *shlex.split(words), f"output={file}"]

    def head_command(self, head: str) -> list[str]:
        words = shlex.split(self.heads[head])
        return ["pretrain.py", *words, f"env.data={self.data_file}", f"output={self.head_file(head)}"]

    def train_command(self, row: str, seeds: Sequence[int]) -> list[str]:
        """One sweep over the seeds of a row that are still to be trained."""
        words = [*shlex.split(self.train), *shlex.split(self.rows[row])]
        where = [f"env.data={self.data_of(row)}", f"ckpt_base_path={self.runs_folder}"]
        each = [f"seed={','.join(map(str, seeds))}", f"model_name={run_name(row, '${seed}')}"]
        return ["train.py", "-m", *words, *each, *where]

    def plan_command(self, evaluation: str, runs: Sequence[str]) -> list[str]:
        """One sweep over runs that are still to be evaluated."""
        where = [f"ckpt_base_path={self.runs_folder}", f"output_dir={self.results_folder(evaluation)}", "baselines=false"]
        return ["plan.py", "-m", f"model_name={','.join(runs)}", *shlex.split(self.evaluations[evaluation]), *where]

    def diagnose_command(self, row: str) -> list[str]:
        """A look at the first of a row's runs."""
        run = run_name(row, self.seeds[0])
        words = [f"model_name={run}", f"ckpt_base_path={self.runs_folder}", f"env.data={self.data_of(row)}"]
        return ["scripts/diagnose.py", *words, *shlex.split(self.diagnose or "")]


def _check_words(kind: str, words: Any) -> None:
    """Raises:
    ValueError: not a group of names, each with the words of a command line.
    """
    if not isinstance(words, Mapping):
        raise ValueError(f"study.{kind} ({words!r}) must be a group of names, each with words of a command line")
    for name, text in words.items():
        if not NAME.fullmatch(str(name)):
            raise ValueError(f"study.{kind}: {name!r} must be a name of letters, digits, _, - and .")
        try:
            shlex.split(text if isinstance(text, str) else "'")
        except ValueError:
            raise ValueError(f"study.{kind}: {name} ({text!r}) must be words of a command line, quotes closed") from None


def run_name(row: str, seed: int | str) -> str:
    return f"{row}_s{seed}"
