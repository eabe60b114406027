"""What differs between a run folder and the spec and corpora as they are now: two checksums alone help nobody."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ser_eval.run_folder import CLIPS, SPLIT, SPLIT_COLUMNS, read_table
from ser_scripts.leaks import counted, named
from ser_scripts.manifest import Manifest

_SHOWN = 5
_WHO = ["class_id", "actor", "gender", "group"]


def differences(old: Any, new: Any, key: str = "") -> list[str]:
    """Lines that say where two contents of JSON differ, by dotted paths: `steps.0.lufs: was -23.0, is -20.0`."""
    if isinstance(old, dict) and isinstance(new, dict):
        lines = []
        for name in sorted({*old, *new}):
            lines += differences(old.get(name), new.get(name), f"{key}.{name}" if key else name)
        return lines
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        return [line for place, (before, now) in pairs for line in differences(before, now, f"{key}.{place}")]
    return [] if old == new else [f"{key}: was {_shown(old)}, is {_shown(new)}"]


def _shown(value: Any) -> str:
    return "none" if value is None else json.dumps(value) if isinstance(value, dict | list | bool) else repr(value)


def changed_clips(
    place: Path, experiment_folder: Path, split: pd.DataFrame, manifests: Mapping[str, Manifest], corpora: Iterable[str]
) -> list[str]:
    """One line per corpus: `cremad: 3 clips changed: a.wav, b.wav, c.wav; 2 new: ...; 1 gone: ...`.

    Args:
        place: a run folder; its split.csv says which labels and speakers the clips had
        experiment_folder: its clips.csv says which samples the clips had when it was last trained
        split: the present split of the run, with `SPLIT_COLUMNS`
        manifests: the corpora as they are now
        corpora: those to compare

    Returns:
        nothing for a corpus in which no difference can be found, or whose clips nobody wrote down
    """
    listed = experiment_folder / CLIPS
    before = read_table(listed, ["corpus", "path", "audio_sha256"]) if listed.is_file() else None
    drawn = read_table(place / SPLIT, SPLIT_COLUMNS) if (place / SPLIT).is_file() else None
    lines = []
    for corpus in corpora:
        told: list[str] = []
        if before is not None and (old := _by_path(before, corpus, ["audio_sha256"])):
            new = _by_path(manifests[corpus].clips, corpus, ["audio_sha256"])
            told += _told("changed", [path for path in old.keys() & new.keys() if old[path] != new[path]])
            told += _told("new", new.keys() - old.keys())
            told += _told("gone", old.keys() - new.keys())
        if drawn is not None:
            old, new = _by_path(drawn, corpus, _WHO), _by_path(split, corpus, _WHO)
            moved = [path for path in old.keys() & new.keys() if old[path] != new[path]]
            told += _told("with another label, speaker, gender or group", moved)
        if told:
            lines.append(f"{corpus}: {'; '.join(told)}")
    return lines


def _by_path(table: pd.DataFrame, corpus: str, columns: list[str]) -> dict[str, tuple[str, ...]]:
    rows = table[table["corpus"] == corpus]
    values = zip(*(rows[column].astype(str) for column in columns), strict=True)
    return dict(zip(rows["path"], values, strict=True))


def _told(what: str, paths: Iterable[str]) -> list[str]:
    found = list(paths)
    return [f"{counted(len(found), 'clip')} {what}: {named(found, _SHOWN)}"] if found else []
