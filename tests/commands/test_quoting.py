"""Text on a command line arrives as it was typed, and what we print can be pasted."""

import shlex
from pathlib import Path

import pytest

from wmbench.commands import encoder_config, plan_line
from wmbench.commands.quoting import command_line

TEXTS = (
    "2024",
    "true",
    "null",
    "1e5",
    "a b",
    "a=b",
    "a{b}",
    "a#b",
    "a$b",
    "é日本",
    "-x",
    "it's",
    'say "x"',
    "[a]",
    "a;b",
    "x\\",
)


@pytest.mark.parametrize("name", TEXTS)
def test_a_run_may_be_called_by_any_word(typed, name):
    assert typed(shlex.join(["train", f"model_name={name}"])).value("model_name") == name


@pytest.mark.parametrize(
    "path", ["maze (1).h5", "a=b.h5", "a#b.h5", "données.h5", "a,b.h5", "[1].h5", " a.h5 ", "C:\\a\\b.h5", "a:b"]
)
def test_a_path_may_hold_what_the_grammar_of_hydra_refuses(typed, path):
    assert typed(shlex.join(["train", f"env.data={path}"])).value("env.data") == path


def test_folders_of_tokens_may_be_several(typed):
    folders = typed(shlex.join(["train", "cache.dir=[~/a, 2024,/b (1)]"])).value("cache.dir")
    assert folders == ["/home/reader/a", "2024", "/b (1)"]
    assert typed(shlex.join(["train", "cache.dir='[a,b]'"])).value("cache.dir") == "[a,b]"
    swept = typed(shlex.join(["train", "-m", "cache.dir=[a,b],c"])).configs
    assert [cfg.cache.dir for cfg in swept] == [["a", "b"], "c"]


def test_a_tilde_is_the_home_folder(typed):
    assert typed("train env.data='~/maze.h5'").value("env.data") == "/home/reader/maze.h5"
    assert typed("""train env.data="'~/maze.h5'" """).value("env.data") == "/home/reader/maze.h5"
    assert typed("collect output='~'").value("output") == "/home/reader"


def test_settings_of_a_script_are_quoted_too(monkeypatch):
    monkeypatch.setenv("HOME", "/home/reader")
    assert encoder_config("dinov2", ["encoder.weights=~/my (1).pth"])["weights"] == "/home/reader/my (1).pth"


def test_commas_separate_the_values_of_a_sweep_and_only_there(typed):
    swept = typed("train -m env.data='~/a.h5,b (1).h5' model_name=1,'\"b,c\"'")
    assert [(cfg.env.data, cfg.model_name) for cfg in swept.configs] == [
        *(("/home/reader/a.h5", "1"), ("/home/reader/a.h5", "b,c")),
        *(("b (1).h5", "1"), ("b (1).h5", "b,c")),
    ]
    assert [cfg.env.data for cfg in typed("train -m env.data='choice(a.h5,b.h5)'").configs] == ["a.h5", "b.h5"]
    assert "add -m to run each of them" in typed("train model_name=a,b").error


def test_interpolations_lists_and_null_keep_their_meaning(typed):
    assert typed("train env.data='${env.name}.h5'").value("env.data") == "point_maze.h5"
    assert typed('train env.maze=\'["###","#.#"]\'').value("env.maze") == ["###", "#.#"]
    assert typed("plan env.data=null").value("env.data") is None
    assert typed("plan agent.horizon='${protocol.goal_H}'").value("agent.horizon") == 5


@pytest.mark.parametrize("name", [*TEXTS, "exp1/st", "a,b", "'q'"])
def test_a_command_that_we_print_can_be_pasted(typed, name):
    line = plan_line(Path("my runs/outputs", name), Path("my runs"))
    python, script, *words = shlex.split(line)
    assert (python, script) == ("python", "plan.py")
    pasted = typed(shlex.join(["plan", *words]))
    assert (pasted.value("model_name"), pasted.value("ckpt_base_path")) == (name, "my runs")


def test_the_command_that_plans_with_a_run_names_its_folder_only_where_it_is_another():
    assert plan_line(Path("checkpoints/outputs/exp1/st")) == "python plan.py model_name=exp1/st"
    assert plan_line(Path("elsewhere/st")) == "python plan.py model_name=st ckpt_base_path=elsewhere"
    assert command_line("train.py", {"env.data": "maze (1).h5"}) == "python train.py 'env.data=maze (1).h5'"
