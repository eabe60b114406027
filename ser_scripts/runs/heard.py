"""What a finished run has heard before: its speakers and recordings must not be tested again."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ser_eval.run_folder import CLIP_COLUMNS, CLIPS, RUN, SPLIT, SPLIT_COLUMNS, read_json, read_table
from ser_scripts.leaks import counted, named
from ser_scripts.specs.model import TunedOn
from ser_scripts.splits import Split

Speakers = frozenset[tuple[str, str]]
"""Speakers as (corpus, actor)."""


@dataclass(frozen=True)
class Heard:
    """Speakers and recordings that trained a model, or selected it, those of the runs it started from included."""

    trained: Speakers = frozenset()
    selected: Speakers = frozenset()
    trained_audio: frozenset[str] = frozenset()
    """`audio_sha256` of the clips: a recording is known again under another corpus name."""
    selected_audio: frozenset[str] = frozenset()

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
            if sha in audio or (actor and (corpus, actor) in speakers)
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
    tuned = frozenset((one["corpus"], actor) for one in record.get("tuned_on", ()) for actor in one["actors"])
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
    )


def speakers_of(table: pd.DataFrame, sides: Collection[str]) -> Speakers:
    """Speakers of the clips that stand on some sides of a split; ("corpus", "") for clips without one."""
    rows = table[table["split"].isin(list(sides))]
    return frozenset(zip(rows["corpus"], rows["actor"], strict=True))


def tuned_on(table: pd.DataFrame, manifest_sha256: Mapping[str, str]) -> tuple[TunedOn, ...]:
    """Who trained or scored the trials of a search on the train and validation sides of a split."""
    actors: dict[str, list[str]] = {}
    for corpus, actor in sorted(speakers_of(table, ("train", "validation"))):
        actors.setdefault(corpus, []).append(actor)
    return tuple(
        TunedOn(corpus=corpus, actors=tuple(known), manifest_sha256=manifest_sha256[corpus])
        for corpus, known in actors.items()
    )


def merged(*entries: TunedOn) -> tuple[TunedOn, ...]:
    """One entry per corpus and version of it."""
    found: dict[tuple[str, str], set[str]] = {}
    for one in entries:
        found.setdefault((one.corpus, one.manifest_sha256), set()).update(one.actors)
    return tuple(
        TunedOn(corpus=corpus, actors=tuple(sorted(actors)), manifest_sha256=sha)
        for (corpus, sha), actors in sorted(found.items())
    )


def tested_before(splits: Sequence[Split], tuned: Sequence[TunedOn], model: str) -> str | None:
    """Why a model must not be tested on some splits: its settings were chosen with the help of their test speakers.

    Args:
        splits: those of one seed, one per fold
        tuned: who chose the settings (`tuned_on` of the model)
        model: its name

    Returns:
        The reason, with the speakers and what to do; None where there is none
    """
    known = {(one.corpus, actor) for one in tuned for actor in one.actors}
    met = set().union(*(known & speakers_of(split.table, ("test",)) for split in splits)) if known else set()
    if not met:
        return None
    names = named(f"{corpus}/{actor or '(SPEAKERS UNKNOWN)'}" for corpus, actor in met)
    return (
        f"the settings of model '{model}' were tuned on {counted(len(met), 'speaker')} of test: {names}; search inside "
        'each split ("search" with the scope "nested" and a model without \'tuned_on\'), or test on speakers whom the '
        "search has not heard"
    )
