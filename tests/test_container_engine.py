"""The image, built and run for real. Run by `make docker-test`; `make test` leaves it out, since it takes minutes.

An engine that answers is used; else docker/ci_engine.sh brings one up. Where that cannot be, the tests are skipped with
the reason, and fail when REQUIRE_CONTAINER=1. Without an NVIDIA driver a hook that does nothing stands in for the GPU
that `--gpus all` asks for: what is tested then is the command line, not the GPU. An engine that was there already gets
that hook by `docker/ci_engine.sh gpu-stand-in`.
"""

from __future__ import annotations

import functools
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ser_eval import run_folder
from ser_scripts.runs.reproduce import environment_differences
from ser_scripts.runs.train_run import environment
from tests.tiny import predictions

ROOT = Path(__file__).parent.parent
IMAGE = "sertain:test"
QUICKSTART = "experiments/quickstart.json"
SHORT = ["--high-seed", "0", "--set", 'models=["mini-whisper"]', "--set", "model.training.epochs=1", "--device", "cpu"]
"""The quickstart with one model, one seed and one epoch, for tests of something else than its results."""
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


@pytest.fixture(scope="module")
def gpus(docker, image) -> tuple[str, ...]:
    """The flags that ask for GPUs, where the engine knows them."""
    told = docker("run", "--rm", "--network=none", "--gpus", "all", image, "true", check=None)
    if told.returncode:
        skip(f"this engine has no driver for --gpus: {told.stderr.strip()}; sudo docker/ci_engine.sh gpu-stand-in")
    return ("--gpus", "all")


@pytest.fixture
def own(docker, image) -> Callable[[Path, int], None]:
    """Give a folder to a user; by a container where the tests do not run as root."""

    def give(folder: Path, user: int) -> None:
        if os.geteuid() == 0:
            os.chown(folder, user, user)
        else:
            docker("run", "--rm", "--user", "0", "-v", f"{folder}:/given", image, "chown", f"{user}:{user}", "/given")

    return give


@pytest.fixture
def place(tmp_path: Path, own) -> Path:
    """A folder with data and runs of user 1000, as on a laptop."""
    tmp_path.chmod(0o755)
    for name in ("data", "runs"):
        (tmp_path / name).mkdir()
        own(tmp_path / name, 1000)
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


@pytest.fixture(scope="module")
def quickstart_outside(image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of the whole quickstart by this interpreter: those of `make quickstart` where they are of this very code on
    this very machine, as in `.ci/run`; else they are made here."""
    folder = ROOT / "runs/quickstart"
    planned = run_folder.planned_runs(folder) if (folder / run_folder.PLAN).is_file() else []
    runs = {run.path.relative_to(folder).as_posix(): run for run in run_folder.find_runs(folder)} if planned else {}
    if planned and set(planned) == runs.keys() and all(map(_of_now_and_here, runs.values())):
        return folder
    place = tmp_path_factory.mktemp("outside")
    variables = {"SER_DATA": "data", "SER_RUNS": "runs", "SER_CACHE": "cache"}
    surroundings = {**os.environ, **{name: str(place / below) for name, below in variables.items()}}
    ser = [sys.executable, "-c", "from ser_scripts.cli import main; main()"]
    for arguments in (["prepare", "toy"], ["train", QUICKSTART, "--jobs", "2", "--device", "cpu"]):
        subprocess.run([*ser, *arguments], cwd=ROOT, env=surroundings, check=True, capture_output=True, timeout=1800)
    return place / "runs/quickstart"


def _of_now_and_here(run: run_folder.RunFolder) -> bool:
    """Whether a run is of the commit that is checked out, unchanged, with these packages and on this machine."""
    git = functools.partial(subprocess.run, cwd=ROOT, capture_output=True, text=True, check=False)
    head, status = git(["git", "rev-parse", "HEAD"]), git(["git", "status", "--porcelain"])
    code = run.record["code"]
    same = (code["commit"], code["dirty"], status.stdout, status.returncode) == (head.stdout.strip(), False, "", 0)
    return same and not environment_differences((run.path / "environment.txt").read_text(), environment("cpu"))


def test_the_whole_quickstart_gives_the_same_bytes_inside_and_outside(run, place, quickstart_outside):
    """The documented line with the image's own corpus, without network: two models, three seeds, all epochs."""
    flags = ("-e", "SER_IMAGE_DIGEST=sha256:1234", "-v", f"{place}/runs:/workspace/runs")
    told = run("train", QUICKSTART, flags=flags)
    assert "6 run(s) finished" in told.stdout
    inside = predictions(place / "runs/quickstart")
    assert len(inside) == 6
    assert inside == predictions(quickstart_outside)
    assert owners(place / "runs") == {1000}
    for file in (place / "runs").rglob("run.json"):
        code = run_folder.read_json(file)["code"]
        assert (code["commit"], code["dirty"]) == ("c" * 40, False)
        assert "image sha256:1234\n" in (file.parent / "environment.txt").read_text(encoding="utf-8")
    run("eval", "quickstart", flags=mounts(place))
    run("stats", "quickstart", flags=mounts(place))
    assert (place / "runs/quickstart/report/report.html").stat().st_size > 10_000
    told = run("reproduce", "runs/quickstart/mini-whisper/toy/seed-0", flags=("-v", f"{place}/runs:/workspace/runs:ro"))
    assert "predictions/toy.csv: identical, byte for byte" in told.stdout


def test_without_any_mount_the_quickstart_trains(run):
    assert "1 run(s) finished" in run("train", QUICKSTART, *SHORT).stdout


def test_the_documented_line_with_gpus_makes_files_of_the_image_s_user(run, place, gpus):
    flags = (*gpus, "--ipc=host", "--init", *mounts(place))
    run("prepare", "toy", flags=flags)
    assert "1 run(s) finished" in run("train", QUICKSTART, *SHORT, flags=flags).stdout
    assert owners(place / "runs") | owners(place / "data") == {1000}


def test_anybody_can_run_it_and_nothing_but_the_mounts_is_written(run, place, own):
    for name in ("data", "runs"):
        own(place / name, 12345)
    flags = ("--user", "12345:12345", "--read-only", "--tmpfs", "/tmp", *mounts(place))
    run("prepare", "toy", flags=flags)
    told = run("train", QUICKSTART, *SHORT, flags=flags)
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


def test_the_whole_tree_can_be_mounted_read_only_over_the_image_s(run, place):
    tree = place / "tree"
    names = ("ser_scripts", "eval", "analysis", "experiments", "models", "data/README.md", "pyproject.toml")
    for name in names:
        there = ROOT / name
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        if there.is_dir():
            shutil.copytree(there, tree / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copyfile(there, tree / name)
    (tree / "runs").mkdir()
    flags = ("-v", f"{tree}:/workspace:ro", *mounts(place))
    run("prepare", "toy", flags=flags)
    assert "1 run(s) finished" in run("train", QUICKSTART, *SHORT, flags=flags).stdout
    assert owners(place / "runs") == {1000}


def test_a_corpus_that_is_not_mounted_is_named(run, place):
    told = run("train", "experiments/emovo.json", flags=mounts(place), check=2).stderr
    assert "emovo" in told
    assert "SER_DATA" in told or "ser corpora emovo" in told


def test_a_runs_folder_that_cannot_be_written_to_is_named(run, place, own):
    arguments = ("train", QUICKSTART, *SHORT)
    read_only = ("-v", f"{place}/runs:/workspace/runs:ro")
    assert "Read-only file system; set SER_RUNS" in run(*arguments, flags=read_only, check=2).stderr
    own(place / "runs", 0)
    told = run(*arguments, flags=("-v", f"{place}/runs:/workspace/runs"), check=2).stderr
    assert "Permission denied; set SER_RUNS" in told
    assert "user 1000 cannot write to /workspace/runs, which belongs to user 0" in told
    assert '--user "$(id -u):$(id -g)"' in told
    assert "cannot write to" not in run("--version", flags=read_only).stderr


def test_a_gpu_that_is_not_there_is_named_with_the_way_to_the_cpu(run, gpus):
    if shutil.which("nvidia-smi"):
        pytest.skip("this machine has an NVIDIA GPU")
    arguments = ("train", QUICKSTART, "--device", "cuda")
    told = run(*arguments, flags=gpus, check=2).stderr
    assert "this image holds torch's CPU build" in told
    assert "--device cuda: not available" in told
    assert "--device cpu" in told


def test_a_full_disk_is_named(run):
    flags = ("--tmpfs", "/workspace/runs:size=64k,mode=1777")
    assert "no space left on the disk" in run("train", QUICKSTART, *SHORT, flags=flags, check=2).stderr


@pytest.fixture
def compose(docker, engine, image, place, monkeypatch: pytest.MonkeyPatch):
    """`docker compose`, its services beside data and runs of user 1000 and without the network that an engine without
    a bridge cannot make; short.json is the experiment."""
    content = json.loads((ROOT / QUICKSTART).read_text(encoding="utf-8"))
    content |= {"name": "short", "models": ["mini-whisper"], "seeds": [0]}
    (place / "data/short.json").write_text(json.dumps(content), encoding="utf-8")
    (place / "docker").mkdir()
    shutil.copyfile(ROOT / "docker/compose.yaml", place / "docker/compose.yaml")
    services: dict[str, Any] = {name: {"network_mode": "none"} for name in ("train", "eval", "stats")}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["tensorboard", "--logdir", "runs", "--host", "127.0.0.1", "--port", str(port)]
    services["tensorboard"] = {"network_mode": "host", "ports": None, "command": command}
    text = json.dumps({"services": services}).replace('"ports": null', '"ports": !reset []')
    (place / "docker/over.yaml").write_text(text, encoding="utf-8")
    monkeypatch.setitem(engine, "SER_IMAGE", image)
    monkeypatch.setitem(engine, "EXP", "data/short.json")
    files = ("-p", f"sertain{port}", "-f", place / "docker/compose.yaml", "-f", place / "docker/over.yaml")
    yield functools.partial(docker, "compose", *files), port
    docker("compose", *files, "down", "--volumes", check=None)


def test_the_services_of_the_compose_file_run(compose, place, run):
    call, port = compose
    run("prepare", "toy", flags=mounts(place))
    assert "1 run(s) finished" in call("run", "--rm", "-T", "train").stdout
    assert owners(place / "runs") == {1000}
    call("run", "--rm", "-T", "eval")
    assert (place / "runs/short/report/report.html").is_file()
    call("run", "--rm", "-T", "stats")
    call("up", "--detach", "tensorboard")
    for _ in range(120):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/data/runs")
            told = json.loads(connection.getresponse().read())
            break
        except (OSError, ValueError):
            time.sleep(0.5)
    else:
        pytest.fail(call("logs", "tensorboard").stdout)
    assert any("short/mini-whisper/toy/seed-0" in name for name in told)


def test_the_compose_file_has_a_profile_for_the_cpu_and_one_for_the_gpu(docker):
    file = ROOT / "docker/compose.yaml"
    for profile, train in (("cpu", "train"), ("gpu", "train-gpu")):
        told = docker("compose", "-f", file, "--profile", profile, "config", "--services").stdout.split()
        assert sorted(told) == sorted(["eval", "stats", "tensorboard", train])
    assert docker("compose", "-f", file, "config", "--services").stdout.split() == [], "`up` alone starts nothing"


@pytest.fixture(scope="module")
def apptainer(docker, image, tmp_path_factory: pytest.TempPathFactory):
    """A function that runs a command beside sertain.tar, the image, and sertain.def, as an ordinary user; and where."""
    folder = tmp_path_factory.mktemp("apptainer")
    prefix: list[object] = []
    if not shutil.which("apptainer"):
        script = ROOT / "docker/ci_apptainer.sh"
        told = subprocess.run(["bash", script, "up"], capture_output=True, text=True, check=False)
        if told.returncode == 77:
            skip(told.stdout.strip().splitlines()[-1])
        assert told.returncode == 0, told.stdout + told.stderr
        prefix = ["bash", script, "exec-as", 1000, folder]
    for name in ("tmp", "data", "runs"):
        (folder / name).mkdir()
    docker("save", image, "-o", folder / "sertain.tar")
    shutil.copy(ROOT / "docker/sertain.def", folder)  # which that user can read, wherever the repository is
    if prefix:
        for path in (folder, *folder.iterdir()):
            os.chown(path, 1000, 1000)

    def call(*arguments: object, check: int = 0) -> str:
        place = {"APPTAINER_TMPDIR": f"{folder}/tmp", "APPTAINER_CACHEDIR": f"{folder}/tmp"}
        command = [str(part) for part in (*prefix, "apptainer", *arguments)]
        passed_on = {  # it hands every variable on, and those of this shell name folders that are not bound
            name: value for name, value in os.environ.items() if not name.startswith("SER_") or name == "SER_APPTAINER"
        }
        result = subprocess.run(
            command, cwd=folder, env=passed_on | place, capture_output=True, text=True, check=False, timeout=1800
        )
        told = result.stdout + result.stderr
        assert result.returncode == check, told[-4000:]
        return told

    yield call, folder
    shutil.rmtree(folder)


def test_apptainer_builds_its_definition_and_runs_it(apptainer, run, place):
    """The three documented lines, as somebody who is not root; with the same bytes as in Docker."""
    call, folder = apptainer
    quick = ("--mksquashfs-args", "-noI -noD -noF -noX")  # the image is thrown away: nothing is compressed
    told = call("build", *quick, "--build-arg", "FROM=sertain.tar", "sertain.sif", "sertain.def")
    assert "sertain 0." in told, "the %test section shows the version"
    told = call("exec", "sertain.sif", "sh", "-c", "echo $SER_CACHE $HF_HOME; id -u")
    assert f"/tmp/sertain-cache /tmp/sertain-cache/huggingface\n{folder.stat().st_uid}\n" in told
    binds = ("-B", "data:/workspace/data", "-B", "runs:/workspace/runs")
    told = call("run", "--nv", *binds, "sertain.sif", "train", "experiments/emovo.json", check=2)
    assert "emovo" in told
    call("run", *binds, "sertain.sif", "prepare", "toy")
    assert "1 run(s) finished" in call("run", "--nv", *binds, "sertain.sif", "train", QUICKSTART, *SHORT)
    run("train", QUICKSTART, *SHORT, flags=("-v", f"{place}/runs:/workspace/runs"))
    assert len(predictions(folder / "runs")) == 1
    assert predictions(folder / "runs") == predictions(place / "runs")
    assert owners(folder / "runs") == {folder.stat().st_uid}
    call("run", "sertain.sif", "bash", "-c", "exit 7", check=7)
    call("test", "sertain.sif")


def test_the_devcontainer_has_what_make_setup_needs(docker):
    docker("build", "--network=host", "--quiet", "-f", ROOT / ".devcontainer/Dockerfile", "-t", "sertain:dev", ROOT)
    script = (
        "id -un; make --version; git --version; ffmpeg -version; python3 -m venv /tmp/x && /tmp/x/bin/pip --version"
    )
    told = docker("run", "--rm", "--network=none", "sertain:dev", "sh", "-ec", script).stdout
    assert told.startswith("developer\nGNU Make")


def test_a_kind_of_torch_that_is_none_is_refused(docker):
    told = docker("build", "--network=host", "--build-arg", "TORCH=metal", ROOT, check=1).stderr
    assert "TORCH=metal is not valid; valid: cpu, cuda" in told
