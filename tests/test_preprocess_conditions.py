"""Noise, rooms and codecs: levels and spectra that can be measured, and draws that depend on seed, clip and place."""

import io
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter
from scipy import signal

from ser_scripts.audio.preprocess import apply_chain
from ser_scripts.audio.steps import conditions
from ser_scripts.audio.steps.conditions import (
    LTASS_DB,
    LTASS_HZ,
    Colour,
    add_noise,
    code,
    coloured_noise,
    generator,
    reverberate,
    synthetic_response,
)
from ser_scripts.audio.steps.level import rms
from ser_scripts.errors import BadInput
from ser_scripts.specs.preprocess import PreprocessSpec

RATE_HZ = 16_000
CLIP = (0.1 * np.random.default_rng(7).standard_normal(RATE_HZ)).astype(np.float32)


def run(*steps: dict[str, Any], clip: np.ndarray = CLIP, key: str = "toy/a.wav") -> np.ndarray:
    chain = TypeAdapter(tuple[PreprocessSpec, ...]).validate_python(steps)
    return apply_chain(clip, RATE_HZ, chain, clip_key=key).samples


def random() -> np.random.Generator:
    return generator(0, "toy/a.wav", 0)


def test_a_draw_depends_on_seed_clip_and_place_and_on_nothing_else() -> None:
    draws = {
        key: generator(*key).random(4).tobytes()
        for key in [
            (0, "toy/a.wav", 0),
            (1, "toy/a.wav", 0),
            (0, "toy/b.wav", 0),
            (0, "toy/a.wav", 1),
            (0, "toya.wav", 0),
        ]
    }
    assert len(set(draws.values())) == len(draws)
    np.random.default_rng().random()
    np.random.seed(5)
    assert generator(0, "toy/a.wav", 0).random(4).tobytes() == draws[0, "toy/a.wav", 0]


def test_the_first_draws_are_these() -> None:
    """Golden: PCG64 seeded by SHA-256 of `[0, "toy/a.wav", 0]`; another stream would change every noisy condition."""
    np.testing.assert_allclose(random().random(2), [0.1920093193784964, 0.756838314659113], rtol=1e-12)


@given(snr_db=st.floats(-30, 60), gain_db=st.floats(-60, 10))
def test_the_signal_to_noise_ratio_is_met_at_every_level(snr_db: float, gain_db: float) -> None:
    clip = CLIP.astype(np.float64) * 10 ** (gain_db / 20)
    noise = coloured_noise(len(CLIP), RATE_HZ, colour="pink", random=random())
    added = add_noise(clip, noise, snr_db=snr_db) - clip  # type: ignore[arg-type]
    assert 20 * np.log10(rms(clip) / rms(added)) == pytest.approx(snr_db, abs=1e-3)  # type: ignore[arg-type]


def level_db(noise: np.ndarray, low_hz: float, high_hz: float) -> float:
    """Power per hertz in a band."""
    frequencies, power = signal.welch(noise, RATE_HZ, nperseg=8192)
    return float(10 * np.log10(power[(frequencies >= low_hz) & (frequencies < high_hz)].mean()))


@pytest.mark.parametrize(("colour", "per_octave_db"), [("white", 0.0), ("pink", -3.01), ("brown", -6.02)])
def test_colours_fall_as_they_should(colour: Colour, per_octave_db: float) -> None:
    noise = coloured_noise(60 * RATE_HZ, RATE_HZ, colour=colour, random=random())
    octaves = [level_db(noise, low, 1.05 * low) for low in (100, 200, 400, 800, 1600, 3200, 6400)]
    assert np.diff(octaves) == pytest.approx(per_octave_db, abs=1.0)
    assert (octaves[-1] - octaves[0]) / 6 == pytest.approx(per_octave_db, abs=0.2)
    assert abs(noise.mean()) < 1e-3 * noise.std()


def test_speech_shaped_noise_has_the_long_term_spectrum_of_speech() -> None:
    noise = coloured_noise(60 * RATE_HZ, RATE_HZ, colour="speech_shaped", random=random())
    bands = [(hz, db) for hz, db in zip(LTASS_HZ, LTASS_DB, strict=True) if 100 <= hz <= 6300]
    measured = [level_db(noise, hz * 2 ** (-1 / 6), hz * 2 ** (1 / 6)) + 10 * np.log10(hz) for hz, _ in bands]
    expected = np.array([db for _, db in bands])
    assert (measured - np.mean(measured)) == pytest.approx(expected - expected.mean(), abs=1.5)


def test_the_table_of_the_speech_spectrum_sums_to_its_overall_level() -> None:
    """Byrne et al. give third-octave levels for 70 dB SPL overall."""
    assert 10 * np.log10(np.sum(10 ** (np.array(LTASS_DB) / 10))) == pytest.approx(70, abs=0.3)
    assert [round(high / low, 2) for low, high in pairwise(LTASS_HZ)] == pytest.approx([1.26] * 24, abs=0.03)


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    """Three noises of different length and rate, and a text file."""
    (tmp_path / "inner").mkdir()
    for number, (name, rate_hz, seconds) in enumerate(
        [("b.wav", 16_000, 0.3), ("inner/a.flac", 48_000, 3), ("c.wav", 8000, 2)]
    ):
        noise = np.random.default_rng(number).uniform(-0.5, 0.5, round(rate_hz * seconds))
        soundfile.write(tmp_path / name, noise, rate_hz)
    (tmp_path / "readme.txt").write_text("no sound")
    return tmp_path


def test_recorded_noise_is_drawn_per_clip_repeated_where_short_and_reproducible(sounds: Path) -> None:
    step = {"kind": "noise", "snr_db": 0, "folder": str(sounds)}
    noisy = {key: run(step, key=key) for key in (f"toy/{n}.wav" for n in range(8))}
    assert len({one.tobytes() for one in noisy.values()}) == 8
    for key, one in noisy.items():
        assert len(one) == len(CLIP)
        assert 20 * np.log10(rms(CLIP) / rms(one - CLIP)) == pytest.approx(0, abs=0.01)
        conditions._read_once.cache_clear()
        np.testing.assert_array_equal(run(step, key=key), one)
    short = conditions.recorded_noise(RATE_HZ, RATE_HZ, files=[sounds / "b.wav"], random=random())
    np.testing.assert_array_equal(short[:4800], short[4800:9600])


def test_silent_recordings_are_refused_by_name(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "mute.wav", np.zeros(8000), 16_000)
    for step in ({"kind": "noise", "snr_db": 0, "folder": str(tmp_path)}, {"kind": "reverb", "folder": str(tmp_path)}):
        with pytest.raises(BadInput, match=r"mute\.wav is silent"):
            run(step)
    with pytest.raises(BadInput, match="the clip is silent"):
        run({"kind": "noise", "snr_db": 0, "colour": "white"}, clip=np.zeros(100, np.float32))


@pytest.mark.parametrize("rt60_seconds", [0.2, 0.5, 1.5])
@pytest.mark.parametrize("direct_db", [-10.0, 0.0, 10.0])
def test_a_synthetic_room_decays_by_60_db_in_its_time(rt60_seconds: float, direct_db: float) -> None:
    """Schroeder's backward integral between -5 and -35 dB (ISO 3382-1: T30)."""
    response = synthetic_response(
        RATE_HZ, rt60_seconds=rt60_seconds, direct_to_reverberant_db=direct_db, random=random()
    ).astype(float)
    assert response[0] == 1
    assert len(response) == pytest.approx(rt60_seconds * RATE_HZ, abs=1)
    tail = response[1:] ** 2
    assert -10 * np.log10(tail.sum()) == pytest.approx(direct_db, abs=0.01)
    decay_db = 10 * np.log10(np.cumsum(tail[::-1])[::-1] / tail.sum())
    inside = np.flatnonzero((decay_db < -5) & (decay_db > -35))
    slope = np.polyfit(inside / RATE_HZ, decay_db[inside], 1)[0]
    assert -60 / slope == pytest.approx(rt60_seconds, rel=0.06)


def test_reverberation_keeps_length_and_level_and_delays_nothing(sounds: Path) -> None:
    for step in ({"kind": "reverb", "rt60_seconds": 0.4}, {"kind": "reverb", "folder": str(sounds)}):
        wet = run(step)
        assert len(wet) == len(CLIP)
        assert rms(wet) == pytest.approx(rms(CLIP), rel=1e-5)
        assert wet.tobytes() != run(step, key="toy/b.wav").tobytes()
    click = np.zeros(1000, np.float32)
    click[100] = 0.5
    assert np.argmax(np.abs(reverberate(click, np.array([1.0, 0.3, 0.1], np.float32)))) == 100


def test_a_recorded_response_begins_at_its_direct_path(tmp_path: Path) -> None:
    response = np.zeros(4000)
    response[700], response[900] = 0.8, -0.4
    soundfile.write(tmp_path / "room.wav", response, RATE_HZ, subtype="FLOAT")
    found = conditions.recorded_response(RATE_HZ, files=[tmp_path / "room.wav"], random=random())
    assert found[0] == pytest.approx(0.8)
    assert found[200] == pytest.approx(-0.4)


CODECS: list[dict[str, Any]] = [
    {"codec": "mp3", "bitrate_kbps": 16},
    {"codec": "mp3", "bitrate_kbps": 64},
    {"codec": "opus", "bitrate_kbps": 12},
    {"codec": "opus", "bitrate_kbps": 64},
    {"codec": "vorbis", "quality": 0.1},
    {"codec": "vorbis", "quality": 0.9},
    {"codec": "gsm"},
]


def speechlike(rate_hz: int) -> np.ndarray:
    """Pink noise in syllables: every codec has something to do, and any delay shows."""
    noise = coloured_noise(2 * rate_hz, rate_hz, colour="pink", random=random())
    syllables = 0.5 + 0.5 * np.sin(2 * np.pi * 4 * np.arange(2 * rate_hz) / rate_hz)
    return (0.3 * syllables * noise / np.abs(noise).max()).astype(np.float32)


@pytest.mark.parametrize("settings", CODECS, ids=lambda one: "-".join(map(str, one.values())))
@pytest.mark.parametrize("rate_hz", [8000, 16_000, 44_100])
def test_a_codec_changes_the_clip_but_neither_length_nor_timing(settings: dict[str, Any], rate_hz: int) -> None:
    clip = speechlike(rate_hz)
    if settings.get("bitrate_kbps") == 16 and rate_hz == 44_100:
        with pytest.raises(BadInput, match="mp3 at 44100 Hz takes bit rates above 32"):
            code(clip, rate_hz, **{"bitrate_kbps": None, "quality": None, **settings})
        return
    coded, clipped = code(clip, rate_hz, **{"bitrate_kbps": None, "quality": None, **settings})
    assert not clipped
    assert len(coded) == len(clip)
    assert coded.dtype == np.float32
    correlation = signal.correlate(coded.astype(float), clip.astype(float))
    assert abs(int(np.argmax(correlation)) - (len(clip) - 1)) <= rate_hz / 4000  # a quarter of a millisecond
    error_db = 20 * np.log10(rms(coded - clip) / rms(clip))
    assert -60 < error_db < 0


def test_more_bits_are_nearer_to_the_clip() -> None:
    clip = speechlike(RATE_HZ)

    def error(**settings: Any) -> float:
        return rms(code(clip, RATE_HZ, **{"bitrate_kbps": None, "quality": None, **settings})[0] - clip)

    for codec in ("mp3", "opus"):
        errors = [error(codec=codec, bitrate_kbps=kbps) for kbps in (16, 40, 96)]
        assert errors == sorted(errors, reverse=True)
        assert errors[2] < 0.7 * errors[0]
    assert error(codec="vorbis", quality=0.9) < error(codec="vorbis", quality=0.1)


@pytest.mark.parametrize(("codec", "kbps", "slack"), [("mp3", 24, 0.1), ("mp3", 64, 0.1), ("opus", 64, 0.2)])
def test_the_bit_rate_is_the_one_asked_for(
    codec: Any, kbps: float, slack: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    write = soundfile.write

    def recorder(stream: io.BytesIO, *args: Any, **kwargs: Any) -> None:
        write(stream, *args, **kwargs)
        sizes.append(stream.tell())

    monkeypatch.setattr(conditions.soundfile, "write", recorder)
    clip = np.tile(speechlike(RATE_HZ), 5)
    code(clip, RATE_HZ, codec=codec, bitrate_kbps=kbps, quality=None)
    assert sizes[0] * 8 / 1000 / (len(clip) / RATE_HZ) == pytest.approx(kbps, rel=slack)
