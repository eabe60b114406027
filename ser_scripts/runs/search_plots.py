"""The picture of a study: how the best score rose, and the score against each parameter."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ser_eval.figures import BLUE, DPI, GREY, ORANGE, STYLE, quiet
from ser_scripts.specs.search import Choices, SearchSpec

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 3
_NAMES = {"val_uar": "validation UAR", "val_loss": "validation loss", "val_ccc": "validation CCC"}


def write_picture(file: Path, spec: SearchSpec, table: pd.DataFrame, *, title: str, best: int) -> None:
    """Write the picture as PNG; the same trials give the same bytes.

    Args:
        file: where it goes
        spec: the search; its parameters have a panel each
        table: one row per trial, as in trials.csv
        title: above the panels
        best: number of the winner
    """
    from matplotlib import style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    paths = sorted(spec.parameters)
    rows = math.ceil((1 + len(paths)) / COLUMNS)
    columns = min(COLUMNS, 1 + len(paths))
    with style.context(["default", STYLE]), quiet():
        figure = Figure(figsize=(3.9 * columns, 0.5 + 2.9 * rows), layout="constrained")
        FigureCanvasAgg(figure)
        counts = table["state"].value_counts()
        numbers = ", ".join(f"{counts[state]} {state}" for state in ("complete", "pruned", "fail") if state in counts)
        figure.suptitle(f"{title}: {len(table)} trials ({numbers}); later ones are darker, the winner is ringed",
                        fontsize=10)  # fmt: skip
        axes = figure.subplots(rows, columns, squeeze=False, sharey=True)
        panels = list(axes.flat)
        _history(panels[0], spec, table, best)
        for number, path in enumerate(paths, start=1):
            _slice(panels[number], spec, table, path, best)
            if number % columns == 0:
                panels[number].set_ylabel(_NAMES[spec.metric])
        for spare in panels[1 + len(paths) :]:
            spare.set_axis_off()
        figure.savefig(file, dpi=DPI, metadata={"Software": None})


def _history(axes: Axes, spec: SearchSpec, table: pd.DataFrame, best: int) -> None:
    from matplotlib.ticker import MaxNLocator

    scores = table[spec.metric].astype(float)
    axes.plot(table["trial"], scores, "o", color=BLUE, markersize=4, label="trial")
    running = scores.cummin() if spec.metric == "val_loss" else scores.cummax()
    axes.plot(table["trial"], running.ffill(), "-", color=BLUE, linewidth=1, alpha=0.6, label="best so far",
              drawstyle="steps-post")  # fmt: skip
    _winner(axes, np.array([best]), scores[table["trial"] == best])
    others = table[table["state"] != "complete"]
    if len(others):  # a stopped trial has no score that could stand beside the others
        axes.plot(others["trial"], np.full(len(others), 0.02), "x", color=GREY, markersize=5,
                  transform=axes.get_xaxis_transform(), label="pruned or failed")  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("trial")
    axes.set_ylabel(_NAMES[spec.metric])
    axes.legend(fontsize=7)


def _slice(axes: Axes, spec: SearchSpec, table: pd.DataFrame, path: str, best: int) -> None:
    parameter, values = spec.parameters[path], table[path]
    if isinstance(parameter, Choices):
        places = {_key(choice): place for place, choice in enumerate(parameter.choices)}
        x = np.array([places[_key(value)] for value in values], dtype=float)
        axes.set_xticks(range(len(places)), [_label(choice) for choice in parameter.choices], fontsize=7)
        axes.set_xlim(-0.5, len(places) - 0.5)
    else:
        x = values.to_numpy(dtype=float)
        if parameter.log:
            _log_axis(axes, parameter.low, parameter.high)
            room = (parameter.high / parameter.low) ** 0.04
            axes.set_xlim(parameter.low / room, parameter.high * room)
        else:
            room = (parameter.high - parameter.low) * 0.04
            axes.set_xlim(parameter.low - room, parameter.high + room)
    scores = table[spec.metric].to_numpy(dtype=float)
    axes.scatter(x, scores, c=table["trial"], cmap="Blues", vmin=-len(table) / 2, vmax=len(table), s=18, linewidths=0)
    chosen = (table["trial"] == best).to_numpy()
    _winner(axes, x[chosen], scores[chosen])
    others = (table["state"] != "complete").to_numpy()
    axes.plot(x[others], np.full(others.sum(), 0.02), "x", color=GREY, markersize=5,
              transform=axes.get_xaxis_transform())  # fmt: skip
    axes.set_xlabel(path)


def _log_axis(axes: Axes, low: float, high: float) -> None:
    """Ticks in plain numbers: powers of ten, and 2 and 5 times these where the range is short."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    short = math.log10(high / low) < 2.5
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if short else (1.0,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="x", labelsize=8)


def _winner(axes: Axes, x: object, y: object) -> None:
    axes.plot(x, y, "o", markersize=9, markerfacecolor="none", markeredgecolor=ORANGE, markeredgewidth=1.5)  # type: ignore[arg-type]


def _key(value: object) -> str:
    return f"{type(value).__name__} {value}"


def _label(value: object) -> str:
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 14 else f"...{text[-11:]}"
