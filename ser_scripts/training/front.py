"""What a frozen front end makes of each clip, computed once per training and kept in a file without a name.

The convolutions of wav2vec 2.0 and its relatives are frozen in fine-tuning as a rule, and then give the same in every
epoch. Each clip goes through them alone, so that what is kept depends on nothing else: a training with all clips kept,
some or none has the same bits, and one that was killed computes them again.

The file lies in the cache folder, and the system frees it when the process ends, however it ends. 1 s of speech takes
0.1 MB (50 frames of 512 float32), EmoDB 0.15 GB, CREMA-D 1.9 GB; what the memory has room for is read from there.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import IO, Any

import torch

from ser_scripts.modeling.families.base import Encoder, pad

FRONT_CACHE_BYTES = 8 << 30
"""Of outputs that a training keeps, and never more than half of what is free on the disk."""


class FrontCache:
    """Outputs of an encoder's front end by clip; without a folder, or beyond the limit, they are computed anew."""

    def __init__(
        self,
        encoder: Encoder,
        folder: Path | None,
        *,
        limit: int = FRONT_CACHE_BYTES,
        report: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Nothing is computed or written yet.

        Args:
            encoder: where it has no front end, or one that is trained, batches stay as they are
            folder: for the file; None keeps nothing
            limit: bytes to keep at most
            report: takes a line when the disk cannot be written to
        """
        self.encoder = encoder
        self.folder = folder
        self.limit = limit
        self.report = report
        self.hits = self.misses = 0
        self._file: IO[bytes] | None = None
        self._end = 0
        self._places: dict[Hashable, tuple[int, torch.dtype, tuple[int, ...]]] = {}

    def batch(
        self, inputs: torch.Tensor, lengths: torch.Tensor, keys: Sequence[Hashable | None]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A batch as `encoder.forward` takes it: with the outputs of a frozen front end in place of the features.

        Args:
            inputs: padded features, (B, N)
            lengths: valid ones, (B,)
            keys: a name per clip that stands for its features and no others; None where they are not met again

        Returns:
            padded outputs (B, T, C) in the type that the convolutions give, and their numbers of frames (B,); or what
            was given, where the front end is trained or there is none
        """
        encoder = self.encoder
        if not encoder.hears_alone or any(part.requires_grad for part in encoder.front_end_parameters()):
            return inputs, lengths
        outputs = []
        for row, length, key in zip(inputs, lengths.tolist(), keys, strict=True):
            output = self._read(key, inputs.device)
            if output is None:
                output = encoder.front_output(row[:length])
                if key is not None:
                    self._write(key, output)
            outputs.append(output)
        return pad(outputs)

    def _read(self, key: Hashable | None, device: torch.device) -> torch.Tensor | None:
        """The output (T, C) of a clip, if it is kept."""
        place = self._places.get(key)
        if place is None or self._file is None:
            self.misses += 1
            return None
        self.hits += 1
        start, dtype, shape = place
        output = torch.empty(shape, dtype=dtype)
        room = memoryview(_bytes(output))
        self._file.seek(start)
        while room:
            read = self._file.readinto(room)  # type: ignore[attr-defined]
            if not read:
                raise OSError(f"the front-end outputs in {self.folder} have been cut off")
            room = room[read:]
        return output.to(device)

    def _write(self, key: Hashable, output: torch.Tensor) -> None:
        size = output.numel() * output.element_size()
        if self.folder is None or key in self._places or self._end + size > self.limit:
            return
        try:
            if self._file is None:
                self.folder.mkdir(parents=True, exist_ok=True)
                self._file = tempfile.TemporaryFile(dir=self.folder, buffering=0)  # noqa: SIM115  as long as this lives
                self.limit = min(self.limit, shutil.disk_usage(self.folder).free // 2)
            self._file.seek(self._end)
            rest = memoryview(_bytes(output.detach().cpu().contiguous()))
            assert len(rest) == size
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            self.limit = self._end
            self.report(
                f"{self.folder} cannot be written to ({error.strerror or error}): what the front end makes of further "
                "clips is computed anew in every epoch, with the same results"
            )
            return
        self._places[key] = (self._end, output.dtype, tuple(output.shape))
        self._end += size


def _bytes(tensor: torch.Tensor) -> Any:
    """The memory of a contiguous tensor on the CPU, as a flat array of bytes; numpy has no bfloat16."""
    return tensor.view(-1).view(torch.uint8).numpy()
