"""Mixup and CutMix: the clips of a training batch are mixed, and so are their targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ser_scripts.specs.augmentation import Cutmix, Mixup

if TYPE_CHECKING:
    import torch

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Draw:
    """What is drawn for one batch."""

    share: float
    """Of every clip itself; its partner has the rest."""
    partners: tuple[int, ...]
    """Number of each clip's partner in the batch; a clip may be its own."""
    places: tuple[float, ...]
    """For CutMix: where the pasted stretch begins, in [0, 1) of the room that it has."""


def draw_mix(spec: Mixup | Cutmix, size: int, *, seed: int) -> Draw | None:
    """The mix of a batch of `size` clips; None where this batch stays as it is."""
    generator = np.random.Generator(np.random.PCG64(seed))
    if generator.random() >= spec.probability:
        return None
    share = float(generator.beta(spec.alpha, spec.alpha))
    partners = tuple(int(number) for number in generator.permutation(size))
    return Draw(share, partners, tuple(float(place) for place in generator.random(size)))


def mix(spec: Mixup | Cutmix, clips: Sequence[Array], drawn: Draw) -> tuple[list[Array], list[float]]:
    """Mix the clips of a batch, before padding.

    mixup: `share * clip + (1 - share) * partner`, the shorter one continued with zeros; the mix is as long as the
    longer one, so that the padding mask of the batch is that of both (a clip whose share is 0 counts for nothing).
    cutmix: a stretch of the partner replaces the same stretch of the clip. It has `1 - share` of the shorter one's
    rows, rounded; the clip keeps its length.

    Args:
        spec: the kind of mix
        clips: samples (N,) or features (T, ...), time first; left as they are
        drawn: of the batch

    Returns:
        the mixed clips, and the part of each that is its own: the weight of its target, in [0, 1]
    """
    mixed, own = [], []
    for number, partner in enumerate(drawn.partners):
        clip, other = clips[number], clips[partner]
        if number == partner:
            one, part = clip, 1.0
        elif spec.kind == "mixup":
            one, part = _add(clip, other, drawn.share), drawn.share
        else:
            one, part = _paste(clip, other, drawn.share, drawn.places[number])
        mixed.append(one)
        own.append(part)
    return mixed, own


def mix_targets(targets: torch.Tensor, partners: Sequence[int], own: Sequence[float]) -> torch.Tensor:
    """`own * target + (1 - own) * partner's target`, (B, K), of float32 rows that sum to 1."""
    import torch

    weight = torch.tensor(own, dtype=torch.float32)[:, None]
    return weight * targets + (1 - weight) * targets[list(partners)]


def _add(clip: Array, other: Array, share: float) -> Array:
    if share == 1:
        return clip
    if share == 0:
        return other
    total = np.zeros((max(len(clip), len(other)), *clip.shape[1:]), dtype=np.float32)
    total[: len(clip)] += np.float32(share) * clip
    total[: len(other)] += np.float32(1 - share) * other
    return total


def _paste(clip: Array, other: Array, share: float, place: float) -> tuple[Array, float]:
    shorter = min(len(clip), len(other))
    width = round((1 - share) * shorter)
    if width == 0:
        return clip, 1.0
    start = int(place * (shorter - width + 1))
    pasted = clip.copy()
    pasted[start : start + width] = other[start : start + width]
    return pasted, 1 - width / len(clip)
