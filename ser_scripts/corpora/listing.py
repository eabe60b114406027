"""What `ser corpora` shows: the corpora that the project knows, and how to get each."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from ser_scripts import corpora
from ser_scripts.audio.decode import SUFFIXES
from ser_scripts.corpora._files import walk


def list_corpora(data: Path) -> pd.DataFrame:
    """All corpora, one row each, sorted by name.

    Args:
        data: the folder that holds one folder per corpus (SER_DATA)

    Returns:
        Columns name, title, clips, speakers, labels, language, licence, present (yes where the corpus' folder holds
        audio, else no; whether it is complete, the manifest finds out) and path (that folder)
    """
    rows = []
    for name in corpora.names():
        corpus = corpora.get(name)
        folder = data / name
        rows.append(
            {
                "name": name,
                "title": corpus.TITLE,
                "clips": corpus.EXPECTED_CLIPS,
                "speakers": corpus.EXPECTED_SPEAKERS,
                "labels": ", ".join(sorted(set(corpus.LABELS.values()))),
                "language": corpus.LANGUAGE,
                "licence": corpus.LICENCE,
                "present": "yes" if _holds_audio(folder) else "no",
                "path": str(folder),
            }
        )
    return pd.DataFrame(rows)


def format_listing(table: pd.DataFrame) -> str:
    """The table of `list_corpora` for a terminal: a line of figures per corpus, then title, labels and licence."""
    lines = []
    for row in table.to_dict("records"):
        where = f"present: {row['path']}" if row["present"] == "yes" else f"not there; see `ser corpora {row['name']}`"
        lines += [
            f"{row['name']:<15}{row['clips']:>6} clips {row['speakers']:>4} speakers  {row['language']:<4}{where}",
            f"    {row['title']}",
            f"    labels: {row['labels']}",
            f"    licence: {row['licence']}",
        ]
    return "\n".join(lines)


def describe_source(name: str) -> str:
    """Where to get a corpus, how to lay it out, its licence and how to cite it, for the terminal.

    Raises:
        BadInput: no corpus has this name
    """
    corpus = corpora.get(name)
    labels = ", ".join(f"{raw} = {label}" for raw, label in corpus.LABELS.items())
    return "\n".join(
        (
            corpus.TITLE,
            f"{corpus.EXPECTED_CLIPS} clips, {corpus.EXPECTED_SPEAKERS} speakers, language {corpus.LANGUAGE}",
            "",
            (corpus.__doc__ or "").strip(),
            "",
            f"Source:   {corpus.SOURCE}",
            f"Folder:   SER_DATA/{name}",
            f"Labels:   {labels}",
            f"Licence:  {corpus.LICENCE}",
            f"Citation: {corpus.CITATION}",
        )
    )


def _holds_audio(folder: Path) -> bool:
    return folder.is_dir() and any(file.suffix.lower() in SUFFIXES for file in walk(folder))
