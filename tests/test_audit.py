"""The audit of anybody's split file finds each slip it promises to find, and nothing in an honest split."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from pydantic import TypeAdapter

from ser_scripts.errors import BadInput
from ser_scripts.leaks import audit, match_clips
from ser_scripts.specs.splits import SplitSpec
from ser_scripts.splits import NEEDED_COLUMNS, draw, write_split


def corpus(speakers: int = 10, *, lacking: tuple[str, str] | None = None, classes: int = 3) -> pd.DataFrame:
    rows = []
    for number in range(speakers):
        actor, gender = f"s{number:02}", ("female", "male")[number % 2]
        for c in range(classes):
            if (actor, f"e{c}") != lacking:
                path = f"{actor}/e{c}.wav"
                rows.append(["c", path, f"e{c}", actor, gender, actor, "a", f"sha of {path}"])
    return pd.DataFrame(rows, columns=NEEDED_COLUMNS)


def honest() -> pd.DataFrame:
    """An honest split: s00 to s05 train, s06 and s07 validate, s08 and s09 are tested."""
    table = corpus().drop(columns=["sentence", "audio_sha256"])
    place = table["actor"].str[1:].astype(int)
    table["split"] = place.map(lambda number: "train" if number < 6 else "validation" if number < 8 else "test")
    return table


def findings(tmp_path: Path, table: pd.DataFrame, manifest: pd.DataFrame | None = None, sep: str = ",") -> list[str]:
    table.to_csv(tmp_path / "split.csv", index=False, sep=sep)
    if manifest is None:
        return audit(tmp_path / "split.csv")
    manifest.to_csv(tmp_path / "manifest.csv", index=False)
    return audit(tmp_path / "split.csv", tmp_path / "manifest.csv")


@pytest.mark.parametrize("sep", [",", ";", "\t"])
def test_an_honest_split_has_no_findings(tmp_path: Path, sep: str) -> None:
    assert findings(tmp_path, honest(), corpus(), sep) == []
    bare = honest().drop(columns=["corpus", "group"])
    bare["split"] = bare["split"].replace({"validation": "dev", "test": "TEST"})
    assert findings(tmp_path, bare, corpus(), sep) == []


def test_our_own_splits_have_no_findings(tmp_path: Path) -> None:
    spec: SplitSpec = TypeAdapter(SplitSpec).validate_python({"kind": "speaker_independent"})
    (split,) = draw(corpus(), spec, 0, train_corpora=["c"])
    write_split(split, tmp_path)
    corpus().to_csv(tmp_path / "manifest.csv", index=False)
    assert audit(tmp_path / "split.csv", tmp_path / "manifest.csv") == []


def test_the_legacy_draw_is_found_to_leak(tmp_path: Path) -> None:
    spec: SplitSpec = TypeAdapter(SplitSpec).validate_python({"kind": "legacy_per_emotion"})
    for lacking, leaks in ((None, False), (("s04", "e1"), True)):
        (split,) = draw(corpus(40, lacking=lacking), spec, 1, train_corpora=["c"])
        write_split(split, tmp_path)
        found = audit(tmp_path / "split.csv")
        assert any("speakers on two sides: c/s" in finding for finding in found) is leaks
        assert bool(found) is leaks


def test_a_leaking_speaker_is_named_and_counted(tmp_path: Path) -> None:
    table = honest()
    table.loc[table["path"] == "s08/e1.wav", "split"] = "train"
    assert findings(tmp_path, table) == [
        "1 speaker on two sides: c/s08 (train 1, test 2); 1 of 2 test speakers, 2 of 5 test clips"
    ]


def test_a_leaking_group_is_named(tmp_path: Path) -> None:
    table = honest()
    table.loc[table["actor"].isin(["s05", "s08"]), "group"] = "session"
    assert findings(tmp_path, table) == ["1 group on two sides: c/session"]
    table.loc[table["actor"] == "s08", "split"] = "unused"
    assert findings(tmp_path, table) == []


def test_paths_twice(tmp_path: Path) -> None:
    table = honest()
    twice = pd.concat([table, table.iloc[:1]])
    assert findings(tmp_path, twice) == ["1 clip listed twice: c/s00/e0.wav"]
    other = table.iloc[:1].assign(split="test")
    found = findings(tmp_path, pd.concat([table, other]))
    assert found[0] == "1 clip on two sides: c/s00/e0.wav"
    assert found[1].startswith("1 speaker on two sides: c/s00 (train 3, test 1)")
    assert len(found) == 2


def test_copies_by_name(tmp_path: Path) -> None:
    table = honest()
    copy = table[table["path"] == "s00/e0.wav"].assign(path="s00/e0.flac", actor="s08", group="s08", split="test")
    found = findings(tmp_path, pd.concat([table, copy.assign(gender="female")]))
    assert found == ["2 clips of one name on two sides, likely copies: c/s00/e0.flac, c/s00/e0.wav"]
    elsewhere = table[table["path"] == "s00/e0.wav"].assign(path="again/e0.wav", split="test")
    found = findings(tmp_path, pd.concat([table, elsewhere]))
    assert "2 clips of one name on two sides, likely copies: c/again/e0.wav, c/s00/e0.wav" in found


def test_clips_numbered_per_speaker_are_no_copies(tmp_path: Path) -> None:
    table = honest()
    assert table["path"].str.endswith("/e0.wav").sum() == 10
    assert findings(tmp_path, table) == []


def test_classes_sides_names_and_genders(tmp_path: Path) -> None:
    table = honest()
    table.loc[(table["class_id"] == "e2") & (table["split"] == "train"), "split"] = "unused"
    table.loc[table["split"] == "validation", "split"] = "practice"
    table.loc[table["path"] == "s03/e0.wav", "gender"] = "female"
    assert findings(tmp_path, table) == [
        "unknown split names, 6 clips: 'practice'; known: train, validation, valid, val, dev, test, unused",
        "the validation side is empty",
        "1 speaker with more than one gender: c/s03",
        "class without a clip in train: e2",
    ]


def test_unknown_speakers_are_a_finding(tmp_path: Path) -> None:
    table = honest()
    table.loc[table["actor"] == "s08", ["actor", "group"]] = ""
    assert findings(tmp_path, table) == ["3 clips without actor: whether sides share these speakers cannot be told"]


def test_the_manifest_tells_the_same_audio_and_other_actors(tmp_path: Path) -> None:
    manifest = corpus()
    manifest.loc[manifest["path"] == "s09/e2.wav", "audio_sha256"] = "sha of s00/e0.wav"
    assert findings(tmp_path, honest(), manifest) == [
        "the same audio on two sides, 2 clips: c/s00/e0.wav, c/s09/e2.wav"
    ]
    manifest = corpus()
    manifest.loc[manifest["path"] == "s09/e2.wav", "actor"] = "s01"
    assert findings(tmp_path, honest(), manifest) == ["1 clip with another manifest actor: c/s09/e2.wav"]
    assert findings(tmp_path, honest(), corpus().iloc[1:]) == ["1 clip not in the manifest: c/s00/e0.wav"]


def test_names_are_shortened(tmp_path: Path) -> None:
    table = honest()
    table["split"] = ["train", "validation", "test"] * 10
    (found,) = findings(tmp_path, table)[:1]
    assert found.startswith("10 speakers on two sides: c/s00 (train 1, validation 1, test 1), ")
    table = pd.concat([table, table.assign(actor="t" + table["actor"], group="", path="t" + table["path"])])
    assert "(and 10 more); 20 of 20 test speakers, 20 of 20 test clips" in findings(tmp_path, table)[0]


def test_match_by_path_or_by_name_but_not_both() -> None:
    manifest = pd.DataFrame({"corpus": ["c", "c", "d"], "path": ["x/a.wav", "y/b.wav", "x/a.wav"]})

    def rows(paths: list[str], corpora: list[str]) -> list[int]:
        return [int(row) for row in match_clips(pd.Series(paths), pd.Series(corpora), manifest)]

    assert rows(["x/a.wav", "z/b.wav"], ["c", "c"]) == [0, -1]
    assert rows(["C:\\a.flac", "b"], ["c", "c"]) == [0, 1]
    assert rows(["a.flac", "b.flac"], ["", ""]) == [-2, 1]
    assert rows(["x/a.wav", ".\\y\\b.wav"], ["d", "c"]) == [2, 1]


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such split file"):
        audit(tmp_path / "none.csv")
    with pytest.raises(BadInput, match=r"split.csv \(split\) lacks the column\(s\) split; it has corpus, path"):
        findings(tmp_path, honest().drop(columns="split"))
    with pytest.raises(BadInput, match=r"manifest.csv \(manifest\) lacks the column\(s\) audio_sha256"):
        findings(tmp_path, honest(), corpus().drop(columns="audio_sha256"))
    both = pd.concat([corpus(), corpus().assign(corpus="d")])
    with pytest.raises(BadInput, match="holds 2 corpora and the split has no column 'corpus'"):
        findings(tmp_path, honest().drop(columns="corpus"), both)
    (tmp_path / "split.csv").write_bytes(b"path,split\n\xff\xfe,train\n")
    with pytest.raises(BadInput, match="not a table of text in UTF-8"):
        audit(tmp_path / "split.csv")
    (tmp_path / "split.csv").write_bytes(b"")
    with pytest.raises(BadInput, match="not a table of text"):
        audit(tmp_path / "split.csv")
