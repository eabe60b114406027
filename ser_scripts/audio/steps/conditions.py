"""Test conditions: noise, rooms and codecs. What is drawn is a function of seed, clip and place in the chain alone."""

from __future__ import annotations

import functools
import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import soundfile
from scipy import fft, signal

from ser_scripts.audio import decode
from ser_scripts.audio.decode import Samples
from ser_scripts.audio.steps.level import rms
from ser_scripts.audio.steps.line import to_length
from ser_scripts.errors import BadInput

Colour = Literal["white", "pink", "brown", "speech_shaped"]

LOWEST_HZ = 20.0
"""Below, pink and brown noise are flat: their power would be infinite at 0 Hz."""
LTASS_HZ = (
    63, 80, 100, 125, 160, 200, 250, 315, 400, 500, 630, 800, 1000, 1250, 1600, 2000, 2500, 3150, 4000, 5000, 6300,
    8000, 10_000, 12_500, 16_000,
)  # fmt: skip
LTASS_DB = (
    38.6, 43.5, 54.4, 57.7, 56.8, 60.2, 60.3, 59.0, 62.1, 62.1, 60.5, 56.8, 53.7, 53.0, 52.0, 48.7, 48.1, 46.8, 45.6,
    44.5, 44.3, 43.7, 43.4, 41.3, 40.7,
)  # fmt: skip
"""Long-term average speech spectrum in third octaves, women and men of 13 languages at 70 dB SPL in all (Byrne et al.,
"An international comparison of long-term average speech spectra", JASA 96, 1994)."""
MP3_DELAY = 1105
"""Samples: 576 of the encoder LAME and 529 of every decoder, where the file's header does not state them."""
MP3_RATES_HZ = (8000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
OPUS_RATES_HZ = (8000, 12_000, 16_000, 24_000, 48_000)
GSM_RATE_HZ = 8000


def generator(seed: int, clip_key: str, step: int) -> np.random.Generator:
    """The random numbers of one step for one clip.

    Args:
        seed: the step's
        clip_key: `<corpus>/<path>`
        step: place in the chain, from 0
    """
    text = json.dumps([seed, clip_key, step])
    return np.random.Generator(np.random.PCG64(int.from_bytes(hashlib.sha256(text.encode()).digest(), "big")))


def add_noise(mono: Samples, noise: Samples, *, snr_db: float) -> Samples:
    """Add noise of the same length at a signal-to-noise ratio (powers over the whole clip).

    Raises:
        BadInput: if one of them is silent
    """
    clip_level, noise_level = rms(mono), rms(noise)
    if clip_level == 0 or noise_level == 0:
        raise BadInput(f"a signal-to-noise ratio is not defined: the {'noise' if clip_level else 'clip'} is silent")
    return mono + noise * np.float32(clip_level / noise_level / 10 ** (snr_db / 20))


def coloured_noise(size: int, rate_hz: int, *, colour: Colour, random: np.random.Generator) -> Samples:
    """Gaussian noise of shape (size,) whose power falls with frequency as its colour says; its level means nothing."""
    fast = fft.next_fast_len(size, real=True)  # a long prime number would take ten times as long
    spectrum = fft.rfft(random.standard_normal(fast))
    frequencies = fft.rfftfreq(fast, 1 / rate_hz)
    if colour == "speech_shaped":
        # a third octave grows with frequency, so its level stands 10 log10(f) above that of one hertz
        per_hz = np.array(LTASS_DB) - 10 * np.log10(np.array(LTASS_HZ))
        shape = 10 ** (np.interp(np.log(np.maximum(frequencies, 1)), np.log(LTASS_HZ), per_hz) / 20)
    else:
        slope = {"white": 0.0, "pink": 0.5, "brown": 1.0}[colour]
        shape = np.maximum(frequencies, LOWEST_HZ) ** -slope
    shape[0] = 0  # no mean
    return np.asarray(fft.irfft(spectrum * shape, fast)[:size], dtype=np.float32)


def recorded_noise(size: int, rate_hz: int, *, files: Sequence[Path], random: np.random.Generator) -> Samples:
    """A part of a drawn file from a drawn place on, repeated if it is too short: (size,).

    Raises:
        BadInput: if the file cannot be read, or holds no sound
    """
    file = files[int(random.integers(len(files)))]
    noise = _read(file, rate_hz)
    start = int(random.integers(len(noise)))
    part = np.take(noise, np.arange(start, start + size), mode="wrap")
    if not np.any(part):
        raise BadInput(f"{file} is silent for {size / rate_hz:.1f} s from {start / rate_hz:.1f} s on")
    return part


def synthetic_response(
    rate_hz: int, *, rt60_seconds: float, direct_to_reverberant_db: float, random: np.random.Generator
) -> Samples:
    """An impulse response: a direct path of 1, then Gaussian noise that falls by 60 dB in `rt60_seconds`.

    Follows Polack's model of a diffuse room (J.-D. Polack, "Playing billiards in the concert hall", Applied Acoustics
    38, 1993): no early reflections, one decay time for all frequencies. It lasts `rt60_seconds`.
    """
    times = np.arange(1, max(2, round(rt60_seconds * rate_hz))) / rate_hz
    tail = random.standard_normal(len(times)) * 10 ** (-3 * times / rt60_seconds)
    tail *= 10 ** (-direct_to_reverberant_db / 20) / np.sqrt(np.sum(tail**2))
    return np.concatenate([[1.0], tail]).astype(np.float32)


def recorded_response(rate_hz: int, *, files: Sequence[Path], random: np.random.Generator) -> Samples:
    """A drawn impulse response from its strongest sample on, so that the clip is not delayed."""
    response = _read(files[int(random.integers(len(files)))], rate_hz)
    return response[int(np.argmax(np.abs(response))) :]


def reverberate(mono: Samples, response: Samples) -> Samples:
    """Convolve a clip with an impulse response; length and root mean square stay those of the clip.

    Raises:
        BadInput: if the result is silent
    """
    wet = signal.fftconvolve(mono.astype(np.float64), response.astype(np.float64))[: len(mono)]
    level = float(np.sqrt(np.mean(wet**2)))
    if level == 0:
        raise BadInput("clip or impulse response is silent")
    return (wet * (rms(mono) / level)).astype(np.float32)


def code(
    mono: Samples,
    rate_hz: int,
    *,
    codec: Literal["mp3", "opus", "vorbis", "gsm"],
    bitrate_kbps: float | None,
    quality: float | None,
) -> tuple[Samples, bool]:
    """Encode and decode a clip in memory, at the lowest rate of the codec that is not below the clip's.

    GSM 06.10 always works at 8 kHz. What exceeds full scale is clipped. Delay is taken out; the length stays.

    Args:
        mono: (samples,)
        rate_hz: its rate
        codec: what libsndfile writes
        bitrate_kbps: of mp3 and opus
        quality: of vorbis

    Returns:
        (samples,) and whether a sample was clipped

    Raises:
        BadInput: if the codec does not know the bit rate at this rate
    """
    rates = {"mp3": MP3_RATES_HZ, "opus": OPUS_RATES_HZ, "vorbis": (rate_hz,), "gsm": (GSM_RATE_HZ,)}[codec]
    coded_hz = min((rate for rate in rates if rate >= rate_hz), default=rates[-1])
    plain = decode.resample(mono, rate_hz, coded_hz)
    clipped = bool(np.max(np.abs(plain), initial=0.0) > 1)
    container, subtype = {
        "mp3": ("MP3", "MPEG_LAYER_III"),
        "opus": ("OGG", "OPUS"),
        "vorbis": ("OGG", "VORBIS"),
        "gsm": ("WAV", "GSM610"),
    }[codec]
    options: dict[str, object] = {}
    if codec == "mp3":
        assert bitrate_kbps is not None
        # libsndfile maps the level to CBR between these bit rates (MPEG 2.5, 2 and 1)
        low, high = (8, 64) if coded_hz < 16_000 else (8, 160) if coded_hz < 32_000 else (32, 320)
        if not low < bitrate_kbps <= high:
            raise BadInput(
                f"codec: mp3 at {coded_hz} Hz takes bit rates above {low} and up to {high} kbit/s, not {bitrate_kbps:g}"
            )
        options = {"bitrate_mode": "CONSTANT", "compression_level": (high - bitrate_kbps) / (high - low)}
    elif codec == "opus":
        assert bitrate_kbps is not None
        options = {"compression_level": (256 - bitrate_kbps) / 250}
    elif codec == "vorbis":
        assert quality is not None
        options = {"compression_level": 1 - quality}
    stream = io.BytesIO()
    try:
        soundfile.write(stream, np.clip(plain, -1, 1), coded_hz, format=container, subtype=subtype, **options)
        stream.seek(0)
        coded = soundfile.read(stream, dtype="float32")[0]
    except soundfile.LibsndfileError as error:
        raise BadInput(f"codec: libsndfile cannot write {codec} at {coded_hz} Hz: {error.error_string}") from None
    if codec == "mp3" and len(coded) != len(plain):  # small frames have no room for the header with the delay
        coded = coded[MP3_DELAY:]
    return to_length(decode.resample(to_length(coded, len(plain)), coded_hz, rate_hz), len(mono)), clipped


def _read(file: Path, rate_hz: int) -> Samples:
    """A sound file as mono at `rate_hz`; kept as long as the file does not change."""
    state = file.stat()
    return _read_once(file, rate_hz, state.st_mtime_ns, state.st_size)


@functools.lru_cache(maxsize=16)
def _read_once(file: Path, rate_hz: int, _mtime_ns: int, _size: int) -> Samples:
    samples, file_rate_hz = decode.read(file)
    mono = decode.resample(decode.to_mono(samples), file_rate_hz, rate_hz)
    if not np.isfinite(mono).all() or not np.any(mono):
        raise BadInput(f"{file} is silent or not finite")
    mono.setflags(write=False)
    return mono
