"""Text goes on: continuation and scoring of text by causal models that know their tokenizer; it travels with their code."""

from collections.abc import Iterable
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from .decoding import Rows, sample
from .text_batches import (
    MOST_LOGITS,
    batches_with_progress,
    check_known,
    check_options,
    constraints_of,
    generator_of,
    in_evaluation,
    list_of_texts,
    padded,
    token_log_probs,
    tokenizer_of,
)


_SAMPLING: dict[str, float] = {"temperature": 0.8, "top_k": 200, "top_p": 1.0}


def _begins(tokenizer: Any) -> int | None:
    """The token before a document: the one that ends documents, as in training, where they stand in a row."""
    return tokenizer.bos_token_id if tokenizer.eos_token_id is None else tokenizer.eos_token_id


class TextContinuation:
    """Strings to what may come after them, for causal models."""

    @in_evaluation
    def continue_text(
        self: Any,
        prompts: Iterable[str],
        *,
        tokenizer: PreTrainedTokenizerBase | None = None,
        max_new_tokens: int = 500,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        no_repeat_ngram_size: int | None = None,
        seed: int | None = None,
        max_tokens_per_batch: int = 8192,
        progress: bool | None = None,
        streamer: Any = None,
    ) -> list[str]:
        """Continue prompts, beyond the model's context too: when it is full, the newer half of it is kept.

        Args:
            prompts: what each text begins with, of any length; an empty one: the beginning of a document.
            tokenizer: the model's; None: the one that was saved beside it.
            max_new_tokens: tokens; fewer where the document ends.
            temperature: below 1 likely tokens become likelier; 0 takes the likeliest each time; None: what the generation
                configuration says, or else 0.8.
            top_k: draw from the likeliest so many tokens; 0: from all; None: as for temperature, or else 200.
            top_p: draw from the likeliest tokens that together have this probability; None: as for temperature, or else 1.
            no_repeat_ngram_size: no n-gram of so many tokens comes twice, in the prompt and what is written; 0: any may;
                None: what the generation configuration says.
            seed: of the draw.
            max_tokens_per_batch: padded tokens of the prompts and their continuations.
            progress: show a bar on stderr; None: where there is more than one batch.
            streamer: of the library (`TextIteratorStreamer`, ...): gets the tokens of the prompt and, as they come, those of
                what is written, for a single prompt.

        Returns:
            The continuations, without the prompts.

        Raises:
            ValueError: an option is out of its range; there is a streamer and not one prompt; a prompt is no string, or holds
                a character that the tokenizer does not know.
        """
        options: dict[str, Any] = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
        check_options(
            **options,
            max_new_tokens=max_new_tokens,
            no_repeat_ngram_size=no_repeat_ngram_size,
            seed=seed,
            max_tokens_per_batch=max_tokens_per_batch,
        )
        options = {name: self._preset(name) if value is None else value for name, value in options.items()}
        prompts = list_of_texts("prompts", prompts)
        tokenizer = tokenizer_of(self, tokenizer)
        texts = [self._encode_prompt(prompt, number, tokenizer) for number, prompt in enumerate(prompts, 1)]
        if streamer is not None:
            if len(prompts) != 1:
                raise ValueError(f"A streamer is for one prompt, not for {len(prompts)}.")
            options["streamer"] = streamer
            streamer.put(torch.tensor(texts))
        starts = [len(ids) for ids in texts]
        options["generator"] = generator_of(self, seed)
        lengths = {i: len(ids) + max_new_tokens for i, ids in enumerate(texts)}
        most_rows = MOST_LOGITS // self.config.vocab_size
        for batch in batches_with_progress(lengths, max_tokens_per_batch, "continuing", progress, 1, most_rows):
            ends = {i: starts[i] + max_new_tokens for i in batch}
            self._continue(texts, ends, constraints_of(self, no_repeat_ngram_size), options)
        if streamer is not None:
            streamer.end()
        return [
            str(tokenizer.decode(ids[start:], skip_special_tokens=True))
            for ids, start in zip(texts, starts, strict=True)
        ]

    def _continue(self: Any, texts: list[list[int]], ends: dict[int, int], constraints: Any, options: dict[str, Any]):
        """Write on, in place, until each text has ended, or has as many tokens as `ends` says."""
        limit = self._context()
        begins = dict.fromkeys(ends, 0)  # where the context of each text begins, whatever texts are beside it
        while ends:
            going_on = list(ends)
            for i in going_on:
                if limit is not None and len(texts[i]) - begins[i] >= limit:
                    begins[i] = len(texts[i]) - max(1, limit // 2)
            contexts = [texts[i][begins[i] :] for i in going_on]
            # Padding takes up positions of the cache: what the longest leaves is what there is.
            room = None if limit is None else max(1, limit - max(map(len, contexts)))
            most = [min(ends[i] - len(texts[i]), room or ends[i]) for i in going_on]
            inputs = padded(contexts, self, side="left")
            said = [texts[i] for i in going_on] if constraints.no_repeat_ngram_size else ()
            rows = Rows(self, inputs["attention_mask"])
            written = sample(rows, inputs["input_ids"], most, constraints, said=said, **options)
            for i, hypothesis, longest in zip(going_on, written, most, strict=True):
                texts[i] = [*texts[i], *hypothesis.token_ids]
                # A text that is shorter without an end is one where nothing may come next.
                if hypothesis.is_finished or len(hypothesis.token_ids) < longest or len(texts[i]) >= ends[i]:
                    del ends[i]

    @in_evaluation
    def score(
        self: Any,
        texts: Iterable[str],
        *,
        tokenizer: PreTrainedTokenizerBase | None = None,
        max_tokens_per_batch: int = 8192,
        progress: bool | None = None,
    ) -> list[list[float]]:
        """Tell how likely the model finds given texts.

        Args:
            texts: each as a document of its own.
            tokenizer: the model's; None: the one that was saved beside it.
            max_tokens_per_batch: padded tokens.
            progress: show a bar on stderr; None: where there is more than one batch.

        Returns:
            For each text the log-probability (nats) of every token of it, given those before it and the token between documents;
            where the tokenizer has none, nothing predicts the first token, which is then left out. A model whose training text
            is a single document has never seen that token.

        Raises:
            ValueError: a text is no string, or has more tokens than the model has positions.
        """
        check_options(max_tokens_per_batch=max_tokens_per_batch)
        texts = list_of_texts("texts", texts)
        if not texts:
            return []
        tokenizer = tokenizer_of(self, tokenizer)
        encoded = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
        if (first := _begins(tokenizer)) is not None:
            encoded = [[first, *ids] for ids in encoded]
        limit = self._context()
        for number, ids in enumerate(encoded, 1):
            if limit is not None and len(ids) - 1 > limit:
                raise ValueError(f"Text {number} has {len(ids) - 1} tokens; the model has {limit} learned positions.")
            check_known(ids, self.config.vocab_size, f"Text {number}", tokenizer)

        def logits_of(batch: list[int]) -> torch.Tensor:
            return self(**padded([encoded[i][:-1] or encoded[i] for i in batch], self), return_dict=True).logits

        lengths = {i: max(1, len(ids)) for i, ids in enumerate(encoded) if ids}
        targets = [ids[1:] for ids in encoded]
        budget = min(max_tokens_per_batch, MOST_LOGITS // self.config.vocab_size)
        return token_log_probs(logits_of, targets, lengths, budget, progress)

    def _context(self: Any) -> int | None:
        """Positions that the model has; None: no limit."""
        return getattr(self.config, "max_position_embeddings", None)

    def _preset(self: Any, name: str) -> float:
        """What the generation configuration says of sampling, or the default where it says nothing."""
        if name == "temperature" and self.generation_config.do_sample is False:
            return 0
        value = getattr(self.generation_config, name, None)
        return _SAMPLING[name] if value is None else value

    def _encode_prompt(self: Any, prompt: str, number: int, tokenizer: Any) -> list[int]:
        ids = tokenizer(prompt, add_special_tokens=False, verbose=False)["input_ids"] or [_begins(tokenizer)]
        if ids == [None]:
            raise ValueError(
                f"Prompt {number} is empty, and the tokenizer has no token that begins a document: give some text."
            )
        unknown = tokenizer.unk_token_id
        if unknown is not None and unknown in ids and tokenizer.unk_token != tokenizer.bos_token:
            strange = next(
                (c for c in prompt if unknown in tokenizer(c, add_special_tokens=False)["input_ids"]), prompt
            )
            raise ValueError(
                f"Prompt {number} holds {strange!r}, which does not occur in the text that the tokenizer learned from."
            )
        check_known(ids, self.config.vocab_size, f"Prompt {number}", tokenizer)
        return ids


__all__ = ["TextContinuation"]
