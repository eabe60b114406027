"""Code that comes with an encoder's weights: which files it is, whether it may run, and running exactly those files.

Nothing here imports the code but `load_classes`, which only a caller with the user's leave (`--allow-remote-code`)
reaches. The files are read once, hashed, and run from a private copy of what was hashed, so that the record of a run
names what ran. Imports no model library, so it is quick.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import re
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing import util
from pathlib import Path
from typing import Any

from ser_eval.run_folder import write_json
from ser_scripts.errors import BadInput

OPTION = "--allow-remote-code"
AUTO_MAP = "auto_map"
KEYS = ("AutoConfig", "AutoModel")
BUILT_IN = frozenset(
    {
        "clap", "clap_audio_model", "data2vec-audio", "hubert", "moonshine", "compact", "sew", "spectrogram_cnn",
        "unispeech", "unispeech-sat", "wav2vec2", "wav2vec2-bert", "wav2vec2-conformer", "wavlm", "whisper",
    }
)  # fmt: skip
"""Every `model_type` that needs no code of others; a test compares it with the families."""
_CLASS = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\.[A-Za-z_][A-Za-z0-9_]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_LOADING = threading.Lock()


@dataclass(frozen=True)
class RemoteCode:
    """The Python files that an encoder brings, as they were read."""

    files: Mapping[str, bytes]
    """Name -> content, sorted: what `auto_map` names and what these files import from beside them."""
    classes: Mapping[str, str]
    """`AutoConfig` and `AutoModel` -> module.Class."""

    def sums(self) -> dict[str, str]:
        """SHA-256 of each file."""
        return {name: hashlib.sha256(content).hexdigest() for name, content in self.files.items()}

    @property
    def sha256(self) -> str:
        """One SHA-256 over names and contents, and over which classes of them are used."""
        lines = "".join(f"{name}\0{one}\n" for name, one in {**self.sums(), **self.classes}.items())
        return hashlib.sha256(lines.encode()).hexdigest()


def brings_code(config: Mapping[str, Any]) -> bool:
    """Whether the content of a config.json asks for code that lies beside it; a known `model_type` never does."""
    return AUTO_MAP in config and config.get("model_type") not in BUILT_IN


def refusal(name: str, *, place: str, revision: str | None, classes: Mapping[str, str]) -> BadInput:
    """What a user hears who has not allowed the code: what would run, from where, and how to allow it."""
    what = ", ".join(f"{one.partition('.')[0]}.py ({one.partition('.')[2]})" for one in classes.values())
    at = f"revision {revision}" if revision else "no revision named"
    return BadInput(
        f"encoder {name!r} runs on Python code of its own, {what} from {place} ({at}), and code of strangers is not "
        f"run here unless you read it and allow it with {OPTION}"
    )


def check_pinned(name: str, revision: str | None) -> None:
    """Refuse code from the hub at a revision that may be another one tomorrow.

    Raises:
        BadInput: `revision` is no commit in full
    """
    if revision is None or not _COMMIT.fullmatch(revision):
        raise BadInput(
            f"encoder.revision: {revision!r} is not valid for {name!r}, which brings code of its own: from the hub "
            "such an encoder is taken at a commit only, all 40 hexadecimal digits of it (or download it once: "
            f"`hf download {name} --local-dir <SER_MODELS>/{name}`)"
        )


def code_classes(config: Mapping[str, Any], *, place: str) -> dict[str, str]:
    """The classes that a config.json names under `auto_map`, by the two keys that are read here.

    Raises:
        BadInput: one of the two is missing, or is no module.Class of a file beside config.json
    """
    named = config[AUTO_MAP]
    if not isinstance(named, dict):
        raise BadInput(f"{place}: {AUTO_MAP} is {named!r}; expected an object with {' and '.join(KEYS)}")
    found = {}
    for key in KEYS:
        value = named.get(key)
        if value is None:
            others = f" (it names {', '.join(sorted(map(str, named)))})" if named else ""
            raise BadInput(f"{place}: {AUTO_MAP} names no {key}{others}; an encoder with code of its own needs both")
        if not isinstance(value, str) or not _CLASS.fullmatch(value):
            raise BadInput(
                f"{place}: {AUTO_MAP}.{key}: {value!r} is not valid; expected <module>.<Class> of a .py file in the "
                "same folder: neither another folder nor another repository"
            )
        found[key] = value
    return found


def collect(config: Mapping[str, Any], read: Callable[[str], bytes | None], *, place: str) -> RemoteCode:
    """The files of the code: those that `auto_map` names, and what they import from beside them, without running any.

    Args:
        config: content of config.json
        read: gives the content of a file of the folder; None where there is none
        place: the folder, for error texts

    Raises:
        BadInput: a file is missing, is no Python, or imports from outside the folder
    """
    classes = code_classes(config, place=place)
    asked = [(f"{value.partition('.')[0]}.py", f"{AUTO_MAP}.{key}") for key, value in classes.items()]
    files: dict[str, bytes] = {}
    while asked:
        name, by = asked.pop()
        if name in files:
            continue
        content = read(name)
        if content is None:
            raise BadInput(f"{place} holds no {name}, which {by} names")
        files[name] = content
        asked += [(module, name) for module in _imported(content, file=f"{place}/{name}")]
    return RemoteCode(dict(sorted(files.items())), classes)


def read_code(config: Mapping[str, Any], folder: Path) -> RemoteCode:
    """The code in a folder."""

    def read(name: str) -> bytes | None:
        return (folder / name).read_bytes() if (folder / name).is_file() else None

    return collect(config, read, place=str(folder))


def _imported(content: bytes, *, file: str) -> list[str]:
    """The files beside a module that it imports."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError) as error:
        raise BadInput(f"{file} is no valid Python: {error}") from None
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        if node.level > 1 or "." in (node.module or ""):
            raise BadInput(
                f"{file}, line {node.lineno}: imports '{'.' * node.level}{node.module or ''}'; code that comes with an "
                "encoder may import from files in its own folder only"
            )
        found += [f"{node.module}.py"] if node.module else [f"{alias.name}.py" for alias in node.names]
    return found


# ---- running it ----


@functools.cache
def _private_folder() -> Path:
    """A folder of this process alone, gone when it ends: nothing that ran once lies about to be run again."""
    folder = Path(tempfile.mkdtemp(prefix="ser-remote-code-"))
    util.Finalize(None, shutil.rmtree, args=(str(folder), True), exitpriority=1)  # in spawned processes, too
    return folder


def load_classes(code: RemoteCode, config: Mapping[str, Any], *, place: str) -> tuple[Any, Any]:
    """Import the code and build configuration and model with random weights. RUNS CODE OF STRANGERS.

    transformers loads them, from a copy of exactly the files of `code`, offline, and keeps its own copy in the same
    private folder instead of in the home directory.

    Args:
        code: what to run
        config: content of config.json
        place: where it came from, for error texts

    Returns:
        the transformers configuration, and the model

    Raises:
        BadInput: a package is missing, or the code fails
    """
    import torch
    from transformers import AutoConfig, AutoModel, dynamic_module_utils

    with _LOADING:
        source = _private_folder() / f"encoder_{code.sha256[:16]}"
        source.mkdir(exist_ok=True)
        for name, content in code.files.items():
            (source / name).write_bytes(content)
        write_json(source / "config.json", {**config, AUTO_MAP: dict(code.classes)})
        dynamic_module_utils.HF_MODULES_CACHE = str(_private_folder() / "modules")
        with running(place, "when it is loaded"):
            loaded = AutoConfig.from_pretrained(str(source), trust_remote_code=True, local_files_only=True)
            model = AutoModel.from_config(loaded, trust_remote_code=True, dtype=torch.float32)
    model.config._name_or_path = ""  # of the private folder, which is not to be saved
    return model.config, model


@contextlib.contextmanager
def running(place: str, when: str) -> Iterator[None]:
    """Around a stranger's code: it prints to stderr, and whatever it raises is a fault of the input.

    Raises:
        BadInput: what it raised
    """
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except (BadInput, MemoryError):
        raise
    except ImportError as error:
        raise BadInput(
            f"{place}: its code cannot be imported: {_first_line(error)}. Install what is missing, or a release that "
            "the code was written for, into this environment if you trust it"
        ) from error
    except (Exception, SystemExit) as error:  # a stranger's code may raise anything
        raise BadInput(f"{place}: its code fails {when}: {type(error).__name__}: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0].rstrip(".") if text else "no reason given"
