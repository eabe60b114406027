"""Where the spread of runs comes from: the split (who is tested) and the training seed (how the weights began)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from ser_analysis.scores import Array


def run(part: pd.DataFrame, dv: str = "uar") -> pd.DataFrame:
    """One row per model and test set: variances of split, training seed and rest, in squared units of the score.

    Model, for a full cross of splits and training seeds: score = mean + split + training seed + rest, all random and
    independent; variances from the mean squares of the two-way table (a negative estimate is 0 and `at_zero` names it).
    Where the cross has gaps the training seeds are nested in the splits: `sd_train_seed` is then empty, and the rest
    holds what training seeds do within a split. Assumes equal variances, not normality.

    Args:
        part: columns name, place, split_sha256, train_seed and the score
        dv: the score
    """
    rows = []
    for (name, place), group in part.groupby(["name", "place"], sort=True):
        table = group.pivot_table(index="split_sha256", columns="train_seed", values=dv, aggfunc="mean")
        y = table.to_numpy(dtype=float)
        row: dict[str, Any] = {
            "model": name,
            "at": place,
            "n_splits": len(y),
            "n_train_seeds": y.shape[1],
            "n": len(group),
        }
        if not np.isnan(y).any() and min(y.shape) > 1 and len(group) == y.size:
            rows.append({**row, "design": "crossed", **crossed(y)})
        else:
            rows.append(
                {
                    **row,
                    "design": "nested",
                    **nested([np.asarray(p, dtype=float) for _, p in group.groupby("split_sha256")[dv]]),
                }
            )
    return pd.DataFrame(rows)


def crossed(y: Array) -> dict[str, float | str]:
    """Of a full table, (splits, training seeds)."""
    s, t = y.shape
    rows, columns, mean = y.mean(axis=1), y.mean(axis=0), y.mean()
    rest = float(((y - rows[:, None] - columns + mean) ** 2).sum()) / ((s - 1) * (t - 1))
    of_split = t * float(((rows - mean) ** 2).sum()) / (s - 1)
    of_seed = s * float(((columns - mean) ** 2).sum()) / (t - 1)
    return _shares({"split": (of_split - rest) / t, "train_seed": (of_seed - rest) / s, "rest": rest})


def nested(groups: list[Array]) -> dict[str, float | str]:
    """Of the runs of each split; the rest is what varies within a split. NaN without two splits, or two runs in one."""
    n, k = sum(map(len, groups)), len(groups)
    if k < 2 or n == k:
        return _shares({"split": math.nan, "train_seed": math.nan, "rest": math.nan})
    mean = float(np.concatenate(groups).mean())
    within = sum(float(((group - group.mean()) ** 2).sum()) for group in groups) / (n - k)
    between = sum(len(group) * (float(group.mean()) - mean) ** 2 for group in groups) / (k - 1)
    each = (n - sum(len(group) ** 2 for group in groups) / n) / (k - 1)
    return _shares({"split": (between - within) / each, "train_seed": math.nan, "rest": within})


def _shares(variances: dict[str, float]) -> dict[str, float | str]:
    kept = {name: max(0.0, value) if not math.isnan(value) else value for name, value in variances.items()}
    total = sum(value for value in kept.values() if not math.isnan(value))
    return {
        **{f"sd_{name}": math.sqrt(value) for name, value in kept.items()},
        **{f"share_{name}": value / total if total > 0 else math.nan for name, value in kept.items()},
        "at_zero": ", ".join(name for name, value in variances.items() if value < 0),
    }


def sentence(row: dict[str, Any], points: str = "UAR points") -> str:
    """How much of the spread is the split's and how much the training's."""
    start = f"T1, {row['model']} on {row['at']}: the spread of runs "
    if math.isnan(row["sd_rest"]):
        return f"{start}cannot be divided: there is one split, or one run in each."
    parts = [f"{100 * row['sd_split']:.2f} {points} (SD) between splits"]
    if not math.isnan(row["sd_train_seed"]):
        parts.append(f"{100 * row['sd_train_seed']:.2f} between training seeds")
        parts.append(f"{100 * row['sd_rest']:.2f} of both together")
    else:
        parts.append(f"{100 * row['sd_rest']:.2f} between training seeds of one split")
    return (
        f"{start}comes to {', '.join(parts)} ({row['n_splits']} splits, {row['n_train_seeds']} training seeds; "
        f"{100 * row['share_split']:.0f} % of the variance is the split's)."
    )
