"""`ser power`: against R, from numbers, from pilots, and what it refuses."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_analysis.experiment import stats_of_experiment
from ser_analysis.methods import power
from ser_eval.errors import BadInput
from ser_eval.evaluate import evaluate_experiment
from ser_scripts.cli import app
from tests import fabricated_runs as made

R = json.loads((Path(__file__).parent / "oracle/power.json").read_text())


@pytest.fixture
def no_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes most of the time of an experiment."""
    monkeypatch.setattr("ser_analysis.figures.draw", lambda out, analysis: [])
    monkeypatch.setattr("ser_eval.report.write_report", lambda summary: None)


def ser(*arguments: object) -> None:
    command: Any = typer.main.get_command(app)
    command.main(["power", *map(str, arguments)], standalone_mode=False)


@pytest.mark.parametrize("effect", list(R["paired_t_n"]))
def test_units_of_the_paired_t_are_those_of_r(effect: str) -> None:
    told = R["paired_t_n"][effect]
    assert power.units_for(float(effect)) == pytest.approx(told["n80"], rel=1e-6)
    assert power.units_for(float(effect), power=0.9) == pytest.approx(told["n90"], rel=1e-6)
    assert power.units_for(float(effect), alpha=0.05 / 7) == pytest.approx(told["n80_alpha_05_over_7"], rel=1e-6)


def test_powers_and_floors_are_those_of_r() -> None:
    for effect, told in R["paired_t_power_n10"].items():
        assert power.paired_t(float(effect), 10) == pytest.approx(told, rel=1e-6)
    assert power.anova_f(0.1, 880, df1=1, df2=872) == pytest.approx(R["anova_f_power_880_f010_df1"], rel=1e-6)
    assert power.noether(0.75) == pytest.approx(R["noether_n_gamma075"], rel=1e-6)
    for n, floor in R["min_two_sided_signflip_p"].items():
        assert power.signflip_floor(int(n)) == floor


@settings(max_examples=40, deadline=None)
@given(effect=st.floats(0.05, 3), alpha=st.floats(1e-4, 0.2), overlap=st.sampled_from([0.0, 0.05, 0.25]))
def test_what_is_needed_is_enough_and_one_less_is_not(effect: float, alpha: float, overlap: float) -> None:
    needed = power.units_for(effect, alpha=alpha, overlap=overlap)
    if math.isinf(needed):
        assert power.paired_t(effect, 10_000, alpha=alpha, overlap=overlap) < 0.8
        return
    n = math.ceil(needed)
    assert power.paired_t(effect, n, alpha=alpha, overlap=overlap) >= 0.8 - 1e-6
    if needed > 2:
        assert power.paired_t(effect, needed - 0.01, alpha=alpha, overlap=overlap) < 0.8
    found = power.detectable(n, alpha=alpha, overlap=overlap)
    assert power.paired_t(found, n, alpha=alpha, overlap=overlap) == pytest.approx(0.8, abs=1e-6)


def test_power_is_never_nan_far_out() -> None:
    """Pitfall: scipy's noncentral t is NaN in far tails."""
    for n in (2, 10, 1000, 100_000):
        for effect in (0.01, 1, 30, 1000):
            assert 0.04 < power.paired_t(effect, n) <= 1


@pytest.mark.parametrize(("comparisons", "units"), [(1, 6), (7, 9)])
def test_the_floor_of_the_sign_flip_test_binds(comparisons: int, units: int) -> None:
    """Five seeds never reach .05, and Holm over seven effects needs nine."""
    assert power.signflip_units(comparisons=comparisons) == units
    assert comparisons * power.signflip_floor(units) < 0.05 <= comparisons * power.signflip_floor(units - 1)


def test_numbers_come_out_of_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ser("--difference", 0.01, "--sd", 0.018, "--n", 10, "--comparisons", 7, "--out", tmp_path)
    said = capsys.readouterr().out
    assert "28 seeds for a power of 0.8" in said
    assert "needs at least 9 seeds" in said
    content = json.loads((tmp_path / "power.json").read_text())
    (row,) = content["paired_t"]
    assert row["n_exact"] == pytest.approx(power.units_for(0.01 / 0.018))
    assert row["power"] == pytest.approx(power.paired_t(0.01 / 0.018, 10))
    assert content["min_two_sided_signflip_p"]["5"] == 0.0625
    assert {file.name for file in tmp_path.iterdir()} == {
        "power.json", "power.csv", "power.md", "power.tex", "power.png", "power.pdf",
    }  # fmt: skip
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    ser("--difference", 0.01, "--sd", 0.018, "--n", 10, "--comparisons", 7, "--out", tmp_path)
    assert before == {file.name: file.read_bytes() for file in tmp_path.iterdir()}


def test_seeds_that_share_speakers_are_never_enough(capsys: pytest.CaptureFixture[str]) -> None:
    ser("--difference", 0.01, "--sd", 0.018, "--overlap", 0.25)
    said = capsys.readouterr().out
    assert said.startswith("T2, the comparison, corrected for overlapping training sets")
    assert "no number of seeds reaches a power of 0.8" in said


@pytest.mark.usefixtures("no_pages")
def test_a_pilot_gives_the_spread_over_splits_and_over_speakers(tmp_path: Path) -> None:
    folder: Path = made.make_experiment(tmp_path, models=("hubert-a", "wavlm-b", "whisper-c"))
    evaluate_experiment(folder)
    ser(folder / "results.csv", "--difference", 0.02, "--models", "hubert-a,wavlm-b", "--out", tmp_path / "seeds")
    content = json.loads((tmp_path / "seeds/power.json").read_text())
    scores = pd.read_csv(folder / "results.csv")
    home = scores[scores["test_corpus"] == "home"].pivot(index="split_sha256", columns="model", values="uar")
    sd = float((home["hubert-a"] - home["wavlm-b"]).std(ddof=1))
    of_home = [row for row in content["paired_t"] if row["question"].endswith("on home")]
    assert [(row["target"], row["test"]) for row in of_home] == [("T1", "paired_t"), ("T2", "nadeau_bengio")]
    assert [row["sd"] for row in of_home] == pytest.approx([sd, sd])
    assert all(row["n"] == 3 for row in of_home)
    assert content["comparisons"] == 1
    assert any("an SD from 3 seeds is hardly known" in note for note in content["notes"])
    with pytest.raises(BadInput, match=r"no speaker_pairs.csv; run `ser stats"):
        ser(folder, "--difference", 0.02, "--unit", "speakers")
    stats_of_experiment(folder)
    ser(folder, "--difference", 0.02, "--unit", "speakers")
    told = json.loads((folder / "stats/power/power.json").read_text())
    pairs = pd.read_csv(folder / "stats/home-on-home/speaker_pairs.csv")
    assert told["comparisons"] == 3
    expected = pairs["standard_error"] * np.sqrt(pairs["n_speakers"])
    ours = [row["sd"] for row in told["paired_t"] if row["question"].endswith("home-on-home")]
    assert ours == pytest.approx(list(expected))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--difference", 0.01], r"needs --sd, the SD of the paired differences"),
        (["--difference", 0.01, "--sd", 0], r"needs --sd"),
        (["--sd", 0.01], r"needs --difference, other than 0"),
        (["--difference", 1.5, "--sd", 0.01], r"--difference 1.5: a UAR lies in \[0, 1\]"),
        (["--difference", 0.01, "--sd", 0.01, "--n", 1], r"--n 1: a test needs at least two seeds"),
        (["--difference", 0.01, "--sd", 0.01, "--alpha", 2], r"--alpha 2 must lie between 0 and 1"),
        (["--difference", 0.01, "--sd", 0.01, "--power", 0.04], r"--power 0.04 must be above --alpha 0.05"),
        (["--difference", 0.01, "--sd", 0.01, "--comparisons", -1], r"--comparisons -1 must be 1 or more"),
        (["--difference", 0.01, "--sd", 0.01, "--unit", "clips"], r"--unit 'clips' is not valid; expected seeds or"),
        (["--difference", 0.01, "--sd", 0.01, "--models", "a,b"], r"--models goes with a pilot"),
        (["PILOT", "--sd", 0.01, "--difference", 0.01], r"--sd and --overlap come from the pilot"),
        (["PILOT"], r"name the difference to be found"),
        (["PILOT", "--difference", 0.01, "--models", "a,z"], r"no model 'z'; it has a, b"),
        (["PILOT", "--difference", 0.01, "--models", "a"], r"--models takes two different models"),
        (["ONE", "--difference", 0.01], r"no two models share two splits; .* 1 shared split"),
        (["PERCENT", "--difference", 0.01], r"uar = 61 is outside \[0, 1\]; divide percentages by 100"),
        (["SHORT", "--difference", 0.01], r"has no column 'split_sha256'"),
    ],
)
def test_what_power_refuses(tmp_path: Path, arguments: list[object], message: str) -> None:
    rows = [
        {"model": m, "test_corpus": "x", "split_sha256": s, "uar": u}
        for m, s, u in (("a", "1", 0.61), ("b", "1", 0.6), ("a", "2", 0.66), ("b", "2", 0.7))
    ]
    table = pd.DataFrame(rows)
    table.to_csv(tmp_path / "PILOT.csv", index=False)
    table.head(2).to_csv(tmp_path / "ONE.csv", index=False)
    table.assign(uar=100 * table["uar"]).to_csv(tmp_path / "PERCENT.csv", index=False)
    table.drop(columns="split_sha256").to_csv(tmp_path / "SHORT.csv", index=False)
    files = [tmp_path / f"{one}.csv" if isinstance(one, str) and one.isupper() else one for one in arguments]
    with pytest.raises(BadInput, match=message):
        ser(*files)
