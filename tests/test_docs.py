"""What the documentation says is true: its JSON is valid, its commands exist, its links lead somewhere."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import typer
from pydantic import TypeAdapter, ValidationError

from ser_scripts import corpora
from ser_scripts.cli import app
from ser_scripts.modeling.families import FAMILIES
from ser_scripts.specs.augmentation import AugmentationSpec
from ser_scripts.specs.base import Spec, parse
from ser_scripts.specs.classical import parse_model
from ser_scripts.specs.corpora import CorpusSpec, NamedCorpus
from ser_scripts.specs.experiment import ExperimentSpec
from ser_scripts.specs.model import AdapterSpec, HeadSpec, ModelSpec
from ser_scripts.specs.preprocess import PreprocessSpec
from ser_scripts.specs.splits import SplitSpec

ROOT = Path(__file__).parent.parent
GUIDES = sorted((ROOT / "docs").glob("*.md"))
PAGES = [file for file in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *GUIDES) if file.is_file()]
LINKED = [*PAGES, *sorted((ROOT / "data").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
MINIMAL: dict[type[Spec], dict[str, Any]] = {
    ExperimentSpec: {"name": "x", "train": ["toy"], "models": ["m"], "split": {"kind": "speaker_independent"}},
    ModelSpec: {"name": "x", "encoder": {"model_path_or_name": "a/b"}},
}
SKIPPED = {"build", "dist", "node_modules", "runs", "splits", "__pycache__"}
FORBIDDEN = [
    "py" + "pi.org", "pythonhost" + "ed", "npm" + "js", "deb" + "ian.org", "ubu" + "ntu.com", "ana" + "conda.org",
    "crates" + ".io", "ghcr" + ".io", "docker" + ".io", "quay" + ".io", "ruby" + "gems", "/wo" + "rk/",
]  # fmt: skip
"""Host names of package registries, and a path of one machine; in pieces, since this file is searched too."""


def page(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def json_blocks(file: Path) -> list[Any]:
    return [json.loads(body) for language, body in FENCE.findall(read(page(file))) if language == "json"]


def code(file: Path) -> list[str]:
    """Lines of fenced blocks, and code spans with their line breaks taken out."""
    text = file.read_text(encoding="utf-8")
    lines = [line for _, body in FENCE.findall(text) for line in body.splitlines()]
    return [*lines, *(" ".join(span.split()) for span in SPAN.findall(FENCE.sub("", text)))]


def check_block(content: dict[str, Any], source: str) -> None:
    """Validate an experiment, a model, an augmentation, or some keys of an experiment or a model."""
    if ("models" in content or "encoder" in content) and "classifier" not in content:
        cls: Any = ExperimentSpec if "models" in content else ModelSpec
        parse(cls, content, source=source, kind="example")
    elif "classifier" in content:
        parse_model(content, source=source)
    elif "mode" in content:
        parse(AugmentationSpec, content, source=source, kind="example")
    else:
        cls = next((cls for cls in MINIMAL if content.keys() <= cls.model_fields.keys()), ExperimentSpec)
        parse(cls, {**MINIMAL[cls], **content}, source=source, kind="example")


@pytest.mark.parametrize("file", PAGES, ids=page)
def test_json_examples_are_valid(file: Path) -> None:
    for number, content in enumerate(json_blocks(file), start=1):
        check_block(content, f"{page(file)}, JSON block {number}")


def test_there_are_examples_of_every_kind() -> None:
    blocks = [content for file in GUIDES for content in json_blocks(file)]
    for key in ("models", "encoder", "mode", "split", "allow_dropped"):
        assert any(key in content for content in blocks), key


@pytest.mark.parametrize("file", LINKED, ids=page)
def test_json_in_code_spans_is_valid(file: Path) -> None:
    inline: list[Any] = [CorpusSpec, NamedCorpus, SplitSpec, PreprocessSpec, HeadSpec, AdapterSpec]
    kinds = [TypeAdapter[Any](kind) for kind in inline]
    for span in code(file):
        if not (span.startswith('{"kind"') or span.startswith('{"name"')) or "..." in span:
            continue
        content = json.loads(span)
        if "mode" in content or "encoder" in content:
            continue
        assert any(accepts(kind, content) for kind in kinds), f"{page(file)}: {span}"


def accepts(kind: TypeAdapter[Any], content: Any) -> bool:
    try:
        kind.validate_python(content)
    except ValidationError:
        return False
    return True


def options_by_command(group: Any, prefix: str = "") -> dict[str, set[str]]:
    """The options of every command; those of a group, such as `cache`, are named `cache ls`."""
    found: dict[str, set[str]] = {}
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            found |= options_by_command(command, f"{name} ")
        else:
            found[prefix + name] = {option for parameter in command.params for option in parameter.opts}
    return found


COMMANDS = options_by_command(typer.main.get_command(app))
GROUPS = {name.partition(" ")[0] for name in COMMANDS if " " in name}
COMMAND = re.compile(rf"(?:^|[\s/(])ser ((?:{'|'.join(sorted(GROUPS))}) [a-z]+|[a-z][a-z-]*)")
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z_-]*")


def faults_of_commands(text: str) -> list[str]:
    """Sub-commands and options of `ser` in one line of code that do not exist."""
    faults = []
    found = list(COMMAND.finditer(text))
    ends = [match.start() for match in found[1:]] + [len(text)]
    for match, end in zip(found, ends, strict=False):
        name = match[1]
        if name in GROUPS:
            continue
        if name not in COMMANDS:
            faults.append(f"no command 'ser {name}'")
            continue
        said = text[match.end() : end].partition(" #")[0]
        faults += [f"ser {name} has no {flag}" for flag in FLAG.findall(said) if flag not in COMMANDS[name]]
    if text.startswith("--"):
        known = set().union(*COMMANDS.values())
        faults += [f"no {flag}" for flag in FLAG.findall(text) if flag not in known]
    return faults


@pytest.mark.parametrize("file", LINKED, ids=page)
def test_commands_and_options_exist(file: Path) -> None:
    faults = [f"{fault} (`{text}`)" for text in code(file) for fault in faults_of_commands(text)]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("ser train experiments/x.json --jobs 2   # or: ser fit", 1),
        ("ser eval x.json --jobs 2", 1),
        (".venv/bin/ser doctor", 0),
        ("--jobs N", 0),
        ("--job N", 1),
        ("the user trains", 0),
    ],
)
def test_wrong_commands_are_found(text: str, number: int) -> None:
    assert len(faults_of_commands(text)) == number


def test_commands_named_in_messages_exist() -> None:
    for room in ("ser_scripts", "eval", "analysis"):
        for file in sorted((ROOT / room).rglob("*.py")):
            for name in re.findall(r"`ser ([a-z]+)", read(page(file))):
                assert name in COMMANDS or name in GROUPS, f"{page(file)}: `ser {name}`"


@pytest.mark.parametrize("file", PAGES, ids=page)
def test_make_targets_exist(file: Path) -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", read("Makefile"), re.MULTILINE))
    for text in code(file):
        if text.startswith("make "):
            named = [word for word in text.partition("#")[0].split()[1:] if re.fullmatch(r"[a-z][a-z-]*", word)]
            assert set(named) <= targets, f"{page(file)}: {text}"


@pytest.mark.parametrize("file", LINKED, ids=page)
def test_links_lead_to_files_and_headings(file: Path) -> None:
    for link in LINK.findall(FENCE.sub("", file.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = file.parent / path if path else file
        assert target.exists(), f"{page(file)}: {link}"
        if anchor:
            titles = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
            assert anchor in anchors, f"{page(file)}: {link}; there are {', '.join(sorted(anchors))}"


def test_every_key_of_the_specs_is_documented() -> None:
    experiments, models = read("docs/experiments.md"), read("docs/models.md")
    lacking = [name for name in ExperimentSpec.model_fields if f"`{name}`" not in experiments]
    fields = {name: field.annotation for name, field in ModelSpec.model_fields.items()}
    for name, kind in fields.items():
        inner = getattr(kind, "model_fields", {})
        if name == "training":
            lacking += [key for key in inner if f"`{key}`" not in models]
        elif inner:
            lacking += [f"{name}.{key}" for key in inner if f"{key}`" not in models]
        elif name != "encoder" and f"`{name}`" not in models:
            lacking.append(name)
    assert not lacking


def test_lists_in_the_guides_are_complete() -> None:
    experiments, models = read("docs/experiments.md"), read("docs/models.md")
    schema = ExperimentSpec.model_json_schema()
    for kind in schema["properties"]["split"]["discriminator"]["mapping"]:
        assert f"| `{kind}` |" in experiments
    for family in FAMILIES:
        assert f"`{family}`" in models
    overview = read("data/README.md")
    for name in corpora.names():
        assert f"({name}.md)" in overview


def text_files() -> list[Path]:
    """Every file that a checkout holds, and none that is made in it."""
    files = []
    for folder, names, found in os.walk(ROOT):
        here = Path(folder)
        names[:] = [
            name
            for name in names
            if name not in SKIPPED
            and (not name.startswith(".") or name == ".ci")
            and not name.endswith((".egg-info", ".partial"))
            and here / name != ROOT / "data" / "raw"
        ]
        files += [here / name for name in found]
    return files


def test_no_registry_is_named() -> None:
    named = []
    for file in text_files():
        try:
            text = file.read_text(encoding="utf-8").lower()
        except UnicodeDecodeError:
            continue
        named += [f"{page(file)}: {name}" for name in FORBIDDEN if name in text]
    assert not named, "\n".join(named)
    assert len(text_files()) > 100
