"""Metrics of generated text, with 95 % intervals, as `evaluate` modules that work without a network."""

from collections.abc import Sequence

import sacrebleu

from .bootstrap import SIGNATURE, interval
from .data_arguments import TEXT_METRICS
from .moses import moses_lowercase
from .rouge import Rouge
from .symbol_error_rate import SymbolErrorRate
from .text_metric import References, TextMetric, as_lists, reference_streams


def _score(name: str, metric: sacrebleu.metrics.base.Metric, predictions, references) -> dict[str, float | str]:
    """Score a text, with the bounds of the interval; the signature is that of the score, which they do not change."""
    statistics = metric._extract_corpus_statistics(predictions, reference_streams(references))
    low, high = interval(statistics, lambda total: metric._compute_score_from_stats(total.tolist()).score)
    return {
        name: metric._aggregate_and_compute(statistics).score,
        f"{name}_low": low,
        f"{name}_high": high,
        f"{name}_signature": str(metric.get_signature()),
    }


class Bleu(TextMetric):
    """BLEU (Papineni et al., 2002) as sacrebleu computes it, with the signature that makes it comparable.

    `compute` takes `lowercase` (default False) and `tokenize` (default "13a") besides the texts, and returns `bleu`, from 0
    to 100, `bleu_low` and `bleu_high`, the bounds of its 95 % interval, and `bleu_signature`.
    """

    def _compute(self, predictions, references, lowercase=False, tokenize="13a"):
        # `force`: text that is tokenised on purpose needs no warning.
        metric = sacrebleu.metrics.BLEU(lowercase=lowercase, tokenize=tokenize, force=tokenize == "none")
        return _score("bleu", metric, predictions, references)


class ChrF(TextMetric):
    """chrF2 (Popovic, 2015), F-score of character n-grams, from 0 to 100, with its interval and its signature."""

    def _compute(self, predictions, references):
        return _score("chrf", sacrebleu.metrics.CHRF(), predictions, references)


class ExactMatch(TextMetric):
    """Share of predictions that equal their reference, or one of their references, from 0 to 1, with its interval."""

    def _compute(self, predictions, references):
        equal = [[float(p in r)] for p, r in zip(predictions, as_lists(references), strict=True)]
        low, high = interval(equal, lambda total: total[0] / len(equal))
        return {
            "exact_match": sum(map(sum, equal)) / len(equal),
            "exact_match_low": low,
            "exact_match_high": high,
        }


_KINDS: dict[str, type[TextMetric]] = {
    "bleu": Bleu,
    "chrf": ChrF,
    "exact_match": ExactMatch,
    "rouge": Rouge,
    "symbol_error_rate": SymbolErrorRate,
}


def score_texts(
    predictions: Sequence[str],
    references: References,
    language: str | None = None,
    metrics: Sequence[str] = TEXT_METRICS[:3],
) -> dict[str, float | str]:
    """Compute `bleu`, `bleu_lowercase`, `chrf` and `exact_match`, and `bleu_moses_lowercase` where that is known; or others.

    Each comes with the bounds of its 95 % interval, as `bleu_low` and `bleu_high`, and BLEU and chrF with the signature of the
    score; `interval_signature` says how all bounds were found.

    Args:
        predictions: texts.
        references: as many; or as many lists, of all references of each text.
        language: code of the references', such as "en". With it, and where `sacremoses` is installed, there is the BLEU of the
            lower-cased text in Moses' tokens, by which Multi30k is compared.
        metrics: names of `TEXT_METRICS`; the other BLEUs belong to "bleu".

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
        scores |= _moses_lowercase_scores(predictions, references, language)
    return scores | {"interval_signature": SIGNATURE}


def _moses_lowercase_scores(
    predictions: Sequence[str], references: References, language: str | None
) -> dict[str, float | str]:
    moses = moses_lowercase(language)
    if moses is None:
        return {}
    found = Bleu(keep_in_memory=True).compute(
        predictions=[moses.tokenize(text) for text in predictions],
        references=[[moses.tokenize(text) for text in known] for known in as_lists(references)],
        tokenize="none",
    )
    found["bleu_signature"] = (
        found["bleu_signature"].replace("case:mixed", "case:lc").replace("tok:none", f"tok:{moses.name}")
    )
    return {key.replace("bleu", "bleu_moses_lowercase"): value for key, value in found.items()}
