"""Heads over cached embeddings of a frozen encoder: what of the spec they can do, saving and loading."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ser_eval.run_folder import read_json, write_json
from ser_scripts.errors import BadInput
from ser_scripts.features.embeddings import Kept
from ser_scripts.modeling.places import locate
from ser_scripts.modeling.weights import CONFIG, PREPROCESSOR, WEIGHTS, check_headers, sha256, weight_files
from ser_scripts.specs.base import parse
from ser_scripts.specs.model import ModelSpec, PretrainedEncoder

if TYPE_CHECKING:
    from ser_scripts.training.heads import Inputs

LABELS = "labels.json"
OURS = "sertain_head"
"""The key of config.json that tells a head without its encoder from a whole model."""
_NUM_LAYERS = ("encoder_layers", "encoder_num_hidden_layers", "num_hidden_layers")
_STATISTICS = {"mean": ("mean",), "max": ("max",), "mean_std": ("mean", "std")}


@dataclass(frozen=True)
class FrozenEncoder:
    """Where a frozen encoder lies, and what its embeddings depend on."""

    spec: PretrainedEncoder
    folder: Path
    sample_rate_hz: int
    num_layers: int | None
    """Transformer layers, where the configuration says it in one of the usual words."""
    identity: dict[str, Any]
    """Name, revision, sha256 of the weights, of config, feature extractor and code files; type of the weights."""


def frozen_encoder(spec: PretrainedEncoder, *, models: Path | None, remote_code: bool = False) -> FrozenEncoder:
    """Find a frozen encoder without building it.

    Raises:
        BadInput: not found, its weights are cut short, it does not say at which rate it hears, or it brings code that
            is not allowed
    """
    folder, identity, code = locate(spec, models=models, remote_code=remote_code)
    check_headers(weight_files(folder))
    if not (folder / PREPROCESSOR).is_file():
        raise BadInput(f"{folder} holds no {PREPROCESSOR}, which says how the encoder wants its input")
    rate_hz = read_json(folder / PREPROCESSOR).get("sampling_rate")
    if not isinstance(rate_hz, int):
        raise BadInput(f"{folder / PREPROCESSOR}: sampling_rate is {rate_hz!r}; expected a rate in Hz, e.g. 16000")
    config = read_json(folder / CONFIG)
    layers = next((config[key] for key in _NUM_LAYERS if isinstance(config.get(key), int)), None)
    files = {name: sha256([folder / name]) for name in (CONFIG, PREPROCESSOR)}
    if code is not None:
        files |= code.sums()
    return FrozenEncoder(spec, folder, rate_hz, layers, {**identity, "files": files, "dtype": spec.dtype})


def kept(spec: ModelSpec, encoder: FrozenEncoder) -> Kept:
    """What of the hidden states a model reads.

    Raises:
        BadInput: frames of the last layer are wanted, and the configuration does not say which that is
    """
    if spec.head.kind != "frame_mlp":
        return Kept("pooled", _STATISTICS[spec.pooling.kind])
    layer = encoder.num_layers if spec.layers.use == "last" else spec.layers.use
    if not isinstance(layer, int):
        raise BadInput(
            f"layers.use 'last': the configuration of {encoder.identity['name']} does not say how many layers it has; "
            "give the number of a layer"
        )
    return Kept("frames", layers=(layer,))


@dataclass(frozen=True)
class FrozenModel:
    """A trained head for classes, ratings or both, and the encoder that it needs."""

    spec: ModelSpec
    labels: tuple[str, ...]
    layer: int | None
    weights: dict[str, NDArray[np.float32]]
    encoder: dict[str, Any]
    """Identity of the encoder that it was trained with."""

    @property
    def dimensions(self) -> tuple[str, ...]:
        """Of the ratings that it predicts; none for a model of classes alone."""
        return self.spec.ratings.dimensions if self.spec.ratings is not None else ()

    def logits(self, table: Inputs, rated: list[NDArray[np.float32]] | None = None) -> NDArray[np.float32]:
        """Embeddings of clips (N, L, D), or their frames, -> (N, K); all 0 where there are ratings only.

        `rated` takes the ratings (N, D) of a model that predicts some.
        """
        from ser_scripts.training.heads import head_logits, head_ratings

        if self.spec.ratings is not None and rated is not None:
            rated.append(head_ratings(table, self.weights, self.layer, self.spec.head))
        if self.spec.ratings is not None and self.spec.ratings.only:
            return np.zeros((len(table), len(self.labels)), dtype=np.float32)
        return head_logits(table, self.weights, self.layer, self.spec.head)

    def save(self, folder: Path) -> None:
        """Write config.json, labels.json and model.safetensors (the head alone: the encoder stays where it is)."""
        folder.mkdir(parents=True, exist_ok=True)
        ours = {"spec": self.spec.model_dump(mode="json"), "encoder": self.encoder, "layer": self.layer}
        write_json(folder / CONFIG, {OURS: ours})
        write_json(folder / LABELS, list(self.labels))
        save_file({name: np.ascontiguousarray(value) for name, value in self.weights.items()}, folder / WEIGHTS)

    @classmethod
    def load(cls, folder: Path) -> FrozenModel:
        """Read what `save` wrote.

        Raises:
            BadInput: a file is missing or damaged
        """
        for name in (CONFIG, LABELS, WEIGHTS):
            if not (folder / name).is_file():
                raise BadInput(f"{folder} holds no {name}; a saved head has {CONFIG}, {LABELS}, {WEIGHTS}")
        ours = read_json(folder / CONFIG)[OURS]
        spec = parse(ModelSpec, ours["spec"], source=str(folder / CONFIG), kind="saved model")
        try:
            weights = load_file(folder / WEIGHTS)
        except SafetensorError as error:
            raise BadInput(f"{folder / WEIGHTS} is damaged: {error}") from None
        return cls(spec, tuple(read_json(folder / LABELS)), ours["layer"], weights, ours["encoder"])

    def find_encoder(self, *, models: Path | None, remote_code: bool = False) -> FrozenEncoder:
        """The encoder it was trained with.

        Raises:
            BadInput: not found, another one of the same name, or one with code that is not allowed or has changed
        """
        assert isinstance(self.spec.encoder, PretrainedEncoder)
        found = frozen_encoder(self.spec.encoder, models=models, remote_code=remote_code)
        if (now := found.identity.get("code_sha256")) != (then := self.encoder.get("code_sha256")):
            raise BadInput(
                f"{found.folder}: the code of this encoder (sha256 {str(now)[:12]}) is not the one that the head was "
                f"trained with ({str(then)[:12]})"
            )
        if found.identity["sha256"] != self.encoder["sha256"]:
            raise BadInput(
                f"{found.folder}: its weights (sha256 {str(found.identity['sha256'])[:12]}) are not those that the "
                f"head was trained with ({str(self.encoder['sha256'])[:12]})"
            )
        return found


def is_frozen(folder: Path) -> bool:
    """Whether a saved model is a head without its encoder."""
    return (folder / CONFIG).is_file() and OURS in read_json(folder / CONFIG)
