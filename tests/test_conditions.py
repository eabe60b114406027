"""Test conditions: what short names mean, rows of their own, and conditions that are added when training is over."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_1samp

from ser_analysis.experiment import stats_of_experiment
from ser_eval import run_folder
from ser_eval.evaluate import Summary, evaluate_experiment
from ser_eval.figures import write_robustness
from ser_eval.robustness import natural
from ser_scripts.audio.preprocess import apply_chain
from ser_scripts.cli import app
from ser_scripts.corpora import toy
from ser_scripts.errors import BadInput
from ser_scripts.runs.predict import predict_on
from ser_scripts.specs.base import parse
from ser_scripts.specs.conditions import Condition, expand
from ser_scripts.specs.experiment import ExperimentSpec
from tests import fabricated_runs as made

CONDITIONS = [
    "clean",
    "noise@10dB",
    "telephone",
    {
        "name": "dark-room",
        "steps": [{"kind": "reverb", "rt60_seconds": 0.8}, {"kind": "noise", "snr_db": 5, "colour": "pink"}],
    },
]


def ser(*arguments: object) -> None:
    """Run the command in this process."""
    app([str(argument) for argument in arguments], standalone_mode=False)


def predictions(runs: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(runs.rglob("predictions/*.csv"))}


def experiment(conditions: Any) -> ExperimentSpec:
    content = {"name": "x", "train": ["toy"], "models": ["m"], "split": {"kind": "speaker_independent"}}
    return parse(ExperimentSpec, {**content, "conditions": conditions}, source="x.json", kind="experiment")


# ---- names ----


@pytest.mark.parametrize(
    ("short", "name", "step"),
    [
        ("noise@10dB", "noise-10dB", {"kind": "noise", "colour": "speech_shaped", "snr_db": 10}),
        ("noise:white@10.0dB", "noise-white-10dB", {"kind": "noise", "colour": "white", "snr_db": 10}),
        ("noise:pink@0dB", "noise-pink-0dB", {"kind": "noise", "colour": "pink", "snr_db": 0}),
        ("noise:brown@-2.5dB", "noise-brown-minus2.5dB", {"kind": "noise", "colour": "brown", "snr_db": -2.5}),
        ("telephone", "telephone", {"kind": "telephone", "codec": "mu_law"}),
        ("telephone:alaw", "telephone-alaw", {"kind": "telephone", "codec": "a_law"}),
        ("reverb", "reverb", {"kind": "reverb", "rt60_seconds": 0.5}),
        ("reverb@0.6s", "reverb-0.6s", {"kind": "reverb", "rt60_seconds": 0.6}),
        ("codec:mp3@32k", "codec-mp3-32k", {"kind": "codec", "codec": "mp3", "bitrate_kbps": 32}),
        ("codec:opus@16k", "codec-opus-16k", {"kind": "codec", "codec": "opus", "bitrate_kbps": 16}),
        ("codec:gsm", "codec-gsm", {"kind": "codec", "codec": "gsm"}),
        ("lowpass@3400Hz", "lowpass-3400Hz", {"kind": "resample", "rate_hz": 6800, "back": True}),
    ],
)
def test_a_short_name_is_a_condition_with_a_name_for_files(short: str, name: str, step: dict[str, Any]) -> None:
    assert experiment([short]).conditions == (Condition.model_validate({"name": name, "steps": [step]}),)


@given(st.sampled_from(["", ":white", ":pink", ":speech"]), st.decimals(-40, 80, places=2))
def test_names_of_noises_tell_different_levels_apart(colour: str, snr_db: Any) -> None:
    condition = Condition.model_validate(expand(f"noise{colour}@{snr_db}dB"))
    (step,) = condition.steps
    assert step.kind == "noise"
    assert step.snr_db == float(snr_db)
    assert expand(f"noise{colour}@{step.snr_db:g}dB")["name"] == condition.name
    assert run_folder.prediction_file("mini", condition.name) == f"predictions/mini@{condition.name}.csv"


def test_clean_may_be_named_and_is_no_condition_of_its_own() -> None:
    named = experiment(["clean", "telephone"])
    assert named == experiment(["telephone"])
    assert parse(ExperimentSpec, named.model_dump(mode="json"), source="x", kind="experiment") == named
    assert experiment(["clean"]).conditions == ()


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        (["nois@10dB"], r"'nois@10dB' is no condition; valid: clean, noise@10dB .*telephone.*codec:gsm.*\"twin\""),
        (["noise@10"], r"'noise@10' is no condition; valid: "),
        (["noise:blue@10dB"], r"'noise:blue@10dB' is no condition"),
        (["noise@999dB"], r"conditions\.0\.steps\.0\.noise\.snr_db: 999"),
        ("noise@10dB", r"expected a list, e\.g\. \[\"noise@10dB\"\]"),
        (["noise@10dB", "noise@10.0dB"], r"'noise-10dB' stands there twice"),
        (["noise@10dB", "noise:speech@10dB"], r"'noise-speech-10dB' is the same as 'noise-10dB'"),
        (["reverb", {"name": "Reverb", "twin": "wav_telephone"}], r"'Reverb' stands there twice"),
        ([{"name": "a@b", "twin": "t"}], r"conditions\.0\.name: \"a@b\" is not valid; expected letters"),
        ([{"name": "clean", "twin": "t"}], r"the name 'clean' is taken"),
        ([{"name": "none", "twin": "t"}], r"the name 'none' is taken"),
        ([{"name": "quiet"}], r"condition 'quiet' needs 'steps', 'twin' or both"),
        ([{"name": "v", "steps": [{"kind": "vad", "no_speech": "refuse"}]}], r"every condition has the same clips"),
    ],
)
def test_bad_conditions_are_named_with_what_would_be_valid(conditions: Any, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        experiment(conditions)


def test_conditions_are_listed_by_number() -> None:
    names = ["noise-20dB", "noise-5dB", "noise-0.5dB", "noise-10dB"]
    assert sorted(names, key=natural) == ["noise-0.5dB", "noise-5dB", "noise-10dB", "noise-20dB"]


# ---- what is heard ----


def test_the_same_noise_falls_on_a_clip_at_every_level() -> None:
    clip, rate_hz = (toy.clip("gio-f1-b1") / 32768).astype(np.float32), 16_000

    def added(short: str) -> Any:
        steps = Condition.model_validate(expand(short)).steps
        return apply_chain(clip, rate_hz, steps, clip_key="mini/a.wav").samples - clip

    loud, soft = added("noise@0dB"), added("noise@20dB")
    assert np.allclose(loud, 10 * soft, atol=1e-5)
    assert np.mean(loud.astype(float) ** 2) == pytest.approx(np.mean(clip.astype(float) ** 2), rel=1e-4)


# ---- runs ----


def test_conditions_added_later_are_those_of_training(
    project: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "runs/mini/tiny/mini/seed-0"
    ser("train", project(seeds=[0], training={"epochs": 2}), "--device", "cpu")
    clean = predictions(tmp_path / "runs")
    before = {name: (run / name).read_bytes() for name in ("spec.json", "history.csv", "model/model.safetensors")}
    assert run_folder.read_json(run / "run.json")["conditions"] == {}

    file = project(seeds=[0], training={"epochs": 2}, conditions=CONDITIONS)
    ser("train", file, "--device", "cpu")
    later = predictions(tmp_path / "runs")
    assert "tested under further conditions: mini/tiny/mini/seed-0" in capsys.readouterr().err
    assert {name: (run / name).read_bytes() for name in before} == before
    assert list(later) == ["mini.csv", "mini@dark-room.csv", "mini@noise-10dB.csv", "mini@telephone.csv"]
    assert later["mini.csv"] == clean["mini.csv"]
    assert len(set(later.values())) == 4

    (run / "predictions/mini@telephone.csv").unlink()
    ser("train", file, "--device", "cpu")
    assert predictions(tmp_path / "runs") == later
    ser("train", file, "--device", "cpu")
    assert "1 of 1 runs are finished already" in capsys.readouterr().err

    monkeypatch.setenv("SER_RUNS", str(tmp_path / "at-once"))
    ser("train", file, "--device", "cpu")
    assert predictions(tmp_path / "at-once") == later
    records = [
        run_folder.read_json(root / "mini/tiny/mini/seed-0/run.json")["conditions"]
        for root in (tmp_path / "runs", tmp_path / "at-once")
    ]
    assert records[0] == records[1]
    assert records[0]["telephone"]["narrows_band"]
    assert not records[0]["noise-10dB"]["narrows_band"]

    summary = evaluate_experiment(tmp_path / "runs/mini")
    assert list(summary.results["condition"]) == ["dark-room", "noise-10dB", "none", "telephone"]
    assert summary.results["split_sha256"].nunique() == 1
    assert [drop.cell.condition for drop in summary.drops] == ["dark-room", "noise-10dB", "telephone"]
    assert all(cell.shortcuts for cell in summary.cells)

    other = tmp_path / "away"
    other.mkdir()
    lines = ["path,class_id,actor"]
    for stem in ("gio-f1-b1", "rab-f1-b1", "tri-m1-b1", "gio-m1-b1"):
        soundfile.write(other / f"{stem}.wav", toy.clip(stem, seed=9), 16_000)
        lines.append(f"{stem}.wav,{toy.LABELS[stem[:3]]},other-{stem[4:6]}")
    (other / "away.csv").write_text("\n".join(lines) + "\n")
    predict_on(tmp_path / "runs/mini", str(other / "away.csv"), device="cpu", say=print)
    on_away = {name: text for name, text in predictions(tmp_path / "runs").items() if name.startswith("away")}
    assert list(on_away) == ["away.csv", "away@dark-room.csv", "away@noise-10dB.csv", "away@telephone.csv"]
    assert len(set(on_away.values())) == 4


def test_conditions_are_found_again_when_the_project_has_moved(
    project: Any, tmp_path: Path, mini_corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = tmp_path / "old", tmp_path / "new" / "place"
    (old / "sounds").mkdir(parents=True)
    noise = np.random.default_rng(0).standard_normal(48_000)
    soundfile.write(old / "sounds/babble.wav", 0.1 * noise, 16_000)
    steps = [{"kind": "noise", "snr_db": 5, "folder": "../sounds"}]
    file = project(
        seeds=[0], training={"epochs": 1}, conditions=[{"name": "cafe", "steps": steps}], preprocess=[*steps]
    )
    (old / "experiments").mkdir()
    moved = file.rename(old / "experiments/mini.json")
    (tmp_path / "tiny.json").rename(old / "experiments/tiny.json")
    ser("train", moved, "--device", "cpu")
    rows = (mini_corpus / "clips.csv").read_text().splitlines()
    lines = [f"{mini_corpus}/{row}".replace(f",{row.split(',')[2]},", ",new,") for row in rows[1:40:3]]
    new.parent.mkdir()
    old.rename(new)
    other = tmp_path / "away"
    other.mkdir()
    for line in lines:
        stem = Path(line.split(",")[0]).stem
        soundfile.write(other / f"{stem}.wav", toy.clip(stem, seed=9), 16_000)
    (other / "away.csv").write_text("\n".join([rows[0], *(line.rpartition("/")[2] for line in lines)]) + "\n")
    said = "does not exist"
    with pytest.raises(BadInput, match=said):
        predict_on(tmp_path / "runs/mini", str(other / "away.csv"), device="cpu", say=print)
    ser("eval", new / "experiments/mini.json", "--on", other / "away.csv", "--device", "cpu")
    assert {"away.csv", "away@cafe.csv"} < predictions(tmp_path / "runs").keys()
    soundfile.write(new / "sounds/babble.wav", 0.2 * noise, 16_000)  # another sound in its place is none
    with pytest.raises(BadInput, match=said):
        ser("eval", new / "experiments/mini.json", "--on", other / "away.csv", "--device", "cpu")


def test_one_name_is_never_two_conditions(project: Any, tmp_path: Path) -> None:
    def trained(snr_db: float, *flags: str) -> bytes:
        cafe = {"name": "cafe", "steps": [{"kind": "noise", "snr_db": snr_db, "folder": "sounds"}]}
        ser("train", project(seeds=[0], training={"epochs": 1}, conditions=[cafe]), "--device", "cpu", *flags)
        return predictions(tmp_path / "runs")["mini@cafe.csv"]

    with pytest.raises(BadInput, match=r"condition 'cafe': preprocess\.0 \(noise\): folder: 'sounds' does not exist"):
        trained(5)
    assert not (tmp_path / "runs").exists()
    (tmp_path / "sounds").mkdir()
    random = np.random.default_rng(0)
    soundfile.write(tmp_path / "sounds/babble.wav", 0.1 * random.standard_normal(48_000), 16_000)
    first = trained(5)
    said = r"(?s)was tested under another condition 'cafe':\n  steps\.0\.\w+: was [\d.]+, is [\d.]+\n.*or use --force"
    with pytest.raises(BadInput, match=said):
        trained(0)
    soundfile.write(tmp_path / "sounds/babble.wav", 0.1 * random.standard_normal(48_000), 16_000)
    with pytest.raises(BadInput, match=r"another condition 'cafe':\n  inputs\."):
        trained(5)
    assert trained(5, "--force") != first
    assert len(predictions(tmp_path / "runs")) == 2


@pytest.mark.parametrize(
    ("training", "message"),
    [
        (
            {"save_model": "none"},
            r"under noise-10dB, and kept no weights \(training\.save_model is 'none'\)",
        ),
        ({"save_model": "last"}, r"kept its last weights, but was tested with those that 'val_uar' selected"),
    ],
)
def test_runs_without_their_weights_cannot_be_tested_later(
    project: Any, training: dict[str, Any], message: str
) -> None:
    ser("train", project(seeds=[0], training={"epochs": 1, **training}), "--device", "cpu")
    with pytest.raises(BadInput, match=message):
        ser("train", project(seeds=[0], training={"epochs": 1, **training}, conditions=["noise@10dB"]))


def test_the_clips_of_a_twin_folder_are_what_is_heard(
    project: Any, tmp_path: Path, mini_corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Twins that are made by the telephone step give the answers that the telephone step gives."""
    root = tmp_path / "twins"
    table = pd.read_csv(mini_corpus / "clips.csv")
    table = table[table["sentence"] == "b1"]
    (step,) = experiment(["telephone"]).conditions[0].steps
    for folder in ("wav", "wav_telephone"):
        (root / folder).mkdir(parents=True)
    for path in table["path"]:
        shutil.copy(mini_corpus / path, root / "wav" / path)
        samples, rate_hz = soundfile.read(mini_corpus / path, dtype="float32")
        heard = apply_chain(samples, rate_hz, [step], clip_key="any").samples
        soundfile.write(root / "wav_telephone" / path, heard, rate_hz, subtype="FLOAT")
    table.assign(path="wav/" + table["path"]).to_csv(root / "clips.csv", index=False)
    corpus = {"kind": "csv", "name": "mini", "path": str(root / "clips.csv")}
    conditions = ["telephone", {"name": "phone", "twin": "wav_telephone"}]
    ser("train", project(train=[corpus], training={"epochs": 1}, conditions=conditions), "--device", "cpu")
    found = predictions(tmp_path / "runs")
    assert found["mini@phone.csv"] == found["mini@telephone.csv"] != found["mini.csv"]
    record = run_folder.read_json(tmp_path / "runs/mini/tiny/mini/seed-0/run.json")["conditions"]["phone"]
    assert record["twin"] == "wav_telephone"
    assert record["narrows_band"]

    back = [{"name": "native", "twin": "wav"}]
    ser("check", project(train=[{**corpus, "twin": "wav_telephone"}], conditions=back))
    assert "test conditions: clean, native" in capsys.readouterr().out

    (root / "wav_telephone/gio-f1-b1.wav").unlink()
    with pytest.raises(BadInput, match=r"condition 'phone': .*1 of 24 clips of mini .*wav/gio-f1-b1\.wav"):
        ser("train", project(train=[corpus], training={"epochs": 1}, conditions=conditions), "--device", "cpu")


# ---- results ----

ACTORS = ("f1", "f2", "f3", "m1", "m2", "m3")


def degraded_experiment(
    runs: Path, *, bandwidth_hz: float = 8000.0, lost: tuple[int, ...] = (1, 2, 2, 3, 1, 3), models: str = "ab"
) -> Path:
    """One seed per model, tested on six speakers; under noise each loses some of its angry clips, of 4 x 4 clips."""
    folder = runs / "robust"
    clips = made.corpus_clips("home", actors=(*ACTORS, "f4", "m4", "m5"), repeats=4)
    clips["bandwidth_hz"] = bandwidth_hz
    made.write_clips(folder, clips)
    for number, model in enumerate(models):
        for seed in (0, 1):
            split = made.sides(clips, test=ACTORS, validation=("m5",))
            if seed:
                split.loc[split["actor"] == "f4", "split"] = "unused"
            test = split[split["split"] == "test"].reset_index(drop=True)
            truth = test["class_id"].tolist()
            noisy = list(truth)
            for actor, count in zip(ACTORS, lost, strict=True):
                rows = test.index[(test["actor"] == actor) & (test["class_id"] == "angry")]
                for row in rows[: count + (number if count < 4 else 0)]:
                    noisy[row] = "sad"
            tables = {
                "home": made.prediction_table(test, truth, made.CLASSES),
                "home@noise-10dB": made.prediction_table(test, noisy, made.CLASSES),
                "home@telephone": made.prediction_table(test, truth, made.CLASSES),
            }
            record = {"sha256": "0", "steps": [{"kind": "noise", "snr_db": 10.0}], "twin": None}
            made.write_run(
                folder,
                model=model,
                seed=seed,
                split=split,
                tables=tables,
                train_corpora=["home"],
                labels=made.CLASSES,
                factors={},
                conditions={
                    "noise-10dB": {**record, "narrows_band": False},
                    "telephone": {**record, "narrows_band": True},
                },
            )
    return folder


@pytest.fixture(scope="module")
def robust(tmp_path_factory: pytest.TempPathFactory) -> Summary:
    """An evaluated experiment of two models."""
    return evaluate_experiment(degraded_experiment(tmp_path_factory.mktemp("robust")))


def test_the_loss_has_a_paired_interval_over_speakers(robust: Summary) -> None:
    noise, telephone = [drop for drop in robust.drops if drop.cell.model == "a"]
    lost = np.array([1, 2, 2, 3, 1, 3]) / 4 / 4  # of four clips in one of four classes
    assert (noise.cell.condition, noise.uar_clean) == ("noise-10dB", 1.0)
    assert noise.drop == pytest.approx(lost.mean())
    expected = ttest_1samp(lost, 0).confidence_interval(0.95)
    assert noise.interval is not None
    assert (noise.interval.low, noise.interval.high) == pytest.approx((expected.low, expected.high))
    assert (telephone.drop, telephone.interval) == (0.0, None)
    table = pd.read_csv(robust.folder / "robustness.csv")
    assert table.loc[0, ["condition", "n_seeds", "n_test_speakers"]].tolist() == ["noise-10dB", 2, 6]
    assert table.loc[0, "drop"] == noise.drop
    assert any("drop against clean 0.125 (1.000 to 0.875, 95 % over speakers" in line for line in robust.lines)


def test_the_report_shows_models_by_conditions(robust: Summary) -> None:
    page = (robust.folder / "report/report.html").read_text(encoding="utf-8")
    assert 'id="robustness"' in page
    assert "noise-10dB: noise (snr_db 10.0)" in page
    assert "NO TELEPHONE CONCLUSION" not in page
    assert page.count('<div class="headline">') == 1
    figure = robust.folder / "report/figures/robustness--home--home--4.png"
    before = figure.read_bytes()
    assert write_robustness(figure.parent, figure.stem, robust.drops).read_bytes() == before


def test_the_statistics_take_conditions_for_a_factor_and_average_over_none(robust: Summary) -> None:
    content = stats_of_experiment(robust.folder).content
    assert content["audit"]["factors"] == {"model": ["a", "b"], "condition": ["noise-10dB", "none", "telephone"]}
    assert content["audit"]["blocks_with_several_runs_averaged"] == []
    means = {(row["model"], row["condition"]): row["mean"] for row in content["descriptives"]}
    for drop in robust.drops:
        assert means[drop.cell.model, drop.cell.condition] == pytest.approx(drop.uar)
        assert means[drop.cell.model, "none"] == pytest.approx(drop.uar_clean)
    compared = {pair["at"] for pair in content["pairs"] if pair["averaged_over"] == ""}
    assert len(compared) == 3


def test_band_limited_audio_allows_no_telephone_conclusion(tmp_path: Path) -> None:
    summary = evaluate_experiment(degraded_experiment(tmp_path, bandwidth_hz=5400.0, models="a"))
    stamps = {cell.condition: cell.stamps for cell in summary.cells}
    assert stamps == {
        "none": ["BAND-LIMITED"],
        "noise-10dB": ["BAND-LIMITED"],
        "telephone": ["BAND-LIMITED", "NO TELEPHONE CONCLUSION"],
    }
    assert "NO TELEPHONE CONCLUSION" in (tmp_path / "robust/report/report.html").read_text(encoding="utf-8")
    assert list(pd.read_csv(tmp_path / "robust/robustness.csv")["stamps"].str.contains("TELEPHONE")) == [
        False, True
    ]  # fmt: skip


def test_folds_are_pooled_under_a_condition_and_none_may_lack_it(tmp_path: Path) -> None:
    folder = tmp_path / "folds"
    clips = made.corpus_clips("home")
    made.write_clips(folder, clips)
    for number in (1, 2, 3):
        actors = (f"f{number}", f"m{number}")
        split = made.sides(clips, test=actors, validation=(f"f{number % 3 + 1}", f"m{number % 3 + 1}"))
        test = split[split["split"] == "test"]
        truth = test["class_id"].tolist()
        noisy = ["sad" if label == "angry" and number == 1 else label for label in truth]
        made.write_run(
            folder,
            model="a",
            seed=0,
            fold=str(number),
            split=split,
            tables={
                "home": made.prediction_table(test, truth, made.CLASSES),
                "home@noise-10dB": made.prediction_table(test, noisy, made.CLASSES),
            },
            train_corpora=["home"],
            labels=made.CLASSES,
        )
    (drop,) = evaluate_experiment(folder).drops
    assert drop.uars == [pytest.approx(1 - 1 / 3 / 4)]  # one class of four is lost in one fold of three
    assert drop.cell.rows["fold"].tolist() == ["all"]
    assert drop.interval is not None
    assert drop.interval.num_speakers == 6
    (folder / "a/home/seed-0-fold-2/predictions/home@noise-10dB.csv").unlink()
    with pytest.raises(BadInput, match=r"1 fold\(s\) lack the predictions for home@noise-10dB; `ser train` makes them"):
        evaluate_experiment(folder)


def test_two_conditions_of_one_name_are_refused_by_the_evaluation(tmp_path: Path) -> None:
    folder = degraded_experiment(tmp_path)
    file = folder / "a/home/seed-1/run.json"
    record = json.loads(file.read_text())
    record["conditions"]["telephone"]["sha256"] = "1"
    file.write_text(json.dumps(record))
    with pytest.raises(BadInput, match=r"two conditions that are both named 'telephone'"):
        evaluate_experiment(folder)


def test_a_condition_with_other_clips_is_refused(tmp_path: Path) -> None:
    folder = degraded_experiment(tmp_path)
    file = folder / "a/home/seed-0/predictions/home@telephone.csv"
    lines = file.read_text().splitlines()
    file.write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(BadInput, match=r"home@telephone\.csv does not hold the test clips of split\.csv: 1 missing"):
        evaluate_experiment(folder)
