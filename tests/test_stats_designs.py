"""Whole analyses of published designs, wrong tables, and the statistics' known pitfalls."""

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

from ser_analysis.effect_sizes import noncentral_t_interval
from ser_analysis.methods import (
    assumptions,
    bayes,
    between_anova,
    contrasts,
    friedman,
    logit,
    marginal_means,
    oneway,
    rm_anova,
    signflip,
    tost,
    tukey,
    two_groups,
)
from ser_analysis.scores import Scores, pivot, rows_of
from ser_analysis.table import stats_of_csv
from ser_eval.errors import BadInput

ORACLE = Path(__file__).parent / "oracle"
OBK = {
    "treatment": (2, 10, 22.81, 3.94, 0.055), "gender": (1, 10, 22.81, 3.66, 0.085),
    "treatment:gender": (2, 10, 22.81, 2.86, 0.104), "phase": (1.60, 15.99, 5.02, 16.13, 0.0003),
    "treatment:phase": (3.20, 15.99, 5.02, 4.85, 0.013), "gender:phase": (1.60, 15.99, 5.02, 0.28, 0.709),
    "treatment:gender:phase": (3.20, 15.99, 5.02, 0.64, 0.612), "hour": (1.84, 18.41, 3.39, 16.69, 0.0001),
    "treatment:hour": (3.68, 18.41, 3.39, 0.09, 0.979), "gender:hour": (1.84, 18.41, 3.39, 0.45, 0.628),
    "treatment:gender:hour": (3.68, 18.41, 3.39, 0.62, 0.641), "phase:hour": (3.60, 35.96, 2.67, 1.18, 0.335),
    "treatment:phase:hour": (7.19, 35.96, 2.67, 0.35, 0.930), "gender:phase:hour": (3.60, 35.96, 2.67, 0.93, 0.449),
    "treatment:gender:phase:hour": (7.19, 35.96, 2.67, 0.74, 0.646),
}  # fmt: skip
"""df (Greenhouse-Geisser), MSE, F, p of the data of O'Brien & Kaiser (1985), from the documentation of R's afex."""

OBK_ROWS = pd.read_csv(ORACLE / "obk.csv", dtype=str).astype({"value": float})


@pytest.fixture(autouse=True)
def figures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes most of the time, so only the tests named here draw."""
    if "drawn" not in request.node.name:
        monkeypatch.setattr("ser_analysis.figures.draw", lambda out, analysis: [])


def analysed(out: Path, csv: Path, **options: Any) -> dict[str, Any]:
    stats_of_csv(csv, out=out, **options)
    answer: dict[str, Any] = json.loads((out / "stats.json").read_text())
    return answer


def table(tmp_path: Path, rows: list[dict[str, Any]] | pd.DataFrame) -> Path:
    file = tmp_path / "table.csv"
    pd.DataFrame(rows).to_csv(file, index=False)
    return file


def blocks(seed: int, n: int, cells: int, *, names: str = "abcdefgh") -> Scores:
    y = np.random.default_rng(seed).normal(0.6, 0.05, size=(n, cells))
    return Scores("uar", ("model",), (tuple(names[:cells]),), tuple(map(str, range(n))), y, block_name="seed")


# Mixed designs


def test_an_unbalanced_mixed_anova_matches_the_published_one() -> None:
    scores = pivot(OBK_ROWS, dv="value", factors=["phase", "hour"], block="id", between=["treatment", "gender"])
    ours = {str(row["term"]): row for row in rows_of(rm_anova.run(scores))}
    assert set(ours) == set(OBK)
    for term, (df1, df2, mse, f, p) in OBK.items():
        row = ours[term]
        eps = 1.0 if math.isnan(row["gg_eps"]) else row["gg_eps"]
        assert (row["df1"] * eps, row["df2"] * eps) == pytest.approx((df1, df2), abs=0.006)
        assert row["mse"] / eps == pytest.approx(mse, abs=0.006)
        assert row["F"] == pytest.approx(f, abs=0.006)
        assert (row["p"] if math.isnan(row["p_gg"]) else row["p_gg"]) == pytest.approx(p, abs=6e-4)
    # R's car, on the same data.
    for term, gg, hf, w, w_p in (
        ("phase", 0.79953, 0.92786, 0.74927, 0.27282),
        ("hour", 0.46028, 0.55928, 0.06607, 0.00760),
        ("phase:hour", 0.44950, 0.73306, 0.00478, 0.44939),
    ):
        row = ours[term]
        assert (row["gg_eps"], row["hf_eps"]) == pytest.approx((gg, hf), abs=6e-6)
        assert (row["mauchly_w"], row["mauchly_p"]) == pytest.approx((w, w_p), abs=6e-6)


def test_a_mixed_design_comes_out_of_a_table(tmp_path: Path) -> None:
    frame = OBK_ROWS[OBK_ROWS["hour"] == "3"]
    content = analysed(
        tmp_path / "out",
        table(tmp_path, frame),
        dv="value",
        within=["phase"],
        between=["treatment", "gender"],
        block="id",
    )
    told = [row["term"] for row in content["rm_anova"]["table"]]
    assert told == [
        "treatment", "gender", "phase", "treatment:gender", "treatment:phase", "gender:phase", "treatment:gender:phase",
    ]  # fmt: skip
    assert content["audit"]["between"]["treatment"] == ["A", "B", "control"]
    # Groups weigh the same whatever their sizes, so a marginal mean is that of the means of its groups.
    means = frame.groupby(["treatment", "gender"])["value"].mean()
    assert content["emmeans_gender"][0]["emmean"] == pytest.approx(means.xs("F", level="gender").mean())
    assert frame.loc[frame["gender"] == "F", "value"].mean() != pytest.approx(content["emmeans_gender"][0]["emmean"])
    assert {row["at"] for row in content["pairs"]} == {
        "", "treatment=A", "treatment=B", "treatment=control", "gender=F", "gender=M",
    }  # fmt: skip
    assert {(row["factor"], row["at"]) for row in content["two_group"]} >= {("treatment", ""), ("gender", "phase=fup")}
    assert {row["stratum"] for row in content["rm_strata"]} == {"Error: id", "Error: id:phase"}
    assert content["lmm"]["random"] == "(1|id)"


def test_three_levels_and_two_within_factors_match_the_published_anova(tmp_path: Path) -> None:
    """Maxwell & Delaney (2004), table 12.6; generalised eta2 from Olejnik & Algina (2003)."""
    content = analysed(tmp_path, ORACLE / "md_12_1.csv", dv="rt", within=["angle", "noise"], block="id")
    ours = {row["term"]: row for row in content["rm_anova"]["univariate"]}
    for term, f, ss, error, df1, df2 in (
        ("angle", 40.72, 289920, 64080, 2, 18),
        ("noise", 33.77, 285660, 76140, 1, 9),
        ("angle:noise", 45.31, 105120, 20880, 2, 18),
    ):
        row = ours[term]
        assert row["F value"] == pytest.approx(f, abs=0.005)
        assert (row["Sum Sq"], row["Error SS"], row["num Df"], row["den Df"]) == pytest.approx((ss, error, df1, df2))
    noise = next(row for row in content["rm_anova"]["table"] if row["term"] == "noise")
    assert noise["eta2_g"] == pytest.approx(0.39, abs=0.005)


def test_a_mixed_design_of_two_cells_is_a_t_test_of_means_and_of_differences() -> None:
    rng = np.random.default_rng(2)
    y, groups = rng.normal(size=(11, 2)), (("f",),) * 4 + (("m",),) * 7
    scores = Scores(
        "y", ("test",), (("in", "out"),), tuple(map(str, range(11))), y, block_name="id", between=("gender",),
        between_levels=(("f", "m"),), groups=groups,
    )  # fmt: skip
    ours = rm_anova.run(scores).set_index("term")
    women, men = y[:4], y[4:]
    for term, values in (("gender", y.mean(axis=1)), ("gender:test", y[:, 0] - y[:, 1])):
        t = two_groups.run(values[:4], values[4:])["student_t"]
        assert ours.loc[term, "F"] == pytest.approx(t["t"] ** 2)
        assert ours.loc[term, "p"] == pytest.approx(t["p"])
    # The mean of the groups' differences against their pooled spread: groups weigh the same whatever their sizes.
    d, e = women[:, 0] - women[:, 1], men[:, 0] - men[:, 1]
    pooled = (3 * d.var(ddof=1) + 6 * e.var(ddof=1)) / 9
    t = (d.mean() + e.mean()) / math.sqrt(pooled * (1 / 4 + 1 / 7))
    assert ours.loc["test", "F"] == pytest.approx(t**2)


def test_replicates_are_averaged_and_the_mixed_model_takes_each(tmp_path: Path) -> None:
    options = {"dv": "score", "within": ["Machine"], "block": "Worker"}
    with pytest.raises(BadInput, match=r"lines 2 and 3 and 4: several rows for Worker=1, Machine=A; .* --replicates"):
        analysed(tmp_path, ORACLE / "machines.csv", **options)
    content = analysed(tmp_path, ORACLE / "machines.csv", replicates=True, **options)
    (anova,) = content["lmm"]["anova_type3_satterthwaite"]
    assert (anova["df1"], anova["df2"]) == pytest.approx((2, 10))
    assert anova["F"] == pytest.approx(20.576, abs=1e-3)
    assert anova["p"] == pytest.approx(2.9e-4, abs=1e-5)  # pitfall 2: Wald says 1e-9
    assert content["lmm"]["n"] == 54
    # The means of balanced replicates lead to the same F.
    assert content["rm_anova"]["table"][0]["F"] == pytest.approx(anova["F"], rel=1e-6)


def test_random_terms_can_be_given(tmp_path: Path) -> None:
    options = {"dv": "yield", "within": ["variety", "nitro"], "block": "block"}
    content = analysed(tmp_path, ORACLE / "oats.csv", random="(1|block) + (1 | block:nitro)", **options)
    assert content["lmm"]["random"] == "(1|block:nitro) + (1|block)"
    assert content["lmm"]["singular"]
    assert any("estimates no variance for block:nitro" in fact for fact in content["facts"])
    for wrong in ("(1|plot)", "block", "(nitro|block)", "(1|block:block)", ""):
        with pytest.raises(BadInput, match=r"is no random term; expected \(1\|column\).* block, variety, nitro"):
            analysed(tmp_path, ORACLE / "oats.csv", random=wrong, **options)
    named = analysed(tmp_path, ORACLE / "oats.csv", test=["variety"], **options)
    assert {row["stratum"] for row in named["split_plot_strata"]} >= {"Error: block:nitro"}


def test_missing_cells_leave_pairs_and_mixed_model(tmp_path: Path) -> None:
    """Complete blocks for the omnibus, available cases for pairs, everything for the mixed model; nothing imputed."""
    frame = pd.read_csv(ORACLE / "ser_unbalanced.csv", dtype=str)
    content = analysed(
        tmp_path, ORACLE / "ser_unbalanced.csv", dv="uar", within=["arch", "finetune", "corpus"], block="seed"
    )
    assert "rm_anova" not in content
    assert any(fact.startswith("T1: 0 of 10 blocks has a score in every cell") for fact in content["facts"])
    assert content["lmm_seed"]["n"] == len(frame) == content["n"]
    cell = frame[(frame["finetune"] == "no") & (frame["corpus"] == "emodb")]
    seeds = [set(cell.loc[cell["arch"] == arch, "seed"]) for arch in ("hubert", "wavlm")]
    pair = next(row for row in content["pairs"] if (row["a"], row["b"]) == ("hubert+no+emodb", "wavlm+no+emodb"))
    assert pair["n"] == len(set.intersection(*seeds))


# Ranks


def test_friedman_names_its_tie_correction(tmp_path: Path) -> None:
    """Pitfall 4: R and scipy say 10.23, Demsar's paper prints 9.28."""
    content = analysed(tmp_path, ORACLE / "demsar2006_table6.csv", wide=True, block="dataset")
    assert content["friedman_tie_corrected"]["chi2"] == pytest.approx(10.23, abs=0.005)
    assert content["friedman_no_tie_correction"]["chi2"] == pytest.approx(9.28, abs=0.005)
    assert content["iman_davenport_no_tie"]["F"] == pytest.approx(3.69, abs=0.005)
    assert content["CD_nemenyi_05"] == pytest.approx(1.25, abs=0.005)
    assert content["target"]["code"] == "T3"  # blocks are data sets
    assert all(line.startswith("T3") for line in content["findings"])
    assert any("Friedman, corrected for ties" in line for line in content["omnibus"])


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(2, 12), k=st.integers(3, 6), digits=st.integers(1, 3))
def test_friedman_equals_scipy(seed: int, n: int, k: int, digits: int) -> None:
    from scipy.stats import friedmanchisquare

    y = np.random.default_rng(seed).random((n, k)).round(digits)
    told, pairs = friedman.run(y, list("abcdef"[:k]))
    theirs = friedmanchisquare(*y.T)
    assert told["friedman_tie_corrected"]["chi2"] == pytest.approx(float(theirs.statistic), nan_ok=True)
    assert sum(told["mean_ranks"].values()) == pytest.approx(k * (k + 1) / 2)
    assert ((pairs["p_nemenyi"] > 0.05) == (pairs["rank_diff"].abs() < told["CD_nemenyi_05"])).all()
    for group in friedman.cliques(told):
        ranks = [told["mean_ranks"][name] for name in group]
        assert max(ranks) - min(ranks) < told["CD_nemenyi_05"]


def test_cliques_join_what_is_within_the_critical_difference() -> None:
    told = {"mean_ranks": {"a": 1.0, "b": 1.8, "c": 2.6, "d": 4.0, "e": 9.0}, "CD_nemenyi_05": 2.0}
    assert friedman.cliques(told) == [["a", "b", "c"], ["c", "d"]]


def test_the_signed_rank_test_is_exact_without_ties_only() -> None:
    exact = friedman.wilcoxon(np.array([0.1, -0.2, 0.3, 0.45, 0.5, 0.61]))
    assert (exact["V"], exact["exact"], exact["p"]) == (19, True, 0.09375)
    tied = friedman.wilcoxon(np.array([0.1, -0.1, 0.3, 0.0, 0.5, 0.61]))
    assert (tied["V"], tied["exact"]) == (13.5, False)
    assert math.isnan(friedman.wilcoxon(np.zeros(4))["p"])


def test_the_critical_difference_diagram_is_drawn_the_same_each_time(tmp_path: Path) -> None:
    for name in ("one", "two"):
        stats_of_csv(ORACLE / "demsar2006_table6.csv", wide=True, block="dataset", out=tmp_path / name)
    files = [{file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in ("one", "two")]
    assert {"cd.pdf", "cd.png"} <= set(files[0])
    assert files[0] == files[1]


# One family of pairs


def test_max_t_equals_brute_force_and_costs_less_than_holm() -> None:
    rng = np.random.default_rng(7)
    base = rng.normal(0.02, 0.02, size=(7, 1))
    d = base + rng.normal(0, 0.005, size=(7, 4))
    ours = signflip.max_t(d)
    signs = np.array(np.meshgrid(*[[-1, 1]] * 7)).reshape(7, -1).T
    flipped = signs[:, :, None] * d
    t = np.abs(flipped.mean(axis=1)) / (flipped.std(axis=1, ddof=1) / math.sqrt(7))
    observed = np.abs(d.mean(axis=0)) / (d.std(axis=0, ddof=1) / math.sqrt(7))
    assert ours == pytest.approx((t.max(axis=1)[:, None] >= observed - 1e-9).mean(axis=0), abs=1e-12)
    single = np.array([signflip.p_value(column) for column in d.T])
    assert (ours <= np.minimum(1, 4 * single) + 1e-12).all()
    assert (ours >= single - 1e-12).all()


def test_max_t_keeps_the_error_of_the_whole_family() -> None:
    rng = np.random.default_rng(12)
    wrong = 0
    for _ in range(300):
        y = rng.normal(size=(8, 1)) + rng.exponential(size=(8, 4))  # four models alike, and no normality
        d = np.column_stack([y[:, i] - y[:, j] for i in range(4) for j in range(i)])
        wrong += bool((signflip.max_t(d) <= 0.05).any())
    assert wrong / 300 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 300)


def test_max_t_beyond_twenty_blocks_is_drawn_from_the_seed() -> None:
    d = np.random.default_rng(1).normal(0.2, 1.0, size=(24, 3))
    one = signflip.max_t(d, rng_seed=5)
    assert (one == signflip.max_t(d, rng_seed=5)).all()
    assert (one != signflip.max_t(d, rng_seed=6)).any()
    assert np.isnan(signflip.max_t(np.column_stack([d[:, 0], np.zeros(24)]))[1])


def test_equivalence_is_the_90_percent_interval_within_the_margin() -> None:
    rng = np.random.default_rng(3)
    for scale in (0.002, 0.01, 0.03):
        d = rng.normal(0.001, scale, size=9)
        from scipy.stats import t

        half = t.ppf(0.95, 8) * d.std(ddof=1) / 3
        inside = abs(d.mean()) + half < 0.01
        assert (tost.run(d, 0.01)["p"] < 0.05) == inside
    assert math.isnan(tost.run(np.zeros(5), 0.01)["p"])


def test_no_difference_is_claimed_by_equivalence_only(tmp_path: Path) -> None:
    rng = np.random.default_rng(11)
    rows = [
        {"seed": f"s{s}", "model": m, "uar": round(0.7 + 0.01 * s + spread * rng.normal(), 6)}
        for s in range(12)
        for m, spread in (("a", 0.001), ("b", 0.001), ("c", 0.05))
    ]
    content = analysed(tmp_path / "out", table(tmp_path, rows), dv="uar", within=["model"], block="seed")
    near, far = (
        next(row for row in content["pairs"] if (row["a"], row["b"]) == pair) for pair in (("a", "b"), ("a", "c"))
    )
    assert near["tost"]["p_holm"] < 0.05 < far["tost"]["p_holm"]
    assert "equivalent within +-1.00 UAR points (TOST Holm p < .001)" in content["findings"][0]
    assert "which does not show them equal" in content["findings"][1]
    wide = analysed(tmp_path / "out", table(tmp_path, rows), dv="uar", within=["model"], block="seed", margin=0.2)
    assert wide["pairs"][1]["tost"]["p_holm"] < 0.05
    assert "tost_margin_01" not in wide["pairs"][1]


def test_probabilities_of_the_correlated_t_add_up() -> None:
    told = bayes.run(0.02, 0.01, 9, 0.01)
    assert told["p_left"] + told["p_rope"] + told["p_right"] == pytest.approx(1)
    assert told["p_right"] > told["p_rope"] > told["p_left"]
    assert math.isnan(bayes.run(0.02, math.nan, 9, 0.01)["p_rope"])


@pytest.mark.parametrize(("t", "df"), [(-0.92, 9), (0.0, 3), (2.5, 1), (40.8, 9), (7.27, 29), (12, 500), (300, 2)])
def test_the_noncentral_t_interval_inverts_the_distribution(t: float, df: float) -> None:
    """Pitfall 6: scipy's CDF is NaN in far tails, the interval is not."""
    from scipy.special import nctdtr

    low, high = noncentral_t_interval(t, df)
    assert nctdtr(df, low, t) == pytest.approx(0.975, abs=1e-6)
    assert nctdtr(df, high, t) == pytest.approx(0.025, abs=1e-6)
    low, high = noncentral_t_interval(1e6, 9)
    assert 0 < low < 1e6 < high


# Between groups


def test_bartlett_takes_whole_numbers() -> None:
    """Pitfall 6: scipy's fails on integer arrays."""
    groups = [np.array([1, 2, 4]), np.array([2, 5, 9, 7])]
    checks = assumptions.run(groups, np.array([-1.0, 0.2, 0.8, -0.5, 0.5]))
    assert "bartlett_cells" in set(checks["check"])


def test_spread_is_divided_by_n_minus_one(tmp_path: Path) -> None:
    """Pitfall 7."""
    content = analysed(tmp_path, ORACLE / "toothgrowth.csv", dv="len", between=["supp"])
    frame = pd.read_csv(ORACLE / "toothgrowth.csv")
    assert content["cells"][0]["sd"] == pytest.approx(np.std(frame.loc[frame["supp"] == "OJ", "len"], ddof=1))


def test_an_effect_within_an_interaction_does_not_stand_alone(tmp_path: Path) -> None:
    """Pitfall 9."""
    content = analysed(
        tmp_path, ORACLE / "ser_blocked.csv", dv="uar", within=["arch", "finetune", "test"], block="seed"
    )
    warned = [line for line in content["findings"] if "does not stand alone" in line]
    assert any("finetune:test: p = .006" in line for line in warned)
    simple = content["simple_finetune_within_arch_test_holm"]
    assert len(simple) == 6
    assert {row["at"] for row in simple} >= {"arch=hubert, test=indomain"}


def test_welch_of_two_groups_is_the_square_of_its_t() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=9), rng.normal(1, 3, size=14)
    t = two_groups.run(a, b)["welch_t"]
    f = oneway.welch([a, b])
    assert (f["F"], f["df2"], f["p"]) == pytest.approx((t["t"] ** 2, t["df"], t["p"]))


def test_post_hoc_tests_match_statsmodels() -> None:
    from statsmodels.stats.multicomp import pairwise_tukeyhsd

    rng = np.random.default_rng(4)
    groups = {name: rng.normal(mean, 1, size=n) for name, mean, n in (("a", 0, 8), ("b", 1, 11), ("c", 0.4, 9))}
    values, labels = np.concatenate(list(groups.values())), np.repeat(list(groups), [8, 11, 9])
    theirs = pairwise_tukeyhsd(values, labels)
    mse = sum(((x - x.mean()) ** 2).sum() for x in groups.values()) / 25
    ours = tukey.hsd(groups, mse=mse, df=25)
    assert ours["diff"].to_numpy() == pytest.approx(theirs.meandiffs)
    assert ours["p adj"].to_numpy() == pytest.approx(theirs.pvalues, rel=1e-4)
    assert ours[["lwr", "upr"]].to_numpy() == pytest.approx(theirs.confint, rel=1e-4)
    assert tukey.games_howell({"a": np.ones(3), "b": np.array([1.0, 2.0])}).empty


def test_marginal_means_weigh_cells_the_same() -> None:
    rows = pd.DataFrame({"f": list("aaabb"), "g": list("xxyxy"), "y": [1.0, 3.0, 5.0, 2.0, 4.0]})
    rows = pd.concat([rows, rows.assign(y=rows["y"] + 0.5)])
    cells = between_anova.cells(rows, dv="y", factors=["f", "g"])
    means = marginal_means.means(cells, "f").set_index("f")["emmean"]
    assert means["a"] == pytest.approx((2.25 + 5.25) / 2)
    assert rows.loc[rows["f"] == "a", "y"].mean() != pytest.approx(means["a"])
    difference = marginal_means.interaction(cells, "f", "g")["estimate"]
    assert difference.tolist() == pytest.approx([(2.25 - 2.25) - (5.25 - 4.25)])


def test_factors_may_have_the_names_of_columns(tmp_path: Path) -> None:
    frame = pd.read_csv(ORACLE / "toothgrowth.csv", dtype=str).rename(columns={"supp": "a", "dose": "b"})
    content = analysed(tmp_path / "out", table(tmp_path, frame), dv="len", between=["a", "b"])
    rows = content["emmeans_a_within_b_holm"]
    assert [(row["a"], row["b"], row["at"]) for row in rows][:2] == [("OJ", "VC", "b=0.5"), ("OJ", "VC", "b=1")]


def test_a_published_table_wants_whole_cells(tmp_path: Path) -> None:
    frame = pd.read_csv(ORACLE / "seed_paper_table2.csv", dtype=str)
    options = {"dv": "mean", "between": ["arch", "finetune", "test"], "cell_sd": "sd", "cell_n": "n"}
    for edited, changes, message in (
        (frame.iloc[1:], {}, "7 of the 8 cells"),
        (pd.concat([frame, frame.head(1)]), {}, "line 2: the cell stands there more than once"),
        (frame.assign(sd="-1"), {}, "line 2: sd = -1; expected an SD of 0 or more"),
        (frame.assign(n="1"), {}, "line 2: n = 1; expected a whole number of 2 or more"),
        (frame.assign(sd="0"), {}, "every sd is 0"),
        (frame, {"cell_n": None}, "both --cell-sd and --cell-n"),
        (frame, {"block": "n"}, "without --block"),
    ):
        with pytest.raises(BadInput, match=message):
            analysed(tmp_path / "out", table(tmp_path, edited), **{**options, **changes})


# Scale


def test_the_logit_scale_is_a_companion_and_nothing_is_nudged(tmp_path: Path) -> None:
    scores = blocks(1, 6, 3)
    moved = logit.transform(scores)
    assert moved is not None
    assert 1 / (1 + np.exp(-moved.values)) == pytest.approx(scores.values)
    scores.values[0, 0] = 1.0
    assert logit.transform(scores) is None
    content = analysed(
        tmp_path, ORACLE / "ser_blocked.csv", dv="uar", within=["arch", "finetune", "test"], block="seed"
    )
    assert any("arch:test: on the logit scale p = .411, in points p = .013" in line for line in content["omnibus"])


# Wrong tables: a sentence each


def seeds(**changes: Any) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = [
        {"seed": f"s{s}", "model": m, "test": t, "uar": f"{0.6 + 0.05 * rng.normal():.4f}"}
        for s in range(4)
        for m in ("m1", "m2", "m3")
        for t in ("in", "out")
    ]
    return pd.DataFrame(rows).assign(**changes)


@pytest.mark.parametrize(
    ("frame", "options", "message"),
    [
        (seeds()[seeds()["seed"] == "s0"], {}, r"'seed' has one level \(s0\); a test over blocks needs at least two"),
        (seeds()[seeds()["model"] == "m1"], {}, r"within factor 'model' has one level \(m1\)"),
        (seeds(uar="0.5"), {}, "every uar is 0.5; scores that do not vary cannot be compared"),
        (seeds(uar="nan"), {}, "line 2: uar = 'nan' is not a number"),
        (seeds(uar=""), {}, "no row has a value of uar"),
        (seeds(uar="61.2"), {}, r"line 2: uar = 61.2 is outside \[0, 1\]; divide percentages by 100"),
        (pd.concat([seeds(), seeds().head(1)]), {}, "lines 2 and 26: several rows for seed=s0, model=m1, test=in"),
        (
            seeds().assign(size=seeds()["model"].map({"m1": "x", "m2": "y", "m3": "z"})),
            {"within": ["model", "size", "test"]},
            "factor 'size' is aliased with 'model': .* cannot be told apart. Leave one of them out",
        ),
        (
            seeds().assign(size=seeds()["model"].map({"m1": "x", "m2": "y", "m3": "y"})),
            {"within": ["model", "size", "test"]},
            "factor 'model' is nested in 'size': .* do not cross. Leave one of them out",
        ),
        (seeds().drop(columns="test"), {}, "no column 'test'; it has seed, model, uar"),
        (
            seeds().assign(seed=seeds()["seed"] + seeds()["model"]),
            {"within": ["model", "test"]},
            "'model' does not vary within any seed; it is a factor of --between",
        ),
        (
            seeds().assign(seed=seeds()["seed"] + seeds()["model"] + seeds()["test"]),
            {},
            "0 of 24 levels of 'seed' have a score in every one of the 6 cells .* no two cells share two of them",
        ),
        (seeds(), {"between": ["seed"], "block": None, "within": []}, None),
        (seeds(), {"between": ["model"], "within": []}, "seed s0 has several rows, .* 'model' varies within it"),
        (seeds(), {"within": ["test"], "between": ["model"]}, "between factor 'model' varies within seed s0"),
        (seeds(), {"test": ["seed"]}, r"--test seed is not one of --within \(model, test\)"),
        (seeds(), {"margin": -1.0}, "--margin -1 must be above 0"),
        (seeds(), {"dv": None}, "name the column of scores with --dv"),
        (seeds(), {"test_train_ratio": "half"}, "--test-train-ratio half: expected a number above 0"),
        (seeds(), {"test_train_ratio": "far=0.2"}, "no test set 'far'; there are in, out"),
        (seeds(), {"between": ["model"], "within": [], "block": None, "margin": 0.1}, "--margin belongs to repeated"),
    ],
)
def test_wrong_tables_are_named(
    tmp_path: Path, frame: pd.DataFrame, options: dict[str, Any], message: str | None
) -> None:
    wanted = {"dv": "uar", "within": ["model", "test"], "block": "seed", **options}
    if message is None:
        assert analysed(tmp_path / "out", table(tmp_path, frame), **wanted)["n"] == 24
        return
    with pytest.raises(BadInput, match=message):
        analysed(tmp_path / "out", table(tmp_path, frame), **wanted)
    assert not (tmp_path / "out").exists()


def test_unequal_seeds_are_counted_and_named(tmp_path: Path) -> None:
    frame = seeds()
    frame = frame[~((frame["seed"] == "s3") & (frame["model"] == "m2"))]
    content = analysed(tmp_path / "out", table(tmp_path, frame), dv="uar", within=["model", "test"], block="seed")
    assert content["audit"]["dropped_blocks"] == ["s3"]
    assert any("2 scores are missing: block=s3, model=m2, test=in" in fact for fact in content["facts"])
    assert content["rm_anova"]["n_blocks"] == 3
    assert content["lmm"]["n"] == 22


@pytest.mark.parametrize(
    ("score", "what"),
    [
        (lambda s, m: 0.5 + 0.01 * s, "not defined, since all ranks are tied"),
        (lambda s, m: 0.1 * (m == "m2") + 0.3, "the scores do not vary against this effect"),
        (lambda s, m: 0.01 * s + 0.05 * (m == "m2"), "the scores do not vary against this effect"),
    ],
)
def test_scores_without_noise_have_no_f_and_no_nan_in_any_sentence(tmp_path: Path, score: Any, what: str) -> None:
    rows = [{"seed": s, "model": m, "uar": score(s, m)} for s in range(2) for m in ("m1", "m2", "m3")]
    content = analysed(tmp_path / "out", table(tmp_path, rows), dv="uar", within=["model"], block="seed")
    told = [*content["facts"], *content["findings"], *content["omnibus"]]
    assert any(what in line for line in told)
    assert any("no mixed model" in line for line in told)
    assert not any("nan" in line for line in told)


def test_wide_tables_are_checked(tmp_path: Path) -> None:
    frame = pd.read_csv(ORACLE / "demsar2006_table6.csv", dtype=str)
    twice = frame.assign(dataset="x")
    with pytest.raises(BadInput, match=r"lines 2 and 3 .*several rows for dataset=x; --wide has one row per block"):
        analysed(tmp_path / "out", table(tmp_path, twice), wide=True, block="dataset")
    with pytest.raises(BadInput, match="column C45 = 'adult_sample' is not a number"):
        analysed(tmp_path / "out", table(tmp_path, frame.assign(C45=frame["dataset"])), wide=True, block="dataset")
    with pytest.raises(BadInput, match="needs two columns of treatments; there is C45"):
        analysed(tmp_path / "out", table(tmp_path, frame), wide=True, block="dataset", within=["C45"])
    frame.loc[3, "C45_m"] = ""
    content = analysed(tmp_path / "out", table(tmp_path, frame), wide=True, block="dataset")
    assert content["friedman"]["N"] == 13
    assert any("1 scores of table.csv are empty" in fact for fact in content["facts"])
    bare = analysed(tmp_path / "out", table(tmp_path, frame.drop(columns="dataset")), wide=True)
    assert bare["friedman"]["friedman_tie_corrected"] == content["friedman"]["friedman_tie_corrected"]


def test_a_ratio_adds_nadeau_bengio_where_it_is_in_domain(tmp_path: Path) -> None:
    content = analysed(
        tmp_path,
        ORACLE / "ser_blocked.csv",
        dv="uar",
        within=["arch", "finetune", "test"],
        block="seed",
        test_train_ratio="indomain=0.25",
    )
    told = {row["at"] for row in content["pairs"] if "nadeau_bengio" in row}
    assert told == {"test=indomain"}
    assert {row["at"] for row in content["pairs"] if "bayes_correlated_t" in row} == told


def test_contrasts_of_one_block_are_undefined_and_not_zero() -> None:
    row = contrasts.compare(np.array([0.7]), np.array([0.6]))
    assert math.isnan(row["p"])
    assert math.isnan(row["d_z_ci95_low"])
    assert math.isnan(row["shapiro_diff_p"])


def test_blocks_that_are_speakers_speak_about_people(tmp_path: Path) -> None:
    content = analysed(
        tmp_path / "out",
        table(tmp_path, seeds().rename(columns={"seed": "speaker"})),
        dv="uar",
        within=["model", "test"],
        block="speaker",
    )
    assert content["target"]["code"] == "T2"
    assert {row["target"] for row in content["pairs"]} == {"T2"}


def test_the_order_of_rows_changes_no_number(tmp_path: Path) -> None:
    frame = pd.read_csv(ORACLE / "ser_unbalanced.csv", dtype=str)
    told = []
    for part in (frame, frame.sample(frac=1, random_state=3)):
        content = analysed(tmp_path / "out", table(tmp_path, part), dv="uar", between=["arch", "finetune", "corpus"])
        content.pop("provenance")
        told.append(content)
    assert told[0] == told[1]


def test_pivot_keeps_the_order_that_is_given() -> None:
    rows = pd.DataFrame({"seed": ["1", "1"], "model": ["b", "a"], "uar": [0.1, 0.2]})
    scores = pivot(rows, dv="uar", factors=["model"], block="seed", order={"model": ["b", "a"]})
    assert scores.levels == (("b", "a"),)
    assert scores.values.tolist() == [[0.1, 0.2]]
