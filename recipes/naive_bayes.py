"""Multinomial naive Bayes over words: a judge of style that shares nothing with the models it judges.

McCallum and Nigam, 1998, "A Comparison of Event Models for Naive Bayes Text Classification", with add-one smoothing.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping


_WORD = re.compile(r"\w+|[^\w\s]|\n")  # line ends tell verse from prose


def words_of(text: str) -> list[str]:
    """Split a text into words, as they are written, marks and line ends."""
    return _WORD.findall(text)


class NaiveBayes:
    """Tells classes of text by their words; all classes count as equally frequent.

    Args:
        texts: of each class.

    Raises:
        ValueError: there are fewer than two classes, or one has no words.
    """

    def __init__(self, texts: Mapping[str, Iterable[str]]):
        counts = {name: Counter(word for text in found for word in words_of(text)) for name, found in texts.items()}
        empty = [name for name, count in counts.items() if not count]
        if len(counts) < 2 or empty:
            raise ValueError(
                f"Two classes with words are needed; there are {', '.join(counts)}, of which empty: {empty}."
            )
        known = set().union(*counts.values())
        self._log_prob = {
            name: {word: math.log(count[word] + 1) - math.log(count.total() + len(known)) for word in known}
            for name, count in counts.items()
        }

    def scores(self, text: str) -> dict[str, float]:
        """Log-probability of a text's words in each class, up to a constant; words of no class count nothing."""
        words = words_of(text)
        return {name: sum(known.get(word, 0.0) for word in words) for name, known in self._log_prob.items()}

    def classify(self, text: str) -> str:
        """Name the likeliest class."""
        scores = self.scores(text)
        return max(scores, key=lambda name: scores[name])
