"""`ser preprocess`: a whole copy or none, its table and its record; and preprocessing in plans and runs."""

import hashlib
import json
import os
import shutil
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile

from ser_eval.run_folder import find_runs
from ser_scripts import cli
from ser_scripts.audio import decode
from ser_scripts.audio.preprocess import apply_chain
from ser_scripts.errors import BadInput
from ser_scripts.manifest import build_manifest
from ser_scripts.runs import predict
from ser_scripts.runs import preprocess_corpus as module
from ser_scripts.runs.check import check_spec, corpus_spec, prepare_corpora
from ser_scripts.runs.plan import load_experiment, make_plan
from ser_scripts.runs.preprocess_corpus import Options, encode, preprocess_corpus, read_chain
from ser_scripts.settings import folders
from ser_scripts.specs.preprocess import PreprocessSpec

RATE_HZ = 16_000
LOUD = '[{"kind": "remove_dc"}, {"kind": "loudness", "lufs": -20}]'


def quiet(text: str) -> None:
    """Takes progress and says nothing."""


def sound(number: int, seconds: float = 0.5, rate_hz: int = RATE_HZ) -> np.ndarray:
    return 0.1 * np.random.default_rng(number).standard_normal(round(seconds * rate_hz))


@pytest.fixture(autouse=True)
def _places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SER_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("SER_RUNS", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder of sounds in sub-folders, of several formats and rates, beside other files."""
    folder = tmp_path / "tree"
    (folder / "sub" / "deep").mkdir(parents=True)
    soundfile.write(folder / "one.wav", sound(1), RATE_HZ)
    soundfile.write(folder / "sub" / "two.flac", np.stack([sound(2, rate_hz=44_100)] * 2, axis=1), 44_100)
    soundfile.write(
        folder / "sub" / "deep" / "three.ogg", sound(3, rate_hz=48_000) / 3, 48_000, format="OGG", subtype="OPUS"
    )
    (folder / "notes.txt").write_text("not a sound")
    return folder


def copy(
    what: Path | str,
    out: Path,
    chain: str = LOUD,
    *,
    rate_hz: int | None = None,
    container: str = "wav",
    bits: int = 32,
    jobs: int = 1,
    allow_dropped: bool = False,
) -> list[str]:
    steps, base = read_chain(chain, None)
    options = Options(rate_hz, container, bits, jobs, allow_dropped)
    return preprocess_corpus(str(what), out, steps, base, options, say=quiet)


def expected(file: Path, chain: str, key: str) -> tuple[np.ndarray, int]:
    steps: tuple[PreprocessSpec, ...] = read_chain(chain, None)[0]
    samples, rate_hz = decode.read(file)
    done = apply_chain(decode.to_mono(samples), rate_hz, steps, clip_key=key)
    return done.samples, done.rate_hz


def test_a_folder_keeps_its_tree_and_holds_what_the_chain_gives(tree: Path, tmp_path: Path) -> None:
    chain = '[{"kind": "loudness"}, {"kind": "noise", "snr_db": 10, "colour": "pink"}]'
    lines = copy(tree, tmp_path / "out", chain)
    found = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*"))
    assert found == ["clips.csv", "one.wav", "preprocess.json", "sub/deep/three.wav", "sub/two.wav"]
    for source in ("one.wav", "sub/two.flac", "sub/deep/three.ogg"):
        copied, rate_hz = decode.read((tmp_path / "out" / source).with_suffix(".wav"))
        samples, own_hz = expected(tree / source, chain, f"tree/{source}")
        assert rate_hz == own_hz
        np.testing.assert_array_equal(copied[0], samples)
    assert (tmp_path / "out" / "clips.csv").read_text() == "path\none.wav\nsub/deep/three.wav\nsub/two.wav\n"
    assert lines[0] == f"3 clips of {tree}"
    assert not (tmp_path / "out.partial").exists()
    assert not (tmp_path / "out.lock").exists()


def test_a_corpus_keeps_its_labels_and_can_be_used_like_the_original(mini_corpus: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.mkdir()
    rows = (mini_corpus / "clips.csv").read_text().splitlines()[::12]
    (few / "clips.csv").write_text("\n".join(rows))
    for row in rows[1:]:
        shutil.copy(mini_corpus / row.split(",")[0], few)
    copy(few / "clips.csv", tmp_path / "out", '[{"kind": "vad"}]', container="flac", bits=16)
    where = {"data": tmp_path, "cache": tmp_path / "cache", "base": tmp_path}
    before = build_manifest(corpus_spec(str(few / "clips.csv")), **where).clips  # type: ignore[arg-type]
    after = build_manifest(corpus_spec(str(tmp_path / "out" / "clips.csv")), **where).clips  # type: ignore[arg-type]
    same = ["class_id", "actor", "gender", "group", "sentence"]
    pd.testing.assert_frame_equal(before[same], after[same])
    assert list(after["path"]) == [Path(path).with_suffix(".flac").name for path in before["path"]]


def test_what_a_table_says_beyond_the_speaker_is_in_the_table_of_the_copy(tree: Path, tmp_path: Path) -> None:
    header = "path,class_id,actor,gender,intensity,partition,style,votes_angry,votes_sad"
    first = "tree/one.wav,angry,anna,female,strong,train,scripted,3,1"
    second = "tree/sub/two.flac,sad,ben,male,,test,,0,4"
    (tmp_path / "clips.csv").write_text("\n".join([header, first, second]))

    copy(tmp_path / "clips.csv", tmp_path / "out")

    rows = pd.read_csv(tmp_path / "out" / "clips.csv", keep_default_na=False).set_index("path")
    assert rows.loc["tree/one.wav", ["intensity", "style", "partition"]].tolist() == ["strong", "scripted", "train"]
    assert rows.loc["tree/sub/two.wav", ["intensity", "style", "partition"]].tolist() == ["", "", "test"]
    assert rows["votes_angry"].tolist() == [3, 0]
    assert rows["votes_sad"].tolist() == [1, 4]


def test_clips_without_speakers_stay_without(tree: Path, tmp_path: Path) -> None:
    (tree / "list.csv").write_text("file_path,emotion\none.wav,angry\nsub/two.flac,sad\n")
    copy(tree / "list.csv", tmp_path / "out")
    assert (tmp_path / "out" / "clips.csv").read_text() == "path,class_id\none.wav,angry\nsub/two.wav,sad\n"


def test_the_record_has_chain_versions_events_and_checksums(tree: Path, tmp_path: Path) -> None:
    chain = '[{"kind": "fixed_length", "seconds": 0.7}, {"kind": "trim_silence", "floor_dbfs": 0}]'
    lines = copy(tree, tmp_path / "out", chain, rate_hz=8000)
    record = json.loads((tmp_path / "out" / "preprocess.json").read_text())
    assert record["preprocess"][0] == {
        "kind": "fixed_length", "seconds": 0.7, "keep": "start", "pad": "zeros", "place": "start"
    }  # fmt: skip
    assert record["events"] == {"fixed_length: filled": 3, "trim_silence: no_speech": 3}
    assert "  trim_silence: no_speech: 3 clips" in lines
    assert {"numpy", "soxr", "chain"} <= record["versions"].keys()
    assert [one["path"] for one in record["files"]] == ["one.wav", "sub/deep/three.wav", "sub/two.wav"]
    for one in record["files"]:
        assert one["rate_hz"] == 8000
        assert one["seconds"] == pytest.approx(0.7, abs=1e-3)
        assert one["events"] == ["fixed_length: filled", "trim_silence: no_speech"]
        for folder, path, key in ((tmp_path / "out", "path", "sha256"), (tree, "source", "source_sha256")):
            assert one[key] == hashlib.sha256((folder / one[path]).read_bytes()).hexdigest()


def test_one_and_two_processes_write_the_same_bytes(mini_corpus: Path, tmp_path: Path) -> None:
    chain = '[{"kind": "noise", "snr_db": 5, "colour": "white"}, {"kind": "peak", "dbfs": 0}]'
    for jobs in (1, 2):
        copy(mini_corpus / "clips.csv", tmp_path / str(jobs), chain, jobs=jobs)
    files = [sorted(path for path in (tmp_path / name).rglob("*") if path.is_file()) for name in ("1", "2")]
    assert len(files[0]) == 98
    assert [path.read_bytes() for path in files[0]] == [path.read_bytes() for path in files[1]]


@pytest.mark.parametrize(("container", "bits"), [("wav", 32), ("wav", 16), ("flac", 16)])
def test_what_exceeds_full_scale_is_kept_or_cut_and_counted(
    tree: Path, tmp_path: Path, container: str, bits: int
) -> None:
    chain = '[{"kind": "loudness", "lufs": -5}]'
    lines = copy(tree, tmp_path / "out", chain, container=container, bits=bits)
    samples, _ = expected(tree / "one.wav", chain, "tree/one.wav")
    copied = decode.read(tmp_path / "out" / f"one.{container}")[0][0]
    record = json.loads((tmp_path / "out" / "preprocess.json").read_text())
    over = int(np.count_nonzero((np.rint(samples * 32768.0) > 32767) | (np.rint(samples * 32768.0) < -32768)))
    assert over > 10
    if bits == 32:
        np.testing.assert_array_equal(copied, samples)
        assert record["clipped_samples"] == 0
    else:
        assert record["files"][0]["clipped_samples"] == over
        assert record["clipped_samples"] == sum(one["clipped_samples"] for one in record["files"])
        np.testing.assert_allclose(copied, np.clip(samples, -1, 32767 / 32768), atol=0.51 / 32768)
        assert lines[1].startswith(f"  clipped at full scale: {record['clipped_samples']} samples in 3 clips")


def test_the_bytes_of_a_file_depend_on_its_samples_only() -> None:
    samples = sound(1).astype(np.float32)
    assert encode(samples, RATE_HZ, "wav", 32) == encode(samples, RATE_HZ, "wav", 32)
    data, clipped = encode(np.array([0, 1, -1, 0.5, 2], np.float32), RATE_HZ, "wav", 16)
    assert struct.unpack("<5h", data[-10:]) == (0, 32767, -32768, 16384, 32767)
    assert clipped == 2  # 1.0 is just beyond full scale, -1.0 is not


def test_a_place_that_is_taken_or_inside_the_source_is_refused(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    for out, message in [
        (tree, "inside what is read"),
        (tree / "clean", "inside what is read"),
        (tmp_path, "or around it"),
        (tmp_path / "full", "not an empty folder"),
        (tmp_path / "full" / "x", "not an empty folder"),
    ]:
        with pytest.raises(BadInput, match=message):
            copy(tree, out)
    assert sorted(path.name for path in tree.iterdir()) == ["notes.txt", "one.wav", "sub"]
    (tmp_path / "empty").mkdir()
    copy(tree, tmp_path / "empty")
    assert (tmp_path / "empty" / "one.wav").is_file()


def test_the_copy_of_listed_clips_may_lie_beside_their_list(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "clips.csv").write_text("path,label\ntree/one.wav,angry\ntree/sub/two.flac,sad\n")
    assert copy("clips.csv", tmp_path / "clean")[0] == f"2 clips of {tmp_path}"
    assert (tmp_path / "clean" / "tree" / "one.wav").is_file()
    for out, message in [(tmp_path, "or around it"), (tree, "not an empty folder"), (tmp_path.parent, "or around it")]:
        with pytest.raises(BadInput, match=message):
            copy("clips.csv", out)


def test_files_that_cannot_be_read_stop_the_copy_and_are_all_named(tree: Path, tmp_path: Path) -> None:
    (tree / "broken.wav").write_bytes(b"RIFF")
    soundfile.write(tree / "sub" / "short.wav", np.zeros(10), RATE_HZ)
    soundfile.write(tree / "mute.wav", np.zeros(8000), RATE_HZ)
    with pytest.raises(BadInput) as caught:
        copy(tree, tmp_path / "out")
    assert "3 clips cannot be copied" in str(caught.value)
    for text in ("broken.wav: ", "mute.wav: a clip that is silent", "sub/short.wav: it lasts 0.001 s, less than 0.1 s"):
        assert text in str(caught.value)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.partial").exists()
    lines = copy(tree, tmp_path / "out", allow_dropped=True)
    assert lines[0] == f"3 clips of {tree}, 3 dropped"
    record = json.loads((tmp_path / "out" / "preprocess.json").read_text())
    assert list(record["dropped"]) == ["broken.wav", "mute.wav", "sub/short.wav"]
    assert not (tmp_path / "out" / "broken.wav").exists()


def test_clips_that_a_step_refuses_are_named_like_those_that_cannot_be_read(tree: Path, tmp_path: Path) -> None:
    chain = '[{"kind": "trim_silence", "floor_dbfs": 0, "no_speech": "refuse"}]'
    with pytest.raises(BadInput, match=r"one\.wav: no speech found \(preprocess\.0, trim_silence\)"):
        copy(tree, tmp_path / "out", chain)
    with pytest.raises(BadInput, match="none of the 3 clips can be copied; nothing was written"):
        copy(tree, tmp_path / "out", chain, allow_dropped=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == [tree.name]


def test_of_a_folder_hidden_files_are_no_sounds_links_are_followed_and_names_must_be_utf8(
    tree: Path, tmp_path: Path
) -> None:
    (tree / "._one.wav").write_bytes(b"a companion file of another system")
    (tmp_path / "elsewhere").mkdir()
    soundfile.write(tmp_path / "elsewhere" / "far.wav", sound(9), RATE_HZ)
    (tree / "link").symlink_to(tmp_path / "elsewhere")
    (tree / "link" / "back").symlink_to(tree)
    assert copy(tree, tmp_path / "out")[0] == f"4 clips of {tree}"
    assert (tmp_path / "out" / "link" / "far.wav").is_file()
    Path(os.fsdecode(os.fsencode(tree) + b"/caf\xe9.wav")).touch()
    with pytest.raises(BadInput, match=r"caf\\xe9\.wav': the file name is not UTF-8"):
        copy(tree, tmp_path / "again")


def test_after_a_stop_the_same_command_starts_again(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_json", stop)
        with pytest.raises(KeyboardInterrupt):
            copy(tree, tmp_path / "out")
    assert (tmp_path / "out.partial" / "one.wav").is_file()
    assert not (tmp_path / "out").exists()
    copy(tree, tmp_path / "out")
    assert (tmp_path / "out" / "preprocess.json").is_file()
    assert not (tmp_path / "out.partial").exists()


def test_a_folder_in_the_way_that_is_not_ours_is_left_alone(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "precious").touch()
    with pytest.raises(BadInput, match="was not left by an earlier try"):
        copy(tree, tmp_path / "out")
    assert (tmp_path / "out.partial" / "precious").is_file()


def test_two_sources_of_one_target_are_refused(tree: Path, tmp_path: Path) -> None:
    soundfile.write(tree / "one.flac", sound(4), RATE_HZ)
    with pytest.raises(BadInput, match=r"one\.flac and one\.wav would both become one\.wav"):
        copy(tree, tmp_path / "out")


def test_clips_outside_the_folder_of_their_table_have_no_place(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "list.csv").write_text(f"path,label\n{tree / 'one.wav'},a\n{tree / 'sub/two.flac'},b\n")
    with pytest.raises(BadInput, match=r"lies outside .*lists"):
        copy(tmp_path / "lists" / "list.csv", tmp_path / "out")


def test_nothing_to_copy_and_formats_that_cannot_be_written_are_errors(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    with pytest.raises(BadInput, match=r"bare holds no \.wav"):
        copy(tmp_path / "bare", tmp_path / "out")
    for container, bits in (("flac", 32), ("mp3", 16), ("wav", 24)):
        with pytest.raises(BadInput, match="valid: --format wav --bits 32, --format wav --bits 16, --format flac"):
            copy(tree, tmp_path / "out", container=container, bits=bits)


def test_the_chain_comes_from_one_place(tmp_path: Path, project: Any) -> None:
    (tmp_path / "chain.json").write_text(LOUD)
    assert read_chain(str(tmp_path / "chain.json"), None) == (read_chain(LOUD, None)[0], tmp_path)
    experiment = project(preprocess=json.loads(LOUD))
    assert read_chain(None, experiment)[0] == read_chain(LOUD, None)[0]
    for chain, file, message in [
        (None, None, "give one of --chain"),
        (LOUD, experiment, "give one of --chain"),
        ("[]", None, "has no step"),
        (None, project(), "has no step"),
        ("chain.jsn", None, "neither a JSON list nor a file"),
        ("[{]", None, "--chain is not valid JSON"),
        ('[{"kind": "vdd"}]', None, "did you mean 'vad'"),
    ]:
        with pytest.raises(BadInput, match=message):
            read_chain(chain, file)


def test_the_command_line(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def ser(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["ser", "preprocess", *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return int(caught.value.code or 0)

    assert ser("tree", "out", "--chain", LOUD, "--format", "flac", "--rate", "8000") == 0
    assert f"3 clips of {tree}" in capsys.readouterr().out
    assert decode.read(tmp_path / "out" / "one.flac")[1] == 8000
    assert ser("tree", "out", "--chain", LOUD) == 2
    assert "not an empty folder" in capsys.readouterr().err
    assert ser("emodb", "out2", "--chain", LOUD) == 2
    assert "emodb" in capsys.readouterr().err


NOISY = {"kind": "noise", "snr_db": 30, "folder": "noises"}


def test_a_run_records_events_files_and_resolved_paths_and_predicts_with_them(
    project: Any, mini_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "noises").mkdir()
    soundfile.write(tmp_path / "noises" / "n.wav", sound(1), RATE_HZ)
    file = project(preprocess=[{"kind": "fixed_length", "seconds": 0.3}, NOISY], training={"epochs": 1})
    lines, refused = check_spec(file, low_seed=None, high_seed=None, overrides=(), allow_imports=(), say=quiet)
    assert not refused
    assert "    preprocessing: fixed_length: cut: 96 of 96 clips" in lines
    assert prepare_corpora(str(file), say=quiet)[1:] == ["  preprocessing: fixed_length: cut: 96 of 96 clips"]
    monkeypatch.setattr(sys, "argv", ["ser", "train", str(file), "--device", "cpu"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert not caught.value.code
    (run,) = find_runs(tmp_path / "runs" / "mini")
    assert run.record["preprocess_events"] == {"mini": {"fixed_length: cut": 96}}
    assert run.record["preprocess"][1]["folder"] == str(tmp_path / "noises")
    assert run.record["inputs"]["preprocess_sha256"].keys() == {"1.folder"}
    other = tmp_path / "others.csv"
    rows = (mini_corpus / "clips.csv").read_text().splitlines()
    other.write_text(
        "\n".join([rows[0], *(f"{mini_corpus}/{row}".replace(",f1,", ",x1,") for row in rows[1:] if ",f1," in row)])
        + "\n"
    )
    monkeypatch.chdir(tmp_path / "noises")  # paths do not depend on where the command is started
    soundfile.write(tmp_path / "noises" / "n.wav", sound(2), RATE_HZ)
    with pytest.raises(BadInput, match="its preprocessing: files that it names"):
        predict._preprocess(run, [])
    soundfile.write(tmp_path / "noises" / "n.wav", sound(1), RATE_HZ)
    with pytest.raises(Exception, match="has trained or selected on"):  # the files are right, so it comes this far
        predict.predict_on(tmp_path / "runs" / "mini", str(other), device="cpu", say=quiet)


def test_refused_clips_leave_the_plan_only_when_they_are_listed(project: Any) -> None:
    # some of the toy clips have a lower peak
    step = {"kind": "trim_silence", "floor_dbfs": -6, "no_speech": "refuse"}
    with pytest.raises(BadInput, match='List them under "allow_dropped"') as caught:
        make_plan(load_experiment(project(preprocess=[step])), folders(), progress=quiet)
    reasons = caught.value.reasons  # type: ignore[attr-defined]
    assert 0 < len(reasons) < 96
    listed = [f"mini/{path}" for path in reasons]
    plan = make_plan(load_experiment(project(preprocess=[step], allow_dropped=listed)), folders(), progress=quiet)
    assert list(plan.manifests["mini"].dropped["path"]) == sorted(reasons)
    assert len(plan.manifests["mini"].clips) == 96 - len(reasons)
    assert not set(plan.runs[0].split.table["path"]) & set(reasons)
