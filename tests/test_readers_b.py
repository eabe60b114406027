"""What the readers of `tests/miniatures` must not pass over: wrong values, missing tables, half an archive."""

import importlib.util
from collections import Counter
from dataclasses import replace
from pathlib import Path, PurePosixPath
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ser_scripts import corpora
from ser_scripts.corpora import ClipRow, _files, iemocap
from ser_scripts.corpora.sources import read_source
from ser_scripts.errors import BadInput
from ser_scripts.manifest import _missing
from ser_scripts.specs.corpora import NamedCorpus

NAMES = [
    "ased", "baum1", "baved", "casia", "cremad", "demos", "eekk", "esd", "expresso", "iemocap", "masc", "mead", "meld",
    "msppodcast", "resd", "thorsten",
]  # fmt: skip


def miniature(name: str) -> ModuleType:
    file = Path(__file__).parent / "miniatures" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"miniature_b_{name}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def put(root: Path, *clips: str) -> Path:
    """Empty audio files, since readers decode nothing."""
    for path in clips:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def write(file: Path, content: str | bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())


def lay_out(name: str, root: Path, **changes: str) -> Path:
    """A miniature without its sound; `changes` of a table's text, by the end of its name."""
    small = miniature(name)
    put(root, *small.CLIPS)
    for path, text in small.TABLES.items():
        new = [change for end, change in changes.items() if path.endswith(end)]
        write(root / path, new[0] if new else text)
    return root


def table(name: str, end: str) -> str:
    """The text of the one table of a miniature whose name ends so."""
    (text,) = (text for path, text in miniature(name).TABLES.items() if path.endswith(end))
    return str(text)


# all of them


@pytest.mark.parametrize("suffix", [".WAV", ".flac", ".opus"])
@pytest.mark.parametrize("name", NAMES)
def test_clips_may_lie_deeper_and_be_encoded_anew(name: str, suffix: str, tmp_path: Path) -> None:
    small = miniature(name)
    root = tmp_path / "unpacked" / name
    put(root, *(str(PurePosixPath("archive.x", path).with_suffix(suffix)) for path in small.CLIPS))
    for path, text in small.TABLES.items():
        write(root / "archive.x" / path, text)
    expected = [replace(row, path=str(PurePosixPath("archive.x", row.path).with_suffix(suffix))) for row in small.ROWS]
    assert corpora.get(name).read(root) == expected


@pytest.mark.parametrize("name", NAMES)
def test_a_clip_of_another_name_is_refused(name: str, tmp_path: Path) -> None:
    root = lay_out(name, tmp_path / name)
    put(root, "somewhere/My voice (1).wav")
    with pytest.raises(BadInput, match=r"1 audio files that are not of .*: somewhere/My voice \(1\)\.wav\. Move"):
        corpora.get(name).read(root)


@pytest.mark.parametrize("name", NAMES)
def test_the_names_of_a_corpus_tell_it_from_others(name: str, tmp_path: Path) -> None:
    found = corpora.looks_like(lay_out(name, tmp_path / name))
    assert name in [one.corpus for one in found if one.fits == found[0].fits]
    assert corpora.resemblance(tmp_path / name, name) == ""


@pytest.mark.parametrize("name", NAMES)
def test_expected_stems_are_sorted_and_hold_what_is_there(name: str, tmp_path: Path) -> None:
    corpus, root = corpora.get(name), lay_out(name, tmp_path / name)
    stems = corpus.expected_stems(root)
    if stems is not None:
        assert stems == sorted(set(stems))
        labelled = {PurePosixPath(row.path).stem for row in corpus.read(root) if row.set_aside is None}
        assert len(labelled - set(stems)) <= len(labelled) / 2


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_folder_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"holds no audio"):
        corpora.get(name).read(tmp_path)


# what readers share


def test_clips_of_one_name_are_kept_apart_by_their_paths(tmp_path: Path) -> None:
    put(tmp_path, "a/1.wav", "b/1.flac")
    assert _files.find_clips(tmp_path, by_path=True) == {"a/1": "a/1.wav", "b/1": "b/1.flac"}
    put(tmp_path, "a/1.flac")
    with pytest.raises(BadInput, match=r"two files of one name: a/1\.flac and a/1\.wav"):
        _files.find_clips(tmp_path, by_path=True)


@pytest.mark.parametrize(
    ("content", "fallback", "text"),
    [
        (b"\xef\xbb\xbf\xc3\xa9\r\nb\rc", None, "é\nb\nc"),
        ("é\n".encode("utf-16"), None, "é\n"),
        (b"\xe9\n", "latin-1", "é\n"),
        ("中立".encode("gb2312"), "gb2312", "中立"),
    ],
)
def test_texts_in_the_encodings_that_corpora_come_in(
    tmp_path: Path, content: bytes, fallback: str | None, text: str
) -> None:
    write(tmp_path / "t.txt", content)
    assert _files.read_text(tmp_path / "t.txt", fallback=fallback) == text


@pytest.mark.parametrize(
    ("content", "fallback", "message"),
    [
        (b"a\xe9b", None, r"t\.txt is not UTF-8 \(.* at byte 1\); save it as UTF-8"),
        (b"a\xffb", "ascii", r"t\.txt is neither UTF-8 nor ASCII"),
        (b"\xff\xfea", None, r"t\.txt is not UTF-16"),
    ],
)
def test_texts_in_no_known_encoding_are_refused(
    tmp_path: Path, content: bytes, fallback: str | None, message: str
) -> None:
    write(tmp_path / "t.txt", content)
    with pytest.raises(BadInput, match=message):
        _files.read_text(tmp_path / "t.txt", fallback=fallback)


def test_a_table_that_may_be_absent(tmp_path: Path) -> None:
    root = tmp_path / "corpus"
    root.mkdir()
    assert _files.find_optional_table(root, "t.csv") is None
    write(tmp_path / "t.csv", "a\n1\n")
    assert _files.find_optional_table(root, "t.csv") == tmp_path / "t.csv"
    write(root / "a" / "t.csv", "a\n1\n")
    assert _files.find_optional_table(root, "t.csv") == root / "a" / "t.csv"
    write(root / "b" / "t.csv", "a\n1\n")
    with pytest.raises(BadInput, match=r"several files t\.csv: .*; exactly one is needed"):
        _files.find_optional_table(root, "t.csv")


# CREMA-D

VOTES = "tabulatedVotes.csv"


def test_cremad_without_the_votes_has_intended_labels_only(tmp_path: Path) -> None:
    root = lay_out("cremad", tmp_path / "cremad")
    (root / "processedResults" / VOTES).unlink()
    rows = corpora.get("cremad").read(root)
    assert rows == [replace(row, votes=None) for row in miniature("cremad").ROWS]
    for labels in ("perceived_audio", "perceived_audiovisual"):
        with pytest.raises(BadInput, match=rf"holds no tabulatedVotes\.csv .*'{labels}' .*use the labels 'intended'"):
            corpora.read(corpora.get("cremad"), root, labels)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"100010",6', '"100010",six', r"line 2: A is 'six', not a number of votes"),
        ('"100010",6,2,0,0,1,0', '"100010",0,0,0,0,0,0', r"line 2: '1001_IEO_ANG_HI' has no votes"),
        ('"100010"', '"10"', r"line 2: row name '10' is not modality 1 to 3 and five digits"),
        ('"100002",0,0,0,3,6,0,"1001_IEO_HAP_LO"', '"100002",0,0,0,3,6,0,"1001_IEO_ANG_HI"', r"line 3: .* twice"),
        ('"100090"', '"200090"', r"1 clips have no row of modality 1: 1002_DFA_NEU_XX"),
        ('"fileName"', '"file"', "column filename is missing"),
    ],
)
def test_faults_in_the_votes_of_cremad_are_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = table("cremad", VOTES)
    assert old in text
    root = lay_out("cremad", tmp_path / "cremad", **{VOTES: text.replace(old, new)})
    with pytest.raises(BadInput, match=message):
        corpora.get("cremad").read(root)


@pytest.mark.real
def test_the_real_cremad_by_ear_by_eye_and_by_name(ser_data: Path) -> None:
    corpus, root = corpora.get("cremad"), ser_data / "cremad"
    intended = corpus.read(root)
    heard, seen = (corpora.read(corpus, root, f"perceived_{way}") for way in ("audio", "audiovisual"))
    emotions = ("angry", "disgusted", "fearful", "happy", "neutral", "sad")

    assert [Counter(row.class_id for row in heard)[label] for label in emotions] == [986, 547, 645, 353, 3897, 370]
    assert [Counter(row.class_id for row in seen)[label] for label in emotions] == [1019, 1139, 1084, 1219, 1972, 589]
    assert Counter(row.set_aside for row in heard) == {None: 6798, "raters' votes are tied": 644}
    assert Counter(row.set_aside for row in seen) == {None: 7022, "raters' votes are tied": 420}
    for perceived, agreeing in ((heard, 3099), (seen, 5374)):
        assert sum(one.class_id == other.class_id for one, other in zip(intended, perceived, strict=True)) == agreeing

    def share_of_votes_for_the_intended(rows: list[ClipRow]) -> float:
        pairs = [(dict(row.votes or ()), aim.class_id) for row, aim in zip(rows, intended, strict=True)]
        return sum(votes[label] for votes, label in pairs) / sum(sum(votes.values()) for votes, _ in pairs)

    # the paper's recognition rates of single raters: 40.9 % by voice, 63.6 % audio-visually
    assert share_of_votes_for_the_intended(intended) == share_of_votes_for_the_intended(heard)
    assert share_of_votes_for_the_intended(heard) == pytest.approx(27429 / 68568)
    assert share_of_votes_for_the_intended(seen) == pytest.approx(45273 / 71778)
    assert {sum(count for _, count in row.votes or ()) for row in heard} == set(map(float, range(4, 13)))
    assert Counter(row.intensity for row in intended) == {None: 6077, "low": 455, "medium": 455, "high": 455}


# IEMOCAP

TURNS = "EmoEvaluation/Ses01F_impro01.txt"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("\tneu\t[", "\thappy\t[", r"line 3: label 'happy' is not valid; valid: ang, .*, xxx"),
        ("[2.5000, 2.5000, 2.5000]", "[2.5000, 2.5000]", r"line 3: not `\[start - end\] turn label \[v, a, d\]`"),
        ("Ses01F_impro01_M000\texc", "Ses01F_impro01_F000\texc", r"line 12: turn 'Ses01F_impro01_F000' .* twice"),
        ("Happiness; Excited", "Happyness; Excited", r"line 12, turn Ses01F_impro01_M000: a rater chose happyness"),
        ("Ses01F_impro01_M001\txxx", "Ses01F_impro01_M002\txxx", "1 turns have no line in .*M001"),
    ],
)
def test_faults_in_the_labels_of_iemocap_are_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = table("iemocap", TURNS)
    assert old in text
    root = lay_out("iemocap", tmp_path / "iemocap", **{TURNS: text.replace(old, new)})
    with pytest.raises(BadInput, match=message):
        corpora.get("iemocap").read(root)


def test_iemocap_without_its_label_files_says_which_are_needed(tmp_path: Path) -> None:
    put(tmp_path, "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav")
    with pytest.raises(BadInput, match=r"no label files of IEMOCAP.*SessionN/dialog/EmoEvaluation/Ses01F_impro01\.txt"):
        corpora.get("iemocap").read(tmp_path)


def test_iemocap_with_one_session_is_known_to_be_incomplete_by_number(tmp_path: Path) -> None:
    root = lay_out("iemocap", tmp_path / "iemocap")
    assert corpora.get("iemocap").expected_stems(root) is None


def test_iemocap_with_all_turns_names_the_missing_ones(tmp_path: Path) -> None:
    lines = [
        f"[{number}.0 - {number}.5]\tSes01F_impro{dialog:02d}_F{number:03d}\tneu\t[3.0000, 3.0000, 3.0000]\n"
        for dialog in range(11)
        for number in range(1000)
    ][:10039]
    for dialog in range(11):
        mine = [line for line in lines if f"_impro{dialog:02d}_" in line]
        write(tmp_path / "Session1/dialog/EmoEvaluation" / f"Ses01F_impro{dialog:02d}.txt", "".join(mine))
    put(tmp_path, "Ses01F_impro00_F000.wav")
    stems = corpora.get("iemocap").expected_stems(tmp_path)
    assert stems is not None
    assert len(stems) == 10039
    assert stems[:2] == ["Ses01F_impro00_F000", "Ses01F_impro00_F001"]


def test_a_comment_in_latin_1_and_a_rater_without_a_word_are_no_faults(tmp_path: Path) -> None:
    text = (
        "[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5000, 2.5000, 2.5000]\t\n"
        "C-E2:\tNeutral;\t(na\xefve \x85 unsure)\nC-E3:\t;\t()\nC-E4:\tneutral; Neutral;\t()\n"
    )
    write(tmp_path / "EmoEvaluation/Ses01F_impro01.txt", text.encode("latin-1"))
    put(tmp_path, "flat/Ses01F_impro01_F000.wav")
    (row,) = corpora.get("iemocap").read(tmp_path)
    assert row.votes == (("neutral", 2.0),)
    write(tmp_path / "EmoEvaluation/Ses01F_impro01.txt", text.partition("\n")[0])
    (row,) = corpora.get("iemocap").read(tmp_path)
    assert row.votes is None


@given(st.lists(st.lists(st.sampled_from(sorted(iemocap._WORDS)), min_size=1, max_size=4), min_size=1, max_size=6))
def test_every_rater_of_iemocap_has_one_vote(raters: list[list[str]]) -> None:
    votes = iemocap._votes([";".join(words) + ";" for words in raters], "here")
    assert votes is not None
    assert sum(count for _, count in votes) == pytest.approx(len(raters))
    assert {label for label, _ in votes} == {iemocap._WORDS[word] for words in raters for word in words}
    assert list(votes) == sorted(votes)


# MSP-Podcast

CONSENSUS, DETAILED = "Labels/labels_consensus.csv", "Labels/labels_detailed.csv"


def test_votes_of_msppodcast_in_the_form_of_release_1_11(tmp_path: Path) -> None:
    detail = (
        "FileName,EmoDetail\n"
        'MSP-PODCAST_0001_0008.wav,"WORKER00000001; Neutral; Neutral,Concerned; A:4.000000; V:4.000000; D:5.000000;"\n'
        'MSP-PODCAST_0001_0008.wav,"WORKER00000002; Other-bored, tired; Other; A:4.000000; V:4.000000; D:5.000000;"\n'
    )
    root = lay_out("msppodcast", tmp_path / "m", **{DETAILED: detail})
    rows = corpora.get("msppodcast").read(root)
    assert rows[0].votes == (("neutral", 1.0), ("other", 1.0))
    assert [row.votes for row in rows[1:]] == [None] * 6


def test_msppodcast_without_single_votes_and_with_the_older_spelling(tmp_path: Path) -> None:
    root = lay_out("msppodcast", tmp_path / "m")
    (root / DETAILED).unlink()
    (root / CONSENSUS).rename(root / "Labels/labels_concensus.csv")
    assert corpora.get("msppodcast").read(root) == [replace(row, votes=None) for row in miniature("msppodcast").ROWS]


def test_a_row_of_test3_needs_no_labels(tmp_path: Path) -> None:
    text = str(miniature("msppodcast").TABLES[CONSENSUS])
    root = lay_out("msppodcast", tmp_path / "m", **{CONSENSUS: text + "MSP-PODCAST_test3_0001.wav,,,,,,,Test3\n"})
    assert corpora.get("msppodcast").read(root) == miniature("msppodcast").ROWS


@pytest.mark.parametrize(
    ("end", "old", "new", "message"),
    [
        (CONSENSUS, ",N,4.6", ",Neutral,4.6", r"line 2: EmoClass 'Neutral' is not valid; valid: A, C, .*, U, X"),
        (
            CONSENSUS,
            "Male,Test1\nMSP-PODCAST_0001_0019",
            "Male,Test9\nMSP-PODCAST_0001_0019",
            "line 2: Split_Set 'Test9'",
        ),
        (CONSENSUS, "3.8,5.0,127", "x,5.0,127", "line 2: EmoVal is 'x', not a number from 1 to 7"),
        (
            CONSENSUS,
            "127,Male,Test1\nMSP-PODCAST_0001_0019",
            "127,boy,Test1\nMSP-PODCAST_0001_0019",
            "line 2: gender 'boy'",
        ),
        (CONSENSUS, "0001_0019", "0001_0008", "line 3: FileName 'MSP-PODCAST_0001_0008.wav' stands there twice"),
        (CONSENSUS, "0345_0100", "0345_0101", "1 audio files that are not of .*0345_0100"),
        (CONSENSUS, "SpkrID", "Speaker", "column spkrid is missing"),
        (DETAILED, "EmoClass_Major", "Emotion", "column EmoClass_Major or EmoDetail is missing"),
        (DETAILED, "EmoClass_Major", "EmoDetail", "line 2: EmoDetail is not `WORKER...; emotion; ...`: 'Neutral'"),
    ],
)
def test_faults_in_the_tables_of_msppodcast_are_named(
    tmp_path: Path, end: str, old: str, new: str, message: str
) -> None:
    text = str(miniature("msppodcast").TABLES[end])
    assert old in text
    root = lay_out("msppodcast", tmp_path / "m")
    write(root / end, text.replace(old, new))
    with pytest.raises(BadInput, match=message):
        corpora.get("msppodcast").read(root)


# ESD


def test_esd_is_the_same_grid_for_every_speaker(tmp_path: Path) -> None:
    corpus = corpora.get("esd")
    put(tmp_path, "0001_000001.wav", "0020_001750.wav")
    stems = corpus.expected_stems(tmp_path)
    assert stems is not None
    assert len(stems) == corpus.EXPECTED_CLIPS
    assert {Counter(stem[:4] for stem in stems)[f"{number:04d}"] for number in range(1, 21)} == {1750}


@pytest.mark.parametrize(("speaker", "first", "last"), [("0003", "0001", "0010"), ("0013", "0011", "0020")])
def test_one_language_of_esd_is_complete_with_itself(tmp_path: Path, speaker: str, first: str, last: str) -> None:
    put(tmp_path, f"{speaker}/Sad/{speaker}_001400.wav")
    stems = corpora.get("esd").expected_stems(tmp_path)
    assert stems is not None
    assert (len(stems), stems[0][:4], stems[-1][:4]) == (17_500, first, last)


def test_half_of_the_speakers_of_each_language_of_esd_are_women(tmp_path: Path) -> None:
    put(tmp_path, *(f"{number:04d}_000001.wav" for number in range(1, 21)))
    rows = corpora.get("esd").read(tmp_path)
    assert Counter((row.language, row.gender) for row in rows) == {
        (language, gender): 5 for language in ("en", "zh") for gender in ("female", "male")
    }


@pytest.mark.parametrize("stem", ["0011_001751", "0011_000000", "0021_000001"])
def test_numbers_that_esd_does_not_have_are_refused(tmp_path: Path, stem: str) -> None:
    put(tmp_path, f"0011/Sad/{stem}.wav")
    with pytest.raises(BadInput, match=rf"not of ESD.*{stem}"):
        corpora.get("esd").read(tmp_path)


# MELD


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Phoebe,sadness", "Phoebe,sad", r"line 2: Emotion 'sad' is not valid; valid: anger, disgust, fear, joy"),
        ("Phoebe,", ",", "line 2: Speaker is empty"),
        ("negative,0,0,", "negative,zero,0,", "line 2: Dialogue_ID and Utterance_ID are 'zero' and '0', no numbers"),
        ("Dialogue_ID", "Dialogue", "column dialogue_id is missing"),
    ],
)
def test_faults_in_the_tables_of_meld_are_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = table("meld", "dev_sent_emo.csv")
    assert old in text
    root = lay_out("meld", tmp_path / "meld", **{"dev_sent_emo.csv": text.replace(old, new)})
    with pytest.raises(BadInput, match=message):
        corpora.get("meld").read(root)


def test_a_row_of_meld_that_stands_there_twice_is_refused(tmp_path: Path) -> None:
    text = table("meld", "dev_sent_emo.csv")
    root = lay_out("meld", tmp_path / "meld", **{"dev_sent_emo.csv": text + text.partition("\n")[2]})
    with pytest.raises(BadInput, match="line 3: dia0_utt0 stands there twice"):
        corpora.get("meld").read(root)


def test_a_side_of_meld_without_its_table_is_refused_and_others_need_none(tmp_path: Path) -> None:
    root = lay_out("meld", tmp_path / "meld")
    (root / "MELD.Raw/dev_sent_emo.csv").unlink()
    with pytest.raises(BadInput, match=r"holds no dev_sent_emo\.csv"):
        corpora.get("meld").read(root)
    (root / "MELD.Raw/dev_splits_complete/dia0_utt0.wav").unlink()
    (root / "MELD.Raw/dev_splits_complete/dia66_utt9.wav").unlink()
    assert len(corpora.get("meld").read(root)) == 4


def test_a_missing_clip_of_meld_is_named_on_its_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = lay_out("meld", tmp_path / "meld")
    monkeypatch.setattr(corpora.get("meld"), "EXPECTED_CLIPS", 5)
    (root / "MELD.Raw/train/train_splits/dia0_utt0.wav").unlink()
    (root / "MELD.Raw/dev_splits_complete/dia0_utt0.wav").unlink()
    read = read_source(NamedCorpus(name="meld"), data=tmp_path, locations={}, cache=tmp_path, base=tmp_path)
    assert set(_missing(read.rows, read.stems, read.expected)) == {
        "MELD.Raw/train/train_splits/dia0_utt0",
        "MELD.Raw/dev_splits_complete/dia0_utt0",
    }
    monkeypatch.setattr(corpora.get("meld"), "EXPECTED_CLIPS", 6)  # a table was cut short
    assert corpora.get("meld").expected_stems(root) is None


def test_the_nearest_folder_tells_the_side_of_a_clip_of_meld(tmp_path: Path) -> None:
    root = lay_out("meld", tmp_path / "meld")
    (root / "MELD.Raw/train").rename(root / "test_of_mine")
    (root / "test_of_mine/train_splits").rename(root / "test_of_mine/wav_train_16k")
    rows = corpora.get("meld").read(root)
    assert Counter(row.partition for row in rows) == {"train": 3, "validation": 1, "test": 1}
    put(root, "train/audio/dia0_utt0.wav")
    with pytest.raises(BadInput, match="are the same clip of MELD"):
        corpora.get("meld").read(root)


# the others


def test_casia_in_both_namings_at_once_is_refused(tmp_path: Path) -> None:
    root = put(tmp_path, "wangzhe/sad/201.wav", "6/sad/201-sad-wangzhe.wav")
    with pytest.raises(BadInput, match=r"6/sad/201-sad-wangzhe\.wav and wangzhe/sad/201\.wav, which are the same clip"):
        corpora.get("casia").read(root)


def test_a_speaker_of_ased_with_as_many_men_s_as_women_s_clips_has_no_known_gender(tmp_path: Path) -> None:
    root = put(tmp_path, "s4-03-02-01-23.wav", "s4-04-01-02-23.wav", "a5-03-02-02-65.wav")
    genders = {row.actor: row.gender for row in corpora.get("ased").read(root)}
    assert genders == {"23": "unknown", "65": "male"}


@pytest.mark.parametrize(
    "stem", ["s5-03-02-01-23", "s4-08-02-01-23", "s4-03-03-01-23", "s4-03-02-03-23", "s4-03-02-01"]
)
def test_names_that_ased_does_not_have_are_refused(tmp_path: Path, stem: str) -> None:
    with pytest.raises(BadInput, match=f"not of ASED.*{stem}"):
        corpora.get("ased").read(put(tmp_path, f"04Sad/{stem}.wav"))


def test_eekk_reads_textgrids_in_utf_16(tmp_path: Path) -> None:
    put(tmp_path, "13085.wav")
    write(tmp_path / "13085.TextGrid", table("eekk", "13085.TextGrid").encode("utf-16"))
    (row,) = corpora.get("eekk").read(tmp_path)
    assert (row.class_id, row.sentence) == ("happy", "Väga tore.")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"joy"', '"delight"', r"13085\.TextGrid: the tier 'emotion' begins with 'delight'; valid: anger, joy"),
        ('"emotion"', '"feeling"', r"13085\.TextGrid: the tier 'emotion' begins with ''"),
    ],
)
def test_faults_in_the_textgrids_of_eekk_are_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = table("eekk", "13085.TextGrid")
    root = lay_out("eekk", tmp_path / "eekk", **{"13085.TextGrid": text.replace(old, new)})
    with pytest.raises(BadInput, match=message):
        corpora.get("eekk").read(root)


def test_a_clip_of_eekk_without_textgrid_or_folder_is_named(tmp_path: Path) -> None:
    root = put(lay_out("eekk", tmp_path / "eekk"), "ekorpus/999.wav")
    with pytest.raises(BadInput, match=r"1 clips have no TextGrid of their name, nor a folder .*: ekorpus/999\.wav"):
        corpora.get("eekk").read(root)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("S001_006,Contempt", "S001_006,Con", r"line 2: the fifth column is 'Con', none of Anger, Boredom"),
        ("S001_006,Contempt", "S001_006,Love", r"line 2: the fifth column is 'Love'"),
        ("S001_006", "006", r"line 2: the fourth column is '006', no clip's name"),
        ("S001_007", "S001_006", r"line 3: clip 'S001_006' stands there twice"),
        ("1,1,f,", "1,1,x,", "line 2: gender 'x' is not valid"),
    ],
)
def test_faults_in_the_tables_of_baum1_are_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = table("baum1", "BAUM1s.csv")
    assert old in text
    root = lay_out("baum1", tmp_path / "baum1", **{"BAUM1s.csv": text.replace(old, new)})
    with pytest.raises(BadInput, match=message):
        corpora.get("baum1").read(root)


def test_a_table_of_baum1_with_too_few_columns_is_refused(tmp_path: Path) -> None:
    root = lay_out("baum1", tmp_path / "baum1", **{"BAUM1s.csv": "Clip,Emotion\nS001_006,Contempt\n"})
    with pytest.raises(
        BadInput, match=r"the fourth column should be the clip, .*; the header has \['clip', 'emotion'\]"
    ):
        corpora.get("baum1").read(root)


def test_baum1_without_tables_needs_a_folder_for_each_state(tmp_path: Path) -> None:
    root = put(tmp_path, "Anger/S001_001.wav", "Unsure/S002_013.wav")
    rows = corpora.get("baum1").read(root)
    assert [(row.class_id, row.actor, row.style) for row in rows] == [("angry", "S001", None), ("unsure", "S002", None)]
    assert corpora.get("baum1").expected_stems(root) is None
    put(root, "s003/S003_001.wav")
    with pytest.raises(
        BadInput, match=r"neither Annotations_BAUM1a\.csv nor .*\.xlsx\), nor all clips in folders Anger"
    ):
        corpora.get("baum1").read(root)


def test_baum1_names_the_missing_clips_from_both_tables(tmp_path: Path) -> None:
    root = lay_out("baum1", tmp_path / "baum1")
    stems = ["S001_001", "S001_006", "S001_007", "S002_004", "S002_013"]
    assert corpora.get("baum1").expected_stems(root) == stems
    (root / "Annotations_BAUM1a.csv").unlink()
    assert corpora.get("baum1").expected_stems(root) is None


def test_a_style_that_expresso_does_not_have_is_named(tmp_path: Path) -> None:
    root = put(tmp_path, "read/ex01/furious/base/ex01_furious_00001.wav")
    with pytest.raises(
        BadInput, match=r"ex01_furious_00001\.wav: style 'furious' is not valid; valid: confused, default"
    ):
        corpora.get("expresso").read(root)


def test_expresso_without_its_tables_has_no_sentences_and_no_sides(tmp_path: Path) -> None:
    root = put(tmp_path, "read/ex01/sad/base/ex01_sad_00001.wav")
    assert corpora.get("expresso").read(root) == [
        ClipRow(path="read/ex01/sad/base/ex01_sad_00001.wav", class_id="sad", actor="ex01", gender="male")
    ]
    assert corpora.get("expresso").expected_stems(root) is None


def test_one_clip_of_expresso_in_two_folders_is_refused(tmp_path: Path) -> None:
    root = put(tmp_path, "a/ex01_sad_00001.wav", "b/ex01_sad_00001.wav")
    with pytest.raises(BadInput, match=r"two files of one name: a/ex01_sad_00001\.wav and b/ex01_sad_00001\.wav"):
        corpora.get("expresso").read(root)


def test_the_sides_of_resd_are_folders_above_the_emotions(tmp_path: Path) -> None:
    root = put(tmp_path, "RESD/test/sadness/7_anger_sadness_s_030.wav")
    (row,) = corpora.get("resd").read(root)
    assert (row.partition, row.group, row.actor) == ("test", "7_anger_sadness", "")
    assert not corpora.speakers_known(corpora.get("resd"))
