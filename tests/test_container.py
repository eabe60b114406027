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


def test_torch_has_one_version_in_images_and_set_up():
    for name in ("docker/install.sh", "docker/setup.sh"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert "requirements-cuda.lock" in text
        assert not re.search(r"torch==\d", text), "the version stands in the CUDA lock"


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
    assert services.keys() == {"train", "train-gpu", "eval", "stats", "tensorboard"}
    known = sub_commands()
    for name, service in services.items():
        assert "../runs:/workspace/runs" in service["volumes"]
        assert service["command"][0] in {*known, "tensorboard"}
        gpu = "devices" in service.get("deploy", {}).get("resources", {}).get("reservations", {})
        assert gpu == (name == "train-gpu")
    assert services["tensorboard"]["ports"][0].startswith("127.0.0.1:"), "not for the whole network"


def test_the_devcontainer_and_the_cluster_recipe_name_what_is_there():
    content = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text(encoding="utf-8"))
    assert (ROOT / ".devcontainer" / content["build"]["dockerfile"]).is_file()
    for schema in content["customizations"]["vscode"]["settings"]["json.schemas"]:
        assert (ROOT / schema["url"]).is_file()
    recipe = (ROOT / "docker/sertain.def").read_text(encoding="utf-8")
    assert "/usr/local/bin/sertain" in recipe
    assert "docker/entrypoint.sh /usr/local/bin/sertain" in DOCKERFILE


def test_the_workflow_runs_what_anybody_can_run():
    jobs = read_yaml(".github/workflows/ci.yml")["jobs"]
    runs = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert runs == [".ci/run", "make setup test"]
    assert jobs["python"]["strategy"]["matrix"]["python-version"] == ["3.11", "3.12", "3.13"]
    assert read_yaml(".github/workflows/ci.yml")["permissions"] == {"contents": "read"}


def test_the_hooks_run_tools_of_this_repository():
    (repo,) = read_yaml(".pre-commit-config.yaml")["repos"]
    assert repo["repo"] == "local"
    for hook in repo["hooks"]:
        assert hook["language"] == "system"
        command = shlex.split(hook["entry"])
        assert command[0] == "make" or command[0].startswith(".venv/bin/")
        assert all((ROOT / word).exists() for word in command if word.startswith("tests/"))


@pytest.mark.parametrize("target", ["docker-build", "docker-train", "docker-test", "sbom", "licences", "audit"])
def test_the_targets_are_there(target):
    result = subprocess.run(
        ["make", "--dry-run", target, "EXP=experiments/emovo.json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "MAKEFLAGS": ""},
    )
    assert result.returncode == 0, result.stderr


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
