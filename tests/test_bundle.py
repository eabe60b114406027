"""A bundle: the same bytes from the same files, nothing in it that is not ours, and checked by whoever gets it."""

import hashlib
import json
import os
import shutil
import stat
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from ser_analysis.experiment import stats_of_experiment
from ser_eval import run_folder
from ser_eval.evaluate import evaluate_experiment
from ser_scripts.cli import app
from ser_scripts.errors import BadInput, Finding
from tests import fabricated_runs as made

pytest.importorskip("rocrate", reason="`ser bundle` writes its metadata with rocrate")


def here(*arguments):
    """Run the command in this process."""
    return app([str(argument) for argument in arguments], standalone_mode=False)


@pytest.fixture(scope="module")
def analysed(tmp_path_factory):
    """A made-up experiment with evaluation and statistics, beside things that must not be packed."""
    folder = made.make_experiment(tmp_path_factory.mktemp("runs"), seeds=(0, 1))
    run = folder / "hubert-a/home/seed-0"
    (run / "model").mkdir()
    (run / "model/model.safetensors").write_bytes(b"weights")
    (run / "environment.txt").write_text("python 3.11.0\ndevice cpu\n\nnumpy==1.0\n")
    (folder / "preview").mkdir()
    (folder / "preview/clip.wav").write_bytes(b"RIFF")
    (folder / ".locks").mkdir()
    (folder / ".locks/x.lock").touch()
    run_folder.write_json(folder / "plan.json", {"runs": sorted(
        path.parent.relative_to(folder).as_posix() for path in folder.glob("*/*/*/run.json")
    )})  # fmt: skip
    evaluate_experiment(folder)
    stats_of_experiment(folder)
    evaluate_experiment(folder)
    return folder


@pytest.fixture
def archive(analysed, tmp_path, monkeypatch):
    """Its bundle."""
    monkeypatch.chdir(tmp_path)
    here("bundle", analysed)
    return tmp_path / "made-up-bundle.zip"


def rewrite(archive: Path, change) -> None:
    """Write the archive again with its content changed."""
    with zipfile.ZipFile(archive) as old:
        content = {info.filename: old.read(info) for info in old.infolist()}
    change(content)
    with zipfile.ZipFile(archive, "w") as new:
        for name, data in content.items():
            new.writestr(name, data)


def test_a_bundle_has_what_claims_rest_on_and_nothing_else(analysed, archive):
    with zipfile.ZipFile(archive) as packed:
        names = packed.namelist()
        assert names == sorted(names)
        assert {info.date_time for info in packed.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {stat.S_IMODE(info.external_attr >> 16) for info in packed.infolist()} == {0o644}
        readme = packed.read("made-up/README.md").decode()
        sums = packed.read("made-up/SHA256SUMS").decode()
        for line in sums.splitlines():
            digest, name = line.split("  ")
            assert hashlib.sha256(packed.read(f"made-up/{name}")).hexdigest() == digest
    assert len(sums.splitlines()) == len(names) - 1
    inside = {name.removeprefix("made-up/runs/made-up/") for name in names}
    assert inside >= {"plan.json", "clips.csv", "results.csv", "report/report.html", "stats/home-on-home/stats.json"}
    runs = analysed.glob("*/*/seed-*")
    for run in runs:
        below = run.relative_to(analysed).as_posix()
        assert inside >= {f"{below}/{name}" for name in ("spec.json", "run.json", "split.csv", "predictions/home.csv")}
    assert not [name for name in names if name.endswith((".wav", ".safetensors", ".lock"))]
    assert "hubert-a | none | home | away" in readme
    assert str(analysed.parent) not in readme


def test_the_same_files_give_the_same_bytes(analysed, archive, tmp_path):
    again = tmp_path / "again.zip"
    copy = tmp_path / "elsewhere/made-up"
    shutil.copytree(analysed, copy)
    for file in copy.rglob("*"):
        os.utime(file, (1, 1))
    here("bundle", copy, "--out", again)
    assert again.read_bytes() == archive.read_bytes()


def test_the_metadata_are_a_research_object_that_names_every_file(archive):
    with zipfile.ZipFile(archive) as packed:
        crate = json.loads(packed.read("made-up/ro-crate-metadata.json"))
        entities = {entity["@id"]: entity for entity in crate["@graph"]}
        assert crate["@context"] == "https://w3id.org/ro/crate/1.1/context"
        assert entities["./"]["datePublished"] == "2026-01-01T00:01:00+00:00"
        assert {"name", "description", "license"} <= entities["./"].keys()
        listed = {part["@id"] for part in entities["./"]["hasPart"]}
        names = {name.removeprefix("made-up/") for name in packed.namelist()}
        assert listed == names - {"ro-crate-metadata.json", "SHA256SUMS"}
        one = "runs/made-up/results.csv"
        assert entities[one]["sha256"] == hashlib.sha256(packed.read(f"made-up/{one}")).hexdigest()
    assert entities["#sertain"]["softwareVersion"] == ["0.1.0"]
    assert {"#corpus-home", "#corpus-away"} <= entities.keys()


def test_a_bundle_is_checked_and_analysed_again(archive, tmp_path, capsys):
    shutil.move(archive, tmp_path / "renamed.zip")
    here("reproduce", tmp_path / "renamed.zip", "--out", tmp_path / "anew")
    told = capsys.readouterr().out
    assert told.endswith("reproduced\n")
    assert "results.csv: identical" in told
    assert "stats/home-on-home/stats.json: identical" in told
    assert "4 x metrics.json: identical" in told
    assert "numpy: 1.0, now" in told
    assert (tmp_path / "anew/made-up/report/report.html").is_file()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.update({"made-up/README.md": b"other"}), "changed: README.md"),
        (lambda content: content.pop("made-up/runs/made-up/clips.csv"), "missing: runs/made-up/clips.csv"),
        (lambda content: content.update({"made-up/extra.txt": b"x"}), "not listed: extra.txt"),
        (lambda content: content.update({"made-up/../../evil.txt": b"x"}), "goes upwards"),
        (lambda content: content.update({"/etc/evil": b"x"}), "absolute path"),
    ],
)
def test_a_bundle_that_was_tampered_with_is_a_finding(archive, tmp_path, change, message):
    rewrite(archive, change)
    with pytest.raises(Finding, match=message):
        here("reproduce", archive)
    assert not (tmp_path.parent / "evil.txt").exists()


def test_results_that_do_not_follow_from_the_predictions_are_a_finding(archive, tmp_path, capsys):
    """Somebody edits a result and its checksum; the bundle is unpacked, which makes no difference."""

    def change(content):
        name = "runs/made-up/results.csv"
        old = content[f"made-up/{name}"]
        table = pd.read_csv(__import__("io").BytesIO(old), dtype=str, keep_default_na=False)
        table.loc[0, "uar"] = "0.99"
        new = table.to_csv(index=False, lineterminator="\n").encode()
        content[f"made-up/{name}"] = new
        digests = [hashlib.sha256(data).hexdigest().encode() for data in (old, new)]
        content["made-up/SHA256SUMS"] = content["made-up/SHA256SUMS"].replace(*digests)

    rewrite(archive, change)
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(tmp_path / "there")
    with pytest.raises(Finding, match="not reproduced"):
        here("reproduce", tmp_path / "there/made-up")
    told = capsys.readouterr().out
    assert "stats/home-on-home/stats.json: identical" in told
    assert "4 x metrics.json: identical" in told
    assert "results.csv: DIFFERENT (uar, line 2: '0.99', now" in told


def test_what_is_no_bundle_is_refused(tmp_path):
    (tmp_path / "x.zip").write_text("hello")
    with pytest.raises(BadInput, match="no archive that can be unpacked"):
        here("reproduce", tmp_path / "x.zip")
    with zipfile.ZipFile(tmp_path / "y.zip", "w") as other:
        other.writestr("top/README.md", "hello")
    with pytest.raises(BadInput, match="it has no SHA256SUMS"):
        here("reproduce", tmp_path / "y.zip")
    with pytest.raises(BadInput, match="--device and --allow-import are for a run"):
        here("reproduce", tmp_path / "y.zip", "--device", "cpu")
    with pytest.raises(BadInput, match="is no folder of a finished run"):
        here("reproduce", tmp_path)


def test_an_experiment_that_is_not_whole_is_not_packed(analysed, tmp_path):
    copy = tmp_path / "made-up"
    shutil.copytree(analysed, copy)
    with pytest.raises(BadInput, match="name that ends in"):
        here("bundle", copy, "--out", tmp_path / "x.tar")
    metrics = next(copy.glob("*/*/*/metrics.json"))
    metrics.unlink()
    with pytest.raises(BadInput, match="is not evaluated; run `ser eval"):
        here("bundle", copy)
    shutil.rmtree(metrics.parent)
    with pytest.raises(Finding, match="1 planned runs are not finished"):
        here("bundle", copy)


def test_an_experiment_named_by_its_file_brings_its_specs(project, small_corpus, tmp_path, capsys):
    file = project(seeds=[0], train=[small_corpus], training={"epochs": 1})
    here("train", file, "--device", "cpu")
    here("eval", file)
    here("bundle", file, "--out", tmp_path / "mini.zip")
    assert "there are no statistics in it" in capsys.readouterr().out
    with zipfile.ZipFile(tmp_path / "mini.zip") as packed:
        assert packed.read("mini/specs/mini.json") == file.read_bytes()
        assert packed.read("mini/specs/models/tiny.json") == (tmp_path / "tiny.json").read_bytes()
        assert "licence: not known here" in packed.read("mini/README.md").decode().lower()
    here("reproduce", tmp_path / "mini.zip")
    assert capsys.readouterr().out.endswith("reproduced\n")
