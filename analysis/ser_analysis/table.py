"""Statistics of any tidy CSV: `ser stats --csv`."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Sequence
from csv import reader as csv_reader
from pathlib import Path

import numpy as np
import pandas as pd

from ser_analysis import blocked, grouped, nested, wording
from ser_analysis.methods import between_anova
from ser_analysis.output import Analysis, StatsResult, provenance, records, remove_stale, write
from ser_analysis.scores import EMPTY_LEVEL, Scores, natural, need_columns, numbers, pivot, read_text_table, rows_of
from ser_eval.errors import BadInput

WHERE = frozenset({"test", "test_corpus", "condition"})
"""Within factors of these names say where a model is tested; models are compared within each of their levels."""
SMALLEST_SPREAD = 1e-8
"""Scores that spread less are refused: `wording.is_tie` takes differences below 1e-9 for rounding."""
TARGET_OF_BLOCK = {
    **dict.fromkeys(("speaker", "actor"), "T2"),
    **dict.fromkeys(("corpus", "dataset", "data_set"), "T3"),
}
"""What a difference over blocks is about, by the name of the block's column; T1 for every other."""
TREATMENT, SCORE, ROW = "treatment", "score", "row"


def stats_of_csv(
    csv: Path,
    *,
    dv: str | None = None,
    within: Sequence[str] = (),
    between: Sequence[str] = (),
    block: str | None = None,
    out: Path | None = None,
    wide: bool = False,
    test: Sequence[str] = (),
    margin: float | None = None,
    random: str | None = None,
    replicates: bool = False,
    test_train_ratio: str | None = None,
    cell_sd: str | None = None,
    cell_n: str | None = None,
) -> StatsResult:
    """Analyse a table and write the results.

    With `block`: repeated measures over the blocks, for one row per block and combination of the `within` factors; with
    `between` as well a mixed design. With `block` and `between` alone, and several rows per block: a mixed model with a
    random intercept per block. Without `block` every row is a unit: between-groups ANOVA of the `between`
    factors. With `wide` a column is a treatment and a row a block. With `cell_sd` and `cell_n` a row is a cell that a
    paper printed. Factor levels are text. Columns `n_train` and `n_test` (clips), where the table has them, add the
    Nadeau-Bengio correction; with `train_corpus` and `test_corpus` as well, only for test sets of the training corpora.

    Args:
        csv: the table, with a header; separated by comma, semicolon or tab
        dv: the score; with `wide` only the name it is told by
        within: factors that vary within a block; spaces around a name do not count, nor under `between`. With `wide`
            the columns of the treatments, all but block and `between` when absent
        between: factors that vary between rows, or between blocks
        block: the column that names the split (or subject)
        out: folder for the results; `<csv without suffix>-stats` when absent
        wide: one column per treatment
        test: within factors that say where one trained model is tested; those of `WHERE` when absent
        margin: what counts as no difference, for equivalence; 0.01 for scores in [0, 1] when absent
        random: random terms of the mixed model, such as `(1|block) + (1|block:variety)`; with several rows per block
            and no factor they give the mean alone
        replicates: several rows of a block and cell are runs of the same; their mean is the score of the cell, and the
            mixed model takes every row
        test_train_ratio: clips tested / clips trained on, as `0.25`, or for one level of a test factor `emodb=0.25`
        cell_sd: column of the SDs of published cells, `dv` being their means
        cell_n: column of the number of scores of published cells

    Raises:
        BadInput: a column is unknown, a value is not a number, a row stands there twice, the design is not supported
    """
    source = csv.name
    within, between, test = ([name.strip() for name in names] for names in (within, between, test))
    table = read_text_table(csv)
    order: dict[str, Sequence[str]] = {}
    if wide:
        dv = dv or SCORE
        table, within, block = _melt(table, dv, within, between, block, source)
        order = {TREATMENT: list(dict.fromkeys(table[TREATMENT]))}
    if dv is None:
        raise BadInput(f"{source}: name the column of scores with --dv; columns are {', '.join(table.columns)}")
    if margin is not None and not margin > 0:
        raise BadInput(f"--margin {margin:g} must be above 0, in the unit of {dv}")
    columns = [dv, *within, *between, *([block] if block is not None else [])]
    need_columns(table, columns, source)
    for column in sorted({column for column in columns if columns.count(column) > 1}):
        raise BadInput(f"column '{column}' is given twice; dv, within, between and block must be different columns")
    if block is None and within:
        raise BadInput(f"--within {','.join(within)} needs --block, the column that names the split or subject")
    if not within and not between and (block is None or random is None):
        alone = f" (for a mean over levels of {block} alone: --random '(1|{block})')" if block is not None else ""
        raise BadInput(
            f"give factors: --within with --block, or --between{alone}; columns are {', '.join(table.columns)}"
        )
    if other := [factor for factor in test if factor not in within]:
        raise BadInput(f"--test {other[0]} is not one of --within ({', '.join(within)})")
    if (cell_sd is None) != (cell_n is None):
        raise BadInput("published cells need both --cell-sd and --cell-n")

    table[dv] = numbers(table, dv, source)
    for factor in (*within, *between):
        table[factor] = table[factor].replace("", EMPTY_LEVEL).astype(object)
    unscored = table[dv].isna()
    facts = []
    if unscored.any():
        where = ", ".join(str(index + 2) for index in np.flatnonzero(unscored))
        facts.append(f"{int(unscored.sum())} rows have no {dv} and are left out: line(s) {where} of {source}.")
        if wide:
            facts = [f"{int(unscored.sum())} scores of {source} are empty; {facts[0].partition(' are ')[0]}."]
    rows = table[~unscored]
    if rows.empty:
        raise BadInput(f"{source}: no row has a value of {dv}")
    unused = {"--test": bool(test), "--random": random, "--test-train-ratio": test_train_ratio, "--margin": margin}
    unused["--replicates"] = replicates
    in_blocks = not within and block is not None and rows[block].duplicated().any() and cell_sd is None
    if in_blocks:
        unused["--random"] = None
    if not within and (idle := [option for option, value in unused.items() if value]):
        raise BadInput(f"{idle[0]} belongs to repeated measures: --within with --block")
    _refuse_constant(rows, dv, source)
    _refuse_aliases(rows, [*within, *between], source)
    if cell_sd is not None and cell_n is not None:
        analysis = _published(rows, dv, between, block, cell_sd, cell_n, csv)
        lines = [analysis.title, *analysis.omnibus, *analysis.facts]
    elif in_blocks:
        assert block is not None
        analysis = _nested(rows, dv, between, block, random, facts, csv)
        lines = nested.summary_lines(analysis)
    elif not within:
        if block is not None:
            facts.append(f"Each {block} has one row, so that it is the unit.")
        analysis = grouped.analyse(
            rows, dv=dv, factors=between, title=f"Statistics of {source}", provenance=provenance(csv), facts=facts
        )
        lines = [analysis.title, *analysis.omnibus[:10], *analysis.facts]
    else:
        assert block is not None
        scores, notes = _blocks(rows, dv, within, between, block, test, test_train_ratio, order, replicates, source)
        analysis = blocked.analyse(
            scores,
            title=f"Statistics of {source}",
            provenance=provenance(csv),
            facts=[*facts, *notes],
            margin=margin,
            random=_random_terms(random, [scores.block_name, *scores.between, *scores.factors])
            if random is not None
            else None,
        )
        if wide and "friedman" in analysis.content:
            analysis.content = {**analysis.content["friedman"], **analysis.content}
            ranked = {(row["a"], row["b"]): row for row in analysis.content["friedman"]["pairs"]}
            for row in analysis.content["pairs"]:
                row |= ranked.get((row["a"], row["b"]), {})
        lines = blocked.summary(analysis)
    folder = out if out is not None else csv.with_name(f"{csv.stem}-stats")
    remove_stale(folder, write(folder, analysis))
    return StatsResult(folder, [*lines, f"written to {folder}"], analysis.content)


def names_in(text: str) -> list[str]:
    """`a,b` as names of columns; one that holds a comma stands in double quotes, as in a CSV."""
    return [name.strip() for name in next(csv_reader([text], skipinitialspace=True), []) if name.strip()]


def _melt(
    table: pd.DataFrame, dv: str, within: Sequence[str], between: Sequence[str], block: str | None, source: str
) -> tuple[pd.DataFrame, list[str], str]:
    """A row per block and treatment, from one row per block."""
    named = [*between, *([block] if block is not None else [])]
    need_columns(table, [*named, *within], source)
    treatments = list(within) or [column for column in table.columns if column not in named]
    if len(treatments) < 2:
        raise BadInput(f"{source}: --wide needs two columns of treatments; there is {', '.join(treatments) or 'none'}")
    if block is None:
        block = ROW
        table = table.assign(**{ROW: [str(number + 1) for number in range(len(table))]})
    twice = table[block].duplicated(keep=False)
    if twice.any():
        name = table[block][twice].iloc[0]
        lines = _lines(np.flatnonzero(table[block] == name))
        raise BadInput(f"{source}, lines {lines}: several rows for {block}={name}; --wide has one row per block")
    for column in treatments:
        numbers(table.rename(columns={column: f"column {column}"}), f"column {column}", source)
    for reserved in (dv, TREATMENT):
        if reserved in (*named, *treatments):
            raise BadInput(f"{source}: with --wide no column may be called '{reserved}'")
    parts = []
    for column in treatments:
        part = table[[block, *between]].copy()
        part[TREATMENT], part[dv] = column, table[column]
        parts.append(part)
    return pd.concat(parts, ignore_index=True), [TREATMENT], block


def _blocks(
    rows: pd.DataFrame,
    dv: str,
    within: Sequence[str],
    between: Sequence[str],
    block: str,
    test: Sequence[str],
    ratio: str | None,
    order: dict[str, Sequence[str]],
    replicates: bool,
    source: str,
) -> tuple[Scores, list[str]]:
    """The scores as blocks x cells, and what has to be said about it."""
    if (rows[block] == "").any():
        raise BadInput(f"{source}, line {int(rows.index[rows[block] == ''][0]) + 2}: no {block}")
    for factor in between:
        kinds = rows.groupby(block, sort=True)[factor].nunique()
        if (kinds > 1).any():
            name = kinds.index[kinds > 1][0]
            seen = ", ".join(sorted(set(rows.loc[rows[block] == name, factor]), key=natural))
            raise BadInput(
                f"{source}: between factor '{factor}' varies within {block} {name} ({seen}). If one {block} really has "
                f"them all, it is a within factor: --within {factor}; if the names of the blocks start anew in each "
                "group, make them unique"
            )
    twice = rows.duplicated([block, *within], keep=False)
    if twice.any() and not replicates:
        first = rows[twice].iloc[0]
        same = rows[(rows[[block, *within]] == first[[block, *within]]).all(axis=1)]
        cell = ", ".join(f"{column}={first[column]}" for column in (block, *within))
        raise BadInput(
            f"{source}, lines {_lines(same.index)}: several rows for {cell}; "
            "a block holds one score per cell. Name the factor that tells them apart under --within, or another "
            "--block; --replicates averages runs of the same"
        )
    for factor in within:
        if rows[factor].nunique() < 2:
            raise BadInput(
                f"within factor '{factor}' has one level ({rows[factor].iloc[0]}), so there is nothing to compare"
            )
    if rows[block].nunique() < 2:
        raise BadInput(
            f"{source}: '{block}' has one level ({rows[block].iloc[0]}); a test over blocks needs at least two seeds, "
            "splits or subjects"
        )
    for factor in within:
        if rows[block].nunique() < len(rows) and (rows.groupby(block)[factor].nunique() == 1).all():
            raise BadInput(f"{source}: '{factor}' does not vary within any {block}; it is a factor of --between")
    for factor in between:
        if rows[factor].nunique() < 2:
            raise BadInput(f"between factor '{factor}' has one level ({rows[factor].iloc[0]}); leave it out")

    notes, where = [], [factor for factor in within if factor in (test or WHERE)]
    where = where if len(where) < len(within) else []
    plots: list[str] = []
    if not where and len(within) > 1:
        plots = [within[-1]]
        notes.append(
            f"Strata and mixed model take {plots[0]}, the last within factor, for the sub-plots: the places where one "
            "trained model is tested. --test names others."
        )
    rows = _with_sizes(rows, where, ratio, source)
    scores = pivot(
        rows, dv=dv, factors=within, block=block, where=where, between=between, plots=plots,
        target=TARGET_OF_BLOCK.get(block.lower(), "T1"), order=order, replicates=replicates and bool(twice.any()),
    )  # fmt: skip
    known = ~np.isnan(scores.values)
    shared = known.T.astype(int) @ known
    np.fill_diagonal(shared, 0)
    if shared.max() < 2:
        raise BadInput(
            f"{source}: {int(scores.complete.sum())} of {len(scores.blocks)} levels of '{block}' have a score in "
            f"every one of the {len(scores.cells)} cells of {' x '.join(within)}, and no two cells share two of them; "
            "nothing can be compared. Is --block the column that names the split or subject?"
        )
    return scores, notes


def _lines(rows: Iterable[int]) -> str:
    """Lines of a file, of many the first four; the header is line 1."""
    lines = [str(row + 2) for row in rows]
    return " and ".join([*lines[:4], *([f"{len(lines) - 4} more"] if len(lines) > 4 else [])])


def _with_sizes(rows: pd.DataFrame, where: Sequence[str], ratio: str | None, source: str) -> pd.DataFrame:
    """The rows with n_train, n_test and in_domain, where they are known."""
    if ratio is not None:
        level, _, text = ratio.rpartition("=")
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 < value < math.inf:
            raise BadInput(f"--test-train-ratio {ratio}: expected a number above 0, such as 0.25 or emodb=0.25")
        inside = pd.Series(True, index=rows.index)
        if level:
            levels = sorted({value for factor in where for value in rows[factor]}, key=natural)
            if level not in levels:
                known = ", ".join(levels) or "no factor says where a model is tested"
                raise BadInput(f"--test-train-ratio {ratio}: no test set '{level}'; there are {known}")
            inside = (rows[list(where)] == level).any(axis=1)
        return rows.assign(n_train=1.0, n_test=value, in_domain=inside)
    if not {"n_train", "n_test"} <= set(rows.columns):
        return rows
    rows = rows.assign(n_train=numbers(rows, "n_train", source), n_test=numbers(rows, "n_test", source))
    rows["in_domain"] = rows[["n_train", "n_test"]].notna().all(axis=1)
    if {"train_corpus", "test_corpus"} <= set(rows.columns):
        trained_on = rows["train_corpus"].str.split("+")
        rows["in_domain"] &= np.array([a in b for a, b in zip(rows["test_corpus"], trained_on, strict=True)])
    return rows


def _random_terms(text: str, known: Sequence[str]) -> list[tuple[str, ...]]:
    """`(1|seed) + (1|seed:arch)` as [("seed",), ("seed", "arch")], of the columns that are `known`."""
    terms: list[tuple[str, ...]] = []
    for part in text.split("+"):
        found = re.fullmatch(r"\s*\(\s*1\s*\|([^()|]+)\)\s*", part)
        term = tuple(name.strip() for name in found[1].split(":")) if found else ()
        if not term or not set(term) <= set(known) or len(set(term)) < len(term):
            raise BadInput(
                f"--random: '{part.strip()}' is no random term; expected (1|column) or (1|column:column), joined by +, "
                f"of the columns {', '.join(known)}"
            )
        terms.append(term)
    return list(dict.fromkeys(terms))


def _published(
    rows: pd.DataFrame, dv: str, factors: Sequence[str], block: str | None, sd: str, n: str, csv: Path
) -> Analysis:
    """The ANOVA of cells that a paper printed, for both ways of dividing an SD."""
    source = csv.name
    if block is not None or not factors:
        raise BadInput("published cells (--cell-sd, --cell-n) are a between-groups table: --between, without --block")
    need_columns(rows, [sd, n], source)
    rows = rows.assign(**{sd: numbers(rows, sd, source), n: numbers(rows, n, source)})
    for column, good, what in (
        (sd, rows[sd] >= 0, "an SD of 0 or more"),
        (n, (rows[n] >= 2) & (rows[n] % 1 == 0), "a whole number of 2 or more"),
    ):
        if not good.all():
            at = int(rows.index[~good][0])
            raise BadInput(f"{source}, line {at + 2}: {column} = {rows[column][at]:g}; expected {what}")
    if not (rows[sd] > 0).any():
        raise BadInput(f"{source}: every {sd} is 0; there is no error to test against")
    for factor in factors:
        if rows[factor].nunique() < 2:
            raise BadInput(f"between factor '{factor}' has one level ({rows[factor].iloc[0]}); leave it out")
    twice = rows.duplicated(list(factors), keep=False)
    if twice.any():
        raise BadInput(f"{source}, line {int(rows.index[twice][0]) + 2}: the cell stands there more than once")
    cells = math.prod(rows[factor].nunique() for factor in factors)
    if len(rows) < cells:
        raise BadInput(f"{source}: {len(rows)} of the {cells} cells of {' x '.join(factors)} are there")
    kinds = {
        kind: between_anova.from_summaries(rows, mean=dv, sd=sd, n=n, factors=factors, population=kind == "population")
        for kind in ("sample", "population")
    }
    facts = [
        f"{len(rows)} published cells of {int(rows[n].sum())} scores. Every score is taken for an independent unit; "
        "printed means carry rounding, which moves small F values by several percent.",
        "`sample` takes the SDs for divided by n - 1, `population` by n (numpy's default).",
    ]
    omnibus = [
        wording.between_sentence({**row, "term": f"{row['term']} (SD of a {kind})"}, int(row["df2"]))
        for kind, table in kinds.items()
        for row in rows_of(table)
    ]
    return Analysis(
        f"Statistics of {source}",
        {
            "target": {"code": "T1", "question": grouped.QUESTION},
            "provenance": provenance(csv),
            "audit": {"dv": dv, "cells": cells, "balanced": rows[n].nunique() == 1},
            "n": int(rows[n].sum()),
            **{f"rebuilt_if_sd_is_{kind}": records(table) for kind, table in kinds.items()},
            "facts": facts,
            "omnibus": omnibus,
        },
        {"published": pd.concat([table.assign(sd=kind) for kind, table in kinds.items()], ignore_index=True)},
        facts,
        omnibus=omnibus,
    )


def _refuse_constant(rows: pd.DataFrame, dv: str, source: str) -> None:
    if np.ptp(rows[dv]) <= 1e-12 * max(1e-300, float(rows[dv].abs().max())):
        raise BadInput(f"{source}: every {dv} is {rows[dv].iloc[0]:g}; scores that do not vary cannot be compared")
    if np.ptp(rows[dv]) < SMALLEST_SPREAD:
        raise BadInput(
            f"{source}: all {dv} lie within {np.ptp(rows[dv]):.2g} of each other; differences below a billionth are "
            "taken for rounding, so give them in a smaller unit (multiplied by 1e9, say)"
        )


def _refuse_aliases(rows: pd.DataFrame, factors: Sequence[str], source: str) -> None:
    """Refuse two factors of which one says what the other says."""
    for one, other in itertools.combinations(factors, 2):
        if min(rows[one].nunique(), rows[other].nunique()) < 2:
            continue
        together = len(rows[[one, other]].drop_duplicates())
        for first, second in ((one, other), (other, one)):
            if together == rows[first].nunique():
                how = "aliased with" if together == rows[second].nunique() else "nested in"
                raise BadInput(
                    f"{source}: factor '{second}' is {how} '{first}': each level of '{first}' goes with one level of "
                    f"'{second}', so that their effects cannot be told apart. Leave one of them out"
                    if how == "aliased with"
                    else f"{source}: factor '{first}' is {how} '{second}': each level of '{first}' goes with one level "
                    f"of '{second}', so that they do not cross. Leave one of them out"
                )


def _nested(
    rows: pd.DataFrame,
    dv: str,
    between: Sequence[str],
    block: str,
    random: str | None,
    facts: Sequence[str],
    csv: Path,
) -> Analysis:
    """Rows that come in blocks of several."""
    if (rows[block] == "").any():
        raise BadInput(f"{csv.name}, line {int(rows.index[rows[block] == ''][0]) + 2}: no {block}")
    _refuse_within(rows, between, block, csv.name)
    terms = None
    if random is not None:
        columns = [column for column in rows.columns if column != dv]
        terms = _random_terms(random, columns)
        if (block,) not in terms:
            raise BadInput(f"--random: (1|{block}) is not among the terms; {block} is the block")
        for column in dict.fromkeys(itertools.chain(*terms)):
            if (rows[column] == "").any():
                raise BadInput(f"{csv.name}, line {int(rows.index[rows[column] == ''][0]) + 2}: no {column}")
        terms.sort(key=lambda term: term != (block,))
    return nested.analyse(
        rows, dv=dv, factors=between, block=block, title=f"Statistics of {csv.name}", provenance=provenance(csv),
        target=TARGET_OF_BLOCK.get(block.lower(), "T1"), facts=facts, random=terms,
    )  # fmt: skip


def _refuse_within(rows: pd.DataFrame, between: Sequence[str], block: str, source: str) -> None:
    """Refuse a factor of which every block has every level: it is a within factor, whose effect varies with the block.

    A model of intercepts alone would take that variation for noise and find too much.
    """
    for factor in between:
        kinds = rows.groupby(block, sort=True)[factor].nunique()
        if rows[factor].nunique() > 1 and (kinds == rows[factor].nunique()).all():
            name = kinds.index[0]
            lines = " and ".join(str(index + 2) for index in sorted(rows.index[rows[block] == name])[:4])
            again = " (with --replicates)" if rows.duplicated([block, *between]).any() else ""
            raise BadInput(
                f"{source}, lines {lines}: {block} {name} has several rows, which are no independent units; "
                f"'{factor}' varies within it and within every other, so it is a factor of --within{again}"
            )
