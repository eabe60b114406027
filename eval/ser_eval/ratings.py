"""Ratings of valence, arousal, dominance: how near the predicted numbers come to those of the raters.

All ratings are on one scale: 0 is the lowest value of the corpus' own scale and 1 the highest, so that an RMSE of .1 is
a tenth of the scale. CCC and Pearson's r do not depend on it, as long as truth and prediction share it.

Intervals are over speakers, as those of the UAR: a t interval on the delete-one-speaker jackknife, here of Fisher's z
of CCC and r (which Lin 1989 takes as well) and of the logarithm of the RMSE, and then taken back. In a simulation (15
clips per speaker; speakers differ in mean rating, bias and slope; CCC .61; 4,000 draws each) with 2, 3, 4, 6, 8, 18 and
40 speakers the 95 % intervals held CCC in 94.6 to 95.0 % of the draws, r in 93.2 to 95.6 % and the RMSE in 92.2 to 94.5
%; without the transformations they held less (r down to 92.2, RMSE down to 91.0 %).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import t

from ser_eval import metrics
from ser_eval.cells import Cell
from ser_eval.errors import MetricError
from ser_eval.intervals import LEVEL
from ser_eval.run_folder import PREDICTED_PREFIX, RATING_PREFIX
from ser_eval.shortcuts import BASELINES, MEASURED, Fold, look_up

Floats = npt.NDArray[np.float64]

SCORES = ("ccc", "pearson", "rmse")
"""Scores with an interval; each has a column `<score>_<dimension>` in results.csv."""
BASELINE_COLUMNS = [
    "train_corpus", "test_corpus", "split_sha256", "dimension", "baseline", "n_train", "n_test", "ccc", "pearson",
    "rmse",
]  # fmt: skip
CELL_COLUMNS = [
    "model", "augmentation", "train_corpus", "test_corpus", "condition", "protocol", "dimension", "n_seeds", "n_clips",
    "n_speakers", "ccc", "ccc_sd", "ccc_pooled", "ccc_low", "ccc_high", "pearson", "rmse", "best_shortcut",
    "best_shortcut_ccc",
]  # fmt: skip
RATING_BASELINES = {"training_mean": "mean of training", **{name: BASELINES[name] for name in MEASURED}}
"""Name in rating_baselines.csv -> name for people."""
_SMALLEST_VARIANCE = 1e-12


def pearson(truth: npt.ArrayLike, prediction: npt.ArrayLike) -> float:
    """Pearson's correlation, in [-1, 1]: whether high goes with high, whatever the level and the spread.

    Raises:
        MetricError: as `metrics.mse`, or if truth or prediction is constant (0/0)

    Examples:
        >>> round(pearson([1.0, 2.0, 3.0], [3.0, 4.0, 5.0]), 4)
        1.0
    """
    scores = _of_moments(_moments(*_checked(truth, prediction))[None])
    if math.isnan(scores["pearson"][0]):
        raise MetricError("Pearson's r is not defined where truth or prediction is constant")
    return float(scores["pearson"][0])


def rmse(truth: npt.ArrayLike, prediction: npt.ArrayLike) -> float:
    """Square root of `metrics.mse`, in the unit of the ratings, >= 0.

    Examples:
        >>> rmse([1.0, 2.0], [1.0, 4.0]) ** 2
        2.0000000000000004
    """
    return math.sqrt(metrics.mse(truth, prediction))


def dimensions_of(table: pd.DataFrame) -> list[str]:
    """The dimensions that a prediction table has predictions of, in its order; none for a model of classes alone."""
    return [str(name).removeprefix(PREDICTED_PREFIX) for name in table if str(name).startswith(PREDICTED_PREFIX)]


def rating_scores(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """All scores of the ratings of one prediction table, ready for JSON (None where a number is not defined).

    Args:
        table: columns actor, gender, and of each dimension `rating_<dimension>` (NaN where the corpus has none) and
            `predicted_<dimension>`

    Returns:
        by dimension: n (rated clips), n_unrated, n_speakers (None: unknown), ccc, pearson, mse, rmse, bias (mean
        prediction minus mean truth), sd_truth and sd_prediction (divided by N), `undefined` (why a score is None),
        intervals (by score, over speakers; None with `intervals_undefined`), per_gender (n, n_speakers, ccc, rmse) and
        per_speaker (moments: n, and the sums of x, y, x^2, y^2, xy)
    """
    return {name: _dimension(table, name) for name in dimensions_of(table)}


def mean_ccc(scores: Mapping[str, Mapping[str, Any]]) -> float | None:
    """Mean of the CCCs of all dimensions; None where one is not defined."""
    values = [one["ccc"] for one in scores.values()]
    return None if not values or None in values else float(np.mean(values))


def result_columns(dimensions: Sequence[str]) -> list[str]:
    """The further columns of results.csv: `ccc` (mean over dimensions), then each score of each dimension."""
    return ["ccc", *(f"{score}_{name}" for name in dimensions for score in SCORES)] if dimensions else []


def result_columns_in(columns: Sequence[str]) -> list[str]:
    """Those of some columns of results.csv that are of `result_columns`."""
    return [name for name in columns if name == "ccc" or name.startswith(tuple(f"{score}_" for score in SCORES))]


def result_values(scores: Mapping[str, Mapping[str, Any]]) -> dict[str, float | None]:
    """The values of `result_columns` for one test corpus."""
    values = {f"{score}_{name}": one[score] for name, one in scores.items() for score in SCORES}
    return {"ccc": mean_ccc(scores), **values} if scores else {}


def _dimension(table: pd.DataFrame, name: str) -> dict[str, Any]:
    rated = table[table[RATING_PREFIX + name].notna()]
    known = bool((table["actor"] != "").all())
    truth = rated[RATING_PREFIX + name].to_numpy(dtype=np.float64)
    prediction = rated[PREDICTED_PREFIX + name].to_numpy(dtype=np.float64)
    result: dict[str, Any] = {
        "n": len(rated),
        "n_unrated": len(table) - len(rated),
        "n_speakers": rated[["corpus", "actor"]].drop_duplicates().shape[0] if known else None,
        "intervals": dict.fromkeys(SCORES),
        "intervals_undefined": None,
        "per_gender": {},
        "per_speaker": {},
    }
    numbers = ("ccc", "pearson", "mse", "rmse", "bias", "sd_truth", "sd_prediction")
    if rated.empty:
        return {**result, **dict.fromkeys(numbers), "undefined": f"no clip has a rating of {name}"}
    moments = _moments(truth, prediction)
    scores = {score: _none_for_nan(values[0]) for score, values in _of_moments(moments[None]).items()}
    constant = [what for what, values in (("ratings", truth), ("predictions", prediction)) if np.ptp(values) < 1e-9]
    result |= {
        **scores,
        "mse": metrics.mse(truth, prediction),
        "rmse": rmse(truth, prediction),
        "bias": float(prediction.mean() - truth.mean()),
        "sd_truth": float(truth.std()),
        "sd_prediction": float(prediction.std()),
        "undefined": f"all {' and '.join(constant)} are the same" if constant else None,
        "per_gender": {
            str(gender): _gender(group, name, known) for gender, group in rated.groupby("gender", sort=True)
        },
    }
    if not known:
        return result | {"intervals_undefined": "speakers unknown"}
    result["per_speaker"] = {
        str(actor): _moments(*_pair(group, name)).tolist() for actor, group in rated.groupby("actor", sort=True)
    }
    per_speaker = np.array(list(result["per_speaker"].values()))
    result["intervals"] = {score: speaker_interval(per_speaker, score) for score in SCORES}
    if len(per_speaker) < 2:
        result["intervals_undefined"] = "one speaker"
    return result


def speaker_interval(moments: Floats, score: str, *, level: float = LEVEL) -> dict[str, float] | None:
    """Interval over speakers of a score of all their clips, see the module docstring.

    Args:
        moments: (S, 6) of S speakers: n, and the sums of x, y, x^2, y^2, xy over their clips
        score: one of `SCORES`
        level: share of the intervals that is to hold the truth

    Returns:
        low and high; None where there is nothing to learn from: one speaker, or the score is not defined (or an
        extreme) for all of them or without one of them
    """
    there, back = _SCALES[score]
    if len(moments) < 2:
        return None
    total = moments.sum(axis=0)
    estimate = there(_of_moments(total[None])[score])[0]
    deleted = there(_of_moments(total - moments)[score])
    if not (np.isfinite(estimate) and np.isfinite(deleted).all()):
        return None
    count = len(moments)
    error = math.sqrt((count - 1) / count * float(((deleted - deleted.mean()) ** 2).sum()))
    if error < 1e-12:
        return None
    reach = float(t.ppf((1 + level) / 2, count - 1)) * error
    return {"low": float(back(estimate - reach)), "high": float(back(estimate + reach))}


def _z(values: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.arctanh(values))


def _log(values: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.log(values))


_SCALES: dict[str, tuple[Callable[[Floats], Floats], Callable[[float], float]]] = {
    "ccc": (_z, math.tanh),
    "pearson": (_z, math.tanh),
    "rmse": (_log, math.exp),
}


def _moments(truth: Floats, prediction: Floats) -> Floats:
    """n, and the sums of x, y, x^2, y^2, xy of N clips: (6,)."""
    x, y = truth, prediction
    return np.array([len(x), x.sum(), y.sum(), (x * x).sum(), (y * y).sum(), (x * y).sum()])


def _of_moments(moments: Floats) -> dict[str, Floats]:
    """`SCORES` of (R, 6) sums, each (R,); NaN where a score is not defined."""
    n, sum_x, sum_y, sum_xx, sum_yy, sum_xy = moments.T
    with np.errstate(divide="ignore", invalid="ignore"):
        mean_x, mean_y = sum_x / n, sum_y / n
        var_x = sum_xx / n - mean_x**2
        var_y = sum_yy / n - mean_y**2
        var_x, var_y = (np.where(var < _SMALLEST_VARIANCE, 0.0, var) for var in (var_x, var_y))
        # A constant has no covariance; without this, rounding would be divided by the square root of 0.
        cov = np.where((var_x == 0) | (var_y == 0), 0.0, sum_xy / n - mean_x * mean_y)
        square = np.maximum(sum_xx - 2 * sum_xy + sum_yy, 0.0) / n
        return {
            "ccc": np.clip(2 * cov / (var_x + var_y + (mean_x - mean_y) ** 2), -1, 1),
            "pearson": np.clip(cov / np.sqrt(var_x * var_y), -1, 1),
            "rmse": np.sqrt(square),
        }


def _gender(group: pd.DataFrame, name: str, speakers_known: bool) -> dict[str, Any]:
    truth, prediction = _pair(group, name)
    return {
        "n": len(group),
        "n_speakers": len(group[["corpus", "actor"]].drop_duplicates()) if speakers_known else None,
        "ccc": _none_for_nan(_of_moments(_moments(truth, prediction)[None])["ccc"][0]),
        "rmse": rmse(truth, prediction),
    }


def _pair(table: pd.DataFrame, name: str) -> tuple[Floats, Floats]:
    return (
        table[RATING_PREFIX + name].to_numpy(dtype=np.float64),
        table[PREDICTED_PREFIX + name].to_numpy(dtype=np.float64),
    )


def _checked(truth: npt.ArrayLike, prediction: npt.ArrayLike) -> tuple[Floats, Floats]:
    metrics.mse(truth, prediction)  # lengths, and that all are finite
    return np.asarray(truth, dtype=np.float64), np.asarray(prediction, dtype=np.float64)


def _none_for_nan(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


# ---- what needs no ears ----


def rating_baselines(
    folds: Sequence[Fold], clips: pd.DataFrame, *, dimensions: Sequence[str], source: Path
) -> list[dict[str, Any]]:
    """Scores of shortcut baselines of ratings on one split, or on all folds of a seed, pooled.

    `training_mean` answers the mean rating of the training clips (CCC 0 on one split); the others are least squares of
    the rating on length and level, or on the share of silence, fitted on the rated training clips.

    Args:
        folds: one, or all folds of a seed; the tests with `rating_<dimension>`
        clips: of clips.csv, indexed by (corpus, path), with `rating_<dimension>` where a corpus has ratings
        dimensions: those that are predicted
        source: the file of `clips`, for messages

    Returns:
        one row per dimension and baseline: dimension, baseline, n_train (mean over folds, rounded), n_test, ccc,
        pearson, rmse (None where not defined); none where `clips` has no ratings of the training clips
    """
    rows = []
    for name in dimensions:
        column = RATING_PREFIX + name
        if column not in clips:
            continue
        truth: list[float] = []
        answers: dict[str, list[float]] = {baseline: [] for baseline in RATING_BASELINES}
        n_train = []
        for fold in folds:
            train = look_up(fold.split[fold.split["split"] == "train"], clips, source)
            ratings = np.asarray(pd.to_numeric(train[column], errors="coerce"), dtype=np.float64)
            heard, ratings = train[~np.isnan(ratings)], ratings[~np.isnan(ratings)]
            test = fold.test[fold.test[column].notna()]
            if not len(ratings):
                break
            tested = look_up(test, clips, source)
            truth += test[column].astype(float).tolist()
            n_train.append(len(ratings))
            answers["training_mean"] += [float(ratings.mean())] * len(test)
            for baseline, columns in MEASURED.items():
                answers[baseline] += _least_squares(heard[columns].to_numpy(), ratings, tested[columns].to_numpy())
        if len(n_train) < len(folds) or not truth:
            continue
        for baseline, answer in answers.items():
            scores = _of_moments(_moments(np.array(truth), np.array(answer))[None])
            rows.append(
                {
                    "dimension": name,
                    "baseline": baseline,
                    "n_train": round(float(np.mean(n_train))),
                    "n_test": len(truth),
                    **{score: _none_for_nan(values[0]) for score, values in scores.items()},
                }
            )
    return rows


def _least_squares(heard: npt.NDArray[Any], ratings: Floats, tested: npt.NDArray[Any]) -> list[float]:
    """Linear regression with an intercept, on measures standardised by those of training: (T, m), (T,), (N, m)."""
    if not len(tested):
        return []
    mean, sd = heard.mean(axis=0), heard.std(axis=0)
    sd = np.where(sd > 0, sd, 1.0)
    design = np.column_stack([np.ones(len(heard)), (heard - mean) / sd])
    weights = np.linalg.lstsq(design, ratings, rcond=None)[0]
    return list(map(float, np.column_stack([np.ones(len(tested)), (tested - mean) / sd]) @ weights))


# ---- all seeds of a cell ----


def rating_cells(cells: Sequence[Cell], baselines: pd.DataFrame) -> pd.DataFrame:
    """One row per cell and dimension (`CELL_COLUMNS`): mean and SD over seeds, and an interval over speakers.

    The interval is around `ccc_pooled`, the CCC of all seeds' clips together.

    Args:
        cells: of an experiment, whose metrics.json stand
        baselines: rows of rating_baselines.csv
    """
    rows = []
    for cell in cells:
        for name in sorted({name for scores in cell.tested for name in scores.get("ratings", {})}):
            rows.append(_cell_row(cell, name, baselines))
    return pd.DataFrame(rows, columns=CELL_COLUMNS)


def _cell_row(cell: Cell, name: str, baselines: pd.DataFrame) -> dict[str, Any]:
    parts = [scores["ratings"][name] for scores in cell.tested if name in scores.get("ratings", {})]
    moments: dict[str, Floats] = {}
    for part in parts:
        for actor, sums in part["per_speaker"].items():
            moments[actor] = moments.get(actor, np.zeros(6)) + np.array(sums)
    known = bool(moments) and all(part["intervals_undefined"] != "speakers unknown" for part in parts)
    table = np.array([moments[actor] for actor in sorted(moments)]) if known else np.zeros((0, 6))
    pooled = _of_moments(table.sum(axis=0)[None])["ccc"][0] if known else math.nan
    interval = speaker_interval(table, "ccc") if known else None
    mean, sd = cell.mean_sd(f"ccc_{name}")
    best = _best_baseline(cell, name, baselines)
    return {
        "model": cell.model,
        "augmentation": cell.augmentation,
        "train_corpus": cell.train_corpus,
        "test_corpus": cell.test_corpus,
        "condition": cell.condition,
        "protocol": "; ".join(cell.protocols),
        "dimension": name,
        "n_seeds": int(cell.rows[f"ccc_{name}"].notna().sum()),
        "n_clips": sum(part["n"] for part in parts),
        "n_speakers": len(table) if known else None,
        "ccc": mean,
        "ccc_sd": sd,
        "ccc_pooled": _none_for_nan(pooled),
        "ccc_low": interval["low"] if interval else None,
        "ccc_high": interval["high"] if interval else None,
        "pearson": cell.mean_sd(f"pearson_{name}")[0],
        "rmse": cell.mean_sd(f"rmse_{name}")[0],
        "best_shortcut": best[0] if best else None,
        "best_shortcut_ccc": best[1] if best else None,
    }


def _best_baseline(cell: Cell, name: str, baselines: pd.DataFrame) -> tuple[str, float] | None:
    """The baseline with the highest mean CCC over the splits of the cell, each seed with its own split."""
    if baselines.empty:
        return None
    on = ["train_corpus", "test_corpus", "split_sha256"]
    mine = baselines[(baselines["dimension"] == name) & baselines["ccc"].notna()]
    joined = cell.rows[[*on, "seed"]].merge(mine, on=on)
    means = {
        str(baseline): float(group["ccc"].mean())
        for baseline, group in joined.groupby("baseline", sort=True)
        if len(group) == len(cell.rows)
    }
    return max(means.items(), key=lambda item: item[1]) if means else None


def cell_lines(table: pd.DataFrame) -> list[str]:
    """The outcome of `rating_cells` in plain words, for a terminal."""
    lines = []
    for row in table.to_dict("records"):
        model = row["model"] + (f"+{row['augmentation']}" if row["augmentation"] != "none" else "")
        place = row["test_corpus"] + (f"@{row['condition']}" if row["condition"] != "none" else "")
        start = f"{model}: {row['train_corpus']} -> {place}: {row['dimension']}: "
        if pd.isna(row["ccc"]):
            lines.append(start + "CCC not defined")
            continue
        facts = [f"{row['n_seeds']} seed(s)", f"r {row['pearson']:.3f}" if not pd.isna(row["pearson"]) else "r none"]
        facts.append(f"RMSE {row['rmse']:.3f} of the scale")
        if not pd.isna(row["ccc_low"]):
            facts.append(f"95 % over {int(row['n_speakers'])} speakers {row['ccc_low']:.3f} to {row['ccc_high']:.3f}")
        if row["best_shortcut"] is not None and not pd.isna(row["best_shortcut_ccc"]):
            beaten = "" if row["ccc"] > row["best_shortcut_ccc"] else "; NOT BEATEN"
            shortcut = RATING_BASELINES[row["best_shortcut"]]
            facts.append(f"best shortcut {row['best_shortcut_ccc']:.3f} ({shortcut}{beaten})")
        spread = f" +- {row['ccc_sd']:.3f}" if not pd.isna(row["ccc_sd"]) else ""
        lines.append(f"{start}CCC {row['ccc']:.3f}{spread} ({', '.join(facts)})")
    return lines
