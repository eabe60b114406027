"""Augmentation: every item is a pure function of its key, and nothing wrong in a spec reaches training."""

import hashlib
import json
import pickle
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ser_scripts.augment import Augmenter
from ser_scripts.augment.background import SoundFileAudio
from ser_scripts.augment.frequency_mask import FrequencyMask
from ser_scripts.errors import BadInput
from ser_scripts.specs.augmentation import AugmentationSpec
from ser_scripts.specs.base import parse

RATE_HZ = 16000
A = "audiomentations"
T = "torch_audiomentations"
OWN = "ser_scripts.augment"


def augmenter(
    transforms: dict[str, dict[str, Any]] | None = None,
    *,
    base: Path = Path(),
    seed: int = 0,
    allow_imports: list[str] | None = None,
    **keys: Any,
) -> Augmenter:
    spec = AugmentationSpec.model_validate({"name": "test", "transforms": transforms or {}, **keys})
    return Augmenter(spec, seed=seed, allow_imports=allow_imports or [], base=base)


def one(module: str, cls: str, **arguments: Any) -> dict[str, dict[str, Any]]:
    return {"x": {"module": module, "class": cls, "tensors": module == T, **arguments}}


@pytest.fixture(scope="module")
def clip() -> NDArray[np.float32]:
    samples = np.random.default_rng(0).normal(0, 0.1, RATE_HZ).astype(np.float32)
    samples.flags.writeable = False  # like the store's memory maps
    return samples


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sounds")
    draw = np.random.default_rng(1)
    for name, rate_hz in (("b/hum.wav", 22050), ("a/rain.wav", RATE_HZ), ("z.wav", RATE_HZ)):
        (folder / name).parent.mkdir(exist_ok=True)
        soundfile.write(folder / name, draw.normal(0, 0.1, (3 * rate_hz, 2)), rate_hz)
    (folder / "LICENCE.txt").write_text("CC0")
    return folder


NUMPY_CLASSES = [
    "AddColorNoise", "AddGaussianNoise", "AddGaussianSNR", "AirAbsorption", "Aliasing", "BandPassFilter",
    "BandStopFilter", "BitCrush", "Clip", "ClippingDistortion", "Gain", "GainTransition", "HighPassFilter",
    "HighShelfFilter", "LowPassFilter", "LowShelfFilter", "Normalize", "Padding", "PeakingFilter", "PitchShift",
    "PolarityInversion", "RepeatPart", "Resample", "Reverse", "SevenBandParametricEQ", "Shift", "TanhDistortion",
    "TimeMask", "TimeStretch", "Trim",
]  # fmt: skip
TORCH_CLASSES = [
    "AddColoredNoise", "BandPassFilter", "BandStopFilter", "Gain", "HighPassFilter", "Identity", "LowPassFilter",
    "PeakNormalization", "PolarityInversion", "Shift", "SpliceOut", "TimeInversion",
]  # fmt: skip


@pytest.mark.parametrize(
    ("module", "cls"),
    [
        *((A, name) for name in NUMPY_CLASSES),
        *((T, name) for name in TORCH_CLASSES),
        (f"{OWN}.frequency_mask", "FrequencyMask"),
        (f"{OWN}.loudness", "LoudnessNormalization"),
        (f"{OWN}.coloured_noise", "ColouredNoise"),
        (f"{OWN}.speed", "SpeedPerturbation"),
        (f"{OWN}.telephone", "Telephone"),
    ],
)
def test_transforms_with_their_defaults(module: str, cls: str, clip: NDArray[np.float32]) -> None:
    result = augmenter(one(module, cls)).apply(clip, RATE_HZ, "x", epoch=0, clip_key="c/a.wav")
    assert result.dtype == np.float32
    assert result.ndim == 1
    if cls not in ("Identity", "Trim", "Clip", "SpliceOut"):
        assert not np.array_equal(result, clip)


@pytest.mark.parametrize(
    ("module", "cls", "argument"),
    [
        (A, "AddBackgroundNoise", "sounds_path"),
        (A, "AddShortNoises", "sounds_path"),
        (A, "ApplyImpulseResponse", "ir_path"),
        (T, "AddBackgroundNoise", "background_paths"),
        (T, "ApplyImpulseResponse", "ir_paths"),
    ],
)
def test_transforms_that_read_sound_files(
    module: str, cls: str, argument: str, clip: NDArray[np.float32], sounds: Path, tmp_path: Path
) -> None:
    """Relative paths resolve against the spec's folder; where the files lie and in which order changes nothing."""
    spec = one(module, cls, **{argument: [sounds.name]})
    results = []
    other = tmp_path / sounds.name
    for file in ("z.wav", "a/rain.wav", "b/hum.wav"):  # another order of creation
        (other / file).parent.mkdir(exist_ok=True, parents=True)
        (other / file).write_bytes((sounds / file).read_bytes())
    for base in (sounds.parent, tmp_path):
        built = augmenter(spec, base=base)
        results.append([built.apply(clip, RATE_HZ, "x", epoch=e, clip_key="c/a.wav") for e in range(4)])
        assert list(built.input_sha256()) == [f"x.{argument}"]
    assert all(np.array_equal(first, second) for first, second in zip(*results, strict=True))
    assert not np.array_equal(results[0][0], clip)
    assert augmenter(spec, base=sounds.parent).input_sha256() == augmenter(spec, base=tmp_path).input_sha256()
    soundfile.write(other / "z.wav", np.full(RATE_HZ, 0.1), RATE_HZ)
    assert augmenter(spec, base=sounds.parent).input_sha256() != augmenter(spec, base=tmp_path).input_sha256()


def test_background_noise_has_the_asked_for_snr(clip: NDArray[np.float32], sounds: Path) -> None:
    spec = one(T, "AddBackgroundNoise", background_paths=str(sounds), min_snr_in_db=10, max_snr_in_db=10)
    noise = augmenter(spec).apply(clip, RATE_HZ, "x", epoch=0, clip_key="k") - clip
    assert 20 * np.log10(np.std(clip) / np.std(noise)) == pytest.approx(10, abs=0.1)


def test_sound_file_reader_cuts_at_the_target_rate(sounds: Path) -> None:
    audio = SoundFileAudio(8000)
    assert audio.get_num_samples(sounds / "b/hum.wav") == 24000
    whole = audio(sounds / "b/hum.wav")
    part = audio(sounds / "b/hum.wav", sample_offset=100, num_samples=50)
    assert whole.shape == (1, 24000)
    assert torch.equal(part, whole[:, 100:150])
    assert float(audio.rms_normalize(whole).square().mean()) == pytest.approx(1)


TWO = {
    "noise": {"module": A, "class": "AddGaussianSNR"},
    "colour": {"module": T, "class": "AddColoredNoise", "tensors": True},
}


@given(st.integers(0, 30), st.integers(1, 4))
def test_plan(num_clips: int, copies: int) -> None:
    """union holds every clean clip once and every transform once; repeat has as many items without transforms."""
    repeat = augmenter(mode="repeat", copies=copies).plan(num_clips)
    assert repeat == [(clip, None) for clip in range(num_clips) for _ in range(copies + 1)]
    flip = {f"t{i}": {"module": A, "class": "PolarityInversion"} for i in range(copies)}
    union = augmenter(flip).plan(num_clips)
    assert sorted((c, n or "") for c, n in union) == sorted((c, n) for c in range(num_clips) for n in ("", *flip))
    assert len(union) == len(repeat)
    assert augmenter(flip, mode="on_the_fly").plan(num_clips) == [(clip, None) for clip in range(num_clips)]


def test_clean_items_are_untouched(clip: NDArray[np.float32]) -> None:
    assert augmenter(TWO).apply(clip, RATE_HZ, None, epoch=3, clip_key="k") is clip
    assert augmenter(mode="repeat", copies=1).apply(clip, RATE_HZ, None, epoch=3, clip_key="k") is clip


@pytest.mark.parametrize("item", ["noise", "colour"])
def test_result_depends_on_the_key_alone(clip: NDArray[np.float32], item: str) -> None:
    def at(seed: int = 0, epoch: int = 0, key: str = "c/a.wav", built: Augmenter | None = None) -> NDArray[np.float32]:
        return (built or augmenter(TWO, seed=seed)).apply(clip, RATE_HZ, item, epoch=epoch, clip_key=key)

    first = at()
    used = augmenter(TWO)
    at(epoch=5, built=used)
    random.seed(9)
    np.random.seed(9)
    torch.manual_seed(9)
    assert np.array_equal(at(built=used), first), "neither earlier calls nor global states count"
    assert np.array_equal(at(built=pickle.loads(pickle.dumps(used))), first), "workers count neither"
    for other in (at(seed=1), at(epoch=1), at(key="c/b.wav")):
        assert not np.array_equal(other, first)


def test_order_of_transforms_and_threads_do_not_count(clip: NDArray[np.float32]) -> None:
    swapped = dict(reversed(TWO.items()))
    threads = torch.get_num_threads()
    results = []
    try:
        for spec, count in ((TWO, 1), (swapped, 2)):
            torch.set_num_threads(count)
            built = augmenter(spec, mode="on_the_fly", probability=1)
            results.append(built.apply(np.tile(clip, 4), RATE_HZ, None, epoch=0, clip_key="k"))
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    assert np.array_equal(*results)
    assert augmenter(TWO).plan(2) == augmenter(swapped).plan(2)


def test_global_states_are_restored(clip: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after a failure; and the generators of other devices are never seeded, or dropout would repeat itself."""
    built = augmenter({**TWO, "trim": {"module": A, "class": "Trim"}})

    def states() -> tuple[Any, ...]:
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # type: ignore[index, union-attr]

    monkeypatch.setattr(torch, "manual_seed", lambda seed: pytest.fail("torch.manual_seed seeds every device"))
    before = states()
    for item in ("noise", "colour"):
        built.apply(clip, RATE_HZ, item, epoch=0, clip_key="k")
    with pytest.raises(BadInput, match=r"transform 'trim'.*clip c/silence.wav"):
        built.apply(np.full(10, np.nan, np.float32), RATE_HZ, "trim", epoch=0, clip_key="c/silence.wav")
    assert states() == before


def test_on_the_fly_applies_each_transform_with_its_probability(clip: NDArray[np.float32]) -> None:
    flip = {
        "flip": {"module": A, "class": "PolarityInversion"},
        "loud": {"module": A, "class": "Gain", "min_gain_db": 6.0206, "max_gain_db": 6.0206},
    }
    built = augmenter(flip, mode="on_the_fly", probability=0.25)
    ratios = [
        round(float(built.apply(clip[:50], RATE_HZ, None, epoch=e, clip_key="k")[0] / clip[0])) for e in range(800)
    ]
    assert {r: ratios.count(r) for r in (1, -1, 2, -2)} == pytest.approx({1: 450, -1: 150, 2: 150, -2: 50}, abs=60)


def test_a_transform_may_have_a_probability_of_its_own(clip: NDArray[np.float32]) -> None:
    both = {"flip": one(A, "PolarityInversion")["x"], "loud": one(A, "PolarityInversion")["x"]}
    rare = augmenter(both, mode="on_the_fly", probability=0.75, probabilities={"flip": 0.1})
    drawn = [name for epoch in range(800) for name in rare.applied(epoch=epoch, clip_key="k")]
    assert drawn.count("flip") == pytest.approx(80, abs=30)
    assert drawn.count("loud") == pytest.approx(600, abs=50)
    plain = augmenter(both, mode="on_the_fly", probability=0.75)
    assert drawn.count("loud") == sum("loud" in plain.applied(epoch=epoch, clip_key="k") for epoch in range(800))
    assert "probabilities" not in plain.spec.model_dump()  # the identity of runs that are older than the key
    assert rare.spec.model_dump()["probabilities"] == {"flip": 0.1}
    with pytest.raises(ValueError, match="names 'gone', which is no transform; valid: flip, loud"):
        augmenter(both, mode="on_the_fly", probabilities={"gone": 0.5})
    with pytest.raises(ValueError, match="goes with mode 'on_the_fly', not with 'union'"):
        augmenter(both, mode="union", probabilities={"flip": 0.5})


def test_frequency_mask_silences_a_band_and_keeps_the_rest(clip: NDArray[np.float32]) -> None:
    for length in (1, 100, 401, 16000):
        clean = FrequencyMask(min_width_hz=0, max_width_hz=0)(clip[:length], RATE_HZ)
        assert clean.shape == (length,)
        np.testing.assert_allclose(clean, clip[:length], atol=1e-6)
    masked = FrequencyMask(min_width_hz=3000, max_width_hz=3000)(clip, RATE_HZ)
    before, after = (np.abs(np.fft.rfft(x)) ** 2 for x in (clip, masked))
    assert after.sum() / before.sum() == pytest.approx(1 - 3000 / 8000, abs=0.04)
    assert min((after / before).reshape(-1)[i : i + 200].mean() for i in range(0, 8000, 200)) < 1e-3
    with pytest.raises(ValueError, match="half the sample rate"):
        FrequencyMask()(clip, 4000)
    with pytest.raises(ValueError, match="5 and 3"):
        FrequencyMask(min_width_hz=5, max_width_hz=3)


GAIN = {"module": A, "class": "Gain", "min_gain_db": -6, "max_gain_db": 6}
NOISE = {"module": A, "class": "AddGaussianSNR"}


def test_a_chain_is_one_augmentation_and_its_steps_come_in_order(clip: NDArray[np.float32]) -> None:
    up = {"module": A, "class": "Gain", "min_gain_db": 12, "max_gain_db": 12}
    clipped = {"module": f"{OWN}.loudness", "class": "LoudnessNormalization", "min_lufs": -30, "max_lufs": -30}
    built = augmenter({"x": [up, clipped], "y": [clipped, up]})
    assert built.plan(1) == [(0, None), (0, "x"), (0, "y")]
    first, last = (built.apply(clip, RATE_HZ, name, epoch=0, clip_key="k") for name in "xy")
    np.testing.assert_allclose(last, first * 10 ** (12 / 20), rtol=1e-5)


@given(epoch=st.integers(0, 3), key=st.sampled_from(["c/a.wav", "c/b.wav"]), steps=st.permutations([GAIN, NOISE]))
def test_steps_of_a_chain_draw_like_themselves(epoch: int, key: str, steps: list[dict[str, Any]]) -> None:
    """The first step draws as if it stood alone, and what follows does not change it; a pure function of the key."""
    samples = np.random.default_rng(0).normal(0, 0.1, 400).astype(np.float32)
    alone = augmenter({"x": steps[0]}).apply(samples, RATE_HZ, "x", epoch=epoch, clip_key=key)
    chain = augmenter({"x": steps})
    result = chain.apply(samples, RATE_HZ, "x", epoch=epoch, clip_key=key)
    again = pickle.loads(pickle.dumps(chain)).apply(samples, RATE_HZ, "x", epoch=epoch, clip_key=key)
    assert np.array_equal(result, again)
    difference = result - alone
    if steps[1] is GAIN:
        factor = result[0] / alone[0]
        np.testing.assert_allclose(result, alone * factor, rtol=1e-4)
    else:
        assert 0 < np.std(difference) < np.std(alone)


def test_a_chain_of_one_is_that_transform(clip: NDArray[np.float32]) -> None:
    specs = [AugmentationSpec.model_validate({"name": "a", "transforms": {"x": x}}) for x in (NOISE, [NOISE])]
    assert specs[0] == specs[1]
    assert AugmentationSpec.model_validate_json(specs[0].model_dump_json(by_alias=True)) == specs[0]


def test_chains_work_on_the_fly_and_name_their_inputs(clip: NDArray[np.float32], sounds: Path) -> None:
    background = {"module": A, "class": "AddBackgroundNoise", "sounds_path": str(sounds)}
    chain = {"x": [GAIN, background]}
    built = augmenter(chain, mode="on_the_fly", probability=1)
    assert list(built.input_sha256()) == ["x.2.sounds_path"]
    flown = built.apply(clip, RATE_HZ, None, epoch=2, clip_key="k")
    assert np.array_equal(flown, augmenter(chain).apply(clip, RATE_HZ, "x", epoch=2, clip_key="k"))
    assert built.applied(epoch=2, clip_key="k") == ["x"]


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([], "expected a list of at least 1"),
        ([GAIN, {"class": "Gain"}], "transforms.x.1.module: required key is missing"),
        ([GAIN, {**GAIN, "p": 1}], r"step 2 \(Gain\): 'p' is not taken"),
        ([GAIN, {"module": A, "class": "Gain", "min_gain": 3}], r"step 2 \(Gain\): Gain takes no argument 'min_gain'"),
        ([GAIN, {"module": A, "class": "AdjustDuration"}], r"step 2 \(AdjustDuration\): AdjustDuration refuses"),
    ],
)
def test_faults_of_a_chain_name_the_step(steps: list[dict[str, Any]], message: str) -> None:
    def build() -> Augmenter:
        spec = parse(AugmentationSpec, {"name": "test", "transforms": {"x": steps}}, source="x.json", kind="x")
        return Augmenter(spec, seed=0, base=Path())

    with pytest.raises(BadInput, match=message):
        build()


def test_circular_shift_rolls_by_up_to_thirty_percent(clip: NDArray[np.float32]) -> None:
    shift = one(A, "Shift", min_shift=0.0, max_shift=0.3, rollover=True, fade_duration=0.0)
    built = augmenter(shift)
    places = set()
    for epoch in range(20):
        rolled = built.apply(clip, RATE_HZ, "x", epoch=epoch, clip_key="k")
        place = int(np.flatnonzero(rolled == clip[0])[0])
        assert np.array_equal(rolled, np.roll(clip, place))
        places.add(place)
    assert len(places) > 10
    assert 0 <= min(places) < max(places) <= 0.3 * len(clip)


@pytest.mark.parametrize(("colour", "f_decay"), [("white", 0), ("pink", 1), ("brown", 2)])
def test_coloured_noise_has_its_slope_and_its_snr(colour: str, f_decay: int) -> None:
    tone = (0.1 * np.sin(0.1 * np.arange(64000))).astype(np.float32)
    spec = one(f"{OWN}.coloured_noise", "ColouredNoise", min_snr_db=7, max_snr_db=7, colours=[colour])
    noise = augmenter(spec).apply(tone, RATE_HZ, "x", epoch=0, clip_key="k").astype(float) - tone
    assert 10 * np.log10(np.mean(tone**2) / np.mean(noise**2)) == pytest.approx(7, abs=0.01)
    power = np.abs(np.fft.rfft(noise)) ** 2
    octaves = [10 * np.log10(power[2**n : 2 ** (n + 1)].mean()) for n in range(7, 15)]  # from 32 Hz
    assert np.polyfit(range(len(octaves)), octaves, 1)[0] == pytest.approx(-10 * np.log10(2) * f_decay, abs=0.15)


CODECS = [
    {"codec": "mp3", "min_bitrate_kbps": 16, "max_bitrate_kbps": 64},
    {"codec": "opus", "min_bitrate_kbps": 8, "max_bitrate_kbps": 32},
    {"codec": "vorbis", "min_quality": 0.1, "max_quality": 0.4},
    {"codec": "gsm"},
]


@pytest.mark.parametrize("arguments", CODECS, ids=lambda arguments: arguments["codec"])
def test_codecs_change_samples_but_neither_length_nor_place(arguments: dict[str, Any]) -> None:
    spectrum = np.fft.rfft(np.random.default_rng(2).normal(0, 1, RATE_HZ))
    spectrum[:300] = spectrum[2500:] = 0  # one bin is one hertz
    speech = (0.1 * np.fft.irfft(spectrum) / np.std(np.fft.irfft(spectrum))).astype(np.float32)
    built = augmenter(one(f"{OWN}.codec", "Codec", **arguments))
    coded = built.apply(speech, RATE_HZ, "x", epoch=0, clip_key="k")
    assert coded.shape == speech.shape
    assert not np.array_equal(coded, speech)
    errors = {lag: np.std(coded[4000:12000] - speech[4000 + lag : 12000 + lag]) for lag in range(-40, 41)}
    assert abs(min(errors, key=errors.__getitem__)) <= 1
    others = [built.apply(speech, RATE_HZ, "x", epoch=epoch, clip_key="k") for epoch in range(1, 5)]
    alike = all(np.array_equal(coded, other) for other in others)
    assert alike == (arguments["codec"] == "gsm"), "a bit rate is drawn, where there is one"


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_speed_changes_duration_and_pitch_together(factor: float) -> None:
    tone = (0.1 * np.sin(2 * np.pi * 400 * np.arange(RATE_HZ) / RATE_HZ)).astype(np.float32)
    spec = one(f"{OWN}.speed", "SpeedPerturbation", min_factor=factor, max_factor=factor)
    changed = augmenter(spec).apply(tone, RATE_HZ, "x", epoch=0, clip_key="k")
    assert len(changed) == pytest.approx(RATE_HZ / factor, abs=1)
    peak_hz = np.argmax(np.abs(np.fft.rfft(changed))) * RATE_HZ / len(changed)
    assert peak_hz == pytest.approx(400 * factor, abs=1)


def test_a_telephone_keeps_its_band_only(clip: NDArray[np.float32]) -> None:
    line = augmenter(one(f"{OWN}.telephone", "Telephone", codecs=["none"])).apply(
        clip, RATE_HZ, "x", epoch=0, clip_key="k"
    )
    assert line.shape == clip.shape
    before, after = (np.abs(np.fft.rfft(x)) ** 2 for x in (clip, line))  # one bin is one hertz
    assert after[450:3100].sum() / before[450:3100].sum() == pytest.approx(1, abs=0.02)
    assert after[:150].sum() / before[:150].sum() < 1e-4
    assert after[3650:].sum() / before[3650:].sum() < 1e-4


@pytest.mark.parametrize(
    ("module", "cls", "arguments", "message"),
    [
        ("coloured_noise", "ColouredNoise", {"min_snr_db": 9, "max_snr_db": 3}, "9 and 3"),
        ("coloured_noise", "ColouredNoise", {"colours": ["purple"]}, "white, pink, brown, speech_shaped"),
        ("codec", "Codec", {"codec": "aac"}, "mp3, opus, vorbis, gsm"),
        ("codec", "Codec", {"codec": "mp3"}, "mp3 needs 'min_bitrate_kbps' and 'max_bitrate_kbps'"),
        ("codec", "Codec", {"codec": "gsm", "min_quality": 0.1, "max_quality": 0.2}, "gsm takes no 'min_quality'"),
        ("codec", "Codec", {"codec": "opus", "min_bitrate_kbps": 2, "max_bitrate_kbps": 9}, "between 6 and 256"),
        ("codec", "Codec", {"codec": "mp3", "min_bitrate_kbps": 300, "max_bitrate_kbps": 320}, "mp3 at 16000 Hz takes"),
        ("speed", "SpeedPerturbation", {"min_factor": 0}, "0 and 1.1"),
        ("telephone", "Telephone", {"max_high_hz": 4000}, "3900"),
        ("telephone", "Telephone", {"codecs": ["gsm"]}, "mu_law, a_law, none"),
    ],
)
def test_own_transforms_refuse_ranges_that_make_no_sense(
    module: str, cls: str, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        augmenter(one(f"{OWN}.{module}", cls, **arguments))


@pytest.mark.parametrize(
    ("transforms", "message"),
    [
        (one("os", "system"), "module 'os' is not imported.*--allow-import os"),
        (one("audiomentations_evil", "Gain"), "module 'audiomentations_evil' is not imported"),
        (one("ser_scripts.cli", "main"), "module 'ser_scripts.cli' is not imported"),
        (one("../x", "y"), "is not imported"),
        (one(f"{OWN}.nothing", "Gain"), "cannot import module 'ser_scripts.augment.nothing'"),
        (one(f"{OWN}.augmenter", "Augmenter"), "no transform 'Augmenter'"),
        (one(f"{OWN}.frequency_mask", "FrequencyMsk"), "did you mean 'FrequencyMask'"),
        (one(A, "PitchShft"), "has no transform 'PitchShft'; did you mean 'PitchShift'"),
        (one(A, "Compose", transforms=[]), "list its transforms instead"),
        (one(A, "BaseWaveformTransform"), "has no transform"),
        (one(A, "np"), "has no transform 'np'"),
        (
            one(A, "Gain", min_gain=3),
            "no argument 'min_gain'; did you mean 'min_gain_db'.*valid: max_gain_db, min_gain_db",
        ),
        (one(A, "TimeMask", min_band=3), "no argument 'min_band'; did you mean 'min_band_part'"),
        (one(A, "Reverse", q=3), "no argument 'q'; it takes none"),
        (one(A, "Gain", p=0.3), "'p' is not taken.*'probability'"),
        (one(T, "Gain", output_type="dict"), "no argument 'output_type'"),
        (one(A, "Gain", min_gain_db=3, max_gain_db=-3), r'Gain refuses \{"min_gain_db": 3, "max_gain_db": -3\}'),
        (one(A, "AdjustDuration"), "AdjustDuration refuses {}: AssertionError"),
        (one(A, "AddBackgroundNoise"), "AddBackgroundNoise needs 'sounds_path'"),
        (one(A, "AddBackgroundNoise", sounds_path="no/where"), "'sounds_path': 'no/where' does not exist"),
        (one(A, "AddBackgroundNoise", sounds_path=""), "'' does not exist"),
        (one(A, "AddBackgroundNoise", sounds_path=3), "expected a path or a list of paths, found 3"),
        (one(A, "AddBackgroundNoise", sounds_path="empty"), "no .wav, .flac.* file in"),
        (one(A, "AddBackgroundNoise", sounds_path="broken"), "1 unreadable sound file.*broken/x.wav"),
        (one(T, "AddBackgroundNoise", background_paths="flac"), "no .wav file in"),
        ({"x": {"module": T, "class": "Gain"}}, "'tensors' must be true for torch_audiomentations"),
        ({"x": {"module": A, "class": "Gain", "tensors": True}}, "'tensors' must be false for audiomentations"),
        (one(T, "PitchShift", sample_rate=16000, min_transpose_semitones=4, max_transpose_semitones=2), "refuses"),
    ],
)
def test_faults_show_before_training(transforms: dict[str, Any], message: str, tmp_path: Path) -> None:
    for name in ("empty", "broken", "flac"):
        (tmp_path / name).mkdir()
    (tmp_path / "broken/x.wav").write_bytes(b"RIFF")
    soundfile.write(tmp_path / "flac/x.flac", np.zeros(100), RATE_HZ)
    with pytest.raises(BadInput, match=f"(?s)augmentation 'test', transform 'x'.*{message}"):
        augmenter(transforms, base=tmp_path)


CUSTOM = """
from pathlib import Path
Path(__file__).with_suffix(".ran").touch()
import numpy as np

class Louder:
    def __init__(self, gain: float = 2.0): self.gain = gain
    def __call__(self, samples, sample_rate): return samples * np.float32(self.gain)

class Remembers:
    count = 0
    def __call__(self, samples, sample_rate):
        self.count += 1
        return samples * np.float32(self.count)

class Tensor:
    def __call__(self, samples, sample_rate):
        assert samples.shape == (1, 1, sample_rate * 2 if samples.shape[-1] > sample_rate else sample_rate)
        return samples.neg()

class Returns:
    def __init__(self, what): self.what = what
    def __call__(self, samples, sample_rate):
        return {"nan": samples * np.float32("nan"), "double": samples.astype(float), "none": None, "empty": samples[:0],
                "stereo": np.stack([samples, samples])}[self.what]
"""


def test_custom_classes_only_when_allowed(
    clip: NDArray[np.float32], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(CUSTOM)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(BadInput, match="--allow-import mine"):
        augmenter(one("mine", "Louder"))
    assert not file.with_suffix(".ran").exists(), "a module is not run to find out that it is not allowed"
    for allowed in ("mine.py", str(file), "mine"):
        built = augmenter(one("mine", "Louder", gain=3), allow_imports=[allowed])
        assert np.array_equal(built.apply(clip, RATE_HZ, "x", epoch=0, clip_key="k"), clip * np.float32(3))
    allow = ["mine.py"]
    flipped = augmenter({"x": {"module": "mine", "class": "Tensor", "tensors": True}}, allow_imports=allow)
    assert np.array_equal(flipped.apply(clip, RATE_HZ, "x", epoch=0, clip_key="k"), -clip)
    with pytest.raises(BadInput, match="two runs from the same seed differ"):
        augmenter(one("mine", "Remembers"), allow_imports=allow)
    for what, words in {
        "nan": "NaN", "double": "float64", "none": "a NoneType", "empty": r"shape \(0,\)", "stereo": r"shape \(2,",
    }.items():  # fmt: skip
        with pytest.raises(BadInput, match=f"transform 'x' returns .*{words}"):
            augmenter(one("mine", "Returns", what=what), allow_imports=allow)


def test_a_custom_class_reaches_a_fresh_process(clip: NDArray[np.float32], tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(CUSTOM)
    spec = {**one("mine", "Louder"), "n": {"module": A, "class": "AddGaussianSNR"}}
    built = augmenter(spec, allow_imports=[str(tmp_path / "mine.py")], mode="on_the_fly", probability=1)
    (tmp_path / "built").write_bytes(pickle.dumps((built, np.array(clip))))
    code = (
        "import pickle, sys, hashlib; built, clip = pickle.load(open(sys.argv[1], 'rb')); "
        "print(hashlib.sha256(built.apply(clip, 16000, None, epoch=1, clip_key='k')).hexdigest())"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "built")], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    here = hashlib.sha256(built.apply(clip, RATE_HZ, None, epoch=1, clip_key="k")).hexdigest()
    assert run.stdout.split() == [here], run.stderr


@pytest.mark.parametrize(
    ("allowed", "message"),
    [("none.py", "no such file"), ("no-name", "expected the name"), ("a/audiomentations.py", "names another module")],
)
def test_wrong_allow_imports(allowed: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a/audiomentations.py").touch()
    with pytest.raises(BadInput, match=message):
        augmenter(one(A, "Gain"), allow_imports=[allowed])


def test_the_examples_of_the_guide_run(tmp_path: Path) -> None:
    guide = (Path(__file__).parents[1] / "docs/augmentation.md").read_text()
    blocks = [json.loads(block.partition("```")[0]) for block in guide.split("```json\n")[1:]]
    assert len(blocks) >= 10
    for folder in ("noises", "rooms"):
        (tmp_path / folder).mkdir()
        samples = np.random.default_rng(0).normal(0, 0.1, RATE_HZ)
        soundfile.write(tmp_path / folder / "x.wav", samples, RATE_HZ)
    for block in blocks:
        Augmenter(AugmentationSpec.model_validate(block), seed=0, base=tmp_path)


def test_the_tour_has_every_transform_of_this_project_and_runs() -> None:
    """Its control makes as many updates as its union."""
    root = Path(__file__).parents[1]
    tour = json.loads((root / "experiments/augmentation-tour.json").read_text())
    specs = [AugmentationSpec.model_validate(one) for one in tour["augmentations"] if one]
    for spec in specs:
        Augmenter(spec, seed=0, base=root)
    steps = [step for spec in specs for chain in spec.transforms.values() for step in chain]
    own = {path.stem for path in (root / "ser_scripts/augment").glob("*.py")}
    own -= {"__init__", "augmenter", "background", "imports", "mixing", "spec_augment"}
    assert {f"{OWN}.{name}" for name in own} == {step.module for step in steps} - {A}
    by_name = {spec.name: spec for spec in specs}
    assert by_name["control"].copies == len(by_name["union"].transforms)
