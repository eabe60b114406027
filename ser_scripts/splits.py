"""Who trains, who validates, who is tested: one global draw of speakers, refused when it would leak.

How a draw works:

* What must not part is a *unit*: the clips tied together by a group or a speaker. Usually that is one speaker; where a
  group holds several speakers (a session) it is the group; where a speaker is in several groups these are one unit.
* Units fall into strata of one corpus and one gender. The stratum of a unit with several speakers is the set of their
  genders (`female+male`); units of unknown gender are a stratum of their own. No unit is left out.
* Each stratum is rounded to the wanted shares by largest remainder (ties go to train, then test, then validation).
  Where it has at least as many units as there are sides, an empty side then takes a unit of the fullest side. Should a
  side be empty over all strata, which takes strata of fewer units than sides, all strata are merged into one.
* All splits of these sizes are numbered, and split seed k takes number k of a fixed pseudo-random order without
  repetition. In this order every stretch of as many seeds as there are test sets (EMOVO 9, EmoDB 25 for N = .8),
  counted from 0, holds each test set once; seed k and seed k + `possible` are the same split.

Every choice is a pure function of the manifest, the spec and the seed, through SHA-2 and SHAKE only: no generator whose
stream may change with a release, no dependence on the order of the rows, on Python's hashing or on the platform.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from pathlib import Path, PurePosixPath
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import pandas as pd

from ser_eval.run_folder import SPLIT, SPLIT_COLUMNS, SPLIT_SIDES, write_table
from ser_scripts.errors import BadInput, SplitRefused
from ser_scripts.leaks import (
    SIDE_NAMES,
    TEST,
    TRAIN,
    UNUSED,
    VALIDATION,
    Codes,
    clip_path,
    counted,
    crossing,
    joined,
    match_clips,
    named,
    refusals,
)  # fmt: skip
from ser_scripts.presets import read_folds, relocate
from ser_scripts.specs.splits import (  # fmt: skip
    CrossCorpus,
    DrawnSplit,
    KFold,
    LeaveOneGroupOut,
    LeaveOneSpeakerOut,
    LegacyPerEmotion,
    Partition,
    Preset,
    RandomSplit,
    SpeakerFolds,
    SpeakerIndependent,
)

NEEDED_COLUMNS = ["corpus", "path", "class_id", "actor", "gender", "group", "sentence", "audio_sha256"]
"""Manifest columns that a draw reads, all of them text."""
PARTITION = "partition"
"""A further one, which only the split `partition` needs."""

BALANCED_CANDIDATES = 200
"""Draws that `balanced_draw` chooses from; the square root of the number of possible splits where that is smaller."""

SENTENCE_TEST_SHARE = 0.2
"""With `sentence_independent`: share of the sentences tested, where the spec gives no share of test speakers."""

_ROUNDS = 8
_REASONS_AT_MOST = 20


@dataclass(frozen=True)
class Split:
    """One split, honest as far as `notes` and the flags say."""

    table: pd.DataFrame
    """Columns SPLIT_COLUMNS, every clip once, sorted by corpus and path."""
    kind: str
    split_seed: int
    fold: str | None
    """Index of the fold, or the speaker or group left out; None where a seed gives one split."""
    sha256: str
    """Of the lines `corpus<TAB>path<TAB>split`, sorted: the statistical block."""
    speaker_dependent: bool
    """Speakers may stand on two sides: not comparable with speaker-independent results."""
    speakers_unknown: bool
    """Some clip of train, validation or test has no speaker."""
    validation_shares_speakers: bool
    """People who train validate as well, by the split's design; nobody who is tested does either."""
    possible: int | None
    """Number of distinct splits that successive seeds walk through; None where it is not counted."""
    notes: tuple[str, ...]


@dataclass
class _Draft:
    """A split in the making: a side per clip of the sorted table."""

    sides: Codes
    fold: str | None = None
    possible: int | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Clips:
    """The sorted manifest rows of one draw."""

    table: pd.DataFrame
    trained: npt.NDArray[np.bool_]
    """Which clips belong to the training corpora."""
    corpora: tuple[str, ...]
    """The training corpora, sorted."""

    @cached_property
    def columns(self) -> dict[str, npt.NDArray[np.object_]]:
        return {name: self.table[name].to_numpy(dtype=object) for name in self.table.columns}

    @cached_property
    def speakers(self) -> npt.NDArray[np.object_]:
        """`<corpus>/<actor>` of each clip, "" where unknown."""
        return joined(self.columns["corpus"], self.columns["actor"])

    def column(self, name: str) -> npt.NDArray[np.object_]:
        return self.columns[name]

    def start(self) -> Codes:
        """Further corpora tested whole, training corpora unused so far."""
        return np.where(self.trained, UNUSED, TEST).astype(np.int64)


@dataclass(frozen=True)
class _Units:
    """What must not part."""

    of_clip: npt.NDArray[np.int64]
    """Unit of each clip of the table; -1 for clips outside."""
    names: list[str]
    """`<corpus>/<first group>`, sorted."""
    strata: list[str]

    def paint(self, sides: Codes, unit_sides: Codes, units: npt.NDArray[np.int64] | None = None) -> None:
        """Give every clip of the units (of all, by default) the side of its unit."""
        of_unit = np.full(len(self.names) + 1, -1, dtype=np.int64)
        of_unit[np.arange(len(self.names)) if units is None else units] = unit_sides
        chosen = of_unit[self.of_clip]
        sides[chosen >= 0] = chosen[chosen >= 0]


def draw(
    clips: pd.DataFrame,
    spec: DrawnSplit,
    split_seed: int,
    *,
    train_corpora: Sequence[str],
    seen: frozenset[tuple[str, str]] = frozenset(),
    selected: frozenset[tuple[str, str]] = frozenset(),
    base: Path = Path("."),
    left_out: frozenset[tuple[str, str]] = frozenset(),
    roots: Mapping[str, Path] = MappingProxyType({}),
    untrained_allowed: bool = False,
) -> list[Split]:
    """Draw the split of one seed: one, or one per fold.

    Clips of corpora that do not train are test, whole; `cross_corpus` sets some of their speakers aside.

    Args:
        clips: manifest rows of all corpora, columns NEEDED_COLUMNS at least; the order of rows does not matter
        spec: the split of the experiment
        split_seed: 0 or more
        train_corpora: the corpora trained on
        seen: speakers (corpus, actor) that an initial checkpoint was trained on; they must not validate or be tested
        selected: speakers that selected an initial checkpoint; they must not be tested
        base: folder against which the path of a preset resolves
        left_out: clips (corpus, path) that exist but are not in `clips` (dropped, or of other classes); a preset may
            list them. A missing clip may be named by its stem.
        roots: folder of each corpus, for a preset that lies there
        untrained_allowed: a class may have no clip in train, since the evaluation masks it

    Raises:
        SplitRefused: the split would leak or leave a side or class empty, or too few speakers are known
        BadInput: a column or corpus is missing, a clip is there twice, a speaker has two genders, the preset is wrong
    """
    data = _prepared(clips, train_corpora)
    match spec:
        case SpeakerIndependent():
            drafts = [_speaker_independent(data, spec, split_seed)]
        case KFold() | LeaveOneSpeakerOut() | LeaveOneGroupOut() | SpeakerFolds():
            drafts = _folds(data, spec, split_seed)
        case Partition():
            drafts = [_partition(data, spec, split_seed)]
        case Preset():
            folds = read_folds(spec.path, base=base, corpora=data.corpora, roots=roots)
            drafts = [_preset(data, spec, split_seed, fold, rows, left_out) for fold, rows in folds]
        case CrossCorpus():
            drafts = [_cross_corpus(data, spec, split_seed)]
        case RandomSplit():
            drafts = [_random(data, spec, split_seed)]
        case LegacyPerEmotion():
            drafts = [_legacy_per_emotion(data, spec, split_seed)]
    if spec.sentence_independent and not isinstance(spec, CrossCorpus):
        for draft in drafts:
            _part_sentences(data, draft, spec, split_seed)

    reasons = []
    for draft in drafts:
        found = refusals(
            data.columns,
            draft.sides,
            trained=data.trained,
            seen=seen,
            selected=selected,
            groups_may_cross=_speakers_may_cross(spec),
            validation_may_share=_validation_may_share(spec),
            untrained_allowed=untrained_allowed,
        )
        reasons += [f"{f'fold {draft.fold}: ' if draft.fold is not None else ''}{reason}" for reason in found]
    if reasons:
        more = [f"... and {len(reasons) - _REASONS_AT_MOST} more"] if len(reasons) > _REASONS_AT_MOST else []
        lines = [f"split '{spec.kind}', seed {split_seed}, is refused:", *reasons[:_REASONS_AT_MOST], *more]
        raise SplitRefused("\n  ".join(lines))
    return [_finished(data, draft, spec, split_seed) for draft in drafts]


def _speakers_may_cross(spec: DrawnSplit) -> bool:
    return isinstance(spec, RandomSplit | LegacyPerEmotion) or (isinstance(spec, Partition) and spec.speakers_may_cross)


def _validation_may_share(spec: DrawnSplit) -> bool:
    return isinstance(spec, LeaveOneGroupOut) and spec.validation_from == "clips"


def write_split(split: Split, folder: Path) -> None:
    """Write `split.csv` into a run folder."""
    write_table(folder / SPLIT, split.table)


# ---- preparing and finishing ----


def _prepared(clips: pd.DataFrame, train_corpora: Sequence[str]) -> _Clips:
    if missing := [column for column in NEEDED_COLUMNS if column not in clips.columns]:
        raise BadInput(f"the manifest lacks the column(s) {', '.join(missing)}; needed: {', '.join(NEEDED_COLUMNS)}")
    columns = [*NEEDED_COLUMNS, *([PARTITION] if PARTITION in clips else [])]
    table = clips[columns].sort_values(["corpus", "path"], ignore_index=True).astype(object)
    if (holes := table.columns[table.isna().any()]).size:
        raise BadInput(f"the manifest has missing values in {', '.join(holes)}; unknown is an empty text")
    table = table.astype(str)
    if (twice := table.duplicated(["corpus", "path"])).any():
        names = set(table["corpus"][twice] + "/" + table["path"][twice])
        raise BadInput(f"{counted(len(names), 'clip')} more than once in the manifest: {named(names)}")
    if strange := sorted(set(train_corpora) - set(table["corpus"])):
        raise BadInput(f"training corpus without clips: {named(strange)}; there are {named(table['corpus'])}")
    if not train_corpora:
        raise BadInput("no training corpus is given")
    table["group"] = table["group"].where(table["group"] != "", table["actor"])
    return _Clips(table, table["corpus"].isin(list(train_corpora)).to_numpy(), tuple(sorted(set(train_corpora))))


def _finished(data: _Clips, draft: _Draft, spec: DrawnSplit, seed: int) -> Split:
    sides = draft.sides
    names = np.array(SPLIT_SIDES, dtype=object)[sides]
    lines = sorted(data.column("corpus") + "\t" + data.column("path") + "\t" + names + "\n")
    used = sides != UNUSED
    speakers = data.speakers
    notes = [_sizes_note(data, sides), *draft.notes]
    classes = data.column("class_id")
    for side in (VALIDATION, TEST):
        if absent := set(classes[data.trained & used]) - set(classes[sides == side]):
            notes.append(f"class without a clip in {SPLIT_SIDES[side]}: {named(absent)}")
    if strange := set(classes[sides == TEST]) - set(classes[sides == TRAIN]):
        notes.append(f"class tested but not trained: {named(strange)}")
    nameless = used & (speakers == "")
    if nameless.any():
        where = named(data.column("corpus")[nameless])
        notes.append(f"SPEAKERS UNKNOWN: {counted(int(nameless.sum()), 'clip')} without speaker in {where}")
    validates = _validation_may_share(spec)
    shared = crossing(speakers, np.where(sides == VALIDATION, TRAIN, sides) if validates else sides)
    if validates:
        notes.append("VALIDATION SHARES SPEAKERS with training: it is drawn clip by clip")
    if shared:
        notes.append(f"SPEAKER-DEPENDENT: {counted(len(shared), 'speaker')} on two sides: {named(shared)}")
    possible = draft.possible
    if possible is not None and possible.bit_length() > 10_000:
        possible = None  # JSON readers stop at a few thousand digits
    return Split(
        table=data.table.assign(split=names).astype({"split": str})[SPLIT_COLUMNS],
        kind=spec.kind,
        split_seed=seed,
        fold=draft.fold,
        sha256=hashlib.sha256("".join(lines).encode()).hexdigest(),
        speaker_dependent=bool(shared) or isinstance(spec, RandomSplit | LegacyPerEmotion),
        validation_shares_speakers=validates,
        speakers_unknown=bool(nameless.any()),
        possible=possible,
        notes=tuple(notes),
    )


def _sizes_note(data: _Clips, sides: Codes) -> str:
    """The achieved shares, over the training corpora."""
    here = [data.trained & (sides == side) for side in (TRAIN, VALIDATION, TEST)]
    clips = [int(mask.sum()) for mask in here]
    texts = [f"{'/'.join(map(str, clips))} clips ({_percent(clips)})"]
    people = [len(set(data.speakers[mask]) - {""}) for mask in here]
    if any(people):
        texts.insert(0, f"{'/'.join(map(str, people))} speakers ({_percent(people)})")
    return f"train/validation/test of {' + '.join(data.corpora)}: {', '.join(texts)}"


def _percent(numbers: Sequence[int]) -> str:
    total = max(sum(numbers), 1)
    return "/".join(f"{100 * number / total:.0f}" for number in numbers) + " %"


# ---- units ----


def _units(data: _Clips, spec: DrawnSplit, mask: npt.NDArray[np.bool_], *, by_group: bool = False) -> _Units:
    """The units of the clips under `mask`; with `by_group` speakers may be in several units."""
    unknown = mask & (data.column("group" if by_group else "actor") == "")
    if unknown.any():
        raise SplitRefused(
            f"SPEAKERS UNKNOWN: {counted(int(unknown.sum()), 'clip')} of {named(data.column('corpus')[unknown])} "
            f"without {'group' if by_group else 'actor'}, so split '{spec.kind}' cannot keep speakers apart; "
            "use split 'random' or 'preset', whose results are marked accordingly"
        )
    actors, corpus_of, gender_of = data.speakers[mask], data.column("corpus")[mask], data.column("gender")[mask]
    pairs = pd.DataFrame({"actor": actors, "gender": gender_of}).drop_duplicates()
    if torn := set(pairs["actor"][pairs["actor"].duplicated().to_numpy() & (pairs["actor"] != "").to_numpy()]):
        raise BadInput(f"{counted(len(torn), 'speaker')} with more than one gender: {named(torn)}")

    groups = joined(corpus_of, data.column("group")[mask])
    unit_of = components(groups, actors) if not by_group else {group: group for group in set(groups)}
    names = sorted(set(unit_of.values()))
    numbers = {name: number for number, name in enumerate(names)}
    codes, unique = pd.factorize(groups)
    of_row = np.array([numbers[unit_of[str(group)]] for group in unique], dtype=np.int64)[codes]
    genders: list[set[str]] = [set() for _ in names]
    corpora = [""] * len(names)
    for unit, corpus, gender in sorted(set(zip(of_row.tolist(), corpus_of, gender_of, strict=True))):
        genders[unit].add(str(gender))
        corpora[unit] = str(corpus)
    strata = [f"{corpus}/{'+'.join(sorted(kind))}" for corpus, kind in zip(corpora, genders, strict=True)]
    of_clip = np.full(len(data.table), -1, dtype=np.int64)
    of_clip[mask] = of_row
    return _Units(of_clip, names, strata)


def components(groups: npt.NDArray[np.object_], actors: npt.NDArray[np.object_]) -> dict[str, str]:
    """Group -> first of all groups that are tied to it through shared speakers."""
    first: dict[str, str] = {str(group): str(group) for group in groups}

    def root(group: str) -> str:
        while first[group] != group:
            first[group] = first[first[group]]
            group = first[group]
        return group

    group_of: dict[str, str] = {}
    for group, actor in sorted(set(zip(groups, actors, strict=True))):
        one, other = root(group), root(group_of.setdefault(actor, group))
        first[max(one, other)] = min(one, other)
    return {group: root(group) for group in first}


# ---- numbering and drawing ----


def fractions(shares: Sequence[float]) -> list[Fraction]:
    """Shares as the exact fractions that were meant, so that rounding does not hang on the last bit of a float."""
    return [Fraction(share).limit_denominator(10**6) for share in shares]


def side_sizes(count: int, shares: Sequence[Fraction]) -> list[int]:
    """Sizes of the sides of one stratum: largest remainder, then no empty side where `count` allows it.

    Args:
        count: number of units
        shares: share of each side, in order of precedence when remainders tie

    Examples:
        >>> side_sizes(5, fractions([0.64, 0.2, 0.16]))
        [3, 1, 1]
        >>> side_sizes(3, fractions([0.64, 0.2, 0.16]))
        [1, 1, 1]
        >>> side_sizes(2, fractions([0.64, 0.2, 0.16]))
        [1, 1, 0]
    """
    exact = [count * share for share in shares]
    sizes = [math.floor(value) for value in exact]
    by_remainder = sorted(range(len(sizes)), key=lambda side: sizes[side] - exact[side])
    for side in by_remainder[: count - sum(sizes)]:
        sizes[side] += 1
    while count >= len(sizes) and 0 in sizes:
        sizes[sizes.index(max(sizes))] -= 1
        sizes[sizes.index(0)] += 1
    return sizes


def _integer(text: str, num_bits: int) -> int:
    """A fixed pseudo-random integer of `num_bits` bits."""
    num_bytes = -(-num_bits // 8)
    return int.from_bytes(hashlib.shake_256(text.encode()).digest(num_bytes)) >> (8 * num_bytes - num_bits)


def shuffled(names: Iterable[str], key: str) -> list[str]:
    """The names in a fixed pseudo-random order that depends on `key` and on nothing else."""
    return sorted(names, key=lambda name: (hashlib.sha256(f"{key}\t{name}".encode()).digest(), name))


def permute(index: int, size: int, key: str) -> int:
    """Element `index` of a fixed pseudo-random permutation of range(size), of any size, without storing it.

    A balanced Feistel network over the next even number of bits, walked until it falls below `size` (Black and Rogaway,
    Ciphers with arbitrary finite domains, CT-RSA 2002).
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    while True:
        left, right = index >> half, index & ((1 << half) - 1)
        for number in range(_ROUNDS):
            left, right = right, left ^ _integer(f"{key}\t{number}\t{right:x}", half)
        index = left << half | right
        if index < size:
            return index


def combination(rank: int, items: Sequence[int], take: int) -> list[int]:
    """Combination number `rank` of `take` items, in lexicographic order; `rank` in range(comb(len(items), take))."""
    chosen: list[int] = []
    count, left = math.comb(len(items), take), len(items)
    for item in items:
        if take == 0:
            break
        with_item = count * take // left
        if rank < with_item:
            chosen.append(item)
            count, take = with_item, take - 1
        else:
            rank -= with_item
            count -= with_item
        left -= 1
    return chosen


class Draws:
    """All ways to put units on sides in the sizes of `side_sizes`, numbered in a fixed pseudo-random order."""

    def __init__(self, names: Sequence[str], strata: Sequence[str], shares: Sequence[float], purpose: str) -> None:
        """Number the draws.

        Args:
            names: the units, sorted; at least as many as sides
            strata: stratum of each unit
            shares: share of each side; the second is chosen first, and what the choices leave is the first
            purpose: keeps the orders of different draws from the same units apart
        """
        exact = fractions(shares)
        members: dict[str, list[int]] = {}
        for unit, stratum in enumerate(strata):
            members.setdefault(stratum, []).append(unit)
        self.members = [members[stratum] for stratum in sorted(members)]
        self.sizes = [side_sizes(len(units), exact) for units in self.members]
        if any(sum(sizes) == 0 for sizes in zip(*self.sizes, strict=True)):
            self.members = [list(range(len(names)))]
            self.sizes = [side_sizes(len(names), exact)]
        self.num_units = len(names)
        self.key = hashlib.sha256("\n".join([purpose, repr(self.sizes), *names]).encode()).hexdigest()
        self.levels: list[list[int]] = []
        """For each side but the first: in how many ways each stratum can choose it from what is left."""
        left = [len(units) for units in self.members]
        for side in range(1, len(exact)):
            self.levels.append([math.comb(n, sizes[side]) for n, sizes in zip(left, self.sizes, strict=True)])
            left = [n - sizes[side] for n, sizes in zip(left, self.sizes, strict=True)]
        self.possible = math.prod(math.prod(level) for level in self.levels)

    def at(self, index: int) -> Codes:
        """Side (position in `shares`) of each unit in draw number `index`, counted modulo `possible`."""
        choices = self._choices(index % self.possible, [math.prod(level) for level in self.levels], self.key)
        sides = np.zeros(self.num_units, dtype=np.int64)
        left = self.members
        for side, (choice, level) in enumerate(zip(choices, self.levels, strict=True), start=1):
            remaining = []
            for units, ways, sizes in zip(left, level, self.sizes, strict=True):
                choice, rank = divmod(choice, ways)
                chosen = combination(rank, units, sizes[side])
                sides[chosen] = side
                remaining.append([unit for unit in units if sides[unit] == 0])
            left = remaining
        return sides

    def _choices(self, index: int, counts: list[int], key: str) -> list[int]:
        # Each level is permuted under a key made of the others, so that the whole stays a bijection while successive
        # indices walk through all choices of the first level before one returns.
        if not counts:
            return []
        rest, first = divmod(index, counts[0])
        first = permute(first, counts[0], f"{key}\t{rest:x}")
        return [first, *self._choices(rest, counts[1:], f"{key}\t{first:x}")]

    def independent(self, seed: int, number: int = 0) -> int:
        """Index of an independent draw, uniform over all."""
        return _integer(f"{self.key}\t{seed}\t{number}", self.possible.bit_length() + 128) % self.possible


# ---- the kinds ----


def _speaker_independent(data: _Clips, spec: SpeakerIndependent, seed: int) -> _Draft:
    units = _units(data, spec, data.trained)
    _require(units, 3, spec, "train, validation and test")
    train, validation, test = spec.shares
    draws = Draws(units.names, units.strata, (train, test, validation), "speakers")
    draft = _Draft(data.start(), possible=draws.possible)
    if spec.balanced_draw:
        index = _most_balanced(data, units, draws, spec, seed, draft)
    else:
        index = seed if spec.rotate else draws.independent(seed)
    units.paint(draft.sides, np.array([TRAIN, TEST, VALIDATION])[draws.at(index)])
    return draft


def _most_balanced(
    data: _Clips, units: _Units, draws: Draws, spec: SpeakerIndependent, seed: int, draft: _Draft
) -> int:
    """Of the candidates of this seed, the index with the least total variation between the class shares of a side and
    of the corpora, summed over the sides; the earliest of equals."""
    number = max(1, min(BALANCED_CANDIDATES, math.isqrt(draws.possible)))
    if spec.rotate:
        # Disjoint blocks of candidates, so that seeds differ as long as blocks are left.
        draft.possible = draws.possible // number
        candidates = [seed % draft.possible * number + position for position in range(number)]
    else:
        candidates = [draws.independent(seed, position) for position in range(number)]
    codes, classes = pd.factorize(data.column("class_id")[data.trained], sort=True)
    counts = np.zeros((len(units.names), len(classes)))
    np.add.at(counts, (units.of_clip[data.trained], codes), 1)
    overall = counts.sum(axis=0) / counts.sum()
    imbalance = []
    for candidate in candidates:
        sides = draws.at(candidate)
        per_side = np.stack([counts[sides == side].sum(axis=0) for side in range(3)])
        shares = per_side / np.maximum(per_side.sum(axis=1, keepdims=True), 1)
        imbalance.append(round(float(np.abs(shares - overall).sum() / 2), 9))
    draft.notes.append(
        f"balanced_draw: the nearest in class shares of {number} draws; this narrows the choice of splits"
    )
    return candidates[imbalance.index(min(imbalance))]


def _folds(data: _Clips, spec: KFold | LeaveOneSpeakerOut | LeaveOneGroupOut | SpeakerFolds, seed: int) -> list[_Draft]:
    by_group = isinstance(spec, LeaveOneGroupOut) or (isinstance(spec, SpeakerFolds) and spec.column == "group")
    units = _units(data, spec, data.trained, by_group=by_group)
    if isinstance(spec, KFold):
        _require(units, max(spec.folds, 3), spec, f"{spec.folds} folds, two speakers outside each")
        tests = _dealt(units, spec.folds, seed)
    else:
        _require(units, 3, spec, "train, validation and test")
        tests = (
            _listed(data, spec)
            if isinstance(spec, SpeakerFolds)
            else _left_out_in_turn(data, "group" if by_group else "actor")
        )
    drafts = []
    for fold, tested in tests:
        rest = np.setdiff1d(np.arange(len(units.names)), units.of_clip[tested])
        if len(rest) < 2:
            raise SplitRefused(
                f"split '{spec.kind}', fold {fold}: fewer than two speakers are left to train and validate"
            )
        sides = data.start()
        if _validation_may_share(spec):
            shares = (1 - spec.validation_share, spec.validation_share)
            draws, rows = _clip_draws(data, np.isin(units.of_clip, rest), shares, f"validation\t{fold}")
            sides[rows] = np.array([TRAIN, VALIDATION])[draws.at(seed)]
        else:
            draws = _cut(units, rest, spec.validation_share, fold)
            units.paint(sides, np.array([TRAIN, VALIDATION])[draws.at(seed)], rest)
        sides[tested] = TEST
        draft = _Draft(sides, fold, possible=None if isinstance(spec, KFold) else draws.possible)
        partners = data.trained & (sides == UNUSED)
        if partners.any():
            names = named(data.speakers[partners])
            draft.notes.append(
                f"{counted(int(partners.sum()), 'clip')} unused, in a group with the tested speaker: {names}"
            )
        drafts.append(draft)
    return drafts


def _listed(data: _Clips, spec: SpeakerFolds) -> list[tuple[str, npt.NDArray[np.bool_]]]:
    """The clips that each fold of the spec tests."""
    if len(data.corpora) > 1:
        raise BadInput(f"split 'speaker_folds' takes one training corpus; there are {named(data.corpora)}")
    keys = np.where(data.trained, data.column(spec.column), "")
    asked = [speaker for speakers in spec.folds.values() for speaker in speakers]
    here = sorted(set(keys) - {""})
    if strange := sorted(set(asked) - set(here)):
        raise BadInput(
            f"split 'speaker_folds': {data.corpora[0]} has no {spec.column} {named(map(repr, strange))}; "
            f"it has {named(here)}"
        )
    if untested := sorted(set(here) - set(asked)):
        raise BadInput(f"split 'speaker_folds': no fold tests {named(untested)}; every {spec.column} is tested once")
    return [(fold, np.isin(keys, speakers)) for fold, speakers in spec.folds.items()]


def _dealt(units: _Units, folds: int, seed: int) -> list[tuple[str, npt.NDArray[np.bool_]]]:
    """Deal the units, stratum after stratum, round the folds, which so differ by one unit at most, in all and in each
    stratum."""
    order: list[int] = []
    for stratum in sorted(set(units.strata)):
        members = {name: unit for unit, name in enumerate(units.names) if units.strata[unit] == stratum}
        order += [members[name] for name in shuffled(members, f"k_fold\t{seed}\t{stratum}")]
    fold_of_unit = np.zeros(len(order) + 1, dtype=np.int64)
    fold_of_unit[order] = np.arange(len(order)) % folds
    fold_of_unit[-1] = -1
    return [(str(fold), fold_of_unit[units.of_clip] == fold) for fold in range(folds)]


def _left_out_in_turn(data: _Clips, column: str) -> list[tuple[str, npt.NDArray[np.bool_]]]:
    keys = np.where(data.trained, joined(data.column("corpus"), data.column(column)), "")
    tests = []
    for key in sorted(set(keys) - {""}):
        name = key if len(data.corpora) > 1 else key.split("/", 1)[1]
        # Folds name folders.
        tests.append(("".join(sign if sign.isalnum() or sign in "-._" else "_" for sign in name), keys == key))
    if len({fold for fold, _ in tests}) < len(tests):
        raise BadInput(f"column {column!r}: two names are the same once signs other than letters, digits, -._ become _")
    return tests


def _cut(units: _Units, rest: npt.NDArray[np.int64], validation_share: float, fold: str | None) -> Draws:
    """Train and validation out of the units `rest`."""
    names, strata = [units.names[unit] for unit in rest], [units.strata[unit] for unit in rest]
    return Draws(names, strata, (1 - validation_share, validation_share), f"validation\t{fold}")


def _require(units: _Units, number: int, spec: DrawnSplit, what: str) -> None:
    if len(units.names) < number:
        raise SplitRefused(
            f"split '{spec.kind}' needs at least {number} speakers or groups that can part ({what}); "
            f"there {'is' if len(units.names) == 1 else 'are'} {len(units.names)}: {named(units.names)}"
        )


def _preset(
    data: _Clips,
    spec: Preset,
    seed: int,
    fold: str | None,
    rows: pd.DataFrame,
    left_out: frozenset[tuple[str, str]],
) -> _Draft:
    file = f"preset split {spec.path}" + (f", fold {fold}" if fold is not None else "")
    unknown = ~rows["split"].str.lower().isin(list(SIDE_NAMES))
    if unknown.any():
        raise BadInput(
            f"{file}: split {named(rows['split'][unknown].map(repr))} is not valid; expected {', '.join(SIDE_NAMES)}"
        )
    if "corpus" not in rows:
        if len(data.corpora) > 1:
            raise BadInput(f"{file}: with several training corpora ({named(data.corpora)}) it needs a column 'corpus'")
        rows["corpus"] = data.corpora[0]
    draft = _Draft(data.start(), fold)
    others = ~rows["corpus"].isin(data.corpora)
    if others.any():
        draft.notes.append(
            f"preset: {counted(int(others.sum()), 'row')} of other corpora: {named(rows['corpus'][others])}"
        )
        rows = rows[~others].reset_index(drop=True)
    if rows.empty:
        raise BadInput(f"{file} lists no clip of {named(data.corpora)}")

    candidates = data.table.loc[data.trained, ["corpus", "path"]]
    absent = pd.DataFrame(sorted(left_out), columns=["corpus", "path"])
    known = pd.concat([candidates, absent[absent["corpus"].isin(data.corpora)]], ignore_index=True)
    for corpus in data.corpora:
        own = rows["corpus"] == corpus
        rows.loc[own, "path"] = relocate(rows.loc[own, "path"], known.loc[known["corpus"] == corpus, "path"])
    found = match_clips(rows["path"], rows["corpus"], known)
    stems = rows["path"].map(lambda path: PurePosixPath(clip_path(path)).stem)
    gone = pd.Series(list(zip(rows["corpus"], stems, strict=True))).isin(left_out).to_numpy() & (found == -1)
    rows, found = rows[~gone], found[~gone]
    for bad, what in ((found == -1, "no such clip"), (found == -2, "several clips of this name; give the whole path")):
        if bad.any():
            raise BadInput(f"{file}, {counted(int(bad.sum()), 'row')}: {what}: {named(rows['path'][bad])}")
    twice = pd.Series(found).duplicated().to_numpy()
    if twice.any():
        raise BadInput(
            f"{file}, {counted(int(twice.sum()), 'clip')} listed more than once: {named(rows['path'][twice])}"
        )

    listed = found < len(candidates)
    positions = np.flatnonzero(data.trained)[found[listed]]
    draft.sides[positions] = rows["split"].str.lower().map(SIDE_NAMES).to_numpy(dtype=np.int64)[listed]
    if missing := int(data.trained.sum()) - len(positions):
        draft.notes.append(f"preset: {counted(missing, 'clip')} not listed and therefore unused")
    draft.possible = 1
    if not (draft.sides[data.trained] == VALIDATION).any():
        _cut_validation(data, draft, spec, seed)
    return draft


def _partition(data: _Clips, spec: Partition, seed: int) -> _Draft:
    if PARTITION not in data.columns:
        raise BadInput(f"split 'partition': the manifest has no column '{PARTITION}'")
    partitions = np.where(data.trained, data.column(PARTITION), "")
    here = sorted(set(partitions) - {""})
    if not here:
        raise SplitRefused(
            f"split 'partition': {named(data.corpora)} publishes no partition; draw one, or use 'preset'"
        )
    draft = _Draft(data.start(), possible=1)
    for side, names in ((TRAIN, spec.train), (VALIDATION, spec.validation), (TEST, spec.test)):
        absent = sorted(set(names) - set(here))
        if absent and (side != VALIDATION or len(absent) < len(names)):
            raise SplitRefused(
                f"split 'partition': no clip of {named(data.corpora)} is in the partition {named(map(repr, absent))}, "
                f"which is to be {SPLIT_SIDES[side]}; it has {named(here)}"
            )
        draft.sides[np.isin(partitions, names)] = side
    if rest := sorted(set(here) - {*spec.train, *spec.validation, *spec.test}):
        number = counted(int(np.isin(partitions, rest).sum()), "clip")
        draft.notes.append(f"partition: {number} of {named(rest)} unused")
    if nowhere := int((data.trained & (partitions == "")).sum()):
        draft.notes.append(f"partition: {counted(nowhere, 'clip')} without a partition unused")
    if spec.speakers_may_cross:
        draft.notes.append("SPEAKER-DEPENDENT, NOT COMPARABLE: the partition may share speakers between its sides")
    if not (draft.sides[data.trained] == VALIDATION).any():
        _cut_validation(data, draft, spec, seed)
    return draft


def _cut_validation(data: _Clips, draft: _Draft, spec: Preset | Partition, seed: int) -> None:
    train = draft.sides == TRAIN
    shares = (1 - spec.validation_share, spec.validation_share)
    if (data.column("actor")[train] == "").any():
        draws, rows = _clip_draws(data, train, shares, "validation")
        draft.sides[rows] = np.array([TRAIN, VALIDATION])[draws.at(seed)]
        draft.possible = None
        draft.notes.append(f"{spec.kind}: validation is cut from train clip by clip, since speakers are unknown")
        return
    units = _units(data, spec, train)
    _require(units, 2, spec, "validation is cut from train by speaker")
    draws = _cut(units, np.arange(len(units.names)), spec.validation_share, draft.fold)
    units.paint(draft.sides, np.array([TRAIN, VALIDATION])[draws.at(seed)])
    draft.possible = draws.possible
    draft.notes.append(f"{spec.kind}: validation is cut from train by speaker")


def _cross_corpus(data: _Clips, spec: CrossCorpus, seed: int) -> _Draft:
    further = sorted(set(data.column("corpus")) - set(data.corpora))
    if not further:
        raise BadInput("split 'cross_corpus' needs clips of at least one corpus that is not trained on")
    draft = _Draft(data.start())
    units = _units(data, spec, data.trained)
    _require(units, 2, spec, "train and validation")
    draws = _cut(units, np.arange(len(units.names)), spec.validation_share, None)
    units.paint(draft.sides, np.array([TRAIN, VALIDATION])[draws.at(seed)])
    cycles = [draws.possible]
    for corpus in further:
        cycles += _set_aside(data, draft, spec, seed, corpus)
    draft.possible = math.lcm(*cycles)
    return draft


def _set_aside(data: _Clips, draft: _Draft, spec: CrossCorpus, seed: int, corpus: str) -> list[int]:
    """Set speakers (and sentences) of a test corpus aside, the same whatever the number of shots, and draw the shots.

    Returns:
        the number of ways of each draw
    """
    mask = data.column("corpus") == corpus
    if not spec.shots_per_class and (data.column("actor")[mask] == "").any():
        draft.notes.append(f"{corpus}: speakers unknown, tested whole; shots cannot be drawn from it")
        return []
    units = _units(data, spec, mask)
    shares = (1 - spec.shot_speakers_share, spec.shot_speakers_share)
    if len(units.names) < 2 and not spec.shots_per_class:
        draft.notes.append(f"{corpus}: one speaker, tested whole; shots cannot be drawn from it")
        return []
    _require(units, 2, spec, f"shots and test of {corpus}")
    draws = Draws(units.names, units.strata, shares, "shots")
    units.paint(draft.sides, np.array([TEST, UNUSED])[draws.at(seed)])
    pool = mask & (draft.sides == UNUSED)
    cycles = [draws.possible]
    if spec.sentence_independent:
        sentences, kept = _sentence_draws(data, mask, spec, corpus, None, spec.shot_speakers_share)
        for_shots = np.isin(data.column("sentence"), np.array(kept, dtype=object)[sentences.at(seed) == 1])
        draft.sides[mask & for_shots & (draft.sides == TEST)] = UNUSED
        pool &= for_shots
        cycles.append(sentences.possible)
    wanted = sorted(set(data.column("class_id")[mask]) & set(data.column("class_id")[data.trained]))
    for class_id in wanted if spec.shots_per_class else []:
        rows = np.flatnonzero(pool & (data.column("class_id") == class_id))
        if len(rows) < spec.shots_per_class:
            raise SplitRefused(
                f"split 'cross_corpus', seed {seed}: {corpus} has {counted(len(rows), 'clip')} of {class_id} by "
                f"speakers set aside for shots; shots_per_class is {spec.shots_per_class}"
            )
        draft.sides[_spread(data, rows, spec.shots_per_class, f"shots\t{seed}\t{corpus}")] = TRAIN
    unused = int((mask & (draft.sides == UNUSED)).sum())
    draft.notes.append(
        f"{corpus}: {int((draws.at(seed) == 1).sum())} of {len(units.names)} speakers set aside for shots; "
        f"{spec.shots_per_class} per class taken, {counted(unused, 'clip')} unused"
    )
    return cycles


def _spread(data: _Clips, rows: npt.NDArray[np.int64], number: int, key: str) -> list[int]:
    """`number` of the rows, from as many speakers as possible; fewer rows are always a part of more."""
    paths, actors = data.column("path"), data.column("actor")
    row_of = {str(paths[row]): int(row) for row in rows}
    turn: dict[str, int] = {}
    order = []
    for place, path in enumerate(shuffled(row_of, key)):
        actor = actors[row_of[path]]
        turn[actor] = turn.get(actor, -1) + 1
        order.append((turn[actor], place, row_of[path]))
    return [row for _, _, row in sorted(order)[:number]]


def _random(data: _Clips, spec: RandomSplit, seed: int) -> _Draft:
    train, validation, test = spec.proportions
    draws, rows = _clip_draws(data, data.trained, (train, test, validation), "clips")
    draft = _Draft(data.start())
    draft.sides[rows] = np.array([TRAIN, TEST, VALIDATION])[draws.at(seed)]
    draft.notes.append("SPEAKER-DEPENDENT, NOT COMPARABLE: clips are drawn without regard to speakers")
    return draft


def _clip_draws(
    data: _Clips, mask: npt.NDArray[np.bool_], shares: Sequence[float], purpose: str
) -> tuple[Draws, npt.NDArray[np.int64]]:
    """Draws of single clips, stratified by corpus and class, and the rows they are of."""
    rows = np.flatnonzero(mask)
    if len(rows) < len(shares):
        raise SplitRefused(f"{counted(len(rows), 'clip')} cannot be parted into {len(shares)} sides")
    names = joined(data.column("corpus"), data.column("path"))[rows]
    strata = joined(data.column("corpus"), data.column("class_id"))[rows]
    return Draws(list(names), list(strata), shares, purpose), rows


def _legacy_per_emotion(data: _Clips, spec: LegacyPerEmotion, seed: int) -> _Draft:
    """The draw of an older system, flaw included.

    Women and men apart, and each emotion apart, actors are shuffled with the same seed and parted N : 1 - N into
    train + validation and test, then train + validation once more into train and validation. Actors who lack an emotion
    shift the others, who so land on several sides. Speakers of other genders were dropped.
    """
    draft = _Draft(data.start())
    draft.notes.append("SPEAKER-DEPENDENT, NOT COMPARABLE: speakers are drawn anew for each emotion")
    rows = data.trained
    if ((data.column("actor") == "") & rows).any():
        raise SplitRefused(
            "SPEAKERS UNKNOWN: split 'legacy_per_emotion' needs an actor for each clip; use 'random' or 'preset'"
        )
    known = rows & np.isin(data.column("gender"), ["female", "male"])
    if dropped := int((rows & ~known).sum()):
        draft.notes.append(
            f"{counted(dropped, 'clip')} of speakers neither female nor male unused, as in the older system"
        )
    cells: dict[tuple[str, str, str], set[str]] = {}
    numeric = dict.fromkeys(data.corpora, True)
    columns = (data.column(name)[known] for name in ("corpus", "gender", "class_id", "actor"))
    for corpus, gender, class_id, actor in zip(*columns, strict=True):
        cells.setdefault((corpus, gender, class_id), set()).add(actor)
        numeric[corpus] &= actor.isdecimal()
    side_of: dict[str, int] = {}
    for (corpus, gender, class_id), members in sorted(cells.items()):
        # Its table reader took actors for numbers where it could, and sorted them as such.
        actors = sorted(sorted(members), key=int) if numeric[corpus] else sorted(members)
        rest, test = _old_shuffle(actors, spec.train_test_split, seed)
        train, validation = _old_shuffle(rest, spec.train_test_split, seed)
        if not train:
            raise SplitRefused(
                f"split 'legacy_per_emotion': {counted(len(actors), 'speaker')} ({corpus}, {gender}, {class_id}) "
                "cannot be parted into train, validation and test"
            )
        for side, chosen in ((TRAIN, train), (VALIDATION, validation), (TEST, test)):
            side_of |= {f"{corpus}\t{class_id}\t{actor}": side for actor in chosen}
    keys = data.column("corpus") + "\t" + data.column("class_id") + "\t" + data.column("actor")
    draft.sides[known] = [side_of[key] for key in keys[known]]
    return draft


def _old_shuffle(actors: list[str], share: float, seed: int) -> tuple[list[str], list[str]]:
    """The two sides of scikit-learn's GroupShuffleSplit(train_size=share, random_state=seed), in the order given.

    RandomState's stream is frozen, so that the published splits stay reproducible.
    """
    num_train = math.floor(share * len(actors))
    num_test = len(actors) - num_train
    order = np.random.RandomState(seed).permutation(len(actors))
    rest, test = sorted(order[num_test:]), order[:num_test]
    return [actors[i] for i in rest], [actors[i] for i in sorted(test)]


# ---- sentences ----


def _part_sentences(data: _Clips, draft: _Draft, spec: DrawnSplit, seed: int) -> None:
    """Let every corpus that trains and is tested keep its test sentences out of train and validation.

    The sentences of a corpus, sorted, are drawn as speakers are, as units of one stratum, the test sentences in the
    share of the test speakers. Clips of test speakers in other sentences and clips of other speakers in test sentences
    become unused.
    """
    match spec:
        case SpeakerIndependent():
            share = spec.shares[2]
        case RandomSplit():
            share = spec.proportions[2]
        case KFold():
            share = 1 / spec.folds
        case _:
            share = SENTENCE_TEST_SHARE
    for corpus in data.corpora:
        mask = data.column("corpus") == corpus
        tested = mask & (draft.sides == TEST)
        fitted = mask & ((draft.sides == TRAIN) | (draft.sides == VALIDATION))
        if not tested.any() or not fitted.any():
            continue
        draws, sentences = _sentence_draws(data, tested | fitted, spec, corpus, draft.fold, share)
        chosen = np.array(sentences, dtype=object)[draws.at(seed) == 1]
        for_test = np.isin(data.column("sentence"), chosen)
        offending = (tested & ~for_test) | (fitted & for_test)
        draft.sides[offending] = UNUSED
        if draft.possible is not None:
            draft.possible = math.lcm(draft.possible, draws.possible)
        draft.notes.append(
            f"sentence_independent: {corpus}: {len(chosen)} of {len(sentences)} sentences tested ({named(chosen)}), "
            f"{counted(int(offending.sum()), 'clip')} unused"
        )


def _sentence_draws(
    data: _Clips, mask: npt.NDArray[np.bool_], spec: DrawnSplit, corpus: str, fold: str | None, share: float
) -> tuple[Draws, list[str]]:
    sentences = data.column("sentence")[mask]
    if blank := int((sentences == "").sum()):
        raise SplitRefused(
            f"split '{spec.kind}' with 'sentence_independent': the manifest has no sentence for "
            f"{counted(blank, 'clip')} of {corpus}; leave 'sentence_independent' out"
        )
    names = sorted(set(map(str, sentences)))
    if len(names) < 2:
        raise SplitRefused(f"split '{spec.kind}' with 'sentence_independent': {corpus} has one sentence only")
    return Draws(names, [corpus] * len(names), (1 - share, share), f"sentences\t{fold}"), names
