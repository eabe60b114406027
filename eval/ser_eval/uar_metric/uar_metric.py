"""UAR as a metric of the `evaluate` library, loaded offline from this folder.

`evaluate.load("eval/ser_eval/uar_metric").compute(predictions=[...], references=[...], labels=[...])`. The library
reads the imports of this file line by line, so that none may go over two lines.
"""

import evaluate
from datasets import Features, Value

from ser_eval.metrics import unweighted_average_recall

_DESCRIPTION = "Unweighted average recall (UAR): the mean of the per-class recalls, every class counts the same."

_INPUTS = """
Args:
    predictions: predicted label of each clip, as text or as integers
    references: reference label of each clip
    labels: the K labels of the task; never inferred, since an absent class would change K
Returns:
    {"uar": UAR in [0, 1]}; chance level is 1/K
"""


class UnweightedAverageRecall(evaluate.Metric):  # type: ignore[misc]
    """`ser_eval.metrics.unweighted_average_recall` for the `evaluate` library."""

    def _info(self) -> evaluate.MetricInfo:
        kinds = [Features(dict.fromkeys(("predictions", "references"), Value(kind))) for kind in ("string", "int64")]
        return evaluate.MetricInfo(description=_DESCRIPTION, citation="", inputs_description=_INPUTS, features=kinds)

    def _compute(
        self, predictions: list[str | int], references: list[str | int], *, labels: list[str | int]
    ) -> dict[str, float]:
        truth, answers, names = ([str(value) for value in values] for values in (references, predictions, labels))
        return {"uar": unweighted_average_recall(truth, answers, labels=names)}
