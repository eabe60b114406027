"""Downloads against a real server on this machine that misbehaves, and archives that mean harm. No network."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import textwrap
import threading
import time
import zipfile
from collections import namedtuple
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import requests
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from typer.testing import CliRunner

from ser_eval.run_folder import read_json
from ser_scripts import corpora
from ser_scripts.cli import app
from ser_scripts.download import corpus as download_corpus
from ser_scripts.download import extract, fetch, how_to_get, lfs, progress, sources
from ser_scripts.download.corpus import RECORD, download
from ser_scripts.download.extract import Limits, Member, plan, safe_path, unpack
from ser_scripts.download.fetch import Expected, FetchFailed, Policy, open_session
from ser_scripts.download.sources import ArchiveFile, Source, all_sources, downloadable
from ser_scripts.errors import BadInput, Finding

BODY = bytes(range(256)) * 8192
"""Two megabytes, so that a connection can break in the middle."""
MIDDLE = len(BODY) // 2

Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Answers with the faults that the site has in store for a path, one per request, then properly."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        site: Site = self.server.site  # type: ignore[attr-defined]
        with site.lock:
            site.requests.append((self.path, dict(self.headers)))
            faults = site.faults.get(self.path.split("?")[0], [])
            answer = faults.pop(0) if faults else send()
        try:
            answer(self)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def log_message(self, *arguments: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections that the other side drops are what is tested here."""


class Site:
    """A server on a loopback port: what it serves, how it misbehaves, and what it was asked."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.etags: dict[str, str | None] = {}
        self.faults: dict[str, list[Answer]] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.lock = threading.Lock()
        self.gate = threading.Event()
        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.site = self  # type: ignore[attr-defined]
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"

    def put(self, name: str, body: bytes, *faults: Answer, etag: str | None = '"1"') -> str:
        path = f"/{name}"
        self.files[path], self.etags[path], self.faults[path] = body, etag, list(faults)
        return self.address + path

    def ranges(self) -> list[str | None]:
        return [headers.get("Range") for _, headers in self.requests]


def send(
    *, ranges: bool = True, only: int | None = None, then: str = "close", if_range: bool = True, **headers: str
) -> Answer:
    """A proper answer; with `only`, so many bytes of it and then a closed connection, or silence (`stall`)."""

    def answer(handler: Handler) -> None:
        site: Site = handler.server.site  # type: ignore[attr-defined]
        path = handler.path.split("?")[0]
        if path not in site.files:
            return status(404)(handler)
        body, etag = site.files[path], site.etags[path]
        begin = 0
        asked = handler.headers.get("Range")
        stale = if_range and handler.headers.get("If-Range") not in (None, etag)
        if asked and ranges and not stale:
            begin = int(asked.removeprefix("bytes=").removesuffix("-"))
            if begin >= len(body):
                return status(416, **{"Content-Range": f"bytes */{len(body)}"})(handler)
            handler.send_response(206)
            handler.send_header("Content-Range", f"bytes {begin}-{len(body) - 1}/{len(body)}")
        else:
            handler.send_response(200)
        if etag:
            handler.send_header("ETag", etag)
        for name, value in {"Content_Type": "application/zip", **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body) - begin))
        handler.end_headers()
        handler.wfile.write(body[begin : len(body) if only is None else begin + only])
        handler.wfile.flush()
        if only is not None:
            handler.close_connection = True
            if then == "stall":
                site.gate.wait(60)
        return None

    return answer


def status(code: int, **headers: str) -> Answer:
    def answer(handler: Handler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def drip(handler: Handler) -> None:
    """A byte now and then, so that no single read waits long."""
    site: Site = handler.server.site  # type: ignore[attr-defined]
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(BODY)))
    handler.end_headers()
    for _ in range(100):
        handler.wfile.write(b"x")
        handler.wfile.flush()
        if site.gate.wait(0.05):
            break
    handler.close_connection = True


@pytest.fixture
def site() -> Iterator[Site]:
    one = Site()
    thread = threading.Thread(target=one.server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield one
    one.gate.set()
    one.server.shutdown()
    one.server.server_close()
    thread.join()


class Pauses:
    """Stands in for sleeping, and remembers."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


def quick(pauses: Pauses | None = None, **changes: Any) -> Policy:
    return Policy(**{"connect_seconds": 2.0, "stall_seconds": 0.4, "tries": 4, "sleep": pauses or Pauses(), **changes})


class Lines(list[str]):
    """Takes the lines for the user."""

    def __call__(self, text: str) -> None:
        self.append(text)

    @property
    def text(self) -> str:
        return "\n".join(self)


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def get(urls: str | list[str], target: Path, policy: Policy | None = None, **expected: Any) -> fetch.Fetched:
    lines: list[str] = []
    with open_session() as session:
        return fetch.fetch(
            session,
            [urls] if isinstance(urls, str) else urls,
            target,
            Expected(**{"limit_bytes": 10 * len(BODY), **expected}),
            policy=policy or quick(),
            say=lines.append,
            report=lambda done, total: None,
        )


# --- the data file -----------------------------------------------------------------------------------------------


def test_every_shipped_address_is_https_and_says_where_it_was_found() -> None:
    for name, source in all_sources().items():
        assert source.licence
        assert source.files or source.steps, name
        for file in source.files:
            assert all(url.startswith("https://") for url in file.urls), name
            assert file.lfs_media is None or file.lfs_media.startswith("https://")
            assert file.confirmed


def test_shipped_archives_of_a_repository_are_pinned_to_a_revision() -> None:
    for source in all_sources().values():
        for file in source.files:
            for url in file.urls:
                if "github" in url:
                    assert any(len(part) in (40, 44) and part[:40].isalnum() for part in url.split("/")), url


def test_the_best_known_corpora_can_be_downloaded() -> None:
    assert {"cremad", "emodb", "emovo", "emozionalmente", "ravdess"} <= set(downloadable())
    assert set(downloadable()) <= set(corpora.names())
    assert all_sources()["ravdess"].files[0].md5 == "bc696df654c87fed845eb13823edef8a"


@pytest.mark.parametrize("name", corpora.names())
def test_every_corpus_says_how_to_get_it(name: str) -> None:
    text = how_to_get(name)
    assert ("ser prepare" in text) or ("by hand" in text)
    if name in downloadable():
        assert text.startswith(f"ser prepare --download {name}")
        assert ("--accept-licence" in text) == (not all_sources()[name].open_licence)


def test_a_corpus_without_an_address_says_where_its_reader_knows_it_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "all_sources", dict)
    assert corpora.get("emodb").SOURCE in how_to_get("emodb")
    with pytest.raises(BadInput, match="has no address to download from"):
        sources.source_of("emodb")


GOOD_FILE: dict[str, Any] = {
    "name": "a.zip",
    "urls": ["https://example.org/a.zip"],
    "format": "zip",
    "bytes": 5,
    "confirmed": "here",
}


@pytest.mark.parametrize(
    "change",
    [
        {"urls": ["ftp://example.org/a.zip"]},
        {"urls": ["https://me:secret@example.org/a.zip"]},
        {"urls": []},
        {"max_bytes": 7},
        {"bytes": None},
        {"md5": "XYZ"},
        {"name": "../a.zip"},
        {"into": "../up"},
        {"into": "/abs"},
        {"format": "rar"},
        {"surprise": 1},
    ],
)
def test_faulty_entries_are_refused(change: dict[str, Any]) -> None:
    ArchiveFile.model_validate(GOOD_FILE)
    with pytest.raises(ValidationError):
        ArchiveFile.model_validate({**GOOD_FILE, **change})


def test_an_entry_has_files_or_steps() -> None:
    with pytest.raises(ValidationError, match="steps"):
        Source(page="https://example.org", licence="x", open_licence=True)
    twice = (ArchiveFile.model_validate(GOOD_FILE),) * 2
    with pytest.raises(ValidationError, match="one name"):
        Source(page="https://example.org", licence="x", open_licence=True, files=twice)


# --- one file over HTTP ------------------------------------------------------------------------------------------


def test_a_file_arrives_whole_with_its_checksum(site: Site, tmp_path: Path) -> None:
    got = get(site.put("a", BODY), tmp_path / "a", sha256=sha256(BODY), bytes=len(BODY))
    assert got.path.read_bytes() == BODY
    assert (got.bytes, got.sha256) == (len(BODY), sha256(BODY))
    assert sorted(item.name for item in tmp_path.iterdir()) == ["a", "a.json"]


def test_a_whole_file_is_not_fetched_again_and_a_damaged_one_is(site: Site, tmp_path: Path) -> None:
    url = site.put("a", BODY)
    get(url, tmp_path / "a")
    get(url, tmp_path / "a")
    assert len(site.requests) == 1
    (tmp_path / "a").write_bytes(BODY[:-1])
    assert get(url, tmp_path / "a").path.read_bytes() == BODY
    assert len(site.requests) == 2


def test_requests_name_the_project_and_carry_no_credentials(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    get(site.put("a", BODY), tmp_path / "a")
    _, headers = site.requests[0]
    assert headers["User-Agent"].startswith("SERtain/")
    assert headers["Accept-Encoding"] == "identity"
    assert "Authorization" not in headers


def test_after_a_broken_connection_it_goes_on_where_it_stopped(site: Site, tmp_path: Path) -> None:
    url = site.put("a", BODY, send(only=MIDDLE))
    assert get(url, tmp_path / "a").path.read_bytes() == BODY
    assert site.ranges() == [None, f"bytes={MIDDLE}-"]
    assert site.requests[1][1]["If-Range"] == '"1"'


def test_a_later_call_goes_on_where_an_earlier_one_gave_up(site: Site, tmp_path: Path) -> None:
    url = site.put("a", BODY, send(only=MIDDLE), status(404))
    with pytest.raises(FetchFailed, match="goes on from there"):
        get(url, tmp_path / "a")
    assert (tmp_path / "a.part").stat().st_size == MIDDLE
    assert get(url, tmp_path / "a").path.read_bytes() == BODY
    assert site.ranges()[-1] == f"bytes={MIDDLE}-"


def test_a_stalled_connection_is_given_up_and_taken_up_again(site: Site, tmp_path: Path) -> None:
    url = site.put("a", BODY, send(only=MIDDLE, then="stall"))
    started = time.monotonic()
    assert get(url, tmp_path / "a").path.read_bytes() == BODY
    assert time.monotonic() - started < 30
    assert site.ranges()[1] == f"bytes={MIDDLE}-"


def test_a_connection_that_drips_is_given_up(site: Site, tmp_path: Path) -> None:
    url = site.put("a", BODY, drip)
    assert get(url, tmp_path / "a", sha256=sha256(BODY)).path.read_bytes() == BODY
    assert len(site.requests) >= 2


def chunked(handler: Handler) -> None:
    """Half of the file in chunks, of a length that nobody states, and then nothing more."""
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(b"%x\r\n%s\r\n" % (MIDDLE, BODY[:MIDDLE]))
    handler.close_connection = True


def nothing(handler: Handler) -> None:
    """Not even an answer."""
    handler.close_connection = True


@pytest.mark.parametrize("fault", [chunked, nothing])
def test_an_answer_that_breaks_off_is_not_taken_for_the_file(site: Site, tmp_path: Path, fault: Answer) -> None:
    url = site.put("a", BODY, fault)
    assert get(url, tmp_path / "a").path.read_bytes() == BODY
    assert len(site.requests) == 2


def test_a_server_without_ranges_sends_everything_again(site: Site, tmp_path: Path) -> None:
    url = site.put("a", BODY, send(only=MIDDLE), send(ranges=False))
    assert get(url, tmp_path / "a").path.read_bytes() == BODY
    assert len(site.requests) == 2


@pytest.mark.parametrize("if_range", [True, False], ids=["told by If-Range", "told by the new ETag"])
def test_a_file_that_changes_in_between_is_begun_anew(site: Site, tmp_path: Path, if_range: bool) -> None:
    new = BODY[::-1]

    def change(handler: Handler) -> None:
        site.files["/a"], site.etags["/a"] = new, '"2"'
        send(if_range=if_range)(handler)

    url = site.put("a", BODY, send(only=MIDDLE), change)
    assert get(url, tmp_path / "a").path.read_bytes() == new


def test_without_a_way_to_tell_versions_apart_nothing_is_resumed(site: Site, tmp_path: Path) -> None:
    url = site.put("a", BODY, send(only=MIDDLE), etag=None)
    assert get(url, tmp_path / "a").path.read_bytes() == BODY
    assert site.ranges() == [None, None]


def test_a_published_checksum_allows_to_resume_without_an_etag(site: Site, tmp_path: Path) -> None:
    url = site.put("a", BODY, send(only=MIDDLE), etag=None)
    assert get(url, tmp_path / "a", md5=hashlib.md5(BODY).hexdigest()).path.read_bytes() == BODY
    assert site.ranges() == [None, f"bytes={MIDDLE}-"]


def test_pieces_that_do_not_fit_are_fetched_once_more_from_the_start(site: Site, tmp_path: Path) -> None:
    def swap(handler: Handler) -> None:
        send(only=MIDDLE)(handler)
        site.files["/a"] = BODY

    url = site.put("a", BODY[::-1], swap, etag=None)
    assert get(url, tmp_path / "a", sha256=sha256(BODY)).path.read_bytes() == BODY
    assert site.ranges() == [None, f"bytes={MIDDLE}-", None]


def test_a_part_that_is_whole_only_has_to_be_checked(site: Site, tmp_path: Path) -> None:
    url = site.put("a", BODY, send(only=MIDDLE), status(404))
    with pytest.raises(FetchFailed):
        get(url, tmp_path / "a")
    (tmp_path / "a.part").write_bytes(BODY)
    assert get(url, tmp_path / "a").path.read_bytes() == BODY
    assert not (tmp_path / "a.part").exists()


def test_half_a_state_file_means_a_fresh_start(site: Site, tmp_path: Path) -> None:
    (tmp_path / "a.part").write_bytes(b"rubbish")
    (tmp_path / "a.part.json").write_text('{"url": ')
    assert get(site.put("a", BODY), tmp_path / "a").path.read_bytes() == BODY


def test_faults_that_pass_are_waited_for_longer_each_time(site: Site, tmp_path: Path) -> None:
    pauses = Pauses()
    url = site.put("a", BODY, status(500), status(503), status(429))
    assert get(url, tmp_path / "a", quick(pauses)).path.read_bytes() == BODY
    assert pauses.seconds == [1.0, 2.0, 4.0]


def test_retry_after_is_honoured_as_seconds_and_as_a_date(site: Site, tmp_path: Path) -> None:
    pauses = Pauses()
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    url = site.put("a", BODY, status(503, Retry_After="7"), status(503, Retry_After=soon))
    get(url, tmp_path / "a", quick(pauses))
    assert pauses.seconds[0] == 7
    assert 90 < pauses.seconds[1] <= 100


def test_a_server_that_asks_for_a_long_pause_is_not_waited_for(site: Site, tmp_path: Path) -> None:
    pauses = Pauses()
    url = site.put("a", BODY, status(503, Retry_After="86400"))
    with pytest.raises(FetchFailed, match="asks to come back in 86400 s"):
        get(url, tmp_path / "a", quick(pauses))
    assert pauses.seconds == []


def test_faults_that_stay_end_after_some_tries(site: Site, tmp_path: Path) -> None:
    url = site.put("a", BODY, *[status(503)] * 9)
    with pytest.raises(FetchFailed, match=r"503 Service Unavailable"):
        get(url, tmp_path / "a")
    assert len(site.requests) == 4


def test_tries_are_counted_anew_while_it_moves_on(site: Site, tmp_path: Path) -> None:
    body = BODY * 4
    url = site.put("a", body, *[send(only=1 << 20)] * 7)
    assert get(url, tmp_path / "a", quick(tries=2)).path.read_bytes() == body


def test_no_server_at_all(tmp_path: Path) -> None:
    with pytest.raises(FetchFailed, match="no connection"):
        get("http://127.0.0.1:9/a", tmp_path / "a")


@pytest.mark.parametrize(("code", "words"), [(404, "moved"), (410, "moved"), (403, "log-in"), (418, "unexpected")])
def test_an_address_that_has_gone_is_not_tried_again(site: Site, tmp_path: Path, code: int, words: str) -> None:
    url = site.put("a", BODY, status(code))
    with pytest.raises(FetchFailed, match=words):
        get(url, tmp_path / "a")
    assert len(site.requests) == 1


def test_the_next_address_goes_on_with_what_the_first_one_gave(site: Site, tmp_path: Path) -> None:
    first = site.put("a", BODY, send(only=MIDDLE), status(404))
    second = site.put("b", BODY)
    got = get([first, second], tmp_path / "a", sha256=sha256(BODY))
    assert got.path.read_bytes() == BODY
    assert got.url == second
    assert site.ranges()[-1] == f"bytes={MIDDLE}-"


def test_a_web_page_is_not_taken_for_the_file(site: Site, tmp_path: Path) -> None:
    url = site.put("a", b"<html>please log in</html>", send(Content_Type="text/html; charset=utf-8"))
    with pytest.raises(FetchFailed, match="web page"):
        get(url, tmp_path / "a")


def test_redirects_are_followed_and_resumed(site: Site, tmp_path: Path) -> None:
    site.put("b", BODY, send(only=MIDDLE))
    url = site.put("a", b"", *[status(302, Location="/b")] * 2)
    assert get(url, tmp_path / "a").path.read_bytes() == BODY
    assert site.ranges() == [None, None, f"bytes={MIDDLE}-", f"bytes={MIDDLE}-"]


@pytest.mark.parametrize(
    ("location", "words"), [("file:///etc/passwd", r"not http\(s\)"), ("/a", "more than 10 redirects")]
)
def test_redirects_that_lead_nowhere_good_are_refused(site: Site, tmp_path: Path, location: str, words: str) -> None:
    url = site.put("a", b"", *[status(301, Location=location)] * 20)
    with pytest.raises(FetchFailed, match=words):
        get(url, tmp_path / "a")


def test_a_redirect_from_https_to_http_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(self: requests.Session, url: str, **options: Any) -> requests.Response:
        assert url.startswith("https://")
        response = requests.Response()
        response.status_code, response.headers["Location"] = 302, "http://example.org/a"
        response.raw = io.BytesIO()
        return response

    monkeypatch.setattr(requests.Session, "get", answer)
    with pytest.raises(FetchFailed, match="from https to http"):
        get("https://example.org/a", tmp_path / "a")


def test_a_certificate_that_is_not_valid_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(self: requests.Session, url: str, **options: Any) -> requests.Response:
        raise requests.exceptions.SSLError("certificate verify failed: self-signed certificate")

    monkeypatch.setattr(requests.Session, "get", answer)
    with pytest.raises(FetchFailed, match="certificate is not accepted"):
        get("https://example.org/a", tmp_path / "a")
    assert open_session().verify is True


def test_a_wrong_checksum_leaves_a_bad_file_and_no_other(site: Site, tmp_path: Path) -> None:
    url = site.put("a", BODY)
    with pytest.raises(FetchFailed, match=f"wrong checksum: sha256 {sha256(BODY)}, expected {sha256(b'')}"):
        get(url, tmp_path / "a", sha256=sha256(b""))
    assert [item.name for item in tmp_path.iterdir()] == ["a.bad"]
    assert len(site.requests) == 1


def test_a_file_of_another_size_than_published_is_not_even_begun(site: Site, tmp_path: Path) -> None:
    with pytest.raises(FetchFailed, match="not the published one"):
        get(site.put("a", BODY), tmp_path / "a", bytes=len(BODY) - 1, limit_bytes=len(BODY) - 1)
    with pytest.raises(FetchFailed, match="more than the 1000 expected"):
        get(site.put("a", BODY), tmp_path / "a", limit_bytes=1000)
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_sends_without_end_is_cut_off(site: Site, tmp_path: Path) -> None:
    def endless(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.close_connection = True
        for _ in range(50):
            handler.wfile.write(BODY)

    with pytest.raises(FetchFailed, match="sends more than"):
        get(site.put("a", BODY, endless), tmp_path / "a", limit_bytes=3 * len(BODY))
    assert not (tmp_path / "a.part").exists()


def test_a_full_disk_is_seen_before_it_is_full(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 10**8))
    with pytest.raises(BadInput, match=r"102\.1 MB are needed to download a, but 100\.0 MB are free"):
        get(site.put("a", BODY), tmp_path / "a")


def test_a_disk_that_fills_up_midway_is_said_and_what_came_is_kept(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(io.FileIO):
        def __init__(self, file: Path, mode: str, buffering: int) -> None:
            assert buffering == 0
            super().__init__(file, mode)

        def write(self, block: Any) -> int:
            if self.tell() + len(block) > MIDDLE:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(block)

    usual = Path.open
    with monkeypatch.context() as patch:
        patch.setattr(
            Path, "open", lambda self, mode="r", *a, **k: (Full if mode == "ab" else usual)(self, mode, *a, **k)
        )
        with pytest.raises(BadInput, match=r"a.part: the disk is full; what was downloaded is kept"):
            get(site.put("a", BODY), tmp_path / "a")
    assert 0 < (tmp_path / "a.part").stat().st_size <= MIDDLE
    assert get(f"{site.address}/a", tmp_path / "a").path.read_bytes() == BODY
    assert site.ranges()[1] is not None


def test_progress_is_lines_now_and_then_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "EVERY_SECONDS", 0.0)
    say = Lines()
    with progress.bytes_shown("downloading a.zip", say) as report:
        report(10**6, 4 * 10**6)
        report(2 * 10**6, None)
    assert say == ["downloading a.zip: 1.0 MB of 4.0 MB (25%)", "downloading a.zip: 2.0 MB"]


# --- archives ----------------------------------------------------------------------------------------------------


def zip_of(members: dict[str, bytes] | list[tuple[str | zipfile.ZipInfo, bytes]], **options: Any) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", **{"compression": zipfile.ZIP_DEFLATED, **options}) as bundle:
        for name, body in members.items() if isinstance(members, dict) else members:
            bundle.writestr(name, body)
    return stream.getvalue()


def tar_of(members: dict[str, bytes] | list[tuple[tarfile.TarInfo, bytes]], mode: str = "w:gz") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as bundle:  # type: ignore[call-overload]
        for name, body in members.items() if isinstance(members, dict) else members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            if info.isreg():
                info.size = len(body)
            bundle.addfile(info, io.BytesIO(body))
    return stream.getvalue()


def unpacked(tmp_path: Path, body: bytes, **options: Any) -> dict[str, bytes]:
    archive = tmp_path / "archive"
    archive.write_bytes(body)
    target = tmp_path / "target"
    unpack(archive, target, format=extract.format_of(archive), **options)
    return {item.relative_to(target).as_posix(): item.read_bytes() for item in target.rglob("*") if item.is_file()}


@pytest.mark.parametrize("make", [zip_of, tar_of, lambda members: tar_of(members, "w")], ids=["zip", "tar.gz", "tar"])
def test_archives_are_unpacked(tmp_path: Path, make: Callable[[dict[str, bytes]], bytes]) -> None:
    files = {"a/b.wav": b"one", "a/c/d.wav": BODY, "./e.txt": b""}
    assert unpacked(tmp_path, make(files)) == {"a/b.wav": b"one", "a/c/d.wav": BODY, "e.txt": b""}


def test_folders_are_stripped_and_only_what_is_wanted_is_kept(tmp_path: Path) -> None:
    members = {"repo-1/wav/a.wav": b"1", "repo-1/wav/x/b.wav": b"2", "repo-1/big.mp4": b"3", "top.txt": b"4"}
    assert unpacked(tmp_path, zip_of(members), strip=1, keep=["wav/*"]) == {"wav/a.wav": b"1", "wav/x/b.wav": b"2"}


def test_what_file_managers_leave_behind_is_left_out(tmp_path: Path) -> None:
    members = {"a.wav": b"1", "__MACOSX/._a.wav": b"2", "x/.DS_Store": b"3", "x/._b.wav": b"4", "x/__MACOSX/c": b"5"}
    assert unpacked(tmp_path, zip_of(members)) == {"a.wav": b"1"}


def test_files_get_no_permissions_from_the_archive(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("run.sh")
    info.external_attr = 0o104777 << 16
    unpacked(tmp_path, zip_of([(info, b"#!/bin/sh")]))
    assert (tmp_path / "target/run.sh").stat().st_mode & 0o7111 == 0


EVIL_NAMES = [
    "../up.wav",
    "a/../../up.wav",
    "/etc/abs.wav",
    "C:/x.wav",
    "c:x.wav",
    "..\\up.wav",
    "a\\b.wav",
    "a\nb.wav",
]


@pytest.mark.parametrize("name", EVIL_NAMES)
@pytest.mark.parametrize("make", [zip_of, tar_of], ids=["zip", "tar.gz"])
def test_members_that_would_leave_the_target_are_refused(
    tmp_path: Path, make: Callable[[dict[str, bytes]], bytes], name: str
) -> None:
    with pytest.raises(Finding, match=r"is refused: member .*Nothing of it was unpacked"):
        unpacked(tmp_path, make({"good.wav": b"1", name: b"2"}))
    assert sorted(item.name for item in tmp_path.rglob("*")) == ["archive"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path: Path, kind: bytes) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.linkname = kind, "/etc/passwd"
    with pytest.raises(Finding, match="only plain files"):
        unpacked(tmp_path, tar_of([(info, b"")]))


@pytest.mark.parametrize("mode", [0o120777, 0o020666, 0o010666], ids=["link", "device", "pipe"])
def test_links_and_devices_in_a_zip_are_refused(tmp_path: Path, mode: int) -> None:
    info = zipfile.ZipInfo("x")
    info.external_attr = mode << 16
    with pytest.raises(Finding, match="only plain files"):
        unpacked(tmp_path, zip_of([(info, b"/etc/passwd")]))


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([("a.wav", b"1"), ("a.wav", b"2")], "two members have the path"),
        ([("a.wav", b"1"), ("A.WAV", b"2")], "differ only in case"),
        ([("dir/a.wav", b"1"), ("DIR/b.wav", b"2")], "differ only in case"),
        ([("x", b"1"), ("x/y", b"2")], "below the other"),
        ([("x/y", b"1"), ("x", b"2")], "is a file and a folder"),
        ([("de\u0301j\u00e0.wav", b"1"), ("d\u00e9j\u00e0.wav", b"2")], "two members have the path"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_that_would_meet_on_some_disk_are_refused(
    tmp_path: Path, members: list[tuple[str, bytes]], words: str
) -> None:
    body = zip_of([(name, content) for name, content in members])
    with pytest.raises(Finding, match=words):
        unpacked(tmp_path, body)


def test_existing_files_are_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "target/a.wav").write_bytes(b"old")
    with pytest.raises(Finding, match="is there already"):
        unpacked(tmp_path, zip_of({"a.wav": b"new"}))
    assert (tmp_path / "target/a.wav").read_bytes() == b"old"


@pytest.mark.parametrize("make", [zip_of, tar_of], ids=["zip", "tar.gz"])
def test_bombs_are_refused_before_they_go_off(tmp_path: Path, make: Callable[[dict[str, bytes]], bytes]) -> None:
    bomb = make({"zeros": bytes(20_000_000)})
    assert len(bomb) < 100_000
    with pytest.raises(Finding, match="too much for an archive of"):
        unpacked(tmp_path, bomb, limits=Limits(free_bytes=10_000_000))
    with pytest.raises(Finding, match="more than 3 members"):
        unpacked(tmp_path, make({str(number): b"" for number in range(4)}), limits=Limits(members=3))
    assert not (tmp_path / "target").exists()


def test_a_member_larger_than_it_says_is_refused(tmp_path: Path) -> None:
    body = zip_of({"a": b"x" * 1000}, compression=zipfile.ZIP_STORED)
    lie = body.replace((1000).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    with pytest.raises(Finding, match="damaged"):
        unpacked(tmp_path, lie)


@pytest.mark.parametrize("make", [zip_of, tar_of, lambda members: tar_of(members, "w")], ids=["zip", "tar.gz", "tar"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_truncated_archive_is_damaged(
    tmp_path: Path, make: Callable[[dict[str, bytes]], bytes], share: float
) -> None:
    noise = np.random.default_rng(0).bytes(300_000)
    body = make({"a.wav": noise, "b.wav": noise[::-1]})
    with pytest.raises(Finding, match="damaged"):
        unpacked(tmp_path, body[: int(len(body) * share)])


def test_a_tar_that_breaks_off_between_two_members_is_damaged(tmp_path: Path) -> None:
    body = tar_of({"a.wav": b"x" * 512, "b.wav": b"y" * 512}, "w")
    with pytest.raises(Finding, match="breaks off"):
        unpacked(tmp_path, body[:1024])


def test_a_flipped_bit_is_damage(tmp_path: Path) -> None:
    body = bytearray(zip_of({"a.wav": BODY}, compression=zipfile.ZIP_STORED))
    body[1000] ^= 1
    with pytest.raises(Finding, match="damaged"):
        unpacked(tmp_path, bytes(body))


def test_an_encrypted_archive_is_named_as_such(tmp_path: Path) -> None:
    body = bytearray(zip_of({"a.wav": b"1"}))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        body[body.index(signature) + offset] |= 1
    with pytest.raises(Finding, match="encrypted"):
        unpacked(tmp_path, bytes(body))


def unflagged(name: bytes) -> bytes:
    """A zip whose one member has this name in bytes, without the flag that says UTF-8."""
    place = b"_" * len(name)
    return zip_of({place.decode(): b"1"}).replace(place, name)


@pytest.mark.parametrize(
    "name", ["Colère/a.wav".encode("cp437"), "Colère/a.wav".encode(), "Cole\u0300re/a.wav".encode()]
)
def test_names_come_out_right_however_they_were_written(tmp_path: Path, name: bytes) -> None:
    assert list(unpacked(tmp_path, unflagged(name))) == ["Colère/a.wav"]


def test_a_tar_with_a_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz", encoding="latin-1", format=tarfile.GNU_FORMAT) as bundle:
        bundle.addfile(tarfile.TarInfo("Colère.wav"), io.BytesIO())
    with pytest.raises(Finding, match="not UTF-8"):
        unpacked(tmp_path, stream.getvalue())


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"Rar!\x1a\x07", "RAR"),
        (b"7z\xbc\xaf\x27\x1c", "7z"),
        (b"<!DOCTYPE html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"", "no archive"),
    ],
)
def test_what_is_no_archive_is_named(tmp_path: Path, head: bytes, words: str) -> None:
    (tmp_path / "x").write_bytes(head)
    with pytest.raises(BadInput, match=words):
        extract.format_of(tmp_path / "x")


ROUGH = st.text(alphabet=st.sampled_from("ab./\\:~C\u00e9\u0301 \n\x00\ud800"), max_size=12)


@given(names=st.lists(ROUGH, max_size=6), strip=st.integers(0, 2))
def test_whatever_the_names_what_is_planned_stays_inside(names: list[str], strip: int) -> None:
    members = [Member(name, 1, "file", None) for name in names]
    try:
        chosen = plan(members, archive_bytes=100, strip=strip, keep=(), limits=Limits())
    except ValueError:
        return
    root = Path("/target/folder")
    paths = [path for _, path in chosen]
    assert len({str(path).casefold() for path in paths}) == len(paths)
    for path in paths:
        joined = Path(os.path.normpath(root / path))
        assert joined.is_relative_to(root)
        assert joined != root


@given(ROUGH)
def test_a_safe_path_is_its_own_safe_path(name: str) -> None:
    try:
        path = safe_path(name)
    except ValueError:
        return
    assert safe_path(str(path)) == path
    assert not path.is_absolute()


# --- a corpus ----------------------------------------------------------------------------------------------------


def wav(seed: int = 0) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, np.random.default_rng(seed).normal(0, 0.1, 4000), 16000, format="WAV", subtype="PCM_16")
    return stream.getvalue()


def entry(site: Site, name: str, body: bytes, *faults: Answer, verified: bool = True, **more: Any) -> ArchiveFile:
    content: dict[str, Any] = {
        "name": name,
        "urls": [site.put(name, body, *faults)],
        "format": "zip" if body.startswith(b"PK") else "tar.gz",
        "confirmed": "a test",
    }
    content |= {"bytes": len(body), "sha256": sha256(body)} if verified else {"max_bytes": 10 * len(BODY)}
    return ArchiveFile.model_validate({**content, **more})


def source(*files: ArchiveFile, **more: Any) -> Source:
    return Source(
        **{"page": "https://example.org/page", "licence": "CC0", "open_licence": True, "files": files, **more}
    )


def tree(folder: Path) -> set[str]:
    return {item.relative_to(folder).as_posix() for item in folder.rglob("*") if item.is_file()}


def test_a_corpus_is_downloaded_unpacked_and_recorded(site: Site, tmp_path: Path) -> None:
    body = zip_of({"emodb/wav/03a01Fa.wav": wav()})
    say = Lines()
    file = entry(site, "emodb.zip", body, strip=1)
    download("emodb", tmp_path / "data/emodb", say=say, policy=quick(), source=source(file))
    assert tree(tmp_path / "data") == {f"emodb/{RECORD}", "emodb/wav/03a01Fa.wav", ".emodb.download.lock"}
    record = read_json(tmp_path / "data/emodb" / RECORD)
    assert record["corpus"] == "emodb"
    assert record["files"][0].keys() == {"name", "url", "bytes", "sha256", "date", "verified"}
    assert (record["files"][0]["sha256"], record["files"][0]["verified"]) == (sha256(body), "sha256")
    head = say[0].splitlines()
    assert head[0] == corpora.get("emodb").TITLE
    assert head[1] == "licence: CC0"
    assert head[2].startswith("cite: F. Burkhardt")


def test_a_second_call_does_nothing_and_says_so(site: Site, tmp_path: Path) -> None:
    file = entry(site, "emodb.zip", zip_of({"03a01Fa.wav": wav()}))
    say = Lines()
    for _ in range(2):
        download("emodb", tmp_path / "emodb", say=say, policy=quick(), source=source(file))
    assert len(site.requests) == 1
    assert "holds audio already; nothing is downloaded" in say[-1]


def test_an_unverified_file_is_said_to_be_one(site: Site, tmp_path: Path) -> None:
    body = zip_of({"03a01Fa.wav": wav()})
    say = Lines()
    download(
        "emodb", tmp_path / "emodb", say=say, policy=quick(), source=source(entry(site, "e.zip", body, verified=False))
    )
    assert f"could not be verified, since no checksum is published; its sha256 is {sha256(body)}" in say.text
    assert read_json(tmp_path / "emodb" / RECORD)["files"][0]["verified"] == "nothing"


def test_a_licence_that_is_not_public_has_to_be_accepted(site: Site, tmp_path: Path) -> None:
    file = entry(site, "emodb.zip", zip_of({"03a01Fa.wav": wav()}))
    closed = source(file, open_licence=False, licence="ask the authors")
    with pytest.raises(BadInput, match=r"ask the authors.*https://example.org/page.*--accept-licence"):
        download("emodb", tmp_path / "emodb", say=Lines(), policy=quick(), source=closed)
    assert site.requests == []
    download("emodb", tmp_path / "emodb", accept_licence=True, say=Lines(), policy=quick(), source=closed)
    assert (tmp_path / "emodb/03a01Fa.wav").is_file()


def test_nothing_is_unpacked_from_a_file_with_a_wrong_checksum(site: Site, tmp_path: Path) -> None:
    file = entry(site, "emodb.zip", zip_of({"03a01Fa.wav": wav()}), sha256="0" * 64)
    with pytest.raises(FetchFailed, match=r"wrong checksum(.|\n)*https://example.org/page(.|\n)*--archive FILE"):
        download("emodb", tmp_path / "emodb", say=Lines(), policy=quick(), source=source(file))
    assert not (tmp_path / "emodb").exists()
    assert (tmp_path / "emodb.partial/archives/emodb.zip.bad").is_file()
    assert not list((tmp_path / "emodb.partial").rglob("*.wav"))


def test_a_moved_address_says_where_to_look_and_how_to_place_the_file(site: Site, tmp_path: Path) -> None:
    file = entry(site, "emodb.zip", zip_of({"03a01Fa.wav": wav()}), status(404))
    with pytest.raises(FetchFailed) as caught:
        download(
            "emodb", tmp_path / "emodb", say=Lines(), policy=quick(), source=source(file, steps=("ask the librarian",))
        )
    text = str(caught.value)
    assert "404 Not Found: the address has moved" in text
    assert "https://example.org/page" in text
    assert "ser prepare --download emodb --archive FILE" in text
    assert "Or: ask the librarian" in text


def test_an_evil_archive_leaves_no_corpus(site: Site, tmp_path: Path) -> None:
    file = entry(site, "emodb.zip", zip_of({"../../03a01Fa.wav": wav()}))
    with pytest.raises(Finding, match="goes upwards"):
        download("emodb", tmp_path / "data/emodb", say=Lines(), policy=quick(), source=source(file))
    assert not (tmp_path / "data/emodb").exists()
    assert not list(tmp_path.rglob("*.wav"))


def test_several_archives_make_one_corpus_each_in_its_folder(site: Site, tmp_path: Path) -> None:
    files = [entry(site, f"{name}.tgz", tar_of({"a.wav": wav(seed)}), into=name) for seed, name in enumerate("xy")]
    download("emodb", tmp_path / "emodb", say=Lines(), policy=quick(), source=source(*files))
    assert tree(tmp_path / "emodb") == {"x/a.wav", "y/a.wav", RECORD}


def test_archives_that_came_are_kept_when_a_later_one_fails(site: Site, tmp_path: Path) -> None:
    files = [entry(site, f"{name}.tgz", tar_of({f"{name}.wav": wav()})) for name in "xy"]
    site.faults["/y.tgz"] = [status(404)]
    with pytest.raises(FetchFailed):
        download("emodb", tmp_path / "emodb", say=Lines(), policy=quick(), source=source(*files))
    assert not (tmp_path / "emodb").exists()
    download("emodb", tmp_path / "emodb", say=Lines(), policy=quick(), source=source(*files))
    assert tree(tmp_path / "emodb") == {"x.wav", "y.wav", RECORD}
    assert [path for path, _ in site.requests] == ["/x.tgz", "/y.tgz", "/y.tgz"]


def test_archives_never_overwrite_one_another(site: Site, tmp_path: Path) -> None:
    files = [entry(site, f"{name}.tgz", tar_of({"a.wav": wav(seed)})) for seed, name in enumerate("xy")]
    with pytest.raises(Finding, match="is there already"):
        download("emodb", tmp_path / "emodb", say=Lines(), policy=quick(), source=source(*files))
    assert not (tmp_path / "emodb").exists()


def test_what_is_in_the_way_is_left_alone(site: Site, tmp_path: Path) -> None:
    file = entry(site, "emodb.zip", zip_of({"03a01Fa.wav": wav()}))
    (tmp_path / "emodb").mkdir()
    (tmp_path / "emodb/notes.txt").write_text("mine")
    with pytest.raises(BadInput, match="holds files but no audio"):
        download("emodb", tmp_path / "emodb", say=Lines(), policy=quick(), source=source(file))
    (tmp_path / "emodb/notes.txt").unlink()
    download("emodb", tmp_path / "emodb", say=Lines(), policy=quick(), source=source(file))
    assert (tmp_path / "emodb/03a01Fa.wav").is_file()
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="is not a folder"):
        download("emodb", tmp_path / "file", say=Lines(), policy=quick(), source=source(file))


def test_a_data_folder_that_cannot_be_written_is_named_before_the_download(site: Site, tmp_path: Path) -> None:
    file = entry(site, "emodb.zip", zip_of({"03a01Fa.wav": wav()}))
    (tmp_path / "data").write_text("a file where a folder should be")
    with pytest.raises(BadInput, match=r"cannot write to .*data: .*set SER_DATA"):
        download("emodb", tmp_path / "data/emodb", say=Lines(), policy=quick(), source=source(file))
    (tmp_path / "locked").mkdir(mode=0o500)
    (tmp_path / "locked/emodb").mkdir(mode=0o500)
    with pytest.raises(BadInput, match=r"cannot write to .*locked"):
        download("emodb", tmp_path / "locked/emodb", say=Lines(), policy=quick(), source=source(file))
    assert site.requests == []


def test_room_for_the_archive_and_what_is_in_it_is_needed(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    file = entry(site, "emodb.zip", zip_of({"03a01Fa.wav": wav()}))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 100_000_100))
    with pytest.raises(BadInput, match=r"are needed to download and unpack emodb.*set SER_DATA to another disk"):
        download("emodb", tmp_path / "emodb", say=Lines(), policy=quick(), source=source(file))
    assert site.requests == []
    small = entry(site, "zeros.zip", zip_of({"03a01Fa.wav": bytes(10**6)}))
    free = iter([10**9, 10**9, 10**8])
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, next(free)))
    with pytest.raises(BadInput, match=r"101\.0 MB are needed to unpack zeros.zip"):
        download("emodb", tmp_path / "emodb", say=Lines(), policy=quick(), source=source(small))


def test_a_local_archive_takes_the_place_of_the_download_with_the_same_checks(site: Site, tmp_path: Path) -> None:
    body = zip_of({"03a01Fa.wav": wav()})
    file = entry(site, "emodb.zip", body)
    (tmp_path / "mine.zip").write_bytes(body)
    (tmp_path / "other.zip").write_bytes(zip_of({"03a01Fa.wav": wav(1)}))
    with pytest.raises(BadInput, match=r"--archive .*other.zip: wrong .*not emodb.zip of emodb as it was published"):
        download("emodb", tmp_path / "emodb", archives=[tmp_path / "other.zip"], say=Lines(), source=source(file))
    download("emodb", tmp_path / "emodb", archives=[tmp_path / "mine.zip"], say=Lines(), source=source(file))
    assert (tmp_path / "emodb/03a01Fa.wav").is_file()
    assert (tmp_path / "mine.zip").read_bytes() == body
    assert site.requests == []


def test_local_archives_of_several_are_known_by_their_names(site: Site, tmp_path: Path) -> None:
    bodies = {f"{name}.tgz": tar_of({f"{name}.wav": wav()}) for name in "xy"}
    files = [entry(site, name, body) for name, body in bodies.items()]
    (tmp_path / "x.tgz").write_bytes(bodies["x.tgz"])
    (tmp_path / "strange.tgz").write_bytes(bodies["y.tgz"])
    with pytest.raises(BadInput, match=r"consists of x.tgz, y.tgz"):
        download("emodb", tmp_path / "emodb", archives=[tmp_path / "strange.tgz"], say=Lines(), source=source(*files))
    with pytest.raises(BadInput, match="no such file"):
        download("emodb", tmp_path / "emodb", archives=[tmp_path / "none.tgz"], say=Lines(), source=source(*files))
    download("emodb", tmp_path / "emodb", archives=[tmp_path / "x.tgz"], say=Lines(), source=source(*files))
    assert tree(tmp_path / "emodb") == {"x.wav", "y.wav", RECORD}
    assert [path for path, _ in site.requests] == ["/y.tgz"]


def test_a_corpus_without_address_gives_its_steps_and_takes_an_archive(tmp_path: Path) -> None:
    by_form = source(steps=("fill in the form", "wait"), confirmed="a test")
    with pytest.raises(BadInput) as caught:
        download("emodb", tmp_path / "emodb", say=Lines(), source=by_form)
    assert "  1. fill in the form\n  2. wait\n  3. put its files into SER_DATA/emodb" in str(caught.value)
    (tmp_path / "sent.zip").write_bytes(zip_of({"03a01Fa.wav": wav()}))
    say = Lines()
    download("emodb", tmp_path / "emodb", archives=[tmp_path / "sent.zip"], say=say, source=by_form)
    assert (tmp_path / "emodb/03a01Fa.wav").is_file()
    assert "could not be verified" in say.text


def test_an_archive_of_another_corpus_is_named_and_nothing_of_it_stays(tmp_path: Path) -> None:
    (tmp_path / "AudioData.zip").write_bytes(zip_of({"AudioWAV/1001_IEO_ANG_HI.wav": wav()}))
    words = r"AudioData\.zip: not savee\. It looks like CREMA-D.* 1 of 1 names fit"
    with pytest.raises(BadInput, match=words):
        download(
            "savee", tmp_path / "data/savee", accept_licence=True, archives=[tmp_path / "AudioData.zip"], say=Lines()
        )
    assert tree(tmp_path / "data") == {".savee.download.lock"}
    assert not (tmp_path / "data/savee.partial").exists()


def test_an_archive_of_another_format_is_refused(site: Site, tmp_path: Path) -> None:
    file = entry(site, "e.zip", tar_of({"03a01Fa.wav": wav()}), format="zip")
    with pytest.raises(Finding, match=r"is a tar.gz archive, expected zip"):
        download("emodb", tmp_path / "emodb", say=Lines(), policy=quick(), source=source(file))


def test_toy_and_unknown_corpora_say_what_can_be_had(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="`ser prepare toy` makes it"):
        download("toy", tmp_path / "toy", say=Lines())
    with pytest.raises(BadInput, match=r"did you mean 'emodb'\?\nThese can be downloaded: .*emodb, .*ravdess"):
        download("emodbb", tmp_path / "x", say=Lines())


def test_of_two_processes_one_downloads_and_the_other_waits(site: Site, tmp_path: Path) -> None:
    body = zip_of({"03a01Fa.wav": wav()})

    waits = threading.Event()

    def slowly(handler: Handler) -> None:
        assert waits.wait(30), "nobody waits"
        send()(handler)

    file = entry(site, "emodb.zip", body, slowly)
    say = Lines()

    def heard(line: str) -> None:
        say(line)
        if "waiting for it" in line:
            waits.set()

    def run() -> None:
        download("emodb", tmp_path / "emodb", say=heard, policy=quick(stall_seconds=40), source=source(file))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(site.requests) == 1
    assert "another process is downloading emodb; waiting for it" in say
    assert tree(tmp_path / "emodb") == {"03a01Fa.wav", RECORD}


SCRIPT = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from ser_scripts.download.corpus import download
    from ser_scripts.download.sources import Source
    source = Source.model_validate_json(sys.argv[1])
    download("emodb", Path(sys.argv[2]), say=print, source=source)
    """
)


def test_a_download_that_is_killed_goes_on_where_it_was(site: Site, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).bytes(1_500_000)
    body = zip_of({"03a01Fa.wav": wav(), "noise.bin": noise})
    one = source(entry(site, "emodb.zip", body, send(only=1_000_000, then="stall")))
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, one.model_dump_json(), str(tmp_path / "emodb")])
    part = tmp_path / "emodb.partial/archives/emodb.zip.part"
    deadline = time.monotonic() + 120
    while not (part.is_file() and part.stat().st_size >= 500_000) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    kept = part.stat().st_size
    assert 0 < kept < len(body)
    assert not (tmp_path / "emodb").exists()
    download("emodb", tmp_path / "emodb", say=Lines(), policy=quick(), source=one)
    assert site.ranges() == [None, f"bytes={kept}-"]
    assert (tmp_path / "emodb/noise.bin").read_bytes() == noise


# --- Git LFS -----------------------------------------------------------------------------------------------------


def pointer(body: bytes) -> bytes:
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256(body)}\nsize {len(body)}\n".encode()


def repository(site: Site, clips: dict[str, bytes], **more: Any) -> Source:
    """A repository's archive with pointers, and what they stand for at another address."""
    members = {f"repo-abc/{path}": pointer(body) for path, body in clips.items()} | {"repo-abc/table.csv": b"a,b\n"}
    for path, body in clips.items():
        site.put(f"media/{path.replace(' ', '%20')}", body)
    return source(entry(site, "repo.zip", zip_of(members), verified=False, strip=1, **more))


def test_lfs_pointers_are_replaced_by_what_they_stand_for(site: Site, tmp_path: Path) -> None:
    clips = {"wav/a b.wav": wav(1), "wav/c.wav": wav(2), "wav/same.wav": wav(2)}
    say = Lines()
    download(
        "emodb",
        tmp_path / "emodb",
        say=say,
        policy=quick(),
        source=repository(site, clips, lfs_media=f"{site.address}/media"),
    )
    assert tree(tmp_path / "emodb") == {*clips, "table.csv", RECORD}
    for path, body in clips.items():
        assert (tmp_path / "emodb" / path).read_bytes() == body
    assert "3 files, each with the sha256 of its pointer" in say.text
    assert len(site.requests) == 3  # the archive, and two different clips


def test_clips_that_came_are_not_fetched_again(site: Site, tmp_path: Path) -> None:
    clips = {f"{number}.wav": wav(number) for number in range(6)}
    one = repository(site, clips, lfs_media=f"{site.address}/media")
    site.faults["/media/5.wav"] = [status(404)]
    with pytest.raises(FetchFailed, match=r"media/5.wav: 404"):
        download("emodb", tmp_path / "emodb", say=Lines(), policy=quick(), source=one)
    assert not (tmp_path / "emodb").exists()
    before = len(site.requests)
    download("emodb", tmp_path / "emodb", say=Lines(), policy=quick(), source=one)
    assert len(site.requests) < before + len(clips)
    assert tree(tmp_path / "emodb") == {*clips, "table.csv", RECORD}


def test_a_clip_that_does_not_fit_its_pointer_is_refused(site: Site, tmp_path: Path) -> None:
    one = repository(site, {"a.wav": wav(1)}, lfs_media=f"{site.address}/media")
    site.files["/media/a.wav"] = wav(2)
    with pytest.raises(FetchFailed, match="wrong checksum"):
        download("emodb", tmp_path / "emodb", say=Lines(), policy=quick(), source=one)
    assert not (tmp_path / "emodb").exists()


def test_pointers_without_an_address_are_refused_with_what_to_do(site: Site, tmp_path: Path) -> None:
    with pytest.raises(Finding, match=r"Git LFS pointers in place of the files of emodb: a.wav.*`git lfs pull`"):
        download("emodb", tmp_path / "emodb", say=Lines(), policy=quick(), source=repository(site, {"a.wav": wav()}))
    assert not (tmp_path / "emodb").exists()


def test_a_pointer_that_cannot_be_read_is_refused_too(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"version https://git-lfs.github.com/spec/v9\noid md5:1\n")
    (tmp_path / "b.wav").write_bytes(b"short, but no pointer")
    assert lfs.find_pointers(tmp_path, map(PurePosixPath, ["a.wav", "b.wav"])) == ([], [PurePosixPath("a.wav")])


# --- the command line --------------------------------------------------------------------------------------------


def test_after_the_download_the_corpus_is_read_and_what_is_missing_is_said(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SER_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("SER_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    one = source(entry(site, "emodb.zip", zip_of({"wav/03a01Fa.wav": wav()})))
    monkeypatch.setattr(download_corpus, "source_of", lambda name: one)
    result = CliRunner().invoke(app, ["prepare", "--download", "emodb"])
    assert isinstance(result.exception, BadInput)
    assert "holds 1 of the 535 clips" in str(result.exception)
    assert (tmp_path / "data/emodb/wav/03a01Fa.wav").is_file()


def test_options_of_the_download_need_it() -> None:
    for options in (["--accept-licence"], ["--archive", "x.zip"]):
        result = CliRunner().invoke(app, ["prepare", "emodb", *options])
        assert isinstance(result.exception, BadInput)
        assert "go with --download" in str(result.exception)


@pytest.mark.real
def test_a_real_corpus_ends_with_its_counts(
    ser_data: Path, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not (ser_data / "emodb").is_dir():
        pytest.skip("needs emodb")
    clips = sorted((ser_data / "emodb").rglob("*.flac"))
    body = zip_of({f"wav/{clip.name}": clip.read_bytes() for clip in clips}, compression=zipfile.ZIP_STORED)
    monkeypatch.setenv("SER_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("SER_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    one = source(entry(site, "emodb.zip", body, send(only=len(body) // 2)))
    monkeypatch.setattr(download_corpus, "source_of", lambda name: one)
    result = CliRunner().invoke(app, ["prepare", "--download", "emodb"])
    assert result.exception is None, result.exception
    assert "emodb: 535 clips, 10 speakers under" in result.stdout
    assert "emodb: complete with 535 clips, 10 speakers" in result.stdout
