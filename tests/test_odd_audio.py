"""Audio that corpora really contain: AIFF called .wav, 96 kHz, 24 bits, ten minutes, three channels."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from ser_scripts.audio import decode
from ser_scripts.audio.decode import UnreadableAudio
from ser_scripts.manifest import build_manifest, survey
from ser_scripts.specs.corpora import AudioFolderCorpus


def noise(seconds: float, rate_hz: int, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, (round(seconds * rate_hz), channels)).astype(np.float32)


def aiff_called_wav(file: Path, seconds: float = 1.0) -> np.ndarray:
    samples = noise(seconds, 24414)
    soundfile.write(file, samples, 24414, format="AIFF", subtype="PCM_16")
    return samples


def test_aiff_called_wav_is_decoded_by_its_content(tmp_path: Path) -> None:
    written = aiff_called_wav(tmp_path / "YAF_germ_angry.wav")
    samples, rate_hz = decode.read(tmp_path / "YAF_germ_angry.wav")
    assert rate_hz == 24414
    assert samples.shape == (1, len(written))
    assert np.abs(samples[0] - written[:, 0]).max() < 1e-4


@pytest.mark.parametrize("kept", [0.3, 0.5, 0.99])
def test_aiff_that_was_cut_is_not_taken_for_a_shorter_one(tmp_path: Path, kept: float) -> None:
    file = tmp_path / "cut.wav"
    aiff_called_wav(file)
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(UnreadableAudio, match=r"cut short|not audio"):
        decode.read(file)


def test_aiff_with_a_chunk_behind_the_sound_is_whole(tmp_path: Path) -> None:
    file = tmp_path / "tail.wav"
    written = aiff_called_wav(file)
    content = bytearray(file.read_bytes()) + b"NAME\0\0\0\4word"
    content[4:8] = (len(content) - 8).to_bytes(4, "big")
    file.write_bytes(content)
    assert decode.read(file)[0].shape == (1, len(written))


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "PCM_U8"])
def test_every_depth_of_wav_is_scaled_alike(tmp_path: Path, subtype: str) -> None:
    samples = noise(0.2, 96_000, 2)
    soundfile.write(tmp_path / "x.wav", samples, 96_000, subtype=subtype)
    read, rate_hz = decode.read(tmp_path / "x.wav")
    assert (read.shape, rate_hz, read.dtype) == ((2, 19_200), 96_000, np.float32)
    assert np.abs(read.T - samples).max() < (0.02 if subtype in ("ULAW", "PCM_U8") else 1e-4)


def test_high_rates_24_bits_and_long_clips_become_a_manifest(tmp_path: Path) -> None:
    folder = tmp_path / "clips" / "sad"
    folder.mkdir(parents=True)
    soundfile.write(folder / "high.wav", noise(1, 96_000), 96_000, subtype="PCM_24")
    soundfile.write(folder / "long.flac", noise(600, 8_000), 8_000, subtype="PCM_16")
    aiff_called_wav(folder / "aiff.wav")
    spec = AudioFolderCorpus(kind="audiofolder", name="odd", path=str(tmp_path / "clips"))
    clips = build_manifest(spec, data=tmp_path, cache=tmp_path / "cache", base=tmp_path).clips.set_index("path")
    assert dict(clips["sample_rate_hz"]) == {"sad/aiff.wav": 24414, "sad/high.wav": 96_000, "sad/long.flac": 8_000}
    assert clips.loc["sad/long.flac", "duration_seconds"] == 600


def test_a_page_of_html_called_wav_is_a_fault_with_its_reason(tmp_path: Path) -> None:
    folder = tmp_path / "clips" / "sad"
    folder.mkdir(parents=True)
    (folder / "lost.wav").write_text("<html>Not found</html>")
    spec = AudioFolderCorpus(kind="audiofolder", name="odd", path=str(tmp_path / "clips"))
    dropped = survey(spec, data=tmp_path, cache=tmp_path / "cache", base=tmp_path).dropped
    assert list(dropped["path"]) == ["sad/lost.wav"]
    assert "not audio that can be decoded" in dropped["reason"][0]
