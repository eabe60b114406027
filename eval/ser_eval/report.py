"""report.html: one self-contained page for a reviewer and for a newcomer, and the figures it shows.

It holds what a number needs to be read: the protocol card, the spread over seeds, the interval over speakers, the
shortcut baselines, and a stamp on everything that must not be compared.
"""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from ser_eval import figures
from ser_eval.band import bandwidth_words
from ser_eval.cells import STAMPS, Cell
from ser_eval.chosen import Choice, card_lines, choices
from ser_eval.evaluate import Summary
from ser_eval.markdown import to_html
from ser_eval.ratings import RATING_BASELINES
from ser_eval.robustness import Drop
from ser_eval.run_folder import (
    NONE,
    REPORT,
    STATS,
    RunFolder,
    counted_runs,
    is_derived,
    read_json,
    remote_code,
    seen_words,
    spent,
    trained,
    write_text,
)
from ser_eval.shortcuts import BASELINES

HTML = "report.html"
FIGURES = "figures"
LISTED = 12
"""How many checksums, clips or missing runs are printed before the rest is only counted."""

STAMP_MEANING = {
    "RATINGS ONLY": "A model predicts ratings and names no emotion. Its accuracy and its probabilities are those of an "
    "even guess; what counts is the CCC.",
    "SPEAKER-DEPENDENT": "People who are tested were also heard in training. Such numbers are far higher than what the "
    "model reaches on new people.",
    "VALIDATION SHARES SPEAKERS": "People who train the model also select its epoch, as a published protocol has it. "
    "Nobody who is tested was heard, but the epoch may suit the wrong people.",
    "SPEAKERS UNKNOWN": "The corpus does not say who speaks. Nobody can rule out that people who are tested were also "
    "heard in training, and there is no interval over speakers.",
    "NOT COMPARABLE": "The protocol breaks a rule of honest testing on purpose, to reproduce a published one. Do not "
    "set these numbers beside others.",
    "MERGED LABELS": "Emotions of a corpus were put together into one class (the protocol card says which). That is "
    "another task: do not set these numbers beside those of the corpus' own emotions, even with as many classes.",
    "SEEN IN PRETRAINING": "The encoder was pretrained or tuned on this corpus before anything was trained here (its "
    "model JSON says so), perhaps on the very people who are tested. Do not set these numbers beside those of encoders "
    "that never heard it.",
    "BAND-LIMITED": "The audio of a corpus ends far below the 8 kHz that the model listens up to (the protocol card "
    "says where). The numbers are not comparable with those from 16 kHz audio, and say nothing about telephone speech.",
    "NO TELEPHONE CONCLUSION": "A test condition takes the upper band away from audio that never had it. What is lost "
    "there, or not lost, says nothing about telephones.",
    "TRANSDUCTIVE": "A model's answers were corrected by how frequent the emotions are among the test clips, estimated "
    "without their labels but from all of them together. It cannot be had for one clip alone: do not set these numbers "
    "beside those of models that hear one clip at a time.",
}
METRIC_NAMES = {"uar": "UAR", "accuracy": "accuracy", "macro_f1": "macro F1", "ccc": "mean CCC"}
SELECTION = {
    "val_uar": "highest UAR on the validation side",
    "val_accuracy": "highest accuracy on the validation side",
    "val_loss": "lowest loss on the validation side",
    "val_ccc": "highest mean CCC on the validation side",
    "last": "none: the last epoch",
    "inner_uar": "highest UAR of left-out training speakers",
}


@dataclass(frozen=True)
class Comparison:
    """The cells that may stand side by side: one training set, test corpus, condition, set of classes, and stamps."""

    train: str
    test: str
    cells: list[Cell]
    """Highest mean UAR first."""
    overview: str

    @property
    def stamps(self) -> list[str]:
        """The stamps that its protocols carry."""
        return self.cells[0].stamps


@dataclass(frozen=True)
class Robustness:
    """What the models of one training set lose on one test corpus under the conditions."""

    train: str
    test: str
    drops: list[Drop]
    figure: str


@dataclass(frozen=True)
class Calibration:
    """What temperature scaling, fitted on the validation clips of each run, does to the test clips of one cell."""

    cell: Cell
    temperature: tuple[float, float | None]
    """Mean and SD over runs."""
    scores: list[tuple[str, tuple[float, float | None], tuple[float, float | None]]]
    """(name, before, after), mean and SD over runs."""
    n_validation: str
    num_at_bound: int
    figure: str


@dataclass(frozen=True)
class Detail:
    """The figures of one cell, as data URIs."""

    cell: Cell
    confusion: str
    per_class: str
    genders: list[tuple[str, str, int, int | None, float, float, int]]
    """(gender, confusion, clips, speakers, accuracy, mean recall over classes present, number of these classes)"""


def write_report(summary: Summary) -> Path:
    """Write `report/report.html` and `report/figures/` of an evaluated experiment; returns the page."""
    folder = summary.folder / REPORT
    shutil.rmtree(folder / FIGURES, ignore_errors=True)
    (folder / FIGURES).mkdir(parents=True)
    comparisons = [_comparison(folder / FIGURES, cells) for cells in _comparable(summary.cells)]
    ordered = [cell for comparison in comparisons for cell in comparison.cells]
    first = summary.runs[0].record
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ser_eval"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"number": _number, "mean_sd": _mean_sd, "listed": _listed}
    environment.filters["metric"] = METRIC_NAMES.__getitem__
    environment.filters["shortcut"] = BASELINES.__getitem__
    page = environment.get_template("report.html").render(
        experiment=first["experiment"],
        description=first["description"],
        headline=[_headline(one) for one in comparisons if one.cells[0].condition == NONE],
        robustness=_robustness(folder / FIGURES, summary.drops),
        several_models=any(len(comparison.cells) > 1 for comparison in comparisons),
        stamps=_stamps(summary.cells),
        stamp_meaning=STAMP_MEANING,
        rating_baseline=RATING_BASELINES,
        comparisons=comparisons,
        details=[_detail(folder / FIGURES, cell) for cell in ordered],
        calibrations=_calibrations(folder / FIGURES, ordered),
        curves=_curves(folder / FIGURES, summary.runs),
        cards=[
            _card(summary.folder, list(runs), ordered, summary.bandwidth_hz)
            for _, runs in groupby(_by_training_set(summary.runs), _training_set)
        ],
        encoders=_encoders(summary.runs),
        choices=[_chosen(one) for one in choices(summary.folder, summary.runs)],
        missing=summary.missing,
        notes=summary.notes,
        ratings=_ratings(summary),
        folds=summary.folds.sort_values(["model", "augmentation", "train_corpus", "test_corpus", "seed", "fold"]),
        stats=_stats(summary.folder),
        commands=_commands(summary),
        num_runs=len(summary.runs),
    )
    write_text(folder / HTML, page)
    return folder / HTML


def _stamps(cells: Iterable[Cell]) -> list[str]:
    carried = {stamp for cell in cells for stamp in cell.stamps}
    return [stamp for stamp in STAMPS if stamp in carried]


def _comparable(cells: Sequence[Cell]) -> list[list[Cell]]:
    """Cells grouped for one table each; within a group the highest mean UAR first, undefined ones last."""

    def group(cell: Cell) -> tuple[list[str], str, bool, str, str, tuple[str, ...]]:
        across = cell.test_corpus not in cell.train_corpus.split("+")
        condition = "" if cell.condition == NONE else cell.condition  # clean first
        return (cell.stamps, cell.train_corpus, across, cell.test_corpus, condition, cell.labels)

    def rank(cell: Cell) -> tuple[bool, float, str]:
        mean = cell.mean_sd("uar")[0]
        return (mean is None, -(mean or 0.0), cell.model_name)

    return [sorted(members, key=rank) for _, members in groupby(sorted(cells, key=group), group)]


def _comparison(folder: Path, cells: list[Cell]) -> Comparison:
    first = cells[0]
    name = "--".join(["overview", first.train_corpus, first.test_name, str(len(first.labels)), *first.stamps])
    return Comparison(
        train=first.train_corpus.replace("+", " + "),
        test=first.test_name,
        cells=cells,
        overview=_inline(figures.write_overview(folder, name.replace(" ", "-").lower(), cells)),
    )


def _robustness(folder: Path, drops: Sequence[Drop]) -> list[Robustness]:
    """Per training set, test corpus and set of classes, in the order of the drops."""

    def group(drop: Drop) -> tuple[str, str, tuple[str, ...]]:
        return (drop.cell.train_corpus, drop.cell.test_corpus, drop.cell.labels)

    parts = []
    for (train, test, labels), members in groupby(drops, group):
        mine = list(members)
        file = figures.write_robustness(folder, f"robustness--{train}--{test}--{len(labels)}".lower(), mine)
        parts.append(Robustness(train.replace("+", " + "), test, mine, _inline(file)))
    return parts


def _ratings(summary: Summary) -> list[dict[str, Any]]:
    """The rows of ratings.csv, missing values as None."""
    table = summary.ratings.astype(object)
    table = table.where(table.notna(), None)
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def _headline(comparison: Comparison) -> dict[str, Any]:
    """The best model of a comparison, in the parts of a sentence."""
    cell = comparison.cells[0]
    mean, sd = cell.mean_sd("uar")
    others = [] if mean is None else comparison.cells[1:]
    return {
        "comparison": comparison,
        "cell": cell,
        "alike": [one.model_name for one in others if one.mean_sd("uar")[0] == mean],
        "mean": mean,
        "sd": sd,
        "of_100": None if mean is None else round(100 * mean),
        "guess_of_100": round(100 * cell.chance),
    }


def _detail(folder: Path, cell: Cell) -> Detail:
    genders = []
    for gender, counts in cell.gender_counts.items():
        file = figures.write_confusion(folder, cell, counts, gender)
        support = counts.sum(axis=1)
        recalls = counts.diagonal()[support > 0] / support[support > 0]
        genders.append(
            (
                gender,
                _inline(file),
                int(support.sum()),
                cell.gender_speakers[gender],
                float(counts.trace() / counts.sum()),
                float(recalls.mean()),
                len(recalls),
            )
        )
    return Detail(
        cell=cell,
        confusion=_inline(figures.write_confusion(folder, cell, cell.counts)),
        per_class=_inline(figures.write_per_class(folder, cell)),
        genders=genders,
    )


SCORE_NAMES = {"nll": "NLL", "brier": "Brier", "ece": "ECE", "classwise_ece": "classwise ECE"}


def _calibrations(folder: Path, cells: Sequence[Cell]) -> list[Calibration]:
    """Of the cells whose runs kept their validation predictions."""
    found = []
    for cell in cells:
        kept = [tested["calibration"] for tested in cell.tested if "temperature" in tested.get("calibration", {})]
        if not kept:
            continue
        file = figures.write_reliability(
            folder, cell, [one["before"]["bins"] for one in kept], [one["after"]["bins"] for one in kept]
        )
        found.append(
            Calibration(
                cell=cell,
                temperature=_spread([one["temperature"] for one in kept]),
                scores=[
                    (name, _spread([one["before"][key] for one in kept]), _spread([one["after"][key] for one in kept]))
                    for key, name in SCORE_NAMES.items()
                ],
                n_validation=_span(one["n_validation"] for one in kept),
                num_at_bound=sum(one["at_bound"] for one in kept),
                figure=_inline(file),
            )
        )
    return found


def _spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and SD (ddof 1)."""
    numbers = pd.Series(values, dtype=float)
    return float(numbers.mean()), float(numbers.std(ddof=1)) if len(numbers) > 1 else None


def _curves(folder: Path, runs: Sequence[RunFolder]) -> list[tuple[str, int, str]]:
    """(model and training set, number of runs, figure) of everything that was trained."""

    def key(run: RunFolder) -> tuple[str, str]:
        augmentation = run.record["augmentation"]
        model = run.record["model"] + (f"+{augmentation}" if augmentation else "")
        return model, "+".join(run.record["train_corpora"])

    curves = []
    own = [run for run in runs if not is_derived(run)]
    for (model, train), group in groupby(sorted(own, key=lambda run: (key(run), run.path)), key):
        members = list(group)
        file = figures.write_training_curves(
            folder,
            f"training--{model}--{train}",
            [run.history() for run in members],
            [run.record["best_epoch"] for run in members],
        )
        curves.append((f"{model}, trained on {train.replace('+', ' + ')}", len(members), _inline(file)))
    return curves


def _training_set(run: RunFolder) -> str:
    return "+".join(run.record["train_corpora"])


def _by_training_set(runs: Sequence[RunFolder]) -> list[RunFolder]:
    return sorted(runs, key=lambda run: (_training_set(run), run.path))


def _card(folder: Path, runs: list[RunFolder], cells: Sequence[Cell], bandwidth_hz: dict[str, float]) -> dict[str, Any]:
    """The protocol card of one training set: what a reviewer must know before believing a number."""
    records = [run.record for run in runs]
    first = records[0]
    own = [run.record for run in trained(runs)]
    train = _training_set(runs[0])
    splits = {record["split_sha256"] for record in records}
    possible = {record["splits_possible"] for record in records}
    dropped = {(clip["corpus"], clip["path"], clip["reason"]) for record in records for clip in record["dropped"]}
    left_out = {(clip["corpus"], clip["path"], clip["class_id"]) for record in records for clip in record["left_out"]}
    unknown: dict[str, int] = {}
    for corpus, _, label in left_out:
        unknown[f"{corpus}: {label}"] = unknown.get(f"{corpus}: {label}", 0) + 1
    seeds = sorted({record["seed"] for record in records})
    commits = {(record["code"]["commit"], record["code"]["dirty"], record["code"]["version"]) for record in records}
    mine = [cell for cell in cells if cell.train_corpus == train]
    tested = dict.fromkeys((cell.test_name, cell.labels, protocol) for cell in mine for protocol in cell.protocols)
    return {
        "train": train.replace("+", " + "),
        "labels": first["labels"],
        "tested": list(tested),
        "chance": first["chance_uar"],
        "clips": {side: _span(record["n_clips"][side] for record in records) for side in first["n_clips"]},
        "speakers": {side: _span(record["n_speakers"][side] for record in records) for side in first["n_speakers"]},
        "dropped": sorted(dropped),
        "left_out": sorted(unknown.items()),
        "relabelled": _relabelled(records),
        "protocol": first.get("protocol"),
        "not_shared": sorted(
            {
                (corpus, label)
                for record in records
                for corpus, classes in record.get("not_shared", {}).items()
                for label in classes
            }
        ),
        "manifests": sorted({item for record in records for item in record["manifest_sha256"].items()}),
        "bandwidths": [
            (corpus, bandwidth_words(bandwidth_hz[corpus]))
            for corpus in sorted({*train.split("+"), *(cell.test_corpus for cell in mine)})
        ],
        "split_kinds": sorted({record["split_kind"] for record in records}),
        "has_folds": first["fold"] is not None,
        "splits": sorted(splits),
        "possible": possible.pop() if len(possible) == 1 and first["fold"] is None else None,  # a fold counts its own
        "split_notes": sorted({note for record in records for note in record["split_notes"]}),
        "seeds": _ranges(seeds),
        "num_seeds": len(seeds),
        "split_seeds": _ranges(sorted({record["split_seed"] for record in records})),
        "train_seeds": _ranges(sorted({record["train_seed"] for record in records})),
        "by_the_book": not any(record["not_comparable"] for record in records),
        "selected_by": sorted({SELECTION.get(record["selected_by"], record["selected_by"]) for record in own}),
        "epochs": _span(run.record["epochs_run"] for run in trained(runs) if not _classical(run)),
        "settings": card_lines(folder, runs),
        "remote_code": sorted(
            {f"{record['encoder']['name']}{said}" for record in records if (said := remote_code(record))}
        ),
        "preprocess": [_step(step) for step in runs[0].spec.get("experiment", {}).get("preprocess", [])],
        "conditions": sorted(
            {
                (name, _condition(content))
                for record in records
                for name, content in record.get("conditions", {}).items()
            }
        ),
        "code": [
            f"version {version}, commit {commit or 'unknown'}{' with uncommitted changes' if dirty else ''}"
            for commit, dirty, version in sorted(commits, key=str)
        ],
        "devices": sorted({f"{record['device']}, {record['threads']} thread(s)" for record in records}),
        "time": spent(sum(record["seconds"] for record in records)),
        "runs": counted_runs(runs),
    }


def _classical(run: RunFolder) -> bool:
    """Whether a run was fitted at once, and not trained in epochs."""
    return bool(run.spec.get("model", {}).get("kind") == "classical")


def _relabelled(records: Sequence[dict[str, Any]]) -> list[tuple[str, int]]:
    """(`<corpus>: <label> -> <class>`, clips), sorted; old records know no merged labels."""
    moves = {
        f"{corpus}: {move.replace('->', ' -> ')}": int(count)
        for record in records
        for corpus, counts in record.get("relabelled", {}).items()
        for move, count in counts.items()
    }
    return sorted(moves.items())


def _encoders(runs: Sequence[RunFolder]) -> list[tuple[str, str, str, str, str]]:
    """(model, encoder, revision, SHA-256 of the weights, what it had heard before), each once."""
    rows = set()
    for run in runs:
        encoder = run.record["encoder"]
        rows.add(
            (
                run.record["model"],
                str(encoder["name"]) + remote_code(run.record),
                "–" if is_derived(run) else str(encoder["revision"] or "none recorded"),
                "–" if is_derived(run) else str(encoder["sha256"] or "none: random weights"),
                seen_words(run.record),
            )
        )
    return sorted(rows)


def _chosen(choice: Choice) -> tuple[Choice, str | None]:
    """A choice of settings and the picture of its first study, as a data URI."""
    return choice, None if choice.picture is None else _inline(choice.picture)


def _commands(summary: Summary) -> list[str]:
    experiment = summary.runs[0].record["experiment"]
    return [
        f"ser train experiments/{experiment}.json",
        f"ser eval experiments/{experiment}.json",
        f"ser stats experiments/{experiment}.json",
    ]


def _stats(folder: Path) -> list[Markup]:
    """The reports of `ser stats` as HTML: one, or one of each analysis; none where it has not run."""
    file = folder / STATS / "report.md"
    if not file.is_file():
        return []
    content = read_json(folder / STATS / "stats.json") if (folder / STATS / "stats.json").is_file() else {}
    parts = [(folder / STATS / name).with_name("report.md") for name in content.get("analyses", {}).values()]
    reports = [part for part in parts if part.is_file()] or [file]
    return [Markup(to_html(part.read_text(encoding="utf-8"), folder=part.parent)) for part in reports]  # escaped there


def _step(step: dict[str, Any]) -> str:
    values = ", ".join(f"{name} {value}" for name, value in sorted(step.items()) if name != "kind")
    return f"{step['kind']} ({values})" if values else str(step["kind"])


def _condition(content: dict[str, Any]) -> str:
    """What a condition does to a test clip, in order."""
    steps = [_step({key: value for key, value in step.items() if value is not None}) for step in content["steps"]]
    return ", then ".join([*([f"read from {content['twin']}"] if content["twin"] else []), *steps])


def _span(values: Iterable[float]) -> str:
    """`12`, or `10 to 12` where the runs differ."""
    found = sorted(set(values))
    if not found:
        return "none"
    return f"{found[0]:g}" if len(found) == 1 else f"{found[0]:g} to {found[-1]:g}"


def _ranges(numbers: Sequence[int]) -> str:
    """`0-4, 7` for 0, 1, 2, 3, 4, 7."""
    parts = []
    for _, run in groupby(enumerate(numbers), lambda item: item[1] - item[0]):
        members = [number for _, number in run]
        parts.append(str(members[0]) if len(members) == 1 else f"{members[0]}-{members[-1]}")
    return ", ".join(parts)


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None or pd.isna(value) else f"{value:.{digits}f}"


def _mean_sd(pair: tuple[float | None, float | None], digits: int = 3) -> str:
    mean, sd = pair
    return _number(mean, digits) if sd is None else f"{_number(mean, digits)} ± {_number(sd, digits)}"


def _listed(items: Sequence[Any], limit: int = LISTED) -> str:
    shown = [str(item) for item in items[:limit]]
    return ", ".join(shown) + (f" and {len(items) - limit} more" if len(items) > limit else "")


def _inline(file: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(file.read_bytes()).decode("ascii")
