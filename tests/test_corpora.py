"""Readers of the named corpora, on miniatures in the corpora's own layout, and on the real ones where they are."""

import json
import random
import re
import tempfile
from collections import Counter
from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from ser_scripts import corpora
from ser_scripts.audio.decode import SUFFIXES
from ser_scripts.cli import app
from ser_scripts.corpora import ClipRow, _files
from ser_scripts.corpora.listing import WIDTH, describe_source, format_listing, list_corpora, page, pages, write_pages
from ser_scripts.errors import BadInput

NAMED_BY_RULE = ["cremad", "emodb", "emovo", "ravdess"]
"""Corpora whose file names say everything, so that the full list of stems needs no folder."""

DEMOGRAPHICS = '"ActorID","Age","Sex","Race","Ethnicity"\n1001,51,"Male","x","y"\n1002,21,"Female","x","y"\n'


def write_clip(file: Path) -> None:
    """A tenth of a second of noise; m4a stays empty, since readers decode nothing."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix.lower() == ".m4a":
        file.touch()
        return
    noise = np.random.default_rng(0).normal(0, 0.1, 1600).astype(np.float32)
    container = {".opus": ("OGG", "OPUS"), ".ogg": ("OGG", "VORBIS"), ".mp3": ("MP3", None)}
    form, subtype = container.get(file.suffix.lower(), (file.suffix[1:].upper(), None))
    soundfile.write(file, noise, 16000, format=form, subtype=subtype)


def write_text(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def touch(root: Path, *paths: str) -> Path:
    for path in paths:
        write_text(root / path, "")
    return root


# the registry


def test_all_corpora_are_found_in_order() -> None:
    assert {"cremad", "emodb", "emovo", "emozionalmente", "ravdess", "toy"} <= set(corpora.names())
    assert corpora.names() == sorted(corpora.names())


def test_an_unknown_corpus_names_the_nearest() -> None:
    with pytest.raises(BadInput, match=r"corpus 'emodbb' is not known; did you mean 'emodb'\?"):
        corpora.get("emodbb")


@pytest.mark.parametrize(
    "helper",
    [
        "listing",
        "csv_corpus",
        "audiofolder_corpus",
        "huggingface_corpus",
        "emobox_corpus",
        "sources",
        "twins",
        "_files",
    ],
)
def test_a_helper_is_no_corpus(helper: str) -> None:
    with pytest.raises(BadInput, match="is not known"):
        corpora.get(helper)


@pytest.mark.parametrize("name", corpora.names())
def test_every_corpus_states_what_it_is(name: str) -> None:
    corpus = corpora.get(name)
    assert name == corpus.NAME
    for text in (corpus.TITLE, corpus.LICENCE, corpus.CITATION, corpus.SOURCE, corpus.__doc__):
        assert text
        assert text.strip()
    assert re.fullmatch(r"[a-z]{2,3}(-[A-Za-z0-9]+)*", corpus.LANGUAGE)
    assert corpus.LAYOUT in ("confirmed", "unverified")
    assert corpus.EXPECTED_CLIPS is None or (corpus.EXPECTED_SPEAKERS or 0) < corpus.EXPECTED_CLIPS
    assert corpus.EXPECTED_SPEAKERS is None or corpus.EXPECTED_SPEAKERS >= 1
    re.compile(corpus.FILE_NAMES)
    assert all(text.strip() for text in corpora.label_sets(corpus).values())
    assert callable(corpus.read)
    assert callable(corpus.expected_stems)


DATA = Path(__file__).parent.parent / "data"


@pytest.mark.parametrize("name", corpora.names())
def test_the_page_of_a_corpus_is_made_from_its_module(name: str) -> None:
    text = page(name)
    assert (DATA / f"{name}.md").read_text(encoding="utf-8") == text, "run `make pages`"
    for heading in ("## Where to get it", "## Licence", "## Layout", "## Labels", "## How to cite"):
        assert heading in text
    if corpora.get(name).LAYOUT == "unverified":
        assert "UNVERIFIED" in text


def test_the_table_of_all_corpora_is_made_from_the_modules() -> None:
    readme = (DATA / "README.md").read_text(encoding="utf-8")
    assert pages(readme)["README.md"] == readme, "run `make pages`"
    made = {f"{name}.md" for name in corpora.names()}
    assert made | {"README.md", "csv.md"} == {file.name for file in DATA.glob("*.md")}


def test_pages_are_written_once(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"README\.md: no such file; expected the project's data folder"):
        write_pages(tmp_path)
    write_text(tmp_path / "README.md", "# Data\n")
    with pytest.raises(BadInput, match=r"data/README\.md lacks the lines"):
        write_pages(tmp_path)
    write_text(tmp_path / "README.md", (DATA / "README.md").read_text(encoding="utf-8"))
    assert "emodb.md" in write_pages(tmp_path)
    assert write_pages(tmp_path) == []


def test_rows_do_not_change() -> None:
    row = ClipRow(path="a.wav", class_id="sad", actor="1", gender="male")
    with pytest.raises(FrozenInstanceError):
        row.actor = "2"  # type: ignore[misc]


# the full lists


@pytest.mark.parametrize("name", NAMED_BY_RULE)
def test_the_list_of_stems_is_complete(name: str, tmp_path: Path) -> None:
    corpus = corpora.get(name)
    stems = corpus.expected_stems(tmp_path / "needs no folder")
    assert stems is not None
    assert len(stems) == len(set(stems)) == corpus.EXPECTED_CLIPS
    assert stems == sorted(stems)


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        (
            "emodb",
            {"angry": 127, "bored": 81, "neutral": 79, "happy": 71, "fearful": 69, "sad": 62, "disgusted": 46},
        ),
        ("emovo", dict.fromkeys(["angry", "happy", "sad", "neutral", "fearful", "disgusted", "surprised"], 84)),
        (
            "ravdess",
            {"neutral": 96}
            | dict.fromkeys(["calm", "happy", "sad", "angry", "fearful", "disgusted", "surprised"], 192),
        ),
        ("cremad", {"neutral": 1087} | dict.fromkeys(["angry", "disgusted", "fearful", "happy", "sad"], 1271)),
    ],
)
def test_complete_corpora_have_their_published_counts(name: str, counts: dict[str, int], tmp_path: Path) -> None:
    corpus = corpora.get(name)
    stems = corpus.expected_stems(tmp_path)
    assert stems is not None
    touch(tmp_path, *(f"{stem}.wav" for stem in stems))
    actors = [str(number) for number in range(1001, 1092)]
    write_text(tmp_path / "VideoDemographics.csv", "ActorID,Sex\n" + "".join(f"{a},Male\n" for a in actors))
    rows = corpus.read(tmp_path)
    assert Counter(row.class_id for row in rows) == counts
    assert len({row.actor for row in rows}) == corpus.EXPECTED_SPEAKERS
    assert [Path(row.path).stem for row in rows] == stems


@pytest.mark.parametrize(
    ("name", "men"),
    [
        ("emodb", ["03", "10", "11", "12", "15"]),
        ("emovo", ["m1", "m2", "m3"]),
        ("ravdess", [f"{number:02d}" for number in range(1, 25, 2)]),
    ],
)
def test_half_of_the_speakers_are_men_and_these(name: str, men: list[str], tmp_path: Path) -> None:
    corpus = corpora.get(name)
    touch(tmp_path, *(f"{stem}.wav" for stem in corpus.expected_stems(tmp_path) or []))
    genders = {row.actor: row.gender for row in corpus.read(tmp_path)}
    assert sorted(actor for actor, gender in genders.items() if gender == "male") == men
    assert Counter(genders.values())["female"] == len(men)


@given(data=st.data())
@hypothesis_settings(max_examples=15)
def test_any_part_of_a_corpus_in_any_folders_is_read_whole(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["emodb", "emovo", "ravdess"]))
    corpus = corpora.get(name)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        stems = data.draw(
            st.lists(st.sampled_from(corpus.expected_stems(root) or []), min_size=1, max_size=8, unique=True)
        )
        for stem in stems:
            suffix = data.draw(st.sampled_from([*SUFFIXES, ".WAV"]))
            touch(root, data.draw(st.sampled_from(["", "wav/", "a/b/", "Actor 1/x.y/"])) + stem + suffix)
        rows = corpus.read(root)
    assert sorted(Path(row.path).stem for row in rows) == sorted(stems)
    assert [row.path for row in rows] == sorted(row.path for row in rows)


# each corpus' own naming


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_emodb(tmp_path: Path, suffix: str) -> None:
    write_clip(tmp_path / "wav" / f"03a01Fa{suffix}")
    write_clip(tmp_path / "wav" / f"16b10Td{suffix}")
    write_text(tmp_path / "erkennung.txt", "not audio")
    write_text(tmp_path / "lablaut" / "03a01Fa.lablaut", "not audio")
    assert corpora.get("emodb").read(tmp_path) == [
        ClipRow(path=f"wav/03a01Fa{suffix}", class_id="happy", actor="03", gender="male", sentence="a01"),
        ClipRow(path=f"wav/16b10Td{suffix}", class_id="sad", actor="16", gender="female", sentence="b10"),
    ]


def test_emovo(tmp_path: Path) -> None:
    touch(tmp_path, "EMOVO/m3/sor-m3-n5.wav", "EMOVO/f1/dis-f1-b1.wav", "EMOVO/documents/paper.pdf")
    assert corpora.get("emovo").read(tmp_path) == [
        ClipRow(path="EMOVO/f1/dis-f1-b1.wav", class_id="disgusted", actor="f1", gender="female", sentence="b1"),
        ClipRow(path="EMOVO/m3/sor-m3-n5.wav", class_id="surprised", actor="m3", gender="male", sentence="n5"),
    ]


def test_ravdess_is_speech_and_audio_only(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "Actor_01/03-01-08-02-01-02-01.wav",
        "Actor_12/03-01-06-01-02-01-12.wav",
        "Song/Actor_12/03-02-06-01-02-01-12.wav",
        "Video/Actor_12/01-01-06-01-02-01-12.wav",
    )
    assert corpora.get("ravdess").read(tmp_path) == [
        ClipRow(
            path="Actor_01/03-01-08-02-01-02-01.wav", class_id="surprised", actor="01", gender="male", sentence="01"
        ),
        ClipRow(
            path="Actor_12/03-01-06-01-02-01-12.wav", class_id="fearful", actor="12", gender="female", sentence="02"
        ),
    ]


def test_cremad(tmp_path: Path) -> None:
    touch(tmp_path, "AudioWAV/1002_DFA_NEU_XX.wav", "AudioWAV/1001_IEO_ANG_HI.wav")
    write_text(tmp_path / "VideoDemographics.csv", DEMOGRAPHICS)
    assert corpora.get("cremad").read(tmp_path) == [
        ClipRow(
            path="AudioWAV/1001_IEO_ANG_HI.wav",
            class_id="angry",
            actor="1001",
            gender="male",
            sentence="IEO",
            intensity="high",
        ),
        ClipRow(path="AudioWAV/1002_DFA_NEU_XX.wav", class_id="neutral", actor="1002", gender="female", sentence="DFA"),
    ]


def test_cremad_has_its_one_odd_name_and_not_the_regular_one(tmp_path: Path) -> None:
    stems = set(corpora.get("cremad").expected_stems(tmp_path) or [])
    assert "1040_ITH_SAD_X" in stems
    assert stems.isdisjoint({"1040_ITH_SAD_XX", "1002_TIE_NEU_XX", "1008_WSI_SAD_XX", "1076_ITS_NEU_XX"})
    assert {"1076_MTI_SAD_XX", "1017_IWW_ANG_XX", "1091_IEO_NEU_XX", "1091_IEO_DIS_MD"} <= stems


@pytest.mark.parametrize(
    "place", ["VideoDemographics.csv", "cremad/VideoDemographics.csv", "cremad/AudioWAV/VideoDemographics.csv"]
)
def test_cremad_demographics_lie_in_the_folder_or_right_above(tmp_path: Path, place: str) -> None:
    touch(tmp_path, "cremad/AudioWAV/1002_DFA_NEU_XX.wav")
    write_text(tmp_path / place, DEMOGRAPHICS)
    assert corpora.get("cremad").read(tmp_path / "cremad")[0].gender == "female"


def test_cremad_without_demographics_has_the_packaged_genders(tmp_path: Path) -> None:
    touch(tmp_path, "cremad/1001_DFA_NEU_XX.wav", "cremad/1002_DFA_NEU_XX.wav")
    genders = {row.actor: row.gender for row in corpora.get("cremad").read(tmp_path / "cremad")}
    assert genders == {"1001": "male", "1002": "female"}


def test_an_actor_without_demographics_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "1002_DFA_NEU_XX.wav", "1003_DFA_NEU_XX.wav")
    write_text(tmp_path / "VideoDemographics.csv", DEMOGRAPHICS)
    with pytest.raises(BadInput, match="1 speakers of the clips are missing: 1003"):
        corpora.get("cremad").read(tmp_path)


def test_the_mp3_twins_of_cremad_are_passed_over_only_beside_the_wavs(tmp_path: Path) -> None:
    write_text(tmp_path / "VideoDemographics.csv", DEMOGRAPHICS)
    touch(tmp_path, "AudioMP3/1002_DFA_NEU_XX.mp3")
    assert [row.path for row in corpora.get("cremad").read(tmp_path)] == ["AudioMP3/1002_DFA_NEU_XX.mp3"]
    touch(tmp_path, "AudioWAV/1002_DFA_NEU_XX.wav")
    assert [row.path for row in corpora.get("cremad").read(tmp_path)] == ["AudioWAV/1002_DFA_NEU_XX.wav"]


# Emozionalmente, which is described by tables

USERS = "username,gender,age,mother_tongue\n007,female,30,it\nNA,other,40,it\nrater,prefers not to say,50,it\n"
SAMPLES = 'file_name,actor,emotion_expressed,sentence\n16.wav,NA,neutrality,Sono a casa\n03.wav,007,joy,"Vado, torno"\n'


def emozionalmente(root: Path, *, users: str = USERS, samples: str = SAMPLES) -> Path:
    write_text(root / "metadata" / "users.csv", users)
    write_text(root / "metadata" / "samples.csv", samples)
    return touch(root, "audio/03.wav", "audio/16.wav")


def test_emozionalmente(tmp_path: Path) -> None:
    emozionalmente(tmp_path)
    assert corpora.get("emozionalmente").read(tmp_path) == [
        ClipRow(path="audio/03.wav", class_id="happy", actor="007", gender="female", sentence="Vado, torno"),
        ClipRow(path="audio/16.wav", class_id="neutral", actor="NA", gender="other", sentence="Sono a casa"),
    ]
    assert corpora.get("emozionalmente").expected_stems(tmp_path) == ["03", "16"]


def test_emozionalmente_in_its_zip_folder_and_as_flac(tmp_path: Path) -> None:
    root = emozionalmente(tmp_path / "emozionalmente_dataset")
    (root / "audio/03.wav").rename(root / "audio/03.flac")
    paths = [row.path for row in corpora.get("emozionalmente").read(tmp_path)]
    assert paths == ["emozionalmente_dataset/audio/03.flac", "emozionalmente_dataset/audio/16.wav"]


def test_emozionalmente_without_a_sentence_column(tmp_path: Path) -> None:
    emozionalmente(tmp_path, samples="file_name,actor,emotion_expressed\n03.wav,007,joy\n16.wav,NA,fear\n")
    assert [row.sentence for row in corpora.get("emozionalmente").read(tmp_path)] == [None, None]


def test_a_missing_clip_of_emozionalmente_is_known_from_the_table(tmp_path: Path) -> None:
    corpus = corpora.get("emozionalmente")
    (emozionalmente(tmp_path) / "audio/03.wav").unlink()
    assert {Path(row.path).stem for row in corpus.read(tmp_path)} == {"16"}
    assert set(corpus.expected_stems(tmp_path) or []) == {"03", "16"}


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"samples": SAMPLES.replace("joy", "love")}, r"samples\.csv line 3: emotion_expressed 'love' is not valid"),
        ({"samples": SAMPLES + "03.wav,007,joy,x\n"}, r"line 4: file_name '03\.wav' stands there twice"),
        ({"samples": SAMPLES.replace("007", "")}, r"samples\.csv line 3: actor is empty"),
        ({"samples": SAMPLES.replace("actor", "who")}, "column actor is missing; the header has file_name, who"),
        ({"samples": SAMPLES + "17.wav,NA,joy\n"}, "line 4: 3 cells, the header has 4"),
        ({"samples": SAMPLES.replace("03.wav", "04.wav")}, r"1 audio files that are not of .*: audio/03\.wav"),
        ({"users": USERS.replace("007", "7")}, r"users\.csv: 1 speakers of the clips are missing: 007"),
        ({"users": USERS.replace("other", "?")}, r"users\.csv line 3: gender '\?' is not valid; valid: female, f, w"),
        ({"users": USERS + "007,male,30,it\n"}, "line 5: speaker '007' is male, but female before"),
    ],
)
def test_faults_in_the_tables_are_named(tmp_path: Path, tables: dict[str, str], message: str) -> None:
    emozionalmente(tmp_path, **tables)
    with pytest.raises(BadInput, match=message):
        corpora.get("emozionalmente").read(tmp_path)


def test_two_tables_of_one_name_are_refused(tmp_path: Path) -> None:
    emozionalmente(tmp_path)
    write_text(tmp_path / "old" / "samples.csv", SAMPLES)
    with pytest.raises(BadInput, match=r"several files samples\.csv: .*metadata/samples\.csv, .*old/samples\.csv"):
        corpora.get("emozionalmente").read(tmp_path)


# what must not be passed over in silence


@pytest.mark.parametrize(
    ("name", "good", "strange"),
    [
        ("emodb", "03a01Fa", "03a01Xa"),
        ("emodb", "03a01Fa", "99a01Fa"),
        ("emodb", "03a01Fa", "03a01Fa_noisy"),
        ("emovo", "dis-f1-b1", "dis-f4-b1"),
        ("emovo", "dis-f1-b1", "Dis-f1-b2"),
        ("ravdess", "03-01-06-01-02-01-12", "03-01-01-02-02-01-12"),
        ("ravdess", "03-01-06-01-02-01-12", "03-01-09-01-02-01-12"),
        ("ravdess", "03-01-06-01-02-01-12", "3-1-6-1-2-1-12"),
        ("cremad", "1001_DFA_ANG_XX", "1092_DFA_ANG_XX"),
        ("cremad", "1001_DFA_ANG_XX", "1001_DFA_ANG"),
    ],
)
def test_names_that_are_not_of_the_corpus_are_listed(name: str, good: str, strange: str, tmp_path: Path) -> None:
    write_text(tmp_path / "VideoDemographics.csv", DEMOGRAPHICS)
    touch(tmp_path, f"wav/{good}.wav", f"wav/{strange}.wav")
    with pytest.raises(BadInput, match=rf"1 audio files that are not of .*: wav/{strange}\.wav\. Move them"):
        corpora.get(name).read(tmp_path)


def test_many_strange_names_are_counted(tmp_path: Path) -> None:
    touch(tmp_path, *(f"x{number:02d}.wav" for number in range(13)))
    with pytest.raises(BadInput, match=r"holds 13 audio files .*x00\.wav, .*x09\.wav, \.\.\. \(3 more\)"):
        corpora.get("emodb").read(tmp_path)


def test_two_files_of_one_stem_are_both_named(tmp_path: Path) -> None:
    touch(tmp_path, "a/03a01Fa.wav", "b/03a01Fa.flac")
    with pytest.raises(BadInput, match=r"two files of one name: a/03a01Fa\.wav and b/03a01Fa\.flac"):
        corpora.get("emodb").read(tmp_path)


def test_the_telephone_copy_beside_wav_is_passed_over_and_alone_it_is_read(tmp_path: Path) -> None:
    touch(tmp_path, "wav_telephone/03a01Fa.wav")
    assert list(_files.find_clips(tmp_path).values()) == ["wav_telephone/03a01Fa.wav"]
    touch(tmp_path, "wav/03a01Fa.wav")
    assert list(_files.find_clips(tmp_path).values()) == ["wav/03a01Fa.wav"]


def test_hidden_and_apple_double_files_are_no_clips(tmp_path: Path) -> None:
    touch(tmp_path, "03a01Fa.wav", "._03a01Fa.wav", ".03a01Nc.wav", ".git/03a01Nc.wav", "__MACOSX/._03a01Nc.wav")
    assert _files.find_clips(tmp_path) == {"03a01Fa": "03a01Fa.wav"}


def test_linked_folders_are_followed_and_loops_end(tmp_path: Path) -> None:
    touch(tmp_path, "elsewhere/03a01Fa.wav", "emodb/notes.txt")
    (tmp_path / "emodb" / "wav").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "elsewhere" / "up").symlink_to(tmp_path / "emodb", target_is_directory=True)
    assert _files.find_clips(tmp_path / "emodb") == {"03a01Fa": "wav/03a01Fa.wav"}


def test_the_order_in_which_files_were_made_does_not_matter(tmp_path: Path) -> None:
    paths = [
        f"{folder}/{stem}.wav"
        for folder, stem in zip(
            "aabbcc", ["03a01Nc", "03a01Fa", "16b10Td", "08a01Na", "03a01Wa", "08a01Ab"], strict=True
        )
    ]
    results = []
    for seed in range(3):
        root = tmp_path / str(seed)
        touch(root, *random.Random(seed).sample(paths, len(paths)))
        results.append([(row.path, row.class_id) for row in corpora.get("emodb").read(root)])
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("name", [*NAMED_BY_RULE, "emozionalmente"])
def test_a_missing_folder_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="nowhere: no such folder"):
        corpora.get(name).read(tmp_path / "nowhere")


@pytest.mark.parametrize("name", NAMED_BY_RULE)
def test_a_folder_without_audio_is_named(name: str, tmp_path: Path) -> None:
    touch(tmp_path, "readme.txt", "03a01Fa.wav.txt")
    with pytest.raises(BadInput, match=r"holds no audio \(\.wav, \.flac"):
        corpora.get(name).read(tmp_path)


# tables


def test_tables_are_text_whatever_they_hold(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_bytes('\ufeffID; Name ;x\r\n03; NA ;"a;\r\nb"\r\n\r\n;;\r\n1e5;None;è\r\n'.encode())
    columns, rows = _files.read_table(file, ("id", "name"))
    assert columns == ["id", "name", "x"]
    assert [cells["id"] for _, cells in rows] == ["03", "1e5"]
    assert [cells["name"] for _, cells in rows] == ["NA", "None"]
    assert rows[1] == (6, {"id": "1e5", "name": "None", "x": "è"})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a,b\n\xff\xfe,1\n", "is not UTF-8 .* at byte 4"),
        (b"", "column a is missing; the header has nothing"),
        (b"a,b,A\n1,2,3\n", "column a stands there twice"),
        (b'a,b\n"1,2\n', "line 2: unexpected end of data"),
    ],
)
def test_broken_tables_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "t.csv"
    file.write_bytes(content)
    with pytest.raises(BadInput, match=message):
        _files.read_table(file, ("a",))


# the listing


def test_the_listing_says_what_is_there(tmp_path: Path) -> None:
    touch(tmp_path, "emodb/wav/03a01Fa.wav", "emodb/wav/03a01Nc.flac", "emodb/noise.wav", "emovo/empty.txt")
    rows = {row["name"]: row for row in list_corpora(tmp_path)}
    assert list(rows) == corpora.names()
    assert rows["emodb"] == {
        "name": "emodb",
        "title": "EmoDB, Berlin Database of Emotional Speech",
        "language": "de",
        "licence": corpora.get("emodb").LICENCE,
        "clips_found": 2,
        "clips_expected": 535,
        "speakers": 10,
        "speakers_known": True,
        "labels": ["angry", "bored", "disgusted", "fearful", "happy", "neutral", "sad"],
        "label_sets": [],
        "layout": "confirmed",
        "present": True,
        "path": str(tmp_path / "emodb"),
    }
    assert [name for name, row in rows.items() if row["present"]] == ["emodb"]
    assert rows["cremad"]["label_sets"] == ["intended", "perceived_audio", "perceived_audiovisual"]
    json.dumps(list(rows.values()))


def test_the_command_lists_describes_and_writes_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "emodb/wav/03a01Fa.wav")
    monkeypatch.setenv("SER_DATA", str(tmp_path))
    listed = CliRunner().invoke(app, ["corpora", "--json"])
    assert {row["name"] for row in json.loads(listed.stdout) if row["present"]} == {"emodb"}
    assert "1 clips in" in CliRunner().invoke(app, ["corpora", "emodb"]).stdout
    assert CliRunner().invoke(app, ["corpora"]).stdout.startswith("corpus ")
    write_text(tmp_path / "README.md", (DATA / "README.md").read_text(encoding="utf-8"))
    assert "emodb.md" in CliRunner().invoke(app, ["corpora", "--write-pages", str(tmp_path)]).stdout


def test_the_listing_looks_where_locations_say(tmp_path: Path) -> None:
    touch(tmp_path, "berlin/03a01Fa.wav")
    rows = {row["name"]: row for row in list_corpora(tmp_path, {"emodb": tmp_path / "berlin"})}
    assert (rows["emodb"]["clips_found"], rows["emodb"]["path"]) == (1, str(tmp_path / "berlin"))


def test_the_listing_for_the_terminal_has_one_line_per_corpus_that_fits(tmp_path: Path) -> None:
    deep = tmp_path / "/".join(["a folder of a long name"] * 5)
    touch(deep, "emodb/wav/03a01Fa.wav")
    lines = format_listing(list_corpora(deep)).splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert [line.split()[0] for line in lines[1 : len(corpora.names()) + 1]] == corpora.names()
    assert "1 of" in lines[len(corpora.names()) + 2]
    emodb = next(line for line in lines if line.startswith("emodb "))
    assert emodb.split()[1:7] == ["de", "1", "535", "10", "7", "1"]
    assert emodb.endswith("emodb")
    assert next(line for line in lines if line.startswith("emovo ")).split()[1:4] == ["it", "-", "588"]


@pytest.mark.parametrize("name", corpora.names())
def test_the_description_says_where_how_and_whom_to_cite(name: str, tmp_path: Path) -> None:
    corpus = corpora.get(name)
    text = describe_source(name, data=tmp_path)
    plain = " ".join(text.split())
    for part in (corpus.TITLE, corpus.SOURCE, corpus.LICENCE, corpus.CITATION, f"SER_DATA/{name}", "nothing in"):
        assert " ".join(part.split()) in plain
    for one in corpora.label_sets(corpus):
        assert f"Set:      {one}" in text
    assert ("UNVERIFIED" in text) == (corpus.LAYOUT == "unverified")
    assert max(map(len, text.replace(str(tmp_path), "data").splitlines())) <= WIDTH


# real audio


@pytest.mark.real
def test_the_real_emodb(ser_data: Path) -> None:
    corpus = corpora.get("emodb")
    rows = corpus.read(ser_data / "emodb")
    assert len(rows) == 535
    assert [Path(row.path).stem for row in rows] == corpus.expected_stems(ser_data / "emodb")
    assert {row.actor for row in rows if row.gender == "male"} == {"03", "10", "11", "12", "15"}
    disgusted = Counter(row.actor for row in rows if row.class_id == "disgusted")
    assert (disgusted["08"], disgusted["03"], disgusted["10"]) == (0, 1, 1)


@pytest.mark.real
def test_the_real_cremad(ser_data: Path) -> None:
    corpus = corpora.get("cremad")
    rows = corpus.read(ser_data / "cremad")
    assert [Path(row.path).stem for row in rows] == corpus.expected_stems(ser_data / "cremad")
    assert len(rows) == 7442
    genders = {row.actor: row.gender for row in rows}
    assert Counter(genders.values()) == {"male": 48, "female": 43}
    assert len({row.sentence for row in rows}) == 12
