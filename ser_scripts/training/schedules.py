"""How the learning rate changes: factors of its peak, pure functions of the step and of the history."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ser_scripts.specs.model import PlateauSpec, StepSpec, TrainingSpec


def improves(metric: str, value: float, best: float, *, min_delta: float = 0.0) -> bool:
    """Whether a value is better than the best so far by more than `min_delta`; a loss is better when lower."""
    return value < best - min_delta if metric == "val_loss" else value > best + min_delta


def schedule(
    spec: TrainingSpec, peak: float, *, total: int, warmup: int, per_epoch: int, history: Sequence[object]
) -> Callable[[int], float]:
    """The factor by which a peak learning rate is multiplied, as a function of the number of updates done.

    Args:
        spec: the scheduler and its parameters
        peak: learning rate of a parameter group
        total: updates of the whole training
        warmup: updates over which the rate rises from 0 (one-cycle schedules: from a 25th)
        per_epoch: updates per epoch
        history: evaluations so far, with the metrics as attributes; read anew at each call (`plateau`)
    """

    def factor(step: int) -> float:
        if spec.scheduler in ("one_cycle", "one_cycle_linear"):
            return one_cycle(step, total=total, warmup=warmup, straight=spec.scheduler == "one_cycle_linear")
        if step < warmup:
            return step / max(1, warmup)
        share = (step - warmup) / max(1, total - warmup)
        if spec.scheduler == "linear":
            value = max(0.0, (total - step) / max(1, total - warmup))
        elif spec.scheduler == "cosine":
            value = max(0.0, 0.5 * (1 + math.cos(math.pi * share)))
        elif spec.scheduler == "plateau":
            plateau = spec.plateau or PlateauSpec()
            value = plateau.factor ** reductions(history, plateau)
        elif spec.scheduler == "step":
            settings = spec.step or StepSpec()
            value = settings.factor ** math.floor((step - warmup) / (settings.epochs * per_epoch))
        else:
            return 1.0
        return max(value, min(1.0, spec.min_learning_rate / peak))

    return factor


def reductions(history: Sequence[object], spec: PlateauSpec) -> int:
    """How often a plateau has lowered the rate: each time more than `patience` evaluations in a row are no better."""
    count = waited = 0
    best: float | None = None
    for row in history:
        value = float(getattr(row, spec.metric))
        if best is None or improves(spec.metric, value, best, min_delta=spec.min_delta):
            best, waited = value, 0
            continue
        waited += 1
        if waited > spec.patience:
            count, waited = count + 1, 0
    return count


def one_cycle(step: int, *, total: int, warmup: int, straight: bool = False) -> float:
    """Factor of the 1cycle policy (Smith & Topin 2018): 1/25 to 1 over the warm-up, then to 4e-6.

    Along a cosine, or along straight lines.
    """
    if step < warmup:
        low, high, position = 1 / 25, 1.0, step / max(1, warmup)
    else:
        low, high, position = 1.0, 1 / 25e4, min(1.0, (step - warmup) / max(1, total - warmup))
    return high + (low - high) * ((1 - position) if straight else (1 + math.cos(math.pi * position)) / 2)
