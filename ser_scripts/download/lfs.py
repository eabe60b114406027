"""Git LFS pointers: the few lines of text that a repository's archive holds in place of a large file.

A pointer names the SHA-256 and the size of its file, so what takes its place is always verified.
"""

from __future__ import annotations

import os
import re
import shutil
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import quote

import requests

from ser_scripts.download.fetch import Expected, Policy, fetch, open_session
from ser_scripts.download.progress import Report

POINTER = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\n(?:ext-[^\n]*\n)*"
    rb"oid sha256:(?P<sha256>[0-9a-f]{64})\nsize (?P<size>\d+)\n?"
)
BEGIN = b"version https://git-lfs"
LONGEST = 1024
"""Bytes of the longest pointer, by the format's own rule."""
CONNECTIONS = 4


@dataclass(frozen=True)
class Pointer:
    """A file that is a pointer, and what it stands for."""

    path: PurePosixPath
    """Relative to the folder that was looked through."""
    sha256: str
    bytes: int


def find_pointers(root: Path, paths: Iterable[PurePosixPath]) -> tuple[list[Pointer], list[PurePosixPath]]:
    """The pointers among files, and the files that begin like one but are none that can be read."""
    pointers, unreadable = [], []
    for path in paths:
        file = root / path
        if file.stat().st_size > LONGEST:
            continue
        content = file.read_bytes()
        if match := POINTER.fullmatch(content):
            pointers.append(Pointer(path, match["sha256"].decode(), int(match["size"])))
        elif content.startswith(BEGIN):
            unreadable.append(path)
    return pointers, unreadable


def resolve(
    root: Path,
    pointers: list[Pointer],
    media: str,
    store: Path,
    *,
    policy: Policy,
    say: Callable[[str], None],
    report: Report,
) -> None:
    """Put the file in the place of every pointer.

    Args:
        root: folder that holds the pointers
        pointers: as of `find_pointers`
        media: address of the files; a pointer's path is appended
        store: folder for what has come, by checksum; a later call goes on from there
        policy: timeouts and retries of each file
        say: takes a line for the user
        report: takes the progress in bytes

    Raises:
        FetchFailed: a file could not be had
        BadInput: it cannot be written
    """
    store.mkdir(parents=True, exist_ok=True)
    by_content: dict[str, list[Pointer]] = {}
    for pointer in pointers:
        by_content.setdefault(pointer.sha256, []).append(pointer)
    total = sum(same[0].bytes for same in by_content.values())
    sessions = threading.local()
    lock = threading.Lock()
    done = 0

    def get(pointer: Pointer) -> None:
        nonlocal done
        if not hasattr(sessions, "session"):
            sessions.session = open_session()
        session: requests.Session = sessions.session
        fetch(
            session,
            [media.rstrip("/") + "/" + quote(str(pointer.path))],
            store / pointer.sha256,
            Expected(limit_bytes=pointer.bytes, bytes=pointer.bytes, sha256=pointer.sha256),
            policy=policy,
            say=say,
            report=lambda done, total: None,
        )
        with lock:
            done += pointer.bytes
            report(done, total)

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        tasks = [pool.submit(get, same[0]) for same in by_content.values()]
        try:
            for task in tasks:
                task.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    for sha256, same in by_content.items():
        for pointer in same[1:]:
            shutil.copyfile(store / sha256, root / pointer.path)
        os.replace(store / sha256, root / same[0].path)
