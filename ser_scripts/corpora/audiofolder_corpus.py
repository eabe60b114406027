"""Anybody's clips, one folder per class: `clips/angry/001.wav`, or `clips/train/angry/001.wav` with sides."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from ser_scripts.corpora import ClipRow
from ser_scripts.corpora._files import find_clips, listed
from ser_scripts.corpora._own import PARTITIONS, check_speakers, from_path
from ser_scripts.errors import BadInput


def read_audiofolder(root: Path, speaker_pattern: str | None = None) -> list[ClipRow]:
    """Read the clips of a folder; the label is the name of the folder that holds the clip.

    Args:
        root: at any depth below it lie the folders of the classes
        speaker_pattern: as `AudioFolderCorpus.speaker_pattern`; speakers are "" without it

    Returns:
        The rows, sorted by path

    Raises:
        BadInput: no audio, clips without a class folder, paths without a speaker, a speaker with two genders
    """
    clips = sorted(find_clips(root, by_path=True).values())
    rows = [_row(PurePosixPath(path)) for path in clips]
    rows = from_path(rows, speaker_pattern, where=str(root))
    if loose := [row.path for row in rows if not row.class_id]:
        raise BadInput(
            f"{root}: {len(loose)} clips lie in no folder that is named after their class: {listed(loose)}. "
            f"Expected {root.name}/<class>/<clip>, or a CSV of the clips (docs/corpora.md)."
        )
    check_speakers(rows, where=str(root))
    return rows


def _row(path: PurePosixPath) -> ClipRow:
    folders = path.parent.parts
    partition = PARTITIONS.get(folders[0].lower()) if folders else None
    label = folders[-1] if len(folders) > (partition is not None) else ""
    return ClipRow(path=str(path), class_id=label, actor="", gender="unknown", partition=partition)
