"""Statistics of predicted ratings: CCC over splits (T1) and over speakers (T2)."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_analysis.experiment import stats_of_experiment
from ser_analysis.methods import concordance, speakers
from ser_analysis.methods.concordance import DIFFERENCE, ONE
from ser_analysis.overview import write_overview
from ser_eval import metrics
from ser_eval.errors import BadInput
from ser_eval.evaluate import evaluate_experiment
from ser_eval.ratings import rating_scores
from ser_scripts.cli import app
from tests.fabricated_runs import CLASSES, answers, corpus_clips, prediction_table, sides, write_clips, write_run

Floats = npt.NDArray[np.float64]
Change = Callable[[str, str, pd.DataFrame], pd.DataFrame]
HOME = tuple(f"{gender}{number}" for gender in "fm" for number in (1, 2, 3, 4, 5))


def clips_of(rng: np.random.Generator, n_speakers: int, dims: int = 1, least: int = 3) -> list[Floats]:
    """Per speaker (dimensions, 3, clips): rating and the answers of two models."""
    found = []
    for _ in range(n_speakers):
        x = rng.uniform(size=(dims, rng.integers(least, least + 9)))
        ys = [0.2 + rng.uniform(0.2, 0.9) * x + rng.normal(0, 0.1, size=x.shape) for _ in (0, 1)]
        found.append(np.stack([x, *ys], axis=1))
    return found


def sums_of(clips: Sequence[Floats]) -> Floats:
    """(S, 2, D, 6)."""
    sums = np.empty((len(clips), 2, clips[0].shape[0], 6))
    for s, part in enumerate(clips):
        for m, d in itertools.product((0, 1), range(part.shape[0])):
            x, y = part[d, 0], part[d, 1 + m]
            sums[s, m, d] = len(x), x.sum(), y.sum(), (x * x).sum(), (y * y).sum(), (x * y).sum()
    return sums


def brute(clips: Sequence[Floats], chosen: Sequence[int], m: int) -> float:
    """Mean over dimensions of the CCC of all clips of some speakers, one after the other."""
    heard = np.concatenate([clips[s] for s in chosen], axis=2)
    return float(np.mean([metrics.ccc(part[0], part[1 + m]) for part in heard]))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 9), st.integers(1, 3))
def test_a_resample_is_what_resampling_the_clips_of_speakers_gives(seed: int, n: int, dims: int) -> None:
    rng = np.random.default_rng(seed)
    clips = clips_of(rng, n, dims)
    sums = sums_of(clips)
    picks = rng.integers(0, n, size=(20, n))
    weights = np.array([np.bincount(pick, minlength=n) for pick in picks])
    found = np.einsum("bs,smdk->bmdk", weights.astype(float), sums)
    for pick, one in zip(picks, found, strict=True):
        a, b = (brute(clips, pick, m) for m in (0, 1))
        assert float(concordance.theta(one[[0]], ONE)) == pytest.approx(a, abs=1e-12)
        assert float(concordance.theta(one, DIFFERENCE)) == pytest.approx(a - b, abs=1e-12)


@pytest.mark.parametrize(("n", "dims"), [(5, 1), (5, 2), (11, 2)])
def test_the_bootstrap_is_that_of_clips(n: int, dims: int) -> None:
    clips = clips_of(np.random.default_rng(n + dims), n, dims)
    sums = sums_of(clips)
    drawn = speakers.draw(np.ones((n, 1), dtype=np.int64), rng_seed=3, draws=400)
    row = concordance.run(sums, DIFFERENCE, drawn=drawn)
    values = []
    for weights in drawn.weights:
        chosen = np.repeat(np.arange(n), weights)
        values.append(brute(clips, chosen, 0) - brute(clips, chosen, 1))
    boot = np.array(values)
    assert row["exact"] is (n == 5)
    assert row["n_draws"] == len(boot)
    assert row["estimate"] == pytest.approx(brute(clips, range(n), 0) - brute(clips, range(n), 1), abs=1e-12)
    assert row["mean"] == pytest.approx(float(drawn.share @ boot), abs=1e-12)
    assert row["sd"] == pytest.approx(math.sqrt(drawn.share @ (boot - drawn.share @ boot) ** 2), abs=1e-12)
    for end, q in (("low", 0.025), ("high", 0.975)):
        assert row[f"percentile_{end}"] == pytest.approx(speakers.quantile(boot, drawn.share, q), abs=1e-12)
    left = [[s for s in range(n) if s != out] for out in range(n)]
    deleted = np.array([brute(clips, rest, 0) - brute(clips, rest, 1) for rest in left])
    error = math.sqrt((n - 1) / n * ((deleted - deleted.mean()) ** 2).sum())
    assert row["standard_error"] == pytest.approx(error, rel=1e-9)
    assert row["t"] == pytest.approx(row["estimate"] / error, rel=1e-9)


def test_the_linearised_error_is_near_the_jackknife_and_the_gradient_is_the_derivative() -> None:
    sums = sums_of(clips_of(np.random.default_rng(5), 60, 2, least=10))
    total = sums.sum(axis=0)
    step = 1e-6
    for k in range(6):
        up, down = total.copy(), total.copy()
        up[..., k] += step
        down[..., k] -= step
        slope = (concordance.cccs(up) - concordance.cccs(down)) / (2 * step)
        assert concordance._gradient(total)[..., k] == pytest.approx(slope, rel=1e-5, abs=1e-9)
    row = concordance.run(sums, DIFFERENCE, draws=2000)
    assert float(concordance._errors(np.ones((1, 60)), sums, DIFFERENCE)[0]) == pytest.approx(
        float(row["standard_error"]), rel=0.1
    )
    for method in concordance.METHODS:
        low, high = row[f"{method}_low"], row[f"{method}_high"]
        assert low < row["estimate"] < high
        assert high - low == pytest.approx(row["jackknife_t_high"] - row["jackknife_t_low"], rel=0.2)


@pytest.mark.parametrize(("n", "dims"), [(2, 1), (4, 2), (7, 1)])
def test_the_swap_test_is_that_of_clips(n: int, dims: int) -> None:
    clips = clips_of(np.random.default_rng(n), n, dims)
    own = abs(brute(clips, range(n), 0) - brute(clips, range(n), 1))
    hits = 0
    for pattern in itertools.product((False, True), repeat=n):
        swapped = [part[:, [0, 2, 1]] if flip else part for part, flip in zip(clips, pattern, strict=True)]
        hits += abs(brute(swapped, range(n), 0) - brute(swapped, range(n), 1)) >= own - 1e-9
    told = concordance.swap(sums_of(clips))
    assert told == {"p_two_sided": hits / 2**n, "exact": True, "n_swaps": 2**n}
    assert told["p_two_sided"] >= 2 / 2**n


def test_the_swap_test_draws_where_speakers_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    sums = sums_of(clips_of(np.random.default_rng(1), 10))
    exact = float(concordance.swap(sums)["p_two_sided"])
    monkeypatch.setattr(concordance, "SWAPPED_SPEAKERS", 9)
    drawn = concordance.swap(sums)
    assert (drawn["exact"], drawn["n_swaps"]) == (False, 99_999)
    assert drawn["p_two_sided"] == pytest.approx(exact, abs=0.01)
    assert drawn == concordance.swap(sums)


def test_the_gap_is_that_of_clips() -> None:
    clips = clips_of(np.random.default_rng(8), 6, 2)
    women = (0, 2, 3)

    def gap(chosen: Sequence[int]) -> float:
        others = [s for s in range(6) if s not in chosen]
        return brute(clips, chosen, 0) - brute(clips, others, 0)

    told = concordance.gap(sums_of(clips)[:, [0]], ONE, [s in women for s in range(6)])
    assert told["gap"] == pytest.approx(gap(women), abs=1e-12)
    assert told["of_first"] == pytest.approx(brute(clips, women, 0), abs=1e-12)
    all_gaps = [abs(gap(chosen)) for chosen in itertools.combinations(range(6), 3)]
    assert told["permutation_p"] == sum(one >= abs(gap(women)) - 1e-9 for one in all_gaps) / 20
    assert (told["n_permutations"], told["smallest_possible_p"]) == (20, 0.1)
    assert told["ci95_low"] < told["gap"] < told["ci95_high"]
    one_man = concordance.gap(sums_of(clips)[:, [0]], ONE, [s != 0 for s in range(6)])
    assert math.isnan(float(one_man["welch_p"]))


def test_a_ccc_and_its_interval_are_those_of_the_evaluation() -> None:
    clips = clips_of(np.random.default_rng(2), 7)
    table = pd.DataFrame(
        [
            {"corpus": "c", "actor": f"s{s}", "gender": "female", "rating_valence": x, "predicted_valence": y}
            for s, part in enumerate(clips)
            for x, y in zip(part[0, 0], part[0, 1], strict=True)
        ]
    )
    theirs = rating_scores(table)["valence"]
    ours = concordance.run(sums_of(clips)[:, [0]], ONE)
    assert ours["estimate"] == pytest.approx(theirs["ccc"], abs=1e-12)
    assert (ours["jackknife_t_low"], ours["jackknife_t_high"]) == (
        pytest.approx(theirs["intervals"]["ccc"]["low"], abs=1e-12),
        pytest.approx(theirs["intervals"]["ccc"]["high"], abs=1e-12),
    )


def test_constants_have_the_ccc_of_the_evaluation() -> None:
    x, y = np.array([0.1, 0.5, 0.9]), np.full(3, 0.3)
    sums = np.array([[3, x.sum(), y.sum(), (x * x).sum(), (y * y).sum(), (x * y).sum()]])
    assert concordance.cccs(sums) == metrics.ccc(x, y) == 0
    both = np.array([3, 0.9, 0.9, 0.27, 0.27, 0.27])
    assert math.isnan(float(concordance.cccs(both)))
    assert math.isnan(float(concordance.cccs(np.zeros(6))))


def test_only_speakers_with_enough_clips_are_called_worst() -> None:
    rng = np.random.default_rng(4)
    clips = [*clips_of(rng, 3, least=10), *clips_of(rng, 1, least=3)]
    clips[3] = clips[3][:, :, :3]
    clips[3][0, 1] = 1 - clips[3][0, 0]  # the worst there can be, of three clips
    told = concordance.spread(["a", "b", "c", "few"], sums_of(clips)[:, 0])
    own = {name: brute(clips, [s], 0) for s, name in enumerate("abc")}
    assert (told["n_speakers"], told["too_few_clips"]) == (3, 1)
    assert told["worst_speaker"] == min(own, key=lambda name: own[name])
    assert told["best_ccc"] == pytest.approx(max(own.values()), abs=1e-12)
    assert -1 < told["new_speaker_low"] < told["worst_ccc"] < told["new_speaker_high"] < 1


@pytest.mark.parametrize(("n", "message"), [(1, "there is one speaker with rated clips"), (0, "no speaker")])
def test_one_speaker_says_nothing_about_people(n: int, message: str) -> None:
    sums = sums_of(clips_of(np.random.default_rng(0), 3))[:, [0]]
    sums[n:] = 0
    with pytest.raises(BadInput, match=message):
        concordance.run(sums, ONE)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    """A small simulation, with normal speakers; the figures of the docs are of `make bench-stats`."""
    rng = np.random.default_rng(20240229)

    def corpus(n: int) -> Floats:
        of = np.repeat(np.arange(n), 12)
        x = rng.normal(0, 0.08, n)[of] + rng.normal(0, 0.15, len(of))
        sums = np.empty((n, 2, 1, 6))
        for m in (0, 1):
            y = rng.normal(0, 0.07, n)[of] + rng.normal(0.55, 0.15, n)[of] * x + rng.normal(0, 0.1, len(of))
            for k, values in enumerate((np.ones(len(of)), x, y, x * x, y * y, x * y)):
                sums[:, m, 0, k] = np.bincount(of, values, minlength=n)
        return sums

    truth = float(concordance.cccs(corpus(200_000).sum(axis=(0, 1))[0]))
    held = {"ccc": 0, "difference": 0, "percentile": 0}
    trials, drawn = 250, speakers.draw(np.ones((8, 1), dtype=np.int64), rng_seed=1)
    for _ in range(trials):
        sums = corpus(8)
        one = concordance.run(sums[:, [0]], ONE, drawn=drawn)
        two = concordance.run(sums, DIFFERENCE, drawn=drawn)
        held["ccc"] += one["jackknife_t_low"] <= truth <= one["jackknife_t_high"]
        held["percentile"] += one["percentile_low"] <= truth <= one["percentile_high"]
        held["difference"] += two["jackknife_t_low"] <= 0 <= two["jackknife_t_high"]
    assert 0.91 < held["ccc"] / trials < 0.99
    assert 0.91 < held["difference"] / trials < 0.99
    assert held["percentile"] < held["ccc"]


def test_coverage_is_known_of_what_is_shown() -> None:
    for of in ("ccc", "difference"):
        assert concordance.coverage(3, of)[1] == 4
        assert concordance.coverage(500, of)[1] == 90
        assert all(set(rates) == set(concordance.METHODS) for rates in concordance.COVERAGE[of].values())


# ---- experiments ----


def experiment(
    folder: Path,
    *,
    models: Sequence[str] = ("hubert-a", "wavlm-b"),
    seeds: int = 3,
    only: bool = False,
    dims: Sequence[str] = ("valence", "arousal"),
    change: Change | None = None,
) -> Path:
    """An evaluated experiment with ratings, trained on `home`, tested there and on `away`; hubert is the better one."""
    home = corpus_clips("home", actors=HOME)
    away = corpus_clips("away", actors=("f8", "f9", "m8", "m9"))
    write_clips(folder, home, away)
    rng = np.random.default_rng(0)
    truth = {name: pd.Series(rng.uniform(size=len(home) + len(away))) for name in dims}
    paths = [*("home/" + home["path"]), *("away/" + away["path"])]
    for name in dims:
        truth[name].index = pd.Index(paths)
        truth[name].iloc[::9] = np.nan
    for number, model in enumerate(models):
        for seed in range(seeds):
            order = np.random.default_rng(seed).permutation(len(HOME))
            split = sides(home, test=[HOME[n] for n in order[:4]], validation=[HOME[order[4]]])
            rng, tables = np.random.default_rng([number, seed]), {}
            for corpus, clips in (("home", split[split["split"] == "test"]), ("away", away)):
                told = answers(clips["class_id"].tolist(), CLASSES, 0.6, 10 * number + seed)
                table = prediction_table(clips, told, CLASSES)
                for name in dims:
                    x = truth[name].reindex(corpus + "/" + table["path"]).to_numpy()
                    noise = rng.normal(0, 0.1, len(x))
                    table[f"rating_{name}"] = x
                    table[f"predicted_{name}"] = (
                        0.5 + (0.8, 0.3, 0.25)[number] * (np.nan_to_num(x, nan=0.5) - 0.5) + noise
                    )
                tables[corpus] = table if change is None else change(model, corpus, table)
            everything = pd.concat([split, away.assign(split="test")])
            more = {"answers_classes": False} if only else {}
            write_run(
                folder, model=model, seed=seed, split=everything, tables=tables, train_corpora=["home"],
                labels=CLASSES, **more,
            )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ser_eval.report.write_report", lambda summary: None)  # drawing takes most of the time
        evaluate_experiment(folder)
    return folder


@pytest.fixture
def _no_figures(monkeypatch: pytest.MonkeyPatch) -> None:

    monkeypatch.setattr("ser_analysis.figures.draw", lambda out, analysis: [])
    monkeypatch.setattr("ser_eval.report.write_report", lambda summary: None)


def told(folder: Path, name: str = "stats") -> tuple[dict[str, Any], str]:
    content = json.loads((folder / name / "stats.json").read_text())
    return content, (folder / name / "report.md").read_text()


def test_ratings_alone_are_compared_by_their_ccc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = experiment(tmp_path / "made-up", only=True)
    result = stats_of_experiment(folder)
    content, report = told(folder)
    assert content["audit"]["dv"] == "ccc"
    results = pd.read_csv(folder / "results.csv")
    for row in content["descriptives"]:
        part = results[
            (results["architecture"] == row["architecture"]) & (results["test_corpus"] == row["test_corpus"])
        ]
        assert row["mean"] == pytest.approx(part["ccc"].mean(), abs=1e-12)
    assert "UAR" not in report
    assert "chance" not in report
    assert "guess" not in report
    assert "NaN" not in report
    assert " nan" not in report
    assert re.search(r"T1, on home: hubert scores \d+\.\d\d CCC points above wavlm|hubert-a scores", report)
    assert "## Ratings in short" in report
    assert "CCC of valence" in report
    assert "CCC of arousal" in report
    assert any("CCC points" in line for line in result.lines)
    ratings = pd.read_csv(folder / "ratings.csv")
    shown = {(row["at"], row["dv"], row["model"]): row for row in content["ratings"]["rating_intervals"]}
    for row in ratings.to_dict("records"):
        mine = shown[row["test_corpus"], f"ccc_{row['dimension']}", row["model"]]
        assert mine["ccc"] == pytest.approx(row["ccc_pooled"], abs=1e-12)
        assert mine["ci95_low"] == pytest.approx(row["ccc_low"], abs=1e-12)
        assert mine["ci95_high"] == pytest.approx(row["ccc_high"], abs=1e-12)
        assert mine["n_clips"] == row["n_clips"]
    for at in ("home", "away"):
        dims = [shown[at, f"ccc_{name}", "hubert-a"]["ccc"] for name in ("valence", "arousal")]
        assert shown[at, "ccc", "hubert-a"]["ccc"] == pytest.approx(np.mean(dims), abs=1e-12)
    scores = {row["dv"] for row in content["ratings"]["rating_pairs"]}
    assert (
        scores == {row["dv"] for row in content["ratings"]["rating_contrasts"]} == {"ccc", "ccc_valence", "ccc_arousal"}
    )
    (pair,) = (row for row in content["ratings"]["rating_pairs"] if row["dv"] == "ccc" and row["at"] == "home")
    assert pair["mean_diff"] > 0.1
    assert pair["p_holm"] == pair["p"] < 0.05
    gaps = {row["model"] for row in content["ratings"]["rating_gaps"]}
    assert gaps == {"hubert-a", "wavlm-b", "hubert-a minus wavlm-b"}
    assert (folder / "stats" / "speakers-home.png").is_file()
    # the same bytes again
    before = {file.name: file.read_bytes() for file in (folder / "stats").iterdir() if file.suffix in (".json", ".csv")}
    monkeypatch.setattr("ser_analysis.figures.draw", lambda out, analysis: [])
    stats_of_experiment(folder)
    assert before == {name: (folder / "stats" / name).read_bytes() for name in before}


@pytest.mark.usefixtures("_no_figures")
def test_classes_and_ratings_are_told_together(tmp_path: Path) -> None:
    folder = experiment(tmp_path / "made-up")
    stats_of_experiment(folder)
    content, report = told(folder)
    assert content["audit"]["dv"] == "uar"
    assert content["audit"]["chance"] == 0.25
    assert content["speakers"]["speaker_pairs"]
    assert content["ratings"]["dimensions_of"]["ccc"] == ["arousal", "valence"]
    assert len(content["ratings"]["rating_pairs"]) == 2 * 3
    short = report.split("## Ratings in short")[1].split("\n## ")[0]
    for label in ("CCC:", "CCC of valence:", "CCC of arousal:"):
        assert label in short
    assert "T2, on away: CCC of valence, 95 % CI over 4 speakers: hubert-a" in short


@pytest.mark.usefixtures("_no_figures")
def test_another_score_goes_to_a_folder_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = experiment(tmp_path / "made-up")
    app(["stats", str(folder), "--dv", "ccc_valence"], standalone_mode=False)
    assert "written to" in capsys.readouterr().out
    content, report = told(folder, "stats-ccc_valence")
    assert content["audit"]["dv"] == "ccc_valence"
    assert "valence CCC points above" in report
    assert not (folder / "stats").exists()
    with pytest.raises(BadInput, match=r"--dv 'ccc_dominance': no row has such a score; there are uar, ccc, ccc_"):
        stats_of_experiment(folder, dv="ccc_dominance")
    with pytest.raises(BadInput, match="--margin and --dv go with an experiment"):
        app(["stats", str(folder), "--block", "seed"], standalone_mode=False)


@pytest.mark.usefixtures("_no_figures")
def test_a_constant_answer_has_a_sentence_and_no_interval(tmp_path: Path) -> None:
    def constant(model: str, corpus: str, table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(predicted_valence=0.5) if model == "wavlm-b" else table

    folder = experiment(tmp_path / "made-up", only=True, change=constant)
    stats_of_experiment(folder)
    content, report = told(folder)
    assert (
        "T2, on home: no interval of CCC (wavlm-b); CCC of valence (wavlm-b): all answers of valence are the same "
        "number, with which nothing can go up and down (CCC 0)." in report
    )
    valence = [row for row in content["ratings"]["rating_intervals"] if row["dv"] == "ccc_valence"]
    assert {row["model"] for row in valence} == {"hubert-a"}
    means = [row for row in content["ratings"]["rating_means"] if row["dv"] == "ccc_valence"]
    assert {row["mean"] for row in means if row["architecture"] == "wavlm"} == {0.0}


@pytest.mark.usefixtures("_no_figures")
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda m, c, t: t.assign(actor="", gender="unknown"), "SPEAKERS UNKNOWN, so that nothing can be said about"),
        (lambda m, c, t: t.assign(actor=t["actor"].min()) if c == "away" else t, "one speaker with rated clips"),
        (lambda m, c, t: t.assign(rating_valence=0.4), "all ratings of valence are the same number"),
        (
            lambda m, c, t: t.drop(columns=["rating_arousal", "predicted_arousal"]) if m == "wavlm-b" else t,
            r"Models differ in the dimensions that they predict .*: no mean is taken",
        ),
        (
            lambda m, c, t: t.assign(rating_arousal=np.nan) if c == "away" else t,
            "6 rows have no CCC and are left out: hubert-a/home/seed-0 on away",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_told_is_said_in_one_sentence(tmp_path: Path, change: Change, sentence: str) -> None:
    folder = experiment(tmp_path / "made-up", only=True, change=change)
    stats_of_experiment(folder)
    facts = told(folder)[1].split("## What was analysed")[1].split("\n## ")[0]
    found = [line for line in facts.splitlines() if re.search(sentence, line)]
    assert 0 < len(found) <= 2, facts  # one per test set


@pytest.mark.usefixtures("_no_figures")
def test_without_any_rating_there_is_nothing_to_analyse(tmp_path: Path) -> None:
    def unrated(model: str, corpus: str, table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(rating_valence=np.nan, rating_arousal=np.nan)

    folder = experiment(tmp_path / "made-up", only=True, seeds=1, change=unrated)
    with pytest.raises(BadInput, match="no row has a uar, and none a CCC of ratings"):
        stats_of_experiment(folder)


@pytest.mark.usefixtures("_no_figures")
def test_one_seed_and_one_dimension_allow_t2_alone(tmp_path: Path) -> None:
    folder = experiment(tmp_path / "made-up", only=True, seeds=1, dims=("valence",))
    stats_of_experiment(folder)
    content, report = told(folder)
    assert content["audit"]["dv"] == "ccc_valence"
    assert "rm_anova" not in content
    assert "on one split. One split allows no test." in report
    assert len(content["ratings"]["rating_pairs"]) == 2
    stats_of_experiment(folder, dv="ccc")  # the mean over one dimension is that dimension
    assert not (folder / "stats-ccc").exists()


@pytest.mark.usefixtures("_no_figures")
def test_declared_contrasts_are_the_family_of_ratings_as_well(tmp_path: Path) -> None:
    folder = experiment(tmp_path / "made-up", only=True, models=("hubert-a", "wavlm-b", "w2v-c"))
    (folder / "plan.json").write_text(json.dumps({"contrasts": [["hubert-a", "wavlm-b"]], "runs": []}))
    stats_of_experiment(folder)
    content, _ = told(folder)
    here = [row for row in content["ratings"]["rating_pairs"] if row["dv"] == "ccc" and row["at"] == "home"]
    assert [row["planned"] for row in here].count(True) == 1
    (planned,) = (row for row in here if row["planned"])
    assert planned["p_holm"] == planned["p"]
    assert all(row["p_holm"] >= row["p"] for row in here)


@pytest.mark.usefixtures("_no_figures")
def test_the_table_of_all_experiments_takes_ratings_alone(tmp_path: Path) -> None:
    folder = experiment(tmp_path / "made-up", only=True, seeds=2)
    lines = write_overview(tmp_path, {"made-up": evaluate_experiment(folder).cells})
    assert "4 rows of 1 experiment" in lines[0]


@pytest.mark.usefixtures("_no_figures")
def test_a_ccc_of_a_table_lies_between_minus_one_and_one(tmp_path: Path) -> None:
    table = pd.DataFrame({"seed": [1, 1, 2, 2], "model": ["a", "b"] * 2, "ccc_valence": [-0.5, 0.2, -0.4, 1.2]})
    table.to_csv(tmp_path / "t.csv", index=False)
    arguments = ["stats", "--csv", tmp_path / "t.csv", "--dv", "ccc_valence", "--within", "model", "--block", "seed"]
    with pytest.raises(BadInput, match=r"line 5: ccc_valence = 1\.2 is outside \[-1, 1\]"):
        app([str(one) for one in arguments], standalone_mode=False)
    table.replace(1.2, 0.3).to_csv(tmp_path / "t.csv", index=False)
    app([str(one) for one in arguments], standalone_mode=False)
    assert "valence CCC points above" in (tmp_path / "t-stats" / "report.md").read_text()
