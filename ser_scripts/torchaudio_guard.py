"""Let `import torchaudio` work with a CPU build of torch although the wheel's extension links CUDA.

torchaudio's wheel needs libraries that only a CUDA build of torch has. With a CPU build the import raises OSError and
takes transformers, evaluate and torch_audiomentations with it, although the pure Python parts need no extension.
`install()` puts an import hook in place that tolerates exactly that load failure. It imports neither torch nor
torchaudio, changes no file, and a CUDA build of torch is left alone.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType

_TARGET = "torchaudio._extension.utils"


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != _TARGET:
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec is None or spec.loader is None:
            return spec
        run_module = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            run_module(module)
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

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def install() -> None:
    """Put the hook in place once; does nothing when torchaudio has been imported already."""
    if _TARGET not in sys.modules and not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
