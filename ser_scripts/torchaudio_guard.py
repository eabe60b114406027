"""Let `import torchaudio` and `import torchvision` work with a CPU build of torch although their wheels link CUDA.

The wheels' extensions need libraries that only a CUDA build of torch has. With a CPU build `import torchaudio` raises
OSError, and `import torchvision` RuntimeError, for it describes operators that the extension would have defined; both
take transformers with them (and evaluate, torch_audiomentations, timm), although their Python parts need no extension.
`install()` puts an import hook in place that tolerates exactly these load failures: torchaudio goes on without its
extension, and torchvision's operators get their signatures, so that they can be described, but no code: calling one is
an error. It imports neither torch nor the two, changes no file, and a CUDA build of torch is left alone.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

_UNDEFINED = ("nms", "qnms")
"""Operators of torchvision that it describes at import without asking whether its extension is there."""
_kept: list[Any] = []
"""Libraries of operators: torch forgets their definitions with them."""


def _tolerate(module: ModuleType) -> None:
    """Wrap the loading of torchaudio's extension."""
    load = module._load_lib

    def load_or_skip(lib: str) -> bool:
        try:
            return bool(load(lib))
        except OSError:
            import torch

            if torch.version.cuda is not None:  # a real fault
                raise
            return False

    module._load_lib = load_or_skip  # type: ignore[attr-defined]


def _define(module: ModuleType) -> None:
    """Give torchvision's operators their signatures where its extension could not be loaded."""
    import torch

    if torch.version.cuda is not None or module._has_ops():
        return
    make: Any = torch.library.Library
    library = make("torchvision", "FRAGMENT")
    for name in _UNDEFINED:
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _kept.append(library)


_TARGETS: dict[str, Callable[[ModuleType], None]] = {
    "torchaudio._extension.utils": _tolerate,
    "torchvision.extension": _define,
}
"""Module -> what is done once it has run."""


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self) -> None:
        self.open = {name for name in _TARGETS if name not in sys.modules}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in self.open:
            return None
        self.open.remove(fullname)
        if not self.open:
            sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec is None or spec.loader is None:
            return spec
        run_module = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            run_module(module)
            _TARGETS[fullname](module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def install() -> None:
    """Put the hook in place once; does nothing for what has been imported already."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        finder = _Finder()
        if finder.open:
            sys.meta_path.insert(0, finder)
