"""From a corpus of the experiment to its folder and rows, whatever its kind; nothing is decoded here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from ser_scripts import corpora
from ser_scripts.corpora import ClipRow, csv_corpus, twins
from ser_scripts.corpora._own import map_labels
from ser_scripts.corpora.audiofolder_corpus import read_audiofolder
from ser_scripts.corpora.emobox_corpus import read_emobox
from ser_scripts.errors import BadInput
from ser_scripts.specs.corpora import (
    AudioFolderCorpus,
    CorpusSpec,
    CsvCorpus,
    EmoBoxCorpus,
    HuggingFaceCorpus,
    NamedCorpus,
)

BUNDLE = {"cremad": "Crema", "ravdess": "Ravdess", "savee": "Savee", "tess": "Tess"}
"""Folders of a bundle of four corpora that is passed around, usually as `archive/`."""


@dataclass(frozen=True)
class Source:
    """A corpus as its reader tells it."""

    root: Path
    """Absolute folder that the rows' paths are relative to."""
    rows: list[ClipRow]
    """Sorted by path."""
    language: str
    """BCP-47 of rows that state none; "" where it is not known."""
    speakers_known: bool
    stems: list[str] | None
    """Of the complete corpus, where they are known."""
    expected: int
    """How many clips the complete corpus has."""
    rating_scale: tuple[float, float] | None = None
    """Lowest and highest value that a rating can have; None where there are no ratings."""


def read_source(spec: CorpusSpec, *, data: Path, locations: Mapping[str, Path], cache: Path, base: Path) -> Source:
    """Find and read a corpus.

    Args:
        spec: the corpus of the experiment
        data: the folder that holds one folder per named corpus (SER_DATA)
        locations: folders of named corpora that lie elsewhere, as of data/locations.json
        cache: where audio that lies inside tables is written as files
        base: the experiment's folder; relative paths of the spec resolve against it, then the working directory

    Raises:
        BadInput: no such corpus or folder, or one that its reader refuses
    """
    match spec:
        case NamedCorpus():
            source = _named(spec, corpus_folder(spec, data=data, locations=locations, base=base))
        case CsvCorpus():
            root, rows, known = csv_corpus.read_csv(existing(spec.path, base), spec.rating_scale)
            rows = map_labels(rows, spec.labels, where=spec.path)
            source = replace(_own(root, rows, known), rating_scale=spec.rating_scale)
        case AudioFolderCorpus():
            root = _folder(spec.path, base, spec.name)
            rows = map_labels(read_audiofolder(root, spec.speaker_pattern), spec.labels, where=str(root))
            source = _own(root, rows, spec.speaker_pattern is not None)
        case EmoBoxCorpus():
            root = _folder(spec.root, base, spec.name)
            rows = read_emobox(_folder(spec.path, base, spec.name), root, spec.labels, spec.speaker_pattern)
            source = _own(root, rows, spec.speaker_pattern is not None)
        case HuggingFaceCorpus():
            from ser_scripts.corpora.huggingface_corpus import read_huggingface  # pyarrow: import when needed

            root, rows = read_huggingface(spec, existing(spec.path, base), cache=cache)
            source = _own(root, map_labels(rows, spec.labels, where=spec.path), spec.speaker_column is not None)
    if spec.twin is None:
        return source
    moved = twins.swap(source.root, [row.path for row in source.rows], spec.twin)
    rows = sorted((replace(row, path=moved[row.path]) for row in source.rows), key=lambda row: row.path)
    paths = {_bare(path): _bare(twin) for path, twin in moved.items()}  # stems that are whole paths move, too
    stems = source.stems and [paths.get(stem, stem) for stem in source.stems]
    return replace(source, rows=rows, stems=stems)


def _bare(path: str) -> str:
    return str(PurePosixPath(path).with_suffix(""))


def existing(path: str, base: Path) -> Path:
    """A path of a spec: absolute, relative to the experiment, or else to the working directory."""
    beside = (base / path).absolute()
    return beside if beside.exists() or not Path(path).exists() else Path(path).absolute()


def corpus_folder(spec: NamedCorpus, *, data: Path, locations: Mapping[str, Path], base: Path) -> Path:
    """Folder of a named corpus: its `root`, else where data/locations.json says, else SER_DATA/<corpus>.

    The folder of a bundle of four corpora (`BUNDLE`) stands for the corpus' folder in it.

    Raises:
        BadInput: no such corpus or folder
    """
    name = spec.reader
    corpora.get(name)
    if spec.root is not None:
        folder, looked_for = existing(spec.root, base), f'"root" is {spec.root!r}'
    else:
        folder, looked_for = place(name, data=data, locations=locations)
    if folder.is_dir():
        return _in_bundle(folder, name)
    if name == "toy":
        raise BadInput(f"corpus '{spec.name}': no folder {folder} ({looked_for}); `ser prepare toy` makes it there")
    raise BadInput(
        f"corpus '{spec.name}': no folder {folder} ({looked_for}). Put the corpus there, point SER_DATA to the "
        f'folder that holds {name}/, name its folder in data/locations.json, or give its "root" in the experiment; '
        f"`ser corpora {name}` says where to get it."
    )


def place(name: str, *, data: Path, locations: Mapping[str, Path]) -> tuple[Path, str]:
    """Where a named corpus is looked for, existing or not, and what says so."""
    if name in locations:
        return _in_bundle(locations[name].absolute(), name), "data/locations.json"
    folder = data.absolute() / name
    if not folder.is_dir() and name in BUNDLE and (data / BUNDLE[name]).is_dir():
        folder = data.absolute() / BUNDLE[name]
    return folder, f"SER_DATA is {data}"


def _in_bundle(folder: Path, name: str) -> Path:
    if name in BUNDLE and sum((folder / part).is_dir() for part in BUNDLE.values()) > 1:
        return folder / BUNDLE[name]
    return folder


def _named(spec: NamedCorpus, root: Path) -> Source:
    reader = corpora.get(spec.reader)
    rows = corpora.read(reader, root, spec.labels)
    stems, expected = reader.expected_stems(root), reader.EXPECTED_CLIPS
    if expected is None or reader.LAYOUT == "unverified":
        expected = len(rows)
    known, scale = corpora.speakers_known(reader), corpora.rating_scale(reader)
    return Source(root, rows, reader.LANGUAGE, known, stems, expected, scale)


def _own(root: Path, rows: list[ClipRow], speakers_known: bool) -> Source:
    return Source(root, rows, "", speakers_known, None, len(rows))


def _folder(path: str, base: Path, name: str) -> Path:
    folder = existing(path, base)
    if not folder.is_dir():
        raise BadInput(f"corpus '{name}': {folder} is no folder; expected one, as the path {path!r} says")
    return folder
