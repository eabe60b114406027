"""Where the pretrained weights of an image network lie: a file, a folder, the local mirror, or the hub."""

from __future__ import annotations

import os
from pathlib import Path

from ser_scripts.errors import BadInput
from ser_scripts.modeling.places import resolve
from ser_scripts.modeling.weights import WEIGHTS, sha256
from ser_scripts.specs.spectrogram import SpectrogramEncoder


def find_weights(spec: SpectrogramEncoder, *, models: Path | None) -> Path | None:
    """The weight file of a spec on this machine; None when the hub has to be asked.

    Args:
        spec: with `weights`
        models: the SER_MODELS folder

    Raises:
        BadInput: nothing there, and no hub id either; or a folder or file without safetensors
    """
    assert spec.weights is not None
    for file in (Path(spec.weights), *([models / spec.weights] if models is not None else [])):
        if file.is_file():
            if file.suffix != ".safetensors":
                raise BadInput(f"encoder.weights: {file} is no safetensors file, the only kind that is read")
            return file
    try:
        place = resolve(spec.weights, revision=spec.revision, models=models)
    except BadInput:
        raise BadInput(
            f"encoder.weights: {_not_found(spec, models)}; it is no hub id, so the hub was not asked"
        ) from None
    if isinstance(place, str):
        return None
    if not (place / WEIGHTS).is_file():
        raise BadInput(f"encoder.weights: {place} holds no {WEIGHTS}")
    return place / WEIGHTS


def locate_weights(spec: SpectrogramEncoder, *, models: Path | None) -> tuple[Path, dict[str, str | None]]:
    """The weight file of a spec, downloaded where it must be, and its identity (name, revision, sha256).

    Raises:
        BadInput: not found
    """
    file, revision = find_weights(spec, models=models), spec.revision
    if file is None:
        file = _download(spec, models)
        revision = file.parent.name
    return file, {"name": spec.weights, "revision": revision, "sha256": sha256([file])}


def _download(spec: SpectrogramEncoder, models: Path | None) -> Path:
    """Fetch the weights into the hub's cache."""
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    assert spec.weights is not None
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
    try:
        found = huggingface_hub.hf_hub_download(spec.weights, WEIGHTS, revision=spec.revision, local_files_only=offline)
    except (EntryNotFoundError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        asked = "the hub was not asked since HF_HUB_OFFLINE is set" if offline else "the hub gave none"
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise BadInput(f"encoder.weights: {_not_found(spec, models)}; {asked} ({reason})") from None
    return Path(found)


def _not_found(spec: SpectrogramEncoder, models: Path | None) -> str:
    below = f"{models / str(spec.weights)} (SER_MODELS)" if models is not None else "SER_MODELS (not set)"
    at = f" at revision {spec.revision}" if spec.revision else ""
    return (
        f"no weights {spec.weights!r}{at}; looked for {Path(str(spec.weights)).absolute()} and {below}. Download them "
        f"once (`hf download {spec.weights} --local-dir <SER_MODELS>/{spec.weights}`), give the path of a safetensors "
        "file, or null for random weights"
    )
