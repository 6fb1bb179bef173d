"""Metrics of generated text, as `evaluate` modules that work without a network."""

from collections.abc import Sequence

import sacrebleu

from .arguments import TEXT_METRICS
from .rouge import Rouge
from .symbol_error_rate import SymbolErrorRate
from .text_metric import References, TextMetric, as_lists, reference_streams


class Bleu(TextMetric):
    """BLEU (Papineni et al., 2002) as sacrebleu computes it, with the signature that makes it comparable.

    `compute` takes `lowercase` (default False) and `tokenize` (default "13a") besides the texts, and returns `bleu`, from 0
    to 100, and `bleu_signature`.
    """

    def _compute(self, predictions, references, lowercase=False, tokenize="13a"):
        metric = sacrebleu.metrics.BLEU(lowercase=lowercase, tokenize=tokenize)
        score = metric.corpus_score(predictions, reference_streams(references))
        return {"bleu": score.score, "bleu_signature": str(metric.get_signature())}


class ChrF(TextMetric):
    """chrF2 (Popovic, 2015), F-score of character n-grams, from 0 to 100, with its signature."""

    def _compute(self, predictions, references):
        metric = sacrebleu.metrics.CHRF()
        score = metric.corpus_score(predictions, reference_streams(references))
        return {"chrf": score.score, "chrf_signature": str(metric.get_signature())}


class ExactMatch(TextMetric):
    """Share of predictions that equal their reference, or one of their references, from 0 to 1."""

    def _compute(self, predictions, references):
        equal = sum(p in r for p, r in zip(predictions, as_lists(references), strict=True))
        return {"exact_match": equal / len(references)}


_KINDS: dict[str, type[TextMetric]] = {
    "bleu": Bleu,
    "chrf": ChrF,
    "exact_match": ExactMatch,
    "rouge": Rouge,
    "symbol_error_rate": SymbolErrorRate,
}


def score_texts(
    predictions: Sequence[str], references: References, metrics: Sequence[str] = TEXT_METRICS[:3]
) -> dict[str, float | str]:
    """Compute `bleu` and `bleu_lowercase`, `chrf` (each with its signature) and `exact_match`, or other metrics.

    Args:
        predictions: texts.
        references: one of each, or a list of each.
        metrics: names of `TEXT_METRICS`.

    Raises:
        ValueError: there are no texts, or not as many predictions as references.
    """
    if not references or len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions cannot be scored against {len(references)} references.")
    texts = {"predictions": list(predictions), "references": list(references)}
    scores: dict[str, float | str] = {}
    for name in metrics:
        scores |= _KINDS[name](keep_in_memory=True).compute(**texts)
    if "bleu" in metrics:
        lowercase = Bleu(keep_in_memory=True).compute(**texts, lowercase=True)
        scores |= {key.replace("bleu", "bleu_lowercase"): value for key, value in lowercase.items()}
    return scores
