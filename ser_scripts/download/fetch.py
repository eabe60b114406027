"""Getting one file over HTTP: resumed after a stop, tried again after a fault, and checked before anyone uses it.

The bytes grow in `<file>.part`, with `<file>.part.json` beside it that says where they are from. Only a file that has
the expected size and checksum gets its own name; one with a wrong checksum becomes `<file>.bad`.
"""

from __future__ import annotations

import email.utils
import hashlib
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
import urllib3.exceptions

from ser_eval.run_folder import read_json, write_json
from ser_scripts import __version__
from ser_scripts.download.disk import require_room, write_all, writing
from ser_scripts.download.progress import Report
from ser_scripts.download.sources import megabytes
from ser_scripts.errors import BadInput, Finding

USER_AGENT = f"SERtain/{__version__} (ser prepare --download)"
REDIRECTS = 10
TRY_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
PROGRESS_BYTES = 1 << 20
"""After a try that brought at least this much, the tries are counted anew."""


@dataclass(frozen=True)
class Policy:
    """How patient a download is."""

    connect_seconds: float = 20.0
    stall_seconds: float = 60.0
    """Without a byte for so long, or with less than `slowest_bytes` in that time, the connection is given up."""
    slowest_bytes: int = 1024
    tries: int = 6
    backoff_seconds: float = 1.0
    """Wait after the first fault; doubled after each further one."""
    longest_wait_seconds: float = 600.0
    """A server that asks for a longer pause is not waited for."""
    chunk_bytes: int = 1 << 18
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True)
class Expected:
    """What is known beforehand about a file."""

    limit_bytes: int
    """Never more than this."""
    bytes: int | None = None
    md5: str | None = None
    sha256: str | None = None

    @property
    def verifiable(self) -> bool:
        """Whether there is a checksum to compare with."""
        return bool(self.md5 or self.sha256)


@dataclass(frozen=True)
class Fetched:
    """A whole file."""

    path: Path
    url: str
    bytes: int
    sha256: str
    date: str
    """Of the download, UTC."""


class FetchFailed(Finding):
    """The file could not be had; the text says why, address by address."""


class _Again(Exception):
    """A fault that may pass."""

    def __init__(self, reason: str, after_seconds: float | None = None) -> None:
        super().__init__(reason)
        self.after_seconds = after_seconds


class _Elsewhere(Exception):
    """This address does not have the file."""


def open_session() -> requests.Session:
    """A session that checks certificates, keeps connections, and sends no one's credentials."""
    session = requests.Session()
    session.headers.update({"User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": "identity"})
    session.auth = _no_credentials
    return session


def _no_credentials(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Takes the place of what `requests` would read from ~/.netrc."""
    return request


def fetch(
    session: requests.Session,
    urls: Sequence[str],
    target: Path,
    expected: Expected,
    *,
    policy: Policy,
    say: Callable[[str], None],
    report: Report,
) -> Fetched:
    """Download `target`, or go on with what an earlier call left; a whole and right `target` is taken as it is.

    Args:
        session: as of `open_session`
        urls: addresses of the same bytes, tried in this order
        target: file to write; its folder exists
        expected: size and checksums, as far as they are known
        policy: timeouts and retries
        say: takes a line for the user
        report: takes the progress

    Raises:
        FetchFailed: no address gave the file, or its checksum is wrong
        BadInput: it cannot be written (permission, space)
    """
    if done := _already_there(target, expected):
        return done
    while True:
        url, in_pieces = _download(session, urls, target, expected, policy=policy, say=say, report=report)
        size, digests = checksums(_part(target))
        fault = mismatch(size, digests, expected)
        if fault is None:
            date = datetime.now(UTC).isoformat(timespec="seconds")
            result = Fetched(target, url, size, digests["sha256"], date)
            write_json(_note(target), {"url": url, "bytes": size, "sha256": result.sha256, "date": date})
            os.replace(_part(target), target)
            _state_file(target).unlink(missing_ok=True)
            return result
        if not in_pieces:
            break
        say(f"{target.name}: {fault}; it was put together from several tries, so once more from the start")
        _forget(target)
    bad = target.with_name(f"{target.name}.bad")
    os.replace(_part(target), bad)
    _forget(target)
    raise FetchFailed(
        f"{url}: {fault}. The file is kept as {bad} to look at, and nothing of it is unpacked or used. If this "
        "happens again, the publisher has changed the file, or something on the way to it changes downloads"
    )


def checksums(file: Path) -> tuple[int, dict[str, str]]:
    """Size of a file, and its md5 and sha256."""
    md5, sha256, size = hashlib.md5(usedforsecurity=False), hashlib.sha256(), 0
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            md5.update(block)
            sha256.update(block)
            size += len(block)
    return size, {"md5": md5.hexdigest(), "sha256": sha256.hexdigest()}


def mismatch(size: int, digests: dict[str, str], expected: Expected) -> str | None:
    """What is wrong with a file of this size and these checksums; None when nothing is."""
    if expected.bytes is not None and size != expected.bytes:
        return f"wrong size: {size} bytes, expected {expected.bytes}"
    if size > expected.limit_bytes:
        return f"{size} bytes, more than the {expected.limit_bytes} that were expected at most"
    for name, wanted in (("sha256", expected.sha256), ("md5", expected.md5)):
        if wanted is not None and digests[name] != wanted:
            return f"wrong checksum: {name} {digests[name]}, expected {wanted}"
    return None


def _part(target: Path) -> Path:
    return target.with_name(f"{target.name}.part")


def _state_file(target: Path) -> Path:
    return target.with_name(f"{target.name}.part.json")


def _note(target: Path) -> Path:
    return target.with_name(f"{target.name}.json")


def _forget(target: Path) -> None:
    _part(target).unlink(missing_ok=True)
    _state_file(target).unlink(missing_ok=True)


def _already_there(target: Path, expected: Expected) -> Fetched | None:
    """A file that an earlier call finished; what is no longer what it was then is deleted."""
    if not target.is_file() or not _note(target).is_file():
        target.unlink(missing_ok=True)
        return None
    note = read_json(_note(target))
    size, digests = checksums(target)
    if digests["sha256"] != note["sha256"] or mismatch(size, digests, expected):
        target.unlink()
        return None
    return Fetched(target, note["url"], size, digests["sha256"], note["date"])


def _download(
    session: requests.Session,
    urls: Sequence[str],
    target: Path,
    expected: Expected,
    *,
    policy: Policy,
    say: Callable[[str], None],
    report: Report,
) -> tuple[str, bool]:
    """Fill the .part file from the first address that has all of it.

    Returns:
        That address, and whether the file was put together from several answers
    """
    failures = []
    for url in urls:
        tries, mark = policy.tries, _size(_part(target))
        while True:
            try:
                return url, _attempt(session, url, target, expected, policy, report)
            except _Elsewhere as problem:
                failures.append(f"  {url}: {problem}")
                break
            except _Again as problem:
                size = _size(_part(target))
                tries = policy.tries if size >= mark + PROGRESS_BYTES else tries
                mark = max(mark, size)
                tries -= 1
                pause = policy.backoff_seconds * 2 ** (policy.tries - 1 - tries)
                pause = pause if problem.after_seconds is None else problem.after_seconds
                if tries <= 0 or pause > policy.longest_wait_seconds:
                    asked = f" (it asks to come back in {pause:.0f} s)" if problem.after_seconds else ""
                    failures.append(f"  {url}: {problem}{asked}")
                    break
                say(f"{target.name}: {problem}; again in {pause:.0f} s, {megabytes(size)} are kept")
                policy.sleep(pause)
    kept = _size(_part(target))
    more = f"\n{megabytes(kept)} are kept in {_part(target)}; the same command goes on from there" if kept else ""
    raise FetchFailed("\n".join([f"{target.name} could not be downloaded:", *failures]) + more)


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0


def _attempt(
    session: requests.Session, url: str, target: Path, expected: Expected, policy: Policy, report: Report
) -> bool:
    """One request: append to the .part file what is missing, or begin it anew; returns whether it was appended to."""
    part = _part(target)
    state = _read_state(target)
    validator = state.get("validator") if state.get("url") == url else None
    offset = _size(part) if validator or expected.verifiable else 0
    if offset and offset == expected.bytes:
        return True
    headers = {"Range": f"bytes={offset}-"} if offset else {}
    if offset and validator:
        headers["If-Range"] = validator
    response = _get(session, url, headers, policy)
    try:
        if response.status_code == 416 and response.headers.get("Content-Range") == f"bytes */{offset}":
            return True  # nothing is missing: the call that fetched the last byte was stopped before it could check
        offset = _check_answer(response, offset, state, url, target, expected)
        length = response.headers.get("Content-Length", "")
        total = offset + int(length) if length.isdigit() else expected.bytes
        if not offset:
            _forget(target)
            fresh = {"url": url, "validator": _validator(response), "total": total}
            writing(target, lambda: write_json(_state_file(target), fresh))
        if total is not None:
            require_room(part.parent, total - offset, f"to download {target.name}")
        _receive(response, part, offset, total, expected, policy, report)
    finally:
        response.close()
    return offset > 0


def _read_state(target: Path) -> dict[str, Any]:
    """Address and validator of the .part file; empty where there is none, or a kill left half of it."""
    try:
        content = read_json(_state_file(target))
    except (BadInput, OSError):
        return {}
    return content if isinstance(content, dict) else {}


def _validator(response: requests.Response) -> str | None:
    """What tells one version of the file from another: a strong ETag, else the time of change."""
    tag = response.headers.get("ETag")
    if tag and not tag.startswith("W/"):
        return str(tag)
    return response.headers.get("Last-Modified")


def _get(session: requests.Session, url: str, headers: dict[str, str], policy: Policy) -> requests.Response:
    """GET with the redirects followed here: to http(s) only, and never from https to http."""
    timeouts = (policy.connect_seconds, policy.stall_seconds)
    for _ in range(REDIRECTS):
        try:
            response = session.get(url, headers=headers, timeout=timeouts, stream=True, allow_redirects=False)
        except requests.exceptions.SSLError as error:
            raise _Elsewhere(f"its certificate is not accepted ({_cause(error)})") from None
        except requests.exceptions.Timeout:
            raise _Again("no answer in time") from None
        except requests.exceptions.ConnectionError as error:
            raise _Again(f"no connection ({_cause(error)})") from None
        except requests.exceptions.RequestException as error:
            raise _Elsewhere(f"cannot be asked ({_cause(error)})") from None
        if response.status_code not in (301, 302, 303, 307, 308):
            return response
        location = urljoin(url, response.headers.get("Location", ""))
        response.close()
        scheme = urlsplit(location).scheme
        if scheme not in ("http", "https"):
            raise _Elsewhere(f"leads to {location!r}, which is not http(s)")
        if scheme == "http" and urlsplit(url).scheme == "https":
            raise _Elsewhere(f"leads from https to http ({location}), which is not followed")
        url = location
    raise _Elsewhere(f"more than {REDIRECTS} redirects")


def _cause(error: BaseException) -> str:
    """The innermost words of an error, which requests wraps several times."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return str(error) or type(error).__name__


def _check_answer(
    response: requests.Response, offset: int, state: dict[str, Any], url: str, target: Path, expected: Expected
) -> int:
    """The offset from which this answer goes on: the one asked for, or 0 when the server sends the whole file."""
    status = response.status_code
    if status in TRY_AGAIN:
        raise _Again(f"the server answers {status} {response.reason}", _retry_after(response))
    if status == 416 and offset:
        _forget(target)
        raise _Again("what was there already does not fit the file any more", 0.0)
    if status == 206 and offset:
        span = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        now = _validator(response)
        changed = bool(now and state.get("url") == url and state.get("validator") and now != state["validator"])
        offered = int(span[2]) if span and span[2] != "*" else None
        changed |= offered is not None and state.get("total") not in (None, offered)
        if span is None or int(span[1]) != offset or changed:
            _forget(target)
            raise _Again("the file has changed since the download began", 0.0)
    elif status == 200:
        offset = 0
        length = response.headers.get("Content-Length", "")
        offered = int(length) if length.isdigit() else None
    elif status in (401, 403):
        raise _Elsewhere(f"{status} {response.reason}: it wants a log-in, or refuses (moved, or over its quota)")
    elif status in (404, 410):
        raise _Elsewhere(f"{status} {response.reason}: the address has moved")
    else:
        raise _Elsewhere(f"unexpected answer {status} {response.reason}")
    if response.headers.get("Content-Type", "").lower().startswith("text/html"):
        raise _Elsewhere("answers with a web page instead of the file (a log-in, a notice, or it has moved)")
    if offered is not None and expected.bytes is not None and offered != expected.bytes:
        raise _Elsewhere(f"has a file of {offered} bytes, expected {expected.bytes}: not the published one")
    if offered is not None and offered > expected.limit_bytes:
        raise _Elsewhere(f"has a file of {offered} bytes, more than the {expected.limit_bytes} expected at most")
    return offset


def _retry_after(response: requests.Response) -> float | None:
    """Seconds of the Retry-After header, which is a number or a date."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isdigit():
        return float(value)
    try:
        moment = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, moment.timestamp() - time.time())


def _receive(
    response: requests.Response,
    part: Path,
    offset: int,
    total: int | None,
    expected: Expected,
    policy: Policy,
    report: Report,
) -> None:
    """Append the body to the .part file."""
    size = offset
    window_start, window_bytes = time.monotonic(), 0
    # unbuffered, see write_all
    with writing(part, lambda: part.open("ab", buffering=0)) as stream:
        while True:
            try:
                block = response.raw.read1(policy.chunk_bytes, decode_content=False)
            except urllib3.exceptions.ReadTimeoutError:
                raise _Again(f"nothing came for {policy.stall_seconds:.0f} s") from None
            except (urllib3.exceptions.HTTPError, HTTPException, OSError) as error:
                raise _Again(f"the connection broke ({_cause(error)})") from None
            if not block:
                break
            size += len(block)
            if size > expected.limit_bytes:
                stream.close()
                part.unlink()
                raise _Elsewhere(f"sends more than the {expected.limit_bytes} bytes expected at most")
            write_all(part, stream, block)
            report(size, total)
            window_bytes += len(block)
            if (now := time.monotonic()) - window_start > policy.stall_seconds:
                if window_bytes < policy.slowest_bytes:
                    raise _Again(f"only {window_bytes} bytes came in {policy.stall_seconds:.0f} s")
                window_start, window_bytes = now, 0
    if total is not None and size < total:
        raise _Again(f"the connection ended after {size} of {total} bytes")
