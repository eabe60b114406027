"""Finding the class of a transform: a spec from a stranger imports nothing that nobody allowed."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from ser_scripts.errors import BadInput
from ser_scripts.specs.base import nearest

LIBRARIES = ("audiomentations", "torch_audiomentations")
OWN = "ser_scripts.augment"
_NOT_FROM_JSON = {"Compose", "OneOf", "SomeOf", "Lambda"}
"""They take objects, which JSON cannot hold."""


def load_class(module: str, class_name: str, *, allow_imports: Sequence[str], where: str) -> type[Any]:
    """Import the class of a transform.

    Args:
        module: `audiomentations`, `torch_audiomentations`, a module under `ser_scripts.augment`, or an allowed one
        class_name: a class in it whose instances can be called
        allow_imports: what the user allowed besides: names of modules, or paths of .py files (module name = stem)
        where: names the transform in errors

    Raises:
        BadInput: the module is not allowed or cannot be imported (nothing is imported to find out that it is not
            allowed); the class does not exist, with the nearest valid name
    """
    loaded = _load_module(module, allow_imports, where)
    valid = {name for name, value in vars(loaded).items() if _is_transform(name, value, module)}
    if class_name not in valid:
        if class_name in _NOT_FROM_JSON:
            raise BadInput(f"{where}: '{class_name}' takes objects that JSON cannot hold; list its transforms instead")
        raise BadInput(f"{where}: {module} has no transform '{class_name}'{nearest(class_name, valid)}")
    return vars(loaded)[class_name]  # type: ignore[no-any-return]


def check_arguments(cls: type[Any], arguments: Sequence[str], *, reserved: Sequence[str], where: str) -> None:
    """Compare the names of constructor arguments with the constructor's signature.

    Raises:
        BadInput: an argument that the constructor does not take, or a required one that is missing
    """
    parameters = inspect.signature(cls).parameters
    named = {name for name, p in parameters.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)} - set(reserved)
    # The libraries' own **kwargs swallow misspelt names, so that they do not count as "takes anything".
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values()) and _root(cls.__module__) not in LIBRARIES
    for name in arguments:
        if name not in named and not takes_any:
            hint = nearest(name, named).partition("; valid")[0]
            valid = f"valid: {', '.join(sorted(named))}" if named else "it takes none"
            raise BadInput(f"{where}: {cls.__name__} takes no argument '{name}'{hint}; {valid}")
    missing = [
        n for n in parameters if n in named and parameters[n].default is inspect.Parameter.empty and n not in arguments
    ]
    if missing:
        raise BadInput(f"{where}: {cls.__name__} needs {', '.join(repr(name) for name in missing)}")


def resolve_allowed(allow_imports: Sequence[str]) -> tuple[str, ...]:
    """Paths among the allowed imports made absolute, so that a later change of the working directory changes nothing.

    Raises:
        BadInput: a .py file that does not exist, two files of one stem, or neither a file nor the name of a module
    """
    resolved = tuple(
        str(Path(item).resolve()) if item.endswith(".py") else item for item in dict.fromkeys(allow_imports)
    )
    names = [Path(item).stem if item.endswith(".py") else item for item in resolved]
    for item, name in zip(resolved, names, strict=True):
        if item.endswith(".py") and not Path(item).is_file():
            raise BadInput(f"--allow-import {item}: no such file")
        if not _is_module_name(name):
            raise BadInput(f"--allow-import {item}: expected the name of a module or the path of a .py file")
        if names.count(name) > 1 or name in (*LIBRARIES, OWN):
            raise BadInput(f"--allow-import {item}: '{name}' already names another module; rename the file")
    return resolved


def _load_module(module: str, allow_imports: Sequence[str], where: str) -> ModuleType:
    file = next((Path(item) for item in allow_imports if item.endswith(".py") and Path(item).stem == module), None)
    names = (*LIBRARIES, OWN, *(item for item in allow_imports if not item.endswith(".py")))
    if not _is_module_name(module) or not (
        file or any(module == name or module.startswith(f"{name}.") for name in names)
    ):
        raise BadInput(
            f"{where}: module '{module}' is not imported; allowed are {', '.join(LIBRARIES)} and modules under {OWN}. "
            f"If you trust its code, pass --allow-import {module} (or the path of its .py file)"
        )
    try:
        return _load_file(file) if file else importlib.import_module(module)
    except (ImportError, SyntaxError) as error:
        raise BadInput(f"{where}: cannot import module '{module}': {error}") from error


def _load_file(file: Path) -> ModuleType:
    """Run a .py file as a module, once per process."""
    name = f"ser_allowed_import_{file.stem}"
    present = sys.modules.get(name)
    if present is not None and present.__file__ == str(file):
        return present
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _is_transform(name: str, value: Any, module: str) -> bool:
    """A public class with callable instances that is not merely imported there from elsewhere."""
    if not inspect.isclass(value) or name.startswith(("_", "Base")) or name in _NOT_FROM_JSON or not _callable(value):
        return False
    root = _root(module)
    return root not in (*LIBRARIES, _root(OWN)) or _root(value.__module__) == root


def _callable(cls: type[Any]) -> bool:
    return "__call__" in {name for base in cls.__mro__ for name in vars(base)}


def _is_module_name(name: str) -> bool:
    return re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", name) is not None


def _root(module: str) -> str:
    return module.partition(".")[0]
