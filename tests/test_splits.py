"""Splits: no leak whatever the corpus, every split once, the same checksum everywhere.

SER_SPLIT_EXAMPLES raises the number of random corpora per property (default 50; CI runs 1000 as well).
"""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from math import floor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from ser_eval.run_folder import SPLIT_COLUMNS, read_table
from ser_scripts.errors import BadInput, SplitRefused
from ser_scripts.presets import read_preset
from ser_scripts.specs.splits import SplitSpec
from ser_scripts.splits import (
    NEEDED_COLUMNS,
    Draws,
    Split,
    combination,
    draw,
    fractions,
    permute,
    side_sizes,
    write_split,
)

EXAMPLES = int(os.environ.get("SER_SPLIT_EXAMPLES", "50"))
many = settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def spec(kind: str, **keys: Any) -> SplitSpec:
    return TypeAdapter(SplitSpec).validate_python({"kind": kind, **keys})


def row(corpus: str, actor: str, gender: str, class_id: str, take: int, group: str | None = None) -> list[str]:
    path = f"{actor}/{class_id}_{take}.wav"
    audio = hashlib.sha256(f"{corpus}/{path}".encode()).hexdigest()
    return [corpus, path, class_id, actor, gender, actor if group is None else group, f"s{take}", audio]


def corpus(
    name: str = "c",
    female: int = 3,
    male: int = 3,
    *,
    classes: int = 4,
    takes: int = 3,
    lacking: tuple[tuple[str, str], ...] = (),
) -> pd.DataFrame:
    speakers = [(f"f{i:03}", "female") for i in range(female)] + [(f"m{i:03}", "male") for i in range(male)]
    rows = [
        row(name, actor, gender, f"e{c}", take)
        for actor, gender in speakers
        for c in range(classes)
        for take in range(takes)
        if (actor, f"e{c}") not in lacking
    ]
    return pd.DataFrame(rows, columns=NEEDED_COLUMNS)


@st.composite
def corpora(draw_: st.DrawFn) -> pd.DataFrame:
    """One to three corpora: missing cells, one gender, unknown genders, shared groups, 3 to 500 speakers."""
    dice = random.Random(draw_(st.integers(0, 2**32)))
    rows = []
    for number in range(draw_(st.sampled_from([1, 1, 1, 2, 3]))):
        sizes = st.integers(0, 8) if draw_(st.integers(0, 19)) else st.integers(50, 170)
        genders = draw_(st.sampled_from([["female"], ["female", "male"], ["female", "male", "unknown", "other"]]))
        speakers = [(f"{gender[0]}{i}", gender) for gender in genders for i in range(draw_(sizes))]
        present = draw_(st.sampled_from([1.0, 0.9, 0.3]))
        group_size = draw_(st.sampled_from([1, 1, 1, 2]))
        for place, (actor, gender) in enumerate(speakers):
            group = None if group_size == 1 else f"g{place // group_size}"
            cells = [c for c in range(3) if dice.random() < present] or [dice.randrange(3)]
            rows += [row(f"c{number}", actor, gender, f"e{c}", take, group) for c in cells for take in range(2)]
    while len({(r[0], r[5]) for r in rows}) < 3:
        rows.append(row("c0", f"extra{len(rows)}", "male", "e0", 0))
    dice.shuffle(rows)
    return pd.DataFrame(rows, columns=NEEDED_COLUMNS)


def names(clips: pd.DataFrame) -> list[str]:
    return sorted(set(clips["corpus"]))


def one(clips: pd.DataFrame, kind: str, seed: int = 0, **keys: Any) -> Split:
    (split,) = draw(clips, spec(kind, **keys), seed, train_corpora=[clips["corpus"].iloc[0]])
    return split


def on(split: Split, side: str, column: str = "actor") -> set[str]:
    return set(split.table[column][split.table["split"] == side])


def check_honest(clips: pd.DataFrame, split: Split) -> None:
    """Every clip once, no group, speaker or recording on two sides, no side empty; shares no code with the draw."""
    table = split.table
    assert list(table.columns) == SPLIT_COLUMNS
    audio_of = dict(zip(zip(clips["corpus"], clips["path"], strict=True), clips["audio_sha256"], strict=True))
    assert list(zip(table["corpus"], table["path"], strict=True)) == sorted(audio_of)
    assert len(audio_of) == len(clips)
    sides: dict[tuple[str, ...], set[str]] = {}
    columns = ("corpus", "path", "group", "actor", "split")
    for corpus_, path, group, actor, side in zip(*(table[name] for name in columns), strict=True):
        if side != "unused":
            for key in (("group", corpus_, group), ("actor", corpus_, actor), ("audio", audio_of[corpus_, path])):
                sides.setdefault(key, set()).add(side)
    assert all(len(met) == 1 for met in sides.values())
    assert set().union(*sides.values()) == {"train", "validation", "test"}
    assert set(table["split"]) <= {"train", "validation", "test", "unused"}
    assert not split.speaker_dependent


def refusal(clips: pd.DataFrame, split_spec: SplitSpec, seed: int, train: list[str]) -> str:
    """Why a draw is refused; empty where it is not."""
    try:
        draw(clips, split_spec, seed, train_corpora=train)
    except SplitRefused as error:
        return str(error)
    return ""


def try_draw(clips: pd.DataFrame, split_spec: SplitSpec, seed: int, train: list[str]) -> list[Split]:
    """The splits, or none where the corpus has too little; a draw by speakers never needs to be refused for a leak."""
    reason = refusal(clips, split_spec, seed, train)
    if not reason:
        return draw(clips, split_spec, seed, train_corpora=train)
    excuses = ["class without", "at least", "fewer than two", "set aside"]
    if split_spec.sentence_independent:
        excuses += ["side is empty", "one sentence only"]
    assert any(text in reason for text in excuses), reason
    assert "two sides" not in reason
    return []


# ---- properties over random corpora ----

SIZES: list[dict[str, Any]] = [{}, {"train_test_split": 0.7}, {"proportions": (0.7, 0.15, 0.15)}, {"rotate": False}]


@many
@given(corpora(), st.sampled_from(SIZES), st.integers(0, 10**6))
def test_speaker_independent_holds_its_rules(clips: pd.DataFrame, keys: dict[str, Any], seed: int) -> None:
    splits = try_draw(clips, spec("speaker_independent", **keys), seed, names(clips))
    for split in splits:
        check_honest(clips, split)
        assert "unused" not in set(split.table["split"])
        check_sizes(split, keys)
        shuffled = clips.sample(frac=1, random_state=seed).reset_index(drop=True)
        again = draw(shuffled, spec("speaker_independent", **keys), seed, train_corpora=names(clips)[::-1])
        assert again[0].sha256 == split.sha256
        pd.testing.assert_frame_equal(again[0].table, split.table)


def check_sizes(split: Split, keys: dict[str, Any]) -> None:
    n = Fraction(str(keys.get("train_test_split", 0.8)))
    wanted = [Fraction(str(share)) for share in keys.get("proportions", ())] or [n * n, n * (1 - n), 1 - n]
    units = split.table.groupby(["corpus", "group"]).agg(
        genders=("gender", lambda g: "+".join(sorted(set(g)))), side=("split", "first")
    )
    counts = (
        units.groupby([units.index.get_level_values("corpus"), "genders"])["side"].value_counts().unstack(fill_value=0)
    )
    counts = counts.reindex(columns=["train", "validation", "test"], fill_value=0)
    if (counts.sum(axis=1) < 3).all():
        return  # strata may have been merged
    for row_ in counts.to_numpy().tolist():
        exact = [sum(row_) * share for share in wanted]
        # Largest remainder: never a whole speaker off, unless a side had to be given its first.
        if 0 in [floor(value) for value in exact] and sum(row_) >= 3:
            assert min(row_) >= 1
        else:
            assert all(abs(number - value) < 1 for number, value in zip(row_, exact, strict=True))


@many
@given(corpora(), st.integers(2, 5), st.integers(0, 10**6))
def test_folds_test_every_speaker_once(clips: pd.DataFrame, folds: int, seed: int) -> None:
    for kind, keys in (("k_fold", {"folds": folds}), ("leave_one_group_out", {}), ("leave_one_speaker_out", {})):
        if kind != "k_fold" and len(clips) > 100:
            continue
        splits = try_draw(clips, spec(kind, **keys), seed, names(clips))
        tested: Counter[tuple[str, str]] = Counter()
        for split in splits:
            check_honest(clips, split)
            in_test = split.table[split.table["split"] == "test"]
            tested.update(set(zip(in_test["corpus"], in_test["actor"], strict=True)))
        if splits:
            assert len({split.fold for split in splits}) == len(splits)
            assert tested == Counter(set(zip(clips["corpus"], clips["actor"], strict=True)))


@many
@given(corpora(), st.integers(0, 10**6), st.booleans())
def test_shots_leave_the_test_side_alone(clips: pd.DataFrame, seed: int, sentences: bool) -> None:
    if len(names(clips)) < 2:
        clips = pd.concat([clips, corpus("further", 3, 2, classes=3, takes=4)], ignore_index=True)
    train = names(clips)[:1]
    tested = []
    for shots in (0, 1, 2):
        keys = {"shots_per_class": shots, "shot_speakers_share": 0.4, "sentence_independent": sentences}
        splits = try_draw(clips, spec("cross_corpus", **keys), seed, train)
        for split in splits:
            check_honest(clips, split)
            table = split.table
            assert set(table["corpus"][table["split"] == "test"]).isdisjoint(train)
            taken = table[(table["split"] == "train") & ~table["corpus"].isin(train)]
            assert set(taken.groupby(["corpus", "class_id"]).size()) <= {shots}
            tested.append(
                frozenset(zip(*(table[c][table["split"] == "test"] for c in ("corpus", "path")), strict=True))
            )
    assert len(set(tested)) <= 1


@many
@given(corpora(), st.integers(0, 10**6))
def test_sentences_do_not_cross(clips: pd.DataFrame, seed: int) -> None:
    for split in try_draw(clips, spec("speaker_independent", sentence_independent=True), seed, names(clips)):
        check_honest(clips, split)
        merged = split.table.merge(clips[["corpus", "path", "sentence"]], on=["corpus", "path"])
        for side in ("train", "validation"):
            pairs = [
                set(zip(part["corpus"], part["sentence"], strict=True))
                for part in (merged[merged["split"] == side], merged[merged["split"] == "test"])
            ]
            assert pairs[0].isdisjoint(pairs[1])


# ---- rotation ----


@pytest.mark.parametrize(("speakers", "possible", "test_sets"), [(3, 36, 9), (5, 400, 25)])
def test_rotation_shows_every_split_once(speakers: int, possible: int, test_sets: int) -> None:
    clips = corpus(female=speakers, male=speakers, classes=2, takes=1)
    splits = [one(clips, "speaker_independent", seed) for seed in range(possible + 1)]
    assert splits[0].possible == possible
    assert len({split.sha256 for split in splits}) == possible
    assert splits[possible].sha256 == splits[0].sha256
    tested = [frozenset(on(split, "test")) for split in splits]
    for start in range(0, possible, test_sets):
        assert len(set(tested[start : start + test_sets])) == test_sets
    for side in ("train", "validation", "test"):
        assert {split.table["gender"][split.table["split"] == side].nunique() for split in splits} == {2}


def test_without_rotation_seeds_are_independent() -> None:
    clips = corpus(classes=2, takes=1)
    seen = [one(clips, "speaker_independent", seed, rotate=False).sha256 for seed in range(36)]
    assert 15 < len(set(seen)) < 36


def test_balanced_draw_is_nearer_and_still_rotates() -> None:
    dice = random.Random(1)
    full = corpus(female=6, male=6, classes=3, takes=6)
    clips = full[[dice.random() < 0.5 for _ in range(len(full))]].reset_index(drop=True)

    def imbalance(split: Split) -> float:
        shares = split.table.groupby("split")["class_id"].value_counts(normalize=True).unstack(fill_value=0)
        return float((shares - clips["class_id"].value_counts(normalize=True)).abs().to_numpy().sum())

    plain = [one(clips, "speaker_independent", seed) for seed in range(20)]
    balanced = [one(clips, "speaker_independent", seed, balanced_draw=True) for seed in range(20)]
    assert np.mean([imbalance(split) for split in balanced]) < 0.6 * np.mean([imbalance(split) for split in plain])
    assert len({split.sha256 for split in balanced}) == 20
    assert plain[0].possible is not None
    assert balanced[0].possible is not None
    assert balanced[0].possible < plain[0].possible
    assert any("narrows" in note for note in balanced[0].notes)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(1, 700), st.text(max_size=5))
def test_permute_is_a_permutation(size: int, key: str) -> None:
    assert sorted(permute(index, size, key) for index in range(size)) == list(range(size))


def test_permute_takes_any_size() -> None:
    size = 10**2000 + 7
    images = [permute(index, size, "k") for index in range(20)]
    assert len(set(images)) == 20
    assert all(0 <= image < size for image in images)


def test_combinations_are_numbered_in_order() -> None:
    from itertools import combinations

    for take in range(6):
        listed = [combination(rank, range(5), take) for rank in range(len(list(combinations(range(5), take))))]
        assert listed == [list(chosen) for chosen in combinations(range(5), take)]


@pytest.mark.parametrize("strata", ["aaa", "aaabbb", "aabb", "abcd", "aaaabb"])
def test_draws_enumerate_all_assignments(strata: str) -> None:
    draws = Draws([f"u{i}" for i in range(len(strata))], list(strata), (0.64, 0.2, 0.16), "test")
    assert len({tuple(draws.at(index)) for index in range(draws.possible)}) == draws.possible
    assert all(set(draws.at(index)) == {0, 1, 2} for index in range(draws.possible))


@pytest.mark.parametrize(
    ("count", "shares", "expected"),
    [
        (3, (0.64, 0.2, 0.16), [1, 1, 1]),
        (4, (0.64, 0.2, 0.16), [2, 1, 1]),
        (5, (0.64, 0.2, 0.16), [3, 1, 1]),
        (43, (0.64, 0.2, 0.16), [27, 9, 7]),
        (10, (0.7, 0.15, 0.15), [7, 2, 1]),
        (1, (0.64, 0.2, 0.16), [1, 0, 0]),
        (2, (0.64, 0.2, 0.16), [1, 1, 0]),
        (4, (0.8, 0.2), [3, 1]),
        (2, (0.2, 0.8), [1, 1]),
        (1, (0.2, 0.8), [0, 1]),
    ],
)
def test_rounding(count: int, shares: tuple[float, ...], expected: list[int]) -> None:
    assert side_sizes(count, fractions(shares)) == expected


# ---- frozen results ----

FROZEN = {
    "speaker_independent": "ee3f955e3a3f00b7",
    "balanced": "964c07454ef4a773",
    "k_fold": "c664f51a57c83bde",
    "leave_one_speaker_out": "c08780e06308389b",
    "cross_corpus": "45ba340a4ab70f82",
    "random": "4476a696b66823e4",
    "legacy_per_emotion": "213d6b2064442dd4",
    "sentences": "9c334f5ee76f950b",
}


def frozen_checksums() -> dict[str, str]:
    """One checksum per kind, over two seeds and all folds of two fixed corpora."""
    clips = pd.concat(
        [corpus("a", 5, 4, lacking=(("f001", "e2"), ("m003", "e0"))), corpus("b", 4, 0, takes=4)], ignore_index=True
    )
    kinds: dict[str, tuple[SplitSpec, list[str]]] = {
        "speaker_independent": (spec("speaker_independent"), ["a", "b"]),
        "balanced": (spec("speaker_independent", balanced_draw=True), ["a"]),
        "k_fold": (spec("k_fold", folds=3), ["a"]),
        "leave_one_speaker_out": (spec("leave_one_speaker_out"), ["a", "b"]),
        "cross_corpus": (spec("cross_corpus", shots_per_class=2), ["a"]),
        "random": (spec("random"), ["a"]),
        "legacy_per_emotion": (spec("legacy_per_emotion"), ["a"]),
        "sentences": (spec("speaker_independent", sentence_independent=True), ["a"]),
    }
    result = {}
    for name, (split_spec, train) in kinds.items():
        found = [split.sha256 for seed in (0, 7) for split in draw(clips, split_spec, seed, train_corpora=train)]
        result[name] = hashlib.sha256("".join(found).encode()).hexdigest()[:16]
    return result


def test_checksums_are_frozen() -> None:
    """A change here changes every published split: raise the version and say so in the changelog."""
    assert frozen_checksums() == FROZEN


@pytest.mark.parametrize("hash_seed", ["1", "4242"])
def test_checksums_do_not_depend_on_hashing_or_folder(hash_seed: str, tmp_path: Path) -> None:
    code = (
        "import importlib.util, sys; s = importlib.util.spec_from_file_location('t', sys.argv[1]); "
        "m = importlib.util.module_from_spec(s); sys.modules['t'] = m; s.loader.exec_module(m); "
        "print(m.frozen_checksums())"
    )
    root = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": f"{root}:{root / 'eval'}"}
    run = subprocess.run(
        [sys.executable, "-c", code, __file__],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == str(FROZEN)


def test_sha256_is_of_the_sorted_lines(tmp_path: Path) -> None:
    split = one(corpus(), "speaker_independent")
    write_split(split, tmp_path)
    table = read_table(tmp_path / "split.csv", SPLIT_COLUMNS)
    lines = sorted(f"{r.corpus}\t{r.path}\t{r.split}\n" for r in table.itertuples())
    assert split.sha256 == hashlib.sha256("".join(lines).encode()).hexdigest()


def test_a_dropped_clip_moves_no_speaker() -> None:
    clips = corpus()
    assert on(one(clips.iloc[1:], "speaker_independent", 5), "test") == on(one(clips, "speaker_independent", 5), "test")


def test_large_corpora_draw_quickly() -> None:
    clips = corpus(female=250, male=250, classes=7, takes=2)
    one(clips, "speaker_independent")
    start = time.process_time()
    split = one(clips, "speaker_independent", 3)
    assert time.process_time() - start < 1  # about 0.04 s
    assert Counter(split.table.drop_duplicates("actor")["split"]) == {"train": 320, "validation": 80, "test": 100}


# ---- small and odd corpora ----


def test_two_speakers_are_refused() -> None:
    with pytest.raises(SplitRefused, match=r"at least 3 speakers.*there are 2: c/f000, c/m000"):
        one(corpus(female=1, male=1), "speaker_independent")


@pytest.mark.parametrize(("female", "male"), [(2, 1), (2, 2), (0, 3), (1, 3), (2, 5)])
def test_small_corpora_have_every_side(female: int, male: int) -> None:
    for seed in range(10):
        check_honest(
            corpus(female=female, male=male), one(corpus(female=female, male=male), "speaker_independent", seed)
        )


def test_unknown_genders_are_a_stratum() -> None:
    clips = corpus(female=5, male=5)
    clips.loc[clips["actor"].isin(["f000", "f001", "f002"]), "gender"] = "unknown"
    for seed in range(10):
        split = one(clips, "speaker_independent", seed)
        for side in ("train", "validation", "test"):
            assert "unknown" in on(split, side, "gender")


def test_speakers_unknown() -> None:
    clips = corpus()
    clips.loc[:, ["actor", "group"]] = ""
    for kind in ("speaker_independent", "k_fold", "leave_one_speaker_out", "leave_one_group_out", "legacy_per_emotion"):
        with pytest.raises(SplitRefused, match=r"SPEAKERS UNKNOWN.*'random' or 'preset'"):
            one(clips, kind)
    split = one(clips, "random")
    assert split.speakers_unknown
    assert split.speaker_dependent
    assert any("SPEAKERS UNKNOWN" in note for note in split.notes)


def test_a_speaker_of_two_genders_is_bad_input() -> None:
    clips = corpus()
    clips.loc[0, "gender"] = "male"
    with pytest.raises(BadInput, match="1 speaker with more than one gender: c/f000"):
        one(clips, "speaker_independent")


def test_bad_tables() -> None:
    clips = corpus()
    with pytest.raises(BadInput, match=r"lacks the column.*audio_sha256"):
        one(clips.drop(columns="audio_sha256"), "random")
    with pytest.raises(BadInput, match=r"1 clip more than once.*c/f000/e0_0.wav"):
        one(pd.concat([clips, clips.iloc[:1]]), "random")
    with pytest.raises(BadInput, match="training corpus without clips: d"):
        draw(clips, spec("random"), 0, train_corpora=["d"])
    clips.loc[0, "actor"] = None
    with pytest.raises(BadInput, match="missing values in actor"):
        one(clips, "random")


def test_further_corpora_are_tested_whole() -> None:
    clips = pd.concat([corpus("c"), corpus("d", 1, 0)], ignore_index=True)
    split = one(clips, "speaker_independent")
    assert set(split.table["split"][split.table["corpus"] == "d"]) == {"test"}
    alone = one(corpus("c"), "speaker_independent")
    pd.testing.assert_frame_equal(split.table[split.table["corpus"] == "c"].reset_index(drop=True), alone.table)


# ---- groups ----


def sessions() -> pd.DataFrame:
    """Five sessions of a woman and a man each."""
    clips = corpus(female=5, male=5)
    clips["group"] = "session" + clips["actor"].str[-1]
    return clips


def test_partners_stay_together() -> None:
    clips = sessions()
    for seed in range(20):
        split = one(clips, "speaker_independent", seed)
        check_honest(clips, split)
        assert len(on(split, "test")) == 2
    folds = draw(clips, spec("leave_one_group_out"), 0, train_corpora=["c"])
    assert [split.fold for split in folds] == [f"session{i}" for i in range(5)]
    assert [on(split, "test") for split in folds] == [{f"f00{i}", f"m00{i}"} for i in range(5)]


def test_leave_one_speaker_out_leaves_the_partner_unused() -> None:
    folds = draw(sessions(), spec("leave_one_speaker_out"), 0, train_corpora=["c"])
    assert [split.fold for split in folds] == [f"{g}00{i}" for g in "fm" for i in range(5)]
    assert on(folds[0], "test") == {"f000"}
    assert on(folds[0], "unused") == {"m000"}
    assert any("12 clips unused, in a group with the tested speaker: c/m000" in note for note in folds[0].notes)


def test_speakers_in_several_groups_do_not_part() -> None:
    clips = corpus(female=4, male=4)
    clips["group"] = clips["actor"] + "-" + clips["sentence"]  # each speaker in three dialogues
    split = one(clips, "speaker_independent")
    check_honest(clips, split)
    assert split.possible == one(corpus(female=4, male=4), "speaker_independent").possible
    clips["group"] = clips["sentence"]  # every speaker in every dialogue
    with pytest.raises(SplitRefused, match="there is 1"):
        one(clips, "speaker_independent")
    folds = draw(clips, spec("leave_one_group_out"), 0, train_corpora=["c"])
    assert all(split.speaker_dependent for split in folds)
    assert any("8 speakers on two sides" in note for note in folds[0].notes)


def test_fold_names_of_pooled_corpora_and_odd_signs() -> None:
    clips = pd.concat([corpus("c", 2, 1), corpus("d", 1, 0)], ignore_index=True)
    folds = draw(clips, spec("leave_one_speaker_out"), 0, train_corpora=["d", "c"])
    assert [split.fold for split in folds] == ["c_f000", "c_f001", "c_m000", "d_f000"]
    clips.loc[:, ["actor", "group"]] = "a/" + clips[["actor", "group"]]
    folds = draw(clips[clips["corpus"] == "c"], spec("leave_one_speaker_out"), 0, train_corpora=["c"])
    assert [split.fold for split in folds] == ["a_f000", "a_f001", "a_m000"]


# ---- folds ----


def test_folds_are_stratified_by_gender() -> None:
    folds = draw(corpus(female=5, male=5), spec("k_fold", folds=5), 3, train_corpora=["c"])
    assert [split.fold for split in folds] == ["0", "1", "2", "3", "4"]
    for split in folds:
        assert Counter(actor[0] for actor in on(split, "test")) == {"f": 1, "m": 1}
        assert Counter(actor[0] for actor in on(split, "validation")) == {"f": 1, "m": 1}
    other = draw(corpus(female=5, male=5), spec("k_fold", folds=5), 4, train_corpora=["c"])
    assert [split.sha256 for split in folds] != [split.sha256 for split in other]


def test_validation_speakers_change_with_seed_and_fold() -> None:
    clips = corpus(female=5, male=5)
    seeds = [draw(clips, spec("leave_one_speaker_out"), seed, train_corpora=["c"]) for seed in range(8)]
    assert all(len({frozenset(on(splits[fold], "validation")) for splits in seeds}) == 8 for fold in range(10))
    assert len({frozenset(on(split, "validation")) for split in seeds[0]}) > 5


def test_more_folds_than_speakers() -> None:
    with pytest.raises(SplitRefused, match=r"'k_fold' needs at least 7 speakers"):
        one(corpus(), "k_fold", folds=7)
    with pytest.raises(SplitRefused, match="fewer than two speakers are left"):
        one(corpus(female=2, male=1), "k_fold", folds=2)


# ---- what is refused ----


def test_the_same_audio_on_two_sides_is_refused() -> None:
    clips = corpus()
    twin = clips["actor"].isin(["f000", "f001", "f002"]) & (clips["class_id"] == "e0") & (clips["sentence"] == "s0")
    clips.loc[twin, "audio_sha256"] = "same"
    with pytest.raises(
        SplitRefused, match=r"seed 0.*\n.*the same audio on two sides, 3 clips: c/f000/e0_0.wav, c/f001/e0"
    ):
        one(clips, "speaker_independent")


def test_a_class_that_train_lacks_is_refused_and_listed() -> None:
    clips = corpus()
    clips = clips[(clips["class_id"] != "e3") | (clips["actor"] == "m001")]
    reasons = {seed: refusal(clips, spec("speaker_independent"), seed, ["c"]) for seed in range(36)}
    refused = [(seed, reason) for seed, reason in reasons.items() if reason]
    fine = [seed for seed in range(36) if "m001" in on(one(corpus(), "speaker_independent", seed), "train")]
    assert [seed for seed, _ in refused] == sorted(set(range(36)) - set(fine))
    assert len(fine) == 12
    assert "class without a clip in train: e3" in refused[0][1]


def test_a_class_that_test_lacks_is_noted() -> None:
    clips = corpus(lacking=tuple((f"{g}00{i}", "e3") for g in "fm" for i in range(3) if (g, i) != ("f", 0)))
    split = next(
        one(clips, "speaker_independent", seed)
        for seed in range(36)
        if "f000" in on(one(corpus(), "speaker_independent", seed), "train")
    )
    assert "class without a clip in test: e3" in split.notes


def test_speakers_of_the_initial_checkpoint_are_refused() -> None:
    clips = corpus()
    tested = on(one(clips, "speaker_independent"), "test")
    trained = on(one(clips, "speaker_independent"), "train")
    known = frozenset(("c", actor) for actor in trained)
    draw(clips, spec("speaker_independent"), 0, train_corpora=["c"], seen=known)
    known |= {("c", min(tested)), ("other", "f000")}
    with pytest.raises(SplitRefused, match=f"1 speaker of validation or test was trained on by .*: c/{min(tested)}"):
        draw(clips, spec("speaker_independent"), 0, train_corpora=["c"], seen=known)
    validated = frozenset(("c", actor) for actor in on(one(clips, "speaker_independent"), "validation"))
    draw(clips, spec("speaker_independent"), 0, train_corpora=["c"], selected=validated)
    with pytest.raises(SplitRefused, match=f"1 speaker of test selected .*: c/{min(tested)}"):
        draw(clips, spec("speaker_independent"), 0, train_corpora=["c"], selected=frozenset({("c", min(tested))}))


def test_sentences_need_sentences() -> None:
    clips = corpus()
    clips.loc[:3, "sentence"] = ""
    with pytest.raises(SplitRefused, match="no sentence for 4 clips of c"):
        one(clips, "speaker_independent", sentence_independent=True)
    with pytest.raises(SplitRefused, match="one sentence only"):
        one(corpus(takes=1), "speaker_independent", sentence_independent=True)


def test_sentence_independent_counts_what_it_leaves_out() -> None:
    split = one(corpus(takes=5), "speaker_independent", sentence_independent=True)
    assert Counter(split.table["split"]) == {"train": 32, "validation": 32, "test": 8, "unused": 48}
    assert any("1 of 5 sentences tested" in note and "48 clips unused" in note for note in split.notes)


# ---- preset ----


def preset(folder: Path, rows: Sequence[tuple[str, ...]], header: str = "path,split", separator: str = ",") -> str:
    lines = [header.replace(",", separator), *(separator.join(row_) for row_ in rows)]
    (folder / "preset.csv").write_text("\ufeff" + "\n".join(lines) + "\n", encoding="utf-8")
    return "preset.csv"


SIDE_OF = {"f000": "Train", "m000": "train", "f001": "dev", "m001": "val", "f002": "test", "m002": "TEST"}


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_preset_by_path_or_name(tmp_path: Path, separator: str) -> None:
    clips = corpus()
    rows = [(path, SIDE_OF[actor]) for path, actor in zip(clips["path"], clips["actor"], strict=True)]
    file = preset(tmp_path, rows, separator=separator)
    (split,) = draw(clips, spec("preset", path=file), 0, train_corpora=["c"], base=tmp_path)
    check_honest(clips, split)
    assert (on(split, "train"), on(split, "test")) == ({"f000", "m000"}, {"f002", "m002"})
    assert split.possible == 1
    clips["path"] = clips["actor"] + "_" + clips["path"].str.replace("/", "_")
    rows = [(f"C:\\old\\{path[:-4]}.flac", side) for path, (_, side) in zip(clips["path"], rows, strict=True)]
    (by_name,) = draw(clips, spec("preset", path=preset(tmp_path, rows)), 0, train_corpora=["c"], base=tmp_path)
    assert list(by_name.table["split"]) == list(split.table["split"])


def test_preset_lists_per_language_are_taken_together(tmp_path: Path) -> None:
    for name, paths in {
        "train_eng": "a", "train_chi": "b", "test_eng": "c", "test_chi": "d", "val_chi": "e", "speakers": "x",
    }.items():  # fmt: skip
        (tmp_path / f"{name}.csv").write_text(f"file_name,label\n/old/place/{paths}.wav,joy\n")
    table = read_preset(".", base=tmp_path, corpora=["esd"], roots={})
    assert dict(zip(table["path"].str[-5], table["split"], strict=True)) == {
        "a": "train", "b": "train", "c": "test", "d": "test", "e": "validation",
    }  # fmt: skip
    (tmp_path / "test_chi.csv").unlink()
    with pytest.raises(BadInput, match=r"holds no test_chi\.csv"):
        read_preset(".", base=tmp_path, corpora=["esd"], roots={})
    (tmp_path / "train.csv").write_text("path\na.wav\n")
    with pytest.raises(BadInput, match=r"both train\.csv and lists per language"):
        read_preset(".", base=tmp_path, corpora=["esd"], roots={})


def test_partial_preset(tmp_path: Path) -> None:
    clips = corpus(female=6, male=6)
    rows = [
        (path, "test" if actor[-1] == "5" else "train")
        for path, actor in zip(clips["path"], clips["actor"], strict=True)
        if actor != "f000"
    ]
    keys = {"path": preset(tmp_path, rows), "validation_share": 0.25}
    splits = [draw(clips, spec("preset", **keys), seed, train_corpora=["c"], base=tmp_path)[0] for seed in range(20)]
    for split in splits:
        check_honest(clips, split)
        assert on(split, "test") == {"f005", "m005"}
        assert on(split, "unused") == {"f000"}
        assert Counter(actor[0] for actor in on(split, "validation")) == {"f": 1, "m": 1}
    assert splits[0].possible == 20
    assert len({split.sha256 for split in splits}) == 20
    assert "preset: 12 clips not listed and therefore unused" in splits[0].notes


def test_preset_without_speakers_cuts_clips(tmp_path: Path) -> None:
    clips = corpus()
    clips.loc[:, ["actor", "group"]] = ""
    rows = [(path, "test" if path.startswith("f000") else "train") for path in clips["path"]]
    file = preset(tmp_path, rows)
    (split,) = draw(clips, spec("preset", path=file), 0, train_corpora=["c"], base=tmp_path)
    assert split.speakers_unknown
    assert Counter(split.table["split"]) == {"train": 48, "validation": 12, "test": 12}
    assert any("clip by clip" in note for note in split.notes)


def test_leaking_preset_is_refused(tmp_path: Path) -> None:
    clips = corpus()
    rows = [(path, ["train", "test", "validation"][place % 3]) for place, path in enumerate(clips["path"])]
    with pytest.raises(SplitRefused, match="6 groups on two sides: c/f000"):
        draw(clips, spec("preset", path=preset(tmp_path, rows)), 0, train_corpora=["c"], base=tmp_path)


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        ([("nowhere.wav", "train")], "path,split", "no such clip: nowhere.wav"),
        ([("f000/e0_0.wav", "practice")], "path,split", r"split 'practice' is not valid; expected train"),
        ([("f000/e0_0.wav", "train")], "file,split", r"lacks the column\(s\) path"),
        ([("f000/e0_0.wav", "train")] * 2, "path,split", "1 clip listed more than once: f000/e0_0.wav"),
        ([("e0_0", "train")], "path,split", "several clips of this name"),
        ([("f000/e0_0.wav", "train", "d")], "path,split,corpus", "lists no clip of c"),
    ],
)
def test_bad_presets(tmp_path: Path, rows: list[tuple[str, ...]], header: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        draw(corpus(), spec("preset", path=preset(tmp_path, rows, header)), 0, train_corpora=["c"], base=tmp_path)


def test_preset_may_list_clips_that_were_left_out(tmp_path: Path) -> None:
    clips = corpus()
    rows = [(path, SIDE_OF[actor]) for path, actor in zip(clips["path"], clips["actor"], strict=True)]
    keys = {"path": preset(tmp_path, rows)}
    gone = frozenset([("c", "f000/e0_0.wav")])
    (split,) = draw(clips.iloc[1:], spec("preset", **keys), 0, train_corpora=["c"], base=tmp_path, left_out=gone)
    assert len(split.table) == len(clips) - 1
    with pytest.raises(BadInput, match=r"no such clip: f000/e0_0.wav"):
        draw(clips.iloc[1:], spec("preset", **keys), 0, train_corpora=["c"], base=tmp_path)
    missing = frozenset([("c", "e0_0")])  # a clip that is not on disk has no suffix
    (again,) = draw(clips.iloc[1:], spec("preset", **keys), 0, train_corpora=["c"], base=tmp_path, left_out=missing)
    assert again.sha256 == split.sha256


def test_preset_of_pooled_corpora(tmp_path: Path) -> None:
    clips = pd.concat([corpus("c"), corpus("d"), corpus("x")], ignore_index=True)
    listed = clips[clips["corpus"] != "x"]
    sides = listed["actor"].map(SIDE_OF)
    rows = list(zip(listed["path"], sides, listed["corpus"], strict=True))
    file = preset(tmp_path, rows, "path,split,corpus")
    (split,) = draw(clips, spec("preset", path=file), 0, train_corpora=["c", "d"], base=tmp_path)
    assert Counter(split.table["split"]) == {"train": 48, "validation": 48, "test": 48 + 72}
    (single,) = draw(clips, spec("preset", path=file), 0, train_corpora=["c"], base=tmp_path)
    assert any("72 rows of other corpora: d" in note for note in single.notes)
    with pytest.raises(BadInput, match="needs a column 'corpus'"):
        draw(clips, spec("preset", path=preset(tmp_path, [("a", "train")])), 0, train_corpora=["c", "d"], base=tmp_path)


# ---- cross-corpus ----


def test_shots_come_from_speakers_who_are_not_tested() -> None:
    clips = pd.concat([corpus("c"), corpus("d", 5, 5)], ignore_index=True)
    splits = {n: one(clips, "cross_corpus", 2, shots_per_class=n) for n in (0, 2, 3)}
    for split in splits.values():
        check_honest(clips, split)
        further = split.table[split.table["corpus"] == "d"]
        assert further["actor"][further["split"] == "test"].nunique() == 8
    taken = {
        n: set(split.table["path"][(split.table["corpus"] == "d") & (split.table["split"] == "train")])
        for n, split in splits.items()
    }
    assert {n: len(paths) for n, paths in taken.items()} == {0: 0, 2: 8, 3: 12}
    assert taken[2] < taken[3]
    assert {len({path[:4] for path in taken[2] if f"e{c}" in path}) for c in range(4)} == {2}  # one of each speaker
    train_side = [split.table[split.table["corpus"] == "c"]["split"].tolist() for split in splits.values()]
    assert train_side[0] == train_side[1] == train_side[2]
    with pytest.raises(SplitRefused, match="d has 6 clips of e0 by speakers set aside for shots"):
        one(clips, "cross_corpus", 2, shots_per_class=7)


def test_shots_and_test_share_no_sentence() -> None:
    clips = pd.concat([corpus("c"), corpus("d", 5, 5, takes=5)], ignore_index=True)
    for shots in (0, 2):
        split = one(clips, "cross_corpus", shots_per_class=shots, sentence_independent=True)
        take = split.table["path"].str[-5]
        further = split.table["corpus"] == "d"
        tested = set(take[further & (split.table["split"] == "test")])
        shot = set(take[further & (split.table["split"] == "train")])
        assert (len(tested), len(shot)) == (4, 1 if shots else 0)
        assert tested.isdisjoint(shot)


def test_cross_corpus_without_speakers_tests_whole() -> None:
    clips = pd.concat([corpus("c"), corpus("d")], ignore_index=True)
    clips.loc[clips["corpus"] == "d", ["actor", "group"]] = ""
    split = one(clips, "cross_corpus")
    assert set(split.table["split"][split.table["corpus"] == "d"]) == {"test"}
    assert split.speakers_unknown
    with pytest.raises(SplitRefused, match="SPEAKERS UNKNOWN"):
        one(clips, "cross_corpus", shots_per_class=1)
    with pytest.raises(BadInput, match="at least one corpus"):
        one(corpus("c"), "cross_corpus")


# ---- the two kinds that leak ----


def test_random_is_stratified_and_marked() -> None:
    split = one(corpus(female=10, male=10, classes=3, takes=5), "random")
    sizes = split.table.groupby(["class_id", "split"]).size().unstack()
    assert sizes[["train", "validation", "test"]].to_numpy().tolist() == [[70, 15, 15]] * 3
    assert split.speaker_dependent
    assert any("NOT COMPARABLE" in note for note in split.notes)


def test_legacy_is_the_older_draw() -> None:
    """Against scikit-learn's GroupShuffleSplit, which the older system called for each gender and emotion."""
    from sklearn.model_selection import GroupShuffleSplit

    clips = corpus(female=9, male=7, lacking=(("f003", "e1"), ("m002", "e0")))
    for seed in (0, 1, 33):
        split = one(clips, "legacy_per_emotion", seed)
        got = split.table.set_index("path")["split"]
        for _, cell in clips.groupby(["gender", "class_id"]):
            rest, test = next(GroupShuffleSplit(1, train_size=0.8, random_state=seed).split(cell, groups=cell["actor"]))
            part = cell.iloc[rest]
            train, validation = next(
                GroupShuffleSplit(1, train_size=0.8, random_state=seed).split(part, groups=part["actor"])
            )
            assert set(got[cell.iloc[test]["path"]]) == {"test"}
            assert set(got[part.iloc[train]["path"]]) == {"train"}
            assert set(got[part.iloc[validation]["path"]]) == {"validation"}


def test_legacy_leaks_when_one_speaker_lacks_one_emotion() -> None:
    full = corpus(female=46, male=45, classes=6, takes=1)
    lacking = corpus(female=46, male=45, classes=6, takes=1, lacking=(("f020", "e0"),))
    assert not any(
        on(one(full, "legacy_per_emotion", s), "test") & on(one(full, "legacy_per_emotion", s), "train")
        for s in range(10)
    )
    shares = []
    for seed in range(10):
        split = one(lacking, "legacy_per_emotion", seed)
        assert split.speaker_dependent
        tested = on(split, "test")
        shares.append(len(tested & (on(split, "train") | on(split, "validation"))) / len(tested))
    assert 0.15 < np.mean(shares) < 0.5
    assert one(full, "legacy_per_emotion").speaker_dependent


def test_legacy_leaves_other_genders_unused() -> None:
    clips = corpus(female=5, male=5)
    clips.loc[clips["actor"] == "f000", "gender"] = "other"
    split = one(clips, "legacy_per_emotion")
    assert on(split, "unused") == {"f000"}
    assert any("12 clips of speakers neither female nor male unused" in note for note in split.notes)


def test_legacy_needs_three_speakers_in_each_cell() -> None:
    with pytest.raises(SplitRefused, match=r"1 speaker \(c, male, e0\) cannot be parted"):
        one(corpus(female=5, male=1), "legacy_per_emotion")


# ---- the corpus' own partition, and folds that are given ----


def parted(clips: pd.DataFrame, **sides: list[str]) -> pd.DataFrame:
    """The clips with a column `partition`; each keyword is a partition with its speakers."""
    of = {actor: name for name, actors in sides.items() for actor in actors}
    return clips.assign(partition=clips["actor"].map(of).fillna(""))


def test_partition_takes_the_sides_that_the_corpus_publishes() -> None:
    clips = parted(corpus(), train=["f000", "m000"], validation=["f001"], test1=["f002"], test2=["m001"])
    (split,) = draw(clips, spec("partition", test=["test1"]), 7, train_corpora=["c"])
    actors = split.table.groupby("split")["actor"].agg(set).to_dict()
    assert actors == {"train": {"f000", "m000"}, "validation": {"f001"}, "test": {"f002"}, "unused": {"m001", "m002"}}
    assert split.possible == 1
    assert any("12 clips of test2 unused" in note for note in split.notes)
    assert any("12 clips without a partition unused" in note for note in split.notes)


def test_partition_cuts_validation_from_train_by_speaker_where_there_is_none() -> None:
    clips = parted(corpus(), train=["f000", "m000", "f001", "m001"], test=["f002", "m002"])
    splits = [draw(clips, spec("partition"), seed, train_corpora=["c"])[0] for seed in range(4)]
    for split in splits:
        actors = split.table.groupby("split")["actor"].agg(set)
        assert len(actors["validation"]) == 2  # a woman and a man
        assert not actors["validation"] & (actors["train"] | actors["test"])
    assert len({split.sha256 for split in splits}) == splits[0].possible == 4


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"test": ["test3"]}, "no clip of c is in the partition 'test3', which is to be test; it has test, train"),
        ({"validation": ["dev", "train2"], "train": ["train"]}, None),
        ({"train": ["train", "more"]}, "'more', which is to be train"),
    ],
)
def test_partitions_that_the_corpus_lacks(keys: dict[str, Any], said: str | None) -> None:
    clips = parted(corpus(), train=["f000", "m000", "f001", "m001"], test=["f002", "m002"])
    if said is None:
        assert draw(clips, spec("partition", **keys), 0, train_corpora=["c"])
        return
    with pytest.raises(SplitRefused) as error:
        draw(clips, spec("partition", **keys), 0, train_corpora=["c"])
    assert said in str(error.value)


def test_a_partition_that_shares_speakers_is_refused_unless_asked_for_and_then_stamped() -> None:
    clips = corpus()
    clips["partition"] = np.where(
        clips["sentence"] == "s0", "test", np.where(clips["sentence"] == "s1", "validation", "train")
    )
    with pytest.raises(SplitRefused, match="6 groups on two sides"):
        draw(clips, spec("partition"), 0, train_corpora=["c"])
    (split,) = draw(clips, spec("partition", speakers_may_cross=True), 0, train_corpora=["c"])
    assert split.speaker_dependent
    assert any("SPEAKER-DEPENDENT, NOT COMPARABLE" in note for note in split.notes)


def test_a_corpus_without_partitions_is_refused() -> None:
    with pytest.raises(SplitRefused, match="c publishes no partition"):
        draw(corpus().assign(partition=""), spec("partition"), 0, train_corpora=["c"])
    with pytest.raises(BadInput, match="no column 'partition'"):
        draw(corpus(), spec("partition"), 0, train_corpora=["c"])
    with pytest.raises(ValueError, match="stands on two sides"):
        spec("partition", train=["train", "test"])


def test_speaker_folds_test_the_speakers_listed() -> None:
    folds = {"a": ["f000", "m000"], "b": ["f001", "m001"], "c": ["f002", "m002"]}
    splits = draw(corpus(), spec("speaker_folds", folds=folds), 0, train_corpora=["c"])
    assert [split.fold for split in splits] == ["a", "b", "c"]
    for split in splits:
        assert set(split.table.loc[split.table["split"] == "test", "actor"]) == set(folds[str(split.fold)])
    for change, said in (({"c": ["f002"]}, "no fold tests m002"), ({"c": ["f002", "m009"]}, "has no actor 'm009'")):
        with pytest.raises(BadInput, match=said):
            draw(corpus(), spec("speaker_folds", folds={**folds, **change}), 0, train_corpora=["c"])
    with pytest.raises(ValueError, match="'f000' is tested twice"):
        spec("speaker_folds", folds={**folds, "c": ["f000"]})


def test_a_preset_with_folds_gives_one_split_each(tmp_path: Path) -> None:
    clips = corpus()
    rows = []
    for fold, tested in (("1", "000"), ("2", "001")):
        for path, actor in zip(clips["path"], clips["actor"], strict=True):
            rows.append((path, fold, "test" if actor.endswith(tested) else "train"))
    table = pd.DataFrame(rows, columns=["path", "fold", "split"])
    table.to_csv(tmp_path / "folds.csv", index=False)
    splits = draw(clips, spec("preset", path="folds.csv"), 0, train_corpora=["c"], base=tmp_path)
    assert [split.fold for split in splits] == ["1", "2"]
    assert set(splits[1].table.query("split == 'test'")["actor"]) == {"f001", "m001"}
    table[table["fold"] == "1"].to_csv(tmp_path / "one.csv", index=False)
    assert draw(clips, spec("preset", path="one.csv"), 0, train_corpora=["c"], base=tmp_path)[0].fold is None
    table.assign(fold="a/b").to_csv(tmp_path / "bad.csv", index=False)
    with pytest.raises(BadInput, match="folds name folders"):
        draw(clips, spec("preset", path="bad.csv"), 0, train_corpora=["c"], base=tmp_path)


def test_a_class_without_training_clips_is_refused_unless_it_will_be_masked() -> None:
    clips = corpus(lacking=tuple((actor, "e3") for actor in ("f000", "f001", "m000", "m001", "m002")))  # f002 alone
    fold = spec("speaker_folds", folds={"a": ["f000", "m000"], "b": ["f001", "m001"], "c": ["f002", "m002"]})
    with pytest.raises(SplitRefused, match="fold c: class without a clip in train: e3"):
        draw(clips, fold, 0, train_corpora=["c"])
    splits = draw(clips, fold, 0, train_corpora=["c"], untrained_allowed=True)
    assert any("class tested but not trained: e3" in note for note in splits[2].notes)
