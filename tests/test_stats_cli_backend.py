from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ser_analysis.table import stats_of_csv
from ser_eval.errors import BadInput

ORACLE = Path(__file__).parent / "oracle"


def closed(value: Any) -> Any:
    return pytest.approx(value, rel=1e-6, abs=1e-9)


def blocked(out: Path, csv: Path = ORACLE / "ser_blocked.csv", **changes: Any) -> Any:
    return stats_of_csv(
        csv, **{"dv": "uar", "within": ["arch", "finetune", "test"], "block": "seed", "out": out, **changes}
    )


def edited(tmp_path: Path, edit: Any) -> Path:
    table = pd.read_csv(ORACLE / "ser_blocked.csv", dtype=str)
    file = tmp_path / "edited.csv"
    edit(table).to_csv(file, index=False)
    return file


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes most of the time."""
    monkeypatch.setattr("ser_analysis.figures.draw", lambda out, analysis: [])


@pytest.fixture(scope="module")
def blocked_stats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("blocked")
    blocked(out)
    return out


@pytest.mark.parametrize(
    ("case", "dv", "between"),
    [
        ("toothgrowth", "len", ["supp", "dose"]),
        ("toothgrowth_unbalanced", "len", ["supp", "dose"]),
        ("warpbreaks", "breaks", ["wool", "tension"]),
    ],
)
@pytest.mark.usefixtures("no_figures")
def test_between_groups_cases_match_r(tmp_path: Path, case: str, dv: str, between: list[str]) -> None:
    stats_of_csv(ORACLE / f"{case}.csv", dv=dv, between=between, out=tmp_path)
    ours = json.loads((tmp_path / "stats.json").read_text())
    expected = json.loads((ORACLE / f"{case}.json").read_text())
    assert ours["n"] == expected["n"]
    for block in ("anova_type2", "anova_type3"):
        assert [row["term"] for row in ours[block]] == [row["term"] for row in expected[block]]
        for mine, row in zip(ours[block], expected[block], strict=True):
            for column, value in row.items():
                assert mine[column] == (value if value is None or column == "term" else closed(value)), (block, column)
    for block in ("effect_ci_type2_ncF", "effect_ci_type3_ncF"):
        for mine, row in zip(ours[block], expected[block], strict=True):
            assert mine == {"term": row["term"]} | {
                key: pytest.approx(value, rel=1e-4, abs=1e-5) for key, value in row.items() if key != "term"
            }
    for check, row in expected["assumptions"].items():
        assert {key: ours["assumptions"][check][key] for key in row} == pytest.approx(row, rel=1e-4, abs=1e-7)
    told = {tuple(row[f] for f in between): row for row in ours["descriptives"]}
    for row in expected["cells"]:
        mine = told[tuple(row[f] for f in between)]
        assert (mine["n"], mine["mean"], mine["sd"]) == (row["n"], closed(row["mean"]), closed(row["sd"]))


def test_type_three_uses_deviation_coding(tmp_path: Path) -> None:
    stats_of_csv(ORACLE / "warpbreaks.csv", dv="breaks", between=["wool", "tension"], out=tmp_path)
    wool = json.loads((tmp_path / "stats.json").read_text())["anova_type3"][0]
    assert wool["F"] == pytest.approx(3.765, abs=1e-3)  # 1.26 with treatment coding


def test_blocked_table_end_to_end_has_the_names_of_the_oracle(blocked_stats: Path) -> None:
    ours = json.loads((blocked_stats / "stats.json").read_text())
    expected = json.loads((ORACLE / "ser_blocked.json").read_text())
    f = {row["term"]: row["F"] for row in ours["rm_anova"]["table"]}
    assert f == {row["term"]: closed(row["F"]) for row in expected["rm_anova_seed_as_subject"]["table"]}
    found = {(row["a"], row["b"]): row for row in ours["pairs"] if row["at"] == "test=indomain"}
    for row in expected["pairs_indomain"]["pairs"]:
        assert found[row["a"], row["b"]]["ci95"] == closed(row["ci95"])
    assert ours["audit"] | {"n_blocks": 10, "n_complete_blocks": 10, "cells": 12, "n_scores": 120} == ours["audit"]
    assert len(ours["descriptives"]) == 12
    assert ours["assumptions"]["shapiro_residuals"]["W"] < 1
    assert len(ours["provenance"]["input"]["sha256"]) == 64


def test_every_table_is_there_three_times_and_names_its_target(blocked_stats: Path) -> None:
    for name in ("descriptives", "rm_anova", "sphericity", "pairs", "assumptions"):
        assert (pd.read_csv(blocked_stats / f"{name}.csv")["target"] == "T1").all()
        assert "Target T1" in (blocked_stats / f"{name}.md").read_text()
        tex = (blocked_stats / f"{name}.tex").read_text()
        assert tex.count("\\toprule") == tex.count("\\midrule") == tex.count("\\bottomrule") == 1
    full = pd.read_csv(blocked_stats / "rm_anova.csv", dtype={"term": str})
    assert full["F"].tolist() == [
        row["F"] for row in json.loads((blocked_stats / "stats.json").read_text())["rm_anova"]["table"]
    ]
    for line in (blocked_stats / "report.md").read_text().splitlines():
        if "p = " in line or "p < " in line:
            assert line.startswith("- T1"), line


def test_reruns_write_the_same_bytes(blocked_stats: Path, tmp_path: Path) -> None:
    blocked(tmp_path)
    first = {file.name: file.read_bytes() for file in blocked_stats.iterdir()}
    assert {"strip.pdf", "strip.png", "estimation-indomain.pdf", "report.md"} <= set(first)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == first


@pytest.mark.usefixtures("no_figures")
def test_the_order_of_the_rows_changes_nothing_but_the_checksum(blocked_stats: Path, tmp_path: Path) -> None:
    csv = edited(tmp_path, lambda table: table.sample(frac=1, random_state=1))
    result = blocked(tmp_path / "out", csv)
    before = json.loads((blocked_stats / "stats.json").read_text())
    after = dict(result.content)
    assert after.pop("provenance") != before.pop("provenance")
    assert after == before


@pytest.mark.parametrize("separator", [";", "\t"])
@pytest.mark.usefixtures("no_figures")
def test_separators_and_spaces_of_lists_change_nothing(blocked_stats: Path, tmp_path: Path, separator: str) -> None:
    file = tmp_path / "edited.csv"
    pd.read_csv(ORACLE / "ser_blocked.csv", dtype=str).to_csv(file, index=False, sep=separator)
    after = dict(blocked(tmp_path / "out", file, within=["arch", " finetune", "test "]).content)
    before = json.loads((blocked_stats / "stats.json").read_text())
    assert after.pop("provenance") != before.pop("provenance")
    assert after == before


@pytest.mark.usefixtures("no_figures")
def test_factor_levels_are_text(tmp_path: Path) -> None:
    csv = edited(
        tmp_path, lambda table: table.assign(arch=table["arch"].map({"hubert": "01", "wav2vec2": "1", "wavlm": "NA"}))
    )
    assert blocked(tmp_path / "out", csv).content["audit"]["factors"]["arch"] == ["01", "1", "NA"]


@pytest.mark.usefixtures("no_figures")
def test_rows_without_a_score_are_left_out_by_line(tmp_path: Path) -> None:
    csv = edited(tmp_path, lambda table: table.assign(uar=table["uar"].where(table.index != 3, "")))
    content = blocked(tmp_path / "out", csv).content
    assert content["audit"]["n_complete_blocks"] == 9
    assert content["audit"]["missing"] == [{"block": "s01", "arch": "hubert", "finetune": "yes", "test": "crosscorpus"}]
    assert any("line(s) 5 of edited.csv" in fact for fact in content["facts"])
    assert any("s01" in fact and "Nothing is imputed" in fact for fact in content["facts"])


@pytest.mark.usefixtures("no_figures")
def test_clip_counts_add_the_corrected_test_and_name_its_target(tmp_path: Path) -> None:
    csv = edited(
        tmp_path,
        lambda table: table.assign(
            n_train="80",
            n_test="20",
            train_corpus="a+b",
            test_corpus=table["test"].map({"indomain": "b", "crosscorpus": "c"}),
        ),
    )
    content = blocked(tmp_path / "out", csv, within=["arch", "finetune", "test"]).content
    corrected = {row["at"] for row in content["pairs"] if "nadeau_bengio" in row}
    assert corrected == {"test=indomain"}
    assert (pd.read_csv(tmp_path / "out" / "nadeau_bengio.csv")["target"] == "T2").all()
    assert any("T2 (new speakers)" in line for line in content["findings"])


@pytest.mark.usefixtures("no_figures")
def test_scores_that_are_no_shares_keep_their_unit(tmp_path: Path) -> None:
    csv = edited(tmp_path, lambda table: table.assign(loss=table["uar"].astype(float) * 100).drop(columns="uar"))
    findings = blocked(tmp_path / "out", csv, dv="loss").content["findings"]
    assert "scores 3.19 of loss above" in findings[0]


@pytest.mark.parametrize(
    ("edit", "changes", "message"),
    [
        (lambda t: t, {"dv": "wer"}, "no column 'wer'; it has seed, arch, finetune, test, uar"),
        (
            lambda t: t,
            {"between": ["arch"], "within": ["test"]},
            "between factor 'arch' varies within seed s01 .* --within arch; if the names of the blocks start anew",
        ),
        (lambda t: t, {"block": None}, "needs --block"),
        (lambda t: t, {"within": []}, "give factors"),
        (lambda t: t, {"within": ["arch", "arch"]}, "'arch' is given twice"),
        (lambda t: t, {"within": ["arch"]}, "lines 2 and 3 and 4 and 5: several rows for seed=s01, arch=hubert"),
        (lambda t: pd.concat([t, t.head(1)]), {}, "lines 2 and 122: several rows"),
        (lambda t: t.assign(arch="x"), {"within": ["arch"]}, "several rows"),
        (lambda t: t[t["test"] == "indomain"], {}, "within factor 'test' has one level \\(indomain\\)"),
        (lambda t: t.assign(uar="71.3"), {}, "line 2: uar = 71.3 is outside \\[0, 1\\]"),
        (lambda t: t.assign(uar="high"), {}, "line 2: uar = 'high' is not a number"),
        (
            lambda t: t.assign(seed=range(len(t))),
            {},
            "0 of 120 levels of 'seed' have a score in every one of the 12 cells",
        ),
        (lambda t: t.head(0), {}, "holds no rows"),
    ],
)
def test_wrong_input_is_named(tmp_path: Path, edit: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        blocked(tmp_path / "out", edited(tmp_path, edit), **changes)
    assert not (tmp_path / "out").exists()


def test_between_groups_refusals(tmp_path: Path) -> None:
    csv = edited(tmp_path, lambda table: table[(table["arch"] != "hubert") | (table["test"] == "indomain")])
    with pytest.raises(BadInput, match=r"1 cell\(s\) of arch x test hold no row \(arch=hubert, test=crosscorpus\)"):
        stats_of_csv(csv, dv="uar", between=["arch", "test"], out=tmp_path / "out")
    csv = edited(tmp_path, lambda table: table[table["seed"] == "s01"])
    with pytest.raises(BadInput, match="Is --block missing"):
        stats_of_csv(csv, dv="uar", between=["arch", "finetune", "test"], out=tmp_path / "out")


def test_a_missing_file_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such file"):
        stats_of_csv(tmp_path / "nothing.csv", dv="uar", between=["arch"])


@pytest.mark.usefixtures("no_figures")
def test_results_stand_beside_the_table_by_default(tmp_path: Path) -> None:
    csv = edited(tmp_path, lambda table: table[table["test"] == "indomain"])
    assert blocked(None, csv, within=["arch", "finetune"]).folder == tmp_path / "edited-stats"
