"""What predicts: a saved model of any kind, given decoded clips."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ser_scripts.audio.store import ClipStore
from ser_scripts.errors import BadInput
from ser_scripts.manifest import Manifest
from ser_scripts.ratings import rating_columns
from ser_scripts.settings import Folders


class Predictor(Protocol):
    """A model that is ready to hear clips."""

    labels: tuple[str, ...]
    sample_rate_hz: int

    def logits(self, corpus: str, store: ClipStore, paths: Sequence[str]) -> NDArray[np.float32]:
        """Logits of clips of one corpus in the order of the paths, (N, K)."""
        ...


class NetworkPredictor:
    """A whole network, which hears every clip anew."""

    def __init__(self, model: Any, device: str, fit: Any = None) -> None:
        """Take a `SerModel` that lies on the device, and a `Fit` that takes note of batches that had to be halved."""
        self.model = model
        self.fit = fit
        self.device = device
        self.labels: tuple[str, ...] = tuple(model.labels)
        self.sample_rate_hz: int = model.encoder.sample_rate_hz
        self.dimensions: tuple[str, ...] = model.dimensions

    def logits(
        self, corpus: str, store: ClipStore, paths: Sequence[str], rated: list[NDArray[np.float32]] | None = None
    ) -> NDArray[np.float32]:
        """Logits of clips, in batches of like length; `rated` takes their ratings (N, D) where the model has some."""
        import torch

        from ser_scripts.training.data import Clip, FeatureSource
        from ser_scripts.training.loop import predict_logits

        source = FeatureSource([Clip(corpus, path, -1) for path in paths], {corpus: store}, self.model.encoder)
        device = torch.device(self.device)
        return predict_logits(self.model, source, self.model.spec.training, device, rated=rated, fit=self.fit)


def predict(
    predictor: Predictor, manifest: Manifest, store: ClipStore, paths: Sequence[str]
) -> tuple[NDArray[np.float32], pd.DataFrame | None]:
    """Logits (N, K) of clips of one corpus, and the columns of its ratings where the predictor has some."""
    if not isinstance(predictor, NetworkPredictor | HeadPredictor) or not predictor.dimensions:
        return predictor.logits(manifest.corpus, store, paths), None
    rated: list[NDArray[np.float32]] = []
    logits = predictor.logits(manifest.corpus, store, paths, rated)
    return logits, rating_columns(manifest, predictor.dimensions, paths, rated)


class HeadPredictor:
    """A head over the cached embeddings of a frozen encoder."""

    def __init__(self, model: Any, folders: Folders, device: str, report: Callable[[str], None]) -> None:
        """Take a `FrozenModel`; its encoder must be where it was, or where SER_MODELS says."""
        self.model = model
        self.folders, self.device, self.report = folders, device, report
        self.encoder = model.find_encoder(models=folders.models, remote_code=folders.remote_code)
        self.labels: tuple[str, ...] = model.labels
        self.sample_rate_hz: int = self.encoder.sample_rate_hz
        self.dimensions: tuple[str, ...] = model.dimensions

    def logits(
        self, corpus: str, store: ClipStore, paths: Sequence[str], rated: list[NDArray[np.float32]] | None = None
    ) -> NDArray[np.float32]:
        """Logits of clips; what the cache does not hold is embedded. `rated` as of a network."""
        from ser_scripts.runs.train_frozen import embed_table

        clips = [(corpus, path) for path in paths]
        table = embed_table(
            self.model.spec, self.encoder, {corpus: store}, clips, self.folders, device=self.device, report=self.report
        )
        logits: NDArray[np.float32] = self.model.logits(table.values, rated)
        return logits


def load_predictor(folder: Path, folders: Folders, *, device: str, report: Callable[[str], None]) -> Predictor:
    """A saved model of a run, on the device and with the arithmetic of its training.

    Raises:
        BadInput: no saved model there, or it is damaged
    """
    from ser_scripts.modeling.classical import ClassicalModel, is_classical
    from ser_scripts.modeling.frozen import FrozenModel, is_frozen

    if not (folder / "config.json").is_file():
        raise BadInput(f"{folder}: no saved model there (training.save_model 'none' keeps no weights)")
    if is_classical(folder):
        from ser_scripts.runs.train_classical import ClassicalPredictor

        return ClassicalPredictor(ClassicalModel.load(folder), folders, device, report)
    if is_frozen(folder):
        return HeadPredictor(FrozenModel.load(folder), folders, device, report)
    from ser_scripts.modeling.model import SerModel
    from ser_scripts.training.memory import Fit
    from ser_scripts.training.seeding import fix_arithmetic

    model = SerModel.load(folder, remote_code=folders.remote_code)
    fix_arithmetic(model.spec.training.threads)
    return NetworkPredictor(model.to(device), device, Fit(report))
