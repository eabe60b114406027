"""The only decoding in the project: a file becomes float32 samples, or an error that says what is wrong with it.

libsndfile (through soundfile) reads WAV, FLAC, MP3, Ogg Vorbis and Ogg Opus, whichever the content is (AIFF is passed
around as `.wav`); `.m4a` goes through the `ffmpeg` program.
libsndfile returns the first half of a file that was cut in two without a word, so each container's own idea of its
length is checked as well.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool, ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from ser_scripts.errors import BadInput

Samples = npt.NDArray[np.float32]
"""Float32 samples in [-1, 1] as decoded: (samples,) when mono, else (channels, samples)."""
Progress = Callable[[int, int], None]
"""Called with (clips done, clips in all)."""

SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a")

_UNKNOWN_FRAMES = 2**40
_STREAMED_BYTES = 0x7FFFF000
"""Sizes from here on are what programs write into a WAV header when they cannot know the length yet."""
_HEADER_SLACK_BYTES = 44
"""Some recorders count the WAV header as data; a shortfall of one header is not a truncated file."""
_MP3_FRAME = 1152
_MP3_RATES_HZ = (44_100, 48_000, 32_000)
_MP3_KBITS = (
    (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),  # MPEG 2 and 2.5, layer III
    (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),  # MPEG 1, layer III
)
_BATCH = 256
_ALONE_SECONDS = 2.0
"""About what it takes until processes that import what they need have earned their start."""


class UnreadableAudio(BadInput):
    """A file that cannot be decoded whole; `reason` says why, without the path."""

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = Path(path)
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def read(path: Path) -> tuple[Samples, int]:
    """Decode a file at its own rate.

    Args:
        path: a file with one of `SUFFIXES`, in capitals or not

    Returns:
        samples of shape (channels, samples) and the rate in Hz. Integer formats are scaled to [-1, 1); float files are
        returned as they are, NaN included. A valid file without samples gives shape (channels, 0).

    Raises:
        UnreadableAudio: no such file, unknown suffix, not audio, corrupt, or cut short. An MP3 without a Xing or Info
            header does not state its length: cut right between two frames, it goes unnoticed.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UnreadableAudio(path, f"{path.suffix or 'no suffix'} is not a known audio format ({', '.join(SUFFIXES)})")
    try:
        if not path.is_file():
            raise UnreadableAudio(path, "no such file")
        if path.stat().st_size == 0:
            raise UnreadableAudio(path, "the file is empty (0 bytes)")
        if suffix == ".m4a":
            return _read_with_ffmpeg(path)
        return _read_with_soundfile(path)
    except OSError as error:
        raise UnreadableAudio(path, f"cannot be opened: {error.strerror or error}") from None


def to_mono(samples: Samples) -> Samples:
    """Mean over the channels: (channels, samples) -> (samples,)."""
    if samples.ndim != 2:
        raise ValueError(f"expected an array of shape (channels, samples), got shape {samples.shape}")
    mono: Samples = samples[0] if len(samples) == 1 else samples.mean(axis=0, dtype=np.float32)
    return mono


def resample(mono: Samples, from_hz: int, to_hz: int) -> Samples:
    """Band-limited resampling of shape (samples,) with soxr's "HQ" recipe; the same array when the rates are equal."""
    if from_hz == to_hz:
        return mono
    resampled: Samples = soxr.resample(mono, from_hz, to_hz, quality="HQ")
    return resampled


Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Iterator[Result]:
    """`function` of every item, in the order of the items, in several processes when there is much to do.

    Processes, not threads: soundfile's decoding does not get faster with threads (measured). They are spawned, since
    forking a process that holds torch's threads can hang.

    Args:
        function: a module-level function, so that it can be sent to a process
        items: what it is called with; at most 256 results are held at once
        workers: number of processes; 1 works in this process. When None, this process works alone for the first two
            seconds, after which the rest is done by one per available core.
        progress: called after each item

    Raises:
        BadInput: if a worker process dies
    """
    yield from _counted(_results(function, items, workers), len(items), progress)


def _results(function: Callable[[Item], Result], items: Sequence[Item], workers: int | None) -> Iterator[Result]:
    start = 0
    if workers is None:
        workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        spent = 0.0
        while workers > 1 and start < len(items) and spent < _ALONE_SECONDS:
            begun = time.monotonic()
            result = function(items[start])
            spent += time.monotonic() - begun  # the caller's own work between two items does not count
            start += 1
            yield result
    rest = items[start:]
    if workers <= 1 or len(rest) < _BATCH // 4:
        yield from map(function, rest)
        return
    with ProcessPoolExecutor(min(workers, len(rest)), mp_context=get_context("spawn")) as pool:
        try:
            yield from _pooled(pool, function, rest)
        except BrokenProcessPool:
            raise BadInput(
                "a process that read audio ended early: out of memory, or a script that starts without "
                "`if __name__ == '__main__':`. With one worker everything is read in this process."
            ) from None


def _pooled(pool: ProcessPoolExecutor, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    rest = iter(items)
    while batch := list(islice(rest, _BATCH)):
        yield from pool.map(function, batch, chunksize=8)


def _counted(results: Iterable[Result], total: int, progress: Progress | None) -> Iterator[Result]:
    for done, result in enumerate(results, start=1):
        if progress is not None:
            progress(done, total)
        yield result


def _read_with_soundfile(path: Path) -> tuple[Samples, int]:
    try:
        with soundfile.SoundFile(path) as file:
            rate_hz, declared, container = int(file.samplerate), int(file.frames), str(file.format)
            if declared >= _UNKNOWN_FRAMES:
                raise UnreadableAudio(path, "its header does not state its length (a streamed FLAC); encode it anew")
            frames = file.read(dtype="float32", always_2d=True)  # in one go: a seek inside Opus changes samples
    except soundfile.LibsndfileError as error:
        reason = error.error_string.strip().rstrip(".")
        raise UnreadableAudio(path, f"not audio that can be decoded, or damaged ({reason})") from None
    lacking = declared - len(frames)
    if container.startswith("WAV"):
        cut = _wav_bytes_missing(path) > _HEADER_SLACK_BYTES
    elif container == "AIFF":
        cut = lacking > 0 or _aiff_bytes_missing(path) > 0
    elif container == "OGG":
        cut = lacking > 0 or not _ogg_ends(path)
    elif container == "MP3":
        cut = not _mp3_whole(path, len(frames), declared)
    else:
        cut = lacking > 0
    if cut:
        what = "damaged or cut short" + (", or does not state its length" if container == "MP3" else "")
        raise UnreadableAudio(path, f"{what}: only {len(frames) / rate_hz:.2f} s of it can be decoded")
    return np.ascontiguousarray(frames.T), rate_hz


def _wav_bytes_missing(path: Path) -> int:
    """Bytes that the data chunk of a RIFF file claims beyond the end of the file."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        if stream.read(4) != b"RIFF":  # RIFX, RF64: rare, and libsndfile's word is all there is
            return 0
        position = 12
        while position + 8 <= size:
            stream.seek(position)
            name, length = struct.unpack("<4sI", stream.read(8))
            position += 8
            if name == b"data":
                return 0 if length >= _STREAMED_BYTES else max(0, position + length - size)
            position += length + length % 2
    return 0


def _aiff_bytes_missing(path: Path) -> int:
    """Bytes that the sound chunk of an AIFF file claims beyond the end of the file."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        position = 12
        while position + 8 <= size:
            stream.seek(position)
            name, length = stream.read(4), int.from_bytes(stream.read(4), "big")
            position += 8
            if name == b"SSND":
                return max(0, position + length - size)
            position += length + length % 2
    return 0


def _ogg_ends(path: Path) -> bool:
    """Whether the last Ogg page is whole and marked as the end of its stream (RFC 3533, section 6)."""
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - 2 * 65307))  # a page has at most 65,307 bytes
        tail = stream.read()
    start = tail.rfind(b"OggS\0")
    if start < 0 or len(tail) < start + 27:
        return False
    segments = tail[start + 26]
    lacing = tail[start + 27 : start + 27 + segments]
    whole = len(lacing) == segments and len(tail) >= start + 27 + segments + sum(lacing)
    return whole and bool(tail[start + 5] & 4)


def _mp3_whole(path: Path, decoded: int, declared: int) -> bool:
    """Whether an MP3 was decoded to its end.

    With a Xing or Info header the declared length holds. Without one libsndfile guesses the length from the first
    frame's bit rate, and stops there: so the frames are counted (ISO/IEC 11172-3, section 2.4.2.3; 13818-3).
    """
    content = path.read_bytes()
    position = 0
    if content[:3] == b"ID3":
        position = 10 + sum(byte << shift for byte, shift in zip(content[6:10], (21, 14, 7, 0), strict=True))
    head = content[position : position + 256]
    if b"Xing" in head or b"Info" in head:
        return decoded >= declared - _MP3_FRAME
    samples = 0
    while position + 4 <= len(content) and content[position] == 0xFF and content[position + 1] & 0xE6 == 0xE2:
        version, second = content[position + 1] >> 3 & 3, content[position + 2]
        bit_rate_index, rate_index, padding = second >> 4, second >> 2 & 3, second >> 1 & 1
        if version == 1 or bit_rate_index in (0, 15) or rate_index == 3:
            break
        rate_hz = _MP3_RATES_HZ[rate_index] >> {3: 0, 2: 1, 0: 2}[version]
        length = 1152 if version == 3 else 576
        position += length // 8 * 1000 * _MP3_KBITS[version == 3][bit_rate_index - 1] // rate_hz + padding
        samples += length
    return samples > 0 and position <= len(content) and decoded >= samples - _MP3_FRAME


def _read_with_ffmpeg(path: Path) -> tuple[Samples, int]:
    """Decode with ffmpeg into a pipe, as Sun AU: float32 behind a small header that names rate and channels."""
    program = shutil.which("ffmpeg")
    if program is None:
        raise UnreadableAudio(
            path,
            "reading .m4a needs the program ffmpeg, which is not on the PATH. Install it "
            "(e.g. `apt-get install ffmpeg`), or convert the file to FLAC",
        )
    command = [program, "-nostdin", "-v", "error", "-xerror", "-i", str(path.absolute()), "-map", "0:a:0"]
    command += ["-c:a", "pcm_f32be", "-f", "au", "pipe:1"]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode != 0 or len(done.stdout) < 24:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise UnreadableAudio(path, f"ffmpeg cannot decode it: {lines[-1] if lines else f'exit {done.returncode}'}")
    magic, offset, _, encoding, rate_hz, channels = struct.unpack(">4s5I", done.stdout[:24])
    if magic != b".snd" or encoding != 6 or channels == 0:
        raise UnreadableAudio(path, "ffmpeg returned something else than float32 samples")
    frames = np.frombuffer(done.stdout, dtype=">f4", offset=offset).reshape(-1, channels)
    return np.ascontiguousarray(frames.T, dtype=np.float32), int(rate_hz)
