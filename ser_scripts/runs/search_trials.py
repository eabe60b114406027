"""Trials: trainings on the train and validation sides of a study, of networks one by one or of heads side by side."""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol

from ser_eval import run_folder
from ser_scripts.errors import Finding
from ser_scripts.manifest import Manifest
from ser_scripts.runs.conditions import Prepared
from ser_scripts.runs.execute import Options
from ser_scripts.runs.plan import Run
from ser_scripts.runs.search_study import Study, trial_run
from ser_scripts.runs.train_run import open_stores, run_identity, train_run
from ser_scripts.settings import Folders
from ser_scripts.specs.base import digest
from ser_scripts.specs.model import ModelSpec, PretrainedEncoder
from ser_scripts.training.history import Evaluation, read_history

TRIAL_FOLDER = "trial"
"""Of the network in training, in the study's folder."""


@dataclass(frozen=True)
class Scored:
    """A trial's training."""

    history: Sequence[Evaluation]
    seconds: float
    pruned: bool = False
    failure: str | None = None


class Trainer(Protocol):
    """Trains models on the train and validation sides of a study."""

    together: ClassVar[bool]
    """It trains many models at once."""

    def __call__(
        self, models: Mapping[int, ModelSpec], stop: Callable[[Sequence[Evaluation]], bool] | None
    ) -> dict[int, Scored]:
        """Trial number -> model; what became of each."""


@dataclass
class _Trainer:
    """What trainers know of a study."""

    study: Study
    manifests: dict[str, Manifest]
    folders: Folders
    options: Options
    report: Callable[[str], None]


@dataclass
class Networks(_Trainer):
    """Trains one network after the other, as a run without a test side; a kill goes on from its last checkpoint."""

    together: ClassVar[bool] = False

    def __call__(
        self, models: Mapping[int, ModelSpec], stop: Callable[[Sequence[Evaluation]], bool] | None
    ) -> dict[int, Scored]:
        """Train them."""
        return {number: self._one(number, model, stop) for number, model in models.items()}

    def _one(self, number: int, model: ModelSpec, stop: Callable[[Sequence[Evaluation]], bool] | None) -> Scored:
        run = trial_run(self.study, model)
        place = self.folders.runs / self.study.base.experiment.name / self.study.name / TRIAL_FOLDER
        inside = replace(self.folders, runs=place / f"{number:04d}")
        for other in place.glob("*"):
            if other != inside.runs:
                shutil.rmtree(other)
        started = time.monotonic()
        pruned = False
        try:
            if not (inside.runs / run.folder / run_folder.RUN).is_file():  # else killed between its end and the record
                train_run(
                    run,
                    run_identity(run, self.manifests, self.folders, allow_imports=self.options.allow_imports),
                    self.manifests,
                    Prepared(),
                    inside,
                    device=self.options.device,
                    loader_workers=self.options.loader_workers,
                    allow_imports=self.options.allow_imports,
                    report=lambda text: self.report(f"trial {number}  {text}"),
                    stop=stop,
                )
        except Finding as finding:
            return Scored([], time.monotonic() - started, failure=str(finding))
        history = read_history(inside.runs / run.folder / run_folder.HISTORY)
        if stop is not None:
            pruned = stop(history) and history[-1].epoch < model.training.epochs
        return Scored(history, time.monotonic() - started, pruned=pruned)


@dataclass
class Heads(_Trainer):
    """Trains heads on the cached hidden states of a frozen encoder; those of one form side by side."""

    together: ClassVar[bool] = True

    tables: dict[str, Any] = field(default_factory=dict)

    def __call__(
        self, models: Mapping[int, ModelSpec], stop: Callable[[Sequence[Evaluation]], bool] | None
    ) -> dict[int, Scored]:
        """Train them."""
        groups: dict[str, list[int]] = {}
        for number, model in models.items():
            groups.setdefault(digest(self._form(model)), []).append(number)
        scored: dict[int, Scored] = {}
        for numbers in groups.values():
            scored |= self._train({number: models[number] for number in numbers})
        return {number: scored[number] for number in models}

    @staticmethod
    def _form(model: ModelSpec) -> dict[str, Any]:
        """What trainings side by side must share: all but rates, decay and the choice of one layer."""
        content: dict[str, Any] = model.model_dump(
            mode="json", exclude={"training": {"learning_rate", "head_learning_rate", "weight_decay"}, "layers": True}
        )
        frames = model.layers.use if model.head.kind == "frame_mlp" else None
        return content | {"weighted": model.layers.use == "weighted", "frames": frames}

    def _train(self, models: Mapping[int, ModelSpec]) -> dict[int, Scored]:
        """Train models of one form; where a loss is not finite, each alone, to find out whose it is."""
        self._table(trial_run(self.study, next(iter(models.values()))))  # embedding counts for no trial
        started = time.monotonic()
        try:
            histories = self._histories(list(models.values()))
        except Finding as finding:
            if len(models) > 1:
                return {number: self._train({number: model})[number] for number, model in models.items()}
            return {number: Scored([], time.monotonic() - started, failure=str(finding)) for number in models}
        seconds = (time.monotonic() - started) / len(models)
        return {number: Scored(rows, seconds) for number, rows in zip(models, histories, strict=True)}

    def _histories(self, models: Sequence[ModelSpec]) -> list[Sequence[Evaluation]]:
        from ser_scripts.runs.train_frozen import choose, jobs_of, rated_of, targets_of
        from ser_scripts.training.heads import train_heads

        runs = [trial_run(self.study, model) for model in models]
        table, truths, votes = self._table(runs[0])
        targets = targets_of(truths, table, votes, len(self.study.base.labels))
        jobs = [jobs_of(run, table, targets) for run in runs]
        trained = train_heads(
            table.values,
            truths,
            len(self.study.base.labels),
            [job for mine in jobs for job in mine],
            head=models[0].head,
            loss=models[0].loss,
            training=models[0].training,
            targets=targets if votes else None,
            rated=rated_of(models[0], table, self.manifests),
        )
        heads = iter(trained)
        return [
            choose(list(itertools.islice(heads, len(mine))), model).history
            for mine, model in zip(jobs, models, strict=True)
        ]

    def _table(self, run: Run) -> Any:
        """Embeddings of the clips that trials hear, their labels and their votes; made once per encoder and pooling."""
        from ser_scripts.modeling.frozen import frozen_encoder, kept
        from ser_scripts.runs.train_frozen import clips_of, embed_table, truths_of, votes_of

        spec = run.model
        assert isinstance(spec, ModelSpec)
        assert isinstance(spec.encoder, PretrainedEncoder)
        encoder = frozen_encoder(spec.encoder, models=self.folders.models, remote_code=self.folders.remote_code)
        votes = spec.loss.targets == "votes"
        key = f"{encoder.identity} {kept(spec, encoder)} {votes}"
        if key not in self.tables:
            clips = clips_of([run])
            stores = open_stores(
                run, (corpus for corpus, _ in clips), self.manifests, encoder.sample_rate_hz, self.folders, self.report
            )
            table = embed_table(
                spec, encoder, stores, clips, self.folders, device=self.options.device, report=self.report
            )
            self.tables[key] = table, truths_of([run], table), votes_of([run], self.manifests) if votes else {}
        return self.tables[key]
