"""Twin folders: a folder that holds the clips of the folder beside it in another form, under the same names.

`wav_telephone/wav_telephone/x.wav` is the twin of `wav/wav/x.wav`. Readers read one of the two (`_files.TWIN_FOLDERS`
says which); here a clip's other form is found.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from ser_scripts.audio.decode import SUFFIXES
from ser_scripts.corpora._files import TWIN_FOLDERS, listed
from ser_scripts.errors import BadInput

if TYPE_CHECKING:
    from ser_scripts.manifest import Manifest


def twin_paths(manifest: Manifest, twin: str) -> dict[str, str]:
    """Path of each clip's other form, by the clip's path in the manifest; both relative to the manifest's root.

    Args:
        manifest: a corpus with twin folders
        twin: the folder of the form wanted: one of `TWIN_FOLDERS`, or, of a corpus read from a twin, the folder beside
            it

    Raises:
        BadInput: no such form, or clips without it, all named
    """
    paths = list(manifest.clips["path"])
    found = find_twins(manifest.root, paths, twin)
    if absent := [path for path in paths if path not in found]:
        raise BadInput(
            f"{manifest.root}: {len(absent)} of {len(paths)} clips of {manifest.corpus} are not in {twin}: "
            f"{listed(absent)}"
        )
    return found


def find_twins(root: Path, paths: Sequence[str], twin: str) -> dict[str, str]:
    """Like `twin_paths`, for paths under a folder; a clip without a twin is absent from the result.

    Raises:
        BadInput: no folder of this name, or one that is no twin
    """
    family = _family(twin)
    of_key = {_key(path, family): path for path in _inside(root, twin)}
    if not of_key:
        raise BadInput(f"{root} holds no audio in a folder {twin}")
    return {path: of_key[key] for path in paths if (key := _key(path, family)) in of_key}


def swap(root: Path, paths: Sequence[str], twin: str) -> dict[str, str]:
    """Where each clip lies in the twin folder; for a clip that is not there, where it would lie.

    Raises:
        BadInput: no folder of this name, or clips in it that the folder beside it does not have, all named
    """
    family = _family(twin)
    if twin not in TWIN_FOLDERS:
        raise BadInput(f"twin {twin!r} is not known; valid: {', '.join(TWIN_FOLDERS)}")
    found = find_twins(root, paths, twin)
    beside = {_key(path, family) for path in _inside(root, TWIN_FOLDERS[twin])}
    alone = [path for path in _inside(root, twin) if _key(path, family) not in beside]
    if beside and alone:
        raise BadInput(
            f"{root}: {len(alone)} clips are in {twin} only, not in {TWIN_FOLDERS[twin]}: {listed(alone)}. "
            "Add them there, or move them away."
        )
    return {path: found.get(path, _renamed(path, twin)) for path in paths}


def _family(twin: str) -> tuple[str, str]:
    """A twin folder and the folder beside it, from either of them."""
    for one, beside in TWIN_FOLDERS.items():
        if twin in (one, beside):
            return one, beside
    raise BadInput(f"twin {twin!r} is not known; valid: {', '.join(TWIN_FOLDERS)}")


def _key(path: str, family: tuple[str, str]) -> str:
    """What a clip and its twin have in common: the path without suffix and without the folders that tell them apart."""
    bare = PurePosixPath(path).with_suffix("")
    return "/".join([part for part in bare.parts[:-1] if part not in family] + [bare.name])


def _renamed(path: str, twin: str) -> str:
    return "/".join(twin if part == TWIN_FOLDERS[twin] else part for part in PurePosixPath(path).parts)


def _inside(root: Path, name: str) -> list[str]:
    """Audio at any depth in folders of this name, POSIX, relative to `root`, sorted."""
    paths = []
    entered: set[str] = set()
    for folder, subfolders, files in os.walk(root, followlinks=True):
        if (real := os.path.realpath(folder)) in entered:
            subfolders.clear()
            continue
        entered.add(real)
        subfolders[:] = sorted(one for one in subfolders if not one.startswith("."))
        inner = Path(folder).relative_to(root)
        if name in inner.parts:
            paths += [
                (inner / file).as_posix()
                for file in files
                if not file.startswith(".") and Path(file).suffix.lower() in SUFFIXES
            ]
    return sorted(paths)
