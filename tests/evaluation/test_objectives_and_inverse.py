"""A run planned with by every objective, and acted with by its inverse model: what it needs, and what its result says."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hydra.errors import InstantiationException
from in_process import TRAIN, compose, load_script, train

from wmbench.commands.configuration import choices
from wmbench.envs.vector import PointMazes
from wmbench.evaluation.results import Result
from wmbench.reports import show
from wmbench.reports.table import make_table

PLAN = "model_name=tiny device=cpu num_videos=0 baselines=false protocol.num_tasks=2 protocol.max_steps=6 agent.horizon=2"
CEM = " planner.num_samples=4 planner.num_elites=2 planner.num_iters=1"
HEADS = (
    " distance=quasimetric distance.training.max_steps=2 distance.training.batch_size=4 distance.training.valid_batches=1"
)
HEADS += " policy=inverse policy.training.max_steps=2 policy.training.batch_size=4 policy.training.valid_batches=1"


ASK_THE_PREDICTOR = ("cautious", "own_space")  # what this run's does not say; test_families plans by them


class Black:
    """Frames that need no renderer."""

    name = "warp"

    def frames(self, position: np.ndarray) -> np.ndarray:
        return np.zeros((len(position), 8, 8, 3), np.uint8)


@pytest.fixture(autouse=True)
def without_pictures(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(show, "draw_paths", lambda *given: None)
    monkeypatch.setattr(PointMazes, "renderer", Black())


@pytest.fixture
def run(numbered_episodes: Callable, tmp_path: Path) -> Callable[[str], None]:
    """train.py for a run of four tokens, with more settings."""
    data = numbered_episodes(num_episodes=6, length=12).path

    def call(settings: str = "") -> None:
        words = f"{TRAIN} encoder=random_patch encoder.grid=2 encoder.embed_dim=5 env.data={data} model_name=tiny"
        train(compose("train", f"{words} ckpt_base_path={tmp_path}{settings}"))

    return call


def plan(folder: Path, settings: str, planner: str = CEM) -> Result:
    places = f" ckpt_base_path={folder} output_dir={folder}/plans tasks_dir={folder}/tasks"
    before = set(folder.glob("plans/*/summary.json"))
    load_script("plan.py").main.__wrapped__(compose("plan", PLAN + places + planner + settings))
    (path,) = set(folder.glob("plans/*/summary.json")) - before
    return Result.of(json.loads(path.read_text()) | {"folder": str(path.parent)})


def test_every_objective_and_the_inverse_model_have_conditions_of_their_own(run: Callable, tmp_path: Path):
    run(HEADS)
    ways = {name: f" objective={name}" for name in choices("objective") if name not in ASK_THE_PREDICTOR}
    ways["inverse"] = " actor=inverse"
    ways["top_1"] = " objective=top_k objective.k=1"
    results = {name: plan(tmp_path, words) for name, words in ways.items()}
    assert len({result.conditions.hash for result in results.values()}) == len(results) == 7
    groups = make_table([result.summary | {"folder": result.folder} for result in results.values()])
    assert groups["conditions"].nunique() == len(results), "none is compared with another"
    fitted = {name: list(result.row.fitted) for name, result in results.items() if result.row.fitted}
    assert fitted == {"learned": ["distance"], "variance": ["variance"], "inverse": ["policy"]}
    assert all(len(facts["weights_hash"]) == 12 for result in results.values() for facts in result.row.fitted.values())
    inverse = results["inverse"]
    assert (inverse.row.note.split(", ")[-2:], inverse.row.actor) == (["inverse model", "no planner"], "inverse")
    assert (inverse.score.evaluations_per_plan, inverse.conditions.objective) == (0, None)


@pytest.mark.parametrize(("planner", "objective"), [("gd", "learned"), ("adam", "variance")])
def test_planners_that_follow_gradients_follow_other_objectives_too(
    planner: str, objective: str, run: Callable, tmp_path: Path
):
    run(HEADS)
    plan(tmp_path, f" objective={objective}", planner=f" planner={planner} planner.num_iters=2")


def test_heads_added_to_a_finished_run_leave_its_weights_alone_and_are_those_of_a_run_that_had_them_at_once(
    run: Callable, tmp_path: Path
):
    folder = tmp_path / "outputs/tiny"
    run()
    before = {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}
    run(HEADS)
    after = {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}
    assert all(after[name] == data for name, data in before.items())
    heads = {f"{name}{kind}.safetensors" for name in ("distance", "policy") for kind in ("", "_resume")}
    assert after.keys() - before.keys() == heads
    folder.rename(tmp_path / "later")
    run(HEADS)
    assert all(
        (folder / f"{name}.safetensors").read_bytes() == after[f"{name}.safetensors"] for name in ("distance", "policy")
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (" objective=learned", r"has no distance; train one: the train.py command .* with distance=quasimetric added"),
        (" actor=inverse", r"has no policy; train one: the train.py command .* with policy=inverse added"),
        (" actor=mine", r"actor \('mine'\) must be planner or inverse"),
        (" objective=top_k objective.k=5", r"objective.k \(5\) must not exceed the model's tokens \(4\)"),
        (" objective=cosine objective.alpha=0.1", r"objective.alpha \(0.1\) weighs proprio, which this model has none of"),
        (" model_name=simulator objective=cosine", "the simulator knows where the ball is, and needs no other objective"),
    ],
)
def test_what_a_run_lacks_is_refused_with_the_way_out(words: str, message: str, run: Callable, tmp_path: Path):
    if "simulator" not in words:
        run()
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        plan(tmp_path, words)
    (tmp_path / "outputs/tiny/variance.safetensors").unlink(missing_ok=True)
    if "top_k" in words:
        with pytest.raises(FileNotFoundError, match=r"has no variance.safetensors.*train.py"):
            plan(tmp_path, " objective=variance")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("policy.horizon=0", r"policy.horizon \(0\) must be positive"),
        ("distance.expectile=1.5", r"distance.expectile \(1.5\) must be between 0 and 1"),
        ("policy.token_width=0", r"token_width \(0\) must be positive"),
        ("distance.training.lr=-1.0", r"distance.training.lr \(-1.0\) must be positive"),
    ],
)
def test_heads_that_cannot_be_are_refused_before_anything_is_trained(
    setting: str, message: str, run: Callable, tmp_path: Path
):
    with pytest.raises((ValueError, InstantiationException), match=message):
        run(f"{HEADS} {setting}")
    assert not (tmp_path / "outputs").exists()


def test_a_run_keeps_one_distance_until_it_is_deleted(run: Callable, tmp_path: Path):
    run(HEADS)
    with pytest.raises(ValueError, match=r"holds a distance with other width; delete .*distance\* to train another"):
        run(f"{HEADS} distance.width=8")
