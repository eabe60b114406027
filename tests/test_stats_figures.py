"""What the figures behind the means show: interactions, residuals, convergence over blocks."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from ser_analysis import diagnostics, figures
from ser_analysis.output import CellMeans
from ser_analysis.scores import Scores
from ser_analysis.table import stats_of_csv

ORACLE = Path(__file__).parent / "oracle"
LONG = "facebook/hubert-large-with-very-many-more-words-{}-in-its-name-than-fit"


def means(*sizes: int) -> CellMeans:
    levels = tuple(tuple(f"{'abcd'[index]}{level}" for level in range(size)) for index, size in enumerate(sizes))
    mean = np.arange(np.prod(sizes), dtype=float)
    return CellMeans(tuple(f"f{index}" for index in range(len(sizes))), levels, mean, mean - 1, mean + 2, "mean")


def shown(figure: Any) -> list[Any]:
    return [axis for axis in figure.axes if axis.get_visible()]


def test_an_interaction_has_a_line_per_second_and_a_panel_per_third_level() -> None:
    figure = diagnostics.interaction(means(3, 2, 2), "uar", "T1")
    panels = shown(figure)
    assert [axis.get_title() for axis in panels] == ["f2: c0", "f2: c1"]
    for at, axis in enumerate(panels):
        for number, container in enumerate(axis.containers):
            line, _, (bars,) = container.lines
            expected = [4 * x + 2 * number + at for x in range(3)]
            assert line.get_ydata().tolist() == expected
            ends = [segment[:, 1].tolist() for segment in bars.get_segments()]
            assert ends == [[value - 1, value + 2] for value in expected]
        assert [label.get_text() for label in axis.get_xticklabels()] == ["a0", "a1", "a2"]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["b0", "b1"]


def test_factors_of_one_level_do_not_cross() -> None:
    assert diagnostics.crossed(means(3, 1)) is None
    kept = diagnostics.crossed(means(2, 1, 3))
    assert kept is not None
    assert kept.factors == ("f0", "f2")
    assert diagnostics.interaction(kept, "y", "T1").axes[0].containers[2].lines[0].get_ydata().tolist() == [2, 5]


def test_panels_left_out_are_counted() -> None:
    figure = diagnostics.interaction(means(2, 2, 15), "y", "T1")
    assert len(shown(figure)) == diagnostics.MOST_PANELS
    assert "the first 12 of 15 panels" in figure.get_suptitle()


def scores(n: int = 6) -> Scores:
    values = np.random.default_rng(4).normal(0.6, 0.03, size=(n, 4))
    values[1, 0] = np.nan
    levels = (("a", "b"), ("in", "out"))
    return Scores("uar", ("model", "test"), levels, tuple(map(str, range(n))), values, where=("test",))


def test_convergence_is_mean_and_interval_of_the_first_blocks() -> None:
    whole = scores()
    figure = diagnostics.convergence(whole)
    assert figure is not None
    assert [axis.get_title() for axis in shown(figure)] == ["a", "b"]
    for panel, axis in enumerate(shown(figure)):
        for place, (line, band) in enumerate(zip(axis.lines, axis.collections, strict=True)):
            column = whole.values[:, 2 * panel + place]
            found = band.get_paths()[0].vertices
            for n, mean in zip(line.get_xdata(), line.get_ydata(), strict=True):
                first = column[: int(n)]
                first = first[~np.isnan(first)]
                assert mean == pytest.approx(first.mean())
                half = stats.t.ppf(0.975, len(first) - 1) * first.std(ddof=1) / np.sqrt(len(first))
                ends = found[found[:, 0] == n][:, 1]
                assert (ends.min(), ends.max()) == pytest.approx((mean - half, mean + half))
    assert shown(figure)[0].lines[0].get_xdata()[0] == 3  # the second block has no score there
    assert shown(figure)[1].lines[0].get_xdata().tolist() == [2, 3, 4, 5, 6]


def test_two_blocks_do_not_converge() -> None:
    assert diagnostics.convergence(scores(2)) is None


def test_residuals_are_drawn_against_normal_quantiles_and_fitted_scores() -> None:
    rng = np.random.default_rng(1)
    fits, left, effects = rng.normal(size=40), rng.normal(size=40), rng.normal(size=9)
    figure = diagnostics.residuals(fits, left, effects, "y", "class")
    quantiles, cloud, of_blocks = shown(figure)
    points = quantiles.lines[1]
    assert points.get_ydata().tolist() == sorted(left)
    assert points.get_xdata() == pytest.approx(stats.norm.ppf((np.arange(1, 41) - 0.5) / 40))
    assert cloud.lines[1].get_xdata().tolist() == fits.tolist()
    assert cloud.lines[1].get_ydata().tolist() == left.tolist()
    assert of_blocks.lines[1].get_ydata().tolist() == sorted(effects)
    assert len(shown(diagnostics.residuals(fits, left, None, "y", "class"))) == 2


@pytest.mark.parametrize("count", [3, 9])
def test_long_names_do_not_overlap(count: int) -> None:
    names = tuple(LONG.format(number) for number in range(count))
    told = CellMeans(("arch", "test"), (names, ("in", "out")), *(np.zeros(2 * count),) * 3, "mean")
    figure = diagnostics.interaction(told, "uar", "T1")
    figure.draw_without_rendering()
    (axis,) = shown(figure)
    boxes = [label.get_window_extent() for label in axis.get_xticklabels()]
    if count <= diagnostics.MOST_WRAPPED:
        assert all(a.x1 < b.x0 for a, b in itertools.pairwise(boxes))
    else:
        assert len({label.get_text() for label in axis.get_xticklabels()}) == count
        assert all(b.x1 - a.x1 > 20 for a, b in itertools.pairwise(boxes))
    legend = figure.legends[0].get_window_extent()
    assert legend.y1 < axis.xaxis.label.get_window_extent().y0
    assert all(box.x0 >= 0 and box.y0 > legend.y1 for box in boxes)


def test_figures_are_drawn_the_same_each_time_and_old_ones_go(tmp_path: Path) -> None:
    options: dict[str, Any] = {"dv": "score", "between": ["treatment", "language"], "block": "class", "out": tmp_path}
    stats_of_csv(ORACLE / "pupils.csv", **options)
    drawn = {f"{name}.{end}" for name in ("interaction", "residuals") for end in ("pdf", "png")}
    first = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert drawn <= set(first)
    assert "![interaction](interaction.png)" in (tmp_path / "report.md").read_text(encoding="utf-8")
    stats_of_csv(ORACLE / "pupils.csv", **options)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == first
    stats_of_csv(ORACLE / "pupils.csv", **{**options, "between": ["treatment"]})
    assert not (tmp_path / "interaction.png").exists()
    assert (tmp_path / "residuals.png").exists()


def test_test_sets_whose_names_differ_in_signs_alone_have_files_of_their_own() -> None:
    told = figures.suffixes_of(["t/1", "t_1", "t 1", "T_1", "x@noise-10dB"])
    assert told == {"t/1": "-t_1", "t_1": "-t_1-2", "t 1": "-t_1-3", "T_1": "-T_1-4", "x@noise-10dB": "-x@noise-10dB"}
