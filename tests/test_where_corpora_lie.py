"""Where corpora are found: locations, a bundle, twin folders, presets beside the clips, folders of another corpus."""

import importlib.util
import json
import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import soundfile

from ser_scripts import corpora, settings
from ser_scripts.corpora import Likeness, looks_like, resemblance
from ser_scripts.corpora.sources import corpus_folder, place, read_source
from ser_scripts.corpora.twins import find_twins, twin_paths
from ser_scripts.errors import BadInput, SplitRefused
from ser_scripts.manifest import Manifest, build_manifest
from ser_scripts.presets import relocate
from ser_scripts.runs.check import corpus_spec
from ser_scripts.settings import folders
from ser_scripts.specs.corpora import AudioFolderCorpus, CsvCorpus, NamedCorpus
from ser_scripts.specs.splits import Preset
from ser_scripts.splits import draw

MINIATURES = Path(__file__).parent / "miniatures"


def touch(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def clip(file: Path, seed: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(file, np.random.default_rng(seed).normal(0, 0.1, 3200).astype(np.float32), 16000)


# ---- locations ----


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(settings, "LOCATIONS", Path("data/locations.json"))
    monkeypatch.setattr(settings, "_PROJECT", tmp_path / "project")
    monkeypatch.setenv("SER_DATA", "raw")
    return tmp_path


def locations(place: Path, content: object) -> None:
    (place / "data").mkdir(parents=True, exist_ok=True)
    (place / "data" / "locations.json").write_text(content if isinstance(content, str) else json.dumps(content))


def test_without_the_file_corpora_lie_under_ser_data(here: Path) -> None:
    assert folders().locations == {}
    assert place("emodb", data=folders().data, locations={}) == (here / "raw/emodb", "SER_DATA is raw")


def test_relative_locations_start_from_the_file(here: Path) -> None:
    locations(here, {"emodb": "../berlin", "emovo": "/corpora/emovo"})
    assert folders().locations == {"emodb": here / "data/../berlin", "emovo": Path("/corpora/emovo")}


def test_the_working_directory_comes_before_the_project(here: Path) -> None:
    locations(here / "project", {"emodb": "/project"})
    assert folders().locations == {"emodb": Path("/project")}
    locations(here, {"emodb": "/here"})
    assert folders().locations == {"emodb": Path("/here")}


def test_root_comes_before_locations_and_these_before_ser_data(here: Path) -> None:
    for name in ("raw/emodb", "located", "rooted"):
        touch(here, f"{name}/03a01Fa.wav")
    locations(here, {"emodb": "../located"})
    where = {"data": folders().data, "base": here}
    plain, rooted = NamedCorpus(name="emodb"), NamedCorpus(name="emodb", root="rooted")
    assert corpus_folder(plain, locations={}, **where) == here / "raw/emodb"
    assert corpus_folder(plain, locations=folders().locations, **where).resolve() == here / "located"
    assert corpus_folder(rooted, locations=folders().locations, **where) == here / "rooted"
    renamed = NamedCorpus(name="berlin", corpus="emodb")
    assert corpus_folder(renamed, locations=folders().locations, **where).resolve() == here / "located"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"emodbb": "x"}, r"locations\.json: corpus 'emodbb' is not known; did you mean 'emodb'\?"),
        ({"emodb": 3}, r"locations\.json: emodb: 3 is not valid; expected the path of a folder"),
        ({"emodb": ""}, "emodb: '' is not valid"),
        (["emodb"], "expected an object from corpus to folder, found list"),
        ("{", r"locations\.json is not valid JSON: line 1"),
    ],
)
def test_wrong_locations_are_named(here: Path, content: object, message: str) -> None:
    locations(here, content)
    with pytest.raises(BadInput, match=message):
        folders()


def test_a_location_that_is_no_folder_is_named_when_it_is_read(here: Path) -> None:
    locations(here, {"emodb": "gone"})
    with pytest.raises(BadInput, match=r"corpus 'emodb': no folder .*data/gone \(data/locations\.json\)"):
        corpus_folder(NamedCorpus(name="emodb"), data=folders().data, locations=folders().locations, base=here)


def test_a_manifest_is_built_where_the_location_says(here: Path) -> None:
    clip(here / "berlin/03a01Fa.wav", 0)
    locations(here, {"emodb": "../berlin"})
    spec = NamedCorpus(name="emodb")
    with pytest.raises(BadInput, match="no folder"):
        build_manifest(spec, data=here, cache=here / "cache", base=here)
    with pytest.raises(BadInput, match="holds 1 of the 535 clips"):
        build_manifest(spec, data=here, cache=here / "cache", base=here, locations=folders().locations)


# ---- the bundle of four corpora ----


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return touch(
        tmp_path / "archive",
        "Crema/1002_DFA_NEU_XX.wav",
        "Ravdess/audio_speech_actors_01-24/Actor_01/03-01-01-01-01-01-01.wav",
        "Savee/DC_a01.wav",
        "Tess/OAF_angry/OAF_back_angry.wav",
    )


@pytest.mark.parametrize(
    ("name", "folder"), [("cremad", "Crema"), ("ravdess", "Ravdess"), ("savee", "Savee"), ("tess", "Tess")]
)
def test_the_bundle_is_four_corpora_wherever_it_is_named(bundle: Path, name: str, folder: str) -> None:
    spec = NamedCorpus(name=name)
    nowhere = bundle.parent
    for found in (
        corpus_folder(spec, data=bundle, locations={}, base=nowhere),
        corpus_folder(spec, data=nowhere, locations={name: bundle}, base=nowhere),
        corpus_folder(NamedCorpus(name=name, root=str(bundle)), data=nowhere, locations={}, base=nowhere),
    ):
        assert found == bundle / folder
        assert len(corpora.get(name).read(found)) == 1


def test_a_folder_of_the_corpus_itself_comes_before_the_bundles(bundle: Path) -> None:
    touch(bundle, "ravdess/Actor_02/03-01-01-01-01-01-02.wav")
    assert place("ravdess", data=bundle, locations={})[0] == bundle / "ravdess"


def test_the_bundles_cremad_has_its_genders_without_the_table(bundle: Path) -> None:
    row = corpora.get("cremad").read(bundle / "Crema")[0]
    assert (row.actor, row.gender) == ("1002", "female")


@pytest.mark.real
def test_the_packaged_genders_of_cremad_are_those_of_its_table(ser_data: Path) -> None:
    from ser_scripts.corpora import cremad

    table = pd.read_csv(next(ser_data.rglob("VideoDemographics.csv")), dtype=str)
    assert cremad._packaged_genders() == dict(zip(table["ActorID"], table["Sex"].str.lower(), strict=True))


# ---- twin folders ----


def twins(root: Path, native: list[str], telephone: list[str]) -> Path:
    for seed, stem in enumerate(native):
        clip(root / f"wav/wav/{stem}.wav", seed)
    for seed, stem in enumerate(telephone):
        clip(root / f"wav_telephone/wav_telephone/{stem}.wav", 100 + seed)
    return root


STEMS = ["03a01Fa", "03a01Nc", "08a01Ab"]


def read_emodb(tmp_path: Path, **keys: str) -> Manifest:
    allowed = [f"emodb/{stem}" for stem in corpora.get("emodb").expected_stems(tmp_path) or [] if stem not in STEMS]
    return build_manifest(
        NamedCorpus(name="emodb", **keys), data=tmp_path, cache=tmp_path / "cache", base=tmp_path, allow_dropped=allowed
    )


def test_the_twin_is_read_with_the_same_labels_and_speakers(tmp_path: Path) -> None:
    twins(tmp_path / "emodb", STEMS, STEMS)
    native, telephone = read_emodb(tmp_path), read_emodb(tmp_path, twin="wav_telephone")
    assert list(native.clips["path"]) == [f"wav/wav/{stem}.wav" for stem in STEMS]
    assert list(telephone.clips["path"]) == [f"wav_telephone/wav_telephone/{stem}.wav" for stem in STEMS]
    same = ["corpus", "class_id", "actor", "gender", "sentence"]
    pd.testing.assert_frame_equal(native.clips[same], telephone.clips[same])
    assert set(native.clips["audio_sha256"]).isdisjoint(telephone.clips["audio_sha256"])
    again = read_emodb(tmp_path)
    pd.testing.assert_frame_equal(native.clips, again.clips)


def test_each_clip_of_a_manifest_has_its_twin(tmp_path: Path) -> None:
    twins(tmp_path / "emodb", STEMS, STEMS)
    native, telephone = read_emodb(tmp_path), read_emodb(tmp_path, twin="wav_telephone")
    there = twin_paths(native, "wav_telephone")
    assert list(there.values()) == list(telephone.clips["path"])
    assert twin_paths(telephone, "wav") == {path: twin for twin, path in there.items()}


def test_clips_that_are_in_one_folder_only_are_named(tmp_path: Path) -> None:
    twins(tmp_path / "emodb", STEMS, STEMS[:2])
    with pytest.raises(BadInput, match=r"emodb/wav_telephone/wav_telephone/08a01Ab\.wav: no such file"):
        read_emodb(tmp_path, twin="wav_telephone")
    with pytest.raises(BadInput, match=r"1 of 3 clips of emodb are not in wav_telephone: wav/wav/08a01Ab\.wav"):
        twin_paths(read_emodb(tmp_path), "wav_telephone")
    (tmp_path / "emodb/wav/wav/03a01Fa.wav").unlink()
    with pytest.raises(BadInput, match=r"1 clips are in wav_telephone only, not in wav: wav_telephone/.*/03a01Fa\.wav"):
        read_emodb(tmp_path, twin="wav_telephone")


def test_twins_may_have_another_suffix(tmp_path: Path) -> None:
    root = touch(tmp_path, "AudioWAV/1001_DFA_ANG_XX.wav", "AudioMP3/1001_DFA_ANG_XX.mp3")
    assert find_twins(root, ["AudioWAV/1001_DFA_ANG_XX.wav"], "AudioMP3") == {
        "AudioWAV/1001_DFA_ANG_XX.wav": "AudioMP3/1001_DFA_ANG_XX.mp3"
    }


def test_clips_of_a_csv_have_twins_too(tmp_path: Path) -> None:
    for seed, path in enumerate(("wav/a.wav", "wav_telephone/a.wav")):
        clip(tmp_path / path, seed)
    (tmp_path / "clips.csv").write_text("path,label\nwav/a.wav,sad\n")
    spec = CsvCorpus(kind="csv", name="mine", path="clips.csv", twin="wav_telephone")
    rows = read_source(spec, data=tmp_path, locations={}, cache=tmp_path, base=tmp_path).rows
    assert [(row.path, row.class_id) for row in rows] == [("wav_telephone/a.wav", "sad")]


@pytest.mark.parametrize(
    ("twin", "message"),
    [
        ("wav_phone", r"twin 'wav_phone' is not known; valid: wav_telephone, AudioMP3"),
        ("wav", r"twin 'wav' is not known; valid: wav_telephone"),
        ("AudioMP3", "holds no audio in a folder AudioMP3"),
    ],
)
def test_a_twin_that_is_not_there_is_named(tmp_path: Path, twin: str, message: str) -> None:
    twins(tmp_path / "emodb", STEMS, STEMS)
    with pytest.raises(BadInput, match=message):
        read_emodb(tmp_path, twin=twin)


# ---- presets beside the clips ----


def corpus(root: Path) -> Manifest:
    """Three speakers with two classes each, one folder per class."""
    for seed, name in enumerate(f"{label}/{actor}_{label}" for actor in "abc" for label in ("angry", "sad")):
        clip(root / f"{name}.wav", seed)
    spec = AudioFolderCorpus(kind="audiofolder", name="mine", path=str(root), speaker_pattern=r"/(?P<actor>[abc])_")
    return build_manifest(spec, data=root, cache=root.parent / "cache", base=root)


def sides(manifest: Manifest, path: str, base: Path) -> dict[str, str]:
    split = draw(
        manifest.clips,
        Preset(kind="preset", path=path),
        0,
        train_corpora=["mine"],
        base=base,
        roots={"mine": manifest.root},
    )[0]
    return dict(zip(split.table["path"], split.table["split"], strict=True))


def three(folder: Path, name: Callable[[str, str], str], *, column: str = "path", val: str = "val.csv") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for file, actor in (("train.csv", "a"), (val, "b"), ("test.csv", "c")):
        lines = [name(label, f"{actor}_{label}.wav") for label in ("angry", "sad")]
        (folder / file).write_text("\n".join([column, *lines]) + "\n", encoding="utf-8")


EXPECTED = {
    "angry/a_angry.wav": "train", "sad/a_sad.wav": "train", "angry/b_angry.wav": "validation",
    "sad/b_sad.wav": "validation", "angry/c_angry.wav": "test", "sad/c_sad.wav": "test",
}  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [
        lambda label, file: f"{label}/{file}",
        lambda label, file: f"/home/other/datasets/mine/{label}/{file}",
        lambda label, file: f"C:\\\\data\\\\{label}\\\\{file}".replace("\\\\", "\\"),
        lambda label, file: f"elsewhere/{file.replace('.wav', '.flac')}",
    ],
    ids=["relative", "absolute", "windows", "by name"],
)
@pytest.mark.parametrize("place", ["corpus", "splits"])
def test_three_tables_are_a_split_in_the_corpus_folder_or_another(
    tmp_path: Path, place: str, name: Callable[[str, str], str]
) -> None:
    manifest = corpus(tmp_path / "mine")
    three(manifest.root if place == "corpus" else tmp_path / "splits", name)
    assert sides(manifest, place, tmp_path) == EXPECTED


@pytest.mark.parametrize(("column", "val"), [("wav_path", "valid.csv"), ("file_path", "dev.csv")])
def test_tables_and_their_column_may_have_other_names(tmp_path: Path, column: str, val: str) -> None:
    manifest = corpus(tmp_path / "mine")
    three(tmp_path / "splits", lambda label, file: f"{label}/{file}", column=column, val=val)
    assert sides(manifest, "splits", tmp_path) == EXPECTED


def test_three_tables_that_leak_are_refused(tmp_path: Path) -> None:
    manifest = corpus(tmp_path / "mine")
    three(tmp_path / "splits", lambda label, file: f"{label}/{file}")
    (tmp_path / "splits/test.csv").write_text("path\nangry/c_angry.wav\nsad/b_sad.wav\n")
    (tmp_path / "splits/val.csv").write_text("path\nangry/b_angry.wav\nsad/c_sad.wav\n")
    with pytest.raises(SplitRefused, match=r"2 groups on two sides: mine/b, mine/c"):
        sides(manifest, "splits", tmp_path)


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"train.csv": "path\n"}, r"splits holds no test\.csv; a preset split there is train\.csv"),
        ({"train.csv": "clip\n", "test.csv": "path\n"}, r"train\.csv has no column path or .*; it has clip"),
        (
            {"train.csv": "path\n", "test.csv": "path\n", "val.csv": "path\n", "dev.csv": "path\n"},
            r"holds val\.csv and dev\.csv",
        ),
    ],
)
def test_faults_of_the_three_tables_are_named(tmp_path: Path, tables: dict[str, str], message: str) -> None:
    manifest = corpus(tmp_path / "mine")
    (tmp_path / "splits").mkdir()
    for name, text in tables.items():
        (tmp_path / "splits" / name).write_text(text)
    with pytest.raises(BadInput, match=message):
        sides(manifest, "splits", tmp_path)


def test_a_preset_in_the_corpus_folder_needs_to_know_it(tmp_path: Path) -> None:
    manifest = corpus(tmp_path / "mine")
    with pytest.raises(BadInput, match="preset path 'corpus': the folder of mine is not known here"):
        draw(manifest.clips, Preset(kind="preset", path="corpus"), 0, train_corpora=["mine"], base=tmp_path)


def test_leading_folders_go_only_when_every_path_is_known_without_them() -> None:
    known = pd.Series(["a/1.wav", "b/1.wav"])
    assert list(relocate(pd.Series(["/x/a/1.wav", "/x/b/1.wav"]), known)) == ["a/1.wav", "b/1.wav"]
    assert list(relocate(pd.Series(["/x/a/1.wav", "/x/c/1.wav"]), known)) == ["/x/a/1.wav", "/x/c/1.wav"]


# ---- a folder of another corpus ----


def module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"layout_{name}", MINIATURES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


BARE = {
    "emodb": ["wav/03a01Fa.wav", "wav/16b10Td.wav"],
    "emovo": ["f1/dis-f1-b1.wav", "m3/sor-m3-n5.wav"],
    "ravdess": ["Actor_01/03-01-08-02-01-02-01.wav", "Actor_12/03-01-06-01-02-01-12.wav"],
    "toy": ["f1/dis-f1-b1.wav", "m4/sor-m4-n5.wav"],
}
"""Corpora whose file names say everything and that have no miniature."""
NAMES = sorted({file.stem for file in MINIATURES.glob("*.py")} | BARE.keys())
ALIKE = {"emovo": {"toy"}, "mead": {"eekk"}}
"""Corpus -> others that its file names fit as well: toy reads EMOVO, EEKK has bare numbers as names."""


@pytest.fixture(scope="session")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every miniature, with empty audio files, since readers decode nothing."""
    made = {}
    for name in NAMES:
        root = tmp_path_factory.mktemp("layouts") / "corpus"
        small = module(name) if (MINIATURES / f"{name}.py").is_file() else None
        touch(root, *(small.CLIPS if small else BARE[name]))
        for path, text in (small.TABLES if small else {}).items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text, encoding="utf-8", newline="")
        made[name] = root
    return made


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_looks_like_its_own_corpus(name: str, layouts: dict[str, Path]) -> None:
    found = looks_like(layouts[name])
    best = [one.corpus for one in found if one.fits == found[0].fits]
    assert name in best
    assert resemblance(layouts[name], name) == ""


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_read_as_another_corpus_is_refused_and_recognised(name: str, layouts: dict[str, Path]) -> None:
    wrong = {}
    for other in corpora.names():
        if other == name:
            continue
        try:
            corpora.read(corpora.get(other), layouts[name])
        except BadInput as error:
            if f"('{name}')" not in str(error):
                wrong[other] = str(error)
        else:
            wrong[other] = "is read without a word"
    assert set(wrong) == ALIKE.get(name, set()), "\n".join(f"as {other}: {text}" for other, text in wrong.items())


def test_the_error_counts_the_names_that_fit(tmp_path: Path) -> None:
    touch(tmp_path, "03a01Fa.wav", "03a01Nc.wav", "noise.wav")
    assert looks_like(tmp_path)[0] == Likeness("emodb", 2, 3)
    with pytest.raises(BadInput, match=r"\nIt looks like EmoDB, Berlin.* \('emodb'\): 2 of 3 names fit\.$"):
        corpora.read(corpora.get("ravdess"), tmp_path)


def test_a_folder_that_looks_like_nothing_gives_no_hint(tmp_path: Path) -> None:
    touch(tmp_path, "03a01Fa.wav", "x.wav", "y.wav")
    with pytest.raises(BadInput) as error:
        corpora.read(corpora.get("ravdess"), tmp_path)
    assert "looks like" not in str(error.value)


def test_a_half_corpus_is_said_to_be_incomplete_and_not_another_one(tmp_path: Path) -> None:
    for seed, stem in enumerate(STEMS):
        clip(tmp_path / f"emodb/{stem}.wav", seed)
    with pytest.raises(BadInput, match=r"holds 3 of the 535 clips of EmoDB.*missing: 03a01Wa, ") as error:
        build_manifest(NamedCorpus(name="emodb"), data=tmp_path, cache=tmp_path / "cache", base=tmp_path)
    assert "looks like" not in str(error.value)


# ---- names that are no text ----


def test_audio_whose_name_is_not_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / "angry").mkdir()
    try:
        (tmp_path / "angry" / os.fsdecode(b"fr\xf6hlich.wav")).touch()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    message = rf"'{tmp_path}/angry': the file name 'fr\\udcf6hlich\.wav' is not UTF-8 \(its bytes: b'.*fr\\xf6hlich"
    with pytest.raises(BadInput, match=message) as error:
        read_source(
            AudioFolderCorpus(kind="audiofolder", name="mine", path=str(tmp_path)),
            data=tmp_path,
            locations={},
            cache=tmp_path,
            base=tmp_path,
        )
    str(error.value).encode("utf-8")


def test_a_table_whose_name_is_not_utf8_does_no_harm(tmp_path: Path) -> None:
    touch(tmp_path, "03a01Fa.wav")
    try:
        (tmp_path / os.fsdecode(b"les\xe9n.txt")).touch()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert len(corpora.get("emodb").read(tmp_path)) == 1


# ---- on the command line ----


def test_a_folder_on_the_command_line_is_a_folder_per_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "mine/angry/1.wav", "emodb/wav/03a01Fa.wav")
    monkeypatch.chdir(tmp_path)
    assert corpus_spec("mine") == AudioFolderCorpus(kind="audiofolder", name="mine", path=str(tmp_path / "mine"))
    assert corpus_spec("emodb") == NamedCorpus(name="emodb")
    assert PurePosixPath(corpus_spec("./mine/").path).name == "mine"
