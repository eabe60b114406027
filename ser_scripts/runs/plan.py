"""Expand an experiment into runs: one per model x augmentation x training set x seed x fold, before any training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd
from ser_eval.run_folder import RUN, run_name

from ser_scripts.errors import BadInput, SplitRefused
from ser_scripts.manifest import Manifest, build_manifest
from ser_scripts.runs.heard import Heard, heard_by
from ser_scripts.runs.progress import counter
from ser_scripts.settings import Folders
from ser_scripts.specs.base import nearest, parse, read_spec_file
from ser_scripts.specs.augmentation import AugmentationSpec
from ser_scripts.specs.corpora import CorpusSpec
from ser_scripts.specs.experiment import ExperimentSpec
from ser_scripts.specs.model import ModelSpec
from ser_scripts.specs.translate import is_older_experiment, is_older_model, translate_experiment, translate_model
from ser_scripts.splits import Split, draw


MAX_NAME = 200
"""Characters of a folder's name; file systems end at 255 bytes."""


@dataclass(frozen=True)
class Experiment:
    """An experiment file with its models, resolved and validated."""

    file: Path
    spec: ExperimentSpec
    models: tuple[ModelSpec, ...]
    messages: tuple[str, ...]
    """What was translated from an older form, one line each."""
    seed_flags: bool = False
    """The seeds come from --low-seed and --high-seed, so there may be more in the file."""

    @property
    def base(self) -> Path:
        """Folder that relative paths in the experiment start from."""
        return self.file.parent


@dataclass(frozen=True)
class Run:
    """One training: everything that can change its numbers."""

    experiment: ExperimentSpec
    model: ModelSpec
    augmentation: AugmentationSpec | None
    train: tuple[CorpusSpec, ...]
    seed: int
    split_seed: int
    train_seed: int
    split: Split
    labels: tuple[str, ...]
    left_out: tuple[tuple[str, str, str], ...]
    """Clips of the training corpora whose class is not in the task: (corpus, path, class)."""
    base: Path
    init_from: Path | None

    @property
    def train_corpora(self) -> list[str]:
        """Names of the corpora trained on, in the experiment's order."""
        return [corpus.name for corpus in self.train]

    @property
    def folder(self) -> Path:
        """Path below the runs folder."""
        model = self.model.name + (f"+{self.augmentation.name}" if self.augmentation else "")
        name = run_name(self.seed, self.split.fold)
        if len(name) > MAX_NAME:
            raise BadInput(f"the folder of fold '{self.split.fold[:40] if self.split.fold else ''}...' would have a name "
                           f"of {len(name)} characters; give speakers and groups names of at most {MAX_NAME - 30}")
        return Path(self.experiment.name) / model / "+".join(self.train_corpora) / name

    def resolved_spec(self) -> dict[str, Any]:
        """The part of experiment and model that this run's numbers depend on; its digest identifies the run."""
        whole = self.experiment.model_dump(mode="json", by_alias=True)
        kept = ("classes", "preprocess", "split", "test", "allow_dropped")
        return {
            "experiment": {key: whole[key] for key in kept}
            | {
                "name": self.experiment.name,
                "train": [corpus.model_dump(mode="json") for corpus in self.train],
                "augmentation": self.augmentation.model_dump(mode="json", by_alias=True) if self.augmentation else None,
            },
            "model": self._model_content(),
            "seed": self.seed,
            "split_seed": self.split_seed,
            "train_seed": self.train_seed,
            "fold": self.split.fold,
            "split_sha256": self.split.sha256,
        }

    def _model_content(self) -> dict[str, Any]:
        """The model spec without what names or watches it but changes no number."""
        content = self.model.model_dump(mode="json", by_alias=True, exclude={"description", "factors"})
        del content["training"]["track"]
        return content


@dataclass(frozen=True)
class Plan:
    """All runs of an experiment, its corpora, and the splits that were refused."""

    experiment: Experiment
    manifests: dict[str, Manifest]
    runs: tuple[Run, ...]
    refused: tuple[tuple[int, str], ...]
    """(seed, reason) of every split that would not be honest or cannot be made."""


def load_experiment(
    file: Path, *, low_seed: int | None = None, high_seed: int | None = None, overrides: Sequence[str] = ()
) -> Experiment:
    """Read an experiment JSON and the model JSONs it names; older key names are translated.

    Args:
        file: the experiment JSON
        low_seed: first seed; wins over the file
        high_seed: last seed, included; wins over the file
        overrides: `field.path=value` edits of the experiment, or of every model when the path starts with `model.`

    Raises:
        BadInput: naming file, key, value and what would be valid
    """
    content = read_spec_file(file, kind="experiment")
    messages: list[str] = []
    older_models: dict[str, dict[str, Any]] = {}
    if is_older_experiment(content):
        translated = translate_experiment(content, str(file), low_seed, high_seed)
        content, older_models = translated.content, translated.models
        messages += translated.messages
    elif low_seed is not None or high_seed is not None:
        low = low_seed or 0
        content["seeds"] = {"low": low, "high": high_seed if high_seed is not None else low}
    mine = [item for item in overrides if not item.startswith("model.")]
    theirs = [item.removeprefix("model.") for item in overrides if item.startswith("model.")]
    apply_overrides(content, mine)
    spec = parse(ExperimentSpec, content, source=str(file), kind="experiment")
    models = []
    for name in spec.models:
        place = find_model(name, file.parent)
        if name in older_models:
            apply_overrides(older_models[name], theirs)
            models.append(parse(ModelSpec, older_models[name], source=str(place), kind="model"))
        else:
            model, said = load_model(place, overrides=theirs)
            models.append(model)
            messages += said
    names = [model.name for model in models]
    for name in names:
        if names.count(name) > 1:
            raise BadInput(f"{file}: two of its models have the name '{name}'; names become folders and must differ")
    declared = [sorted(model.factors) for model in models]
    if any(factors != declared[0] for factors in declared):
        listing = "; ".join(f"{model.name}: {', '.join(sorted(model.factors)) or 'none'}" for model in models)
        raise BadInput(f"{file}: its models declare different factors ({listing}); give all of them the same keys")
    flags = low_seed is not None or high_seed is not None
    return Experiment(file, spec, tuple(models), tuple(messages), seed_flags=flags)


def load_model(file: Path, *, overrides: Sequence[str] = ()) -> tuple[ModelSpec, list[str]]:
    """Read one model JSON; also returns what was translated from older keys."""
    content = read_spec_file(file, kind="model")
    messages: list[str] = []
    if is_older_model(content):
        translated = translate_model(content, str(file))
        content, messages = translated.content, list(translated.messages)
    apply_overrides(content, overrides)
    return parse(ModelSpec, content, source=str(file), kind="model"), messages


def apply_overrides(content: dict[str, Any], overrides: Sequence[str]) -> None:
    """Set `a.b=value` in a spec's content; the value is JSON, or text when it is not JSON."""
    import json

    for item in overrides:
        path, separator, text = item.partition("=")
        if not separator or not path:
            raise BadInput(f"--set {item}: expected field=value, e.g. split.folds=10 or model.training.epochs=5")
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text
        *parents, last = path.split(".")
        target = content
        for parent in parents:
            target = target.setdefault(parent, {})
            if not isinstance(target, dict):
                raise BadInput(f"--set {item}: '{parent}' is not an object")
        target[last] = value


def find_model(name: str, base: Path) -> Path:
    """A model JSON by path (relative to `base` or the working directory) or by name (models/<name>.json)."""
    file_name = name if name.endswith(".json") else f"{name}.json"
    places = [base / file_name, Path(file_name)]
    shared = [base.resolve().parent / "models" / file_name, Path("models") / file_name]
    places = shared + places if Path(name).name == name and not name.endswith(".json") else places + shared
    for place in places:
        if place.is_file():
            return place
    known = {file.stem for place in {base.resolve().parent / "models", Path("models")} for file in place.glob("*.json")}
    looked = ", ".join(dict.fromkeys(str(place) for place in places))
    raise BadInput(f"model '{name}' not found (looked for {looked}){nearest(name, known) if known else ''}")


def make_plan(experiment: Experiment, folders: Folders, *, progress: Callable[[str], None]) -> Plan:
    """Build manifests, draw every split, list every run. Nothing is trained and nothing is written but caches."""
    spec = experiment.spec
    corpora: dict[str, CorpusSpec] = {}
    for corpus in [*(corpus for group in spec.train for corpus in group), *spec.test]:
        if corpora.setdefault(corpus.name, corpus) != corpus:
            raise BadInput(f"{experiment.file}: two different corpora are named '{corpus.name}'")
    manifests = {
        name: build_manifest(
            corpus,
            data=folders.data,
            cache=folders.cache,
            base=experiment.base,
            allow_dropped=spec.allow_dropped,
            progress=counter(progress, f"reading {name}"),
        )
        for name, corpus in corpora.items()
    }
    _check_allowed(experiment, manifests)
    runs: list[Run] = []
    refused: list[tuple[int, str]] = []
    for train in spec.train:
        clips, labels, left_out = _task_clips(experiment, train, manifests)
        absent = {(corpus, path) for corpus, path, _ in left_out}
        for name, manifest in manifests.items():
            absent |= {(name, path) for path in manifest.dropped["path"]}
        drawn: dict[tuple[int, Heard], list[Split]] = {}
        for seed, split_seed, train_seed in spec.seed_pairs():
            for model in experiment.models:
                start = _init_folder(model, experiment, folders)
                heard = heard_by(start) if start else Heard()
                key = (split_seed, heard)
                if key not in drawn:
                    try:
                        drawn[key] = draw(
                            clips,
                            spec.split,
                            split_seed,
                            train_corpora=[corpus.name for corpus in train],
                            seen=heard.trained,
                            selected=heard.selected,
                            base=experiment.base,
                            left_out=frozenset(absent),
                        )
                        for split in drawn[key]:
                            _refuse_recordings(split, clips, heard)
                    except SplitRefused as refusal:
                        drawn[key] = []
                        refused.append((seed, str(refusal)))
                runs += [
                    Run(
                        experiment=spec,
                        model=model,
                        augmentation=augmentation,
                        train=train,
                        seed=seed,
                        split_seed=split_seed,
                        train_seed=train_seed,
                        split=split,
                        labels=labels,
                        left_out=left_out,
                        base=experiment.base.resolve(),
                        init_from=start,
                    )
                    for augmentation in spec.augmentations
                    for split in drawn[key]
                ]
    return Plan(experiment, manifests, tuple(runs), tuple(refused))


def _check_allowed(experiment: Experiment, manifests: dict[str, Manifest]) -> None:
    """Refuse entries of allow_dropped that name no clip: a slip there would hide that a clip is gone."""
    for entry in experiment.spec.allow_dropped:
        corpus, _, path = entry.partition("/")
        if corpus not in manifests:
            raise BadInput(
                f"{experiment.file}: allow_dropped: '{entry}' names none of the experiment's corpora "
                f"({', '.join(sorted(manifests))}); expected <corpus>/<path>"
            )
        manifest = manifests[corpus]
        stems = {PurePosixPath(one).stem for table in (manifest.clips, manifest.dropped) for one in table["path"]}
        if PurePosixPath(path).stem not in stems:
            raise BadInput(f"{experiment.file}: allow_dropped: '{entry}' names no clip{nearest(path, stems)}")


def _refuse_recordings(split: Split, clips: pd.DataFrame, heard: Heard) -> None:
    """Refuse a split that holds recordings which an initial checkpoint knows under another corpus' name."""
    table = split.table.merge(clips[["corpus", "path", "audio_sha256"]], on=["corpus", "path"], validate="1:1")
    for side in ("validation", "test"):
        if known := heard.meets(table[table["split"] == side], sides=[side]):
            more = f", ... ({len(known)} in all)" if len(known) > 5 else ""
            raise SplitRefused(
                f"split '{split.kind}', seed {split.split_seed}: the initial checkpoint (init_from) has heard "
                f"recordings of {side}: {', '.join(known[:5])}{more}"
            )


def _task_clips(
    experiment: Experiment, train: tuple[CorpusSpec, ...], manifests: dict[str, Manifest]
) -> tuple[pd.DataFrame, tuple[str, ...], tuple[tuple[str, str, str], ...]]:
    """Clips of one training set and the test corpora, the labels of the task, and what the task leaves out."""
    spec = experiment.spec
    own = pd.concat([manifests[corpus.name].clips for corpus in train], ignore_index=True)
    present = sorted(set(own["class_id"]))
    if spec.classes is not None:
        absent = [label for label in spec.classes if label not in present]
        if absent:
            raise BadInput(
                f"{experiment.file}: classes: no clip of {', '.join(c.name for c in train)} has the label "
                f"{', '.join(map(repr, absent))}; labels there: {', '.join(present)}"
            )
    labels = tuple(sorted(spec.classes)) if spec.classes is not None else tuple(present)
    if len(labels) < 2:
        found = f"{', '.join(corpus.name for corpus in train)} has {', '.join(labels) or 'none'}"
        raise BadInput(f"{experiment.file}: a task needs at least two classes; {found}")
    for corpus in spec.test:
        shared = sorted(set(manifests[corpus.name].clips["class_id"]) & set(labels))
        if len(shared) < 2:
            raise BadInput(
                f"{experiment.file}: test corpus '{corpus.name}' shares {', '.join(shared) or 'no class'} with the task "
                f"({', '.join(labels)}); a test needs two classes"
            )
    inside = own["class_id"].isin(labels)
    outside = own.loc[~inside, ["corpus", "path", "class_id"]].sort_values(["corpus", "path"])
    names = {corpus.name for corpus in train}
    others = [manifests[corpus.name].clips for corpus in spec.test if corpus.name not in names]
    clips = pd.concat([own[inside], *others], ignore_index=True)
    return clips, labels, tuple(outside.itertuples(index=False, name=None))


def _init_folder(model: ModelSpec, experiment: Experiment, folders: Folders) -> Path | None:
    """The finished run that a model starts from."""
    if model.init_from is None:
        return None
    for place in (Path(model.init_from), folders.runs / model.init_from, experiment.base / model.init_from):
        if (place / RUN).is_file():
            return place.resolve()
    raise BadInput(
        f"model '{model.name}': init_from: '{model.init_from}' is no finished run folder "
        f"(looked there and under {folders.runs})"
    )
