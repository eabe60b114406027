"""A small formant synthesiser: phonemes and a way of delivering them in, speech-like audio out.

Source and filter after Klatt & Klatt (1990), "Analysis, synthesis, and perception of voice quality variations among
female and male talkers", JASA 87(2), 820-857: a polynomial glottal pulse (open quotient, spectral tilt, jitter,
shimmer, aspiration noise) excites a cascade of second-order resonators whose frequencies glide between the targets of
the phonemes; fricatives and bursts are filtered noise beside the cascade.

scipy.signal is imported inside functions: it takes half a second, and every listing of corpora loads this module.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE_HZ = 16_000
_HOP = 80
"""Samples between two updates of the vocal tract (5 ms)."""

Samples = NDArray[np.float64]


@dataclass(frozen=True)
class Voice:
    """What stays the same in all clips of a speaker."""

    pitch_hz: float
    tract_scale: float
    """Formant frequencies relative to an average man; larger for a shorter vocal tract."""
    open_quotient: float
    """Part of the glottal cycle during which the glottis is open, in (0, 1)."""
    noise_dbfs: float
    """RMS of the recording noise."""


@dataclass(frozen=True)
class Delivery:
    """How one clip is spoken. Each value is additive, so that deliveries can be mixed and perturbed."""

    pitch_st: float
    """Mean pitch relative to the voice, in semitones."""
    range_st: float
    """Height of the pitch accents, in semitones."""
    contour_st: float
    """Pitch at the end minus pitch at the start, in semitones; accents come on top."""
    rate_log2: float
    """Speech rate: +1 is twice as fast."""
    level_dbfs: float
    """RMS of the clip without its noise."""
    level_sd_db: float
    """Standard deviation of the level between syllables."""
    tilt_db: float
    """Attenuation of the voice at 3 kHz; small is a bright voice, with much high-frequency energy."""
    jitter_log2: float
    """Displacement of the glottal closures: 0 is 0.4 % of a cycle, each +1 doubles it; shimmer goes along."""
    breath_db: float
    """Aspiration noise relative to the voice."""
    tract_percent: float
    """Shift of the formants: positive for spread lips, negative for a lowered larynx."""
    onset_ms: float
    """Rise and fall time of the voice."""
    pause_ms: float
    """Silence between two words, on average."""


@dataclass(frozen=True)
class _Phoneme:
    formants_hz: tuple[float, float, float]
    seconds: float
    voice: float
    """Amplitude of the voice: 1 in vowels, 0 in silence."""
    noise: float = 0.0
    noise_hz: float = 0.0
    burst_seconds: float = 0.0
    """0 for noise throughout; else the phoneme is a stop, whose noise comes only at its end."""


PHONEMES = {
    "a": _Phoneme((750, 1300, 2500), 0.112, 1.0),
    "e": _Phoneme((450, 1850, 2550), 0.104, 1.0),
    "i": _Phoneme((290, 2250, 2950), 0.096, 1.0),
    "o": _Phoneme((480, 900, 2450), 0.106, 1.0),
    "u": _Phoneme((310, 760, 2300), 0.096, 1.0),
    "m": _Phoneme((270, 1000, 2150), 0.068, 0.35),
    "n": _Phoneme((270, 1500, 2500), 0.062, 0.35),
    "l": _Phoneme((340, 1200, 2700), 0.060, 0.50),
    "r": _Phoneme((420, 1350, 2000), 0.034, 0.25),
    "p": _Phoneme((300, 800, 2200), 0.085, 0.0, 0.10, 900, 0.012),
    "t": _Phoneme((300, 1750, 2650), 0.085, 0.0, 0.16, 4200, 0.016),
    "k": _Phoneme((300, 1900, 2200), 0.090, 0.0, 0.16, 1900, 0.022),
    "b": _Phoneme((250, 800, 2200), 0.070, 0.10, 0.05, 900, 0.008),
    "d": _Phoneme((250, 1700, 2600), 0.065, 0.10, 0.06, 3800, 0.010),
    "g": _Phoneme((250, 1900, 2200), 0.068, 0.10, 0.06, 1900, 0.012),
    "s": _Phoneme((320, 1700, 2600), 0.100, 0.0, 0.13, 5600),
    "f": _Phoneme((320, 1100, 2300), 0.090, 0.0, 0.06, 6400),
    "v": _Phoneme((280, 1100, 2300), 0.062, 0.30, 0.03, 6000),
}
VOWELS = "aeiou"
_SILENCE = _Phoneme((500, 1500, 2500), 0.0, 0.0)
_BANDWIDTHS_HZ = (70.0, 100.0, 150.0)
_FIXED_FORMANTS_HZ = ((3500.0, 220.0), (4500.0, 280.0), (5500.0, 340.0))
"""The same for all phonemes. No more of them: beside half the sample rate a digital resonator is far too strong."""
_HIGHEST_NOISE_HZ = 7500.0
_EDGE_SECONDS = 0.06
"""Silence before and after the words; a clip draws 0.5 to 1.5 times as much."""
_LOWEST_PITCH_HZ, _HIGHEST_PITCH_HZ = 60.0, 600.0
_MOST_JITTER = 0.03
_PEAK = 0.95


def synthesise(words: str, voice: Voice, delivery: Delivery, rng: np.random.Generator) -> NDArray[np.int16]:
    """Speak a string of words made of `PHONEMES`, stressed on the last vowel but one.

    Returns:
        PCM of shape (samples,) at `SAMPLE_RATE_HZ`; the same for the same arguments and state of `rng`
    """
    segments, seconds, stress = _lay_out(words, delivery, rng)
    hops = np.maximum(1, np.rint(seconds * SAMPLE_RATE_HZ / _HOP)).astype(int)
    owner = np.repeat(np.arange(len(segments)), hops)  # (frames,): the segment of each frame
    gain_db = delivery.level_sd_db * rng.standard_normal(len(segments))
    amplitude = np.array([segment.voice for segment in segments]) * 10 ** (gain_db / 20)
    amplitude = _smooth(amplitude[owner], max(delivery.onset_ms, 5.0) / 1000)
    scale = voice.tract_scale * (1 + delivery.tract_percent / 100)
    targets_hz = np.array([segment.formants_hz for segment in segments])[owner] * scale
    formants_hz = np.stack([_smooth(track, 0.05) for track in targets_hz.T], axis=1)  # (frames, 3)
    pitch_hz = _pitch(owner, stress, voice, delivery, rng)

    clip = _vocal_tract(_glottis(amplitude, pitch_hz, voice, delivery, rng), formants_hz, scale)
    _add_noise(clip, segments, hops, scale, rng)
    rms = float(np.sqrt(np.mean(clip**2)))
    clip *= 10 ** (delivery.level_dbfs / 20) / rms
    clip += 10 ** (voice.noise_dbfs / 20) * rng.standard_normal(len(clip))
    clip *= min(1.0, _PEAK / float(np.abs(clip).max()))
    return np.rint(clip * 32767).astype(np.int16)


def _lay_out(words: str, delivery: Delivery, rng: np.random.Generator) -> tuple[list[_Phoneme], Samples, Samples]:
    """The phonemes with their pauses: segments, durations in seconds, and 1 where a vowel is stressed."""
    edges = _EDGE_SECONDS * rng.uniform(0.5, 1.5, 2)
    segments, seconds, stress = [_SILENCE], [float(edges[0])], [0.0]
    for position, word in enumerate(words.split()):
        if position:
            pause = max(delivery.pause_ms, 0.0) / 1000 * rng.uniform(0.0, 2.0)
            if pause > 0.015:
                segments.append(_SILENCE)
                seconds.append(pause)
                stress.append(0.0)
        vowels = [index for index, letter in enumerate(word) if letter in VOWELS]
        for index, letter in enumerate(word):
            stressed = len(vowels) > 1 and index == vowels[-2]
            segments.append(PHONEMES[letter])
            seconds.append(PHONEMES[letter].seconds * (1.3 if stressed else 1.0) * rng.uniform(0.88, 1.12))
            stress.append(float(stressed))
    seconds[-1] *= 1.35  # final lengthening
    spoken = np.array(seconds) / 2**delivery.rate_log2
    spoken[0] = seconds[0]
    return [*segments, _SILENCE], np.append(spoken, edges[1]), np.append(np.array(stress), 0.0)


def _smooth(track: Samples, seconds: float) -> Samples:
    """Glide instead of jump: a Hann window of the given length over a track of one value per frame."""
    length = 2 * round(seconds * SAMPLE_RATE_HZ / _HOP / 2) + 1
    window = np.hanning(length + 2)[1:-1]
    padded = np.pad(track, length // 2, mode="edge")
    smooth: Samples = np.convolve(padded, window / window.sum(), mode="valid")
    return smooth


def _pitch(
    owner: NDArray[np.int64], stress: Samples, voice: Voice, delivery: Delivery, rng: np.random.Generator
) -> Samples:
    """Pitch in Hz of each frame: a trend over the clip, an accent on each stressed vowel, and a slow wander."""
    heights = stress * rng.uniform(0.6, 1.4, len(stress))
    accents = _smooth(heights[owner], 0.18)
    wander = _smooth(rng.standard_normal(len(owner)), 0.15) * 1.2
    trend = np.linspace(-0.5, 0.5, len(owner)) * delivery.contour_st
    accent_st = max(delivery.range_st, 0.0) * (accents - accents.mean())
    semitones = delivery.pitch_st + trend + accent_st + wander
    pitch_hz: Samples = voice.pitch_hz * 2 ** (semitones / 12)
    return pitch_hz.clip(_LOWEST_PITCH_HZ, _HIGHEST_PITCH_HZ)


def _glottis(
    amplitude: Samples, pitch_hz: Samples, voice: Voice, delivery: Delivery, rng: np.random.Generator
) -> Samples:
    """The derivative of the glottal flow (radiation included) with aspiration noise, one value per sample."""
    frames = np.arange(len(pitch_hz)) * _HOP + _HOP / 2
    time = np.arange(len(pitch_hz) * _HOP)
    step = np.interp(time, frames, pitch_hz) / SAMPLE_RATE_HZ
    loudness = np.interp(time, frames, amplitude)
    phase = np.cumsum(step)
    cycles = int(phase[-1]) + 2
    jitter = min(0.004 * 2**delivery.jitter_log2, _MOST_JITTER)
    phase += np.interp(phase, np.arange(cycles), np.clip(jitter * rng.standard_normal(cycles), -0.1, 0.1))
    step = np.gradient(phase)
    cycle = np.clip(phase.astype(int), 0, cycles - 1)
    phase -= np.floor(phase)
    shimmer = np.exp(10 * jitter * rng.standard_normal(cycles))[cycle]

    opening = phase / voice.open_quotient
    pulse = np.where(opening < 1, 2 * opening - 3 * opening**2, 0.0)
    # The flow stops at once when the glottis closes; rounding that step (PolyBLEP) keeps its aliases out of the speech.
    late = (phase - voice.open_quotient) / step
    pulse += np.where((late >= -1) & (late < 0), (late + 1) ** 2 / 2, 0.0)
    pulse -= np.where((late >= 0) & (late < 1), (1 - late) ** 2 / 2, 0.0)
    breath = 10 ** (delivery.breath_db / 20) * rng.standard_normal(len(time)) * np.where(opening < 1, 1.0, 0.4)
    return loudness * (_tilt(shimmer * pulse, delivery.tilt_db) + breath)


def _tilt(signal: Samples, tilt_db: float) -> Samples:
    """One-pole low-pass with the given attenuation at 3 kHz and none at 0 Hz."""
    from scipy.signal import lfilter

    power = 10 ** (-min(max(tilt_db, 0.5), 30.0) / 10)
    half = (1 - power * np.cos(2 * np.pi * 3000 / SAMPLE_RATE_HZ)) / (1 - power)
    pole = half - np.sqrt(half**2 - 1)
    return np.asarray(lfilter([1 - pole], [1.0, -pole], signal))


def _resonator(frequency_hz: Samples, bandwidth_hz: float | Samples) -> tuple[Samples, Samples]:
    """Feedback coefficients a1, a2 of second-order resonators; b0 = 1 + a1 + a2 makes the gain at 0 Hz one."""
    radius = np.exp(-np.pi * np.asarray(bandwidth_hz) / SAMPLE_RATE_HZ)
    return -2 * radius * np.cos(2 * np.pi * frequency_hz / SAMPLE_RATE_HZ), radius**2 + 0 * frequency_hz


def _vocal_tract(source: Samples, formants_hz: Samples, scale: float) -> Samples:
    """Filter the source by three gliding formants, updated each frame, and the fixed ones above them."""
    from scipy.signal import lfilter

    signal = source
    for formant, bandwidth_hz in enumerate(_BANDWIDTHS_HZ):
        a1s, a2s = _resonator(formants_hz[:, formant], bandwidth_hz)
        gains = 1 + a1s + a2s
        output = np.empty_like(signal)
        last, before = 0.0, 0.0
        for frame, (gain, a1, a2) in enumerate(zip(gains.tolist(), a1s.tolist(), a2s.tolist(), strict=True)):
            part = slice(frame * _HOP, (frame + 1) * _HOP)
            # The memory is the last two outputs, not the filter's state: that would hold the old coefficients.
            state = np.array([-a1 * last - a2 * before, -a2 * last])
            output[part], _ = lfilter([gain], [1.0, a1, a2], signal[part], zi=state)
            before, last = output[part][-2:].tolist()
        signal = output
    for frequency_hz, bandwidth_hz in _FIXED_FORMANTS_HZ:
        signal = _resonate(signal, min(frequency_hz * scale, _HIGHEST_NOISE_HZ), bandwidth_hz)
    return signal


def _resonate(signal: Samples, frequency_hz: float, bandwidth_hz: float) -> Samples:
    from scipy.signal import lfilter

    a1, a2 = (float(value) for value in _resonator(np.array(frequency_hz), bandwidth_hz))
    return np.asarray(lfilter([1 + a1 + a2], [1.0, a1, a2], signal))


def _add_noise(
    clip: Samples, segments: list[_Phoneme], hops: NDArray[np.int64], scale: float, rng: np.random.Generator
) -> None:
    """Add the noise of fricatives and bursts, in place, at the level that `_Phoneme.noise` sets beside the voice."""
    ends = np.cumsum(hops) * _HOP
    level = float(np.sqrt(np.mean(clip**2)))
    for segment, hop, end in zip(segments, hops, ends, strict=True):
        if segment.noise:
            length = round(segment.burst_seconds * SAMPLE_RATE_HZ) or int(hop) * _HOP
            frequency_hz = min(segment.noise_hz * scale**0.5, _HIGHEST_NOISE_HZ)
            noise = _resonate(rng.standard_normal(length), frequency_hz, 0.3 * segment.noise_hz)
            noise *= np.hanning(length) if segment.burst_seconds == 0 else np.linspace(1, 0, length)
            clip[end - length : end] += 4 * segment.noise * level * noise / np.sqrt(np.mean(noise**2))
