"""Where a pretrained encoder lies: a folder, the local mirror, or the hub. Imports no model library, so it is quick."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ser_eval.run_folder import read_json
from ser_scripts.errors import BadInput
from ser_scripts.modeling.weights import CONFIG, INDEXES, PREPROCESSOR, SINGLE, sha256, weight_files
from ser_scripts.specs.model import PretrainedEncoder


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
    if not (folder / CONFIG).is_file():
        raise BadInput(f"{folder} holds no {CONFIG}; it is no folder in save_pretrained layout")
    return folder, {
        "name": spec.model_path_or_name,
        "revision": revision,
        "sha256": sha256(weight_files(folder)),
    }


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
