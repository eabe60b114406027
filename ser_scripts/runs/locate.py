"""From what a user types to a folder of runs."""

from __future__ import annotations

import re
from pathlib import Path

from ser_eval.run_folder import find_experiments
from ser_scripts.errors import BadInput
from ser_scripts.settings import folders
from ser_scripts.specs.base import nearest, read_spec_file
from ser_scripts.specs.model import NAME_PATTERN


def experiment_folder(what: Path) -> Path:
    """The run folder of an experiment JSON, of an experiment's name, or the folder itself.

    Raises:
        BadInput: if there is none, with what would be valid
    """
    runs = folders().runs
    if what.suffix == ".json":
        content = read_spec_file(what, kind="experiment")
        name = content.get("name") or content.get("experiment_name")
        if not isinstance(name, str) or not re.match(NAME_PATTERN, name):
            raise BadInput(f"{what}: name: {name!r} is not valid; expected letters, digits, '.', '-' and '_'")
        folder = runs / name
        hint = f"train it first: ser train {what}"
    else:
        folder = what if what.is_dir() else runs / what
        known = [path.name for path in find_experiments(runs)]
        hint = f"experiments under {runs}{nearest(what.name, known)}" if known else f"{runs} holds no finished run"
    if not folder.is_dir():
        raise BadInput(f"{folder}: no runs there; {hint}")
    return folder


def all_experiments() -> list[Path]:
    """The folders of all experiments with finished runs.

    Raises:
        BadInput: if there is none
    """
    runs = folders().runs
    found = find_experiments(runs)
    if not found:
        raise BadInput(f"{runs} holds no finished run; train first: ser train EXPERIMENT.json")
    return found
