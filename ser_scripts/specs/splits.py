"""Who trains, validates and is tested."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ser_scripts.specs.base import Spec
from ser_scripts.specs.model import NAME_PATTERN

Share = Annotated[float, Field(gt=0, lt=1)]


class SplitBase(Spec):
    """What every split kind has."""

    sentence_independent: bool = False
    """Test sentences occur neither in training nor in validation; clips that would break this become `unused`."""


class SpeakerIndependent(SplitBase):
    """One draw of speakers, stratified by corpus and gender; no speaker is on two sides."""

    kind: Literal["speaker_independent"]
    train_test_split: Share | None = None
    """N: train N^2, validation N(1-N), test 1-N of the speakers. 0.8 when neither this nor `proportions` is given."""
    proportions: tuple[Share, Share, Share] | None = None
    """Shares of the speakers for train, validation and test; they sum to 1."""
    rotate: bool = True
    """Splits of successive seeds differ as long as distinct ones are left; false draws each anew."""
    balanced_draw: bool = False
    """Take, of many draws, the one whose sides are nearest to each other in class shares. Narrows the choice."""

    @model_validator(mode="after")
    def _one_size(self) -> SpeakerIndependent:
        if self.train_test_split is not None and self.proportions is not None:
            raise ValueError("give 'train_test_split' or 'proportions', not both")
        if self.proportions is not None and abs(sum(self.proportions) - 1) > 1e-9:
            raise ValueError(f"'proportions' sum to {sum(self.proportions):g}; they must sum to 1")
        return self

    @property
    def shares(self) -> tuple[float, float, float]:
        """Shares of the speakers for train, validation and test."""
        if self.proportions is not None:
            return self.proportions
        n = self.train_test_split if self.train_test_split is not None else 0.8
        return (n * n, n * (1 - n), 1 - n)


class KFold(SplitBase):
    """Folds of speakers, stratified by corpus and gender; each is tested once, validation comes from the rest."""

    kind: Literal["k_fold"]
    folds: Annotated[int, Field(ge=2)] = 5
    validation_share: Share = 0.2
    """Share of the speakers outside the test fold that validate."""


class LeaveOneSpeakerOut(SplitBase):
    """LOSO: every speaker is the test side once; validation speakers come from the rest."""

    kind: Literal["leave_one_speaker_out"]
    validation_share: Share = 0.2


class LeaveOneGroupOut(SplitBase):
    """Every group (session, dialogue; where a corpus has none, the speaker) is the test side once."""

    kind: Literal["leave_one_group_out"]
    validation_share: Share = 0.2
    validation_from: Literal["speakers", "clips"] = "speakers"
    """What validation is cut from the rest by. `clips` draws single clips, so that people who train also select the
    epoch (VALIDATION SHARES SPEAKERS): some published protocols do so."""


class SpeakerFolds(SplitBase):
    """Folds given as lists of speakers; each is tested once, validation speakers come from the rest."""

    kind: Literal["speaker_folds"]
    folds: dict[Annotated[str, Field(pattern=NAME_PATTERN)], Annotated[tuple[str, ...], Field(min_length=1)]] = Field(
        min_length=2
    )
    """Name of the fold -> the speakers tested, as the column `actor` (or `column`) has them."""
    column: Literal["actor", "group"] = "actor"
    validation_share: Share = 0.2

    @model_validator(mode="after")
    def _once(self) -> SpeakerFolds:
        everyone = [speaker for speakers in self.folds.values() for speaker in speakers]
        for speaker in everyone:
            if everyone.count(speaker) > 1:
                raise ValueError(f"folds: {speaker!r} is tested twice")
        return self


class Partition(SplitBase):
    """The sides that the corpus itself publishes: its column `partition`."""

    kind: Literal["partition"]
    train: Annotated[tuple[str, ...], Field(min_length=1)] = ("train",)
    """Names of the partitions that train."""
    validation: tuple[str, ...] = ("validation",)
    """Names of those that validate. Where the corpus has none of them, validation is cut from train by speaker."""
    test: Annotated[tuple[str, ...], Field(min_length=1)] = ("test",)
    """Names of those that are tested, e.g. `["test1"]`. Partitions that stand on no side are unused."""
    validation_share: Share = 0.2
    speakers_may_cross: bool = False
    """Take a partition whose sides share speakers (ESD): SPEAKER-DEPENDENT, NOT COMPARABLE. Refused otherwise."""

    @model_validator(mode="after")
    def _one_side_each(self) -> Partition:
        names = [*self.train, *self.validation, *self.test]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"partition {name!r} stands on two sides, or twice on one")
        return self


class Preset(SplitBase):
    """A given split: a CSV, a folder with train.csv, test.csv and perhaps val.csv, or a fold of EmoBox."""

    kind: Literal["preset"]
    path: str
    """A CSV with path, split and, where corpora are pooled, corpus; or a folder with train.csv, test.csv and perhaps
    val.csv, or with these per language (train_eng.csv, train_chi.csv, ...); or a fold of EmoBox, e.g.
    `EmoBox/data/emodb/fold_1`; or `corpus`: the folder of each training corpus."""
    validation_share: Share = 0.2
    """Used when the CSV has no validation side: it is cut from train by speaker."""


class CrossCorpus(SplitBase):
    """Train on some corpora, test on others; zero- and few-shot share the same test speakers."""

    kind: Literal["cross_corpus"]
    validation_share: Share = 0.2
    """Share of the training corpora's speakers that validate."""
    shots_per_class: Annotated[int, Field(ge=0)] = 0
    """Clips per class of the test corpus that join training; they come from speakers who are not tested."""
    shot_speakers_share: Share = 0.2
    """Share of the test corpus' speakers set aside for shots, whether shots are taken or not."""


class RandomSplit(SplitBase):
    """Clips drawn without regard to speakers: SPEAKER-DEPENDENT, NOT COMPARABLE; every table says so."""

    kind: Literal["random"]
    proportions: tuple[Share, Share, Share] = (0.7, 0.15, 0.15)


class LegacyPerEmotion(SplitBase):
    """Speakers drawn anew per emotion, as an older system did; leaks when one lacks an emotion. NOT COMPARABLE."""

    kind: Literal["legacy_per_emotion"]
    train_test_split: Share = 0.8


class ProtocolSplit(Spec):
    """A published protocol by its name (`ser protocols`): it brings its split, task and label set."""

    kind: Literal["protocol"] = "protocol"
    protocol: str
    file: str | None = None
    """The protocol's published split, where it needs one: in any form that `preset` takes, or a folder of folds."""


DrawnSplit = Annotated[
    SpeakerIndependent
    | KFold
    | LeaveOneSpeakerOut
    | LeaveOneGroupOut
    | SpeakerFolds
    | Partition
    | Preset
    | CrossCorpus
    | RandomSplit
    | LegacyPerEmotion,
    Field(discriminator="kind"),
]
"""What `splits.draw` draws."""

SplitSpec = Annotated[
    SpeakerIndependent
    | KFold
    | LeaveOneSpeakerOut
    | LeaveOneGroupOut
    | SpeakerFolds
    | Partition
    | Preset
    | CrossCorpus
    | RandomSplit
    | LegacyPerEmotion
    | ProtocolSplit,
    Field(discriminator="kind"),
]
