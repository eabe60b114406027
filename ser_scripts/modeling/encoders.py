"""From an encoder spec to an `Encoder`: where it lies, its configuration, its weights, nothing left to chance."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import CONFIG_MAPPING
from transformers.initialization import no_init_weights

from ser_eval.run_folder import read_json
from ser_scripts.errors import BadInput
from ser_scripts.features.mfcc import FrameExtractor
from ser_scripts.modeling.compact import MODEL_TYPE, CompactConfig, CompactNetwork, build_compact
from ser_scripts.modeling.families import FAMILIES, Encoder, TransformersEncoder
from ser_scripts.modeling.weights import (
    CONFIG,
    INDEXES,
    PREPROCESSOR,
    SINGLE,
    config_sha256,
    read_encoder_weights,
    sha256,
    weight_files,
)
from ser_scripts.specs.base import nearest
from ser_scripts.specs.model import EncoderSpec, PretrainedEncoder, RandomEncoder

_log = logging.getLogger(__name__)

SPEC_AUGMENT_FILL = "masked_spec_embed"
"""The one weight that published files lack at times: what SpecAugment writes over masked frames. Zeros then."""


def resolve(name: str, *, revision: str | None, models: Path | None) -> Path | str:
    """Where an encoder lies: an existing folder, a folder below `models`, or a hub id that is still to be downloaded.

    Args:
        name: a folder, or a hub id such as `openai/whisper-tiny.en`
        revision: commit, tag or branch, for the error text
        models: the SER_MODELS folder, laid out by hub id

    Raises:
        BadInput: no such folder, and no hub id either
    """
    path = Path(name)
    if path.is_dir():
        return path
    if models is not None and not path.is_absolute() and (models / path).is_dir():
        return models / path
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1 or "\\" in name:
        raise BadInput(f"{_not_found(name, revision, models)}; it is no hub id, so the hub was not asked")
    return name


def build_encoder(spec: EncoderSpec, *, models: Path | None) -> Encoder:
    """The encoder of a spec, with its weights: all of them from the file, or all random.

    Args:
        spec: a path or hub id, or what describes weights that are drawn from torch's generator (seed it before)
        models: the SER_MODELS folder

    Raises:
        BadInput: not found, an architecture that is not supported, or weights that do not fit the configuration
    """
    if isinstance(spec, RandomEncoder):
        config = make_config(spec.config, source="encoder.config")
        _check_keys(spec.config, config)
        identity = {"name": f"random {config.model_type}", "revision": None, "sha256": config_sha256(spec.config)}
        return make_encoder(config, None, identity)
    if not isinstance(spec, PretrainedEncoder):
        return build_compact(spec)
    folder, identity = locate(spec, models=models)
    config = _read_config(folder)
    config.dtype = spec.dtype
    with uninitialised():
        encoder = make_encoder(config, folder, identity)
    _fill(encoder, read_encoder_weights(weight_files(folder), encoder.WEIGHT), folder)
    return encoder.to(getattr(torch, spec.dtype))


def _read_config(folder: Path) -> Any:
    return make_config(read_json(folder / CONFIG) if (folder / CONFIG).is_file() else None, source=str(folder))


def locate(spec: PretrainedEncoder, *, models: Path | None) -> tuple[Path, dict[str, str | None]]:
    """The folder of a pretrained encoder, downloaded where it must be, and its identity (name, revision, sha256).

    Raises:
        BadInput: not found, or without weights
    """
    place = resolve(spec.model_path_or_name, revision=spec.revision, models=models)
    if isinstance(place, Path):
        folder, revision = place, spec.revision
    else:
        folder, revision = _download(place, spec.revision, models)
    _read_config(folder)
    return folder, {
        "name": spec.model_path_or_name,
        "revision": revision,
        "sha256": sha256(weight_files(folder)),
    }


def make_config(content: dict[str, Any] | None, *, source: str) -> Any:
    """The transformers configuration of a config.json.

    Raises:
        BadInput: no configuration, or a `model_type` without a family
    """
    if content is None:
        raise BadInput(f"{source} holds no {CONFIG}; it is no folder in save_pretrained layout")
    kind = content.get("model_type")
    if kind == MODEL_TYPE:
        raise BadInput(
            f'{source}: a compact model is no pretrained encoder; give "encoder": {{"kind": "compact"}}, and '
            '"init_from": a finished run, to start from its weights'
        )
    if kind not in FAMILIES:
        raise BadInput(f"{source}: model_type {kind!r} is not supported{nearest(str(kind), FAMILIES)}")
    try:
        config = CONFIG_MAPPING[kind].from_dict({key: value for key, value in content.items() if key != "auto_map"})
    except (ValueError, TypeError, StrictDataclassError) as error:
        raise BadInput(f"{source}: not a valid {kind} configuration: {error}") from None
    FAMILIES[kind].prepare(config)
    return config


def restore_encoder(content: dict[str, Any], folder: Path, identity: dict[str, str | None]) -> Encoder:
    """The encoder of a saved model, with random weights.

    Args:
        content: of its config.json
        folder: where preprocessor_config.json lies
        identity: as it was when the model was trained
    """
    if content.get("model_type") == MODEL_TYPE:
        config = CompactConfig.from_dict(content, str(folder / CONFIG))
        return CompactNetwork(config, FrameExtractor.from_pretrained(str(folder)), identity)
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


def _fill(encoder: TransformersEncoder, weights: dict[str, torch.Tensor], folder: Path) -> None:
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


def _download(name: str, revision: str | None, models: Path | None) -> tuple[Path, str]:
    """Fetch configuration and weights into the hub's cache; the folder and the commit."""
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}

    def fetch(file: str) -> Path | None:
        try:
            return Path(huggingface_hub.hf_hub_download(name, file, revision=revision, local_files_only=offline))
        except LocalEntryNotFoundError:
            raise
        except EntryNotFoundError:
            return None

    try:
        config = fetch(CONFIG)
        if config is None:
            raise BadInput(f"{name} on the hub holds no {CONFIG}; it is no transformers model")
        for file in (PREPROCESSOR, "processor_config.json"):
            fetch_optional(fetch, file, offline)
        for single, index in zip(SINGLE, INDEXES, strict=True):
            if fetch_optional(fetch, single, offline):
                break
            found = fetch_optional(fetch, index, offline)
            if found:
                for shard in sorted(set(read_json(found)["weight_map"].values())):
                    fetch(shard)
                break
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        asked = "the hub was not asked since HF_HUB_OFFLINE is set" if offline else "the hub gave none"
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise BadInput(f"{_not_found(name, revision, models)}; {asked} ({reason})") from None
    return config.parent, config.parent.name


def fetch_optional(fetch: Any, file: str, offline: bool) -> Path | None:
    """A file that a repository may lack; offline, one that is not in the cache counts as lacking."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        found: Path | None = fetch(file)
    except LocalEntryNotFoundError:
        if not offline:
            raise
        return None
    return found


def _not_found(name: str, revision: str | None, models: Path | None) -> str:
    below = f"{models / name} (SER_MODELS)" if models is not None else "SER_MODELS (not set)"
    at = f" at revision {revision}" if revision else ""
    return (
        f"encoder.model_path_or_name: no encoder {name!r}{at}; looked for the folder {Path(name).absolute()} "
        f"and {below}. Download it once (`hf download {name} --local-dir <SER_MODELS>/{name}`) "
        f"or give the path of a folder that holds {CONFIG}, {PREPROCESSOR} and {SINGLE[0]}"
    )
