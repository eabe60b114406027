"""What can be said of the container files without an engine: the entrypoint's rules, what is copied, what is pinned."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from ser_scripts.cli import app

ROOT = Path(__file__).parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
TOOLS = ROOT / ".cache/tools/bin"


def read_yaml(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def sub_commands() -> list[str]:
    return sorted(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


@pytest.fixture
def enter(tmp_path: Path):
    """Run the entrypoint with a `ser` and a `train-me` that tell how they were called."""
    for name in ("ser", "train-me"):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f'#!/bin/sh\necho {name} "$@"\necho "cache $SER_CACHE" >&2\nexit "${{RC:-0}}"\n')
        program.chmod(0o755)

    def call(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        place = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "SER_CACHE": str(tmp_path / "cache"), **env}
        command = ["sh", str(ROOT / "docker/entrypoint.sh"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=place, check=False, cwd=tmp_path)

    return call


def test_every_sub_command_reaches_ser_although_programs_have_such_names(enter):
    for name in sub_commands():
        result = enter(name, "x.json", "--flag")
        assert (result.stdout, result.returncode) == (f"ser {name} x.json --flag\n", 0), result.stderr


@pytest.mark.parametrize(
    ("given", "reached"),
    [
        ((), "ser --help"),
        (("--version",), "ser --version"),
        (("trian", "x"), "ser trian x"),
        (("train-me", "a b"), "train-me a b"),
        (("sh", "-c", "echo shell"), "shell"),
        (("bash", "script.sh", "one"), "script one"),
        (("./script.sh", "two"), "script two"),
        (("/bin/echo", "as given"), "as given"),
        (("echo", "a builtin of the shell, too"), "a builtin of the shell, too"),
    ],
)
def test_programs_run_as_given_and_the_rest_is_ser(enter, tmp_path, given, reached):
    script = tmp_path / "script.sh"
    script.write_text('#!/bin/sh\necho script "$1"\n')
    script.chmod(0o755)
    assert enter(*given).stdout == reached + "\n"


def test_exit_codes_pass_through(enter):
    assert enter("train", RC="2").returncode == 2
    assert enter("sh", "-c", "exit 7").returncode == 7


def test_a_cache_that_cannot_be_written_to_is_replaced_and_that_is_said(enter, tmp_path):
    (tmp_path / "file").touch()
    told = enter("train", SER_CACHE=str(tmp_path / "file/cache")).stderr
    assert "cannot be written to; using /tmp/cache" in told
    assert "cache /tmp/cache/sertain" in told
    assert enter("train").stderr == f"cache {tmp_path}/cache\n"


def test_a_gpu_that_was_asked_for_and_is_not_there_is_named(enter):
    if Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has an NVIDIA GPU")
    wanted = {"NVIDIA_VISIBLE_DEVICES": "all"}
    assert "this image holds torch's CPU build" in enter("train", SER_IMAGE_TORCH="cpu", **wanted).stderr
    assert "none has come into the container" in enter("train", SER_IMAGE_TORCH="cuda", **wanted).stderr
    for quiet in ("void", "none", ""):
        assert "GPU" not in enter("train", SER_IMAGE_TORCH="cpu", NVIDIA_VISIBLE_DEVICES=quiet).stderr
    assert "GPU" not in enter("sh", "-c", "true", SER_IMAGE_TORCH="cpu", **wanted).stderr


def test_the_dockerfile_keeps_its_promises():
    instructions = [line.split()[0] for line in DOCKERFILE.splitlines() if re.match(r"[A-Z]+ ", line)]
    assert "HEALTHCHECK" not in instructions
    assert not DOCKERFILE.startswith("# syntax"), "would be fetched from a registry"
    assert "<<" not in DOCKERFILE
    assert "--link" not in DOCKERFILE
    assert "ARG BASE_IMAGE=python:3.11-slim-bookworm\n" in DOCKERFILE
    users = re.findall(r"^USER (.*)", DOCKERFILE, re.MULTILINE)
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[-1]), "numeric, so that a cluster can check it; and not root"
    assert DOCKERFILE.index("docker/requirements-cpu.lock") < DOCKERFILE.index("COPY . /workspace")
    final = DOCKERFILE[DOCKERFILE.index(" AS final") :]
    for tool in ("gcc", "build-essential", "git", "curl", "--from=dependencies /root"):
        assert tool not in final.replace("sertain", "")


def test_torch_is_installed_by_the_hashes_of_the_locks():
    for name in ("docker/install.sh", "docker/setup.sh"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert "requirements-cuda.lock" in text
        assert "torch_of_lock.sh" in text
        assert "--require-hashes" in text
        assert not re.search(r"^[^#]*torch==\d", text, re.MULTILINE), "the version stands in the locks"


def test_an_index_without_torch_s_cpu_build_is_named_with_the_way_to_it(tmp_path):
    """A pip that finds nothing stands in for one whose index has CUDA builds alone."""
    python = tmp_path / "bin/python"
    python.parent.mkdir()
    python.write_text('#!/bin/sh\ncase "$*" in *torch*) echo "no matching distribution" >&2; exit 1 ;; esac\n')
    python.chmod(0o755)
    command = ["sh", ROOT / "docker/install.sh", tmp_path]
    told = subprocess.run([*command, "cpu"], capture_output=True, text=True, check=False)
    assert told.returncode == 2
    assert "+cpu, cannot be had here" in told.stderr
    assert "--build-arg TORCH_INDEX=" in told.stderr
    told = subprocess.run([*command, "metal"], capture_output=True, text=True, check=False)
    assert (told.returncode, told.stderr) == (2, "TORCH=metal is not valid; valid: cpu, cuda\n")


def test_what_is_secret_or_large_never_reaches_the_builder():
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*", "everything is out unless it is named"
    named = {rule[1:] for rule in rules if rule.startswith("!")}
    assert not named & {".git", ".env", "data", "runs", ".venv", ".cache", "tests"}
    assert all((ROOT / name).exists() for name in named), "a name that is gone copies nothing"
    assert rules[-3:] == ["**/*.partial", "**/*.pem", "**/*.key"]
    copied = re.findall(r"^COPY (?!--from)(?:--\S+ )*(.*) \S+$", DOCKERFILE, re.MULTILINE)
    for name in (name for line in copied for name in line.split() if name != "."):
        assert name in named, f"the Dockerfile copies {name}, which .dockerignore leaves out"


def test_the_compose_file_has_the_services_for_cpu_and_gpu():
    services = read_yaml("docker/compose.yaml")["services"]
    assert {name for name, service in services.items() if "cpu" in service["profiles"]} == services.keys() - {
        "train-gpu"
    }
    assert {name for name, service in services.items() if "gpu" in service["profiles"]} == services.keys() - {"train"}
    assert services.keys() == {"train", "train-gpu", "eval", "stats", "tensorboard"}
    known = sub_commands()
    for name, service in services.items():
        assert "../runs:/workspace/runs" in service["volumes"]
        assert service["command"][0] in {*known, "tensorboard"}
        gpu = "devices" in service.get("deploy", {}).get("resources", {}).get("reservations", {})
        assert gpu == (name == "train-gpu")
    assert services["tensorboard"]["ports"][0].startswith("127.0.0.1:"), "not for the whole network"


def test_the_devcontainer_names_what_is_there():
    content = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text(encoding="utf-8"))
    assert (ROOT / ".devcontainer" / content["build"]["dockerfile"]).is_file()
    for schema in content["customizations"]["vscode"]["settings"]["json.schemas"]:
        assert (ROOT / schema["url"]).is_file()


def test_the_definition_for_clusters_fits_the_image():
    """docker/sertain.def starts from the image, so it has its lock; what it calls must be what the image has."""
    recipe = (ROOT / "docker/sertain.def").read_text(encoding="utf-8")
    lines = [line for line in recipe.splitlines() if not line.lstrip().startswith("#")]
    header = dict(line.split(": ") for line in lines[: lines.index("")])
    assert header == {"Bootstrap": "docker-archive", "From": "{{ FROM }}"}
    sections = {}
    for line in lines[lines.index("") :]:
        if line.startswith("%"):
            sections[line.split()[0]] = section = []
        elif line.strip():
            section.append(line.strip())
    assert sections.keys() == {"%arguments", "%post", "%environment", "%runscript", "%test", "%labels"}
    assert sections["%arguments"] == ["FROM=sertain.tar"]
    assert sections["%runscript"] == ["cd /workspace", 'exec /usr/local/bin/sertain "$@"']
    assert "docker/entrypoint.sh /usr/local/bin/sertain\n" in DOCKERFILE
    assert re.findall(r"^WORKDIR (.*)", DOCKERFILE, re.MULTILINE)[-1] == "/workspace"
    made = set(re.findall(r"^COPY .* (/\S+)$", DOCKERFILE, re.MULTILINE))
    named = {path for section in ("%post", "%test") for line in sections[section] for path in re.findall(r"/\S+", line)}
    assert all(any(path == one or path.startswith(f"{one}/") for one in made) for path in named), (named, made)
    for name in ("SER_CACHE", "HF_HOME"):  # the image's own are folders that nobody can write to here
        (default,) = re.findall(rf"^ +{name}=(\S+)", DOCKERFILE, re.MULTILINE)
        assert f'[ "${{{name}:-{default}}}" != {default} ] ||' in recipe
    for line in re.findall(r"apptainer build (.*)", (ROOT / "docs/containers.md").read_text(encoding="utf-8")):
        assert "--build-arg FROM=sertain.tar" in line
        assert "docker/sertain.def" in line


def test_the_workflow_runs_what_anybody_can_run():
    workflow = read_yaml(".github/workflows/ci.yml")
    jobs = workflow["jobs"]
    runs = {name: [step["run"] for step in job["steps"] if "run" in step] for name, job in jobs.items()}
    assert runs["all"][-1] == ".ci/run"
    assert runs["python"] == ["make setup test", 'make test ARGS="-m slow"']
    assert runs["release"][0] == "make release"
    assert jobs["python"]["strategy"]["matrix"]["python-version"] == ["3.11", "3.12", "3.13"]
    assert workflow["permissions"] == {"contents": "read"}
    uses = [step["uses"] for job in jobs.values() for step in job["steps"] if "uses" in step]
    assert uses
    assert all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", one) for one in uses), "a tag can be moved, a commit cannot"
    for command in (line.split() for run in runs["all"] for line in run.splitlines()):
        assert "docker/ci_engine.sh" not in command or command[-1] == "gpu-stand-in"


def test_the_hooks_run_tools_of_this_repository():
    (repo,) = read_yaml(".pre-commit-config.yaml")["repos"]
    assert repo["repo"] == "local"
    for hook in repo["hooks"]:
        assert hook["language"] == "system"
        command = shlex.split(hook["entry"])
        assert command[0] == "make" or command[0].startswith(".venv/bin/")
        assert all((ROOT / word).exists() for word in command if word.startswith("tests/"))


def own_environment(**more: str) -> dict[str, str]:
    """The environment without what an outer make passes on: its flags, and the variables of its command line."""
    variables = re.findall(r"^([A-Z_]+) \?=", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert {"EXP", "ARGS", "JOBS", "IMAGE"} <= set(variables)
    passed_on = {"MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", *variables}
    return {name: value for name, value in os.environ.items() if name not in passed_on} | more


@pytest.mark.parametrize(
    "target", ["docker-build", "docker-train", "docker-test", "sbom", "licences", "audit", "release"]
)
def test_the_targets_are_there(target):
    result = subprocess.run(
        ["make", "--dry-run", target, "EXP=experiments/emovo.json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=own_environment(),
    )
    assert result.returncode == 0, result.stderr


def test_make_docker_train_mounts_data_and_runs_for_the_caller(tmp_path):
    """Where an experiment names the built-in corpus, which the mounted data hide, it is made first."""
    shutil.copyfile(ROOT / "Makefile", tmp_path / "Makefile")
    shutil.copytree(ROOT / "experiments", tmp_path / "experiments")
    program = tmp_path / "bin/docker"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\n[ "$1" != image ] || { echo sha256:12; exit; }\necho "$@"\n')
    program.chmod(0o755)

    def call(experiment: str, *variables: str) -> list[str]:
        command = ["make", "--silent", "docker-train", f"EXP=experiments/{experiment}.json", *variables]
        env = own_environment(PATH=f"{program.parent}:{os.environ['PATH']}")
        return subprocess.run(
            command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True
        ).stdout.splitlines()

    (run,) = call("emovo", "ARGS=--jobs 2")
    assert run == (
        f"run --rm --init --ipc=host --user {os.getuid()}:{os.getgid()} -e SER_IMAGE_DIGEST=sha256:12 "
        f"-v {tmp_path}/data:/workspace/data -v {tmp_path}/runs:/workspace/runs sertain:cpu "
        "train experiments/emovo.json --jobs 2"
    )
    assert (tmp_path / "runs").is_dir()
    assert " --gpus all " in call("emovo", "IMAGE=sertain:cuda")[0]
    first, second = call("quickstart")
    assert first.endswith(" sertain:cpu prepare toy")
    assert second.endswith(" sertain:cpu train experiments/quickstart.json")
    (tmp_path / "data/raw/toy").mkdir(parents=True)
    assert len(call("quickstart")) == 1


def test_scripts_and_dockerfiles_are_clean():
    if not shutil.which(str(TOOLS / "hadolint")):
        pytest.skip("the linters are not installed: make lint-containers")
    for command in (["hadolint", "Dockerfile", ".devcontainer/Dockerfile"], ["shellcheck", *_scripts()]):
        result = subprocess.run(
            [TOOLS / command[0], *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stdout


def _scripts() -> list[str]:
    return sorted(file.relative_to(ROOT).as_posix() for file in (ROOT / "docker").glob("*.sh"))
