"""Hydra's entry point with errors that a user can act on, in single runs and in sweeps."""

import functools
import os
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from wmbench.commands.checks import check_settings, given_words
from wmbench.commands.configuration import CONF
from wmbench.commands.help import help_text
from wmbench.commands.messages import explain, fail, told
from wmbench.commands.words import read
from wmbench.files import PACKAGE

PARENT = "WMBENCH_ENDS_WITH"  # its value: the number of the process to end with


def command(config_name: str) -> Callable[[Callable[[DictConfig], None]], Callable[[], None]]:
    """Decorator: hydra.main over conf/, with errors that a user can act on and no traceback.

    A job of a sweep that fails does not keep the others from running. HYDRA_FULL_ERROR=1 shows the traceback.
    """

    def decorate(run: Callable[[DictConfig], None]) -> Callable[[], None]:
        failed: list[str] = []

        @functools.wraps(run)
        def precisely(cfg: DictConfig) -> None:
            with computing(cfg):
                run(cfg)

        @functools.wraps(run)
        def main() -> None:
            if {"--help", "-h"} & set(sys.argv[1:]):
                return print(help_text(run.__globals__["__doc__"], config_name))
            end_with_parent()
            warnings.formatwarning = as_note
            wrap = hydra.main(version_base="1.3", config_path=CONF, config_name=config_name)
            try:
                sys.argv[1:] = read(sys.argv[1:], config_name)
                if os.environ.get("HYDRA_FULL_ERROR") == "1":
                    return wrap(precisely)()
                os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra raise, so that we can explain
                wrap(job)()
            except KeyboardInterrupt:
                fail("stopped; nothing that was saved is lost, and the same command goes on from it", code=130)
            except (HydraException, OmegaConfBaseException, ValueError, OSError) as error:
                fail(explain(error, config_name) if isinstance(error, HydraException) else told(error))
            if failed:
                fail(f"{len(failed)} of the sweep's jobs failed:\n" + "\n".join(failed))

        @functools.wraps(run)
        def job(cfg: DictConfig) -> None:
            is_sweep = HydraConfig.get().mode == RunMode.MULTIRUN
            try:
                check_settings(cfg, config_name)
                return precisely(cfg)
            except InstantiationException as error:
                problem = told(error.__cause__ or error, cfg)
            except (OmegaConfBaseException, ValueError, OSError) as error:
                problem = told(error, cfg)
            except (Exception, SystemExit) as error:
                if not (is_sweep or lacks_memory(error)):
                    raise
                problem = unforeseen(error, cfg)
            if not is_sweep:
                fail(problem)
            failed.append(f"{' '.join(given_words())}: {problem}")
            print(f"error: {failed[-1]}; the sweep goes on", file=sys.stderr)

        return main

    return decorate


def end_with_parent() -> None:
    """Where the process that started this one asks for it, end with it, also when that one is killed."""
    parent = os.environ.get(PARENT)
    if parent is None:
        return

    def watch() -> None:
        while os.getppid() == int(parent):
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def as_note(message: Warning | str, category: type, filename: str, lineno: int, line: str | None = None) -> str:
    """A warning of ours in a line, where Python would print a place in the source; others as ever."""
    if str(PACKAGE) in filename:
        return f"note: {message}\n"
    return f"{filename}:{lineno}: {category.__name__}: {message}\n"


def unforeseen(error: BaseException, cfg: DictConfig) -> str:
    """An error that is no refusal, as one line; of a fault of ours the traceback is printed first."""
    if lacks_memory(error):
        return f"memory ran out ({told(error, cfg)[:200]}); other programs may hold some of it"
    if isinstance(error, SystemExit):
        return f"it ended with exit status {error.code}"
    traceback.print_exc()
    return f"{type(error).__name__}: {told(error, cfg)}"


def lacks_memory(error: BaseException) -> bool:
    from wmbench.planning.memory import is_out_of_memory

    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and is_out_of_memory(error))


def computing(cfg: DictConfig) -> Any:
    """Context of a command's memory and precision; the next job of a sweep starts from the precision that was before."""
    # after --help, which does not wait for PyTorch
    from wmbench.machine import keep_freed_memory, pick_device
    from wmbench.models.precision import precision_named

    keep_freed_memory()
    device, tf32, exact = pick_device(cfg.get("device", "auto")), cfg.get("tf32", False), cfg.get("deterministic", False)
    return precision_named(cfg.get("precision", "auto"), device, tf32, exact).applied()
