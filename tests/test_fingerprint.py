"""Fingerprints: copies are found whatever a codec, a level or a cut did to them; takes of a sentence are not copies."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_scripts.audio import decode, fingerprint
from ser_scripts.audio.fingerprint import (
    HOP,
    MAX_BER,
    MIN_WORDS,
    RATE_HZ,
    Fingerprint,
    fingerprints,
    near_duplicates,
    near_duplicates_across,
)
from ser_scripts.corpora import toy
from ser_scripts.errors import BadInput
from ser_scripts.manifest import Manifest, build_manifest
from ser_scripts.runs.check import check_spec
from ser_scripts.runs.plan import load_experiment, make_plan
from ser_scripts.settings import folders
from ser_scripts.specs.corpora import CsvCorpus, NamedCorpus

TOY_HZ = 16_000


def spoken(stem: str) -> np.ndarray:
    return np.asarray(toy.clip(stem), np.float32)


def printed(samples: np.ndarray, rate_hz: int = TOY_HZ) -> Fingerprint:
    return fingerprint.fingerprint(samples.astype(np.float32), rate_hz)


def test_a_word_every_seventeen_milliseconds() -> None:
    clip = spoken("gio-f1-b1")
    whole = printed(clip)
    resampled = round(len(clip) * RATE_HZ / TOY_HZ)
    assert len(whole.words) == len(whole.counts) == pytest.approx((resampled - 2048) / HOP, abs=1)
    assert whole.words.dtype == np.uint32
    assert len(printed(clip[: TOY_HZ // 3]).words) == 0
    assert len(printed(np.zeros(0)).words) == 0


def test_silence_says_nothing() -> None:
    clip = spoken("gio-f1-b1")
    padded = printed(np.concatenate([np.zeros(2 * TOY_HZ), clip, np.zeros(2 * TOY_HZ)]))
    assert not padded.counts[:50].any()
    assert not padded.counts[-50:].any()
    assert not printed(np.zeros(3 * TOY_HZ)).counts.any()
    assert near_duplicates([printed(np.zeros(3 * TOY_HZ))] * 2) == []
    assert near_duplicates([]) == near_duplicates([printed(np.zeros(0))]) == []
    strangers = [printed(np.concatenate([np.zeros(3 * TOY_HZ), spoken(f"gio-{who}-b1")])) for who in ("f1", "m1")]
    assert near_duplicates(strangers) == []


@settings(max_examples=25)
@given(
    gain_db=st.floats(-40, 12),
    cut_seconds=st.floats(0, 0.15),
    rate_hz=st.sampled_from([8000, 11_025, 16_000, 22_050, 44_100]),
    stem=st.sampled_from(["gio-f1-n1", "rab-m1-l3", "neu-f1-d1", "tri-m1-l2"]),
)
def test_level_rate_and_a_cut_do_not_hide_a_copy(gain_db: float, cut_seconds: float, rate_hz: int, stem: str) -> None:
    clip = spoken(stem)
    copy = soxr.resample(clip[round(cut_seconds * TOY_HZ) :] * np.float32(10 ** (gain_db / 20)), TOY_HZ, rate_hz)
    (found,) = near_duplicates([printed(spoken("dis-f2-d1")), printed(clip), printed(copy, rate_hz)])
    assert (found.one, found.other) == (1, 2)
    assert found.ber < 0.1
    assert found.offset_seconds == pytest.approx(cut_seconds, abs=0.02)


def test_the_search_finds_what_comparing_every_pair_at_every_offset_finds() -> None:
    stems = [
        f"{emotion}-{who}-{text}" for emotion in ("gio", "neu") for who in ("f1", "m1") for text in ("d2", "l3", "n1")
    ]
    clips = [spoken(stem) for stem in stems]
    clips += [clips[0][1600:], clips[3][:-3200], np.concatenate([clips[5], clips[7]])]
    noise = np.random.default_rng(0).standard_normal(len(clips[1])).astype(np.float32)
    clips.append(clips[1] + 0.03 * np.sqrt(np.mean(clips[1] ** 2)) * noise)
    prints = [printed(clip) for clip in clips]
    found = {(pair.one, pair.other): pair.ber for pair in near_duplicates(prints)}
    assert found.keys() == {(0, 12), (3, 13), (5, 14), (7, 14), (1, 15)}
    for (one, other), ber in found.items():
        assert ber == pytest.approx(lowest_ber(prints[one], prints[other]), abs=0.02)
    others = [lowest_ber(a, b) for i, a in enumerate(prints[:12]) for b in prints[i + 1 : 12]]
    assert min(others) > MAX_BER
    backwards = near_duplicates(prints[::-1])
    assert {(15 - pair.other, 15 - pair.one): pair.ber for pair in backwards} == found


def lowest_ber(one: Fingerprint, other: Fingerprint) -> float:
    """By brute force."""
    rates = [1.0]
    for offset in range(-len(other.words), len(one.words)):
        start, end = max(0, offset), min(len(one.words), offset + len(other.words))
        counted = one.counts[start:end] & other.counts[start - offset : end - offset]
        if counted.sum() >= MIN_WORDS:
            wrong = one.words[start:end] ^ other.words[start - offset : end - offset]
            rates.append(float(np.bitwise_count(wrong[counted]).mean() / 32))
    return min(rates)


@pytest.fixture
def two_corpora(tmp_path: Path) -> dict[str, Manifest]:
    """`a` and `b`, of which b holds a turned-down and shortened copy of a/0.wav, and a copy under the same speaker."""
    manifests = {}
    stems = ["gio-f1-n1", "rab-f1-n3", "neu-m1-l3"]
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        rows = ["path,class_id,actor,gender"]
        for number, stem in enumerate(stems):
            clip = spoken(stem if name == "a" else stem.replace("1-", "3-"))
            if (name, number) == ("b", 2):
                clip = 0.3 * spoken(stems[0])[800:]
            soundfile.write(tmp_path / name / f"{number}.wav", clip, TOY_HZ, subtype="PCM_16")
            rows.append(f"{number}.wav,x{number % 2},s{number},female")
        soundfile.write(tmp_path / name / "3.wav", 0.5 * clip, TOY_HZ, subtype="PCM_16")  # of 2.wav, same speaker
        rows.append("3.wav,x0,s2,female")
        (tmp_path / name / "clips.csv").write_text("\n".join(rows) + "\n")
        spec = CsvCorpus(kind="csv", name=name, path=f"{name}/clips.csv")
        manifests[name] = build_manifest(spec, data=tmp_path, cache=tmp_path / "cache", base=tmp_path)
    return manifests


def all_clips(manifests: dict[str, Manifest]) -> pd.DataFrame:
    return pd.concat([manifest.clips for manifest in manifests.values()], ignore_index=True)


def test_across_speakers_only(two_corpora: dict[str, Manifest], tmp_path: Path) -> None:
    found = near_duplicates_across(all_clips(two_corpora), two_corpora, tmp_path / "cache")
    assert [pair[:2] for pair in found] == [("a/0.wav", "b/2.wav"), ("a/0.wav", "b/3.wav")]
    assert all(ber < 0.1 for *_, ber in found)
    shuffled = all_clips(two_corpora).sample(frac=1, random_state=0)
    assert near_duplicates_across(shuffled, two_corpora, tmp_path / "cache") == found
    unknown = all_clips(two_corpora).assign(actor="")
    assert len(near_duplicates_across(unknown, two_corpora, tmp_path / "cache")) == 4
    assert near_duplicates_across(two_corpora["a"].clips, two_corpora, tmp_path / "cache") == []


def test_identical_samples_are_left_to_the_checksum(two_corpora: dict[str, Manifest], tmp_path: Path) -> None:
    clips = all_clips(two_corpora)
    doubled = pd.concat([clips, clips[clips["corpus"] == "a"].assign(actor="someone else")], ignore_index=True)
    pairs = near_duplicates_across(doubled, two_corpora, tmp_path / "cache")
    shas = dict(zip(doubled["corpus"] + "/" + doubled["path"], doubled["audio_sha256"], strict=True))
    assert all(shas[one] != shas[other] for one, other, _ in pairs)


def test_a_clip_is_printed_once(
    two_corpora: dict[str, Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, cache = two_corpora["a"], tmp_path / "cache"
    seen: list[str] = []
    original = decode.read

    def recorder(path: Path) -> tuple[decode.Samples, int]:
        seen.append(path.name)
        return original(path)

    monkeypatch.setattr(decode, "read", recorder)
    first = fingerprints(manifest, cache)
    assert sorted(seen) == ["0.wav", "1.wav", "2.wav", "3.wav"]
    again = fingerprints(manifest, cache)
    assert len(seen) == 4
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.words, other.words)
        np.testing.assert_array_equal(one.counts, other.counts)
    (manifest.root / "1.wav").rename(manifest.root / "4.wav")  # known again by its samples
    text = (manifest.root / "clips.csv").read_text().replace("1.wav", "4.wav")
    (manifest.root / "clips.csv").write_text(text)
    soundfile.write(manifest.root / "0.wav", spoken("tri-f2-d1"), TOY_HZ, subtype="PCM_16")
    spec = CsvCorpus(kind="csv", name="a", path="a/clips.csv")
    changed = build_manifest(spec, data=tmp_path, cache=cache, base=tmp_path)
    seen.clear()
    assert [len(one.words) for one in fingerprints(changed, cache)][1:3] == [len(first[n].words) for n in (2, 3)]
    assert seen == ["0.wav"]
    file = cache / "fingerprints" / "a.npz"
    whole = file.read_bytes()
    for damage in (whole[:-9], b"", whole.replace(b"PK", b"XX", 1)):
        file.write_bytes(damage)
        seen.clear()
        fingerprints(changed, cache)
        assert len(seen) == 4


def test_a_file_that_changed_since_the_manifest_is_refused(two_corpora: dict[str, Manifest], tmp_path: Path) -> None:
    soundfile.write(two_corpora["a"].root / "0.wav", spoken("tri-f2-d1"), TOY_HZ)
    with pytest.raises(BadInput, match=r"0\.wav has changed"):
        fingerprints(two_corpora["a"], tmp_path / "cache")


def test_a_cache_that_cannot_be_written_is_an_error(two_corpora: dict[str, Manifest], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cache folder"):
        fingerprints(two_corpora["a"], tmp_path / "file")


def test_several_at_once_keep_each_others_work(two_corpora: dict[str, Manifest], tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        lengths = {
            tuple(len(one.words) for one in prints)
            for prints in pool.map(lambda _: fingerprints(two_corpora["a"], tmp_path / "cache"), range(4))
        }
    assert len(lengths) == 1
    assert {file.suffix for file in (tmp_path / "cache" / "fingerprints").iterdir()} <= {".npz", ".lock"}


def write_csv(folder: Path, clips: dict[str, np.ndarray], rows: list[str]) -> dict[str, str]:
    """A CSV corpus, as an experiment names it."""
    folder.mkdir()
    for name, samples in clips.items():
        soundfile.write(folder / name, samples, TOY_HZ, subtype="PCM_16")
    (folder / f"{folder.name}.csv").write_text("\n".join(["path,class_id,actor,gender", *rows]) + "\n")
    return {"kind": "csv", "name": folder.name, "path": str(folder / f"{folder.name}.csv")}


def test_a_copy_across_corpora_is_refused_before_training(project, mini_corpus: Path, tmp_path: Path) -> None:
    copied = soundfile.read(mini_corpus / "tri-f1-n1.wav", dtype="float32")[0]
    clips = {"x.wav": spoken("gio-f4-d2"), "y.wav": spoken("neu-m4-d2"), "z.wav": 0.4 * copied[1600:]}
    rows = ["x.wav,happy,p,female", "y.wav,angry,q,male", "z.wav,sad,r,female"]
    other = write_csv(tmp_path / "other", clips, rows)
    experiment = project(test=[other], seeds=[0, 1])
    plan = make_plan(load_experiment(experiment), folders(), progress=lambda text: None)
    told = dict(plan.refused)
    trained = {seed for seed in (0, 1) if seed in told}
    assert trained, "f1 trains or validates in one of the two splits"
    for text in told.values():
        assert "near duplicates across sides: mini/tri-f1-n1.wav (" in text
        assert ") ~ other/z.wav (test)" in text
    lines, bad = check_spec(
        experiment, low_seed=None, high_seed=None, overrides=(), allow_imports=(), say=lambda text: None
    )
    assert bad
    assert any("near duplicates across sides" in line for line in lines)


def test_a_copy_under_another_speaker_of_one_corpus_is_a_finding_of_the_check(project, tmp_path: Path) -> None:
    stems = [f"{emotion}-{who}-n1" for emotion in ("gio", "rab") for who in ("f1", "f2", "f3", "m1", "m2", "m3")]
    clips = {f"{stem}.wav": spoken(stem) for stem in stems}
    clips["gio-m1-n1.wav"] = 0.5 * clips["gio-f1-n1.wav"][800:]
    rows = [f"{stem}.wav,{stem[:3]},{stem[4:6]},{'female' if stem[4] == 'f' else 'male'}" for stem in stems]
    corpus = write_csv(tmp_path / "own", clips, rows)
    experiment = project(train=[corpus], seeds=list(range(6)))

    def check() -> tuple[list[str], bool]:
        return check_spec(
            experiment, low_seed=None, high_seed=None, overrides=(), allow_imports=(), say=lambda text: None
        )

    lines, bad = check()
    (line,) = [line for line in lines if "near duplicates across sides" in line]
    assert bad
    assert "own/gio-f1-n1.wav (" in line
    assert "own/gio-m1-n1.wav (" in line
    soundfile.write(tmp_path / "own" / "gio-m1-n1.wav", spoken("gio-m1-n1"), TOY_HZ, subtype="PCM_16")
    lines, bad = check()
    assert not bad
    assert not any("near duplicates" in line for line in lines)


@pytest.mark.real
def test_emodb_has_no_near_duplicates_though_it_has_several_takes_of_a_sentence(ser_data: Path, tmp_path: Path) -> None:
    manifest = build_manifest(NamedCorpus(name="emodb"), data=ser_data, cache=tmp_path, base=tmp_path)
    takes = manifest.clips["path"].str.slice(0, -6)  # without the letter of the take
    assert takes.duplicated().sum() > 50
    assert near_duplicates(fingerprints(manifest, tmp_path)) == []


@pytest.mark.real
def test_lossy_copies_of_emodb_are_found(ser_data: Path, tmp_path: Path) -> None:
    files = sorted((ser_data / "emodb" / "wav").glob("*.flac"))[::12]
    originals = []
    copies: dict[str, list[Fingerprint]] = {"opus": [], "mp3": [], "telephone mp3, cut": [], "turned down, cut": []}
    for file in files:
        samples, rate_hz = decode.read(file)
        mono = decode.to_mono(samples)
        originals.append(printed(mono, rate_hz))
        narrow = soxr.resample(mono[rate_hz // 10 :], rate_hz, 8000)
        for name, clip, hz, container, subtype in (
            ("opus", mono, rate_hz, "OGG", "OPUS"),
            ("mp3", mono, rate_hz, "MP3", "MPEG_LAYER_III"),
            ("telephone mp3, cut", narrow, 8000, "MP3", "MPEG_LAYER_III"),
            ("turned down, cut", 0.05 * mono[: -rate_hz // 10], rate_hz, "WAV", "PCM_16"),
        ):
            copy = tmp_path / f"copy.{container.lower()}"
            level = {} if container == "WAV" else {"compression_level": 0.9}
            soundfile.write(copy, clip, hz, format=container, subtype=subtype, **level)
            decoded, found_hz = decode.read(copy)
            copies[name].append(printed(decode.to_mono(decoded), found_hz))
    for name, prints in copies.items():
        found = {(pair.one, pair.other - len(files)) for pair in near_duplicates([*originals, *prints])}
        assert found == {(number, number) for number in range(len(files))}, name
