"""Words that a command cannot use are refused in one line that names key, value and rule, before anything is built."""

import pytest

from wmbench.commands.checks import check_name
from wmbench.runs.trust import check_names


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("train seed=null", "seed (null) must be a whole number, such as 0"),
        ("train seed=1.5", "seed (1.5) must be a whole number"),
        ("train seed=-1", "seed (-1) must be a whole number from 0 to 4294967295"),
        ("train split_seed=99999999999999999999", "split_seed (99999999999999999999) must be a whole number from 0"),
        ("train training.lr=nan", "training.lr (nan) must be a finite number"),
        ("train training.lr=[1,2]", "training.lr ([1, 2]) must be a finite number"),
        ("train training.cosine=1", "training.cosine (1) must be true or false"),
        ("train encoder.widths=3", "encoder.widths (3) must be a list, such as [64, 128, 128]"),
        ("train cache=5", "cache (5) must be a group of settings"),
        ("train env.data=null", "env.data (null) must be text"),
        ("train proprio=2", "proprio (2) must be text, such as none"),
        ("plan protocol.num_tasks=abc", "protocol.num_tasks ('abc') must be a whole number"),
        ("plan baselines=no", "baselines ('no') must be true or false"),
        ("plan agent=5", "agent (5) must be a group of settings"),
        ("plan env.renderer=1", "env.renderer (1) must be text"),
        ("train +foo=1", "unknown key 'foo'"),
        ("train ++foo.bar=1", "unknown key 'foo.bar'"),
        ("train +training.foo=1", "unknown key 'training.foo'"),
        ("train +encoder.foo=1", "unknown key 'encoder.foo'"),
        ("train encoder.foo=1", "unknown key 'encoder.foo'"),
        ("train planner=cem", "unknown key 'planner'"),
        ("train +seed=1", "seed is there already; write it without +"),
        ("train +experiment=dino_wm", "experiment is there already; write it without +"),
        ("train encoder=dinov2 encoder.architecture.depth=2", "write it with +, as +encoder.architecture.depth=VALUE"),
        ("train ~training.lr", "~training.lr: a command needs all of its settings"),
        ("train ~decoder", "decoder= takes one of none, transposed_conv, vqvae"),
        ("plan planner=null", "planner= takes one of adam, cem"),
        ("plan planner=none", "unknown planner 'none'"),
        ("train encoder=[dino,state]", "-m encoder=A,B runs several"),
        ("train encoder=dino,state", "encoder=dino,state gives several values: add -m"),
        ("train model_name='${nope}'", "model_name: Interpolation key 'nope' not found"),
        ("train env.maze='####'", "Hydra cannot read the value of env.maze (####); as text it needs quotes: 'env."),
        ("train env.maze='[###,#.#]'", '\'env.maze=["###","#.#"]\''),
        (
            f"plan model_name=x row={201 * 'x'}",
            "row (xxxxxxxxxxxxxxxxxxxx...) takes 201 bytes, and at most 200 are possible",
        ),
        ("plan 'output_dir=a\0b'", "output_dir ('a\\x00b') holds a zero byte, which no name has"),
        ("train --models x", "unknown option --models"),
        ("plan --model_name x", "unknown option --model_name: settings are written key=value, and --help lists them, did"),
        ("plan point_maze_lewm", "write key=value without spaces, such as model_name=point_maze_lewm"),
        ("train lewm_small", "such as encoder=lewm_small"),
        ("train 'maze 1.h5'", "such as 'env.data=maze 1.h5'"),
        ("train seed = 1", "'seed' is no setting; write key=value without spaces"),
        ("train =1", "'=1' is no setting; write key=value"),
        ("train --cfg nope", "argument --cfg/-c: invalid choice: 'nope'"),
        ("train --resolve", "--resolve flag can only be used"),
        ("train --config-name nope", "no configuration 'nope'; known: collect, diagnose, plan"),
    ],
)
def test_bad_words_get_one_line(typed, line, expected):
    assert expected in typed(line).error


def test_what_another_choice_of_the_group_has_is_possible(typed):
    assert typed("train training.grad_clip=null").value("training.grad_clip") is None
    assert typed("plan protocol.max_rounds=3 protocol.max_steps=null").value("protocol.max_steps") is None
    assert typed("plan objective.alpha=1").value("objective.alpha") == 1
    assert typed("train encoder=dinov2 +encoder.architecture.depth=2").value("encoder.architecture.depth") == 2


def test_an_encoder_of_another_folder_is_checked_like_ours(typed, tmp_path):
    (tmp_path / "mine/encoder").mkdir(parents=True)
    (tmp_path / "mine/encoder/mine.yaml").write_text("_target_: wmbench.encoders.pixels.Pixels\nside: 8\n")
    assert typed("train --config-dir mine encoder=mine encoder.side=4").value("encoder.side") == 4
    assert (
        "unknown key 'encoder.sides', did you mean encoder.side?"
        in typed("train -cd mine encoder=mine encoder.sides=4").error
    )


def test_a_run_may_name_a_class_of_the_folder_that_the_command_line_gives(typed, tmp_path):
    (tmp_path / "mine/encoder").mkdir(parents=True)
    (tmp_path / "mine/encoder/mine.yaml").write_text("_target_: my_package.Mine\n")

    def job(cfg):
        check_names({"_target_": "my_package.Mine"}, "encoder", "config.yaml", "take another")

    assert typed("plan model_name=a --config-dir mine", job).code == 0
    refused = typed("plan model_name=a", job)
    assert refused.code == 1 and "(my_package.Mine) is none of the classes that conf/encoder names" in refused.err


@pytest.mark.parametrize(
    "name", ["..", "../x", "a/../b", "/abs", "", "a/", "a//b", "./a", ".hidden", "two\nlines", "x" * 201]
)
def test_a_name_that_is_no_folder_below_the_runs_is_refused(name):
    for is_new in (True, False):
        with pytest.raises(ValueError, match="model_name"):
            check_name(name, is_new)


def test_a_new_run_is_not_called_what_plan_reads_as_something_else():
    for name in ("random", "zero", "simulator", "maze_*"):
        with pytest.raises(ValueError, match="give another name"):
            check_name(name, is_new=True)
    check_name("random", is_new=False)
