"""What the metrics of generated text share: predictions, and one or several references of each."""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate


# One reference of each text, or a list of references of each.
References = Sequence[str] | Sequence[Sequence[str]]


class TextMetric(evaluate.Metric):
    """Predictions against their references, all detokenised text: one string each, or a list of strings each."""

    def _info(self):
        text = datasets.Value("string")
        features = [
            datasets.Features({"predictions": text, "references": references})
            for references in (text, datasets.Sequence(text))
        ]
        return evaluate.MetricInfo(description=type(self).__doc__, citation="", features=features)


def as_lists(references: References) -> list[list[str]]:
    """Make a list of references of each text, whether it has one or several."""
    return [[found] if isinstance(found, str) else list(found) for found in references]


def reference_streams(references: References) -> list[list[Any]]:
    """Lay references out as sacrebleu wants them: the first of every text, then the second, ...; None where there is no more."""
    lists = as_lists(references)
    return [[found[n] if n < len(found) else None for found in lists] for n in range(max(map(len, lists)))]
