"""What the scripts without Hydra share: their arguments, the commands that they run, and errors as one line."""

import argparse
import functools
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from hydra.errors import HydraException, InstantiationException
from omegaconf.errors import OmegaConfBaseException

from wmbench.commands.entry import sigterm_stops
from wmbench.commands.messages import explain, fail, told
from wmbench.files import ROOT


class Arguments(argparse.ArgumentParser):
    """A parser that prints a script's description as it is written, and a wrong argument as one line."""

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **{"formatter_class": argparse.RawDescriptionHelpFormatter} | options)

    def error(self, message: str) -> NoReturn:
        fail(f"{message}; {self.prog} --help says what can be given")


def door(main: Callable[[], None]) -> Callable[[], None]:
    """Decorator: a script's main function, with errors that a user can act on and no traceback."""

    @functools.wraps(main)
    def guarded() -> None:
        try:
            with sigterm_stops():
                main()
        except KeyboardInterrupt:
            fail("stopped; nothing half-written is left, and the same command starts again", code=130)
        except InstantiationException as error:
            fail(told(error.__cause__ or error))
        except (HydraException, OmegaConfBaseException) as error:
            fail(explain(error, "train"))
        except (ValueError, OSError) as error:
            fail(told(error))

    return guarded


def run_command(words: Sequence[str]) -> int:
    """Run one of the project's own commands (train.py and its words) with this Python; returns its exit status."""
    script, *rest = words
    try:
        return subprocess.call([sys.executable, str(ROOT / script), *rest])
    except KeyboardInterrupt:
        sys.exit(130)  # the command has said what is kept
