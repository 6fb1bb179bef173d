import itertools
import math
from collections.abc import Sequence

import pytest
import torch

from transformer_theatre.modeling.cache_names import cache_of
from transformer_theatre.modeling.decoding import Constraints, Rows, beam_search, length_penalty, sample


START, END, PAD = 1, 2, 0
TINY_VOCABULARY = 5


@pytest.fixture
def model(make_transformer):
    torch.manual_seed(0)
    model = make_transformer(vocab_size=TINY_VOCABULARY)
    with torch.no_grad():
        model.lm_head.weight.mul_(8)  # a random model is undecided
    return model


@pytest.fixture
def sources():
    torch.manual_seed(1)
    ids = torch.randint(3, TINY_VOCABULARY, (4, 6))
    mask = torch.ones_like(ids)
    mask[1, 4:] = mask[2, 2:] = 0
    return ids, mask


@pytest.fixture
def rows_of(sources):
    def make(model, chosen: Sequence[int] = range(4)):
        ids, mask = (tensor[list(chosen)] for tensor in sources)
        with torch.no_grad():
            return Rows(model, mask, model.get_encoder()(ids, attention_mask=mask))

    return make


def constraints(**more):
    return Constraints((END,), (PAD,), **more)


@torch.no_grad()
def log_prob(model, ids, mask, target: Sequence[int]) -> float:
    """Sum what `forward` says of a target, all at once and without a cache."""
    logits = model(ids, attention_mask=mask, decoder_input_ids=torch.tensor([[START, *target[:-1]]])).logits
    return logits[0].log_softmax(-1).gather(1, torch.tensor(target)[:, None]).sum().item()


def every_text(longest: int):
    """All texts of at most `longest` tokens that end, and no other."""
    words = [token for token in range(TINY_VOCABULARY) if token not in (END, PAD)]
    for length in range(longest):
        for body in itertools.product(words, repeat=length):
            yield [*body, END]


def test_length_penalty_is_equation_14_of_the_gnmt_paper():
    assert length_penalty(1, 0.6) == 1
    assert length_penalty(20, 0.6) == pytest.approx(25**0.6 / 6**0.6)


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.5])
@torch.no_grad()
def test_wide_beams_find_what_enumeration_finds(model, sources, rows_of, alpha):
    longest = 4
    found = beam_search(rows_of(model), START, [longest] * 4, constraints(), num_beams=27, alpha=alpha, n_best=5)
    for ids, mask, best in zip(*sources, found, strict=True):
        scored = [
            (log_prob(model, ids[None], mask[None], text) / length_penalty(len(text), alpha), text)
            for text in every_text(longest)
        ]
        expected = sorted(scored, reverse=True)[:5]
        assert [hypothesis.token_ids for hypothesis in best] == [text for _, text in expected]
        assert [hypothesis.score for hypothesis in best] == pytest.approx([score for score, _ in expected], abs=1e-4)


class Scripted:
    """Rows whose next token depends on the step alone: `END` ends a text at once with e^-1, or `WORD` begins a long one with e^-1.2."""

    WORD, LENGTH = 3, 10

    def __init__(self):
        self.attention_mask = torch.ones(1, 1)
        self.steps = 0

    def step(self, ids):
        if self.steps == 0:
            likely = {END: math.exp(-1.0), self.WORD: math.exp(-1.2)}
        else:
            likely = {END if self.steps == self.LENGTH - 1 else self.WORD: 0.999}
        self.steps += 1
        probs = torch.full((40,), (1 - sum(likely.values())) / (40 - len(likely)))
        probs[list(likely)] = torch.tensor(list(likely.values()))
        return probs.log().repeat(len(ids), 1)

    def take(self, rows, sources):
        """There is no memory to reorder."""


def test_a_long_text_may_still_beat_a_short_one_that_is_finished():
    """A search that ends too early, as if running texts got no longer than they are, finds the short one."""
    long_text = [Scripted.WORD] * (Scripted.LENGTH - 1) + [END]
    for alpha, expected in ((0.0, [END]), (0.6, long_text)):
        [best] = beam_search(Scripted(), START, [20], constraints(), num_beams=2, alpha=alpha)
        assert best[0].token_ids == expected
    short_score = -1.0 / length_penalty(1, 0.6)
    assert best[0].score == pytest.approx((-1.2 + 9 * math.log(0.999)) / length_penalty(10, 0.6), abs=1e-5)
    assert -1.2 / length_penalty(1, 0.6) < short_score < best[0].score


@pytest.mark.parametrize("num_beams", [1, 2, 4])
@torch.no_grad()
def test_without_penalty_it_finds_what_generate_finds(make_transformer, tokens, num_beams):
    torch.manual_seed(1)
    model = make_transformer(output_bias=True)
    with torch.no_grad():
        model.lm_head.weight.mul_(4)
        model.lm_head.bias[END] = 1.0  # some texts end, at different lengths, and some do not
    ids = tokens(12, 7)
    output = model.generate(
        ids, num_beams=num_beams, length_penalty=0.0, max_new_tokens=12, early_stopping="never", do_sample=False
    )
    rows = Rows(model, torch.ones_like(ids), model.get_encoder()(ids))
    found = beam_search(rows, START, [12] * 12, constraints(), num_beams=num_beams, alpha=0)
    ended = [row.index(END) for row in output[:, 1:].tolist() if END in row]
    assert len(ended) >= 4
    assert len(set(ended)) > 1
    for row, best in zip(output[:, 1:].tolist(), found, strict=True):
        if END in row:
            assert best[0].token_ids == row[: row.index(END) + 1]
        else:  # generate lets texts without end compete with those that have one; here they come last
            assert best[0].is_finished or best[0].token_ids == row


@pytest.mark.parametrize("alpha", [0.0, 0.6])
@torch.no_grad()
def test_a_sentence_is_searched_as_if_it_were_alone(model, rows_of, alpha):
    lengths = [5, 9, 3, 7]
    search = {"num_beams": 3, "alpha": alpha, "n_best": 2}
    together = beam_search(rows_of(model), START, lengths, constraints(), **search)
    for number, best in enumerate(together):
        [alone] = beam_search(rows_of(model, [number]), START, lengths[number : number + 1], constraints(), **search)
        assert [hypothesis.token_ids for hypothesis in best] == [hypothesis.token_ids for hypothesis in alone]
        assert [h.log_prob for h in best] == pytest.approx([h.log_prob for h in alone], abs=1e-4)


@torch.no_grad()
def test_finished_sentences_leave_the_batch(model, rows_of):
    """The rows that the model computes get fewer, and there is not one step after the last sentence is done."""
    counts = []
    rows = rows_of(model)
    step = rows.step
    rows.step = lambda ids: counts.append(len(ids)) or step(ids)
    found = beam_search(rows, START, [3, 6, 9, 12], constraints(), num_beams=2, alpha=5.0)
    assert counts[0] == 4
    assert counts[1:] == sorted(counts[1:], reverse=True)
    assert counts[-1] < counts[1] == 8
    assert all(len(best[0].token_ids) <= longest for best, longest in zip(found, [3, 6, 9, 12], strict=True))


@torch.no_grad()
def test_keys_of_the_source_are_computed_once_and_shared_by_its_beams(model, rows_of):
    rows = rows_of(model)
    calls = []
    layer = model.model.decoder.layers[0].cross_attention
    layer.k_proj.register_forward_hook(lambda module, inputs, output: calls.append(output.shape))
    beam_search(rows, START, [6] * 4, constraints(), num_beams=3, alpha=0.6)
    assert calls == [(4, 6, 16)]
    assert rows.cache.cross_attention_cache.layers[0].keys.shape[0] <= 4


@torch.no_grad()
def test_a_prefix_is_kept_and_scored(model, sources, rows_of):
    prefixes = [(3,), (), (4, 4, 3), (3, 4)]
    found = beam_search(rows_of(model), START, [8] * 4, constraints(prefixes=prefixes), num_beams=3)
    for ids, mask, prefix, best in zip(*sources, prefixes, found, strict=True):
        assert best[0].token_ids[: len(prefix)] == list(prefix)
        assert best[0].log_prob == pytest.approx(log_prob(model, ids[None], mask[None], best[0].token_ids), abs=1e-4)


@torch.no_grad()
def test_a_prefix_comes_before_a_ban(model, sources, rows_of):
    """Its tokens may be banned or repeat an n-gram: they are written, with the probability that the model gives them."""
    prefixes = [(3, 3, 3), (PAD, 3), (3, 4, 3, 4), (4,)]
    limits = Constraints((END,), (PAD,), no_repeat_ngram_size=2, prefixes=prefixes)
    found = beam_search(rows_of(model), START, [8] * 4, limits, num_beams=3)
    drawn = sample(rows_of(model), torch.full((4, 1), START), [8] * 4, limits, temperature=0)
    for ids, mask, prefix, best, greedy in zip(*sources, prefixes, found, drawn, strict=True):
        for text in (best[0], greedy):
            assert text.token_ids[: len(prefix)] == list(prefix)
            assert text.log_prob == pytest.approx(log_prob(model, ids[None], mask[None], text.token_ids), abs=1e-4)


@torch.no_grad()
def test_where_nothing_may_come_next_texts_end_without_end(model, sources, rows_of):
    limits = Constraints((END,), (PAD, END), no_repeat_ngram_size=1)  # 1, 3 and 4 are left, each once
    found = beam_search(rows_of(model), START, [9] * 4, limits, num_beams=9, alpha=0, n_best=6)
    drawn = sample(rows_of(model), torch.full((4, 1), START), [9] * 4, limits)
    for ids, mask, best, random in zip(*sources, found, drawn, strict=True):
        assert sorted(text.token_ids for text in best) == sorted(map(list, itertools.permutations([1, 3, 4])))
        for text in (*best, random):
            assert not text.is_finished
            assert sorted(text.token_ids) == [1, 3, 4]
            assert text.log_prob == pytest.approx(log_prob(model, ids[None], mask[None], text.token_ids), abs=1e-4)


@torch.no_grad()
def test_logits_that_are_no_numbers_are_named(model, rows_of):
    model.lm_head.weight[3] = torch.nan
    for search in (
        lambda: beam_search(rows_of(model), START, [5] * 4, constraints()),
        lambda: sample(rows_of(model), torch.full((4, 1), START), [5] * 4, constraints()),
    ):
        with pytest.raises(ValueError, match="logits are no numbers"):
            search()


@pytest.mark.parametrize("family", ["transformer", "lstm", "lstm without attention"])
@torch.no_grad()
def test_rows_share_a_source_only_where_the_cache_holds_it(make_transformer, make_lstm, tokens, family):
    torch.manual_seed(0)
    alone = {"attention": "none", "input_feeding": False}
    model = {
        "transformer": make_transformer,
        "lstm": make_lstm,
        "lstm without attention": lambda: make_lstm(**alone),
    }[family]()
    sources, targets = tokens(2, 5), tokens(4, 3)
    for wrong in ({"labels": targets}, {"decoder_input_ids": targets}, {"labels": tokens(3, 3)}):
        with pytest.raises(ValueError, match=r"The target has [34] rows and the source 2: give one row"):
            model(sources, **wrong)
    encoded = model.get_encoder()(sources)
    cache = cache_of(model(encoder_outputs=encoded, decoder_input_ids=targets[::2, :1], use_cache=True))
    cache.self_attention_cache.reorder_cache(torch.tensor([0, 0, 1, 1]))
    rest = targets[:, 1:]
    shared = model(encoder_outputs=encoded, decoder_input_ids=rest, past_key_values=cache).logits
    before = torch.cat([targets[::2, :1].repeat_interleave(2, 0), rest], 1)
    alone = model(sources.repeat_interleave(2, 0), decoder_input_ids=before).logits[:, 1:]
    torch.testing.assert_close(shared, alone, rtol=0, atol=1e-5)
    if family != "lstm without attention":  # which does not look at the source any more
        with pytest.raises(ValueError, match="The target has 3 rows and the source 2"):
            model(encoder_outputs=encoded, decoder_input_ids=rest[:3], past_key_values=cache)


@pytest.mark.parametrize("size", [1, 2, 3])
@torch.no_grad()
def test_no_ngram_is_written_twice(make_transformer, tokens, size):
    torch.manual_seed(0)
    model = make_transformer(vocab_size=12)
    ids = tokens(5, 6) % 9 + 3
    rows = lambda: Rows(model, torch.ones_like(ids), model.get_encoder()(ids))  # noqa: E731
    free = Constraints((END,), (PAD, END))  # it goes on and on
    limited = Constraints((END,), (PAD, END), no_repeat_ngram_size=size)
    texts = {
        name: [best[0].token_ids for best in beam_search(rows(), START, [9] * 5, limits, num_beams=2)]
        for name, limits in (("free", free), ("limited", limited))
    }
    texts["sampled"] = [
        h.token_ids for h in sample(rows(), torch.full((5, 1), START), [9] * 5, limited, temperature=0)
    ]

    def repeats(text):
        ngrams = [tuple(text[i : i + size]) for i in range(len(text) - size + 1)]
        return len(ngrams) > len(set(ngrams))

    assert any(map(repeats, texts["free"]))
    assert not any(map(repeats, texts["limited"] + texts["sampled"]))


@torch.no_grad()
def test_where_nothing_ends_the_likeliest_come_without_end(model, rows_of):
    never = Constraints((), (PAD, END))
    found = beam_search(rows_of(model), START, [3] * 4, never, num_beams=27, alpha=0, n_best=3)
    for best in found:
        assert [len(hypothesis.token_ids) for hypothesis in best] == [3, 3, 3]
        assert not any(hypothesis.is_finished for hypothesis in best)
        assert [h.log_prob for h in best] == sorted((h.log_prob for h in best), reverse=True)


@torch.no_grad()
def test_greedy_takes_the_likeliest_token(model, sources, rows_of):
    texts = sample(rows_of(model), torch.full((4, 1), START), [7, 5, 7, 6], constraints(), temperature=0)
    for ids, mask, text in zip(*sources, texts, strict=True):
        for step, token in enumerate(text.token_ids):
            before = torch.tensor([[START, *text.token_ids[:step]]])
            logits = model(ids[None], attention_mask=mask[None], decoder_input_ids=before).logits[0, -1]
            logits[PAD] = -torch.inf
            assert logits.argmax() == token
        assert text.log_prob == pytest.approx(log_prob(model, ids[None], mask[None], text.token_ids), abs=1e-4)


@torch.no_grad()
def test_draws_have_the_frequencies_of_the_model(model, rows_of, sources):
    """Three thousand draws of the first token, against the softmax; four standard deviations."""
    draws = 3000
    rows = rows_of(model, [0])
    rows.repeat(draws)
    texts = sample(
        rows,
        torch.full((draws, 1), START),
        [1] * draws,
        Constraints((END,)),
        temperature=0.7,
        generator=torch.Generator().manual_seed(0),
    )
    ids, mask = sources
    logits = model(ids[:1], attention_mask=mask[:1], decoder_input_ids=torch.tensor([[START]])).logits[0, -1]
    expected = (logits / 0.7).softmax(-1)
    share = torch.tensor([text.token_ids[0] for text in texts]).bincount(minlength=TINY_VOCABULARY) / draws
    assert ((share - expected).abs() <= 4 * (expected * (1 - expected) / draws).sqrt() + 1e-9).all()


@pytest.mark.parametrize("options", [{"top_k": 2}, {"top_p": 0.6}, {"top_k": 3, "top_p": 0.3}])
@torch.no_grad()
def test_only_the_likeliest_tokens_are_drawn(model, rows_of, sources, options):
    model.lm_head.weight.mul_(0.1)  # undecided again: each of the likeliest comes up
    ids, mask = sources
    logits = model(ids[:1], attention_mask=mask[:1], decoder_input_ids=torch.tensor([[START]])).logits[0, -1]
    ranked = logits.argsort(descending=True)
    most = options.get("top_k", len(ranked))
    probs = logits[ranked[:most]].softmax(-1)
    # The smallest set of likeliest tokens whose probability is at least top_p.
    nucleus = next(n for n in range(1, most + 1) if probs[:n].sum() >= options.get("top_p", 1.0) - 1e-6)
    rows = rows_of(model, [0])
    rows.repeat(500)
    texts = sample(rows, torch.full((500, 1), START), [1] * 500, Constraints((END,)), **options)
    assert {text.token_ids[0] for text in texts} == set(ranked[:nucleus].tolist())
