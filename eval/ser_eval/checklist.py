"""A checklist for papers, filled in from the runs: what a reader must know to believe a figure and to repeat it.

What the records say is ticked and told; what nobody but the authors can say is left open. docs/reporting.md says why
each point is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ser_eval.cells import Cell, make_cells
from ser_eval.chosen import card_lines
from ser_eval.errors import BadInput
from ser_eval.run_folder import (
    ENVIRONMENT,
    METRICS,
    NONE,
    RESULT_COLUMNS,
    RESULT_KEYS,
    RESULTS,
    STATS,
    RunFolder,
    counted_runs,
    find_runs,
    planned_runs,
    read_table,
    remote_code,
    run_name,
    seen_words,
    spent,
    trained,
)

_SHOWN = 6
CHOSEN = ("search", "tuned_on", "settings_tried", "members")
"""Keys of run.json, one of which a run has whose settings something has chosen, or which has none of its own."""


@dataclass(frozen=True)
class Point:
    """One point of the list."""

    title: str
    text: str
    done: bool = True
    """Whether the records answer it; else the authors must."""


def checklist(folder: Path) -> str:
    """The checklist of an evaluated experiment as Markdown, the same for the same files.

    Args:
        folder: `<runs>/<experiment>`

    Raises:
        BadInput: no finished run, no evaluation, or results of other runs than there are
    """
    runs = find_runs(folder)
    if not runs:
        raise BadInput(f"{folder} holds no finished run; train first")
    if not (folder / RESULTS).is_file():
        raise BadInput(f"{folder / RESULTS}: no such file; run `ser eval {folder}` first")
    results = read_table(folder / RESULTS, ["run", *RESULT_KEYS, *RESULT_COLUMNS])
    rows = set(results["run"])
    for run in runs:  # folds of one seed have one row, under the name of the seed
        place = run.path.relative_to(folder)
        if rows.isdisjoint({place.as_posix(), place.with_name(run_name(run.record["seed"], None)).as_posix()}):
            raise BadInput(f"{folder / RESULTS} lacks the run {place.as_posix()}; run `ser eval {folder}` again")
    if unread := [run.path for run in runs if not (run.path / METRICS).is_file()]:
        raise BadInput(f"{unread[0] / METRICS}: no such file; run `ser eval {folder}` again")
    results = results.assign(
        seed=results["seed"].astype(int),
        n_classes=results["n_classes"].astype(int),
        uar=pd.to_numeric(results["uar"], errors="coerce"),
    )
    cells = make_cells(folder, runs, results, pd.DataFrame())
    sections = {
        "Data": _data(runs),
        "Protocol and speakers": _protocol(runs),
        "Seeds and runs": _seeds(folder, runs),
        "Models and selection": _selection(folder, runs),
        "Figures and intervals": _figures(folder, runs, results, cells),
        "To repeat it": _repeat(runs),
        "What only the authors know": _authors(),
    }
    points = [point for section in sections.values() for point in section]
    answered = sum(point.done for point in points)
    lines = [
        f"# Reporting checklist: {folder.name}",
        "",
        f"{answered} of {len(points)} points are answered by the records of {counted_runs(runs)}.",
    ]
    for title, section in sections.items():
        lines += ["", f"## {title}", ""]
        lines += [f"- [{'x' if point.done else ' '}] **{point.title}**: {point.text}" for point in section]
    return "\n".join(lines) + "\n"


def _values(runs: Sequence[RunFolder], key: str) -> list[Any]:
    """The different values of a key of run.json, in order of the runs; none of runs that lack it."""
    found: list[Any] = []
    for run in runs:
        if (value := run.record.get(key)) is not None and value not in found:
            found.append(value)
    return found


def _listed(items: Iterable[Any]) -> str:
    texts = list(dict.fromkeys(str(item) for item in items))
    more = f", ... ({len(texts)} in all)" if len(texts) > _SHOWN else ""
    return ", ".join(texts[:_SHOWN]) + more


def _span(values: Iterable[float]) -> str:
    numbers = sorted(set(values))
    return f"{numbers[0]:g}" if len(numbers) == 1 else f"{numbers[0]:g} to {numbers[-1]:g}"


def _data(runs: Sequence[RunFolder]) -> list[Point]:
    sums: dict[str, set[str]] = {}
    for run in runs:
        for name, digest in run.record["manifest_sha256"].items():
            sums.setdefault(name, set()).add(str(digest))
    told = [f"{name} ({', '.join(sorted(digest[:12] for digest in found))})" for name, found in sorted(sums.items())]
    dropped = {(clip["corpus"], clip["path"]) for run in runs for clip in run.record["dropped"]}
    left_out = {(clip["corpus"], clip["path"]) for run in runs for clip in run.record["left_out"]}
    set_aside = sum(sum(reasons.values()) for reasons in max(_values(runs, "set_aside"), key=len, default={}).values())
    labels = [f"{', '.join(labels)} (K = {len(labels)}, guessing has UAR {1 / len(labels):.3f})" for labels in
              _values(runs, "labels")]  # fmt: skip
    return [
        Point("Corpora, with the SHA-256 of their manifests", _listed(told)),
        Point("Version, licence and source of each corpus", "say them; data/ has a page for each", done=False),
        Point("Classes", "; ".join(labels)),
        Point(
            "Clips that took no part",
            f"{len(dropped)} dropped as unusable, {len(left_out)} left out for their label, {set_aside} set aside by "
            "the corpus itself",
        ),
        Point("Whose labels", "acted, intended or perceived, by how many raters", done=False),
    ]


def _protocol(runs: Sequence[RunFolder]) -> list[Point]:
    protocols = [protocol["name"] for protocol in _values(runs, "protocol")]
    dependent = [run for run in runs if run.record["speaker_dependent"]]
    unknown = [run for run in runs if run.record["speakers_unknown"]]
    shared = [run for run in runs if run.record.get("validation_shares_speakers")]
    speakers = {side: _span(run.record["n_speakers"][side] for run in runs) for side in ("train", "validation", "test")}
    clips = {side: _span(run.record["n_clips"][side] for run in runs) for side in ("train", "validation", "test")}
    if dependent:
        said = f"NO: {len(dependent)} of {len(runs)} runs test speakers that they trained on"
    elif unknown:
        said = f"not known: in {len(unknown)} of {len(runs)} runs the corpus does not name all speakers"
    else:
        said = "yes: no test speaker is in training or validation of any run"
    if shared:
        said += f"; in {len(shared)} runs validation shares speakers with training"
    return [
        Point("Kind of split", _listed(_values(runs, "split_kind"))),
        Point("Published protocol", _listed(protocols) if protocols else "none: the split is this experiment's own"),
        Point("Test speakers apart", said),
        Point("Speakers", "; ".join(f"{count} {side}" for side, count in speakers.items())),
        Point("Clips", "; ".join(f"{count} {side}" for side, count in clips.items())),
        Point("Different splits", f"{len(_values(runs, 'split_sha256'))}; their SHA-256 stand in {RESULTS}"),
    ]


def _seeds(folder: Path, runs: Sequence[RunFolder]) -> list[Point]:
    missing = sorted(set(planned_runs(folder)) - {run.path.relative_to(folder).as_posix() for run in runs})
    folds = _values(runs, "fold")
    pairs = {(run.record["split_seed"], run.record["train_seed"]) for run in runs}
    splits, trains = ({pair[side] for pair in pairs} for side in (0, 1))
    crossed = len(splits) > 1 and len(trains) > 1 and len(pairs) == len(splits) * len(trains)
    return [
        Point("Seeds", _listed(sorted({run.record["seed"] for run in runs}))),
        Point(
            "Split and training seeds",
            f"split seeds: {len(splits)}, training seeds: {len(trains)}, {'crossed' if crossed else 'in pairs'}",
        ),
        Point("Folds", _listed(folds) if folds else "none"),
        Point(
            "Runs that were planned and are missing",
            f"{len(missing)}: {_listed(missing)}" if missing else "none",
            done=not missing,
        ),
    ]


def _selection(folder: Path, runs: Sequence[RunFolder]) -> list[Point]:
    encoders = []
    for run in runs:
        encoder = run.record["encoder"]
        digest = str(encoder.get("sha256") or "")[:12]
        weights = f" ({digest})" if digest else ""
        encoders.append(f"{run.record['model']}: {encoder.get('name')}{weights}{remote_code(run.record)}")
    selected = [str(value) for value in _values(trained(runs), "selected_by")]
    in_epochs = [run for run in trained(runs) if run.spec.get("model", {}).get("kind") != "classical"]
    last = "the last epoch, without validation: not comparable with selected ones"
    by = [name for name in selected if name != "last"]
    ways = [f"by {_listed(by)} on validation speakers; test clips select nothing"] if by else []
    ways += [last] if "last" in selected else []
    chosen = card_lines(folder, runs)
    by_hand = sorted({run.record["model"] for run in runs if not any(run.record.get(key) for key in CHOSEN)})
    if by_hand:
        chosen.append(f"say how those of {_listed(by_hand)} were, and on which clips")
    augmented = [name for name in _values(runs, "augmentation") if name]
    steps = [step.get("kind") for chain in _values(runs, "preprocess") for step in chain]
    return [
        Point("Models and encoders, with the SHA-256 of the weights", _listed(encoders)),
        Point(
            "Corpora that the encoders were pretrained or tuned on",
            _listed(sorted({f"{run.record['model']}: {seen_words(run.record)}" for run in trained(runs)})),
            done=all(run.record.get("seen_corpora") is not None for run in trained(runs)),
        ),
        Point(
            "How the tested checkpoint was selected",
            "; ".join(ways),
        ),
        Point(
            "Epochs",
            f"{_span(run.record['epochs_run'] for run in in_epochs)}, selected {_span(_epochs(in_epochs))}"
            if in_epochs
            else "none: nothing is trained in epochs",
        ),
        Point(
            "How settings (learning rate, layers, ...) were chosen",
            "; ".join(chosen),
            done=not by_hand,
        ),
        Point("Augmentation of training clips", _listed(augmented) if augmented else "none"),
        Point("Preprocessing of every clip", _listed(steps) if steps else "none"),
    ]


def _epochs(runs: Sequence[RunFolder]) -> list[float]:
    return [float(run.record["best_epoch"]) for run in runs]


def _figures(folder: Path, runs: Sequence[RunFolder], results: pd.DataFrame, pooled: Sequence[Cell]) -> list[Point]:
    keys = ["model", "augmentation", "train_corpus", "test_corpus", "condition"]
    cells = []
    for key, group in results.groupby(keys, sort=True):
        name = " ".join(str(part) for part in key if part not in (NONE, ""))
        spread = f" SD {group['uar'].std():.3f}" if len(group) > 1 else ""
        cells.append(f"{name} {group['uar'].mean():.3f}{spread} (n = {len(group)})")
    told = [
        f"{cell.model_name} {cell.train_corpus} {cell.test_name} {cell.interval.low:.3f} to {cell.interval.high:.3f}"
        for cell in pooled
        if cell.interval
    ]
    without = [f"{cell.model_name} {cell.train_corpus} {cell.test_name}" for cell in pooled if not cell.interval]
    speakers = [cell.num_speakers for cell in pooled if cell.num_speakers is not None]
    unknown = [cell for cell in pooled if cell.num_speakers is None]
    analyses = sorted(file.parent.name for file in (folder / STATS).rglob("stats.json"))
    marked = sum(bool(run.record["not_comparable"]) for run in runs)
    return [
        Point("UAR, mean and SD over runs", "; ".join(cells)),
        Point(
            "Interval over speakers",
            "95 %, of the clips of all seeds: " + "; ".join([*told, *(f"{name} none" for name in without)])
            if told
            else "none could be computed: say how sure the figures are",
            done=not without,
        ),
        Point(
            "Test speakers behind a figure",
            "; ".join(
                [
                    *([f"{_span(speakers)} different ones over all seeds"] if speakers else []),
                    *([f"not known for {len(unknown)} of {len(pooled)} figures"] if unknown else []),
                ]
            ),
        ),
        Point(
            "Which difference is real",
            f"stats/ has {len(analyses)} analyses, each with its unit, test, effect size and target of inference"
            if analyses
            else f"no statistics yet: `ser stats {folder}`",
            done=bool(analyses),
        ),
        Point("Figures that are not comparable", f"{marked} of {len(runs)} runs" if marked else "none"),
    ]


def _repeat(runs: Sequence[RunFolder]) -> list[Point]:
    codes = {
        f"{code['version']}, commit {code.get('commit')}{' WITH LOCAL CHANGES' if code.get('dirty') else ''}"
        for code in (run.record["code"] for run in runs)
    }
    lines: dict[str, set[str]] = {"python": set(), "torch": set(), "image": set(), "gpu": set(), "cpu": set()}
    for run in runs:
        file = run.path / ENVIRONMENT
        for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
            name, separator, version = line.partition("==")
            key, _, value = (name, "", version) if separator else line.partition(" ")
            if key in lines:
                lines[key].add(value)
    seconds = sum(float(run.record["seconds"]) for run in runs)
    searches = {found["study"]: float(found["seconds"]) for found in _values(runs, "search")}
    searched = f", and {spent(sum(searches.values()))} for the searches" if searches else ""
    machine = "; ".join(f"{key} {_listed(sorted(values))}" for key, values in lines.items() if values)
    known = all(run.record["code"].get("commit") and not run.record["code"].get("dirty") for run in runs)
    return [
        Point("Code", _listed(sorted(codes)), done=known),
        Point("Machine and versions", machine or "not recorded", done=bool(machine)),
        Point("Device, threads", f"{_listed(_values(runs, 'device'))}; {_listed(_values(runs, 'threads'))} threads"),
        Point("Time of computation", f"{spent(seconds)} for the runs{searched}; filling the caches is not counted"),
        Point("An archive that others can check", "`ser bundle`, and where it is to be had", done=False),
    ]


def _authors() -> list[Point]:
    return [
        Point("What was tried and is not reported", "experiments, models, settings", done=False),
        Point("What was decided before the results were seen", "hypotheses, margin, tests", done=False),
        Point("Consent and use", "whether speakers agreed to this use, and who may be harmed by it", done=False),
        Point("Limits", "acted speech, language, recording, ages; what a UAR here says of life outside", done=False),
    ]
