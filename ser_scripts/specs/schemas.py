"""JSON Schemas of the spec classes, for completion in editors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ser_scripts.files import writable_folder
from ser_scripts.specs.base import Spec
from ser_scripts.specs.classical import ClassicalSpec
from ser_scripts.specs.experiment import ExperimentSpec
from ser_scripts.specs.model import ModelSpec
from ser_scripts.specs.task import PRESETS

SCHEMAS: dict[str, type[Spec]] = {"experiment.json": ExperimentSpec, "model.json": ModelSpec}


def schema(name: str) -> str:
    """The text of one schema file. Short forms that the loader accepts (a corpus by its name) are part of it."""
    content: dict[str, Any] = SCHEMAS[name].model_json_schema(by_alias=True)
    content["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    content["properties"]["$schema"] = {"type": "string"}
    if name == "experiment.json":
        name_or_corpus = {"anyOf": [{"type": "string"}, content["properties"]["test"]["items"]]}
        content["properties"]["test"]["items"] = name_or_corpus
        content["properties"]["train"]["items"] = {
            "anyOf": [*name_or_corpus["anyOf"], {"type": "array", "items": name_or_corpus, "minItems": 1}]
        }
        task = content["properties"]["task"]
        task["anyOf"] = [{"enum": sorted(PRESETS), "type": "string"}, *task["anyOf"]]
    encoder = content["$defs"].get("PretrainedEncoder")
    if encoder and name == "model.json":
        content["properties"]["encoder"] = {"anyOf": content["properties"]["encoder"]["oneOf"]}
    if name == "model.json":
        content = _either_kind(content)
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _either_kind(network: dict[str, Any]) -> dict[str, Any]:
    """One schema for both kinds of model; `kind` decides, so that editors show the faults of one of them."""
    other = ClassicalSpec.model_json_schema(by_alias=True)
    other["properties"]["$schema"] = {"type": "string"}
    definitions = {**other.pop("$defs"), **network.pop("$defs")}
    dialect = network.pop("$schema")
    return {
        "$defs": {**definitions, "ModelSpec": network, "ClassicalSpec": other},
        "$schema": dialect,
        "type": "object",
        "if": {"properties": {"kind": {"const": "classical"}}, "required": ["kind"]},
        "then": {"$ref": "#/$defs/ClassicalSpec"},
        "else": {"$ref": "#/$defs/ModelSpec"},
    }


def write_schemas(folder: Path) -> list[Path]:
    """Write all schemas; returns the files."""
    writable_folder(folder, remedy="set --out")
    files = []
    for name in sorted(SCHEMAS):
        file = folder / name
        file.write_text(schema(name), encoding="utf-8")
        files.append(file)
    return files
