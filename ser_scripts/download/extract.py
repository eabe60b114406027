"""Unpacking an archive from the net: nothing leaves the target folder, nothing is a link, nothing explodes.

An archive is looked through before the first byte is written, and is refused as a whole when one member is not as it
should be. Formats: zip, tar and tar.gz. Files get the permissions of new files, never those of the archive.
"""

from __future__ import annotations

import fnmatch
import gzip
import lzma
import re
import stat
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal

from ser_scripts.download.disk import write_all
from ser_scripts.download.progress import Report
from ser_scripts.download.sources import megabytes
from ser_scripts.errors import BadInput, Finding

Format = Literal["zip", "tar", "tar.gz"]

UTF8_FLAG = 0x800
ENCRYPTED_FLAG = 0x1
JUNK = re.compile(r"(^|/)(__MACOSX|\.DS_Store|\._[^/]*|Thumbs\.db|desktop\.ini)(/|$)")
"""What file managers leave in archives."""


@dataclass(frozen=True)
class Limits:
    """What an archive may hold."""

    members: int = 200_000
    unpacked_bytes: int = 200 * 10**9
    ratio: float = 100.0
    """Unpacked size over the archive's size, beyond the first `free_bytes`."""
    free_bytes: int = 10**8


@dataclass(frozen=True)
class Member:
    """One member of an archive as it describes itself."""

    name: str
    size_bytes: int
    kind: Literal["file", "folder", "link", "special"]
    handle: Any
    """The archive's own object for it."""


def format_of(file: Path) -> Format:
    """The format of an archive, from its first bytes.

    Raises:
        BadInput: it is none that can be unpacked here; the text says what it is, where that is known
    """
    try:
        with file.open("rb") as stream:
            head = stream.read(512)
    except OSError as error:
        raise BadInput(f"{file}: cannot be read ({error.strerror})") from None
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    if head.startswith(b"\x1f\x8b"):
        return "tar.gz"
    if head[257:262] == b"ustar":
        return "tar"
    if head.startswith(b"version https://git-lfs"):
        raise BadInput(f"{file} is a Git LFS pointer: a text of a few lines that stands for the archive")
    for magic, name in ((b"Rar!", "a RAR"), (b"7z\xbc\xaf\x27\x1c", "a 7z"), (b"<", "a web page, not an")):
        if head.lstrip().startswith(magic):
            raise BadInput(f"{file} is {name} archive; valid: zip, tar, tar.gz. Unpack it yourself if it is the corpus")
    raise BadInput(f"{file} is no archive that can be unpacked here; valid: zip, tar, tar.gz")


def safe_path(name: str) -> PurePosixPath:
    """A member's path, relative and in Unicode's composed form (NFC); `.` for the archive's own top folder.

    Raises:
        ValueError: the path is absolute, goes upwards, or has characters that some system takes for something else
    """
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("its name is not UTF-8") from None
    if "\\" in name:
        raise ValueError("a backslash in its name")
    if name.startswith("/"):
        raise ValueError("an absolute path")
    if re.search(r"[\x00-\x1f\x7f:]", name):
        raise ValueError("a control character or a colon in its name")
    parts = [part for part in unicodedata.normalize("NFC", name).split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ValueError("its path goes upwards (..)")
    return PurePosixPath(*parts)


def plan(
    members: Iterable[Member], *, archive_bytes: int, strip: int, keep: Sequence[str], limits: Limits
) -> list[tuple[Member, PurePosixPath]]:
    """The files to unpack and the path of each below the target, in the archive's order.

    Args:
        members: of the archive; looked at one by one, so that a bomb is found before it is read through
        archive_bytes: the archive's own size
        strip: leading folders to take off
        keep: patterns of the paths to unpack; all when empty
        limits: what is too much

    Raises:
        ValueError: naming the member and the fault
    """
    most = min(limits.unpacked_bytes, limits.free_bytes + round(archive_bytes * limits.ratio))
    total = 0
    chosen: list[tuple[Member, PurePosixPath]] = []
    spelling: dict[str, str] = {}
    files: set[str] = set()
    for count, member in enumerate(members, start=1):
        if count > limits.members:
            raise ValueError(f"it has more than {limits.members} members")
        try:
            path = safe_path(member.name)
        except ValueError as fault:
            raise ValueError(f"member {member.name!r}: {fault}") from None
        total += member.size_bytes
        if total > most:
            raise ValueError(
                f"unpacked it would be larger than {megabytes(most)}, too much for an archive of "
                f"{megabytes(archive_bytes)}"
            )
        if member.kind == "folder" or JUNK.search(str(path)) or len(path.parts) <= strip:
            continue
        path = PurePosixPath(*path.parts[strip:])
        if keep and not any(fnmatch.fnmatchcase(str(path), pattern) for pattern in keep):
            continue
        if member.kind != "file":
            raise ValueError(f"member {member.name!r}: a {member.kind} file; only plain files are unpacked")
        for depth in range(1, len(path.parts) + 1):
            prefix = "/".join(path.parts[:depth])
            if spelling.setdefault(prefix.casefold(), prefix) != prefix:
                raise ValueError(f"{prefix!r} and {spelling[prefix.casefold()]!r} differ only in case")
        parents = {str(parent) for parent in path.parents}
        if str(path) in files or parents & files:
            raise ValueError(f"two members have the path {str(path)!r}, or one lies below the other")
        files.add(str(path))
        chosen.append((member, path))
    folders = {str(parent) for _, path in chosen for parent in path.parents}
    if both := files & folders:
        raise ValueError(f"{min(both)!r} is a file and a folder")
    if not chosen:
        raise ValueError("it holds none of the files that are wanted" + (f" ({', '.join(keep)})" if keep else ""))
    return chosen


def unpack(
    archive: Path,
    target: Path,
    *,
    format: Format,
    strip: int = 0,
    keep: Sequence[str] = (),
    limits: Limits | None = None,
    room: Callable[[int], None] = lambda needed: None,
    report: Report = lambda done, total: None,
) -> list[PurePosixPath]:
    """Unpack an archive below `target`; existing files are never overwritten.

    Args:
        archive: file to unpack
        target: folder, created where needed
        format: of the archive
        strip: leading folders to take off every path
        keep: patterns of the paths, after `strip`, to unpack; all when empty
        limits: what an archive may hold; None: the defaults
        room: called with the bytes needed, before anything is written; raises where they are not there
        report: takes the progress in bytes

    Returns:
        The paths of the files, relative to `target`, in the archive's order

    Raises:
        Finding: a damaged archive, or one with a member that is refused; it may have been unpacked in part
        BadInput: the disk refuses
    """
    opened = _open_zip if format == "zip" else _open_tar
    try:
        with opened(archive, format) as (members, read):
            try:
                chosen = plan(
                    members,
                    archive_bytes=archive.stat().st_size,
                    strip=strip,
                    keep=keep,
                    limits=limits or Limits(),
                )
            except ValueError as fault:
                raise Finding(f"{archive} is refused: {fault}. Nothing of it was unpacked") from None
            total = sum(member.size_bytes for member, _ in chosen)
            room(total)
            done = 0
            for member, path in chosen:
                with read(member) as source:
                    _write(source, target / path, member, archive)
                done += member.size_bytes
                report(done, total)
    except (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError) as error:
        raise Finding(f"{archive} is damaged, or not a {format} archive ({error})") from None
    except NotImplementedError as error:
        raise Finding(f"{archive} cannot be unpacked here ({error}); unpack it yourself") from None
    return [path for _, path in chosen]


_Opened = tuple[Iterator[Member], Callable[[Member], IO[bytes]]]


@contextmanager
def _open_zip(archive: Path, format: Format) -> Iterator[_Opened]:
    with zipfile.ZipFile(archive) as bundle:
        yield (_zip_member(info) for info in bundle.infolist()), lambda member: bundle.open(member.handle)


def _zip_member(info: zipfile.ZipInfo) -> Member:
    name = info.orig_filename
    if not info.flag_bits & UTF8_FLAG:
        try:
            # many programs write UTF-8 and do not say so; other names are what the format prescribes (cp437)
            name = name.encode("cp437").decode("utf-8")
        except UnicodeError:
            name = info.orig_filename
    if info.flag_bits & ENCRYPTED_FLAG:
        raise NotImplementedError(f"{name!r} is encrypted")
    # the upper half of external_attr is the Unix mode, whatever system the archive says it is from
    mode = stat.S_IFMT(info.external_attr >> 16)
    if mode == stat.S_IFLNK:
        return Member(name, info.file_size, "link", info)
    if mode not in (0, stat.S_IFREG, stat.S_IFDIR):
        return Member(name, info.file_size, "special", info)
    return Member(name, info.file_size, "folder" if name.endswith("/") else "file", info)


@contextmanager
def _open_tar(archive: Path, format: Format) -> Iterator[_Opened]:
    with tarfile.open(archive, "r:gz" if format == "tar.gz" else "r:") as bundle:

        def read(member: Member) -> IO[bytes]:
            stream = bundle.extractfile(member.handle)
            assert stream is not None  # plain files only
            return stream

        def members() -> Iterator[Member]:
            yield from map(_tar_member, bundle)
            # tarfile takes any break between two members for the end; a whole archive ends with empty blocks
            assert bundle.fileobj is not None
            bundle.fileobj.seek(bundle.offset)
            if bundle.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError("it breaks off")

        yield members(), read


def _tar_member(info: tarfile.TarInfo) -> Member:
    if info.isdir():
        return Member(info.name, 0, "folder", info)
    if info.issym() or info.islnk():
        return Member(info.name, 0, "link", info)
    plain = info.isreg() and not info.issparse()
    return Member(info.name, info.size, "file" if plain else "special", info)


def _write(source: IO[bytes], file: Path, member: Member, archive: Path) -> None:
    written = 0
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        target = file.open("xb", buffering=0)
    except FileExistsError:
        raise Finding(f"{archive}: {file} is there already; archives never overwrite one another's files") from None
    except OSError as error:
        raise BadInput(f"cannot write to {file}: {error.strerror}") from None
    with target:
        while block := source.read(1 << 20):
            written += len(block)
            if written > member.size_bytes:
                break
            write_all(file, target, block)
    if written != member.size_bytes:
        raise Finding(f"{archive} is damaged: {member.name!r} is not of the {member.size_bytes} bytes it says it has")
