"""Levels (golden numbers of BS.1770, and the cases it leaves open), and the chain as a whole."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from ser_scripts.audio import decode
from ser_scripts.audio.preprocess import (
    NoSpeech,
    apply_chain,
    chain_identity,
    chain_inputs,
    has_events,
    longest_seconds,
    resolve_chain,
)
from ser_scripts.audio.steps.level import loudness_lufs, remove_dc, rms, to_loudness, to_peak, to_rms
from ser_scripts.errors import BadInput
from ser_scripts.runs.preprocess_corpus import Chain
from ser_scripts.specs.base import parse
from ser_scripts.specs.preprocess import Loudness, PreprocessSpec


def chain(*steps: dict[str, Any]) -> tuple[PreprocessSpec, ...]:
    return TypeAdapter(tuple[PreprocessSpec, ...]).validate_python(steps)


def run(clip: np.ndarray, *steps: dict[str, Any], rate_hz: int = 16_000, key: str = "toy/a.wav") -> Any:
    return apply_chain(clip, rate_hz, chain(*steps), clip_key=key)


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


@pytest.mark.real
def test_loudness_agrees_with_ffmpeg(ser_data: Path, tmp_path: Path) -> None:
    """An independent meter (EBU R 128) that works at 48 kHz, on speech long enough for single blocks not to matter."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("needs the program ffmpeg, as an independent meter")
    files = sorted((ser_data / "emodb" / "wav").iterdir())
    differences = []
    for first in range(0, 535, 90):
        decoded = [decode.read(file) for file in files[first : first + 8]]
        mono = np.concatenate([decode.to_mono(samples) for samples, _ in decoded])
        rate_hz = decoded[0][1]
        soundfile.write(tmp_path / "clip.wav", decode.resample(mono, rate_hz, 48_000), 48_000, subtype="FLOAT")
        meter = "ebur128=metadata=1,ametadata=print:key=lavfi.r128.I:file=-"
        command = [
            "ffmpeg",
            "-nostdin",
            "-v",
            "error",
            "-i",
            str(tmp_path / "clip.wav"),
            "-af",
            meter,
            "-f",
            "null",
            "-",
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        theirs = float(done.stdout.split("lavfi.r128.I=")[-1])  # of the whole clip
        differences.append(loudness_lufs(mono, rate_hz) - theirs)
    assert len(differences) == 6
    assert np.abs(differences).max() <= 0.1, differences


@given(dbfs=st.floats(-60, 0), gain_db=st.floats(-80, 20))
def test_peak_and_rms_meet_their_targets_whatever_the_level(dbfs: float, gain_db: float) -> None:
    clip = (np.random.default_rng(0).standard_normal(4000) * 10 ** (gain_db / 20)).astype(np.float32)
    assert 20 * np.log10(np.abs(to_peak(clip, dbfs=dbfs)).max()) == pytest.approx(dbfs, abs=1e-4)
    assert 20 * np.log10(rms(to_rms(clip, dbfs=dbfs))) == pytest.approx(dbfs, abs=1e-4)


def test_rms_of_known_signals() -> None:
    assert rms(tone(1)) == pytest.approx(2**-0.5, rel=1e-3)
    assert rms(np.full(100, -0.5, np.float32)) == pytest.approx(0.5)
    assert np.abs(to_peak(tone(1, amplitude=0.1), dbfs=-20)).max() == pytest.approx(0.1, rel=1e-4)


@pytest.mark.parametrize("bad", [np.zeros(100), np.zeros(0), np.full(100, np.nan)])
def test_what_has_no_level_is_refused(bad: np.ndarray) -> None:
    for function in (to_peak, to_rms):
        with pytest.raises(BadInput, match="silent or not finite"):
            function(bad.astype(np.float32), dbfs=-1)


def test_the_mean_is_taken_out_exactly() -> None:
    clip = tone(1, amplitude=0.1) + np.float32(0.25)
    np.testing.assert_allclose(remove_dc(clip), tone(1, amplitude=0.1) - tone(1, amplitude=0.1).mean(), atol=1e-6)


def test_the_chain_applies_its_steps_in_order_and_leaves_its_input() -> None:
    clip = tone(1, amplitude=0.2)
    before = clip.copy()
    assert run(clip, rate_hz=48_000).samples is clip
    steps = [Loudness(kind="loudness", lufs=-40), Loudness(kind="loudness")]
    done = apply_chain(clip, 48_000, steps, clip_key="toy/a.wav")
    assert (done.rate_hz, done.events) == (48_000, ())
    assert loudness_lufs(done.samples, 48_000) == pytest.approx(-23, abs=0.01)
    np.testing.assert_array_equal(clip, before)
    peak = run(clip, {"kind": "loudness"}, {"kind": "peak", "dbfs": -6.0}, rate_hz=48_000).samples
    assert 20 * np.log10(np.abs(peak).max()) == pytest.approx(-6, abs=1e-4)


EVERY_KIND: list[dict[str, Any]] = [
    {"kind": "loudness"},
    {"kind": "peak"},
    {"kind": "rms"},
    {"kind": "remove_dc"},
    {"kind": "trim_silence"},
    {"kind": "trim_silence", "relative_to": "loudness"},
    {"kind": "vad"},
    {"kind": "denoise"},
    {"kind": "fixed_length", "seconds": 0.2},
    {"kind": "fixed_length", "seconds": 3, "pad": "reflect", "place": "centre"},
    {"kind": "telephone"},
    {"kind": "telephone", "codec": "a_law", "output_rate_hz": 16_000},
    {"kind": "resample", "rate_hz": 8000},
    {"kind": "noise", "snr_db": 10, "colour": "pink"},
    {"kind": "reverb", "rt60_seconds": 0.3},
    {"kind": "codec", "codec": "mp3", "bitrate_kbps": 48},
    {"kind": "codec", "codec": "gsm"},
]


def test_every_kind_of_step_is_run_below() -> None:
    known = {arm["properties"]["kind"]["const"] for arm in TypeAdapter(PreprocessSpec).json_schema()["$defs"].values()}
    assert {step["kind"] for step in EVERY_KIND} == known


@pytest.mark.parametrize("step", EVERY_KIND, ids=lambda step: "-".join(map(str, step.values())))
@pytest.mark.parametrize("rate_hz", [8000, 16_000, 22_050, 48_000])
def test_every_step_gives_finite_float32_at_every_rate_and_leaves_its_input(step: dict[str, Any], rate_hz: int) -> None:
    clip = 0.1 * np.random.default_rng(3).standard_normal(rate_hz // 2).astype(np.float32)
    clip.setflags(write=False)
    done, again = (run(clip, step, rate_hz=rate_hz) for _ in range(2))
    assert done.samples.dtype == np.float32
    assert done.samples.ndim == 1
    assert np.isfinite(done.samples).all()
    np.testing.assert_array_equal(done.samples, again.samples)
    if step["kind"] not in ("fixed_length", "trim_silence", "vad"):
        assert len(done.samples) == pytest.approx(len(clip) * done.rate_hz / rate_hz, abs=1)


@pytest.mark.parametrize("step", [{"kind": "trim_silence"}, {"kind": "vad"}], ids=lambda step: str(step["kind"]))
def test_without_speech_a_clip_is_kept_and_counted_or_refused_and_never_emptied(step: dict[str, Any]) -> None:
    quiet = np.full(16_000, 1e-5, np.float32)
    done = run(quiet, step, {"kind": "remove_dc"})
    assert done.events == (f"{step['kind']}: no_speech",)
    assert len(done.samples) == len(quiet)
    np.testing.assert_array_equal(run(quiet, step).samples, quiet)
    with pytest.raises(NoSpeech, match=rf"no speech found \(preprocess\.1, {step['kind']}\)"):
        run(quiet, {"kind": "remove_dc"}, {**step, "no_speech": "refuse"})


def test_events_name_what_happened_to_this_clip_only() -> None:
    clip = tone(0.5, rate_hz=16_000)
    assert run(clip, {"kind": "fixed_length", "seconds": 0.5}).events == ()
    assert run(clip, {"kind": "fixed_length", "seconds": 0.4}).events == ("fixed_length: cut",)
    assert run(clip, {"kind": "fixed_length", "seconds": 0.6}).events == ("fixed_length: filled",)
    assert run(clip, {"kind": "fixed_length", "seconds": 0.6, "pad": "none"}).events == ()
    assert run(clip, {"kind": "resample", "rate_hz": 16_000}).events == ("resample: rate_not_above",)
    assert run(clip, {"kind": "resample", "rate_hz": 8000}).events == ()
    assert run(2 * clip, {"kind": "telephone"}, {"kind": "codec", "codec": "gsm"}).events[0] == "telephone: clipped"
    assert run(0.5 * clip, {"kind": "telephone"}, {"kind": "codec", "codec": "gsm"}).events == ()
    assert run(2 * clip, {"kind": "codec", "codec": "vorbis", "quality": 0.5}).events == ("codec: clipped",)


def test_a_step_that_leaves_no_numbers_is_an_error() -> None:
    with pytest.raises(BadInput, match=r"preprocess\.0 \(remove_dc\) leaves samples that are not finite"):
        run(np.full(100, np.nan, np.float32), {"kind": "remove_dc"})


def test_a_draw_without_a_clip_is_our_own_mistake() -> None:
    with pytest.raises(ValueError, match="needs the clip's key"):
        run(tone(0.1), {"kind": "noise", "snr_db": 0, "colour": "white"}, key="")


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"kind": "loudnes"}, "did you mean 'loudness'"),
        ({"kind": "loudness", "luf": -23}, "did you mean 'lufs'"),
        ({"kind": "trim_silence", "threshold_db": 3}, "preprocess.0.trim_silence.threshold_db: 3 is not valid"),
        ({"kind": "vad", "mode": "cut"}, "'keep_speech' or 'trim_ends'"),
        ({"kind": "vad", "no_speech": "zeros"}, "'keep' or 'refuse'"),
        ({"kind": "denoise", "method": "dns64"}, "'weights' goes with method 'dns64'"),
        ({"kind": "denoise", "weights": "x.th"}, "'weights' goes with method 'dns64'"),
        ({"kind": "denoise", "method": "dns64", "weights": "x", "max_reduction_db": 3}, "method 'log_mmse'"),
        ({"kind": "fixed_length"}, "seconds: required key is missing"),
        ({"kind": "telephone", "high_hz": 3950}, "high_hz <= line_rate_hz / 2 - 100 must hold"),
        ({"kind": "telephone", "low_hz": 3300}, "low_hz + 200 <= high_hz"),
        ({"kind": "noise", "snr_db": 3}, "give one of 'colour' and 'folder'"),
        ({"kind": "noise", "snr_db": 3, "colour": "white", "folder": "x"}, "give one of 'colour' and 'folder'"),
        ({"kind": "reverb"}, "give one of 'rt60_seconds' and 'folder'"),
        ({"kind": "reverb", "folder": "x", "direct_to_reverberant_db": 1}, "goes with 'rt60_seconds'"),
        ({"kind": "codec", "codec": "mp3"}, "'mp3' and 'opus' take 'bitrate_kbps'"),
        ({"kind": "codec", "codec": "gsm", "quality": 0.3}, "'gsm' takes neither"),
        ({"kind": "codec", "codec": "opus", "bitrate_kbps": 300}, "lies between 6 and 256; it is 300"),
    ],
)
def test_wrong_settings_say_what_would_be_valid(step: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse(Chain, {"preprocess": [step]}, source="chain.json", kind="chain")
    assert message in str(caught.value)


def test_files_of_a_chain_resolve_against_its_folder_and_count_by_content(tmp_path: Path) -> None:
    for folder in ("here", "there"):
        (tmp_path / folder / "noises" / "inner").mkdir(parents=True)
        soundfile.write(tmp_path / folder / "noises" / "inner" / "a.wav", tone(0.1), 48_000)
        (tmp_path / folder / "net.th").write_bytes(b"weights")
        (tmp_path / folder / "noises" / "readme.txt").write_text(folder)
    steps = chain(
        {"kind": "noise", "snr_db": 5, "folder": "noises"}, {"kind": "denoise", "method": "dns64", "weights": "net.th"}
    )
    resolved = resolve_chain(steps, tmp_path / "here")
    assert [step.model_dump()[key] for step, key in zip(resolved, ("folder", "weights"), strict=True)] == [
        str(tmp_path / "here" / "noises"),
        str(tmp_path / "here" / "net.th"),
    ]
    assert chain_inputs(steps, tmp_path / "here").keys() == {"0.folder", "1.weights"}
    assert chain_identity(steps, tmp_path / "here") == chain_identity(steps, tmp_path / "there")
    assert chain_identity(resolved, Path("/nowhere")) == chain_identity(steps, tmp_path / "here")
    soundfile.write(tmp_path / "there" / "noises" / "inner" / "a.wav", 0.5 * tone(0.1), 48_000)
    assert chain_identity(steps, tmp_path / "here") != chain_identity(steps, tmp_path / "there")


def test_files_that_a_chain_lacks_are_named_with_the_places_looked_in(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for step, message in [
        (
            {"kind": "noise", "snr_db": 5, "folder": "nois"},
            r"preprocess\.0 \(noise\): folder: 'nois' does not exist; looked",
        ),
        ({"kind": "reverb", "folder": "empty"}, r"holds no \.wav, \.flac"),
        ({"kind": "denoise", "method": "dns64", "weights": "empty"}, "is a folder; expected a file"),
    ]:
        with pytest.raises(BadInput, match=message):
            resolve_chain(chain(step), tmp_path)


def test_the_identity_of_a_chain_holds_its_settings_versions_and_the_weights_of_silero() -> None:
    assert chain_identity((), Path()) == {}
    vad = chain_identity(chain({"kind": "vad"}), Path())
    assert len(vad["inputs"]["vad"]) == 64
    assert {"silero-vad", "torch", "soxr", "numpy", "chain"} <= vad["versions"].keys()
    assert vad != chain_identity(chain({"kind": "vad", "threshold": 0.4}), Path())
    assert "libsndfile" in chain_identity(chain({"kind": "codec", "codec": "gsm"}), Path())["versions"]


def test_what_a_chain_may_do_to_lengths_and_single_clips_is_known_beforehand() -> None:
    assert not has_events(chain({"kind": "loudness"}, {"kind": "noise", "snr_db": 3, "colour": "white"}))
    assert has_events(chain({"kind": "loudness"}, {"kind": "vad"}))
    steps = chain({"kind": "fixed_length", "seconds": 4}, {"kind": "fixed_length", "seconds": 2})
    assert [longest_seconds(seconds, steps) for seconds in (1.0, 5.0)] == [4.0, 5.0]
