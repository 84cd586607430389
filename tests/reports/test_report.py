"""The report page: what a study has is shown, and what cannot be opened is named with its reason."""

import csv
import html
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from in_process import compose
from omegaconf import OmegaConf
from PIL import Image

from wmbench.data.normalizer import fit_normalizer
from wmbench.envs.mazes import Maze
from wmbench.evaluation.conditions import Conditions
from wmbench.evaluation.episode_loop import Outcome
from wmbench.evaluation.results import Result, Score, find_summaries, save_result
from wmbench.evaluation.row import Row
from wmbench.evaluation.tasks import Tasks
from wmbench.reports.report import write_report
from wmbench.reports.table import make_table
from wmbench.runs.build import build_world_model
from wmbench.runs.folder import open_run
from wmbench.runs.load import load_encoder, save_weights

TASKS = Tasks(np.full((2, 4), 1.0), np.full((2, 4), 2.0), np.arange(2))
PROTOCOL = {"name": "demo", "task_seed": 99, "max_rounds": None}
ENCODERS = {"patches": "random_patch encoder.grid=3 encoder.image_size=6", "single": "state"}


def plan(folder: Path, row: str, solved: int, model_name: str | None = None) -> None:
    """What plan.py leaves of a row."""
    success = np.arange(2) < solved
    outcome = Outcome(np.zeros((2, 6, 4)), success, np.where(success, 3, 5), np.where(success, 0.4, 2.0), 0.0)
    results = folder / "plans" / row
    (results / "videos").mkdir(parents=True)
    (results / "videos" / "task_000_success.mp4").write_bytes(b"\0\0\0\0ftyp a film")
    Image.new("RGB", (8, 8)).save(results / "paths.png")
    OmegaConf.save({"ckpt_base_path": str(folder), "model_name": model_name or row}, results / "config.yaml")
    maze = Maze("umaze")
    conditions = Conditions(list(maze.rows), 5, TASKS.hash, PROTOCOL, max_steps=5, seed=0)
    who = Row(row, actor="random" if row == "random" else "model", parameters=7, position_r2=0.5)
    save_result(results, Result(who, conditions, Score.of(outcome, 0.0), max_steps=5), TASKS, outcome, maze)


@pytest.fixture
def study(tmp_path: Path, numbered_episodes: Callable) -> Path:
    """A run with a grid and a decoder's picture, one of single tokens, and a floor."""
    episodes = numbered_episodes(num_episodes=6, length=12)
    for solved, (name, encoder) in enumerate(ENCODERS.items()):
        cfg = compose("train", f"encoder={encoder} predictor.depth=1 model_name={name} ckpt_base_path={tmp_path} env.data=x")
        model = build_world_model(cfg, fit_normalizer(episodes))
        run = open_run(cfg, model, episodes)
        save_weights(run, 1, model)
        with (run / "metrics.csv").open("w", newline="") as file:
            csv.writer(file).writerows(
                [["step", "prediction", "valid_prediction", "sigreg"], [1, 0.5, 0.6, 0], [2, 0.4, 0.5, 0]]
            )
        plan(tmp_path, name, solved)
    Image.new("RGB", (8, 8)).save(tmp_path / "outputs" / "patches" / "decoder.png")
    plan(tmp_path, "random", 2)
    return tmp_path


def report(study: Path, **options) -> str:
    """The page's text, with IMAGE and VIDEO for what is in it."""
    path = write_report(make_table(find_summaries(study / "plans")), study / "plans", "A study", **options)
    page = re.sub(r"<(img|video)[^>]*>", lambda match: match[1].upper() + " ", path.read_text().partition("<body>")[2])
    return re.sub(r"\s+", " ", html.unescape(re.sub("<[^>]*>", " ", page)))


def test_the_page_shows_results_plans_maps_pictures_and_training(study: Path):
    page = report(study)
    sections = [
        "A study",
        "Results",
        "What it does",
        "What the encoders see",
        "What the models imagine",
        "How they were trained",
    ]
    assert [page.index(title) for title in sections] == sorted(page.index(title) for title in sections)
    assert page.count("IMG") == 1 + 1 + 1 + 1 + 2  # success, paths, maps, decoder, training
    assert "single solved 1 of 2 tasks" in page and "VIDEO single: task 000 success" in page
    assert "One token a frame is no map: single." in page and "left out" not in page
    assert "patches: the ball's position can be read from a frame's latent with R2 0.5000" in page
    sheet = np.asarray(Image.open(study / "plans" / "report" / "maps_0.png"))
    assert len(np.unique(sheet.reshape(-1, 3), axis=0)) > 9, "six frames of one colour each give other tokens"


def test_the_star_is_the_row_whose_videos_are_shown(study: Path):
    page = report(study, star="patches", intro=["An introduction."])
    assert "VIDEO patches: task" in page and "VIDEO single" not in page
    assert "An introduction." in page and "solved 1 of 2" not in page


def test_what_cannot_be_opened_costs_a_line(study: Path):
    for data in study.glob("numbered*.h5"):
        data.unlink()
    plan(study, "lost", 0, model_name="deleted")
    page = report(study)
    assert re.search(r"patches is left out: no data set at \S*numbered\S*h5", page)
    assert re.search(r"lost is left out: no run 'deleted' in .*found: patches, .*single", page)
    assert "principal components" not in page and page.count("IMG") == 1 + 1 + 1 + 2


def test_a_study_of_single_tokens_has_no_section_of_maps(study: Path):
    (study / "plans" / "patches" / "summary.json").unlink()
    page = report(study)
    assert "What the encoders see" not in page and "What the models imagine" not in page
    assert "How they were trained" in page


@pytest.mark.parametrize(
    ("encoder", "missing"),
    [
        ("dinov2", "dinov2_vits14_pretrain.pth"),
        ("dinov2 encoder.weights=some.pth", None),
        ("dinov2 encoder.pretrained=false", None),
        ("dino_tok_s", "vit_small_patch16_dinov3.lvd1689m.safetensors"),
        ("vfm_vae encoder.weights=some.pth", "vit_large_patch16_siglip_512.v2_webli.safetensors"),
    ],
)
def test_weights_that_are_not_cached_are_not_downloaded(
    encoder: str, missing: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    OmegaConf.save({"encoder": compose("train", f"encoder={encoder}").encoder}, tmp_path / "config.yaml", resolve=True)
    with pytest.raises(FileNotFoundError) as error:
        load_encoder(tmp_path)
    assert (f"the weights {missing} are not on this machine" in str(error.value)) == bool(missing)


def test_the_best_row_of_each_task_set_is_shown_and_a_picture_that_is_gone_is_left_out(study: Path):
    (study / "plans" / "single" / "paths.png").unlink()
    summary = study / "plans" / "patches" / "summary.json"
    summary.write_text(summary.read_text().replace(TASKS.hash, "another"))
    page = report(study)
    assert "VIDEO patches: task" in page and "VIDEO single: task" in page
    assert "task set another: patches solved 0 of 2" in page
    assert page.count("IMG") == 2 + 1 + 1 + 1 + 2  # a figure of success for each task set
