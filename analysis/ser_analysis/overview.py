"""One table of all experiments: a row per model and test corpus, with the interval over splits and over speakers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import pandas as pd

from ser_analysis.methods.descriptives import summary
from ser_analysis.output import latex, markdown
from ser_analysis.scores import natural, rows_of
from ser_eval.cells import Cell
from ser_eval.markdown import to_html
from ser_eval.run_folder import write_table, write_text

FOLDER = "all-experiments"
"""Under the runs folder, beside the experiments."""
COLUMNS = [
    "test_corpus", "n_classes", "stamps", "experiment", "model", "train_corpus", "n_seeds", "n_splits", "uar", "sd",
    "t1_ci95_low", "t1_ci95_high", "uar_pooled", "t2_ci95_low", "t2_ci95_high", "n_test_speakers",
    "uar_chance_corrected", "chance", "best_shortcut",
]  # fmt: skip
INTRO = (
    "One row per model, training set and test corpus of every evaluated experiment. Only rows under one heading may be "
    "compared: other test corpora are harder or easier, UAR depends on the number of classes, and a stamp marks what "
    "must not be compared at all. `t1`: 95 % t interval of the mean over splits (another split of this corpus). `t2`: "
    "95 % interval over speakers, around `uar_pooled`, the UAR of all seeds' clips together (new people); empty where "
    "speakers are unknown or one. No row is tested against another here: `ser stats` of an experiment does that."
)


def write_overview(runs: Path, cells: Mapping[str, Sequence[Cell]]) -> list[str]:
    """Write the table as CSV, Markdown, LaTeX and a page, and a figure; returns lines for the terminal.

    Args:
        runs: the runs folder; files go to `<runs>/all-experiments/`
        cells: of each experiment, by its name
    """
    rows = [_row(experiment, cell) for experiment, of in cells.items() for cell in of]
    if not rows:
        return []
    table = pd.DataFrame(rows, columns=COLUMNS)
    table = table.sort_values(
        ["test_corpus", "n_classes", "stamps", "uar", "experiment", "model", "train_corpus"],
        ascending=[True, True, True, False, True, True, True],
        key=lambda column: column.map(natural) if column.dtype == object and column.name != "uar" else column,
        kind="stable",
    ).reset_index(drop=True)
    out = runs / FOLDER
    out.mkdir(parents=True, exist_ok=True)
    write_table(out / "table.csv", table)
    write_text(out / "table.tex", latex(table.drop(columns="stamps"), caption="All experiments", label="tab:all"))
    parts = ["# All experiments", INTRO]
    groups = [(key, list(members)) for key, members in groupby(rows_of(table), key=_place)]
    for key, members in groups:
        shown = pd.DataFrame(members).drop(columns=["test_corpus", "n_classes", "stamps", "chance"])
        parts += [f"### {_heading(key, members)}", markdown(shown).rstrip()]
    figures = _draw(out, groups)
    parts += ["### Figure", f"![{figures[1].stem}]({figures[1].name})"]
    text = "\n\n".join(parts) + "\n"
    write_text(out / "table.md", text)
    page = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>All experiments – SERtain</title><style>'
        "body{margin:0 auto;padding:2rem 1.5rem;max-width:84rem;font:15px/1.5 sans-serif;color:#1d2327}"
        "table{border-collapse:collapse;font-size:.85rem;font-variant-numeric:tabular-nums}"
        "th,td{padding:.3rem .8rem .3rem 0;border-bottom:1px solid #d9dee3;text-align:left;vertical-align:top}"
        "td.n,th.n{text-align:right}.scroll{overflow-x:auto}p{max-width:56rem}img{max-width:100%}"
        f"</style></head><body>\n{to_html(text, folder=out, level=1)}\n</body></html>\n"
    )
    write_text(out / "table.html", page)
    return [f"{len(rows)} rows of {len(cells)} experiment(s) in one table: {out / 'table.html'}"]


def _row(experiment: str, cell: Cell) -> dict[str, Any]:
    scored = cell.rows[cell.rows["uar"].notna()]
    means = scored.groupby("split_sha256")["uar"].mean().to_numpy(dtype="float64")
    told = summary(means)
    mean, sd = cell.mean_sd("uar")
    corrected = cell.mean_sd("uar_chance_corrected")[0]
    return {
        "test_corpus": cell.test_name,
        "n_classes": len(cell.labels),
        "stamps": "; ".join(cell.stamps),
        "experiment": experiment,
        "model": cell.model_name,
        "train_corpus": cell.train_corpus,
        "n_seeds": len(scored),
        "n_splits": len(means),
        "uar": math.nan if mean is None else mean,
        "sd": math.nan if sd is None else sd,
        "t1_ci95_low": max(0.0, told["ci95_low"]) if len(means) > 1 else math.nan,
        "t1_ci95_high": min(1.0, told["ci95_high"]) if len(means) > 1 else math.nan,
        "uar_pooled": math.nan if cell.pooled_uar is None else cell.pooled_uar,
        "t2_ci95_low": cell.interval.low if cell.interval else math.nan,
        "t2_ci95_high": cell.interval.high if cell.interval else math.nan,
        "n_test_speakers": "unknown" if cell.num_speakers is None else cell.num_speakers,
        "uar_chance_corrected": math.nan if corrected is None else corrected,
        "chance": cell.chance,
        "best_shortcut": cell.best_shortcut[1] if cell.best_shortcut else math.nan,
    }


def _place(row: Mapping[str, Any]) -> tuple[str, int, str]:
    return row["test_corpus"], row["n_classes"], row["stamps"]


def _heading(key: tuple[str, int, str], rows: Sequence[Mapping[str, Any]]) -> str:
    test, classes, stamps = key
    return f"{test}, {classes} classes (guessing {rows[0]['chance']:.3f}){f', {stamps}' if stamps else ''}"


def _draw(out: Path, groups: Sequence[tuple[tuple[str, int, str], list[dict[str, Any]]]]) -> list[Path]:
    """Every row as two intervals, one panel per heading."""
    from matplotlib.figure import Figure

    from ser_analysis.figures import MEAN, POINT, ZERO, plain_style, save

    sizes = [len(members) for _, members in groups]
    with plain_style():
        figure = Figure(figsize=(8.0, 0.8 + sum(0.34 * size + 0.75 for size in sizes)), layout="constrained")
        panels = figure.subplots(len(groups), 1, squeeze=False, sharex=True, height_ratios=[size + 1 for size in sizes])
        for axis, (key, members) in zip(panels[:, 0], groups, strict=True):
            for y, row in enumerate(members):
                axis.plot(
                    [row["t2_ci95_low"], row["t2_ci95_high"]], [y + 0.14] * 2, color=POINT, linewidth=3, alpha=0.5
                )
                axis.plot(row["uar_pooled"], y + 0.14, "|", color=POINT, markersize=7)
                axis.plot([row["t1_ci95_low"], row["t1_ci95_high"]], [y - 0.14] * 2, color=MEAN, linewidth=1.4)
                axis.plot(row["uar"], y - 0.14, "o", color=MEAN, markersize=3.5)
            names = [f"{row['model']} ({row['experiment']}; {row['train_corpus']})" for row in members]
            axis.set_yticks(range(len(names)), labels=names, fontsize=7)
            axis.set_ylim(len(names) - 0.4, -0.6)
            axis.set_xlim(0, 1)
            axis.axvline(members[0]["chance"], color=ZERO, linewidth=0.8, linestyle="--")
            axis.set_title(_heading(key, members), fontsize=8, loc="left")
        panels[-1, 0].set_xlabel("UAR")
        figure.suptitle("Black: mean and 95 % CI over splits (T1); blue: 95 % CI over speakers (T2)", fontsize=8)
        return save(figure, out, "forest")
