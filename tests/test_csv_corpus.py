"""CSVs of clips: every form that is read, and every fault that is named."""

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from ser_scripts.corpora import ClipRow
from ser_scripts.corpora.csv_corpus import read_csv
from ser_scripts.errors import BadInput


def write(folder: Path, text: str, *clips: str, encoding: str = "utf-8") -> Path:
    """A CSV in `folder`, and empty clips relative to it."""
    for clip in clips:
        file = folder / clip
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "clips.csv").write_text(text, encoding=encoding)
    return folder / "clips.csv"


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_the_full_form(tmp_path: Path, delimiter: str, encoding: str, newline: str) -> None:
    lines = ["path,class_id,actor,gender", "b/2.wav,None,NA,Female", "a/1.wav,tristezza è,03,m"]
    text = newline.join(lines).replace(",", delimiter) + newline
    root, rows, speakers_known = read_csv(write(tmp_path, text, "a/1.wav", "b/2.wav", encoding=encoding))
    assert root == tmp_path
    assert speakers_known
    assert rows == [
        ClipRow(path="a/1.wav", class_id="tristezza è", actor="03", gender="male"),
        ClipRow(path="b/2.wav", class_id="None", actor="NA", gender="female"),
    ]


@pytest.mark.parametrize(
    "header", ["path,label", "path,emotion_code", "path,emotion", "file_path,emotion_code", "file_path,class_id"]
)
def test_forms_without_speakers(tmp_path: Path, header: str) -> None:
    _, rows, speakers_known = read_csv(write(tmp_path, f"{header}\n1.wav,happy\n", "1.wav"))
    assert not speakers_known
    assert rows == [ClipRow(path="1.wav", class_id="happy", actor="", gender="unknown")]


def test_speakers_without_gender(tmp_path: Path) -> None:
    _, rows, speakers_known = read_csv(write(tmp_path, "path,class_id,actor\n1.wav,happy,7\n", "1.wav"))
    assert speakers_known
    assert rows == [ClipRow(path="1.wav", class_id="happy", actor="7", gender="unknown")]


def test_optional_columns_in_any_order_and_case(tmp_path: Path) -> None:
    header = "Language,group,PATH,sentence,gender,actor,class_id,duration\n"
    text = header + "de-AT,s1,1.wav,a01,w,7,happy,1.5\n,,2.wav,,w,7,sad,2\n"
    _, rows, _ = read_csv(write(tmp_path, text, "1.wav", "2.wav"))
    assert rows[0] == ClipRow("1.wav", "happy", "7", "female", group="s1", sentence="a01", language="de-AT")
    assert rows[1] == ClipRow("2.wav", "sad", "7", "female")


@pytest.mark.parametrize(
    ("written", "read"),
    [
        *(("female", "female"), ("F", "female"), ("W", "female"), ("MALE", "male"), ("m", "male")),
        *(("Other", "other"), ("unknown", "unknown")),
    ],
)
def test_genders(tmp_path: Path, written: str, read: str) -> None:
    _, rows, _ = read_csv(write(tmp_path, f"path,class_id,actor,gender\n1.wav,a,7,{written}\n", "1.wav"))
    assert rows[0].gender == read


def test_paths_resolve_against_the_csv_then_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "", "in_cwd.wav", "both.wav", "elsewhere/absolute.wav", "set/both.wav", "set/sub/here.wav")
    absolute = tmp_path / "elsewhere" / "absolute.wav"
    inside = tmp_path / "set" / "sub" / "here.wav"
    names = ["in_cwd.wav", "both.wav", str(absolute), str(inside)]
    write(tmp_path / "set", "path,label\n" + "".join(f"{name},x\n" for name in names))
    root, rows, _ = read_csv(Path("set/clips.csv"))
    assert root == tmp_path / "set"
    assert {row.path for row in rows} == {
        (tmp_path / "in_cwd.wav").as_posix(),
        "both.wav",
        absolute.as_posix(),
        "sub/here.wav",
    }


def test_paths_are_normalised(tmp_path: Path) -> None:
    _, rows, _ = read_csv(write(tmp_path, "path,label\n./a/../a/1.wav,x\n", "a/1.wav"))
    assert rows[0].path == "a/1.wav"


def test_a_linked_folder_keeps_relative_paths(tmp_path: Path) -> None:
    write(tmp_path / "real", "path,label\n1.wav,x\n", "1.wav")
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    root, rows, _ = read_csv(tmp_path / "link" / "clips.csv")
    assert (root, rows[0].path) == (tmp_path / "link", "1.wav")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,class_id,actor,gender\n1.wav,a,7,x\n", r"clips\.csv line 2: gender 'x' is not valid; valid: female, f"),
        ("path,class_id,actor,gender\n1.wav,a,7,\n", "line 2: gender '' is not valid"),
        ("path,class_id,actor,gender\n1.wav,a,,f\n", "line 2: actor is empty"),
        ("path,class_id,actor,gender\n1.wav,,7,f\n", "line 2: class_id is empty"),
        ("path,class_id,actor,gender\n,a,7,f\n", "line 2: path is empty"),
        (
            "path,class_id,actor,gender\n1.wav,a,7,f\n2.wav,b,7,m\n",
            "line 3: actor '7' is male, but female in an earlier",
        ),
        ("path,class_id,actor,gender\n1.wav,a,7\n", "line 2: 3 cells, the header has 4"),
        (
            "path,label,emotion\n1.wav,a,b\n",
            "exactly one column of class_id, label, .* found columns label and emotion",
        ),
        (
            "path,file_path,label\n1.wav,2.wav,b\n",
            "exactly one column of path, file_path is needed; found columns path",
        ),
        ("path,actor\n1.wav,7\n", r"found no such column \(the header has path, actor\)"),
        ("1.wav,happy\n2.wav,sad\n", "exactly one column of path, file_path is needed; found no such column"),
        ("path,label\n", "lists no clips"),
        ("", "the header has nothing"),
        ("path,label\n1.wav,a\n./1.wav,a\n", r"1 clips are listed again: \./1\.wav \(line 3\)"),
        ("path,label,speaker\n1.wav,a,7\n", "unknown column 'speaker'; did you mean 'actor'?"),
        ("path,label,actors\n1.wav,a,7\n", "unknown column 'actors'; did you mean 'actor'?"),
        ("path,label,actor,sex\n1.wav,a,7,f\n", "unknown column 'sex'; did you mean 'gender'?"),
    ],
)
def test_faults_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        read_csv(write(tmp_path, text, "1.wav", "2.wav"))


def test_all_missing_clips_stand_in_one_error(tmp_path: Path) -> None:
    text = "path,label\n1.wav,a\n" + "".join(f"gone/{number:02d}.wav,a\n" for number in range(12))
    with pytest.raises(BadInput, match=r"12 clips do not exist.*gone/00\.wav, .*gone/09\.wav, \.\.\. \(2 more\)"):
        read_csv(write(tmp_path, text, "1.wav"))


def test_a_missing_csv_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"nowhere\.csv: no such CSV file"):
        read_csv(tmp_path / "nowhere.csv")


NAMES = st.text(st.characters(categories=["L", "N"], include_characters="._- ,;'\""), min_size=1, max_size=12).filter(
    lambda name: name.strip() == name and name.strip("." + " ") != "" and len(os.fsencode(name)) < 200
)


@given(clips=st.dictionaries(NAMES, NAMES, min_size=1, max_size=5), delimiter=st.sampled_from(",;\t"))
@hypothesis_settings(max_examples=60)
def test_what_a_csv_writer_wrote_is_read_as_it_was(clips: dict[str, str], delimiter: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name in clips:
            (Path(folder) / f"{name}.wav").touch()
        lines = [("path", "class_id", "actor"), *((f"{name}.wav", label, label) for name, label in clips.items())]
        quoted = (delimiter.join('"' + cell.replace('"', '""') + '"' for cell in line) for line in lines)
        file = Path(folder) / "clips.csv"
        file.write_text("\n".join(quoted), encoding="utf-8")
        _, rows, _ = read_csv(file)
    assert {row.path: (row.class_id, row.actor) for row in rows} == {
        f"{name}.wav": (label, label) for name, label in clips.items()
    }
    assert [row.path for row in rows] == sorted(row.path for row in rows)
