"""The former name of pretrain.py."""

import runpy
from pathlib import Path

if __name__ == "__main__":
    runpy.run_path(str(Path(__file__).parents[1] / "pretrain.py"), run_name="__main__")
