"""Metrics of generated text, with 95 % intervals, as `evaluate` modules that work without a network."""

from collections.abc import Sequence

import datasets
import evaluate
import sacrebleu

from .bootstrap import SIGNATURE, interval
from .moses import moses_lowercase


class _Texts(evaluate.Metric):
    """Predictions against one reference each, both detokenised text."""

    def _info(self):
        features = datasets.Features({"predictions": datasets.Value("string"), "references": datasets.Value("string")})
        return evaluate.MetricInfo(description=type(self).__doc__, citation="", features=features)


def _score(name: str, metric: sacrebleu.metrics.base.Metric, predictions, references) -> dict[str, float | str]:
    """Score a text, with the bounds of the interval; the signature is that of the score, which they do not change."""
    statistics = metric._extract_corpus_statistics(predictions, [references])
    low, high = interval(statistics, lambda total: metric._compute_score_from_stats(total.tolist()).score)
    return {
        name: metric._aggregate_and_compute(statistics).score,
        f"{name}_low": low,
        f"{name}_high": high,
        f"{name}_signature": str(metric.get_signature()),
    }


class Bleu(_Texts):
    """BLEU (Papineni et al., 2002) as sacrebleu computes it, with the signature that makes it comparable.

    `compute` takes `lowercase` (default False) and `tokenize` (default "13a") besides the texts, and returns `bleu`, from 0
    to 100, `bleu_low` and `bleu_high`, the bounds of its 95 % interval, and `bleu_signature`.
    """

    def _compute(self, predictions, references, lowercase=False, tokenize="13a"):
        # `force`: text that is tokenised on purpose needs no warning.
        metric = sacrebleu.metrics.BLEU(lowercase=lowercase, tokenize=tokenize, force=tokenize == "none")
        return _score("bleu", metric, predictions, references)


class ChrF(_Texts):
    """chrF2 (Popovic, 2015), F-score of character n-grams, from 0 to 100, with its interval and its signature."""

    def _compute(self, predictions, references):
        return _score("chrf", sacrebleu.metrics.CHRF(), predictions, references)


class ExactMatch(_Texts):
    """Share of predictions that equal their reference, from 0 to 1, with its interval."""

    def _compute(self, predictions, references):
        equal = [[float(p == r)] for p, r in zip(predictions, references, strict=True)]
        low, high = interval(equal, lambda total: total[0] / len(equal))
        return {
            "exact_match": sum(map(sum, equal)) / len(equal),
            "exact_match_low": low,
            "exact_match_high": high,
        }


def score_texts(
    predictions: Sequence[str], references: Sequence[str], language: str | None = None
) -> dict[str, float | str]:
    """Compute `bleu`, `bleu_lowercase`, `chrf` and `exact_match`, and `bleu_moses_lowercase` where that is known.

    Each comes with the bounds of its 95 % interval, as `bleu_low` and `bleu_high`, and BLEU and chrF with the signature of the
    score; `interval_signature` says how all bounds were found.

    Args:
        predictions: texts.
        references: as many.
        language: code of the references', such as "en". With it, and where `sacremoses` is installed, there is the BLEU of the
            lower-cased text in Moses' tokens, by which Multi30k is compared.

    Raises:
        ValueError: there are no texts, or not as many predictions as references.
    """
    if not references or len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions cannot be scored against {len(references)} references.")
    texts = {"predictions": list(predictions), "references": list(references)}
    scores: dict[str, float | str] = {}
    for metric in (Bleu(keep_in_memory=True), ChrF(keep_in_memory=True), ExactMatch(keep_in_memory=True)):
        scores |= metric.compute(**texts)
    lowercase = Bleu(keep_in_memory=True).compute(**texts, lowercase=True)
    scores |= {key.replace("bleu", "bleu_lowercase"): value for key, value in lowercase.items()}
    moses = moses_lowercase(language)
    if moses is not None:
        tokens = {name: [moses.tokenize(text) for text in side] for name, side in texts.items()}
        found = Bleu(keep_in_memory=True).compute(**tokens, tokenize="none")
        found["bleu_signature"] = (
            found["bleu_signature"].replace("case:mixed", "case:lc").replace("tok:none", f"tok:{moses.name}")
        )
        scores |= {key.replace("bleu", "bleu_moses_lowercase"): value for key, value in found.items()}
    return scores | {"interval_signature": SIGNATURE}
