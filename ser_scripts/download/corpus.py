"""`ser prepare --download`: from a corpus' name to its folder under the data folder, whole or not at all.

Everything happens in `<data>/<name>.partial`: `archives` holds what has come, and stays when a download stops;
`unpacked` is made anew each time and becomes `<data>/<name>` when it is whole.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from filelock import FileLock, Timeout

from ser_eval.run_folder import write_json
from ser_scripts import corpora
from ser_scripts.audio.decode import SUFFIXES
from ser_scripts.corpora._files import listed, walk
from ser_scripts.download import extract, lfs
from ser_scripts.download.disk import require_room
from ser_scripts.download.fetch import (
    Expected,
    Fetched,
    FetchFailed,
    Policy,
    checksums,
    fetch,
    mismatch,
    open_session,
)
from ser_scripts.download.progress import bytes_shown
from ser_scripts.download.sources import ArchiveFile, Source, by_hand, command, megabytes, source_of
from ser_scripts.errors import BadInput, Finding, SerError
from ser_scripts.files import writable_folder

RECORD = ".download.json"
"""In the corpus' folder: address, bytes, SHA-256 and date of what it was unpacked from. Hidden, so no clip."""

Say = Callable[[str], None]


def download(
    name: str,
    folder: Path,
    *,
    accept_licence: bool = False,
    archives: Sequence[Path] = (),
    say: Say,
    policy: Policy | None = None,
    source: Source | None = None,
) -> None:
    """Get a corpus, unless its folder holds audio already.

    Args:
        name: of the corpus
        folder: where it is to lie
        accept_licence: the user accepts a licence that is not a standard public one
        archives: local files to use instead of downloading, with the same checks
        say: takes a line for the user
        policy: timeouts and retries; None: the defaults
        source: where it comes from; None: as the data file says

    Raises:
        BadInput: unknown corpus, licence not accepted, nothing to download, no space, a folder in the way
        Finding: it could not be downloaded, or is not what it should be
    """
    source = source or source_of(name)
    corpus = corpora.get(name)
    say(f"{corpus.TITLE}\nlicence: {source.licence}\ncite: {corpus.CITATION}\nsource: {source.page}")
    if _present(folder):
        say(f"{folder} holds audio already; nothing is downloaded. To get it anew, move that folder away")
        return
    if not source.files and not archives:
        raise BadInput("\n".join([f"corpus '{name}' cannot be downloaded from here. By hand:", *by_hand(name, source)]))
    if not source.open_licence and not accept_licence:
        raise BadInput(
            f"corpus '{name}' is not under a standard public licence ({source.licence}). Read its terms at "
            f"{source.page}, and if you accept them: {command(name, source)}"
        )
    local = _assign(name, source, archives)
    writable_folder(folder.parent, remedy="set SER_DATA")
    lock = FileLock(folder.with_name(f".{folder.name}.download.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"another process is downloading {name}; waiting for it")
        lock.acquire()
    try:
        if _present(folder):
            say(f"{folder} holds audio already; nothing is downloaded")
            return
        try:
            _make(name, source, folder, local, say, policy or Policy())
        except SerError:
            _tidy(_workshop(folder))
            raise
    finally:
        lock.release()


def _present(folder: Path) -> bool:
    """Whether a corpus' folder holds audio; an empty one does not count.

    Raises:
        BadInput: it holds something else, over which nothing is written
    """
    if not folder.exists() and not folder.is_symlink():
        return False
    if not folder.is_dir():
        raise BadInput(f"{folder} is not a folder; move it away")
    if any(file.suffix.lower() in SUFFIXES for file in walk(folder)):
        return True
    if any(folder.iterdir()):
        raise BadInput(f"{folder} holds files but no audio; move it away to download the corpus there")
    return False


def _assign(name: str, source: Source, archives: Sequence[Path]) -> dict[str, Path]:
    """Local archives by the name of the file that each stands for."""
    for archive in archives:
        if not archive.is_file():
            raise BadInput(f"--archive {archive}: no such file")
    wanted = [file.name for file in source.files]
    if len(archives) == 1 and len(wanted) <= 1:
        return {wanted[0] if wanted else archives[0].name: archives[0]}
    found = {archive.name: archive for archive in archives}
    if len(found) != len(archives) or (wanted and not found.keys() <= set(wanted)):
        raise BadInput(
            f"--archive: corpus '{name}' consists of {', '.join(wanted)}; give files of these names, each once"
        )
    return found


def _make(name: str, source: Source, folder: Path, local: dict[str, Path], say: Say, policy: Policy) -> None:
    workshop = _workshop(folder)
    store, unpacked = workshop / "archives", workshop / "unpacked"
    try:
        store.mkdir(parents=True, exist_ok=True)
        if unpacked.exists():
            shutil.rmtree(unpacked)
        unpacked.mkdir()
    except OSError as error:
        raise BadInput(f"cannot write to {workshop}: {error.strerror}; set SER_DATA to a writable folder") from None
    files = source.files or tuple(_unlisted(archive) for archive in local.values())
    to_come = sum(file.bytes or 0 for file in files if file.name not in local)
    here = sum(item.stat().st_size for item in store.rglob("*") if item.is_file())
    # unpacked, speech takes about the room of its archive once more; what exactly is checked before unpacking
    require_room(workshop, max(0, 2 * to_come - here), f"to download and unpack {name}")
    record = []
    try:
        for file in files:
            got, verified = _get(name, file, store, local.get(file.name), say, policy)
            paths = _unpack(file, got.path, unpacked, say)
            _resolve_pointers(name, file, unpacked, paths, store / "lfs", say, policy)
            record.append(
                {"name": file.name, "url": got.url, "bytes": got.bytes, "sha256": got.sha256, "date": got.date}
                | {"verified": verified}
            )
    except FetchFailed as error:
        raise FetchFailed("\n".join([str(error), *_advice(name, source)])) from None
    if hint := corpora.resemblance(unpacked, name):
        kind = BadInput if local else Finding
        raise kind(f"{', '.join(str(local.get(file.name, file.name)) for file in files)}: not {name}. {hint}")
    write_json(unpacked / RECORD, {"corpus": name, "files": record})
    _into_place(unpacked, folder)
    say(f"{name}: unpacked into {folder}")
    try:
        shutil.rmtree(workshop)
    except OSError as error:
        say(f"{workshop} could not be removed ({error.strerror}); it is no longer needed")


def _workshop(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.partial")


def _tidy(workshop: Path) -> None:
    """Delete what no later try can use: what was unpacked, and empty folders. Archives stay."""
    shutil.rmtree(workshop / "unpacked", ignore_errors=True)
    for folder in (workshop / "archives", workshop):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _unlisted(archive: Path) -> ArchiveFile:
    """An entry for a local archive of a corpus that has no address: there is nothing to compare it with."""
    return ArchiveFile.model_construct(
        name=archive.name,
        urls=(),
        format=extract.format_of(archive),
        max_bytes=archive.stat().st_size,
        confirmed="a local file",
    )


def _get(
    name: str, file: ArchiveFile, store: Path, local: Path | None, say: Say, policy: Policy
) -> tuple[Fetched, str]:
    """The archive, downloaded or local, checked; and by what it was verified."""
    expected = Expected(limit_bytes=file.limit_bytes, bytes=file.bytes, md5=file.md5, sha256=file.sha256)
    if local is not None:
        size, digests = checksums(local)
        if fault := mismatch(size, digests, expected):
            raise BadInput(f"--archive {local}: {fault}: this is not {file.name} of {name} as it was published")
        date = datetime.now(UTC).isoformat(timespec="seconds")
        got = Fetched(local, local.absolute().as_uri(), size, digests["sha256"], date)
    else:
        with bytes_shown(f"downloading {file.name}", say) as report, open_session() as session:
            got = fetch(session, file.urls, store / file.name, expected, policy=policy, say=say, report=report)
    found = extract.format_of(got.path)
    if found != file.format:
        kind = Finding if local is None else BadInput
        raise kind(f"{got.path} is a {found} archive, expected {file.format}: not {file.name} of {name}")
    if expected.verifiable:
        verified = "sha256" if file.sha256 else "md5"
        say(f"{file.name}: {megabytes(got.bytes)}, {verified} as published")
    else:
        verified = "nothing"
        say(
            f"{file.name}: {megabytes(got.bytes)}; could not be verified, since no checksum is published; "
            f"its sha256 is {got.sha256}"
        )
    return got, verified


def _unpack(file: ArchiveFile, archive: Path, unpacked: Path, say: Say) -> list[PurePosixPath]:
    with bytes_shown(f"unpacking {file.name}", say) as report:
        paths = extract.unpack(
            archive,
            unpacked / file.into,
            format=file.format,
            strip=file.strip,
            keep=file.keep,
            room=lambda needed: require_room(unpacked, needed, f"to unpack {file.name}"),
            report=report,
        )
    say(f"{file.name}: {len(paths)} files")
    return paths


def _resolve_pointers(
    name: str, file: ArchiveFile, unpacked: Path, paths: list[PurePosixPath], store: Path, say: Say, policy: Policy
) -> None:
    root = unpacked / file.into
    pointers, unreadable = lfs.find_pointers(root, paths)
    if not pointers and not unreadable:
        return
    if file.lfs_media is None or unreadable:
        shown = listed([str(path) for path in unreadable or [pointer.path for pointer in pointers]], limit=3)
        raise Finding(
            f"{file.name} holds Git LFS pointers in place of the files of {name}: {shown}. A pointer is a text of a "
            "few lines, not audio. Clone the repository with git-lfs installed (`git lfs pull`), and copy its files"
        )
    total = sum({pointer.sha256: pointer.bytes for pointer in pointers}.values())
    say(f"{name}: {len(pointers)} files are kept by Git LFS; they come one by one ({megabytes(total)})")
    require_room(unpacked, total, f"for the files of {name}")
    with bytes_shown(f"downloading {len(pointers)} files", say) as report:
        lfs.resolve(root, pointers, file.lfs_media, store, policy=policy, say=say, report=report)
    say(f"{name}: {len(pointers)} files, each with the sha256 of its pointer")


def _into_place(unpacked: Path, folder: Path) -> None:
    try:
        if folder.is_dir():
            folder.rmdir()  # empty, see _present
        os.rename(unpacked, folder)
    except OSError as error:
        raise BadInput(f"cannot move {unpacked} to {folder}: {error.strerror}") from None


def _advice(name: str, source: Source) -> list[str]:
    return [
        f"If the address has moved, look at {source.page}. With the archive in hand: "
        f"{command(name, source)} --archive FILE",
        *(f"Or: {step}" for step in source.steps),
    ]
