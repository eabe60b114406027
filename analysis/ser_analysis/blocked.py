"""The analysis that every blocked table gets: audit, descriptives, ANOVA, contrasts, assumptions, sentences."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ser_analysis import grouped, wording
from ser_analysis.methods import (
    aligned_ranks,
    assumptions,
    between_anova,
    contrasts,
    descriptives,
    friedman,
    lmm,
    logit,
    rm_anova,
    strata,
)
from ser_analysis.output import RNG_SEED, Analysis, CellMeans, records
from ser_analysis.scores import Array, Scores, audit, column_of, is_ccc, range_of, rows_of, subset
from ser_eval.errors import BadInput

SUMMARY_LINES = 15
SHARE_MARGIN = 0.01
"""What counts as no difference of a score in [0, 1] or a CCC, unless another margin is given: one point."""


def analyse(
    scores: Scores,
    *,
    title: str,
    provenance: Mapping[str, Any],
    facts: Sequence[str] = (),
    extra_audit: Mapping[str, Any] | None = None,
    chance: float | None = None,
    margin: float | None = None,
    random: Sequence[tuple[str, ...]] | None = None,
    planned: Sequence[tuple[str, str]] = (),
) -> Analysis:
    """Everything that the blocks of `scores` allow; what they do not allow is said in `facts`.

    Args:
        scores: blocks x cells
        title: heading of the report
        provenance: what the numbers were made from
        facts: what is to be said before
        extra_audit: further entries of the audit
        chance: chance level of the score
        margin: what counts as no difference (+-), for equivalence; `SHARE_MARGIN` for shares and CCCs when absent
        random: random terms of the mixed model; those of `lmm.terms_of` when absent
        planned: pairs of models declared before the experiment: the family of Holm's correction
    """
    audited = {**audit(scores), **(extra_audit or {})}
    tables = {"descriptives": _descriptives(scores)}
    content: dict[str, Any] = {
        "target": {"code": scores.target, "question": wording.TARGETS[scores.target]},
        "provenance": dict(provenance),
        "audit": audited,
        "n": int((~np.isnan(scores.values)).sum()),
        "descriptives": records(tables["descriptives"]),
    }
    told = [*facts, *_facts(audited, scores.target)]
    analysis = Analysis(title, content, tables, told, scores=scores, chance=chance)
    if len(scores.factors) + len(scores.between) > 1:
        analysis.cell_means = CellMeans.described(
            (*scores.between, *scores.factors), (*scores.between_levels, *scores.levels), tables["descriptives"],
            "mean and 95 % CI over blocks",
        )  # fmt: skip
    if margin is None and range_of(scores.dv) is not None:
        margin = SHARE_MARGIN

    models = int(np.prod([len(scores.levels[scores.factors.index(factor)]) for factor in scores.model]))
    if models < 2:
        told.append(
            f"{scores.target}: there is one model, so there is nothing to compare; its descriptives stand below."
        )
    else:
        _variance(scores, analysis)
        _pairs(scores, analysis, margin, planned)
        if scores.between:
            _groups(scores, analysis)
        _ranks(scores, analysis)
        _mixed_models(scores, analysis, random)
        _legacy(scores, analysis)
    content["facts"], content["findings"], content["omnibus"] = told, analysis.findings, analysis.omnibus
    return analysis


def _descriptives(scores: Scores) -> pd.DataFrame:
    """Of every cell, in a mixed design of every cell of every group."""
    if not scores.between:
        return descriptives.run(scores)
    parts = []
    for levels in itertools.product(*scores.between_levels):
        keep = np.array([group == levels for group in scores.groups])
        part = descriptives.run(subset(scores, keep)).drop(columns="sd_within_block")
        for position, (factor, level) in enumerate(zip(scores.between, levels, strict=True)):
            part.insert(position, column_of(factor, descriptives.COLUMNS), level)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def _variance(scores: Scores, analysis: Analysis) -> None:
    """Repeated-measures or mixed ANOVA, its strata, its assumptions, and the same on the logit scale."""
    content, tables, told = analysis.content, analysis.tables, analysis.facts
    complete = int(scores.complete.sum())
    try:
        anova = rm_anova.run(scores)
    except BadInput as error:
        told.append(
            f"{scores.target}: {complete} of {len(scores.blocks)} blocks has a score in every cell; an analysis of "
            "variance needs two complete blocks, so there is none. More splits (seeds) are needed."
            if complete < 2
            else f"{scores.target}: no analysis of variance: {error}"
        )
        return
    tables["rm_anova"] = anova
    shown = anova.loc[anova["p_gg"].notna() | anova["mauchly_w"].notna()]
    sphericity = shown[["term", "mauchly_w", "mauchly_p", "gg_eps", "p_gg", "hf_eps", "p_hf"]]
    if len(sphericity):
        tables["sphericity"] = sphericity
    content["rm_anova"] = {
        "target": scores.target,
        "n_blocks": complete,
        "table": records(anova),
        "univariate": _univariate(scores),
        "mauchly": records(sphericity[["term", "mauchly_w", "mauchly_p"]]),
        "gg_hf": records(sphericity[["term", "gg_eps", "p_gg", "hf_eps", "p_hf"]]),
    }
    analysis.omnibus += [wording.anova_sentence(row, scores.target) for row in rows_of(anova)]
    logits = logit.transform(scores)
    if logits is not None:
        tables["rm_anova_logit"] = rm_anova.run(logits)
        content["rm_anova_logit"] = {"target": scores.target, "table": records(tables["rm_anova_logit"])}
        analysis.omnibus += _scale_remarks(anova, tables["rm_anova_logit"], scores.target)

    content["rm_strata"] = records(strata.each(scores))
    places = scores.sub_plots
    if places and len(places) < len(scores.factors):
        split = strata.run(scores, plots=places)
        content["split_plot_strata"] = records(split)
        content[f"split_plot_strata_{scores.block_name}_by_{'_'.join(places)}"] = records(
            strata.run(scores, plots=places, by_plot=True)
        )
        tables["strata"] = split
    _aligned(scores, analysis)
    cells, fits, residuals = _residuals(scores)
    analysis.residuals = fits, residuals
    checks = assumptions.run(cells, residuals)
    tables["assumptions"] = checks
    content["assumptions"] = assumptions.as_blocks(checks)


def _aligned(scores: Scores, analysis: Analysis) -> None:
    """The aligned rank transform, for comparison with papers that use it; no sentence rests on it."""
    table = aligned_ranks.run(scores)
    analysis.tables["art_anova"] = table
    analysis.content["art"] = {"target": scores.target, "table": records(table)}
    try:
        pairs = aligned_ranks.contrasts(scores)
    except BadInput as error:
        analysis.facts.append(f"{scores.target}: no contrasts of aligned ranks: {error}.")
        return
    analysis.tables["art_contrasts"] = pairs
    analysis.content["art"]["contrasts"] = records(pairs)


def _pairs(scores: Scores, analysis: Analysis, margin: float | None, planned: Sequence[tuple[str, str]] = ()) -> None:
    """Paired contrasts over the blocks; in a mixed design over all blocks and within each group."""
    content, tables, told, target = analysis.content, analysis.tables, analysis.facts, scores.target
    parts = [contrasts.run(scores, rng_seed=RNG_SEED, margin=margin, planned=planned)]
    for index, factor in enumerate(scores.between):
        for level in scores.between_levels[index]:
            part = subset(scores, np.array([group[index] == level for group in scores.groups]))
            found = contrasts.run(part, rng_seed=RNG_SEED, margin=margin, planned=planned)
            found["at"] = [f"{factor}={level}" + (f", {at}" if at else "") for at in found["at"]]
            parts.append(found)
    pairs = pd.concat(parts, ignore_index=True)
    apart = [column for column in pairs.columns if column.startswith(("nb_", "bayes_"))]
    tables["pairs"] = pairs.drop(columns=apart)
    if apart and pairs["nb_p"].notna().any():
        t2 = pairs.loc[pairs["nb_p"].notna(), [*contrasts.FAMILY, "a", "b", "n", "mean_diff", *apart]]
        tables["nadeau_bengio"] = t2.rename(columns=lambda name: name.removeprefix("nb_"))
    content["pairs"] = [_pair_record(row, target) for row in rows_of(pairs)]
    content["contrast_scores"] = contrasts.of_scores(scores, rng_seed=RNG_SEED)
    for place in scores.places:
        at = _at(scores, place)
        if place:
            here = [row for row in content["pairs"] if row["at"] == at and not row["averaged_over"]]
            content[f"pairs_{'_'.join(place)}"] = {"pairs": here, "adjusted": [_adjusted(row) for row in here]}

    primary = pairs[pairs["averaged_over"] == ""]
    if planned:
        told.append(
            f"Declared before: {'; '.join(f'{a} against {b}' for a, b in planned)}. At each test set they are the "
            "family of Holm's correction; every other comparison is exploratory and adjusted over all pairs."
        )
        content["planned_contrasts"] = [list(pair) for pair in planned]
        primary = primary.sort_values("planned", ascending=False, kind="stable")
    family = primary[primary["planned"]] if planned and primary["planned"].any() else primary
    largest = int(family.groupby("at").size().max())
    analysis.findings += [
        wording.pair_sentence(row, scores.dv, target) + ("" if row.get("planned", True) else " (Exploratory.)")
        for row in rows_of(primary)
    ]
    anova = tables.get("rm_anova")
    for factor in scores.factors:
        marginal = pairs[(pairs["family"] == factor) & (pairs["averaged_over"] != "")]
        if marginal.empty or factor not in scores.model:
            continue
        analysis.findings += [wording.pair_sentence(row, scores.dv, target) for row in rows_of(marginal)]
        if anova is not None and (warning := wording.interaction_warning(factor, anova, target)):
            analysis.findings.append(warning)
    if any(factor not in scores.model for factor in scores.factors):
        told.append("A difference between two test sets is domain shift and difficulty, not the quality of a corpus.")
    if note := wording.power_note(len(scores.blocks), largest, target):
        told.append(note)


def _groups(scores: Scores, analysis: Analysis) -> None:
    """Groups of blocks against each other, unpaired: on the mean of each block and in each cell."""
    found: list[dict[str, Any]] = []
    columns: list[tuple[str, Array]] = [("", scores.values.mean(axis=1))]
    for index, cell in enumerate(scores.cells):
        at = ", ".join(f"{factor}={level}" for factor, level in zip(scores.factors, cell, strict=True))
        columns.append((at, scores.values[:, index]))
    for index, factor in enumerate(scores.between):
        for at, values in columns:
            groups = {}
            for level in scores.between_levels[index]:
                chosen = values[[group[index] == level for group in scores.groups]]
                groups[level] = chosen[~np.isnan(chosen)]
            found += grouped.pairs_of_groups(groups, factor, at)
    analysis.content["two_group"] = found
    if found:
        analysis.tables["two_groups"] = grouped.two_group_table(found)


def _ranks(scores: Scores, analysis: Analysis) -> None:
    """Friedman's test of the models at each place."""
    content, tables = analysis.content, analysis.tables
    tests, pairs = [], []
    for place in scores.places:
        names, columns = scores.columns_at(place)
        values = scores.values[:, columns]
        if (~np.isnan(values).any(axis=1)).sum() < 2 or len(names) < 2:
            continue
        told, rows = friedman.run(values, names)
        at = _at(scores, place)
        content["_".join(["friedman", *place])] = {"target": scores.target, **told, "pairs": records(rows)}
        analysis.ranks["-".join(place)] = told
        tests.append(
            {
                "at": at,
                "N": told["N"],
                "k": told["k"],
                **{f"chi2_{name}": told[f"friedman_{key}"]["chi2"] for name, key in _TIES},
                **{f"p_{name}": told[f"friedman_{key}"]["p"] for name, key in _TIES},
                "F_iman_davenport_tie": told["iman_davenport_tie"]["F"],
                "p_iman_davenport_tie": told["iman_davenport_tie"]["p"],
                "kendall_W": told["kendall_W"],
                "CD_nemenyi_05": told["CD_nemenyi_05"],
            }
        )
        rows.insert(0, "at", at)
        ranks = told["mean_ranks"]
        rows.insert(3, "mean_rank_a", rows["a"].map(ranks))
        rows.insert(4, "mean_rank_b", rows["b"].map(ranks))
        pairs.append(rows)
        if len(names) > 2:  # of two models it is a sign test by a chi-squared that is far off over few blocks
            analysis.omnibus.append(wording.friedman_sentence(told, at, scores.target))
    if tests:
        tables["friedman"], tables["friedman_pairs"] = pd.DataFrame(tests), pd.concat(pairs, ignore_index=True)


_TIES = (("tie_corrected", "tie_corrected"), ("no_tie_correction", "no_tie_correction"))


def _mixed_models(scores: Scores, analysis: Analysis, random: Sequence[tuple[str, ...]] | None) -> None:
    """Mixed models of all scores: every one that the design allows, `lmm` being the one that is told."""
    content, tables, told, target = analysis.content, analysis.tables, analysis.facts, scores.target
    models = dict(lmm.terms_of(scores))
    primary = list(models)[-1]
    if primary == "full" and not scores.where:
        primary = "splitplot"
    if random is not None:
        models, primary = {**models, "given": list(random)}, "given"
    fits: dict[str, lmm.Fit] = {}
    for name, terms in models.items():
        try:
            block, fits[name] = lmm.run(scores, terms)
        except BadInput as error:
            formula = " + ".join(f"(1|{':'.join(term)})" for term in terms)
            told.append(f"{target}: no mixed model with {formula}: {error}")
            continue
        key = {"block": f"lmm_{scores.block_name}", "given": "lmm"}.get(name, f"lmm_{name}")
        content[key] = {"target": target, **block}
        content[f"{key}_singular"] = block["singular"]
        if name == "block":
            content[f"{scores.block_name}_icc"] = block["icc"][scores.block_name]
            likelihood = lmm.likelihood(scores, terms)
            content[f"{key}_ML"] = likelihood["ML"]
            content[f"lmm_lrt_{_ways(len(scores.factors) + len(scores.between))}"] = likelihood["lrt"]
    if primary not in fits:
        return
    if primary != "given":
        content["lmm"] = content[f"lmm_{scores.block_name if primary == 'block' else primary}"]
    block, fitted = content["lmm"], fits[primary]
    tables["lmm_anova"] = lmm.anova_table(block)
    tables["lmm_variances"] = pd.DataFrame(
        [{**row, "share": block["icc"].get(row["grp"], math.nan)} for row in block["varcomp"]]
    )
    analysis.omnibus += [
        wording.mixed_model_sentence(row, block["random"], target) for row in block["anova_type3_satterthwaite"]
    ]
    if fitted.singular:
        none = [row["grp"] for row in block["varcomp"] if row["vcov"] == 0]
        told.append(wording.singular_remark(none, target))
    factors, levels = (*scores.between, *scores.factors), (*scores.between_levels, *scores.levels)
    cells = lmm.cells_of(fitted, factors, levels)
    blocks, more = grouped.marginal(cells)
    content |= blocks
    tables |= more


def _legacy(scores: Scores, analysis: Analysis) -> None:
    """What older papers print: every score a unit, and one constant per block."""
    content, tables, block = analysis.content, analysis.tables, scores.block_name
    table = lmm.design(scores)
    rows = pd.DataFrame({"y": table.y})
    named = {factor: f"x{index}" for index, factor in enumerate(table.factors)}
    for index, factor in enumerate(table.factors):
        rows[named[factor]] = np.array(table.levels[index], dtype=object)[table.codes[factor]]
    rows["block"] = np.array(scores.blocks, dtype=object)[table.codes[block]]
    codes = list(named.values())
    back = {"block": block, **{code: factor for factor, code in named.items()}}
    try:
        for typ in (2, 3):
            anova = between_anova.run(rows, dv="y", factors=codes, typ=typ)
            tables[f"anova_type{typ}"] = _renamed(anova, back)
            content[f"anova_type{typ}"] = records(tables[f"anova_type{typ}"])
            if not scores.between:
                content[f"between_ignoring_{block}_type{typ}"] = content[f"anova_type{typ}"]
                fixed = between_anova.run(rows, dv="y", factors=codes, typ=typ, block="block")
                tables[f"fixed_block_type{typ}"] = _renamed(fixed, back)
                content[f"fixed_{block}_block_type{typ}"] = records(tables[f"fixed_block_type{typ}"])
    except BadInput as error:
        analysis.facts.append(f"No table for comparison with older papers: {error}")


def _renamed(table: pd.DataFrame, back: Mapping[str, str]) -> pd.DataFrame:
    return table.assign(term=[":".join(back.get(part, part) for part in term.split(":")) for term in table["term"]])


def _ways(k: int) -> str:
    return {1: "oneway", 2: "twoway", 3: "threeway"}.get(k, f"{k}way")


def _univariate(scores: Scores) -> list[dict[str, Any]]:
    """Sums of squares of every effect, as R's car."""
    from scipy.stats import f as f_distribution

    return records(
        pd.DataFrame(
            [
                {
                    "term": ":".join(effect.term),
                    "Sum Sq": effect.ss,
                    "num Df": effect.df,
                    "Error SS": effect.error_ss,
                    "den Df": effect.error_df,
                    "F value": effect.f,
                    "Pr(>F)": float(f_distribution.sf(effect.f, effect.df, effect.error_df)),
                }
                for effect in [rm_anova.intercept(scores), *rm_anova.effects(scores)]
            ]
        )
    )


def _scale_remarks(anova: pd.DataFrame, logits: pd.DataFrame, target: str) -> list[str]:
    """Effects on which the logit scale comes to another verdict."""
    remarks = []
    for row, other in zip(rows_of(anova), rows_of(logits), strict=True):
        p, q = (part["p"] if math.isnan(part["p_gg"]) else part["p_gg"] for part in (row, other))
        if (p < wording.ALPHA) != (q < wording.ALPHA):
            remarks.append(
                f"{target}: {row['term']}: on the logit scale {wording.p_text(q)}, in points {wording.p_text(p)}: the "
                "verdict depends on the scale."
            )
    return remarks


def _at(scores: Scores, place: tuple[str, ...]) -> str:
    where = [factor for factor in scores.factors if factor not in scores.model]
    return ", ".join(f"{factor}={level}" for factor, level in zip(where, place, strict=True))


def summary(analysis: Analysis) -> list[str]:
    """The 5 to 15 lines for the terminal."""
    scores = analysis.scores
    assert scores is not None
    lines = [analysis.title, f"Target {scores.target}, {wording.TARGETS[scores.target]}"]
    rows = rows_of(analysis.tables["descriptives"])
    lines += _some([wording.descriptive_line(row, scores) for row in rows], 4, "cells")
    if len(scores.factors) > 1:
        lines += _some(analysis.omnibus, 2, "effects")
    lines += _some(_best_and_next(analysis), 4, "test sets")
    people = _people(analysis, "pairs")
    if people is not None:
        from ser_analysis import speaker_level

        lines += _some(speaker_level.best_and_next(people, scores.dv), 2, "test sets")
    if not is_ccc(scores.dv):
        lines += _some([line for line in analysis.ratings if line.startswith("T2")], 3, "lines on ratings")
    return lines + _some(analysis.facts, max(1, SUMMARY_LINES - 2 - len(lines)), "notes")


def plain_words(analysis: Analysis, cross_tested: bool) -> None:
    """The outcome without symbols, and what may not be concluded: the head of the report.

    Args:
        analysis: of an experiment, with its tables
        cross_tested: whether any test set is of another corpus than the training's
    """
    scores, tables = analysis.scores, analysis.tables
    assert scores is not None
    people = _people(analysis, "pairs")
    if "pairs" in tables:
        primary = tables["pairs"][tables["pairs"]["averaged_over"] == ""]
        for at, group in primary.groupby("at", sort=False):
            place = str(at).partition("=")[2] or str(at)
            told = [row for row in rows_of(group) if row["n"] > 0]
            chosen = [row for row in told if row.get("planned") is True] or _top(told)
            for row in chosen:
                match = None
                if people is not None:
                    here = people[(people["at"] == place) | (people["at"] == "")]
                    match = next((one for one in rows_of(here) if {one["a"], one["b"]} == {row["a"], row["b"]}), None)
                analysis.plain.append(wording.plain_pair(row, place, scores.dv, match))
    spread = _people(analysis, "intervals")
    fewest = int(spread["n_speakers"].min()) if spread is not None else None
    analysis.limits += wording.limits(
        fewest=fewest,
        cross_tested=cross_tested,
        several_places=len(scores.places) > 1,
        compared="pairs" in tables,
        planned="planned_contrasts" in analysis.content,
        ratings=is_ccc(scores.dv),
    )
    analysis.content |= {"plain": analysis.plain, "limits": analysis.limits, "people": analysis.people}
    if analysis.ratings:
        analysis.content["ratings_in_short"] = analysis.ratings


def _people(analysis: Analysis, what: str) -> pd.DataFrame | None:
    """`intervals` or `pairs` over speakers of the score that is analysed; None where there are none."""
    assert analysis.scores is not None
    dv = analysis.scores.dv
    table = analysis.tables.get(f"{'rating' if is_ccc(dv) else 'speaker'}_{what}")
    if table is None or not is_ccc(dv):
        return table
    table = table[table["dv"] == dv]
    return None if table.empty else table


def _top(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The comparison of the two highest means."""
    means = {row[side]: row[f"mean_{side}"] for row in rows for side in ("a", "b")}
    top = set(sorted(means, key=lambda name: -means[name])[:2])
    return [row for row in rows if {row["a"], row["b"]} == top]


def _best_and_next(analysis: Analysis) -> list[str]:
    """For each test set, the comparison of the two models with the highest means."""
    if "pairs" not in analysis.tables or analysis.scores is None:
        return []
    pairs, lines = analysis.tables["pairs"], []
    for _, group in pairs[(pairs["averaged_over"] == "") & (pairs["n"] > 0)].groupby("at", sort=False):
        means = {row[side]: row[f"mean_{side}"] for row in rows_of(group) for side in ("a", "b")}
        top = set(sorted(means, key=lambda name: -means[name])[:2])
        lines += [
            wording.pair_line(row, analysis.scores.dv, analysis.scores.target)
            for row in rows_of(group)
            if {row["a"], row["b"]} == top
        ]
    return lines


def _some(lines: Sequence[str], most: int, what: str) -> list[str]:
    rest = len(lines) - most
    return list(lines) if rest <= 0 else [*lines[:most], f"... and {rest} more {what} in report.md"]


def _facts(audited: Mapping[str, Any], target: str) -> list[str]:
    counted = f"{audited['n_scores']} scores"
    if "n_runs" in audited:  # a run that was tested on two corpora has two scores
        counted += f" of {audited['n_runs']} runs"
    facts = [
        f"{counted} in {audited['n_blocks']} blocks{' (distinct splits)' if target == 'T1' else ''} x "
        f"{audited['cells']} cells; "
        f"{audited['n_complete_blocks']} blocks are complete."
    ]
    if averaged := audited["blocks_with_several_runs_averaged"]:
        facts.append(
            f"{len(averaged)} of {audited['n_blocks']} blocks hold several runs of a model (training seeds that share "
            "one split): their mean is the score of the block. The spread inside blocks is `sd_within_block`."
        )
    if missing := audited["missing"]:
        named = "; ".join(", ".join(f"{key}={value}" for key, value in item.items()) for item in missing[:5])
        more = f" and {len(missing) - 5} more (stats.json)" if len(missing) > 5 else ""
        facts.append(
            f"{len(missing)} scores are missing: {named}{more}. The ANOVA leaves out the blocks concerned "
            f"({', '.join(audited['dropped_blocks'])}); a pair uses every block that has both sides. "
            "Nothing is imputed."
        )
    return facts


def _residuals(scores: Scores) -> tuple[list[Array], Array, Array]:
    """Cell scores of the complete blocks, block + cell means (within groups), and what these leave of the scores."""
    whole = subset(scores, scores.complete)
    cells, fits, residuals = [], [], []
    for levels in sorted(set(whole.groups)) or [()]:
        y = whole.values[[group == levels for group in whole.groups]] if levels else whole.values
        cells += list(y.T)
        fitted = y.mean(axis=0) + y.mean(axis=1, keepdims=True) - y.mean()
        fits.append(fitted.ravel())
        residuals.append((y - fitted).ravel())
    return cells, np.concatenate(fits), np.concatenate(residuals)


def _pair_record(row: dict[str, Any], target: str) -> dict[str, Any]:
    nested = ("nb_", "bayes_", "tost_")
    record: dict[str, Any] = {"target": target}
    record |= {key: value for key, value in row.items() if not key.startswith(nested) and "ci95" not in key}
    record["ci95"] = [row["ci95_low"], row["ci95_high"]]
    record["prob_a_gt_b_ci95"] = [row["prob_a_gt_b_ci95_low"], row["prob_a_gt_b_ci95_high"]]
    record["d_z_ci95_noncentral"] = [row["d_z_ci95_low"], row["d_z_ci95_high"]]
    if "tost_margin" in row:
        record["tost"] = {key: row[f"tost_{key}"] for key in ("margin", "p_lower", "p_upper", "p", "p_holm")}
        if row["tost_margin"] == SHARE_MARGIN:
            record["tost_margin_01"] = {key: row[f"tost_{key}"] for key in ("p_lower", "p_upper")}
    if not pd.isna(row.get("nb_p", math.nan)):
        told = {key: row[f"nb_{key}"] for key in contrasts.NADEAU_BENGIO if "ci95" not in key}
        record["nadeau_bengio"] = {"target": "T2", **told, "ci95": [row["nb_ci95_low"], row["nb_ci95_high"]]}
        if "bayes_rope" in row:
            record["bayes_correlated_t"] = {"target": "T2", **{key: row[f"bayes_{key}"] for key in contrasts.BAYES}}
    return record


def _adjusted(record: Mapping[str, Any]) -> dict[str, Any]:
    """The p-values of a pair, adjusted over its family."""
    exact = "exact" if not pd.isna(record["signflip_exact_p"]) else "mc"
    return {
        "a": record["a"],
        "b": record["b"],
        "p_raw": record["p"],
        **{key: record[key] for key in contrasts.ADJUSTED},
        "p_signflip_holm": record["signflip_p_holm"],
        f"p_maxT_signflip_{exact}": record["signflip_p_max_t"],
    }
