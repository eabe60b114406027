"""The analysis of rows that come in blocks of several, such as pupils in classes: a mixed model with random intercepts.

No factor has to vary within the blocks, blocks may have any number of rows, and a factor may vary within some blocks
and not within others. Designs in which every block has every level are repeated measures (`blocked`), rows that are
units of their own are `grouped`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ser_analysis import grouped, wording
from ser_analysis.methods import assumptions, between_anova, icc, lmm, rm_anova
from ser_analysis.methods.descriptives import summary
from ser_analysis.methods.marginal_means import MEAN_COLUMNS, Cells
from ser_analysis.output import Analysis, CellMeans, records
from ser_analysis.scores import Array, column_of, natural, pivot, rows_of
from ser_eval.errors import BadInput

DESCRIBED = ["n", "n_blocks", "mean", "sd", "median", "min", "max", "model_mean", "ci95_low", "ci95_high"]
FEW_BLOCKS = 5
"""Fewer blocks of a combination of factors are told: the degrees of freedom are an approximation."""


def analyse(
    rows: pd.DataFrame,
    *,
    dv: str,
    factors: Sequence[str],
    block: str,
    title: str,
    provenance: Mapping[str, Any],
    target: str,
    facts: Sequence[str] = (),
    random: Sequence[tuple[str, ...]] | None = None,
) -> Analysis:
    """Mixed model by REML, type III F tests with Satterthwaite df, ICC, marginal means and pairs, means of the blocks.

    Args:
        rows: factors, block and the columns of `random` as text, `dv` as float without NaN
        dv: the score
        factors: what the fixed effects are of; none for the mean alone
        block: the column that names the blocks
        title: heading of the report
        provenance: what the numbers were made from
        target: what the blocks are a sample of
        facts: what is to be said before
        random: the random terms; `(1|block)` when absent

    Raises:
        BadInput: a factor has one level or a cell is empty, blocks cannot be told from factors, or as `lmm.fit`
    """
    terms = list(random) if random is not None else [(block,)]
    plain = terms == [(block,)]
    # Sorted, since a sum in floating point depends on the order of its terms, and so would the result on the file's.
    rows = rows.sort_values(list(dict.fromkeys([*factors, block, *itertools.chain(*terms), dv])), kind="stable")
    levels = [sorted(set(rows[factor]), key=natural) for factor in factors]
    _refuse(rows, factors, levels, block)
    table = _design(rows, dv, factors, levels, block, terms)
    _refuse_confounded(table, block, factors)
    told, fitted = lmm.run_design(table, terms)
    fits, residual, effects = lmm.effects_of(fitted, table, terms)
    cells = lmm.cells_of(fitted, factors, levels) if factors else _one_mean(fitted)
    means = _cell_means(cells)

    varying = [factor for factor in factors if (rows.groupby(block)[factor].nunique() > 1).any()]
    sizes = rows.groupby(block).size()
    share = sum(told["icc"].values())
    reach = icc.interval(table.y, table.fixed()[0], table.codes[block]) if plain else None
    analysis = Analysis(
        title,
        {
            "target": {"code": target, "question": wording.TARGETS[target]},
            "provenance": dict(provenance),
            "audit": {
                "dv": dv,
                "factors": dict(zip(factors, levels, strict=True)),
                "block": block,
                "n_blocks": len(sizes),
                "rows_per_block": {"min": int(sizes.min()), "median": float(sizes.median()), "max": int(sizes.max())},
                "balanced": sizes.nunique() == 1 and (not factors or rows.groupby(list(factors)).size().nunique() == 1),
                "vary_within_some_blocks": varying,
            },
            "n": len(rows),
            "lmm": {"target": target, **told},
            "lmm_singular": told["singular"],
            f"{block}_icc": told["icc"][block],
        },
        facts=[*facts, *_facts(rows, factors, varying, levels, block, sizes, share, reach, target, plain)],
        cell_means=means,
        residuals=(fits, residual),
        block_effects=effects if told["icc"][block] > 0 else None,
    )
    if plain:
        analysis.content[f"lmm_{block}"] = analysis.content["lmm"]
        analysis.content[f"{block}_icc_ci95"] = None if reach is None else list(reach)
    else:
        shares = ", ".join(f"{name} {wording.share(share)}" for name, share in told["icc"].items())
        analysis.facts.append(
            f"{target}: shares of the variance beside the factors (`icc`): {shares}; the rest is within."
        )
    analysis.tables["descriptives"] = _descriptives(rows, dv, factors, levels, block, means)
    analysis.content["descriptives"] = records(analysis.tables["descriptives"])
    analysis.tables["lmm_variances"] = pd.DataFrame(
        [
            {
                **row,
                "share": told["icc"].get(row["grp"], math.nan),
                "share_ci95_low": reach[0] if reach and row["grp"] == block else math.nan,
                "share_ci95_high": reach[1] if reach and row["grp"] == block else math.nan,
            }
            for row in told["varcomp"]
        ]
    )
    if fitted.singular:
        none = [row["grp"] for row in told["varcomp"] if row["vcov"] == 0]
        analysis.facts.append(wording.singular_remark(none, target))
    if factors:
        _effects(analysis, cells, told, dv, target)
    else:
        _mean_alone(analysis, cells, dv, block, target)
    _block_means(analysis, rows, dv, factors, varying, block, target)
    _legacy(analysis, rows, dv, factors)

    codes = [table.codes[factor] for factor in factors]
    groups: dict[str, Array] = {}
    for at, cell in enumerate(itertools.product(*(range(len(part)) for part in levels))):
        chosen = np.all([of == code for of, code in zip(codes, cell, strict=True)], axis=0) if factors else slice(None)
        name = "+".join(part[code] for part, code in zip(levels, cell, strict=True)) or "all rows"
        analysis.groups[name], groups[str(at)] = table.y[chosen].tolist(), residual[chosen]
    checks = assumptions.run(list(groups.values()), residual)
    analysis.tables["assumptions"] = checks
    analysis.content["assumptions"] = assumptions.as_blocks(checks)
    analysis.content |= {"facts": analysis.facts, "findings": analysis.findings, "omnibus": analysis.omnibus}
    return analysis


def summary_lines(analysis: Analysis) -> list[str]:
    """The lines for the terminal."""
    lines = [analysis.title, *analysis.omnibus[:6], *analysis.findings[:4]]
    return [*lines, *analysis.facts[: max(1, 13 - len(lines))]]


def _design(
    rows: pd.DataFrame,
    dv: str,
    factors: Sequence[str],
    levels: Sequence[Sequence[str]],
    block: str,
    terms: Sequence[tuple[str, ...]],
) -> lmm.Design:
    codes = {}
    for column in dict.fromkeys([block, *factors, *itertools.chain(*terms)]):
        known = levels[factors.index(column)] if column in factors else sorted(set(rows[column]), key=natural)
        position = {level: at for at, level in enumerate(known)}
        codes[column] = np.array([position[value] for value in rows[column]], dtype=np.int64)
    shown = tuple(tuple(part) for part in levels)
    return lmm.Design(tuple(factors), shown, rows[dv].to_numpy(dtype=float), codes, block, model=())


def _refuse(rows: pd.DataFrame, factors: Sequence[str], levels: Sequence[Sequence[str]], block: str) -> None:
    for factor, known in zip(factors, levels, strict=True):
        if len(known) < 2:
            raise BadInput(f"between factor '{factor}' has one level ({known[0]}); leave it out")
    if rows[block].nunique() < 2:
        raise BadInput(f"'{block}' has one level ({rows[block].iloc[0]}); a test over blocks needs at least two")
    if not factors:
        return
    filled = set(zip(*(rows[factor] for factor in factors), strict=True))
    empty = [cell for cell in itertools.product(*levels) if cell not in filled]
    if empty:
        named = "; ".join(", ".join(f"{f}={v}" for f, v in zip(factors, cell, strict=True)) for cell in empty[:5])
        raise BadInput(f"{len(empty)} cell(s) of {' x '.join(factors)} hold no row ({named}); type III is not defined")


def _refuse_confounded(table: lmm.Design, block: str, factors: Sequence[str]) -> None:
    """Refuse factors that explain the blocks away: each level in one block leaves nothing to test against."""
    x, _, _ = table.fixed()
    basis, _ = np.linalg.qr(x)
    counts = np.bincount(table.codes[block]).astype(float)
    across = np.zeros((len(counts), basis.shape[1]))
    np.add.at(across, table.codes[block], basis)
    left = np.linalg.eigvalsh(np.diag(counts) - across @ across.T)
    if not (left > 1e-8 * counts.max()).any():
        raise BadInput(
            f"each combination of {' x '.join(factors)} stands in one {block}, so that their effects and those of "
            f"{block} cannot be told apart; it takes two levels of {block} or more of one combination"
        )


def _one_mean(fitted: lmm.Fit) -> Cells:
    return Cells((), (), fitted.beta, fitted.covariance, lambda weights: fitted.df(weights))


def _cell_means(cells: Cells) -> CellMeans:
    """Fitted mean of each cell with its 95 % interval."""
    from scipy.stats import t

    lines = [cells.line(unit) for unit in np.eye(len(cells.mean))]
    mean, half = (
        np.array([estimate for estimate, _, _ in lines]),
        np.array([float(t.ppf(0.975, df)) * se for _, se, df in lines]),
    )
    return CellMeans(cells.factors, cells.levels, mean, mean - half, mean + half, "mean and 95 % CI of the mixed model")


def _descriptives(
    rows: pd.DataFrame,
    dv: str,
    factors: Sequence[str],
    levels: Sequence[Sequence[str]],
    block: str,
    means: CellMeans,
) -> pd.DataFrame:
    """Per cell: rows, blocks, raw mean and spread of the rows, and the mean of the mixed model with its interval."""
    told = []
    for at, cell in enumerate(itertools.product(*levels)):
        part = rows[(rows[list(factors)] == list(cell)).all(axis=1)] if factors else rows
        raw = summary(np.sort(part[dv].to_numpy(dtype=float)))
        told.append(
            {
                **{column_of(factor, DESCRIBED): level for factor, level in zip(factors, cell, strict=True)},
                **{key: raw[key] for key in ("n", "mean", "sd", "median", "min", "max")},
                "n_blocks": part[block].nunique(),
                **{"model_mean": means.mean[at], "ci95_low": means.low[at], "ci95_high": means.high[at]},
            }
        )
    return pd.DataFrame(told)[[*(column_of(factor, DESCRIBED) for factor in factors), *DESCRIBED]]


def _effects(analysis: Analysis, cells: Cells, told: Mapping[str, Any], dv: str, target: str) -> None:
    """F tests, marginal means and their pairs."""
    analysis.tables["lmm_anova"] = lmm.anova_table(told)
    anova = told["anova_type3_satterthwaite"]
    analysis.omnibus += [wording.mixed_model_sentence(row, told["random"], target) for row in anova]
    blocks, tables = grouped.marginal(cells)
    analysis.content |= blocks
    analysis.tables |= tables
    for factor in cells.factors:
        others = [name for name in cells.factors if name != factor]
        analysis.findings += [
            wording.marginal_sentence(row, factor, others, dv, target) for row in blocks[f"emmeans_{factor}_holm"]
        ]
        inside = [
            f"{row['term']}: {wording.p_text(row['p'])}"
            for row in anova
            if ":" in row["term"] and factor in row["term"].split(":") and row["p"] < wording.ALPHA
        ]
        if inside:
            analysis.findings.append(
                f"{target}: the effect of {factor} depends on other factors ({'; '.join(inside)}): its average does "
                "not stand alone; read it with `simple_effects`."
            )


def _mean_alone(analysis: Analysis, cells: Cells, dv: str, block: str, target: str) -> None:
    """The mean over blocks with its interval, where there is no factor."""
    from scipy.stats import t

    estimate, se, df = cells.line(np.ones(1))
    half = float(t.ppf(0.975, df)) * se
    means = pd.DataFrame([[estimate, se, df, estimate - half, estimate + half]], columns=MEAN_COLUMNS)
    analysis.tables["marginal_means"] = means
    analysis.content["emmeans"] = records(means)
    low, high, remark = wording.cut(estimate - half, estimate + half, dv)
    analysis.findings.append(
        f"{target}: the mean of {dv} over levels of {block} is {wording.number(estimate)}, 95 % CI "
        f"[{wording.number(low)}, {wording.number(high)}]{remark} ({df:.1f} df)."
    )


def _block_means(
    analysis: Analysis,
    rows: pd.DataFrame,
    dv: str,
    factors: Sequence[str],
    varying: Sequence[str],
    block: str,
    target: str,
) -> None:
    """The same question asked of the means of the blocks, each block counting once whatever its size."""
    if not factors:
        means = np.sort(rows.groupby(block)[dv].mean().to_numpy(dtype=float))
        analysis.content["block_means"] = summary(means)
        return
    constant = [factor for factor in factors if factor not in varying]
    try:
        if varying:
            scores = pivot(rows, dv=dv, factors=varying, block=block, between=constant)
            anova = rm_anova.run(scores)
            table = anova[["term", "df1", "df2", "F", "p", "p_gg", "partial_eta2"]]
            left_out = [name for name, whole in zip(scores.blocks, scores.complete, strict=True) if not whole]
        else:
            units = rows.groupby([*factors, block], sort=True)[dv].mean().reset_index()
            anova = between_anova.run(units, dv=dv, factors=factors, typ=3)
            df2 = int(anova.loc[anova["term"] == "Residuals", "df"].iloc[0])
            table = anova[anova["term"] != "Residuals"].assign(df2=df2).rename(columns={"df": "df1"})
            table = table[["term", "df1", "df2", "F", "p", "partial_eta2"]]
            left_out = []
    except BadInput as error:
        analysis.facts.append(f"{target}: no ANOVA of the means of each {block} beside the mixed model: {error}.")
        return
    analysis.tables["block_means_anova"] = table
    analysis.content["block_means_anova_type3"] = {
        "target": target,
        "n_blocks": rows[block].nunique() - len(left_out),
        "dropped_blocks": left_out,
        "table": records(table),
    }
    if left_out:
        named = ", ".join(left_out[:10]) + (f" and {len(left_out) - 10} more" if len(left_out) > 10 else "")
        analysis.facts.append(
            f"The ANOVA of means takes each {block} that has every level of {', '.join(varying)}; it leaves out "
            f"{named}. The mixed model takes every row."
        )
    ours = {row["term"]: row["p"] for row in analysis.content["lmm"]["anova_type3_satterthwaite"]}
    for row in rows_of(table):
        p = row["p"] if math.isnan(row.get("p_gg", math.nan)) else row["p_gg"]
        mine = next(value for term, value in ours.items() if set(term.split(":")) == set(row["term"].split(":")))
        if not math.isnan(p) and (p < wording.ALPHA) != (mine < wording.ALPHA):
            analysis.omnibus.append(
                f"{target}: {row['term']}: {wording.p_text(p)} of the means of "
                f"{rows[block].nunique() - len(left_out)} levels of {block}, each counting once, against "
                f"{wording.p_text(mine)} of the mixed model: the verdict depends on the method."
            )


def _legacy(analysis: Analysis, rows: pd.DataFrame, dv: str, factors: Sequence[str]) -> None:
    """What older papers print: every row a unit."""
    if factors:
        for typ in (2, 3):
            table = between_anova.run(rows, dv=dv, factors=factors, typ=typ)
            analysis.tables[f"anova_type{typ}"] = table
            analysis.content[f"anova_type{typ}"] = records(table)


def _facts(
    rows: pd.DataFrame,
    factors: Sequence[str],
    varying: Sequence[str],
    levels: Sequence[Sequence[str]],
    block: str,
    sizes: pd.Series[int],
    share: float,
    reach: tuple[float, float] | None,
    target: str,
    plain: bool,
) -> list[str]:
    low, high = int(sizes.min()), int(sizes.max())
    each = f"{low} each" if low == high else f"{low} to {high} each"
    facts = [
        f"{len(rows)} rows in {len(sizes)} levels of '{block}' ({each}). Rows of one {block} resemble each other and "
        "are no independent units; the mixed model gives each an effect of its own."
    ]
    for factor in varying:
        kinds = rows.groupby(block)[factor].nunique()
        facts.append(
            f"{factor} varies within {int((kinds > 1).sum())} of {len(kinds)} levels of {block}. "
            + (
                f"Its effect is taken to be the same in each; --random '(1|{block}) + (1|{block}:{factor})' lets it "
                "differ."
                if plain
                else "The random terms are those given."
            )
        )
    if plain:
        worth = float((sizes / (1 + (sizes - 1) * share)).sum())
        ends = "" if reach is None else f", 95 % CI [{wording.share(reach[0])}, {wording.share(reach[1])}]"
        facts.append(
            f"{target}: ICC = {wording.share(share)}{ends}: that share of the variance beside the factors lies between "
            f"levels of {block}. For what does not vary within {block} the {len(rows)} rows are worth about "
            f"{worth:.0f} independent ones."
        )
    constant = [factor for factor in factors if factor not in varying]
    if constant:
        counts = rows.groupby(constant)[block].nunique()
        if int(counts.min()) < FEW_BLOCKS:
            facts.append(
                f"A level of {' x '.join(constant)} has {int(counts.min())} level(s) of {block} only: few to tell "
                "their spread from, and Satterthwaite's df are an approximation. The ANOVA of means stands beside it."
            )
    return facts
