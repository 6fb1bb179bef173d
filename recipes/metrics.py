"""Metrics of generated text, with 95 % intervals, as `evaluate` modules that work without a network."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import sacrebleu

from .bootstrap import SIGNATURE
from .data_arguments import TEXT_METRICS
from .moses import moses_lowercase
from .rouge import rouge_statistics
from .sentence_statistics import Statistics, mean_statistics, sacrebleu_statistics
from .symbol_error_rate import symbol_error_statistics
from .text_metric import References, TextMetric, as_lists, reference_streams


class Bleu(TextMetric):
    """BLEU (Papineni et al., 2002) as sacrebleu computes it, with the signature that makes it comparable.

    `compute` takes `lowercase` (default False) and `tokenize` (default "13a") besides the texts, and returns `bleu`, from 0
    to 100, `bleu_low` and `bleu_high`, the bounds of its 95 % interval, and `bleu_signature`.
    """

    def _compute(self, predictions, references, lowercase=False, tokenize="13a"):
        return bleu_statistics(predictions, references, lowercase, tokenize).scores("bleu")


class ChrF(TextMetric):
    """chrF2 (Popovic, 2015), F-score of character n-grams, from 0 to 100, with its interval and its signature."""

    def _compute(self, predictions, references):
        return sacrebleu_statistics(sacrebleu.metrics.CHRF(), predictions, reference_streams(references)).scores(
            "chrf"
        )


class Ter(TextMetric):
    """TER (Snover et al., 2006), edits and shifts of words per word of the reference, in percent: 0 is right.

    `compute` returns `ter`, with its interval and its signature.
    """

    def _compute(self, predictions, references):
        return sacrebleu_statistics(sacrebleu.metrics.TER(), predictions, reference_streams(references)).scores("ter")


class ExactMatch(TextMetric):
    """Share of predictions that equal their reference, or one of their references, from 0 to 1, with its interval."""

    def _compute(self, predictions, references):
        return exact_match_statistics(predictions, references).scores("exact_match")


def bleu_statistics(
    predictions: Sequence[str], references: References, lowercase: bool = False, tokenize: str = "13a"
) -> Statistics:
    """Return the statistics of BLEU; see `Bleu`."""
    # `force`: text that is tokenised on purpose needs no warning.
    metric = sacrebleu.metrics.BLEU(lowercase=lowercase, tokenize=tokenize, force=tokenize == "none")
    return sacrebleu_statistics(metric, predictions, reference_streams(references))


def exact_match_statistics(predictions: Sequence[str], references: References) -> Statistics:
    """Return of each text whether it equals one of its references."""
    return mean_statistics([float(p in r) for p, r in zip(predictions, as_lists(references), strict=True)])


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
    scores: dict[str, float | str] = {}
    for name, statistics in text_statistics(predictions, references, language, metrics).items():
        scores |= statistics.scores(name)
    return scores | {"interval_signature": SIGNATURE}


def text_statistics(
    predictions: Sequence[str],
    references: References,
    language: str | None = None,
    metrics: Sequence[str] = TEXT_METRICS[:3],
) -> dict[str, Statistics]:
    """Return the statistics of every figure that `score_texts` computes, by its name; the arguments are the same.

    Raises:
        ValueError: there are no texts, or not as many predictions as references.
    """
    if not references or len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions cannot be scored against {len(references)} references.")
    found: dict[str, Statistics] = {}
    for name in metrics:
        if name == "rouge":
            found |= rouge_statistics(predictions, references)
        elif name == "bleu":
            found["bleu"] = bleu_statistics(predictions, references)
            found["bleu_lowercase"] = bleu_statistics(predictions, references, lowercase=True)
            found |= _moses_lowercase_statistics(predictions, references, language)
        else:
            found[name] = _STATISTICS[name](predictions, references)
    return found


def _sacrebleus(kind: type[sacrebleu.metrics.base.Metric]) -> Callable[[Sequence[str], References], Statistics]:
    return lambda predictions, references: sacrebleu_statistics(kind(), predictions, reference_streams(references))


_STATISTICS = {
    "chrf": _sacrebleus(sacrebleu.metrics.CHRF),
    "ter": _sacrebleus(sacrebleu.metrics.TER),
    "exact_match": exact_match_statistics,
    "symbol_error_rate": symbol_error_statistics,
}


def _moses_lowercase_statistics(
    predictions: Sequence[str], references: References, language: str | None
) -> dict[str, Statistics]:
    moses = moses_lowercase(language)
    if moses is None:
        return {}
    found = bleu_statistics(
        [moses.tokenize(text) for text in predictions],
        [[moses.tokenize(text) for text in known] for known in as_lists(references)],
        tokenize="none",
    )
    signature = (found.signature or "").replace("case:mixed", "case:lc").replace("tok:none", f"tok:{moses.name}")
    return {"bleu_moses_lowercase": replace(found, signature=signature)}
