"""Batches that do not fit into memory: halved, with every update keeping its clips, and written down."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ser_eval.run_folder import read_json, write_json
from ser_scripts.errors import Finding
from ser_scripts.training.history import MEMORY


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch says that a device's memory is full; on Apple's it has no class of its own for that."""
    return isinstance(error, torch.OutOfMemoryError) or "MPS backend out of memory" in str(error)


def half(clips: int, single: str) -> int:
    """Clips of half a batch that did not fit, once what torch keeps for itself is given back; rounded up.

    Call it behind the handler of the error, whose traceback keeps the batch in memory.

    Raises:
        Finding: it was a single clip; `single` is what is said then
    """
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if clips == 1:
        raise Finding(single)
    return (clips + 1) // 2


@dataclass
class Fit:
    """How many clips go through at once, for training and for evaluation; None as long as nothing was halved."""

    report: Callable[[str], None] = lambda text: None
    events: list[dict[str, Any]] = field(default_factory=list)
    """One per halving: `part` (training or evaluation), `step`, `clips` that did not fit, `now`."""

    def limit(self, part: str) -> int | None:
        """Clips at once, from the last halving of this part."""
        return next((int(event["now"]) for event in reversed(self.events) if event["part"] == part), None)

    def halve(self, part: str, clips: int, *, step: int, keys: str, keeps: str) -> int:
        """Half of a batch that did not fit, from now on for all batches of this part.

        Args:
            part: `training` or `evaluation`
            clips: of the batch
            step: updates done
            keys: what the user can change, for the error
            keeps: what stays as it was, for the message

        Raises:
            Finding: it was a single clip
        """
        now = half(clips, f"a single clip does not fit into memory in {part}; {keys}")
        self.events.append({"part": part, "step": step, "clips": clips, "now": now})
        self.report(f"out of memory: {clips} clips at once do not fit in {part}; from here on {now} at once, {keeps}")
        return now

    def save(self, folder: Path) -> None:
        """Write the events into a `.partial` folder."""
        write_json(folder / MEMORY, self.events)

    def restore(self, folder: Path, *, step: int) -> None:
        """Take up the events of an interrupted training up to its checkpoint; what came later is met again."""
        if (folder / MEMORY).is_file():
            self.events[:] = [event for event in read_json(folder / MEMORY) if event["step"] <= step]


TRAINING_KEYS = (
    "set training.max_seconds, training.gradient_checkpointing or training.precision 'bf16', or take a smaller encoder"
)
EVALUATION_KEYS = "set encoder.max_seconds, so that long clips are heard in windows, or take a smaller encoder"


def parts(batch: dict[str, Any], size: int) -> list[dict[str, Any]]:
    """A batch in parts of at most `size` clips, in order; what has no row per clip goes along with each.

    Args:
        batch: `inputs` (B, N) or (B, T, bins), `lengths` (B,), and others
        size: at least 1
    """
    count = len(batch["lengths"])
    if size >= count:
        return [batch]
    out = []
    for start in range(0, count, size):
        part = {
            key: value[start : start + size] if isinstance(value, torch.Tensor) and value.ndim else value
            for key, value in batch.items()
        }
        part["inputs"] = part["inputs"][:, : int(part["lengths"].max())]
        out.append({**part, "start": start})
    return out
