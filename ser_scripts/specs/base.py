"""What every spec class shares: strict, frozen, with errors that name file, key, value and what would be valid."""

from __future__ import annotations

import difflib
import hashlib
import json
import types
import typing
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from ser_eval.run_folder import read_json
from ser_scripts.errors import BadInput


class Spec(BaseModel):
    """Base of the spec classes. Unknown keys are errors; instances never change; docstrings reach the JSON Schema."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)
    FROM_TEXT: ClassVar[bool] = False

    @model_validator(mode="before")
    @classmethod
    def _as_written(cls, content: Any) -> Any:
        """Refuse what pydantic would turn into a number or a truth value: "5", true for 1, 1 for true."""
        for name, field in cls.model_fields.items() if isinstance(content, dict) and not cls.FROM_TEXT else ():
            valid, key = _scalars(field.annotation), field.alias or name
            if valid <= {int, float, bool, type(None)}:
                for value in _leaves(content.get(key)):
                    if not _fits(value, valid):
                        expected = "a number" if valid & {int, float} else "true or false"
                        context = {"key": key, "value": value, "expected": expected}
                        raise PydanticCustomError("as_written", "{key}: {value} is not {expected}", context)
        return content


class OlderSpec(Spec):
    """Base of the classes for files of other systems, which write numbers as text: flags, and YAML's `1e-3`."""

    FROM_TEXT = True


S = TypeVar("S", bound=Spec)


def _scalars(annotation: Any) -> set[type]:
    """The types at the ends of an annotation; of a dict those of its values, of `Any` and models `object`."""
    if typing.get_origin(annotation) is typing.Literal:
        return {type(value) for value in typing.get_args(annotation)}
    if typing.get_origin(annotation) is typing.Annotated:
        return _scalars(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) is dict:
        return _scalars(typing.get_args(annotation)[1])
    if arguments := [item for item in typing.get_args(annotation) if item is not Ellipsis]:
        return set().union(*map(_scalars, arguments))
    return {annotation if annotation in (int, float, bool, str, type(None)) else object}


def _fits(value: Any, valid: set[type]) -> bool:
    """Whether JSON writes a value as one of the types: text is no number, and true is not 1."""
    if isinstance(value, bool):
        return bool in valid
    if isinstance(value, int | float):
        return bool(valid & {int, float})
    return not isinstance(value, str)


def _leaves(value: Any) -> typing.Iterator[Any]:
    """What is in a value, through lists and the values of dicts."""
    if isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _leaves(item)
    else:
        yield value


def parse(cls: type[S], content: Any, *, source: str, kind: str) -> S:
    """Validate `content` against a spec class.

    Raises:
        BadInput: one line per fault, each with its key, its value and what would be valid
    """
    if isinstance(content, dict):
        content = {key: value for key, value in content.items() if key != "$schema"}
    try:
        return cls.model_validate(content)
    except ValidationError as error:
        details = error.errors()
        inner = {detail["loc"][:depth] for detail in details for depth in range(len(detail["loc"]))}
        # a list whose items are wrong counts as too short as well
        details = [item for item in details if item["type"] != "too_short" or item["loc"] not in inner]
        lines = [f"  {_describe(cls, detail)}" for detail in details]
        raise BadInput(f"{source} is not a valid {kind}:\n" + "\n".join(dict.fromkeys(lines))) from None


def load(cls: type[S], file: Path, *, kind: str) -> S:
    """Read and validate one spec file."""
    return parse(cls, read_spec_file(file, kind=kind), source=str(file), kind=kind)


def read_spec_file(file: Path, *, kind: str) -> Any:
    """The JSON object of a spec file, unvalidated."""
    if not file.is_file():
        raise BadInput(f"{file}: no such {kind} file")
    content = read_json(file, unique_keys=True)
    if not isinstance(content, dict):
        raise BadInput(f"{file} is not a valid {kind}: expected a JSON object, found {type(content).__name__}")
    return content


def digest(content: Any) -> str:
    """SHA-256 of the canonical JSON (sorted keys, no spaces) of a spec or of plain data."""
    if isinstance(content, BaseModel):
        content = content.model_dump(mode="json", by_alias=True)
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def nearest(name: str, valid: typing.Iterable[str]) -> str:
    """`; did you mean 'x'?`, or the list of what is valid (not more than 60) when nothing is near."""
    names = sorted(valid)
    if close := difflib.get_close_matches(name, names, n=1):
        return f"; did you mean '{close[0]}'?"
    more = f", ... ({len(names) - 60} more)" if len(names) > 60 else ""
    return f"; valid: {', '.join(names[:60]) or 'none'}{more}"


def _describe(cls: type[BaseModel], detail: ErrorDetails) -> str:
    location = [
        part for part in detail["loc"] if not (isinstance(part, str) and part.startswith(("function-", "lax-")))
    ]
    key = ".".join(str(part) for part in location) or "(whole file)"
    if detail["type"] == "extra_forbidden":
        return f"{key}: unknown key{nearest(str(location[-1]), _fields_at(cls, location[:-1]))}"
    if detail["type"] == "missing":
        return f"{key}: required key is missing"
    context = detail.get("ctx", {})
    if detail["type"] == "as_written":
        key = ".".join(str(part) for part in [*location, context["key"]])
        return f"{key}: {json.dumps(context['value'], ensure_ascii=False)} is not valid; expected {context['expected']}"
    if location[-1:] == ["[key]"]:
        owner = ".".join(str(part) for part in location[:-2])
        return (
            f"{owner}: the key '{location[-2]}' is not valid; expected {detail['msg'].removeprefix('Input should be ')}"
        )
    if detail["type"] == "union_tag_not_found":
        return f"{key}: the key 'kind' is missing"
    if detail["type"] == "union_tag_invalid":
        tags = [tag.strip(" '") for tag in str(context["expected_tags"]).split(",")]
        close = difflib.get_close_matches(str(context["tag"]), tags, n=1)
        hint = f"did you mean '{close[0]}'? " if close else ""
        return f"{key}.kind: '{context['tag']}' is not valid; {hint}valid: {', '.join(map(repr, tags))}"
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if detail["type"] == "value_error":
        return f"{key}: {message}"
    if detail["type"] == "tuple_type":
        message = f"a list, e.g. [{json.dumps(detail['input'], default=str)}]"
    elif detail["type"] == "string_pattern_mismatch":
        message = "letters, digits, '.', '_' and '-', beginning with a letter or digit"
    elif detail["type"] == "too_short":
        message = f"a list of at least {context['min_length']}"
    elif detail["type"] == "model_type":
        message = "an object"
    value = json.dumps(detail["input"], default=str, ensure_ascii=False)
    return f"{key}: {value if len(value) < 80 else value[:77] + '...'} is not valid; expected {message}"


def _fields_at(cls: type[BaseModel], location: list[Any]) -> set[str]:
    """Names of the keys that are valid at a location inside a spec class (unions contribute all their members)."""
    level: set[type[BaseModel]] = {cls}
    for part in location:
        below: set[type[BaseModel]] = set()
        tags: set[type[BaseModel]] = set()
        for owner in level:
            for name, field in owner.model_fields.items():
                if part in (name, field.alias):
                    below |= models_in(field.annotation)
            kind = owner.model_fields.get("kind")
            if kind is not None and part in typing.get_args(kind.annotation):
                tags.add(owner)
        level = below or tags or level
    names: set[str] = set()
    for owner in level:
        names |= {field.alias or name for name, field in owner.model_fields.items()}
    return names


def models_in(annotation: Any) -> set[type[BaseModel]]:
    """Every spec class that a field's annotation names, inside unions and containers too."""
    if (
        isinstance(annotation, type)
        and not isinstance(annotation, types.GenericAlias)
        and issubclass(annotation, BaseModel)
    ):
        return {annotation}
    found: set[type[BaseModel]] = set()
    for argument in typing.get_args(annotation):
        found |= models_in(argument)
    return found
