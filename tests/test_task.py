"""Task maps: which labels become which classes, what is counted, and what holds across corpora."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_eval.errors import BadInput as EvalBadInput
from ser_eval.evaluate import evaluate_experiment, mask_predictions
from ser_eval.run_folder import read_json
from ser_scripts.cli import app
from ser_scripts.errors import BadInput
from ser_scripts.labels import VOCABULARY
from ser_scripts.runs.plan import load_experiment, make_plan
from ser_scripts.settings import folders
from ser_scripts.specs.base import parse
from ser_scripts.specs.corpora import CsvCorpus, NamedCorpus
from ser_scripts.specs.experiment import ExperimentSpec
from ser_scripts.specs.task import PRESETS, TaskSpec
from ser_scripts.tasks import Task, check_names, make_task
from tests import fabricated_runs as made

EMODB = ("angry", "bored", "disgusted", "fearful", "happy", "neutral", "sad")
FOUR = ["angry", "happy", "neutral", "sad"]


def task_spec(**keys) -> TaskSpec:
    return parse(TaskSpec, keys, source="x.json", kind="task")


def named(*names: str) -> list[NamedCorpus]:
    return [NamedCorpus(name=name) for name in names]


def clips(name: str, labels: tuple[str, ...], each: int = 2) -> pd.DataFrame:
    rows = [(name, f"{label}-{n}.wav", label) for label in labels for n in range(each)]
    return pd.DataFrame(rows, columns=["corpus", "path", "class_id"])


def made_task(spec: TaskSpec, train: dict[str, tuple[str, ...]], test: dict[str, tuple[str, ...]]) -> tuple[Task, dict]:
    """The task, and class -> clips of each corpus."""
    tables = {name: clips(name, labels) for name, labels in {**train, **test}.items()}
    task, table = make_task(spec, named(*train), named(*test), tables, source="x.json")
    assert len(table) + len(task.left_out) == sum(map(len, tables.values()))  # nothing is lost
    return task, {name: rows["class_id"].value_counts().to_dict() for name, rows in table.groupby("corpus")}


def refused(spec: TaskSpec, train: dict[str, tuple[str, ...]], test: dict[str, tuple[str, ...]]) -> str:
    with pytest.raises(BadInput) as error:
        made_task(spec, train, test)
    return str(error.value)


def test_labels_are_merged_then_dropped_then_chosen() -> None:
    spec = task_spec(merge={"sad": ["sad", "bored"]}, drop=["disgusted"], classes=["angry", "neutral", "sad"])
    task, left = made_task(spec, {"emodb": EMODB}, {})
    assert task.labels == ("angry", "neutral", "sad")
    assert left == {"emodb": {"angry": 2, "neutral": 2, "sad": 4}}
    assert task.relabelled == {"emodb": {"bored->sad": 2}}
    assert sorted({label for _, _, label in task.left_out}) == ["disgusted", "fearful", "happy"]
    assert task.left_out[0] == ("emodb", "disgusted-0.wav", "disgusted")


def test_without_classes_the_labels_that_remain_are_the_classes() -> None:
    task, _ = made_task(task_spec(merge={"low": ["sad", "bored"]}, drop=["neutral"]), {"emodb": EMODB}, {})
    assert task.labels == ("angry", "disgusted", "fearful", "happy", "low")
    assert task.relabelled == {"emodb": {"bored->low": 2, "sad->low": 2}}


def test_a_label_of_one_corpus_only_can_be_named() -> None:
    spec = task_spec(merge={"sad": ["emodb/bored"]}, drop=["expresso/bored"])
    train = {"emodb": ("angry", "bored", "sad"), "expresso": ("angry", "bored", "sad")}
    task, left = made_task(spec, train, {})
    assert task.relabelled == {"emodb": {"bored->sad": 2}}
    assert left == {"emodb": {"angry": 2, "sad": 4}, "expresso": {"angry": 2, "sad": 2}}


def test_a_corpus_under_another_name_is_found_by_either() -> None:
    corpus = NamedCorpus(name="berlin", corpus="emodb")
    table = {"berlin": clips("berlin", EMODB)}
    for name in ("berlin", "emodb"):
        task, _ = make_task(task_spec(merge={"sad": [f"{name}/bored"]}), [corpus], [], table, source="x")
        assert task.relabelled == {"berlin": {"bored->sad": 2}}


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"merge": {"happy": ["excited"], "angry": ["excited"]}}, "merged into 'angry' and 'happy'"),
        ({"merge": {"sad": ["bored"], "neutral": ["sad"]}}, "'sad' is merged into 'neutral'"),
        ({"merge": {"sad": []}}, "a list of at least 1"),
        ({"drop": ["sad", "sad"]}, "stands there twice"),
        ({"drop": ["sad"], "classes": ["sad", "angry"]}, "dropped and among the classes"),
        ({"classes": ["sad"]}, "at least two"),
        ({"preset": "four_clas"}, "did you mean 'four_class'?"),
        ({"preset": "four_class", "drop": ["sad"]}, "only 'across' may stand"),
        ({"across": "union"}, "across"),
    ],
)
def test_contradictions_are_refused(keys, said) -> None:
    with pytest.raises(BadInput) as error:
        task_spec(**keys)
    assert said in str(error.value)


def test_classes_is_the_short_form_and_both_at_once_an_error() -> None:
    content = {"name": "e", "train": ["emodb"], "models": ["m"], "split": {"kind": "random"}}
    short = parse(ExperimentSpec, {**content, "classes": FOUR}, source="x", kind="experiment")
    full = parse(ExperimentSpec, {**content, "task": {"classes": FOUR}}, source="x", kind="experiment")
    assert short.task_map == full.task_map
    with pytest.raises(BadInput, match="give one of the two"):
        parse(ExperimentSpec, {**content, "classes": FOUR, "task": "four_class"}, source="x", kind="experiment")


def test_names_that_no_corpus_has_name_the_nearest() -> None:
    labels = {"emodb": set(EMODB)}
    for keys, said in (
        (
            {"drop": ["disgust"]},
            "task.drop: no corpus has the label 'disgust' after merging; did you mean 'disgusted'?",
        ),
        ({"merge": {"sad": ["boredom"]}}, "task.merge: no corpus has the label 'boredom'; did you mean 'bored'?"),
        ({"merge": {"sad": ["emobd/bored"]}}, "'emobd/bored'"),
        ({"merge": {"sad": ["bored"]}, "drop": ["bored"]}, "it is merged into another"),
    ):
        with pytest.raises(BadInput) as error:
            check_names(task_spec(**keys), named("emodb"), labels, source="x.json")
        assert said in str(error.value)
    check_names(task_spec(preset="ser_evals_8"), named("emodb"), labels, source="x.json")  # a preset may


def test_presets() -> None:
    task, left = made_task(task_spec(preset="four_class"), {"emodb": EMODB}, {})
    assert (list(task.labels), task.relabelled) == (FOUR, {})
    iemocap = (*FOUR, "excited", "frustrated")
    task, left = made_task(task_spec(preset="four_class_excited"), {"iemocap": iemocap}, {})
    assert left == {"iemocap": {"angry": 2, "happy": 4, "neutral": 2, "sad": 2}}
    task, _ = made_task(task_spec(preset="six_class"), {"emodb": EMODB}, {})
    assert len(task.labels) == 6
    assert "bored" not in task.labels
    task, left = made_task(task_spec(preset="unitree_four_class"), {"emodb": EMODB}, {})
    assert left == {"emodb": {"angry": 4, "happy": 2, "neutral": 2, "sad": 4}}
    assert {label for _, _, label in task.left_out} == {"bored"}


def test_the_eight_classes_of_ser_evals_hang_on_the_corpus() -> None:
    spec = PRESETS["ser_evals_8"]
    for corpus, label, becomes in (
        ("emodb", "bored", "sad"),
        ("demos", "guilty", "sad"),
        ("mead", "contempt", "disgusted"),
        ("resd", "enthusiastic", "other"),
        ("expresso", "awed", "surprised"),
        ("expresso", "bored", "neutral"),
        ("expresso", "laughing", "happy"),
        ("expresso", "confused", "other"),
        ("thorsten", "amused", "happy"),
        ("thorsten", "whispering", "other"),
        ("shemo", "fearful", "other"),
        ("emovo", "fearful", "fearful"),
    ):
        assert spec.new_label(label, (corpus,)) == becomes
    kept = {spec.new_label(label, ("any",)) for label in VOCABULARY}
    assert kept == {"angry", "disgusted", "fearful", "happy", "neutral", "other", "sad", "surprised"}


TRAIN = {"a": ("angry", "calm", "happy", "sad"), "b": ("angry", "happy", "sad")}
TEST = {"c": ("angry", "bored", "sad")}


def test_by_default_all_corpora_share_the_classes_and_what_that_costs_is_told() -> None:
    task, left = made_task(TaskSpec(), TRAIN, TEST)
    assert (task.across, task.labels) == ("intersection", ("angry", "sad"))
    assert set(left) == {"a", "b", "c"}
    assert task.not_shared == {"a": {"calm": 2, "happy": 2}, "b": {"happy": 2}, "c": {"bored": 2}}
    assert any(line.startswith("intersection: a goes without calm, happy") for line in task.lines())


def test_unmasked_and_masked_train_on_all_classes_of_the_training_corpora() -> None:
    for across in ("unmasked", "masked"):
        task, left = made_task(task_spec(across=across), TRAIN, TEST)
        assert task.labels == ("angry", "calm", "happy", "sad")
        assert left["c"] == {"angry": 2, "sad": 2}
        assert task.not_shared == {}
    chosen, _ = made_task(task_spec(classes=["angry", "happy", "sad"]), TRAIN, TEST)
    assert (chosen.across, chosen.labels) == ("unmasked", ("angry", "happy", "sad"))


def test_classes_that_cannot_be_had_are_refused() -> None:
    assert "no clip of a, b has the label 'bored'" in refused(task_spec(classes=["angry", "bored"]), TRAIN, TEST)
    assert "shares angry with the task" in refused(task_spec(classes=["angry", "happy"]), TRAIN, TEST)
    text = refused(task_spec(classes=["angry", "happy", "sad"], across="intersection"), TRAIN, TEST)
    assert "c has no happy" in text
    assert "x.json: a task needs at least two classes that all corpora have" in refused(
        TaskSpec(), {"a": ("angry", "sad"), "b": ("angry", "happy")}, {}
    )
    masked, _ = made_task(task_spec(classes=["angry", "bored", "sad"], across="masked"), TRAIN, TEST)
    assert masked.labels == ("angry", "bored", "sad")  # never trained, and never answered


def test_an_own_corpus_takes_part_under_its_name() -> None:
    corpus = CsvCorpus(kind="csv", name="mine", path="mine.csv")
    spec = task_spec(merge={"happy": ["mine/joy"]})
    task, _ = make_task(spec, [corpus], [], {"mine": clips("mine", ("joy", "sad"))}, source="x")
    assert task.labels == ("happy", "sad")


@given(
    merge=st.dictionaries(st.sampled_from("ABC"), st.sets(st.sampled_from("abcdef"), min_size=1), max_size=3),
    drop=st.sets(st.sampled_from("abcdefABC")),
    labels=st.lists(st.sets(st.sampled_from("abcdef"), min_size=2), min_size=1, max_size=3),
    across=st.sampled_from(["intersection", "masked", "unmasked"]),
)
@settings(max_examples=200)
def test_every_clip_is_kept_or_counted_once(merge, drop, labels, across) -> None:
    try:
        spec = task_spec(merge={k: sorted(v) for k, v in merge.items()}, drop=sorted(drop), across=across)
        train = {f"c{number}": tuple(sorted(own)) for number, own in enumerate(labels)}
        task, left = made_task(spec, train, {})
    except BadInput:
        return
    assert {label for counts in left.values() for label in counts} == set(task.labels)
    if across == "intersection":
        assert all(set(counts) == set(task.labels) for counts in left.values())
    assert not set(task.labels) & drop
    becomes = {label: new for new, old in merge.items() for label in old if label != new}
    renamed = [label for own in train.values() for label in own if becomes.get(label) in task.labels]
    assert sum(n for moves in task.relabelled.values() for n in moves.values()) == 2 * len(renamed)


# ---- masking ----


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluation without its page, which takes most of the time."""
    monkeypatch.setattr("ser_eval.report.write_report", lambda summary: None)


def table_of(truth: list[str], probabilities: dict[str, list[float]]) -> pd.DataFrame:
    frame = pd.DataFrame({f"p_{label}": values for label, values in probabilities.items()})
    names = sorted(probabilities)
    answers = [names[int(np.argmax(row))] for row in frame[[f"p_{name}" for name in names]].to_numpy()]
    meta = pd.DataFrame(
        {"corpus": "c", "path": [f"{n}.wav" for n in range(len(truth))], "actor": "x", "gender": "male"}
    )
    meta["truth"], meta["prediction"] = truth, answers
    meta["correct"] = (meta["truth"] == meta["prediction"]).astype(int)
    return pd.concat([meta, frame], axis=1)


def test_masking_renormalises_and_keeps_allowed_answers() -> None:
    table = table_of(["a", "b"], {"a": [0.1, 0.2], "b": [0.3, 0.3], "c": [0.6, 0.5]})
    masked = mask_predictions(table, ["c"])
    assert masked["prediction"].tolist() == ["b", "b"]
    assert masked["correct"].tolist() == [0, 1]
    assert masked["p_c"].tolist() == [0.0, 0.0]
    assert masked["p_a"].tolist() == pytest.approx([0.25, 0.4])
    assert table["prediction"].tolist() == ["c", "c"]  # untouched
    assert mask_predictions(table, []) is table


def test_nothing_is_decided_from_no_probability_at_all() -> None:
    table = table_of(["a"], {"a": [0.0], "b": [0.0], "c": [1.0]})
    with pytest.raises(EvalBadInput, match=r"0\.wav: the probabilities of a, b are all 0"):
        mask_predictions(table, ["c"])
    with pytest.raises(EvalBadInput, match="leaves a; two are needed"):
        mask_predictions(table, ["b", "c"])


@given(data=st.data(), classes=st.integers(3, 6), n=st.integers(1, 8))
@settings(max_examples=100)
def test_a_masked_class_is_never_answered_and_the_rest_is_a_distribution(data, classes, n) -> None:
    names = [f"l{k}" for k in range(classes)]
    logits = np.array(
        data.draw(st.lists(st.lists(st.floats(-30, 30), min_size=classes, max_size=classes), min_size=n, max_size=n))
    )
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    table = table_of([names[0]] * n, {name: list(p[:, k]) for k, name in enumerate(names)})
    gone = data.draw(st.sets(st.sampled_from(names), max_size=classes - 2))
    masked = mask_predictions(table, sorted(gone))
    assert not set(masked["prediction"]) & gone
    assert np.allclose(masked[[f"p_{name}" for name in names]].sum(axis=1), 1)
    same = ~table["prediction"].isin(gone)
    assert masked.loc[same, "prediction"].equals(table.loc[same, "prediction"])


def cross(
    folder: Path, tables: dict[str, pd.DataFrame], split: pd.DataFrame, labels: list[str], **changes
) -> pd.DataFrame:
    made.write_run(
        folder, model="m", seed=0, split=split, tables=tables, train_corpora=["home"], labels=labels, **changes
    )
    made.write_clips(folder, *[rows for _, rows in split.groupby("corpus")])
    return evaluate_experiment(folder).results.set_index("test_corpus")


def test_a_class_absent_from_training_is_never_answered(tmp_path: Path, no_report) -> None:
    """The artefact of a published matrix: 88 cells in which everything was called by a class that was never trained.

    There a class without training clips won by its missing prior. Here the logits are uniform, the head has a class
    `surprised` that the training corpus lacks, and the model answers it for every clip.
    """
    home = made.corpus_clips("home", classes=FOUR)
    away = made.corpus_clips("away", actors=("f8", "m9"), classes=[*FOUR, "surprised"], repeats=2)
    labels = [*FOUR, "surprised"]
    split = pd.concat([made.sides(home, test=["f1", "m1"], validation=["f2"]), away.assign(split="test")])
    tables = {}
    for name, rows in split[split["split"] == "test"].groupby("corpus"):
        tables[name] = made.prediction_table(rows, ["surprised"] * len(rows), labels)
        tables[name][[f"p_{label}" for label in labels]] = 1 / len(labels)
    results = cross(tmp_path / "e", tables, split, labels)
    scores = read_json(tmp_path / "e/m/home/seed-0/metrics.json")
    for name in ("away", "home"):
        assert scores[name]["masked_labels"] == ["surprised"]
        columns = scores[name]["confusion"]["columns"]
        counts = np.array(scores[name]["confusion"]["counts"])
        assert counts[:, columns.index("surprised")].sum() == 0
        assert results.loc[name, "nll"] == pytest.approx(np.log(4))  # uniform over the four that were trained
    # The class that the model cannot know is no class of the test either: it is named with its clips.
    assert results.loc["away", "n_classes"] == 4
    assert scores["away"]["unknown_labels"]["surprised"]["n"] == 4
    notes = evaluate_experiment(tmp_path / "e").notes
    assert any("without a clip on the training side, and therefore never answered: surprised" in note for note in notes)


def test_masked_and_unmasked_are_different_rows(tmp_path: Path, no_report) -> None:
    """`away` lacks happy, which the model answers for every clip of neutral."""
    home = made.corpus_clips("home", classes=FOUR)
    away = made.corpus_clips("away", actors=("f8", "m9"), classes=("angry", "neutral", "sad"), repeats=2)
    split = pd.concat([made.sides(home, test=["f1", "m1"], validation=["f2"]), away.assign(split="test")])
    test = split[split["split"] == "test"]
    tables = {}
    for name, rows in test.groupby("corpus"):
        tables[name] = made.prediction_table(rows, rows["class_id"].replace({"neutral": "happy"}), FOUR)
        if name == "away":
            tables[name]["p_neutral"] += 0.001  # the runner-up
            tables[name]["p_sad"] -= 0.001
    unmasked = cross(tmp_path / "unmasked", tables, split, FOUR)
    masked = cross(tmp_path / "masked", tables, split, FOUR, across="masked")
    assert unmasked.loc["away", "protocol"] == "cross-corpus unmasked"
    assert masked.loc["away", "protocol"] == "cross-corpus masked"
    assert unmasked.loc["away", "uar"] == pytest.approx(2 / 3)
    assert masked.loc["away", "uar"] == 1.0
    assert unmasked.loc["away", "n_classes"] == masked.loc["away", "n_classes"] == 3
    assert unmasked.loc["home", "uar"] == masked.loc["home", "uar"]  # it has all four classes
    both = cross(tmp_path / "shared", tables, split, FOUR, across="intersection", not_shared={"home": {"calm": 3}})
    assert both.loc["home", "protocol"] == "speaker_independent intersection"


def test_merged_labels_are_stamped_and_told(tmp_path: Path) -> None:
    home = made.corpus_clips("home", classes=FOUR)
    split = made.sides(home, test=["f1", "m1"], validation=["f2"])
    test = split[split["split"] == "test"]
    tables = {"home": made.prediction_table(test, test["class_id"], FOUR)}
    results = cross(tmp_path / "e", tables, split, FOUR, relabelled={"home": {"bored->sad": 7}})
    assert results.loc["home", "protocol"] == "speaker_independent MERGED LABELS"
    page = (tmp_path / "e/report/report.html").read_text(encoding="utf-8")
    assert "home: bored -&gt; sad (7)" in page
    assert "<strong>MERGED LABELS.</strong>" in page


# ---- whole runs ----


@pytest.fixture
def three_corpora(project, mini_corpus: Path, tmp_path: Path):
    """Experiments on `mini` (angry, happy, sad), tested on `other`: its clips as angry, sad and (happy) bored."""
    lines = (mini_corpus / "clips.csv").read_text().splitlines()
    other = [
        lines[0],
        *(
            f"{mini_corpus}/{line}".replace(",happy,", ",bored,")
            for line in lines[1:]
            if "-f1-" in line or "-m1-" in line
        ),
    ]
    (tmp_path / "other.csv").write_text("\n".join(other) + "\n")
    home = [lines[0], *(f"{mini_corpus}/{line}" for line in lines[1:] if "-f1-" not in line and "-m1-" not in line)]
    (tmp_path / "home.csv").write_text("\n".join(home) + "\n")
    corpora = {
        "train": [{"kind": "csv", "name": "home", "path": "home.csv"}],
        "test": [{"kind": "csv", "name": "other", "path": "other.csv"}],
    }

    def write(**changes) -> Path:
        return project(seeds=[0], training={"epochs": 1}, **{**corpora, **changes})

    return write


def test_a_merge_reaches_split_record_and_results(three_corpora, tmp_path: Path, capsys, no_report) -> None:
    file = three_corpora(task={"merge": {"happy": ["happy", "bored"]}, "across": "masked"})
    app(["check", str(file)], standalone_mode=False)
    assert "relabelled in other: 8 bored -> happy (MERGED LABELS)" in capsys.readouterr().out
    app(["train", str(file), "--device", "cpu"], standalone_mode=False)
    run = tmp_path / "runs/mini/tiny/home/seed-0"
    record = read_json(run / "run.json")
    assert (record["relabelled"], record["left_out"], record["across"]) == (
        {"other": {"bored->happy": 8}},
        [],
        "masked",
    )
    split = pd.read_csv(run / "split.csv")
    assert set(split["class_id"]) == {"angry", "happy", "sad"}
    task = read_json(run / "spec.json")["experiment"]["task"]
    assert task["merge"] == {"happy": ["happy", "bored"]}
    results = evaluate_experiment(tmp_path / "runs/mini").results.set_index("test_corpus")
    assert results.loc["other", "protocol"] == "cross-corpus MERGED LABELS"
    assert results.loc["other", "n_classes"] == 3


def test_masked_training_with_a_class_nobody_trains(three_corpora, tmp_path: Path, no_report) -> None:
    task = {"classes": ["angry", "bored", "happy", "sad"], "across": "masked"}
    file = three_corpora(task=task, model={"loss": {"class_weights": True}})
    app(["train", str(file), "--device", "cpu"], standalone_mode=False)
    results = evaluate_experiment(tmp_path / "runs/mini").results.set_index("test_corpus")
    scores = read_json(tmp_path / "runs/mini/tiny/home/seed-0/metrics.json")["other"]
    assert scores["masked_labels"] == ["bored", "happy"]
    assert scores["labels"] == ["angry", "sad"]
    assert scores["unknown_labels"]["bored"]["n"] == 8
    assert results.loc["other", "protocol"] == "cross-corpus masked"


def test_eval_on_a_further_corpus_speaks_the_task_of_the_run(three_corpora, tmp_path: Path, no_report) -> None:
    file = three_corpora(test=[], task={"merge": {"low": ["sad", "bored"]}, "across": "unmasked"})
    with pytest.raises(BadInput, match="no corpus has the label 'bored'"):
        app(["check", str(file)], standalone_mode=False)
    file = three_corpora(test=[], task={"merge": {"low": ["sad"]}})
    app(["train", str(file), "--device", "cpu"], standalone_mode=False)
    app(["eval", str(file), "--on", str(tmp_path / "other.csv")], standalone_mode=False)
    scores = read_json(tmp_path / "runs/mini/tiny/home/seed-0/metrics.json")["other"]
    assert scores["labels"] == ["angry", "low"]
    assert scores["unknown_labels"]["bored"]["n"] == 8
    record = read_json(tmp_path / "runs/mini/tiny/home/seed-0/run.json")
    assert record["relabelled"]["other"] == {"sad->low": 8}


def test_emodb_in_four_classes(ser_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SER_CACHE", str(tmp_path / "cache"))
    (tmp_path / "tiny.json").write_text(json.dumps({"name": "tiny", "encoder": {"model_path_or_name": "a/b"}}))
    content = {
        "name": "e",
        "train": ["emodb"],
        "task": "four_class",
        "models": ["tiny"],
        "split": {"kind": "leave_one_speaker_out"},
    }
    (tmp_path / "e.json").write_text(json.dumps(content))
    plan = make_plan(load_experiment(tmp_path / "e.json"), folders(), progress=lambda text: None)
    (task,) = plan.tasks.values()
    assert list(task.labels) == FOUR
    counts = pd.Series([label for _, _, label in task.left_out]).value_counts().to_dict()
    assert counts == {"bored": 81, "fearful": 69, "disgusted": 46}
    assert sum(len(run.split.table[run.split.table["split"] == "test"]) for run in plan.runs) == 535 - 81 - 69 - 46
