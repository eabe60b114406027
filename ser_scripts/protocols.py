"""Published evaluation protocols by name: each with its corpora, label set, task, split and headline metric.

One JSON file per protocol in `data_protocols/`, found by its name. `"split": {"protocol": "<name>"}` in an experiment
fills in whatever the experiment leaves open; what contradicts the protocol is refused. Everything filled in stands in
spec.json of every run, the protocol's name and the checksum of its definition too.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
from pydantic import Field

from ser_scripts import corpora
from ser_scripts.errors import BadInput, about
from ser_scripts.specs.base import Spec, digest, nearest, parse
from ser_scripts.specs.corpora import ClipColumn, CorpusSpec, NamedCorpus
from ser_scripts.specs.experiment import ExperimentSpec
from ser_scripts.specs.splits import DrawnSplit, Preset, ProtocolSplit
from ser_scripts.specs.task import TaskSpec
from ser_scripts.splits import NEEDED_COLUMNS, draw
from ser_scripts.tasks import make_task

Metric = Literal["uar", "accuracy", "macro_f1", "ccc"]
EMOBOX = "emobox"
"""The protocol that exists once per corpus, as `emobox-<corpus>`."""

_COMPLETE: dict[str, Callable[[str], str]] = {
    "emodb": lambda stem: f"wav/{stem}.wav",
    "emovo": lambda stem: f"{stem.split('-')[1]}/{stem}.wav",
    "ravdess": lambda stem: f"Actor_{stem[-2:]}/{stem}.wav",
}
"""Where the clips of a complete corpus lie: file names alone tell everything about these."""


class HumanReference(Spec):
    """What people reach on the same clips and classes."""

    metric: Metric
    value: Annotated[float, Field(ge=0, le=1)]
    source: str


class Protocol(Spec):
    """One published protocol."""

    name: str
    title: str
    corpora: tuple[str, ...] = ()
    """The corpora that train, exactly these."""
    labels: str | None = None
    """The label set of the corpus; its first when null."""
    only: dict[ClipColumn, tuple[str, ...]] = {}
    task: TaskSpec | None = None
    """The classes; the labels of the corpus as they are when null."""
    split: DrawnSplit | None = None
    """How the sides come about; null where only a published file says it."""
    file: Literal["none", "optional", "needed"] = "none"
    """Whether the experiment gives the published split as a file, instead of `split`."""
    file_source: str = ""
    metric: Metric
    """The one that the protocol's results are compared by."""
    human: HumanReference | None = None
    notes: tuple[str, ...] = ()
    citation: str
    source: str

    def identity(self) -> dict[str, str]:
        """Name, and SHA-256 of all of the definition that decides a number."""
        parts = ("corpora", "labels", "only", "split", "file")
        content = {key: value for key, value in self.model_dump(mode="json").items() if key in parts}
        task = self.task.expanded().model_dump(mode="json") if self.task else None
        return {"name": self.name, "definition_sha256": digest({**content, "task": task})}

    def record(self) -> dict[str, Any]:
        """What run.json says of the protocol."""
        kept = ("title", "metric", "human", "notes", "citation")
        return self.identity() | {key: value for key, value in self.model_dump(mode="json").items() if key in kept}

    def lines(self) -> list[str]:
        """What it has filled in, for a terminal."""
        text = f"protocol {self.name} ({self.title}): headline metric {METRIC_NAMES[self.metric]}"
        return [text, *(f"protocol {self.name}: {note}" for note in self.notes)]


METRIC_NAMES: dict[str, str] = {"uar": "UAR", "accuracy": "accuracy", "macro_f1": "macro F1", "ccc": "mean CCC"}


@cache
def _all() -> dict[str, Protocol]:
    folder = resources.files("ser_scripts").joinpath("data_protocols")
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".json")), key=lambda file: file.name)
    found = [
        parse(Protocol, json.loads(file.read_text(encoding="utf-8")), source=file.name, kind="protocol")
        for file in files
    ]
    return {protocol.name: protocol for protocol in found}


def names() -> list[str]:
    """Names of all protocols, sorted; `emobox-<corpus>` stands for as many as there are corpora."""
    return sorted(name if name != EMOBOX else f"{EMOBOX}-<corpus>" for name in _all())


def get(name: str) -> Protocol:
    """A protocol by its name.

    Raises:
        BadInput: no protocol has this name
    """
    first, _, corpus = name.partition("-")
    if first == EMOBOX and corpus not in ("", "<corpus>"):
        if corpus not in corpora.names():
            raise BadInput(f"protocol '{name}': corpus '{corpus}' is not known{nearest(corpus, corpora.names())}")
        return _all()[EMOBOX].model_copy(update={"name": name, "corpora": (corpus,)})
    if name == f"{EMOBOX}-<corpus>":
        return _all()[EMOBOX].model_copy(update={"name": name})
    if name in _all() and name != EMOBOX:
        return _all()[name]
    raise BadInput(f"no protocol '{name}'{nearest(name, names())} (`ser protocols` lists them)")


def resolve(spec: ExperimentSpec, *, base: Path, source: str) -> tuple[ExperimentSpec, Protocol | None]:
    """Fill in what the protocol of an experiment says; an experiment without one stays as it is.

    Args:
        spec: as the file has it
        base: folder of the experiment, against which the protocol's file resolves
        source: the experiment file

    Raises:
        BadInput: no such protocol, its file is missing, or the experiment contradicts it: what it demands is named
    """
    if not isinstance(spec.split, ProtocolSplit):
        return spec, None
    with about(f"{source}: split.protocol"):
        protocol = get(spec.split.protocol)
    where = f"{source}: protocol '{protocol.name}'"
    demanded = " + ".join(protocol.corpora)
    trained = [
        sorted(corpus.reader if isinstance(corpus, NamedCorpus) else corpus.name for corpus in group)
        for group in spec.train
    ]
    if trained != [sorted(protocol.corpora)]:
        found = ", ".join(" + ".join(group) for group in trained)
        raise BadInput(f"{where} trains on {demanded} and nothing else; 'train' is {found}")
    train = tuple(_corpus(corpus, protocol, where) for corpus in spec.train[0])
    update: dict[str, Any] = {
        "train": (train,),
        "split": _split(spec.split, protocol, base, where),
        "task": _task(spec, protocol, where),
        "classes": None,
    }
    return spec.model_copy(update=update), protocol


def _corpus(corpus: CorpusSpec, protocol: Protocol, where: str) -> CorpusSpec:
    update: dict[str, Any] = {}
    if corpus.only != protocol.only:
        if corpus.only:
            raise BadInput(
                f"{where} demands 'only' {dict(protocol.only) or 'to be absent'}; {corpus.name} has {dict(corpus.only)}"
            )
        update["only"] = protocol.only
    if isinstance(corpus, NamedCorpus) and corpus.labels != protocol.labels:
        if corpus.labels is not None:
            demanded = f"the label set '{protocol.labels}'" if protocol.labels else "the first label set"
            raise BadInput(f"{where} demands {demanded} of {corpus.name}; 'labels' is '{corpus.labels}'")
        update["labels"] = protocol.labels
    return corpus.model_copy(update=update)


def _split(asked: ProtocolSplit, protocol: Protocol, base: Path, where: str) -> DrawnSplit:
    if asked.file is None:
        if protocol.split is None:
            raise BadInput(f'{where} needs its published split: give "file" beside "protocol". {protocol.file_source}')
        return protocol.split
    if protocol.file == "none":
        raise BadInput(f"{where} draws its split by a rule and takes no 'file'")
    if not any(place.exists() for place in (base / asked.file, Path(asked.file))):
        raise BadInput(f"{where}: split.file: '{asked.file}': no such file or folder. {protocol.file_source}")
    return Preset(kind="preset", path=asked.file)


def _task(spec: ExperimentSpec, protocol: Protocol, where: str) -> TaskSpec:
    """The protocol's task; of the experiment's own only `across` is left open."""
    base = protocol.task or TaskSpec(across="unmasked")
    own = spec.task_map
    if own.across == "intersection":
        raise BadInput(f"{where} trains on all of its classes; 'across' may be 'unmasked' or 'masked'")
    demanded, asked = (task.expanded().model_dump(include={"merge", "drop", "classes"}) for task in (base, own))
    given = spec.classes is not None or own.preset is not None or own.merge or own.drop or own.classes is not None
    for task in (demanded, asked):
        task["classes"] = sorted(task["classes"]) if task["classes"] is not None else None
    if given and demanded != asked:
        told = json.dumps({key: value for key, value in demanded.items() if value}, ensure_ascii=False)
        raise BadInput(
            f"{where} demands the task {told if told != '{}' else 'to be the labels of the corpus as they are'}; "
            "leave 'task' and 'classes' out"
        )
    return base.model_copy(update={"across": own.across or base.across})


def complete_checksums(protocol: Protocol) -> dict[str, str] | None:
    """SHA-256 of the splits that seed 0 gives on the complete corpus, by fold; None where file names do not tell.

    Clips lie as in the release (EmoDB: `wav/03a01Fa.wav`); paths are part of a checksum, so that a corpus in another
    layout or file format has others. With several folds the entry `all` is what results.csv has for them together.
    """
    if protocol.split is None or len(protocol.corpora) != 1 or protocol.corpora[0] not in _COMPLETE:
        return None
    name = protocol.corpora[0]
    spec = NamedCorpus(name=name)
    table = _complete(name)
    _, clips = make_task(protocol.task or TaskSpec(), [spec], [], {name: table}, source=f"protocol '{protocol.name}'")
    splits = draw(clips, protocol.split, 0, train_corpora=[name])
    sums = {str(split.fold): split.sha256 for split in sorted(splits, key=lambda split: str(split.fold))}
    if len(sums) == 1:
        return sums
    return sums | {"all": hashlib.sha256("".join(f"{one}\n" for one in sums.values()).encode()).hexdigest()}


def _complete(name: str) -> pd.DataFrame:
    """Manifest rows of a complete corpus, read from the names of empty files."""
    corpus = corpora.get(name)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for stem in corpus.expected_stems(root) or []:
            file = root / _COMPLETE[name](stem)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        rows = corpora.read(corpus, root)
    table = pd.DataFrame([vars(row) for row in rows]).assign(corpus=name)
    table["audio_sha256"] = table["path"]
    return table[NEEDED_COLUMNS].fillna("").astype(str)


def listing() -> str:
    """All protocols: name, corpora, split, metric, source."""
    rows = [("name", "corpora", "split", "metric", "source")]
    for name in names():
        one = get(name)
        split = one.split.kind if one.split else "published file"
        where = " + ".join(one.corpora) or "any"
        rows.append((name, where, split, METRIC_NAMES[one.metric], one.source))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]]) for row in rows
    )


def describe(name: str) -> str:
    """Everything about one protocol, as text."""
    one = get(name)
    task = one.task.expanded().model_dump(mode="json", exclude={"preset"}) if one.task else None
    split = one.split.model_dump(mode="json") if one.split else None
    readers = [corpus for corpus in one.corpora if corpus not in corpora.names()]
    lines = [
        f"{one.name}: {one.title}",
        f"corpora: {' + '.join(one.corpora) or 'any one, named after the hyphen'}"
        + (f" (no reader here: {', '.join(readers)}; list the clips in a CSV of that name)" if readers else ""),
        f"label set: {one.labels or 'the first of the corpus'}",
        *([f"only: {json.dumps(one.only)}"] if one.only else []),
        f"task: {json.dumps(task) if task else 'the labels of the corpus as they are'}",
        f"split: {json.dumps(split) if split else 'a published file'}",
        *([f"file ({one.file}): {one.file_source}"] if one.file != "none" else []),
        f"headline metric: {METRIC_NAMES[one.metric]}",
    ]
    if one.human:
        lines.append(f"people reach: {METRIC_NAMES[one.human.metric]} {one.human.value:g} ({one.human.source})")
    lines += [f"note: {note}" for note in one.notes]
    lines += [f"citation: {one.citation}", f"source: {one.source}"]
    lines.append(f"definition sha256: {one.identity()['definition_sha256']}")
    sums = complete_checksums(one)
    if sums is None:
        lines.append("split sha256: cannot be told without the corpus")
    else:
        lines.append(f"split sha256, seed 0, complete corpus with paths like {_example(one.corpora[0])}:")
        lines += [f"  {'' if fold == 'None' else fold + ' '}{checksum}" for fold, checksum in sums.items()]
    use = {"protocol": one.name, **({"file": "..."} if one.file == "needed" else {})}
    lines.append(f'use: "split": {json.dumps(use)}')
    return "\n".join(lines)


def _example(name: str) -> str:
    return _COMPLETE[name]((corpora.get(name).expected_stems(Path()) or [""])[0])
