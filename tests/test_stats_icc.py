"""The exact interval of the ICC of rows in blocks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ser_analysis.methods import icc
from tests.tiny import stats_json

ORACLE = Path(__file__).parent / "oracle"
Codes = npt.NDArray[np.int64]


def searle(y: npt.NDArray[np.float64], level: float = 0.95) -> tuple[float, float, float]:
    """Closed form of the balanced one-way table (blocks, rows): estimate and ends (Searle 1971, ch. 9)."""
    b, m = y.shape
    between = m * y.mean(axis=1).var(ddof=1)
    within = ((y - y.mean(axis=1, keepdims=True)) ** 2).sum() / (b * (m - 1))
    f = between / within
    ends = [f / stats.f.ppf(q, b - 1, b * (m - 1)) for q in ((1 + level) / 2, (1 - level) / 2)]
    low, high = (max(0.0, (end - 1) / (end + m - 1)) for end in ends)
    return max(0.0, (f - 1) / (f + m - 1)), low, high


def test_dyestuff_has_searles_interval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ser_analysis.figures.draw", lambda out, analysis: [])
    csv = ORACLE / "dyestuff.csv"
    ours = stats_json(tmp_path, "--csv", csv, "--dv", "Yield", "--block", "Batch", "--random", "(1|Batch)")
    table = pd.read_csv(csv).sort_values("Batch", kind="stable")["Yield"].to_numpy(dtype=float).reshape(6, 5)
    estimate, low, high = searle(table)
    assert ours["Batch_icc"] == pytest.approx(estimate, rel=1e-5)
    assert ours["Batch_icc_ci95"] == pytest.approx([low, high], abs=1e-9)
    # By hand: F = 11271.5 / 2451.25 = 4.598, quantiles of F(5, 24) 3.155 and 1 / 6.278.
    assert ours["Batch_icc_ci95"] == pytest.approx([0.0838, 0.848], abs=5e-4)
    assert any("ICC = .42, 95 % CI [.08, .85]" in fact for fact in ours["facts"])
    variances = pd.read_csv(tmp_path / "lmm_variances.csv")
    of_batch = variances[variances["grp"] == "Batch"].iloc[0]
    assert [of_batch["share_ci95_low"], of_batch["share_ci95_high"]] == pytest.approx([low, high], abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 9), st.integers(2, 6), st.floats(0, 3))
def test_balanced_tables_have_searles_interval(seed: int, b: int, m: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    y = rng.normal(0, spread, size=(b, 1)) + rng.normal(size=(b, m))
    found = icc.interval(y.ravel(), np.ones((b * m, 1)), np.repeat(np.arange(b), m))
    assert found == pytest.approx(searle(y)[1:], abs=1e-7)


def design(rng: np.random.Generator) -> tuple[npt.NDArray[np.float64], Codes]:
    """Twelve blocks of 1 to 8 rows; a factor of whole blocks, one that varies within most, and their product."""
    blocks = np.repeat(np.arange(12), [1, 2, 8, 3, 5, 2, 4, 7, 3, 2, 6, 4])
    treatment, within = np.where(blocks % 2, 1.0, -1.0), rng.choice([-1.0, 1.0], len(blocks))
    return np.column_stack([np.ones(len(blocks)), treatment, within, treatment * within]), blocks


@pytest.mark.parametrize("truth", [0.05, 0.3, 0.7])
def test_it_holds_the_truth_in_95_percent_of_unbalanced_tables_with_factors(truth: float) -> None:
    rng = np.random.default_rng([20240229, int(100 * truth)])
    x, blocks = design(rng)
    trials, below, above = 1000, 0, 0
    for _ in range(trials):
        y = x @ np.array([5, 1, -2, 0.5]) + rng.normal(0, np.sqrt(truth), 12)[blocks]
        y = y + rng.normal(0, np.sqrt(1 - truth), len(blocks))
        found = icc.interval(y, x, blocks)
        assert found is not None
        below += found[1] < truth
        above += found[0] > truth
    # Exact: 25 of 1000 expected on either side, with a standard error of 5.
    assert 10 < below < 40
    assert 10 < above < 40


def test_it_depends_on_neither_unit_nor_fixed_effects_nor_their_coding() -> None:
    rng = np.random.default_rng(1)
    x, blocks = design(rng)
    y = rng.normal(size=12)[blocks] + rng.normal(size=len(blocks))
    found = icc.interval(y, x, blocks)
    assert icc.interval(1000 + 7 * y + x @ np.array([3, 9, -4, 2]), x, blocks) == pytest.approx(found, abs=1e-9)
    assert icc.interval(y, np.column_stack([x, x[:, 1] + x[:, 2]]), blocks) == pytest.approx(found, abs=1e-9)
    shuffled = rng.permutation(len(blocks))
    assert icc.interval(y[shuffled], x[shuffled], blocks[shuffled]) == pytest.approx(found, abs=1e-9)


def test_there_is_none_where_nothing_can_be_told() -> None:
    one_row_each = np.arange(5)
    assert icc.interval(np.arange(5.0), np.ones((5, 1)), one_row_each) is None
    blocks = np.repeat(np.arange(3), 2)
    assert icc.interval(np.repeat([1.0, 2.0, 4.0], 2), np.ones((6, 1)), blocks) is None  # the rest is 0
    alike = np.array([1.0, -1.0, 1.0, -1.0, 1.0, -1.0])
    assert icc.interval(alike, np.ones((6, 1)), blocks) == (0.0, 0.0)
