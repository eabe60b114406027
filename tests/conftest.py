"""Fixtures that all rooms share."""

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import settings

import ser_scripts  # noqa: F401  installs the torchaudio guard before anything imports transformers

FOREIGN = ("SER_IMAGE", "HF_", "HUGGINGFACE_", "TRANSFORMERS_", "WANDB_", "CLICOLOR")
FURTHER = ("SER_RUNS", "SER_CACHE", "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "NO_COLOR", "FORCE_COLOR",
           "TERMINAL_WIDTH", "MPLBACKEND", "PYTEST_ADDOPTS", "PYTHONWARNINGS")  # fmt: skip
for _name in list(os.environ):  # tests do not see these; before anything is imported that reads them
    if _name.startswith(FOREIGN) or _name in FURTHER:
        del os.environ[_name]
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "localhost,127.0.0.1"  # the servers of tests
os.umask(0o022)
if len(tempfile.gettempdir()) > 70 and os.access("/tmp", os.W_OK):
    # sockets of torch's data loaders lie there, and the path of a socket has at most 107 characters
    os.environ["TMPDIR"] = tempfile.tempdir = "/tmp"

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


@pytest.fixture(scope="session", autouse=True)
def _narrow_terminal() -> Iterator[None]:
    """Usage errors are wrapped alike, whatever the terminal."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "80")
        yield


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests never reach for the hub."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(autouse=True)
def _no_locations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests do not see where the developer's own corpora lie."""
    monkeypatch.setattr("ser_scripts.settings.LOCATIONS", Path("data/no-locations.json"))


@pytest.fixture(scope="session")
def mini_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 96 clips of the toy corpus (8 actors x 3 emotions x 4 sentences) and their clips.csv."""
    import soundfile

    from ser_scripts.corpora import toy

    folder = tmp_path_factory.mktemp("mini")
    lines = ["path,class_id,actor,gender,sentence"]
    for actor in ("f1", "f2", "f3", "f4", "m1", "m2", "m3", "m4"):
        for emotion in ("gio", "rab", "tri"):
            for sentence in ("b1", "b2", "l1", "n1"):
                stem = f"{emotion}-{actor}-{sentence}"
                soundfile.write(folder / f"{stem}.wav", toy.clip(stem), 16000, subtype="PCM_16")
                gender = "female" if actor.startswith("f") else "male"
                lines.append(f"{stem}.wav,{toy.LABELS[emotion]},{actor},{gender},{sentence}")
    (folder / "clips.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def small_corpus(mini_corpus: Path) -> dict[str, str]:
    """Half of the sentences: so few clips that no processes start for them."""
    rows = pd.read_csv(mini_corpus / "clips.csv", dtype=str)
    file = mini_corpus / "small.csv"
    rows[rows["sentence"].isin(["b1", "l1"])].to_csv(file, index=False)
    return {"kind": "csv", "name": "mini", "path": str(file)}


@pytest.fixture(scope="session")
def tiny_whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Whisper of two small layers in save_pretrained layout."""
    import torch
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel

    folder = tmp_path_factory.mktemp("models") / "tiny"
    torch.manual_seed(0)
    config = WhisperConfig(
        d_model=32, encoder_layers=2, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=48, decoder_ffn_dim=48, num_mel_bins=80, vocab_size=60, pad_token_id=0, bos_token_id=1,
        eos_token_id=2, decoder_start_token_id=1, suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip
    WhisperModel(config).save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=80).save_pretrained(folder)
    return folder


TINY_MODEL = {
    "name": "tiny",
    "encoder": {
        "kind": "random",
        "config": {
            "model_type": "whisper",
            "d_model": 32,
            "encoder_layers": 1,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": 64,
            "num_mel_bins": 80,
        },
    },
    "freeze": {"cnn": False},
    "head": {"dropout": 0.2},
    "training": {
        "epochs": 4,
        "batch_size": 8,
        "learning_rate": 2e-3,
        "threads": 1,
        "early_stopping": None,
        "track": [],
    },
}
"""A model that trains on the mini corpus in a second."""


@pytest.fixture
def project(tmp_path: Path, mini_corpus: Path, monkeypatch: pytest.MonkeyPatch):
    """Write an experiment on the mini corpus with one tiny model into a fresh folder; returns the writer."""
    monkeypatch.setenv("SER_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("SER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SER_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("SER_MODELS", raising=False)
    monkeypatch.chdir(tmp_path)

    def write(model: dict[str, Any] | None = None, training: dict[str, Any] | None = None, **changes: Any) -> Path:
        content = {
            "name": "mini",
            "train": [{"kind": "csv", "name": "mini", "path": str(mini_corpus / "clips.csv")}],
            "models": ["tiny"],
            "split": {"kind": "speaker_independent"},
            **changes,
        }
        one = {**TINY_MODEL, **(model or {})}
        one["training"] = {**TINY_MODEL["training"], **(training or {})}
        (tmp_path / "tiny.json").write_text(json.dumps(one))
        file = tmp_path / "mini.json"
        file.write_text(json.dumps(content))
        return file

    return write
