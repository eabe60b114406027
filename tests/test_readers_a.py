"""Special cases of sixteen corpus readers: full grids, repeated names, copies, tables, names of no corpus.

What each reads from its published layout stands in `tests/miniatures/`, and is tested in `test_readers.py`.
"""

import importlib.util
import tempfile
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from ser_scripts import corpora
from ser_scripts.corpora import ClipRow
from ser_scripts.errors import BadInput
from ser_scripts.manifest import build_manifest, survey
from ser_scripts.specs.corpora import NamedCorpus

MINE = [
    "aesdd", "cafe", "emouerj", "emovdb", "enterface", "jlcorpus", "mesd", "nemo", "oreau", "polish", "savee", "shemo",
    "subesco", "tess", "turevdb", "urdu",
]  # fmt: skip
GRIDS = ["cafe", "jlcorpus", "polish", "savee", "subesco", "tess"]


def touch(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def write_noise(file: Path, seed: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(file, np.random.default_rng(seed).normal(0, 0.1, 8000).astype(np.float32), 16000)


def read(name: str, root: Path) -> list[ClipRow]:
    return corpora.get(name).read(root)


def miniature_clips(name: str) -> list[str]:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / "miniatures" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    clips: list[str] = module.CLIPS
    return clips


# the full lists


SEVEN = ["angry", "disgusted", "fearful", "happy", "neutral", "sad", "surprised"]
TEN = ["angry", "anxious", "apologetic", "assertive", "concerned", "encouraging", "excited", "happy", "neutral", "sad"]


@pytest.mark.parametrize(
    ("name", "counts", "women"),
    [
        ("cafe", dict.fromkeys(SEVEN, 144) | {"neutral": 72}, 6),
        ("jlcorpus", dict.fromkeys(TEN, 240), 2),
        ("polish", dict.fromkeys(["angry", "fearful", "neutral"], 150), 0),
        ("savee", dict.fromkeys(SEVEN, 60) | {"neutral": 120}, 0),
        ("subesco", dict.fromkeys(SEVEN, 1000), 10),
        ("tess", dict.fromkeys(SEVEN, 400), 2),
    ],
)
def test_complete_corpora_have_their_published_counts(
    name: str, counts: dict[str, int], women: int, tmp_path: Path
) -> None:
    corpus = corpora.get(name)
    speakers = corpus.EXPECTED_SPEAKERS
    stems = corpus.expected_stems(tmp_path / "needs no folder")
    assert stems is not None
    assert speakers is not None
    assert stems == sorted(set(stems))
    assert len(stems) == corpus.EXPECTED_CLIPS
    rows = corpus.read(touch(tmp_path, *(f"{stem}.wav" for stem in stems)))
    assert Counter(row.class_id for row in rows) == counts
    per_speaker = Counter((row.actor, row.class_id) for row in rows)
    assert len(per_speaker) == speakers * len(counts)
    assert all(number * speakers == counts[label] for (_, label), number in per_speaker.items())
    genders = {row.actor: row.gender for row in rows}
    assert Counter(genders.values()) == Counter({"female": women, "male": speakers - women})
    assert corpus.expected_stems(tmp_path) == stems


@given(data=st.data())
@hypothesis_settings(max_examples=20)
def test_any_part_of_a_grid_in_any_folders_and_formats_is_read_whole(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(GRIDS))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        known = corpora.get(name).expected_stems(root) or []
        stems = data.draw(st.lists(st.sampled_from(known), min_size=1, max_size=6, unique=True))
        for stem in stems:
            place = data.draw(st.sampled_from(["", "wav/", "Some Archive/x.y/"]))
            touch(root, place + stem + data.draw(st.sampled_from([".wav", ".WAV", ".flac", ".opus", ".mp3"])))
        rows = read(name, root)
    assert sorted(Path(row.path).stem for row in rows) == sorted(stems)
    assert [row.path for row in rows] == sorted(row.path for row in rows)


def test_an_archive_that_was_half_unpacked_names_what_is_missing(tmp_path: Path) -> None:
    for number, stem in enumerate(["m1.a_nie_1", "m2.s_tak_4"]):
        write_noise(tmp_path / "polish" / f"{stem}.wav", number)
    manifest = survey(NamedCorpus(name="polish"), data=tmp_path, cache=tmp_path / "cache", base=tmp_path)
    assert len(manifest.clips) == 2
    assert set(manifest.dropped["reason"]) == {"missing"}
    assert len(manifest.dropped) == 448
    assert "m5.n_trzymaj_5" in set(manifest.dropped["path"])


def test_where_names_are_not_known_the_number_of_missing_clips_is(tmp_path: Path) -> None:
    write_noise(tmp_path / "emouerj" / "w01a01.wav", 0)
    manifest = survey(NamedCorpus(name="emouerj"), data=tmp_path, cache=tmp_path / "cache", base=tmp_path)
    assert manifest.dropped["reason"].tolist() == ["376 clips are missing; their names are not known"]


# which corpus it is


@pytest.mark.parametrize("name", MINE)
def test_a_corpus_is_told_from_all_others(name: str, tmp_path: Path) -> None:
    touch(tmp_path, *miniature_clips(name))
    best, *others = corpora.looks_like(tmp_path)
    assert best.corpus == name
    assert all(other.fits < best.fits for other in others)


@pytest.mark.parametrize(
    ("name", "good", "strange"),
    [
        ("aesdd", "anger/a01 (1)", "neutral/n01 (1)"),
        ("aesdd", "anger/a01 (1)", "anger/a21 (1)"),
        ("aesdd", "anger/a01 (1)", "anger/a01"),
        ("cafe", "01-C-1-1", "01-N-2-1"),
        ("cafe", "01-C-1-1", "01-C-1"),
        ("cafe", "01-C-1-1", "13-C-1-1"),
        ("cafe", "01-C-1-1", "01-C-1-7"),
        ("emouerj", "w01a01", "f01a01"),
        ("emouerj", "w01a01", "w05a01"),
        ("emouerj", "w01a01", "W01A01"),
        ("emovdb", "bea/Angry/anger_1-28_0001", "anna/Angry/anger_1-28_0002"),
        ("emovdb", "bea/Angry/anger_1-28_0001", "anger_1-28_0002"),
        ("emovdb", "bea/Angry/anger_1-28_0001", "bea/Happy/happy_1-28_0001"),
        ("emovdb", "bea/Angry/anger_1-28_0001", "bea/Angry/notes"),
        ("enterface", "subject 1/anger/sentence 1/s1_an_1", "subject 45/anger/sentence 1/s45_an_1"),
        ("enterface", "subject 1/anger/sentence 1/s1_an_1", "subject 1/neutral/sentence 1/s1_ne_1"),
        ("enterface", "subject 1/anger/sentence 1/s1_an_1", "subject 1/anger/sentence 6/s1_an_6"),
        ("enterface", "subject 1/anger/sentence 1/s1_an_1", "subject 7/anger/s7_an"),
        ("enterface", "subject 1/anger/sentence 1/s1_an_1", "s2_an_1"),
        ("jlcorpus", "female1_angry_1a_1", "female3_angry_1a_1"),
        ("jlcorpus", "female1_angry_1a_1", "female1_angry_16a_1"),
        ("jlcorpus", "female1_angry_1a_1", "female1_worried_1a_1"),
        ("mesd", "Anger_F_B_furia", "Surprise_F_B_furia"),
        ("mesd", "Anger_F_B_furia", "Anger_X_B_furia"),
        ("mesd", "Anger_F_B_furia", "Anger_F_furia"),
        ("oreau", "10a01Ca", "10a01Xa"),
        ("oreau", "10a01Ca", "a01C"),
        ("polish", "m1.a_nie_1", "m1.f_nie_1"),
        ("polish", "m1.a_nie_1", "m6.a_nie_1"),
        ("savee", "DC_a01", "DC_a16"),
        ("savee", "DC_a01", "DC_sa00"),
        ("savee", "DC_a01", "XX_a01"),
        ("savee", "DC/a01", "a02"),
        ("shemo", "F01A01", "F01X01"),
        ("shemo", "F01A01", "F1A01"),
        ("subesco", "F_01_OISHI_S_1_SAD_1", "F_01_OISHI_S_1_CALM_1"),
        ("subesco", "F_01_OISHI_S_1_SAD_1", "F_01_OISHI_S_11_SAD_1"),
        ("tess", "OAF_back_angry", "OAF_bite_neutral"),
        ("tess", "OAF_back_angry", "OAF_back_surprise"),
        ("tess", "OAF_back_angry", "OAF_zebra_angry"),
        ("turevdb", "Happy/1234_mt_acik", "Fear/1234_ko_acik"),
        ("turevdb", "Happy/1234_mt_acik", "1234_mt_cay"),
        ("urdu", "Angry/SM1_F1_A01", "Angry/SM1_F1_D01"),
        ("urdu", "Angry/SM1_F1_A01", "Angry/SX1_F1_A01"),
    ],
)
def test_names_that_are_not_of_the_corpus_are_listed(name: str, good: str, strange: str, tmp_path: Path) -> None:
    touch(tmp_path, f"{good}.wav", f"{strange}.wav")
    with pytest.raises(BadInput, match=r"holds 1 audio files that are not of ") as caught:
        read(name, tmp_path)
    assert f": {strange}.wav. Move them out" in str(caught.value)


def test_a_folder_of_another_corpus_is_recognised(tmp_path: Path) -> None:
    touch(tmp_path, *miniature_clips("subesco"))
    with pytest.raises(BadInput, match=r"It looks like SUBESCO, .* \('subesco'\): 4 of 4 names fit\."):
        corpora.read(corpora.get("tess"), tmp_path)


# SAVEE, whose speakers share the names of their clips


def test_savee_in_one_folder_reads_like_savee_in_four(tmp_path: Path) -> None:
    names = [("DC", "a01"), ("KL", "a01"), ("KL", "n30")]
    flat = read("savee", touch(tmp_path / "flat", *(f"ALL/{speaker}_{take}.wav" for speaker, take in names)))
    tree = read("savee", touch(tmp_path / "tree", *(f"AudioData/{speaker}/{take}.wav" for speaker, take in names)))
    assert [row.path for row in tree] == ["AudioData/DC/a01.wav", "AudioData/KL/a01.wav", "AudioData/KL/n30.wav"]
    facts = [[(row.class_id, row.actor, row.gender, row.sentence) for row in rows] for rows in (flat, tree)]
    assert (
        facts[0]
        == facts[1]
        == [(c, a, "male", s) for c, (a, s) in zip(["angry", "angry", "neutral"], names, strict=True)]
    )


def test_savee_states_its_clips_as_they_lie_there(tmp_path: Path) -> None:
    savee = corpora.get("savee")
    in_folders = savee.expected_stems(touch(tmp_path / "tree", "AudioData/DC/a01.wav"))
    in_one = savee.expected_stems(touch(tmp_path / "flat", "DC_a01.wav"))
    assert in_folders is not None
    assert in_one is not None
    assert in_folders[:2] == ["DC/a01", "DC/a02"]
    assert in_one == [stem.replace("/", "_") for stem in in_folders]
    assert len(in_folders) == 480


def test_a_missing_clip_is_named_though_another_speaker_has_one_of_its_name(tmp_path: Path) -> None:
    root = tmp_path / "savee" / "AudioData"
    for number, clip in enumerate(["DC/a01", "JE/a01", "KL/a02"]):
        write_noise(root / f"{clip}.wav", number)
    manifest = survey(NamedCorpus(name="savee"), data=tmp_path, cache=tmp_path / "cache", base=tmp_path)
    missing = set(manifest.dropped["path"])
    assert {"KL/a01", "JK/a01", "DC/a02"} <= missing
    assert missing.isdisjoint({"DC/a01", "JE/a01", "KL/a02"})
    assert len(missing) == 477


def test_a_permission_for_one_speaker_is_none_for_another(tmp_path: Path) -> None:
    savee = corpora.get("savee")
    root = tmp_path / "savee"
    write_noise(root / "DC" / "a01.wav", 0)
    write_noise(root / "KL" / "a02.wav", 1)
    absent = [clip for clip in savee.expected_stems(root) or [] if clip not in {"DC/a01", "KL/a02"}]
    allowed = [f"savee/{clip}" for clip in absent]
    build = partial(build_manifest, NamedCorpus(name="savee"), data=tmp_path, cache=tmp_path / "cache", base=tmp_path)
    assert len(build(allow_dropped=allowed).clips) == 2
    allowed.remove("savee/KL/a01")
    with pytest.raises(BadInput, match=r"missing: KL/a01\."):
        build(allow_dropped=allowed)


# two files of one clip


@pytest.mark.parametrize(
    ("name", "one", "two"),
    [
        ("emovdb", "bea/Angry/anger_1-28_0001.wav", "bea_Angry/anger_1-28_0001.wav"),
        ("emovdb", "bea_Disgust/disgust_1-28_0001.wav", "bea_Disgusted/disgust_1-28_0001.wav"),
        ("enterface", "subject 1/anger/sentence 1/a copy.wav", "subject 1/anger/sentence 1/s1_an_1.wav"),
        ("enterface", "subject 1/anger/sentence 1/s1_an_1.wav", "x/subject 1/anger/sentence 1/s1_an_1.wav"),
        ("mesd", "Anger_F_B_furia.wav", "MESD/Anger_F_B_furia.flac"),
        ("oreau", "OréauFR_02/f/sessc/10a01Ca.wav", "wav/10a01Ca.wav"),
        ("savee", "ALL/DC_a01.wav", "AudioData/DC/a01.wav"),
    ],
)
def test_two_files_of_one_clip_are_both_named(name: str, one: str, two: str, tmp_path: Path) -> None:
    touch(tmp_path, one, two)
    with pytest.raises(BadInput, match="holds two files of one clip: ") as caught:
        read(name, tmp_path)
    assert f"{one} and {two}. Keep one of each." in str(caught.value)


def test_the_copy_of_tess_that_holds_everything_twice_is_refused(tmp_path: Path) -> None:
    top = "TESS Toronto emotional speech set data"
    touch(tmp_path, f"{top}/OAF_angry/OAF_back_angry.wav", f"{top}/{top}/OAF_angry/OAF_back_angry.wav")
    with pytest.raises(BadInput, match="two files of one name"):
        read("tess", tmp_path)


# single corpora


def test_cafe_neutral_clips_may_be_named_with_an_intensity_and_have_none(tmp_path: Path) -> None:
    cafe = corpora.get("cafe")
    touch(tmp_path, "CaFE_48k/Neutre/01-N-1-3.wav", "CaFE_48k/Joie/Fort/02-J-2-3.wav")
    assert [(row.class_id, row.sentence, row.intensity) for row in cafe.read(tmp_path)] == [
        ("happy", "3", "high"),
        ("neutral", "3", None),
    ]
    stems = cafe.expected_stems(tmp_path)
    assert stems is not None
    assert len(stems) == 936
    assert {"01-N-1-3", "02-J-2-3"} <= set(stems)
    assert "01-N-3" not in stems


def test_emovdb_in_the_folders_of_its_archives(tmp_path: Path) -> None:
    touch(tmp_path, "jenie_Disgusted/disgust_29-56_0055.wav", "sam_Sleepy/sleepiness_1-28_0001.wav")
    assert [(row.actor, row.class_id, row.sentence) for row in read("emovdb", tmp_path)] == [
        ("jenie", "disgusted", "0055"),
        ("sam", "sleepy", "0001"),
    ]


def test_enterface_has_no_sound_while_it_is_video(tmp_path: Path) -> None:
    touch(tmp_path, "subject 1/anger/sentence 1/s1_an_1.avi")
    with pytest.raises(BadInput, match="holds no audio"):
        read("enterface", tmp_path)


def test_mesd_knows_no_speakers(tmp_path: Path) -> None:
    assert not corpora.speakers_known(corpora.get("mesd"))
    assert {row.actor for row in read("mesd", touch(tmp_path, "Anger_F_B_furia.wav"))} == {""}


def test_oreau_first_version_is_read_where_the_second_is_not(tmp_path: Path) -> None:
    touch(tmp_path, "OréauFR_01/f/sessc/10a01Ca.wav", "OréauFR_01/m/sesst/07a03Ta.wav")
    assert [(row.actor, row.gender) for row in read("oreau", tmp_path)] == [("10", "female"), ("07", "male")]


def test_oreau_genders_from_a_table_and_speakers_without_one_stay(tmp_path: Path) -> None:
    touch(tmp_path / "oreau", "wav/07a03Ta.wav", "wav/10a01Ca.wav", "wav/11a01Ca.wav", "wav/12a01Ca.wav")
    assert {row.gender for row in read("oreau", tmp_path / "oreau")} == {"unknown"}
    (tmp_path / "actors.csv").write_text("actor_id,gender,age\n7,M,22\n10,F,21\n11,,\n", encoding="utf-8")
    genders = {row.actor: row.gender for row in read("oreau", tmp_path / "oreau")}
    assert genders == {"07": "male", "10": "female", "11": "unknown", "12": "unknown"}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("actor_id,gender\n07,X\n", r"actors\.csv line 2: gender 'X' is not valid; valid: female, f, w"),
        ("actor_id,gender\nseven,M\n", r"actors\.csv line 2: speaker 'seven' is no number"),
        ("actor_id,sex\n07,M\n", "column gender is missing; the header has actor_id, sex"),
    ],
)
def test_faults_in_oreaus_table_are_named(table: str, message: str, tmp_path: Path) -> None:
    touch(tmp_path, "07a03Ta.wav")
    (tmp_path / "actors.csv").write_text(table, encoding="utf-8")
    with pytest.raises(BadInput, match=message):
        read("oreau", tmp_path)


NEMO = (
    "file_id\temotion\traw_text\tnormalized_text\tspeaker_id\tgender\tage\n"
    "EB0_anger_6.wav\tanger\tDziunia, nie.\tdziunia nie\tEB0\tfemale\t27\n"
    "WR0_fear_1.wav\tfear\tKot.\tkot\tWR0\tmale\t23\n"
)


def nemo(root: Path, table: str = NEMO) -> Path:
    touch(root, "samples/EB0_anger_6.wav", "samples/WR0_fear_1.wav")
    (root / "data.tsv").write_text(table, encoding="utf-8")
    return root


def test_a_missing_clip_of_nemo_is_known_from_the_table(tmp_path: Path) -> None:
    (nemo(tmp_path) / "samples" / "WR0_fear_1.wav").unlink()
    assert [row.path for row in read("nemo", tmp_path)] == ["samples/EB0_anger_6.wav"]
    assert corpora.get("nemo").expected_stems(tmp_path) == ["EB0_anger_6", "WR0_fear_1"]


def test_nemo_as_flac_and_without_texts(tmp_path: Path) -> None:
    touch(tmp_path, "EB0_anger_6.flac")
    (tmp_path / "data.tsv").write_text(
        "file_id\temotion\tspeaker_id\tgender\nEB0_anger_6.wav\tanger\tEB0\tfemale\n", encoding="utf-8"
    )
    assert read("nemo", tmp_path) == [ClipRow(path="EB0_anger_6.flac", class_id="angry", actor="EB0", gender="female")]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (NEMO.replace("\tfear", "\tjoy"), r"data\.tsv line 3: emotion 'joy' is not valid; valid: anger, fear"),
        (NEMO + NEMO.splitlines()[1] + "\n", r"line 4: file_id 'EB0_anger_6\.wav' stands there twice"),
        (NEMO.replace("\tWR0", "\t"), "line 3: speaker_id is empty"),
        (NEMO.replace("\tmale", "\tm?"), "line 3: gender 'm.' is not valid"),
        (NEMO.replace("speaker_id", "speaker"), "column speaker_id is missing"),
        (NEMO.replace("WR0_fear_1", "WR0_fear_2"), r"1 audio files that are not of nEMO.*: samples/WR0_fear_1\.wav"),
    ],
)
def test_faults_in_nemos_table_are_named(table: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=message):
        read("nemo", nemo(tmp_path, table))


def test_nemo_without_its_table_is_refused(tmp_path: Path) -> None:
    (nemo(tmp_path / "nemo") / "data.tsv").unlink()
    with pytest.raises(BadInput, match=r"nemo holds no data\.tsv; exactly one is needed"):
        read("nemo", tmp_path / "nemo")
