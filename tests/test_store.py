"""The clip store: exact samples, one build however many ask, whole or absent."""

import errno
import json
import pickle
import shutil
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
from pydantic import TypeAdapter

from ser_scripts.audio import decode, store
from ser_scripts.audio.preprocess import Processed
from ser_scripts.audio.steps.level import loudness_lufs, to_loudness
from ser_scripts.audio.store import ClipsRefused, ClipStore, open_store, preprocessing_events, without_refused
from ser_scripts.errors import BadInput, Finding
from ser_scripts.manifest import Manifest, build_manifest
from ser_scripts.specs.corpora import CsvCorpus, NamedCorpus
from ser_scripts.specs.preprocess import Loudness, PreprocessSpec

LOUDNESS = (Loudness(kind="loudness"),)
FORMATS = {"a.wav": (16_000, 1), "b.wav": (48_000, 2), "c.flac": (44_100, 2), "d.opus": (48_000, 1)}


def make_corpus(folder: Path) -> Manifest:
    for number, (name, (rate_hz, channels)) in enumerate(FORMATS.items()):
        generator = np.random.default_rng(number)
        samples = 0.1 * generator.standard_normal((int((0.3 + 0.1 * number) * rate_hz), channels))
        container, subtype = ("OGG", "OPUS") if name.endswith("opus") else (name.split(".")[1].upper(), "PCM_16")
        soundfile.write(folder / name, samples.astype(np.float32), rate_hz, format=container, subtype=subtype)
    (folder / "clips.csv").write_text("path,label\n" + "".join(f"{name},x\n" for name in FORMATS))
    spec = CsvCorpus(kind="csv", name="clips", path="clips.csv")
    return build_manifest(spec, data=folder, cache=folder / "cache", base=folder)


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return make_corpus(tmp_path)


def chain(*steps: dict[str, Any]) -> tuple[PreprocessSpec, ...]:
    return TypeAdapter(tuple[PreprocessSpec, ...]).validate_python(steps)


def folders(cache: Path) -> list[str]:
    return sorted(path.name for path in (cache / "clips").iterdir() if path.is_dir())


def refuse_to_decode(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path) -> tuple[decode.Samples, int]:
        raise AssertionError(f"{path} is decoded")

    monkeypatch.setattr(decode, "read", fail)


def test_holds_exactly_what_the_steps_give(manifest: Manifest, tmp_path: Path) -> None:
    clips = open_store(manifest, 16_000, LOUDNESS, tmp_path)
    assert clips.rate_hz == 16_000
    for name in FORMATS:
        samples, rate_hz = decode.read(tmp_path / name)
        mono = to_loudness(decode.to_mono(samples), rate_hz, lufs=-23)
        np.testing.assert_array_equal(clips[name], decode.resample(mono, rate_hz, 16_000))
        assert clips.num_samples(name) == len(clips[name]) == round(len(mono) * 16_000 / rate_hz)
    clips.verify()
    with pytest.raises(KeyError):
        clips["e.wav"]


def test_views_are_read_only_float32(manifest: Manifest, tmp_path: Path) -> None:
    view = open_store(manifest, 16_000, (), tmp_path)["a.wav"]
    assert view.dtype == np.float32
    assert view.ndim == 1
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 1


def test_is_built_once(manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    progress: list[tuple[int, int]] = []
    first = open_store(manifest, 16_000, (), tmp_path, lambda done, total: progress.append((done, total)))
    assert progress == [(n, 4) for n in range(1, 5)]
    refuse_to_decode(monkeypatch)
    second = open_store(manifest, 16_000, (), tmp_path)
    assert first.folder == second.folder
    np.testing.assert_array_equal(first["b.wav"], second["b.wav"])


def test_rate_chain_and_content_have_stores_of_their_own(manifest: Manifest, tmp_path: Path) -> None:
    variants = [
        open_store(manifest, rate_hz, chain, tmp_path) for rate_hz in (8000, 16_000) for chain in ((), LOUDNESS)
    ]
    variants.append(open_store(manifest, 16_000, [Loudness(kind="loudness", lufs=-30)], tmp_path))
    generator = np.random.default_rng(9)
    soundfile.write(tmp_path / "a.wav", 0.1 * generator.standard_normal(9000), 16_000)
    spec = CsvCorpus(kind="csv", name="clips", path="clips.csv")
    changed = build_manifest(spec, data=tmp_path, cache=tmp_path / "cache", base=tmp_path)
    variants.append(open_store(changed, 16_000, (), tmp_path))
    assert len({clips.folder for clips in variants}) == len(variants)
    assert variants[-1].num_samples("a.wav") == 9000


def test_a_file_that_changed_since_the_manifest_is_refused(manifest: Manifest, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "b.wav", np.full(9000, 0.1), 16_000)
    with pytest.raises(BadInput, match=r"b\.wav has changed"):
        open_store(manifest, 16_000, (), tmp_path)
    assert folders(tmp_path) == []


def test_a_step_that_fails_names_the_clip(manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(mono: np.ndarray, rate_hz: int, chain: Sequence[object], **more: object) -> Processed:
        raise BadInput("no loudness")

    monkeypatch.setattr(store, "apply_chain", fail)
    with pytest.raises(BadInput, match=r"a\.wav: no loudness"):
        open_store(manifest, 16_000, LOUDNESS, tmp_path)


def test_a_full_disk_is_seen_beforehand(manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=12_345))
    refuse_to_decode(monkeypatch)
    with pytest.raises(BadInput) as caught:
        open_store(manifest, 16_000, (), tmp_path)
    assert "12,345 bytes free" in str(caught.value)
    needed = int(str(caught.value).split("need ")[1].split(".")[0].replace(",", ""))
    assert needed == pytest.approx(4 * 16_000 * (0.3 + 0.4 + 0.5 + 0.6) + (1 << 20), abs=16)
    assert str(tmp_path / "clips") in str(caught.value)
    assert folders(tmp_path) == []


@pytest.mark.parametrize(("number", "message"), [(errno.ENOSPC, "bytes free"), (errno.EIO, "cannot write")])
def test_a_disk_that_fails_halfway_leaves_nothing(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, message: str
) -> None:
    original = decode.in_order

    def two_clips(*args: object, **kwargs: object) -> Iterator[object]:
        results = original(*args, **kwargs)  # type: ignore[arg-type]
        yield next(results)
        yield next(results)
        raise OSError(number, "the disk says no")

    with monkeypatch.context() as patch:
        patch.setattr(decode, "in_order", two_clips)
        with pytest.raises(BadInput, match=message):
            open_store(manifest, 16_000, (), tmp_path)
    assert folders(tmp_path) == []
    open_store(manifest, 16_000, (), tmp_path).verify()


def test_what_a_killed_process_left_is_cleared(manifest: Manifest, tmp_path: Path) -> None:
    folder = open_store(manifest, 16_000, (), tmp_path).folder
    folder.rename(folder.with_name(f"{folder.name}.partial"))
    open_store(manifest, 16_000, (), tmp_path).verify()
    assert folders(tmp_path) == [folder.name]


def test_a_damaged_store_is_noticed_and_built_again(manifest: Manifest, tmp_path: Path) -> None:
    clips = open_store(manifest, 16_000, (), tmp_path)
    folder, expected = clips.folder, clips["c.flac"].copy()
    index = (folder / "index.json").read_text()
    moved = json.loads(index)
    moved["index"]["clips"][0][2] -= 1
    samples = (folder / "samples.f32").read_bytes()
    for file, content in (
        ("samples.f32", samples[:-4]),
        ("index.json", index[:-10].encode()),
        ("index.json", json.dumps(moved).encode()),
        ("index.json", b"[]"),
    ):
        (folder / file).write_bytes(content)
        with pytest.raises(Finding, match="damaged"):
            ClipStore(folder)
        np.testing.assert_array_equal(open_store(manifest, 16_000, (), tmp_path)["c.flac"], expected)
    (folder / "samples.f32").write_bytes(bytes(len(samples)))
    with pytest.raises(Finding, match="has changed"):
        open_store(manifest, 16_000, (), tmp_path).verify()


def test_of_many_at_once_one_builds(manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[str] = []
    original, lock = decode.read, threading.Lock()

    def recorder(path: Path) -> tuple[decode.Samples, int]:
        with lock:
            decoded.append(path.name)
        return original(path)

    monkeypatch.setattr(decode, "read", recorder)
    with ThreadPoolExecutor(5) as pool:
        opened = [pool.submit(open_store, manifest, 16_000, LOUDNESS, tmp_path) for _ in range(5)]
        stores = [future.result() for future in opened]
    assert sorted(decoded) == sorted(FORMATS)
    assert len({clips["d.opus"].tobytes() for clips in stores}) == 1


def test_a_pickled_store_maps_the_same_file(manifest: Manifest, tmp_path: Path) -> None:
    clips = open_store(manifest, 16_000, (), tmp_path)
    pickled = pickle.dumps(clips)
    assert len(pickled) < 1000
    np.testing.assert_array_equal(pickle.loads(pickled)["b.wav"], clips["b.wav"])


QUIET = chain({"kind": "trim_silence", "floor_dbfs": -15})
"""Takes the clips of `make_corpus` for silent whose peak is below -15 dBFS."""
REFUSING = chain({"kind": "trim_silence", "floor_dbfs": -9, "no_speech": "refuse"})


def test_events_are_kept_by_clip_and_counted(manifest: Manifest, tmp_path: Path) -> None:
    steps = chain({"kind": "fixed_length", "seconds": 0.45}, {"kind": "resample", "rate_hz": 44_100})
    clips = open_store(manifest, 16_000, steps, tmp_path)
    assert clips.events == {
        "a.wav": ["fixed_length: filled", "resample: rate_not_above"],
        "b.wav": ["fixed_length: filled"],
        "c.flac": ["fixed_length: cut", "resample: rate_not_above"],
        "d.opus": ["fixed_length: cut"],
    }
    assert clips.event_counts() == {"fixed_length: cut": 2, "fixed_length: filled": 2, "resample: rate_not_above": 2}
    assert clips.event_counts(["a.wav"]) == {"fixed_length: filled": 1, "resample: rate_not_above": 1}
    assert open_store(manifest, 16_000, (), tmp_path).events == {}
    again = pickle.loads(pickle.dumps(clips))
    assert again.events == clips.events
    assert preprocessing_events(manifest, steps, tmp_path) == clips.event_counts()


def test_a_chain_without_events_is_not_run_to_count_them(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_to_decode(monkeypatch)
    assert preprocessing_events(manifest, LOUDNESS, tmp_path) == {}
    assert without_refused(manifest, QUIET, tmp_path, allowed=(), by_stem=False) is manifest


def peaks_db(manifest: Manifest) -> dict[str, float]:
    decoded = {name: decode.to_mono(decode.read(manifest.root / name)[0]) for name in manifest.clips["path"]}
    return {name: float(20 * np.log10(np.abs(mono).max())) for name, mono in decoded.items()}


def test_refused_clips_are_named_all_at_once_and_heard_once(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet = sorted(name for name, peak in peaks_db(manifest).items() if peak < -9)
    assert 1 < len(quiet) < len(FORMATS)
    for _ in range(2):
        with pytest.raises(ClipsRefused, match=rf"holds {len(quiet)} clips of clips") as caught:
            open_store(manifest, 16_000, REFUSING, tmp_path)
        refuse_to_decode(monkeypatch)
        assert sorted(caught.value.reasons) == quiet
        assert all(f"clips/{name}: no speech found (preprocess.0, trim_silence)" in str(caught.value) for name in quiet)
        assert '"allow_dropped"' in str(caught.value)
    assert folders(tmp_path) == []


def test_refused_clips_are_dropped_when_they_are_listed(manifest: Manifest, tmp_path: Path) -> None:
    quiet = sorted(name for name, peak in peaks_db(manifest).items() if peak < -9)
    with pytest.raises(ClipsRefused) as caught:
        without_refused(manifest, REFUSING, tmp_path, allowed=[f"clips/{quiet[0]}", "other/x.wav"], by_stem=False)
    assert sorted(caught.value.reasons) == quiet[1:]
    listed = [f"clips/{Path(name).stem}.ogg" for name in quiet]
    rest = without_refused(manifest, REFUSING, tmp_path, allowed=listed, by_stem=False)
    assert sorted(rest.clips["path"]) == sorted(set(FORMATS) - set(quiet))
    assert list(rest.dropped["path"]) == quiet
    assert set(rest.dropped["reason"]) == {"no speech found (preprocess.0, trim_silence)"}
    assert rest.sha256 != manifest.sha256
    clips = open_store(rest, 16_000, REFUSING, tmp_path)
    assert all(clips.num_samples(path) for path in rest.clips["path"])
    everything = chain({"kind": "trim_silence", "floor_dbfs": 0, "no_speech": "refuse"})
    with pytest.raises(BadInput, match="no clip of clips is left"):
        without_refused(manifest, everything, tmp_path, allowed=[f"clips/{name}" for name in FORMATS], by_stem=True)


def test_files_of_the_chain_are_found_beside_the_experiment_and_are_part_of_the_key(
    manifest: Manifest, tmp_path: Path
) -> None:
    for number, folder in enumerate(("one", "two")):
        (tmp_path / folder / "noises").mkdir(parents=True)
        noise = np.random.default_rng(number).standard_normal(8000) * 0.1
        soundfile.write(tmp_path / folder / "noises" / "n.wav", noise, 16_000)
    steps = chain({"kind": "noise", "snr_db": 3, "folder": "noises"})
    one, two = (open_store(manifest, 16_000, steps, tmp_path, base=tmp_path / folder) for folder in ("one", "two"))
    assert one.folder != two.folder
    assert one["a.wav"].tobytes() != two["a.wav"].tobytes()
    moved = (tmp_path / "one").rename(tmp_path / "moved")
    assert open_store(manifest, 16_000, steps, tmp_path, base=moved).folder == one.folder
    with pytest.raises(BadInput, match=r"preprocess\.0 \(noise\): folder: 'noises' does not exist"):
        open_store(manifest, 16_000, steps, tmp_path, base=tmp_path / "nowhere")


def test_disk_is_asked_for_what_a_fixed_length_needs(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=2_000_000))
    open_store(manifest, 16_000, (), tmp_path)
    with pytest.raises(BadInput, match="need 26,6"):
        open_store(manifest, 16_000, chain({"kind": "fixed_length", "seconds": 100}), tmp_path)


HEAVY = chain(
    {"kind": "fixed_length", "seconds": 0.6, "keep": "centre"},
    {"kind": "vad", "mode": "keep_speech"},
    {"kind": "denoise"},
    {"kind": "reverb", "rt60_seconds": 0.2},
    {"kind": "noise", "snr_db": 12, "colour": "speech_shaped"},
    {"kind": "codec", "codec": "mp3", "bitrate_kbps": 24},
    {"kind": "telephone"},
    {"kind": "loudness"},
)


def test_one_and_two_processes_give_the_same_bytes(mini_corpus: Path, tmp_path: Path) -> None:
    spec = CsvCorpus(kind="csv", name="mini", path=str(mini_corpus / "clips.csv"))
    manifest = build_manifest(spec, data=tmp_path, cache=tmp_path, base=tmp_path, workers=1)
    assert len(manifest.clips) >= 64  # fewer are decoded in this process
    one, two = (open_store(manifest, 16_000, HEAVY, tmp_path / str(n), workers=n) for n in (1, 2))
    assert (one.folder / "index.json").read_bytes() == (two.folder / "index.json").read_bytes()
    two.verify()


@pytest.mark.real
def test_emodb_with_one_and_two_processes(ser_data: Path, tmp_path: Path) -> None:
    manifest = build_manifest(NamedCorpus(name="emodb"), data=ser_data, cache=tmp_path, base=tmp_path)
    one = open_store(manifest, 16_000, LOUDNESS, tmp_path / "one", workers=1)
    two = open_store(manifest, 16_000, LOUDNESS, tmp_path / "two", workers=2)
    two.verify()
    assert (one.folder / "index.json").read_bytes() == (two.folder / "index.json").read_bytes()
    lengths = manifest.clips["duration_seconds"].to_numpy() * 16_000
    assert [one.num_samples(path) for path in manifest.clips["path"]] == list(np.round(lengths).astype(int))
    assert all(
        loudness_lufs(one[path], 16_000) == pytest.approx(-23, abs=0.01) for path in manifest.clips["path"][::50]
    )
