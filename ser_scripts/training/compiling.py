"""Compiled layers for training: few lengths, counted graphs, and no trace of them in weights or predictions.

Each transformer layer is compiled by itself, so that layers of one build share their code and nothing is renamed in the
state dict; what stands around the layers (features, layer drop, SpecAugment, pooling, head, loss) stays as it is. The
shapes are fixed, so a batch is padded to one of a few lengths, and one with another number of clips than the others
goes through uncompiled, as do evaluation and prediction.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ser_scripts.errors import BadInput
from ser_scripts.modeling.families.base import Encoder, TransformersEncoder
from ser_scripts.specs.model import TrainingSpec

MARGIN_SECONDS = 0.1
"""Padding that every batch has at least: without any, masks would take another form, which would be compiled, too."""
GRAPHS = 256
"""Beyond so many versions of one function torch would quietly stop to compile."""


def check_compiling(encoder: Encoder, device: str) -> None:
    """Refuse to compile where it cannot work, before any training.

    Raises:
        BadInput: no C++ compiler, a device that inductor does not serve, or layers that run code of their own
    """
    if not isinstance(encoder, TransformersEncoder):
        raise BadInput("training.torch_compile goes with an encoder of transformers only; take it out")
    if device not in ("cpu", "cuda"):
        raise BadInput(f"training.torch_compile goes with the devices cpu and cuda, not with '{device}'; take it out")
    name = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(name) is None:
        raise BadInput(
            f"training.torch_compile needs a C++ compiler, and there is no '{name}' here; install it "
            "(Debian: apt-get install g++), name another one in the variable CXX, or take torch_compile out"
        )


def buckets(lengths: Sequence[int], count: int) -> list[int]:
    """Lengths to pad to, ascending: each clip to the next one, at the least padding in all that `count` allow.

    The padded sum of all clips is the smallest that so many lengths can reach (dynamic programming over the sorted
    lengths, at most 256 steps of them), so it is a pure function of the clips.

    Args:
        lengths: of all clips, at least 1 of them
        count: lengths at most; fewer where there are fewer different ones
    """
    sizes, numbers = np.unique(np.asarray(lengths, dtype=np.int64), return_counts=True)
    if len(sizes) > _STEPS:  # clips in groups of like length, each counted at its longest
        step = (int(sizes[-1]) - int(sizes[0])) // _STEPS + 1
        group = (sizes - sizes[0]) // step
        ends = np.append(np.flatnonzero(np.diff(group)), len(sizes) - 1)
        numbers = np.diff(np.cumsum(numbers)[ends], prepend=0)
        sizes = sizes[ends]
    total = np.concatenate([[0], np.cumsum(numbers)])
    # best[j]: padded sum of the clips up to size j with so many lengths; its last one is sizes[j]
    best = (total[1:] * sizes).astype(np.float64)
    cuts: list[list[int]] = []
    for _ in range(min(count, len(sizes)) - 1):
        values, chosen = best.copy(), [-1] * len(sizes)
        for j in range(1, len(sizes)):
            candidates = best[:j] + (total[j + 1] - total[1 : j + 1]) * sizes[j]
            if candidates.min() < values[j]:
                chosen[j] = int(candidates.argmin())
                values[j] = candidates[chosen[j]]
        best = values
        cuts.append(chosen)
    found, last = [], len(sizes) - 1
    for chosen in reversed(cuts):
        found.append(int(sizes[last]))
        last = chosen[last]
        if last < 0:
            return sorted(found)
    return sorted([*found, int(sizes[last])])


_STEPS = 256


class Compiled:
    """The layers of an encoder, compiled while `running`; pads batches and counts what was compiled."""

    def __init__(self, encoder: Encoder, lengths: Sequence[int], spec: TrainingSpec, cache: Path | None) -> None:
        """Choose the lengths.

        Args:
            encoder: of transformers
            lengths: samples of the training clips
            spec: with `torch_compile`
            cache: folder for inductor's files, those of earlier trainings included; None: where torch puts them
        """
        assert spec.torch_compile is not None
        self.encoder = encoder
        self.cache = cache
        self.clips = spec.batch_size
        margin = int(MARGIN_SECONDS * encoder.sample_rate_hz)
        most = np.inf if encoder.takes_seconds is None else int(encoder.takes_seconds * encoder.sample_rate_hz)
        self.samples = [int(min(length + margin, most)) for length in buckets(lengths, spec.torch_compile.lengths)]
        self._features = [len(encoder.features(np.zeros(length, dtype=np.float32))) for length in self.samples]
        self._frames = [encoder.num_frames(length) for length in self._features]
        self.graphs = 0
        self.uncompiled = 0
        """Batches that went through uncompiled, for their number of clips or their length."""

    @contextmanager
    def running(self) -> Iterator[None]:
        """Compile at first use what goes through the layers."""
        layers: list[Any] = list(self.encoder.layers)
        variable = "TORCHINDUCTOR_CACHE_DIR"
        before = os.environ.get(variable)
        if self.cache is not None:
            os.environ[variable] = str(self.cache.absolute() / "inductor")
        from torch._dynamo import config, reset  # behind the variable: to import them makes the folder
        from torch._dynamo.utils import counters

        reset()
        graphs = counters["stats"]["unique_graphs"]
        try:
            with config.patch(recompile_limit=GRAPHS, accumulated_recompile_limit=GRAPHS * 4):
                for layer in layers:
                    layer.compile(dynamic=False)
                yield
        finally:
            self.graphs += counters["stats"]["unique_graphs"] - graphs
            for layer in layers:
                layer._compiled_call_impl = None  # what `Module.compile` sets; there is no other way back
            reset()
            if before is None:
                os.environ.pop(variable, None)
            else:
                os.environ[variable] = before

    def pad(self, inputs: torch.Tensor, *, heard: bool) -> torch.Tensor | None:
        """A batch padded to the next length; None where there is none, or where the batch is not full.

        Args:
            inputs: padded features (B, N) or (B, T, bins), or outputs of the front end (B, T, C)
            heard: the latter
        """
        lengths = self._frames if heard else self._features
        target = next((length for length in lengths if length > inputs.shape[1]), None)
        if self.encoder.fixed_seconds is not None:
            target = inputs.shape[1]
        if target is None or len(inputs) != self.clips:
            self.uncompiled += 1
            return None
        room = inputs.new_zeros((len(inputs), target, *inputs.shape[2:]))
        room[:, : inputs.shape[1]] = inputs
        return room

    def record(self) -> dict[str, Any]:
        """For run.json."""
        return {
            "seconds": [round(length / self.encoder.sample_rate_hz, 3) for length in self.samples],
            "graphs": self.graphs,
            "uncompiled_batches": self.uncompiled,
        }


def uncompiled(compiled: Compiled | None) -> AbstractContextManager[Any]:
    """A context in which layers run as they are."""
    return nullcontext() if compiled is None else torch.compiler.set_stance("force_eager")
