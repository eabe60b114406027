"""A running average of the weights of a training, which is what validation, selection and tests see."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ser_scripts.modeling.model import SerModel
from ser_scripts.specs.model import WeightAverageSpec

FILE = "weight_average.safetensors"
"""In a checkpoint: the average so far. The checkpoint's own weights are those of the training."""


class _Changing(nn.Module):
    """What a training changes of a model: the parameters that it ever trains, and running statistics.

    The tensors are the model's own, so that a copy of this module holds no frozen weight a second time.
    """

    def __init__(self, model: SerModel) -> None:
        super().__init__()
        ever_trained = {id(one) for group in model.parameter_groups(1.0, None, 0.0) for one in group["params"]}
        for name, parameter in model.named_parameters():
            if id(parameter) in ever_trained:
                self.register_parameter(_flat(name), parameter)
        saved = model.state_dict(keep_vars=True)
        for name, buffer in model.named_buffers():  # counters and what is not saved follow the training
            if name in saved and buffer.is_floating_point():
                self.register_buffer(_flat(name), buffer)


class WeightAverage:
    """An exponential moving average (Polyak & Juditsky 1992) by torch's `AveragedModel`, from a given update on."""

    def __init__(self, model: SerModel, spec: WeightAverageSpec, *, updates: int) -> None:
        """Take a copy of the trained weights.

        Args:
            model: on its device
            spec: decay and start
            updates: of the whole training
        """
        self.spec = spec
        self.first = int(spec.start * updates) + 1
        self._changing = _Changing(model)
        self._averaged = AveragedModel(self._changing, multi_avg_fn=self._average, use_buffers=True)

    @property
    def count(self) -> int:
        """Updates whose weights are in the average."""
        return int(self._averaged.n_averaged)

    def update(self, step: int) -> None:
        """Take in the weights after an update; `step` counts them from 1."""
        if step >= self.first:
            self._averaged.update_parameters(self._changing)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """A context in which the model has the averaged weights; before the first average, its own."""
        if not self.count:
            yield
            return
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def save(self, folder: Path) -> None:
        """Write the average into a checkpoint."""
        save_file({name: value.contiguous().clone() for name, value in self._state().items()}, folder / FILE)

    def load(self, folder: Path) -> None:
        """Go on with the average of a checkpoint."""
        self._averaged.load_state_dict(load_file(folder / FILE))

    def _state(self) -> dict[str, Any]:
        state: dict[str, Any] = self._averaged.state_dict()
        return state

    def _average(self, averages: Any, weights: Any, count: Any) -> None:
        """A young average forgets faster: after n updates the decay is (1 + n) / (10 + n) at most."""
        take_in = get_ema_multi_avg_fn(decay_after(int(count), self.spec.decay))  # type: ignore[no-untyped-call]
        take_in(averages, weights, count)

    def _swap(self) -> None:
        """Exchange the memory of both, which copies nothing."""
        for own, other in zip(_tensors(self._changing), _tensors(self._averaged.module), strict=True):
            own.data, other.data = other.data, own.data


def decay_after(count: int, decay: float) -> float:
    """The share of the old average when weights are taken in: `decay`, at first less.

    Args:
        count: weights that are in the average already, at least 1
        decay: after many updates
    """
    return min(decay, (1 + count) / (10 + count))


def _tensors(module: nn.Module) -> list[torch.Tensor]:
    return [*module.parameters(), *module.buffers()]


def _flat(name: str) -> str:
    """Names of parameters have no dots."""
    return name.replace(".", "/")
