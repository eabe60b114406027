"""Further cases of the kinds that papers print, against R: unbalanced mixed designs, missing cells, random intercepts.

`oracle/r_more.json` holds the data's source, the options of `ser stats --csv`, the versions of R's packages and what
they answer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ser_analysis.table import names_in, stats_of_csv
from tests.tiny import stats_json

ORACLE = Path(__file__).parent / "oracle"
MORE = json.loads((ORACLE / "r_more.json").read_text(encoding="utf-8"))["cases"]


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """stats.json of each case."""
    told = {}
    for case, expected in MORE.items():
        random = ["--random", expected["random"]] if "random" in expected else []
        options = ["--csv", ORACLE / f"{case}.csv", *expected["options"], *random]
        told[case] = stats_json(tmp_path_factory.mktemp(case), *options)
    return told


def by_term(rows: list[dict[str, Any]]) -> dict[frozenset[str], dict[str, Any]]:
    return {frozenset(row["term"].split(":")): row for row in rows}


def check(
    rows: list[dict[str, Any]], expected: Mapping[str, Mapping[str, float]], tolerances: Mapping[str, float]
) -> None:
    ours = by_term(rows)
    for term, values in expected.items():
        row = ours[frozenset(term.split(":"))]
        for column, value in values.items():
            tolerance = tolerances.get(column, tolerances[""])
            assert row[column] == pytest.approx(value, rel=tolerance, abs=1e-9), f"{term} {column}"


@pytest.mark.parametrize("case", [case for case, expected in MORE.items() if "rm_anova" in expected])
def test_mixed_and_repeated_measures_agree_with_r(answers: dict[str, Any], case: str) -> None:
    check(answers[case]["rm_anova"]["table"], MORE[case]["rm_anova"], {"": 1e-6, "p": 1e-5, "p_gg": 1e-5, "p_hf": 1e-5})


@pytest.mark.parametrize("case", [case for case, expected in MORE.items() if "lmm" in expected])
def test_random_intercepts_and_missing_cells_agree_with_r(answers: dict[str, Any], case: str) -> None:
    ours, expected = answers[case], MORE[case]
    check(ours["lmm"]["anova_type3_satterthwaite"], expected["lmm"], {"": 1e-3, "p": 1e-2, "df2": 2e-3})
    assert ours["lmm"]["REML_criterion"] == pytest.approx(expected["REML_criterion"], rel=1e-7)
    assert ours["lmm"]["singular"] == expected["singular"]
    factor = names_in(expected["options"][expected["options"].index("--within") + 1])[0]
    means = {row[factor]: row for row in ours[f"emmeans_{factor}"]}
    for level, values in expected["emmeans"].items():
        assert {name: means[level][name] for name in values} == pytest.approx(values, rel=2e-3)


@pytest.mark.parametrize("case", [case for case, expected in MORE.items() if "anova_type3" in expected])
def test_unbalanced_rows_agree_with_r(answers: dict[str, Any], case: str) -> None:
    for block in ("anova_type1", "anova_type2", "anova_type3", "hc3_type3"):
        check(answers[case][block], MORE[case][block], {"": 1e-6, "p": 1e-5})


@pytest.mark.parametrize("names", [("p", "at", "mean"), ("target", "block", "t.ratio")])
@pytest.mark.parametrize("design", ["mixed", "rows"])
def test_factors_may_have_the_names_of_our_own_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, str, str], design: str
) -> None:
    monkeypatch.setattr("ser_analysis.figures.draw", lambda out, analysis: [])
    table = pd.read_csv(ORACLE / "obk.csv", dtype=str)
    plain = ["phase", "hour", "treatment"]
    table = table[table["hour"].isin(["1", "2"]) & table["phase"].isin(["pre", "post"])]
    found = []
    for number, chosen in enumerate((plain, list(names))):
        file = tmp_path / f"{number}.csv"
        table.rename(columns=dict(zip(plain, chosen, strict=True))).to_csv(file, index=False)
        within, between = (chosen[:2], chosen[2:]) if design == "mixed" else ([], chosen)
        block = "id" if design == "mixed" else None
        told = stats_of_csv(file, dv="value", within=within, between=between, block=block, out=tmp_path / "out").content
        rows = told["rm_anova"]["table"] if design == "mixed" else told["anova_type3"]
        found.append([row["F"] for row in rows if row.get("F") is not None])
        assert len(told["descriptives"]) == 12
    assert found[0] == pytest.approx(found[1])


def test_a_column_with_a_comma_is_named_in_quotes() -> None:
    assert names_in('"model, kind",test') == ["model, kind", "test"]
    assert names_in(" a , b,") == ["a", "b"]
    assert names_in("") == []
