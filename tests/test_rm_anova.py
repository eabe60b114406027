from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_analysis.effect_sizes import holm, noncentrality_interval, partial_eta2_interval
from ser_analysis.methods import rm_anova
from ser_analysis.scores import Scores, pivot
from ser_eval.errors import BadInput

ORACLE = Path(__file__).parent / "oracle"


def closed(value: float) -> Any:
    return pytest.approx(value, rel=1e-6, abs=1e-9)


def p_value(value: float) -> Any:
    return pytest.approx(value, rel=1e-5, abs=1e-10)


@pytest.fixture(scope="module")
def oracle() -> dict[str, Any]:
    answer: dict[str, Any] = json.loads((ORACLE / "ser_blocked.json").read_text())
    return answer


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    frame = pd.read_csv(ORACLE / "ser_blocked.csv", dtype=str)
    return frame.assign(uar=frame["uar"].astype(float))


@pytest.fixture(scope="module")
def scores(table: pd.DataFrame) -> Scores:
    return pivot(table, dv="uar", factors=["arch", "finetune", "test"], block="seed", where=["test"])


def test_every_effect_matches_r(scores: Scores, oracle: dict[str, Any]) -> None:
    ours = rm_anova.run(scores).set_index("term")
    expected = oracle["rm_anova_seed_as_subject"]
    assert list(ours.index) == [row["term"] for row in expected["table"]]
    for row in expected["table"]:
        mine = ours.loc[row["term"]]
        assert (mine["df1"], mine["df2"]) == (row["df1"], row["df2"])
        assert mine["F"] == closed(row["F"])
        assert mine["mse"] == closed(row["mse"])
        assert mine["p"] == p_value(row["p"])
        assert mine["eta2_g"] == closed(row["ges"])
        assert mine["partial_eta2"] == closed(row["pes"])
    assert len(expected["gg_hf"]) == len(expected["mauchly"]) == 4
    for row in expected["gg_hf"]:
        mine = ours.loc[row["term"]]
        assert mine["gg_eps"] == closed(row["GG eps"])
        assert mine["hf_eps"] == closed(row["HF eps"])
        assert mine["p_gg"] == p_value(row["Pr(>F[GG])"])
        assert mine["p_hf"] == p_value(row["Pr(>F[HF])"])
    for row in expected["mauchly"]:
        assert ours.loc[row["term"], "mauchly_w"] == closed(row["Test statistic"])
        assert ours.loc[row["term"], "mauchly_p"] == p_value(row["p-value"])


def test_one_degree_of_freedom_needs_no_sphericity(scores: Scores) -> None:
    ours = rm_anova.run(scores).set_index("term")
    assert ours.loc[["finetune", "test", "finetune:test"], ["p_gg", "p_hf", "mauchly_w"]].isna().all(axis=None)


def test_holm_runs_over_the_effects(scores: Scores) -> None:
    ours = rm_anova.run(scores)
    by_hand = ours["p"].sort_values()
    stepped = (by_hand * np.arange(len(by_hand), 0, -1)).cummax().clip(upper=1)
    pd.testing.assert_series_equal(ours["p_holm"].sort_index(), stepped.sort_index(), check_names=False)
    assert (ours["p_gg_holm"] >= ours["p_holm"] - 1e-15).all()


def test_holm_ignores_undefined_p_values() -> None:
    adjusted = holm(np.array([0.01, np.nan, 0.04]))
    assert adjusted[[0, 2]] == pytest.approx([0.02, 0.04])
    assert np.isnan(adjusted[1])


def test_incomplete_blocks_are_left_out(table: pd.DataFrame) -> None:
    def answer(rows: pd.DataFrame) -> pd.DataFrame:
        return rm_anova.run(pivot(rows, dv="uar", factors=["arch", "finetune", "test"], block="seed"))

    pd.testing.assert_frame_equal(answer(table.drop(index=5)), answer(table[table["seed"] != "s01"]))


@pytest.mark.parametrize("k", [2, 3, 5])
def test_one_factor_matches_statsmodels(k: int) -> None:
    from statsmodels.stats.anova import AnovaRM

    rng = np.random.default_rng(k)
    rows = pd.DataFrame(
        [{"block": str(b), "level": f"l{c}", "y": b / 7 + c * 0.1 + rng.normal()} for b in range(8) for c in range(k)]
    )
    ours = rm_anova.run(pivot(rows, dv="y", factors=["level"], block="block")).iloc[0]
    theirs = AnovaRM(rows, "y", "block", within=["level"]).fit().anova_table.iloc[0]
    assert ours["F"] == closed(float(theirs["F Value"]))
    assert ours["p"] == p_value(float(theirs["Pr > F"]))


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    shift=st.floats(-3, 3),
    scale=st.floats(0.1, 10),
    sizes=st.lists(st.integers(2, 3), min_size=1, max_size=3),
)
def test_units_order_of_rows_and_block_offsets_do_not_matter(
    seed: int, shift: float, scale: float, sizes: list[int]
) -> None:
    rng = np.random.default_rng(seed)
    n, cells = 6, int(np.prod(sizes))
    y = rng.normal(size=(n, cells))
    factors = tuple(f"f{index}" for index in range(len(sizes)))
    levels = tuple(tuple(map(str, range(size))) for size in sizes)

    def answer(values: np.ndarray) -> pd.DataFrame:
        return rm_anova.run(Scores("y", factors, levels, tuple(map(str, range(n))), values))

    first = answer(y)
    moved = answer((scale * y + shift + rng.normal(size=(n, 1)))[rng.permutation(n)])
    keep = ["term", "F", "p", "p_gg", "p_hf", "partial_eta2", "mauchly_w"]
    pd.testing.assert_frame_equal(first[keep], moved[keep], rtol=1e-6, atol=1e-9)
    assert (first["gg_eps"].dropna() <= 1 + 1e-12).all()
    assert (first["gg_eps"].dropna() >= 1 / first["df1"][first["gg_eps"].notna()] - 1e-12).all()


def test_models_that_agree_exactly_have_no_f() -> None:
    y = np.repeat(np.array([[0.3], [0.7], [0.55]]), 2, axis=1)
    row = rm_anova.run(Scores("uar", ("model",), (("a", "b"),), ("1", "2", "3"), y)).iloc[0]
    assert np.isnan([row["F"], row["p"], row["p_holm"], row["partial_eta2"]]).all()


def test_fewer_blocks_than_contrasts_leave_mauchly_undefined() -> None:
    y = np.random.default_rng(0).normal(size=(3, 5))
    row = rm_anova.run(Scores("y", ("f",), (tuple("abcde"),), tuple("123"), y)).iloc[0]
    assert np.isnan(row["mauchly_w"])
    assert 0 < row["p_gg"] < 1


def test_a_factor_with_one_level_is_named() -> None:
    with pytest.raises(BadInput, match="within factor 'test' has one level \\(emovo\\)"):
        rm_anova.run(Scores("y", ("model", "test"), (("a", "b"), ("emovo",)), ("1", "2"), np.ones((2, 2))))


def test_fewer_than_two_complete_blocks_are_refused() -> None:
    y = np.array([[0.1, np.nan], [0.2, 0.3]])
    with pytest.raises(BadInput, match="1 of the 2 blocks have one"):
        rm_anova.run(Scores("y", ("model",), (("a", "b"),), ("1", "2"), y))


def test_noncentral_interval_inverts_the_distribution() -> None:
    from scipy.stats import ncf

    for f, df1, df2 in ((5.2, 2, 18), (1666.3, 1, 9), (15140.9, 1, 872)):
        low, high = noncentrality_interval(f, df1, df2)
        assert ncf.cdf(f, df1, df2, low) == pytest.approx(0.95, abs=1e-6)
        assert ncf.cdf(f, df1, df2, high) == pytest.approx(0.05, abs=1e-6)
    assert noncentrality_interval(0.001, 2, 18) == (0.0, 0.0)
    assert partial_eta2_interval(0.5, 1, 9)[0] == 0.0
