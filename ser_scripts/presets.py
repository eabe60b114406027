"""The forms of a preset split: a CSV, three CSVs in a folder, or a fold of EmoBox."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import pandas as pd

from ser_scripts.corpora import emobox_corpus
from ser_scripts.errors import BadInput
from ser_scripts.leaks import clip_path, read_delimited
from ser_scripts.specs.model import NAME_PATTERN

IN_CORPUS = "corpus"
"""As the path of a preset: the three CSVs in the folder of each training corpus."""
_FILES = {"train": ("train",), "validation": ("val", "valid", "validation", "dev"), "test": ("test",)}
_LANGUAGE = re.compile(r"_([A-Za-z]{2,3})\.csv")
_PATH_COLUMNS = ("path", "file_path", "wav_path", "file_name")


def read_preset(path: str, *, base: Path, corpora: Sequence[str], roots: Mapping[str, Path]) -> pd.DataFrame:
    """Read a preset split, in whichever form it is.

    Args:
        path: a CSV with path, split and, where corpora are pooled, corpus; a folder with train.csv, test.csv and
            perhaps val.csv; a fold of EmoBox (`data/emodb/fold_1`); or `corpus`, for the folders of the corpora
        base: folder of the experiment, against which the path resolves first
        corpora: the training corpora
        roots: folder of each corpus

    Returns:
        Text columns path, split and, where the files have it or several corpora are read, corpus

    Raises:
        BadInput: no such file, or a column is missing
    """
    if path == IN_CORPUS:
        if absent := sorted(set(corpora) - roots.keys()):
            raise BadInput(f"preset path '{IN_CORPUS}': the folder of {', '.join(absent)} is not known here")
        return pd.concat([_three(roots[one]).assign(corpus=one) for one in corpora], ignore_index=True)
    place = base / path if (base / path).exists() else Path(path)
    if not place.is_dir():
        return read_delimited(place, ["path", "split"], what="preset split")
    if emobox_corpus.is_fold(place):
        return pd.DataFrame(emobox_corpus.read_fold(place), columns=["path", "split"], dtype=str)
    return _three(place)


def relocate(paths: pd.Series[str], known: pd.Series[str]) -> pd.Series[str]:
    """Paths of another machine, without the leading folders that differ there.

    Args:
        paths: as listed
        known: paths of the clips

    Returns:
        The paths less as many leading folders, the same number for all, as make every one of them known; unchanged
        where no number does
    """
    here = set(known)
    parts = [PurePosixPath(clip_path(path)).parts for path in paths]
    for cut in range(min(map(len, parts), default=0)):
        cleaned = ["/".join(one[cut:]) for one in parts]
        if here.issuperset(cleaned):
            return pd.Series(cleaned, index=paths.index, dtype=str)
    return paths


def _three(folder: Path) -> pd.DataFrame:
    """The rows of train.csv, test.csv and perhaps val.csv; or of train_eng.csv, ... of each language, one after the
    other."""
    found = sorted(file.name for file in folder.glob("*.csv"))
    languages = {
        match[1] for name in found for side in ("train", "test")
        if name.startswith(f"{side}_") and (match := _LANGUAGE.fullmatch(name.removeprefix(side)))
    }  # fmt: skip
    if not languages:
        return _sides(folder, "")
    if plain := [name for name in found if name in ("train.csv", "test.csv")]:
        lists = ", ".join(f"train_{language}.csv" for language in sorted(languages))
        raise BadInput(f"{folder} holds both {plain[0]} and lists per language, such as {lists}; keep one form")
    return pd.concat([_sides(folder, f"_{language}") for language in sorted(languages)], ignore_index=True)


def _sides(folder: Path, suffix: str) -> pd.DataFrame:
    tables = []
    for side, names in _FILES.items():
        files = [folder / f"{name}{suffix}.csv" for name in names if (folder / f"{name}{suffix}.csv").is_file()]
        if len(files) > 1 or (not files and side != "validation"):
            what = " and ".join(file.name for file in files) or f"no {names[0]}{suffix}.csv"
            raise BadInput(
                f"{folder} holds {what}; a preset split there is train.csv, test.csv and perhaps val.csv, the same per "
                "language (train_eng.csv, ...), or the lists of an EmoBox fold"
            )
        for file in files:
            table = read_delimited(file, [], what="preset split")
            columns = [column for column in _PATH_COLUMNS if column in table.columns]
            if not columns:
                raise BadInput(f"{file} has no column {' or '.join(_PATH_COLUMNS)}; it has {', '.join(table.columns)}")
            kept = table.rename(columns={columns[0]: "path"})
            kept = kept[[column for column in ("path", "corpus") if column in kept.columns]]
            tables.append(kept.assign(split=side))
    return pd.concat(tables, ignore_index=True)


def read_folds(
    path: str, *, base: Path, corpora: Sequence[str], roots: Mapping[str, Path]
) -> list[tuple[str | None, pd.DataFrame]]:
    """Read a preset split that may have folds, as `read_preset` does.

    Args:
        path: as of `read_preset`; besides, a CSV with a column `fold`, or a folder of folds (`EmoBox/data/emodb`)
        base: as of `read_preset`, likewise `corpora` and `roots`

    Returns:
        Name and rows of each fold in order of the names; the name is None where there is one split only
    """
    place = base / path if (base / path).exists() else Path(path)
    folders = sorted(one for one in place.glob("fold_*") if one.is_dir()) if place.is_dir() else []
    if folders:
        names = [folder.name.removeprefix("fold_") for folder in folders]
        tables = [read_preset(str(folder.resolve()), base=base, corpora=corpora, roots=roots) for folder in folders]
        return [(name if len(names) > 1 else None, table) for name, table in zip(names, tables, strict=True)]
    table = read_preset(path, base=base, corpora=corpora, roots=roots)
    if "fold" not in table:
        return [(None, table)]
    if (table["fold"] == "").any():
        raise BadInput(f"preset split {path}: the column 'fold' is empty in {int((table['fold'] == '').sum())} row(s)")
    names = sorted(set(table["fold"]))
    if strange := [name for name in names if not re.fullmatch(NAME_PATTERN, name)]:
        raise BadInput(
            f"preset split {path}: fold {strange[0]!r}: folds name folders; use letters, digits, '.', '_' and '-'"
        )
    return [
        (name if len(names) > 1 else None, table[table["fold"] == name].drop(columns="fold").reset_index(drop=True))
        for name in names
    ]
