"""What this machine has, what it lacks and for what, with each remedy: python scripts/doctor.py

It also runs where nothing is installed yet.
"""

import runpy
from pathlib import Path

if __name__ == "__main__":
    runpy.run_path(str(Path(__file__).parents[1] / "src" / "wmbench" / "commands" / "doctor.py"), run_name="__main__")
