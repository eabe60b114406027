"""The manifest: every fault is found and named, nothing is passed over, and the cache changes nothing but the time."""

import hashlib
import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import soundfile

from ser_scripts import corpora
from ser_scripts.audio import decode
from ser_scripts.corpora import ClipRow
from ser_scripts.errors import BadInput
from ser_scripts.manifest import COLUMNS, HASHED_COLUMNS, RATINGS, SIGNAL, Manifest, build_manifest, survey
from ser_scripts.specs.corpora import CorpusSpec, CsvCorpus, NamedCorpus

RATE_HZ = 16_000
CREMAD_FAULTS = [
    "AudioWAV/1006_TIE_HAP_XX.opus",
    "AudioWAV/1006_TIE_NEU_XX.opus",
    "AudioWAV/1013_WSI_DIS_XX.opus",
    "AudioWAV/1013_WSI_SAD_XX.opus",
    "AudioWAV/1017_IWW_ANG_XX.opus",
    "AudioWAV/1017_IWW_FEA_XX.opus",
    "AudioWAV/1076_MTI_SAD_XX.opus",
]


def noise(number: int, seconds: float = 0.2) -> np.ndarray:
    generator = np.random.default_rng(number)
    return (0.1 * generator.standard_normal(round(seconds * RATE_HZ))).astype(np.float32)


def write(file: Path, samples: np.ndarray, rate_hz: int = RATE_HZ) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(file, samples, rate_hz, subtype="PCM_24" if file.suffix == ".flac" else "FLOAT")


class Workplace:
    """A named corpus `spoken` of files like `wav/a-angry-0.wav`, with a reader of its own."""

    def __init__(self, folder: Path, clips: int) -> None:
        self.folder = folder
        self.root = folder / "data" / "spoken"
        self.spec: CorpusSpec = NamedCorpus(name="spoken")
        self.stems = [f"{'abcd'[n % 4]}-{('angry', 'sad')[n // 4 % 2]}-{n}" for n in range(clips)]
        self.expected: list[str] | None = self.stems
        for number, stem in enumerate(self.stems):
            write(self.path(stem), noise(number))

    def path(self, stem: str) -> Path:
        return self.root / "wav" / f"{stem}.wav"

    def reader(self, name: str) -> SimpleNamespace:
        assert name == "spoken"
        return SimpleNamespace(
            TITLE="Spoken", LAYOUT="confirmed", LANGUAGE="en", EXPECTED_CLIPS=len(self.stems), read=self.read,
            expected_stems=lambda root: self.expected,
        )  # fmt: skip

    def read(self, root: Path) -> list[ClipRow]:
        rows = []
        for file in root.rglob("*-*.*"):
            actor, label, _ = file.stem.split("-")
            gender = "female" if actor in "ab" else "male"
            rows.append(ClipRow(file.relative_to(root).as_posix(), label, actor, gender, sentence="s"))
        return rows

    def build(self, allow_dropped: Sequence[str] = (), **options: object) -> Manifest:
        return build_manifest(
            self.spec, data=self.folder / "data", cache=self.folder / "cache", base=self.folder,
            allow_dropped=allow_dropped, **options,  # type: ignore[arg-type]
        )  # fmt: skip


@pytest.fixture
def spoken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    place = Workplace(tmp_path, clips=8)
    monkeypatch.setattr(corpora, "get", place.reader)
    return place


def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are decoded from now on."""
    seen: list[str] = []
    original = decode.read

    def recorder(path: Path) -> tuple[decode.Samples, int]:
        seen.append(Path(path).name)
        return original(path)

    monkeypatch.setattr(decode, "read", recorder)
    return seen


def test_the_table_says_what_the_files_are(spoken: Workplace) -> None:
    stereo = np.stack([noise(1, 0.5), -0.5 * noise(1, 0.5)], axis=1)
    write(spoken.path("b-angry-1"), stereo, 48_000)
    manifest = spoken.build()
    assert list(manifest.clips.columns) == COLUMNS
    assert list(manifest.clips["path"]) == sorted(f"wav/{stem}.wav" for stem in spoken.stems)
    assert manifest.root == spoken.root
    assert manifest.speakers_known
    assert manifest.dropped.empty
    row = manifest.clips.set_index("path").loc["wav/b-angry-1.wav"]
    assert row[RATINGS].isna().all()
    assert dict(row.drop([*RATINGS, *SIGNAL, "sha256", "audio_sha256", "duration_seconds"])) == {
        "corpus": "spoken", "class_id": "angry", "actor": "b", "gender": "female", "group": "b", "sentence": "s",
        "language": "en", "intensity": "", "style": "", "partition": "", "sample_rate_hz": 48_000, "num_channels": 2,
    }  # fmt: skip
    assert row["duration_seconds"] == len(stereo) / 48_000
    assert row["sha256"] == hashlib.sha256(spoken.path("b-angry-1").read_bytes()).hexdigest()
    assert row["audio_sha256"] == hashlib.sha256(stereo.astype("<f4").tobytes()).hexdigest()
    mono = stereo.mean(axis=1).astype(np.float64)
    assert row["rms_db"] == pytest.approx(20 * np.log10(np.sqrt(np.mean(mono**2))), abs=1e-4)
    assert row["peak"] == pytest.approx(np.abs(mono).max(), rel=1e-6)
    assert row["dc_offset"] == pytest.approx(mono.mean(), abs=1e-7)
    assert (row["clipped_share"], row["silence_share"], row["bandwidth_hz"]) == (0, 0, 24_000)
    for column in ("path", "class_id", "actor", "group", "sentence"):
        assert pd.api.types.is_string_dtype(manifest.clips[column])


def test_rms_of_a_sine_is_minus_three_db(spoken: Workplace) -> None:
    write(spoken.path("a-angry-0"), np.sin(2 * np.pi * 100 * np.arange(RATE_HZ) / RATE_HZ).astype(np.float32))
    assert spoken.build().clips["rms_db"].iloc[0] == pytest.approx(-3.0103, abs=1e-3)


def make_faults(spoken: Workplace) -> dict[str, str]:
    """Spoil six clips, each in its own way: stem -> what the reason says."""
    stems = spoken.stems
    spoken.path(stems[0]).write_text("a text file")
    write(spoken.path(stems[1]), np.zeros(0, np.float32))
    write(spoken.path(stems[2]), noise(2)[:1599])
    write(spoken.path(stems[3]), np.append(noise(3), np.float32(np.nan)))
    write(spoken.path(stems[4]), np.full(RATE_HZ, 0.9e-4, np.float32))
    spoken.path(stems[5]).unlink()
    reasons = ["not audio", "no samples", "less than 0.1 s", "not finite", "silent", "missing"]
    return dict(zip(stems, reasons, strict=False))


def test_every_fault_stops_the_run_and_is_named(spoken: Workplace) -> None:
    faults = make_faults(spoken)
    with pytest.raises(BadInput) as caught:
        spoken.build()
    text = str(caught.value)
    assert f"{spoken.root} holds 7 of the 8 clips of Spoken; missing: {spoken.stems[5]}." in text
    lines = text.splitlines()
    for stem, reason in faults.items():
        if reason != "missing":
            assert any(f"spoken/wav/{stem}.wav: " in line and reason in line for line in lines)
    assert "allow_dropped" in text


def test_allowed_clips_are_dropped_with_their_reason(spoken: Workplace) -> None:
    faults = make_faults(spoken)
    manifest = spoken.build([f"spoken/wav/{stem}.wav" for stem in faults])
    assert [PurePosixPath(path).stem for path in manifest.clips["path"]] == sorted(spoken.stems[6:])
    dropped = {PurePosixPath(path).stem: reason for path, reason in manifest.dropped.itertuples(index=False)}
    assert dropped.keys() == faults.keys()
    assert all(faults[stem] in reason for stem, reason in dropped.items())
    looked_at = survey(spoken.spec, data=spoken.folder / "data", cache=spoken.folder / "cache", base=spoken.folder)
    assert looked_at.sha256 == manifest.sha256
    pd.testing.assert_frame_equal(looked_at.dropped, manifest.dropped)


@pytest.mark.parametrize("entry", ["spoken/{}", "spoken/{}.wav", "spoken/wav/{}", "spoken/elsewhere/{}.flac"])
def test_how_a_clip_may_be_named(spoken: Workplace, entry: str) -> None:
    spoken.path(spoken.stems[0]).unlink()
    write(spoken.path(spoken.stems[1]), np.zeros(RATE_HZ, np.float32))
    assert len(spoken.build([entry.format(stem) for stem in spoken.stems[:2]]).clips) == 6


def test_one_clip_that_is_not_listed_still_stops_the_run(spoken: Workplace) -> None:
    for stem in spoken.stems[:2]:
        write(spoken.path(stem), np.zeros(RATE_HZ, np.float32))
    with pytest.raises(BadInput) as caught:
        spoken.build([f"spoken/wav/{spoken.stems[0]}.wav", f"other/wav/{spoken.stems[1]}.wav"])
    assert spoken.stems[0] not in str(caught.value)
    assert spoken.stems[1] in str(caught.value)


def test_a_listed_clip_without_a_fault_stays(spoken: Workplace) -> None:
    manifest = spoken.build([f"spoken/wav/{stem}.wav" for stem in spoken.stems])
    assert len(manifest.clips) == 8
    assert manifest.dropped.empty


def test_identical_samples_with_another_label_drop_every_member(spoken: Workplace) -> None:
    first, same_label, other_label = spoken.stems[0], spoken.stems[1], spoken.stems[4]  # angry, angry, sad
    for stem in (first, same_label, other_label):
        write(spoken.path(stem), np.round(noise(0) * 2**15) / 2**15)
    flac = spoken.path(other_label).with_suffix(".flac")  # the file differs, the samples do not
    write(flac, np.round(noise(0) * 2**15) / 2**15)
    spoken.path(other_label).unlink()
    with pytest.raises(BadInput) as caught:
        spoken.build()
    lines = {line.split(":")[0].strip(): line for line in str(caught.value).splitlines() if "its samples" in line}
    assert lines.keys() == {f"spoken/wav/{first}.wav", f"spoken/wav/{same_label}.wav", f"spoken/wav/{other_label}.flac"}
    assert f"wav/{other_label}.flac (sad)" in lines[f"spoken/wav/{first}.wav"]
    assert len(spoken.build([f"spoken/{stem}" for stem in (first, same_label, other_label)]).clips) == 5


def test_identical_samples_with_one_label_are_kept(spoken: Workplace) -> None:
    write(spoken.path(spoken.stems[1]), noise(0))
    assert len(spoken.build().clips) == 8


def test_two_files_of_one_stem_are_named(spoken: Workplace) -> None:
    stem = spoken.stems[0]
    write(spoken.path(stem).with_suffix(".flac"), noise(0))
    with pytest.raises(BadInput, match=rf"both wav/{stem}\.flac and wav/{stem}\.wav"):
        spoken.build()


def test_long_lists_are_shortened_and_written_out(spoken: Workplace) -> None:
    spoken.stems += [f"c-sad-{n}" for n in range(100, 120)]
    spoken.expected = spoken.stems
    with pytest.raises(BadInput) as caught:
        spoken.build()
    text = str(caught.value)
    assert "holds 8 of the 28 clips of Spoken; missing: c-sad-100, c-sad-101" in text
    assert "c-sad-110" not in text
    assert ", ... (20)." in text
    file = Path(text.split("stand in ")[1].split(".json")[0] + ".json")
    listed = json.loads(file.read_text())["allow_dropped"]
    assert listed == [f"spoken/c-sad-{n}" for n in range(100, 120)]
    assert len(spoken.build(listed).clips) == 8


def test_missing_clips_without_known_names_are_counted(spoken: Workplace) -> None:
    spoken.expected = None
    spoken.path(spoken.stems[3]).unlink()
    with pytest.raises(BadInput, match="1 clips are missing; their names are not known"):
        spoken.build()
    assert len(spoken.build(["spoken/missing-1"]).clips) == 7


def test_when_no_clip_is_left(spoken: Workplace) -> None:
    for stem in spoken.stems:
        spoken.path(stem).write_text("text")
    with pytest.raises(BadInput, match="no clip of spoken is left"):
        spoken.build([f"spoken/wav/{stem}.wav" for stem in spoken.stems])


def test_an_absent_folder_is_explained(spoken: Workplace) -> None:
    spoken.root.rename(spoken.folder / "moved")
    with pytest.raises(BadInput) as caught:
        spoken.build()
    for part in (str(spoken.root), "SER_DATA", "ser corpora spoken"):
        assert part in str(caught.value)
    spoken.spec = NamedCorpus(name="spoken", root="moved")
    assert spoken.build().root == spoken.folder / "moved"
    spoken.spec = NamedCorpus(name="spoken", root="nowhere")
    with pytest.raises(BadInput, match="'nowhere'"):
        spoken.build()


def test_a_csv_corpus(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / "lists" / f"s{number}" / "clip.wav", noise(number))
    (tmp_path / "lists" / "mine.csv").write_text(
        "path,class_id,actor,gender\n" + "".join(f"s{n}/clip.wav,word {n % 2},s{n},female\n" for n in range(3))
    )
    spec = CsvCorpus(kind="csv", name="mine", path="lists/mine.csv")
    manifest = build_manifest(spec, data=tmp_path, cache=tmp_path / "cache", base=tmp_path)
    assert manifest.root == tmp_path / "lists"
    assert list(manifest.clips["class_id"]) == ["word 0", "word 1", "word 0"]
    assert manifest.speakers_known
    write(tmp_path / "lists" / "s1" / "clip.wav", np.zeros(RATE_HZ, np.float32))
    with pytest.raises(BadInput, match=r"mine/s1/clip\.wav: it is silent"):
        build_manifest(spec, data=tmp_path, cache=tmp_path / "cache", base=tmp_path, allow_dropped=["mine/s0/clip.wav"])
    (tmp_path / "lists" / "mine.csv").write_text("path,label\ns0/clip.wav,x\ns2/clip.wav,y\n")
    manifest = build_manifest(spec, data=tmp_path, cache=tmp_path / "cache", base=tmp_path)
    assert not manifest.speakers_known
    assert list(manifest.clips["actor"]) == ["", ""]


def test_only_changed_files_are_read_again(spoken: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = reads(monkeypatch)
    progress: list[tuple[int, int]] = []
    first = spoken.build(progress=lambda done, total: progress.append((done, total)))
    assert len(seen) == 8
    assert progress == [(n, 8) for n in range(1, 9)]
    seen.clear()
    second = spoken.build()
    assert seen == []
    pd.testing.assert_frame_equal(first.clips, second.clips, check_exact=True)
    assert first.sha256 == second.sha256
    write(spoken.path(spoken.stems[3]), noise(99))
    assert spoken.build().sha256 != first.sha256
    assert seen == [f"{spoken.stems[3]}.wav"]


def test_labels_are_read_afresh(spoken: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    first = spoken.build()
    rows = spoken.read
    monkeypatch.setattr(
        spoken, "read", lambda root: [ClipRow(row.path, "happy", row.actor, row.gender) for row in rows(root)]
    )
    second = spoken.build()
    assert set(second.clips["class_id"]) == {"happy"}
    assert second.sha256 != first.sha256


def test_clips_that_one_reading_leaves_out_are_not_read_again_by_the_next(
    spoken: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoken.build()
    seen = reads(monkeypatch)
    spoken.spec = NamedCorpus(name="spoken", only={"actor": ("b",)})
    assert len(spoken.build().clips) == 2
    spoken.spec = NamedCorpus(name="spoken")
    spoken.build()
    assert seen == []


def test_a_damaged_cache_is_built_again(spoken: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    first = spoken.build()
    file = next((spoken.folder / "cache" / "manifests").glob("*.json"))
    whole = file.read_text()
    seen = reads(monkeypatch)
    for damage in (whole[:-40], "", whole.replace("0.2", "0.3").replace("16000", "16001"), "\udcff"):
        file.write_text(damage, errors="surrogateescape")
        seen.clear()
        pd.testing.assert_frame_equal(spoken.build().clips, first.clips, check_exact=True)
        assert len(seen) == 8
        assert file.read_text() == whole


def test_a_failure_is_not_remembered(spoken: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path) -> tuple[decode.Samples, int]:
        raise decode.UnreadableAudio(path, "needs ffmpeg")

    original = decode.read
    monkeypatch.setattr(decode, "read", fail)
    with pytest.raises(BadInput, match="needs ffmpeg"):
        spoken.build()
    monkeypatch.setattr(decode, "read", original)
    assert len(spoken.build().clips) == 8


def test_a_dangling_link_is_a_fault(spoken: Workplace) -> None:
    file = spoken.path(spoken.stems[0])
    file.unlink()
    file.symlink_to(spoken.folder / "gone.wav")
    with pytest.raises(BadInput, match="no such file"):
        spoken.build()


def test_a_cache_that_cannot_be_written_is_an_error(spoken: Workplace) -> None:
    (spoken.folder / "cache").write_text("a file where the folder should be")
    with pytest.raises(BadInput, match="cache folder"):
        spoken.build()


def test_the_checksum_is_of_content_not_of_file_format(spoken: Workplace) -> None:
    manifest = spoken.build()
    assert (
        manifest.sha256
        == hashlib.sha256(manifest.clips[HASHED_COLUMNS].to_csv(index=False, lineterminator="\n").encode()).hexdigest()
    )
    stem = spoken.stems[0]
    content = spoken.path(stem).read_bytes()
    spoken.path(stem).write_bytes(content + b"LIST\x04\0\0\0INFO")
    again = spoken.build()
    assert again.clips["sha256"].iloc[0] != manifest.clips["sha256"].iloc[0]
    assert again.sha256 == manifest.sha256


def test_neither_workers_nor_file_order_change_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Workplace(tmp_path, clips=70)
    monkeypatch.setattr(corpora, "get", place.reader)
    tables = []
    for number, (workers, backwards) in enumerate(((1, False), (2, True))):
        rows = sorted(Workplace.read(place, place.root), key=lambda row: row.path, reverse=backwards)
        monkeypatch.setattr(place, "read", lambda root, rows=rows: rows)
        options = {"data": tmp_path / "data", "cache": tmp_path / str(number), "base": tmp_path, "workers": workers}
        tables.append(build_manifest(place.spec, **options))  # type: ignore[arg-type]
    pd.testing.assert_frame_equal(tables[0].clips, tables[1].clips, check_exact=True)
    assert tables[0].sha256 == tables[1].sha256


def test_several_at_once(spoken: Workplace) -> None:
    with ThreadPoolExecutor(6) as pool:
        sums = {future.result().sha256 for future in [pool.submit(spoken.build) for _ in range(6)]}
    assert len(sums) == 1
    left = {file.name.split(".")[-1] for file in (spoken.folder / "cache" / "manifests").iterdir()}
    assert left <= {"json", "lock"}


@pytest.mark.real
def test_emodb(ser_data: Path, tmp_path: Path) -> None:
    manifest = build_manifest(NamedCorpus(name="emodb"), data=ser_data, cache=tmp_path, base=tmp_path)
    clips = manifest.clips
    assert (len(clips), clips["actor"].nunique(), clips["sentence"].nunique()) == (535, 10, 10)
    assert clips["class_id"].value_counts().to_dict() == {
        "angry": 127, "bored": 81, "neutral": 79, "happy": 71, "fearful": 69, "sad": 62, "disgusted": 46,
    }  # fmt: skip
    assert set(clips["sample_rate_hz"]) == {16000}
    assert manifest.dropped.empty
    assert clips["silence_share"].between(0.01, 0.46).all()
    assert clips["bandwidth_hz"].between(7000, 8000).all()
    assert (clips["peak"] > 0.99).all()


@pytest.mark.slow
@pytest.mark.real
def test_cremad(ser_data: Path, tmp_path: Path) -> None:
    spec = NamedCorpus(name="cremad")
    with pytest.raises(BadInput) as caught:
        build_manifest(spec, data=ser_data, cache=tmp_path, base=tmp_path)
    assert all(f"cremad/{path}: " in str(caught.value) for path in CREMAD_FAULTS)
    started = time.process_time()
    manifest = build_manifest(
        spec, data=ser_data, cache=tmp_path, base=tmp_path, allow_dropped=[f"cremad/{path}" for path in CREMAD_FAULTS]
    )
    assert time.process_time() - started < 3
    assert list(manifest.dropped["path"]) == CREMAD_FAULTS
    assert len(manifest.clips) == 7442 - len(CREMAD_FAULTS)
    assert manifest.clips["actor"].nunique() == 91
    assert 5300 < manifest.clips["bandwidth_hz"].median() < 5700
    assert os.listdir(tmp_path) == ["manifests"]
