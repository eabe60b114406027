"""Trimming and fixed lengths: known signals, and what holds for every clip."""

from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ser_scripts.audio.steps.ends import fixed_length, trim_silence

RATE_HZ = 16_000


def tone(seconds: float, amplitude: float = 0.3) -> np.ndarray:
    return (amplitude * np.sin(2 * np.pi * 440 * np.arange(round(seconds * RATE_HZ)) / RATE_HZ)).astype(np.float32)


def silence(seconds: float, amplitude: float = 0.0) -> np.ndarray:
    noise = np.random.default_rng(1).standard_normal(round(seconds * RATE_HZ))
    return (amplitude * noise).astype(np.float32)


def trim(
    clip: np.ndarray,
    threshold_db: float = -40.0,
    relative_to: Literal["peak", "loudness"] = "peak",
    pad_seconds: float = 0.0,
    floor_dbfs: float = -80.0,
) -> np.ndarray | None:
    return trim_silence(
        clip,
        RATE_HZ,
        threshold_db=threshold_db,
        relative_to=relative_to,
        pad_seconds=pad_seconds,
        floor_dbfs=floor_dbfs,
    )


@pytest.mark.parametrize("relative_to", ["peak", "loudness"])
@pytest.mark.parametrize("background", [0.0, 3e-4])
def test_both_ends_go_to_within_a_frame_and_pauses_inside_stay(
    relative_to: Literal["peak", "loudness"], background: float
) -> None:
    clip = np.concatenate([silence(0.7), tone(0.5), silence(0.4), tone(0.5), silence(0.3)])
    clip = clip + silence(2.4, background)
    trimmed = trim(clip, relative_to=relative_to)
    assert trimmed is not None
    start = (trimmed.ctypes.data - clip.ctypes.data) / 4 / RATE_HZ  # a view, so that nothing inside is changed
    assert 0.68 <= start <= 0.70
    assert 2.1 <= start + len(trimmed) / RATE_HZ <= 2.12
    np.testing.assert_array_equal(trimmed, clip[round(start * RATE_HZ) :][: len(trimmed)])


def test_the_pad_is_left_where_the_clip_has_it() -> None:
    clip = np.concatenate([silence(0.5), tone(0.5), silence(0.02)])
    bare, padded = trim(clip), trim(clip, pad_seconds=0.1)
    assert bare is not None
    assert padded is not None
    assert len(padded) == pytest.approx(len(clip) - 0.4 * RATE_HZ, abs=0.021 * RATE_HZ)
    np.testing.assert_array_equal(padded[-320:], clip[-320:])  # all that is left at the end, and no more


def test_the_threshold_moves_with_the_clip_and_not_with_full_scale() -> None:
    clip = np.concatenate([silence(0.5, 1e-3), tone(0.5), silence(0.5, 1e-3)])
    lengths = {len(trimmed) for gain in (1.0, 0.1, 0.01) if (trimmed := trim(np.float32(gain) * clip)) is not None}
    assert len(lengths) == 1
    everything = trim(clip, threshold_db=-60)
    assert everything is not None
    assert len(everything) == len(clip)


def test_a_click_does_not_hold_an_end_open() -> None:
    clip = np.concatenate([silence(1), tone(0.5), silence(1)])
    clip[4000] = 0.3
    trimmed = trim(clip, threshold_db=-20)
    assert trimmed is not None
    assert len(trimmed) == pytest.approx(0.5 * RATE_HZ, abs=0.03 * RATE_HZ)


@pytest.mark.parametrize(
    "clip",
    [np.zeros(8000), np.zeros(0), silence(0.5, 1e-6), np.eye(1, 8000, 4000)[0]],
    ids=["zeros", "empty", "faint", "click"],
)
def test_nothing_loud_enough_is_said(clip: np.ndarray) -> None:
    assert trim(clip.astype(np.float32), threshold_db=-10) is None


@given(start=st.floats(0, 1), length=st.floats(0.05, 1), end=st.floats(0, 1), pad=st.floats(0, 0.5))
def test_what_is_loud_is_never_cut(start: float, length: float, end: float, pad: float) -> None:
    clip = np.concatenate([silence(start), tone(length), silence(end)])
    trimmed = trim(clip, pad_seconds=pad)
    assert trimmed is not None
    assert np.sum(trimmed.astype(np.float64) ** 2) >= 0.9999 * np.sum(clip.astype(np.float64) ** 2)


Keep = Literal["start", "centre", "end"]
Pad = Literal["zeros", "reflect", "none"]
Place = Literal["start", "centre"]


def fix(clip: list[float], size: int, keep: Keep = "start", pad: Pad = "zeros", place: Place = "start") -> list[float]:
    fixed = fixed_length(np.array(clip, np.float32), 10, seconds=size / 10, keep=keep, pad=pad, place=place)
    return [float(value) for value in fixed]


def test_longer_clips_are_cut_where_it_is_said() -> None:
    clip: list[float] = [1, 2, 3, 4, 5]
    assert fix(clip, 2) == [1, 2]
    assert fix(clip, 2, keep="centre") == [2, 3]
    assert fix(clip, 3, keep="centre") == [2, 3, 4]
    assert fix(clip, 2, keep="end") == [4, 5]
    assert fix(clip, 5, keep="centre") == clip


def test_shorter_clips_are_filled_where_it_is_said() -> None:
    assert fix([1, 2, 3], 6) == [1, 2, 3, 0, 0, 0]
    assert fix([1, 2, 3], 6, place="centre") == [0, 1, 2, 3, 0, 0]
    assert fix([1, 2, 3], 6, pad="none") == [1, 2, 3]
    assert fix([1, 2, 3], 6, pad="reflect") == [1, 2, 3, 2, 1, 2]
    assert fix([1, 2, 3], 6, pad="reflect", place="centre") == [2, 1, 2, 3, 2, 1]


def test_a_reflection_goes_on_and_on_in_clips_shorter_than_half() -> None:
    assert fix([1, 2], 7, pad="reflect") == [1, 2, 1, 2, 1, 2, 1]
    assert fix([1, 2, 3], 11, pad="reflect", place="centre") == [1, 2, 3, 2, 1, 2, 3, 2, 1, 2, 3]
    assert fix([4], 3, pad="reflect") == [4, 4, 4]


@given(
    count=st.integers(1, 40),
    size=st.integers(1, 200),
    keep=st.sampled_from(["start", "centre", "end"]),
    pad=st.sampled_from(["zeros", "reflect"]),
    place=st.sampled_from(["start", "centre"]),
)
def test_the_length_is_met_and_the_clip_is_inside(count: int, size: int, keep: Keep, pad: Pad, place: Place) -> None:
    clip = np.arange(1, count + 1, dtype=np.float32)
    fixed = fixed_length(clip, 10, seconds=size / 10, keep=keep, pad=pad, place=place)
    assert len(fixed) == size
    whole, part = (fixed, clip) if size >= count else (clip, fixed)
    before = (size - count) // 2 if place == "centre" else 0
    where = before if size >= count else {"start": 0, "centre": (count - size) // 2, "end": count - size}[keep]
    np.testing.assert_array_equal(whole[where : where + len(part)], part)
    if size > count and pad == "reflect":
        np.testing.assert_array_equal(fixed, np.pad(clip, (before, size - count - before), mode="reflect"))
