"""Sound files that transforms mix in: found in a fixed order, checked before training, read by the one decoder."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ser_scripts.errors import BadInput

if TYPE_CHECKING:
    import torch

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".aif", ".aiff")
"""What every reader involved opens; torch_audiomentations looks for .wav only."""


def resolve(value: str, *, base: Path, where: str) -> Path:
    """A file or folder named in a spec: absolute, relative to the spec's folder, or to the working directory.

    Raises:
        BadInput: it exists in none of these places
    """
    tried = [(folder / value).resolve() for folder in (base, Path.cwd())]
    for path in tried:
        if value and path.exists():
            return path
    raise BadInput(f"{where}: {value!r} does not exist; looked for {' and '.join(dict.fromkeys(map(str, tried)))}")


def sound_files(paths: Sequence[Path], *, suffixes: Sequence[str] = SUFFIXES, where: str) -> list[Path]:
    """All sound files of the given files and folders, in order of their relative path, each one readable.

    The libraries walk folders in the order of the file system, so that a draw would differ between machines.

    Raises:
        BadInput: there are none, or some cannot be opened
    """
    import soundfile

    found: list[Path] = []
    for path in paths:
        inside = sorted((p for p in path.rglob("*") if p.is_file()), key=lambda p: p.relative_to(path).as_posix())
        found += [p for p in (inside if path.is_dir() else [path]) if p.suffix.lower() in suffixes]
    if not found:
        raise BadInput(f"{where}: no {', '.join(suffixes)} file in {', '.join(map(str, paths))}")
    bad = []
    for file in found:
        try:
            if soundfile.info(str(file)).frames == 0:
                bad.append(f"{file} (empty)")
        except soundfile.SoundFileError as error:
            bad.append(f"{file} ({error})")
    if bad:
        raise BadInput(f"{where}: {len(bad)} unreadable sound file(s): {'; '.join(bad[:5])}")
    return found


def sha256_of(files: Sequence[Path]) -> str:
    """SHA-256 over the SHA-256 of each file, in order: where they lie does not count."""
    return hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files)).hexdigest()


class SoundFileAudio:
    """Stands in for the file reader of torch_audiomentations, which calls functions that torchaudio no longer has.

    A transform of that library uses its attribute `audio` when it has one; the library itself is not touched.
    """

    def __init__(self, rate_hz: int):
        self.rate_hz = rate_hz

    def get_num_samples(self, file: Path | str) -> int:
        """Length of a file at `rate_hz`."""
        return len(_mono(str(file), self.rate_hz))

    def __call__(self, file: Path | str, sample_offset: int = 0, num_samples: int | None = None) -> torch.Tensor:
        """The mono mix of a part of a file at `rate_hz`, shape (1, samples)."""
        import torch

        end = None if num_samples is None else sample_offset + num_samples
        return torch.from_numpy(_mono(str(file), self.rate_hz)[None, sample_offset:end].copy())

    @staticmethod
    def rms_normalize(samples: torch.Tensor) -> torch.Tensor:
        """Divide by the root mean square over the last axis; silence stays silence."""
        return samples / samples.square().mean(dim=-1, keepdim=True).sqrt().clamp_min(1e-8)


@functools.lru_cache(maxsize=8)
def _mono(file: str, rate_hz: int) -> NDArray[np.float32]:
    from ser_scripts.audio import decode

    samples, file_rate_hz = decode.read(Path(file))
    return decode.resample(decode.to_mono(samples), file_rate_hz, rate_hz)
