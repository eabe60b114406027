"""Every corpus reader on a miniature in the published layout and naming (`tests/miniatures/<corpus>.py`).

A miniature states `CLIPS` (paths of its audio), `TABLES` (path -> text of its other files) and `ROWS`, exactly what
`read` returns; `LABEL_ROWS` (label set -> rows) for the further label sets.
"""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile

from ser_scripts import corpora
from ser_scripts.corpora import ClipRow
from ser_scripts.errors import BadInput
from ser_scripts.labels import VOCABULARY, check_labels
from ser_scripts.manifest import survey
from ser_scripts.specs.corpora import NamedCorpus

MINIATURES = Path(__file__).parent / "miniatures"
NAMES = sorted(file.stem for file in MINIATURES.glob("*.py"))
GENDERS = {"female", "male", "other", "unknown"}


def miniature(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"miniature_{name}", MINIATURES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def lay_out(name: str, root: Path) -> ModuleType:
    """Write the miniature of a corpus: half a second of noise per clip, another noise for each."""
    small = miniature(name)
    for number, path in enumerate(small.CLIPS):
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).normal(0, 0.1, 8000).astype(np.float32)
        container = {".mp3": ("MP3", None), ".opus": ("OGG", "OPUS"), ".ogg": ("OGG", "VORBIS")}
        form, subtype = container.get(file.suffix.lower(), (file.suffix[1:].upper(), None))
        soundfile.write(file, noise, 16000, format=form, subtype=subtype)
    for path, text in small.TABLES.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8", newline="")
    return small


def check_rows(rows: list[ClipRow]) -> None:
    assert [row.path for row in rows] == sorted({row.path for row in rows})
    for row in rows:
        assert row.gender in GENDERS
        assert row.class_id in VOCABULARY if row.set_aside is None else row.class_id == ""
        assert all(label in VOCABULARY for label, _ in row.votes or ())


@pytest.mark.parametrize("name", NAMES)
def test_a_miniature_reads_as_published(name: str, tmp_path: Path) -> None:
    small = lay_out(name, tmp_path / name)
    rows = corpora.get(name).read(tmp_path / name)
    check_rows(rows)
    assert rows == small.ROWS
    assert {row.path for row in rows} <= set(small.CLIPS)


@pytest.mark.parametrize("name", NAMES)
def test_every_label_set_reads(name: str, tmp_path: Path) -> None:
    small, corpus = lay_out(name, tmp_path / name), corpora.get(name)
    others = list(corpora.label_sets(corpus))[1:]
    assert others == list(getattr(small, "LABEL_ROWS", {}))
    for labels in others:
        rows = corpora.read(corpus, tmp_path / name, labels)
        check_rows(rows)
        assert rows == small.LABEL_ROWS[labels]
    if others:
        assert corpora.read(corpus, tmp_path / name, next(iter(corpora.label_sets(corpus)))) == small.ROWS
    with pytest.raises(BadInput, match=f"corpus '{name}': labels: 'nonsense' is not valid"):
        corpora.read(corpus, tmp_path / name, "nonsense")


@pytest.mark.parametrize("name", NAMES)
def test_a_miniature_becomes_a_manifest(name: str, tmp_path: Path) -> None:
    small = lay_out(name, tmp_path / "data" / name)
    manifest = survey(NamedCorpus(name=name), data=tmp_path / "data", cache=tmp_path / "cache", base=tmp_path)
    assert list(manifest.clips["path"]) == [row.path for row in small.ROWS if row.set_aside is None]
    assert list(manifest.set_aside["path"]) == [row.path for row in small.ROWS if row.set_aside is not None]
    assert manifest.speakers_known == all(row.actor != "" for row in small.ROWS if row.set_aside is None)


@pytest.mark.parametrize("name", NAMES)
def test_the_module_says_what_the_miniature_shows(name: str) -> None:
    corpus, small = corpora.get(name), miniature(name)
    check_labels(name, corpus.LABELS)
    assert {row.class_id for row in small.ROWS} - {""} <= set(corpus.LABELS.values())
    rated = [value for row in small.ROWS for value in (row.valence, row.arousal, row.dominance) if value is not None]
    scale = corpora.rating_scale(corpus)
    assert (scale is not None) == bool(rated)
    assert scale is None or all(scale[0] <= value <= scale[1] for value in rated)
