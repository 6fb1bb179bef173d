import itertools

import pytest
import torch
from torch.testing import assert_close

from transformer_theatre import LSTMForCausalLM


@pytest.fixture(params=["encoder-decoder", "gpt", "lstm", "lstm-language-model"])
def model(request, make_transformer, make_gpt, make_lstm):
    kinds = {
        "encoder-decoder": make_transformer,
        "gpt": make_gpt,
        "lstm": make_lstm,
        "lstm-language-model": lambda: make_lstm(LSTMForCausalLM),
    }
    made = kinds[request.param]()
    with torch.no_grad():  # far from uniform, so that there are no near ties
        made.get_input_embeddings().weight.mul_(8)
    return made


def _logits(model, prompt, written):
    if model.config.is_encoder_decoder:
        start = torch.full((len(prompt), 1), model.config.decoder_start_token_id)
        return model(prompt, decoder_input_ids=torch.cat([start, written], 1)).logits[:, -1]
    return model(torch.cat([prompt, written], 1)).logits[:, -1]


def test_greedy_generation_takes_the_likeliest_token_each_time(model, tokens):
    prompt = tokens(3, 5)
    written = torch.zeros(3, 0, dtype=torch.long)
    for _ in range(6):
        written = torch.cat([written, _logits(model, prompt, written).argmax(-1, keepdim=True)], 1)
    generated = model.generate(prompt, max_new_tokens=6, do_sample=False, eos_token_id=None)
    assert torch.equal(generated[:, -6:], written)


@pytest.mark.parametrize(
    "options", [{}, {"use_cache": False}, {"cache_implementation": "static", "disable_compile": True}], ids=str
)
@pytest.mark.parametrize("beams", [1, 3], ids="beams={}".format)
def test_every_cache_generates_the_same(model, tokens, beams, options):
    if "cache_implementation" in options and model.config.model_type == "theatre_lstm":
        pytest.skip("An LSTM keeps its states in a DynamicCache only, and refuses others (test_lstm.py).")
    prompt = tokens(2, 5)
    shared = {"max_new_tokens": 6, "num_beams": beams, "do_sample": False, "eos_token_id": None}
    expected = model.generate(prompt, **shared)
    assert torch.equal(model.generate(prompt, **shared, **options), expected)


def test_a_beam_as_wide_as_the_vocabulary_finds_the_likeliest_pair(model, tokens):
    prompt = tokens(1, 4)
    first = _logits(model, prompt, torch.zeros(1, 0, dtype=torch.long)).log_softmax(-1)[0]
    ids = torch.arange(model.config.vocab_size)[:, None]
    second = _logits(model, prompt.expand(len(ids), -1), ids).log_softmax(-1)
    best = divmod(int((first[:, None] + second).argmax()), model.config.vocab_size)
    generated = model.generate(
        prompt, max_new_tokens=2, num_beams=model.config.vocab_size, do_sample=False, eos_token_id=None
    )
    assert tuple(generated[0, -2:].tolist()) == best


def test_generation_ends_at_the_end_token(model, tokens):
    prompt = tokens(1, 5)
    free = model.generate(prompt, max_new_tokens=6, do_sample=False, eos_token_id=None)[0, -6:].tolist()
    end = free[3]
    stopped = model.generate(prompt, max_new_tokens=6, do_sample=False, eos_token_id=end)[0].tolist()
    assert stopped[-1] == end
    assert len(stopped) <= (1 if model.config.is_encoder_decoder else 5) + 4


def test_padding_does_not_change_what_is_generated(model, tokens):
    prompt, pad = tokens(2, 5), torch.zeros(2, 3, dtype=torch.long)
    shared = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    expected = model.generate(prompt, **shared)[:, -6:]
    sides = [(pad, prompt), (prompt, pad)] if model.config.is_encoder_decoder else [(pad, prompt)]
    for parts in sides:
        mask = torch.cat([(part is prompt) * torch.ones_like(part) for part in parts], 1)
        generated = model.generate(torch.cat(parts, 1), attention_mask=mask, **shared)
        assert torch.equal(generated[:, -6:], expected)


@pytest.mark.parametrize(
    "options",
    [
        {"do_sample": True, "top_k": 5},
        {"do_sample": True, "top_p": 0.9, "temperature": 0.7},
        {"num_beams": 3, "num_return_sequences": 2},
        {"num_beams": 2, "do_sample": True},
    ],
    ids=str,
)
def test_every_mode_generates_known_tokens(model, tokens, options):
    generated = model.generate(tokens(2, 5), max_new_tokens=6, **options)
    assert len(generated) == 2 * options.get("num_return_sequences", 1)
    assert generated.max() < model.config.vocab_size


def test_assisted_generation_writes_what_greedy_writes(model, tokens):
    prompt = tokens(1, 5)
    shared = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    assert torch.equal(model.generate(prompt, assistant_model=model, **shared), model.generate(prompt, **shared))


def test_beam_score_is_the_sum_of_log_probabilities(model, tokens):
    prompt = tokens(1, 5)
    output = model.generate(
        prompt,
        max_new_tokens=4,
        num_beams=3,
        do_sample=False,
        eos_token_id=None,
        length_penalty=0.0,
        return_dict_in_generate=True,
        output_scores=True,
    )
    written = output.sequences[:, -4:]
    total = sum(
        _logits(model, prompt, written[:, :t]).log_softmax(-1)[0, written[0, t]]
        for t, _ in itertools.product(range(4), [0])
    )
    assert_close(output.sequences_scores[0], total, atol=1e-4, rtol=1e-4)
