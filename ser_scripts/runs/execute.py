"""Execute the runs of a plan: skip what is finished, refuse what does not fit, train the rest here or in processes."""

from __future__ import annotations

import contextlib
import datetime
import errno
import functools
import gc
import itertools
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors import SafetensorError

from ser_eval import run_folder
from ser_scripts.errors import BadInput, Finding
from ser_scripts.files import guarded, held, writable_folder
from ser_scripts.manifest import Manifest
from ser_scripts.ratings import clip_columns
from ser_scripts.runs.changes import changed_clips, differences
from ser_scripts.runs.conditions import Prepared, add_conditions, lacking, prepare_conditions
from ser_scripts.runs.plan import Plan, Run
from ser_scripts.runs.train_classical import train_classical
from ser_scripts.runs.train_run import check_models, check_targets, run_identity, seen_corpora, train_run
from ser_scripts.settings import Folders
from ser_scripts.specs.base import digest
from ser_scripts.specs.classical import ClassicalSpec
from ser_scripts.training.clock import duration


@dataclass(frozen=True)
class Options:
    """What may differ between two executions without changing a number (on one device)."""

    device: str = "cpu"
    jobs: int = 1
    loader_workers: int = 0
    force: bool = False
    """Move a run folder of another spec aside instead of refusing."""
    allow_imports: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raises BadInput where processes that read clips could not send them, which would hang."""
        folder = tempfile.gettempdir()
        if self.loader_workers and len(os.fsencode(folder)) > _LONGEST_TEMPORARY:
            raise BadInput(
                f"--loader-workers {self.loader_workers}: the folder for temporary files, {folder}, has more than "
                f"{_LONGEST_TEMPORARY} characters, too many for the sockets of these processes; set TMPDIR to a "
                "shorter one, or leave --loader-workers out"
            )


_LONGEST_TEMPORARY = 75
"""A socket's path has 107 characters at most, of which multiprocessing's own names below the folder take 32."""


@dataclass(frozen=True)
class _Job:
    """What a process needs to train one run."""

    run: Run
    identity: dict[str, Any]
    manifests: dict[str, Manifest]
    prepared: Prepared
    trained: bool
    """It is finished but for conditions that it has not been tested under."""


@dataclass(frozen=True)
class Outcome:
    """What became of one run."""

    folder: Path
    status: str
    """`finished`, `already finished`, `tested under further conditions` or `failed`."""
    seconds: float
    message: str = ""


def find_device(wanted: str | None) -> str:
    """The device asked for, or `cuda` or `mps` where there is one, else `cpu`.

    Raises:
        BadInput: an unknown device, or one that this machine lacks
    """
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted is None:
        return next(name for name, present in there.items() if present)
    if not there.get(wanted, False):
        present = ", ".join(name for name, one in there.items() if one)
        raise BadInput(
            f"--device {wanted}: not available; on this machine: {present} "
            "(--device cpu always works; CUDA_VISIBLE_DEVICES picks one of several GPUs)"
        )
    return wanted


def execute_plan(plan: Plan, folders: Folders, options: Options, say: Callable[[str], None]) -> list[Outcome]:
    """Execute every run of a plan that is not finished yet.

    Raises:
        BadInput: if a model cannot be built, a run folder of another spec is in the way or damaged, the disk is full,
            or another process holds a run
    """
    check_targets(plan)
    prepared = prepare_conditions(plan, folders, say)
    root = folders.runs / plan.experiment.spec.name
    writable_folder(root, remedy="set SER_RUNS")
    todo: list[_Job] = []
    outcomes: list[Outcome] = []
    for run in plan.runs:
        identity = run_identity(run, plan.manifests, folders, allow_imports=options.allow_imports)
        with _lock(run, folders) if options.force else contextlib.nullcontext():
            finished = _is_finished(run, identity, folders, plan.manifests, force=options.force)
        if finished:
            _refresh_words(run, folders)
        if finished and not lacking(run, prepared, folders, force=options.force):
            outcomes.append(Outcome(run.folder, "already finished", 0.0))
        else:
            todo.append(_Job(run, identity, _needed(run, plan), prepared, trained=finished))
    check_models([job.run for job in todo if not job.trained], folders, device=options.device)
    with guarded(folders.runs):
        write_plan(root, plan)
        write_clips(root, list(plan.manifests.values()))
    if outcomes:
        say(f"{len(outcomes)} of {len(plan.runs)} runs are finished already")
    total, started = len(plan.runs), time.monotonic()
    jobs = min(options.jobs, max(1, len(todo)))
    together = [job for job in todo if job.run.model.frozen and not job.trained]
    single = [job for job in todo if not (job.run.model.frozen and not job.trained)]
    if jobs > 1 and single:
        results = _in_processes(single, folders, options, jobs, total)
    else:
        results = _here(single, folders, options, total, say)
    for done, outcome in enumerate(itertools.chain(_together(together, folders, options, say), results), start=1):
        outcomes.append(outcome)
        elapsed = time.monotonic() - started
        left = elapsed / done * (len(todo) - done)
        why = f": {outcome.message}" if outcome.message else ""
        say(f"{outcome.status}: {outcome.folder.as_posix()} ({duration(outcome.seconds)}){why}")
        if len(together) <= done < len(todo):  # those that train together end together
            say(f"{total - len(todo) + done} of {total} runs finished, about {duration(left)} left")
    return outcomes


def _together(
    todo: Sequence[_Job], folders: Folders, options: Options, say: Callable[[str], None]
) -> Iterator[Outcome]:
    """Train the runs of models with frozen encoders, all runs of a model and training set at once."""
    from ser_scripts.runs.train_frozen import train_frozen

    groups: dict[tuple[str, ...], list[_Job]] = {}
    for job in todo:
        groups.setdefault((job.run.model.name, digest(job.run.model), *job.run.train_corpora), []).append(job)
    for name, group in groups.items():
        started = time.monotonic()
        with contextlib.ExitStack() as locks:
            for job in group:
                locks.enter_context(_lock(job.run, folders))
            mine = [
                job for job in group if not _is_finished(job.run, job.identity, folders, job.manifests, force=False)
            ]
            status, message = "finished", ""
            try:
                if mine:
                    train_frozen(
                        [(job.run, job.identity, job.prepared) for job in mine],
                        {corpus: manifest for job in mine for corpus, manifest in job.manifests.items()},
                        folders,
                        device=options.device,
                        report=functools.partial(_say_of, say, name[0]),
                    )
            except Finding as finding:
                status, message = "failed", str(finding)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                raise BadInput(f"no space left on the disk of {folders.runs} or {folders.cache}; free some") from error
        seconds = (time.monotonic() - started) / len(group)
        for job in group:
            if all(job is not other for other in mine):
                yield Outcome(job.run.folder, "already finished", seconds)
            elif (folders.runs / job.run.folder / run_folder.RUN).is_file():  # written before another one failed
                yield Outcome(job.run.folder, "finished", seconds)
            else:
                yield Outcome(job.run.folder, status, seconds, message)


def _say_of(say: Callable[[str], None], model: str, text: str) -> None:
    say(f"{model}  {text}")


def _here(
    todo: Sequence[_Job], folders: Folders, options: Options, total: int, say: Callable[[str], None]
) -> Iterator[Outcome]:
    for number, job in enumerate(todo, start=total - len(todo) + 1):
        yield execute_run(job, folders, options, f"run {number}/{total}", say)


def _in_processes(todo: Sequence[_Job], folders: Folders, options: Options, jobs: int, total: int) -> Iterator[Outcome]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=ignore_interrupt) as pool:
        try:
            futures = [
                pool.submit(execute_run, job, folders, options, f"run {number}/{total}", print_line)
                for number, job in enumerate(todo, start=total - len(todo) + 1)
            ]
            for future in as_completed(futures):
                yield future.result()
        except BaseException:  # Ctrl-C or a failing run: the rest must not go on; its checkpoints stand
            pool.shutdown(wait=False, cancel_futures=True)
            for child in multiprocessing.active_children():
                child.terminate()
            raise


def _needed(run: Run, plan: Plan) -> dict[str, Manifest]:
    return {name: plan.manifests[name] for name in sorted(set(run.split.table["corpus"]))}


def ignore_interrupt() -> None:
    """Leave Ctrl-C to the process that started this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def print_line(text: str) -> None:
    """Progress of a process that has no other way to say it."""
    print(text, file=sys.stderr, flush=True)


def write_clips(root: Path, manifests: Sequence[Manifest]) -> None:
    """Write what the evaluation needs to know of the clips; rows of other corpora that stand there already stay."""
    file = root / run_folder.CLIPS
    tables = [
        manifest.clips[[*run_folder.CLIP_COLUMNS, *(run_folder.VOTES_PREFIX + label for label in manifest.votes)]]
        .astype(str)
        .join(clip_columns(manifest))
        for manifest in manifests
    ]
    if file.is_file():
        before = run_folder.read_table(file, run_folder.CLIP_COLUMNS)
        tables.append(before[~before["corpus"].isin([manifest.corpus for manifest in manifests])])
    table = pd.concat(tables).fillna("").sort_values(["corpus", "path"])
    votes = sorted(column for column in table.columns if column not in run_folder.CLIP_COLUMNS)
    run_folder.write_table(file, table[[*run_folder.CLIP_COLUMNS, *votes]])


def write_plan(root: Path, plan: Plan) -> None:
    """Write which runs are to exist; a range of seeds adds to what was planned before, all seeds replace it."""
    file = root / run_folder.PLAN
    runs = {_below(run) for run in plan.runs}
    if plan.experiment.seed_flags and file.is_file():
        runs |= set(run_folder.read_json(file)["runs"])
    contrasts = [list(pair) for pair in plan.experiment.spec.contrasts]
    run_folder.write_json(file, {"runs": sorted(runs)} | ({"contrasts": contrasts} if contrasts else {}))


def _refresh_words(run: Run, folders: Folders) -> None:
    """Bring what is said of a finished run up to date: description, factors, what its encoder has heard."""
    file = folders.runs / run.folder / run_folder.RUN
    record = run_folder.read_json(file)
    words = {
        "description": run.experiment.description,
        "factors": run.model.factors,
        "seen_corpora": seen_corpora(run),
    }
    if any(record.get(key) != value for key, value in words.items()):
        run_folder.write_json(file, record | words)


def _lock(run: Run, folders: Folders) -> contextlib.AbstractContextManager[None]:
    """Hold one run; another process that holds it is an error at once."""
    busy = f"{folders.runs / run.folder}: another process is training this run; wait for it, or stop it first"
    return held(folders.runs, run.folder.as_posix(), busy=busy)


def _below(run: Run) -> str:
    return run.folder.relative_to(run.experiment.name).as_posix()


def _is_finished(
    run: Run, identity: dict[str, Any], folders: Folders, manifests: Mapping[str, Manifest], *, force: bool
) -> bool:
    """Whether the run is there, of the same spec and data; a different one in its place is an error, or moved aside."""
    final = folders.runs / run.folder
    for place in (final, final.with_name(final.name + run_folder.PARTIAL_SUFFIX)):
        if place.exists() and not place.is_dir():
            raise BadInput(f"{place} is in the way: a run needs a folder of this name")
        if not (place / run_folder.SPEC).is_file():
            continue
        old = run_folder.read_json(place / run_folder.SPEC)
        if difference := differences(old, identity):  # perhaps only in keys that came after it
            difference = differences(old | {"model": run.completed(old["model"])}, identity)
        if difference and not force:
            known, now = old.get("manifest_sha256") or {}, identity["manifest_sha256"]
            differing = [name for name in now if name in known and known[name] != now[name]]
            root = folders.runs / run.experiment.name
            difference = difference[:10] + changed_clips(place, root, run.split.table, manifests, differing)
            listing = "\n".join(f"  {line}" for line in difference)
            raise BadInput(
                f"{place} was made from another spec or other data:\n{listing}\n"
                "Give the experiment another name, or use --force to move the old folder aside."
            )
        if difference:
            stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%S%f")
            aside = folders.runs / run.experiment.name / "old" / f"{stamp}-{_below(run).replace('/', '_')}"
            aside.parent.mkdir(exist_ok=True)
            place.rename(aside)
    if not (final / run_folder.RUN).is_file():
        return False
    tested = sorted(set(run.split.table.loc[run.split.table["split"] == "test", "corpus"]))
    needed = [run_folder.SPEC, run_folder.SPLIT, run_folder.HISTORY, *map(run_folder.prediction_file, tested)]
    if gone := [name for name in needed if not (final / name).is_file()]:
        raise BadInput(f"{final} is damaged: {', '.join(gone)} is not there; delete the folder and train again")
    return True


def execute_run(job: _Job, folders: Folders, options: Options, prefix: str, say: Callable[[str], None]) -> Outcome:
    """Train one run, or go on where a kill left it; leaves the run folder whole or `.partial`."""
    run, started = job.run, time.monotonic()
    name = f"{prefix}  {_below(run)}"

    def report(text: str) -> None:
        say(f"{name}  {text}")

    try:
        with _lock(run, folders):
            status = "already finished"  # by another process, in the meantime
            if not _is_finished(run, job.identity, folders, job.manifests, force=False):
                status = "finished"
                if isinstance(run.model, ClassicalSpec):
                    train = train_classical
                else:
                    train = functools.partial(
                        train_run, loader_workers=options.loader_workers, allow_imports=options.allow_imports
                    )
                train(run, job.identity, job.manifests, job.prepared, folders, device=options.device, report=report)
            if further := lacking(run, job.prepared, folders, force=options.force):
                if status == "already finished":
                    status = "tested under further conditions"
                add_conditions(run, further, job.prepared, folders, device=options.device, report=report)
    except Finding as finding:
        return Outcome(run.folder, "failed", time.monotonic() - started, str(finding))
    except (OSError, RuntimeError, SafetensorError) as error:
        if not _is_disk_full(error, folders):
            raise
        raise BadInput(
            f"no space left on the disk of {folders.runs} or {folders.cache} while running {run.folder}; "
            "free some and run the same command again: it goes on from the last checkpoint"
        ) from error
    finally:
        gc.collect()  # the Trainer's cycles would keep clips and weights of runs that are done
    return Outcome(run.folder, status, time.monotonic() - started)


def _is_disk_full(error: BaseException, folders: Folders) -> bool:
    """Whether a failed write was for lack of space; torch and safetensors say so in their own ways."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return True
    if "No space left" in str(error) or "os error 28" in str(error):
        return True
    written = "PytorchStreamWriter" in str(error) or "unexpected pos" in str(error)
    return written and shutil.disk_usage(folders.runs).free < 1 << 20
