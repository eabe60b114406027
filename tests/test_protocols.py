"""The registry of published protocols: what each fills in, what it refuses, and that its splits stay what they are."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ser_eval.evaluate import evaluate_experiment
from ser_scripts import corpora, protocols
from ser_scripts.cli import app
from ser_scripts.errors import BadInput, SplitRefused
from ser_scripts.manifest import build_manifest
from ser_scripts.runs.plan import load_experiment
from ser_scripts.specs.base import parse
from ser_scripts.specs.corpora import NamedCorpus
from ser_scripts.specs.experiment import ExperimentSpec
from ser_scripts.specs.splits import KFold
from ser_scripts.splits import draw
from tests import fabricated_runs as made

GOLDEN = {
    "emodb-loso": "0f7f495a9240c5959b837d56253a4b0da11b392ed9c7cc20a9ebc716f4ae5a06",
    "ravdess-6x4": "8b38b6e7aede5300399eeeb667803ec027b46d8e8c453708377ce1f4a7b5e350",
}
"""SHA-256 of all folds together, seed 0, complete corpus."""


def resolved(protocol: str | dict[str, Any], **keys: Any) -> tuple[ExperimentSpec, protocols.Protocol | None]:
    split = {"protocol": protocol} if isinstance(protocol, str) else protocol
    content = {"name": "e", "models": ["m"], "split": split, **keys}
    spec = parse(ExperimentSpec, content, source="x.json", kind="experiment")
    return protocols.resolve(spec, base=Path(), source="x.json")


def refused(protocol: str | dict[str, Any], **keys: Any) -> str:
    with pytest.raises(BadInput) as error:
        resolved(protocol, **keys)
    return str(error.value)


def every() -> list[protocols.Protocol]:
    return [protocols.get(name) for name in protocols.names()]


def test_the_registry_holds_what_docs_promise() -> None:
    assert set(protocols.names()) == {
        "iemocap-5-sessions", "iemocap-10-speakers", "superb-er", "emo-superb-cremad", "emo-superb-iemocap",
        "emobox-<corpus>", "msp-podcast", "msp-podcast-attributes", "odyssey-2024", "odyssey-2024-attributes",
        "emozionalmente-official", "emodb-loso", "emovo-loso", "savee-loso", "ravdess-6x4",
    }  # fmt: skip


@pytest.mark.parametrize("protocol", every(), ids=lambda protocol: protocol.name)
def test_every_protocol_says_where_it_comes_from_and_how_its_sides_come_about(protocol: protocols.Protocol) -> None:
    assert protocol.citation
    assert protocol.source.startswith("http")
    assert (protocol.split is not None) or protocol.file == "needed"
    assert (protocol.file != "none") == bool(protocol.file_source)
    assert protocol.name.split("-")[0] in protocols.describe(protocol.name)
    assert set(protocol.corpora) <= set(corpora.names())
    if protocol.labels is not None:
        assert protocol.labels in corpora.label_sets(corpora.get(protocol.corpora[0]))


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_splits_of_a_complete_corpus_are_golden(name: str) -> None:
    sums = protocols.complete_checksums(protocols.get(name))
    assert sums is not None
    assert sums["all"] == GOLDEN[name]
    assert sums["all"] == hashlib.sha256("".join(f"{v}\n" for k, v in sums.items() if k != "all").encode()).hexdigest()


def test_the_checksum_told_is_that_of_the_real_corpus(ser_data: Path, tmp_path: Path) -> None:
    corpus = NamedCorpus(name="emodb")
    manifest = build_manifest(corpus, data=ser_data, cache=tmp_path, base=tmp_path)
    protocol = protocols.get("emodb-loso")
    assert protocol.split is not None
    clips = manifest.clips.assign(path=manifest.clips["path"].map(lambda path: f"wav/{Path(path).stem}.wav"))
    splits = draw(clips, protocol.split, 0, train_corpora=["emodb"])
    sums = protocols.complete_checksums(protocol)
    assert sums is not None
    assert {str(split.fold): split.sha256 for split in splits} == {k: v for k, v in sums.items() if k != "all"}


def test_what_the_experiment_leaves_open_is_filled_in() -> None:
    spec, protocol = resolved("iemocap-5-sessions", train=["iemocap"])
    assert protocol is not None
    assert spec.split.kind == "leave_one_group_out"
    assert spec.task_map.expanded().merge == {"happy": ("happy", "excited")}
    spec, _ = resolved({"protocol": "emo-superb-cremad", "file": __file__}, train=["cremad"])
    assert (spec.split.kind, spec.train[0][0].labels) == ("preset", "perceived_audio")
    spec, _ = resolved("msp-podcast", train=["msppodcast"])
    assert (spec.split.kind, spec.split.test) == ("partition", ("test1",))
    assert len(spec.task_map.classes) == 8
    spec, protocol = resolved({"kind": "k_fold"}, train=["emodb"])
    assert protocol is None


def test_a_further_test_corpus_does_not_change_the_classes_of_a_protocol() -> None:
    spec, _ = resolved("emodb-loso", train=["emodb"], test=["emovo"])
    assert spec.task_map.expanded().across == "unmasked"
    spec, _ = resolved("emodb-loso", train=["emodb"], test=["emovo"], task={"across": "masked"})
    assert spec.task_map.across == "masked"
    assert "'across' may be 'unmasked' or 'masked'" in refused(
        "emodb-loso", train=["emodb"], test=["emovo"], task={"across": "intersection"}
    )


@pytest.mark.parametrize(
    ("protocol", "keys", "said"),
    [
        ("emodb-losso", {"train": ["emodb"]}, "no protocol 'emodb-losso'; did you mean 'emodb-loso'?"),
        (
            "emodb-loso",
            {"train": ["emovo"]},
            "protocol 'emodb-loso' trains on emodb and nothing else; 'train' is emovo",
        ),
        ("emodb-loso", {"train": ["emodb", "emovo"]}, "'train' is emodb + emovo"),
        ("emodb-loso", {"train": ["emodb"], "task": "four_class"}, "the labels of the corpus as they are"),
        ("iemocap-5-sessions", {"train": ["iemocap"], "classes": ["angry", "sad"]}, "demands the task"),
        ("emodb-loso", {"train": [{"name": "emodb", "only": {"gender": ["female"]}}]}, "'only'"),
        ("emodb-loso", {"train": [{"name": "emodb", "labels": "x"}]}, "demands the first label set of emodb"),
        ({"protocol": "emodb-loso", "file": "x.csv"}, {"train": ["emodb"]}, "takes no 'file'"),
        ("emobox-emodb", {"train": ["emodb"]}, 'needs its published split: give "file"'),
        ({"protocol": "emobox-emodb", "file": "gone"}, {"train": ["emodb"]}, "'gone': no such file or folder"),
        ("emobox-emodbb", {"train": ["emodb"]}, "did you mean 'emodb'?"),
    ],
)
def test_what_contradicts_a_protocol_is_refused_with_what_it_demands(protocol, keys, said) -> None:
    assert said in refused(protocol, **keys)


def test_the_same_task_in_other_words_is_no_contradiction() -> None:
    task = {"merge": {"happy": ["happy", "excited"]}, "classes": ["sad", "neutral", "happy", "angry"]}
    spec, _ = resolved("superb-er", train=["iemocap"], task=task)
    assert spec.split.validation_from == "clips"


def test_the_definition_s_checksum_covers_what_decides_a_number_and_no_words() -> None:
    one = protocols.get("emodb-loso")
    assert one.model_copy(update={"notes": ("other words",)}).identity() == one.identity()
    for change in (
        {"labels": "x"},
        {"corpora": ("emovo",)},
        {"split": None},
        {"task": protocols.get("superb-er").task},
    ):
        assert one.model_copy(update=change).identity() != one.identity()


def iemocap() -> pd.DataFrame:
    """Two speakers in each of five sessions, four classes."""
    rows = []
    for session in range(1, 6):
        for gender in ("female", "male"):
            actor = f"Ses{session:02d}{gender[0].upper()}"
            for label in made.CLASSES:
                for take in range(5):
                    path = f"{actor}/{label}-{take}.wav"
                    rows.append(("iemocap", path, label, actor, gender, f"session{session}", "", path))
    columns = ["corpus", "path", "class_id", "actor", "gender", "group", "sentence", "audio_sha256"]
    return pd.DataFrame(rows, columns=columns)


def drawn(name: str) -> list[Any]:
    split = protocols.get(name).split
    assert split is not None
    return draw(iemocap(), split, 0, train_corpora=["iemocap"])


def test_iemocap_by_session_tests_both_partners_and_validates_on_one_session() -> None:
    splits = drawn("iemocap-5-sessions")
    assert [split.fold for split in splits] == [f"session{n}" for n in range(1, 6)]
    for split in splits:
        groups = split.table.groupby("split")["group"].agg(set)
        assert groups["test"] == {split.fold}
        assert (len(groups["validation"]), len(groups["train"])) == (1, 3)


def test_iemocap_by_speaker_leaves_the_partner_out() -> None:
    splits = drawn("iemocap-10-speakers")
    assert len(splits) == 10
    for split in splits:
        actors = split.table.groupby("split")["actor"].agg(set)
        (tested,) = actors["test"]
        assert actors["unused"] == {tested[:-1] + ("M" if tested.endswith("F") else "F")}


def test_superb_validates_on_people_who_train_and_says_so() -> None:
    for split in drawn("superb-er"):
        actors = split.table.groupby("split")["actor"].agg(set)
        assert actors["train"] & actors["validation"]
        assert not actors["test"] & (actors["train"] | actors["validation"])
        assert (split.table["split"] == "validation").sum() == 32  # a fifth of 160
        assert split.validation_shares_speakers
        assert not split.speaker_dependent
        assert any("VALIDATION SHARES SPEAKERS" in note for note in split.notes)


def test_ravdess_is_tested_four_actors_at_a_time() -> None:
    split = protocols.get("ravdess-6x4").split
    assert split is not None
    assert [list(actors) for actors in split.folds.values()][1] == ["05", "06", "07", "08"]
    clips = protocols._complete("ravdess")
    for one in draw(clips, split, 0, train_corpora=["ravdess"]):
        tested = one.table[one.table["split"] == "test"]
        assert len(tested) == 240
        assert tested.groupby("gender")["actor"].nunique().to_dict() == {"female": 2, "male": 2}


def test_emobox_folds_come_from_their_folder_and_leaks_are_refused(tmp_path: Path) -> None:
    clips = iemocap().assign(corpus="emodb")
    flat = clips.assign(path=clips["path"].str.replace("/", "_"))

    def lists(fold: str, tested: list[str]) -> None:
        folder = tmp_path / "emodb" / fold
        folder.mkdir(parents=True)
        for side, rows in flat.groupby(flat["path"].isin(tested)):
            text = "".join(
                json.dumps({"key": p, "wav": f"downloads/emodb/{p}", "emo": "x"}) + "\n" for p in rows["path"]
            )
            (folder / f"emodb_{'test' if side else 'train'}_{fold}.jsonl").write_text(text)

    half = flat["group"].isin(["session1", "session2"])
    lists("fold_1", list(flat["path"][half]))
    lists("fold_2", list(flat["path"][~half]))
    spec, _ = resolved({"protocol": "emobox-emodb", "file": str(tmp_path / "emodb")}, train=["emodb"])
    splits = draw(flat, spec.split, 0, train_corpora=["emodb"])
    assert [split.fold for split in splits] == ["1", "2"]
    assert set(splits[0].table.query("split == 'test'")["group"]) == {"session1", "session2"}
    assert all("validation is cut from train by speaker" in " ".join(split.notes) for split in splits)

    lists("fold_3", [path for path in flat["path"] if path.endswith("-0.wav")])  # everybody is tested and trains
    with pytest.raises(SplitRefused, match="fold 3: 5 groups on two sides"):
        draw(flat, spec.split, 0, train_corpora=["emodb"])


def test_a_run_carries_its_protocol_into_spec_record_results_and_report(project, mini_corpus, tmp_path, monkeypatch):
    definition = protocols.get("emodb-loso").model_copy(
        update={
            "name": "mini-folds", "corpora": ("mini",), "metric": "macro_f1",
            "split": KFold(kind="k_fold", folds=2),
            "human": protocols.HumanReference(metric="uar", value=0.66, source="ten listeners"),
        }
    )  # fmt: skip
    monkeypatch.setattr(protocols, "get", lambda name: definition)
    file = project(seeds=[0], split={"protocol": "mini-folds"}, training={"epochs": 1, "save_model": "none"})
    loaded = load_experiment(file)
    assert loaded.messages[0].startswith("protocol mini-folds")
    app(["train", str(file), "--device", "cpu"], standalone_mode=False)
    runs = sorted((tmp_path / "runs/mini/tiny/mini").iterdir())
    assert len(runs) == 2
    record = json.loads((runs[0] / "run.json").read_text())
    assert record["protocol"]["name"] == "mini-folds"
    assert record["split_kind"] == "k_fold"
    spec = json.loads((runs[0] / "spec.json").read_text())["experiment"]
    assert spec["protocol"] == definition.identity()
    assert spec["split"]["kind"] == "k_fold"
    summary = evaluate_experiment(tmp_path / "runs/mini")
    assert list(summary.results["protocol"]) == ["mini-folds pooled"]
    assert summary.cells[0].headline_metric == "macro_f1"
    page = (tmp_path / "runs/mini/report/report.html").read_text(encoding="utf-8")
    assert "macro F1<br>(headline)" in page
    assert "UAR 0.66 (ten listeners); guessing reaches UAR 0.333" in page


def test_the_command_lists_and_describes(capsys: pytest.CaptureFixture[str]) -> None:
    app(["protocols"], standalone_mode=False)
    listing = capsys.readouterr().out
    assert all(name in listing for name in protocols.names())
    app(["protocols", "emozionalmente-official"], standalone_mode=False)
    text = capsys.readouterr().out
    assert "people reach: UAR 0.66" in text
    assert "split sha256: cannot be told without the corpus" in text
    app(["protocols", "emodb-loso"], standalone_mode=False)
    assert f"  all {GOLDEN['emodb-loso']}" in capsys.readouterr().out
    with pytest.raises(BadInput, match="no protocol 'emodb'"):
        app(["protocols", "emodb"], standalone_mode=False)
