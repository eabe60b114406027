"""The import guard: torchvision, which timm needs, on a CPU build of torch."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]

if torch.version.cuda is not None:
    pytest.skip("the guard leaves a CUDA build of torch alone", allow_module_level=True)


def run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = [str(folder), str(ROOT), *(item for item in sys.path if item)]
    start = f"import sys; sys.path[:0] = {path!r}\n"
    return subprocess.run([sys.executable, "-c", start + code], capture_output=True, text=True, check=False)


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """What the wheel does when its extension cannot be loaded: it describes operators that nobody has defined."""
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "extension.py").write_text("def _has_ops():\n    return False\n")
    (package / "__init__.py").write_text(
        "import torch\n"
        "from . import extension\n"
        "for name in ('nms', 'qnms'):\n"
        "    torch.library.register_fake(f'torchvision::{name}')(lambda dets, scores, iou_threshold: scores)\n"
    )
    return tmp_path


def test_the_load_failure_of_torchvision_is_tolerated_and_only_with_the_guard(wheel: Path) -> None:
    bare = run("import torchvision", wheel)
    assert bare.returncode != 0
    assert "operator torchvision::nms does not exist" in bare.stderr
    code = (
        "import ser_scripts, torchvision, torch\n"
        "try:\n"
        "    torch.ops.torchvision.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)\n"
        "except NotImplementedError as error:\n"
        "    print('no code')\n"
    )
    guarded = run(code, wheel)
    assert guarded.returncode == 0, guarded.stderr
    assert guarded.stdout.strip() == "no code", "calling an operator is an error, not a made-up result"


@pytest.mark.skipif(find_spec("torchvision") is None, reason="needs torchvision")
def test_the_real_torchvision_and_what_imports_it(tmp_path: Path) -> None:
    code = "import ser_scripts, torchvision, transformers, torchaudio\nfrom transformers import Trainer, WhisperModel\n"
    done = run(code, tmp_path)
    assert done.returncode == 0, done.stderr
