"""What is searched: the studies of a plan, the clips that their trials may hear, and what a study has found."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pandas as pd

from ser_scripts.errors import BadInput
from ser_scripts.leaks import joined, named
from ser_scripts.runs.heard import merged
from ser_scripts.runs.plan import Plan, Run
from ser_scripts.specs.model import ModelSpec, TunedOn
from ser_scripts.specs.search import SearchSpec, with_values
from ser_scripts.splits import components, shuffled

SEARCH = "search"
"""Folder of the studies, below the experiment's folder."""


@dataclass(frozen=True)
class Study:
    """One search and the runs that its winner is for."""

    name: str
    """Below the experiment's folder: `search/<model>[+<augmentation>]/<corpora>/<seed-n[-fold-k] or locked>`."""
    base: Run
    """Trials use its train and validation sides."""
    runs: tuple[Run, ...]

    @property
    def spec(self) -> SearchSpec:
        """What is searched."""
        assert self.base.experiment.search is not None
        return self.base.experiment.search

    @property
    def model(self) -> ModelSpec:
        """The model as its file says."""
        assert isinstance(self.base.model, ModelSpec)  # check_search has refused the others
        return self.base.model

    @property
    def seed(self) -> str:
        """What every draw is derived from."""
        return f"{self.base.split_seed}/{self.base.train_seed}/{self.base.split.fold or ''}"


@dataclass(frozen=True)
class Chosen:
    """What a study has found."""

    study: Study
    values: dict[str, Any]
    record: dict[str, Any]
    """As it goes into run.json."""
    tuned_on: tuple[TunedOn, ...]
    """Speakers whose clips trained or scored a trial."""

    @property
    def model(self) -> ModelSpec:
        """The model with the values of the best trial."""
        base = self.study.model
        tuned = with_values(base, self.values, source=self.study.name)
        return tuned.model_copy(update={"tuned_on": merged(*base.tuned_on, *self.tuned_on)})


def studies_of(plan: Plan) -> list[Study]:
    """The studies of a plan, in order of its runs; none where the experiment searches nothing."""
    search = plan.experiment.spec.search
    found: dict[str, list[Run]] = {}
    for run in plan.runs if search is not None else ():
        if search is not None and search.searches(run.model.name):
            below = run.folder.relative_to(run.experiment.name)
            place = below if search.scope == "nested" else below.parent / "locked"
            found.setdefault((Path(SEARCH) / place).as_posix(), []).append(run)
    return [Study(name, runs[0], tuple(runs)) for name, runs in found.items()]


def describe_search(plan: Plan) -> list[str]:
    """What `ser check` says of a search."""
    studies = studies_of(plan)
    if not studies:
        return []
    spec = studies[0].spec
    count = f"{len(studies)} stud{'y' if len(studies) == 1 else 'ies'} of {spec.trials} trials"
    lines = [
        f"search: {spec.scope}, {count} ({spec.sampler}), by {spec.metric}, of {', '.join(sorted(spec.parameters))}"
    ]
    if spec.sampler == "grid" and spec.num_trials > spec.num_cells:
        lines.append(f"search: the grid has {spec.num_cells} cells, so there are no more trials")
    if spec.sampler == "grid" and spec.num_trials < spec.num_cells:
        lines.append(f"search: {spec.num_trials} of the {spec.num_cells} cells of the grid are tried, drawn at random")
    if spec.sampler == "tpe" and spec.num_trials <= spec.random_trials:
        lines.append(f"search: all trials are random, since the first {spec.random_trials} are (startup_trials)")
    if "pruning" in spec.model_fields_set and spec.pruning and any(one.model.frozen for one in studies):
        lines.append("search: 'pruning' has no effect on a frozen encoder, whose heads always train to their end")
    if spec.scope == "locked":
        lines += [f"search: locked test speakers: {_test_speakers(study)}" for study in studies[:1]]
    lines += [f"search: {line}" for line in dict.fromkeys(_share_note(study) for study in studies) if line]
    return lines


def _test_speakers(study: Study) -> str:
    rows = study.base.split.table[study.base.split.table["split"] == "test"]
    return named(rows["corpus"] + "/" + rows["actor"])


def _share_note(study: Study) -> str:
    if study.spec.amount_of_training_data == 1:
        return ""
    whole, part = study.base.split.table, trial_split(study)
    sizes = [len(set(map(tuple, table.loc[table["split"] == "train", ["corpus", "actor"]].to_numpy().tolist())))
             for table in (part, whole)]  # fmt: skip
    return f"trials train on {sizes[0]} of {sizes[1]} training speakers"


def trial_split(study: Study) -> pd.DataFrame:
    """The clips that trials may hear: validation whole, a share of the training speakers, and no test clip at all.

    Of each corpus and gender the share is rounded to the nearest number of speakers, at least one. Which ones is a pure
    function of the speakers and the split seed, and a smaller share is a part of a larger one.

    Raises:
        BadInput: speakers are unknown, or the share lacks a class
    """
    table, share = study.base.split.table, study.spec.amount_of_training_data
    table = table[table["split"].isin(["train", "validation"])].reset_index(drop=True)
    if share == 1:
        return table
    train = table["split"] == "train"
    rows = table[train]
    if (rows["actor"] == "").any():
        raise BadInput(
            f"search.amount_of_training_data: {share:g} is a share of the training speakers, and "
            f"{named(rows.loc[rows['actor'] == '', 'corpus'])} has clips without one (SPEAKERS UNKNOWN); leave it out"
        )
    corpus = rows["corpus"].to_numpy(dtype=object)
    groups = joined(corpus, rows["group"].to_numpy(dtype=object))
    units = components(groups, joined(corpus, rows["actor"].to_numpy(dtype=object)))
    of_row = pd.Series([units[str(group)] for group in groups], index=rows.index)
    strata: dict[str, set[str]] = {}
    for unit, genders in rows["gender"].groupby(of_row):
        kind = "+".join(sorted(set(genders)))
        strata.setdefault(f"{str(unit).partition('/')[0]}/{kind}", set()).add(str(unit))
    kept: set[str] = set()
    for stratum, names in sorted(strata.items()):
        size = max(1, int(len(names) * Fraction(share).limit_denominator(10**6) + Fraction(1, 2)))
        kept.update(shuffled(names, f"search\t{study.base.split_seed}\t{stratum}")[:size])
    part = table[~train | of_row.reindex(table.index).isin(kept)].reset_index(drop=True)
    if lost := set(rows["class_id"]) - set(part.loc[part["split"] == "train", "class_id"]):
        raise BadInput(
            f"search.amount_of_training_data: {share:g} leaves no training clip of {named(lost)} in seed "
            f"{study.base.seed}; give more"
        )
    return part


def trial_run(study: Study, model: ModelSpec) -> Run:
    """The run of a trial: it has no test side and keeps no weights."""
    base = study.base
    experiment = base.experiment.model_copy(update={"conditions": (), "test": (), "search": None})
    training = model.training.model_copy(update={"save_model": "none", "track": ()})
    return replace(
        base,
        experiment=experiment,
        model=model.model_copy(update={"training": training}),
        split=replace(base.split, table=trial_split(study)),
    )
