"""The kinds for anybody's clips: a folder per class, data sets of the `datasets` library, EmoBox' lists; label maps."""

import hashlib
import http.server
import io
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from ser_scripts.cache import list_cache, prune_cache, verify_cache
from ser_scripts.corpora import ClipRow, huggingface_corpus
from ser_scripts.corpora import _own as own
from ser_scripts.corpora.audiofolder_corpus import read_audiofolder
from ser_scripts.corpora.emobox_corpus import read_emobox, read_fold
from ser_scripts.corpora.sources import Source, read_source
from ser_scripts.errors import BadInput, Finding, SplitRefused
from ser_scripts.manifest import Manifest, build_manifest, survey
from ser_scripts.specs.corpora import CorpusSpec
from ser_scripts.specs.splits import Preset
from ser_scripts.splits import draw

KIND: TypeAdapter[Any] = TypeAdapter(CorpusSpec)


def spec(kind: str, **keys: Any) -> Any:
    return KIND.validate_python({"kind": kind, "name": "mine", **keys})


def source(folder: Path, kind: str, **keys: Any) -> Source:
    return read_source(spec(kind, **keys), data=folder / "data", locations={}, cache=folder / "cache", base=folder)


def manifest(folder: Path, kind: str, **keys: Any) -> Manifest:
    return build_manifest(spec(kind, **keys), data=folder / "data", cache=folder / "cache", base=folder)


def audio(seed: int = 0, form: str = "WAV") -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, np.random.default_rng(seed).normal(0, 0.1, 3200).astype(np.float32), 16000, format=form)
    return stream.getvalue()


def put(folder: Path, *paths: str) -> Path:
    for seed, path in enumerate(paths):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(audio(seed))
    return folder


def text(file: Path, content: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content, encoding="utf-8")
    return file


# ---- label maps ----


def csv(folder: Path) -> Path:
    put(folder, "1.wav", "2.wav", "3.wav")
    return text(folder / "clips.csv", "path,label\n1.wav,ANG\n2.wav,joy\n3.wav,?\n")


def test_without_a_map_labels_stay_as_they_are_written(tmp_path: Path) -> None:
    csv(tmp_path)
    assert [row.class_id for row in source(tmp_path, "csv", path="clips.csv").rows] == ["ANG", "joy", "?"]


def test_a_map_leads_into_the_vocabulary_and_null_sets_aside(tmp_path: Path) -> None:
    csv(tmp_path)
    found = manifest(tmp_path, "csv", path="clips.csv", labels={"ANG": "angry", "joy": "happy", "?": None})
    assert dict(found.clips[["path", "class_id"]].itertuples(index=False)) == {"1.wav": "angry", "2.wav": "happy"}
    assert found.set_aside.to_dict("records") == [
        {"path": "3.wav", "reason": "the label is '?', which the map of labels leaves out"}
    ]


def test_a_label_outside_the_map_is_named_with_a_clip_and_what_would_be_valid(tmp_path: Path) -> None:
    csv(tmp_path)
    with pytest.raises(
        BadInput, match=r"1 labels are not in the map \"labels\": '\?' \(e\.g\. 3\.wav\); valid: ANG, joy"
    ):
        source(tmp_path, "csv", path="clips.csv", labels={"ANG": "angry", "joy": "happy"})


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"ANG": "angri"}, r"'ANG': 'angri' is not in the vocabulary; did you mean 'angry'\?"),
        ({"ANG": None}, "every label is null"),
        ({}, "at least 1"),
    ],
)
def test_a_map_that_leads_nowhere_is_refused(labels: dict[str, str | None], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        spec("csv", path="clips.csv", labels=labels)


def test_votes_are_mapped_with_the_labels_and_summed(tmp_path: Path) -> None:
    put(tmp_path, "1.wav")
    text(tmp_path / "clips.csv", "path,label,votes_Joy,votes_Fun,votes_Odd\n1.wav,Joy,2,1,3\n")
    labels = {"Joy": "happy", "Fun": "happy", "Odd": None}
    rows = source(tmp_path, "csv", path="clips.csv", labels=labels).rows
    assert rows[0].votes == (("happy", 3.0), ("other", 3.0))
    with pytest.raises(BadInput, match=r"votes for 'odd', which is not in the map"):
        source(tmp_path, "csv", path="clips.csv", labels={"Joy": "happy", "Fun": "happy"})


def test_rows_can_be_filtered_in_every_kind(tmp_path: Path) -> None:
    put(tmp_path / "clips", "train/angry/1.wav", "test/angry/2.wav")
    found = manifest(tmp_path, "audiofolder", path="clips", only={"partition": ["test"]})
    assert list(found.clips["path"]) == ["test/angry/2.wav"]
    with pytest.raises(BadInput, match=r"only\.partition: no clip has 'tset'; did you mean 'test'\?"):
        manifest(tmp_path, "audiofolder", path="clips", only={"partition": ["tset"]})


# ---- a folder per class ----


def test_the_class_is_the_folder_that_holds_the_clip(tmp_path: Path) -> None:
    put(tmp_path / "clips", "angry/1.wav", "sad/1.wav", "spk1/sad/2.flac")
    assert read_audiofolder(tmp_path / "clips") == [
        ClipRow("angry/1.wav", "angry", "", "unknown"),
        ClipRow("sad/1.wav", "sad", "", "unknown"),
        ClipRow("spk1/sad/2.flac", "sad", "", "unknown"),
    ]
    found = manifest(tmp_path, "audiofolder", path="clips")
    assert not found.speakers_known
    assert found.root == tmp_path / "clips"


def test_folders_named_after_sides_become_partitions(tmp_path: Path) -> None:
    put(tmp_path, "Train/angry/1.wav", "val/angry/2.wav", "test/sad/3.wav", "sad/4.wav")
    sides = {row.path: (row.partition, row.class_id) for row in read_audiofolder(tmp_path)}
    assert sides == {
        "Train/angry/1.wav": ("train", "angry"),
        "val/angry/2.wav": ("validation", "angry"),
        "test/sad/3.wav": ("test", "sad"),
        "sad/4.wav": (None, "sad"),
    }


def test_a_pattern_finds_speakers_and_more_in_the_path(tmp_path: Path) -> None:
    put(tmp_path / "clips", "angry/anna_F_s1.wav", "sad/ben_m_s2.wav")
    pattern = r"/(?P<actor>[a-z]+)_(?P<gender>\w)_(?P<sentence>s\d)$"
    found = source(tmp_path, "audiofolder", path="clips", speaker_pattern=pattern)
    assert found.speakers_known
    assert found.rows == [
        ClipRow("angry/anna_F_s1.wav", "angry", "anna", "female", sentence="s1"),
        ClipRow("sad/ben_m_s2.wav", "sad", "ben", "male", sentence="s2"),
    ]


def test_a_pattern_may_find_the_class_where_the_folder_is_the_speaker(tmp_path: Path) -> None:
    put(tmp_path, "anna/01_angry.wav", "ben/01_sad.wav")
    rows = read_audiofolder(tmp_path, r"^(?P<actor>\w+)/\d+_(?P<label>\w+)$")
    assert [(row.actor, row.class_id) for row in rows] == [("anna", "angry"), ("ben", "sad")]


@pytest.mark.parametrize(
    ("paths", "pattern", "message"),
    [
        (["1.wav", "a/2.wav"], None, r"1 clips lie in no folder that is named after their class: 1\.wav"),
        (["train/1.wav"], None, r"1 clips lie in no folder .*: train/1\.wav"),
        (["a/x1.wav", "a/y.wav"], r"x(?P<actor>\d)", r"finds no speaker in 1 of 2 paths: a/y\.wav"),
        (["a/x1z.wav"], r"x(?P<actor>\d)(?P<gender>z)", r"a/x1z\.wav: speaker_pattern: gender 'z' is not valid"),
        (
            ["a/1f.wav", "b/1m.wav"],
            r"(?P<actor>\d)(?P<gender>.)",
            r"speaker '1' is female in a/1f\.wav, but male in b/",
        ),
        ([], None, "holds no audio"),
    ],
)
def test_faults_of_folders_are_named(tmp_path: Path, paths: list[str], pattern: str | None, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        read_audiofolder(put(tmp_path, *paths), pattern)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(?P<actor>", "is not a regular expression"),
        (r"(\d+)", "has no group named actor"),
        (r"(?P<actor>\d)(?P<speker>x)", "group 'speker' is not known"),
    ],
)
def test_a_pattern_that_cannot_work_is_refused(pattern: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        spec("audiofolder", path="x", speaker_pattern=pattern)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"corpus 'mine': .*nowhere is no folder"):
        source(tmp_path, "audiofolder", path="nowhere")


# ---- paths of lists made elsewhere ----


@given(parts=st.lists(st.sampled_from(["..", ".", "a", "b.wav", ""]), min_size=1, max_size=8))
def test_a_path_of_a_list_never_leads_out(parts: list[str]) -> None:
    try:
        path = own.inside("/".join(parts), "list")
    except BadInput:
        depth = lowest = 0
        for part in parts:
            depth += {"..": -1, ".": 0, "": 0}.get(part, 1)
            lowest = min(lowest, depth)
        assert parts[0] == "" or lowest < 0
    else:
        assert not path.startswith(("/", "../"))
        assert path != ".."


@pytest.mark.parametrize("path", ["../x.wav", "a/../../x.wav", "..\\x.wav", "/etc/x.wav", "C:\\x.wav", "~/x.wav", ""])
def test_paths_that_lead_out_are_refused(path: str) -> None:
    with pytest.raises(BadInput, match=r"leads out|is not valid"):
        own.inside(path, "metadata.csv line 2")


# ---- data sets of the `datasets` library ----

CLASSES = ["happy", "angry", "sad"]


def features(**classes: list[str]) -> dict[bytes, bytes]:
    content = {name: {"names": names, "_type": "ClassLabel"} for name, names in classes.items()}
    return {b"huggingface": json.dumps({"info": {"features": content}}).encode()}


def table(labels: list[Any], *, first: int = 0, named: bool = True, **columns: list[Any]) -> pa.Table:
    """A table with audio inside, as `datasets` writes it."""
    clips = [{"bytes": audio(first + n), "path": f"clip{first + n}.wav" if named else None} for n in range(len(labels))]
    made = pa.table(
        {"audio": pa.array(clips, pa.struct({"bytes": pa.binary(), "path": pa.string()})), "label": labels, **columns}
    )
    return made.replace_schema_metadata(features(label=CLASSES))


def parquet(file: Path, content: pa.Table) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(content, file)


def test_parquet_shards_give_clips_with_their_names_classes_and_splits(tmp_path: Path) -> None:
    data = tmp_path / "set" / "data"
    parquet(data / "train-00000-of-00002.parquet", table([1, 0], who=["a", "b"], sex=["F", "M"]))
    parquet(data / "train-00001-of-00002.parquet", table([2], first=2, who=["c"], sex=[None]))
    parquet(data / "test-00000-of-00001.parquet", table([1], first=3, who=["d"], sex=["F"]))
    keys = {"path": "set", "speaker_column": "who", "gender_column": "sex"}
    found = manifest(tmp_path, "huggingface", **keys)
    assert found.speakers_known
    columns = ["path", "class_id", "actor", "gender", "partition"]
    assert list(found.clips[columns].itertuples(index=False, name=None)) == [
        ("test/clip3.wav", "angry", "d", "female", "test"),
        ("train/clip0.wav", "angry", "a", "female", "train"),
        ("train/clip1.wav", "happy", "b", "male", "train"),
        ("train/clip2.wav", "sad", "c", "unknown", "train"),
    ]
    assert (found.root / "train/clip1.wav").read_bytes() == audio(1)
    assert found.root.parent == tmp_path / "cache" / "huggingface"


def test_audio_is_written_once_and_anew_when_the_tables_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "set" / "train.parquet"
    parquet(file, table([1, 0]))
    first = source(tmp_path, "huggingface", path="set")
    clip = first.root / "train/clip0.wav"
    before = clip.stat().st_mtime_ns
    assert source(tmp_path, "huggingface", path="set") == first
    assert clip.stat().st_mtime_ns == before
    monkeypatch.setattr(huggingface_corpus, "_given", None)
    assert source(tmp_path, "huggingface", path="set") == first, "the audio is read again"
    monkeypatch.undo()
    parquet(file, table([1, 0, 2]))
    second = source(tmp_path, "huggingface", path="set")
    assert second.root != first.root
    assert len(second.rows) == 3
    assert not list((tmp_path / "cache" / "huggingface").glob("*.partial"))


def test_audio_out_of_tables_is_listed_checked_and_pruned_with_the_cache(tmp_path: Path) -> None:
    parquet(tmp_path / "set" / "train.parquet", table([1, 0]))
    found = source(tmp_path, "huggingface", path="set")
    cache = tmp_path / "cache"
    name = f"huggingface/{found.root.name}"
    assert any(line.endswith(name) for line in list_cache(cache))
    assert list(verify_cache(cache, delete=False)) == [f"whole    {name}"]
    clip = found.root / "train/clip0.wav"
    damaged = bytearray(clip.read_bytes())
    damaged[-1] ^= 1
    clip.write_bytes(damaged)
    with pytest.raises(Finding, match="1 damaged"):
        list(verify_cache(cache, delete=False))
    assert list(verify_cache(cache, delete=True)) == [f"deleted  {name}"]
    assert source(tmp_path, "huggingface", path="set") == found
    assert clip.read_bytes() == audio(0)
    first, *_ = prune_cache(cache, "0")
    assert first.startswith(f"removed  {name}")
    assert not found.root.exists()
    assert source(tmp_path, "huggingface", path="set") == found


def test_a_flipped_bit_in_what_was_measured_is_found(tmp_path: Path) -> None:
    parquet(tmp_path / "set" / "train.parquet", table([1, 0]))
    manifest(tmp_path, "huggingface", path="set")
    (file,) = (tmp_path / "cache" / "manifests").glob("*.json")
    file.write_bytes(file.read_bytes().replace(b"16000", b"16001", 1))
    with pytest.raises(Finding, match="1 damaged"):
        list(verify_cache(tmp_path / "cache", delete=False))


def test_clips_without_names_or_with_equal_ones_are_named_by_their_row(tmp_path: Path) -> None:
    parquet(tmp_path / "a" / "train-00000-of-00002.parquet", table([1, 0], named=False))
    parquet(tmp_path / "a" / "train-00001-of-00002.parquet", table([1], named=False))
    assert [row.path for row in source(tmp_path, "huggingface", path="a").rows] == [
        "train/000000.wav", "train/000001.wav", "train/000002.wav",
    ]  # fmt: skip
    parquet(tmp_path / "b" / "train-00000-of-00002.parquet", table([1, 0]))
    parquet(tmp_path / "b" / "train-00001-of-00002.parquet", table([1]))
    assert [row.path for row in source(tmp_path, "huggingface", path="b").rows] == [
        "train/000000.wav", "train/000001.wav", "train/000002.wav",
    ]  # fmt: skip


@pytest.mark.parametrize(("form", "suffix"), [("WAV", ".wav"), ("FLAC", ".flac"), ("OGG", ".ogg"), ("MP3", ".mp3")])
def test_the_format_of_a_nameless_clip_is_seen_in_its_bytes(tmp_path: Path, form: str, suffix: str) -> None:
    clips = pa.array([{"bytes": audio(1, form), "path": None}], pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    parquet(tmp_path / "set" / "train.parquet", pa.table({"audio": clips, "label": ["sad"]}))
    found = manifest(tmp_path, "huggingface", path="set")
    assert list(found.clips["path"]) == [f"train/000000{suffix}"]


def test_a_name_inside_a_table_cannot_lead_out_of_the_cache(tmp_path: Path) -> None:
    clips = [
        {"bytes": audio(n), "path": path} for n, path in enumerate(["../../evil.wav", "/tmp/worse.wav", "..\\x.wav"])
    ]
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    parquet(tmp_path / "set" / "train.parquet", pa.table({"audio": pa.array(clips, kind), "label": ["a", "b", "c"]}))
    found = source(tmp_path, "huggingface", path="set")
    assert [row.path for row in found.rows] == ["train/evil.wav", "train/worse.wav", "train/x.wav"]
    assert all((found.root / row.path).is_file() for row in found.rows)
    assert not list(tmp_path.glob("*.wav"))


def test_folders_of_save_to_disk_are_read(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    kind = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
    columns = datasets.Features({"audio": kind, "label": datasets.ClassLabel(names=CLASSES)})
    clips = [{"bytes": audio(n), "path": f"{n}.wav"} for n in range(4)]
    one = datasets.Dataset.from_dict({"audio": clips, "label": [2, 1, 0, 1]}, features=columns)
    one.save_to_disk(str(tmp_path / "one"), num_shards=2)
    rows = source(tmp_path, "huggingface", path="one").rows
    assert [(row.path, row.class_id) for row in rows] == [
        ("train/0.wav", "sad"), ("train/1.wav", "angry"), ("train/2.wav", "happy"), ("train/3.wav", "angry"),
    ]  # fmt: skip
    both = datasets.DatasetDict({"train": one.select([0, 1]), "test": one.select([2, 3])})
    both.save_to_disk(str(tmp_path / "both"))
    found = source(tmp_path, "huggingface", path="both", split="test")
    assert [(row.path, row.class_id, row.partition) for row in found.rows] == [
        ("test/2.wav", "happy", "test"), ("test/3.wav", "angry", "test"),
    ]  # fmt: skip
    assert (found.root / "test/3.wav").read_bytes() == audio(3)


def test_a_split_name_cannot_lead_out_of_the_cache(tmp_path: Path) -> None:
    text(tmp_path / "set/state.json", json.dumps({"_data_files": [], "_split": "../../x"}))
    with pytest.raises(BadInput, match=r"state\.json: _split: path '\.\./\.\./x' leads out of the folder"):
        source(tmp_path, "huggingface", path="set")


def test_classes_of_arrow_files_are_named_in_dataset_info(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    bare = table([2]).replace_schema_metadata(None)
    folder.mkdir()
    with (
        pa.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb") as sink,
        pa.ipc.new_stream(sink, bare.schema) as out,
    ):
        out.write_table(bare)
    text(
        folder / "state.json", json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_split": None})
    )
    info = {"features": {"label": {"names": CLASSES, "_type": "ClassLabel"}}}
    text(folder / "dataset_info.json", json.dumps(info))
    assert [row.class_id for row in source(tmp_path, "huggingface", path="set").rows] == ["sad"]


def test_integers_without_names_are_labels_as_text_and_can_be_mapped(tmp_path: Path) -> None:
    parquet(tmp_path / "set" / "train.parquet", table([1, 0]).replace_schema_metadata(None))
    assert [row.class_id for row in source(tmp_path, "huggingface", path="set").rows] == ["1", "0"]
    rows = source(tmp_path, "huggingface", path="set", labels={"0": "sad", "1": "angry"}).rows
    assert [row.class_id for row in rows] == ["angry", "sad"]


def test_rows_without_a_label_are_set_aside(tmp_path: Path) -> None:
    parquet(tmp_path / "set" / "test.parquet", table([-1, None, 2]))
    found = manifest(tmp_path, "huggingface", path="set")
    assert list(found.clips["class_id"]) == ["sad"]
    assert list(found.set_aside["reason"]) == ["the data set gives it no label"] * 2


def test_paths_in_tables_are_read_where_they_lie(tmp_path: Path) -> None:
    put(tmp_path / "set", "wavs/1.wav", "wavs/2.wav")
    parquet(tmp_path / "set" / "train.parquet", pa.table({"file": ["wavs/1.wav", "wavs/2.wav"], "emotion": ["a", "b"]}))
    found = source(tmp_path, "huggingface", path="set", audio_column="file", label_column="emotion")
    assert found.root == tmp_path / "set"
    assert [(row.path, row.class_id) for row in found.rows] == [("wavs/1.wav", "a"), ("wavs/2.wav", "b")]


def test_clips_beside_a_metadata_csv_are_read(tmp_path: Path) -> None:
    put(tmp_path / "set", "train/1.wav", "test/2.wav")
    text(tmp_path / "set/train/metadata.csv", "file_name,Emotion,who\n1.wav,joy,a\n")
    text(tmp_path / "set/test/metadata.csv", "file_name,Emotion,who\n2.wav,joy,b\n")
    keys = {"path": "set", "label_column": "Emotion", "speaker_column": "who"}
    found = source(tmp_path, "huggingface", **keys)
    assert found.root == tmp_path / "set"
    assert found.rows == [
        ClipRow("test/2.wav", "joy", "b", "unknown", partition="test"),
        ClipRow("train/1.wav", "joy", "a", "unknown", partition="train"),
    ]
    assert [row.path for row in source(tmp_path, "huggingface", split=["test"], **keys).rows] == ["test/2.wav"]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"audio_column": "adio"}, r"train\.parquet: no column 'adio'; did you mean 'audio'\?"),
        ({"label_column": "emotion"}, "no column 'emotion'; valid: audio, label, who"),
        ({"speaker_column": "label2"}, r"no column 'label2'; did you mean 'label'\?"),
        ({"audio_column": "label"}, "column 'label' holds int64, neither audio nor paths"),
        ({"speaker_column": "who"}, r"train\.parquet row 1: who is empty"),
        ({"gender_column": "who"}, r"train\.parquet row 0: who: gender 'x' is not valid"),
        ({"split": "tran"}, r"no split 'tran'; did you mean 'train'\?"),
        ({"subset": "de"}, "no subset 'de'"),
        ({"subset": "../.."}, "leads out of the folder"),
        ({"revision": "main"}, "'revision' is for data sets on the hub"),
    ],
)
def test_faults_of_tables_are_named(tmp_path: Path, keys: dict[str, Any], message: str) -> None:
    parquet(tmp_path / "set" / "train.parquet", table([1, 0], who=["x", ""]))
    with pytest.raises(BadInput, match=message):
        source(tmp_path, "huggingface", path="set", **keys)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("file_name,label\n../1.wav,a\n", r"metadata\.csv line 2: path '\.\./1\.wav' leads out of the folder"),
        ("file_name,label\n/1.wav,a\n", "line 2: path '/1.wav' is not valid"),
        ("file_name,label\n1.wav,a\n", "line 2: 1.wav does not exist"),
        ("file_name,label\nin.wav,\n", "line 2: label is empty"),
        ("file_name,label\nin.wav,a\n./in.wav,a\n", r"1 clips are listed again: in\.wav"),
        ("path,label\nin.wav,a\n", "column file_name is missing"),
    ],
)
def test_faults_of_metadata_are_named(tmp_path: Path, content: str, message: str) -> None:
    put(tmp_path, "1.wav", "set/in.wav")
    text(tmp_path / "set/metadata.csv", content)
    with pytest.raises(BadInput, match=message):
        source(tmp_path, "huggingface", path="set")


def test_other_layouts_and_broken_tables_are_refused(tmp_path: Path) -> None:
    put(tmp_path / "folders", "angry/1.wav")
    with pytest.raises(BadInput, match=r"is no data set that can be read: .*kind 'audiofolder'; scripts are never run"):
        source(tmp_path, "huggingface", path="folders")
    text(tmp_path / "broken/train.parquet", "no parquet")
    with pytest.raises(BadInput, match=r"train\.parquet is not a table that can be read"):
        source(tmp_path, "huggingface", path="broken")
    parquet(tmp_path / "two/de/train.parquet", table([1]))
    parquet(tmp_path / "two/en/train.parquet", table([1]))
    with pytest.raises(BadInput, match=r'holds several subsets; name one as "subset": de, en'):
        source(tmp_path, "huggingface", path="two")
    assert len(source(tmp_path, "huggingface", path="two", subset="en").rows) == 1
    parquet(tmp_path / "class/train.parquet", table([7]))
    with pytest.raises(BadInput, match=r"label: 7 is none of the 3 classes \(angry, happy, sad\)"):
        source(tmp_path, "huggingface", path="class")
    video = pa.array([{"bytes": b"\0\0\0\0film", "path": "x"}], pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    parquet(tmp_path / "video/train.parquet", pa.table({"audio": video, "label": ["a"]}))
    with pytest.raises(BadInput, match=r"row 0: x is in no format that can be read"):
        source(tmp_path, "huggingface", path="video")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("state.json", "[]", "expected a JSON object, found list"),
        ("state.json", "{", "not valid JSON"),
        ("state.json", '{"_data_files": ["x"]}', "_data_files: expected a list of objects with 'filename'"),
        ("state.json", '{"_data_files": [{"filename": "../../x.arrow"}]}', "leads out of the folder"),
        ("dataset_dict.json", '{"splits": 5}', "splits: expected a list of names"),
    ],
)
def test_damaged_files_of_save_to_disk_are_named(tmp_path: Path, name: str, content: str, message: str) -> None:
    text(tmp_path / "set" / name, content)
    with pytest.raises(BadInput, match=rf"{re.escape(name)}.*{re.escape(message)}"):
        source(tmp_path, "huggingface", path="set")


def test_damaged_features_of_a_table_are_named(tmp_path: Path) -> None:
    parquet(tmp_path / "set/train.parquet", table([1]).replace_schema_metadata({"huggingface": '{"info": []}'}))
    with pytest.raises(BadInput, match=r"train\.parquet: what it says about its columns \(features\) is damaged"):
        source(tmp_path, "huggingface", path="set")


def test_a_set_that_is_neither_here_nor_reachable_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"owner/some-set is not on this machine while the hub cannot be reached"):
        source(tmp_path, "huggingface", path="owner/some-set")
    with pytest.raises(BadInput, match=r"is no folder, and 'nowhere' no data set's name on the hub \(owner/name\)"):
        source(tmp_path, "huggingface", path="nowhere")


# ---- EmoBox ----

LABEL_MAP = {"anger": "Angry", "fear": "Fear", "boredem": "Boredom"}


def line(name: str, emotion: str = "anger", **more: Any) -> str:
    content = {"key": f"emodb-{name}", "dataset": "emodb", "wav": f"downloads/emodb/wav/{name}.wav", "type": "raw"}
    content |= {"sample_rate": 16000, "num_frame": 3200.0, "task": "category", "length": 0.2, "emo": emotion}
    return json.dumps({**content, "channel": 1, **more})


def emobox(folder: Path, *lines: str, audio_at: str = "downloads/emodb/wav") -> Path:
    """EmoBox' data/emodb with the lines given, and the clips that they name."""
    names = [Path(json.loads(one)["wav"]).name for one in lines]
    put(folder, *(f"{audio_at}/{name}" for name in names))
    text(folder / "EmoBox/data/emodb/emodb.jsonl", "\n".join(lines) + "\n")
    text(folder / "EmoBox/data/emodb/label_map.json", json.dumps(LABEL_MAP))
    return folder / "EmoBox/data/emodb"


def fold(folder: Path, **sides: list[str]) -> str:
    for side, lines in sides.items():
        text(folder / f"EmoBox/data/emodb/fold_1/emodb_{side}_fold_1.jsonl", "\n".join(lines))
    return "EmoBox/data/emodb/fold_1"


@pytest.mark.parametrize("root", [".", "downloads", "downloads/emodb"])
def test_emobox_lists_are_read_wherever_the_audio_root_is(tmp_path: Path, root: str) -> None:
    folder = emobox(tmp_path, line("03a01Wa"), line("08a01Aa", "fear"), line("08a01Lb", "boredem"))
    rows = read_emobox(folder, tmp_path / root)
    assert [row.class_id for row in rows] == ["angry", "fearful", "bored"]
    assert all((tmp_path / root / row.path).is_file() for row in rows)


def test_emobox_knows_no_speakers_unless_a_pattern_does(tmp_path: Path) -> None:
    emobox(tmp_path, line("03a01Wa"), line("08a01Aa", "fear"))
    keys = {"path": "EmoBox/data/emodb", "root": "."}
    assert not manifest(tmp_path, "emobox", **keys).speakers_known
    found = manifest(tmp_path, "emobox", **keys, speaker_pattern=r"/(?P<actor>\d\d)(?P<sentence>[ab]\d\d)\w\w$")
    assert found.speakers_known
    assert list(found.clips["actor"]) == ["03", "08"]
    assert list(found.clips["sentence"]) == ["a01", "a01"]


def test_a_clip_of_emobox_that_is_not_there_is_a_fault_that_can_be_allowed(tmp_path: Path) -> None:
    emobox(tmp_path, line("03a01Wa"), line("08a01Wa"))
    (tmp_path / "downloads/emodb/wav/08a01Wa.wav").unlink()
    keys = spec("emobox", path="EmoBox/data/emodb", root=".")
    places = {"data": tmp_path, "cache": tmp_path / "cache", "base": tmp_path}
    with pytest.raises(BadInput, match=r"mine/downloads/emodb/wav/08a01Wa\.wav: no such file"):
        build_manifest(keys, **places)
    allowed = build_manifest(keys, **places, allow_dropped=["mine/downloads/emodb/wav/08a01Wa.wav"])
    assert len(allowed.clips) == 1


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([line("03a01Wa", wav="../x.wav")], r"emodb\.jsonl line 1: path '\.\./x\.wav' leads out of the folder"),
        ([line("03a01Wa", wav="/x.wav")], "line 1: path '/x.wav' is not valid"),
        ([line("03a01Wa"), line("03a01Wa")], r"line 2: downloads/emodb/wav/03a01Wa\.wav is listed again"),
        ([line("03a01Wa", start_time=0, end_time=1)], "line 1: a piece of a longer file"),
        (["{"], "line 1: not JSON"),
        (['{"wav": "x.wav"}'], "line 1: expected an object with 'wav' and 'emo' at least"),
        ([line("03a01Wa", "love")], r"1 labels are not in the map \"labels\": 'love'"),
        ([line("gone")], r"holds none of the 1 clips of .*; the first is downloads/emodb/wav/gone\.wav"),
    ],
)
def test_faults_of_emobox_lists_are_named(tmp_path: Path, lines: list[str], message: str) -> None:
    folder = emobox(tmp_path, line("03a01Wa"))
    text(folder / "emodb.jsonl", "\n".join(lines))
    with pytest.raises(BadInput, match=message):
        read_emobox(folder, tmp_path)


def test_words_of_emobox_that_are_no_emotions_need_a_map(tmp_path: Path) -> None:
    folder = emobox(tmp_path, line("03a01Wa", "10"), line("03a01Wb", "anger"))
    text(folder / "label_map.json", json.dumps({"10": "pleasure", "anger": "Angry"}))
    with pytest.raises(BadInput, match=r"'10' -> 'pleasure' are no emotions of the vocabulary; give \"labels\""):
        read_emobox(folder, tmp_path)
    rows = read_emobox(folder, tmp_path, {"10": None, "anger": "angry"})
    assert [(row.class_id, row.set_aside is None) for row in rows] == [("", False), ("angry", True)]


SPEAKERS = r"/(?P<actor>\d\d)[ab]\d\d\w\w$"
LINES = [
    line(f"{speaker}a0{number}Wa", "anger" if number % 2 else "fear")
    for speaker in ("03", "08", "09")
    for number in (1, 2)
]


def drawn(folder: Path, path: str, **keys: Any) -> dict[str, str]:
    found = manifest(folder, "emobox", path="EmoBox/data/emodb", root="downloads", **keys)
    split = draw(found.clips, Preset(kind="preset", path=path), 0, train_corpora=["mine"], base=folder)[0]
    return dict(zip(split.table["path"].map(lambda name: Path(name).stem), split.table["split"], strict=True))


def test_an_emobox_fold_is_a_preset_split(tmp_path: Path) -> None:
    emobox(tmp_path, *LINES)
    path = fold(tmp_path, train=LINES[:2], valid=LINES[2:4], test=LINES[4:])
    assert read_fold(tmp_path / path)[0] == ("downloads/emodb/wav/03a01Wa.wav", "train")
    assert drawn(tmp_path, path, speaker_pattern=SPEAKERS) == {
        "03a01Wa": "train", "03a02Wa": "train", "08a01Wa": "validation", "08a02Wa": "validation", "09a01Wa": "test",
        "09a02Wa": "test",
    }  # fmt: skip


def test_without_a_validation_list_validation_is_cut_from_train_by_speaker(tmp_path: Path) -> None:
    emobox(tmp_path, *LINES)
    sides = drawn(tmp_path, fold(tmp_path, train=LINES[:4], test=LINES[4:]), speaker_pattern=SPEAKERS)
    assert {sides["03a01Wa"], sides["08a01Wa"]} == {"train", "validation"}
    assert sides["03a01Wa"] == sides["03a02Wa"]


def test_an_emobox_fold_that_leaks_speakers_is_refused(tmp_path: Path) -> None:
    emobox(tmp_path, *LINES)
    path = fold(tmp_path, train=LINES[:2], valid=LINES[2:3], test=LINES[3:])
    with pytest.raises(SplitRefused, match=r"1 group on two sides: mine/08"):
        drawn(tmp_path, path, speaker_pattern=SPEAKERS)


def test_a_fold_without_its_lists_is_named(tmp_path: Path) -> None:
    emobox(tmp_path, *LINES)
    path = fold(tmp_path, test=LINES[4:])
    with pytest.raises(BadInput, match=r"exactly one list \*_train_fold_<n>\.jsonl is needed; there is none"):
        drawn(tmp_path, path)


def test_the_older_names_of_folds_are_read_too(tmp_path: Path) -> None:
    text(tmp_path / "fold_1/emodb_train_fold1.jsonl", LINES[0])
    text(tmp_path / "fold_1/emodb_test_fold1.jsonl", LINES[1])
    assert [side for _, side in read_fold(tmp_path / "fold_1")] == ["train", "test"]


@pytest.mark.real
def test_a_fold_of_emobox_form_works_on_the_real_emodb(ser_data: Path, tmp_path: Path) -> None:
    """The fold's paths are of EmoBox' downloads; labels and speakers are this project's."""
    from ser_scripts.specs.corpora import NamedCorpus

    found = survey(NamedCorpus(name="emodb"), data=ser_data, cache=tmp_path / "cache", base=tmp_path)
    lines: dict[str, list[str]] = {"train": [], "test": [], "valid": []}
    for path, actor in zip(found.clips["path"], found.clips["actor"], strict=True):
        side = "test" if actor in ("03", "08") else "valid" if actor in ("09", "10") else "train"
        lines[side].append(line(Path(path).stem))
    split = draw(
        found.clips, Preset(kind="preset", path=fold(tmp_path, **lines)), 0, train_corpora=["emodb"], base=tmp_path
    )[0]
    assert split.table["split"].value_counts().to_dict() == {
        side if side != "valid" else "validation": len(rows) for side, rows in lines.items()
    }


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the hub as a download asks for."""

    files: dict[str, bytes] = {}
    asked: list[str] = []
    commit = "0123456789abcdef0123456789abcdef01234567"

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        path = self.path.partition("?")[0]
        self.asked.append(path)
        name = path.partition(f"/resolve/{self.commit}/")[2]
        if path.startswith("/api/datasets/owner/set/revision/"):
            siblings = [{"rfilename": one, "size": len(self.files[one])} for one in self.files]
            self.send(json.dumps({"id": "owner/set", "sha": self.commit, "siblings": siblings}).encode(), body=body)
        elif path.startswith("/api/datasets/owner/set/tree/"):
            tree = [{"type": "file", "path": one, "size": len(self.files[one]), "oid": "0" * 40} for one in self.files]
            self.send(json.dumps(tree).encode(), body=body)
        elif name in self.files:
            self.send(self.files[name], body=body)
        else:
            self.send_error(404)

    def send(self, content: bytes, *, body: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", self.commit)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[str]:
    Hub.asked.clear()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("layout", ["parquet", "metadata"])
def test_a_set_is_fetched_from_the_hub_once_and_its_scripts_are_not(tmp_path: Path, hub: str, layout: str) -> None:
    parquet(tmp_path / "train.parquet", table([1, 0]))
    metadata = b"file_name,label\nclip0.wav,angry\nclip1.wav,happy\n"
    inside = {"data/train.parquet": (tmp_path / "train.parquet").read_bytes()}
    beside = {"train/metadata.csv": metadata, "train/clip0.wav": audio(0), "train/clip1.wav": audio(1)}
    Hub.files = {**(inside if layout == "parquet" else beside), "set.py": b"raise SystemExit(9)"}
    program = (
        "import sys; from pathlib import Path; from ser_scripts.corpora.sources import read_source\n"
        "from ser_scripts.specs.corpora import HuggingFaceCorpus\n"
        "spec = HuggingFaceCorpus(kind='huggingface', name='x', path='owner/set', revision=sys.argv[1] or None)\n"
        "here = Path(sys.argv[2])\n"
        "found = read_source(spec, data=here, locations={}, cache=here / 'cache', base=here)\n"
        "print(*(f'{row.path}={row.class_id}' for row in found.rows))"
    )
    settings = {**os.environ, "HF_ENDPOINT": hub, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}

    def ask(revision: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", program, revision, str(tmp_path)]
        return subprocess.run(command, capture_output=True, text=True, env={**settings, **more}, check=False)

    first = ask("")
    assert first.stdout.split() == ["train/clip0.wav=angry", "train/clip1.wav=happy"], first.stderr
    assert not any("set.py" in path for path in Hub.asked)
    offline = ask(Hub.commit, HF_HUB_OFFLINE="1")
    assert offline.stdout == first.stdout, offline.stderr
