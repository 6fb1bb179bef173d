"""Search for what a model would write: beam search as the paper used it, greedy and sampled decoding.

Section 6.1 of Vaswani et al., 2017 (https://arxiv.org/abs/1706.03762): beam search with beam size 4 and the length
penalty of Wu et al., 2016 (https://arxiv.org/abs/1609.08144, section 7), alpha = 0.6. The library's `generate` divides by
length ** length_penalty instead, and computes every row of a batch until the last one is done; here a sentence leaves
the batch as soon as nothing can beat what it has finished.

Local tensors carry their shape: N sentences, K beams of each, R = N * K rows, T tokens written, V vocabulary, C candidates.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import EncoderDecoderCache, PreTrainedModel

from .cache_names import by_library_name, cache_of


def length_penalty(length: int, alpha: float) -> float:
    """Return ((5 + length) / 6) ** alpha, equation 14 of Wu et al., 2016; `length` counts the end token."""
    return ((5 + length) / 6) ** alpha


@dataclass(frozen=True)
class Hypothesis:
    """One way to write it.

    Args:
        token_ids: what was written, the end token included where it was reached, the start token not.
        log_prob: log-probability of these tokens under the model, nats.
        alpha: exponent of the length penalty.
        is_finished: the end token was reached.
    """

    token_ids: list[int]
    log_prob: float
    alpha: float
    is_finished: bool

    @property
    def score(self) -> float:
        """What hypotheses are ranked by: the log-probability over the length penalty."""
        return self.log_prob / length_penalty(len(self.token_ids), self.alpha)


@dataclass(frozen=True)
class Constraints:
    """What may not be written, and what must be.

    Args:
        eos_token_ids: tokens that end a text.
        banned_token_ids: tokens that are never written, such as padding.
        no_repeat_ngram_size: no n-gram of this many tokens is written twice; 0: any may be.
        prefixes: what each text must begin with, one list of ids for each sentence; empty: nothing.
    """

    eos_token_ids: tuple[int, ...]
    banned_token_ids: tuple[int, ...] = ()
    no_repeat_ngram_size: int = 0
    prefixes: Sequence[Sequence[int]] = field(default_factory=tuple)

    def apply(self, log_prob_RV: torch.Tensor, said_RT: torch.Tensor, step: int, sentences: Sequence[int]):
        """Lower the log-probability of what may not come next to minus infinity, in place; a prefix comes before a ban.

        Args:
            log_prob_RV: of the next token.
            said_RT: the tokens whose n-grams are not repeated, -1 in front of the shorter ones.
            step: tokens that were written so far.
            sentences: number of each row's sentence, among the prefixes.
        """
        wanted = {
            row: self.prefixes[sentence][step]
            for row, sentence in enumerate(sentences if self.prefixes else ())
            if len(self.prefixes[sentence]) > step
        }
        kept = log_prob_RV[list(wanted), list(wanted.values())]
        if self.banned_token_ids:
            log_prob_RV[:, list(self.banned_token_ids)] = -torch.inf
        size, length = self.no_repeat_ngram_size, said_RT.shape[1]
        if size and length >= size:
            ngrams = said_RT.unfold(1, size, 1)
            beginning = said_RT[:, length - size + 1 :]
            repeats = (ngrams[..., :-1] == beginning[:, None]).all(-1) & (ngrams[..., -1] >= 0)
            lowered = torch.where(repeats, -torch.inf, 0.0).to(log_prob_RV.dtype)
            log_prob_RV.scatter_add_(1, ngrams[..., -1].clamp(min=0), lowered)
        log_prob_RV[list(wanted)] = -torch.inf
        log_prob_RV[list(wanted), list(wanted.values())] = kept


class Rows:
    """The rows that a model is writing, with its memory of each; rows can be reordered, repeated and left out.

    Args:
        model: an encoder-decoder, or a causal model.
        attention_mask: 1 at real tokens, 0 at padding: of the source, or of the causal model's prompt.
        encoder_outputs: of an encoder-decoder, one row for each sentence.
    """

    def __init__(self, model: PreTrainedModel, attention_mask: torch.Tensor, encoder_outputs: Any = None):
        self.model = model
        self.attention_mask = attention_mask
        self.encoder_outputs = encoder_outputs
        self.cache: Any = None

    def step(self, ids_RT: torch.Tensor) -> torch.Tensor:
        """Read the next tokens of every row, and return the logits (rows, vocabulary) of what comes then, float32."""
        common = {**by_library_name(self.cache), "use_cache": True, "logits_to_keep": 1, "return_dict": True}
        if self.encoder_outputs is not None:
            outputs = self.model(
                decoder_input_ids=ids_RT,
                encoder_outputs=self.encoder_outputs,
                attention_mask=self.attention_mask,
                **common,
            )
        else:
            if self.cache is not None:
                self.attention_mask = torch.cat([self.attention_mask, torch.ones_like(ids_RT)], dim=1)
            outputs = self.model(ids_RT, attention_mask=self.attention_mask, **common)
        self.cache = cache_of(outputs)
        return outputs.logits[:, -1].float()

    def repeat(self, times: int):
        """Have each sentence so many times, before the first step."""
        if times > 1:
            self._select(
                torch.arange(len(self.attention_mask), device=self.attention_mask.device).repeat_interleave(times)
            )

    def take(self, rows_R: Any, sources: Any):
        """Go on with these rows, which may repeat.

        Args:
            rows_R: numbers of rows, a tensor.
            sources: a tensor of the numbers of the sentences that the rows belong to, as many rows to each; None: all, as before.
        """
        if isinstance(self.cache, EncoderDecoderCache):
            # The rows of a sentence share the keys and values of its source.
            self.cache.self_attention_cache.reorder_cache(rows_R)
            if sources is None:
                return
            self.cache.cross_attention_cache.reorder_cache(sources)
        else:
            self.cache.reorder_cache(rows_R)
            sources = rows_R
        self._select(sources)

    def _select(self, sources: torch.Tensor):
        self.attention_mask = self.attention_mask.index_select(0, sources)
        if self.encoder_outputs is not None:
            kept = {k: v.index_select(0, sources) for k, v in self.encoder_outputs.items() if torch.is_tensor(v)}
            self.encoder_outputs = type(self.encoder_outputs)(**kept)


def beam_search(
    rows: Rows,
    start_token_id: int,
    max_lengths: Sequence[int],
    constraints: Constraints,
    *,
    num_beams: int = 4,
    alpha: float = 0.6,
    n_best: int = 1,
) -> list[list[Hypothesis]]:
    """Search, for every sentence, the texts of the highest score.

    A text is finished where its end token is among the `num_beams` best continuations of all beams. A sentence is done
    when no running beam can still reach the score of its `n_best`-th finished text: a log-probability only falls, and is
    divided by at most the penalty of the greatest length.

    Args:
        rows: one for each sentence.
        start_token_id: what the decoder reads first.
        max_lengths: tokens, the end token included, that each sentence's texts may have.
        constraints: what may be written.
        num_beams: running hypotheses of a sentence.
        alpha: exponent of the length penalty, 0 or more; 0: the highest log-probability wins, which favours short texts.
        n_best: texts for each sentence, at most `num_beams`.

    Returns:
        For each sentence its best texts, the best first, and fewer than `n_best` only where the constraints leave no more;
        texts without an end token come last, and only where fewer than `n_best` were finished in `max_lengths` tokens.

    Raises:
        ValueError: the model's logits are no numbers.
    """
    device = rows.attention_mask.device
    found: list[list[Hypothesis]] = [[] for _ in max_lengths]
    ends = torch.tensor(constraints.eos_token_ids, device=device)
    sentences = list(range(len(max_lengths)))
    written_NKT = torch.full((len(sentences), 1, 1), start_token_id, device=device)
    log_prob_NK = torch.zeros(len(sentences), 1, device=device)
    while sentences:
        beams = written_NKT.shape[1]
        logits_RV = rows.step(written_NKT[:, :, -1].reshape(-1, 1))
        log_prob_NC, parent_NC, id_NC = _candidates(
            logits_RV, written_NKT, log_prob_NK, constraints, sentences, (1 + len(ends)) * num_beams
        )
        is_end_NC = torch.isin(id_NC, ends)
        for n, c in is_end_NC[:, :num_beams].nonzero().tolist():
            ids = [*written_NKT[n, parent_NC[n, c], 1:].tolist(), int(id_NC[n, c])]
            _add(found[sentences[n]], Hypothesis(ids, float(log_prob_NC[n, c]), alpha, True), n_best)

        log_prob_NC = log_prob_NC.masked_fill(is_end_NC, -torch.inf)
        earlier_NKT, earlier_log_prob_NK = written_NKT, log_prob_NK
        log_prob_NK, best_NK = log_prob_NC.topk(min(num_beams, log_prob_NC.shape[1]))
        parent_NK, id_NK = parent_NC.gather(1, best_NK), id_NC.gather(1, best_NK)
        before_NKT = written_NKT.gather(1, parent_NK[..., None].expand(-1, -1, written_NKT.shape[2]))
        written_NKT = torch.cat([before_NKT, id_NK[..., None]], dim=2)

        going_on = []
        length = written_NKT.shape[2] - 1
        for n, log_probs in enumerate(log_prob_NK.tolist()):
            mine, longest = found[sentences[n]], max_lengths[sentences[n]]
            beaten = len(mine) == n_best and mine[-1].score >= log_probs[0] / length_penalty(longest, alpha)
            if length < longest and log_probs[0] > -torch.inf and not beaten:
                going_on.append(n)
            elif not beaten:
                texts = zip(written_NKT[n, :, 1:].tolist(), log_probs, strict=True)
                if log_probs[0] == -torch.inf and not mine:  # nothing may come next: what there was is the text
                    texts = zip(earlier_NKT[n, :, 1:].tolist(), earlier_log_prob_NK[n].tolist(), strict=True)
                for ids, log_prob in texts:
                    _add(mine, Hypothesis(ids, log_prob, alpha, False), n_best)
        if going_on:
            kept = torch.tensor(going_on, device=device)
            left_out = len(going_on) < len(sentences)
            rows.take((kept[:, None] * beams + parent_NK[kept]).flatten(), kept if left_out else None)
            written_NKT, log_prob_NK = written_NKT[kept], log_prob_NK[kept]
        sentences = [sentences[n] for n in going_on]
    return found


def _candidates(
    logits_RV: torch.Tensor,
    written_NKT: torch.Tensor,
    log_prob_NK: torch.Tensor,
    constraints: Constraints,
    sentences: Sequence[int],
    most: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Find the best continuations of each sentence: log-probability, beam and token of each, best first."""
    beams = written_NKT.shape[1]
    log_prob_RV = _log_softmax(logits_RV)
    written_RT = written_NKT.flatten(0, 1)[:, 1:]
    constraints.apply(log_prob_RV, written_RT, written_RT.shape[1], [n for n in sentences for _ in range(beams)])
    # The best of every row first: a sentence's best are among them, and the rest of the vocabulary is not looked at again.
    best_RC, id_RC = log_prob_RV.topk(min(most, log_prob_RV.shape[-1]))
    log_prob_NC = (log_prob_NK.view(-1, 1) + best_RC).view(len(sentences), -1)
    log_prob_NC, place_NC = log_prob_NC.topk(min(most, log_prob_NC.shape[1]))
    return log_prob_NC, place_NC // best_RC.shape[1], id_RC.view(len(sentences), -1).gather(1, place_NC)


def _log_softmax(logits_RV: torch.Tensor) -> torch.Tensor:
    log_prob_RV = logits_RV.log_softmax(-1)
    if log_prob_RV[:, 0].isnan().any():  # one such logit makes the whole row so
        raise ValueError("The model's logits are no numbers (NaN or infinite): look at its weights and its dtype.")
    return log_prob_RV


def _add(found: list[Hypothesis], new: Hypothesis, n_best: int):
    """Keep the `n_best` best, finished ones before others."""
    if new.log_prob > -torch.inf:
        found.append(new)
        found.sort(key=lambda hypothesis: (hypothesis.is_finished, hypothesis.score), reverse=True)
        del found[n_best:]


def sample(
    rows: Rows,
    first_ids: torch.Tensor,
    max_lengths: Sequence[int],
    constraints: Constraints,
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    generator: torch.Generator | None = None,
    alpha: float = 0.0,
    said: Sequence[Sequence[int]] = (),
    streamer: Any = None,
) -> list[Hypothesis]:
    """Write one text for every row, token by token; a row that has ended leaves the batch.

    A row where nothing may come next ends without an end token.

    Args:
        rows: one for each text.
        first_ids: what the model reads first: the decoder's start token, or the prompts, padded on the left; (rows, tokens).
        max_lengths: tokens that each text may have, 1 or more.
        constraints: what may be written.
        temperature: logits are divided by it; 0: greedy, the likeliest token each time.
        top_k: draw from the likeliest so many tokens; 0: from all.
        top_p: draw from the likeliest tokens that together have this probability (Holtzman et al., 2020,
            https://arxiv.org/abs/1904.09751); 1: from all.
        generator: source of randomness; None: torch's own.
        alpha: exponent of the length penalty in the texts' scores; it changes nothing of what is written.
        said: what was said before each text, whose n-grams are not repeated either; empty: nothing.
        streamer: gets each token of the first row by `put` as it is written, but the end token; the library's will do.

    Raises:
        ValueError: the model's logits are no numbers.
    """
    device = first_ids.device
    texts: dict[int, Hypothesis] = {}
    alive = list(range(len(max_lengths)))
    next_RT = first_ids
    # What was said before, and from `start` on what is written here.
    said_RT = pad_sequence(
        [torch.tensor(ids, device=device) for ids in said or [[]] * len(alive)], True, -1, "left"
    ).long()
    start = said_RT.shape[1]
    log_prob_R = torch.zeros(len(alive), device=device)
    while alive:
        log_prob_RV = _log_softmax(rows.step(next_RT))
        constraints.apply(log_prob_RV, said_RT, said_RT.shape[1] - start, alive)
        stuck_R = log_prob_RV.amax(-1) == -torch.inf
        next_RT = _draw(log_prob_RV.masked_fill(stuck_R[:, None], 0), temperature, top_k, top_p, generator)
        earlier_log_prob_R = log_prob_R
        log_prob_R = log_prob_R + log_prob_RV.gather(1, next_RT)[:, 0]
        said_RT = torch.cat([said_RT, next_RT], dim=1)

        going_on = []
        for place, (row, token, is_stuck) in enumerate(
            zip(alive, next_RT[:, 0].tolist(), stuck_R.tolist(), strict=True)
        ):
            is_end = token in constraints.eos_token_ids
            if streamer is not None and row == 0 and not (is_end or is_stuck):
                streamer.put(next_RT[place].cpu())
            if is_stuck:
                texts[row] = Hypothesis(
                    said_RT[place, start:-1].tolist(), float(earlier_log_prob_R[place]), alpha, False
                )
            elif is_end or said_RT.shape[1] - start == max_lengths[row]:
                texts[row] = Hypothesis(said_RT[place, start:].tolist(), float(log_prob_R[place]), alpha, is_end)
            else:
                going_on.append(place)
        if 0 < len(going_on) < len(alive):
            kept = torch.tensor(going_on, device=device)
            rows.take(kept, kept)
            next_RT, said_RT, log_prob_R = next_RT[kept], said_RT[kept], log_prob_R[kept]
        alive = [alive[place] for place in going_on]
    return [texts[row] for row in range(len(max_lengths))]


def _draw(
    log_prob_RV: torch.Tensor, temperature: float, top_k: int, top_p: float, generator: torch.Generator | None
) -> torch.Tensor:
    """Draw a token for every row, (rows, 1)."""
    if temperature == 0:
        return log_prob_RV.argmax(-1, keepdim=True)
    best_RC, id_RC = log_prob_RV.div(temperature).topk(min(top_k, log_prob_RV.shape[-1]) or log_prob_RV.shape[-1])
    prob_RC = best_RC.softmax(-1)
    # A token stays if those before it have not reached top_p yet; so the likeliest always does.
    prob_RC = prob_RC.masked_fill(prob_RC.cumsum(-1) - prob_RC >= top_p, 0)
    return id_RC.gather(1, torch.multinomial(prob_RC, 1, generator=generator))


__all__ = ["Constraints", "Hypothesis", "Rows", "beam_search", "length_penalty", "sample"]
