"""One page of pictures of a corpus: what a reader should look at before trusting an average."""

from __future__ import annotations

import textwrap
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ser_eval.figures import BLUE, DPI, GREY, INK, ORANGE, STYLE
from ser_scripts.describe import POOLED, Part, nice_width

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GENDERS = {"female": ORANGE, "male": BLUE, "other": "#009E73", "unknown": GREY}  # Okabe & Ito 2008
_NAMED_SPEAKERS = 40
_WRITTEN_CELLS = 260


def write_page(file: Path, part: Part) -> None:
    """Write the page as PNG; the same clips give the same bytes."""
    from matplotlib import style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    clips = part.clips
    title = "all corpora pooled" if part.name == POOLED else part.name
    known = clips[clips["speaker"] != ""]
    people = f"{known['speaker'].nunique()} speakers" if len(known) == len(clips) else "speakers unknown"
    hours = clips["duration_seconds"].sum() / 3600
    with style.context(["default", STYLE]), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a name whose letters the font lacks
        figure = Figure(figsize=(13, 11.5), layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle(f"{title}: {len(clips):,} clips, {people}, {hours:.2f} hours", fontsize=13)
        axes = figure.subplots(3, 2)
        _durations(axes[0, 0], clips)
        _classes(axes[0, 1], clips)
        _cells(axes[1, 0], known)
        _loudness(axes[1, 1], clips)
        _silence(axes[2, 0], clips)
        _bandwidth(axes[2, 1], clips)
        figure.savefig(file, dpi=DPI, metadata={"Software": None})


def _durations(axes: Axes, clips: pd.DataFrame) -> None:
    seconds = clips["duration_seconds"]
    top = float(seconds.quantile(0.995))
    width = nice_width(top) / 2
    edges = np.arange(0, top + width, width)
    axes.hist(np.minimum(seconds, edges[-1]), bins=[float(edge) for edge in edges], color=BLUE)
    for value, name, style in ((seconds.median(), "median", "-"), (seconds.mean(), "mean", "--")):
        axes.axvline(value, color=INK, linewidth=1.2, linestyle=style, label=f"{name} {value:.2f} s")
    longer = int((seconds > edges[-1]).sum())
    axes.set_title(
        "Duration" + (f" ({longer} longer clips, up to {seconds.max():.1f} s, in the last bar)" if longer else "")
    )
    axes.set_xlim(max(0.0, float(seconds.min()) - 2 * width), float(edges[-1]))
    axes.set_xlabel("seconds")
    axes.set_ylabel("clips")
    axes.legend()


def _classes(axes: Axes, clips: pd.DataFrame) -> None:
    labels = sorted(set(clips["class_id"]))
    base = np.zeros(len(labels))
    for gender, colour in GENDERS.items():
        counts = clips.loc[clips["gender"] == gender, "class_id"].value_counts()
        sizes = np.array([counts.get(label, 0) for label in labels], dtype=float)
        if sizes.any():
            axes.bar(range(len(labels)), sizes, bottom=base, color=colour, label=gender, width=0.75)
            base += sizes
    for place, total in enumerate(base):
        axes.text(place, total, f"{total:.0f}", ha="center", va="bottom", fontsize=8)
    _names(axes, labels)
    axes.set_ylim(0, base.max() * 1.18)
    axes.set_title("Clips per class and gender")
    axes.set_ylabel("clips")
    axes.legend(ncols=4, loc="upper right")


def _cells(axes: Axes, known: pd.DataFrame) -> None:
    axes.set_title("Clips per speaker and class")
    if known.empty:
        axes.text(0.5, 0.5, "the corpus does not say who speaks", ha="center", va="center", color=GREY)
        axes.set_axis_off()
        return
    counts = pd.crosstab(known["class_id"], known["speaker"])
    table = counts.to_numpy()
    image = axes.imshow(np.ma.masked_equal(table, 0), aspect="auto", cmap="Blues", vmin=0, interpolation="nearest")
    axes.set_facecolor("#F3D9CC")
    if table.size <= _WRITTEN_CELLS:
        for (i, j), n in np.ndenumerate(table):
            dark = n > 0.6 * table.max()
            axes.text(j, i, str(n), ha="center", va="center", fontsize=7.5, color="white" if dark else INK)
    else:
        axes.figure.colorbar(image, ax=axes, shrink=0.8, label="clips")
    if (table == 0).any():
        axes.set_title(f"Clips per speaker and class ({int((table == 0).sum())} empty cells in red)")
    axes.set_yticks(range(len(counts.index)), [str(label) for label in counts.index])
    if len(counts.columns) <= _NAMED_SPEAKERS:
        _names(axes, [str(name) for name in counts.columns])
    else:
        axes.set_xticks([])
    axes.set_xlabel("speaker" if len(counts.columns) <= _NAMED_SPEAKERS else f"{len(counts.columns)} speakers, by name")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _loudness(axes: Axes, clips: pd.DataFrame) -> None:
    """Per speaker the median, and the range that holds 90 % of the clips; speakers by their median."""
    owners = clips["speaker"].where(clips["speaker"] != "", clips["corpus"])
    levels = clips.groupby(owners)["lufs"]
    spread = pd.DataFrame({name: levels.quantile(q) for name, q in (("low", 0.05), ("mid", 0.5), ("high", 0.95))})
    spread = spread.sort_values("mid", kind="stable")
    genders = clips.groupby(owners)["gender"].first()
    for gender, colour in GENDERS.items():
        at = np.flatnonzero((genders.loc[spread.index] == gender).to_numpy())
        if len(at):
            rows = spread.iloc[at]
            axes.vlines(
                at, rows["low"], rows["high"], color=colour, linewidth=max(0.8, min(4.0, 160 / len(spread))), alpha=0.5
            )
            axes.plot(
                at, rows["mid"], "o", color=colour, markersize=max(2.0, min(5.0, 200 / len(spread))), label=gender
            )
    axes.margins(x=0.02)
    if len(spread) <= _NAMED_SPEAKERS:
        _names(axes, [str(name) for name in spread.index])
    else:
        axes.set_xticks([])
    axes.set_xlabel("speaker, by loudness")
    axes.set_ylabel("LUFS")
    axes.set_title("Loudness per speaker: median, and 90 % of the clips")
    axes.legend(loc="upper left", ncols=4)


def _silence(axes: Axes, clips: pd.DataFrame) -> None:
    labels = sorted(set(clips["class_id"]))
    _boxes(axes, [100 * clips.loc[clips["class_id"] == label, "silence_share"].to_numpy() for label in labels])
    _names(axes, labels)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("% of 10 ms frames")
    axes.set_title("Silence per class (30 dB below the loudest frame)")


def _bandwidth(axes: Axes, clips: pd.DataFrame) -> None:
    kilohertz = clips["bandwidth_hz"] / 1000
    top = float(clips["sample_rate_hz"].max()) / 2000
    edges = [float(edge) for edge in np.linspace(0, max(top, 8.0), 65)]
    axes.hist(kilohertz, bins=edges, color=BLUE)
    axes.axvline(kilohertz.median(), color=INK, linewidth=1.2, label=f"median {kilohertz.median():.1f} kHz")
    if top >= 8.0 or kilohertz.median() < 8.0:
        axes.axvline(8.0, color=ORANGE, linewidth=1.2, linestyle="--", label="16 kHz audio reaches 8 kHz")
    rates = clips["sample_rate_hz"].value_counts().sort_index()
    told = ", ".join(f"{rate:,} Hz: {n:,}" for rate, n in rates.items())
    axes.set_title("Bandwidth: energy within 50 dB of the maximum")
    axes.set_xlabel(textwrap.shorten(f"kHz    (files at {told})", 110, placeholder=" ..."))
    axes.set_ylabel("clips")
    axes.legend(loc="upper left")


def _boxes(axes: Axes, groups: list[Any]) -> None:
    axes.boxplot(
        groups,
        positions=range(len(groups)),
        widths=0.6,
        whis=(5, 95),
        patch_artist=True,
        boxprops={"facecolor": "#CFE3F1", "edgecolor": BLUE},
        medianprops={"color": INK, "linewidth": 1.5},
        whiskerprops={"color": BLUE},
        capprops={"color": BLUE},
        flierprops={"marker": ".", "markersize": 2.5, "markerfacecolor": GREY, "markeredgecolor": "none"},
    )


def _names(axes: Axes, names: list[str]) -> None:
    crowded = len(names) > 9 or max(map(len, names)) * len(names) > 70
    size = 9 if len(names) <= 12 else 7
    axes.set_xticks(
        range(len(names)), names, rotation=45 if crowded else 0, ha="right" if crowded else "center",
        rotation_mode="anchor" if crowded else "default", fontsize=size,
    )  # fmt: skip
