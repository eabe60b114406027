"""Figures that look behind the means: interactions, residuals, and how a mean settles as blocks are added."""

from __future__ import annotations

import itertools
import math
import re
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ser_analysis.scores import Array, Scores, range_of
from ser_analysis.wording import label
from ser_eval.figures import INK, MARKERS, MODEL_COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ser_analysis.output import CellMeans

POINT, ZERO = "#4477aa", "#999999"
ACROSS = 3
MOST_PANELS = 12
"""Panels in one figure; the title counts those left out."""
LINE_STYLES = ("-", "--", "-.", ":")
MOST_WRAPPED = 6
"""Levels under an axis whose names stand upright in several lines; more of them stand slantwise."""
LINE = 14
"""Characters of such a line."""
INCH_PER_LETTER = 0.078


def crossed(told: CellMeans) -> CellMeans | None:
    """The means without the factors of one level; None where fewer than two factors are left."""
    kept = [index for index, levels in enumerate(told.levels) if len(levels) > 1]
    if len(kept) < 2:
        return None
    return replace(
        told,
        factors=tuple(told.factors[index] for index in kept),
        levels=tuple(told.levels[index] for index in kept),
    )


def interaction(told: CellMeans, dv: str, target: str) -> Figure:
    """Means and intervals: the first factor along the axis, a line per level of the second, panels for the others.

    Args:
        told: two factors or more
        dv: name of the axis
        target: what the intervals are about
    """
    from matplotlib.figure import Figure

    shape = tuple(map(len, told.levels))
    parts = [np.asarray(part).reshape(shape) for part in (told.mean, told.low, told.high)]
    places = list(itertools.product(*(range(size) for size in shape[2:])))
    shown = places[:MOST_PANELS]
    across = _across(len(shown), ACROSS)
    down = math.ceil(len(shown) / across)
    lines = told.levels[1]
    keys_of = _shortened(lines)
    ticks, room, below = _ticks(told.levels[0])
    slant = len(ticks) > MOST_WRAPPED
    width = max(2.8, 0.9 + len(ticks) * max(room, 0.11 * len(lines)) + (0.8 * below if slant else 0))
    columns = max(1, min(len(lines), int(width * across / (0.6 + INCH_PER_LETTER * max(map(len, keys_of))))))
    keys = 0.4 + 0.2 * math.ceil(len(lines) / columns)
    full = (width * across, (2.9 + below) * down + keys)
    figure = Figure(figsize=full, layout="constrained")
    axes = figure.subplots(down, across, squeeze=False, sharey=True)
    step = min(0.14, 0.5 / len(lines))
    for at, axis in zip(shown, axes.flat, strict=False):
        for number in range(len(lines)):
            middle, bottom, top = (np.array([part[x, number, *at] for x in range(len(ticks))]) for part in parts)
            xs = np.arange(len(ticks)) + step * (number - (len(lines) - 1) / 2)
            axis.errorbar(
                xs,
                middle,
                yerr=np.vstack([middle - bottom, top - middle]),
                color=MODEL_COLOURS[number % len(MODEL_COLOURS)],
                marker=MARKERS[number % len(MARKERS)],
                linestyle=LINE_STYLES[number // len(MODEL_COLOURS) % len(LINE_STYLES)],
                markersize=4.5,
                linewidth=1.1,
                elinewidth=1.0,
                capsize=2,
                label=keys_of[number],
            )
        turned = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if slant else {}
        axis.set_xticks(range(len(ticks)), labels=ticks, **turned)
        axis.set_xlim(-0.5, len(ticks) - 0.5)
        named = [f"{name}: {levels[i]}" for name, levels, i in zip(told.factors[2:], told.levels[2:], at, strict=True)]
        _title(axis, ", ".join(named), width)
    _finish(axes, len(shown), dv, told.factors[0])
    figure.legend(
        *axes.flat[0].get_legend_handles_labels(), title=_short(told.factors[1]), loc="outside lower center",
        ncols=columns, fontsize=8, title_fontsize=8, frameon=False,
    )  # fmt: skip
    left_out = f"; the first {len(shown)} of {len(places)} panels" if len(places) > len(shown) else ""
    _head(figure, f"Interaction: {told.what}, {target}{left_out}", full[0])
    return figure


def residuals(fits: Array, left: Array, effects: Array | None, dv: str, block: str) -> Figure:
    """Normal quantiles of the residuals with 95 % bands, residuals against fitted scores, quantiles of block effects.

    The band holds each point by itself with 95 % probability if the values are normal (order statistics of the uniform
    distribution are beta distributed).

    Args:
        fits: (n,)
        left: (n,), what the model leaves of the scores
        effects: predicted effects of the blocks of a mixed model
        dv: name of the axis
        block: what a block is called
    """
    from matplotlib.figure import Figure

    panels = 2 if effects is None else 3
    figure = Figure(figsize=(3.5 * panels, 3.4), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    _quantiles(axes[0], left, "residuals")
    axes[1].axhline(0, color=ZERO, linewidth=0.8)
    axes[1].plot(fits, left, "o", color=POINT, alpha=0.5, markersize=3.5, mec="none", rasterized=len(left) > 2000)
    axes[1].set_xlabel(f"fitted {_name(dv)}")
    axes[1].set_ylabel(f"residual of {_name(dv)}")
    axes[1].locator_params(axis="x", nbins=5)
    axes[1].set_title("residuals against fitted", fontsize=9)
    if effects is not None:
        _quantiles(axes[2], effects, f"effects of {_short(block)}")
    _head(
        figure,
        "Assumptions: points in the grey band fit a normal distribution; an even cloud, equal variances",
        3.5 * panels,
    )
    return figure


def convergence(scores: Scores) -> Figure | None:
    """Mean and 95 % interval of each cell over the first n blocks, n = 2 to all, in the order of the blocks.

    A panel per model, in it a line per test set. None with fewer than three blocks.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator
    from scipy.stats import t

    if len(scores.blocks) < 3:
        return None
    places = scores.places
    names = scores.columns_at(places[0])[0]
    shown = names[:MOST_PANELS]
    across = _across(len(shown), 4)
    down = math.ceil(len(shown) / across)
    width = 2.7
    full = (width * across, 2.3 * down + 0.4)
    figure = Figure(figsize=full, layout="constrained")
    axes = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True)
    ends: list[float] = []
    widest = (math.inf, -math.inf)
    for place_number, place in enumerate(places):
        columns = dict(zip(*scores.columns_at(place), strict=True))
        colour = MODEL_COLOURS[place_number % len(MODEL_COLOURS)]
        for name, axis in zip(shown, axes.flat, strict=False):
            values = scores.values[:, columns[name]]
            known = ~np.isnan(values)
            n = known.cumsum()
            filled = np.where(known, values, 0.0)
            steps = np.arange(1, len(values) + 1)
            with np.errstate(invalid="ignore", divide="ignore"):
                mean = filled.cumsum() / n
                # Around the first mean, since a difference of large squares loses its digits.
                base = values[known][0] if known.any() else 0.0
                around = np.where(known, values - base, 0.0)
                squares = (around**2).cumsum() - around.cumsum() ** 2 / n
                half = t.ppf(0.975, n - 1) * np.sqrt(np.maximum(squares, 0.0) / (n - 1) / n)
            told = n >= 2
            if not told.any():
                continue
            label = ", ".join(place) or None
            axis.plot(steps[told], mean[told], color=colour, linewidth=1.3, label=label)
            axis.fill_between(
                steps[told], (mean - half)[told], (mean + half)[told], color=colour, alpha=0.18, linewidth=0
            )
            widest = (
                min(widest[0], float((mean - half)[told].min())),
                max(widest[1], float((mean + half)[told].max())),
            )
            settled = told & (n >= min(4, n[-1]))
            ends += [*(mean - half)[settled].tolist(), *(mean + half)[settled].tolist()]
    if not ends:
        return None
    for name, axis in zip(shown, axes.flat, strict=False):
        _title(axis, name, width)
        axis.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    bottom, top = min(ends), max(ends)
    rim = 0.06 * (top - bottom) or 0.01
    bottom, top = bottom - rim, top + rim
    if (possible := range_of(scores.dv)) is not None:
        bottom, top = max(bottom, possible[0]), min(top, possible[1])
    beyond = "; the axis cuts the widest intervals of few blocks" if widest[0] < bottom or widest[1] > top else ""
    axes.flat[0].set_ylim(bottom, top)
    axes.flat[0].set_xlim(2, len(scores.blocks))
    _finish(axes, len(shown), scores.dv, "first n blocks")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    if labels:
        figure.legend(
            handles, labels, loc="outside lower center", ncols=_legend_columns(labels, full[0]),
            fontsize=8, frameon=False,
        )  # fmt: skip
    left_out = f"; the first {len(shown)} of {len(names)} models" if len(names) > len(shown) else ""
    _head(figure, f"Mean and 95 % CI over the first n blocks, {scores.target}{left_out}{beyond}", full[0])
    return figure


def _quantiles(axis: Axes, values: Array, what: str) -> None:
    from scipy.stats import beta, norm

    ordered = np.sort(values)
    n = len(ordered)
    ranks = np.arange(1, n + 1)
    spread = float(ordered.std(ddof=1)) if n > 1 else 0.0
    expected = norm.ppf((ranks - 0.5) / n)
    middle = float(ordered.mean())
    for_band = np.asarray(norm.ppf(beta.ppf([[0.025], [0.975]], ranks, n + 1 - ranks)))
    low, high = middle + spread * for_band[0], middle + spread * for_band[1]
    axis.fill_between(expected, low, high, color=ZERO, alpha=0.25, linewidth=0)
    axis.plot(expected, middle + spread * expected, color=INK, linewidth=0.9)
    axis.plot(expected, ordered, "o", color=POINT, alpha=0.6, markersize=3.5, mec="none", rasterized=n > 2000)
    axis.set_xlabel("normal quantile")
    axis.set_ylabel(what)
    axis.set_title(f"normal quantiles: {what}", fontsize=9)


def _finish(axes: Any, panels: int, dv: str, x: str) -> None:
    """Names of the axes at the rim, empty panels away."""
    across = axes.shape[1]
    for index, axis in enumerate(axes.flat):
        if index >= panels:
            axis.set_visible(False)
        elif index + across >= panels:
            axis.set_xlabel(_short(x))
            axis.tick_params(axis="x", labelbottom=True)
    for row in axes:
        row[0].set_ylabel(_name(dv))


def _title(axis: Axes, text: str, width: float) -> None:
    axis.set_title(_wrapped(text, max(12, int(width * 12.5))), fontsize=9)


def _head(figure: Figure, text: str, width: float) -> None:
    figure.suptitle("\n".join(textwrap.wrap(text, int(16 * width))), fontsize=8)


def _across(panels: int, most: int) -> int:
    """Panels in a row, so that the rows are filled as evenly as can be."""
    return math.ceil(panels / math.ceil(panels / most))


def _ticks(levels: Sequence[str]) -> tuple[list[str], float, float]:
    """Names under an axis, the room that each needs along it, and the room that all need below it, in inches."""
    if len(levels) > MOST_WRAPPED:
        names = _shortened(levels, 28)
        return names, 0.55, 0.5 * INCH_PER_LETTER * max(map(len, names))
    names = [_wrapped(level, LINE) for level in _shortened(levels)]
    parts = [name.split("\n") for name in names]
    longest = max(len(line) for lines in parts for line in lines)
    return names, max(0.55, INCH_PER_LETTER * (longest + 2)), 0.14 * (max(map(len, parts)) - 1)


def _legend_columns(names: Sequence[str], width: float) -> int:
    """How many entries of a legend stand side by side in so many inches."""
    return max(1, min(len(names), int(width / (0.6 + INCH_PER_LETTER * max(map(len, names))))))


def _name(dv: str) -> str:
    return label(dv)


def _wrapped(text: str, width: int) -> str:
    """Lines of at most `width` characters, broken at blanks and after signs that join the parts of a name."""
    lines = [""]
    for part in re.split(r"(?<=[\s/_:+-])", text):
        if lines[-1] and len(lines[-1]) + len(part.rstrip()) > width:
            lines.append("")
        lines[-1] += part
        while len(lines[-1].rstrip()) > width:
            lines[-1:] = [lines[-1][:width], lines[-1][width:]]
    return "\n".join(line.strip() for line in lines if line.strip())


def _shortened(names: Sequence[str], most: int = 40) -> list[str]:
    """The names with their middles left out; whole where two of them would then look alike."""
    short = [_short(name, most) for name in names]
    return short if len(set(short)) == len(set(names)) else list(names)


def _short(text: str, most: int = 40) -> str:
    """A name of at most `most` characters, the middle left out."""
    return text if len(text) <= most else f"{text[: most - 13]}…{text[-12:]}"
