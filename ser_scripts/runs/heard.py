"""What a finished run has heard before: its speakers and recordings must not be tested again."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ser_eval.run_folder import CLIP_COLUMNS, CLIPS, RUN, SPLIT, SPLIT_COLUMNS, read_json, read_table
from ser_scripts.leaks import counted, named
from ser_scripts.manifest import Manifest
from ser_scripts.specs.model import TunedOn
from ser_scripts.splits import Split

Speakers = frozenset[tuple[str, str]]
"""Speakers as (corpus, actor)."""
DIGITS = 16
"""Of a checksum, in `TunedOn.recordings`."""
RECORDINGS = 8
"""Of a speaker, there."""


@dataclass(frozen=True)
class Heard:
    """Speakers and recordings that trained a model, or selected it, those of the runs it started from included."""

    trained: Speakers = frozenset()
    selected: Speakers = frozenset()
    trained_audio: frozenset[str] = frozenset()
    """`audio_sha256` of the clips: a recording is known again under another corpus name."""
    selected_audio: frozenset[str] = frozenset()
    tuned_audio: frozenset[str] = frozenset()
    """`TunedOn.recordings` of those who chose its settings."""

    def meets(self, clips: pd.DataFrame, *, sides: Collection[str] = ("test",)) -> list[str]:
        """Clips that this model must not be held against, as `<corpus>/<path>`.

        Args:
            clips: columns corpus, path, actor, audio_sha256
            sides: what they are for: `validation` may hold what selected before, `test` may not
        """
        speakers = self.trained | (self.selected if "test" in sides else frozenset())
        audio = self.trained_audio | (self.selected_audio if "test" in sides else frozenset())
        return [
            f"{corpus}/{path}"
            for corpus, path, actor, sha in clips[["corpus", "path", "actor", "audio_sha256"]].itertuples(index=False)
            if sha in audio
            or (actor and (corpus, actor) in speakers)
            or ("test" in sides and sha[:DIGITS] in self.tuned_audio)
        ]


def heard_by(run: Path) -> Heard:
    """Read what a finished run, and the runs it started from, have heard.

    Raises:
        BadInput: if a file of one of these runs is missing, since leaks could not be found then
    """
    record = read_json(run / RUN)
    split = read_table(run / SPLIT, SPLIT_COLUMNS)
    clips = read_table(run.parents[2] / CLIPS, CLIP_COLUMNS)
    split = split.merge(clips[["corpus", "path", "audio_sha256"]], on=["corpus", "path"], how="left", validate="1:1")
    before = heard_by(Path(record["init_from"])) if record["init_from"] else Heard()
    told = record.get("tuned_on", ())
    tuned = frozenset((one["corpus"], actor) for one in told for actor in one["actors"])
    speakers, audio = {}, {}
    for side in ("train", "validation"):
        rows = split[split["split"] == side]
        speakers[side] = frozenset(zip(rows["corpus"], rows["actor"], strict=True))
        audio[side] = frozenset(rows["audio_sha256"])
    return Heard(
        trained=before.trained | speakers["train"],
        selected=before.selected | speakers["validation"] | tuned,
        trained_audio=before.trained_audio | audio["train"],
        selected_audio=before.selected_audio | audio["validation"],
        tuned_audio=before.tuned_audio | {sha for one in told for sha in one.get("recordings", ())},
    )


def speakers_of(table: pd.DataFrame, sides: Collection[str]) -> Speakers:
    """Speakers of the clips that stand on some sides of a split; ("corpus", "") for clips without one."""
    rows = table[table["split"].isin(list(sides))]
    return frozenset(zip(rows["corpus"], rows["actor"], strict=True))


def tuned_on(table: pd.DataFrame, manifests: Mapping[str, Manifest]) -> tuple[TunedOn, ...]:
    """Who trained or scored the trials of a search on the train and validation sides of a split.

    Of each speaker the recordings with the smallest checksums are kept: a part of the speaker's clips, such as those of
    some classes, holds some of these with near certainty.
    """
    found = []
    for corpus, rows in table[table["split"].isin(["train", "validation"])].groupby("corpus", sort=True):
        manifest = manifests[str(corpus)]
        clips = manifest.clips[manifest.clips["path"].isin(rows["path"])]
        recordings = {
            sha[:DIGITS] for _, one in clips.groupby("actor")["audio_sha256"] for sha in sorted(one)[:RECORDINGS]
        }
        actors, kept = tuple(sorted(set(rows["actor"]))), tuple(sorted(recordings))
        found.append(TunedOn(corpus=str(corpus), actors=actors, manifest_sha256=manifest.sha256, recordings=kept))
    return tuple(found)


def merged(*entries: TunedOn) -> tuple[TunedOn, ...]:
    """One entry per corpus and version of it."""
    found: dict[tuple[str, str], tuple[set[str], set[str]]] = {}
    for one in entries:
        actors, recordings = found.setdefault((one.corpus, one.manifest_sha256), (set(), set()))
        actors.update(one.actors)
        recordings.update(one.recordings)
    return tuple(
        TunedOn(
            corpus=corpus,
            actors=tuple(sorted(actors)),
            manifest_sha256=sha,
            recordings=tuple(sorted(recordings)),
        )
        for (corpus, sha), (actors, recordings) in sorted(found.items())
    )


def tested_before(splits: Sequence[Split], tuned: Sequence[TunedOn], model: str, clips: pd.DataFrame) -> str | None:
    """Why a model must not be tested on some splits: its settings were chosen with the help of their test speakers.

    Args:
        splits: those of one seed, one per fold
        tuned: who chose the settings (`tuned_on` of the model)
        model: its name
        clips: columns corpus, path, actor, audio_sha256 of all clips of the splits

    Returns:
        The reason, with the speakers and what to do; None where there is none
    """
    known = {(one.corpus, actor) for one in tuned for actor in one.actors}
    if not known:
        return None
    met = set().union(*(known & speakers_of(split.table, ("test",)) for split in splits))
    heard = clips[clips["audio_sha256"].str[:DIGITS].isin({sha for one in tuned for sha in one.recordings})]
    again = set(zip(heard["corpus"], heard["path"], heard["actor"], strict=True))
    for split in splits:
        rows = split.table[split.table["split"] == "test"]
        tested = set(zip(rows["corpus"], rows["path"], rows["actor"], strict=True))
        met |= {(corpus, actor) for corpus, _, actor in again & tested}
    if not met:
        return None
    names = named(f"{corpus}/{actor or '(SPEAKERS UNKNOWN)'}" for corpus, actor in met)
    return (
        f"the settings of model '{model}' were tuned on {counted(len(met), 'speaker')} of test: {names}; search inside "
        'each split ("search" with the scope "nested" and a model without \'tuned_on\'), or test on speakers whom the '
        "search has not heard"
    )
