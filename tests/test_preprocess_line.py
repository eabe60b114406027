"""The telephone line: the numbers of ITU-T G.711, the filter's response, and an independent coder."""

import shutil
import subprocess
import warnings

import numpy as np
import pytest

from ser_scripts.audio.steps.line import (
    Law,
    band_pass,
    g711_decode,
    g711_encode,
    g711_levels,
    limit_band,
    telephone,
    to_length,
)

ALL = np.arange(256, dtype=np.uint8)
LAWS: list[Law] = ["mu_law", "a_law"]
UNITS = {"mu_law": 8192, "a_law": 4096}


def tone(frequency_hz: float, rate_hz: int, seconds: float = 1.0, amplitude: float = 0.5) -> np.ndarray:
    times = np.arange(round(seconds * rate_hz)) / rate_hz
    return (amplitude * np.sin(2 * np.pi * frequency_hz * times)).astype(np.float32)


def test_the_levels_are_those_of_the_recommendation() -> None:
    """Ends of the segments and the values there: tables 1a (A-law) and 2a (mu-law) of G.711."""
    decisions, values = g711_levels("mu_law")
    assert (len(decisions), len(values)) == (129, 128)
    assert list(decisions[:4]) == [0, 1, 3, 5]
    assert list(decisions[16::16]) == [31, 95, 223, 479, 991, 2015, 4063, 8159]
    assert list(values[:3]) == [0, 2, 4]
    assert list(values[[16, 32, 48, 64, 80, 96, 112, 127]]) == [33, 99, 231, 495, 1023, 2079, 4191, 8031]
    decisions, values = g711_levels("a_law")
    assert (len(decisions), len(values)) == (129, 128)
    assert list(decisions[:4]) == [0, 2, 4, 6]
    assert list(decisions[16::16]) == [32, 64, 128, 256, 512, 1024, 2048, 4096]
    assert list(values[[0, 1, 32, 48, 64, 80, 96, 112, 127]]) == [1, 3, 66, 132, 264, 528, 1056, 2112, 4032]


@pytest.mark.parametrize(
    ("law", "character", "value"),
    [
        ("mu_law", 0x80, 8031),
        ("mu_law", 0x00, -8031),
        ("mu_law", 0xFF, 0),
        ("mu_law", 0x7F, 0),
        ("mu_law", 0xFE, 2),
        ("mu_law", 0x8F, 4191),
        ("a_law", 0xAA, 4032),
        ("a_law", 0x2A, -4032),
        ("a_law", 0xD5, 1),
        ("a_law", 0x55, -1),
        ("a_law", 0xD4, 3),
        ("a_law", 0x95, 264),
    ],
)
def test_characters_in_the_order_of_transmission(law: Law, character: int, value: int) -> None:
    assert g711_decode(np.array([character], np.uint8), law)[0] * UNITS[law] == value


@pytest.mark.parametrize("law", LAWS)
def test_every_character_decodes_to_its_own_interval(law: Law) -> None:
    decoded = g711_decode(ALL, law)
    again = g711_encode(decoded, law)
    same = again == ALL
    if law == "mu_law":  # both characters of zero decode to zero, which is sent as the positive one
        assert not same[0x7F]
        same[0x7F] = True
    assert same.all()
    assert len(np.unique(decoded)) == 256 - (law == "mu_law")


@pytest.mark.parametrize("law", LAWS)
def test_encoding_follows_the_decision_values(law: Law) -> None:
    decisions, values = g711_levels(law)
    inner = decisions[1:-1]
    at, below = (g711_decode(g711_encode((x / UNITS[law]).astype(np.float32), law), law) for x in (inner, inner - 0.01))
    np.testing.assert_array_equal(at * UNITS[law], values[1:])
    np.testing.assert_array_equal(below * UNITS[law], values[:-1])
    beyond = g711_decode(g711_encode(np.array([1.5, -1.5], np.float32), law), law) * UNITS[law]
    np.testing.assert_array_equal(beyond, [values[-1], -values[-1]])


@pytest.mark.parametrize("law", LAWS)
def test_agrees_with_the_coder_of_ffmpeg(law: Law) -> None:
    """All 256 characters decode alike. Its encoder takes the nearest level, where the Recommendation has decision
    values: at the ends of segments the two differ by one level.
    """
    if shutil.which("ffmpeg") is None:
        pytest.skip("needs the program ffmpeg, as an independent coder")
    name = law.replace("_", "")
    line = ["ffmpeg", "-v", "error", "-ar", "8000", "-ac", "1"]
    pcm = np.arange(-32768, 32768).astype("<i2")
    decode = [*line, "-f", name, "-i", "-", "-f", "s16le", "-"]
    theirs = np.frombuffer(subprocess.run(decode, input=ALL.tobytes(), capture_output=True, check=True).stdout, "<i2")
    np.testing.assert_array_equal(g711_decode(ALL, law) * 32768, theirs)
    encode = [*line, "-f", "s16le", "-i", "-", "-c:a", f"pcm_{name}", "-f", name, "-"]
    coded = subprocess.run(encode, input=pcm.tobytes(), capture_output=True, check=True).stdout
    ours, decoded = g711_encode((pcm / 32768).astype(np.float32), law), np.unique(theirs)
    levels = [np.searchsorted(decoded, theirs[codes]) for codes in (np.frombuffer(coded, np.uint8), ours)]
    assert np.abs(levels[0] - levels[1]).max() == 1
    assert np.mean(levels[0] != levels[1]) < 0.015


@pytest.mark.parametrize("law", LAWS)
def test_agrees_with_the_coder_of_the_standard_library(law: Law) -> None:
    """Sun's coder, on all 16-bit values from 0 on (it shifts negative ones, which rounds them the other way)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        audioop = pytest.importorskip("audioop", reason="needs a Python before 3.13, as an independent coder")
    pcm = np.arange(32768).astype("<i2")
    theirs = {"mu_law": audioop.lin2ulaw, "a_law": audioop.lin2alaw}[law](pcm.tobytes(), 2)
    np.testing.assert_array_equal(g711_encode((pcm / 32768).astype(np.float32), law), np.frombuffer(theirs, np.uint8))


def response_db(frequency_hz: float, rate_hz: int = 16_000, **settings: object) -> float:
    """Level of a tone after the line, re its level before; the middle half, where nothing begins or ends."""
    options: dict[str, object] = {"low_hz": 300.0, "high_hz": 3400.0, "line_rate_hz": 8000, "codec": None} | settings
    before = tone(frequency_hz, rate_hz)
    after, _ = telephone(before, rate_hz, output_rate_hz=rate_hz, **options)  # type: ignore[arg-type]
    quarter = len(before) // 4
    powers = [np.mean(x[quarter : 3 * quarter].astype(float) ** 2) for x in (after, before)]
    return float(10 * np.log10(powers[0] / powers[1] + 1e-12))


@pytest.mark.parametrize("rate_hz", [8000, 16_000, 44_100])
def test_the_line_passes_speech_and_nothing_else(rate_hz: int) -> None:
    for frequency_hz in (400, 700, 1000, 2000, 3000, 3300):
        assert response_db(frequency_hz, rate_hz) == pytest.approx(0, abs=0.2)
    for frequency_hz in (50, 100, 200, 3500, 3900):
        assert response_db(frequency_hz, rate_hz) < -50
    for frequency_hz in (300, 3400):
        assert response_db(frequency_hz, rate_hz) == pytest.approx(-6, abs=0.2)
    if rate_hz > 8000:
        for frequency_hz in (4100, 5000, 7000):
            assert response_db(frequency_hz, rate_hz) < -50


def test_the_edges_and_the_rate_of_the_line_can_be_set() -> None:
    wide = {"low_hz": 50.0, "high_hz": 7000.0, "line_rate_hz": 16_000}
    assert response_db(6800, **wide) == pytest.approx(0, abs=0.2)
    assert response_db(200, **wide) == pytest.approx(0, abs=0.2)
    assert response_db(7200, **wide) < -50


def test_the_line_delays_nothing() -> None:
    clip = np.random.default_rng(0).standard_normal(16_000).astype(np.float32) * 0.1
    heard, _ = telephone(
        clip, 16_000, low_hz=300, high_hz=3400, line_rate_hz=8000, codec="mu_law", output_rate_hz=16_000
    )
    assert np.argmax(np.correlate(heard, clip, mode="full")) == len(clip) - 1


@pytest.mark.parametrize("law", LAWS)
def test_the_code_adds_noise_that_follows_the_level(law: Law) -> None:
    """G.711's signal-to-quantization ratio lies near 38 dB over a wide range of levels."""
    for level_db in (-3, -12, -24):
        clip = tone(1004, 8000, amplitude=10 ** (level_db / 20))
        error = g711_decode(g711_encode(clip, law), law) - clip
        ratio = 10 * np.log10(np.mean(clip.astype(float) ** 2) / np.mean(error.astype(float) ** 2))
        assert 34 < ratio < 42


def test_only_what_exceeds_full_scale_is_said_to_be_clipped() -> None:
    options = {"low_hz": 300.0, "high_hz": 3400.0, "line_rate_hz": 8000, "output_rate_hz": 8000}
    for amplitude, codec, clipped in [(0.9, "a_law", False), (1.2, "a_law", True), (1.2, None, False)]:
        clip = tone(1000, 8000, amplitude=amplitude)
        assert telephone(clip, 8000, codec=codec, **options)[1] is clipped  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [1, 2, 100, 146, 147, 148, 8000])
def test_clips_shorter_than_the_filter_keep_their_length(size: int) -> None:
    clip = np.ones(size, np.float32)
    assert band_pass(clip, 8000, low_hz=300, high_hz=3400).shape == (size,)


def test_a_lower_rate_takes_the_band_above_its_half() -> None:
    clip = tone(1000, 16_000) + tone(6000, 16_000)
    limited, rate_hz = limit_band(clip, 16_000, limit_hz=8000, back=True)
    assert (len(limited), rate_hz) == (16_000, 16_000)
    np.testing.assert_allclose(limited[4000:12_000], tone(1000, 16_000)[4000:12_000], atol=1e-3)
    low, rate_hz = limit_band(clip, 16_000, limit_hz=8000, back=False)
    assert (len(low), rate_hz) == (8000, 8000)
    odd, _ = limit_band(clip[:15_999], 16_000, limit_hz=11_025, back=True)
    assert len(odd) == 15_999


def test_lengths_are_cut_or_filled_at_the_end() -> None:
    clip = np.array([1, 2, 3], np.float32)
    assert to_length(clip, 2).tolist() == [1, 2]
    assert to_length(clip, 5).tolist() == [1, 2, 3, 0, 0]
