"""Aligned ranks (ART and ART-C) against what R's ARTool and the original ARTool.exe answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_analysis.methods import aligned_ranks, between_anova
from ser_analysis.scores import Scores, pivot, read_text_table
from tests.tiny import stats_json

ORACLE = Path(__file__).parent / "oracle"
HIGGINS = ORACLE / "higgins1990_table5.csv"
"""Higgins, Blair & Tashtoush (1990), table 5: dry matter of 48 pots on 12 trays; data set Higgins1990Table5 of the R
package ARTool (Kay, Elkin, Higgins & Wobbrock)."""
PUBLISHED = {"moisture": (3, 8, 23.8326), "fertilizer": (3, 24, 122.4017), "moisture:fertilizer": (9, 24, 5.1180)}
"""df1, df2 and F that ARTool's own tests expect of `art(DryMatter ~ Moisture * Fertilizer + (1|Tray))`."""
MOISTURE_MIXED = (-5.606839446, -8.197725544, -3.68391617, -2.590886098, 1.9229232756, 4.5138093733)
MOISTURE_ROWS = (-7.400493839, -10.82021662, -4.862418335, -3.419722785, 2.5380755044, 5.9577982894)
CELLS_MIXED = {("m1+f1", "m1+f2"): -1.107980814, ("m1+f1", "m2+f1"): -3.036288461, ("m1+f1", "m2+f2"): -5.007904345}
CELLS_ROWS = {("m1+f1", "m1+f2"): -0.7886463535, ("m1+f1", "m2+f1"): -3.0362884611, ("m1+f1", "m2+f2"): -5.0079043449}
"""t of ART-C by ARTool.exe and JMP, from the tests of R's ARTool (test.artcon.R): with `(1|Tray)`, and without."""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """`art` of stats.json, by whether the tray is the block."""
    told = {}
    for name, options in (
        ("mixed", ["--within", "fertilizer", "--between", "moisture", "--block", "tray"]),
        ("rows", ["--between", "moisture,fertilizer"]),
    ):
        out = tmp_path_factory.mktemp(name)
        told[name] = stats_json(out, "--csv", HIGGINS, "--dv", "dry_matter", *options)["art"]
        assert {"art_anova.csv", "art_contrasts.csv"} <= {file.name for file in out.iterdir()}
    return told


def test_the_anova_of_aligned_ranks_is_artools(answers: dict[str, Any]) -> None:
    rows = {row["term"]: row for row in answers["mixed"]["table"]}
    for term, (df1, df2, f) in PUBLISHED.items():
        assert (rows[term]["df1"], rows[term]["df2"]) == (df1, df2)
        assert rows[term]["F"] == pytest.approx(f, abs=5e-5)
        assert rows[term]["F_pooled"] == pytest.approx(f, abs=5e-5)  # one within factor: one error
    assert rows["moisture"]["p"] == pytest.approx(0.00024199, rel=1e-4)
    assert rows["moisture:fertilizer"]["p"] == pytest.approx(0.00064665, rel=1e-4)


@pytest.mark.parametrize(("name", "levels", "cells"), [
    ("mixed", MOISTURE_MIXED, CELLS_MIXED), ("rows", MOISTURE_ROWS, CELLS_ROWS),
])  # fmt: skip
def test_contrasts_of_aligned_ranks_are_artools(
    answers: dict[str, Any], name: str, levels: tuple[float, ...], cells: dict[tuple[str, str], float]
) -> None:
    rows = answers[name]["contrasts"]
    of_levels = [row["t"] for row in rows if row["family"] == "moisture"]
    assert of_levels == [pytest.approx(t, rel=1e-6) for t in levels]
    of_cells = {(row["a"], row["b"]): row["t"] for row in rows if row["family"] == "moisture+fertilizer"}
    assert len(of_cells) == 120
    assert {pair: of_cells[pair] for pair in cells} == {pair: pytest.approx(t, rel=1e-6) for pair, t in cells.items()}


def test_models_are_compared_at_each_test_set() -> None:
    rng = np.random.default_rng(3)
    scores = Scores(
        "uar", ("model", "test"), (("a", "b", "c"), ("home", "away")), tuple("123456"), rng.normal(size=(6, 6)),
        where=("test",),
    )  # fmt: skip
    rows = aligned_ranks.contrasts(scores)
    assert rows[rows["at"] != ""].groupby("at").size().to_dict() == {"test=home": 3, "test=away": 3}
    assert rows[rows["at"] == ""].groupby("family").size().to_dict() == {"model": 3, "test": 1}
    assert rows["family"].iloc[0] == "model"


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6), blocks=st.integers(4, 8), levels=st.tuples(st.integers(2, 3), st.integers(2, 3)),
    groups=st.booleans(),
)  # fmt: skip
def test_aligning_takes_out_every_other_effect(seed: int, blocks: int, levels: tuple[int, int], groups: bool) -> None:
    rng = np.random.default_rng(seed)
    cells = levels[0] * levels[1]
    size = 2 * blocks if groups else blocks
    y = rng.normal(size=(size, cells)) + 5 * rng.normal(size=cells) + 3 * rng.normal(size=(size, 1))
    scores = Scores(
        "y", ("a", "b"), tuple(tuple(f"{name}{k}" for k in range(n)) for name, n in zip("ab", levels, strict=True)),
        tuple(f"s{k:02d}" for k in range(size)), y,
        between=("g",) if groups else (), between_levels=(("x", "y"),) if groups else (),
        groups=tuple((("x", "y")[k % 2],) for k in range(size)) if groups else (),
    )  # fmt: skip
    table = aligned_ranks.run(scores)
    assert len(table) == (7 if groups else 3)
    assert table["column_sum"].abs().max() < 1e-9
    assert table["F_of_stripped_effects"].max() < aligned_ranks.STRIPPED
    # A transform of ranks: neither a shift nor a factor of the scores changes a number.
    again = aligned_ranks.run(Scores(**{**scores.__dict__, "values": 7 * y - 100}))
    assert again["F"].tolist() == pytest.approx(table["F"].tolist(), rel=1e-6, nan_ok=True)  # ranks may leave no error


def test_groups_of_unequal_size_say_that_the_alignment_is_not_clean() -> None:
    table = read_text_table(HIGGINS)
    table["dry_matter"] = table["dry_matter"].astype(float)
    fewer = table[table["tray"] != "t2"]
    scores = pivot(fewer, dv="dry_matter", factors=["fertilizer"], block="tray", between=["moisture"])
    rows = aligned_ranks.run(scores)
    assert rows["column_sum"].abs().max() < 1e-9
    assert rows["F_of_stripped_effects"].max() > aligned_ranks.STRIPPED


def test_rows_of_any_number_are_ranked_in_a_type_three_anova() -> None:
    """The line of each effect, against the ANOVA that is tested against R, of ranks aligned by hand."""
    table = pd.read_csv(ORACLE / "unbalanced_threeway.csv", dtype={"f": str, "g": str, "h": str})[
        ["f", "g", "h", "score"]
    ]
    rows = aligned_ranks.between(table, dv="score", factors=["f", "g", "h"]).set_index("term")
    cell, mean = table.groupby(["f", "g", "h"])["score"].transform("mean"), table["score"].mean()
    aligned = table["score"] - cell + table.groupby("g")["score"].transform("mean") - mean
    ranked = table.assign(ranks=aligned.round(9).rank())
    expected = between_anova.run(ranked, dv="ranks", factors=["f", "g", "h"], typ=3).set_index("term")
    assert rows.loc["g", "F"] == pytest.approx(expected.loc["g", "F"])
    assert (rows.loc["g", "df1"], rows.loc["g", "df2"]) == (2, len(table) - 12)
    shuffled = aligned_ranks.between(table.sample(frac=1, random_state=2), dv="score", factors=["f", "g", "h"])
    assert shuffled["F"].tolist() == rows["F"].tolist()
