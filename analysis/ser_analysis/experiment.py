"""Statistics of an experiment: `ser stats runs/<experiment>`."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ser_analysis import blocked, rating_level, speaker_level, wording
from ser_analysis.methods import components, mcnemar
from ser_analysis.output import (
    OF_CLIPS,
    REPORT_MD,
    STATS_JSON,
    Analysis,
    StatsResult,
    provenance,
    records,
    remove_stale,
    write,
)
from ser_analysis.scores import CCC, Scores, is_ccc, natural, need_columns, numbers, pivot, read_text_table, rows_of
from ser_eval.errors import BadInput
from ser_eval.run_folder import (
    FOLDS,
    METRICS,
    NONE,
    PLAN,
    RESULT_KEYS,
    RESULTS,
    STATS,
    RunFolder,
    find_runs,
    planned_contrasts,
    planned_runs,
    prediction_file,
    read_json,
    read_predictions,
    run_name,
    write_json,
    write_text,
)

UAR, BLOCK = "uar", "split"
ACROSS = "across-training-corpora"
"""The analysis that compares them, beside the one of each."""
NEEDED = [
    *RESULT_KEYS, "train_corpus", "test_corpus", "condition", "protocol", "seed", "split_sha256", "fold", "n_classes",
    "n_train", "n_test", "n_test_speakers", UAR,
]  # fmt: skip


def stats_of_experiment(folder: Path, *, margin: float | None = None, dv: str | None = None) -> StatsResult:
    """Analyse `<folder>/results.csv` and write `<folder>/stats/`, or with another score than the default one
    `<folder>/stats-<score>/`.

    The block is the split (`split_sha256`) of one training corpus; runs that share it are averaged, and the output says
    so. Within factors: the factors that the model JSONs declare, when the models fill their full grid, else the model;
    and the test corpus and condition where there are several. Each training corpus is an analysis of its own (and where
    several share models and test sets, one more compares them, as a factor between blocks), and so is
    each test set when they differ in the number of classes, since UAR over different K must not be averaged. With one
    analysis its files lie in `stats/`, with several in `stats/<name>/`.

    Ratings: whatever the score, tables and a section tell every dimension in short, over splits and over speakers.

    Args:
        folder: the run folder of the experiment
        margin: what difference of the score counts as none, for equivalence; 0.01 when absent
        dv: the score: `uar`, `ccc` (mean over the dimensions that all models predict) or `ccc_<dimension>`; `uar` when
            absent, in experiments of ratings alone `ccc`, or that of the only dimension

    Raises:
        BadInput: there is no results.csv, it is not one that the evaluation wrote, or not of the runs that there are;
            it has no such score, or no row has one
    """
    if margin is not None and not 0 < margin < 1:
        raise BadInput(f"--margin {margin:g} must lie between 0 and 1: a difference of UAR or CCC, 0.01 for one point")
    file = folder / RESULTS
    if not file.is_file():
        raise BadInput(f"{file}: no such file; run `ser eval {folder}` first")
    table = _read(file, folder)
    need_columns(table, NEEDED, str(file))
    rated = [name for name in table.columns if is_ccc(name)]
    for column in ("n_classes", "n_train", "n_test", "n_test_speakers", UAR, *rated):
        table[column] = numbers(table, column, str(file))
    for column in ("augmentation", "condition", "fold"):
        table[column] = table[column].replace("", NONE)
    table["name"] = _joined(table["model"], table["augmentation"], "+")
    table["place"] = _joined(table["test_corpus"], table["condition"], "@")
    _refuse(table, file)
    runs = find_runs(folder)
    _refuse_stale(table, folder, runs)
    dimensions, shared_dimensions, facts = _dimensions(table)
    measured = {f"{CCC}_{name}": [name] for name in dimensions}
    if len(shared_dimensions) > 1:
        measured = {CCC: shared_dimensions, **measured}
    default, dv = _score(table, measured, dv, str(file))
    unscored = table[dv].isna()
    left_out = [f"{row['run']} on {row['place']}" for row in rows_of(table[unscored])]
    if left_out:
        facts.insert(0, f"{len(left_out)} rows have no {wording.label(dv)} and are left out: {'; '.join(left_out)}.")
    scored = table[~unscored]
    facts += _unfinished(folder, runs)
    contrasts = _contrasts(folder, table)
    origin = provenance(file, {"spec_digests": sorted({str(run.record.get("spec_digest")) for run in runs})})
    analyses = {}
    for train_corpus, group in scored.groupby("train_corpus", sort=True):
        parts = {str(train_corpus): group}
        if dv == UAR and group["n_classes"].nunique() > 1:
            parts = {f"{train_corpus}-on-{place}": part for place, part in group.groupby("place", sort=True)}
        for name, part in parts.items():
            alone = len(parts) > 1
            analyses[name] = _analyse(
                part, folder, [str(train_corpus)], origin, facts, runs, alone, margin, contrasts, dv
            )
            if measured:
                of_ratings = table[(table["train_corpus"] == train_corpus)]
                if alone:
                    of_ratings = of_ratings[of_ratings["place"] == name.removeprefix(f"{train_corpus}-on-")]
                _ratings(of_ratings, folder, runs, analyses[name], contrasts, measured, dv, margin)
            blocked.plain_words(analyses[name], _cross_tested(part))
    shared = _across(scored, dv)
    if len(shared):
        corpora = sorted(set(shared["train_corpus"]))
        analyses[ACROSS] = _analyse(shared, folder, corpora, origin, facts, runs, False, margin, contrasts, dv)
        blocked.plain_words(analyses[ACROSS], _cross_tested(shared))
    return _write(folder / (STATS if dv == default else f"{STATS}-{dv}"), analyses, origin)


def _dimensions(table: pd.DataFrame) -> tuple[list[str], list[str], list[str]]:
    """The dimensions of ratings that results.csv scores, those of the mean, and what has to be said of it.

    `ccc` becomes the mean over the dimensions that every model with ratings predicts: means over others would compare
    valence with arousal.
    """
    everything = [name.removeprefix(f"{CCC}_") for name in table.columns if name.startswith(f"{CCC}_")]
    of_model = {
        str(name): [one for one in everything if group[f"{CCC}_{one}"].notna().any()]
        for name, group in table.groupby("name", sort=True)
    }
    of_model = {name: found for name, found in of_model.items() if found}
    dimensions = [one for one in everything if any(one in found for found in of_model.values())]
    shared = [one for one in dimensions if all(one in found for found in of_model.values())]
    table[CCC] = table[[f"{CCC}_{one}" for one in shared]].mean(axis=1, skipna=False) if shared else math.nan
    if shared == dimensions:
        return dimensions, shared, []
    each = "; ".join(f"{name} {', '.join(found)}" for name, found in of_model.items())
    mean = (
        f"the mean CCC is over {', '.join(shared)}, which all of them predict"
        if len(shared) > 1
        else "no mean is taken"
    )
    return dimensions, shared, [f"Models differ in the dimensions that they predict ({each}): {mean}."]


def _score(table: pd.DataFrame, measured: Mapping[str, Sequence[str]], dv: str | None, source: str) -> tuple[str, str]:
    """The score that is analysed by default, and the one that is."""
    known = [*([UAR] if table[UAR].notna().any() else []), *measured]
    known = [name for name in known if table[name].notna().any()]
    if not known:
        raise BadInput(f"{source}: no row has a {UAR}, and none a CCC of ratings")
    if dv == CCC and len(measured) == 1:
        dv = next(iter(measured))
    if dv is not None and dv not in known:
        raise BadInput(f"{source}: --dv '{dv}': no row has such a score; there are {', '.join(known)}")
    default = known[0]
    if default not in (UAR, CCC):  # no mean is there: the dimension that most rows have
        default = max(known, key=lambda name: len(table[name].dropna()))
    return default, dv or default


def _across(scored: pd.DataFrame, dv: str) -> pd.DataFrame:
    """The rows that compare training corpora: models and test sets that all of them have; none where they have none."""
    groups = [group for _, group in scored.groupby("train_corpus", sort=True)]
    if len(groups) < 2 or (dv == UAR and scored["n_classes"].nunique() > 1):
        return scored.head(0)
    rows = pd.Series(True, index=scored.index)
    for column in ("name", "place"):
        rows &= scored[column].isin(set.intersection(*(set(group[column]) for group in groups)))
    return scored[rows]


def _unfinished(folder: Path, runs: list[RunFolder]) -> list[str]:
    """A remark on the runs of plan.json that are not there."""
    missing = sorted(set(planned_runs(folder)) - {_name(folder, run) for run in runs})
    more = f" and {len(missing) - 10} more" if len(missing) > 10 else ""
    return [f"{len(missing)} planned runs are not finished: {', '.join(missing[:10])}{more}."] if missing else []


def _read(file: Path, folder: Path) -> pd.DataFrame:
    """A table that the evaluation wrote."""
    try:
        return read_text_table(file)
    except BadInput as error:
        raise BadInput(f"{error}; first: ser eval {folder}") from None


def _name(folder: Path, run: RunFolder) -> str:
    """What results.csv and folds.csv call a run."""
    return run.path.relative_to(folder).as_posix()


def _seed_name(folder: Path, run: RunFolder) -> str:
    """What results.csv calls the pooled folds of the seed of a run."""
    return (run.path.parent.relative_to(folder) / run_name(run.record["seed"], None)).as_posix()


def _refuse_stale(table: pd.DataFrame, folder: Path, runs: list[RunFolder]) -> None:
    """Refuse results.csv where it was not made from exactly the runs that are there.

    A fold stands in folds.csv, and pooled in results.csv when its seed is complete; a run of which no test corpus can
    be scored stands nowhere. A run trained anew has no metrics.json yet.
    """
    pooled = table["fold"] == "all"
    told, told_pooled = set(table.loc[~pooled, "run"]), set(table.loc[pooled, "run"])
    if (folder / FOLDS).is_file():
        folds = _read(folder / FOLDS, folder)
        need_columns(folds, ["run"], str(folder / FOLDS))
        told |= set(folds["run"])
    new = [
        _name(folder, run)
        for run in runs
        if not (run.path / METRICS).is_file()
        or (_name(folder, run) not in told and read_json(run.path / METRICS) != {})
    ]
    if new:
        raise BadInput(f"{len(new)} finished run(s) are not in {RESULTS}, e.g. {new[0]}; first: ser eval {folder}")
    gone = sorted(told - {_name(folder, run) for run in runs})
    gone += sorted(told_pooled - {_seed_name(folder, run) for run in runs})
    if gone:
        raise BadInput(f"{len(gone)} run(s) of {RESULTS} are no longer there, e.g. {gone[0]}; first: ser eval {folder}")


def _analyse(
    part: pd.DataFrame,
    folder: Path,
    train_corpora: list[str],
    origin: dict[str, Any],
    facts: list[str],
    runs: list[RunFolder],
    one_of_several_tasks: bool,
    margin: float | None,
    contrasts: Sequence[tuple[str, str]],
    dv: str,
) -> Analysis:
    scores, notes = _scores(part, ["train_corpus"] if len(train_corpora) > 1 else [], dv)
    k = part["n_classes"].dropna().unique()
    chance = 1 / float(k[0]) if dv == UAR and len(k) == 1 and k[0] > 0 else None
    records = [run.record for run in runs if "+".join(run.record.get("train_corpora", [])) in train_corpora]
    possible = sorted({int(record["splits_possible"]) for record in records if record.get("splits_possible")})
    told = [
        *facts,
        f"Distinct splits used: {len(scores.blocks)}"
        + (f" of {possible[-1] if possible[-1] < 10**6 else 'over a million'} possible." if possible else ".")
        + f" Protocol: {'; '.join(sorted(set(part['protocol'])))}.",
    ]
    if one_of_several_tasks:
        told.append(
            "The test sets differ in their number of classes K, so each is analysed by itself: UAR over different K is "
            "never averaged."
        )
    if chance is not None:
        told.append(f"{int(k[0])} classes: chance level of UAR is {chance:.3f}.")
    if is_ccc(dv):
        told.append(
            f"The score is the {wording.label(dv)}: 1 where answers are the ratings, 0 where they do not go with them "
            "or are constant. One CCC point is .01."
        )
    for place, rows in part.groupby("place", sort=True):
        speakers = rows["n_test_speakers"].dropna()
        if len(speakers):
            low, high = int(speakers.min()), int(speakers.max())
            count = str(low) if low == high else f"{low} to {high}"
            few = " Fewer than 20: intervals over seeds say nothing about other people." if high < 20 else ""
            told.append(f"Test speakers per run on {place}: {count}.{few}")
    for flag, stamp in (
        ("not_comparable", "NOT COMPARABLE with published results"),
        ("speaker_dependent", "SPEAKER-DEPENDENT"),
        ("speakers_unknown", "SPEAKERS UNKNOWN"),
        ("relabelled", "MERGED LABELS"),
    ):
        if any(record.get(flag) for record in records):
            told.append(f"{stamp}: as run.json of at least one run says.")
    if len(scores.blocks) == 1 and part["seed"].nunique() > 1:
        told.append(
            f"All {part['seed'].nunique()} seeds share one split. T1 asks about other splits, so they are one block "
            "and allow no test; `sd_within_block` is the spread over training seeds."
        )
    title = f"Statistics of {folder.name}, trained on {' or '.join(train_corpora)}"
    if len(train_corpora) > 1:
        told.append(
            "The training corpora are a factor between blocks, since each has splits of its own. A difference between "
            "them is one of size, language and recording as well, not the worth of a corpus."
        )
    if one_of_several_tasks:
        title += f", tested on {part['place'].iloc[0]}"
    of_part = set(part["run"])
    extra = {
        "n_runs": sum(bool({_name(folder, run), _seed_name(folder, run)} & of_part) for run in runs),
        "train_corpus": " or ".join(train_corpora),
        "test_sets": sorted(set(part["place"])),
        "distinct_splits": len(scores.blocks),
        "splits_possible": possible[-1] if possible else None,
        "chance": chance,
        "left_out": facts,
    }
    analysis = blocked.analyse(
        scores, title=title, provenance=origin, facts=[*told, *notes], extra_audit=extra, chance=chance, margin=margin,
        planned=contrasts,
    )  # fmt: skip
    _crossed(part, analysis, dv)
    if len(train_corpora) == 1 and dv == UAR:
        _people(part, folder, runs, analysis, contrasts)
    return analysis


def _ratings(
    rows: pd.DataFrame,
    folder: Path,
    runs: list[RunFolder],
    analysis: Analysis,
    contrasts: Sequence[tuple[str, str]],
    measured: Mapping[str, Sequence[str]],
    dv: str,
    margin: float | None,
) -> None:
    """Every score of the ratings of one training corpus: T1 in short, T2 in tables.

    Args:
        rows: of results.csv
        measured: of each score, the dimensions that it is the mean over
    """
    content: dict[str, list[Any]] = {}
    for score in measured:
        part = rows[rows[score].notna()]
        if part.empty:
            continue
        scores, _ = _scores(part, [], score)
        short = rating_level.in_short(
            analysis,
            scores,
            contrasts,
            margin=blocked.SHARE_MARGIN if margin is None else margin,
            lines=score != dv,
        )
        for name, found in short.items():
            content.setdefault(name, []).extend(found)
    told = _tested(rows[rows[list(measured)].notna().any(axis=1)], folder, runs)
    for place in sorted(told.found):
        tables = rating_level.of_runs(
            analysis, place, told.found[place], contrasts, several=len(told.found) > 1, dimensions=measured, dv=dv
        )
        for name, found in tables.items():
            content.setdefault(name, []).extend(found)
    analysis.content["ratings"] = {"dimensions_of": {score: list(of) for score, of in measured.items()}, **content}
    # T1 lines first: they are read against the same scores of the main analysis.
    analysis.ratings.sort(key=lambda line: line[:2])


def _contrasts(folder: Path, table: pd.DataFrame) -> list[tuple[str, str]]:
    """The pairs that the experiment declares, of models that have scores."""
    known = set(table["name"])
    declared = planned_contrasts(folder)
    for name in (name for pair in declared for name in pair):
        if name not in known:
            raise BadInput(
                f"{folder / PLAN}: contrasts: '{name}' has no scores; there are {', '.join(sorted(known))}. Train it, "
                'or correct "contrasts" in the experiment (`ser train` takes them over and trains nothing twice)'
            )
    return declared


def _cross_tested(part: pd.DataFrame) -> bool:
    """Whether any test set is of another corpus than those trained on."""
    return any(
        test not in train.split("+")
        for train, test in zip(part["train_corpus"], _bare(part["test_corpus"]), strict=True)
    )


def _crossed(part: pd.DataFrame, analysis: Analysis, dv: str) -> None:
    """Where runs share splits: how much comes from splits and how much from training seeds."""
    if (
        not {"split_seed", "train_seed"} <= set(part.columns)
        or not part.duplicated(["name", "place", "split_sha256"]).any()
    ):
        return
    table = components.run(part, dv)
    analysis.tables["variance_components"] = table
    analysis.content["variance_components"] = records(table)
    analysis.omnibus += [components.sentence(row, wording.unit(dv)[1]) for row in rows_of(table)]


def _people(
    part: pd.DataFrame, folder: Path, runs: list[RunFolder], analysis: Analysis, contrasts: Sequence[tuple[str, str]]
) -> None:
    """T2 from the speakers themselves: every model and pair on every test set."""
    told = _tested(part, folder, runs)
    found, splits, first, where = told.found, told.splits, told.first, told.where
    content: dict[str, Any] = {}
    for place in sorted(found):
        assert first is not None
        in_domain = place.partition("@")[0] in first.record["train_corpora"]
        tables = speaker_level.of_runs(
            analysis,
            place,
            found[place],
            contrasts,
            several=len(found) > 1,
            splits=splits,
            in_domain=in_domain,
            test_train_ratio=0.0 if in_domain else _held_out(part, first),
        )
        for name, rows in tables.items():
            content.setdefault(name, []).extend(rows)
    analysis.content["speakers"] = content
    clipwise: list[dict[str, Any]] = []
    for place in sorted(found):
        here = {(model, key): run for (model, (at, key)), run in where.items() if at == place}
        file = prediction_file(*place.partition("@")[::2])
        if lacking := [run for run in here.values() if not (run.path / file).is_file()]:
            analysis.facts.append(f"No McNemar's test on {place}: {_name(folder, lacking[0])} holds no {file}.")
        else:
            clipwise += _mcnemar(place, found[place], here, file)
    if clipwise:
        analysis.tables["mcnemar"] = pd.DataFrame(clipwise)
        analysis.content["mcnemar"] = {"target": OF_CLIPS, "pairs": records(analysis.tables["mcnemar"])}
        analysis.facts.append(
            "McNemar's tests stand beside the others for comparison with papers that print them: one run, every clip "
            "taken for another person. They are about these clips, and nothing may be concluded about people from them."
        )


@dataclass(frozen=True)
class _Tested:
    """What metrics.json says of the runs of some rows."""

    found: dict[str, dict[str, dict[tuple[str, str], Any]]]
    """By test set, model, and (seed, fold)."""
    splits: dict[tuple[str, str], str]
    """By (seed, fold)."""
    first: RunFolder | None
    where: dict[tuple[str, Any], RunFolder]
    """By model and (test set, (seed, fold))."""


def _tested(part: pd.DataFrame, folder: Path, runs: list[RunFolder]) -> _Tested:
    """The metrics of the runs, or of the folds, that some rows of results.csv are of."""
    told = {(row["run"], row["place"]): row for row in rows_of(part)}
    found: dict[str, dict[str, dict[tuple[str, str], Any]]] = {}
    splits: dict[tuple[str, str], str] = {}
    first: RunFolder | None = None
    where: dict[tuple[str, Any], RunFolder] = {}
    for run in runs:
        for place, tested in read_json(run.path / METRICS).items():
            for stands in {_name(folder, run), _seed_name(folder, run)}:
                if (stands, place) in told:
                    row = told[stands, place]
                    key = (f"{int(run.record['seed']):06d}", str(run.record["fold"] or ""))
                    found.setdefault(place, {}).setdefault(row["name"], {})[key] = tested
                    splits[key] = row["split_sha256"]
                    first = first or run
                    where[row["name"], (place, key)] = run
    return _Tested(found, splits, first, where)


def _mcnemar(
    place: str,
    found: Mapping[str, Mapping[tuple[str, str], Any]],
    where: Mapping[tuple[str, Any], RunFolder],
    file: str,
) -> list[dict[str, Any]]:
    """McNemar's test of each pair of models on the clips of the first run that both have; none where they share none.

    Args:
        place: the test corpus (and condition)
        found: by model, then by seed and fold, what metrics.json says
        where: the run of each model, seed and fold
        file: the predictions in a run folder
    """
    tables: dict[tuple[str, Any], pd.DataFrame] = {}

    def answers(model: str, key: tuple[str, str]) -> pd.DataFrame:
        if (model, key) not in tables:
            table = read_predictions(where[model, key].path / file)
            inside = table[table["truth"].isin(found[model][key]["labels"])]
            tables[model, key] = inside.set_index(["corpus", "path"])[["truth", "prediction"]].sort_index()
        return tables[model, key]

    rows: list[dict[str, Any]] = []
    for a, b in itertools.combinations(sorted(found, key=natural), 2):
        for key in sorted(set(found[a]) & set(found[b])):
            if any(found[model][key].get("answers_classes") is False for model in (a, b)):
                continue
            one, other = answers(a, key), answers(b, key)
            if one.index.equals(other.index) and (one["truth"] == other["truth"]).all():
                right = [(part["prediction"] == part["truth"]).to_numpy() for part in (one, other)]
                run = where[a, key].path.name
                rows.append({"at": place, "run": run, "a": a, "b": b, "n_clips": len(one), **mcnemar.run(*right)})
                break
    return rows


def _held_out(part: pd.DataFrame, run: RunFolder) -> float:
    """Clips of its training corpora that a run holds out / that it trains on.

    Those tested, where a row says how many; else what stands in the split beside the training side.
    """
    corpora = set(run.record["train_corpora"])
    at_home = np.array([bare in corpora for bare in _bare(part["test_corpus"])], dtype=bool)
    inside = part[at_home & (part["fold"] == NONE).to_numpy()]
    if len(inside) and bool(inside[["n_train", "n_test"]].notna().to_numpy().all()) and (inside["n_train"] > 0).all():
        return float((inside["n_test"] / inside["n_train"]).mean())
    split = run.split()
    sides = split.loc[split["corpus"].isin(corpora), "split"]
    trained, tested = int((sides == "train").sum()), int((sides == "test").sum())
    return (tested or len(sides) - trained) / trained if trained else 0.0


def _scores(part: pd.DataFrame, between: list[str], dv: str) -> tuple[Scores, list[str]]:
    """The blocks x cells of a score, and what has to be said about the factors chosen.

    `between` is the training corpus where there are several, else empty.
    """
    part = part.copy()
    splits = part.groupby(["train_corpus", "split_sha256"])["seed"]
    seeds = splits.agg(lambda column: ", ".join(sorted(set(column), key=int)))
    # The seeds name a block to people, the start of the checksum keeps it apart from any other.
    part["block"] = [
        f"{corpus + ', ' if between else ''}{'seeds' if ',' in seeds[corpus, sha] else 'seed'} {seeds[corpus, sha]} "
        f"({sha[:8]})"
        for corpus, sha in zip(part["train_corpus"], part["split_sha256"], strict=True)
    ]
    model, notes = _model_factors(part)
    where = [column for column in ("test_corpus", "condition") if part[column].nunique() > 1]
    if len(where) == 2 and part["place"].nunique() < part["test_corpus"].nunique() * part["condition"].nunique():
        part["test_corpus"], where = part["place"], ["test_corpus"]
    names: dict[tuple[str, ...], str] = {}
    for row in part[[*model, "name"]].drop_duplicates().itertuples(index=False):
        names[tuple(row[:-1])] = str(row[-1])
    part["in_domain"] = [
        test in train.split("+") and fold == NONE
        for train, test, fold in zip(part["train_corpus"], _bare(part["test_corpus"]), part["fold"], strict=True)
    ]
    part["in_domain"] &= part[["n_train", "n_test"]].notna().all(axis=1)
    if (part["fold"] != NONE).any():
        notes.append(
            "Rows are pooled over folds, for which the Nadeau-Bengio correction of single splits does not hold; it is "
            "left out."
        )
    part[BLOCK] = part.pop("block")
    scores = pivot(part, dv=dv, factors=[*model, *where], block=BLOCK, where=where, names=names, between=between)
    return scores, notes


def _model_factors(part: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Declared factors when the models are exactly their grid; else model x augmentation if full; else the name.

    In the last case the column `model` becomes the name, augmentation included.
    """
    models = part[["name"]].drop_duplicates()
    columns = list(part.columns)
    declared = columns[columns.index("augmentation") + 1 : columns.index("train_corpus")]
    varying = [factor for factor in declared if part[factor].nunique() > 1]
    augmented = ["augmentation"] if part["augmentation"].nunique() > 1 else []

    def full(factors: list[str]) -> bool:
        grid = set(itertools.product(*(set(part[factor]) for factor in factors)))
        found = part[[*factors, "name"]].drop_duplicates()
        cells = set(found[factors].itertuples(index=False, name=None))
        return len(factors) > 0 and cells == grid and len(found) == len(models) == len(grid)

    if varying:
        if full([*varying, *augmented]):
            return [*varying, *augmented], []
        notes = [f"The models do not fill the grid of their factors ({', '.join(varying)}): the factor is the model."]
    elif augmented and part["model"].nunique() > 1 and full(["model", "augmentation"]):
        return ["model", "augmentation"], []
    else:
        notes = []
    part["model"] = part["name"]
    return ["model"], notes


def _refuse(table: pd.DataFrame, file: Path) -> None:
    other = sorted(set(table["fold"]) - {NONE, "all"})
    if other:
        raise BadInput(f"{file}: fold = {other[0]!r}; rows must be whole or pooled runs (fold '{NONE}' or 'all')")
    bad = table.loc[~table["seed"].str.fullmatch(r"\d+"), "seed"]
    if len(bad):
        raise BadInput(f"{file}, line {int(bad.index[0]) + 2}: seed = {bad.iloc[0]!r} is not a whole number")
    key = ["name", "train_corpus", "place", "seed", "split_sha256"]
    twice = table[table.duplicated(key, keep=False)]
    if len(twice):
        first = twice.iloc[0]
        raise BadInput(
            f"{file}: {first['name']}, trained on {first['train_corpus']}, seed {first['seed']}, tested on "
            f"{first['place']} stands there more than once (line {twice.index[0] + 2} is the first)"
        )


def _write(out: Path, analyses: dict[str, Analysis], origin: dict[str, Any]) -> StatsResult:
    if len(analyses) == 1:
        (analysis,) = analyses.values()
        remove_stale(out, write(out, analysis))
        return StatsResult(out, [*blocked.summary(analysis), f"written to {out}"], analysis.content)
    out.mkdir(parents=True, exist_ok=True)
    written, lines, index = [], [], []
    folders = {name: re.sub(r"[^A-Za-z0-9.+@_-]", "_", name) for name in analyses}
    for name, analysis in analyses.items():
        written += write(out / folders[name], analysis)
        lines += [analysis.title, *(analysis.plain or analysis.findings)[:2]]
        index.append(f"- [{analysis.title}]({folders[name]}/{REPORT_MD})")
    content = {"provenance": origin, "analyses": {name: f"{folder}/{STATS_JSON}" for name, folder in folders.items()}}
    write_json(out / STATS_JSON, content)
    intro = "Each training corpus, and each task with another number of classes, is an analysis of its own."
    if ACROSS in analyses:
        intro += " One more compares the training corpora, as a factor between blocks."
    write_text(out / REPORT_MD, "# Statistics\n\n" + intro + "\n\n" + "\n".join(index) + "\n")
    remove_stale(out, [*written, out / STATS_JSON, out / REPORT_MD])
    return StatsResult(out, [*lines[:13], f"{len(analyses)} analyses, written to {out}"], content)


def _joined(first: pd.Series[str], second: pd.Series[str], glue: str) -> list[str]:
    return [a if b == NONE else f"{a}{glue}{b}" for a, b in zip(first, second, strict=True)]


def _bare(places: pd.Series[str]) -> list[str]:
    return [place.partition("@")[0] for place in places]
