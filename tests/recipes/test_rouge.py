import random
from itertools import combinations

import pytest

from transformer_theatre.recipes.rouge import Rouge, longest_common_subsequence, rouge_l, rouge_n, words


WORDS = ["police", "killed", "the", "gunman", "The", "a", "don't", "state-of-the-art", "3,000", "end."]


def texts(seed, count=20):
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(1, 12))) for _ in range(count)]


def rouge(predictions, references):
    return Rouge(keep_in_memory=True).compute(predictions=predictions, references=references)


def test_scores_are_those_of_lins_example():
    """Section 3.1: of the two, only ROUGE-L knows which keeps the order of the reference."""
    reference = words("police killed the gunman")
    first, second = words("police kill the gunman"), words("the gunman kill police")
    assert rouge_l(first, reference) == pytest.approx(3 / 4)
    assert rouge_l(second, reference) == pytest.approx(2 / 4)
    assert rouge_n(2, first, reference) == rouge_n(2, second, reference) == pytest.approx(1 / 3)


def test_a_text_is_scored_by_precision_and_recall_alike():
    assert rouge_n(1, ["a", "b", "b"], ["b", "b", "b", "c"]) == pytest.approx(2 / (3 / 2 + 4 / 2))
    assert rouge_n(2, ["a"], ["a", "b"]) == 0  # it has no pair
    assert rouge_l([], ["a"]) == 0


def test_the_common_subsequence_is_the_longest_of_all():
    rng = random.Random(3)
    for _ in range(30):
        a, b = ([rng.choice("abc") for _ in range(rng.randint(0, 6))] for _ in range(2))
        common = [
            {row for size in range(len(text) + 1) for row in combinations(text, size)} for text in (tuple(a), tuple(b))
        ]
        assert longest_common_subsequence(a, b) == max(map(len, common[0] & common[1]))


def test_of_several_references_the_best_counts_for_each_score():
    predictions, references = texts(1), [texts(2), texts(3)]
    both = rouge(predictions, [list(pair) for pair in zip(*references, strict=True)])
    single = [
        [rouge([prediction], [reference]) for prediction, reference in zip(predictions, known, strict=True)]
        for known in references
    ]
    for name in ("rouge1", "rouge2", "rougeL"):
        best = [max(a[name], b[name]) for a, b in zip(*single, strict=True)]
        assert both[name] == pytest.approx(sum(best) / len(best))


def test_letters_of_every_script_are_words():
    assert words("Zwölf Bücher, 12 книг_и") == ["zwölf", "bücher", "12", "книг", "и"]


def test_scores_are_those_of_rouge_score():
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rouge1", "rouge2", "rougeL"])
    predictions, references = texts(1), [texts(2), texts(3)]
    known = [list(pair) for pair in zip(*references, strict=True)]
    theirs = [scorer.score_multi(right, text) for right, text in zip(known, predictions, strict=True)]
    ours = rouge(predictions, known)
    for name in ("rouge1", "rouge2", "rougeL"):
        assert ours[name] == pytest.approx(100 * sum(row[name].fmeasure for row in theirs) / len(theirs))
