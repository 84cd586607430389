"""One evaluation: played once, kept before anything is shown, and left to whoever plays it already."""

from pathlib import Path

import numpy as np
import pytest
import torch

from wmbench.envs.vector import PointMazes
from wmbench.evaluation.conditions import Conditions
from wmbench.evaluation.episode_loop import Rules
from wmbench.evaluation.evaluate import Evaluation, Player, evaluate
from wmbench.evaluation.results import read_summary
from wmbench.evaluation.row import Row
from wmbench.evaluation.tasks import Tasks
from wmbench.files import _machine, exclusive
from wmbench.planning.floors import Floor
from wmbench.reports import show

START = np.array([[1.0, 1.0, 0, 0], [3.0, 1.0, 0, 0]])
TASKS = Tasks(START, START + (0.3, 0, 0, 0), np.arange(2))


class Still(Floor):
    """Does nothing, and remembers how often it was asked to begin; its thoughts may be an error."""

    error: Exception | None = None

    def __init__(self):
        self.episodes = 0

    def reset(self, goal, blocks, number) -> None:
        self.episodes += 1

    def act(self, look, active: np.ndarray) -> np.ndarray:
        return np.zeros((len(active), 5, 2), np.float32)

    def thoughts(self):
        if self.error:
            raise self.error
        return np.zeros((2, 1, 2)), torch.zeros(0, 1, 4)


def evaluation(num_videos: int = 0, **conditions) -> Evaluation:
    env = PointMazes("umaze", image_size=0, num_threads=1)
    player = Player(Row("exp/a"), Still(), env, 5, torch.device("cpu"), read_position=lambda z: z[..., 0, :2].numpy())
    settings = {"maze": list(env.maze.rows), "frameskip": 5, "tasks": TASKS.hash, "protocol": {"name": "demo"}}
    return Evaluation(
        player,
        TASKS,
        Rules(5, 10, 5, "every_step", False),
        Conditions(**settings | conditions, max_steps=10),
        "a: 1\n",
        num_videos,
        show.show_outcome,
    )


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    monkeypatch.setattr(show, "draw_paths", lambda *given: None)
    monkeypatch.setattr(show, "write_videos", lambda *given: None)


def test_the_same_evaluation_is_played_once_and_tells_the_same_twice(tmp_path: Path, capsys):
    first, second = evaluation(), evaluation()
    assert evaluate(first, tmp_path) and evaluate(second, tmp_path)
    assert (first.player.agent.episodes, second.player.agent.episodes) == (1, 0)
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("exp/a solved")]
    assert told == ["exp/a solved 2 of 2 tasks: 100.0% (95% interval 34.2 to 100.0)"] * 2
    assert (tmp_path / first.folder / "config.yaml").read_text() == "a: 1\n"


def test_other_conditions_or_another_row_have_another_folder(tmp_path: Path):
    folders = {evaluation().folder, evaluation(seed=1).folder, evaluation(planner={"num_samples": 3}).folder}
    other = evaluation()
    other.player.row = Row("exp/a", weights_hash="w2")
    assert len(folders | {other.folder}) == 4
    assert all(folder.name.startswith("umaze_") and folder.name.endswith("_exp_a_demo") for folder in folders)


@pytest.mark.parametrize("damage", ["", "{}", "gone"])
def test_an_unfinished_or_damaged_result_is_played_again(damage: str, tmp_path: Path):
    evaluate(evaluation(), tmp_path)
    summary = tmp_path / evaluation().folder / "summary.json"
    if damage == "gone":
        summary.unlink()
    else:
        summary.write_text(damage)
    again = evaluation()
    evaluate(again, tmp_path)
    assert again.player.agent.episodes == 1 and read_summary(summary.parent)["success"] == 1


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError(""), BrokenPipeError()])
@pytest.mark.parametrize("what", ["write_videos", "draw_paths"])
def test_what_cannot_be_shown_costs_a_note_and_no_result(what: str, error: Exception, tmp_path: Path, monkeypatch, capsys):
    def fail(*given):
        assert read_summary(tmp_path / evaluation().folder)["success"] == 1, "the result comes first"
        assert "solved 2 of 2" in capsys.readouterr().out, "so does its sentence"
        raise error

    monkeypatch.setattr(show, what, fail)
    assert evaluate(evaluation(num_videos=1), tmp_path)
    assert capsys.readouterr().err.count("note: ") == 1


def test_a_picture_that_a_kill_left_half_drawn_is_deleted_by_the_next_command(tmp_path: Path):
    evaluate(evaluation(), tmp_path)
    folder = tmp_path / evaluation().folder
    (folder / "videos").mkdir()
    left = [folder / f".paths.{_machine()}-{2**30}.png", folder / f"videos/.task_0.{_machine()}-{2**30}.mp4"]
    for path in left:
        path.touch()
    evaluate(evaluation(), tmp_path)
    assert not any(path.exists() for path in left) and (folder / "summary.json").exists()


def test_where_plans_were_imagined_to_end_is_kept_with_the_paths(tmp_path: Path):
    asked = evaluation()
    asked.player.agent.thoughts = lambda: (np.arange(12.0).reshape(2, 3, 2), torch.zeros(0, 1, 4))
    evaluate(asked, tmp_path)
    with np.load(tmp_path / asked.folder / "paths.npz") as paths:
        assert paths["imagined"].tolist() == [[[4, 5]], [[10, 11]]]


def test_a_probe_that_does_not_fit_costs_a_note_and_no_result(tmp_path: Path, capsys):
    asked = evaluation()
    asked.player.read_position = lambda z: z @ torch.zeros(7, 2)
    asked.player.agent.watch = lambda read, num_kept: read(torch.zeros(2, 1, 4))
    assert evaluate(asked, tmp_path)
    assert capsys.readouterr().err.count("note: what the model has in mind left out (") == 1


def test_thoughts_that_cannot_be_read_cost_a_note_and_no_result(tmp_path: Path, capsys):
    asked = evaluation(num_videos=1)
    asked.player.agent.error = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    assert evaluate(asked, tmp_path)
    assert capsys.readouterr().err.count("note: what the model has in mind left out (mat1") == 1


def test_what_another_process_plays_is_refused_or_left_to_it(tmp_path: Path, capsys):
    with exclusive(tmp_path / evaluation().folder, "wait"):
        with pytest.raises(ValueError, match="is in use by process"):
            evaluate(evaluation(), tmp_path)
        assert evaluate(evaluation(), tmp_path, is_needed=False) is None
        assert evaluate(evaluation(seed=5), tmp_path), "another evaluation has a folder of its own"
    assert evaluate(evaluation(), tmp_path)
