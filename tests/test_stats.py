from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ser_analysis.experiment import stats_of_experiment
from ser_analysis.scores import natural
from ser_analysis.wording import p_text, power_note
from ser_eval.errors import BadInput
from ser_eval.run_folder import NONE, REQUIRED, RESULT_COLUMNS, RESULT_KEYS, RESULTS

SPLITS = 6


@pytest.fixture(autouse=True)
def figures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes most of the time, so only the tests named here draw."""
    if "bytes" not in request.node.name and "test_corpora_are" not in request.node.name:
        monkeypatch.setattr("ser_analysis.figures.draw", lambda out, analysis: [])


def row(model: str, seed: int, test: str = "emodb", *, uar: float | None = None, **changes: Any) -> dict[str, Any]:
    """A row of results.csv; the score depends on model, seed and test set only."""
    gain = {"a": 0.0, "b": 0.04, "c": 0.01}.get(model[0], 0.02)
    noise = np.random.default_rng([seed, *model.encode(), *test.encode()]).normal(0, 0.01)
    score = 0.6 - 0.15 * (test != "emodb") + gain + 0.01 * seed + noise if uar is None else uar
    return {
        **dict.fromkeys([*RESULT_KEYS, *RESULT_COLUMNS], ""),
        "run": f"{model}/emodb/seed-{seed}",
        "experiment": "demo",
        "model": model,
        "augmentation": NONE,
        "train_corpus": "emodb",
        "test_corpus": test,
        "condition": NONE,
        "protocol": "speaker_independent" if test == "emodb" else "cross-corpus",
        "seed": seed,
        "split_sha256": f"{seed % SPLITS:064x}",
        "fold": NONE,
        "n_classes": 7,
        "n_train": 300,
        "n_test": 100,
        "n_test_speakers": 2,
        "uar": score,
        **changes,
    }


def experiment(
    folder: Path, rows: list[dict[str, Any]], factors: Mapping[str, Mapping[str, str]] | None = None
) -> Path:
    table = pd.DataFrame(rows)
    for factor, levels in (factors or {}).items():
        table.insert(len(RESULT_KEYS), factor, table["model"].map(dict(levels)))
    for model in folder.glob("*/*/seed-*"):
        shutil.rmtree(model)
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / RESULTS, index=False)
    folds = []
    for line in rows:
        run = line["run"]
        if line["fold"] == "all":
            run += "-fold-1"
            folds.append({"run": run})
        finish(folder, run, line["train_corpus"], line["seed"])
    if folds:
        pd.DataFrame(folds).to_csv(folder / "folds.csv", index=False)
    return folder


def finish(folder: Path, name: str, train_corpus: str = "emodb", seed: Any = 0) -> Path:
    """A finished and evaluated run."""
    run = folder / name
    run.mkdir(parents=True, exist_ok=True)
    record = dict.fromkeys(REQUIRED) | {"train_corpora": train_corpus.split("+"), "seed": seed}
    (run / "run.json").write_text(json.dumps(record))
    (run / "metrics.json").write_text('{"emodb": {"labels": ["a", "b"], "n_speakers": null, "per_speaker": {}}}')
    return run


def terms(content: dict[str, Any]) -> list[str]:
    return [line["term"] for line in content["rm_anova"]["table"]]


def test_two_models_one_test_set(tmp_path: Path) -> None:
    folder = experiment(tmp_path, [row(model, seed) for model in ("base", "augmented") for seed in range(SPLITS)])
    result = stats_of_experiment(folder)
    content = json.loads((folder / "stats" / "stats.json").read_text())
    assert content == result.content
    assert result.folder == folder / "stats"
    assert terms(content) == ["model"]
    (pair,) = content["pairs"]
    assert (pair["a"], pair["b"], pair["n"], pair["target"]) == ("augmented", "base", SPLITS, "T1")
    assert pair["nadeau_bengio"]["target"] == "T2"
    assert pair["nadeau_bengio"]["ratio_test_train"] == pytest.approx(1 / 3)
    # A repeated-measures F with one degree of freedom is the square of the paired t.
    assert content["rm_anova"]["table"][0]["F"] == pytest.approx(pair["t"] ** 2)
    assert content["findings"][0].startswith("T1: base scores ")
    assert "Yes: on this corpus base is better than augmented." in content["findings"][0]
    assert any("chance level of UAR is 0.143" in fact for fact in content["facts"])
    assert any("2/2^6 = 0.0312" in fact for fact in content["facts"])
    assert 5 <= len(result.lines) <= 15
    assert (folder / "stats" / "report.md").read_text().startswith("# Statistics of ")


def test_test_corpora_are_a_within_factor_and_models_are_compared_on_each(tmp_path: Path) -> None:
    rows = [row(model, seed, test) for model in "abc" for seed in range(SPLITS) for test in ("emodb", "emovo")]
    content = stats_of_experiment(experiment(tmp_path, rows)).content
    assert terms(content) == ["model", "test_corpus", "model:test_corpus"]
    assert {pair["at"] for pair in content["pairs"] if pair["family"] == "model"} == {
        "test_corpus=emodb",
        "test_corpus=emovo",
        "",
    }
    assert {pair["at"] for pair in content["pairs"] if "nadeau_bengio" in pair} == {"test_corpus=emodb"}
    assert any("domain shift" in fact for fact in content["facts"])
    drawn = {"strip", "estimation-emodb", "estimation-emovo", "interaction", "residuals", "convergence"}
    assert {file.name for file in (tmp_path / "stats").iterdir()} >= {
        f"{name}.{end}" for name in drawn for end in ("pdf", "png")
    }


def test_declared_factors_that_cross_are_the_factors(tmp_path: Path) -> None:
    factors = {
        "size": {"a": "small", "b": "small", "c": "large", "d": "large"},
        "tuned": {"a": "no", "b": "yes", "c": "no", "d": "yes"},
    }
    rows = [row(model, seed) for model in "abcd" for seed in range(SPLITS)]
    content = stats_of_experiment(experiment(tmp_path, rows, factors)).content
    assert set(terms(content)) == {"size", "tuned", "tuned:size"}
    assert {side for pair in content["pairs"] if not pair["averaged_over"] for side in (pair["a"], pair["b"])} == set(
        "abcd"
    )
    assert any("tuned yes scores" in line or "tuned no scores" in line for line in content["findings"])


def test_factors_that_do_not_cross_give_way_to_the_model(tmp_path: Path) -> None:
    factors = {"size": {"a": "small", "b": "large", "c": "large"}, "tuned": {"a": "no", "b": "no", "c": "yes"}}
    rows = [row(model, seed) for model in "abc" for seed in range(SPLITS)]
    content = stats_of_experiment(experiment(tmp_path, rows, factors)).content
    assert terms(content) == ["model"]
    assert any("do not fill the grid of their factors (tuned, size)" in fact for fact in content["facts"])


def test_augmentation_is_part_of_the_name_or_a_factor_when_it_crosses(tmp_path: Path) -> None:
    rows = [row("a", seed, augmentation=aug) for seed in range(SPLITS) for aug in (NONE, "noise")]
    for line in rows[1::2]:
        line["uar"] += 0.02 + 0.001 * line["seed"]
    (pair,) = stats_of_experiment(experiment(tmp_path / "one", rows)).content["pairs"]
    assert (pair["a"], pair["b"]) == ("a", "a+noise")
    both = rows + [{**line, "model": "b", "uar": line["uar"] + 0.01 * (line["seed"] % 3)} for line in rows]
    content = stats_of_experiment(experiment(tmp_path / "two", both)).content
    assert terms(content) == ["model", "augmentation", "model:augmentation"]


def test_training_seeds_that_share_a_split_are_averaged_and_it_is_said(tmp_path: Path) -> None:
    rows = [row(model, seed) for model in "ab" for seed in range(3 * SPLITS)]
    content = stats_of_experiment(experiment(tmp_path, rows)).content
    assert content["audit"]["n_blocks"] == SPLITS
    assert content["pairs"][0]["n"] == SPLITS
    assert content["audit"]["blocks"][0] == "seeds 0, 6, 12 (00000000)"
    assert any("their mean is the score of the block" in fact for fact in content["facts"])
    frame = pd.DataFrame(rows)
    means = frame[frame["model"] == "a"].groupby("split_sha256")["uar"]
    told = content["descriptives"][0]
    assert told["mean"] == pytest.approx(means.mean().mean())
    assert told["sd"] == pytest.approx(means.mean().std())
    assert told["sd_within_block"] == pytest.approx(float(np.sqrt(means.var().mean())))
    assert (told["n"], told["n_runs"]) == (SPLITS, 3 * SPLITS)


def test_one_split_allows_no_test(tmp_path: Path) -> None:
    rows = [row(model, seed, split_sha256="f" * 64) for model in "ab" for seed in range(5)]
    content = stats_of_experiment(experiment(tmp_path, rows)).content
    assert "rm_anova" not in content
    assert content["pairs"][0]["p"] is None
    assert any("5 seeds share one split" in fact for fact in content["facts"])
    assert "One split allows no test." in content["findings"][0]


def test_missing_runs_are_named_and_pairs_use_what_there_is(tmp_path: Path) -> None:
    rows = [row(model, seed) for model in "abc" for seed in range(SPLITS) if (model, seed) != ("c", 2)]
    content = stats_of_experiment(experiment(tmp_path, rows)).content
    assert content["audit"]["missing"] == [{"block": "seed 2 (00000000)", "model": "c"}]
    assert content["rm_anova"]["n_blocks"] == SPLITS - 1
    assert {(pair["a"], pair["b"]): pair["n"] for pair in content["pairs"]} == {
        ("a", "b"): 6,
        ("a", "c"): 5,
        ("b", "c"): 5,
    }


def test_rows_without_uar_and_unfinished_runs_are_named(tmp_path: Path) -> None:
    rows = [row(model, seed) for model in "ab" for seed in range(SPLITS)]
    rows[1]["uar"] = ""
    folder = experiment(tmp_path, rows)
    (folder / "plan.json").write_text(json.dumps({"runs": ["a/emodb/seed-0", "a/emodb/seed-99"]}))
    facts = stats_of_experiment(folder).content["facts"]
    assert "1 rows have no UAR and are left out: a/emodb/seed-1 on emodb." in facts
    assert "1 planned runs are not finished: a/emodb/seed-99." in facts


def test_one_model_gets_descriptives_and_a_sentence(tmp_path: Path) -> None:
    result = stats_of_experiment(experiment(tmp_path, [row("a", seed) for seed in range(SPLITS)]))
    assert "rm_anova" not in result.content
    assert len(result.content["descriptives"]) == 1
    assert any("there is one model" in fact for fact in result.content["facts"])
    assert not (tmp_path / "stats" / "pairs.csv").exists()


def test_one_seed_of_two_models_says_that_nothing_can_be_tested(tmp_path: Path) -> None:
    content = stats_of_experiment(experiment(tmp_path, [row("a", 0), row("b", 0)])).content
    assert "One split allows no test." in content["findings"][0]
    assert content["descriptives"][0]["sd"] is None


def test_training_corpora_are_analysed_apart_and_stale_files_go(tmp_path: Path) -> None:
    rows = [row(model, seed) for model in "ab" for seed in range(SPLITS)]
    other = [
        {**line, "train_corpus": "cremad+emodb", "run": line["run"].replace("/emodb/", "/cremad+emodb/")}
        for line in rows
    ]
    stats_of_experiment(experiment(tmp_path, rows))
    assert (tmp_path / "stats" / "pairs.csv").is_file()
    content = stats_of_experiment(experiment(tmp_path, rows + other)).content
    assert content["analyses"] == {
        "across-training-corpora": "across-training-corpora/stats.json",
        "cremad+emodb": "cremad+emodb/stats.json",
        "emodb": "emodb/stats.json",
    }
    across = json.loads((tmp_path / "stats" / "across-training-corpora" / "stats.json").read_text())
    assert terms(across) == ["train_corpus", "model", "train_corpus:model"]
    assert across["audit"]["blocks"][0] == "cremad+emodb, seed 0 (00000000)"
    assert across["audit"]["between"] == {"train_corpus": ["cremad+emodb", "emodb"]}
    assert json.loads((tmp_path / "stats" / "emodb" / "stats.json").read_text())["pairs"][0]["n"] == SPLITS
    assert not (tmp_path / "stats" / "pairs.csv").exists()
    (tmp_path / "stats" / "mine.txt").write_text("kept")
    stats_of_experiment(experiment(tmp_path, rows))
    assert not (tmp_path / "stats" / "emodb").exists()
    assert (tmp_path / "stats" / "mine.txt").is_file()


def test_tests_with_other_numbers_of_classes_are_never_averaged(tmp_path: Path) -> None:
    rows = [
        row(model, seed, test, n_classes=7 if test == "emodb" else 4)
        for model in "ab"
        for seed in range(SPLITS)
        for test in ("emodb", "emovo")
    ]
    content = stats_of_experiment(experiment(tmp_path, rows)).content
    assert set(content["analyses"]) == {"emodb-on-emodb", "emodb-on-emovo"}
    part = json.loads((tmp_path / "stats" / "emodb-on-emovo" / "stats.json").read_text())
    assert terms(part) == ["model"]
    assert part["audit"]["chance"] == 0.25


def test_conditions_are_a_factor_or_part_of_the_test_set(tmp_path: Path) -> None:
    def rows(places: list[tuple[str, str]]) -> list[dict[str, Any]]:
        return [
            row(
                model,
                seed,
                test,
                condition=condition,
                uar=0.5 + 0.01 * ((seed * 7 + len(model + test + condition)) % 5) * (model == "a"),
            )
            for model in "ab"
            for seed in range(SPLITS)
            for test, condition in places
        ]

    crossed = stats_of_experiment(
        experiment(tmp_path / "1", rows([(t, c) for t in ("emodb", "emovo") for c in (NONE, "phone")]))
    )
    assert "model:test_corpus:condition" in terms(crossed.content)
    partial = stats_of_experiment(
        experiment(tmp_path / "2", rows([("emodb", NONE), ("emovo", NONE), ("emovo", "phone")]))
    )
    assert partial.content["audit"]["factors"]["test_corpus"] == ["emodb", "emovo", "emovo@phone"]


def test_pooled_folds_get_no_nadeau_bengio(tmp_path: Path) -> None:
    rows = [row(model, seed, fold="all") for model in "ab" for seed in range(SPLITS)]
    content = stats_of_experiment(experiment(tmp_path, rows)).content
    assert "nadeau_bengio" not in content["pairs"][0]
    assert any("pooled over folds" in fact for fact in content["facts"])


def test_reruns_write_the_same_bytes(tmp_path: Path) -> None:
    folder = experiment(tmp_path, [row(m, seed, split_sha256=f"{seed:064x}") for m in "ab" for seed in range(21)])
    first = stats_of_experiment(folder)
    assert first.content["pairs"][0]["signflip_mc_p"] is not None
    before = {file.name: file.read_bytes() for file in (folder / "stats").iterdir()}
    stats_of_experiment(folder)
    assert {file.name: file.read_bytes() for file in (folder / "stats").iterdir()} == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fold": "2"}, "fold = '2'"),
        ({"seed": "x"}, "line 2: seed = 'x' is not a whole number"),
        ({"uar": 60}, r"line 2: uar = 60 is outside \[0, 1\]"),
        ({"seed": 1, "split_sha256": f"{1:064x}"}, "stands there more than once"),
    ],
)
def test_wrong_results_are_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    rows = [row("a", seed) for seed in range(3)]
    with pytest.raises(BadInput, match=message):
        stats_of_experiment(experiment(tmp_path, [{**rows[0], **change}, *rows[1:]]))


def test_no_results_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"run `ser eval .*` first"):
        stats_of_experiment(tmp_path)


def test_finished_runs_must_stand_in_the_results(tmp_path: Path) -> None:
    folder = experiment(tmp_path, [row(model, seed) for model in "ab" for seed in range(SPLITS)])
    run = finish(folder, "b/emodb/seed-77")
    with pytest.raises(BadInput, match=r"1 finished run\(s\) are not in results.csv, e.g. b/emodb/seed-77; first: ser"):
        stats_of_experiment(folder)
    (run / "metrics.json").write_text("{}")  # evaluated, but no test corpus could be scored
    stats_of_experiment(folder)
    (folder / "a/emodb/seed-0/metrics.json").unlink()  # trained anew
    with pytest.raises(BadInput, match=r"1 finished run\(s\) .* e.g. a/emodb/seed-0"):
        stats_of_experiment(folder)


def test_runs_of_the_results_must_be_there(tmp_path: Path) -> None:
    folder = experiment(tmp_path, [row(model, seed) for model in "ab" for seed in range(SPLITS)])
    shutil.rmtree(folder / "a/emodb/seed-2")
    with pytest.raises(BadInput, match=r"1 run\(s\) of results.csv are no longer there, e.g. a/emodb/seed-2; first"):
        stats_of_experiment(folder)


def test_folds_must_stand_in_their_table_and_be_there(tmp_path: Path) -> None:
    folder = experiment(tmp_path, [row(model, seed, fold="all") for model in "ab" for seed in range(SPLITS)])
    told = (folder / "folds.csv").read_text()
    finish(folder, "b/emodb/seed-9-fold-1", seed=9)  # its other folds are missing, so that results.csv lacks the seed
    with pytest.raises(BadInput, match=r"e\.g\. b/emodb/seed-9-fold-1"):
        stats_of_experiment(folder)
    (folder / "folds.csv").write_text(told + "b/emodb/seed-9-fold-1\n")
    assert stats_of_experiment(folder).content["audit"]["n_runs"] == 2 * SPLITS
    shutil.rmtree(folder / "b/emodb/seed-0-fold-1")
    with pytest.raises(BadInput, match=r"no longer there, e\.g\. b/emodb/seed-0-fold-1"):
        stats_of_experiment(folder)


def test_results_cut_short_are_refused(tmp_path: Path) -> None:
    folder = experiment(tmp_path, [row(model, seed) for model in "ab" for seed in range(SPLITS)])
    text = (folder / RESULTS).read_text().rstrip("\n")
    (folder / RESULTS).write_text(text[: text.rindex("emodb") + 3])
    with pytest.raises(BadInput, match=r"results\.csv, line 13: \d+ fields, but the header has \d+; first: ser eval"):
        stats_of_experiment(folder)


def test_a_broken_plan_is_bad_input(tmp_path: Path) -> None:
    folder = experiment(tmp_path, [row("a", 0), row("b", 0)])
    (folder / "plan.json").write_text("[]")
    with pytest.raises(BadInput, match=r"plan\.json: expected"):
        stats_of_experiment(folder)


def test_one_run_on_two_corpora_is_one_run(tmp_path: Path) -> None:
    rows = [row(model, seed, test) for model in "ab" for seed in range(SPLITS) for test in ("emodb", "emovo")]
    facts = stats_of_experiment(experiment(tmp_path, rows)).content["facts"]
    assert any(fact.startswith(f"{4 * SPLITS} scores of {2 * SPLITS} runs in {SPLITS} blocks") for fact in facts)


def test_ties_are_equal_and_small_differences_are_seen(tmp_path: Path) -> None:
    scores = [0.5, 0.6, 0.7, 0.55, 0.65, 0.6]
    rows = [row(model, seed, uar=scores[seed - (model == "b")]) for model in "ab" for seed in range(SPLITS)]
    result = stats_of_experiment(experiment(tmp_path / "tie", rows))
    assert result.content["findings"][0].startswith("T1: a and b are equal, 95 % CI [")
    assert any(line.startswith("T1, best and next: a and b equal, 95 % CI") for line in result.lines)
    rows = [row(m, seed, uar=scores[seed] + (m == "b") * 2e-5 * (1 + seed % 2)) for m in "ab" for seed in range(SPLITS)]
    result = stats_of_experiment(experiment(tmp_path / "near", rows))
    assert result.content["findings"][0].startswith("T1: b scores 0.003 UAR points above a")
    assert any("b above a by 0.003 UAR points" in line for line in result.lines)


def test_the_interval_of_a_mean_is_told_within_what_a_share_can_be(tmp_path: Path) -> None:
    rows = [row(model, seed, uar=0.5 + 0.49 * (seed % 2)) for model in "ab" for seed in range(2)]
    result = stats_of_experiment(experiment(tmp_path, rows))
    assert any("95 % CI [0.0, 1.0000] (cut at 0 and 1)" in line for line in result.lines)
    assert result.content["descriptives"][0]["ci95_high"] > 1
    assert pd.read_csv(tmp_path / "stats/descriptives.csv")["ci95_low"][0] < 0
    table = (tmp_path / "stats/descriptives.md").read_text()
    assert "Intervals are cut at 0 and 1" in table
    assert "| 1.0000 |" in table


def test_bytes_of_figures_are_drawn_of_names_with_a_dollar(tmp_path: Path) -> None:
    rows = [row("a", seed) for seed in range(3)] + [{**row("b", seed), "model": "b$_$ 喜"} for seed in range(3)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stats_of_experiment(experiment(tmp_path, rows))
    assert (tmp_path / "stats/strip.png").is_file()


def test_power_note_names_the_floor_and_the_blocks_needed() -> None:
    assert "2/2^5 = 0.0625; p < .05 needs at least 6 blocks" in power_note(5, 1)
    assert "at least 9 blocks" in power_note(5, 7)
    assert power_note(30, 15) == ""


def test_p_values_in_apa_style() -> None:
    told = [p_text(p) for p in (0.0123, 0.0004, 0.05, 0.0504, 1.0, float("nan"))]
    assert told == ["p = .012", "p < .001", "p = .0500", "p = .0504", "p = 1.000", "p not defined"]


def test_natural_order() -> None:
    assert sorted(["s10", "s2", "10", "2", "0.5", "b", "a"], key=natural) == ["0.5", "2", "10", "a", "b", "s2", "s10"]
