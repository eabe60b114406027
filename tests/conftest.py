"""Fixtures that all rooms share."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

import ser_scripts  # noqa: F401  installs the torchaudio guard before anything imports transformers

settings.register_profile("default", deadline=None, print_blob=True)
settings.register_profile("thorough", deadline=None, max_examples=3000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def _folder(variable: str, what: str, how: str) -> Path:
    value = os.environ.get(variable)
    if not value or not Path(value).is_dir():
        pytest.skip(f"needs {what}: set {variable} to a folder that holds it ({how})")
    return Path(value).resolve()


@pytest.fixture(scope="session")
def ser_data() -> Path:
    """Folder of real corpora; the test is skipped where there is none."""
    return _folder("SER_DATA", "real corpora (emodb, cremad)", "data/README.md says where to get them")


@pytest.fixture(scope="session")
def ser_models() -> Path:
    """Folder of real encoders, laid out by hub id; the test is skipped where there is none."""
    return _folder("SER_MODELS", "real encoders (openai/whisper-tiny.en, ...)", "download them by hub id")


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests never reach for the hub."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
