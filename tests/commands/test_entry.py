"""Commands that another process has started."""

import os
import subprocess
import sys

CHILD = """
import time
from wmbench.commands.entry import end_with_parent
end_with_parent()
time.sleep(1.2)
print("alive")
"""


def told(parent: int) -> subprocess.CompletedProcess:
    environment = {**os.environ, "WMBENCH_ENDS_WITH": str(parent)}
    return subprocess.run([sys.executable, "-c", CHILD], env=environment, capture_output=True, text=True)


def test_a_command_ends_with_the_process_that_asks_for_it():
    assert told(os.getpid()).stdout == "alive\n"
    ended = told(os.getppid())  # as if the process that started it had ended, and another were its parent now
    assert (ended.returncode, ended.stdout) == (1, "")
