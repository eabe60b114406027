"""What is installed and found on this machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
from pathlib import Path

from ser_scripts import corpora
from ser_scripts.corpora import sources
from ser_scripts.settings import folders

PACKAGES = ["torch", "torchaudio", "transformers", "accelerate", "datasets", "evaluate", "audiomentations",
            "torch-audiomentations", "numpy", "pandas", "scipy", "scikit-learn", "statsmodels", "soxr"]  # fmt: skip


def examine() -> list[str]:
    """Lines to print: packages, devices, tools, corpora and encoders."""
    lines = [f"python {platform.python_version()} on {platform.platform()}, {os.cpu_count()} cores"]
    for name in PACKAGES:
        try:
            lines.append(f"  {name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            lines.append(f"  {name} MISSING: run `make setup`")
    lines += _devices()
    ffmpeg = shutil.which("ffmpeg")
    lines.append(f"ffmpeg {ffmpeg}" if ffmpeg else "ffmpeg not found (needed for .m4a only)")
    where = folders()
    lines.append(f"SER_DATA {where.data.resolve()}")
    for name in corpora.names():
        folder, _ = sources.place(name, data=where.data, locations=where.locations)
        lines.append(f"  {name}: {folder if folder.is_dir() else f'not there; see `ser corpora {name}`'}")
    lines.append(
        f"SER_MODELS {where.models.resolve() if where.models else 'not set: encoders come from the hub or a path'}"
    )
    if where.models:
        lines += [f"  {folder.relative_to(where.models).as_posix()}" for folder in _encoders(where.models)]
    for label, folder in (("SER_RUNS", where.runs), ("SER_CACHE", where.cache)):
        place = next(parent for parent in [folder.resolve(), *folder.resolve().parents] if parent.exists())
        free = shutil.disk_usage(place).free / 1e9
        state = "writable" if os.access(place, os.W_OK) else "NOT WRITABLE"
        lines.append(f"{label} {folder.resolve()} ({free:.0f} GB free, {state})")
    return lines


def _devices() -> list[str]:
    import torch

    lines = [f"device cpu, {torch.get_num_threads()} threads"]
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        lines.append(f"device cuda:{index} {properties.name}, {properties.total_memory / 1e9:.0f} GB")
    if torch.backends.mps.is_available():
        lines.append("device mps")
    return lines


def _encoders(models: Path) -> list[Path]:
    return sorted(file.parent for file in models.glob("*/*/config.json"))
