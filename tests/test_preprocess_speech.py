"""Speech detection and noise reduction: against the package's own code, on real speech, and on toys."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from ser_scripts.audio import decode
from ser_scripts.audio.steps import dns64, speech
from ser_scripts.audio.steps.conditions import Colour, add_noise, coloured_noise
from ser_scripts.audio.steps.denoise import log_mmse
from ser_scripts.audio.steps.speech import FRAME, RATE_HZ, cut_to_speech, segments, speech_probabilities
from ser_scripts.audio.steps.threads import one_thread
from ser_scripts.errors import BadInput


@pytest.fixture
def silero() -> Iterator[Any]:
    """The package's own modules; their import sets torch's number of threads."""
    threads = torch.get_num_threads()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import silero_vad
        from silero_vad import utils_vad

        yield silero_vad.load_silero_vad(), utils_vad
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def voices(ser_data: Path) -> list[np.ndarray]:
    """Clips of EmoDB at 16 kHz, of every emotion and several speakers."""
    files = sorted((ser_data / "emodb" / "wav").iterdir())[::45]
    return [decode.to_mono(decode.read(file)[0]) for file in files]


def cut(clip: np.ndarray, rate_hz: int = RATE_HZ, mode: Any = "trim_ends", **settings: float) -> np.ndarray | None:
    options = {"threshold": 0.5, "min_speech_seconds": 0.25, "min_silence_seconds": 0.1, "pad_seconds": 0.05} | settings
    return cut_to_speech(clip, rate_hz, mode=mode, **options)


@pytest.mark.real
def test_the_probabilities_are_those_of_the_package(voices: list[np.ndarray], silero: Any) -> None:
    network, _ = silero
    for clip in voices[:4]:
        network.reset_states()
        padded = torch.from_numpy(np.pad(clip, (0, -len(clip) % FRAME)))
        with torch.inference_mode():
            theirs = [network(chunk, RATE_HZ).item() for chunk in padded.split(FRAME)]
        np.testing.assert_allclose(speech_probabilities(clip), theirs, atol=1e-4)


@pytest.mark.real
def test_long_recordings_are_heard_in_blocks_without_a_seam(
    voices: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = np.concatenate(voices[:3])
    whole = speech_probabilities(clip)
    monkeypatch.setattr(speech, "_BLOCK", 50)
    assert len(whole) > 4 * 50
    np.testing.assert_allclose(speech_probabilities(clip), whole, atol=1e-5)


@given(
    steps=st.lists(st.floats(-0.4, 0.4), min_size=1, max_size=80),
    threshold=st.sampled_from([0.3, 0.5, 0.7]),
    min_speech_ms=st.sampled_from([0, 100, 250]),
    min_silence_ms=st.sampled_from([0, 100, 200]),
    pad_ms=st.sampled_from([0, 30, 50]),
)
def test_the_segments_are_those_of_the_package(
    steps: list[float], threshold: float, min_speech_ms: int, min_silence_ms: int, pad_ms: int
) -> None:
    threads = torch.get_num_threads()
    from silero_vad.utils_vad import get_speech_timestamps_from_probs

    torch.set_num_threads(threads)
    probabilities = np.clip(0.5 + np.cumsum(steps), 0, 1).astype(np.float32)
    end = len(probabilities) * FRAME
    theirs = get_speech_timestamps_from_probs(
        probabilities.tolist(),
        threshold=threshold,
        min_speech_duration_ms=min_speech_ms,
        min_silence_duration_ms=min_silence_ms,
        speech_pad_ms=pad_ms,
        audio_length_samples=end,
    )
    ours = segments(
        probabilities,
        threshold=threshold,
        min_speech_seconds=min_speech_ms / 1000,
        min_silence_seconds=min_silence_ms / 1000,
        pad_seconds=pad_ms / 1000,
    )
    assert [(start, min(stop, end)) for start, stop in ours] == [(one["start"], one["end"]) for one in theirs]


@pytest.mark.real
@pytest.mark.parametrize("rate_hz", [16_000, 44_100])
@pytest.mark.parametrize("mode", ["trim_ends", "keep_speech"])
def test_added_silence_is_cut_within_a_tenth_of_a_second_and_speech_is_kept(
    voices: list[np.ndarray], rate_hz: int, mode: str
) -> None:
    random = np.random.default_rng(5)
    kept = []
    for clip in voices:
        alone = cut(decode.resample(clip, RATE_HZ, rate_hz), rate_hz, mode)
        pause = (1e-4 * random.standard_normal(RATE_HZ)).astype(np.float32)  # -80 dBFS
        longer = decode.resample(np.concatenate([pause, clip, pause, pause]), RATE_HZ, rate_hz)
        trimmed = cut(longer, rate_hz, mode)
        assert alone is not None
        assert trimmed is not None
        assert len(trimmed) <= (len(clip) / RATE_HZ + 0.2) * rate_hz  # 0.1 s at each end
        kept.append(np.sum(trimmed.astype(float) ** 2) / np.sum(longer.astype(float) ** 2))
        if mode == "trim_ends":
            assert len(trimmed) == pytest.approx(len(alone), abs=0.2 * rate_hz)
    # some clips begin with a loud syllable, whose first frame is not yet taken for speech
    assert np.mean(kept) > 0.985, kept
    assert np.min(kept) > 0.89, kept


@pytest.mark.real
def test_pauses_between_utterances_go_only_when_asked(voices: list[np.ndarray]) -> None:
    pause = np.zeros(RATE_HZ, np.float32)
    clip = np.concatenate([voices[0], pause, voices[1], pause])
    joined, trimmed = cut(clip, mode="keep_speech"), cut(clip, mode="trim_ends")
    assert joined is not None
    assert trimmed is not None
    assert len(trimmed) - len(joined) >= 0.8 * RATE_HZ
    assert len(clip) - len(trimmed) == pytest.approx(RATE_HZ, abs=0.3 * RATE_HZ)


@pytest.mark.real
def test_every_sampled_clip_of_emodb_has_speech_and_noise_has_none(voices: list[np.ndarray]) -> None:
    assert all(cut(clip) is not None for clip in voices)
    for colour in ("white", "pink", "brown"):
        noise = coloured_noise(3 * RATE_HZ, RATE_HZ, colour=colour, random=np.random.default_rng(0))  # type: ignore[arg-type]
        assert cut(0.1 * noise / np.abs(noise).max()) is None


def test_a_clip_without_samples_or_shorter_than_a_frame_has_no_speech() -> None:
    assert speech_probabilities(np.zeros(0, np.float32)).shape == (0,)
    assert speech_probabilities(np.zeros(10, np.float32)).shape == (1,)
    assert cut(np.zeros(10, np.float32)) is None


def test_the_network_leaves_threads_and_random_numbers_of_torch_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        torch.manual_seed(1)
        expected = torch.rand(3)
        torch.manual_seed(1)
        speech._network.cache_clear()
        first = speech_probabilities(np.random.default_rng(0).standard_normal(8000).astype(np.float32))
        assert torch.get_num_threads() == 2
        torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)
        torch.set_num_threads(1)
        second = speech_probabilities(np.random.default_rng(0).standard_normal(8000).astype(np.float32))
        np.testing.assert_array_equal(first, second)
        with pytest.raises(RuntimeError), one_thread():
            raise RuntimeError
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_a_missing_package_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speech.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match="silero-vad, which is not installed"):
        speech.weights_file()


def si_snr_db(estimate: np.ndarray, clean: np.ndarray) -> float:
    """Scale-invariant signal-to-noise ratio (Le Roux et al., "SDR - half-baked or well done?", ICASSP 2019)."""
    e, c = estimate.astype(float) - estimate.mean(), clean.astype(float) - clean.mean()
    target = (e @ c) / (c @ c) * c
    return float(10 * np.log10((target @ target) / np.sum((e - target) ** 2)))


@pytest.mark.real
@pytest.mark.parametrize(
    ("colour", "snr_db", "mean_gain_db", "least_gain_db"),
    [("white", 5, 5.5, 4.0), ("pink", 5, 3.8, 2.0), ("speech_shaped", 5, 2.0, 0.5), ("white", 15, 1.5, -2.0)],
)
def test_noise_is_reduced_in_real_speech(
    voices: list[np.ndarray], colour: Colour, snr_db: float, mean_gain_db: float, least_gain_db: float
) -> None:
    gains = []
    for number, clip in enumerate(voices):
        noise = coloured_noise(len(clip), RATE_HZ, colour=colour, random=np.random.default_rng(number))
        noisy = add_noise(clip, noise, snr_db=snr_db)
        gains.append(si_snr_db(log_mmse(noisy, RATE_HZ, max_reduction_db=12), clip) - si_snr_db(noisy, clip))
    assert np.mean(gains) > mean_gain_db, gains
    assert np.min(gains) > least_gain_db, gains


@pytest.mark.real
def test_clean_speech_stays_nearly_as_it_is(voices: list[np.ndarray]) -> None:
    assert min(si_snr_db(log_mmse(clip, RATE_HZ, max_reduction_db=12), clip) for clip in voices) > 12


@pytest.mark.parametrize("max_reduction_db", [6.0, 12.0, 30.0])
def test_stationary_noise_alone_falls_by_what_is_allowed(max_reduction_db: float) -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal(4 * RATE_HZ).astype(np.float32)
    less = log_mmse(noise, RATE_HZ, max_reduction_db=max_reduction_db)
    inside = slice(RATE_HZ, -RATE_HZ)
    fall_db = -20 * np.log10(less[inside].std() / noise[inside].std())
    assert fall_db <= max_reduction_db + 0.01
    assert fall_db > min(0.7 * max_reduction_db, 12)


@pytest.mark.parametrize("size", [1, 2, 100, 511, 512, 513, 4000])
@pytest.mark.parametrize("rate_hz", [8000, 48_000])
def test_noise_reduction_keeps_every_length_and_silence(size: int, rate_hz: int) -> None:
    noise = np.random.default_rng(0).standard_normal(size).astype(np.float32)
    assert log_mmse(noise, rate_hz, max_reduction_db=12).shape == (size,)
    np.testing.assert_array_equal(log_mmse(np.zeros(size, np.float32), rate_hz, max_reduction_db=12), 0)


@pytest.fixture
def small() -> dns64.Network:
    torch.manual_seed(0)
    return dns64.Network(hidden=4).eval()


def test_dns64_has_the_parameters_of_the_paper() -> None:
    """33.53 and 18.87 million with 64 and 48 channels (table 1 of Défossez et al.)."""
    with torch.device("meta"):
        sizes = [sum(one.numel() for one in dns64.Network(hidden).parameters()) for hidden in (64, 48)]
    assert sizes == [33_533_569, 18_867_937]


def test_dns64_has_the_names_of_the_published_weights(small: dns64.Network) -> None:
    names = {f"encoder.{level}.{layer}.{kind}" for level in range(5) for layer in (0, 2) for kind in ("weight", "bias")}
    names |= {name.replace("encoder", "decoder") for name in names}
    names |= {
        f"lstm.lstm.{kind}_{part}_l{layer}" for kind in ("weight", "bias") for part in ("ih", "hh") for layer in (0, 1)
    }
    assert set(small.state_dict()) == names
    assert small.encoder[1][0].weight.shape == (8, 4, 8)
    assert small.decoder[0][2].weight.shape == (64, 32, 8)


@pytest.mark.parametrize("changed_from", [3000, 4999, 5000, 5064])
def test_dns64_hears_no_more_of_the_future_than_it_says(small: dns64.Network, changed_from: int) -> None:
    first = torch.randn(1, 1, 8000)
    second = first.clone()
    second[..., changed_from:] = torch.randn(8000 - changed_from)
    with torch.inference_mode():
        differs = (small.enhance(first) != small.enhance(second))[0, 0].numpy()
    assert not differs[: changed_from - dns64.lookahead()].any()
    assert differs[changed_from:].mean() > 0.99
    assert dns64.lookahead() < 0.05 * dns64.RATE_HZ


@pytest.mark.parametrize("length", [2, 597, 598, 1000, 4097])
def test_dns64_keeps_the_length_and_follows_the_level(small: dns64.Network, length: int) -> None:
    clip = torch.randn(2, 1, length)
    with torch.inference_mode():
        clean, louder = small(clip), small(50 * clip)
    assert clean.shape == clip.shape
    torch.testing.assert_close(louder / 50, clean, rtol=0.02, atol=1e-3)
    assert dns64.padded_length(length) >= length
    assert dns64.padded_length(dns64.padded_length(length)) == dns64.padded_length(length)


def test_the_resamplers_of_dns64_double_and_halve_the_rate() -> None:
    tones = [torch.sin(2 * torch.pi * 1000 * torch.arange(size) / rate) for size, rate in ((2000, 16e3), (4000, 32e3))]
    slow, fast = (tone[None, None] for tone in tones)
    torch.testing.assert_close(dns64._double(slow)[..., 300:-300], fast[..., 300:-300], atol=1e-3, rtol=0)
    torch.testing.assert_close(dns64._halve(fast)[..., 200:-200], slow[..., 200:-200], atol=1e-3, rtol=0)
    assert dns64._halve(fast[..., :3999]).shape[-1] == 2000


@pytest.mark.parametrize("suffix", [".th", ".safetensors"])
def test_dns64_weights_make_a_round_trip_through_a_file(small: dns64.Network, tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"net{suffix}"
    if suffix == ".th":
        torch.save(small.state_dict(), file)
    else:
        save_file(small.state_dict(), file)
    clip = 0.1 * np.random.default_rng(0).standard_normal(4000).astype(np.float32)
    with torch.inference_mode():
        expected = small(torch.from_numpy(clip)[None, None])[0, 0].numpy()
    np.testing.assert_allclose(dns64.dns64(clip, 16_000, weights=file), expected, atol=1e-6)
    assert dns64.dns64(clip[:3999], 44_100, weights=file).shape == (3999,)


def test_other_weights_than_those_of_dns64_are_refused(small: dns64.Network, tmp_path: Path) -> None:
    clip = np.zeros(1000, np.float32)
    without = dict(list(small.state_dict().items())[:-1])
    for content, message in [
        ({"weight": torch.zeros(3)}, "'encoder.0.0.weight' is missing"),
        (without, "Missing key"),
        ([1, 2], "'encoder.0.0.weight' is missing"),
        (small, "cannot be read as plain weights"),
    ]:
        torch.save(content, tmp_path / "net.th")
        with pytest.raises(BadInput, match=message):
            dns64.dns64(clip, 16_000, weights=tmp_path / "net.th")
        dns64._load.cache_clear()
    (tmp_path / "net.th").write_bytes(b"no weights")
    with pytest.raises(BadInput, match="cannot be read as plain weights"):
        dns64.dns64(clip, 16_000, weights=tmp_path / "net.th")
