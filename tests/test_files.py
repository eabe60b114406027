"""Folders that must be writable before work begins."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ser_scripts.errors import BadInput
from ser_scripts.files import held, writable_folder


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


def test_nothing_is_made_in_a_read_only_folder(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs").chmod(0o555)
    with pytest.raises(BadInput, match=f"cannot write to {tmp_path / 'runs'}: .*; set SER_RUNS to a writable folder"):
        writable_folder(tmp_path / "runs" / "mine" / "deep", remedy="set SER_RUNS")
    assert not list((tmp_path / "runs").iterdir())


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(BadInput, match=r"cannot write to .*runs: File exists; set SER_RUNS"):
        writable_folder(tmp_path / "runs", remedy="set SER_RUNS")


def test_a_name_is_held_by_one_at_a_time_and_leaves_no_file(tmp_path: Path) -> None:
    with held(tmp_path, "e/m/c/seed-0", busy="busy"):
        with pytest.raises(BadInput, match="busy"), held(tmp_path, "e/m/c/seed-0", busy="busy"):
            pass
        with held(tmp_path, "e/m/c/seed-1", busy="busy"):
            assert len(list((tmp_path / ".locks").iterdir())) == 3
    with held(tmp_path, "e/m/c/seed-0", busy="busy"):
        pass
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == ["guard.lock"]


def test_of_many_processes_that_hold_and_release_never_two_hold_at_once(tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")
    code = (
        "import sys, time; from pathlib import Path; from ser_scripts.errors import BadInput\n"
        "from ser_scripts.files import held\n"
        "runs, counter, done = Path(sys.argv[1]), Path(sys.argv[2]), 0\n"
        "while done < 40:\n"
        "    try:\n"
        "        with held(runs, 'x', busy='busy'):\n"
        "            old = int(counter.read_text()); time.sleep(.001); counter.write_text(str(old + 1)); done += 1\n"
        "    except BadInput:\n"
        "        pass\n"
    )
    racers = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(counter)]) for _ in range(3)]
    assert [racer.wait() for racer in racers] == [0, 0, 0]
    assert counter.read_text() == "120"
