"""`ser power`: how many splits (seeds) or speakers a difference needs, from a pilot or from numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ser_analysis.methods import power
from ser_analysis.output import StatsResult, latex, markdown, plain
from ser_analysis.scores import need_columns, numbers, read_text_table
from ser_analysis.wording import difference as points_of
from ser_eval.errors import BadInput
from ser_eval.run_folder import NONE, RESULTS, STATS, write_json, write_table, write_text

FILES = ("power.json", "power.csv", "power.md", "power.tex", "power.png", "power.pdf")
UNITS = {"seeds": "T1", "speakers": "T2"}
"""What is counted, and the target that it answers."""
ENOUGH_FOR_A_PILOT = 5


@dataclass(frozen=True)
class Question:
    """One comparison to be planned."""

    name: str
    unit: str
    difference: float
    sd: float
    """Of the paired differences, one per unit."""
    n: int | None
    """Units that there are; None where the plan begins from nothing."""
    overlap: float = 0.0
    """Clips tested / trained on: the Nadeau-Bengio test; 0 for the paired t."""


def power_of_numbers(
    *,
    difference: float | None,
    sd: float | None,
    n: int | None = None,
    power_wanted: float = power.POWER,
    alpha: float = power.ALPHA,
    comparisons: int = 1,
    unit: str = "seeds",
    overlap: float = 0.0,
    out: Path | None = None,
) -> StatsResult:
    """Answer from numbers: units needed for the difference, or with `n` the power and what can be found.

    Args:
        difference: of the score, such as 0.01 for one UAR point
        sd: of the paired differences
        n: units that there are
        power_wanted: chance to find the difference if it is there
        alpha: two-sided level of the family
        comparisons: of Holm's family; the first step tests at alpha / comparisons
        unit: `seeds` (splits, T1) or `speakers` (T2)
        overlap: clips tested / trained on, for the Nadeau-Bengio test
        out: folder for files; none are written when absent
    """
    if sd is None or not sd > 0:
        raise BadInput("ser power needs --sd, the SD of the paired differences, above 0 (or a pilot: results.csv)")
    if difference is None or difference == 0:
        raise BadInput("ser power needs --difference, other than 0, such as 0.01 for one UAR point")
    _check(power_wanted, alpha, comparisons, n, unit, difference)
    question = Question("the comparison", unit, difference, sd, n, overlap)
    return _answer([question], power_wanted, alpha, comparisons, out, [])


def power_of_pilot(
    pilot: Path,
    *,
    difference: float,
    models: Sequence[str] = (),
    n: int | None = None,
    power_wanted: float = power.POWER,
    alpha: float = power.ALPHA,
    comparisons: int | None = None,
    unit: str = "seeds",
    out: Path | None = None,
) -> StatsResult:
    """Answer from a pilot: the spread of differences of its results.csv (seeds) or of its speakers (after `ser stats`).

    Args:
        pilot: results.csv, or the run folder of an experiment
        difference: of UAR that is to be found; not the pilot's own, which luck chose too
        models: two models; every pair when absent
        n: units planned, for their power
        power_wanted: as `power_of_numbers`
        alpha: as `power_of_numbers`
        comparisons: of Holm's family; the pairs of the pilot at one test set when absent
        unit: as `power_of_numbers`
        out: folder for files; `<experiment>/stats/power` when absent

    Raises:
        BadInput: no such file or model, fewer than two shared splits
    """
    folder = pilot if pilot.is_dir() else pilot.parent
    file = pilot / RESULTS if pilot.is_dir() else pilot
    questions, notes = (_seeds if unit == "seeds" else _speakers)(file, folder, models, difference)
    at = [name.rpartition(" on ")[2] for name in {question.name for question in questions}]
    family = comparisons if comparisons is not None else max(map(at.count, at))
    _check(power_wanted, alpha, family, n, unit, difference)
    questions = [Question(q.name, q.unit, difference, q.sd, n if n is not None else q.n, q.overlap) for q in questions]
    return _answer(questions, power_wanted, alpha, family, out or folder / STATS / "power", notes)


def _check(wanted: float, alpha: float, comparisons: int, n: int | None, unit: str, difference: float) -> None:
    for name, value in (("--power", wanted), ("--alpha", alpha)):
        if not 0 < value < 1:
            raise BadInput(f"ser power: {name} {value:g} must lie between 0 and 1")
    if wanted <= alpha:
        raise BadInput(f"ser power: --power {wanted:g} must be above --alpha {alpha:g}")
    if comparisons < 1:
        raise BadInput(f"ser power: --comparisons {comparisons} must be 1 or more")
    if n is not None and n < 2:
        raise BadInput(f"ser power: --n {n}: a test needs at least two {unit}")
    if unit not in UNITS:
        raise BadInput(f"ser power: --unit '{unit}' is not valid; expected seeds or speakers")
    if abs(difference) >= 1:
        raise BadInput(f"ser power: --difference {difference:g}: a UAR lies in [0, 1]; 0.01 is one point")


def _seeds(file: Path, folder: Path, models: Sequence[str], difference: float) -> tuple[list[Question], list[str]]:
    table = read_text_table(file)
    need_columns(table, ["model", "test_corpus", "split_sha256", "uar"], str(file))
    table["uar"] = numbers(table, "uar", str(file))
    for column in ("augmentation", "condition", "train_corpus"):
        if column not in table.columns:
            table[column] = NONE
    for column in ("n_train", "n_test"):
        table[column] = numbers(table, column, str(file)) if column in table.columns else math.nan
    table["name"] = [
        a if b in (NONE, "") else f"{a}+{b}" for a, b in zip(table["model"], table["augmentation"], strict=True)
    ]
    table["place"] = [
        a if b in (NONE, "") else f"{a}@{b}" for a, b in zip(table["test_corpus"], table["condition"], strict=True)
    ]
    known = sorted(set(table["name"]))
    _known(models, known, str(file))
    questions, notes = [], []
    for (train, place), group in table.groupby(["train_corpus", "place"], sort=True):
        scores = group.pivot_table(index="split_sha256", columns="name", values="uar", aggfunc="mean")
        names = [name for name in (models or known) if name in scores.columns]
        inside = str(place).partition("@")[0] in str(train).split("+") and "all" not in set(group.get("fold", []))
        overlap = float((group["n_test"].sum() / group["n_train"].sum()) if group["n_train"].sum() > 0 else math.nan)
        for i, a in enumerate(names):
            for b in names[i + 1 :]:
                d = (scores[a] - scores[b]).dropna().to_numpy()
                name = f"{a} against {b} on {place}"
                if len(d) < 2:
                    notes.append(f"{name}: {len(d)} shared split(s); a spread needs two.")
                    continue
                sd = float(d.std(ddof=1))
                if not sd > 0:
                    notes.append(f"{name}: the difference is the same on every split.")
                    continue
                questions.append(Question(name, "seeds", difference, sd, len(d)))
                if inside and not math.isnan(overlap):
                    questions.append(Question(name, "seeds", difference, sd, len(d), overlap))
    if not questions:
        raise BadInput(
            f"{file}: no two models share two splits; a pilot needs the same two models on at least two splits. "
            + " ".join(notes)
        )
    return questions, notes


def _speakers(file: Path, folder: Path, models: Sequence[str], difference: float) -> tuple[list[Question], list[str]]:
    tables = sorted(folder.glob(f"{STATS}/speaker_pairs.csv")) + sorted(folder.glob(f"{STATS}/*/speaker_pairs.csv"))
    if not tables:
        raise BadInput(
            f"{folder / STATS}: no speaker_pairs.csv; run `ser stats {folder}` first (known speakers, two models with "
            "UARs)"
        )
    questions, notes = [], []
    for source in tables:
        table = read_text_table(source)
        need_columns(table, ["a", "b", "n_speakers", "standard_error"], str(source))
        known = sorted({*table["a"], *table["b"]})
        _known(models, known, str(source))
        errors, sizes = numbers(table, "standard_error", str(source)), numbers(table, "n_speakers", str(source))
        for row, error, size in zip(table.to_dict("records"), errors, sizes, strict=True):
            if models and {row["a"], row["b"]} != set(models):
                continue
            where = " on " + (
                str(row.get("at") or "") or (source.parent.name if source.parent.name != STATS else "its test set")
            )
            name = f"{row['a']} against {row['b']}{where}"
            if math.isnan(error):
                notes.append(f"{name}: all speakers differ alike.")
                continue
            questions.append(Question(name, "speakers", difference, error * math.sqrt(size), int(size)))
    if not questions:
        raise BadInput(f"{folder / STATS}: no two models with a spread over speakers")
    return questions, notes


def _known(models: Sequence[str], known: Sequence[str], source: str) -> None:
    for name in models:
        if name not in known:
            raise BadInput(f"{source}: no model '{name}'; it has {', '.join(known)}")
    if len(models) not in (0, 2) or len(set(models)) < len(models):
        raise BadInput("ser power: --models takes two different models, as a,b")


def _answer(
    questions: Sequence[Question], wanted: float, alpha: float, comparisons: int, out: Path | None, notes: Sequence[str]
) -> StatsResult:
    strict = alpha / comparisons
    rows = []
    for q in questions:
        effect = abs(q.difference) / q.sd
        needed = power.units_for(effect, power=wanted, alpha=alpha, overlap=q.overlap)
        needed_holm = power.units_for(effect, power=wanted, alpha=strict, overlap=q.overlap)
        rows.append(
            {
                "question": q.name,
                "target": "T2" if q.overlap else UNITS[q.unit],
                "unit": q.unit,
                "test": "nadeau_bengio" if q.overlap else "paired_t",
                "difference": abs(q.difference),
                "sd": q.sd,
                "d_z": effect,
                "overlap": q.overlap,
                "n_exact": needed,
                "n_needed": math.ceil(needed) if math.isfinite(needed) else math.nan,
                "n_needed_holm": math.ceil(needed_holm) if math.isfinite(needed_holm) else math.nan,
                "n": q.n if q.n is not None else math.nan,
                "power": power.paired_t(effect, q.n, alpha=alpha, overlap=q.overlap) if q.n else math.nan,
                "power_holm": power.paired_t(effect, q.n, alpha=strict, overlap=q.overlap) if q.n else math.nan,
                "detectable": q.sd * power.detectable(q.n, power=wanted, alpha=strict, overlap=q.overlap)
                if q.n
                else math.nan,
                "signflip_floor": power.signflip_floor(q.n) if q.n else math.nan,
            }
        )
    table = pd.DataFrame(rows)
    floor = power.signflip_units(alpha=alpha, comparisons=comparisons)
    lines = [_line(row, wanted, alpha, comparisons) for row in rows]
    unit = questions[0].unit
    told = [
        f"Sign-flip test: its smallest p is 2/2^n, so that p < {alpha:g}"
        + (f" after Holm over {comparisons} comparisons" if comparisons > 1 else "")
        + f" needs at least {floor} {unit}, however large the difference.",
        "More seeds answer T1 only (another split of this corpus). For new people count speakers: --unit speakers."
        if unit == "seeds"
        else "More speakers answer T2; training more seeds of the same speakers does not.",
        *notes,
    ]
    few = [q.n for q in questions if q.n is not None and q.n < ENOUGH_FOR_A_PILOT]
    if few:
        told.append(f"WARNING: an SD from {min(few)} {unit} is hardly known; plan for more than stands here.")
    content = {
        "alpha": alpha,
        "power": wanted,
        "comparisons": comparisons,
        "paired_t": [{key: plain(value) for key, value in row.items()} for row in rows],
        "signflip_units": floor,
        "min_two_sided_signflip_p": {str(k): power.signflip_floor(k) for k in range(3, 21)},
        "notes": told,
    }
    shown = lines if len(lines) <= 10 else [*lines[:10], f"... and {len(lines) - 10} more in power.md"]
    if out is None:
        return StatsResult(Path(), [*shown, *told], content)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "power.json", content)
    write_table(out / "power.csv", table)
    caption = (
        f"Units needed for a power of {wanted:g} at alpha = {alpha:g}, alone and in Holm's family of {comparisons}"
    )
    kept = table.drop(columns=[column for column in table if table[column].isna().all()])
    text = "\n".join(f"- {line}" for line in [*lines, *told])
    write_text(
        out / "power.md", f"# How many {unit}?\n\n{text}\n\n{caption}\n\n{markdown(kept)}\n![power](power.png)\n"
    )
    write_text(out / "power.tex", latex(kept, caption=caption, label="tab:power"))
    _draw(questions, wanted, strict, comparisons, out)
    return StatsResult(out, [*shown, *told, f"written to {out}"], content)


def _line(row: dict[str, Any], wanted: float, alpha: float, comparisons: int) -> str:
    of_test = ", corrected for overlapping training sets (Nadeau-Bengio)" if row["test"] == "nadeau_bengio" else ""
    text = (
        f"{row['target']}, {row['question']}{of_test}: {points_of(100 * row['difference'])} UAR points with an SD of "
        f"{points_of(100 * row['sd'])} (d_z = {row['d_z']:.2f}): "
    )
    if math.isnan(row["n_needed"]):
        text += f"no number of {row['unit']} reaches a power of {wanted:g}"
        text += ": the splits share too many training clips" if row["overlap"] else ""
    else:
        text += f"{int(row['n_needed'])} {row['unit']} for a power of {wanted:g} at alpha = {alpha:g}"
        if comparisons > 1 and not math.isnan(row["n_needed_holm"]):
            text += f", {int(row['n_needed_holm'])} as the first of {comparisons} in Holm's family"
    if not math.isnan(row["n"]):
        text += (
            f". {int(row['n'])} {row['unit']}: power {row['power']:.2f}"
            + (f" (Holm {row['power_holm']:.2f})" if comparisons > 1 else "")
            + f"; found with power {wanted:g}: "
            + (f"{points_of(100 * row['detectable'])} points" if row["detectable"] < 1 else "no difference of a UAR")
        )
    return text + "."


def _draw(questions: Sequence[Question], wanted: float, strict: float, comparisons: int, out: Path) -> None:
    """Power by number of units, for every question."""
    from matplotlib.figure import Figure

    from ser_analysis.figures import ZERO, plain_style, save
    from ser_eval.figures import MODEL_COLOURS

    needs = [
        power.units_for(abs(q.difference) / q.sd, power=wanted, alpha=strict, overlap=q.overlap) for q in questions
    ]
    finite = [need for need in needs if math.isfinite(need)]
    most = int(min(1000, max([20.0, *(1.4 * need for need in finite), *(1.2 * q.n for q in questions if q.n)])))
    units = np.unique(np.linspace(2, most, 80).round().astype(int))
    with plain_style():
        figure = Figure(figsize=(6.4, 3.8), layout="constrained")
        axis = figure.subplots()
        for number, q in enumerate(questions[: len(MODEL_COLOURS)]):
            curve = [power.paired_t(abs(q.difference) / q.sd, int(n), alpha=strict, overlap=q.overlap) for n in units]
            name = q.name + (", Nadeau-Bengio (T2)" if q.overlap else "")
            axis.plot(units, curve, color=MODEL_COLOURS[number], linestyle="--" if q.overlap else "-", label=name)
            if q.n:
                at = power.paired_t(abs(q.difference) / q.sd, q.n, alpha=strict, overlap=q.overlap)
                axis.plot(q.n, at, "o", color=MODEL_COLOURS[number], markersize=5)
        axis.axhline(wanted, color=ZERO, linewidth=0.8)
        axis.set_ylim(0, 1.02)
        axis.set_xlabel(f"{questions[0].unit} (dots: those there are)")
        axis.set_ylabel("power")
        axis.legend(fontsize=7, frameon=False, loc="lower right")
        family = f", first of {comparisons} in Holm's family" if comparisons > 1 else ""
        shown = f"; {len(MODEL_COLOURS)} of {len(questions)} comparisons" if len(questions) > len(MODEL_COLOURS) else ""
        figure.suptitle(f"{100 * abs(questions[0].difference):g} UAR points{family}{shown}", fontsize=9)
        save(figure, out, "power")
