"""Text as Multi30k is compared on: lower case, plain punctuation, the tokens of Moses."""

import importlib.metadata
from importlib.util import find_spec


class MosesLowercase:
    """Make the tokens of the data set's files `*.lc.norm.tok.*`.

    lowercase.perl, normalize-punctuation.perl, tokenizer.perl, as in
    https://github.com/multi30k/dataset/blob/master/scripts/task1-tokenize.sh; here by `sacremoses`.

    Args:
        language: two letters; its abbreviations keep their full stop.
    """

    def __init__(self, language: str):
        from sacremoses import MosesPunctNormalizer, MosesTokenizer

        self.name = f"moses-{language}-sacremoses-{importlib.metadata.version('sacremoses')}"
        self._normalizer, self._tokenizer = MosesPunctNormalizer(lang=language), MosesTokenizer(lang=language)

    def tokenize(self, text: str) -> str:
        """Return the tokens of a text, with spaces between."""
        return self._tokenizer.tokenize(self._normalizer.normalize(text.lower()), return_str=True)


def moses_lowercase(language: str | None) -> MosesLowercase | None:
    """Make the tokenizer of a language; None where none is named, Moses does not know it, or sacremoses is not installed."""
    if language is None or find_spec("sacremoses") is None:
        return None
    from sacremoses.corpus import NonbreakingPrefixes

    # "de_AT" and "de-AT" have the abbreviations of "de".
    short = language.lower().replace("_", "-").partition("-")[0]
    return MosesLowercase(short) if short in NonbreakingPrefixes().available_langs.values() else None
