"""Expand an experiment into runs: one per model x augmentation x training set x seed x fold, before any training."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import ValidationError

from ser_eval.run_folder import BESIDE_MODELS, RUN, run_name
from ser_scripts.errors import BadInput, SplitRefused, about
from ser_scripts.leaks import named
from ser_scripts.manifest import Manifest, build_manifest, clip_name, named_by_stem
from ser_scripts.protocols import Protocol, resolve
from ser_scripts.runs.heard import Heard, heard_by, speakers_of, tested_before
from ser_scripts.runs.progress import counter
from ser_scripts.settings import Folders
from ser_scripts.specs.augmentation import AugmentationSpec
from ser_scripts.specs.base import nearest, parse, read_spec_file
from ser_scripts.specs.classical import AnyModel, ClassicalSpec, parse_model
from ser_scripts.specs.corpora import CorpusSpec
from ser_scripts.specs.ensembles import derived_names
from ser_scripts.specs.experiment import ExperimentSpec
from ser_scripts.specs.model import ModelSpec
from ser_scripts.specs.search import check_search
from ser_scripts.specs.splits import ProtocolSplit
from ser_scripts.specs.translate import is_older_experiment, is_older_model, translate_experiment, translate_model
from ser_scripts.splits import Split, draw
from ser_scripts.tasks import Task, check_names, make_task

MAX_NAME = 200
"""Characters of a folder's name; file systems end at 255 bytes."""


@dataclass(frozen=True)
class Experiment:
    """An experiment file with its models, resolved and validated."""

    file: Path
    spec: ExperimentSpec
    models: tuple[AnyModel, ...]
    messages: tuple[str, ...]
    """What was translated from an older form, one line each."""
    protocol: Protocol | None = None
    """The named protocol that has filled in split, task and label set of `spec`."""
    seed_flags: bool = False
    """The seeds come from --low-seed and --high-seed, so there may be more in the file."""
    model_files: Mapping[str, Path] = field(default_factory=dict)
    """Where each model stands, by its name; of a run's record nowhere."""
    folder: Path | None = None
    """Where relative paths start, of a run's record; else beside the file."""

    @property
    def base(self) -> Path:
        """Folder that relative paths in the experiment start from."""
        return self.folder if self.folder is not None else self.file.parent


@dataclass(frozen=True)
class Run:
    """One training: everything that can change its numbers."""

    experiment: ExperimentSpec
    model: AnyModel
    augmentation: AugmentationSpec | None
    train: tuple[CorpusSpec, ...]
    seed: int
    split_seed: int
    train_seed: int
    split: Split
    task: Task
    protocol: Protocol | None
    base: Path
    init_from: Path | None
    search: dict[str, Any] | None = None
    """What a search has chosen for `model` (runs/search.py); None: nothing was searched."""
    model_file: Path | None = None
    """The JSON of `model`, for messages; None: it comes from a run's record."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes, sorted."""
        return self.task.labels

    @property
    def network(self) -> ModelSpec:
        """The model, where it is known to be a network and no classical one."""
        assert isinstance(self.model, ModelSpec)
        return self.model

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
            raise BadInput(
                f"the folder of fold '{self.split.fold[:40] if self.split.fold else ''}...' would have a name "
                f"of {len(name)} characters; give speakers and groups names of at most {MAX_NAME - 30}"
            )
        corpora = "+".join(self.train_corpora)
        for what, part in (("name", self.experiment.name), ("models", model), ("train", corpora)):
            if len(part) > MAX_NAME:
                raise BadInput(f"{what}: '{part[:40]}...', which names a folder, has more than {MAX_NAME} characters")
        return Path(self.experiment.name) / model / corpora / name

    def resolved_spec(self) -> dict[str, Any]:
        """The part of experiment and model that this run's numbers depend on; its digest identifies the run."""
        whole = self.experiment.model_dump(mode="json", by_alias=True)
        kept = ("preprocess", "split", "test", "allow_dropped")
        return {
            "experiment": {key: whole[key] for key in kept}
            | {
                "name": self.experiment.name,
                "protocol": self.protocol.identity() if self.protocol else None,
                "task": {**self.task.spec.model_dump(mode="json", exclude={"preset"}), "labels": list(self.labels)},
                "train": [corpus.model_dump(mode="json") for corpus in self.train],
                "augmentation": self.augmentation.model_dump(mode="json", by_alias=True) if self.augmentation else None,
            },
            "model": self._model_content(),
            "seed": self.seed,
            "split_seed": self.split_seed,
            "train_seed": self.train_seed,
            "fold": self.split.fold,
            "split_sha256": self.split.sha256,
        } | self._search_content()

    def _search_content(self) -> dict[str, Any]:
        """The search that has chosen the model's settings, where there was one."""
        if self.search is None or self.experiment.search is None:
            return {}
        return {"search": self.experiment.search.model_dump(mode="json", exclude={"models"})}

    def _model_content(self) -> dict[str, Any]:
        """The model spec without what names or watches it but changes no number."""
        return _model_content(self.model)

    def completed(self, content: dict[str, Any]) -> dict[str, Any]:
        """Model content of an older run with the defaults of keys that came later, which it was trained with."""
        try:
            return _model_content(type(self.model).model_validate(content))
        except ValidationError:  # made under rules that hold no longer: it is what it is
            return content


def _model_content(model: AnyModel) -> dict[str, Any]:
    content = model.model_dump(mode="json", by_alias=True, exclude={"description", "factors", "tuned_on"})
    content["training"].pop("track", None)
    for holder in (content, content.get("features", {})):
        holder.get("encoder", {}).pop("seen_corpora", None)
    return content


@dataclass(frozen=True)
class Plan:
    """All runs of an experiment, its corpora, and the splits that were refused."""

    experiment: Experiment
    manifests: dict[str, Manifest]
    runs: tuple[Run, ...]
    refused: tuple[tuple[int, str], ...]
    """(seed, reason) of every split that would not be honest or cannot be made."""
    tasks: dict[str, Task]
    """Of each training set, by the names of its corpora joined by `+`."""


def load_experiment(
    file: Path, *, low_seed: int | None = None, high_seed: int | None = None, overrides: Sequence[str] = ()
) -> Experiment:
    """Read an experiment JSON and the model JSONs it names; older key names are translated.

    Args:
        file: the experiment JSON
        low_seed: first seed; wins over the file
        high_seed: last seed, included; wins over the file
        overrides: `field.path=value` edits of the experiment, or of every model when the path starts with `model.` or
            with a field that models alone have (`training.epochs=5`)

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
    mine = [item for item in overrides if not _is_of_models(item)]
    theirs = [item.removeprefix("model.") for item in overrides if _is_of_models(item)]
    apply_overrides(content, mine)
    written = parse(ExperimentSpec, content, source=_edited(file, mine), kind="experiment")
    spec, protocol = resolve(written, base=file.parent, source=str(file))
    if protocol is not None:
        messages += protocol.lines()
    models: list[AnyModel] = []
    places: dict[str, Path] = {}
    for name in spec.models:
        with about(f"{file}: models"):
            place = find_model(name, file.parent)
        if name in older_models:
            apply_overrides(older_models[name], theirs)
            models.append(parse_model(older_models[name], source=_edited(place, theirs)))
        else:
            model, said = load_model(place, overrides=theirs)
            models.append(model)
            messages += said
        places[models[-1].name] = place
    names = [model.name for model in models]
    for name in names:
        if names.count(name) > 1:
            raise BadInput(f"{file}: two of its models have the name '{name}'; names become folders and must differ")
    try:
        derived = derived_names(names, spec.ensembles, spec.prior_correction)
    except ValueError as error:
        raise BadInput(f"{file}: {error}") from None
    for name in [*names, *derived]:
        if name.lower() in BESIDE_MODELS:
            where = places.get(name, f"{file}: ensembles")
            raise BadInput(f"{where}: name: '{name}' is taken by what stands beside the runs; choose another name")
    declared = [sorted(model.factors) for model in models]
    if any(factors != declared[0] for factors in declared):
        listing = "; ".join(f"{model.name}: {', '.join(sorted(model.factors)) or 'none'}" for model in models)
        raise BadInput(f"{file}: its models declare different factors ({listing}); give all of them the same keys")
    if spec.search is not None:
        check_search(spec.search, models, source=str(file))
    conditions = [item.name if item else None for item in spec.augmentations]
    compared = [f"{name}+{condition}" if condition else name for name in names for condition in conditions]
    for name in (name for pair in spec.contrasts for name in pair):
        if name not in compared:
            raise BadInput(f"{file}: contrasts: no model '{name}'; there are {', '.join(compared)}")
    flags = low_seed is not None or high_seed is not None
    return Experiment(file, spec, tuple(models), tuple(messages), protocol, seed_flags=flags, model_files=places)


def load_model(file: Path, *, overrides: Sequence[str] = ()) -> tuple[AnyModel, list[str]]:
    """Read one model JSON; also returns what was translated from older keys."""
    content = read_spec_file(file, kind="model")
    messages: list[str] = []
    if is_older_model(content):
        translated = translate_model(content, str(file))
        content, messages = translated.content, list(translated.messages)
    apply_overrides(content, overrides)
    return parse_model(content, source=_edited(file, overrides)), messages


def _edited(file: Path, overrides: Sequence[str]) -> str:
    """A spec file and what was edited in it, so that nobody looks for a fault in the file that is not there."""
    return " ".join([str(file), *(f"--set {item}" for item in overrides)])


def _is_of_models(override: str) -> bool:
    first = override.partition("=")[0].split(".")[0]
    known = {*ModelSpec.model_fields, *ClassicalSpec.model_fields} - ExperimentSpec.model_fields.keys()
    return first in {"model", *known}


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
    _check_chain(experiment)
    corpora: dict[str, CorpusSpec] = {}
    trained = [corpus for group in spec.train for corpus in group]
    for corpus in [*trained, *spec.test]:
        if corpora.setdefault(corpus.name, corpus) != corpus:
            raise BadInput(f"{experiment.file}: two different corpora are named '{corpus.name}'")
    manifests = {}
    for name, corpus in corpora.items():
        with about(f"{experiment.file}: {'train' if corpus in trained else 'test'}"):
            manifests[name] = build_manifest(
                corpus,
                data=folders.data,
                locations=folders.locations,
                cache=folders.cache,
                base=experiment.base,
                allow_dropped=spec.allow_dropped,
                progress=counter(progress, f"reading {name}"),
            )
    _check_allowed(experiment, corpora, manifests)
    kind = spec.split
    assert not isinstance(kind, ProtocolSplit)  # load_experiment has resolved it
    with about(f"{experiment.file}: preprocess"):
        manifests = _without_refused(experiment, corpora, manifests, folders, progress)
    labels = {name: set(manifest.clips["class_id"]) for name, manifest in manifests.items()}
    check_names(spec.task_map, list(corpora.values()), labels, source=str(experiment.file))
    tables = {name: manifest.clips for name, manifest in manifests.items()}
    copies = near_copies(manifests, folders, progress) if len(manifests) > 1 else []
    runs: list[Run] = []
    refused: list[tuple[int, str]] = []
    tasks: dict[str, Task] = {}
    for train in spec.train:
        task, clips = make_task(spec.task_map, train, spec.test, tables, source=str(experiment.file))
        tasks["+".join(corpus.name for corpus in train)] = task
        absent = {(corpus, path) for corpus, path, _ in task.left_out}
        for name, manifest in manifests.items():
            absent |= {(name, path) for path in (*manifest.dropped["path"], *manifest.set_aside["path"])}
        drawn: dict[tuple[int, Heard], list[Split]] = {}
        for seed, split_seed, train_seed in spec.seed_pairs():
            for model in experiment.models:
                file = experiment.model_files.get(model.name)
                with about(str(file or experiment.file)):
                    start = _init_folder(model, experiment, folders)
                heard = heard_by(start) if start else Heard()
                key = (split_seed, heard)
                if key not in drawn:
                    try:
                        with about(f"{experiment.file}: split"):
                            drawn[key] = draw(
                                clips,
                                kind,
                                split_seed,
                                train_corpora=[corpus.name for corpus in train],
                                seen=heard.trained,
                                selected=heard.selected,
                                base=experiment.base,
                                left_out=frozenset(absent),
                                roots={name: manifest.root for name, manifest in manifests.items()},
                                untrained_allowed=task.across == "masked",
                            )
                        for split in drawn[key]:
                            _refuse_recordings(split, clips, heard)
                            _refuse_copies(split, copies)
                    except SplitRefused as refusal:
                        drawn[key] = []
                        refused.append((seed, str(refusal)))
                if reason := tested_before(drawn[key], model.tuned_on, model.name, clips):
                    refused.append((seed, reason))
                    continue
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
                        task=task,
                        protocol=experiment.protocol,
                        base=experiment.base.resolve(),
                        init_from=start,
                        model_file=file,
                    )
                    for augmentation in spec.augmentations
                    for split in drawn[key]
                ]
    with about(str(experiment.file)):
        for run in runs:
            _ = run.folder  # whose name may be too long
    runs, unlocked = _locked(experiment, runs)
    return Plan(experiment, manifests, tuple(runs), tuple(refused + unlocked), tasks)


def _locked(experiment: Experiment, runs: list[Run]) -> tuple[list[Run], list[tuple[int, str]]]:
    """Refuse seeds whose test speakers are not those that a search with the scope `locked` sets aside.

    The test speakers of the first seed are locked, for each model, augmentation and training set. Other seeds would
    test speakers who have chosen the settings.
    """
    search = experiment.spec.search
    if search is None or search.scope != "locked":
        return runs, []
    kept: list[Run] = []
    refused: dict[tuple[int, str], None] = {}
    first: dict[Path, Run] = {}
    for run in runs:
        if not search.searches(run.model.name):
            kept.append(run)
            continue
        if run.split.fold is not None:
            raise BadInput(
                f"{experiment.file}: search.scope 'locked' needs one test side, and each fold of split "
                f"'{run.split.kind}' has its own; use the scope 'nested'"
            )
        locked = speakers_of(first.setdefault(run.folder.parent, run).split.table, ("test",))
        tested = speakers_of(run.split.table, ("test",))
        if tested == locked and _parted(run.split, first[run.folder.parent].split):
            kept.append(run)
            continue
        theirs, ours = (named(f"{corpus}/{actor}" for corpus, actor in one) for one in (tested, locked))
        reason = (
            f"tests {theirs}, but the search has locked the test speakers of seed {first[run.folder.parent].seed}: "
            f'{ours}; use the scope "nested", one split seed with several "train_seeds", or a split that always tests '
            "the same speakers"
        )
        refused[run.seed, reason] = None
    return kept, list(refused)


def _parted(split: Split, locked: Split) -> bool:
    """Whether no clip tested here can have served a search on another split that tests the same speakers."""
    if not (split.speaker_dependent or split.speakers_unknown):
        return True
    tested, heard = (
        set(zip(rows["corpus"], rows["path"], strict=True))
        for rows in (
            split.table[split.table["split"] == "test"],
            locked.table[locked.table["split"].isin(["train", "validation"])],
        )
    )
    return not tested & heard


def _check_chain(experiment: Experiment) -> None:
    """Refuse a file or folder of the preprocessing that is not there, before any clip is read."""
    from ser_scripts.audio.preprocess import resolve_chain

    try:
        resolve_chain(experiment.spec.preprocess, experiment.base)
    except BadInput as error:
        raise BadInput(f"{experiment.file}: {error}") from None


def _without_refused(
    experiment: Experiment,
    corpora: Mapping[str, CorpusSpec],
    manifests: dict[str, Manifest],
    folders: Folders,
    progress: Callable[[str], None],
) -> dict[str, Manifest]:
    """The manifests without clips that the preprocessing refuses and the experiment allows to drop."""
    if not experiment.spec.preprocess:
        return manifests
    from ser_scripts.audio.store import without_refused

    return {
        name: without_refused(
            manifest,
            experiment.spec.preprocess,
            folders.cache,
            allowed=experiment.spec.allow_dropped,
            by_stem=named_by_stem(corpora[name], manifest),
            progress=counter(progress, f"preprocessing {name}"),
            base=experiment.base,
        )
        for name, manifest in manifests.items()
    }


def _check_allowed(
    experiment: Experiment, corpora: Mapping[str, CorpusSpec], manifests: Mapping[str, Manifest]
) -> None:
    """Refuse entries of allow_dropped that name no clip: a slip there would hide that a clip is gone."""
    names: dict[str, set[str]] = {}
    for entry in experiment.spec.allow_dropped:
        corpus, _, path = entry.partition("/")
        if corpus not in manifests:
            raise BadInput(
                f"{experiment.file}: allow_dropped: '{entry}' names none of the experiment's corpora "
                f"({', '.join(sorted(manifests))}); expected <corpus>/<path>"
            )
        by_stem = named_by_stem(corpora[corpus], manifests[corpus])
        if corpus not in names:
            tables = (manifests[corpus].clips, manifests[corpus].dropped, manifests[corpus].set_aside)
            names[corpus] = {clip_name(one, by_stem) for table in tables for one in table["path"]}
        if (name := clip_name(path, by_stem)) not in names[corpus]:
            close = difflib.get_close_matches(name, sorted(names[corpus]), n=1)
            hint = f"; did you mean '{corpus}/{close[0]}'?" if close else f" of the {len(names[corpus])} of '{corpus}'"
            raise BadInput(f"{experiment.file}: allow_dropped: '{entry}' names no clip{hint}")


def _refuse_recordings(split: Split, clips: pd.DataFrame, heard: Heard) -> None:
    """Refuse a split that holds recordings which an initial checkpoint knows under another corpus' name."""
    if heard == Heard():
        return
    table = split.table.merge(clips[["corpus", "path", "audio_sha256"]], on=["corpus", "path"], validate="1:1")
    for side in ("validation", "test"):
        if known := heard.meets(table[table["split"] == side], sides=[side]):
            more = f", ... ({len(known)} in all)" if len(known) > 5 else ""
            raise SplitRefused(
                f"split '{split.kind}', seed {split.split_seed}: the initial checkpoint (init_from) has heard "
                f"recordings of {side}: {', '.join(known[:5])}{more}"
            )


def near_copies(
    manifests: Mapping[str, Manifest], folders: Folders, progress: Callable[[str], None]
) -> list[tuple[str, str, float]]:
    """Near duplicates under two speakers' names, which no split keeps together; within one corpus speakers do."""
    from ser_scripts.audio.fingerprint import near_duplicates_across

    clips = pd.concat([manifest.clips for manifest in manifests.values()], ignore_index=True)
    return near_duplicates_across(
        clips, manifests, folders.cache, lambda name: counter(progress, f"listening for copies in {name}")
    )


def copies_across_sides(split: Split, copies: Sequence[tuple[str, str, float]]) -> list[str]:
    """The near duplicates that stand on two sides of a split, as `<one> ~ <other>`."""
    if not copies:
        return []
    used = split.table[split.table["split"] != "unused"]
    sides = dict(zip(used["corpus"] + "/" + used["path"], used["split"], strict=True))
    return [
        f"{one} ({sides[one]}) ~ {other} ({sides[other]})"
        for one, other, _ in copies
        if one in sides and other in sides and sides[one] != sides[other]
    ]


def _refuse_copies(split: Split, copies: Sequence[tuple[str, str, float]]) -> None:
    """Refuse a split that tests a re-encoded, cut or turned-down copy of what it trains on."""
    if found := copies_across_sides(split, copies):
        more = f", ... ({len(found)} in all)" if len(found) > 5 else ""
        raise SplitRefused(
            f"split '{split.kind}', seed {split.split_seed}: near duplicates across sides: {', '.join(found[:5])}"
            f"{more}; each pair sounds like one recording (`ser describe` says how alike): keep one of the two"
        )


def _init_folder(model: AnyModel, experiment: Experiment, folders: Folders) -> Path | None:
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
