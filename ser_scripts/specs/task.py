"""Which labels are the classes of a task: labels merged, dropped and chosen, and what holds across corpora."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ser_scripts.labels import VOCABULARY
from ser_scripts.specs.base import Spec, nearest

Across = Literal["intersection", "masked", "unmasked"]
Label = Annotated[str, Field(min_length=1)]


class TaskSpec(Spec):
    """Labels merged first, then dropped, then chosen; or a preset by its name (`"task": "four_class"`)."""

    preset: str | None = None
    """A named map instead of `merge`, `drop` and `classes`: `four_class`, `four_class_excited`, `six_class`,
    `unitree_four_class`, `ser_evals_8`. Labels that a corpus does not have do not matter to a preset."""
    merge: dict[Label, Annotated[tuple[Label, ...], Field(min_length=1)]] = {}
    """New label -> the labels that become it. `emodb/bored` is the label of that corpus only, and wins over `bored`."""
    drop: tuple[Label, ...] = ()
    """Labels that are left out, after merging; `emodb/bored` is the label of that corpus only."""
    classes: tuple[Label, ...] | None = None
    """The classes. All labels that remain when absent; other labels are left out."""
    across: Across | None = None
    """With several corpora. `intersection` (the default without `classes`): train and test on the labels that all of
    them have. `unmasked` (the default with `classes`): train on all classes of the training corpora, test on those that
    the test corpus has; an answer outside is wrong. `masked`: the same, but the probabilities of classes that the test
    corpus or the training side lacks are set to zero before the decision. Three protocols, never one column."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"preset": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _consistent(self) -> TaskSpec:
        if self.preset is not None:
            if self.merge or self.drop or self.classes is not None:
                raise ValueError("a preset says what is merged, dropped and chosen; beside it only 'across' may stand")
            if self.preset not in PRESETS:
                raise ValueError(f"no task preset {self.preset!r}{nearest(self.preset, PRESETS)}")
        sources = Counter(source for sources in self.merge.values() for source in sources)
        for source, count in sorted(sources.items()):
            if count > 1:
                targets = sorted(target for target, members in self.merge.items() if source in members)
                where = f"merged into {' and '.join(map(repr, targets))}" if len(targets) > 1 else "there twice"
                raise ValueError(f"merge: {source!r} is {where}; a label becomes one class")
            if source in self.merge and source not in self.merge[source]:
                target = next(target for target, members in self.merge.items() if source in members)
                raise ValueError(
                    f"merge: {source!r} is merged into {target!r} and is the new label of another merge; labels are "
                    "merged once, so name all labels of a class in one list"
                )
        for what, names in (("drop", self.drop), ("classes", self.classes or ())):
            for name in names:
                if names.count(name) > 1:
                    raise ValueError(f"{what}: {name!r} stands there twice")
        if both := sorted(set(self.drop) & set(self.classes or ())):
            raise ValueError(f"{both[0]!r} is dropped and among the classes")
        if self.classes is not None and len(self.classes) < 2:
            raise ValueError("classes: a task needs at least two")
        return self

    @property
    def is_preset(self) -> bool:
        """Whether labels come from a list for many corpora, so that some may be absent."""
        return self.preset is not None

    def expanded(self) -> TaskSpec:
        """The same task with what its preset stands for, and `across` filled in."""
        base = PRESETS[self.preset] if self.preset is not None else self
        across = self.across or base.across or ("unmasked" if base.classes is not None else "intersection")
        return base.model_copy(update={"across": across})

    def new_label(self, label: str, corpora: tuple[str, ...]) -> str | None:
        """What a label becomes; None when it is left out. For an expanded task.

        Args:
            label: as the corpus has it
            corpora: the names that the corpus goes by
        """
        names = {label, *(f"{corpus}/{label}" for corpus in corpora)}
        found = [
            (source != label, target) for target, sources in self.merge.items() for source in sources if source in names
        ]
        merged = max(found)[1] if found else label
        if {merged, *(f"{corpus}/{merged}" for corpus in corpora)} & set(self.drop):
            return None
        return merged if self.classes is None or merged in self.classes else None


_EIGHT = ("angry", "disgusted", "fearful", "happy", "neutral", "other", "sad", "surprised")

PRESETS: dict[str, TaskSpec] = {
    # No merging.
    "four_class": TaskSpec(classes=("angry", "happy", "neutral", "sad")),
    # The usual four classes of IEMOCAP.
    "four_class_excited": TaskSpec(merge={"happy": ("happy", "excited")}, classes=("angry", "happy", "neutral", "sad")),
    # What CREMA-D, RAVDESS, SAVEE and TESS have in common.
    "six_class": TaskSpec(classes=("angry", "disgusted", "fearful", "happy", "neutral", "sad")),
    # The map in the README of kananmittal/Unitree-bot, which its code never applied.
    "unitree_four_class": TaskSpec(
        merge={
            "angry": ("angry", "disgusted"),
            "happy": ("happy", "surprised", "excited"),
            "sad": ("sad", "fearful"),
        },
        classes=("angry", "happy", "neutral", "sad"),
    ),
    # The eight classes of SER Evals (Osman, Kaplan, Nadeem, Interspeech 2024), corpus by corpus; what it has no class
    # for is "other". A corpus keeps those of the eight that it has.
    "ser_evals_8": TaskSpec(
        merge={
            "disgusted": ("disgusted", "mead/contempt"),
            "happy": ("happy", "thorsten/amused", "expresso/laughing"),
            "neutral": ("neutral", "expresso/bored", "expresso/calm"),
            "sad": ("sad", "emodb/bored", "demos/guilty"),
            "surprised": ("surprised", "expresso/awed"),
            "other": (
                "shemo/fearful",
                *(label for label in VOCABULARY if label not in _EIGHT),
                "other",
            ),
        },
        across="masked",
    ),
}
"""Named task maps. Merged label sets are stamped, since their figures do not compare with unmerged ones."""
