"""What `ser corpora` shows: the corpora, which are there, and how to get each; and their pages in data/."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from ser_eval.run_folder import write_text
from ser_scripts import corpora
from ser_scripts.audio.decode import SUFFIXES
from ser_scripts.corpora import Corpus
from ser_scripts.corpora._files import walk
from ser_scripts.corpora.sources import place
from ser_scripts.download import how_to_get
from ser_scripts.errors import BadInput

WIDTH = 120
_BEGIN, _END = "<!-- begin of the table made by `ser corpora --write-pages data` -->", "<!-- end of the table -->"
_UNVERIFIED = (
    "UNVERIFIED: no public description confirms how this corpus is laid out and named. The reader refuses what it does "
    "not expect; compare `ser describe` with the published counts."
)


def list_corpora(data: Path, locations: Mapping[str, Path] | None = None) -> list[dict[str, Any]]:
    """All corpora, sorted by name, as JSON data.

    Args:
        data: the folder that holds one folder per corpus (SER_DATA)
        locations: folders of corpora that lie elsewhere

    Returns:
        For each name, title, language, licence; clips_found (audio files here that are named as of this corpus; 0 where
        it is not there) and clips_expected, speakers (null where not known beforehand), speakers_known; labels,
        label_sets, layout, present and path. Whether a corpus is complete and whole, `ser describe` finds out.
    """
    rows: list[dict[str, Any]] = []
    for name in corpora.names():
        corpus = corpora.get(name)
        folder, _ = place(name, data=data, locations=locations or {})
        found = count_clips(corpus, folder) if folder.is_dir() else 0
        rows.append(
            {
                "name": name,
                "title": corpus.TITLE,
                "language": corpus.LANGUAGE,
                "licence": corpus.LICENCE,
                "clips_found": found,
                "clips_expected": corpus.EXPECTED_CLIPS,
                "speakers": corpus.EXPECTED_SPEAKERS,
                "speakers_known": corpora.speakers_known(corpus),
                "labels": sorted(set(corpus.LABELS.values())),
                "label_sets": list(corpora.label_sets(corpus)),
                "layout": corpus.LAYOUT,
                "present": found > 0,
                "path": str(folder),
            }
        )
    return rows


def count_clips(corpus: Corpus, folder: Path) -> int:
    """Number of audio files under a folder that are named as of a corpus; nothing is opened.

    Raises:
        BadInput: a folder that cannot be read
    """
    matches = corpora.matcher(corpus)
    paths = (file.relative_to(folder) for file in walk(folder) if file.suffix.lower() in SUFFIXES)
    return len({bare for path in paths if matches(bare := path.with_suffix("").as_posix())})


def format_listing(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows of `list_corpora` for a terminal of 120 characters: one line per corpus, and what the columns mean."""
    head = ("corpus", "lang", "found", "of", "speakers", "classes", "sets", "layout", "where")
    lines = [head, *(_line(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    room = WIDTH - sum(widths[:-1]) - 2 * (len(head) - 1)
    texts = [
        "  ".join(
            [*(cell.ljust(width) for cell, width in zip(line[:-1], widths[:-1], strict=True)), _end(line[-1], room)]
        )
        for line in lines
    ]
    here = sum(bool(row["present"]) for row in rows)
    return "\n".join(
        [
            *(text.rstrip() for text in texts),
            "",
            f"{here} of {len(rows)} corpora are here. found: audio named as of the corpus; sets: label sets to choose",
            "from; unverified: no public description confirms the layout. `ser corpora NAME` says where to get one,",
            "how to lay it out, its labels, licence and citation; docs/corpora.md how to read your own clips.",
        ]
    )


def _line(row: Mapping[str, Any]) -> tuple[str, ...]:
    speakers = row["speakers"] if row["speakers_known"] else "unknown"
    return (
        str(row["name"]),
        str(row["language"]),
        str(row["clips_found"] or "-"),
        str(row["clips_expected"] or "?"),
        str(speakers or "?"),
        str(len(row["labels"])),
        str(len(row["label_sets"]) or 1),
        str(row["layout"]),
        str(row["path"]) if row["present"] else "-",
    )


def _end(path: str, room: int) -> str:
    return path if len(path) <= room else "..." + path[3 - room :]


def describe_source(name: str, *, data: Path | None = None, locations: Mapping[str, Path] | None = None) -> str:
    """Where to get a corpus, how to lay it out, its labels, its licence and how to cite it, for the terminal.

    Args:
        name: the corpus
        data: the folder that holds one folder per corpus; where given, what is there is counted
        locations: folders of corpora that lie elsewhere

    Raises:
        BadInput: no corpus has this name
    """
    corpus = corpora.get(name)
    sets = corpora.label_sets(corpus)
    lines = [corpus.TITLE, _counts(corpus), "", (corpus.__doc__ or "").strip(), ""]
    if corpus.LAYOUT == "unverified":
        lines += [_UNVERIFIED, ""]
    lines += [f"Source:   {corpus.SOURCE}", f"Get it:   {how_to_get(name)}"]
    lines.append(f"Folder:   SER_DATA/{name}, or as data/locations.json says")
    if data is not None:
        folder, _ = place(name, data=data, locations=locations or {})
        found = count_clips(corpus, folder) if folder.is_dir() else 0
        lines.append(f"Here:     {f'{found} clips in {folder}' if found else f'nothing in {folder}'}")
    lines.append(f"Labels:   {', '.join(f'{raw} = {label}' for raw, label in corpus.LABELS.items())}")
    lines += [f"Set:      {one}{' (default)' if one == next(iter(sets)) else ''}: {text}" for one, text in sets.items()]
    lines += [f"Licence:  {corpus.LICENCE}", f"Citation: {corpus.CITATION}"]
    return "\n".join(_wrapped(line) if len(line) > WIDTH else line for line in "\n".join(lines).splitlines())


def _wrapped(line: str) -> str:
    return textwrap.fill(line, WIDTH, subsequent_indent=" " * 10, break_long_words=False, break_on_hyphens=False)


def _counts(corpus: Corpus) -> str:
    clips = f"{corpus.EXPECTED_CLIPS} clips" if corpus.EXPECTED_CLIPS else "number of clips not known beforehand"
    if not corpora.speakers_known(corpus):
        speakers = "speakers unknown"
    elif corpus.EXPECTED_SPEAKERS:
        speakers = f"{corpus.EXPECTED_SPEAKERS} speaker{'s' if corpus.EXPECTED_SPEAKERS > 1 else ''}"
    else:
        speakers = "number of speakers not known beforehand"
    return f"{clips}, {speakers}, language {corpus.LANGUAGE}"


# ---- pages ----


def page(name: str) -> str:
    """The text of data/<name>.md.

    Raises:
        BadInput: no corpus has this name
    """
    corpus = corpora.get(name)
    summary, _, rest = (corpus.__doc__ or "").strip().partition("\n\n")
    layout = re.sub(r"\ALayout: (.)", lambda match: match[1].upper(), rest.strip())
    raw: dict[str, list[str]] = {}
    for written, label in corpus.LABELS.items():
        raw.setdefault(label, []).append(f"`{written}`")
    blocks = [
        f"# {corpus.TITLE}",
        f"<!-- Made by `ser corpora --write-pages data` from ser_scripts/corpora/{name}.py: change that file. -->",
        summary,
        f"{_counts(corpus)[0].upper()}{_counts(corpus)[1:]}.",
        "## Where to get it",
        corpus.SOURCE,
        f"```\n{how_to_get(name)}\n```",
        f"It goes into `SER_DATA/{name}`, or anywhere else that `data/locations.json` names "
        "([how](../docs/corpora.md#where-a-corpus-lies)).",
        "## Licence",
        corpus.LICENCE,
        "## Layout",
        *([_UNVERIFIED] if corpus.LAYOUT == "unverified" else []),
        *([layout] if layout else []),
        "## Labels",
        "\n".join(
            ["| here | in the corpus |", "|---|---|", *(f"| {one} | {', '.join(raw[one])} |" for one in sorted(raw))]
        ),
    ]
    if sets := corpora.label_sets(corpus):
        listed = [f"- `{one}`{' (default)' if one == next(iter(sets)) else ''}: {text}" for one, text in sets.items()]
        blocks.append("\n".join(["Label sets (`labels` in the experiment):", "", *listed]))
    return "\n\n".join([*blocks, "## How to cite", corpus.CITATION]) + "\n"


def overview() -> str:
    """The table of all corpora in data/README.md."""
    lines = ["| corpus | language | clips | speakers | classes | layout | licence |", "|---|---|---|---|---|---|---|"]
    for name in corpora.names():
        corpus = corpora.get(name)
        speakers = corpus.EXPECTED_SPEAKERS if corpora.speakers_known(corpus) else "unknown"
        cells = (
            f"[{name}]({name}.md)",
            corpus.LANGUAGE,
            corpus.EXPECTED_CLIPS or "",
            speakers or "",
            len(set(corpus.LABELS.values())),
            corpus.LAYOUT,
            corpus.LICENCE,
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def pages(readme: str) -> dict[str, str]:
    """Text of every page by file name, README.md with a new table.

    Args:
        readme: the README.md that is there

    Raises:
        BadInput: its table is not marked
    """
    before, begin, rest = readme.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise BadInput(f"data/README.md lacks the lines {_BEGIN!r} and {_END!r}")
    made = {f"{name}.md": page(name) for name in corpora.names()}
    return made | {"README.md": f"{before}{_BEGIN}\n{overview()}\n{_END}{after}"}


def write_pages(folder: Path) -> list[str]:
    """Write the pages of all corpora and the table in README.md; returns the names of those that changed.

    Raises:
        BadInput: no README.md in the folder, or one whose table is not marked
    """
    readme = folder / "README.md"
    if not readme.is_file():
        raise BadInput(f"{readme}: no such file; expected the project's data folder")
    changed = []
    for name, text in sorted(pages(readme.read_text(encoding="utf-8")).items()):
        assert PurePosixPath(name).name == name
        file = folder / name
        if not file.is_file() or file.read_text(encoding="utf-8") != text:
            write_text(file, text)
            changed.append(name)
    return changed
