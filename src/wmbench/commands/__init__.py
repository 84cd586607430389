"""What every command line shares. Only train.py, plan.py, the scripts and the benchmarks import this."""

from wmbench.commands.configuration import CONF, choices, encoder_config
from wmbench.commands.entry import command
from wmbench.commands.messages import explain, fail, told
from wmbench.commands.quoting import command_line, plan_line
from wmbench.commands.scripts import Arguments, door, run_command

__all__ = [
    "CONF",
    "Arguments",
    "choices",
    "command",
    "command_line",
    "door",
    "encoder_config",
    "explain",
    "fail",
    "plan_line",
    "run_command",
    "told",
]
