"""Hydra's entry point with errors that a user can act on, in single runs and in sweeps."""

import functools
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import hydra
from hydra._internal.hydra import Hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, InstantiationException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from wmbench.commands.checks import check_settings, given_words
from wmbench.commands.configuration import CONF
from wmbench.commands.help import help_text
from wmbench.commands.messages import explain, fail, told
from wmbench.commands.words import launcher_among, read
from wmbench.files import PACKAGE
from wmbench.processes.group import num_processes, voice
from wmbench.processes.meeting import is_torn, joined

MULTIRUN = Hydra.multirun
PARENT = "WMBENCH_ENDS_WITH"  # its value: the number of the process to end with
SHARED = ("train", "pretrain", "plan")  # commands that several processes may do together


def command(config_name: str) -> Callable[[Callable[[DictConfig], None]], Callable[[], None]]:
    """Decorator: hydra.main over conf/, with errors that a user can act on and no traceback.

    A job of a sweep that fails does not keep the others from running, wherever they run. SIGTERM stops a command as Ctrl-C
    does. HYDRA_FULL_ERROR=1 shows the traceback.
    """

    def decorate(run: Callable[[DictConfig], None]) -> Callable[[], None]:
        @functools.wraps(run)
        def precisely(cfg: DictConfig) -> None:
            with computing(cfg):
                run(cfg)

        @functools.wraps(run)
        def main() -> None:
            if {"--help", "-h"} & set(sys.argv[1:]):
                return print(help_text(run.__globals__["__doc__"], config_name))
            end_with_parent()
            wrap = hydra.main(version_base="1.3", config_path=CONF, config_name=config_name)
            with told_in_a_line(config_name), joined():
                if num_processes() > 1 and config_name not in SHARED:
                    raise ValueError(f"torchrun is for {'.py, '.join(SHARED)}.py; start this command without it")
                sys.argv[1:] = read(sys.argv[1:], config_name)
                if os.environ.get("HYDRA_FULL_ERROR") == "1":
                    return wrap(precisely)()
                os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra raise, so that we can explain
                with sigterm_stops(), returned_by_jobs() as returned:
                    wrap(job)()
            if failed := list(filter(None, returned)):
                fail(f"{len(failed)} of the sweep's jobs failed:\n" + "\n".join(failed))

        @functools.wraps(run)
        def job(cfg: DictConfig) -> str | None:
            """Run one job; returns what went wrong in one of a sweep, which may run in another process."""
            warnings.formatwarning = as_note
            is_sweep = HydraConfig.get().mode == RunMode.MULTIRUN
            try:
                check_settings(cfg, config_name)
                return precisely(cfg)
            except InstantiationException as error:
                problem = told(error.__cause__ or error, cfg)
            except (OmegaConfBaseException, ValueError, OSError) as error:
                problem = told(error, cfg)
            except (Exception, SystemExit) as error:
                if not (is_sweep or lacks_memory(error) or num_processes() > 1):
                    raise
                problem = unforeseen(error, cfg)
            if not is_sweep or num_processes() > 1:  # whose others wait for this one
                fail(problem)
            problem = f"{' '.join(given_words())}: {problem}"
            print(f"error: {problem}; the sweep goes on", file=sys.stderr)
            return problem

        return main

    return decorate


@contextmanager
def told_in_a_line(config_name: str) -> Iterator[None]:
    """Fail with one line where the block is stopped or refuses."""
    try:
        yield
    except KeyboardInterrupt:
        fail("stopped; nothing that was saved is lost, and the same command goes on from it", code=130)
    except (HydraException, OmegaConfBaseException, ValueError, OSError) as error:
        fail(explain(error, config_name) if isinstance(error, HydraException) else told(error))
    except Exception as error:  # a fault of ours, unless a launcher has started the jobs, which return theirs
        if (launcher := launcher_among(sys.argv)) is None:
            raise
        fail(f"hydra/launcher={launcher}: {type(error).__name__}: {told(error)}")


@contextmanager
def returned_by_jobs() -> Iterator[list[Any]]:
    """What the jobs of a sweep return, filled in when it ends: Hydra gathers it from all launchers and then drops it."""
    returned: list[Any] = []
    before = Hydra.multirun

    def keep(*given: Any, **options: Any) -> None:
        returned.extend(job.return_value for batch in MULTIRUN(*given, **options) for job in batch)

    Hydra.multirun = keep  # type: ignore[method-assign]
    try:
        yield returned
    finally:
        Hydra.multirun = before  # type: ignore[method-assign]


@contextmanager
def sigterm_stops() -> Iterator[None]:
    """Let SIGTERM, which a machine sends before it is taken away, stop the block as Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


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
    if is_torn(error):
        return "another of the command's processes has ended; what was saved is kept, and the same command goes on from it"
    if lacks_memory(error):
        return f"memory ran out ({told(error, cfg)[:200]}); other programs may hold some of it"
    if isinstance(error, SystemExit):
        return f"it ended with exit status {error.code}"
    traceback.print_exc(file=voice())
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
