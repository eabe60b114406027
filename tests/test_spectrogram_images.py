"""Images of spectrogram CNNs: the published sizes, torchaudio's numbers, clips of any length, torch's interpolation."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ser_scripts.errors import BadInput
from ser_scripts.features.images import ImageExtractor, _interpolation, fit_length, image, min_samples
from ser_scripts.specs.base import parse
from ser_scripts.specs.spectrogram import ImageFeatures

LENGTH = 62_832


def features(**keys: Any) -> ImageFeatures:
    return parse(ImageFeatures, keys, source="m.json", kind="features")


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


@pytest.mark.parametrize(
    ("keys", "size", "mels", "hop", "made", "frames"),
    [
        ({}, None, 128, 512, 123, 123),
        ({}, (224, 224), 224, 281, 224, 224),
        ({}, (192, 192), 192, 328, 192, 192),
        ({"hop_samples": 211}, (299, 299), 299, 211, 298, 299),
        ({}, (299, 299), 299, 210, 300, 299),  # what follows when the hop is not given: no frame is made up
        ({"clip_samples": 48_000, "mels": 64}, (224, 192), 64, 251, 192, 192),
        ({"frames": 100}, None, 128, 634, 100, 100),
    ],
)
def test_the_image_follows_from_the_backbone_and_the_published_ones_come_out(
    keys: dict[str, Any], size: tuple[int, int] | None, mels: int, hop: int, made: int, frames: int
) -> None:
    spec = features(**keys).completed(size)
    assert (spec.mels, spec.hop_samples, spec.frames, spec.max_hz) == (mels, hop, frames, 12_207)
    assert 1 + spec.clip_samples // hop == made
    assert image(noise(30_000), spec).shape == (frames, mels)
    assert spec.completed(size) == spec


@given(frames=st.integers(2, 400), samples=st.integers(2000, 100_000))
def test_the_frames_always_fill_the_width(frames: int, samples: int) -> None:
    spec = features(clip_samples=samples).completed((8, frames))
    assert spec.hop_samples is not None
    assert 1 + samples // spec.hop_samples >= frames
    assert samples // (spec.hop_samples + 1) < frames - 1, "the largest such hop"


@pytest.mark.parametrize(("mels", "hop"), [(128, 512), (224, 281)])
def test_decibels_are_those_of_torchaudio(mels: int, hop: int) -> None:
    import torchaudio.transforms as transforms

    clip = noise(LENGTH) + 0.2 * np.sin(np.arange(LENGTH) / 20).astype(np.float32)
    mel = transforms.MelSpectrogram(sample_rate=24_414, n_fft=2048, hop_length=hop, n_mels=mels)
    expected = transforms.AmplitudeToDB(top_db=80)(mel(torch.from_numpy(clip))[None])[0].T
    made = torch.from_numpy(image(clip, features(mels=mels, hop_samples=hop).completed(None)))
    torch.testing.assert_close(made, expected, atol=2e-3, rtol=1e-4)


@given(samples=st.integers(1, 300), wanted=st.integers(1, 300))
def test_a_clip_gets_its_length_whatever_it_was(samples: int, wanted: int) -> None:
    clip = noise(samples)
    fitted = fit_length(clip, wanted)
    assert fitted.shape == (wanted,)
    assert set(fitted.tolist()) <= set(clip.tolist())
    left = max(0, wanted - samples) // 2
    kept = min(samples, wanted)
    assert np.array_equal(fitted[left : left + kept], clip[:kept]), "the clip stands in the middle; the end is cut"
    right = max(0, wanted - samples) - left
    if max(left, right) < samples:  # as far as torch can do it
        padded = torch.nn.functional.pad(torch.from_numpy(clip[:kept])[None], (left, right), mode="reflect")
        assert np.array_equal(fitted, padded[0].numpy())
    else:
        assert np.array_equal(fitted, np.pad(clip, (left, right), mode="reflect"))


def test_a_mirrored_clip_by_hand() -> None:
    clip = np.array([1, 2, 3], dtype=np.float32)
    assert fit_length(clip, 6).tolist() == [2, 1, 2, 3, 2, 1]
    assert fit_length(clip, 12).tolist() == [1, 2, 3, 2, 1, 2, 3, 2, 1, 2, 3, 2]
    assert fit_length(clip, 2).tolist() == [1, 2]
    assert fit_length(clip[:1], 3).tolist() == [1, 1, 1]


@pytest.mark.parametrize("samples", [1, 2, 500, 20_000, LENGTH, 200_000])
def test_every_length_gives_an_image_also_where_the_original_crashed(samples: int) -> None:
    made = image(noise(samples), features().completed(None))
    assert made.shape == (123, 128)
    assert np.isfinite(made).all()


@given(gain=st.floats(0.01, 1.0))
def test_unit_scaling_lies_between_0_and_1_and_takes_loudness_out(gain: float) -> None:
    spec = features(scaling="unit", mels=16, clip_samples=8000).completed(None)
    made = image(noise(6000), spec)
    assert made.min() >= 0
    assert made.max() == 1
    np.testing.assert_allclose(image(np.float32(gain) * noise(6000), spec), made, atol=1e-4)
    raw = image(noise(6000), features(mels=16, clip_samples=8000).completed(None))
    np.testing.assert_allclose(made, 1 + (raw - raw.max()) / 80, atol=1e-5)


@pytest.mark.parametrize(("inputs", "outputs"), [(298, 299), (300, 299), (123, 64), (50, 128), (7, 7)])
def test_interpolation_is_that_of_torch(inputs: int, outputs: int) -> None:
    rows = torch.randn(inputs, 5, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.interpolate(
        rows.T[None, None], size=(5, outputs), mode="bilinear", align_corners=False, antialias=True
    )[0, 0].T
    made = _interpolation(inputs, outputs) @ rows.numpy()
    np.testing.assert_allclose(made, expected.numpy(), atol=2e-4)  # torch computes the places in float32


def test_a_variable_length_keeps_the_clip() -> None:
    spec = features(length="variable", mels=16).completed(None)
    assert spec.frames is None
    assert min_samples(spec) == 1025
    assert [len(image(noise(samples), spec)) for samples in (1025, 62_832, 100_000)] == [3, 123, 196]


def test_the_extractor_comes_back_from_its_file(tmp_path: Path) -> None:
    extractor = ImageExtractor(features(scaling="unit").completed((32, 20)))
    extractor.save_pretrained(str(tmp_path))
    loaded = ImageExtractor.from_pretrained(str(tmp_path))
    assert loaded.spec == extractor.spec
    assert loaded.sampling_rate == 24_414
    assert np.array_equal(loaded(noise(900)), extractor(noise(900)))


@pytest.mark.parametrize(
    ("keys", "fault"),
    [
        ({"max_hz": 13_000}, r"'max_hz' \(13000\).*half the sample rate \(12207\)"),
        ({"min_hz": 13_000}, "'min_hz' .* must lie below half the sample rate"),
        ({"scaling": "unit", "top_db": None}, "'unit' needs 'top_db'"),
        ({"length": "variable", "frames": 9}, "'frames' is the width of images of a 'fixed' length"),
        ({"length": "variable", "clip_samples": 9}, "'clip_samples' belongs to the length 'fixed'"),
        ({"clip_samples": 50, "frames": 100}, r"'clip_samples' \(50\) are too few for 100 frames"),
        ({"melz": 3}, "melz: unknown key; did you mean 'mels'"),
    ],
)
def test_what_makes_no_sense_is_refused(keys: dict[str, Any], fault: str) -> None:
    with pytest.raises(BadInput, match=fault):
        features(**keys)
