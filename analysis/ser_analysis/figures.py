"""Which figures an analysis gets, and most of them: strip plot with the blocks joined, paired differences, ranks.

The same bytes each time. `diagnostics` draws interactions, residuals and convergence.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ser_analysis import diagnostics
from ser_analysis.methods.descriptives import summary
from ser_analysis.methods.friedman import cliques
from ser_analysis.scores import Scores, is_ccc, range_of, rows_of
from ser_analysis.wording import label, unit
from ser_eval.figures import quiet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ser_analysis.output import Analysis

POINT, MEAN, ZERO = "#4477aa", "#222222", "#999999"
PANELS_PER_ROW = 3
MOST_PAIRS = 30
"""Differences in one figure of speakers."""


def draw(out: Path, analysis: Analysis) -> list[Path]:
    """Draw what the analysis allows into `out`; returns the files."""
    written: list[Path] = []
    with plain_style():
        if analysis.scores is None:
            written += save(_groups(analysis), out, "strip") if analysis.groups else []
            return written + _behind(out, analysis) + _speakers(out, analysis)
        written += save(_strip(analysis.scores, analysis.chance), out, "strip")
        places = analysis.scores.places
        suffixes = suffixes_of(["-".join(place) for place in places] if len(places) > 1 else [])
        for place, figure in _estimation(analysis):
            suffix = suffixes.get("-".join(place), "")
            written += save(figure, out, f"estimation{suffix}")
        suffixes = suffixes_of([name for name in analysis.ranks if name])
        for name, told in analysis.ranks.items():
            suffix = suffixes.get(name, "")
            if told["k"] > 2:
                written += save(critical_difference(told, name, analysis.scores.target), out, f"cd{suffix}")
        written += _behind(out, analysis) + _speakers(out, analysis)
    return written


def _behind(out: Path, analysis: Analysis) -> list[Path]:
    """Interaction, residuals, convergence, where the analysis has what they show."""
    written: list[Path] = []
    audited = analysis.content.get("audit", {})
    dv, target = str(audited.get("dv", "")), str(analysis.content["target"]["code"])
    if analysis.cell_means is not None and (crossed := diagnostics.crossed(analysis.cell_means)) is not None:
        written += save(diagnostics.interaction(crossed, dv, target), out, "interaction")
    if analysis.residuals is not None and np.ptp(analysis.residuals[1]) > 0:
        block = str(audited.get("block", "block"))
        written += save(diagnostics.residuals(*analysis.residuals, analysis.block_effects, dv, block), out, "residuals")
    if analysis.scores is not None and (figure := diagnostics.convergence(analysis.scores)) is not None:
        written += save(figure, out, "convergence")
    return written


def _speakers(out: Path, analysis: Analysis) -> list[Path]:
    """Per test set: UAR (or CCC) of every model and every difference, with the interval over speakers."""
    from matplotlib.figure import Figure

    dv = str(analysis.content.get("audit", {}).get("dv", ""))
    kind, score, least = ("rating", "ccc", -1.0) if is_ccc(dv) else ("speaker", "uar", 0.0)
    if f"{kind}_intervals" not in analysis.tables:
        return []
    written: list[Path] = []
    table, pairs = analysis.tables[f"{kind}_intervals"], analysis.tables.get(f"{kind}_pairs")
    if is_ccc(dv):
        table = table[table["dv"] == dv]
        pairs = None if pairs is None else pairs[pairs["dv"] == dv]
    everywhere = list(dict.fromkeys(table["at"].tolist()))
    suffixes = suffixes_of(list(map(str, everywhere)) if len(everywhere) > 1 else [])
    for at in everywhere:
        rows = table[table["at"] == at]
        compared = [] if pairs is None else rows_of(pairs[pairs["at"] == at])[:MOST_PAIRS]
        panels = [([row["model"] for row in rows_of(rows)], rows_of(rows), score, label(dv), 1.0)]
        if compared:
            names = [f"{row['a']} − {row['b']}" for row in compared]
            panels.append((names, compared, "mean_diff", f"difference in {unit(dv)[1]}", 100.0))
        figure = Figure(
            figsize=(4.6 * len(panels), 1.4 + 0.34 * max(len(names) for names, *_ in panels)), layout="constrained"
        )
        for axis, (names, shown, column, name, scale) in zip(
            figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
        ):
            for y, row in enumerate(shown):
                low, high = row["ci95_low"], row["ci95_high"]
                if column == score:
                    low, high = np.clip([low, high], least, 1.0)
                axis.plot([scale * low, scale * high], [y, y], color=MEAN, linewidth=1.6)
                axis.plot(scale * row[column], y, "o", color=POINT, markersize=5)
            axis.set_yticks(range(len(names)), labels=names)
            axis.set_ylim(len(names) - 0.5, -0.5)
            axis.set_xlabel(name)
            if column == "mean_diff":
                axis.axvline(0, color=ZERO, linewidth=0.8)
            elif analysis.chance is not None:
                axis.axvline(analysis.chance, color=ZERO, linewidth=0.8, linestyle="--")
        n = int(rows["n_speakers"].min())
        figure.suptitle(
            f"{f'{at}: ' if at else ''}95 % CI over {n} speakers (new people), T2"
            f"{'' if analysis.chance is None else '; dashed: chance'}",
            fontsize=8,
        )
        written += save(figure, out, f"speakers{suffixes.get(str(at), '')}")
    return written


def suffixes_of(names: Sequence[str]) -> dict[str, str]:
    """What the files of some test sets end with: their names, with _ for what a file name should not hold.

    Names that would then be the same are numbered: `t/1` and `t_1` are `-t_1` and `-t_1-2`.
    """
    found: dict[str, str] = {}
    for name in names:
        plain = "-" + re.sub(r"[^A-Za-z0-9.+@_-]", "_", name)
        number, suffix = 1, plain
        while suffix.lower() in {other.lower() for other in found.values()}:
            number += 1
            suffix = f"{plain}-{number}"
        found[name] = suffix
    return found


@contextmanager
def plain_style() -> Iterator[None]:
    """matplotlib's own defaults, whatever the user's matplotlibrc says."""
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update({"pdf.fonttype": 42, "font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
        mpl.rcParams["text.parse_math"] = False  # a name may hold a $
        yield


def save(figure: Figure, out: Path, stem: str) -> list[Path]:
    """Write a figure as PDF and PNG, the same bytes each time; returns both."""
    files = [out / f"{stem}.pdf", out / f"{stem}.png"]
    with quiet():
        figure.savefig(files[0], metadata={"CreationDate": None, "Creator": None, "Producer": None})
        figure.savefig(files[1], dpi=150, metadata={"Software": None})
    return files


def _strip(scores: Scores, chance: float | None) -> Figure:
    from matplotlib.figure import Figure

    places = scores.places
    names, _ = scores.columns_at(places[0])
    across = min(PANELS_PER_ROW, len(places))
    down = math.ceil(len(places) / across)
    width = max(3.2, 1.2 + 0.75 * len(names))
    figure = Figure(figsize=(width * across, 3.8 * down), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False, sharey=True)
    for axis, place in zip(axes.flat, places, strict=False):
        _, columns = scores.columns_at(place)
        values = scores.values[:, columns]
        for row in values:
            axis.plot(
                range(len(columns)), row, "-o", color=POINT, alpha=0.45, linewidth=0.8, markersize=3.5, mec="none"
            )
        for x in range(len(columns)):
            _mean_and_interval(axis, x + 0.16, values[:, x])
        _label(axis, names, ", ".join(place), chance)
    for axis in list(axes.flat)[len(places) :]:
        axis.set_visible(False)
    for row_of_axes in axes:
        row_of_axes[0].set_ylabel(_axis_name(scores.dv))
    title = "Each line is one block (split); black: mean and 95 % CI over blocks, T1"
    figure.suptitle("\n".join(textwrap.wrap(title, int(13 * width * across))), fontsize=8)
    return figure


def _groups(analysis: Analysis) -> Figure:
    from matplotlib.figure import Figure

    names = list(analysis.groups)
    figure = Figure(figsize=(max(3.4, 1.2 + 0.75 * len(names)), 3.8), layout="constrained")
    axis = figure.subplots()
    for x, name in enumerate(names):
        values = np.sort(np.asarray(analysis.groups[name]))
        offsets = (np.arange(len(values)) % 5 - 2) * 0.04
        axis.plot(x + offsets, values, "o", color=POINT, alpha=0.5, markersize=3.5, mec="none")
        if "lmm" not in analysis.content:
            _mean_and_interval(axis, x + 0.22, values)
        elif (fitted := analysis.cell_means) is not None:  # rows of a block are no units: the model's interval
            axis.plot([x + 0.22] * 2, [fitted.low[x], fitted.high[x]], color=MEAN, linewidth=1.4)
            axis.plot(x + 0.22, fitted.mean[x], "o", color=MEAN, markersize=4)
    _label(axis, names, "", None)
    axis.set_ylabel(_axis_name(str(analysis.content["audit"]["dv"])))
    what = "mean and 95 % CI" if "lmm" not in analysis.content else "mean and 95 % CI of the mixed model"
    code = analysis.content["target"]["code"]
    width = float(figure.get_size_inches()[0])
    title = f"Each point is one row; black: {what}, {code}"
    figure.suptitle("\n".join(textwrap.wrap(title, int(13 * width))), fontsize=8)
    return figure


def _estimation(analysis: Analysis) -> Iterator[tuple[tuple[str, ...], Figure]]:
    """One figure per test set: paired differences of every pair, their mean and 95 % interval."""
    from matplotlib.figure import Figure

    scores = analysis.scores
    assert scores is not None
    scale, points = unit(scores.dv)
    for place in scores.places:
        names, columns = scores.columns_at(place)
        pairs = [(i, j) for i in range(len(names)) for j in range(i + 1, len(names))]
        differences = [scale * (scores.values[:, columns[i]] - scores.values[:, columns[j]]) for i, j in pairs]
        differences = [values[~np.isnan(values)] for values in differences]
        if not any(len(values) > 1 for values in differences):
            continue
        labels = [f"{names[i]} − {names[j]}" for i, j in pairs]
        figure = Figure(figsize=(4.2 + 0.065 * max(map(len, labels)), 1.5 + 0.36 * len(pairs)), layout="constrained")
        axis = figure.subplots()
        axis.axvline(0, color=ZERO, linewidth=0.8)
        for y, values in enumerate(differences):
            offsets = (np.arange(len(values)) % 3 - 1) * 0.06
            axis.plot(values, y - 0.14 + offsets, "o", color=POINT, alpha=0.45, markersize=3, mec="none")
            told = summary(values)
            if told["n"] > 1:
                axis.plot([told["ci95_low"], told["ci95_high"]], [y + 0.2, y + 0.2], color=MEAN, linewidth=1.6)
                axis.plot(told["mean"], y + 0.2, "o", color=MEAN, markersize=4)
        axis.set_yticks(range(len(pairs)), labels=labels)
        axis.set_ylim(len(pairs) - 0.5, -0.5)
        axis.set_xlabel(f"difference in {points}" if range_of(scores.dv) else f"difference {points}")
        place_text = f" on {', '.join(place)}" if place else ""
        figure.suptitle(f"Paired differences{place_text}: blocks, mean and 95 % CI (unadjusted), T1", fontsize=8)
        yield place, figure


def critical_difference(told: Mapping[str, Any], place: str, target: str) -> Figure:
    """Mean ranks on a line, best on the right; bars join those that Nemenyi's test does not tell apart (Demsar 2006).

    Args:
        told: the answer of `friedman.run`
        place: where the models were tested; empty for one place
        target: what the blocks are a sample of
    """
    from matplotlib.figure import Figure

    ranked = sorted(told["mean_ranks"].items(), key=lambda item: (item[1], item[0]))
    k, groups = int(told["k"]), cliques(told)
    half = math.ceil(k / 2)
    step, bars = 0.28, 0.16 * (len(groups) + 1)
    longest = max(len(name) for name, _ in ranked)
    figure = Figure(figsize=(5.0 + 0.13 * longest, 1.5 + step * half + bars), layout="constrained")
    axis = figure.subplots()
    axis.set_axis_off()
    axis.set_xlim(k + 0.6 + 0.04 * longest, 0.4 - 0.04 * longest)  # rank 1, the best, on the right
    axis.set_ylim(-(bars + step * (half + 0.7)), 0.75)
    axis.plot([1, k], [0, 0], color=MEAN, linewidth=1)
    for rank in range(1, k + 1):
        axis.plot([rank, rank], [0, 0.08], color=MEAN, linewidth=1)
        axis.annotate(str(rank), (rank, 0.1), ha="center", va="bottom", fontsize=8)
    cd = float(told["CD_nemenyi_05"])
    if cd < k - 1:
        axis.plot([1, 1 + cd], [0.5, 0.5], color=MEAN, linewidth=1.4)
        axis.annotate(f"CD = {cd:.2f}", (1 + cd / 2, 0.53), ha="center", va="bottom", fontsize=8)
    else:
        axis.annotate(f"CD = {cd:.2f}, wider than the scale", (k, 0.5), ha="left", va="bottom", fontsize=8)
    for position, (name, rank) in enumerate(ranked):
        best = position < half
        level = -(bars + step * ((position if best else k - 1 - position) + 0.5))
        end = 1 - 0.25 if best else k + 0.25
        axis.plot([rank, rank, end], [0, level, level], color=POINT, linewidth=0.9)
        side = "left" if best else "right"
        axis.annotate(f" {name} ({rank:.2f}) ", (end, level), ha=side, va="center", fontsize=8)
    for index, group in enumerate(groups):
        ranks = [told["mean_ranks"][name] for name in group]
        level = -0.16 * (index + 1)
        axis.plot([min(ranks) - 0.04, max(ranks) + 0.04], [level, level], color=MEAN, linewidth=3)
    on = f" on {place}" if place else ""
    figure.suptitle(
        f"Mean ranks{on} over {told['N']} blocks; bars join what Nemenyi does not tell apart, {target}",
        fontsize=8,
    )
    return figure


def _mean_and_interval(axis: Axes, x: float, values: np.typing.NDArray[np.float64]) -> None:
    told = summary(values[~np.isnan(values)])
    if told["n"] > 1:
        axis.plot([x, x], [told["ci95_low"], told["ci95_high"]], color=MEAN, linewidth=1.4)
    if told["n"]:
        axis.plot(x, told["mean"], "o", color=MEAN, markersize=4)


def _label(axis: Axes, names: list[str], title: str, chance: float | None) -> None:
    axis.set_xticks(range(len(names)), labels=names, rotation=30, ha="right", rotation_mode="anchor")
    axis.set_xlim(-0.5, len(names) - 0.5)
    axis.set_title(title, fontsize=9)
    if chance is not None:
        axis.axhline(chance, color=ZERO, linewidth=0.8, linestyle="--")
        axis.annotate(
            "chance", (1, chance), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=7, color=ZERO
        )


def _axis_name(dv: str) -> str:
    return label(dv)
