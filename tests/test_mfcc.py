"""Features of the compact model: torchaudio's numbers, slopes, normalisation, one thread."""

import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_scripts.errors import BadInput
from ser_scripts.features.mfcc import FrameExtractor, frame_features, min_samples, slopes
from ser_scripts.specs.base import parse
from ser_scripts.specs.compact import FrameFeatures


def tone(samples: int = 24000, seed: int = 0) -> np.ndarray:
    """A gliding tone with some noise, swelling and fading."""
    rng = np.random.default_rng(seed)
    time = np.arange(samples) / 16000
    wave = np.sin(2 * np.pi * (200 + 300 * time) * time) + 0.05 * rng.standard_normal(samples)
    return (0.3 * wave * np.sin(np.pi * time / time[-1])).astype(np.float32)


def of_torchaudio(clip: np.ndarray, spec: FrameFeatures) -> np.ndarray:
    """The same features by torchaudio, in float64, (T, D)."""
    import torchaudio

    window = {"hamming": torch.hamming_window, "hann": torch.hann_window}[spec.window]
    shape = {
        "n_fft": spec.fft_samples,
        "win_length": spec.window_samples,
        "hop_length": spec.hop_samples,
        "f_min": spec.min_hz,
        "f_max": spec.max_hz,
        "n_mels": spec.mels,
        "window_fn": window,
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="At least one mel filterbank has all zero values")
        if spec.kind == "mfcc":
            transform = torchaudio.transforms.MFCC(spec.sample_rate_hz, spec.coefficients, melkwargs=shape)
        else:
            transform = torch.nn.Sequential(
                torchaudio.transforms.MelSpectrogram(spec.sample_rate_hz, **shape),
                torchaudio.transforms.AmplitudeToDB("power", top_db=spec.top_db),
            )
    features: np.ndarray = transform.double()(torch.from_numpy(clip.astype(np.float64))).T.numpy()
    return features


def speech(ser_data: Path) -> np.ndarray:
    clip, _ = soundfile.read(sorted((ser_data / "emodb").rglob("*.flac"))[100], dtype="float32")
    return clip


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"window": "hann", "mels": 40, "coefficients": 13, "min_hz": 0.0, "max_hz": 4000.0},
        {"fft_samples": 400, "hop_samples": 100, "window_samples": 301},
        {"kind": "log_mel", "mels": 64},
        {"kind": "log_mel", "mels": 80, "top_db": None},
    ],
)
def test_the_numbers_are_those_of_torchaudio(changes: dict) -> None:
    spec = FrameFeatures.model_validate(changes)
    for samples in (24000, 24001, 4000, min_samples(spec)):
        ours = frame_features(tone(samples), spec)
        np.testing.assert_allclose(ours, of_torchaudio(tone(samples), spec), atol=1e-3)


@pytest.mark.real
def test_the_numbers_are_those_of_torchaudio_on_speech(ser_data: Path) -> None:
    clip = speech(ser_data)
    np.testing.assert_allclose(frame_features(clip, FrameFeatures()), of_torchaudio(clip, FrameFeatures()), atol=1e-3)


def test_digital_silence_has_finite_features() -> None:
    silence = np.zeros(1000, dtype=np.float32)
    energies = frame_features(silence, FrameFeatures(kind="log_mel", mels=4))
    np.testing.assert_allclose(energies, -100)
    for normalise in ("mean", "mean_variance"):
        spec = FrameFeatures.model_validate({"normalise": normalise, "deltas": 2})
        np.testing.assert_allclose(frame_features(silence, spec), 0, atol=1e-5)


@given(samples=st.integers(257, 9000), hop=st.integers(80, 400))
@settings(max_examples=20)
def test_there_is_a_frame_per_hop_and_one_more(samples: int, hop: int) -> None:
    spec = FrameFeatures(hop_samples=hop, kind="log_mel", mels=20, deltas=1)
    features = frame_features(tone(samples), spec)
    assert features.shape == (1 + samples // hop, spec.size) == (1 + samples // hop, 40)
    assert features.dtype == np.float32


def test_slopes_of_a_line_are_its_slope_and_of_a_constant_zero() -> None:
    line = np.arange(12.0)[:, None] * [2.0, -0.5, 0.0] + 7
    np.testing.assert_allclose(slopes(line)[2:-2], np.tile([2.0, -0.5, 0.0], (8, 1)))
    np.testing.assert_allclose(slopes(line)[0], [2.0 * (1 + 2 * 2) / 10, -0.5 * (1 + 2 * 2) / 10, 0])  # edge repeated


def test_deltas_stand_behind_the_features_and_order_two_is_the_slope_of_the_slope() -> None:
    plain, twice = (frame_features(tone(), FrameFeatures(deltas=deltas)) for deltas in (0, 2))
    assert twice.shape[1] == 120
    np.testing.assert_array_equal(twice[:, :40], plain)
    np.testing.assert_allclose(twice[:, 40:80], slopes(plain.astype(np.float64)), atol=1e-3)
    np.testing.assert_allclose(twice[:, 80:], slopes(twice[:, 40:80].astype(np.float64)), atol=1e-3)


def test_normalisation_is_per_clip_and_number() -> None:
    mean = frame_features(tone(), FrameFeatures(normalise="mean"))
    both = frame_features(tone(), FrameFeatures(normalise="mean_variance"))
    np.testing.assert_allclose(mean.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(both.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(both.std(axis=0), 1, atol=1e-4)
    plain = frame_features(tone(), FrameFeatures())
    np.testing.assert_allclose(mean, plain - plain.mean(axis=0), atol=1e-3)


@pytest.mark.parametrize("gain", [0.25, 4.0])
def test_a_gain_shifts_the_first_coefficient_only_and_normalisation_takes_it_out(gain: float) -> None:
    quiet, loud = tone(), (gain * tone()).astype(np.float32)
    difference = frame_features(loud, FrameFeatures()) - frame_features(quiet, FrameFeatures())
    expected = 20 * np.log10(gain) * np.sqrt(128)  # the orthonormal transform of a constant over 128 bands
    np.testing.assert_allclose(difference[:, 0], expected, rtol=1e-4)
    np.testing.assert_allclose(difference[:, 1:], 0, atol=1e-2)
    spec = FrameFeatures(normalise="mean")
    np.testing.assert_allclose(frame_features(loud, spec), frame_features(quiet, spec), atol=1e-2)


def test_the_features_are_the_same_bits_with_any_number_of_threads() -> None:
    code = (
        "import hashlib, ser_scripts, numpy as np; from ser_scripts.features.mfcc import *;"
        "clip = np.random.default_rng(0).standard_normal(90000).astype(np.float32);"
        "print(hashlib.sha256(frame_features(clip, FrameFeatures(deltas=2)).tobytes()).hexdigest())"
    )
    sums = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PATH": "", "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in ("1", "2")
    }
    assert len(sums) == 1


def test_an_extractor_is_saved_and_read_back(tmp_path: Path) -> None:
    spec = FrameFeatures(kind="log_mel", mels=50, deltas=1, normalise="mean", top_db=None)
    FrameExtractor(spec).save_pretrained(str(tmp_path))
    loaded = FrameExtractor.from_pretrained(str(tmp_path))
    assert loaded.spec == spec
    assert loaded.sampling_rate == 16000
    np.testing.assert_array_equal(loaded(tone()), frame_features(tone(), spec))
    content = json.loads((tmp_path / "preprocessor_config.json").read_text())
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**content, "mells": 3}))
    with pytest.raises(BadInput, match=r"preprocessor_config\.json.*\n.*mells: unknown key; did you mean 'mels'"):
        FrameExtractor.from_pretrained(str(tmp_path))


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ({"coefficients": 200}, r"'coefficients' \(200\) cannot exceed 'mels' \(128\)"),
        ({"kind": "log_mel", "coefficients": 13}, "'coefficients' belongs to 'mfcc'"),
        ({"window_samples": 600}, r"'window_samples' \(600\) cannot exceed 'fft_samples' \(512\)"),
        ({"max_hz": 9000}, r"not above half the sample rate \(8000\)"),
        ({"min_hz": 5000, "max_hz": 4000}, r"'max_hz' \(4000\) must lie above 'min_hz' \(5000\)"),
    ],
)
def test_what_makes_no_sense_is_refused(content: dict, fault: str) -> None:
    with pytest.raises(BadInput, match=fault):
        parse(FrameFeatures, content, source="x.json", kind="features")
