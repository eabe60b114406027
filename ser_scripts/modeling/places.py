"""Where a pretrained encoder lies: a folder, the local mirror, or the hub. Imports no model library, so it is quick."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ser_eval.run_folder import read_json
from ser_scripts.errors import BadInput
from ser_scripts.modeling.remote_code import (
    RemoteCode,
    brings_code,
    check_pinned,
    code_classes,
    collect,
    read_code,
    refusal,
)
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


def locate(
    spec: PretrainedEncoder, *, models: Path | None, remote_code: bool = False
) -> tuple[Path, dict[str, str | None], RemoteCode | None]:
    """The folder of a pretrained encoder, downloaded where it must be, and its identity (name, revision, sha256).

    Of an encoder that brings its own code also that code, whose `code_sha256` the identity then holds: read once, so
    that what is checked, recorded and run is the same. Nothing of it is run here.

    Args:
        spec: names the encoder
        models: the SER_MODELS folder
        remote_code: such an encoder is allowed

    Raises:
        BadInput: not found, or without weights; it brings code that is not allowed, or whose files are not there
    """
    place = resolve(spec.model_path_or_name, revision=spec.revision, models=models)
    if isinstance(place, Path):
        folder, revision = place, spec.revision
    else:
        folder, revision = _download(place, spec.revision, models, remote_code=remote_code)
    code = find_code(folder, name=spec.model_path_or_name, revision=revision, remote_code=remote_code)
    identity = {
        "name": spec.model_path_or_name,
        "revision": revision,
        "sha256": sha256(weight_files(folder)),
    }
    return folder, identity if code is None else {**identity, "code_sha256": code.sha256}, code


def find_code(folder: Path, *, name: str, revision: str | None, remote_code: bool) -> RemoteCode | None:
    """The code that an encoder in a folder brings, read but not run; None where it needs none.

    Raises:
        BadInput: it is not allowed, or one of its files is not there
    """
    if not (folder / CONFIG).is_file():
        raise BadInput(f"{folder} holds no {CONFIG}; it is no folder in save_pretrained layout")
    config = read_json(folder / CONFIG)
    if not brings_code(config):
        return None
    if not remote_code:
        classes = code_classes(config, place=str(folder / CONFIG))
        raise refusal(name, place=str(folder), revision=revision, classes=classes)
    return read_code(config, folder)


def _download(name: str, revision: str | None, models: Path | None, *, remote_code: bool) -> tuple[Path, str]:
    """Fetch configuration and weights into the hub's cache; the folder and the commit.

    Code that an encoder brings is fetched where it is allowed and at a commit only, before any weights.
    """
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
        if brings_code(content := read_json(config)):
            if not remote_code:
                classes = code_classes(content, place=f"{CONFIG} of {name}")
                raise refusal(name, place="the hub", revision=revision, classes=classes)
            check_pinned(name, revision)
            collect(content, lambda file: _bytes(fetch_optional(fetch, file, offline)), place=f"{name} on the hub")
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


def _bytes(file: Path | None) -> bytes | None:
    return file.read_bytes() if file is not None else None


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
