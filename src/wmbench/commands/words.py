"""The words of a command line, in the order and form in which Hydra takes them, or a line that says what is wrong."""

import shlex
import sys
from pathlib import Path

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from wmbench.commands.ancestor import translate
from wmbench.commands.configuration import CONF, choices, default_config, is_group, keys_of, nearest
from wmbench.commands.messages import fail
from wmbench.commands.quoting import in_quotes, parse, quoted, split, unquoted
from wmbench.runs.find import list_runs


def read(arguments: list[str], config_name: str) -> list[str]:
    """Rewrite a command line for Hydra: options first, then settings that it can read."""
    arguments = translate(arguments)
    settings = [word for word in arguments if ("=" in word and not word.startswith("-")) or word.startswith("~")]
    options = [word for word in arguments if word not in settings]
    check_options(options, config_name)
    is_sweep = not {"-m", "--multirun"}.isdisjoint(options)
    if (launcher := launcher_among(settings)) is not None and not is_sweep:
        options, is_sweep = [*options, "-m"], True
        settings += shards(settings, launcher) if config_name == "study" else []
    settings = [quoted(setting, is_sweep) for setting in settings]
    if config_name == "plan":
        settings, several = expand_globs(settings)
        options += ["-m"] * (several and not is_sweep)
    for setting in settings:
        check_grammar(setting)
    return [*options, *settings]


def launcher_among(words: list[str]) -> str | None:
    """What starts the jobs of a sweep, where it is not this process."""
    given = [value for key, _, value in (word.partition("=") for word in words) if key == "hydra/launcher"]
    return next((name for name in given if name != "basic"), None)


def shards(settings: list[str], launcher: str) -> list[str]:
    """A study's jobs where none are given: a part for each core."""
    if any(setting.startswith(("shard=", "status=", "dry_run=")) for setting in settings):
        return []
    if "slurm" in launcher:
        fail(f"hydra/launcher={launcher} submits a job for each part of the study; say how many: shard=1/4,2/4,3/4,4/4")
    from wmbench.machine import num_cores  # after --help, which does not wait for PyTorch

    parts = ",".join(f"{part}/{num_cores()}" for part in range(1, num_cores() + 1))
    print(f"note: shard={parts}, a part for each core", file=sys.stderr)
    return [f"shard={parts}"]


def check_options(options: list[str], config_name: str) -> None:
    """Fail where a word is neither a setting nor one of Hydra's options."""
    parser = get_args_parser()
    parser.error = fail  # type: ignore[method-assign] - one line in place of a page of usage
    known, unknown = parser.parse_known_args(options)
    for word in unknown:
        meant = word.strip("-").partition("=")[0].replace("-", "_")
        close = nearest(meant, keys_of(default_config(config_name, [])))
        fail(f"unknown option {word}: settings are written key=value, and --help lists them{close}")
    for word in known.overrides:
        fail(f"{word!r} is no setting; write key=value without spaces, such as {example(word, config_name)}")


def example(word: str, config_name: str) -> str:
    """The setting that a bare word was probably meant as."""
    if groups := [path.name for path in sorted(Path(CONF).iterdir()) if (path / f"{word}.yaml").exists()]:
        return f"{groups[0]}={word}"
    if word.endswith((".h5", ".hdf5", ".zip")):
        return shlex.quote(f"env.data={word}")
    return shlex.quote(f"model_name={word}") if config_name == "plan" else "seed=1"


def expand_globs(settings: list[str]) -> tuple[list[str], bool]:
    """Replace model_name='maze_*' by the runs that match; returns also whether they are several."""
    given = {key: value for key, _, value in (setting.partition("=") for setting in settings)}
    base, pattern = given.get("ckpt_base_path", "checkpoints"), given.get("model_name", "")
    if "*" not in pattern:
        return settings, False
    base, names = Path(unquoted(base)), []
    for part in map(unquoted, split(pattern)):
        found = list_runs(base, part) if "*" in part else [part]
        if not found:
            fail(f"no run matches {part!r} in {base}; found: {', '.join(list_runs(base)) or 'none'}")
        names += found
    print(f"planning with {len(names)} runs: {', '.join(names)}", file=sys.stderr)
    matched = f"model_name={','.join(map(in_quotes, names))}"
    return [matched if setting.startswith("model_name=") else setting for setting in settings], len(names) > 1


def check_grammar(setting: str) -> None:
    """Fail with the key, the value and the way to write it where Hydra would refuse a setting."""
    key, _, value = setting.partition("=")
    try:
        override = OverridesParser.create().parse_override(setting)
    except HydraException:
        override = None
    if not key or (override is None and (not value or parse(value) is not None)):
        fail(f"{setting!r} is no setting; write key=value, such as seed=1")
    if override is None:
        is_list = value.startswith("[") and value.endswith("]")
        text = f"[{','.join(map(in_quotes, split(value[1:-1])))}]" if is_list else in_quotes(value)
        fail(f"Hydra cannot read the value of {key} ({value}); as text it needs quotes: {shlex.quote(f'{key}={text}')}")
    if is_group(group := override.key_or_group) and not (override.is_sweep_override() or isinstance(override.value(), str)):
        fail(f"{setting}: {group}= takes one of {', '.join(choices(group))}; -m {group}=A,B runs several")
