"""Which diagnostics predict success, across rows of a table."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from wmbench.diagnostics.ranking import spearman

NUM_DRAWS = 2000
FEWEST_ROWS = 4  # fewer have too few orders for an interval


def predictors_of_success(rows: Sequence[Mapping[str, float]], success: Sequence[float]) -> pd.DataFrame:
    """Spearman of each diagnostic with success, the strongest first, with the 95% percentile bootstrap over rows.

    Args:
        rows: diagnostics by name (see `features`); one that a row lacks is told of the rows that have it.

    Raises:
        ValueError: as many rows as successes are needed.
    """
    if len(rows) != len(success):
        raise ValueError(f"{len(rows)} rows of diagnostics for {len(success)} successes; give one success per row")
    solved, found = np.asarray(success, np.float64), []
    for name in dict.fromkeys(name for row in rows for name in row):
        has = np.array([name in row for row in rows])
        values = np.array([row[name] for row in rows if name in row], np.float64)
        if len(values) < FEWEST_ROWS:
            continue
        draws = np.random.default_rng(0).integers(len(values), size=(NUM_DRAWS, len(values)))
        low, high = np.percentile(spearman(values[draws], solved[has][draws]), [2.5, 97.5])
        found.append((name, float(spearman(values, solved[has])), low, high, len(values)))
    table = pd.DataFrame(found, columns=["diagnostic", "spearman", "low", "high", "rows"])
    return table.sort_values("spearman", key=np.abs, ascending=False, kind="stable", ignore_index=True)


def features(diagnostics: Mapping[str, object]) -> dict[str, float]:
    """The numbers of a diagnostics.json as `part.name`, without the ends of their intervals."""
    return {
        f"{part}.{name}": float(value)
        for part, values in diagnostics.items()
        if isinstance(values, Mapping)
        for name, value in values.items()
        if isinstance(value, int | float) and not name.endswith(("_low", "_high"))
    }
