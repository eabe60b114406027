"""Learning-rate schedules as a factor of the peak rate, a pure function of the update."""

from __future__ import annotations

import math


def factor(kind: str, step: int, *, total: int, warmup: int) -> float:
    """Factor of the learning rate at an update.

    Args:
        kind: `linear`, `cosine`, `constant` (each after a linear warm-up from 0), or `one_cycle`
        step: updates done
        total: updates in all
        warmup: updates over which the rate rises
    """
    if kind == "one_cycle":
        return one_cycle(step, total=total, warmup=warmup)
    if step < warmup:
        return step / max(1, warmup)
    if kind == "constant":
        return 1.0
    done = min(1.0, (step - warmup) / max(1, total - warmup))
    return 1 - done if kind == "linear" else (1 + math.cos(math.pi * done)) / 2


def one_cycle(step: int, *, total: int, warmup: int) -> float:
    """The 1cycle policy (Smith & Topin 2018, cosine form): 1/25 to 1 over the warm-up, then to 4e-6."""
    if step < warmup:
        low, high, position = 1 / 25, 1.0, step / max(1, warmup)
    else:
        low, high, position = 1.0, 1 / 25e4, min(1.0, (step - warmup) / max(1, total - warmup))
    return high + (low - high) * (1 + math.cos(math.pi * position)) / 2
