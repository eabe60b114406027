"""The image, built and run for real. Run by `make docker-test`; `make test` leaves it out, since it takes minutes.

An engine that answers is used; else docker/ci_engine.sh brings one up. Where that cannot be, the tests are skipped with
the reason, and fail when REQUIRE_CONTAINER=1. Without an NVIDIA driver a hook that does nothing stands in for the GPU
that `--gpus all` asks for: what is tested then is the command line, not the GPU.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ser_eval import run_folder

ROOT = Path(__file__).parent.parent
IMAGE = "sertain:test"
SHORT = ["--high-seed", "0", "--set", "model.training.epochs=2", "--device", "cpu"]
"""The quickstart with one seed and two epochs: what is compared are bytes, and those need no good model."""
pytestmark = pytest.mark.skipif(
    os.environ.get("SER_CONTAINER_TESTS") != "1", reason="container tests take minutes: make docker-test"
)


def skip(reason: str) -> None:
    if os.environ.get("REQUIRE_CONTAINER") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def answers(environment: dict[str, str]) -> bool:
    """Whether `docker` reaches an engine in this environment."""
    command = ["docker", "version"]
    if not shutil.which("docker", path=environment["PATH"]):
        return False
    return subprocess.run(command, capture_output=True, env=environment, check=False).returncode == 0


@pytest.fixture(scope="module")
def engine() -> Iterator[dict[str, str]]:
    """The environment in which `docker` reaches an engine; one that is started here is stopped in the end."""
    if answers(dict(os.environ)):
        yield dict(os.environ)
        return
    script = str(ROOT / "docker/ci_engine.sh")
    settings = subprocess.run(["bash", script, "env"], capture_output=True, text=True, check=True).stdout
    shell = ["bash", "-c", f"{settings}\nenv -0"]
    lines = subprocess.run(shell, capture_output=True, text=True, check=True).stdout
    environment = dict(line.partition("=")[::2] for line in lines.split("\0") if line)
    before = answers(environment)
    log = ROOT / ".cache/engine.log"
    log.parent.mkdir(exist_ok=True)
    with log.open("w", encoding="utf-8") as told:  # not a pipe, which the engine would keep open
        code = subprocess.run(["bash", script, "up"], stdout=told, stderr=told, check=False).returncode
    told_text = log.read_text(encoding="utf-8")
    if code == 77:
        skip(told_text.strip().splitlines()[-1])
    assert code == 0, told_text
    yield environment
    if not before:
        subprocess.run(["bash", script, "down"], check=True)


@pytest.fixture(scope="module")
def docker(engine: dict[str, str]):
    """Run a command of `docker`."""

    def call(*arguments: object, check: int | None = 0, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        command = ["docker", *map(str, arguments)]
        result = subprocess.run(command, capture_output=True, text=True, env=engine, cwd=cwd, check=False, timeout=900)
        if check is not None:
            assert result.returncode == check, f"{command}\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}"
        return result

    return call


@pytest.fixture(scope="module")
def image(docker) -> str:
    """The CPU image of this checkout."""
    arguments = ["--build-arg", f"COMMIT={'c' * 40}", "--build-arg", "VERSION=9.8.7"]
    if index := os.environ.get("TORCH_INDEX"):
        arguments += ["--build-arg", f"TORCH_INDEX={index}"]
    docker("build", "--network=host", "--quiet", *arguments, "-t", IMAGE, ROOT)
    return IMAGE


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with data and runs of user 1000, as on a laptop."""
    for name in ("data", "runs"):
        (tmp_path / name).mkdir()
        os.chown(tmp_path / name, 1000, 1000)
    tmp_path.chmod(0o755)
    return tmp_path


@pytest.fixture
def run(docker, image):
    """`docker run --rm --network=none <flags> IMAGE <arguments>`."""

    def call(*arguments: object, flags: tuple[object, ...] = (), check: int | None = 0):
        return docker("run", "--rm", "--network=none", *flags, image, *arguments, check=check)

    return call


def mounts(place: Path, mode: str = "") -> tuple[str, ...]:
    return ("-v", f"{place}/data:/workspace/data", "-v", f"{place}/runs:/workspace/runs{mode}")


def owners(folder: Path) -> set[int]:
    return {path.stat().st_uid for path in folder.rglob("*")}


def predictions(runs: Path) -> dict[str, bytes]:
    return {file.relative_to(runs).as_posix(): file.read_bytes() for file in sorted(runs.rglob("predictions/*.csv"))}


def test_without_arguments_the_image_shows_help(run):
    told = run().stdout
    assert told.startswith("Usage: ser [OPTIONS] COMMAND [ARGS]")
    assert run("--version").stdout.startswith("sertain ")


def test_the_image_is_small_says_what_it_is_and_is_not_root(docker, image):
    (about,) = json.loads(docker("image", "inspect", image).stdout)
    assert about["Size"] < 3e9
    config = about["Config"]
    assert config["User"] == "1000:1000"
    assert config["Labels"]["org.opencontainers.image.revision"] == "c" * 40
    assert config["Labels"]["org.opencontainers.image.version"] == "9.8.7"
    assert "Healthcheck" not in config
    assert not [item for item in config["Env"] if "INDEX" in item or "TOKEN" in item]


def test_the_image_has_what_runs_and_nothing_that_builds(run):
    script = (
        "for tool in gcc g++ cc make git curl; do command -v $tool; done; command -v ffmpeg; id -u; "
        "find / -xdev '(' -name '*.pem' -o -name .git -o -name .env ')' -path '*workspace*' 2>/dev/null; "
        "python -c 'import torch, soundfile; print(torch.version.cuda, soundfile.__libsndfile_version__)'; pip check"
    )
    lines = run("sh", "-c", script).stdout.splitlines()
    assert lines[:2] == ["/usr/bin/ffmpeg", "1000"]
    assert lines[2].startswith("None 1.")
    assert lines[3:] == ["No broken requirements found."]


def test_exit_codes_and_programs_pass_through(run):
    assert run("bash", "-c", "exit 7", check=None).returncode == 7
    missing = run("train", "experiments/no-such.json", check=2)
    assert "experiments/no-such.json" in missing.stderr
    assert run("python", "-c", "print('as given')").stdout == "as given\n"


def test_the_quickstart_gives_the_same_bytes_inside_and_outside(docker, run, image, place):
    """With the flags of the documented line, `--gpus all` among them, as the image's own user."""
    flags = ("--gpus", "all", "--ipc=host", "--init", "-e", "SER_IMAGE_DIGEST=sha256:1234", *mounts(place))
    run("prepare", "toy", flags=flags)
    told = run("train", "experiments/quickstart.json", *SHORT, flags=flags)
    assert "2 run(s) finished" in told.stdout
    inside = predictions(place / "runs")
    assert len(inside) == 2
    assert owners(place / "runs") | owners(place / "data") == {1000}
    outside = place / "outside"
    environment = {
        **os.environ,
        "SER_DATA": str(place / "data/raw"),
        "SER_RUNS": str(outside),
        "SER_CACHE": str(place / "cache"),
    }
    command = [sys.executable, "-c", "from ser_scripts.cli import main; main()"]
    subprocess.run(
        [*command, "train", "experiments/quickstart.json", *SHORT],
        cwd=ROOT, env=environment, check=True, capture_output=True, timeout=900,
    )  # fmt: skip
    assert predictions(outside) == inside
    for file in (place / "runs").rglob("run.json"):
        code = run_folder.read_json(file)["code"]
        assert (code["commit"], code["dirty"]) == ("c" * 40, False)
        assert "image sha256:1234\n" in (file.parent / "environment.txt").read_text(encoding="utf-8")
    run("eval", "quickstart", flags=mounts(place))
    assert (place / "runs/quickstart/report/report.html").stat().st_size > 10_000


def test_anybody_can_run_it_and_nothing_but_the_mounts_is_written(run, place):
    for name in ("data", "runs"):
        os.chown(place / name, 12345, 12345)
    flags = ("--user", "12345:12345", "--read-only", "--tmpfs", "/tmp", *mounts(place))
    run("prepare", "toy", flags=flags)
    told = run(
        "train", "experiments/quickstart.json", *SHORT, "--set", 'models=["mini-whisper"]',
        "--set", "model.training.epochs=1", flags=flags,
    )  # fmt: skip
    assert "using /tmp/cache" in told.stderr
    assert owners(place / "runs") == {12345}
    assert len(predictions(place / "runs")) == 1


def test_a_source_tree_can_be_mounted_over_that_of_the_image(run, place):
    live = place / "ser_scripts"
    shutil.copytree(ROOT / "ser_scripts", live, ignore=shutil.ignore_patterns("__pycache__"))
    text = (live / "__init__.py").read_text(encoding="utf-8")
    flags = ("-v", f"{live}:/workspace/ser_scripts:ro")
    script = "from ser_scripts.runs.source import recorded_source; print(recorded_source())"
    (live / "__init__.py").write_text(text.replace('__version__ = "', '__version__ = "live-'), encoding="utf-8")
    assert run("--version", flags=flags).stdout.startswith("sertain live-")
    assert run("python", "-c", script, flags=flags).stdout == f"('{'c' * 40}', True)\n"
    assert run("python", "-c", script).stdout == f"('{'c' * 40}', False)\n"


def test_a_corpus_that_is_not_mounted_is_named(run, place):
    told = run("train", "experiments/emovo.json", flags=mounts(place), check=2).stderr
    assert "emovo" in told
    assert "SER_DATA" in told or "ser corpora emovo" in told


def test_a_runs_folder_that_cannot_be_written_to_is_named(run, place):
    arguments = ("train", "experiments/quickstart.json", *SHORT)
    own_data = ("-v", f"{place}/runs:/workspace/runs:ro")
    assert "cannot write to runs" in run(*arguments, flags=own_data, check=2).stderr
    os.chown(place / "runs", 0, 0)
    told = run(*arguments, flags=("-v", f"{place}/runs:/workspace/runs"), check=2).stderr
    assert "cannot write to runs" in told
    assert "Permission denied" in told


def test_a_gpu_that_is_not_there_is_named_with_the_way_to_the_cpu(run):
    if shutil.which("nvidia-smi"):
        pytest.skip("this machine has an NVIDIA GPU")
    arguments = ("train", "experiments/quickstart.json", "--device", "cuda")
    told = run(*arguments, flags=("--gpus", "all"), check=2).stderr
    assert "this image holds torch's CPU build" in told
    assert "--device cuda: not available" in told
    assert "--device cpu" in told


def test_a_full_disk_is_named(run):
    flags = ("--tmpfs", "/workspace/runs:size=64k,mode=1777")
    arguments = ("train", "experiments/quickstart.json", *SHORT, "--set", 'models=["mini-whisper"]')
    assert "no space left on the disk" in run(*arguments, flags=flags, check=2).stderr


def test_the_compose_file_is_valid(docker, tmp_path):
    file = ROOT / "docker/compose.yaml"
    docker("compose", "-f", file, "--profile", "gpu", "--profile", "tensorboard", "config", "--quiet")
    told = docker("compose", "-f", file, "--profile", "gpu", "config", "--services").stdout.split()
    assert sorted(told) == ["eval", "stats", "train", "train-gpu"]


def test_a_kind_of_torch_that_is_none_is_refused(docker):
    told = docker("build", "--network=host", "--build-arg", "TORCH=metal", ROOT, check=1).stderr
    assert "TORCH=metal is not valid; valid: cpu, cuda" in told
