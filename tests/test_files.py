"""Folders that must be writable before work begins."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ser_scripts.errors import BadInput
from ser_scripts.files import writable_folder


def test_several_may_ask_at_once_and_nothing_is_left(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "deep"
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: writable_folder(folder, remedy="set SER_RUNS"), range(400)))
    assert set(answers) == {folder}
    assert list(folder.iterdir()) == []


def test_a_read_only_folder_is_named_with_its_remedy(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    folder.mkdir(mode=0o555)
    with pytest.raises(BadInput, match=r"cannot write to .*runs: .*; set SER_RUNS to a writable folder"):
        writable_folder(folder, remedy="set SER_RUNS")


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(BadInput, match=r"cannot write to .*runs: File exists; set SER_RUNS"):
        writable_folder(tmp_path / "runs", remedy="set SER_RUNS")
