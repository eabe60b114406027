"""Figures of the report: PNG files of the same bytes each time, in colours that colour-blind readers can tell apart."""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ser_eval.cells import STAMPS, Cell
from ser_eval.metrics import Counts
from ser_eval.robustness import CLEAN, Drop, natural
from ser_eval.run_folder import write_table
from ser_eval.shortcuts import BASELINES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, INK, GREY, RED = "#0072B2", "#D55E00", "#222222", "#8a8a8a", "#A33B00"  # Okabe & Ito 2008
MODEL_COLOURS = (BLUE, ORANGE, "#009E73", "#CC79A7", "#56B4E9", "#B58900", INK)
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")
STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.edgecolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "axes.labelcolor": INK,
    "legend.frameon": False,
    "text.parse_math": False,  # a name may hold a $
}
DPI = 150
TITLE_POINTS = 9


def write_confusion(folder: Path, cell: Cell, counts: Counts, gender: str | None = None) -> Path:
    """`confusion--<cell>[--<gender>].csv` with counts and the PNG with row shares and counts; returns the PNG.

    Args:
        folder: where they go
        cell: whose clips they are
        counts: shape (K, columns of the cell)
        gender: when they are the clips of one gender
    """
    name = f"confusion--{cell.slug}" + (f"--{gender}" if gender else "")
    rows, columns = cell.labels, cell.columns
    table = pd.DataFrame(counts, columns=list(columns))
    table.insert(0, "expressed", list(rows))
    write_table(folder / f"{name}.csv", table)
    support = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(support, 1)
    with _figure(max(3.4, 1.5 + 0.62 * len(columns)), 1.5 + 0.52 * len(rows)) as figure:
        axes = figure.add_subplot()
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        for (i, j), share in np.ndenumerate(shares):
            text = f"{100 * share:.0f} %\n{counts[i, j]}" if support[i, 0] else "no\nclips"
            axes.text(j, i, text, ha="center", va="center", fontsize=7.5, color="white" if share > 0.62 else INK)
        axes.set_xticks(range(len(columns)), columns, rotation=40, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(rows)), rows)
        axes.set_xlabel("recognised as")
        axes.set_ylabel("expressed")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_xticks(np.arange(len(columns) + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(len(rows) + 1) - 0.5, minor=True)
        axes.grid(which="minor", color="white", linewidth=1.5)
        axes.tick_params(which="minor", length=0)
        if len(columns) > len(rows):
            axes.axvline(len(rows) - 0.5, color=GREY, linewidth=1)
        _title(figure, f"{_title_of(cell)}{f', {gender}' if gender else ''}", cell.stamps)
        return _save(figure, folder / f"{name}.png")


def write_per_class(folder: Path, cell: Cell) -> Path:
    """Recall and F1 of each class as bars, over the clips of all seeds, with guessing as a line."""
    scores = cell.per_class
    places = np.arange(len(cell.labels))
    with _figure(5.2, 1.4 + 0.42 * len(cell.labels)) as figure:
        axes = figure.add_subplot()
        for offset, colour, what in ((-0.19, BLUE, "recall"), (0.19, ORANGE, "F1")):
            values = [getattr(scores[label], what.lower()) for label in cell.labels]
            axes.barh(places + offset, values, height=0.36, color=colour, label=what)
            for place, value in zip(places, values, strict=True):
                axes.text(
                    0.01 if np.isnan(value) else value + 0.01,
                    place + offset,
                    "no clips" if np.isnan(value) else f"{value:.2f}",
                    va="center",
                    fontsize=7.5,
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.4},
                )
        axes.axvline(cell.chance, color=INK, linewidth=1, linestyle="--", label="guessing (recall)")
        axes.set_yticks(places, [f"{label}  (n={scores[label].support})" for label in cell.labels])
        axes.invert_yaxis()
        axes.set_xlim(0, 1.08)
        axes.tick_params(axis="y", length=0)
        figure.legend(loc="outside lower center", ncols=3, fontsize=8)
        _title(figure, _title_of(cell), cell.stamps)
        return _save(figure, folder / f"per-class--{cell.slug}.png")


def write_reliability(folder: Path, cell: Cell, before: Sequence[Any], after: Sequence[Any]) -> Path:
    """Reliability before and after temperature scaling, of all seeds' test clips: accuracy by confidence, and clips.

    Args:
        folder: where it goes
        cell: whose clips they are
        before: the bins of each run (`calibration.reliability`)
        after: the same with the temperature of the run's validation clips
    """
    with _figure(7.2, 3.4) as figure:
        for axes, bins, title in zip(
            figure.subplots(1, 2, sharey=True), (before, after), ("as trained", "temperature scaled"), strict=True
        ):
            clips, confidence, right = (
                np.sum([one[what] for one in bins], axis=0) for what in ("clips", "confidence", "correct")
            )
            told = clips > 0
            axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--")
            width = 1 / len(clips)
            places = (np.arange(len(clips)) + 0.5) * width
            axes.bar(places, clips / clips.sum(), width=0.9 * width, color=GREY, alpha=0.35)
            axes.plot(confidence[told] / clips[told], right[told] / clips[told], "o-", color=BLUE, markersize=4)
            axes.set_xlim(0, 1)
            axes.set_ylim(0, 1)
            axes.set_xlabel("confidence (bars: share of the clips)")
            axes.set_title(title, loc="left")
        figure.axes[0].set_ylabel("share that is right")
        _title(figure, _title_of(cell), cell.stamps)
        return _save(figure, folder / f"reliability--{cell.slug}.png")


def write_training_curves(
    folder: Path, name: str, histories: Sequence[pd.DataFrame], best_epochs: Sequence[float]
) -> Path:
    """Loss and accuracy by epoch: a thin line per run, a thick one for their mean, a dot where the weights were taken.

    The mean is of the runs still in training, and is drawn as long as half of them are.

    Args:
        folder: where it goes
        name: file name without suffix
        histories: history.csv of each run
        best_epochs: epoch of the weights that were tested, of each run
    """
    with _figure(8.2, 3.1) as figure:
        for axes, what in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
            for colour, side, text in ((BLUE, "train", "training"), (ORANGE, "val", "validation")):
                column = f"{side}_{what}"
                for history, best in zip(histories, best_epochs, strict=True):
                    axes.plot(history["epoch"], history[column], color=colour, linewidth=0.7, alpha=0.4)
                    chosen = history[np.isclose(history["epoch"], best)]
                    if side == "val":
                        axes.plot(chosen["epoch"], chosen[column], ".", color=colour, markersize=5)
                by_epoch = pd.concat(histories).groupby("epoch", sort=True)[column].agg(["mean", "count"])
                by_epoch = by_epoch[by_epoch["count"] >= len(histories) / 2]
                axes.plot(by_epoch.index, by_epoch["mean"], color=colour, linewidth=2.2, label=text)
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.set_xlabel("epoch")
            axes.set_title(what, loc="left")
            _set_limits(axes, what)
        handles, texts = axes.get_legend_handles_labels()
        figure.legend(handles, texts, loc="outside upper right", ncols=2, fontsize=8)
        return _save(figure, folder / f"{name}.png")


def write_overview(folder: Path, name: str, cells: Sequence[Cell]) -> Path:
    """UAR of the models on one test corpus: a dot per seed, mean, interval over speakers, guessing, shortcuts.

    Args:
        folder: where it goes
        name: file name without suffix
        cells: of one training set, test corpus, set of classes and stamps
    """
    best: tuple[str, float] | None = max(
        (cell.best_shortcut for cell in cells if cell.best_shortcut), key=lambda item: item[1], default=None
    )
    with _figure(7.6, 1.5 + 0.42 * len(cells)) as figure:
        axes = figure.add_subplot()
        for place, cell in enumerate(cells):
            values = cell.uars.to_numpy()
            # A fixed fan keeps seeds of equal UAR apart without a random draw.
            fan = 0.13 * ((np.arange(len(values)) % 5) - 2) / 2
            axes.plot(
                values, place + fan, ".", color=BLUE, alpha=0.55, markersize=5, clip_on=False, label="one seed"
            )  # fmt: skip
            if cell.interval:
                low, high = cell.interval.low, cell.interval.high
                axes.plot([low, high], [place, place], color=INK, linewidth=1.2, label="95 % over speakers")
            mean = cell.mean_sd("uar")[0]
            if mean is not None:
                axes.plot([mean], [place], "D", color=INK, markersize=5.5, clip_on=False, label="mean over seeds")
                axes.text(1.015, place, f"{mean:.3f}", va="center", transform=axes.get_yaxis_transform())
            else:
                axes.text(0.5, place, "not defined", va="center", ha="center", color=GREY)
        axes.axvline(cells[0].chance, color=GREY, linewidth=1, linestyle="--", label="guessing")
        if best:
            label = f"best shortcut ({BASELINES[best[0]]})"
            axes.axvline(best[1], color=ORANGE, linewidth=1.2, linestyle=":", label=label)
        axes.set_yticks(range(len(cells)), [cell.model_name for cell in cells])
        axes.set_ylim(len(cells) - 0.5, -0.5)
        axes.set_xlim(0, 1)
        axes.set_xlabel("UAR")
        axes.tick_params(axis="y", length=0)
        handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=5, fontsize=7.5)
        _title(figure, f"{cells[0].train_corpus.replace('+', ' + ')} → {cells[0].test_name}", cells[0].stamps)
        return _save(figure, folder / f"{name}.png")


def write_robustness(folder: Path, name: str, drops: Sequence[Drop]) -> Path:
    """UAR under each condition, and what it has fallen by with its paired interval over speakers, a colour per model.

    Args:
        folder: where it goes
        name: file name without suffix
        drops: of one training set, test corpus and set of classes
    """
    models = list(dict.fromkeys(drop.cell.model_name for drop in drops))
    conditions = [CLEAN, *sorted({drop.cell.condition for drop in drops}, key=natural)]
    step = 0.7 / max(1, len(models))
    with _figure(8.2, 1.6 + max(0.36, 0.2 * len(models)) * len(conditions)) as figure:
        left, right = figure.subplots(1, 2, sharey=True)
        for number, model in enumerate(models):
            mine = [drop for drop in drops if drop.cell.model_name == model]
            shift = (number - (len(models) - 1) / 2) * step
            style = {"color": MODEL_COLOURS[number % len(MODEL_COLOURS)], "marker": MARKERS[number % len(MARKERS)]}
            points = [(0, mine[0].uar_clean), *((conditions.index(d.cell.condition), d.uar) for d in mine)]
            for place, uar in points:
                if uar is not None:
                    left.plot([uar], [place + shift], linestyle="", markersize=5.5, clip_on=False, label=model, **style)
            for drop in mine:
                height = conditions.index(drop.cell.condition) + shift
                if drop.interval:
                    reach = [drop.interval.low, drop.interval.high]
                    right.plot(reach, [height, height], color=style["color"], linewidth=1.2)
                if drop.drop is not None:
                    right.plot([drop.drop], [height], linestyle="", markersize=5.5, **style)
        left.axvline(drops[0].cell.chance, color=GREY, linewidth=1, linestyle="--", label="guessing")
        right.axvline(0, color=GREY, linewidth=1)
        left.set_yticks(range(len(conditions)), conditions)
        left.set_ylim(len(conditions) - 0.5, -0.5)
        left.set_xlim(0, 1)
        left.set_xlabel("UAR, mean over seeds")
        right.set_xlabel("UAR lost, with 95 % over speakers (paired)")
        right.locator_params(axis="x", nbins=5)
        for axes in (left, right):
            axes.tick_params(axis="y", length=0)
            axes.grid(axis="y", color=GREY, alpha=0.25, linewidth=0.6)
            axes.set_axisbelow(True)
        handles = dict(zip(*reversed(left.get_legend_handles_labels()), strict=True))
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, fontsize=7.5)
        stamps = [stamp for stamp in STAMPS if any(stamp in drop.cell.stamps for drop in drops)]
        first = drops[0].cell
        _title(figure, f"{first.train_corpus.replace('+', ' + ')} → {first.test_corpus} under test conditions", stamps)
        return _save(figure, folder / f"{name}.png")


def _title_of(cell: Cell) -> str:
    return f"{cell.model_name}: {cell.train_corpus.replace('+', ' + ')} → {cell.test_name}"


def _title(figure: Figure, text: str, stamps: Sequence[str]) -> None:
    """What is shown, and in red what must not be overlooked when the figure travels alone."""
    letters = int(figure.get_figwidth() * 72 / (TITLE_POINTS * 0.6))  # a letter is .6 of its height wide, or less
    lines = [line for part in (text, " · ".join(stamps)) for line in textwrap.wrap(part, letters)]
    figure.suptitle("\n".join(lines), fontsize=TITLE_POINTS, color=RED if stamps else INK)


def _set_limits(axes: Axes, what: str) -> None:
    if what == "accuracy":
        axes.set_ylim(0, 1.02)
    else:
        axes.set_ylim(bottom=0)


@contextmanager
def _figure(width_inches: float, height_inches: float) -> Iterator[Figure]:
    """A figure under our style alone, whatever the reader's matplotlibrc says; no pyplot, no global state."""
    from matplotlib import style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with style.context(["default", STYLE]):
        figure = Figure(figsize=(width_inches, height_inches), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure


def _save(figure: Any, file: Path) -> Path:
    with quiet():
        figure.savefig(file, dpi=DPI, metadata={"Software": None})
    return file


@contextmanager
def quiet() -> Iterator[None]:
    """Keep two remarks of matplotlib off the terminal: a letter that its font lacks, names too long for a figure."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph .* missing from", UserWarning)
        warnings.filterwarnings("ignore", "constrained_layout not applied", UserWarning)
        yield
