"""What the kinds for anybody's clips share: label maps, speakers from paths, paths that stay inside a folder."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from ser_scripts.corpora import ClipRow
from ser_scripts.corpora._files import listed, parse_gender
from ser_scripts.errors import BadInput
from ser_scripts.specs.base import nearest

PARTITIONS = {
    "train": "train", "training": "train", "validation": "validation", "valid": "validation", "val": "validation",
    "dev": "validation", "test": "test",
}  # fmt: skip
"""Names of folders and files that stand for a side of a split; case does not matter."""


def map_labels(rows: Sequence[ClipRow], labels: Mapping[str, str | None] | None, *, where: str) -> list[ClipRow]:
    """Replace every label by what the map says, clips whose label maps to null set aside; unchanged without a map.

    Args:
        rows: with the labels as they are written
        labels: the spec's map
        where: what the rows were read from, for messages

    Raises:
        BadInput: a label outside the map
    """
    if labels is None:
        return list(rows)
    found = {row.class_id for row in rows if row.set_aside is None}
    if outside := sorted(found - set(labels)):
        clips = {raw: next(row.path for row in rows if row.class_id == raw) for raw in outside}
        raise BadInput(
            f'{where}: {len(outside)} labels are not in the map "labels": '
            f"{listed([f'{raw!r} (e.g. {path})' for raw, path in clips.items()])}{nearest(outside[0], labels)}"
        )
    if not found & set(labels):
        raise BadInput(f'{where}: none of the labels in the map "labels" occurs: {listed(list(labels))}')
    return [_mapped(row, labels, where) for row in rows]


def _mapped(row: ClipRow, labels: Mapping[str, str | None], where: str) -> ClipRow:
    votes = row.votes if row.votes is None else _mapped_votes(row.votes, labels, where)
    if row.set_aside is not None:
        return replace(row, votes=votes)
    label = labels[row.class_id]
    if label is None:
        aside = f"the label is {row.class_id!r}, which the map of labels leaves out"
        return replace(row, class_id="", set_aside=aside, votes=votes)
    return replace(row, class_id=label, votes=votes)


def _mapped_votes(
    votes: Sequence[tuple[str, float]], labels: Mapping[str, str | None], where: str
) -> tuple[tuple[str, float], ...]:
    """Votes by the vocabulary's labels; those for a label that maps to null are votes for `other`."""
    here = {raw.lower(): label for raw, label in labels.items()}  # names of columns are lower-cased
    summed: dict[str, float] = {}
    for raw, number in votes:
        if raw not in here:
            raise BadInput(f'{where}: votes for {raw!r}, which is not in the map "labels"{nearest(raw, here)}')
        label = here[raw] or "other"
        summed[label] = summed.get(label, 0.0) + number
    return tuple(sorted(summed.items()))


def from_path(rows: Sequence[ClipRow], pattern: str | None, *, where: str) -> list[ClipRow]:
    """Fill in what a `speaker_pattern` finds in each clip's path; unchanged without one.

    Args:
        rows: clips whose path says who speaks
        pattern: regular expression with named groups that are columns of a clip (or `label`, the class)
        where: what the rows were read from, for messages

    Raises:
        BadInput: paths that the pattern does not match or in which it finds no speaker, or a gender that is not valid
    """
    if pattern is None:
        return list(rows)
    compiled = re.compile(pattern)
    filled, unmatched = [], []
    for row in rows:
        match = compiled.search(str(PurePosixPath(row.path).with_suffix("")))
        if match is None or not match["actor"]:
            unmatched.append(row.path)
            continue
        columns: dict[str, Any] = {
            ("class_id" if name == "label" else name): text for name, text in match.groupdict().items() if text
        }
        if "gender" in columns:
            columns["gender"] = parse_gender(columns["gender"], f"{where}: {row.path}: speaker_pattern")
        filled.append(replace(row, **columns))
    if unmatched:
        raise BadInput(
            f"{where}: speaker_pattern {pattern!r} finds no speaker in {len(unmatched)} of {len(rows)} paths: "
            f"{listed(unmatched)}"
        )
    return filled


def check_speakers(rows: Iterable[ClipRow], *, where: str) -> None:
    """Refuse a speaker with two genders.

    Raises:
        BadInput: naming the speaker and two clips
    """
    first: dict[str, ClipRow] = {}
    for row in rows:
        known = first.setdefault(row.actor, row)
        if row.actor and known.gender != row.gender:
            raise BadInput(
                f"{where}: speaker {row.actor!r} is {known.gender} in {known.path}, but {row.gender} in {row.path}"
            )


def inside(name: str, where: str) -> str:
    """A path of a list made elsewhere, POSIX and normalised; it must stay inside the folder it is relative to.

    Raises:
        BadInput: an empty or absolute path, or one that leads out by `..`
    """
    path = name.replace("\\", "/")
    if not path or path.startswith(("/", "~")) or PureWindowsPath(path).drive:
        raise BadInput(f"{where}: path {name!r} is not valid; expected one relative to the folder")
    path = os.path.normpath(path).replace(os.sep, "/")
    if path == ".." or path.startswith("../"):
        raise BadInput(f"{where}: path {name!r} leads out of the folder, which is refused")
    return path
