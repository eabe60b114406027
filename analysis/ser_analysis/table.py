"""Statistics of any tidy CSV: `ser stats --csv`."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ser_analysis import blocked, wording
from ser_analysis.methods import assumptions, between_anova
from ser_analysis.methods.descriptives import COLUMNS as DESCRIPTIVE_COLUMNS
from ser_analysis.methods.descriptives import summary
from ser_analysis.output import Analysis, StatsResult, provenance, records, remove_stale, write
from ser_analysis.scores import EMPTY_LEVEL, natural, need_columns, numbers, pivot, read_text_table, rows_of
from ser_eval.errors import BadInput

WHERE = frozenset({"test", "test_corpus", "condition"})
"""Within factors of these names say where a model is tested; models are compared within each of their levels."""


def stats_of_csv(
    csv: Path,
    *,
    dv: str,
    within: Sequence[str] = (),
    between: Sequence[str] = (),
    block: str | None = None,
    out: Path | None = None,
) -> StatsResult:
    """Analyse a tidy table and write the results.

    With `block`: repeated measures over the blocks, for one row per block and combination of the `within` factors.
    Without it every row is a unit: between-groups ANOVA of the `between` factors. Factor levels are text. Columns
    `n_train` and `n_test` (clips), where the table has them, add the Nadeau-Bengio correction; with `train_corpus` and
    `test_corpus` as well, only for test sets of the training corpora.

    Args:
        csv: the table, with a header; separated by comma, semicolon or tab
        dv: the score
        within: factors that vary within a block; spaces around a name do not count, nor under `between`
        between: factors that vary between rows
        block: the column that names the split (or subject)
        out: folder for the results; `<csv without suffix>-stats` when absent

    Raises:
        BadInput: a column is unknown, a value is not a number, a row stands there twice, the design is not supported
    """
    source = csv.name
    within, between = ([name.strip() for name in names] for names in (within, between))
    table = read_text_table(csv)
    columns = [dv, *within, *between, *([block] if block is not None else [])]
    need_columns(table, columns, source)
    for column in sorted({column for column in columns if columns.count(column) > 1}):
        raise BadInput(f"column '{column}' is given twice; dv, within, between and block must be different columns")
    if block is not None and between:
        raise BadInput(
            "factors between blocks together with --block make a mixed design, which this version does not analyse; "
            f"leave out --between ({', '.join(between)}) or analyse its levels one by one"
        )
    if block is None and within:
        raise BadInput(f"--within {','.join(within)} needs --block, the column that names the split or subject")
    if not within and not between:
        raise BadInput("give factors: --within with --block, or --between; columns are " + ", ".join(table.columns))

    table[dv] = numbers(table, dv, source)
    for factor in (*within, *between):
        table[factor] = table[factor].replace("", EMPTY_LEVEL).astype(object)
    unscored = table[dv].isna()
    facts = []
    if unscored.any():
        where = ", ".join(str(index + 2) for index in np.flatnonzero(unscored))
        facts.append(f"{int(unscored.sum())} rows have no {dv} and are left out: line(s) {where} of {source}.")
    rows = table[~unscored]
    if rows.empty:
        raise BadInput(f"{source}: no row has a value of {dv}")
    if block is None:
        analysis = _between(rows, dv, between, csv, facts)
        lines = [analysis.title, *analysis.omnibus[:10], *facts]
    else:
        analysis = _within(rows, dv, within, block, csv, facts)
        lines = blocked.summary(analysis)
    folder = out if out is not None else csv.with_name(f"{csv.stem}-stats")
    remove_stale(folder, write(folder, analysis))
    return StatsResult(folder, [*lines, f"written to {folder}"], analysis.content)


def _within(
    rows: pd.DataFrame, dv: str, within: Sequence[str], block: str, csv: Path, facts: Sequence[str]
) -> Analysis:
    if (rows[block] == "").any():
        raise BadInput(f"{csv.name}, line {int(rows.index[rows[block] == ''][0]) + 2}: no {block}")
    twice = rows.duplicated([block, *within], keep=False)
    if twice.any():
        first = rows[twice].iloc[0]
        same = rows[(rows[[block, *within]] == first[[block, *within]]).all(axis=1)]
        cell = ", ".join(f"{column}={first[column]}" for column in (block, *within))
        raise BadInput(
            f"{csv.name}, lines {' and '.join(str(index + 2) for index in same.index)}: several rows for {cell}; "
            "a block holds one score per cell. Name the factor that tells them apart under --within, or another --block"
        )
    for factor in within:
        if rows[factor].nunique() < 2:
            raise BadInput(
                f"within factor '{factor}' has one level ({rows[factor].iloc[0]}), so there is nothing to compare"
            )
    sizes = {"n_train", "n_test"} <= set(rows.columns)
    if sizes:
        rows = rows.assign(n_train=numbers(rows, "n_train", csv.name), n_test=numbers(rows, "n_test", csv.name))
        rows["in_domain"] = rows[["n_train", "n_test"]].notna().all(axis=1)
        if {"train_corpus", "test_corpus"} <= set(rows.columns):
            trained_on = rows["train_corpus"].str.split("+")
            rows["in_domain"] &= np.array([a in b for a, b in zip(rows["test_corpus"], trained_on, strict=True)])
    where = [factor for factor in within if factor in WHERE]
    scores = pivot(rows, dv=dv, factors=within, block=block, where=where if len(where) < len(within) else ())
    if scores.complete.sum() < 2:
        raise BadInput(
            f"{csv.name}: {int(scores.complete.sum())} of {len(scores.blocks)} levels of '{block}' have a score in "
            f"every one of the {len(scores.cells)} cells of {' x '.join(within)}; at least two are needed. "
            "Is --block the column that names the split or subject?"
        )
    return blocked.analyse(scores, title=f"Statistics of {csv.name}", provenance=provenance(csv), facts=facts)


def _between(rows: pd.DataFrame, dv: str, factors: Sequence[str], csv: Path, facts: Sequence[str]) -> Analysis:
    types = {
        2: between_anova.run(rows, dv=dv, factors=factors, typ=2),
        3: between_anova.run(rows, dv=dv, factors=factors, typ=3),
    }
    levels = [sorted(set(rows[factor]), key=natural) for factor in factors]
    groups = {
        cell: np.sort(rows.loc[(rows[list(factors)] == list(cell)).all(axis=1), dv].to_numpy(dtype=float))
        for cell in itertools.product(*levels)
    }
    residuals = np.concatenate([values - values.mean() for values in groups.values()])
    checks = assumptions.run(list(groups.values()), residuals)
    told = pd.DataFrame(
        [{**dict(zip(factors, cell, strict=True)), **summary(values)} for cell, values in groups.items()],
        columns=[*factors, *(name for name in DESCRIPTIVE_COLUMNS if name not in ("n_runs", "sd_within_block"))],
    )
    sizes = {len(values) for values in groups.values()}
    all_facts = [
        *facts,
        f"{len(rows)} rows in {len(groups)} cells ({'balanced' if len(sizes) == 1 else 'unbalanced'}); every row is "
        "taken for an independent unit. Scores that share seeds, splits or speakers are not: name them with --block.",
    ]
    df2 = int(types[3]["df"].iloc[-1])
    effects = rows_of(types[3][types[3]["term"] != "Residuals"])
    omnibus = [wording.between_sentence(row, df2) for row in effects]
    content = {
        "target": {"code": "T1", "question": "other rows drawn like these: would they show the same?"},
        "provenance": provenance(csv),
        "audit": {
            "dv": dv,
            "factors": dict(zip(factors, levels, strict=True)),
            "cells": len(groups),
            "balanced": len(sizes) == 1,
        },
        "n": len(rows),
        "descriptives": records(told),
        "anova_type2": records(types[2]),
        "anova_type3": records(types[3]),
        "effect_ci_type2_ncF": records(between_anova.effect_intervals(types[2])),
        "effect_ci_type3_ncF": records(between_anova.effect_intervals(types[3])),
        "assumptions": assumptions.as_blocks(checks),
        "facts": all_facts,
        "omnibus": omnibus,
    }
    tables = {"descriptives": told, "anova_type2": types[2], "anova_type3": types[3], "assumptions": checks}
    return Analysis(
        f"Statistics of {csv.name}",
        content,
        tables,
        all_facts,
        omnibus=omnibus,
        groups={"+".join(cell): values.tolist() for cell, values in groups.items()},
    )
