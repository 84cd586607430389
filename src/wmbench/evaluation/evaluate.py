"""One evaluation: a player on a task set under some conditions, played once, kept in its folder, then shown."""

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor

from wmbench.envs.vector import PointMazes
from wmbench.evaluation.conditions import Conditions, digest
from wmbench.evaluation.episode_loop import Outcome, Rules, observe, run_episodes
from wmbench.evaluation.results import Result, Score, Scores, Summary, read_summary, save_result, sentence
from wmbench.evaluation.row import Row
from wmbench.evaluation.scores import score_paths
from wmbench.evaluation.tasks import Tasks
from wmbench.files import exclusive, file_name, sweep, write_text
from wmbench.machine import duration, optional, peak_memory, progress_bar, size
from wmbench.planning.actor import Actor, Read
from wmbench.processes.group import mine, num_processes
from wmbench.processes.meeting import by_first, gathered, woven

Plans = dict[int, Float[ndarray, "n H 2"]]  # block of actions -> imagined positions at the end of each planned block
FILMABLE = 16  # tasks whose expected latents are kept, to be drawn in a video


@dataclass
class Player:
    """Who acts, and where.

    read_position: the ball's positions (x, y) [m] in latents, where the run has a probe.
    draw: frames of latents, where the run has a decoder.
    train_fraction, split_seed: which episodes of its data the run was trained on.
    """

    row: Row
    agent: Actor
    env: PointMazes
    frameskip: int
    device: torch.device
    read_position: Read | None = None
    draw: Callable[[Float[Tensor, "F N D"]], UInt8[ndarray, "F h w 3"]] | None = None
    train_fraction: float = 0.9
    split_seed: int = 42


@dataclass(frozen=True)
class Evaluation:
    """All that a result follows from.

    config: the settings as they were given, to be kept with the result.
    show: draws what can be shown of an outcome into its folder.
    commit: of the source, where it is known.
    """

    player: Player
    tasks: Tasks
    rules: Rules
    conditions: Conditions
    config: str
    num_videos: int
    show: "Callable[[Evaluation, Outcome, Thoughts, Path], None]"
    commit: str | None = None

    @property
    def folder(self) -> Path:
        """The result's folder, named by conditions and row, so that the same evaluation finds its own result again."""
        row, protocol = self.player.row, self.conditions.protocol["name"]
        key = digest({"row": row.hash, "conditions": self.conditions.hash})
        if row.is_baseline:
            return Path("baselines", file_name(f"{protocol}_{key}"), file_name(row.row))
        return Path(file_name(f"{self.player.env.maze.name}_{key}_{row.row}_{protocol}"))


@dataclass
class Thoughts:
    """What an actor had in mind, kept for its films and for saying why it failed.

    expected: latents (FILMABLE N D) that it expected at the end of each block.
    ends: where (n 2) the plan of each block was imagined to end.
    """

    player: Player
    plans: Plans = field(default_factory=dict)
    expected: list[Tensor] = field(default_factory=list)
    ends: list[Float[ndarray, "n 2"]] = field(default_factory=list)

    def keep(self, block: int, is_filmed: bool) -> bool:
        """Keep what the actor had in mind in the block just over; returns whether there was anything."""
        if (thoughts := self.player.agent.thoughts()) is None:
            return False
        positions, expected = thoughts
        if positions is not None:
            self.ends.append(positions[:, -1])
            if is_filmed:
                self.plans[block] = positions
        if self.player.draw is not None and is_filmed:
            self.expected.append(expected.cpu())
        return True

    def of_all(self) -> None:
        """Gather what the other processes' actors had in mind of their tasks."""
        if num_processes() > 1:
            self.ends = [woven(ends) for ends in _as_long(self.ends)]
            self.plans = dict(enumerate(woven(plan) for plan in _as_long([*self.plans.values()])))
            self.expected = [torch.from_numpy(woven(z.float().numpy()))[:FILMABLE] for z in _as_long(self.expected)]

    def imagine(self, task: int) -> UInt8[ndarray, "K h w 3"] | None:
        """Frames that the model expected at the end of each block, where it can draw them."""
        if self.player.draw is None or not self.expected or task >= FILMABLE:
            return None
        return self.player.draw(torch.stack([z[task] for z in self.expected]))


def _as_long(own: list[Any]) -> list[Any]:
    """One entry for each block that any process has played: who was done earlier repeats its last."""
    lengths = gathered(len(own))
    return [own[min(k, len(own) - 1)] for k in range(max(lengths) if min(lengths) else 0)]


def evaluate(evaluation: Evaluation, root: Path, is_needed: bool = True) -> Summary | None:
    """Return an evaluation's result from its folder below root, or play it now.

    What can be shown of it, paths and videos, comes last: where it fails, a note says so.

    Args:
        is_needed: False: where another process plays the same now, leave it to that one and return None.
    """
    folder = root / evaluation.folder
    with ExitStack() as held:
        is_played, summary = by_first(lambda: _found(evaluation, folder, is_needed, held))
        if is_played:
            return summary
        thoughts = Thoughts(evaluation.player)
        began = time.perf_counter()
        outcome = _play(evaluation, thoughts)
        return by_first(lambda: _keep(evaluation, folder, outcome, thoughts, time.perf_counter() - began))


def _found(evaluation: Evaluation, folder: Path, is_needed: bool, held: ExitStack) -> tuple[bool, Summary | None]:
    """Whether there is nothing to play here, and the result where it is complete; the folder is held from then on."""
    try:
        held.enter_context(exclusive(folder, "wait for it, then run the same command again"))
    except ValueError as busy:
        if is_needed:
            raise
        return True, print(f"note: {busy}")
    if (summary := _finished(folder)) is None:
        return False, None
    print(f"{sentence(summary)}\nnothing to do: {folder} is complete already")
    for place in (folder, *folder.glob("videos")):
        sweep(place)  # a picture of it that was being drawn when a kill came
    if evaluation.num_videos and not evaluation.player.row.is_baseline and not (folder / "videos").exists():
        print(f"note: it was not filmed; delete {folder} to play it again and film it")
    return True, summary


def _keep(evaluation: Evaluation, folder: Path, outcome: Outcome, thoughts: Thoughts, seconds: float) -> Summary:
    """Write the result into its folder, then show what can be shown of it."""
    scores = _scores(evaluation, outcome)
    result = _result(evaluation, outcome, scores, seconds)
    write_text(folder / "config.yaml", evaluation.config)
    imagined = np.stack(thoughts.ends, 1) if thoughts.ends else None
    save_result(folder, result, evaluation.tasks, outcome, evaluation.player.env.maze, scores, imagined)
    print(sentence(result.summary))
    evaluation.show(evaluation, outcome, thoughts, folder)
    return result.summary | {"folder": str(folder)}


def _finished(folder: Path) -> Summary | None:
    if not (folder / "summary.json").exists():
        return None
    try:
        return read_summary(folder)
    except (OSError, ValueError) as error:
        return print(f"note: {error}; it is played again", file=sys.stderr)


def _play(evaluation: Evaluation, thoughts: Thoughts) -> Outcome:
    player, tasks, rules = evaluation.player, evaluation.tasks, evaluation.rules
    if num_processes() > len(tasks):
        raise ValueError(f"{len(tasks)} tasks are too few for {num_processes()} processes; let torchrun start {len(tasks)}")
    number = len(range(len(tasks))[mine()])
    blocks = rules.max_steps and rules.max_steps // rules.frameskip
    example = observe(player.env, tasks.goal[:1], player.device, was_set=True)
    if seconds := player.agent.forecast(example, number, blocks or rules.round_steps // rules.frameskip):
        limit = "at most about" if blocks else "without a limit on rounds; a round takes about"
        memory = size(peak_memory(player.device))
        print(f"{player.row.row}: {limit} {duration(seconds)} on {player.device}, {memory} of memory, a few MB of disk")
    bar = progress_bar(total=blocks, desc=player.row.row, unit=" blocks")
    is_kept, is_filmed = True, evaluation.num_videos > 0
    read = player.read_position
    player.agent.watch(
        read and (lambda z: optional("what the model has in mind", lambda: read(z))),
        FILMABLE if player.draw and is_filmed else 0,
    )

    def on_block(block: int, active: ndarray) -> None:
        nonlocal is_kept
        if is_kept:
            is_kept = bool(optional("what the model has in mind", lambda: thoughts.keep(block, is_filmed)))
        bar.set_postfix_str(f"{number - len(active)} of {number} solved", refresh=False)
        bar.update()

    with torch.no_grad(), bar:
        outcome = run_episodes(player.agent, player.env, tasks, rules, player.device, on_block)
    thoughts.of_all()
    return outcome


def _scores(evaluation: Evaluation, outcome: Outcome) -> Scores | None:
    """What the paths tell, where they are whole."""
    tasks, rules = evaluation.tasks, evaluation.rules
    if not rules.play_on:
        return None
    geodesic = evaluation.player.env.maze.geodesic(tasks.start, tasks.goal)
    return score_paths(outcome.states, tasks.goal, geodesic, rules.short_steps)


def _result(evaluation: Evaluation, outcome: Outcome, scores: Scores | None, seconds: float) -> Result:
    return Result(
        evaluation.player.row,
        evaluation.conditions,
        Score.of(outcome, evaluation.player.agent.evaluations_per_plan, scores),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=seconds,
        max_steps=evaluation.rules.max_steps or outcome.states.shape[1] - 1,
        device=str(evaluation.player.device),
        commit=evaluation.commit,
    )
