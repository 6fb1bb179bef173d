"""Metrics of generated text, as `evaluate` modules that work without a network."""

import datasets
import evaluate
import sacrebleu


class _Texts(evaluate.Metric):
    """Predictions against one reference each, both detokenised text."""

    def _info(self):
        features = datasets.Features({"predictions": datasets.Value("string"), "references": datasets.Value("string")})
        return evaluate.MetricInfo(description=type(self).__doc__, citation="", features=features)


class Bleu(_Texts):
    """BLEU (Papineni et al., 2002) as sacrebleu computes it, with the signature that makes it comparable.

    `compute` takes `lowercase` (default False) and `tokenize` (default "13a") besides the texts, and returns `bleu`, from 0
    to 100, and `bleu_signature`.
    """

    def _compute(self, predictions, references, lowercase=False, tokenize="13a"):
        metric = sacrebleu.metrics.BLEU(lowercase=lowercase, tokenize=tokenize)
        score = metric.corpus_score(predictions, [references])
        return {"bleu": score.score, "bleu_signature": str(metric.get_signature())}


class ChrF(_Texts):
    """chrF2 (Popovic, 2015), F-score of character n-grams, from 0 to 100, with its signature."""

    def _compute(self, predictions, references):
        metric = sacrebleu.metrics.CHRF()
        score = metric.corpus_score(predictions, [references])
        return {"chrf": score.score, "chrf_signature": str(metric.get_signature())}


class ExactMatch(_Texts):
    """Share of predictions that equal their reference, from 0 to 1."""

    def _compute(self, predictions, references):
        equal = sum(p == r for p, r in zip(predictions, references, strict=True))
        return {"exact_match": equal / len(references)}


def score_texts(predictions: list[str], references: list[str]) -> dict[str, float | str]:
    """Compute `bleu` and `bleu_lowercase`, `chrf` (each with its signature) and `exact_match`.

    Raises:
        ValueError: there are no texts, or not as many predictions as references.
    """
    if not references or len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions cannot be scored against {len(references)} references.")
    scores: dict[str, float | str] = {}
    for metric in (Bleu(keep_in_memory=True), ChrF(keep_in_memory=True), ExactMatch(keep_in_memory=True)):
        scores |= metric.compute(predictions=predictions, references=references)
    lowercase = Bleu(keep_in_memory=True).compute(predictions=predictions, references=references, lowercase=True)
    return scores | {key.replace("bleu", "bleu_lowercase"): value for key, value in lowercase.items()}
