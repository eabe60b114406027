"""What several test files make: noise as clips, a batch of it, a network away from its start, `ser` in this process."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
import typer

from ser_scripts import cli
from ser_scripts.modeling.model import SerModel
from ser_scripts.training import loop


def clips(*samples: int) -> list[np.ndarray]:
    """White noise, one clip per length in samples."""
    rng = np.random.default_rng(0)
    return [(0.1 * rng.standard_normal(size)).astype(np.float32) for size in samples]


def batch_of(model: SerModel, *samples: int) -> dict[str, torch.Tensor]:
    """The model's own batch of such clips."""
    return model.encoder.collate([model.encoder.features(clip) for clip in clips(*samples)])


def shake(model: torch.nn.Module, *, variance: tuple[float, float] = (0.5, 2.0)) -> None:
    """Give weights and running statistics values that are not their start, so that no norm is the identity."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(*variance)
            elif tensor.is_floating_point() and tensor.ndim == 1:
                tensor.add_(0.3 * torch.randn_like(tensor))


def ser(*arguments: Any) -> int:
    """Run `ser` with these arguments in this process; returns its exit code."""
    with patch.object(sys, "argv", ["ser", *map(str, arguments)]), pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


def predictions(runs: Path) -> dict[str, bytes]:
    """Every file of predictions below a folder, by its place there."""
    return {file.relative_to(runs).as_posix(): file.read_bytes() for file in sorted(runs.rglob("predictions/*.csv"))}


def outcome(runs: Path) -> dict[str, bytes]:
    """Predictions and weights of the one run below a folder."""
    weights = {file.relative_to(runs).as_posix(): file.read_bytes() for file in runs.rglob("model.safetensors")}
    found = {**predictions(runs), **weights}
    assert len(found) == 2
    return found


def stats_json(out: Path, *options: Any) -> dict[str, Any]:
    """What `ser stats` with these options writes as stats.json into a folder; it draws no figures."""
    command: Any = typer.main.get_command(cli.app)
    with pytest.MonkeyPatch.context() as without:
        without.setattr("ser_analysis.figures.draw", lambda out, analysis: [])
        command.main(["stats", *map(str, options), "--out", str(out)], standalone_mode=False)
    told: dict[str, Any] = json.loads((out / "stats.json").read_text(encoding="utf-8"))
    return told


@contextmanager
def killed_before(epoch: int) -> Iterator[None]:
    """A training in here ends, as if killed, when this epoch is to begin; counted from 0."""

    class Killed(Exception):
        pass

    start = loop.SerTrainer._start_epoch

    def killed(self: loop.SerTrainer, number: int) -> None:
        if number == epoch:
            raise Killed
        start(self, number)

    with patch.object(loop.SerTrainer, "_start_epoch", killed), pytest.raises(Killed):
        yield
