"""The leak check: what no split may do, and the audit of anybody's split file.

`draw` (splits.py) passes every split through `refusals` before anyone trains on it. `audit` asks the same questions of
a split that came from elsewhere and answers with findings.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt
import pandas as pd

from ser_eval.run_folder import SPLIT_SIDES
from ser_scripts.errors import BadInput

Codes = npt.NDArray[np.int64]
"""One side per clip: an index into SPLIT_SIDES."""
TRAIN, VALIDATION, TEST, UNUSED = range(4)

SIDE_NAMES = {
    "train": TRAIN, "validation": VALIDATION, "valid": VALIDATION, "val": VALIDATION, "dev": VALIDATION,
    "test": TEST, "unused": UNUSED,
}  # fmt: skip
"""Names that split files use for the sides; case does not matter."""

_NAMED_AT_MOST = 10


def named(items: Iterable[str], at_most: int = _NAMED_AT_MOST) -> str:
    """`a, b, c (and 7 more)`: the first names in sorted order, and how many follow."""
    names = sorted(set(items))
    more = f" (and {len(names) - at_most} more)" if len(names) > at_most else ""
    return ", ".join(names[:at_most]) + more


def counted(number: int, thing: str) -> str:
    """`1 clip`, `2 clips`."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def joined(corpora: npt.NDArray[np.object_], names: npt.NDArray[np.object_]) -> npt.NDArray[np.object_]:
    """`<corpus>/<name>` per clip; "" where the name is unknown."""
    return np.where(names == "", "", corpora + "/" + names)


def crossing(keys: npt.NDArray[np.object_], sides: Codes) -> list[str]:
    """The keys that stand on more than one of train, validation and test, sorted; "" and unused clips do not count."""
    used = (keys != "") & (sides != UNUSED)
    codes, unique = pd.factorize(keys[used])
    present = np.zeros((len(unique), 3), dtype=bool)
    present[codes, sides[used]] = True
    return sorted(str(key) for key in unique[present.sum(axis=1) > 1])


def refusals(
    clips: Mapping[str, npt.NDArray[np.object_]],
    sides: Codes,
    *,
    trained: npt.NDArray[np.bool_],
    seen: frozenset[tuple[str, str]],
    selected: frozenset[tuple[str, str]],
    groups_may_cross: bool,
    validation_may_share: bool = False,
    untrained_allowed: bool = False,
) -> list[str]:
    """Why a split must not be used, each reason naming the speakers or clips; empty for an honest split.

    Args:
        clips: manifest columns corpus, path, class_id, actor, group, audio_sha256, one text per clip
        sides: side of each clip
        trained: which clips belong to the training corpora
        seen: speakers (corpus, actor) that an initial checkpoint was trained on; not to validate or be tested
        selected: speakers that selected an initial checkpoint; not to be tested
        groups_may_cross: the split kind is speaker-dependent by definition (random, legacy_per_emotion)
        validation_may_share: validation is drawn from the clips of those who train
        untrained_allowed: a class may have no clip in train
    """
    reasons = []
    fitted = np.where(sides == VALIDATION, TRAIN, sides) if validation_may_share else sides
    if not groups_may_cross and (groups := crossing(joined(clips["corpus"], clips["group"]), fitted)):
        reasons.append(f"{counted(len(groups), 'group')} on two sides: {named(groups)}")
    audio = clips["audio_sha256"]
    if copies := crossing(audio, sides):
        members = joined(clips["corpus"], clips["path"])[np.isin(audio, copies) & (sides != UNUSED)]
        reasons.append(f"the same audio on two sides, {counted(len(members), 'clip')}: {named(members)}")
    classes = clips["class_id"]
    if not untrained_allowed and (missing := set(classes[trained]) - set(classes[sides == TRAIN])):
        reasons.append(f"class without a clip in train: {named(missing)}")
    for side in (TRAIN, VALIDATION, TEST):
        if not (sides == side).any():
            reasons.append(f"the {SPLIT_SIDES[side]} side is empty")
    speakers = joined(clips["corpus"], clips["actor"]) if seen or selected else np.array([], dtype=object)
    for known, what, where in (
        (seen, "validation or test was trained on by", (VALIDATION, TEST)),
        (selected, "test selected", (TEST,)),
    ):
        if known and (met := set(speakers[np.isin(sides, where)]) & {f"{corpus}/{actor}" for corpus, actor in known}):
            reasons.append(f"{counted(len(met), 'speaker')} of {what} the initial checkpoint: {named(met)}")
    return reasons


def read_delimited(file: Path, columns: Sequence[str], *, what: str) -> pd.DataFrame:
    """Read a comma, semicolon or tab separated table, every value as stripped text.

    Raises:
        BadInput: no such file, no text, or a column is missing
    """
    if not file.is_file():
        raise BadInput(f"{file}: no such {what} file")
    try:
        with file.open(encoding="utf-8-sig") as stream:
            header = stream.readline()
        separator = max(",;\t", key=header.count)
        table = pd.read_csv(file, sep=separator, dtype=str, na_filter=False, encoding="utf-8-sig")
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise BadInput(f"{file} is not a table of text in UTF-8 ({what}): {error}") from None
    table.columns = [str(column).strip() for column in table.columns]
    if missing := [column for column in columns if column not in table.columns]:
        raise BadInput(
            f"{file} ({what}) lacks the column(s) {', '.join(missing)}; it has {', '.join(table.columns)}; "
            f"needed: {', '.join(columns)}, separated by comma, semicolon or tab"
        )
    for column in table.columns:
        table[column] = table[column].str.strip()
    return table


def clip_path(path: str) -> str:
    """A path as manifests write it: forward slashes, no leading `./`."""
    return path.replace("\\", "/").removeprefix("./")


def audit(split_csv: Path, manifest_csv: Path | None = None) -> list[str]:
    """Look for leaks and slips in anybody's split file.

    Args:
        split_csv: columns path, class_id, actor, gender, split; optionally group (else the actor) and corpus
        manifest_csv: columns corpus, path, actor, audio_sha256; adds the search for the same audio under two names

    Returns:
        one line per finding, in a fixed order; empty when nothing was found

    Raises:
        BadInput: a file or a column is missing
    """
    table = read_delimited(split_csv, ["path", "class_id", "actor", "gender", "split"], what="split")
    if "corpus" not in table.columns:
        table["corpus"] = ""
    table["path"] = table["path"].map(clip_path)
    table["group"] = table["group"].where(table["group"] != "", table["actor"]) if "group" in table else table["actor"]
    names = table["split"].str.lower()
    sides = names.map(lambda name: SIDE_NAMES.get(name, UNUSED)).to_numpy(dtype=np.int64)

    findings = []
    unknown = ~names.isin(list(SIDE_NAMES)).to_numpy()
    if unknown.any():
        findings.append(
            f"unknown split names, {counted(int(unknown.sum()), 'clip')}: {named(table['split'][unknown].map(repr))}; "
            f"known: {', '.join(SIDE_NAMES)}"
        )
    findings += [
        f"the {SPLIT_SIDES[side]} side is empty" for side in (TRAIN, VALIDATION, TEST) if not (sides == side).any()
    ]
    findings += _path_findings(table, sides)
    findings += _speaker_findings(table, sides)
    classes = table["class_id"].to_numpy(dtype=object)
    if missing := set(classes) - set(classes[sides == TRAIN]):
        findings.append(f"class without a clip in train: {named(missing)}")
    if manifest_csv is not None:
        findings += _manifest_findings(table, sides, manifest_csv)
    return findings


def _speaker_findings(table: pd.DataFrame, sides: Codes) -> list[str]:
    findings = []
    speakers = _labelled(table, "actor")
    used = sides != UNUSED
    if nameless := int((used & (speakers == "")).sum()):
        findings.append(f"{counted(nameless, 'clip')} without actor: whether sides share these speakers cannot be told")
    if leaking := crossing(speakers, sides):
        tested = set(speakers[sides == TEST]) - {""}
        clips = int((np.isin(speakers, leaking) & (sides == TEST)).sum())
        shares = _side_counts(leaking[:_NAMED_AT_MOST], speakers, sides)
        findings.append(
            f"{counted(len(leaking), 'speaker')} on two sides: {shares}"
            f"{f' (and {len(leaking) - _NAMED_AT_MOST} more)' if len(leaking) > _NAMED_AT_MOST else ''}; "
            f"{len(tested & set(leaking))} of {len(tested)} test speakers, "
            f"{clips} of {int((sides == TEST).sum())} test clips"
        )
    groups = _labelled(table, "group")
    if crossed := [group for group in crossing(groups, sides) if group not in set(leaking)]:
        findings.append(f"{counted(len(crossed), 'group')} on two sides: {named(crossed)}")
    genders = table["gender"].str.lower().groupby(speakers).nunique()
    if torn := [str(speaker) for speaker in genders[genders > 1].index if speaker != ""]:
        findings.append(f"{counted(len(torn), 'speaker')} with more than one gender: {named(torn)}")
    return findings


def _side_counts(speakers: Sequence[str], of_clip: npt.NDArray[np.object_], sides: Codes) -> str:
    texts = []
    for speaker in speakers:
        numbers = np.bincount(sides[of_clip == speaker], minlength=4)[:3]
        texts.append(f"{speaker} ({', '.join(f'{SPLIT_SIDES[i]} {n}' for i, n in enumerate(numbers) if n)})")
    return ", ".join(texts)


def _path_findings(table: pd.DataFrame, sides: Codes) -> list[str]:
    findings = []
    paths = _labelled(table, "path")
    crossed = crossing(paths, sides)
    if crossed:
        findings.append(f"{counted(len(crossed), 'clip')} on two sides: {named(crossed)}")
    doubled = {str(path) for path in paths[pd.Series(paths).duplicated().to_numpy()]} - set(crossed)
    if doubled:
        findings.append(f"{counted(len(doubled), 'clip')} listed twice: {named(doubled)}")
    # A copy is a.wav beside a.flac, or the same name in another folder by the same speaker in the same emotion; the
    # name alone would accuse corpora that number the clips of each speaker from 1.
    bare = table["path"].map(lambda path: str(PurePosixPath(path).with_suffix("")) if path else "")
    stem = bare.map(lambda path: PurePosixPath(path).name)
    copies: set[str] = set()
    for key in (bare, table["actor"] + "\t" + table["class_id"] + "\t" + stem):
        keys = (table["corpus"] + "\t" + key).to_numpy(dtype=object)
        copies |= {str(path) for path in paths[np.isin(keys, crossing(keys, sides)) & (sides != UNUSED)]}
    if copies := copies - set(crossed):
        findings.append(f"{counted(len(copies), 'clip')} of one name on two sides, likely copies: {named(copies)}")
    return findings


def _manifest_findings(table: pd.DataFrame, sides: Codes, manifest_csv: Path) -> list[str]:
    manifest = read_delimited(manifest_csv, ["corpus", "path", "actor", "audio_sha256"], what="manifest")
    if (table["corpus"] == "").all() and manifest["corpus"].nunique() > 1:
        raise BadInput(
            f"{manifest_csv} holds {manifest['corpus'].nunique()} corpora and the split has no column 'corpus': "
            "give the manifest of one corpus, or add the column"
        )
    rows = match_clips(table["path"], table["corpus"], manifest)
    findings = []
    strange = rows < 0
    paths = _labelled(table, "path")
    if strange.any():
        findings.append(f"{counted(int(strange.sum()), 'clip')} not in the manifest: {named(paths[strange])}")
    audio = np.full(len(table), "", dtype=object)
    audio[~strange] = manifest["audio_sha256"].to_numpy(dtype=object)[rows[~strange]]
    if copies := crossing(audio, sides):
        clips = paths[np.isin(audio, copies) & (sides != UNUSED)]
        findings.append(f"the same audio on two sides, {counted(len(set(clips)), 'clip')}: {named(clips)}")
    actor = table["actor"].to_numpy(dtype=object)
    other = np.zeros(len(table), dtype=bool)
    other[~strange] = manifest["actor"].to_numpy(dtype=object)[rows[~strange]] != actor[~strange]
    if other.any():
        findings.append(f"{counted(int(other.sum()), 'clip')} with another manifest actor: {named(paths[other])}")
    return findings


def match_clips(paths: pd.Series[str], corpora: pd.Series[str], manifest: pd.DataFrame) -> Codes:
    """Row of the manifest for each path.

    The paths of a corpus count as they stand. Only when none of them is in the manifest, as in a list made elsewhere,
    file names without suffix count: on single clips that would take another speaker's `a01` for a missing one.

    Args:
        paths: path of each clip sought
        corpora: its corpus; "" for any
        manifest: columns corpus, path

    Returns:
        row numbers; -1 where no clip fits, -2 where several do
    """
    by_path: dict[tuple[str, str], int] = {}
    by_stem: dict[tuple[str, str], int] = {}
    for row, (corpus, path) in enumerate(zip(manifest["corpus"], manifest["path"], strict=True)):
        for key in {corpus, ""}:
            for index, name in ((by_path, path), (by_stem, PurePosixPath(path).stem)):
                index[key, name] = -2 if (key, name) in index else row
    sought = [(corpus, clip_path(path)) for corpus, path in zip(corpora, paths, strict=True)]
    whole = {corpus for corpus, path in sought if (corpus, path) in by_path}
    return np.array(
        [
            by_path.get((corpus, path), -1) if corpus in whole else by_stem.get((corpus, PurePosixPath(path).stem), -1)
            for corpus, path in sought
        ],
        dtype=np.int64,
    )


def _labelled(table: pd.DataFrame, column: str) -> npt.NDArray[np.object_]:
    """`<corpus>/<value>`, or the value where the split names no corpus; "" stays ""."""
    values = table[column].to_numpy(dtype=object)
    corpora = table["corpus"].to_numpy(dtype=object)
    return np.where((values == "") | (corpora == ""), values, corpora + "/" + values)
