"""Every configuration composes, and every command line that the documentation shows is a valid one."""

import re
import shlex
from pathlib import Path

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from wmbench.commands import CONF
from wmbench.commands.ancestor import OLD_NAMES, translate
from wmbench.commands.words import read
from wmbench.envs.mazes import MAPS, Maze

ROOT = Path(__file__).parents[1]
CONFIG_OF = {
    "train.py": "train",
    "plan.py": "plan",
    "scripts/collect.py": "collect",
    "pretrain.py": "pretrain",
    "scripts/diagnose.py": "diagnose",
}


def compose(name: str, overrides: list[str]) -> DictConfig:
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(CONF, version_base="1.3"):
        return hydra.compose(name, overrides=overrides, return_hydra_config=True)


def options(group: str) -> list[str]:
    return sorted(path.stem for path in Path(CONF, group).glob("*.yaml"))


def commands_in(document: str) -> list[str]:
    text = (ROOT / document).read_text()
    return [line.strip() for line in re.findall(r"^    (python [^\n]+)$", text, re.M)]


# An encoder that says nothing of predictors meets all of them alike; one of these is enough.
WITH_ITS_OWN = [name for name in options("encoder") if "/predictor" in Path(CONF, "encoder", f"{name}.yaml").read_text()]
PAIRS = [(encoder, None) for encoder in options("encoder")]
PAIRS += [(encoder, predictor) for encoder in ("dinov2", *WITH_ITS_OWN) for predictor in options("predictor")]


@pytest.mark.parametrize(("encoder", "predictor"), PAIRS)
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
    name = CONFIG_OF[script]
    arguments = [word for word in arguments if "*" not in word and "mean_colour" not in word]
    arguments = [word for word in read(arguments, name) if word != "-m"]
    if "--config-name" in arguments:
        at = arguments.index("--config-name")
        name = arguments.pop(at + 1)
        arguments.pop(at)
    for argument in arguments:
        key, _, values = argument.partition("=")
        for value in values.split(","):
            compose(name, [f"{key}={value}"])


def test_the_readme_maps_every_folder():
    text = (ROOT / "README.md").read_text()
    rooms = [path.parent.name for path in (ROOT / "src/wmbench").glob("*/__init__.py")]
    entries = [path.name for path in ROOT.glob("*.py")]
    assert len(rooms) > 8 and len(entries) >= 3
    assert [name for name in rooms if f"\n  {name}/ " not in text] == []
    assert [name for name in [*entries, "conf/", "scripts/", "benchmarks/", "tests/", "docs/"] if name not in text] == []


def test_the_readme_is_a_page():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200


@pytest.mark.parametrize("document", ["README.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))])
def test_a_link_of_a_document_leads_somewhere(document: str):
    links = re.findall(r"\]\(([^)#:]+)\)", (ROOT / document).read_text())
    assert [link for link in links if not (ROOT / document).parent.joinpath(link).exists()] == []


def test_the_readme_shows_commands():
    assert len(commands_in("README.md")) > 10


def test_names_of_the_ancestor_lead_to_keys_that_exist():
    configs = [compose("plan", ["model_name=x", f"planner={planner}"]) for planner in ("cem", "gd")] + [compose("train", [])]
    for key in set(OLD_NAMES.values()):
        assert any(OmegaConf.select(cfg, key, default="missing") != "missing" for cfg in configs), key


def test_names_of_the_ancestor_are_translated_with_a_notice(capsys):
    assert translate(["n_evals=5", "planner.opt_steps=3", "model_name=x", "-m"]) == [
        "protocol.num_tasks=5",
        "planner.num_iters=3",
        "model_name=x",
        "-m",
    ]
    assert "n_evals is called protocol.num_tasks here" in capsys.readouterr().err


def test_an_appearance_may_be_given_as_one_of_the_protocols():
    words = ["model_name=x", "protocol.appearance=all", "protocol.appearance.scale=0.1", "protocol.goal_appearance=clean"]
    cfg = compose("plan", translate(words))
    assert cfg.appearance.scale == 0.1 and len(cfg.appearance.factors) == 19 and cfg.goal_appearance == "clean"


def test_what_the_ancestor_overrules_is_left_out_and_its_replanning_planners_are_ours(capsys):
    arguments = ["planner.n_taken_actions=1", "planner.sub_planner.horizon=9", "planner=mpc_gd", "goal_H=3"]
    assert translate(arguments) == ["planner=gd", "protocol.goal_H=3"]
    assert "planner.n_taken_actions changes nothing, as in DINO-WM, where goal_H decides" in capsys.readouterr().err
    cfg = compose("plan", ["model_name=x", "protocol=dino_wm", *translate(arguments)])
    assert (cfg.agent.horizon, cfg.agent.num_taken) == (3, 3)
    assert cfg.planner._target_.endswith("GradientDescent")  # the command line wins over the protocol's planner


def test_the_ancestors_bare_training_command_points_to_its_recipe(capsys):
    translate(["--config-name", "train.yaml", "env=point_maze"])
    assert "add experiment=dino_wm" in capsys.readouterr().err
    translate(["env=point_maze"])
    translate(["--config-name", "train.yaml", "experiment=dino_wm"])
    assert capsys.readouterr().err == ""


def test_options_may_stand_between_settings():
    given = ["model_name=x", "--config-name", "plan_point_maze.yaml", "planner=gd", "-m", "seed=0,1", "--cfg", "job"]
    assert read(given, "plan") == [
        *("--config-name", "plan_point_maze.yaml", "-m", "--cfg", "job"),
        *("model_name=x", "planner=gd", "seed=0,1"),
    ]


def test_the_released_recipe_is_the_originals():
    """reference: shared with the paper's Table 12 and the code's train.yaml, where they agree; the code's where not."""
    cfg = compose("train", ["experiment=dino_wm"])
    assert (cfg.frameskip, cfg.num_hist, cfg.num_pred, cfg.concat_dim) == (5, 3, 1, 1)
    assert (cfg.proprio, cfg.proprio_embed_dim, cfg.predictor.action_embed_dim) == ("full", 10, 10)
    assert (cfg.training.lr, cfg.training.batch_size, cfg.training.max_steps) == (5e-4, 32, 100 * 4557)
    assert (cfg.encoder.image_size, cfg.encoder.pixels) == (196, "dino_wm")
    assert (cfg.decoder, cfg.training.regularizer) == ({}, None)


def test_the_default_run_name_tells_environment_encoder_arm_and_seed():
    cfg = compose("train", ["encoder=state", "seed=3", "arm=matched"])
    assert f"{cfg.env.name}_state_{cfg.arm}_s{cfg.seed}" == "point_maze_state_matched_s3"
    assert "{env.name}" in compose("train", [])._get_node("model_name")._value()


def test_a_glob_becomes_a_sweep_over_the_runs_that_match(tmp_path, capsys):
    for name in ("maze_b", "maze_a", "other", "exp1/st", "exp1/st/wmbench", "x/.hydra"):
        (tmp_path / "outputs" / name).mkdir(parents=True)
        (tmp_path / "outputs" / name / "config.yaml").touch()
    base = f"ckpt_base_path={tmp_path}"
    assert read([base, "model_name=maze_*"], "plan") == ["-m", base, 'model_name="maze_a","maze_b"']
    assert read([base, "-m", "model_name=2024,exp*"], "plan") == ["-m", base, 'model_name="2024","exp1/st"']
    assert read([base, "model_name=oth*"], "plan") == [base, 'model_name="other"']
    assert read([base, "-m", "seed=1,2"], "plan") == ["-m", base, "seed=1,2"]
    with pytest.raises(SystemExit):
        read([base, "model_name=nothing*"], "plan")
    assert "found: exp1/st, maze_a, maze_b, other, point_maze_lewm\n" in capsys.readouterr().err


@pytest.mark.parametrize("name", MAPS)
def test_the_environment_configuration_names_its_mazes(name):
    assert name in Path(CONF, "env", "point_maze.yaml").read_text()
    assert Maze(name).name == name
