"""Anybody's clips, listed in a CSV.

`path,class_id,actor,gender`, optionally group, sentence, language, intensity, style, partition, and raters' votes as
`votes_<label>`; where the experiment tells their scale (`rating_scale`), also the mean ratings valence, arousal and
dominance. Without speakers: `path,label`. The path's column may be called `path` or `file_path`, the label's
`class_id`, `label`, `emotion` or `emotion_code`. Labels stay as they are written. Further columns are ignored, unless
their name looks like one that was meant.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ser_eval.run_folder import VOTES_PREFIX
from ser_scripts.corpora import RATINGS, ClipRow
from ser_scripts.corpora._files import listed, parse_gender, read_table
from ser_scripts.errors import BadInput

_PATH_COLUMNS = ("path", "file_path")
_LABEL_COLUMNS = ("class_id", "label", "emotion", "emotion_code")
_OPTIONAL_COLUMNS = ("actor", "gender", "group", "sentence", "language", "intensity", "style", "partition")
_OTHER_WORDS = {"speaker": "actor", "speaker_id": "actor", "sex": "gender", "activation": "arousal"}


def read_csv(path: Path, rating_scale: tuple[float, float] | None = None) -> tuple[Path, list[ClipRow], bool]:
    """Read a CSV of clips: comma, semicolon or tab, UTF-8.

    Relative clip paths resolve against the CSV's folder, then against the working directory.

    Args:
        path: the CSV
        rating_scale: lowest and highest value of its columns valence, arousal and dominance, in which an empty cell is
            a clip without this rating; None: such columns are not read

    Returns:
        The CSV's folder, which is the corpus root; the rows, sorted by path; whether speakers are known, that is
        whether there is a column `actor` (else actor is "", and gender unknown unless given)

    Raises:
        BadInput: no such file, columns that are missing or ambiguous, an empty path, label or actor, a gender that is
            not valid, a speaker of two genders, clips listed twice or missing on disk; with a `rating_scale` also no
            column of ratings, or a rating that is no number of the scale
    """
    if not path.is_file():
        raise BadInput(f"{path}: no such CSV file")
    root = Path(os.path.abspath(path)).parent
    columns, table = read_table(path)
    path_column = _one_of(_PATH_COLUMNS, columns, path)
    label_column = _one_of(_LABEL_COLUMNS, columns, path)
    _refuse_near_misses(columns, path, rating_scale is not None)
    if rating_scale is not None and not set(RATINGS) & set(columns):
        raise BadInput(
            f"{path}: 'rating_scale' is given, but there is no column of {', '.join(RATINGS)} "
            f"(the header has {', '.join(columns)})"
        )
    speakers_known = "actor" in columns
    required = (path_column, label_column, *(["actor"] if speakers_known else []))

    rows: dict[str, ClipRow] = {}
    missing: list[str] = []
    twice: list[str] = []
    genders: dict[str, str] = {}
    for line, cells in table:
        where = f"{path} line {line}"
        if empty := [column for column in required if not cells[column]]:
            raise BadInput(f"{where}: {listed(empty)} is empty")
        actor = cells.get("actor", "")
        gender = parse_gender(cells["gender"], where) if "gender" in cells else "unknown"
        if actor and genders.setdefault(actor, gender) != gender:
            raise BadInput(f"{where}: actor {actor!r} is {gender}, but {genders[actor]} in an earlier line")
        file = _resolve(cells[path_column], root)
        if file is None:
            missing.append(cells[path_column])
            continue
        name = (file.relative_to(root) if file.is_relative_to(root) else file).as_posix()
        if name in rows:
            twice.append(f"{cells[path_column]} (line {line})")
        rated = _ratings(cells, rating_scale, where) if rating_scale is not None else dict.fromkeys(RATINGS)
        rows[name] = ClipRow(
            path=name,
            class_id=cells[label_column],
            actor=actor,
            gender=gender,
            group=cells.get("group") or None,
            sentence=cells.get("sentence") or None,
            language=cells.get("language") or None,
            intensity=cells.get("intensity") or None,
            style=cells.get("style") or None,
            partition=cells.get("partition") or None,
            valence=rated["valence"],
            arousal=rated["arousal"],
            dominance=rated["dominance"],
            votes=_votes(cells, where),
        )
    if missing:
        raise BadInput(
            f"{path}: {len(missing)} clips do not exist, neither under {root} nor under the working directory "
            f"{Path.cwd()}: {listed(missing)}"
        )
    if twice:
        raise BadInput(f"{path}: {len(twice)} clips are listed again: {listed(twice)}")
    if not rows:
        raise BadInput(f"{path}: lists no clips")
    return root, [rows[name] for name in sorted(rows)], speakers_known


def _ratings(cells: Mapping[str, str], scale: tuple[float, float], where: str) -> dict[str, float | None]:
    """Ratings by dimension; None where the cell is empty or there is no such column."""
    low, high = scale
    ratings: dict[str, float | None] = {}
    for name in RATINGS:
        if not (text := cells.get(name, "")):
            ratings[name] = None
            continue
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise BadInput(
                f"{where}: {name} is {text!r}; expected a number from {low:g} to {high:g} ('rating_scale'), or nothing"
            )
        ratings[name] = value
    return ratings


def _votes(cells: Mapping[str, str], where: str) -> tuple[tuple[str, float], ...] | None:
    """Numbers of raters in the columns `votes_<label>`; an empty cell is none."""
    columns = sorted(column for column in cells if column.startswith(VOTES_PREFIX))
    votes = []
    for column in columns:
        try:
            number = float(cells[column] or 0)
        except ValueError:
            number = -1.0
        if not 0 <= number < float("inf"):
            raise BadInput(f"{where}: {column} is {cells[column]!r}; expected a number of raters, 0 or more")
        votes.append((column.removeprefix(VOTES_PREFIX), number))
    return tuple(votes) or None


def _resolve(name: str, root: Path) -> Path | None:
    # normalised without following links, so that the root may be a link and `a/../b.wav` is `b.wav`
    for base in (root, Path.cwd()):
        file = Path(os.path.normpath(base / name))
        if file.is_file():
            return file
    return None


def _one_of(candidates: Sequence[str], columns: Sequence[str], path: Path) -> str:
    found = [column for column in candidates if column in columns]
    if len(found) != 1:
        what = f"columns {' and '.join(found)}" if found else "no such column"
        raise BadInput(
            f"{path}: exactly one column of {', '.join(candidates)} is needed; found {what} "
            f"(the header has {', '.join(columns) or 'nothing'})"
        )
    return found[0]


def _refuse_near_misses(columns: Sequence[str], path: Path, rated: bool) -> None:
    optional = (*_OPTIONAL_COLUMNS, *(RATINGS if rated else ()))
    absent = [column for column in optional if column not in columns]
    for column in columns:
        if column in (*optional, *_PATH_COLUMNS, *_LABEL_COLUMNS):
            continue
        close = difflib.get_close_matches(_OTHER_WORDS.get(column, column), absent, n=1, cutoff=0.75)
        if close:
            raise BadInput(f"{path}: unknown column '{column}'; did you mean '{close[0]}'?")
