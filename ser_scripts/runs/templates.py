"""Experiment and model JSONs to start from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ser_scripts.errors import BadInput
from ser_scripts.files import writable_folder
from ser_scripts.specs.base import parse
from ser_scripts.specs.experiment import ExperimentSpec
from ser_scripts.specs.model import ModelSpec


def write_template(kind: str, name: str, *, corpus: str, model: str, encoder: str, out: Path | None) -> Path:
    """Write a valid experiment or model JSON and return its path; an existing file is never overwritten."""
    content: dict[str, Any]
    if kind == "experiment":
        content = {
            "$schema": "../schemas/experiment.json",
            "name": name,
            "description": "",
            "train": [corpus],
            "models": [model],
            "split": {"kind": "speaker_independent", "train_test_split": 0.8},
            "seeds": {"low": 0, "high": 9},
        }
        parse(ExperimentSpec, content, source=name, kind="experiment")
    elif kind == "model":
        content = {
            "$schema": "../schemas/model.json",
            "name": name,
            "description": "",
            "factors": {},
            "encoder": {"model_path_or_name": encoder},
            "pooling": {"kind": "mean"},
            "head": {"dropout": 0.1},
            "training": {"epochs": 20, "batch_size": 8, "learning_rate": 5e-5},
        }
        parse(ModelSpec, content, source=name, kind="model")
    else:
        raise BadInput(f"ser new {kind}: expected 'experiment' or 'model'")
    file = out or Path(f"{kind}s") / f"{name}.json"
    if file.exists():
        raise BadInput(f"{file} exists already; give another name, or --out FILE")
    writable_folder(file.parent, remedy="set --out")
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return file
