"""What the readers share: finding clips and tables in a corpus folder, and reading tables as text."""

from __future__ import annotations

import codecs
import csv
import io
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from ser_scripts.audio.decode import SUFFIXES
from ser_scripts.errors import BadInput

TWIN_FOLDERS = {"wav_telephone": "wav", "AudioMP3": "AudioWAV"}
"""Folder -> the folder beside it whose clips it repeats in another form; it counts only where that one is absent."""

PASSED_OVER_FOLDERS = frozenset({"Previous_releases_information"})
"""Folders whose clips and tables are of another release (MSP-Podcast)."""

GENDERS = {
    "female": "female",
    "f": "female",
    "w": "female",
    "male": "male",
    "m": "male",
    "other": "other",
    "unknown": "unknown",
}


def listed(items: Collection[str], limit: int = 10) -> str:
    """The first items, sorted, and how many more there are."""
    more = f", ... ({len(items) - limit} more)" if len(items) > limit else ""
    return ", ".join(sorted(items)[:limit]) + more


def walk(root: Path) -> Iterator[Path]:
    """Every file under a folder at any depth, sorted folder by folder, hidden ones (`.x`, AppleDouble `._x`) left out.

    Raises:
        BadInput: `root` is no folder, a folder cannot be read, or audio is named in bytes that are not UTF-8
    """
    if not root.is_dir():
        raise BadInput(f"{root}: no such folder")
    entered: set[str] = set()
    for folder, subfolders, files in os.walk(root, followlinks=True, onerror=_refuse):
        # followed links may lead back up: each real folder is entered once
        if (real := os.path.realpath(folder)) in entered:
            subfolders.clear()
            continue
        entered.add(real)
        subfolders[:] = sorted(
            name
            for name in subfolders
            if not name.startswith(".") and TWIN_FOLDERS.get(name) not in subfolders and name not in PASSED_OVER_FOLDERS
        )
        for name in sorted(files):
            if not name.startswith("."):
                _refuse_unnameable(folder, name)
                yield Path(folder, name)


def find_clips(root: Path, *, by_path: bool = False) -> dict[str, str]:
    """The audio files under a folder at any depth: stem -> path (POSIX, relative to `root`), sorted by path.

    Args:
        root: corpus folder
        by_path: the key is the path without suffix, for a corpus that uses one name in several folders

    Raises:
        BadInput: no such folder, no audio in it, or two files of one key
    """
    clips: dict[str, str] = {}
    twice: list[str] = []
    for path in sorted(file.relative_to(root).as_posix() for file in walk(root) if file.suffix.lower() in SUFFIXES):
        stem = str(PurePosixPath(path).with_suffix("")) if by_path else PurePosixPath(path).stem
        if stem in clips:
            twice.append(f"{clips[stem]} and {path}")
        clips.setdefault(stem, path)
    if twice:
        raise BadInput(f"{root} holds two files of one name: {listed(twice)}. Keep one of each.")
    if not clips:
        raise BadInput(f"{root} holds no audio ({', '.join(SUFFIXES)})")
    return clips


def refuse_copies(root: Path, clips: Mapping[str, str], names: Mapping[str, str]) -> None:
    """Refuse two files of one clip, in a corpus whose clips are found by path (`find_clips`).

    Args:
        root: corpus folder, for the message
        clips: as of `find_clips`, by path
        names: what tells each clip from another in the corpus, by the same keys

    Raises:
        BadInput: with the paths
    """
    first: dict[str, str] = {}
    twice = [
        f"{first[name]} and {clips[key]}"
        for key, name in names.items()
        if first.setdefault(name, clips[key]) != clips[key]
    ]
    if twice:
        raise BadInput(f"{root} holds two files of one clip: {listed(twice)}. Keep one of each.")


def check_names(root: Path, clips: Mapping[str, str], expected: Iterable[str], *, title: str, rule: str) -> None:
    """Refuse clips whose stem the corpus does not have.

    Args:
        root: corpus folder, for the message
        clips: as of `find_clips`
        expected: all stems of the complete corpus
        title: the corpus' name for people
        rule: how its files are named

    Raises:
        BadInput: with the paths
    """
    strange = [clips[stem] for stem in clips.keys() - set(expected)]
    if strange:
        raise BadInput(
            f"{root} holds {len(strange)} audio files that are not of {title} ({rule}): {listed(strange)}. "
            "Move them out of the folder."
        )


def match_names(
    root: Path, clips: Mapping[str, str], pattern: str, *, title: str, rule: str
) -> dict[str, re.Match[str]]:
    """Match the end of every clip's path, without suffix, against the naming of a corpus (its `FILE_NAMES`).

    Args:
        root: corpus folder, for the message
        clips: as of `find_clips`
        pattern: regular expression; it has to match from the begin of a folder's or file's name to the end of the path
        title: the corpus' name for people
        rule: how its files are named

    Returns:
        The match of each clip by stem, in the order of `clips`

    Raises:
        BadInput: with the paths that do not match
    """
    compiled = re.compile(rf"(?:^|.*/)(?:{pattern})$")
    found = {stem: compiled.match(str(PurePosixPath(path).with_suffix(""))) for stem, path in clips.items()}
    matches = {stem: match for stem, match in found.items() if match is not None}
    check_names(root, clips, matches, title=title, rule=rule)
    return matches


def find_table(root: Path, name: str) -> Path:
    """The one file of this name under a folder at any depth, or right above it.

    Raises:
        BadInput: none, or more than one
    """
    if (file := find_optional_table(root, name)) is None:
        raise BadInput(f"{root} holds no {name}; exactly one is needed")
    return file


def find_optional_table(root: Path, name: str) -> Path | None:
    """Like `find_table`, but None where there is no such file.

    Raises:
        BadInput: more than one
    """
    found = [file for file in walk(root) if file.name == name]
    if len(found) > 1:
        raise BadInput(f"{root} holds several files {name}: {listed(list(map(str, found)))}; exactly one is needed")
    above = root.absolute().parent / name
    if not found and above.is_file():
        return above
    return found[0] if found else None


def read_table(file: Path, required: Collection[str] = ()) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """A delimited table, every cell as text without surrounding blanks (`03` stays `03`, `NA` stays `NA`).

    Comma, semicolon or tab: whichever the header holds most. UTF-8, with or without byte order mark.

    Returns:
        The columns, lower-cased, and for each row its line number (of its last line) and its cells by column

    Raises:
        BadInput: unreadable, not UTF-8, a required or repeated column, or a row of another length than the header
    """
    text = read_text(file)
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, skipinitialspace=delimiter != "\t", strict=True)
    columns: list[str] = []
    rows: list[tuple[int, dict[str, str]]] = []
    try:
        for record in reader:
            cells = [cell.strip() for cell in record]
            if not columns:
                columns = [cell.lower() for cell in cells]
            elif any(cells):
                if len(cells) != len(columns):
                    raise BadInput(f"{file} line {reader.line_num}: {len(cells)} cells, the header has {len(columns)}")
                rows.append((reader.line_num, dict(zip(columns, cells, strict=True))))
    except csv.Error as error:
        raise BadInput(f"{file} line {reader.line_num}: {error}") from None
    if repeated := {column for column in columns if column and columns.count(column) > 1}:
        raise BadInput(f"{file}: column {listed(repeated)} stands there twice")
    if missing := set(required) - set(columns):
        raise BadInput(f"{file}: column {listed(missing)} is missing; the header has {', '.join(columns) or 'nothing'}")
    return columns, rows


def read_text(file: Path, *, fallback: str | None = None) -> str:
    """The text of a file: UTF-8, with or without byte order mark, or UTF-16 with one.

    Args:
        file: what to read
        fallback: encoding of a file that is neither

    Raises:
        BadInput: unreadable, or in none of these encodings
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise BadInput(f"{file}: cannot be read ({error.strerror})") from None
    marked = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    encodings = ["utf-16"] if marked else ["utf-8-sig", *([fallback] if fallback else [])]
    for encoding in encodings:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError as error:
            fault = f"{error.reason} at byte {error.start}"
        else:
            return text.replace("\r\n", "\n").replace("\r", "\n")
    names = " nor ".join(name.upper().removesuffix("-SIG") for name in encodings)
    raise BadInput(f"{file} is {'neither' if len(encodings) > 1 else 'not'} {names} ({fault}); save it as UTF-8")


def parse_gender(value: str, where: str) -> str:
    """female, male, other or unknown, from a cell of a table.

    Raises:
        BadInput: anything that is not one of `GENDERS`, whatever its case
    """
    if value.lower() not in GENDERS:
        raise BadInput(f"{where}: gender {value!r} is not valid; valid: {', '.join(GENDERS)}")
    return GENDERS[value.lower()]


def read_genders(file: Path, speakers: Iterable[str], *, speaker_column: str, gender_column: str) -> dict[str, str]:
    """Gender of each of the given speakers, from a table of speakers.

    Raises:
        BadInput: a speaker is not in the table, has two genders there, or one that is not valid
    """
    wanted = set(speakers)
    genders: dict[str, str] = {}
    for line, cells in read_table(file, (speaker_column, gender_column))[1]:
        speaker = cells[speaker_column]
        if speaker in wanted:
            gender = parse_gender(cells[gender_column], f"{file} line {line}")
            if genders.setdefault(speaker, gender) != gender:
                raise BadInput(f"{file} line {line}: speaker {speaker!r} is {gender}, but {genders[speaker]} before")
    if absent := wanted - genders.keys():
        raise BadInput(f"{file}: {len(absent)} speakers of the clips are missing: {listed(absent)}")
    return genders


def _refuse_unnameable(folder: str, name: str) -> None:
    """Refuse audio whose path is no text, as tables and JSON, which name it, could not be written."""
    path = os.path.join(folder, name)
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        if os.path.splitext(name)[1].lower() in SUFFIXES:
            raise BadInput(
                f"{folder!a}: the file name {name!a} is not UTF-8 (its bytes: {os.fsencode(path)!r}); rename "
                "it, or unpack the archive again with the encoding that it was made with"
            ) from None


def _refuse(error: OSError) -> None:
    raise BadInput(f"{error.filename}: cannot be read ({error.strerror})")
