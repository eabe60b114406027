"""`ser describe`: every figure against clips whose figures are known, and nothing that a reader must guess."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from ser_scripts import describe as module
from ser_scripts.cli import main
from ser_scripts.corpora import toy
from ser_scripts.describe import Description, Table, cramers_v, describe, histogram, listen, nice_width
from ser_scripts.errors import BadInput
from ser_scripts.manifest import survey
from ser_scripts.specs.corpora import CsvCorpus

Rows = list[dict[str, Any]]


def frame(description: Description, name: str) -> pd.DataFrame:
    return next(table.frame for table in description.tables if table.name == name)


def noise(number: int, seconds: float, rate_hz: int) -> np.ndarray:
    return 0.1 * np.random.default_rng(number).standard_normal(round(seconds * rate_hz))


def write_corpus(folder: Path, clips: list[tuple[str, np.ndarray, int, str]], *, speakers: bool = True) -> Path:
    """Clips as (name, samples, rate, `label,actor,gender,sentence`) with their CSV."""
    folder.mkdir(parents=True)
    rows = ["path,class_id,actor,gender,sentence" if speakers else "path,label"]
    for name, samples, rate_hz, row in clips:
        soundfile.write(folder / name, samples, rate_hz, subtype="FLOAT")
        rows.append(f"{name},{row}")
    file = folder / f"{folder.name}.csv"
    file.write_text("\n".join(rows) + "\n")
    return file


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SER_CACHE", "SER_RUNS"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Seven clips of three speakers: a cut copy, an identical pair, two of another rate, one silent, one clipped."""
    spoken = np.asarray(toy.clip("gio-f1-n1"), np.float64)
    clipped = np.clip(3 * np.sin(np.arange(16_000) / 20), -1, 1)
    pair = noise(2, 1.5, 16_000)
    return write_corpus(
        tmp_path / "small",
        [
            ("1.wav", spoken, 16_000, "happy,ann,female,s1"),
            ("2.wav", 0.5 * spoken[1600:], 16_000, "angry,ben,male,s1"),
            ("3.wav", pair, 16_000, "angry,ann,female,s2"),
            ("4.wav", pair, 16_000, "angry,ben,male,s2"),
            ("5.wav", np.stack([noise(3, 2.0, 48_000)] * 2, axis=1), 48_000, "happy,cid,male,s2"),
            ("6.wav", clipped, 48_000, "happy,cid,male,s2"),
            ("7.wav", np.zeros(16_000), 16_000, "happy,cid,male,s1"),
        ],
    )


def test_the_figures_of_a_small_corpus(small: Path) -> None:
    found = describe(str(small), say=lambda text: None)
    (row,) = frame(found, "overview").to_dict("records")
    seconds = [len(toy.clip("gio-f1-n1")) / 16_000, 0, 1.5, 1.5, 2.0, 1 / 3]
    seconds[1] = seconds[0] - 0.1
    assert (row["clips"], row["speakers"], row["female"], row["male"], row["classes"]) == (6, 3, 1, 2, 2)
    assert (row["sentences"], row["dropped"], row["set_aside"], row["copies"], row["near_copies"]) == (2, 1, 0, 1, 1)
    assert row["mean_seconds"] == pytest.approx(np.mean(seconds))
    assert row["hours"] == pytest.approx(np.sum(seconds) / 3600)
    assert frame(found, "sample_rates").to_dict("records") == [
        {"sample_rate_hz": 16_000, "small": 4},
        {"sample_rate_hz": 48_000, "small": 2},
    ]
    assert frame(found, "channels").to_dict("records") == [
        {"num_channels": 1, "small": 5},
        {"num_channels": 2, "small": 1},
    ]
    (durations,) = frame(found, "durations").to_dict("records")
    assert durations["min"] == pytest.approx(min(seconds))
    assert durations["50%"] == pytest.approx(np.median(seconds))
    assert frame(found, "duration_histogram")["small"].sum() == 6
    classes = frame(found, "classes").set_index("class")
    assert classes.loc["angry", ["clips", "female", "male", "speakers"]].tolist() == [3, 1, 2, 2]
    assert frame(found, "speakers").set_index("actor")[["clips", "angry", "happy"]].to_numpy().tolist() == [
        [2, 1, 1], [2, 2, 0], [2, 0, 2],
    ]  # fmt: skip
    missing = frame(found, "missing_cells")[["actor", "classes"]].to_numpy().tolist()
    assert missing == [["ben", "happy"], ["cid", "angry"]]
    assert frame(found, "dropped")["path"].tolist() == ["7.wav"]
    assert "small: 1 of 6 clips have flat tops at full scale" in found.notes


def test_copies_exact_and_near(small: Path) -> None:
    found = describe(str(small), say=lambda text: None)
    (exact,) = frame(found, "exact_duplicates").to_dict("records")
    assert (exact["labels"], exact["clips"]) == ("same label", 2)
    assert exact["which"] == "small/3.wav (angry), small/4.wav (angry)"
    (near,) = frame(found, "near_duplicates").to_dict("records")
    assert (near["one"], near["other"], near["speaker"]) == ("small/1.wav", "small/2.wav", "other")
    assert near["labels"] == "happy / angry"
    assert near["offset_seconds"] == pytest.approx(0.1, abs=0.02)
    assert "1 pairs of clips sound like one recording, 1 of them under two labels" in found.notes
    assert "1 recordings stand under several names with one label" in found.notes


def test_one_recording_under_two_labels_is_told_as_one(small: Path) -> None:
    text = small.read_text().replace("4.wav,angry", "4.wav,happy")
    small.write_text(text)
    found = describe(str(small), say=lambda text: None)
    (exact,) = frame(found, "exact_duplicates").to_dict("records")
    assert (exact["labels"], exact["clips"]) == ("other label: dropped", 2)
    assert exact["which"] == "small/3.wav (angry), small/4.wav (happy)"
    assert len(frame(found, "dropped")) == 3


def test_levels_are_those_of_the_manifest_and_loudness_is_integrated(small: Path) -> None:
    found = describe(str(small), say=lambda text: None)
    table = frame(found, "measures").set_index("measure")
    clips = found.parts[0].clips.set_index("path")
    assert table.loc["loudness in LUFS", "median"] == pytest.approx(clips["lufs"].median())
    assert clips.loc["2.wav", "lufs"] == pytest.approx(clips.loc["1.wav", "lufs"] - 6.02, abs=0.5)
    assert table.loc["share of clipped samples", "max"] == clips.loc["6.wav", "clipped_share"] > 0.5
    assert table.loc["bandwidth in Hz", "max"] == 24_000


def test_the_rates_and_the_mean_length_of_pooled_corpora(tmp_path: Path) -> None:
    """What was once counted by hand for four corpora: `rate: clips` and the mean length."""
    rates = {"one": [16_000] * 5, "two": [24_414] * 3, "three": [48_000, 48_000], "four": [44_100, 96_000]}
    corpora = []
    seconds = []
    for number, (name, own) in enumerate(rates.items()):
        lengths = [0.5 + 0.25 * number + 0.05 * n for n in range(len(own))]
        seconds += [round(length * rate) / rate for length, rate in zip(lengths, own, strict=True)]
        clips = [
            (f"{n}.wav", noise(10 * number + n, length, rate), rate, f"{('sad', 'angry')[n % 2]},s{n},female,x")
            for n, (length, rate) in enumerate(zip(lengths, own, strict=True))
        ]
        corpora.append({"kind": "csv", "name": name, "path": str(write_corpus(tmp_path / name, clips))})
    (tmp_path / "tiny.json").write_text(
        json.dumps({"name": "tiny", "encoder": {"kind": "random", "config": {"model_type": "whisper"}}})
    )
    experiment = tmp_path / "pool.json"
    content = {"name": "pool", "train": corpora[:3], "test": corpora[3:], "models": ["tiny.json"]}
    experiment.write_text(json.dumps(content | {"split": {"kind": "speaker_independent"}, "seeds": [0]}))
    found = describe(str(experiment), say=lambda text: None)
    table = frame(found, "sample_rates").set_index("sample_rate_hz")
    assert table["(pooled)"].to_dict() == {16_000: 5, 24_414: 3, 44_100: 1, 48_000: 2, 96_000: 1}
    assert table["two"].to_dict() == {16_000: 0, 24_414: 3, 44_100: 0, 48_000: 0, 96_000: 0}
    overview = frame(found, "overview").set_index("corpus")
    assert overview.loc["(pooled)", "mean_seconds"] == pytest.approx(np.mean(seconds))
    assert overview.loc["one", "mean_seconds"] == pytest.approx(np.mean(seconds[:5]))
    assert overview.loc["(pooled)", "speakers"] == 12
    assert [part.name for part in found.parts] == ["one", "two", "three", "four", "(pooled)"]
    assert set(frame(found, "speakers")["corpus"]) == set(rates)


def test_what_a_task_makes_of_the_labels(project: Any, tmp_path: Path) -> None:
    labels = ["angry", "happy", "sad"]
    clips = [(f"{n}.wav", noise(n, 0.5, 8000), 8000, f"{labels[n % 3]},s{n},male,x") for n in range(9)]
    corpus = {"kind": "csv", "name": "nine", "path": str(write_corpus(tmp_path / "nine", clips))}
    experiment = project(train=[corpus], task={"merge": {"angry": ["happy"]}, "classes": ["angry", "sad"]}, seeds=[0])
    table = frame(describe(str(experiment), say=lambda text: None), "task")
    assert table.to_numpy().tolist() == [
        ["nine", "nine", "angry", "angry", 3],
        ["nine", "nine", "happy", "angry", 3],
        ["nine", "nine", "sad", "sad", 3],
    ]
    experiment = project(train=[corpus], classes=["angry", "sad"], seeds=[0])
    table = frame(describe(str(experiment), say=lambda text: None), "task")
    assert ["nine", "nine", "happy", "(left out)", 3] in table.to_numpy().tolist()


def test_the_text_fits_a_terminal_and_says_what_it_cuts(small: Path, tmp_path: Path, capsys: Any) -> None:
    text = describe(str(small), say=lambda text: None).text()
    assert max(map(len, text.splitlines())) <= module.WIDTH
    for title in ("Overview", "Clips by sample rate", "Classes", "Identical recordings", "Dropped clips, by reason"):
        assert title in text
    assert "Votes" not in text, "an empty table is not shown"
    wide = pd.DataFrame({"corpus": ["c"] * 30, "actor": [f"a{n}" for n in range(30)], "text": ["x" * 200] * 30})
    wide = wide.assign(**{f"a_long_name_{n}": 1234567 for n in range(20)})
    lines = Description("w", {}, [], [Table("t", "Wide", wide)]).text().splitlines()
    assert max(map(len, lines)) <= module.WIDTH
    assert lines[-1].startswith("... and 6 rows more")
    assert sum("a23" in line for line in lines) > 1, "a folded table repeats the names of its rows"


def test_json_and_files_hold_every_row(small: Path, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    out = tmp_path / "out"
    monkeypatch.setattr("sys.argv", ["ser", "describe", str(small), "--json", "--out", str(out)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((out / "description.json").read_text())
    assert printed["sources"]["small"]["kind"] == "csv"
    for name, rows in printed["tables"].items():
        table = pd.read_csv(out / f"{name}.csv", keep_default_na=False)
        assert len(table) == len(rows), name
        assert not rows or list(table.columns) == list(rows[0]), name
    assert (out / "page-small.png").read_bytes()[:4] == b"\x89PNG"
    markdown = (out / "describe.md").read_text()
    assert "![small](page-small.png)" in markdown
    assert "| ben | 1 | happy |" in markdown
    first = (out / "page-small.png").read_bytes()
    module.write_description(describe(str(small), say=lambda text: None), out)
    assert (out / "page-small.png").read_bytes() == first


def test_speakers_unknown(tmp_path: Path) -> None:
    clips = [(f"{n}.wav", noise(n, 1.0, 16_000), 16_000, ("sad", "angry")[n % 2]) for n in range(4)]
    found = describe(str(write_corpus(tmp_path / "bare", clips, speakers=False)), say=lambda text: None)
    assert "bare: SPEAKERS UNKNOWN" in found.notes
    assert frame(found, "speakers").empty
    assert json.loads(json.dumps(found.content()))["tables"]["overview"][0]["speakers"] is None
    module.write_description(found, tmp_path / "out")


def test_a_band_limited_corpus_is_said_to_be_one(tmp_path: Path) -> None:
    import soxr

    clips = [
        (f"{n}.wav", soxr.resample(noise(n, 1.0, 8000), 8000, 48_000), 48_000, f"{'ab'[n % 2]},s{n},male,x")
        for n in range(4)
    ]
    found = describe(str(write_corpus(tmp_path / "narrow", clips)), say=lambda text: None)
    assert found.notes[0].startswith("narrow: BAND-LIMITED: nothing above 3.9 kHz")


def test_votes_and_ratings() -> None:
    clips = pd.DataFrame(
        {
            "class_id": ["sad", "sad", "angry", "angry"],
            "votes_angry": [0.0, 2.0, 4.0, 0.0],
            "votes_sad": [4.0, 2.0, 0.0, 0.0],
            "votes_other": [0.0, 0.0, 0.0, 0.0],
            "valence": [1.0, 3.0, np.nan, np.nan],
            "arousal": np.nan,
            "dominance": np.nan,
        }
    )
    part = module.Part("c", clips)
    table = module.votes([part]).frame.set_index("class")
    assert table.loc["sad", ["clips", "mean_votes", "mean_entropy_bits", "unanimous_share"]].tolist() == [
        2,
        4,
        0.5,
        0.5,
    ]
    assert table.loc["all", "most_voted_is_class_share"] == 1, "a tie of the own class is not lost"
    assert table.loc["angry", "clips"] == 1, "a clip without votes does not count"
    (row,) = module.ratings([part], []).frame.to_dict("records")
    assert (row["rating"], row["clips"], row["min"], row["mean"], row["max"]) == ("valence", 2, 1, 2, 3)


def test_cramers_v_of_dependence_and_of_none() -> None:
    assert cramers_v(np.array([[10, 0], [0, 10]])) == pytest.approx(1, abs=0.03)
    assert cramers_v(np.array([[10, 10], [20, 20]])) == 0
    assert cramers_v(np.array([[5, 5, 5]])) is None
    # phi^2 = 0.36 of [[8, 2], [2, 8]]; corrected (0.36 - 1/19) / (2 - 1/19 - 1)
    assert cramers_v(np.array([[8, 2], [2, 8]])) == pytest.approx(np.sqrt((0.36 - 1 / 19) / (1 - 1 / 19)))


@given(span=st.floats(1e-2, 1e4))
def test_a_histogram_has_between_eight_and_twenty_nice_bars(span: float) -> None:
    width = nice_width(span)
    assert 8 <= span / width <= 20 + 1e-9
    assert round(width / 10 ** np.floor(np.log10(width) + 1e-9), 6) in (1, 2, 2.5, 5)


@given(seconds=st.lists(st.floats(0.1, 500), min_size=1, max_size=50))
def test_a_histogram_counts_every_clip_once(seconds: list[float]) -> None:
    table = histogram([module.Part("c", pd.DataFrame({"duration_seconds": seconds}))]).frame
    assert table["c"].sum() == len(seconds)
    assert (table["from_seconds"].iloc[1:].to_numpy() == table["to_seconds"].iloc[:-1].to_numpy()).all()


def test_every_clip_is_listened_to_once(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    original = module.decode.read
    monkeypatch.setattr(module.decode, "read", lambda path: (seen.append(path.name), original(path))[1])
    spec = CsvCorpus(kind="csv", name="small", path=str(small))
    manifest = survey(spec, data=tmp_path, cache=tmp_path / "c", base=tmp_path)
    seen.clear()
    lufs, prints = listen(manifest, tmp_path / "c")
    assert sorted(seen) == ["1.wav", "2.wav", "4.wav", "5.wav", "6.wav"]  # 3.wav has the samples of 4.wav
    seen.clear()
    again, printed = listen(manifest, tmp_path / "c")
    assert again == lufs
    assert [one.words.tolist() for one in printed] == [one.words.tolist() for one in prints]
    assert seen == []
    file = tmp_path / "c" / "loudness" / "small.json"
    file.write_text(file.read_text().replace("-", "", 3))
    assert listen(manifest, tmp_path / "c")[0] == lufs
    assert len(seen) == 5


def test_a_corpus_without_a_usable_clip_says_why(tmp_path: Path) -> None:
    file = write_corpus(tmp_path / "mute", [("1.wav", np.zeros(16_000), 16_000, "sad,a,male,s")])
    with pytest.raises(BadInput, match=r"mute: no clip of mute can be used.*it is silent"):
        describe(str(file), say=lambda text: None)


@pytest.mark.real
def test_emodb(ser_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SER_DATA", str(ser_data))
    found = describe("emodb", say=lambda text: None)
    (row,) = frame(found, "overview").to_dict("records")
    assert (row["clips"], row["speakers"], row["sentences"], row["near_copies"]) == (535, 10, 10, 0)
    assert row["mean_seconds"] == pytest.approx(2.780, abs=5e-4)
    assert frame(found, "missing_cells")[["actor", "classes"]].to_numpy().tolist() == [["08", "disgusted"]]
    assert found.notes == []
