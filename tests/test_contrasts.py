from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_analysis.methods import contrasts, signflip
from ser_analysis.scores import Scores, pivot

ORACLE = Path(__file__).parent / "oracle"
FACTORS = ["arch", "finetune", "test"]


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
    return frame.assign(
        uar=frame["uar"].astype(float), n_train=80.0, n_test=20.0, in_domain=frame["test"] == "indomain"
    )


@pytest.fixture(scope="module")
def pairs(table: pd.DataFrame) -> pd.DataFrame:
    return contrasts.run(pivot(table, dv="uar", factors=FACTORS, block="seed", where=["test"]))


@pytest.mark.parametrize("test", ["indomain", "crosscorpus"])
def test_all_pairs_match_r(pairs: pd.DataFrame, oracle: dict[str, Any], test: str) -> None:
    ours = pairs[pairs["at"] == f"test={test}"].set_index(["a", "b"])
    expected = oracle[f"pairs_{test}"]
    assert list(ours.index) == [(row["a"], row["b"]) for row in expected["pairs"]]
    for row in expected["pairs"]:
        mine = ours.loc[(row["a"], row["b"])]
        for column in ("mean_diff", "sd_diff", "t", "d_z", "d_av", "r", "prob_a_gt_b_paired", "prob_a_gt_b_unpaired"):
            assert mine[column] == closed(row[column]), column
        assert mine["hedges_gz_exactJ"] == pytest.approx(row["hedges_gz_exactJ"], rel=5e-4)
        assert (mine["n"], mine["df"]) == (row["n"], row["df"])
        assert [mine["ci95_low"], mine["ci95_high"]] == closed(row["ci95"])
        assert mine["p"] == p_value(row["p"])
        assert mine["signflip_exact_p"] == pytest.approx(row["signflip_exact_p"], abs=1e-12)
    for row in expected["adjusted"]:
        mine = ours.loc[(row["a"], row["b"])]
        assert mine["p_holm"] == p_value(row["p_holm"])
        assert mine["signflip_p_holm"] == pytest.approx(row["p_signflip_holm"], abs=1e-9)


def test_nadeau_bengio_matches_r_and_stands_in_domain_only(pairs: pd.DataFrame, oracle: dict[str, Any]) -> None:
    ours = pairs[pairs["at"] == "test=indomain"].set_index(["a", "b"])
    for row in oracle["pairs_indomain"]["pairs"]:
        mine, expected = ours.loc[(row["a"], row["b"])], row["nadeau_bengio"]
        for column in ("ratio_test_train", "rho", "se", "t"):
            assert mine[f"nb_{column}"] == closed(expected[column])
        assert mine["nb_p"] == p_value(expected["p"])
        assert [mine["nb_ci95_low"], mine["nb_ci95_high"]] == closed(expected["ci95"])
    assert pairs.loc[pairs["at"] != "test=indomain", "nb_p"].isna().all()


def test_marginal_contrasts_match_r(pairs: pd.DataFrame, oracle: dict[str, Any]) -> None:
    marginal = pairs[pairs["averaged_over"] != ""].set_index(["a", "b"])
    for sides, name, sign in (
        (("no", "yes"), "finetune", -1),
        (("crosscorpus", "indomain"), "test", -1),
        (("hubert", "wavlm"), "wavlm_minus_hubert", -1),
    ):
        mine, expected = marginal.loc[sides], oracle["contrast_scores"][name]
        assert sign * mine["mean_diff"] == closed(expected["mean"])
        assert sign * mine["t"] == closed(expected["t"])
        assert mine["p"] == p_value(expected["p"])
        assert sorted([sign * mine["ci95_low"], sign * mine["ci95_high"]]) == closed(expected["ci95"])
        assert mine["signflip_exact_p"] == pytest.approx(expected["signflip_exact_p"], abs=1e-12)


def test_holm_stays_within_its_family(pairs: pd.DataFrame) -> None:
    sizes = pairs.groupby(["family", "at"], sort=False).size()
    assert dict(sizes) == {
        ("arch+finetune", "test=crosscorpus"): 15,
        ("arch+finetune", "test=indomain"): 15,
        ("arch", ""): 3,
        ("finetune", ""): 1,
        ("test", ""): 1,
    }
    alone = pairs[pairs["family"] == "finetune"].iloc[0]
    assert alone["p_holm"] == alone["p"]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(-20, 20), min_size=1, max_size=9))
def test_signflip_equals_brute_force(counts: list[int]) -> None:
    # Shares of a hundred clips: ties between sums are the rule, and rounding must not break them.
    difference = np.array(counts) / 100
    signs = np.array(np.meshgrid(*[[-1, 1]] * len(counts))).reshape(len(counts), -1)
    sums = np.abs(np.array(counts) @ signs)
    assert signflip.p_value(difference) == pytest.approx(float((sums >= abs(sum(counts))).mean()), abs=1e-12)


def test_signflip_floor_is_two_over_two_to_the_n() -> None:
    for n in range(2, 13):
        assert signflip.p_value(np.linspace(0.01, 0.02, n)) == pytest.approx(2 / 2**n, abs=1e-15)


def test_beyond_twenty_blocks_signs_are_drawn_from_the_seed() -> None:
    difference = np.random.default_rng(3).normal(0.3, 1.0, size=21)
    drawn = signflip.p_value(difference, rng_seed=1)
    assert drawn == signflip.p_value(difference, rng_seed=1)
    assert drawn != signflip.p_value(difference, rng_seed=2)
    exact = float((np.abs(_all_sums(difference)) >= abs(difference.sum()) - 1e-12).mean())
    assert drawn == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / signflip.DRAWS) + 1e-5)
    row = contrasts.compare(difference, np.zeros(21))
    assert math.isnan(row["signflip_exact_p"])
    assert 0 < row["signflip_mc_p"] < 1


def test_a_pair_uses_every_block_that_has_both_sides(table: pd.DataFrame) -> None:
    one_model = table[(table["arch"] == "hubert") & (table["test"] == "indomain")]
    scores = pivot(one_model.drop(index=one_model.index[0]), dv="uar", factors=["finetune"], block="seed")
    assert contrasts.run(scores)["n"].tolist() == [9]
    missing_elsewhere = table[~((table["arch"] == "wavlm") & (table["seed"] == "s01"))]
    all_pairs = contrasts.run(pivot(missing_elsewhere, dv="uar", factors=FACTORS, block="seed", where=["test"]))
    told = all_pairs[all_pairs["at"] == "test=indomain"].set_index(["a", "b"])["n"]
    assert told["hubert+no", "wav2vec2+no"] == 10
    assert told["hubert+no", "wavlm+no"] == 9


def test_constant_differences_have_no_t_but_a_signflip_p() -> None:
    a = np.array([0.5, 0.6, 0.7, 0.81])
    row = contrasts.compare(a + 0.05, a)
    assert np.isnan([row["t"], row["p"], row["d_z"]]).all()
    assert row["signflip_exact_p"] == 2 / 2**4
    assert row["prob_a_gt_b_paired"] == 1.0


def test_swapping_the_sides_flips_the_signs_only() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 8))
    one, two = contrasts.compare(a, b), contrasts.compare(b, a)
    for column in ("mean_diff", "t", "d_z", "g_av"):
        assert one[column] == pytest.approx(-two[column])
    assert one["p"] == pytest.approx(two["p"])
    assert one["prob_a_gt_b_ci95_low"] == pytest.approx(1 - two["prob_a_gt_b_ci95_high"])


def test_ties_count_half_and_wilson_covers_the_share() -> None:
    row = contrasts.compare(np.array([0.1, 0.2, 0.3, 0.5]), np.array([0.1, 0.1, 0.4, 0.1]))
    assert row["prob_a_gt_b_paired"] == 0.625
    assert 0 < row["prob_a_gt_b_ci95_low"] < 0.625 < row["prob_a_gt_b_ci95_high"] < 1


def test_hedges_g_av_by_hand() -> None:
    a, b = np.array([0.70, 0.75, 0.80]), np.array([0.60, 0.72, 0.69])
    d_av = (a - b).mean() / ((a.std(ddof=1) + b.std(ddof=1)) / 2)
    j = math.gamma(1) / (math.sqrt(1) * math.gamma(0.5))
    assert contrasts.compare(a, b)["g_av"] == pytest.approx(d_av * j)


def test_one_level_gives_no_pairs() -> None:
    scores = Scores("uar", ("model",), (("only",),), ("1", "2"), np.ones((2, 1)))
    assert contrasts.run(scores).empty


def _all_sums(difference: np.ndarray) -> np.ndarray:
    sums = np.zeros(1)
    for value in difference:
        sums = np.concatenate([sums + value, sums - value])
    return sums
