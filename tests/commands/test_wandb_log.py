"""The word for logging: a mode or a switch."""

import pytest

from wmbench.commands.wandb_log import wandb_mode


def test_wandb_may_be_a_switch():
    modes = {True: "online", False: "disabled", "on": "online", "off": "disabled", "Offline": "offline"}
    assert {choice: wandb_mode(choice) for choice in modes} == modes
    for word in ("sometimes", 2, None):
        with pytest.raises(ValueError, match="must be online, offline or disabled"):
            wandb_mode(word)  # type: ignore[arg-type]
