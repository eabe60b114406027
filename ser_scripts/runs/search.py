"""Search for settings with Optuna: trials on training speakers, scored on validation speakers, never on test speakers.

The draw of a trial is a pure function of the study's seed, the trial's number and the trials before it: every trial has
a sampler of its own, seeded from seed and number, over a study in memory that is filled with the finished trials. The
database holds finished trials only. So a killed study goes on as if nothing had happened, and a study with more trials
begins with the same ones.
"""

from __future__ import annotations

import datetime
import functools
import json
import multiprocessing
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from ser_eval import run_folder
from ser_scripts.errors import BadInput, Finding
from ser_scripts.files import held, writable_folder
from ser_scripts.leaks import named
from ser_scripts.manifest import Manifest
from ser_scripts.runs.changes import differences
from ser_scripts.runs.execute import Options, ignore_interrupt, print_line
from ser_scripts.runs.heard import tuned_on
from ser_scripts.runs.plan import Plan
from ser_scripts.runs.search_study import SEARCH, Chosen, Study, describe_search, studies_of, trial_run, trial_split
from ser_scripts.runs.search_trials import TRIAL_FOLDER, Heads, Networks, Scored, Trainer
from ser_scripts.runs.train_run import check_models, run_identity
from ser_scripts.settings import Folders
from ser_scripts.specs.base import digest, parse
from ser_scripts.specs.model import NAME_PATTERN, ModelSpec
from ser_scripts.specs.search import FloatRange, IntRange, SearchSpec, content_with, with_values
from ser_scripts.training.clock import duration
from ser_scripts.training.history import Evaluation, select

if TYPE_CHECKING:
    import optuna

STUDY, DATABASE, TRIALS, PICTURE, RESULT = "study.json", "study.db", "trials.csv", "study.png", "result.json"
_BATCH = 64
"""Trials of heads that are trained at once, and lost at a kill, where the sampler does not look at their results."""


def check_search_models(plan: Plan, folders: Folders, *, device: str, download: bool = True) -> None:
    """Build the models at both ends of every range and at every choice that changes their form, before any training.

    Raises:
        BadInput: naming path, value and fault
    """
    seen = set()
    for study in studies_of(plan):
        trial_split(study)
        run = study.base
        if (study.model.name, *run.train_corpora) in seen:
            continue
        seen.add((study.model.name, *run.train_corpora))
        for path, parameter in study.spec.parameters.items():
            if path.startswith(("training.", "loss.")):
                continue
            for value in dict.fromkeys(parameter.probes()):
                variant = with_values(study.model, {path: value}, source=str(plan.experiment.file))
                try:
                    check_models([replace(run, model=variant)], folders, device=device, download=download)
                except BadInput as error:
                    raise BadInput(f"{plan.experiment.file}: search.parameters: '{path}': {value!r}: {error}") from None


# ---- running ----


def search_plan(
    plan: Plan, folders: Folders, options: Options, say: Callable[[str], None]
) -> tuple[Plan, list[Chosen]]:
    """Finish the studies of a plan; returns the plan with the models that they have chosen, and what each found.

    Raises:
        BadInput: a study of another spec, or a damaged one, is in the way; another process holds one
        Finding: all trials of a study have failed
    """
    studies = studies_of(plan)
    if not studies:
        return plan, []
    root = folders.runs / plan.experiment.spec.name
    writable_folder(root, remedy="set SER_RUNS")
    check_search_models(plan, folders, device=options.device)
    for line in describe_search(plan):
        say(line)
    work = functools.partial(run_study, folders=folders, options=options)
    manifests = [{name: plan.manifests[name] for name in set(study.base.split.table["corpus"])} for study in studies]
    apart = [number for number, study in enumerate(studies) if not study.model.frozen]
    jobs = min(options.jobs, len(apart))
    chosen: dict[int, Chosen] = {}
    if jobs > 1:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(jobs, mp_context=context, initializer=ignore_interrupt) as pool:
            try:
                futures = {number: pool.submit(work, studies[number], manifests[number], say=print_line)
                           for number in apart}  # fmt: skip
                chosen |= {number: future.result() for number, future in futures.items()}
            except BaseException:  # Ctrl-C or a failing study: finished trials stand
                pool.shutdown(wait=False, cancel_futures=True)
                for child in multiprocessing.active_children():
                    child.terminate()
                raise
    for number, study in enumerate(studies):
        if number not in chosen:
            chosen[number] = work(study, manifests[number], say=say)
    found = [chosen[number] for number in range(len(studies))]
    winners = {run.folder: one for one in found for run in one.study.runs}
    runs = tuple(
        replace(run, model=winners[run.folder].model, search=winners[run.folder].record)
        if run.folder in winners
        else run
        for run in plan.runs
    )
    return replace(plan, runs=runs), found


def tune(
    plan: Plan, folders: Folders, options: Options, write: Path | None, say: Callable[[str], None]
) -> list[Chosen]:
    """Run the studies of a plan alone; with `write`, leave the winner of the only one as a model JSON.

    Raises:
        BadInput: nothing is searched, or `write` and several studies
    """
    studies = studies_of(plan)
    if not studies:
        raise BadInput(f"{plan.experiment.file}: nothing to tune: it has no 'search' (docs/tuning.md)")
    if write is not None:
        check_target(write)
        if len(studies) > 1:
            raise BadInput(
                f"--write {write}: {len(studies)} studies have as many winners ({named(one.name for one in studies)}); "
                "take one seed (--low-seed N --high-seed N) of one model (--set models='[\"NAME\"]'), or search with "
                "the scope 'locked'"
            )
    found = search_plan(plan, folders, options, say)[1]
    if write is not None:
        write_tuned(write, found)
    return found


def run_study(
    study: Study, manifests: dict[str, Manifest], *, folders: Folders, options: Options, say: Callable[[str], None]
) -> Chosen:
    """Run the trials of a study that are not finished, and write what came out."""
    root = folders.runs / study.base.experiment.name
    folder = root / study.name

    def report(text: str) -> None:
        say(f"{study.name}  {text}")

    busy = f"{folder}: another process runs this study; wait for it, or stop it first"
    with held(folders.runs, f"{study.base.experiment.name}/{study.name}", busy=busy):
        identity = _identity(study, manifests, folders, options)
        _claim(study, folder, identity, options, root)
        finished = read_trials(folder)
        if len(finished) < study.spec.trials:
            if finished:
                report(f"{len(finished)} of {study.spec.trials} trials are finished already")
            _same_device(folder, options.device)
            finished = _go_on(study, finished, manifests, folders, options, report)
        finished = finished[: study.spec.trials]
        shutil.rmtree(folder / TRIAL_FOLDER, ignore_errors=True)
        chosen = _conclude(study, finished, manifests)
        _write(folder, chosen, finished, report)
    return chosen


def _go_on(
    study: Study,
    finished: list[optuna.trial.FrozenTrial],
    manifests: dict[str, Manifest],
    folders: Folders,
    options: Options,
    report: Callable[[str], None],
) -> list[optuna.trial.FrozenTrial]:
    """Run trials until there are enough; each goes into the database when it and all before it are finished."""
    spec = study.spec
    maker = Heads if study.model.frozen else Networks
    trainer: Trainer = maker(study, manifests, folders, options, report)
    disk = _open(folders.runs / study.base.experiment.name / study.name)
    began, done_before = time.monotonic(), len(finished)
    while (number := len(finished)) < spec.trials:
        width = min(_BATCH, spec.trials - number) if trainer.together and spec.sampler != "tpe" else 1
        memory = _memory(study, finished)
        asked = [_ask(memory, study, number + place) for place in range(width)]
        models = {
            trial.number: with_values(study.model, trial.params, source=f"{study.name}, trial {trial.number}")
            for trial in asked
        }
        watch = None if trainer.together or spec.pruning_rule is None else _Watch(spec, asked[0])
        for trial_number, scored in trainer(models, watch).items():
            trial = asked[trial_number - number]
            frozen = _finished(study, trial, models[trial_number], scored)
            disk.add_trial(frozen)
            finished.append(frozen)
            left = (time.monotonic() - began) / (len(finished) - done_before) * (spec.trials - len(finished))
            about = "" if trainer.together else f", about {duration(left)} left"  # those trained together end together
            report(f"trial {trial_number}: {_told(study, frozen, finished)}{about}")
    disk._storage.remove_session()
    return finished


class _Watch:
    """The pruner's ear in a training: tells Optuna every evaluation of a trial, and stops it when told to."""

    def __init__(self, spec: SearchSpec, trial: optuna.trial.Trial):
        self.spec, self.trial, self.told, self.pruned = spec, trial, 0, False

    def __call__(self, history: Sequence[Evaluation]) -> bool:
        while self.told < len(history) and not self.pruned:
            self.trial.report(float(getattr(history[self.told], self.spec.metric)), self.told)
            self.told += 1
            self.pruned = self.trial.should_prune()
        return self.pruned


def _memory(study: Study, finished: Sequence[optuna.trial.FrozenTrial]) -> optuna.Study:
    """A study in memory with the finished trials, from which the next is drawn."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    rule = study.spec.pruning_rule
    pruner = (
        optuna.pruners.PercentilePruner(
            rule.kept, n_startup_trials=rule.startup_trials, n_warmup_steps=rule.warmup_evaluations
        )
        if rule is not None
        else optuna.pruners.NopPruner()
    )
    memory = optuna.create_study(direction=_direction(study.spec), pruner=pruner)
    memory.add_trials(finished)
    return memory


def _direction(spec: SearchSpec) -> Literal["minimize", "maximize"]:
    return "minimize" if spec.metric == "val_loss" else "maximize"


def _ask(memory: optuna.Study, study: Study, number: int) -> optuna.trial.Trial:
    """Draw trial `number`: a pure function of the study's seed, the number, and the finished trials in `memory`."""
    import optuna

    from ser_scripts.training.seeding import derive

    spec, seed = study.spec, derive(SEARCH, study.seed, number)
    if spec.sampler == "grid":
        memory.enqueue_trial(_cell(study, number))
    if spec.sampler == "tpe":
        memory.sampler = optuna.samplers.TPESampler(
            n_startup_trials=spec.random_trials, multivariate=True, constant_liar=False, seed=seed
        )
    else:
        memory.sampler = optuna.samplers.RandomSampler(seed=seed)
    trial = memory.ask(distributions(spec))
    assert trial.number == number
    return trial


def distributions(spec: SearchSpec) -> dict[str, optuna.distributions.BaseDistribution]:
    """What Optuna draws each parameter from, by path, sorted: the order in the file changes nothing."""
    import optuna

    found: dict[str, optuna.distributions.BaseDistribution] = {}
    for path, one in sorted(spec.parameters.items()):
        if spec.sampler == "grid":
            found[path] = optuna.distributions.CategoricalDistribution(one.cells() or ())
        elif isinstance(one, FloatRange):
            found[path] = optuna.distributions.FloatDistribution(one.low, one.high, log=one.log, step=one.step)
        elif isinstance(one, IntRange):
            found[path] = optuna.distributions.IntDistribution(one.low, one.high, log=one.log, step=one.step or 1)
        else:
            found[path] = optuna.distributions.CategoricalDistribution(one.choices)
    return found


def _cell(study: Study, number: int) -> dict[str, Any]:
    """The cell of a grid that trial `number` tries: they come in a drawn order."""
    from ser_scripts.training.seeding import derive

    order = np.random.Generator(np.random.PCG64(derive("grid", study.seed))).permutation(study.spec.num_cells)
    index, values = int(order[number]), {}
    for path, one in sorted(study.spec.parameters.items()):
        cells = one.cells() or []
        index, place = divmod(index, len(cells))
        values[path] = cells[place]
    return values


def _finished(study: Study, trial: optuna.trial.Trial, model: ModelSpec, scored: Scored) -> optuna.trial.FrozenTrial:
    """The trial as it goes into the database."""
    import optuna

    metric, states = study.spec.metric, optuna.trial.TrialState
    state, value = states.COMPLETE, None
    notes: dict[str, Any] = {"seconds": round(scored.seconds, 3)}
    if scored.failure is not None:
        state, notes["failure"] = states.FAIL, scored.failure
    else:
        selected = scored.history[select(scored.history, model.training.select)]
        notes |= {"best_epoch": selected.epoch, "val_uar": selected.val_uar, "val_loss": selected.val_loss}
        if scored.pruned:
            state = states.PRUNED
        else:
            value = float(getattr(selected, metric))
    frozen = optuna.create_trial(
        state=state,
        value=value,
        params=trial.params,
        distributions=distributions(study.spec),
        intermediate_values={number: float(getattr(row, metric)) for number, row in enumerate(scored.history)},
        user_attrs=notes,
    )
    frozen.number = trial.number
    return frozen


def _told(study: Study, trial: optuna.trial.FrozenTrial, finished: Sequence[optuna.trial.FrozenTrial]) -> str:
    values = ", ".join(f"{path} {_short(value)}" for path, value in trial.params.items())
    outcome = trial.state.name.lower() if trial.value is None else f"{study.spec.metric} {trial.value:.3f}"
    best = _best(study.spec, finished)
    so_far = f" (best {best.value:.3f}, trial {best.number})" if best is not None and best.value is not None else ""
    return f"{outcome}{so_far}  {values}"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _best(spec: SearchSpec, finished: Sequence[optuna.trial.FrozenTrial]) -> optuna.trial.FrozenTrial | None:
    """The best complete trial, the earlier one at a tie."""
    complete = [trial for trial in finished if trial.value is not None]
    sign = 1 if spec.metric == "val_loss" else -1
    return min(complete, key=lambda trial: (sign * float(trial.value or 0), trial.number), default=None)


def _conclude(study: Study, finished: Sequence[optuna.trial.FrozenTrial], manifests: Mapping[str, Manifest]) -> Chosen:
    record = record_of(study.name, study.spec, finished)
    return Chosen(study, dict(record["values"]), record, tuned_on(trial_split(study), manifests))


def record_of(name: str, spec: SearchSpec, finished: Sequence[optuna.trial.FrozenTrial]) -> dict[str, Any]:
    """What a study has found, as it goes into run.json: a function of its trials alone.

    Raises:
        Finding: all trials failed
    """
    best = _best(spec, finished)
    if best is None:
        reasons = list(dict.fromkeys(str(trial.user_attrs.get("failure")) for trial in finished))
        raise Finding(f"{name}: all {len(finished)} trials failed: {'; '.join(reasons[:3])}")
    states = [trial.state.name for trial in finished]
    return {
        "study": name,
        "scope": spec.scope,
        "sampler": spec.sampler,
        "metric": spec.metric,
        "amount_of_training_data": spec.amount_of_training_data,
        "parameters": sorted(spec.parameters),
        "num_trials": len(finished),
        "completed": states.count("COMPLETE"),
        "pruned": states.count("PRUNED"),
        "failed": states.count("FAIL"),
        "best_trial": best.number,
        "best_value": best.value,
        "values": dict(sorted(best.params.items())),
        "seconds": round(sum(float(trial.user_attrs["seconds"]) for trial in finished), 3),
    }


def trials_table(spec: SearchSpec, finished: Sequence[optuna.trial.FrozenTrial]) -> pd.DataFrame:
    """One row per trial: number, state, score, epoch, seconds, and the values by path."""
    rows = []
    for trial in finished:
        notes = trial.user_attrs
        row = {"trial": trial.number, "state": trial.state.name.lower(), spec.metric: trial.value}
        row |= {"best_epoch": notes.get("best_epoch"), "evaluations": len(trial.intermediate_values)}
        row |= {"seconds": notes["seconds"], "failure": notes.get("failure", "")}
        rows.append(row | {path: trial.params[path] for path in sorted(spec.parameters)})
    return pd.DataFrame(rows)


def _write(
    folder: Path, chosen: Chosen, finished: Sequence[optuna.trial.FrozenTrial], report: Callable[[str], None]
) -> None:
    from ser_scripts.runs.search_plots import write_picture

    table = trials_table(chosen.study.spec, finished)
    run_folder.write_table(folder / TRIALS, table)
    run_folder.write_json(
        folder / RESULT, chosen.record | {"tuned_on": [one.model_dump(mode="json") for one in chosen.tuned_on]}
    )
    write_picture(folder / PICTURE, chosen.study.spec, table, title=chosen.study.name, best=chosen.record["best_trial"])
    record = chosen.record
    values = ", ".join(f"{path} {_short(value)}" for path, value in record["values"].items())
    report(
        f"best of {record['num_trials']} trials ({record['pruned']} pruned, {record['failed']} failed, "
        f"{duration(record['seconds'])}): {record['metric']} {record['best_value']:.3f}, trial "
        f"{record['best_trial']}: {values}"
    )


# ---- the study on disk ----


def _identity(study: Study, manifests: dict[str, Manifest], folders: Folders, options: Options) -> dict[str, Any]:
    """What the trials depend on: the run's identity without its test side, and the search but for its length."""
    run = trial_run(study, study.model)
    content = run_identity(run, manifests, folders, allow_imports=options.allow_imports)
    search = study.spec.model_dump(mode="json", exclude={"models", "num_trials"})
    clips = trial_split(study)[["corpus", "path", "split"]]
    lines = sorted("\t".join(row) + "\n" for row in clips.itertuples(index=False, name=None))
    content["inputs"] = content["inputs"] | {
        f"{path} = {value}": run_identity(
            replace(run, model=with_values(study.model, {path: value}, source=study.name)), manifests, folders,
            allow_imports=options.allow_imports,
        )["inputs"]
        for path, one in study.spec.parameters.items()
        if path.startswith("encoder.model")
        for value in one.probes()
    }  # fmt: skip
    return content | {"search": search, "split_sha256": digest(lines), "seed": study.seed}


def _claim(study: Study, folder: Path, identity: dict[str, Any], options: Options, root: Path) -> None:
    """Take the folder of a study, or go on with the one that is there.

    Raises:
        BadInput: one of another spec or other data is there, and not `--force`
    """
    if folder.exists() and not (folder / STUDY).is_file() and (folder / DATABASE).exists():
        raise BadInput(f"{folder} is damaged: {STUDY} is not there; delete the folder and search again")
    if (folder / STUDY).is_file():
        old = run_folder.read_json(folder / STUDY)
        if not isinstance(old, dict) or "identity" not in old:
            raise BadInput(f"{folder / STUDY} is damaged; delete the folder and search again")
        if difference := differences(old["identity"], identity):  # perhaps only in keys that came after it
            model = study.base.completed(old["identity"]["model"])
            difference = differences(old["identity"] | {"model": model}, identity)
        if difference and not options.force:
            listing = "\n".join(f"  {line}" for line in difference[:10])
            raise BadInput(
                f"{folder} holds a study of another spec or of other data:\n{listing}\n"
                "Give the experiment another name, or use --force to move the old study aside."
            )
        if difference:
            stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%S%f")
            aside = root / "old" / f"{stamp}-{folder.relative_to(root).as_posix().replace('/', '_')}"
            aside.parent.mkdir(exist_ok=True)
            folder.rename(aside)
    if not (folder / STUDY).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        run_folder.write_json(folder / STUDY, {"identity": identity, "device": options.device})


def _same_device(folder: Path, device: str) -> None:
    """Refuse to go on elsewhere: another device gives other bits, and the later trials depend on the earlier ones."""
    before = run_folder.read_json(folder / STUDY).get("device")
    if before != device:
        raise BadInput(f"{folder} was begun on '{before}'; go on with --device {before}, or delete the folder")


def _open(folder: Path) -> optuna.Study:
    """The study's database, made where there is none.

    Raises:
        BadInput: it is damaged
    """
    import optuna
    from sqlalchemy import URL
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    file = folder / DATABASE
    address = URL.create("sqlite", database=str(file.absolute())).render_as_string(hide_password=False)
    direction = _direction(SearchSpec.model_validate_json(_search_of(folder)))
    try:
        storage = optuna.storages.RDBStorage(address)
        study = optuna.create_study(study_name=SEARCH, storage=storage, direction=direction, load_if_exists=True)
        study.get_trials(deepcopy=False)
    except (SQLAlchemyError, optuna.exceptions.OptunaError, RuntimeError, ValueError, KeyError) as error:
        raise BadInput(
            f"{file} is damaged, or of another version of Optuna ({str(error).splitlines()[0]}); delete {folder} and "
            "search again"
        ) from None
    return study


def _search_of(folder: Path) -> str:
    return json.dumps(run_folder.read_json(folder / STUDY)["identity"]["search"])


def read_trials(folder: Path) -> list[optuna.trial.FrozenTrial]:
    """The finished trials of a study, in order.

    Raises:
        BadInput: the database is damaged
    """
    if not (folder / DATABASE).exists():
        return []
    study = _open(folder)
    trials = study.get_trials(deepcopy=True)
    study._storage.remove_session()
    if [trial.number for trial in trials] != list(range(len(trials))) or any(
        not trial.state.is_finished() or "seconds" not in trial.user_attrs for trial in trials
    ):
        raise BadInput(f"{folder / DATABASE} is damaged: trials are missing; delete {folder} and search again")
    return trials


# ---- writing the winner ----


def write_tuned(file: Path, chosen: Sequence[Chosen]) -> None:
    """Write the model of the one study with its best settings and with who chose them."""
    (one,) = chosen
    record = one.record
    content = content_with(one.study.model, record["values"])
    content["name"] = file.stem
    content["description"] = (
        f"{content.get('description') or one.study.model.name}; settings: {record['metric']} "
        f"{record['best_value']:.3f} in trial {record['best_trial']} of {record['num_trials']}, "
        f"{one.study.base.experiment.name}/{record['study']}"
    )
    content["tuned_on"] = [entry.model_dump(mode="json") for entry in one.model.tuned_on]
    parse(ModelSpec, content, source=f"--write {file}", kind="model")
    content = {"$schema": "../schemas/model.json", **content}
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def check_target(file: Path) -> None:
    """Refuse a file that a winner cannot be written to, before hours of trials.

    Raises:
        BadInput: it exists, or is no name of a model
    """
    if file.exists():
        raise BadInput(f"--write {file}: it exists already; give another name")
    if file.suffix != ".json" or not re.match(NAME_PATTERN, file.stem):
        raise BadInput(f"--write {file}: expected NAME.json; letters, digits, '.', '-' and '_'")
    writable_folder(file.parent, remedy="set --write")
