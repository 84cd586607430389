"""Every configuration composes, and every command line that the documentation shows is a valid one."""

import re
import shlex
from pathlib import Path

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from wmbench.commands import CONF, OLD_NAMES, expand_globs, translate
from wmbench.envs.mazes import MAPS, Maze

ROOT = Path(__file__).parents[1]
CONFIG_OF = {"train.py": "train", "plan.py": "plan", "scripts/collect.py": "collect"}


def compose(name: str, overrides: list[str]) -> DictConfig:
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(CONF, version_base="1.3"):
        return hydra.compose(name, overrides=overrides, return_hydra_config=True)


def options(group: str) -> list[str]:
    return sorted(path.stem for path in Path(CONF, group).glob("*.yaml"))


def commands_in(document: str) -> list[str]:
    text = (ROOT / document).read_text()
    return [line.strip() for line in re.findall(r"^    (python [^\n]+)$", text, re.M)]


@pytest.mark.parametrize("encoder", options("encoder"))
@pytest.mark.parametrize("predictor", [None, *options("predictor")])
def test_every_encoder_composes_with_every_predictor(encoder, predictor):
    cfg = compose("train", [f"encoder={encoder}", *([f"predictor={predictor}"] if predictor else [])])
    assert cfg.encoder._target_.startswith("wmbench.encoders.")
    assert cfg.predictor._target_.startswith("wmbench.models.")
    if predictor is None and cfg.training.regularizer is None:
        assert not encoder.startswith("lewm"), "an encoder that is trained needs its regularizer"


@pytest.mark.parametrize("protocol", options("protocol"))
@pytest.mark.parametrize("planner", options("planner"))
def test_every_protocol_composes_with_every_planner_and_names_itself(protocol, planner):
    cfg = compose("plan", [f"protocol={protocol}", f"planner={planner}", "model_name=x"])
    assert cfg.protocol.name == protocol


@pytest.mark.parametrize("line", commands_in("README.md"))
def test_a_command_line_of_the_readme_composes(line):
    _, script, *arguments = shlex.split(line)
    if script not in CONFIG_OF:
        assert (ROOT / script).exists()
        return
    arguments = [a for a in translate(arguments) if a != "-m" and "*" not in a and "mean_colour" not in a]
    name = CONFIG_OF[script]
    if "--config-name" in arguments:
        at = arguments.index("--config-name")
        name = arguments.pop(at + 1)
        arguments.pop(at)
    for argument in arguments:
        key, _, values = argument.partition("=")
        for value in values.split(","):
            compose(name, [f"{key}={value}"])


def test_the_readme_maps_every_file():
    text = (ROOT / "README.md").read_text()
    sources = [path.relative_to(ROOT / "src/wmbench") for path in (ROOT / "src/wmbench").rglob("*.py")]
    tools = [path.relative_to(ROOT) for folder in ("scripts", "benchmarks") for path in (ROOT / folder).glob("*.py")]
    assert [str(path) for path in (*sources, *tools) if path.name != "__init__.py" and f"{path} " not in text] == []


def test_the_readme_shows_commands():
    assert len(commands_in("README.md")) > 10


def test_names_of_the_ancestor_lead_to_keys_that_exist():
    for key in set(OLD_NAMES.values()):
        compose("plan", ["model_name=x", f"{key}=1"])


def test_names_of_the_ancestor_are_translated_with_a_notice(capsys):
    assert translate(["n_evals=5", "planner.opt_steps=3", "model_name=x", "-m"]) == [
        "protocol.num_tasks=5",
        "planner.num_iters=3",
        "model_name=x",
        "-m",
    ]
    assert "n_evals is called protocol.num_tasks here" in capsys.readouterr().err


def test_the_default_run_name_tells_environment_encoder_arm_and_seed():
    cfg = compose("train", ["encoder=state", "seed=3", "arm=wide"])
    assert cfg.env.name + "_state_wide_s3" == "point_maze_state_wide_s3"
    assert "{env.name}" in compose("train", [])._get_node("model_name")._value()


def test_a_glob_becomes_a_sweep_over_the_runs_that_match(tmp_path, capsys):
    for name in ("maze_b", "maze_a", "other"):
        (tmp_path / "outputs" / name).mkdir(parents=True)
        (tmp_path / "outputs" / name / "config.yaml").touch()
    base = f"ckpt_base_path={tmp_path}"
    assert expand_globs([base, "model_name=maze_*"]) == ["-m", base, "model_name=maze_a,maze_b"]
    assert expand_globs([base, "model_name=oth*"]) == [base, "model_name=other"]
    assert expand_globs([base, "-m", "seed=1,2"]) == ["-m", base, "seed=1,2"]
    with pytest.raises(SystemExit):
        expand_globs([base, "model_name=nothing*"])
    assert "maze_a, maze_b, other" in capsys.readouterr().err


@pytest.mark.parametrize("name", MAPS)
def test_the_environment_configuration_names_its_mazes(name):
    assert name in Path(CONF, "env", "point_maze.yaml").read_text()
    assert Maze(name).name == name
