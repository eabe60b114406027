"""Loudness: golden numbers of BS.1770, and the cases it leaves open."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ser_scripts.audio.preprocess import apply_chain, loudness_lufs, to_loudness
from ser_scripts.errors import BadInput
from ser_scripts.specs.preprocess import Loudness


def tone(seconds: float, rate_hz: int = 48_000, amplitude: float = 1.0, frequency_hz: float = 997) -> np.ndarray:
    times = np.arange(round(seconds * rate_hz)) / rate_hz
    return (amplitude * np.sin(2 * np.pi * frequency_hz * times)).astype(np.float32)


def test_a_full_scale_tone_has_minus_three_lufs() -> None:
    """ITU-R BS.1770-4, annex 1: a 0 dBFS, 997 Hz sine in one channel reads -3.01 LKFS."""
    assert loudness_lufs(tone(5), 48_000) == pytest.approx(-3.01, abs=0.05)


def test_k_weighting_hears_treble_louder_and_bass_softer() -> None:
    middle = loudness_lufs(tone(3), 48_000)
    assert loudness_lufs(tone(3, frequency_hz=8000), 48_000) == pytest.approx(middle + 3.3, abs=0.3)
    assert loudness_lufs(tone(3, frequency_hz=30), 48_000) < middle - 6


def test_pauses_do_not_count() -> None:
    """The relative gate: blocks 10 LU below the mean of all are left out."""
    loud = tone(6, amplitude=0.1)
    quiet = tone(6, amplitude=0.1 * 10 ** (-20 / 20))
    assert loudness_lufs(np.concatenate([quiet, loud, quiet]), 48_000) == pytest.approx(
        loudness_lufs(loud, 48_000), abs=0.3
    )


@given(
    seconds=st.floats(0.02, 2),
    amplitude_db=st.floats(-100, 6),
    rate_hz=st.sampled_from([8000, 12_000, 16_000, 44_100]),
    lufs=st.floats(-60, -5),
)
def test_the_target_is_met_whatever_length_and_level(
    seconds: float, amplitude_db: float, rate_hz: int, lufs: float
) -> None:
    generator = np.random.default_rng(1)
    noise = generator.standard_normal(round(seconds * rate_hz)) * 10 ** (amplitude_db / 20)
    louder = to_loudness(noise.astype(np.float32), rate_hz, lufs=lufs)
    assert louder.dtype == np.float32
    assert loudness_lufs(louder, rate_hz) == pytest.approx(lufs, abs=0.1)


def test_a_short_clip_is_measured_as_one_block() -> None:
    assert loudness_lufs(tone(0.2), 48_000) == pytest.approx(-3.01, abs=0.2)
    assert loudness_lufs(tone(0.399), 48_000) == pytest.approx(loudness_lufs(tone(0.401), 48_000), abs=0.05)


def test_a_clip_below_the_absolute_gate_is_still_measured() -> None:
    assert loudness_lufs(tone(1, amplitude=1e-4), 48_000) == pytest.approx(-83.01, abs=0.05)


def test_peaks_are_not_clipped() -> None:
    click = 1e-3 * tone(1)
    click[1000] = 0.9
    assert np.abs(to_loudness(click, 48_000, lufs=-10)).max() > 1


@pytest.mark.parametrize("bad", [np.zeros(16_000), np.zeros(0), np.full(16_000, np.nan), np.full(16_000, np.inf)])
def test_what_has_no_loudness_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(BadInput, match="no loudness"):
        to_loudness(bad.astype(np.float32), 16_000, lufs=-23)


def test_the_chain_applies_its_steps_in_order_and_leaves_its_input() -> None:
    clip = tone(1, amplitude=0.2)
    before = clip.copy()
    assert apply_chain(clip, 48_000, []) is clip
    steps = [Loudness(kind="loudness", lufs=-40), Loudness(kind="loudness")]
    assert loudness_lufs(apply_chain(clip, 48_000, steps), 48_000) == pytest.approx(-23, abs=0.01)
    np.testing.assert_array_equal(clip, before)
