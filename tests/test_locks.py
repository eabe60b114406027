"""pyproject.toml says what is wanted, the locks what is taken: they must not part. Needs neither a network nor uv."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
DEV, CPU, CUDA = "requirements.lock", "docker/requirements-cpu.lock", "docker/requirements-cuda.lock"
TOOLS = "docker/requirements-tools.lock"
LOCKS = [DEV, CPU, CUDA, TOOLS]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PYTHONS = ["3.11", "3.12", "3.13"]
HASH = re.compile(r"    --hash=sha256:[0-9a-f]{64}( \\)?")


def read_lock(name: str) -> dict[str, list[Requirement]]:
    """The pinned packages of a lock by normalised name; one package may have a line per Python or system."""
    pins: dict[str, list[Requirement]] = {}
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
        if line and not line.startswith((" ", "#")):
            pin = Requirement(line.removesuffix("\\").strip())
            pins.setdefault(canonicalize_name(pin.name), []).append(pin)
    return pins


def version(pin: Requirement) -> Version:
    (only,) = pin.specifier
    assert only.operator == "==", f"{pin} is no pin"
    return Version(only.version)


def faults(wanted: list[str], pins: dict[str, list[Requirement]], without: frozenset[str] = frozenset()) -> list[str]:
    """What a lock lacks of the wanted requirements, or has in a version that they do not allow."""
    found = []
    for text in wanted:
        asked = Requirement(text)
        name = canonicalize_name(asked.name)
        if name in without:
            continue
        for python in PYTHONS:
            place = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}
            mine = [pin for pin in pins.get(name, []) if pin.marker is None or pin.marker.evaluate(place)]
            if len(mine) != 1:
                found.append(f"{text}: {len(mine)} pins for Python {python}")
            elif not asked.specifier.contains(version(mine[0]), prereleases=True):
                found.append(f"{text}: the lock has {version(mine[0])}")
    return sorted(set(found))


def wanted_of(lock: str) -> list[str]:
    if lock == TOOLS:
        lines = (ROOT / "docker/tools.txt").read_text(encoding="utf-8").splitlines()
        return [line for line in lines if line and not line.startswith("#")]
    wanted: list[str] = list(PROJECT["project"]["dependencies"])
    return wanted + (PROJECT["dependency-groups"]["dev"] if lock == DEV else [])


@pytest.mark.parametrize("lock", LOCKS)
def test_every_dependency_is_in_the_lock_at_a_version_that_is_allowed(lock: str) -> None:
    without = frozenset({"torch"}) if lock == DEV else frozenset()
    assert faults(wanted_of(lock), read_lock(lock), without) == [], "run `make lock` after a change of dependencies"


def test_a_lock_that_lags_behind_is_noticed() -> None:
    pins = {"numpy": [Requirement("numpy==2.4.6")], "soxr": [Requirement("soxr==1.0 ; python_version < '3.12'")]}
    assert faults(["numpy>=2.4,<3"], pins) == []
    assert faults(["numpy>=2.5"], pins) == ["numpy>=2.5: the lock has 2.4.6"]
    assert faults(["librosa"], pins)[0] == "librosa: 0 pins for Python 3.11"
    assert faults(["soxr"], pins) == ["soxr: 0 pins for Python 3.12", "soxr: 0 pins for Python 3.13"]


def test_the_locks_of_the_project_agree_on_what_they_share() -> None:
    locks = {name: read_lock(name) for name in (DEV, CPU, CUDA)}
    for one in locks:
        for other in locks:
            shared = locks[one].keys() & locks[other].keys()
            assert len(shared) > 100
            for name in shared - {"torch"}:
                assert set(map(str, locks[one][name])) == set(map(str, locks[other][name])), f"{name} in {one}, {other}"
    tools = set(PROJECT["dependency-groups"]["dev"])
    assert locks[CPU].keys() - {"torch"} <= locks[DEV].keys(), "the image has packages that nobody tests with"
    assert not {canonicalize_name(Requirement(tool).name) for tool in tools} & locks[CPU].keys() - {"packaging"}


def test_cuda_is_in_the_cuda_lock_only() -> None:
    gpu = re.compile(r"(nvidia|cuda)-|triton$")
    assert [name for name in read_lock(DEV) if gpu.match(name) or name == "torch"] == []
    assert [name for name in read_lock(CPU) if gpu.match(name)] == []
    there = {name for name in read_lock(CUDA) if gpu.match(name)}
    assert there >= {"triton", "nvidia-cudnn-cu13"}
    assert there == read_lock(CUDA).keys() - read_lock(CPU).keys()


def test_torch_is_the_same_in_both_and_on_linux_without_cuda_in_the_cpu_lock() -> None:
    (cuda,) = read_lock(CUDA)["torch"]
    pins = read_lock(CPU)["torch"]
    assert {str(version(pin)): str(pin.marker) for pin in pins} == {
        f"{version(cuda)}+cpu": 'sys_platform == "linux"',
        str(version(cuda)): 'sys_platform != "linux"',
    }


def torch_lines(lock: str, *flags: str) -> list[str]:
    command = ["sh", str(ROOT / "docker/torch_of_lock.sh"), str(ROOT / lock), *flags]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.mark.parametrize("lock", [CPU, CUDA])
def test_a_lock_falls_into_torch_and_the_rest(lock: str) -> None:
    """torch's CPU build has an index of its own, so it is installed by itself, by its hashes."""
    torch, others = torch_lines(lock), torch_lines(lock, "--without")
    whole = (ROOT / lock).read_text(encoding="utf-8").splitlines()
    assert sorted([*torch, *others]) == sorted(whole)
    assert all(line.startswith(("torch==", "    --hash=sha256:")) for line in torch)
    assert not any(line.startswith("torch==") for line in others)
    assert len(torch) > 6


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_has_hashes_and_no_line_an_address(lock: str) -> None:
    text = (ROOT / lock).read_text(encoding="utf-8")
    assert "://" not in text
    assert "--index" not in text
    assert "--find-links" not in text
    pinned, hashes = 0, 0
    for line in text.splitlines():
        if line.startswith(" "):
            assert HASH.fullmatch(line), line
            hashes += 1
        else:
            assert pinned == 0 or hashes > 0, f"the package before {line!r} has no hash"
            pinned, hashes = pinned + 1, 0
    assert hashes > 0
    assert pinned == sum(map(len, read_lock(lock).values()))
