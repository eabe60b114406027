"""Decoding: every format, every kind of damage, mixing and resampling."""

import operator
import os
import stat
import struct
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from ser_scripts.audio import decode
from ser_scripts.audio.decode import UnreadableAudio
from ser_scripts.errors import BadInput

RATE_HZ = 16_000


def speechlike(seconds: float, rate_hz: int = RATE_HZ, channels: int = 1, seed: int = 0) -> np.ndarray:
    """Noise of (samples, channels)."""
    generator = np.random.default_rng(seed)
    return (0.1 * generator.standard_normal((round(seconds * rate_hz), channels))).astype(np.float32)


def write(file: Path, samples: np.ndarray, rate_hz: int = RATE_HZ) -> Path:
    kind = {"opus": ("OGG", "OPUS"), "ogg": ("OGG", "VORBIS"), "flac": ("FLAC", "PCM_24"), "mp3": ("MP3", None)}
    container, subtype = kind.get(file.suffix[1:].lower(), ("WAV", "FLOAT"))
    soundfile.write(file, samples, rate_hz, format=container, subtype=subtype)
    return file


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("suffix", ["wav", "WAV", "flac", "mp3", "ogg", "opus"])
def test_reads_every_format(tmp_path: Path, suffix: str, channels: int) -> None:
    original = speechlike(0.7, 48_000, channels)
    samples, rate_hz = decode.read(write(tmp_path / f"a.{suffix}", original, 48_000))
    assert rate_hz == 48_000
    assert samples.shape == (channels, len(original))
    assert samples.dtype == np.float32
    assert samples.flags.c_contiguous
    if suffix.lower() == "wav":
        np.testing.assert_array_equal(samples, original.T)
    elif suffix == "flac":
        np.testing.assert_allclose(samples, original.T, atol=2**-22)
    else:
        assert abs(np.std(samples) / np.std(original) - 1) < 0.2


def test_float_samples_come_back_untouched(tmp_path: Path) -> None:
    odd = np.array([[1.5], [-2.0], [np.nan], [np.inf], [1e-30]], dtype=np.float32)
    samples, _ = decode.read(write(tmp_path / "a.wav", odd))
    np.testing.assert_array_equal(samples, odd.T)


def test_a_file_without_samples_is_no_error(tmp_path: Path) -> None:
    samples, _ = decode.read(write(tmp_path / "a.wav", np.zeros((0, 2), np.float32)))
    assert samples.shape == (2, 0)


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3", "ogg", "opus"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_cut_files_are_refused(tmp_path: Path, suffix: str, share: float) -> None:
    file = write(tmp_path / f"a.{suffix}", speechlike(3, 48_000), 48_000)
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UnreadableAudio, match=r"damaged|cut short") as caught:
        decode.read(file)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("suffix", ["flac", "ogg", "opus"])
def test_damage_in_the_middle_is_noticed(tmp_path: Path, suffix: str) -> None:
    file = write(tmp_path / f"a.{suffix}", speechlike(3, 48_000), 48_000)
    content = bytearray(file.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 500] = bytes(500)
    file.write_bytes(content)
    with pytest.raises(UnreadableAudio, match="damaged"):
        decode.read(file)


def test_headers_that_do_not_know_the_length_are_read_whole(tmp_path: Path) -> None:
    original = speechlike(1)
    wav = write(tmp_path / "a.wav", original)
    content = bytearray(wav.read_bytes())
    place = content.index(b"data") + 4
    for size in (0xFFFFFFFF, 0x7FFFF000, len(content) - place + 8):  # streamed, streamed by sox, header counted in
        content[place : place + 4] = struct.pack("<I", size)
        wav.write_bytes(content)
        assert decode.read(wav)[0].shape == (1, len(original))


def test_a_streamed_flac_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "a.flac", speechlike(1))
    content = bytearray(file.read_bytes())
    content[21] &= 0xF0  # total samples of STREAMINFO: 0 says unknown
    content[22:26] = bytes(4)
    file.write_bytes(content)
    with pytest.raises(UnreadableAudio, match="does not state its length"):
        decode.read(file)


@pytest.mark.parametrize("rate_hz", [8000, 16_000, 22_050, 44_100, 48_000])
def test_an_mp3_that_does_not_state_its_length(tmp_path: Path, rate_hz: int) -> None:
    """libsndfile guesses its length from the first frame: it is read whole, or refused, but never cut."""
    for mode, seconds_of_silence in (("CONSTANT", 1), ("VARIABLE", 1), ("VARIABLE", 0)):
        file = tmp_path / "a.mp3"
        original = np.concatenate([np.zeros(seconds_of_silence * rate_hz), speechlike(2, rate_hz)[:, 0]])
        soundfile.write(file, original, rate_hz, bitrate_mode=mode, compression_level=0.5)
        content = file.read_bytes()
        headless = content[content.index(content[:2], 4) :]  # the first frame holds the header
        for tail in (b"", b"TAG" + bytes(125)):
            file.write_bytes(headless + tail)
            if seconds_of_silence:
                assert decode.read(file)[0].shape[1] == pytest.approx(len(original), abs=2500)
            else:
                with pytest.raises(UnreadableAudio, match="does not state its length"):
                    decode.read(file)
        file.write_bytes(headless[:-20])
        with pytest.raises(UnreadableAudio, match="cut short"):
            decode.read(file)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.wav", b"this is a text file\n" * 10, "not audio"),
        ("a.wav", b"", "0 bytes"),
        ("a.flac", b"fLaC" + bytes(10), "not audio"),
        ("a.mp3", b"text " * 1000, "not audio"),
        ("a.ogg", b"OggS" + bytes(100), "not audio"),
        ("a.txt", b"x", "not a known audio format"),
        ("a", b"x", "no suffix"),
    ],
)
def test_what_is_not_audio_is_named_with_its_reason(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(UnreadableAudio, match=reason) as caught:
        decode.read(file)
    assert str(file) in str(caught.value)
    assert isinstance(caught.value, BadInput)


def test_absent_and_forbidden_files(tmp_path: Path) -> None:
    with pytest.raises(UnreadableAudio, match="no such file"):
        decode.read(tmp_path / "a.wav")
    (tmp_path / "b.wav").mkdir()
    with pytest.raises(UnreadableAudio, match="no such file"):
        decode.read(tmp_path / "b.wav")


def _install_ffmpeg(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = folder / "ffmpeg"
    program.write_text(f"#!{sys.executable}\n{script}", encoding="utf-8")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(folder))


def test_m4a_without_ffmpeg_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.m4a").write_bytes(b"x")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnreadableAudio, match="ffmpeg") as caught:
        decode.read(tmp_path / "a.m4a")
    assert "install" in str(caught.value).lower()


def test_m4a_comes_through_a_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for ffmpeg that answers as its AU muxer does: unknown size, offset 32."""
    original = speechlike(0.5, channels=2)
    header = struct.pack(">4s5I8x", b".snd", 32, 0xFFFFFFFF, 6, RATE_HZ, 2)
    (tmp_path / "answer").write_bytes(header + original.astype(">f4").tobytes())
    script = (
        "import sys, pathlib\n"
        "assert sys.argv[sys.argv.index('-i') + 1].endswith('a.m4a')\n"
        f"sys.stdout.buffer.write(pathlib.Path({str(tmp_path / 'answer')!r}).read_bytes())\n"
    )
    _install_ffmpeg(tmp_path, script, monkeypatch)
    (tmp_path / "a.m4a").write_bytes(b"x")
    samples, rate_hz = decode.read(tmp_path / "a.m4a")
    assert rate_hz == RATE_HZ
    np.testing.assert_array_equal(samples, original.T)


def test_a_refusal_of_ffmpeg_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _install_ffmpeg(tmp_path, "import sys\nsys.exit('moov atom not found')\n", monkeypatch)
    (tmp_path / "a.m4a").write_bytes(b"x")
    with pytest.raises(UnreadableAudio, match="moov atom not found"):
        decode.read(tmp_path / "a.m4a")


def test_to_mono_is_the_mean_over_channels() -> None:
    stereo = np.array([[0.5, -0.25, 1.0], [0.25, -0.75, -1.0]], dtype=np.float32)
    np.testing.assert_array_equal(decode.to_mono(stereo), np.array([0.375, -0.5, 0.0], dtype=np.float32))
    assert decode.to_mono(stereo).dtype == np.float32
    np.testing.assert_array_equal(decode.to_mono(stereo[:1]), stereo[0])
    with pytest.raises(ValueError, match=r"\(channels, samples\)"):
        decode.to_mono(stereo[0])


def test_resample_keeps_a_tone_and_removes_what_would_alias() -> None:
    times = np.arange(48_000) / 48_000
    low = np.sin(2 * np.pi * 440 * times).astype(np.float32)
    high = np.sin(2 * np.pi * 10_000 * times).astype(np.float32)
    resampled = decode.resample(low, 48_000, 16_000)
    expected = np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    assert resampled.dtype == np.float32
    np.testing.assert_allclose(resampled[500:-500], expected[500:-500], atol=1e-4)
    assert np.abs(decode.resample(high, 48_000, 16_000)[500:-500]).max() < 1e-4
    assert decode.resample(low, 48_000, 48_000) is low


@given(st.integers(1, 5000), st.sampled_from([8000, 11_025, 12_000, 16_000, 22_050, 44_100, 48_000]))
def test_resampled_length_follows_the_rates(length: int, from_hz: int) -> None:
    resampled = decode.resample(np.zeros(length, np.float32), from_hz, 16_000)
    assert abs(len(resampled) - length * 16_000 / from_hz) <= 1


def test_in_order_keeps_the_order_and_counts() -> None:
    seen: list[tuple[int, int]] = []
    results = decode.in_order(
        operator.neg, range(700), workers=2, progress=lambda done, total: seen.append((done, total))
    )
    assert list(results) == [-number for number in range(700)]
    assert seen == [(number, 700) for number in range(1, 701)]


@pytest.mark.parametrize(("items", "workers", "pooled"), [(10, 2, False), (100, 1, False), (100, 2, True)])
def test_processes_are_started_only_when_it_pays(
    monkeypatch: pytest.MonkeyPatch, items: int, workers: int, pooled: bool
) -> None:
    started = []

    class Recorder(ProcessPoolExecutor):
        def __init__(self, *args: object, **kwargs: object) -> None:
            started.append(kwargs["mp_context"].get_start_method())  # type: ignore[attr-defined]
            super().__init__(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(decode, "ProcessPoolExecutor", Recorder)
    assert list(decode.in_order(abs, range(items), workers=workers)) == list(range(items))
    assert started == (["spawn"] if pooled else [])


@pytest.mark.parametrize(("patience", "sent"), [(60.0, 0), (0.05, 1), (0.0, 100)])
def test_unless_told_this_process_begins_alone(monkeypatch: pytest.MonkeyPatch, patience: float, sent: int) -> None:
    monkeypatch.setattr(decode, "_ALONE_SECONDS", patience)
    monkeypatch.setattr(decode.os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    to_pool: list[int] = []
    true = decode._pooled

    def pooled(pool: ProcessPoolExecutor, function: object, items: Sequence[int]) -> Iterator[int]:
        to_pool.extend(items)
        return true(pool, abs, items)

    def slow(number: int) -> int:
        time.sleep(0.01)
        return number

    monkeypatch.setattr(decode, "_pooled", pooled)
    seen: list[tuple[int, int]] = []
    results = decode.in_order(slow, range(100), progress=lambda done, total: seen.append((done, total)))
    assert list(results) == list(range(100))
    assert seen == [(number, 100) for number in range(1, 101)]
    assert to_pool == list(range(100 - len(to_pool), 100))
    assert len(to_pool) >= sent
    assert (len(to_pool) < 100) == (patience > 0)


def test_a_worker_that_dies_is_an_error() -> None:
    with pytest.raises(BadInput, match="out of memory"):
        list(decode.in_order(os._exit, range(100), workers=2))


def test_decoding_does_not_depend_on_how_often(tmp_path: Path) -> None:
    file = write(tmp_path / "a.opus", speechlike(1, 48_000), 48_000)
    first, second = decode.read(file)[0], decode.read(file)[0]
    np.testing.assert_array_equal(first, second)
