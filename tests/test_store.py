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

import numpy as np
import pytest
import soundfile

from ser_scripts.audio import decode, store
from ser_scripts.audio.preprocess import loudness_lufs, to_loudness
from ser_scripts.audio.store import ClipStore, open_store
from ser_scripts.errors import BadInput, Finding
from ser_scripts.manifest import Manifest, build_manifest
from ser_scripts.specs.corpora import CsvCorpus, NamedCorpus
from ser_scripts.specs.preprocess import Loudness

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
    def fail(mono: np.ndarray, rate_hz: int, chain: Sequence[object]) -> np.ndarray:
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
