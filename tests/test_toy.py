"""The toy corpus: the same bytes everywhere, emotions that differ as published, a task of medium difficulty."""

import wave
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.fft import dct

from ser_scripts.corpora import _synthesiser, toy
from ser_scripts.errors import BadInput

RATE_HZ = 16_000


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "toy"
    toy.generate(root, workers=2)
    return root


@pytest.fixture
def one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """A corpus of 56 clips."""
    monkeypatch.setattr(toy, "SENTENCES", {"n5": toy.SENTENCES["n5"]})


def pcm(file: Path) -> NDArray[np.int16]:
    with wave.open(str(file)) as stream:
        assert (stream.getnchannels(), stream.getsampwidth(), stream.getframerate()) == (1, 2, RATE_HZ)
        return np.frombuffer(stream.readframes(stream.getnframes()), "<i2")


# ---- names


def test_the_corpus_is_complete_and_reads_like_emovo(corpus: Path) -> None:
    rows = toy.read(corpus)
    assert len(rows) == toy.EXPECTED_CLIPS == 784
    assert [row.path for row in rows] == sorted(row.path for row in rows)
    assert sorted(Path(row.path).stem for row in rows) == toy.expected_stems(corpus)
    assert Counter(row.class_id for row in rows) == dict.fromkeys(toy.LABELS.values(), 112)
    assert len({row.actor for row in rows}) == toy.EXPECTED_SPEAKERS == 8
    assert Counter(row.gender for row in rows) == {"female": 392, "male": 392}
    row = next(row for row in rows if row.path == "f1/dis-f1-b1.wav")
    assert (row.class_id, row.actor, row.gender, row.sentence) == ("disgusted", "f1", "female", "b1")


def test_a_clip_of_another_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f1").mkdir()
    toy._write("f1/dis-f1-n5.wav", tmp_path, 0)
    (tmp_path / "f1/dis-f1-n5.wav").rename(tmp_path / "f1/dis-f9-n5.wav")
    with pytest.raises(BadInput, match=r"f1/dis-f9-n5\.wav"):
        toy.read(tmp_path)


def test_sentences_hold_only_known_phonemes_and_differ() -> None:
    assert {letter for text in toy.SENTENCES.values() for letter in text} <= {*_synthesiser.PHONEMES, " "}
    assert len(set(toy.SENTENCES.values())) == 14


# ---- determinism


def test_a_clip_is_the_same_in_another_process_and_depends_on_no_other(corpus: Path) -> None:
    for stem in ["tri-m4-n5", "dis-f1-b1", "sor-f3-d2"]:
        np.testing.assert_array_equal(pcm(corpus / stem.split("-")[1] / f"{stem}.wav"), toy.clip(stem))


def test_seeds_and_clips_differ() -> None:
    clips = [toy.clip("rab-f1-n5", seed=seed) for seed in (0, 1)]
    assert len(clips[0]) != len(clips[1]) or (clips[0] != clips[1]).any()
    deliveries = {toy.delivery(stem) for stem in toy.expected_stems(Path())}
    assert len(deliveries) == 784


def test_audio_is_that_of_this_version() -> None:
    """Fails when the audio changes: raise `_VERSION`, then write the new numbers here."""
    assert toy._VERSION == 1
    found = [(len(clip), int(np.abs(clip.astype(int)).sum())) for clip in map(toy.clip, ["neu-m1-n5", "gio-f2-b2"])]
    golden = [(15120, 10475866), (20240, 28156307)]  # samples, sum of magnitudes
    for (samples, total), (golden_samples, golden_total) in zip(found, golden, strict=True):
        assert samples == golden_samples
        assert total == pytest.approx(golden_total, rel=1e-4)


# ---- making it


def test_a_complete_corpus_is_left_alone(tmp_path: Path, one_sentence: None) -> None:
    toy.generate(tmp_path / "toy", workers=1)
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "toy").rglob("*")}
    toy.generate(tmp_path / "toy", workers=1)
    assert before == {file: file.stat().st_mtime_ns for file in (tmp_path / "toy").rglob("*")}
    assert sum(file.suffix == ".wav" for file in before) == 56
    assert [path.name for path in tmp_path.iterdir()] == ["toy"]


def test_other_content_is_an_error_that_names_it(tmp_path: Path, one_sentence: None) -> None:
    root = tmp_path / "toy"
    toy.generate(root, workers=1)
    with pytest.raises(BadInput, match=r"with seed 0, version 1; asked for is seed 7"):
        toy.generate(root, seed=7)
    (root / "f1/dis-f1-n5.wav").unlink()
    (root / "m2/neu-m2-n5.wav").write_bytes(b"RIFF")
    with pytest.raises(BadInput, match=r"2 clips are missing or altered: f1/dis-f1-n5\.wav, m2/neu-m2-n5\.wav"):
        toy.generate(root)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("x")
    with pytest.raises(BadInput, match="was not made by"):
        toy.generate(tmp_path / "mine")
    (tmp_path / "file").write_text("x")
    with pytest.raises(BadInput, match="was not made by"):
        toy.generate(tmp_path / "file")


def test_an_interrupted_run_leaves_no_corpus_and_can_be_repeated(tmp_path: Path, one_sentence: None) -> None:
    def stop(done: int, total: int) -> None:
        assert total == 56
        if done == 3:
            raise KeyboardInterrupt

    root = tmp_path / "toy"
    with pytest.raises(KeyboardInterrupt):
        toy.generate(root, workers=1, progress=stop)
    assert not root.exists()
    toy.generate(root, workers=1)
    assert len(toy.read(root)) == 56


# ---- sound

Measured = dict[str, NDArray[np.float64]]


def frames_of(clip: NDArray[np.float64], length: int, hop: int) -> NDArray[np.float64]:
    return np.lib.stride_tricks.sliding_window_view(clip, length)[::hop]


def pitch_st(frames: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pitch of the loud, periodic frames in semitones over 1 Hz, by autocorrelation; nan elsewhere."""
    centred = (frames - frames.mean(axis=1, keepdims=True)) * np.hanning(frames.shape[1])
    auto = np.fft.irfft(np.abs(np.fft.rfft(centred, 2 * frames.shape[1])) ** 2)[:, : frames.shape[1]]
    window = np.hanning(frames.shape[1])
    bias = np.fft.irfft(np.abs(np.fft.rfft(window, 2 * len(window))) ** 2)[: len(window)]
    shortest, longest = RATE_HZ // 450, RATE_HZ // 65
    normal = (auto / auto[:, :1])[:, shortest:longest] / (bias / bias[0])[shortest:longest]
    # the first lag that is nearly as good as the best: a multiple of the period is as periodic
    good = normal > 0.9 * normal.max(axis=1, keepdims=True)
    peak = good & (normal >= np.roll(normal, 1, axis=1)) & (normal >= np.roll(normal, -1, axis=1))
    lag = shortest + np.where(peak.any(axis=1), peak.argmax(axis=1), normal.argmax(axis=1))
    voiced = (auto[:, 0] > 0.05 * auto[:, 0].max()) & (normal.max(axis=1) > 0.6)
    return np.where(voiced, 12 * np.log2(RATE_HZ / lag), np.nan)


def mel_filters(bands: int, bins: int) -> NDArray[np.float64]:
    mel = np.linspace(0, 2595 * np.log10(1 + 8000 / 700), bands + 2)
    edges = 700 * (10 ** (mel / 2595) - 1)
    hz = np.linspace(0, RATE_HZ / 2, bins)
    rise = (hz[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - hz[:, None]) / (edges[2:] - edges[1:-1])
    return np.maximum(0, np.minimum(rise, fall))  # (bins, bands)


def measure(clip: NDArray[np.float64]) -> Iterator[tuple[str, float | NDArray[np.float64]]]:
    frames = frames_of(clip, 640, 160)
    pitch = pitch_st(frames)
    voiced = ~np.isnan(pitch)
    half = len(pitch) // 2
    power = np.abs(np.fft.rfft(frames * np.hanning(640), axis=1)) ** 2  # (frames, 321), 25 Hz apart
    spectrum = power[voiced].mean(axis=0)
    cepstrum = dct(np.log(power @ mel_filters(40, power.shape[1]) + 1e-8), norm="ortho")[:, :20]
    yield "pitch", float(np.nanmedian(pitch))
    yield "range", float(np.subtract(*np.nanpercentile(pitch, [90, 10])))
    yield "contour", float(np.nanmean(pitch[half:]) - np.nanmean(pitch[:half]))
    yield "level", 10 * np.log10(np.mean(clip**2))
    yield "seconds", len(clip) / RATE_HZ
    yield "brightness", 10 * np.log10(spectrum[60:160].sum() / spectrum[:40].sum())  # 1.5-4 kHz over 0-1 kHz
    yield "mfcc", np.concatenate([cepstrum.mean(axis=0), cepstrum.std(axis=0)])


@pytest.fixture(scope="module")
def measured(corpus: Path) -> Measured:
    """Measures of all clips, in the order of `expected_stems`: (784,) each, mfcc (784, 40)."""
    clips = [pcm(corpus / stem.split("-")[1] / f"{stem}.wav") / 32768 for stem in toy.expected_stems(corpus)]
    rows = [dict(measure(clip)) for clip in clips]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


STEMS = [stem.split("-") for stem in toy.expected_stems(Path())]
EMOTION, ACTOR = np.array([stem[0] for stem in STEMS]), np.array([stem[1] for stem in STEMS])


@pytest.mark.parametrize(
    ("emotion", "higher", "lower"),
    [
        ("rab", "pitch range contour level brightness", "seconds"),
        ("gio", "pitch range contour level brightness", "seconds"),
        ("pau", "pitch contour", "range level brightness seconds"),
        ("tri", "seconds", "pitch range level brightness"),
        ("dis", "seconds", "pitch contour"),
        ("sor", "pitch range contour", "seconds"),
    ],
)
def test_emotions_differ_from_neutral_as_published(measured: Measured, emotion: str, higher: str, lower: str) -> None:
    for sign, names in [(1, higher), (-1, lower)]:
        for name in names.split():
            # both sides hold every actor with every sentence, in the same order
            difference = sign * (measured[name][emotion == EMOTION] - measured[name][EMOTION == "neu"])
            standard_error = difference.std(ddof=1) / np.sqrt(len(difference))
            assert difference.mean() > 2.5 * standard_error, name


def test_emotions_overlap(measured: Measured) -> None:
    """No single measure tells even the two most different emotions from neutral without error."""
    for name in ["pitch", "level", "seconds", "brightness"]:
        for emotion in ["rab", "tri"]:
            mine, neutral = measured[name][emotion == EMOTION], measured[name][EMOTION == "neu"]
            assert mine.min() < neutral.max(), name
            assert neutral.min() < mine.max(), name


def test_voices_and_lengths_are_those_of_speech(measured: Measured) -> None:
    neutral = EMOTION == "neu"
    for actor, voice in toy.VOICES.items():
        hz = 2 ** (measured["pitch"][neutral & (actor == ACTOR)] / 12)
        assert np.median(hz) == pytest.approx(voice.pitch_hz, rel=0.12)
    assert measured["seconds"].min() > 0.6
    assert measured["seconds"].max() < 3.5
    assert 1.2 < measured["seconds"].mean() < 1.7
    assert measured["level"].min() > -45


def loso_uar(features: NDArray[np.float64]) -> float:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    prediction = cross_val_predict(model, features, EMOTION, groups=ACTOR, cv=LeaveOneGroupOut())
    return float(np.mean([(prediction[emotion == EMOTION] == emotion).mean() for emotion in toy.LABELS]))


def test_the_task_is_neither_trivial_nor_hopeless(measured: Measured) -> None:
    shortcut = np.stack([measured[name] for name in ("seconds", "level")], axis=1)
    honest = np.column_stack([measured[name] for name in ("mfcc", "pitch", "range", "contour", "level", "seconds")])
    assert 0.55 < loso_uar(honest) < 0.80
    assert 0.20 < loso_uar(shortcut) < 0.40
