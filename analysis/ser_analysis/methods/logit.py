"""Scores in (0, 1) on the logit scale: does a conclusion depend on the scale, near floor or ceiling?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ser_analysis.scores import SHARES, Scores


def transform(scores: Scores) -> Scores | None:
    """log(y / (1 - y)) of every score, for a sensitivity analysis beside the main one.

    A difference there is a ratio of odds, which does not shrink near 0 and 1 as points do, so that an interaction on
    one scale may be none on the other. None where the score is no share, or a score is exactly 0 or 1, whose logit does
    not exist (nothing is nudged inwards).
    """
    known = scores.values[~np.isnan(scores.values)]
    if scores.dv not in SHARES or not len(known) or known.min() <= 0 or known.max() >= 1:
        return None
    return replace(scores, values=np.log(scores.values) - np.log1p(-scores.values))
