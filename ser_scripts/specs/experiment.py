"""The experiment JSON: what is compared."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from ser_scripts.specs.augmentation import AugmentationSpec
from ser_scripts.specs.base import Spec
from ser_scripts.specs.conditions import Conditions, same_twice
from ser_scripts.specs.corpora import CorpusSpec
from ser_scripts.specs.ensembles import EnsembleSpec, PriorCorrection
from ser_scripts.specs.model import NAME_PATTERN
from ser_scripts.specs.preprocess import PreprocessSpec
from ser_scripts.specs.search import SearchSpec
from ser_scripts.specs.splits import SplitSpec
from ser_scripts.specs.task import TaskSpec

MAX_SEEDS = 10_000
"""A range with more is a slip."""


class SeedRange(Spec):
    """Seeds low..high, both included."""

    low: Annotated[int, Field(ge=0)] = 0
    high: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def _ordered(self) -> SeedRange:
        if self.high < self.low:
            raise ValueError(f"'high' ({self.high}) is below 'low' ({self.low})")
        if self.high - self.low >= MAX_SEEDS:
            raise ValueError(f"{self.low} to {self.high} are more than {MAX_SEEDS} seeds")
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
    Annotated[tuple[Annotated[int, Field(ge=0, strict=True)], ...], Field(min_length=1), Tag("list")]
    | Annotated[SeedRange, Tag("range")]
    | Annotated[CrossedSeeds, Tag("crossed")],
    Discriminator(_form_of_seeds),
]


def _fault_of_contrasts(contrasts: tuple[tuple[str, str], ...]) -> str | None:
    for a, b in contrasts:
        if a == b:
            return f"{a!r} against itself"
    if twice := [pair for pair, count in Counter(tuple(sorted(pair)) for pair in contrasts).items() if count > 1]:
        return f"{' and '.join(twice[0])} stand there twice"
    return None


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
    """The labels of the task, short for `"task": {"classes": [...]}`; other clips are left out and counted."""
    task: TaskSpec | None = None
    """Which labels are merged, dropped and chosen, and what holds across corpora; or the name of a preset. When absent,
    the labels that all corpora have."""
    models: tuple[str, ...] = Field(min_length=1)
    """Model JSONs: a name (models/<name>.json) or a path, relative to the experiment file or the working directory."""
    augmentations: tuple[AugmentationSpec | None, ...] = Field(default=(None,), min_length=1)
    """Conditions; null is training on clean clips."""
    preprocess: tuple[PreprocessSpec, ...] = ()
    """Steps applied to every clip of every side, in order."""
    conditions: Conditions = ()
    """What the test clips also go through, for rows of their own: short names (`clean`, `noise@10dB`, `telephone`,
    `reverb`, ...) or conditions. Clean clips are always tested; training and validation clips stay clean."""
    split: SplitSpec
    search: SearchSpec | None = None
    """Search for settings of the models before they are trained; see docs/tuning.md."""
    ensembles: tuple[EnsembleSpec, ...] = ()
    """Means of the probabilities of several models, in rows of their own."""
    prior_correction: tuple[PriorCorrection, ...] = ()
    """Rows of their own for every model and ensemble, with the training prior divided out (`uniform`), or replaced by
    one that is estimated from the test clips without their labels (`estimated`, transductive)."""
    seeds: Seeds = (0,)
    allow_dropped: tuple[str, ...] = ()
    """Clips (`<corpus>/<path>`) that may be missing, unreadable, silent, ... without stopping the run."""
    contrasts: tuple[tuple[str, str], ...] = ()
    """Pairs of models (`<model>` or `<model>+<augmentation>`) whose difference is the question. They are the family of
    Holm's correction in the statistics; every other pair is exploratory. When absent all pairs are one family."""

    @field_validator("split", mode="before")
    @classmethod
    def _protocol_by_name(cls, value: Any) -> Any:
        return {"kind": "protocol", **value} if isinstance(value, dict) and "protocol" in value else value

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
            "prior_correction": list(self.prior_correction),
            "train": ["+".join(corpus.name for corpus in corpora) for corpora in self.train],
            "seeds": [str(seed) for seed, *_ in self.seed_pairs()],
        }
        named |= {f"train.{number}": [one.name for one in corpora] for number, corpora in enumerate(self.train)}
        if isinstance(self.seeds, CrossedSeeds):
            named["seeds.split_seeds"] = [str(seed) for seed in self.seeds.split_seeds]
            named["seeds.train_seeds"] = [str(seed) for seed in self.seeds.train_seeds]
        for what, names in named.items():
            if twice := [name for name, count in Counter(names).items() if count > 1]:
                raise ValueError(f"{what}: {twice[0]!r} stands there twice")
        if fault := same_twice(self.conditions):
            raise ValueError(f"conditions: {fault}")
        if fault := _fault_of_contrasts(self.contrasts):
            raise ValueError(f"contrasts: {fault}")
        if self.classes is not None and len(self.classes) < 2:
            raise ValueError("classes: a task needs at least two")
        if self.classes is not None and self.task is not None:
            raise ValueError("'classes' is short for 'task': {'classes': [...]}; give one of the two")
        for one in self.ensembles:
            if one.over == "seeds" and not self.test:
                raise ValueError(
                    f"ensembles: the members of '{one.name}' have trained on each other's test speakers; name a corpus "
                    'that none hears under \'test\', or average "over": "models" or "train_seeds"'
                )
        if self.split.kind == "cross_corpus" and not self.test:
            raise ValueError("split 'cross_corpus' needs at least one corpus under 'test'")
        return self

    @property
    def task_map(self) -> TaskSpec:
        """`task`, or what its short form `classes` says."""
        return self.task or TaskSpec(classes=self.classes)

    def seed_pairs(self) -> list[tuple[int, int, int]]:
        """(seed, split seed, training seed) of every run; the first is the number in the run folder's name."""
        if isinstance(self.seeds, CrossedSeeds):
            pairs = [(split, train) for split in self.seeds.split_seeds for train in self.seeds.train_seeds]
            return [(number, split, train) for number, (split, train) in enumerate(pairs)]
        if isinstance(self.seeds, SeedRange):
            return [(seed, seed, seed) for seed in range(self.seeds.low, self.seeds.high + 1)]
        return [(seed, seed, seed) for seed in self.seeds]
