"""The four folders that the environment may name, and where corpora lie that are in none of them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ser_eval.run_folder import read_json
from ser_scripts.errors import BadInput

LOCATIONS = Path("data/locations.json")
_PROJECT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Folders:
    """Where corpora, encoders, run folders and caches lie."""

    data: Path
    models: Path | None
    """A local mirror of encoders, laid out by hub id; None: only paths and the hub."""
    runs: Path
    cache: Path
    locations: Mapping[str, Path] = field(default_factory=dict)
    """Folders of named corpora that lie elsewhere than in `data`."""
    remote_code: bool = False
    """The user has allowed encoders to run code that comes with their weights; only a command's flag says so."""


def folders(*, remote_code: bool = False) -> Folders:
    """Read SER_DATA (default data/raw), SER_MODELS (default: none), SER_RUNS (runs) and SER_CACHE (.cache/sertain).

    Args:
        remote_code: the user has given `--allow-remote-code`; the environment cannot

    Raises:
        BadInput: data/locations.json is not valid
    """
    models = os.environ.get("SER_MODELS")
    return Folders(
        data=Path(os.environ.get("SER_DATA") or "data/raw"),
        models=Path(models) if models else None,
        runs=Path(os.environ.get("SER_RUNS") or "runs"),
        cache=Path(os.environ.get("SER_CACHE") or ".cache/sertain"),
        locations=read_locations(),
        remote_code=remote_code,
    )


def read_locations() -> dict[str, Path]:
    """Corpus -> folder, from data/locations.json in the working directory, else in the project; {} without the file.

    Relative folders resolve against the folder of the file. Whether they exist shows when a corpus is read.

    Raises:
        BadInput: not a JSON object, an unknown corpus, or a value that is no path
    """
    file = next((place / LOCATIONS for place in (Path(), _PROJECT) if (place / LOCATIONS).is_file()), None)
    if file is None:
        return {}
    from ser_scripts import corpora  # only where the file is: the command line's --help reads settings, too
    from ser_scripts.specs.base import nearest

    content = read_json(file)
    if not isinstance(content, dict):
        raise BadInput(f"{file}: expected an object from corpus to folder, found {type(content).__name__}")
    known = corpora.names()
    found = {}
    for name, folder in content.items():
        if name not in known:
            raise BadInput(f"{file}: corpus '{name}' is not known{nearest(name, known)}")
        if not isinstance(folder, str) or not folder:
            raise BadInput(f"{file}: {name}: {folder!r} is not valid; expected the path of a folder")
        found[name] = (file.parent / Path(folder).expanduser()).absolute()
    return found
