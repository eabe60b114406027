"""Tables that allow no honest analysis: each gets one clear sentence, through the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import typer

from ser_analysis.methods import signflip
from ser_eval.errors import BadInput
from ser_scripts.cli import app

RUN = "from ser_scripts.cli import main; main()"
DESIGN = ["--dv", "uar", "--within", "model", "--block", "seed"]


@pytest.fixture(autouse=True)
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ser_analysis.figures.draw", lambda out, analysis: [])


def scores(seeds: int = 6) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    rows = [
        {"seed": str(seed), "model": model, "uar": f"{0.6 + rng.normal(0, 0.02):.4f}"}
        for seed in range(seeds)
        for model in ("a", "b")
    ]
    return pd.DataFrame(rows)


def ser(*arguments: object) -> None:
    command: Any = typer.main.get_command(app)
    command.main(["stats", *map(str, arguments)], standalone_mode=False)


def with_cell(row: int, column: str, value: str) -> Any:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        table.loc[row, column] = value
        return table

    return change


REFUSED = {
    "one seed": (lambda t: t.head(2), DESIGN, r"'seed' has one level \(0\); a test over blocks needs at least two"),
    "one level": (lambda t: t[t["model"] == "a"], DESIGN, r"'model' has one level \(a\), so there is nothing"),
    "constant scores": (lambda t: t.assign(uar="0.5"), DESIGN, r"every uar is 0.5; scores that do not vary"),
    "NaN": (with_cell(3, "uar", "nan"), DESIGN, r"line 5: uar = 'nan' is not a number"),
    "infinity": (with_cell(3, "uar", "inf"), DESIGN, r"line 5: uar = 'inf' is not a number"),
    "decimal comma": (with_cell(0, "uar", "0,61"), DESIGN, r"uar = '0,61' is not a number; decimals need a point"),
    "a column twice but for a space": (
        lambda t: t.assign(**{"model ": t["model"]}), DESIGN, r"has the column 'model' more than once",
    ),
    "text": (with_cell(0, "uar", "good"), DESIGN, r"line 2: uar = 'good' is not a number"),
    "no score at all": (lambda t: t.assign(uar=""), DESIGN, r"no row has a value of uar"),
    "many rows of a cell": (
        lambda t: pd.concat([t] * 6), DESIGN, r"lines 2 and 14 and 26 and 38 and 2 more: several rows for seed=0, ",
    ),
    "duplicated rows": (lambda t: pd.concat([t, t.head(1)]), DESIGN, r"lines 2 and 14: several rows for seed=0, "),
    "aliased factor": (
        lambda t: t.assign(encoder=t["model"].map({"a": "x", "b": "y"})),
        ["--dv", "uar", "--within", "model,encoder", "--block", "seed"],
        r"factor 'encoder' is aliased with 'model': .* cannot be told apart",
    ),
    "missing column": (None, ["--dv", "f1", "--within", "model", "--block", "seed"], r"no column 'f1'; it has seed"),
    "missing block": (None, ["--dv", "uar", "--within", "model", "--block", "split"], r"has no column 'split'"),
    "percent": (lambda t: t.assign(uar="61.5"), DESIGN, r"uar = 61.5 is outside \[0, 1\]; divide percentages by 100"),
    "negative": (with_cell(0, "uar", "-0.1"), DESIGN, r"uar = -0.1 is outside \[0, 1\]"),
    "no seed shared": (
        lambda t: t[(t["seed"].astype(int) < 3) == (t["model"] == "a")], DESIGN, r"no two cells share two of them",
    ),
    "a spread of rounding": (
        lambda t: t.assign(gain=[f"{1e-12 * n}" for n in range(len(t))]),
        ["--dv", "gain", "--within", "model", "--block", "seed"],
        r"all gain lie within 1.1e-11 of each other; .* give them in a smaller unit",
    ),
    "no rows": (lambda t: t.head(0), DESIGN, r"holds no rows below its header"),
}  # fmt: skip


@pytest.mark.parametrize("case", list(REFUSED))
def test_a_table_that_allows_no_analysis_is_refused(tmp_path: Path, case: str) -> None:
    change, arguments, message = REFUSED[case]
    table = scores()
    (change(table) if change else table).to_csv(tmp_path / "table.csv", index=False)
    with pytest.raises(BadInput, match=message):
        ser("--csv", tmp_path / "table.csv", *arguments)
    assert [file.name for file in tmp_path.iterdir()] == ["table.csv"]


def test_an_option_given_twice_adds_its_factors(tmp_path: Path) -> None:
    table = pd.concat([scores().assign(place=place) for place in ("in", "out")])
    table["uar"] = [f"{0.5 + 0.01 * (7 * row % 11):.2f}" for row in range(len(table))]
    table.to_csv(tmp_path / "table.csv", index=False)
    once, twice = ["--within", "model,place"], ["--within", "model", "--within", "place"]
    for name, factors in (("once", once), ("twice", twice)):
        ser("--csv", tmp_path / "table.csv", "--dv", "uar", *factors, "--block", "seed", "--out", tmp_path / name)
    assert (tmp_path / "once/stats.json").read_bytes() == (tmp_path / "twice/stats.json").read_bytes()


def test_unequal_seeds_are_named_and_nothing_is_filled_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = scores().drop(index=[3])  # seed 1 lacks model b
    table.to_csv(tmp_path / "table.csv", index=False)
    ser("--csv", tmp_path / "table.csv", *DESIGN, "--out", tmp_path / "out")
    report = (tmp_path / "out/report.md").read_text()
    assert "5 blocks are complete" in report
    pairs = pd.read_csv(tmp_path / "out/pairs.csv")
    assert list(pairs["n"]) == [5]


def test_the_command_line_prints_one_sentence_and_exits_with_2(tmp_path: Path) -> None:
    scores().assign(uar="61").to_csv(tmp_path / "table.csv", index=False)
    command = [sys.executable, "-c", RUN, "stats", "--csv", str(tmp_path / "table.csv"), *DESIGN]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "divide percentages by 100" in done.stderr


def test_spaces_around_the_names_of_columns_do_not_count(tmp_path: Path) -> None:
    file = tmp_path / "spaced.csv"
    file.write_text(scores().to_csv(index=False).replace("seed,model,uar", "seed , model,uar ", 1))
    ser("--csv", file, *DESIGN, "--out", tmp_path / "out")
    assert (tmp_path / "out/stats.json").is_file()


def test_ranks_that_are_the_same_in_every_block_are_told_without_an_infinite_f(tmp_path: Path) -> None:
    rows = [
        f"{seed},{model},{0.4 + 0.1 * at + 0.001 * seed * at}" for seed in range(5) for at, model in enumerate("abc")
    ]
    (tmp_path / "table.csv").write_text("seed,model,uar\n" + "\n".join(rows) + "\n")
    ser("--csv", tmp_path / "table.csv", *DESIGN, "--out", tmp_path / "out")
    report = (tmp_path / "out" / "report.md").read_text()
    assert "no Iman-Davenport F: the ranks are the same in every block" in report
    assert "= inf" not in report


def test_drawn_signs_are_shared_by_pairs_and_change_no_p() -> None:
    difference = np.random.default_rng(1).normal(0.3, 1, 30)
    signs = np.random.default_rng(7).integers(0, 2, size=(signflip.DRAWS, 30), dtype=np.int8) * 2.0 - 1.0
    hits = int((np.abs(signs @ difference) >= abs(difference.sum()) - 1e-9).sum())
    assert signflip.p_value(difference, rng_seed=7) == (1 + hits) / (1 + signflip.DRAWS)
    other = signflip.p_value(difference, rng_seed=8)
    assert other != signflip.p_value(difference, rng_seed=7)
