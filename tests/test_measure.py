"""What the samples tell: known signals have known shares, and what a measure must not depend on, it does not."""

from pathlib import Path

import numpy as np
import pytest
import soxr
from hypothesis import given
from hypothesis import strategies as st

from ser_scripts.audio import decode, measure
from ser_scripts.audio.measure import bandwidth_hz, clipped_share, silence_share

RATE_HZ = 16_000


def sine(frequency_hz: float, seconds: float = 1.0, rate_hz: int = RATE_HZ, amplitude: float = 0.5) -> np.ndarray:
    return (amplitude * np.sin(2 * np.pi * frequency_hz * np.arange(round(seconds * rate_hz)) / rate_hz)).astype(
        np.float32
    )


def white(seconds: float = 1.0, rate_hz: int = RATE_HZ) -> np.ndarray:
    return (0.1 * np.random.default_rng(0).standard_normal(round(seconds * rate_hz))).astype(np.float32)


def test_flat_tops_at_full_scale_are_clipped_and_nothing_else_is() -> None:
    quiet = np.zeros(100, np.float32)
    quiet[10:13], quiet[20:22], quiet[30], quiet[40:45] = 1.0, 1.0, 1.0, -1.0
    assert clipped_share(quiet[None]) == pytest.approx((3 + 5) / 100)  # two at the top are no flat top
    assert clipped_share(np.stack([quiet, np.zeros_like(quiet)])) == pytest.approx(8 / 200)
    assert clipped_share(0.85 * quiet[None]) == 0.0  # a flat top far below full scale is a square wave, say
    assert clipped_share(np.zeros((1, 0), np.float32)) == 0.0
    assert clipped_share(0.99 * sine(1, amplitude=1.0)[None]) < 0.01


@given(gain=st.floats(1.2, 20))
def test_the_clipped_share_of_a_sine_is_that_of_its_arc(gain: float) -> None:
    loud = np.clip(gain * sine(10, amplitude=1.0), -1, 1)
    assert clipped_share(loud[None]) == pytest.approx(1 - 2 / np.pi * np.arcsin(1 / gain), abs=0.01)


@pytest.mark.parametrize("rate_hz", [8000, 16_000, 44_100])
def test_half_silence_is_half(rate_hz: int) -> None:
    clip = np.concatenate([sine(300, 0.5, rate_hz), np.zeros(rate_hz // 2, np.float32)])
    assert silence_share(clip, rate_hz) == pytest.approx(0.5, abs=0.011)


def test_silence_begins_thirty_decibels_below_the_loudest_frame() -> None:
    for level_db, share in ((-29, 0.0), (-31, 0.5)):
        clip = np.concatenate([sine(300, 0.5), sine(300, 0.5) * 10 ** (level_db / 20)]).astype(np.float32)
        assert silence_share(clip, RATE_HZ) == pytest.approx(share, abs=1e-9)
    assert silence_share(sine(300) * np.float32(1e-4), RATE_HZ) == 1.0  # -89 dBFS


@given(gain_db=st.floats(-40, 0), offset=st.floats(-0.2, 0.2))
def test_neither_level_nor_offset_change_the_silence(gain_db: float, offset: float) -> None:
    clip = np.concatenate([white(0.5), 0.001 * white(0.5)])
    changed = (clip * 10 ** (gain_db / 20) + offset).astype(np.float32)
    assert silence_share(changed, RATE_HZ) == silence_share(clip, RATE_HZ)


@pytest.mark.parametrize(("source_hz", "rate_hz"), [(8000, 16_000), (11_025, 16_000), (11_025, 48_000)])
def test_the_bandwidth_is_that_of_the_audio_and_not_of_the_file(source_hz: int, rate_hz: int) -> None:
    upsampled = soxr.resample(white(1.0, source_hz), source_hz, rate_hz).astype(np.float32)
    assert bandwidth_hz(upsampled, rate_hz) == pytest.approx(source_hz / 2, abs=200)
    assert bandwidth_hz(white(1.0, rate_hz), rate_hz) == rate_hz / 2


@given(gain_db=st.floats(-60, 0), offset=st.floats(-0.2, 0.2), seconds=st.floats(0.005, 5))
def test_the_bandwidth_depends_neither_on_level_nor_on_length_nor_on_an_offset(
    gain_db: float, offset: float, seconds: float
) -> None:
    tone = sine(3000, seconds) * np.float32(10 ** (gain_db / 20)) + np.float32(offset)
    found = bandwidth_hz(tone.astype(np.float32), RATE_HZ)
    assert found == pytest.approx(3000, abs=400 if seconds > 0.1 else 5000)


def test_blocks_do_not_change_the_bandwidth(monkeypatch: pytest.MonkeyPatch) -> None:
    clip = soxr.resample(white(3.0, 11_025), 11_025, RATE_HZ).astype(np.float32)
    whole = bandwidth_hz(clip, RATE_HZ)
    monkeypatch.setattr(measure, "_BLOCK_FRAMES", 7)
    assert bandwidth_hz(clip, RATE_HZ) == whole
    assert bandwidth_hz(np.zeros(RATE_HZ, np.float32), RATE_HZ) == 0.0


@pytest.mark.real
def test_cremad_made_from_11025_hz_ends_at_five_and_a_half_kilohertz_and_emodb_does_not(ser_data: Path) -> None:
    medians = []
    for pattern in ("cremad/AudioWAV/*.opus", "emodb/wav/*.flac"):
        files = sorted(ser_data.glob(pattern))
        files = files[:: max(1, len(files) // 60)]
        found = [decode.read(file) for file in files]
        medians.append(np.median([bandwidth_hz(decode.to_mono(samples), rate) for samples, rate in found]))
    assert medians[0] == pytest.approx(5400, abs=150)
    assert medians[1] == pytest.approx(8000, abs=50)
