"""Text that appears while a model writes it, token by token."""

from collections.abc import Callable

import torch
from transformers import PreTrainedTokenizerBase
from transformers.generation.streamers import BaseStreamer


# What decoders write for bytes that are no character yet.
_UNFINISHED = "\ufffd"


class TokenPrinter(BaseStreamer):
    """Write each token as soon as it is whole characters; the library's `TextStreamer` waits for the end of a word.

    A character may be of several tokens, and a token may end inside one. For the tokens of the prompt, `before` is written.

    Args:
        tokenizer: of the model.
        write: gets pieces of text, none of them empty.
        before: the prompt as it is to be shown, or nothing.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, write: Callable[[str], object], before: str = ""):
        self.tokenizer, self.write, self.before = tokenizer, write, before
        self._is_prompt = True
        # Tokens since the last border of characters but one: some decoders look at the token before.
        self._ids: list[int] = []
        self._shown = 0  # of these tokens, those whose text was written

    def put(self, value: torch.Tensor):
        """Take tokens: those of the prompt first."""
        if self._is_prompt:
            self._is_prompt = False
            self._write(self.before)
            return
        self._ids += value.flatten().tolist()
        before, text = (self._decoded(self._ids[:count]) for count in (self._shown, None))
        if text.endswith(_UNFINISHED):
            return
        self._write(text[len(before) :])
        self._ids, self._shown = self._ids[self._shown :], len(self._ids) - self._shown

    def end(self):
        """Write what is left, be it a part of a character."""
        self._write(self._decoded(self._ids)[len(self._decoded(self._ids[: self._shown])) :])
        self._ids, self._shown, self._is_prompt = [], 0, True

    def _decoded(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    def _write(self, text: str):
        if text:
            self.write(text)
