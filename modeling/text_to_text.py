"""Text in, text out: translation, and whatever else maps text to text, by models that know their tokenizer.

It travels with a model's code, so that what `from_pretrained(..., trust_remote_code=True)` loads has these methods too, and
`pipeline("translation")`, which the library's fifth version has no more, works with such a model.
"""

import functools
import inspect
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from transformers import Pipeline, PreTrainedModel, PreTrainedTokenizerBase

from .decoding import Constraints, Hypothesis, Rows, beam_search, sample
from .text_batches import (
    MOST_LOGITS,
    batches_with_progress,
    check_known,
    check_options,
    constraints_of,
    encode_targets,
    generator_of,
    in_evaluation,
    list_of_texts,
    names_of_source,
    padded,
    token_log_probs,
    tokenizer_of,
)


# Section 6.1: "maximum output length during inference to input length + 50".
EXTRA_LENGTH = 50


class Translation(NamedTuple):
    """A translation and what is known of it."""

    text: str
    score: float  # what translations are ranked by: log_prob over the length penalty
    log_prob: float  # of all tokens, nats
    tokens: list[str]  # as the tokenizer names them, the end token included
    source_tokens: list[str]
    alignment: torch.Tensor | None  # (heads, tokens, source tokens): what the last layer looked at; rows sum to 1


@contextmanager
def _eager_attention(model: PreTrainedModel) -> Iterator[None]:
    """Only the eager attention has weights to show."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


class TextToText:
    """Strings to strings, for encoder-decoders.

    Sources are sorted by length and fill batches of a number of tokens; results come in the order of the sources. A blank
    source gives a blank text, and never meets the model.
    """

    # For the configuration: where the library finds what `pipeline("translation")` is with this model.
    custom_pipelines = {"translation": {"impl": "text_to_text.TranslationPipeline", "pt": ["AutoModelForSeq2SeqLM"]}}

    @in_evaluation
    def translate(
        self: Any,
        texts: Iterable[str],
        *,
        tokenizer: PreTrainedTokenizerBase | None = None,
        num_beams: int | None = None,
        alpha: float | None = None,
        n_best: int = 1,
        max_new_tokens: int | None = None,
        prefixes: Iterable[str] | None = None,
        no_repeat_ngram_size: int | None = None,
        do_sample: bool = False,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        return_scores: bool = False,
        return_alignment: bool = False,
        max_tokens_per_batch: int = 8192,
        progress: bool | None = None,
        first_number: int = 1,
    ) -> Any:
        """Translate texts, in any number and of any length.

        Args:
            texts: one source each.
            tokenizer: the model's; None: the one that was saved beside it.
            num_beams: running hypotheses of the beam search; 1: greedy; None: `default_num_beams`.
            alpha: exponent of the length penalty ((5 + tokens) / 6) ** alpha (section 6.1); more favours longer texts; None:
                `default_alpha`.
            n_best: translations of each source, at most `num_beams`, or draws; the best first. Fewer where the constraints
                leave no more.
            max_new_tokens: tokens that a translation may have, prefix and end token included; None: 50 more than its source
                has or, where that is more, its prefix.
            prefixes: what each translation must begin with.
            no_repeat_ngram_size: no n-gram of so many tokens is written twice; 0: any may be; None: what the generation
                configuration says.
            do_sample: draw each token, `n_best` times, instead of searching. Only then are there the next four.
            temperature: of the draw; below 1 likely tokens become likelier; None: 1.
            top_k: draw from the likeliest so many tokens; None, 0: from all.
            top_p: draw from the likeliest tokens that together have this probability; None: from all.
            seed: of the draw.
            return_scores: return `Translation`s instead of strings.
            return_alignment: return `Translation`s that say what each token looked at in the source.
            max_tokens_per_batch: padded source tokens, times beams; fewer where their logits would be more than 256 MiB.
            progress: show a bar on stderr; None: where there is more than one batch.
            first_number: number of the first text, for messages.

        Returns:
            A list as long as `texts`: of strings, or of `Translation`s where scores or the alignment are asked for; with
            `n_best` above 1 of lists of them.

        Raises:
            ValueError: an option is out of its range or has no effect beside the others, a text is no string, a text or a
                prefix has more tokens than the model has learned positions, or a model without attention to the source is
                asked for an alignment.
        """
        num_beams = self.default_num_beams if num_beams is None else num_beams
        alpha = self.default_alpha if alpha is None else alpha
        draw = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed}
        check_options(
            num_beams=num_beams,
            alpha=alpha,
            n_best=n_best,
            max_new_tokens=max_new_tokens,
            no_repeat_ngram_size=no_repeat_ngram_size,
            max_tokens_per_batch=max_tokens_per_batch,
            **draw,
        )
        unused = [f"{name}={value}" for name, value in draw.items() if value is not None and not do_sample]
        if unused:
            raise ValueError(f"{', '.join(unused)}: only a draw has these; give do_sample=True, or leave them out.")
        if n_best > num_beams and not do_sample:
            raise ValueError(f"n_best={n_best} must be at most num_beams={num_beams}.")
        if return_alignment and getattr(self.config, "attention", None) == "none":
            raise ValueError("The model has no attention to its source, so nothing is aligned.")
        texts = list_of_texts("texts", texts)
        tokenizer = tokenizer_of(self, tokenizer)
        sources = self._encode_sources(texts, tokenizer, first_number)
        starts = self._encode_prefixes(prefixes, tokenizer, len(texts), max_new_tokens)

        search = functools.partial(beam_search, num_beams=num_beams, alpha=alpha, n_best=n_best)
        if do_sample or num_beams == 1:
            settings: dict[str, Any] = {
                "temperature": (1.0 if temperature is None else temperature) if do_sample else 0.0,
                "top_k": top_k or 0,
                "top_p": 1.0 if top_p is None else top_p,
                "generator": generator_of(self, seed),
            }
            search = functools.partial(_samples, alpha=alpha, n_best=n_best, **settings)
        results: list[list[Translation]] = [[Translation("", 0.0, 0.0, [], [], None)] * n_best for _ in texts]
        repeats = n_best if do_sample else num_beams
        for batch in batches_with_progress(
            {i: len(ids) for i, ids in sources.items()},
            max_tokens_per_batch,
            "translating",
            progress,
            repeats,
            MOST_LOGITS // self.config.vocab_size,
        ):
            inputs = padded([sources[i] for i in batch], self)
            longest = [max_new_tokens or max(len(sources[i]), len(starts[i])) + EXTRA_LENGTH for i in batch]
            longest = [min(most, self._learned_positions() or most) for most in longest]
            limits = constraints_of(self, no_repeat_ngram_size, [starts[i] for i in batch])
            found = search(self._rows(**inputs), self._start(), longest, limits)
            seen = self.cross_attention(inputs, found) if return_alignment else None
            for place, i in enumerate(batch):
                named = names_of_source(tokenizer, texts[i], sources[i])
                results[i] = [
                    _translation(tokenizer, hypothesis, named, seen and seen[place][rank])
                    for rank, hypothesis in enumerate(found[place])
                ]
        plain = not (return_scores or return_alignment)
        listed: list[list[Any]] = [[each.text if plain else each for each in best] for best in results]
        return listed if n_best > 1 else [best[0] for best in listed]

    @property
    def default_num_beams(self: Any) -> int:
        """Beams that `translate` has unless it is told: what the generation configuration says, or 4 (section 6.1)."""
        return self.generation_config.num_beams or 4

    @property
    def default_alpha(self: Any) -> float:
        """Exponent of `translate`'s length penalty: what the generation configuration says, or 0.6 (section 6.1)."""
        return getattr(self.generation_config, "alpha", 0.6)

    @in_evaluation
    def score(
        self: Any,
        sources: Iterable[str],
        targets: Iterable[str],
        *,
        tokenizer: PreTrainedTokenizerBase | None = None,
        max_tokens_per_batch: int = 8192,
        progress: bool | None = None,
    ) -> list[list[float]]:
        """Tell how likely the model finds given translations, for rescoring and reranking.

        Args:
            sources: texts.
            targets: a translation of each.
            tokenizer: the model's; None: the one that was saved beside it.
            max_tokens_per_batch: padded tokens of source and target.
            progress: show a bar on stderr; None: where there is more than one batch.

        Returns:
            For each pair the log-probability (nats) of every token of the target, the end token included; their sum is that
            of the whole.

        Raises:
            ValueError: the lists are not of one length, or a text is no string or has more tokens than the model has learned
                positions.
        """
        check_options(max_tokens_per_batch=max_tokens_per_batch)
        sources, targets = list_of_texts("sources", sources), list_of_texts("targets", targets)
        if len(sources) != len(targets):
            raise ValueError(f"There are {len(sources)} sources and {len(targets)} targets: give one target each.")
        if not sources:
            return []
        tokenizer = tokenizer_of(self, tokenizer)
        source_ids, target_ids = tokenizer(sources, verbose=False)["input_ids"], encode_targets(tokenizer, targets)
        for number, pair in enumerate(zip(source_ids, target_ids, strict=True), 1):
            self._check_length(max(map(len, pair)), f"Pair {number}")
            check_known(pair[0], self._source_size(), f"Source {number}", tokenizer)
            check_known(pair[1], self.config.vocab_size, f"Target {number}", tokenizer)
        lengths = {i: max(1, len(source_ids[i]) + len(target_ids[i])) for i in range(len(sources))}

        def logits_of(batch: list[int]) -> torch.Tensor:
            before = [[self._start(), *target_ids[i][:-1]] for i in batch]
            inputs = padded([source_ids[i] for i in batch], self)
            return self(**inputs, decoder_input_ids=padded(before, self)["input_ids"], return_dict=True).logits

        budget = min(max_tokens_per_batch, MOST_LOGITS // self.config.vocab_size)
        return token_log_probs(logits_of, target_ids, lengths, budget, progress)

    def cross_attention(
        self: Any, inputs: dict[str, torch.Tensor], found: Sequence[Sequence[Hypothesis]]
    ) -> list[list[torch.Tensor]]:
        """Return what each token written looked at: the last layer's weights, (heads, target, source), of each hypothesis.

        Args:
            inputs: `input_ids` and `attention_mask` of the sources, (batch, source).
            found: what was written for each source.
        """
        counts = torch.tensor([len(best) for best in found], device=self.device)
        repeated = {name: tensor.repeat_interleave(counts, 0) for name, tensor in inputs.items()}
        written = [hypothesis.token_ids for best in found for hypothesis in best]
        before = padded([[self._start(), *ids[:-1]] for ids in written], self)["input_ids"]
        with _eager_attention(self):
            options = {"output_attentions": True, "return_dict": True}
            attentions = self(**repeated, decoder_input_ids=before, **options).cross_attentions
        masks = repeated["attention_mask"].bool()
        flat = [
            weights[:, : len(ids), mask] for weights, ids, mask in zip(attentions[-1], written, masks, strict=True)
        ]
        ends = counts.cumsum(0).tolist()
        return [flat[end - len(best) : end] for end, best in zip(ends, found, strict=True)]

    def _rows(self: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Rows:
        outputs = self.get_encoder()(input_ids, attention_mask=attention_mask, return_dict=True)
        return Rows(self, attention_mask, outputs)

    def _start(self: Any) -> int:
        for config in (self.generation_config, self.config):
            if config.decoder_start_token_id is not None:
                return config.decoder_start_token_id
        raise ValueError(
            "decoder_start_token_id is None: set it in model.generation_config; what begins a text is unknown."
        )

    def _learned_positions(self: Any) -> int | None:
        learned = getattr(self.config, "position_embeddings", None) == "learned"
        return self.config.max_position_embeddings if learned else None

    def _source_size(self: Any) -> int:
        return getattr(self.config, "source_vocab_size", None) or self.config.vocab_size

    def _check_length(self: Any, length: int, what: str):
        limit = self._learned_positions()
        if limit is not None and length > limit:
            raise ValueError(f"{what} has {length} tokens; the model has {limit} learned positions.")

    def _encode_sources(self: Any, texts: Sequence[str], tokenizer: Any, first_number: int) -> dict[int, list[int]]:
        wanted = [index for index, text in enumerate(texts) if text.strip()]
        encoded = tokenizer([texts[index] for index in wanted], verbose=False)["input_ids"] if wanted else []
        for index, ids in zip(wanted, encoded, strict=True):
            self._check_length(len(ids), f"Text {first_number + index}")
            check_known(ids, self._source_size(), f"Text {first_number + index}", tokenizer)
        return dict(zip(wanted, encoded, strict=True))

    def _encode_prefixes(
        self: Any, prefixes: Iterable[str] | None, tokenizer: Any, count: int, most: int | None
    ) -> list[list[int]]:
        """Encode what each of `count` translations must begin with, and leave room for a token after it.

        The end token, where the tokenizer puts one, is no part of it; what a model begins every text with comes first.
        """
        forced = self.generation_config.forced_bos_token_id
        before = [] if forced is None else [forced]
        if prefixes is None:
            return [before] * count
        listed = list_of_texts("prefixes", prefixes)
        if len(listed) != count:
            raise ValueError(f"There are {len(listed)} prefixes for {count} texts: give one each.")
        end = tokenizer.eos_token_id
        encoded = encode_targets(tokenizer, listed) if listed else []
        starts = [ids[:-1] if ids[-1:] == [end] else ids for ids in encoded]
        for number, ids in enumerate(starts, 1):
            if end in ids:
                raise ValueError(f"Prefix {number} holds {tokenizer.eos_token!r}, which ends a text.")
            self._check_length(len(before) + len(ids) + 1, f"Prefix {number}, with a token after it,")
            check_known(ids, self.config.vocab_size, f"Prefix {number}", tokenizer)
            if most is not None and len(before) + len(ids) >= most:
                raise ValueError(f"Prefix {number} has {len(ids)} tokens; max_new_tokens={most} leaves none after it.")
        return [before + ids for ids in starts]


def _samples(
    rows: Rows, start: int, longest: list[int], constraints: Constraints, *, n_best: int, **draw: Any
) -> list[list[Hypothesis]]:
    """Write `n_best` texts for each sentence by drawing, the likeliest first."""
    sentences = len(longest)
    rows.repeat(n_best)
    prefixes = [prefix for prefix in constraints.prefixes for _ in range(n_best)]
    first_ids = torch.full((sentences * n_best, 1), start, device=rows.attention_mask.device)
    longest = [most for most in longest for _ in range(n_best)]
    texts = sample(rows, first_ids, longest, replace(constraints, prefixes=prefixes), **draw)
    parts = [texts[place : place + n_best] for place in range(0, len(texts), n_best)]
    return [sorted(part, key=lambda hypothesis: -hypothesis.score) for part in parts]


def _translation(
    tokenizer: Any, hypothesis: Hypothesis, source_tokens: list[str], weights_HTS: torch.Tensor | None
) -> Translation:
    return Translation(
        str(tokenizer.decode(hypothesis.token_ids, skip_special_tokens=True)),
        hypothesis.score,
        hypothesis.log_prob,
        tokenizer.convert_ids_to_tokens(hypothesis.token_ids),
        source_tokens,
        None if weights_HTS is None else weights_HTS.cpu(),
    )


class TranslationPipeline(Pipeline):
    """`pipeline("translation", model=..., trust_remote_code=True)`: a string or strings in, dictionaries out.

    Options are those of `translate`. Each dictionary has `translation_text`; with `return_scores=True` also `score`.
    """

    _load_tokenizer: Any = True

    def __call__(self, texts: str | Sequence[str], **options: Any) -> list[Any]:
        """Translate a string, or strings; the list that is returned has an element for each, with `n_best` above 1 a list."""
        return super().__call__({"texts": [texts] if isinstance(texts, str) else list(texts)}, **options)

    def _sanitize_parameters(self, **options: Any):
        known = list(inspect.signature(TextToText.translate).parameters)[2:]
        unknown = sorted(set(options) - set(known))
        if unknown:
            raise ValueError(f"{', '.join(unknown)}: no option of `translate`, which has {', '.join(known)}.")
        return {}, options, {}

    def preprocess(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Leave all to the model, which sorts texts by length and makes its own batches."""
        return inputs

    def _forward(self, inputs: dict[str, Any], **options: Any) -> dict[str, Any]:
        translated = self.model.translate(inputs["texts"], tokenizer=self.tokenizer, **options)
        return {"translated": [_as_dictionary(each) for each in translated]}

    def postprocess(self, outputs: dict[str, Any]) -> list[Any]:
        """Return the dictionaries."""
        return outputs["translated"]


def _as_dictionary(translated: Any) -> Any:
    if isinstance(translated, str):
        return {"translation_text": translated}
    if isinstance(translated, list):
        return [_as_dictionary(each) for each in translated]
    # Not isinstance: as remote code, the pipeline and the model may come from two copies of this file.
    known = translated._asdict()
    return {"translation_text": known.pop("text"), **known}


__all__ = ["EXTRA_LENGTH", "TextToText", "Translation", "TranslationPipeline"]
