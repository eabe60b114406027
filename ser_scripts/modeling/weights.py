"""Weight files: finding, hashing and reading them. Safetensors first; a .bin file only as plain tensors."""

from __future__ import annotations

import functools
import hashlib
import json
import pickle
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from ser_eval.run_folder import read_json
from ser_scripts.errors import BadInput

CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
WEIGHTS = "model.safetensors"
SINGLE = (WEIGHTS, "pytorch_model.bin")
INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
NOT_PLAIN = (
    pickle.UnpicklingError, RuntimeError, EOFError, LookupError, ValueError, TypeError, AttributeError, AssertionError
)  # fmt: skip
"""What torch.load raises for a file that is damaged, no weights at all, or more than tensors."""


def weight_files(folder: Path) -> list[Path]:
    """The weight file of a `save_pretrained` folder, or its shards in order of name.

    Raises:
        BadInput: none there, or a shard that the index names is missing
    """
    for single, index in zip(SINGLE, INDEXES, strict=True):
        if (folder / single).is_file():
            return [folder / single]
        if (folder / index).is_file():
            names = sorted(set(read_json(folder / index)["weight_map"].values()))
            if outside := [name for name in names if Path(name).name != name]:
                raise BadInput(f"{folder / index} names weight files outside its folder: {', '.join(outside)}")
            files = [folder / name for name in names]
            missing = [file.name for file in files if not file.is_file()]
            if missing:
                raise BadInput(f"{folder / index} names weight files that are missing: {', '.join(missing)}")
            return files
    raise BadInput(f"{folder} holds no weights; expected one of {', '.join((*SINGLE, *INDEXES))}")


def sha256(files: Iterable[Path]) -> str:
    """SHA-256 of one file; of the list of the files' own sums when there are several."""
    sums = [_sha256(file, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return sums[0] if len(sums) == 1 else hashlib.sha256("\n".join(sums).encode()).hexdigest()


@functools.cache
def _sha256(file: Path, size: int, mtime_ns: int) -> str:
    """The sum of one file, computed once as long as the file does not change: large encoders take seconds."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def config_sha256(config: dict[str, object]) -> str:
    """SHA-256 of a configuration as canonical JSON, the identity of random weights."""
    return hashlib.sha256(json.dumps(config, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read_encoder_weights(files: list[Path], probe: str) -> dict[str, torch.Tensor]:
    """The weights below the prefix under which a file holds an encoder, without that prefix.

    A file of the encoder alone, of a model around it (`model.encoder.`, `hubert.`) and one saved here all load.

    Args:
        files: weight file(s)
        probe: the name of a weight that the encoder has once, e.g. `conv1.weight`; what stands before it is the prefix

    Raises:
        BadInput: the probe stands in no or in several places, or a file is broken
    """
    names = {name: file for file in files for name in _names(file)}
    prefixes = sorted({name[: -len(probe)] for name in names if name == probe or name.endswith(f".{probe}")})
    if len(prefixes) != 1:
        found = f"it stands below each of {prefixes}" if prefixes else "it is missing"
        raise BadInput(f"{files[0].parent}: cannot tell the encoder in the weights: of '{probe}', {found}")
    prefix = prefixes[0]
    weights: dict[str, torch.Tensor] = {}
    for file in files:
        wanted = [name for name, owner in names.items() if owner == file and name.startswith(prefix)]
        weights |= {_present_name(name[len(prefix) :]): tensor for name, tensor in _read(file, wanted).items()}
    return weights


def _present_name(name: str) -> str:
    """Weight norm's two factors carry other names since torch 2."""
    for old, new in ((".weight_g", "original0"), (".weight_v", "original1")):
        if name.endswith(old):
            return f"{name[: -len(old)]}.parametrizations.weight.{new}"
    return name


def check_headers(files: Iterable[Path]) -> None:
    """Refuse files that are cut short, damaged or more than tensors, which tells without reading the weights.

    Raises:
        BadInput: naming the file
    """
    for file in files:
        _names(file)


def _names(file: Path) -> list[str]:
    if file.suffix == ".safetensors":
        try:
            with safe_open(file, framework="pt") as tensors:
                return list(tensors.keys())
        except SafetensorError as error:
            raise BadInput(f"{file} is no whole safetensors file: {error}") from None
    return list(_read_bin(file))


def _read(file: Path, names: list[str]) -> dict[str, torch.Tensor]:
    if file.suffix == ".safetensors":
        with safe_open(file, framework="pt") as tensors:
            return {name: tensors.get_tensor(name) for name in names}
    tensors_by_name = _read_bin(file)
    return {name: tensors_by_name[name] for name in names}


def _read_bin(file: Path) -> dict[str, torch.Tensor]:
    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except NOT_PLAIN:
        raise BadInput(f"{file} cannot be read as plain weights: it is damaged, or holds more than tensors") from None
    return dict(content)
