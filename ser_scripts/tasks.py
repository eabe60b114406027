"""From the labels of corpora to the classes of a task; every clip that a map relabels or leaves out is counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from ser_scripts.errors import BadInput
from ser_scripts.specs.base import nearest
from ser_scripts.specs.corpora import CorpusSpec, NamedCorpus
from ser_scripts.specs.task import Across, TaskSpec


@dataclass(frozen=True)
class Task:
    """The classes of one training set and the corpora it is tested on, and what became of the other labels."""

    spec: TaskSpec
    """Expanded: no preset, and `across` is given."""
    labels: tuple[str, ...]
    """The classes that a model is trained on, sorted."""
    left_out: tuple[tuple[str, str, str], ...]
    """(corpus, path, the corpus' own label) of every other clip, sorted."""
    relabelled: dict[str, dict[str, int]] = field(default_factory=dict)
    """Corpus -> `<label>-><class>` -> clips that take part under another label than their corpus gives them."""
    not_shared: dict[str, dict[str, int]] = field(default_factory=dict)
    """Corpus -> class -> clips that `intersection` alone leaves out, since another corpus lacks the class."""

    @property
    def across(self) -> Across:
        """The protocol across corpora."""
        assert self.spec.across is not None
        return self.spec.across

    def lines(self) -> list[str]:
        """What was relabelled and left out, one line per corpus."""
        lines = [f"classes: {', '.join(self.labels)}"]
        for corpus, moves in self.relabelled.items():
            shown = ", ".join(f"{n} {move.replace('->', ' -> ')}" for move, n in moves.items())
            lines.append(f"relabelled in {corpus}: {shown} (MERGED LABELS)")
        gone: dict[str, Counter[str]] = {}
        for corpus, _, label in self.left_out:
            gone.setdefault(corpus, Counter())[label] += 1
        for corpus, counts in gone.items():
            shown = ", ".join(f"{n} {label}" for label, n in sorted(counts.items()))
            lines.append(f"left out of {corpus}: {shown}")
        for corpus, classes in self.not_shared.items():
            lines.append(
                f"intersection: {corpus} goes without {', '.join(classes)}, which not every corpus has "
                '("across": "unmasked" or "masked" keeps them)'
            )
        return lines


def names_of(corpus: CorpusSpec) -> tuple[str, ...]:
    """The names by which a task map may call a corpus."""
    return (corpus.name, corpus.reader) if isinstance(corpus, NamedCorpus) else (corpus.name,)


def relabelled(old: pd.Series[str], new: pd.Series[str]) -> dict[str, int]:
    """`<old label>-><new label>` -> number of clips, of those whose label changed."""
    moved = old != new
    return dict(sorted(Counter(old[moved] + "->" + new[moved]).items()))


def check_names(task: TaskSpec, corpora: Sequence[CorpusSpec], labels: Mapping[str, set[str]], *, source: str) -> None:
    """Refuse a map that names labels which no corpus of the experiment has; a preset may.

    Args:
        task: as in the experiment
        corpora: all corpora of the experiment
        labels: the labels of each, by its name
        source: the experiment file

    Raises:
        BadInput: naming the label and the nearest valid one
    """
    if task.is_preset:
        return
    has: set[str] = set()
    after: set[str] = set()
    for corpus in corpora:
        for label in labels[corpus.name]:
            has |= {label, *(f"{name}/{label}" for name in names_of(corpus))}
            merged = task.model_copy(update={"drop": (), "classes": None}).new_label(label, names_of(corpus))
            after |= {f"{name}/{merged}" for name in names_of(corpus)} | {str(merged)}
    own = sorted(set().union(*labels.values()))
    for sources in task.merge.values():
        for name in sources:
            if name not in has:
                raise BadInput(f"{source}: task.merge: no corpus has the label '{name}'{nearest(name, own)}")
    for name in task.drop:
        if name not in after:
            gone = "; it is merged into another" if name in has else nearest(name, {x for x in after if "/" not in x})
            raise BadInput(f"{source}: task.drop: no corpus has the label '{name}' after merging{gone}")


def make_task(
    task: TaskSpec,
    train: Sequence[CorpusSpec],
    test: Sequence[CorpusSpec],
    clips: Mapping[str, pd.DataFrame],
    *,
    source: str,
) -> tuple[Task, pd.DataFrame]:
    """Apply a task map to one training set and the corpora it is tested on.

    Args:
        task: as in the experiment
        train: the training corpora
        test: further corpora to test on; one that trains as well counts once
        clips: manifest rows of each corpus, by its name
        source: the experiment file

    Returns:
        the task, and the manifest rows of the clips that take part, `class_id` their class

    Raises:
        BadInput: a class that the training corpora (or, for `intersection`, any corpus) lack, fewer than two classes
    """
    spec = task.expanded()
    names = {corpus.name for corpus in train}
    corpora = [*train, *(corpus for corpus in test if corpus.name not in names)]
    mapped = {corpus.name: _map(spec, corpus, clips[corpus.name]) for corpus in corpora}
    classes = {name: set(table["new"]) - {""} for name, table in mapped.items()}
    trained = set().union(*(classes[corpus.name] for corpus in train))
    if spec.classes is not None:
        _check_classes(spec, train, classes, trained, source)
    asked = trained if spec.classes is None else trained & set(spec.classes)
    for corpus in corpora[len(train) :]:
        shared = sorted(classes[corpus.name] & asked)
        if len(shared) < 2:
            raise BadInput(
                f"{source}: test corpus '{corpus.name}' shares {', '.join(shared) or 'no class'} with the task "
                f"({', '.join(sorted(asked))}); a test needs two classes"
            )
    if spec.classes is not None:
        labels = set(spec.classes)
    elif spec.across == "intersection":
        labels = set.intersection(*classes.values())
    else:
        labels = trained
    if len(labels) < 2:
        found = "; ".join(f"{name} has {', '.join(sorted(classes[name])) or 'none'}" for name in classes)
        raise BadInput(f"{source}: a task needs at least two classes{_shared(spec, corpora)}; {found}")
    return _task(spec, tuple(sorted(labels)), mapped, clips)


def _map(spec: TaskSpec, corpus: CorpusSpec, clips: pd.DataFrame) -> pd.DataFrame:
    """Columns old and new of each clip, new "" where the map leaves it out."""
    names = names_of(corpus)
    new = {str(label): spec.new_label(str(label), names) or "" for label in sorted(set(clips["class_id"]))}
    return pd.DataFrame({"old": clips["class_id"], "new": clips["class_id"].map(new)}, index=clips.index).astype(str)


def _check_classes(
    spec: TaskSpec, train: Sequence[CorpusSpec], classes: Mapping[str, set[str]], trained: set[str], source: str
) -> None:
    assert spec.classes is not None
    anywhere = set().union(*classes.values())
    # Masked, a class that is never trained is never answered; else nobody may ask for it.
    absent = [label for label in spec.classes if label not in (anywhere if spec.across == "masked" else trained)]
    if absent:
        who = ", ".join(classes) if spec.across == "masked" else ", ".join(corpus.name for corpus in train)
        raise BadInput(
            f"{source}: classes: no clip of {who} has the label {', '.join(map(repr, absent))}; "
            f"labels there: {', '.join(sorted(anywhere if spec.across == 'masked' else trained))}"
        )
    for name, own in classes.items():
        lacking = [label for label in spec.classes if label not in own]
        if lacking and spec.across == "intersection":
            raise BadInput(
                f"{source}: task.across is 'intersection', but {name} has no {', '.join(lacking)}; leave "
                f"{'it' if len(lacking) == 1 else 'them'} out of 'classes', or choose 'unmasked' or 'masked'"
            )


def _shared(spec: TaskSpec, corpora: Sequence[CorpusSpec]) -> str:
    if spec.across != "intersection" or len(corpora) < 2:
        return ""
    return ' that all corpora have ("across": "unmasked" or "masked" asks for less)'


def _task(
    spec: TaskSpec, labels: tuple[str, ...], mapped: Mapping[str, pd.DataFrame], clips: Mapping[str, pd.DataFrame]
) -> tuple[Task, pd.DataFrame]:
    kept, left_out = [], []
    moves: dict[str, dict[str, int]] = {}
    not_shared: dict[str, dict[str, int]] = {}
    for name, table in mapped.items():
        inside = table["new"].isin(labels)
        kept.append(clips[name][inside].assign(class_id=table["new"][inside]))
        gone = clips[name].loc[~inside, ["corpus", "path", "class_id"]]
        left_out += list(gone.itertuples(index=False, name=None))
        if found := relabelled(table["old"][inside], table["new"][inside]):
            moves[name] = found
        if spec.across == "intersection" and (lone := table["new"][~inside & (table["new"] != "")]).size:
            not_shared[name] = dict(sorted(Counter(lone).items()))
    task = Task(
        spec=spec,
        labels=labels,
        left_out=tuple(sorted(left_out)),
        relabelled=dict(sorted(moves.items())),
        not_shared=dict(sorted(not_shared.items())),
    )
    return task, pd.concat(kept, ignore_index=True)
