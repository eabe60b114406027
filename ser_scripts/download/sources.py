"""Where each corpus comes from: the data file `corpora/data/downloads.json` and what it says to people."""

from __future__ import annotations

import json
import re
from functools import cache
from importlib import resources
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from ser_scripts import corpora
from ser_scripts.errors import BadInput
from ser_scripts.specs.base import Spec, nearest, parse

DATA_FILE = "data/downloads.json"
ACCEPT = "--accept-licence"


def _web_address(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or re.search(r"\s", value):
        raise ValueError(f"{value!r} is not a web address; expected http(s)://host/...")
    return value


def _folder(value: str) -> str:
    if not re.fullmatch(r"([\w-][\w.-]*/?)*", value, re.ASCII):
        raise ValueError(f"{value!r} is not a plain relative folder")
    return value


WebAddress = Annotated[str, AfterValidator(_web_address)]


class ArchiveFile(Spec):
    """One file to download, and how it is unpacked."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Its file name; `--archive` is matched to it where there are several files."""
    urls: tuple[WebAddress, ...] = Field(min_length=1)
    """Addresses of the same bytes, tried in this order."""
    format: Literal["zip", "tar", "tar.gz"]
    bytes: int | None = Field(default=None, gt=0)
    """Exact size as published."""
    max_bytes: int | None = Field(default=None, gt=0)
    """Where the size is not published: more than this is refused."""
    md5: str | None = Field(default=None, pattern=r"^[0-9a-f]{32}$")
    """As published; null where it is not. Never the checksum of somebody's own download."""
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """As published; null where it is not."""
    into: Annotated[str, AfterValidator(_folder)] = ""
    """Folder below the corpus' folder to unpack into; "" is the corpus' folder itself."""
    strip: int = Field(default=0, ge=0)
    """Leading folders to take off every path of the archive."""
    keep: tuple[str, ...] = ()
    """Patterns (`*` also spans folders) of the paths, after `strip`, that are unpacked; all when empty."""
    lfs_media: WebAddress | None = None
    """Where the files behind Git LFS pointers are: this address followed by the path after `strip`."""
    confirmed: str = Field(min_length=1)
    """Where address, size and checksum were found."""

    @model_validator(mode="after")
    def _one_bound(self) -> ArchiveFile:
        if (self.bytes is None) == (self.max_bytes is None):
            raise ValueError(f"{self.name}: give either bytes (the published size) or max_bytes (a bound)")
        return self

    @property
    def limit_bytes(self) -> int:
        """More bytes than this are never written."""
        return self.bytes or self.max_bytes or 0


class Source(Spec):
    """Where one corpus comes from."""

    page: WebAddress
    """The publisher's page, for people."""
    licence: str = Field(min_length=1)
    """One line, as the source states it."""
    open_licence: bool
    """A standard public licence (Creative Commons, ODbL, MIT, ...): nothing to accept. Otherwise `--accept-licence`."""
    files: tuple[ArchiveFile, ...] = ()
    """Empty where nothing can be had without an account, a form or a payment."""
    steps: tuple[str, ...] = ()
    """What to do by hand: instead of the download where there is none, else where the address has gone."""
    confirmed: str | None = None
    """Where the steps were found, when there are no files."""

    @model_validator(mode="after")
    def _complete(self) -> Source:
        if not self.files and not (self.steps and self.confirmed):
            raise ValueError("without files there must be steps, and where they were found (confirmed)")
        if len({file.name for file in self.files}) != len(self.files):
            raise ValueError("two files have one name")
        return self


class Sources(Spec):
    """The whole data file."""

    about: str
    corpora: dict[str, Source]


@cache
def all_sources() -> dict[str, Source]:
    """Every entry of the data file by the name of its corpus."""
    text = resources.files("ser_scripts.corpora").joinpath(DATA_FILE).read_text(encoding="utf-8")
    return parse(Sources, json.loads(text), source=DATA_FILE, kind="list of sources").corpora


def downloadable() -> list[str]:
    """Names of the corpora that can be downloaded, sorted."""
    known = corpora.names()
    return [name for name, source in sorted(all_sources().items()) if source.files and name in known]


def source_of(name: str) -> Source:
    """The entry of a corpus.

    Raises:
        BadInput: no such corpus, or nothing is known about where to get it
    """
    if name == "toy":
        raise BadInput("corpus 'toy' is not downloaded: `ser prepare toy` makes it")
    known = corpora.names()
    if name in known and name in all_sources():
        return all_sources()[name]
    if name in known:
        raise BadInput(
            f"corpus '{name}' has no address to download from; its source: {corpora.get(name).SOURCE}\n{_offer()}"
        )
    raise BadInput(f"corpus '{name}' is not known{nearest(name, known)}\n{_offer()}")


def _offer() -> str:
    return f"These can be downloaded: {', '.join(downloadable())}"


def how_to_get(name: str) -> str:
    """How to get a corpus, in one or more lines: the command, or the steps by hand.

    Raises:
        BadInput: no corpus has this name
    """
    corpus = corpora.get(name)
    if name == "toy":
        return "ser prepare toy"
    source = all_sources().get(name)
    if source is None:
        return f"by hand, {corpus.SOURCE}; put it into SER_DATA/{name}"
    if not source.files:
        return "\n".join(["by hand:", *by_hand(name, source)])
    sizes = [file.bytes for file in source.files]
    known = sum(size for size in sizes if size is not None)
    size = f"about {megabytes(known)}" if None not in sizes else "size not published"
    return f"{command(name, source)}  ({size}; licence: {source.licence})"


def command(name: str, source: Source) -> str:
    """The command that downloads a corpus."""
    return f"ser prepare --download {name}" + ("" if source.open_licence else f" {ACCEPT}")


def by_hand(name: str, source: Source) -> list[str]:
    """The steps by hand, numbered; the last one says where to put the files."""
    steps = [*source.steps, f"put its files into SER_DATA/{name}, or: {command(name, source)} --archive FILE"]
    return [f"  {number}. {step}" for number, step in enumerate(steps, start=1)]


def megabytes(count: int) -> str:
    """A size for people, in units of 1000."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
