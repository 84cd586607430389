"""What every command line shares: Hydra's entry point with readable errors, and the ancestor's key names.

Only train.py, plan.py and the scripts import this.
"""

import difflib
import functools
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, InstantiationException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from wmbench.checkpoint import list_runs

CONF = str(Path(__file__).parents[2] / "conf")

# DINO-WM's names, still accepted, and ours.
OLD_NAMES = {
    "n_evals": "protocol.num_tasks",
    "max_iter": "protocol.max_rounds",
    "planner.max_iter": "protocol.max_rounds",
    "goal_H": "protocol.goal_H",
    "goal_source": "protocol.goal_source",
    "goal_file_path": "protocol.goal_file",
    "model.train_encoder": "train_encoder",
    "training.encoder_lr": "encoder_lr",
    "n_plot_samples": "num_videos",
    "model_epoch": "checkpoint",
    "planner.sample_type": "planner.start",
    "planner.opt_steps": "planner.num_iters",
    "planner.topk": "planner.num_elites",
    "planner.var_scale": "planner.init_std",
    "planner.sub_planner.opt_steps": "planner.num_iters",
    "planner.sub_planner.topk": "planner.num_elites",
    "planner.sub_planner.num_samples": "planner.num_samples",
    "planner.sub_planner.var_scale": "planner.init_std",
    "planner.sub_planner.lr": "planner.lr",
    "planner.sub_planner.action_noise": "planner.action_noise",
    "planner.sub_planner.sample_type": "planner.start",
}

# Settings that DINO-WM reads and then overrides by goal_H.
OVERRULED = ("planner.horizon", "planner.n_taken_actions", "planner.sub_planner.horizon")

# Its planners that replan; here a planner plans, and the protocol says when to plan again.
OLD_PLANNERS = {"planner=mpc_cem": "planner=cem", "planner=mpc_gd": "planner=gd"}


def command(config_name: str) -> Callable[[Callable[[DictConfig], None]], Callable[[], None]]:
    """Decorator: hydra.main over conf/, with errors that a user can act on and no traceback.

    HYDRA_FULL_ERROR=1 shows the traceback.
    """

    def decorate(run: Callable[[DictConfig], None]) -> Callable[[], None]:
        @functools.wraps(run)
        def main() -> None:
            if {"--help", "-h"} & set(sys.argv[1:]):
                return print(help_text(run.__globals__["__doc__"], config_name))
            sys.argv[1:] = expand_globs(translate(sys.argv[1:]))
            if os.environ.get("HYDRA_FULL_ERROR") == "1":
                return hydra.main(version_base="1.3", config_path=CONF, config_name=config_name)(run)()
            os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra raise, so that we can explain
            try:
                hydra.main(version_base="1.3", config_path=CONF, config_name=config_name)(friendly)()
            except KeyboardInterrupt:
                fail("stopped; nothing that was saved is lost, and the same command goes on from it", code=130)
            except (HydraException, OmegaConfBaseException) as error:
                fail(explain(error, config_name))

        @functools.wraps(run)
        def friendly(cfg: DictConfig) -> None:
            try:
                check_types(cfg, config_name)
                run(cfg)
            except InstantiationException as error:
                fail(str(error.__cause__ or error).strip())
            except (OmegaConfBaseException, ValueError, OSError) as error:
                fail(str(error).strip())

        return main

    return decorate


def help_text(description: str, config_name: str) -> str:
    """What a command does, its settings with their comments, and the choices of each group with theirs."""
    settings = Path(CONF, f"{config_name}.yaml").read_text().partition("\nhydra:")[0]
    lines = [
        description.strip(),
        "",
        f"Settings (key=value changes one; conf/{config_name}.yaml):",
        "",
        settings.strip(),
        "",
    ]
    lines.append("Choices (group=choice; group.key=value changes a setting of the one chosen):")
    for group in sorted(path for path in Path(CONF).iterdir() if path.is_dir()):
        if f"- {group.name}:" in settings:
            lines += ["", f"{group.name}:"]
            for choice in sorted(group.glob("*.yaml")):
                comments = (line[2:] for line in choice.read_text().splitlines() if line.startswith("# "))
                about = next((comment for comment in comments if not comment.startswith("@package")), "")
                sentence = about.partition(". ")[0].rstrip(".")
                lines.append(f"  {choice.stem:<17}{sentence}")
    return "\n".join([*lines, "", "--cfg job prints every setting as it would be used; -m runs every combination of a,b."])


def fail(message: str, code: int = 1) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)


def translate(arguments: list[str]) -> list[str]:
    """Command-line arguments with DINO-WM's key names replaced by ours, and a notice for each."""
    translated = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        key = key.lstrip("+")
        if key in OVERRULED:
            print(f"note: {key} changes nothing, as in DINO-WM, where goal_H decides; see agent.horizon", file=sys.stderr)
            continue
        if equals and (name := OLD_NAMES.get(key)):
            print(f"note: {key} is called {name} here", file=sys.stderr)
            argument = f"{name}={value}"
        if planner := OLD_PLANNERS.get(argument):
            print(f"note: {argument} is {planner} here; the protocol says when to plan again", file=sys.stderr)
            argument = planner
        translated.append(argument)
    if any("train.yaml" in argument for argument in arguments) and not any("experiment=" in a for a in arguments):
        print(
            "note: DINO-WM also tells its model the ball's position and velocity; our default shows it pixels alone. "
            "For its released recipe add experiment=dino_wm",
            file=sys.stderr,
        )
    return translated


def expand_globs(arguments: list[str]) -> list[str]:
    """model_name='maze_*' becomes a sweep over the runs that match."""
    base = next((a.partition("=")[2] for a in arguments if a.startswith("ckpt_base_path=")), "checkpoints")
    expanded = []
    for argument in arguments:
        key, _, pattern = argument.partition("=")
        if key == "model_name" and "*" in pattern:
            names = list_runs(Path(base), pattern)
            if not names:
                fail(f"no run matches {pattern!r} in {base}; found: {', '.join(list_runs(Path(base))) or 'none'}")
            print(f"planning with {len(names)} runs: {', '.join(names)}", file=sys.stderr)
            argument = f"model_name={','.join(names)}"
            expanded += ["-m"] * (len(names) > 1)
        expanded.append(argument)
    # Options in front, since argparse does not find them between overrides.
    overrides = [a for a in expanded if ("=" in a and not a.startswith("-")) or a.startswith("~")]
    options = [a for a in expanded if a not in overrides and a not in ("-m", "--multirun")]
    return [*["-m"] * (len(options) + len(overrides) < len(expanded)), *options, *overrides]


def check_types(cfg: DictConfig, config_name: str) -> None:
    """Refuse a word where the configuration has a number or a switch, before anything is built from it.

    Raises:
        ValueError: naming the key, the value and what it should be.
    """
    given = [o.partition("=")[0] for o in HydraConfig.get().overrides.task if not o.startswith(("+", "~"))]
    given = [key for key in given if not Path(CONF, key).is_dir()]
    default = _default_config(HydraConfig.get().job.config_name or config_name) if given else cfg
    for key in given:
        usual, value = OmegaConf.select(default, key, throw_on_missing=False), OmegaConf.select(cfg, key)
        for kinds, name in ((bool, "true or false"), (int, "a whole number"), (float, "a number")):
            if isinstance(usual, kinds):
                allowed = (int, float) if kinds is float else kinds
                if value is not None and (not isinstance(value, allowed) or isinstance(value, bool) != (kinds is bool)):
                    raise ValueError(f"{key} ({value!r}) must be {name}, such as {usual}")
                break


def explain(error: Exception, config_name: str) -> str:
    """Hydra's message, with the nearest valid names where a name is wrong."""
    message = str(error).strip()
    if message.startswith("Cannot find primary config"):
        known = sorted(path.stem for path in Path(CONF).glob("*.yaml"))
        return f"no configuration {error.missing_cfg_file!r}; known: {', '.join(known)}"  # type: ignore[attr-defined]
    if isinstance(error, MissingConfigException) and error.options and error.missing_cfg_file:
        group, _, wrong = str(error.missing_cfg_file).rpartition("/")
        known = sorted(error.options)
        if group == "arm":
            return f"unknown arm {wrong!r}; known: {', '.join(known)}; a run's own name is model_name=NAME"
        return f"unknown {group or 'config'} {wrong!r}{nearest(wrong, known)}; known: {', '.join(known)}"
    if match := re.search(r"Could not override '([^']+)'", message):
        wrong = match.group(1)
        return f"unknown key {wrong!r}{nearest(wrong, _valid_keys(config_name))} (--cfg job prints every key)"
    return message


def nearest(wrong: str, valid: Iterable[str]) -> str:
    """`, did you mean a or b?` or nothing."""
    valid = list(valid)
    leaf = wrong.rpartition(".")[2]
    close = (
        difflib.get_close_matches(wrong, valid, n=2, cutoff=0.75)
        or [name for name in valid if name.rpartition(".")[2] == leaf][:3]
    )
    return f", did you mean {' or '.join(close)}?" if close else ""


def _valid_keys(config_name: str) -> list[str]:
    """Every key of the configuration."""

    def keys(node: Any, prefix: str = "") -> Iterable[str]:
        for key in node:
            yield f"{prefix}{key}"
            if OmegaConf.is_dict(node) and OmegaConf.is_dict(node._get_node(key)):
                yield from keys(node._get_node(key), f"{prefix}{key}.")

    return list(keys(_default_config(config_name)))


def _default_config(config_name: str) -> DictConfig:
    """The configuration as it is without the command line's plain values."""
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(CONF, version_base="1.3"):
        choices = [a for a in sys.argv[1:] if Path(CONF, a.partition("=")[0]).is_dir() and "," not in a]
        return hydra.compose(config_name, overrides=choices)


def encoder_config(name: str, settings: Sequence[str] = ()) -> dict[str, Any]:
    """What conf/encoder/NAME.yaml says, with its defaults and with settings (encoder.KEY=VALUE) in place of its own."""
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(CONF, version_base="1.3"):
        cfg = hydra.compose("train", overrides=[f"encoder={name}", *settings])
    return OmegaConf.to_container(cfg.encoder, resolve=True)  # type: ignore[return-value]
