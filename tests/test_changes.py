"""When a corpus has changed below a finished run, the message says which clips differ and how."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from ser_scripts.errors import BadInput
from ser_scripts.runs.changes import changed_clips
from ser_scripts.runs.execute import Options, execute_plan
from ser_scripts.runs.plan import load_experiment, make_plan
from ser_scripts.settings import folders


def silent(text: str) -> None:
    pass


@pytest.fixture
def corpus(mini_corpus: Path, tmp_path: Path) -> Path:
    """A copy of the mini corpus that may be changed."""
    shutil.copytree(mini_corpus, tmp_path / "own")
    return tmp_path / "own"


def train(experiment: Path) -> None:
    execute_plan(make_plan(load_experiment(experiment), folders(), progress=silent), folders(), Options(), silent)


def edit(corpus: Path, old: str, new: str) -> None:
    text = (corpus / "clips.csv").read_text()
    assert old in text
    (corpus / "clips.csv").write_text(text.replace(old, new))


def test_the_message_names_the_clips_that_differ(project: Any, corpus: Path) -> None:
    place = {"kind": "csv", "name": "mini", "path": str(corpus / "clips.csv")}
    experiment = project(train=[place], training={"epochs": 1})
    train(experiment)
    noise = 0.1 * np.random.default_rng(0).standard_normal(16_000)
    soundfile.write(corpus / "gio-f1-b1.wav", noise, 16_000)
    (corpus / "rab-f1-b1.wav").unlink()
    edit(corpus, "rab-f1-b1.wav,angry,f1,female,b1\n", "")
    (corpus / "tri-m1-l1.wav").rename(corpus / "tri-m1-x.wav")
    edit(corpus, "tri-m1-l1.wav", "tri-m1-x.wav")
    edit(corpus, "gio-m2-b1.wav,happy", "gio-m2-b1.wav,sad")
    with pytest.raises(BadInput) as caught:
        train(experiment)
    (line,) = [line for line in str(caught.value).splitlines() if line.startswith("  mini: ")]
    assert line == (
        "  mini: 1 clip changed: gio-f1-b1.wav; 1 clip new: tri-m1-x.wav; "
        "2 clips gone: rab-f1-b1.wav, tri-m1-l1.wav; "
        "1 clip with another label, speaker, gender or group: gio-m2-b1.wav"
    )
    assert "manifest_sha256.mini: was '" in str(caught.value)


def test_without_what_was_written_down_nothing_is_claimed(project: Any, corpus: Path, tmp_path: Path) -> None:
    place = {"kind": "csv", "name": "mini", "path": str(corpus / "clips.csv")}
    plan = make_plan(load_experiment(project(train=[place])), folders(), progress=silent)
    split = plan.runs[0].split.table
    assert changed_clips(tmp_path / "none", tmp_path / "none", split, plan.manifests, ["mini"]) == []
    (tmp_path / "experiment").mkdir()
    plan.manifests["mini"].clips.to_csv(tmp_path / "experiment" / "clips.csv", index=False)
    assert changed_clips(tmp_path / "none", tmp_path / "experiment", split, plan.manifests, ["mini"]) == []
    head = plan.manifests["mini"].clips.iloc[:-7]
    head.to_csv(tmp_path / "experiment" / "clips.csv", index=False)
    (line,) = changed_clips(tmp_path / "none", tmp_path / "experiment", split, plan.manifests, ["mini"])
    assert line.startswith("mini: 7 clips new: ")
    assert line.endswith("(and 2 more)")
