"""What a finished run has heard before: its speakers and recordings must not be tested again."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ser_eval.run_folder import CLIP_COLUMNS, CLIPS, RUN, SPLIT, SPLIT_COLUMNS, read_json, read_table

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
    speakers, audio = {}, {}
    for side in ("train", "validation"):
        rows = split[split["split"] == side]
        speakers[side] = frozenset(zip(rows["corpus"], rows["actor"], strict=True))
        audio[side] = frozenset(rows["audio_sha256"])
    return Heard(
        trained=before.trained | speakers["train"],
        selected=before.selected | speakers["validation"],
        trained_audio=before.trained_audio | audio["train"],
        selected_audio=before.selected_audio | audio["validation"],
    )
