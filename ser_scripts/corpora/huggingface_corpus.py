"""Audio data sets in the layouts of the `datasets` library, read with pyarrow: no script of theirs is ever run.

Three layouts are read: the folder that `save_to_disk` writes, parquet files, and clips beside a metadata.csv with a
column file_name. Audio that lies inside the tables is written once as files, so that it is decoded like any other:
`<cache>/huggingface/<key>/<split>/<name>`, where the key stands for the tables as they lie there. The names are those
that the data set gives its clips, or, where these repeat or are absent, the number of the row, so that they are the
same on every machine.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import pyarrow as pa
import pyarrow.compute
import pyarrow.ipc
import pyarrow.parquet
from filelock import FileLock

from ser_eval.run_folder import read_json, write_json
from ser_scripts.audio.decode import SUFFIXES
from ser_scripts.corpora import ClipRow
from ser_scripts.corpora._files import listed, parse_gender, read_table, walk
from ser_scripts.corpora._own import PARTITIONS, check_speakers, inside
from ser_scripts.errors import BadInput
from ser_scripts.specs.base import nearest
from ser_scripts.specs.corpora import HuggingFaceCorpus

_INSIDE = "\0"
"""Begin of the name of a clip whose bytes lie in a table, before it is written as a file."""
DOWNLOADED = ["*.parquet", "*.arrow", "*.json", "metadata.csv", "**/metadata.csv", *(f"*{end}" for end in SUFFIXES)]
"""What is fetched from the hub: data, and nothing that could be run."""
_SHARD = re.compile(r"(?P<split>.+?)(?:-\d{5}-of-\d{5}(?:-[0-9a-f]+)?|-\d+)?")
_MAGIC = {b"RIFF": ".wav", b"FORM": ".wav", b"fLaC": ".flac", b"OggS": ".ogg", b"ID3": ".mp3", b"\xff\xfb": ".mp3"}
_BATCH_ROWS = 256
_NAMES = "names.json"
_CHECKSUMS = "sha256.json"
"""Beside the audio written: the names of each table's clips, table by table."""


@dataclass(frozen=True)
class _Shard:
    """One table of a data set."""

    file: Path
    split: str


def read_huggingface(spec: HuggingFaceCorpus, folder: Path, *, cache: Path) -> tuple[Path, list[ClipRow]]:
    """Read a data set.

    Args:
        spec: the columns, and which splits
        folder: of the data set; where there is none, the spec's path is a name on the hub
        cache: audio that lies inside the tables is written under it

    Returns:
        The folder that the paths are relative to, and the rows, sorted by path

    Raises:
        BadInput: neither a folder nor on the hub, no layout that is known, a column, split or audio that is missing,
            a path that leads out of the data set, a speaker with two genders
    """
    root = _subset(_on_disk(spec, folder), spec)
    if _is_table_folder(root):
        shards = _shards(root, spec)
        for shard in shards:
            _check_columns(shard, spec)
        names, exported = _files_of(shards, spec, cache)
        rows = [row for shard in shards for row in _rows(shard, names[shard.file], root, spec)]
        if exported is not None:
            root, rows = exported, [replace(row, path=row.path.removeprefix(_INSIDE)) for row in rows]
    else:
        rows = _listed_rows(root, spec)
    twice = [path for path, count in Counter(row.path for row in rows).items() if count > 1]
    if twice:
        raise BadInput(f"{root}: {len(twice)} clips are listed again: {listed(twice)}")
    rows = sorted(rows, key=lambda row: row.path)
    check_speakers(rows, where=str(root))
    return root, rows


def _on_disk(spec: HuggingFaceCorpus, folder: Path) -> Path:
    if folder.is_dir():
        if spec.revision is not None:
            raise BadInput(f"corpus '{spec.name}': 'revision' is for data sets on the hub; {folder} is a folder")
        return folder
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", spec.path):
        raise BadInput(
            f"corpus '{spec.name}': {folder} is no folder, and {spec.path!r} no data set's name on the hub (owner/name)"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
    try:
        fetched = snapshot_download(
            spec.path,
            repo_type="dataset",
            revision=spec.revision,
            allow_patterns=DOWNLOADED,
            local_files_only=offline,
        )
        return Path(fetched)
    except LocalEntryNotFoundError:
        raise BadInput(
            f"corpus '{spec.name}': {folder} is no folder, and {spec.path} is not on this machine while the hub cannot "
            "be reached (or HF_HUB_OFFLINE is set)"
        ) from None
    except (HfHubHTTPError, OSError) as error:
        raise BadInput(f"corpus '{spec.name}': {spec.path} cannot be fetched from the hub: {error}") from None


def _subset(root: Path, spec: HuggingFaceCorpus) -> Path:
    if spec.subset is None:
        return root
    place = root / inside(spec.subset, f"corpus '{spec.name}': subset")
    if not place.is_dir():
        there = sorted(one.name for one in root.iterdir() if one.is_dir() and not one.name.startswith("."))
        raise BadInput(f"corpus '{spec.name}': no subset '{spec.subset}' in {root}{nearest(spec.subset, there)}")
    return place


# ---- tables ----


def _is_table_folder(root: Path) -> bool:
    return any(file.suffix == ".parquet" or file.name in ("state.json", "dataset_dict.json") for file in walk(root))


def _shards(root: Path, spec: HuggingFaceCorpus) -> list[_Shard]:
    """The tables of the splits wanted, split by split, in the order of their rows."""
    found = _saved(root) or [
        _Shard(file, _split_of(file.relative_to(root))) for file in walk(root) if file.suffix == ".parquet"
    ]
    folders = {shard.file.parent for shard in found}
    if len(folders) > 1 and len({(shard.file.parent.name, shard.split) for shard in found}) > len(
        {shard.split for shard in found}
    ):
        inner = sorted(str(one.relative_to(root)) for one in folders)
        raise BadInput(f'{root} holds several subsets; name one as "subset": {listed(inner)}')
    splits = {shard.split for shard in found}
    for split in spec.split or ():
        if split not in splits:
            raise BadInput(f"{root}: no split '{split}'{nearest(split, splits)}")
    return sorted(
        (shard for shard in found if spec.split is None or shard.split in spec.split),
        key=lambda shard: (shard.split, found.index(shard)),
    )


def _saved(root: Path) -> list[_Shard]:
    """The tables of a folder of `save_to_disk`, of one data set or of one per split."""
    if (root / "state.json").is_file():
        state = _object(root / "state.json")
        split = inside(str(state.get("_split") or "train"), f"{root / 'state.json'}: _split")
        files = state.get("_data_files")
        if not isinstance(files, list) or not files or not all(isinstance(one, dict) for one in files):
            raise BadInput(f"{root / 'state.json'}: _data_files: expected a list of objects with 'filename'")
        names = [inside(str(one.get("filename", "")), f"{root / 'state.json'}: filename") for one in files]
        return [_Shard(root / name, split) for name in names]
    if (root / "dataset_dict.json").is_file():
        splits = _object(root / "dataset_dict.json").get("splits")
        if not isinstance(splits, list) or not all(isinstance(one, str) for one in splits):
            raise BadInput(f"{root / 'dataset_dict.json'}: splits: expected a list of names")
        shards = []
        for split in splits:
            inside(split, str(root / "dataset_dict.json"))
            shards += [_Shard(one.file, split) for one in _saved(root / split)]
        if not shards:
            raise BadInput(f"{root}: dataset_dict.json names no split that is there")
        return shards
    return []


def _object(file: Path) -> dict[str, Any]:
    """A JSON object that must be one.

    Raises:
        BadInput: it is not
    """
    content = read_json(file)
    if not isinstance(content, dict):
        raise BadInput(f"{file}: expected a JSON object, found {type(content).__name__}")
    return content


def _split_of(file: Path) -> str:
    """Split of a parquet file: from its name (`test-00000-of-00002.parquet`), else from its folder, else train."""
    match = _SHARD.fullmatch(file.stem)
    assert match is not None
    if match["split"].lower() in PARTITIONS or match["split"] != file.stem:
        return match["split"]
    folder = file.parent.name
    return folder if folder.lower() in PARTITIONS else "train"


def _schema(file: Path) -> pa.Schema:
    try:
        if file.suffix == ".parquet":
            return pyarrow.parquet.read_schema(file)
        with pa.memory_map(str(file)) as source:
            return pyarrow.ipc.open_stream(source).schema
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"{file} is not a table that can be read: {error}") from None


def _batches(file: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The rows of a table, some at a time, with only the columns (or parts of columns, `audio.path`) asked for."""
    try:
        if file.suffix == ".parquet":
            with pyarrow.parquet.ParquetFile(file) as table:
                yield from table.iter_batches(batch_size=_BATCH_ROWS, columns=list(columns))
        else:
            with pa.memory_map(str(file)) as source:
                for batch in pyarrow.ipc.open_stream(source):
                    yield batch.select(list(dict.fromkeys(column.partition(".")[0] for column in columns)))
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"{file} is damaged: {error}") from None


def _class_names(file: Path) -> dict[str, list[str]]:
    """Names behind the integers of each ClassLabel column, from the table or the dataset_info.json beside it."""
    metadata = _schema(file).metadata or {}
    features: Any = {}
    try:
        if b"huggingface" in metadata:
            features = json.loads(metadata[b"huggingface"]).get("info", {}).get("features", {})
        elif (file.parent / "dataset_info.json").is_file():
            features = _object(file.parent / "dataset_info.json").get("features") or {}
        return {
            name: [str(one) for one in feature["names"]]
            for name, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and "names" in feature
        }
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError, TypeError):
        raise BadInput(f"{file}: what it says about its columns (features) is damaged") from None


def _check_columns(shard: _Shard, spec: HuggingFaceCorpus) -> None:
    """Refuse a table that lacks a column of the spec, or whose audio is of no kind that is known."""
    schema = _schema(shard.file)
    for column in (spec.audio_column, *_columns(spec).values()):
        if column not in schema.names:
            raise BadInput(f"{shard.file}: no column '{column}'{nearest(column, schema.names)}")
    kind = schema.field(spec.audio_column).type
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    is_audio = pa.types.is_struct(kind) and {"bytes", "path"} <= {inner.name for inner in kind}
    if not (is_text or is_audio):
        raise BadInput(f"{shard.file}: column '{spec.audio_column}' holds {kind}, neither audio nor paths")


def _audio_names(shards: Sequence[_Shard], spec: HuggingFaceCorpus) -> dict[Path, list[str]]:
    """Where the audio of every row lies: a path in the data set, or `_INSIDE` and the name of the file to write."""
    given: dict[Path, list[tuple[str, bytes | None]]] = {shard.file: _given(shard, spec) for shard in shards}
    names: dict[Path, list[str]] = {}
    for split in dict.fromkeys(shard.split for shard in shards):
        files = [shard.file for shard in shards if shard.split == split]
        own = [_bare(path) for file in files for path, head in given[file] if head is not None]
        unique = len({name.rpartition(".")[0] or name for name in own}) == len(own) and all(own)
        number = 0
        for file in files:
            names[file] = []
            for row, (path, head) in enumerate(given[file]):
                where = f"{file} row {row}"
                if head is None:
                    names[file].append(inside(path, where))
                    continue
                name = _bare(path) if unique else f"{number:06d}"
                if PurePosixPath(name).suffix.lower() not in SUFFIXES:
                    name += _suffix(head, path, where)
                names[file].append(f"{_INSIDE}{split}/{name}")
                number += 1
    inner = [path.startswith(_INSIDE) for paths in names.values() for path in paths]
    if any(inner) and not all(inner):
        raise BadInput(f"{shards[0].file.parent}: some clips lie in the tables and some are paths; save it anew")
    return names


def _given(shard: _Shard, spec: HuggingFaceCorpus) -> list[tuple[str, bytes | None]]:
    """Path and first bytes of each row's audio; the bytes are None where the table holds none."""
    found: list[tuple[str, bytes | None]] = []
    for batch in _batches(shard.file, [spec.audio_column]):
        column = batch.column(spec.audio_column)
        if not pa.types.is_struct(column.type):
            found += [(path or "", None) for path in column.to_pylist()]
            continue
        paths = pyarrow.compute.struct_field(column, "path").to_pylist()
        contents = pyarrow.compute.struct_field(column, "bytes")
        heads = pyarrow.compute.binary_slice(contents, 0, 12).to_pylist()
        for path, head in zip(paths, heads, strict=True):
            if path is None and head is None:
                raise BadInput(f"{shard.file} row {len(found)}: no audio in column '{spec.audio_column}'")
            found.append((path or "", head))
    return found


def _bare(path: str) -> str:
    """File name of a path of any system, without what could lead elsewhere; "" where there is none."""
    name = PureWindowsPath(path).name if "\\" in path else PurePosixPath(path).name
    return "" if name in (".", "..") or "\0" in name else name


def _suffix(head: bytes, path: str, where: str) -> str:
    for magic, suffix in _MAGIC.items():
        if head.startswith(magic):
            return suffix
    if head[4:8] == b"ftyp":
        return ".m4a"
    if head[:1] == b"\xff" and len(head) > 1 and head[1] & 0xE6 == 0xE2:
        return ".mp3"
    raise BadInput(f"{where}: {path or 'its audio'} is in no format that can be read ({', '.join(SUFFIXES)})")


def _rows(shard: _Shard, names: Sequence[str], root: Path, spec: HuggingFaceCorpus) -> list[ClipRow]:
    classes = _class_names(shard.file)
    asked = _columns(spec)
    texts: dict[str, list[str | None]] = {target: [] for target in asked}
    for batch in _batches(shard.file, list(dict.fromkeys(asked.values()))):
        for target, column in asked.items():
            values = batch.column(column).to_pylist()
            texts[target] += [_text(value, classes.get(column), f"{shard.file}: {column}") for value in values]
    below = shard.file.parent.relative_to(root)
    rows = []
    for number, name in enumerate(names):
        where = f"{shard.file} row {number}"
        path = name
        if not name.startswith(_INSIDE):
            path = name if (root / name).is_file() or not (root / below / name).is_file() else (below / name).as_posix()
        cells = {target: values[number] for target, values in texts.items()}
        rows.append(_row(path, cells, shard.split, where, spec))
    return rows


def _columns(spec: HuggingFaceCorpus) -> dict[str, str]:
    """Column of the data set for each column of a clip that it gives."""
    columns = {
        "class_id": spec.label_column,
        "actor": spec.speaker_column,
        "gender": spec.gender_column,
        "sentence": spec.sentence_column,
    }
    return {target: column for target, column in columns.items() if column is not None}


def _text(value: Any, names: list[str] | None, where: str) -> str | None:
    """A cell as text; a ClassLabel by its name, -1 (no label) as None."""
    if value is None or (names is not None and value == -1):
        return None
    if names is None:
        return str(value).strip()
    if not isinstance(value, int) or not 0 <= value < len(names):
        raise BadInput(f"{where}: {value!r} is none of the {len(names)} classes ({listed(names)})")
    return names[value]


def _row(path: str, cells: dict[str, str | None], split: str, where: str, spec: HuggingFaceCorpus) -> ClipRow:
    label, actor = cells.get("class_id"), cells.get("actor")
    if spec.speaker_column is not None and not actor:
        raise BadInput(f"{where}: {spec.speaker_column} is empty")
    if label == "":
        raise BadInput(f"{where}: {spec.label_column} is empty")
    gender = cells.get("gender")
    return ClipRow(
        path=path,
        class_id=label or "",
        actor=actor or "",
        gender="unknown" if gender is None else parse_gender(gender, f"{where}: {spec.gender_column}"),
        sentence=cells.get("sentence") or None,
        partition=PARTITIONS.get(split.lower(), split),
        set_aside=None if label is not None else "the data set gives it no label",
    )


# ---- audio inside tables ----


def _files_of(
    shards: Sequence[_Shard], spec: HuggingFaceCorpus, cache: Path
) -> tuple[dict[Path, list[str]], Path | None]:
    """The clips' names of each table, and the folder that their audio is written to, where it lies in the tables.

    It is written once per state of the tables, whole or not at all, with the names beside it, so that the audio is not
    read again to find them.
    """
    stamps = []
    for shard in shards:
        status = shard.file.stat()
        stamps.append([str(shard.file.absolute()), shard.split, status.st_size, status.st_mtime_ns])
    key = hashlib.sha256(json.dumps([2, spec.audio_column, stamps]).encode()).hexdigest()[:16]
    folder = cache.absolute() / "huggingface" / key
    if (folder / _NAMES).is_file():
        os.utime(folder)  # so that what is used least is pruned first
        return dict(zip((shard.file for shard in shards), read_json(folder / _NAMES), strict=True)), folder
    names = _audio_names(shards, spec)
    if not any(path.startswith(_INSIDE) for paths in names.values() for path in paths):
        return names, None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not folder.is_dir():
                _write(folder, shards, names, spec.audio_column)
    except OSError as error:
        raise BadInput(f"cannot write to the cache folder {folder.parent}: {error.strerror or error}") from None
    return names, folder


def _write(folder: Path, shards: Sequence[_Shard], names: dict[Path, list[str]], audio_column: str) -> None:
    partial = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", suffix=".partial", dir=folder.parent))
    try:
        checksums = {}
        for shard in shards:
            (partial / shard.split).mkdir(parents=True, exist_ok=True)
            paths = iter(names[shard.file])
            for batch in _batches(shard.file, [audio_column]):
                for content in pyarrow.compute.struct_field(batch.column(audio_column), "bytes"):
                    path = next(paths).removeprefix(_INSIDE)
                    (partial / path).write_bytes(content.as_py())
                    checksums[path] = hashlib.sha256(content.as_py()).hexdigest()
        write_json(partial / _CHECKSUMS, checksums)
        write_json(partial / _NAMES, [names[shard.file] for shard in shards])
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def is_whole(folder: Path) -> bool:
    """Whether every clip that was written to a folder of the cache is there as it was written."""
    if not (folder / _CHECKSUMS).is_file():
        return False
    return all(
        (folder / path).is_file() and hashlib.sha256((folder / path).read_bytes()).hexdigest() == checksum
        for path, checksum in read_json(folder / _CHECKSUMS).items()
    )


# ---- clips beside a metadata.csv ----


def _listed_rows(root: Path, spec: HuggingFaceCorpus) -> list[ClipRow]:
    tables = [file for file in walk(root) if file.name == "metadata.csv"]
    if not tables:
        raise BadInput(
            f"{root} is no data set that can be read: it holds neither state.json of save_to_disk, nor parquet files, "
            "nor metadata.csv. Folders named after classes are the kind 'audiofolder'; scripts are never run."
        )
    rows = []
    for table in tables:
        columns = {target: column.lower() for target, column in _columns(spec).items()}
        split = next((part for part in table.parent.relative_to(root).parts if part.lower() in PARTITIONS), "")
        if spec.split is not None and split not in spec.split:
            continue
        for line, cells in read_table(table, ("file_name", *columns.values()))[1]:
            where = f"{table} line {line}"
            name = inside(cells["file_name"], where)
            file = table.parent / name
            if not file.is_file():
                raise BadInput(f"{where}: {name} does not exist in {table.parent}")
            row: dict[str, str | None] = {target: cells[column] for target, column in columns.items()}
            rows.append(_row(file.relative_to(root).as_posix(), row, split, where, spec))
    if not rows:
        raise BadInput(f"{root}: no clips are listed" + (f" for split {listed(spec.split)}" if spec.split else ""))
    return rows
