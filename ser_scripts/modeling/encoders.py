"""From an encoder spec to an `Encoder`: where it lies, its configuration, its weights, nothing left to chance."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import CONFIG_MAPPING
from transformers.initialization import no_init_weights

from ser_eval.run_folder import read_json
from ser_scripts.errors import BadInput
from ser_scripts.features.mfcc import FrameExtractor
from ser_scripts.modeling import spectrogram
from ser_scripts.modeling.compact import MODEL_TYPE, CompactConfig, CompactNetwork, build_compact
from ser_scripts.modeling.families import (
    FAMILIES,
    Encoder,
    RemoteEncoder,
    TransformersEncoder,
    load_remote_extractor,
)
from ser_scripts.modeling.places import find_code, locate
from ser_scripts.modeling.remote_code import OPTION, RemoteCode, brings_code, load_classes
from ser_scripts.modeling.spectrogram import SpectrogramConfig, build_spectrogram, restore_spectrogram
from ser_scripts.modeling.weights import (
    CONFIG,
    PREPROCESSOR,
    config_sha256,
    read_encoder_weights,
    weight_files,
)
from ser_scripts.specs.base import nearest
from ser_scripts.specs.model import WITHOUT_LAYERS, EncoderSpec, PretrainedEncoder, RandomEncoder
from ser_scripts.specs.spectrogram import SpectrogramEncoder

_log = logging.getLogger(__name__)

SPEC_AUGMENT_FILL = "masked_spec_embed"
"""The one weight that published files lack at times: what SpecAugment writes over masked frames. Zeros then."""


def build_encoder(spec: EncoderSpec, *, models: Path | None, remote_code: bool = False) -> Encoder:
    """The encoder of a spec, with its weights: all of them from the file, or all random.

    Args:
        spec: a path or hub id, or what describes weights that are drawn from torch's generator (seed it before)
        models: the SER_MODELS folder
        remote_code: RUN the code of an encoder that brings its own

    Raises:
        BadInput: not found, an architecture that is not supported, weights that do not fit the configuration, or code
            that is not allowed or fails
    """
    if isinstance(spec, RandomEncoder):
        config = make_config(spec.config, source="encoder.config")
        _check_keys(spec.config, config)
        identity = {"name": f"random {config.model_type}", "revision": None, "sha256": config_sha256(spec.config)}
        return make_encoder(config, None, identity)
    if isinstance(spec, SpectrogramEncoder):
        return build_spectrogram(spec, models=models)
    if not isinstance(spec, PretrainedEncoder):
        return build_compact(spec)
    folder, identity, code = locate(spec, models=models, remote_code=remote_code)
    _refuse_adapted(folder)
    if code is not None:
        content = read_json(folder / CONFIG)
        content.pop("sertain", None)  # of a model trained here, whose encoder is the start
        remote = _make_remote(content, code, folder, identity)
        _fill(remote, read_encoder_weights(weight_files(folder), remote.probe_weight()), folder)
        return remote.to(getattr(torch, spec.dtype))
    config = _read_config(folder)
    config.dtype = spec.dtype
    with uninitialised():
        encoder = make_encoder(config, folder, identity)
    _fill(encoder, read_encoder_weights(weight_files(folder), encoder.WEIGHT), folder)
    return encoder.to(getattr(torch, spec.dtype))


def _refuse_adapted(folder: Path) -> None:
    """A model that was trained here with an adapter has other weight names than a bare encoder."""
    ours = read_json(folder / CONFIG).get("sertain") or {}
    if ours.get("spec", {}).get("adapter") is not None:
        raise BadInput(
            f'{folder} was trained with an adapter, so it is no plain encoder; start from it with "init_from": its '
            "run folder, which merges the adapter into the weights where the new model has another one or none"
        )


def _read_config(folder: Path) -> Any:
    return make_config(read_json(folder / CONFIG) if (folder / CONFIG).is_file() else None, source=str(folder))


def make_config(content: dict[str, Any] | None, *, source: str) -> Any:
    """The transformers configuration of a config.json.

    Raises:
        BadInput: no configuration, or a `model_type` without a family
    """
    if content is None:
        raise BadInput(f"{source} holds no {CONFIG}; it is no folder in save_pretrained layout")
    if content.get("model_type") == "clap":  # of the two towers the one that hears
        content = {**content.get("audio_config", {}), "model_type": "clap_audio_model"}
    kind = content.get("model_type")
    if kind in WITHOUT_LAYERS:
        raise BadInput(
            f'{source}: {WITHOUT_LAYERS[kind]} is no pretrained encoder; give "encoder": {{"kind": "{kind}"}}, and '
            '"init_from": a finished run, to start from its weights'
        )
    if brings_code(content):
        raise BadInput(
            f"{source}: model_type {kind!r} is supported by no family here, and code of its own goes with a pretrained "
            f"encoder in a folder or on the hub only (and {OPTION}); supported: {', '.join(FAMILIES)}"
        )
    if kind not in FAMILIES:
        raise BadInput(f"{source}: model_type {kind!r} is not supported{nearest(str(kind), FAMILIES)}")
    try:
        config = CONFIG_MAPPING[kind].from_dict({key: value for key, value in content.items() if key != "auto_map"})
    except (ValueError, TypeError, StrictDataclassError) as error:
        raise BadInput(f"{source}: not a valid {kind} configuration: {error}") from None
    FAMILIES[kind].prepare(config)
    return config


def restore_encoder(
    content: dict[str, Any], folder: Path, identity: dict[str, str | None], *, remote_code: bool = False
) -> Encoder:
    """The encoder of a saved model, with random weights.

    Args:
        content: of its config.json
        folder: where preprocessor_config.json lies
        identity: as it was when the model was trained
        remote_code: RUN the code of an encoder that brings its own

    Raises:
        BadInput: such code is not allowed, fails, or is not the one that the model was trained with
    """
    name, revision = str(identity["name"]), identity.get("revision")
    code = find_code(folder, name=name, revision=revision, remote_code=remote_code)
    if code is not None:
        return _make_remote(content, code, folder, identity)
    with uninitialised():
        return _restore_known(content, folder, identity)


def _restore_known(content: dict[str, Any], folder: Path, identity: dict[str, str | None]) -> Encoder:
    if content.get("model_type") == MODEL_TYPE:
        config = CompactConfig.from_dict(content, str(folder / CONFIG))
        return CompactNetwork(config, FrameExtractor.from_pretrained(str(folder)), identity)
    if content.get("model_type") == spectrogram.MODEL_TYPE:
        return restore_spectrogram(SpectrogramConfig.from_dict(content, str(folder / CONFIG)), folder, identity)
    return make_encoder(make_config(content, source=str(folder)), folder, identity)


def make_encoder(config: Any, folder: Path | None, identity: dict[str, str | None]) -> TransformersEncoder:
    """An encoder with random weights, its features as preprocessor_config.json in `folder` says (or the family's)."""
    family = FAMILIES[config.model_type]
    try:
        extractor = family.default_extractor(config) if folder is None else family.load_extractor(str(folder))
    except OSError:
        raise BadInput(f"{folder} holds no {PREPROCESSOR}, which says how the encoder wants its input") from None
    try:
        return family(config, extractor, identity)
    except (ValueError, TypeError, RuntimeError, ZeroDivisionError) as error:
        raise BadInput(f"{identity['name']}: not a valid {config.model_type} configuration: {error}") from None


def _make_remote(
    content: dict[str, Any], code: RemoteCode, folder: Path, identity: dict[str, str | None]
) -> RemoteEncoder:
    """An encoder with code of its own and random weights; RUNS THAT CODE. Generators stay where they were.

    The weights are drawn although they are overwritten: what the encoder does with noise tells its layers.
    """
    if code.sha256 != (then := identity.get("code_sha256")):
        raise BadInput(
            f"{folder}: its code (sha256 {code.sha256[:12]}) is not the code that was allowed, or that the model was "
            f"trained with ({str(then)[:12]}), so it is not run"
        )
    extractor = load_remote_extractor(folder)
    numpy_state, python_state = np.random.get_state(), random.getstate()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        _, model = load_classes(code, content, place=str(folder))
        encoder = RemoteEncoder(model, extractor, identity, code, place=str(folder))
    np.random.set_state(numpy_state)
    random.setstate(python_state)
    return encoder


@contextmanager
def uninitialised() -> Iterator[None]:
    """Build modules without drawing weights that are overwritten anyway; torch's generator stays where it was."""
    with torch.random.fork_rng(devices=[]), no_init_weights():
        yield


def _check_keys(given: dict[str, Any], config: Any) -> None:
    """A key that the configuration class does not know would be kept and ignored."""
    known = set(type(config)().to_dict()) | set(type(config).attribute_map) | {"rope_theta", "partial_rotary_factor"}
    for key in given:
        if key not in known:
            raise BadInput(f"encoder.config.{key}: unknown key of {config.model_type!r}{nearest(key, known)}")


def _fill(encoder: TransformersEncoder | RemoteEncoder, weights: dict[str, torch.Tensor], folder: Path) -> None:
    """Load every weight of the encoder; what is missing, left over or of another shape is an error."""
    wanted = encoder.model.state_dict()
    tops = {name.partition(".")[0] for name in wanted}
    faults = {
        "missing": sorted(wanted.keys() - weights.keys() - {SPEC_AUGMENT_FILL}),
        "unexpected": sorted(
            name
            for name in weights.keys() - wanted.keys()
            if name.partition(".")[0] in tops and not name.startswith(encoder.IGNORED)
        ),
        "of another shape": sorted(
            f"{name} {tuple(weights[name].shape)} for {tuple(wanted[name].shape)}"
            for name in wanted.keys() & weights.keys()
            if weights[name].shape != wanted[name].shape
        ),
    }
    if any(faults.values()):
        lines = [f"  {what}: {', '.join(names[:5])} ({len(names)})" for what, names in faults.items() if names]
        raise BadInput(f"the weights in {folder} do not fit its {CONFIG}:\n" + "\n".join(lines))
    if SPEC_AUGMENT_FILL in wanted and SPEC_AUGMENT_FILL not in weights:
        _log.warning("%s lacks %s: SpecAugment starts with zeros in masked frames", folder, SPEC_AUGMENT_FILL)
        weights[SPEC_AUGMENT_FILL] = torch.zeros_like(wanted[SPEC_AUGMENT_FILL])
    encoder.model.load_state_dict({name: weights[name] for name in wanted})
