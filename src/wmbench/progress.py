"""Progress bars: live on a terminal, a line now and then in a log."""

import sys
from typing import Any

from tqdm import tqdm


def progress_bar(**options: Any) -> tqdm:
    interval = 0.2 if sys.stderr.isatty() else 10.0
    return tqdm(mininterval=interval, maxinterval=interval, dynamic_ncols=True, **options)
