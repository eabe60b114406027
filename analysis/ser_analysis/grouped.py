"""The analysis of a table whose rows are units of their own: between-groups ANOVA and everything beside it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ser_analysis import wording
from ser_analysis.methods import aligned_ranks, assumptions, between_anova, marginal_means, oneway, tukey, two_groups
from ser_analysis.methods.descriptives import COLUMNS as DESCRIPTIVE_COLUMNS
from ser_analysis.methods.descriptives import summary
from ser_analysis.methods.marginal_means import Cells
from ser_analysis.output import Analysis, CellMeans, records
from ser_analysis.scores import Array, column_of, natural, rows_of
from ser_eval.errors import BadInput

QUESTION = "other rows drawn like these: would they show the same?"


def analyse(
    rows: pd.DataFrame,
    *,
    dv: str,
    factors: Sequence[str],
    title: str,
    provenance: Mapping[str, Any],
    facts: Sequence[str] = (),
) -> Analysis:
    """ANOVA of types I to III with effect sizes, HC3, marginal means, simple effects, post-hoc tests, assumptions.

    Args:
        rows: the factors as text, `dv` as float without NaN
        dv: the score
        factors: what varies between the rows
        title: heading of the report
        provenance: what the numbers were made from
        facts: what was left out before

    Raises:
        BadInput: as `between_anova.run`
    """
    types = {typ: between_anova.run(rows, dv=dv, factors=factors, typ=typ) for typ in (1, 2, 3)}
    levels = [sorted(set(rows[factor]), key=natural) for factor in factors]
    groups = {
        cell: np.sort(rows.loc[(rows[list(factors)] == list(cell)).all(axis=1), dv].to_numpy(dtype=float))
        for cell in itertools.product(*levels)
    }
    residuals = np.concatenate([values - values.mean() for values in groups.values()])
    checks = assumptions.run(list(groups.values()), residuals)
    named = [column_of(factor, DESCRIPTIVE_COLUMNS) for factor in factors]
    told = pd.DataFrame(
        [{**dict(zip(named, cell, strict=True)), **summary(values)} for cell, values in groups.items()],
        columns=[*named, *(name for name in DESCRIPTIVE_COLUMNS if name not in ("n_runs", "sd_within_block"))],
    )
    means = CellMeans.described(factors, levels, told, "mean and 95 % CI")
    sizes = {len(values) for values in groups.values()}
    all_facts = [
        *facts,
        f"{len(rows)} rows in {len(groups)} cells ({'balanced' if len(sizes) == 1 else 'unbalanced'}); every row is "
        "taken for an independent unit. Scores that share seeds, splits or speakers are not: name them with --block.",
    ]
    twin = rows.duplicated(keep="first")
    if twin.any():
        all_facts.append(
            f"{int(twin.sum())} rows repeat another row in every column (the first is line "
            f"{int(rows.index[twin][0]) + 2}); they count as scores of their own."
        )
    if len(sizes) > 1:
        all_facts.append(
            "Unbalanced: types I, II and III differ. Type III asks whether the equally weighted cell means differ; the "
            "order of the factors decides type I."
        )
    df2 = int(types[3]["df"].iloc[-1])
    effects = rows_of(types[3][types[3]["term"] != "Residuals"])
    hc3 = {typ: between_anova.robust(rows, dv=dv, factors=factors, typ=typ) for typ in (2, 3)}
    omnibus = [wording.between_sentence(row, df2) for row in effects]
    omnibus += _disagreements(effects, hc3[3])
    tables = {
        "descriptives": told,
        "anova_type3": types[3],
        "anova_type2": types[2],
        "anova_type1": types[1],
        "effect_sizes": _effect_sizes(types[3]),
    }
    content: dict[str, Any] = {
        "target": {"code": "T1", "question": QUESTION},
        "provenance": provenance,
        "audit": {
            "dv": dv,
            "factors": dict(zip(factors, levels, strict=True)),
            "cells": len(groups),
            "balanced": len(sizes) == 1,
        },
        "n": len(rows),
        "descriptives": records(told),
        "cells": records(told[[*named, "n", "mean", "sd"]]),
        **{f"anova_type{typ}": records(table) for typ, table in types.items()},
        "effect_ci_type2_ncF": records(between_anova.effect_intervals(types[2])),
        "effect_ci_type3_ncF": records(between_anova.effect_intervals(types[3])),
        "effectsize_pkg_type3": between_anova.effect_sizes(types[3]),
        "assumptions": assumptions.as_blocks(checks),
        "welch_oneway_cells": oneway.welch(list(groups.values())),
        "kruskal_cells": oneway.kruskal(list(groups.values())),
    }
    for typ, table in hc3.items():
        if len(table):
            content[f"hc3_type{typ}"] = records(table)
            tables[f"hc3_type{typ}"] = table
    if not len(hc3[3]):
        all_facts.append("A cell has one row, so that HC3 is not defined.")
    try:
        tables["art_anova"] = aligned_ranks.between(rows, dv=dv, factors=factors)
        tables["art_contrasts"] = aligned_ranks.between_contrasts(rows, dv=dv, factors=factors)
        content["art"] = {"table": records(tables["art_anova"]), "contrasts": records(tables["art_contrasts"])}
    except BadInput as error:
        all_facts.append(f"No analysis of aligned ranks: {error}.")
    blocks, more = marginal(between_anova.cells(rows, dv=dv, factors=factors))
    content |= blocks
    tables |= more
    blocks, more = _single_factors(rows, dv, factors, types[3], balanced=len(sizes) == 1)
    content |= blocks
    tables |= more
    tables["assumptions"] = checks
    content["facts"], content["omnibus"] = all_facts, omnibus
    return Analysis(
        title,
        content,
        tables,
        all_facts,
        omnibus=omnibus,
        groups={"+".join(cell): values.tolist() for cell, values in groups.items()},
        cell_means=means if len(factors) > 1 else None,
        residuals=(np.concatenate([np.full(len(values), values.mean()) for values in groups.values()]), residuals),
    )


def marginal(cells: Cells) -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
    """Marginal means, their pairs (Tukey and Holm), simple effects and interaction contrasts: blocks and tables."""
    content: dict[str, Any] = {}
    mean_rows, pair_rows, simple_rows, interaction_rows = [], [], [], []
    for factor in cells.factors:
        told = marginal_means.means(cells, factor)
        content[f"emmeans_{factor}"] = records(told)
        mean_rows.append(told.rename(columns={told.columns[0]: "level"}).assign(factor=factor))
        for adjust in ("tukey", "holm"):
            pairs = marginal_means.pairwise(cells, factor, adjust)
            content[f"emmeans_{factor}_{adjust}"] = records(pairs)
            pair_rows.append(pairs.assign(factor=factor, adjustment=adjust))
        others = [name for name in cells.factors if name != factor]
        if others:
            simple = marginal_means.simple_effects(cells, factor)
            kind = "emmeans" if len(others) == 1 else "simple"
            content[f"{kind}_{factor}_within_{'_'.join(others)}_holm"] = records(simple)
            plain = simple[["at", "contrast", *marginal_means.CONTRAST_COLUMNS]]
            simple_rows.append(plain.assign(factor=factor))
    for first, second in itertools.combinations(cells.factors, 2):
        contrasts = marginal_means.interaction(cells, first, second)
        content[f"interaction_contrast_{second}_x_{first}"] = records(contrasts)
        text = contrasts[f"{first}_pairwise"] + " x " + contrasts[f"{second}_pairwise"]
        interaction_rows.append(
            contrasts.drop(columns=[f"{first}_pairwise", f"{second}_pairwise"]).assign(
                term=f"{first}:{second}", contrast=text
            )
        )
    tables = {
        "marginal_means": _front(mean_rows, ["factor", "level"]),
        "marginal_contrasts": _front(pair_rows, ["factor", "adjustment", "contrast"]).drop(columns=["a", "b"]),
    }
    if simple_rows:
        tables["simple_effects"] = _front(simple_rows, ["factor", "at", "contrast"])
        tables["interaction_contrasts"] = _front(interaction_rows, ["term", "contrast"])
    return content, tables


def pairs_of_groups(groups: Mapping[str, Array], factor: str, at: str) -> list[dict[str, Any]]:
    """`two_groups` for all pairs of the groups that have two scores."""
    return [
        {
            **{"factor": factor, "at": at, "a": a, "b": b, "n_a": len(x), "n_b": len(y)},
            "mean_diff": float(x.mean() - y.mean()),
            **two_groups.run(x, y),
        }
        for (a, x), (b, y) in itertools.combinations(groups.items(), 2)
        if min(len(x), len(y)) > 1
    ]


def two_group_table(found: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The records of `pairs_of_groups` as a flat table."""
    return pd.DataFrame(
        [
            {
                **{key: row[key] for key in ("factor", "at", "a", "b", "n_a", "n_b", "mean_diff")},
                **{f"welch_{key}": value for key, value in row["welch_t"].items()},
                "student_t": row["student_t"]["t"],
                "student_p": row["student_t"]["p"],
                "d": row["cohens_d_pooled"]["Cohens_d"],
                "d_ci95_low": row["cohens_d_pooled"]["CI_low"],
                "d_ci95_high": row["cohens_d_pooled"]["CI_high"],
                "hedges_g": row["hedges_g_pooled"]["Hedges_g"],
                "mann_whitney_W": row["mann_whitney"]["W"],
                "mann_whitney_p": row["mann_whitney"]["p"],
            }
            for row in found
        ]
    )


def _single_factors(
    rows: pd.DataFrame, dv: str, factors: Sequence[str], anova: pd.DataFrame, *, balanced: bool
) -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
    """One factor at a time, the others ignored: Tukey, Games-Howell, Welch, Kruskal-Wallis, Brown-Forsythe, pairs."""
    content: dict[str, Any] = {}
    hsd_rows, gh_rows, oneway_rows, pairs = [], [], [], []
    for factor in factors:
        by_level = _by_level(rows, dv, factor)
        values = list(by_level.values())
        within = sum(float(((group - group.mean()) ** 2).sum()) for group in values)
        df = len(rows) - len(values)
        same = len({len(group) for group in values}) == 1
        table = tukey.hsd(by_level, mse=within / df, df=df)
        content[f"tukey_{'hsd' if same else 'kramer'}_{factor}_oneway"] = records(table)
        hsd_rows.append(table.assign(factor=factor, model="one-way"))
        if balanced and len(factors) > 1:
            mse, df = _additive(anova)
            table = tukey.hsd(by_level, mse=mse, df=df)
            content[f"tukey_hsd_{factor}_additive"] = records(table)
            hsd_rows.append(table.assign(factor=factor, model="additive"))
        howell = tukey.games_howell(by_level)
        if len(howell):
            content[f"games_howell_{factor}_rstatix"] = records(howell.drop(columns="p"))
            content[f"games_howell_{factor}_p_full_precision"] = records(howell[["group1", "group2", "a", "b", "p"]])
            gh_rows.append(howell.drop(columns=["group1", "group2"]).assign(factor=factor))
        for name, statistic, answer in (
            ("welch_oneway", "F", oneway.welch(values)),
            ("kruskal", "H", oneway.kruskal(values)),
            ("brown_forsythe", "F", oneway.brown_forsythe(values)),
        ):
            content[f"{name}_{factor}"] = answer
            oneway_rows.append(
                {"factor": factor, "test": name, "statistic": statistic, "value": answer[statistic],
                 "df1": answer.get("df1", answer.get("df")), "df2": answer.get("df2"), "p": answer["p"]}
            )  # fmt: skip
        pairs += pairs_of_groups(by_level, factor, "")
        for other in factors:
            if other != factor:
                for level in sorted(set(rows[other]), key=natural):
                    part = _by_level(rows[rows[other] == level], dv, factor)
                    pairs += pairs_of_groups(part, factor, f"{other}={level}")
    content["two_group"] = pairs
    tables = {"oneway": pd.DataFrame(oneway_rows), "tukey": _front(hsd_rows, ["factor", "model", "pair"])}
    tables["tukey"] = tables["tukey"].drop(columns=["a", "b"])
    if gh_rows:
        tables["games_howell"] = _front(gh_rows, ["factor", "a", "b"])
    if pairs:
        tables["two_groups"] = two_group_table(pairs)
    return content, tables


def _additive(anova: pd.DataFrame) -> tuple[float, int]:
    """Mean square and df of the residuals when all interactions of a balanced design are left out of the model."""
    pooled = anova[anova["term"].str.contains(":") | (anova["term"] == "Residuals")]
    return float(pooled["ss"].sum()) / int(pooled["df"].sum()), int(pooled["df"].sum())


def _effect_sizes(anova: pd.DataFrame) -> pd.DataFrame:
    sizes = between_anova.effect_sizes(anova)
    columns: dict[str, list[object]] = {"term": [row["term"] for row in sizes["eta2p"]]}
    for block, name in (("eta2p", "Eta2_partial"), ("omega2p", "Omega2_partial"), ("epsilon2p", "Epsilon2_partial")):
        short = name.lower()
        columns[short] = [row[name] for row in sizes[block]]
        columns[f"{short}_ci90_low"] = [row["CI_low"] for row in sizes[block]]
        columns[f"{short}_ci90_high"] = [row["CI_high"] for row in sizes[block]]
    return pd.DataFrame(columns)


def _disagreements(effects: Sequence[Mapping[str, Any]], hc3: pd.DataFrame) -> list[str]:
    """Effects on which the ordinary and the HC3 test come to another verdict."""
    robust = dict(zip(hc3["term"], hc3["p"], strict=True))
    return [
        f"T1 (other rows drawn like these): {row['term']}: without equal variances (HC3) "
        f"{wording.p_text(robust[row['term']])}, against {wording.p_text(row['p'])}: the verdict depends on that "
        "assumption."
        for row in effects
        if row["term"] in robust and (robust[row["term"]] < wording.ALPHA) != (row["p"] < wording.ALPHA)
    ]


def _by_level(rows: pd.DataFrame, dv: str, factor: str) -> dict[str, Array]:
    """Sorted, since a sum in floating point depends on the order of its terms."""
    return {
        level: np.sort(rows.loc[rows[factor] == level, dv].to_numpy(dtype=float))
        for level in sorted(set(rows[factor]), key=natural)
    }


def _front(parts: Sequence[pd.DataFrame], columns: Sequence[str]) -> pd.DataFrame:
    table = pd.concat(parts, ignore_index=True)
    return table[[*columns, *(name for name in table.columns if name not in columns)]]
