"""Rows in blocks of several (pupils in classes) and no within factor: against lme4, lmerTest, emmeans and car.

`oracle/r_nested.json` holds the source of the data, the options of `ser stats --csv`, versions and R's answers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ser_analysis import nested
from ser_analysis.methods import lmm
from ser_analysis.output import plain
from ser_eval.errors import BadInput
from ser_scripts.cli import app
from tests.tiny import stats_json

ORACLE = Path(__file__).parent / "oracle"
CASES = json.loads((ORACLE / "r_nested.json").read_text(encoding="utf-8"))["cases"]
TIGHT = {"F": 1e-3, "df2": 1e-3, "p": 2e-3, "df1": 1e-12}


@pytest.fixture(autouse=True)
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ser_analysis.figures.draw", lambda out, analysis: [])


def ser(*arguments: object) -> None:
    command: Any = typer.main.get_command(app)
    command.main(["stats", *map(str, arguments)], standalone_mode=False)


def told(out: Path, csv: Path, *options: object) -> dict[str, Any]:
    return stats_json(out, "--csv", csv, *options)


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return {
        case: told(tmp_path_factory.mktemp(case), ORACLE / f"{expected.get('file', case)}.csv", *expected["options"])
        for case, expected in CASES.items()
    }


def of_term(rows: list[dict[str, Any]], term: str) -> dict[str, Any]:
    return next(row for row in rows if set(row["term"].split(":")) == set(term.split(":")))


@pytest.mark.parametrize("case", list(CASES))
def test_random_intercepts_agree_with_lmertest(answers: dict[str, Any], case: str) -> None:
    ours, expected = answers[case], CASES[case]
    assert ours["lmm"]["REML_criterion"] == pytest.approx(expected["REML_criterion"], rel=1e-7)
    assert ours["lmm"]["singular"] == expected["singular"]
    variances = {row["grp"]: row["vcov"] for row in ours["lmm"]["varcomp"]}
    assert variances == pytest.approx(expected["varcomp"], rel=1e-3, abs=1e-9)
    total = sum(expected["varcomp"].values())
    for term, share in ours["lmm"]["icc"].items():
        assert share == pytest.approx(expected["varcomp"][term] / total, rel=1e-3, abs=1e-9)
    for term, values in expected.get("lmm", {}).items():
        row = of_term(ours["lmm"]["anova_type3_satterthwaite"], term)
        for column, value in values.items():
            assert row[column] == pytest.approx(value, rel=TIGHT[column]), f"{term} {column}"


@pytest.mark.parametrize("case", [case for case, expected in CASES.items() if "emmeans" in expected])
def test_marginal_means_and_holm_pairs_agree_with_emmeans(answers: dict[str, Any], case: str) -> None:
    ours, expected = answers[case], CASES[case]
    for factor, levels in expected["emmeans"].items():
        rows = {row[factor]: row for row in ours[f"emmeans_{factor}"]}
        for level, values in levels.items():
            assert {name: rows[level][name] for name in values} == pytest.approx(values, rel=1e-3)
        pairs = {row["contrast"]: row for row in ours[f"emmeans_{factor}_holm"]}
        for pair in expected["pairs"][factor]:
            row = pairs[pair.pop("contrast")]
            assert {name: row[name] for name in pair} == pytest.approx(pair, rel=2e-3, abs=1e-9)


@pytest.mark.parametrize("case", [case for case, expected in CASES.items() if "block_means" in expected])
def test_the_anova_of_block_means_agrees_with_car(answers: dict[str, Any], case: str) -> None:
    for term, values in CASES[case]["block_means"].items():
        row = of_term(answers[case]["block_means_anova_type3"]["table"], term)
        assert {name: row[name] for name in values} == pytest.approx(values, rel=1e-6)


def test_the_mean_alone_has_an_interval_over_blocks(answers: dict[str, Any]) -> None:
    ours, expected = answers["dyestuff"], CASES["dyestuff"]["mean"]
    (mean,) = ours["emmeans"]
    assert {name: mean[name] for name in expected} == pytest.approx(expected, rel=1e-6)
    # Balanced: the interval of the mean of six batch means.
    assert (mean["lower.CL"], mean["upper.CL"]) == pytest.approx(
        (ours["block_means"]["ci95_low"], ours["block_means"]["ci95_high"]), rel=1e-6
    )
    assert ours["Batch_icc"] == pytest.approx(1764.05 / (1764.05 + 2451.25), rel=1e-5)
    assert "1527.5, 95 % CI [1477.7, 1577.3] (5.0 df)" in ours["findings"][0]


def test_what_is_said_of_a_factor_that_varies_within_some_blocks(answers: dict[str, Any]) -> None:
    ours = answers["ratpups"]
    assert ours["audit"]["vary_within_some_blocks"] == ["sex"]
    assert not ours["audit"]["balanced"]
    assert any("sex varies within 26 of 27 levels of Litter" in fact for fact in ours["facts"])
    assert ours["block_means_anova_type3"]["dropped_blocks"] == ["L12"]
    assert sum(row["n"] for row in ours["descriptives"]) == ours["n"] == 322
    # Taken for independent, the rows show an effect of the treatment; the litters do not.
    assert (
        of_term(ours["anova_type3"], "Treatment")["p"]
        < 0.001
        < of_term(ours["lmm"]["anova_type3_satterthwaite"], "Treatment")["p"]
    )
    assert any("mixed model (1|Litter)" in line and "no effect is shown" in line for line in ours["omnibus"])


def test_a_verdict_that_hangs_on_the_method_is_told(answers: dict[str, Any]) -> None:
    ours = answers["pupils_no_icc"]
    assert any("p = .099 of the means of 14 levels of class" in line for line in ours["omnibus"])
    assert any("singular" in fact for fact in ours["facts"])


def pupils(classes: int = 6, each: int = 4, seed: int = 3) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        [
            {"class": f"c{k}", "treatment": "ab"[k % 2], "score": 50 + effect + rng.normal(0, 3)}
            for k, effect in enumerate(rng.normal(0, 4, classes))
            for _ in range(each)
        ]
    ).astype({"class": str})


DESIGN = ["--dv", "score", "--between", "treatment", "--block", "class"]
REFUSED = {
    "a level in one block": (
        lambda t: t[t["class"].isin(["c0", "c1"])], DESIGN, r"each combination of treatment stands in one class",
    ),
    "a factor of every block": (
        lambda t: t.assign(treatment=["a", "b"] * (len(t) // 2)), DESIGN,
        r"'treatment' varies within it and within every other, so it is a factor of --within \(with --replicates\)",
    ),
    "one block": (lambda t: t[t["class"] == "c0"].assign(treatment=["a", "a", "b", "b"]), DESIGN, r"varies within it"),
    "one level": (lambda t: t[t["treatment"] == "a"], DESIGN, r"between factor 'treatment' has one level \(a\)"),
    "an empty cell": (
        lambda t: t.assign(room=np.where(t["class"].isin(["c0", "c2"]), "x", "y")),
        ["--dv", "score", "--between", "treatment,room", "--block", "class"],
        r"1 cell\(s\) of treatment x room hold no row \(treatment=b, room=x\)",
    ),
    "no name of a block": (
        lambda t: t.assign(**{"class": t["class"].replace("c0", "")}), DESIGN, r"line 2: no class",
    ),
    "no spread within blocks": (
        lambda t: t.assign(score=t["class"].str[1:]), DESIGN, r"nothing is left of the scores",
    ),
    "random terms without the block": (None, [*DESIGN, "--random", "(1|treatment)"], r"\(1\|class\) is not among"),
    "an unknown random term": (None, [*DESIGN, "--random", "(1|class) + (1|school)"], r"'\(1\|school\)' is no random"),
    "replicates": (None, [*DESIGN, "--replicates"], r"--replicates belongs to repeated measures"),
    "nothing but a mean": (
        lambda t: t.drop_duplicates("class"), ["--dv", "score", "--block", "class", "--random", "(1|class)"],
        r"--random belongs to repeated measures",
    ),
    "forgotten factors": (
        None, ["--dv", "score", "--block", "class"], r"give factors: .*for a mean over levels of class alone: --random",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", list(REFUSED))
def test_blocks_that_allow_no_mixed_model_are_refused(tmp_path: Path, case: str) -> None:
    change, arguments, message = REFUSED[case]
    table = pupils()
    (change(table) if change else table).to_csv(tmp_path / "table.csv", index=False)
    with pytest.raises(BadInput, match=message):
        ser("--csv", tmp_path / "table.csv", *arguments)
    assert [file.name for file in tmp_path.iterdir()] == ["table.csv"]


def test_blocks_that_keep_one_scored_row_each_are_the_units(tmp_path: Path) -> None:
    table = pupils().astype({"score": str})
    table.loc[table["class"].duplicated(), "score"] = ""
    table.to_csv(tmp_path / "table.csv", index=False)
    ours = told(tmp_path / "out", tmp_path / "table.csv", *DESIGN)
    assert any("Each class has one row, so that it is the unit." in fact for fact in ours["facts"])
    assert "lmm" not in ours


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(4, 9), st.integers(2, 5))
def test_in_a_balanced_design_the_mixed_model_is_the_anova_of_block_means(seed: int, classes: int, each: int) -> None:
    rows = pupils(classes, each, seed)
    ours = analysed(rows)
    (mixed,), (means,) = ours["lmm"]["anova_type3_satterthwaite"], ours["block_means_anova_type3"]["table"]
    if not ours["lmm"]["singular"]:
        assert (mixed["F"], mixed["df2"]) == pytest.approx((means["F"], means["df2"]), rel=1e-4)
    # Neither the order of the rows nor the unit of the scores is information.
    again = analysed(rows.sample(frac=1, random_state=1).assign(score=lambda t: 10 + 2 * t["score"]))
    assert again["lmm"]["anova_type3_satterthwaite"][0]["F"] == pytest.approx(mixed["F"], rel=1e-4, abs=1e-9)
    assert again["class_icc"] == pytest.approx(ours["class_icc"], rel=1e-4, abs=1e-9)


def analysed(rows: pd.DataFrame, **options: Any) -> dict[str, Any]:
    rows = rows.astype({"class": object, "treatment": object})
    wanted = {"dv": "score", "factors": ["treatment"], "block": "class", "target": "T1", **options}
    content: dict[str, Any] = plain(nested.analyse(rows, title="t", provenance={}, **wanted).content)
    return content


def test_the_order_of_rows_changes_no_digit() -> None:
    rows = pupils(7, 3)
    assert analysed(rows) == analysed(rows.sample(frac=1, random_state=5))


def test_predicted_effects_of_blocks_are_their_means_drawn_to_zero() -> None:
    rows = pupils(8, 5)
    codes = rows["class"].str[1:].astype(int).to_numpy(dtype=np.int64)
    design = lmm.Design((), (), rows["score"].to_numpy(dtype=float), {"class": codes}, "class", ())
    _, fitted = lmm.run_design(design, [("class",)])
    fits, residual, effects = lmm.effects_of(fitted, design, [("class",)])
    between, within = fitted.variances
    raw = rows.groupby("class")["score"].mean().to_numpy() - fitted.beta[0]
    assert effects == pytest.approx(raw * 5 * between / (5 * between + within))
    assert fits + residual == pytest.approx(design.y)
    assert fits == pytest.approx(fitted.beta[0] + effects[codes])


def test_blocks_that_are_speakers_make_it_about_people(tmp_path: Path) -> None:
    pupils().rename(columns={"class": "speaker"}).to_csv(tmp_path / "table.csv", index=False)
    ours = told(
        tmp_path / "out", tmp_path / "table.csv", "--dv", "score", "--between", "treatment", "--block", "speaker"
    )
    assert ours["target"]["code"] == ours["lmm"]["target"] == "T2"
    assert all(line.startswith("T2") for line in [*ours["omnibus"], *ours["findings"]])
    report = (tmp_path / "out/report.md").read_text(encoding="utf-8")
    assert "companion of the mixed model" in report
    assert "for comparison with older papers only" in (tmp_path / "out/anova_type3.md").read_text(encoding="utf-8")


def test_true_nulls_are_kept_where_rows_taken_for_units_reject_them() -> None:
    rng, rejected, n = np.random.default_rng(0), np.zeros(2), 250
    for _ in range(n):
        sizes = rng.integers(2, 16, 12)
        classes = np.repeat(np.arange(12), sizes)
        treatment = classes % 2
        y = rng.normal(0, np.sqrt(0.3), 12)[classes] + rng.normal(0, np.sqrt(0.7), len(classes))
        codes = {"treatment": treatment, "class": classes}
        design = lmm.Design(("treatment",), (("a", "b"),), y, codes, "class", ())
        fitted = lmm.fit(y, design.fixed()[0], {"class": classes})
        rejected[0] += fitted.f_test(np.eye(2)[1:])["p"] < 0.05
        rejected[1] += stats.ttest_ind(y[treatment == 0], y[treatment == 1]).pvalue < 0.05
    assert 0.02 < rejected[0] / n < 0.09
    assert rejected[1] / n > 0.2
