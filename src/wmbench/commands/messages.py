"""Errors as one line, with the way out."""

import errno
import os
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from hydra._internal.utils import get_args_parser
from hydra.errors import MissingConfigException
from omegaconf import DictConfig, ListConfig, OmegaConf

from wmbench.commands.configuration import CONF, default_config, is_open, keys_of, nearest, unknown_key
from wmbench.commands.quoting import in_quotes
from wmbench.processes.group import end, is_first_failure, voice

NO_SETTINGS = OmegaConf.create({})

# Settings that say where a command writes, by the last part of their key, and variables that move what libraries keep.
WRITTEN = ("output", "output_dir", "tasks_dir", "ckpt_base_path", "dir", "folder")
VARIABLES = (
    "TORCH_HOME",
    "HF_HOME",
    "WARP_CACHE_PATH",
    "MPLCONFIGDIR",
    "TORCHINDUCTOR_CACHE_DIR",
    "XDG_CACHE_HOME",
    "TMPDIR",
)


def fail(message: str, code: int = 1) -> NoReturn:
    """End with an error; of several processes that fail the first one says why."""
    if is_first_failure():
        print(f"error: {message}", file=voice())
    end(code)


def explain(error: Exception, config_name: str) -> str:
    """Hydra's message as one line, with the nearest valid names where a name is wrong."""
    message = " ".join(str(error).split())
    if message.startswith("Cannot find primary config"):
        known = sorted(path.stem for path in Path(CONF).glob("*.yaml"))
        return f"no configuration {error.missing_cfg_file!r}; known: {', '.join(known)}"  # type: ignore[attr-defined]
    if match := re.search(r"Could not (?:find|load) 'hydra/launcher/((joblib|submitit|ray)(?:_\w+)?)'", message):
        return f"hydra/launcher={match[1]} comes with a package: pip install hydra-{match[2]}-launcher"
    if isinstance(error, MissingConfigException) and error.options and error.missing_cfg_file:
        group, _, wrong = str(error.missing_cfg_file).rpartition("/")
        known = sorted(error.options)
        if group == "arm":
            return f"unknown arm {wrong!r}; known: {', '.join(known)}; a run's own name is model_name=NAME"
        return f"unknown {group or 'config'} {wrong!r}{nearest(wrong, known)}; known: {', '.join(known)}"
    if match := re.search(r"Could not override '([^'@]+)", message):
        return _unknown(match.group(1), config_name)
    if match := re.search(r"Ambiguous value for argument '(([^=']+)=(.*?))' 1\.", message):
        setting, key, values = match.groups()
        as_text = shlex.quote(f"{key}={in_quotes(values)}")
        return f"{setting} gives several values: add -m to run each of them; one text: {as_text}, one list: {key}=[{values}]"
    if match := re.search(r"(?:Could not append .*?'|Multiple values for )([^'=. ]+)", message):
        return f"{match.group(1)} is there already; write it without +"
    return message


def _unknown(wrong: str, config_name: str) -> str:
    options, _ = get_args_parser().parse_known_args(sys.argv[1:])
    words = [word for word in options.overrides if word.partition("=")[0] != wrong]
    default = default_config(config_name, words, [os.path.abspath(options.config_dir)] if options.config_dir else [])
    if is_open(default, wrong):
        return f"{wrong} is not there yet; write it with +, as +{wrong}=VALUE"
    group = wrong.partition(".")[0]
    if f"- {group}: null" in (Path(CONF) / f"{config_name}.yaml").read_text() and group not in default:
        choices = sorted(path.stem for path in (Path(CONF) / group).glob("*.yaml"))
        return f"{wrong} is a setting of {group}=NAME, which is not given; say one too: {', '.join(choices)}"
    return unknown_key(wrong, keys_of(default))


def told(error: BaseException, cfg: DictConfig = NO_SETTINGS) -> str:
    """An error's message as one line; of a file that cannot be written, with the setting or variable that moves it."""
    if not (isinstance(error, OSError) and error.strerror and error.filename):
        return " ".join(str(error).split())
    if error.errno == errno.ENAMETOOLONG:
        name = max(str(error.filename).split("/"), key=len)
        return f"{error.filename}: the name {name[:20]}... has {len(os.fsencode(name))} bytes, too many; give a shorter one"
    movers = list(_movers(Path(error.filename), cfg))
    return f"{error.filename}: {error.strerror}" + (f"; {' or '.join(movers)} moves it" if movers else "")


def _movers(path: Path, cfg: DictConfig) -> Iterator[str]:
    def leads_to(place: str | Path) -> bool:
        here, there = path.absolute(), Path(place).absolute()
        return here == there or here in there.parents or there in here.parents

    for key in keys_of(cfg):
        place = OmegaConf.select(cfg, key) if key.rpartition(".")[2] in WRITTEN else None
        places = [place] if isinstance(place, str) else place if isinstance(place, ListConfig) else []
        if any(map(leads_to, places)):
            yield f"{key}=FOLDER"
    set_ones = [name for name in VARIABLES if name in os.environ and leads_to(os.environ[name])]
    yield from (f"the variable {name}" for name in set_ones)
    if not set_ones and leads_to(Path("~/.cache").expanduser()):
        yield "the variable XDG_CACHE_HOME"
