"""The experiment JSON: what is compared."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from ser_scripts.specs.base import Spec
from ser_scripts.specs.model import NAME_PATTERN

Share = Annotated[float, Field(gt=0, lt=1)]


class NamedCorpus(Spec):
    """A corpus that the project knows (`ser corpora`), under SER_DATA/<name> or at `root`."""

    kind: Literal["named"] = "named"
    name: str = Field(pattern=NAME_PATTERN)
    root: str | None = None
    """Folder of the corpus when it is not SER_DATA/<name>."""


class CsvCorpus(Spec):
    """Anybody's clips, listed in a CSV: path, class_id, actor, gender; or path and label without speakers."""

    kind: Literal["csv"]
    name: str = Field(pattern=NAME_PATTERN)
    path: str
    """The CSV file; relative clip paths resolve against its folder, then against the working directory."""


CorpusSpec = Annotated[NamedCorpus | CsvCorpus, Field(discriminator="kind")]


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


class Preset(SplitBase):
    """A given split: a CSV with path, split and, where corpora are pooled, corpus."""

    kind: Literal["preset"]
    path: str
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


SplitSpec = Annotated[
    SpeakerIndependent
    | KFold
    | LeaveOneSpeakerOut
    | LeaveOneGroupOut
    | Preset
    | CrossCorpus
    | RandomSplit
    | LegacyPerEmotion,
    Field(discriminator="kind"),
]


class Loudness(Spec):
    """Every clip to one loudness (ITU-R BS.1770, EBU R 128)."""

    kind: Literal["loudness"]
    lufs: Annotated[float, Field(ge=-70, le=0)] = -23.0


PreprocessSpec = Annotated[Loudness, Field()]


class Transform(Spec):
    """One augmentation: a class and its constructor arguments, which stand beside these keys."""

    model_config = {**Spec.model_config, "extra": "allow"}

    module: str
    """`audiomentations`, `torch_audiomentations`, a module under `ser_scripts.augment`, or one from --allow-import."""
    class_name: str = Field(alias="class")
    tensors: bool = False
    """The class takes torch tensors of shape (batch, channel, time) instead of float32 arrays of shape (time,)."""

    @property
    def arguments(self) -> dict[str, Any]:
        """The constructor arguments."""
        return dict(self.model_extra or {})


class AugmentationSpec(Spec):
    """An augmentation of the training clips; validation and test clips are never augmented."""

    name: str = Field(pattern=NAME_PATTERN)
    mode: Literal["union", "on_the_fly", "repeat"] = "union"
    """`union`: each clean clip once plus one copy per transform. `on_the_fly`: each clip is transformed with
    `probability`. `repeat`: clean copies only, the equal-updates control of `union`."""
    probability: Annotated[float, Field(gt=0, le=1)] = 0.5
    """With `on_the_fly`: the probability that each transform is applied to a clip in an epoch."""
    copies: Annotated[int, Field(ge=1)] | None = None
    """With `repeat`: extra clean copies of each clip, as many as the union that it controls has transforms."""
    transforms: dict[str, Transform] = {}

    @model_validator(mode="after")
    def _mode_fits(self) -> AugmentationSpec:
        if self.mode == "repeat" and (self.transforms or self.copies is None):
            raise ValueError("mode 'repeat' takes 'copies' and no 'transforms'")
        if self.mode != "repeat" and (not self.transforms or self.copies is not None):
            raise ValueError(f"mode '{self.mode}' takes 'transforms' and no 'copies'")
        return self


class SeedRange(Spec):
    """Seeds low..high, both included."""

    low: Annotated[int, Field(ge=0)] = 0
    high: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def _ordered(self) -> SeedRange:
        if self.high < self.low:
            raise ValueError(f"'high' ({self.high}) is below 'low' ({self.low})")
        return self


class CrossedSeeds(Spec):
    """Every split seed with every training seed; of T training seeds, run n has split n // T and training n % T."""

    split_seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(min_length=1)
    train_seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(min_length=1)


def _form_of_seeds(value: Any) -> str:
    if isinstance(value, dict):
        return "crossed" if {"split_seeds", "train_seeds"} & value.keys() else "range"
    if isinstance(value, SeedRange):
        return "range"
    return "crossed" if isinstance(value, CrossedSeeds) else "list"


Seeds = Annotated[
    Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1), Tag("list")]
    | Annotated[SeedRange, Tag("range")]
    | Annotated[CrossedSeeds, Tag("crossed")],
    Discriminator(_form_of_seeds),
]


class ExperimentSpec(Spec):
    """What is compared: corpora, models, augmentations, split and seeds."""

    name: str = Field(pattern=NAME_PATTERN)
    description: str = ""
    train: tuple[tuple[CorpusSpec, ...], ...] = Field(min_length=1)
    """Training corpora. `["cremad", "ravdess"]` pools them; `[["cremad"], ["ravdess"]]` trains on each in turn.
    The test side of their split is always tested (with `cross_corpus` they have none)."""
    test: tuple[CorpusSpec, ...] = ()
    """Further corpora to test on, whole."""
    classes: tuple[str, ...] | None = None
    """The labels of the task, all of the training corpora's when absent; other clips are left out and counted."""
    models: tuple[str, ...] = Field(min_length=1)
    """Model JSONs: a name (models/<name>.json) or a path, relative to the experiment file or the working directory."""
    augmentations: tuple[AugmentationSpec | None, ...] = Field(default=(None,), min_length=1)
    """Conditions; null is training on clean clips."""
    preprocess: tuple[PreprocessSpec, ...] = ()
    """Steps applied to every clip of every side, in order."""
    split: SplitSpec
    seeds: Seeds = (0,)
    allow_dropped: tuple[str, ...] = ()
    """Clips (`<corpus>/<path>`) that may be missing, unreadable, silent, ... without stopping the run."""

    @field_validator("train", "test", mode="before")
    @classmethod
    def _short_forms(cls, value: Any, info: Any) -> Any:
        def full(corpus: Any) -> Any:
            if isinstance(corpus, str):
                return {"kind": "named", "name": corpus}
            return {"kind": "named", **corpus} if isinstance(corpus, dict) and "kind" not in corpus else corpus

        if info.field_name == "test":
            return [full(corpus) for corpus in value] if isinstance(value, list | tuple) else value
        if not isinstance(value, list | tuple):
            return value
        if not any(isinstance(item, list | tuple) for item in value):
            return [[full(corpus) for corpus in value]]
        return [[full(corpus) for corpus in item] if isinstance(item, list | tuple) else item for item in value]

    @field_validator("train")
    @classmethod
    def _train_sets(cls, value: tuple[tuple[CorpusSpec, ...], ...]) -> tuple[tuple[CorpusSpec, ...], ...]:
        if any(not corpora for corpora in value):
            raise ValueError("a training set needs at least one corpus")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> ExperimentSpec:
        named: dict[str, list[str | None]] = {
            "models": list(self.models),
            "test": [corpus.name for corpus in self.test],
            "augmentations": [item.name if item else None for item in self.augmentations],
            "classes": list(self.classes or ()),
            "train": ["+".join(corpus.name for corpus in corpora) for corpora in self.train],
            "seeds": [str(seed) for seed, *_ in self.seed_pairs()],
        }
        if isinstance(self.seeds, CrossedSeeds):
            named["seeds.split_seeds"] = [str(seed) for seed in self.seeds.split_seeds]
            named["seeds.train_seeds"] = [str(seed) for seed in self.seeds.train_seeds]
        for what, names in named.items():
            for name in {name for name in names if names.count(name) > 1}:
                raise ValueError(f"{what}: {name!r} stands there twice")
        if self.classes is not None and len(self.classes) < 2:
            raise ValueError("classes: a task needs at least two")
        if self.split.kind == "cross_corpus" and not self.test:
            raise ValueError("split 'cross_corpus' needs at least one corpus under 'test'")
        return self

    def seed_pairs(self) -> list[tuple[int, int, int]]:
        """(seed, split seed, training seed) of every run; the first is the number in the run folder's name."""
        if isinstance(self.seeds, CrossedSeeds):
            pairs = [(split, train) for split in self.seeds.split_seeds for train in self.seeds.train_seeds]
            return [(number, split, train) for number, (split, train) in enumerate(pairs)]
        if isinstance(self.seeds, SeedRange):
            return [(seed, seed, seed) for seed in range(self.seeds.low, self.seeds.high + 1)]
        return [(seed, seed, seed) for seed in self.seeds]
