"""Numbers and findings as text: APA style, each sentence with the target of its inference."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from ser_analysis.methods.descriptives import COLUMNS
from ser_analysis.scores import CCC, Scores, column_of, is_ccc, range_of, rows_of

TARGETS = {
    "T1": "this corpus: would another seed or split of the same corpus favour the same side?",
    "T2": "new speakers: would it hold for people who are not in the corpus?",
    "T3": "new corpora: would it hold elsewhere?",
}
ALPHA = 0.05
ON = {"T1": "on this corpus", "T2": "for speakers like these", "T3": "over corpora like these"}


def p_text(p: float) -> str:
    """`p = .012`, `p < .001`, `p not defined`."""
    return "p not defined" if math.isnan(p) else f"p {p_value(p, equals='= ')}"


def p_value(p: float, *, equals: str = "") -> str:
    """`.012` or `< .001`; empty for NaN."""
    if math.isnan(p):
        return ""
    if p < 0.0005:
        return "< .001"
    # A p that rounds to .050 is told apart from the threshold by a digit more.
    digits = 4 if abs(p - ALPHA) < 0.0005 else 3
    return equals + f"{p:.{digits}f}".removeprefix("0")


def share(value: float) -> str:
    """A proportion without its leading zero, as APA writes what cannot exceed 1."""
    return "not defined" if math.isnan(value) else f"{value:.2f}".replace("0.", ".", 1)


def number(value: float) -> str:
    """A number for a printed table; full precision stands in the CSV and in stats.json."""
    if math.isnan(value):
        return ""
    size = abs(value)
    if size >= 1000 or value == 0:
        return f"{value:.1f}"
    return f"{value:.2f}" if size >= 10 else f"{value:.4f}" if size >= 0.01 else f"{value:.3g}"


def unit(dv: str) -> tuple[float, str]:
    """Factor and name in which differences of a score are told: points (x 100) for scores in [0, 1] and CCCs."""
    if range_of(dv) is None:
        return 1.0, f"of {dv}"
    if is_ccc(dv):
        return 100.0, "CCC points" if dv == CCC else f"{dimension_of(dv)} CCC points"
    return 100.0, f"{label(dv)} points"


def label(dv: str) -> str:
    """A score as a sentence or an axis calls it: `UAR`, `CCC`, `CCC of valence`."""
    if dv == CCC or not is_ccc(dv):
        return dv.upper() if dv in ("uar", CCC) else dv
    return f"CCC of {dimension_of(dv)}"


def dimension_of(dv: str) -> str:
    """`valence` of `ccc_valence`."""
    return dv.removeprefix(f"{CCC}_")


def difference(value: float) -> str:
    """Two digits after the point, or as many as a difference other than 0 needs to be seen; 0 for rounding noise."""
    return f"{value:.2f}" if is_tie(value) or abs(value) >= 0.005 else f"{value:.1g}"


def span(low: float, high: float) -> str:
    """`95 % CI [1.48, 6.15]` of a difference."""
    return f"95 % CI [{difference(low)}, {difference(high)}]"


def is_tie(value: float) -> bool:
    """Whether a difference is 0 but for rounding noise of the means."""
    return abs(value) < 1e-9


def cut(low: float, high: float, dv: str) -> tuple[float, float, str]:
    """An interval of a mean within what the score can be, and a remark where that cut it; stats.json holds it uncut."""
    least, most = range_of(dv) or (-math.inf, math.inf)
    if not (low < least or high > most):  # NaN is not cut
        return low, high, ""
    ends = " and ".join(f"{end:g}" for end, beyond in ((least, low < least), (most, high > most)) if beyond)
    return max(low, least), min(high, most), f" (cut at {ends})"


def place(at: str) -> str:
    """`on emovo` for `test_corpus=emovo`."""
    return "on " + ", ".join(part.partition("=")[2] for part in at.split(", ")) if at else ""


def pair_sentence(row: dict[str, Any], dv: str, target: str = "T1") -> str:
    """Is A better than B, and by how much: one row of `contrasts`, told from the side that is ahead."""
    scale, points = unit(dv)
    flip = row["mean_diff"] < 0
    better, worse = sides(row)
    sign = -scale if flip else scale
    mean = sign * row["mean_diff"]
    low, high = sorted((sign * row["ci95_low"], sign * row["ci95_high"]))
    n = int(row["n"])
    on = place(row["at"]) or (f"averaged over {row['averaged_over']}" if row["averaged_over"] else "")
    start = f"{target}{', ' + on if on else ''}: "
    if n == 0:
        return f"{start}{better} and {worse} share no split; they cannot be compared."
    tie = is_tie(mean)
    lead = f"{better} and {worse} are equal" if tie else f"{better} scores {difference(mean)} {points} above {worse}"
    if n == 1:
        return f"{start}{lead} on one split. One split allows no test."
    ahead = (1 - row["prob_a_gt_b_paired"]) if flip else row["prob_a_gt_b_paired"]
    ahead_text = f"ahead in {ahead * n:g} of {n} blocks"
    signflip = row["signflip_exact_p"] if not math.isnan(row["signflip_exact_p"]) else row["signflip_mc_p"]
    if math.isnan(row["p"]):
        return f"{start}{lead} in each of {n} blocks, so that t is not defined; sign-flip {p_text(signflip)}."
    text = (
        f"{start}{lead}, {span(low, high)}, t({int(row['df'])}) = {abs(row['t']):.2f}, "
        f"{p_text(row['p'])} (Holm {p_text(row['p_holm'])}), d_z = {_size(row['d_z'])}, "
        f"g_av = {_size(row['g_av'])}, {ahead_text}, sign-flip {p_text(signflip)}. "
    )
    shown, shown_flip = row["p_holm"] < ALPHA, row["signflip_p_holm"] < ALPHA
    if shown:
        text += f"Yes: {ON[target]} {better} is better than {worse}."
    elif low > 0:
        text += "Not shown: the interval by itself excludes 0, but not once the other comparisons of the family count."
    else:
        text += f"Not shown: anything from {difference(low)} to {difference(high)} {points} fits, "
        if row.get("tost_p_holm", math.nan) < ALPHA:
            margin = difference(abs(scale) * row["tost_margin"])
            text += f"but they are equivalent within +-{margin} {points} (TOST Holm {p_text(row['tost_p_holm'])})."
        else:
            text += "which does not show them equal."
    if shown != shown_flip:
        floor = 2 / 2**n
        text += f" The sign-flip test disagrees: Holm {p_text(row['signflip_p_holm'])}, from a floor of {floor:.2g}."
    if not math.isnan(row.get("nb_p", math.nan)):
        nb = sorted((sign * row["nb_ci95_low"], sign * row["nb_ci95_high"]))
        text += (
            f" T2 (new speakers), corrected for overlapping training sets (Nadeau-Bengio): "
            f"{span(nb[0], nb[1])}, {p_text(row['nb_p'])} (Holm {p_text(row['nb_p_holm'])})."
        )
        if shown and not row["nb_p_holm"] < ALPHA:
            text += " So for new speakers it is not shown."
    return text


def _size(value: float) -> str:
    return "not defined" if math.isnan(value) else f"{abs(value):.2f}"


def sides(row: dict[str, Any]) -> tuple[str, str]:
    """The side that is ahead and the other; a level of a factor is told with the factor's name."""
    names = [f"{row['family']} {row[side]}" if row["averaged_over"] else str(row[side]) for side in ("a", "b")]
    return (names[1], names[0]) if row["mean_diff"] < 0 else (names[0], names[1])


def pair_line(row: dict[str, Any], dv: str, target: str = "T1") -> str:
    """`T1, best and next on emovo: A above B by 3.81 UAR points [1.48, 6.15], Holm p = .045: shown`."""
    scale, points = unit(dv)
    better, worse = sides(row)
    text = f"{target}, best and next{' ' + place(row['at']) if row['at'] else ''}: "
    ahead = scale * abs(row["mean_diff"])
    if is_tie(ahead):
        text += f"{better} and {worse} equal"
    else:
        text += f"{better} above {worse} by {difference(ahead)} {points}"
    if math.isnan(row["p"]):
        return f"{text}; no t-test ({int(row['n'])} blocks)"
    low, high = sorted(math.copysign(scale, row["mean_diff"]) * row[end] for end in ("ci95_low", "ci95_high"))
    verdict = "shown" if row["p_holm"] < ALPHA else "not shown"
    return f"{text}, {span(low, high)}, Holm {p_text(row['p_holm'])}: {verdict}"


def anova_sentence(row: dict[str, Any], target: str = "T1") -> str:
    """One effect of the repeated-measures ANOVA; Greenhouse-Geisser where df1 > 1."""
    if math.isnan(row["F"]):
        return f"{target}: {row['term']}: the scores do not vary against this effect, so that F is not defined."
    corrected = not math.isnan(row["p_gg"])
    eps = row["gg_eps"] if corrected else 1.0
    p = row["p_gg"] if corrected else row["p"]
    df = f"{row['df1'] * eps:.2f}, {row['df2'] * eps:.2f}" if corrected else f"{row['df1']}, {row['df2']}"
    verdict = "an effect is shown" if row["p_gg_holm"] < ALPHA else "no effect is shown"
    return (
        f"{target}: {row['term']}: F({df}) = {row['F']:.2f}, {p_text(p)}"
        f"{' (Greenhouse-Geisser)' if corrected else ''}, Holm {p_text(row['p_gg_holm'])}, "
        f"generalised eta2 = {share(row['eta2_g'])}, partial eta2 = "
        f"{share(row['partial_eta2'])}, 90 % CI [{share(row['partial_eta2_ci90_low'])}, "
        f"{share(row['partial_eta2_ci90_high'])}]: {verdict}."
    )


def between_sentence(row: dict[str, Any], df2: int) -> str:
    """One effect of the between-groups ANOVA (type III)."""
    verdict = "an effect is shown" if row["p"] < ALPHA else "no effect is shown"
    return (
        f"T1 (other rows drawn like these): {row['term']}: F({int(row['df'])}, {df2}) = {row['F']:.2f}, "
        f"{p_text(row['p'])}, partial eta2 = {share(row['partial_eta2'])}: {verdict}."
    )


def interaction_warning(factor: str, anova: pd.DataFrame, target: str = "T1") -> str:
    """A remark when a factor whose average effect is told is part of an interaction; empty otherwise."""
    terms = [
        f"{row['term']}: {p_text(p)}"
        for row in rows_of(anova)
        if ":" in row["term"]
        and factor in row["term"].split(":")
        and (p := row["p"] if math.isnan(row["p_gg"]) else row["p_gg"]) < ALPHA
    ]
    if not terms:
        return ""
    return (
        f"{target}: the effect of {factor} depends on other factors ({'; '.join(terms)}): its average does not stand "
        "alone; read it with the comparisons at each of their levels (`pairs`)."
    )


def power_note(n: int, comparisons: int, target: str = "T1") -> str:
    """The floor of the sign-flip test when blocks are few; empty when it cannot bind."""
    if n < 2 or 2 / 2**n * max(1, comparisons) * 10 < ALPHA:
        return ""
    floor, several = 2 / 2**n, ""
    if comparisons > 1:
        several = f", {min(1.0, floor * comparisons):.3g} after Holm over {comparisons} comparisons"
    needed = math.ceil(math.log2(2 * max(1, comparisons) / ALPHA))
    verdict = "" if n >= needed else f"; p < .05 needs at least {needed} blocks"
    return f"{target}: with {n} blocks no two-sided sign-flip p can fall below 2/2^{n} = {floor:.3g}{several}{verdict}."


def descriptive_line(row: dict[str, Any], scores: Scores) -> str:
    """`wavlm on emodb: .701 (SD .020, 10 blocks)`."""
    levels = {factor: row[column_of(factor, COLUMNS)] for factor in scores.factors}
    where = [levels[factor] for factor in scores.factors if factor not in scores.model]
    name = scores.name(tuple(levels[factor] for factor in scores.model))
    text = f"{name}{' on ' + ', '.join(where) if where else ''}: "
    if row["n"] == 0:
        return text + "no run"
    if row["n"] == 1:
        return f"{text}{number(row['mean'])} (1 block)"
    low, high, remark = cut(row["ci95_low"], row["ci95_high"], scores.dv)
    interval = f"95 % CI [{number(low)}, {number(high)}]{remark}"
    return f"{text}{number(row['mean'])} (SD {number(row['sd'])}, {interval}, {row['n']} blocks)"


def mixed_model_sentence(row: dict[str, Any], random: str, target: str = "T1") -> str:
    """One effect of the mixed model."""
    df = f"{int(row['df1'])}, {row['df2']:.1f}"
    verdict = "an effect is shown" if row["p"] < ALPHA else "no effect is shown"
    return f"{target}: {row['term']}, mixed model {random}: F({df}) = {row['F']:.2f}, {p_text(row['p'])}: {verdict}."


def marginal_sentence(row: dict[str, Any], factor: str, others: list[str], dv: str, target: str = "T1") -> str:
    """A pair of marginal means of a mixed model, by Holm, told from the side that is ahead."""
    scale, points = unit(dv)
    sign = -scale if row["estimate"] < 0 else scale
    better, worse = (row["b"], row["a"]) if row["estimate"] < 0 else (row["a"], row["b"])
    low, high = sorted((sign * row["lower.CL"], sign * row["upper.CL"]))
    on = f", averaged over {' x '.join(others)}" if others else ""
    verdict = "Yes: a difference is shown." if row["p"] < ALPHA else "Not shown."
    return (
        f"{target}{on}: {factor} {better} scores {difference(sign * row['estimate'])} {points} above {worse}, "
        f"95 % CI (Bonferroni) [{difference(low)}, {difference(high)}], t({row['df']:.1f}) = "
        f"{abs(row['t.ratio']):.2f}, Holm {p_text(row['p'])}. {verdict}"
    )


def singular_remark(names: list[str], target: str = "T1") -> str:
    """What a variance of 0 means."""
    return (
        f"{target}: the mixed model is singular: it estimates no variance for {', '.join(names)} (0 is the best fit); "
        "its tests are those of the model without it."
    )


def friedman_sentence(content: dict[str, Any], at: str, target: str = "T1") -> str:
    """The rank tests over all models at one place."""
    corrected, f = content["friedman_tie_corrected"], content["iman_davenport_tie"]
    start = f"{target}{', ' + place(at) if at else ''}: Friedman, corrected for ties: "
    if math.isnan(corrected["chi2"]):
        return f"{start}not defined, since all ranks are tied."
    iman = f"Iman-Davenport F({f['df1']}, {f['df2']}) = {f['F']:.2f}, {p_text(f['p'])}"
    if math.isinf(f["F"]):
        iman = "no Iman-Davenport F: the ranks are the same in every block"
    verdict = "the ranks differ" if corrected["p"] < ALPHA else "no difference of ranks is shown"
    return (
        f"{start}chi2({corrected['df']}) = {corrected['chi2']:.2f}, "
        f"{p_text(corrected['p'])} ({iman}), W = {share(content['kendall_W'])}: {verdict}. Mean ranks differ by "
        f"Nemenyi's test from a distance of {content['CD_nemenyi_05']:.2f}."
    )


def plain_pair(row: dict[str, Any], where: str, dv: str, people: dict[str, Any] | None) -> str:
    """One comparison in words: what differs, by how much, how sure for this corpus (T1), how sure for new people (T2).

    Args:
        row: of `pairs`
        where: the test set; empty where there is one
        dv: the score
        people: the row of `speaker_pairs` of the same two models, where there is one
    """
    scale, points = unit(dv)
    better, worse = sides(row)
    on = f"On {where}, " if where else ""
    if is_tie(row["mean_diff"]):
        text = f"{on}{better} and {worse} score the same."
    else:
        text = f"{on}{better} scores {difference(scale * abs(row['mean_diff']))} {points} more than {worse}."
    n = int(row["n"])
    if n < 2 or math.isnan(row["p"]):
        text += " Whether another split of this corpus would say so (T1) cannot be told from "
        text += "one split." if n < 2 else f"{n} splits with the same difference."
    else:
        low, high = sorted(math.copysign(scale, row["mean_diff"]) * row[end] for end in ("ci95_low", "ci95_high"))
        fits = f"{difference(low)} to {difference(high)} points fit the {n} splits"
        if row["p_holm"] < ALPHA:
            text += f" Another split of this corpus would favour {better} too (T1: shown; {fits})."
        elif row["p"] < ALPHA:
            text += (
                f" Another split of this corpus might favour either (T1: not shown once all comparisons count; {fits})."
            )
        else:
            text += f" Another split of this corpus might favour either (T1: not shown; {fits})."
    if people is None:
        return text + " For new people (T2) nothing can be said from the speakers."
    if math.isnan(people["p"]):
        return text + f" For new people (T2) {people['n_speakers']} speakers that all differ alike allow no interval."
    sign = 100.0 if (people["a"] == better) else -100.0
    low, high = sorted(sign * people[end] for end in ("ci95_low", "ci95_high"))
    ahead = sign * people["mean_diff"] > 0
    fits = f"{difference(low)} to {difference(high)} points fit the {people['n_speakers']} test speakers"
    if people["p_holm"] < ALPHA and ahead:
        return f"{text} New people would be served better by {better} as trained here (T2: shown; {fits})."
    if people["p_holm"] < ALPHA:
        return f"{text} Over speakers the order is the other way round (T2; {fits})."
    why = "not shown once all comparisons count" if people["p"] < ALPHA else "not shown"
    return f"{text} New people might be served better by either (T2: {why}; {fits})."


def limits(
    *,
    fewest: int | None,
    cross_tested: bool,
    several_places: bool,
    compared: bool,
    planned: bool,
    ratings: bool = False,
) -> list[str]:
    """What may not be concluded from an experiment.

    Args:
        fewest: test speakers of the test set that has the fewest; None where they are unknown or too few
        cross_tested: whether a test set is of another corpus than the training's
        several_places: whether there are several test sets
        compared: whether models are compared
        planned: whether the comparisons were declared before
        ratings: whether the score is a CCC
    """
    told = []
    if fewest is None:
        told.append("Nothing about new people (T2): speakers are unknown or fewer than two.")
    elif fewest < 20:
        told.append(
            f"Little about people in general: {fewest} test speakers are a small sample, however many seeds there are."
        )
    told.append(
        "Nothing about corpora that were not tested (T3): two to four of them are examples." if cross_tested
        else "Nothing about other corpora, recordings or languages (T3): none was tested."
    )  # fmt: skip
    if compared:
        told.append("What is not shown is not shown to be absent: only the equivalence test speaks for no difference.")
        if not planned:
            told.append(
                'No comparison was declared before ("contrasts" in the experiment): all pairs count as one family, and '
                "the pair named here was picked after seeing the scores."
            )
    if compared and fewest is not None:
        told.append(
            "T2 from the speakers takes the trained models as they are. That the same recipe, trained on other people, "
            "would win again is a stronger claim: "
            + (
                "the Nadeau-Bengio test (in-domain) is about it."
                if ratings
                else "what stands as trained anew, and the Nadeau-Bengio test (in-domain), are about it."
            )
        )
    if several_places:
        told.append("A lower score on another test set is domain shift and difficulty, not a worse corpus.")
    return told
