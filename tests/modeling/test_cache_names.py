import logging
import warnings

import pytest
import torch
from torch.testing import assert_close
from transformers import DynamicCache
from transformers.utils import logging as library_logging

from transformer_theatre import LSTMForCausalLM
from transformer_theatre.modeling.cache_names import CACHE_NAME, by_library_name, cache_of


@pytest.fixture(params=["encoder-decoder", "gpt", "lstm", "lstm-language-model"])
def model(request, make_transformer, make_gpt, make_lstm):
    return {
        "encoder-decoder": make_transformer,
        "gpt": make_gpt,
        "lstm": make_lstm,
        "lstm-language-model": lambda: make_lstm(LSTMForCausalLM, is_encoder_decoder=False),
    }[request.param]()


@pytest.fixture
def library_warnings():
    """Collect what the library logs, and make an error of what it announces to end."""
    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = library_logging.get_logger("transformers")
    logger.addHandler(handler)
    library_logging.warning_once.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        warnings.simplefilter("error", DeprecationWarning)
        yield messages
    logger.removeHandler(handler)


def _inputs(model, ids, part=slice(None)):
    """What a model reads: of an encoder-decoder the whole source, and a part of the target."""
    if model.config.is_encoder_decoder:
        return {"input_ids": ids, "decoder_input_ids": ids[:, part]}
    return {"input_ids": ids[:, part]}


@torch.no_grad()
def test_the_cache_is_read_under_both_names(model, tokens):
    ids = tokens(2, 5)
    expected = model(**_inputs(model, ids)).logits[:, 3:]
    for name in ("cache", "past_key_values"):
        cache = cache_of(model(**_inputs(model, ids, slice(3)), use_cache=True))
        assert cache.get_seq_length() == 3
        output = model(**_inputs(model, ids, slice(3, None)), **{name: cache})
        assert_close(output.logits, expected, rtol=0, atol=1e-5)
        assert cache.get_seq_length() == 5
        # The model without its head, as callers of their own use it.
        cache = cache_of(model.model(**_inputs(model, ids, slice(3)), use_cache=True))
        state = model.model(**_inputs(model, ids, slice(3, None)), **{name: cache}).last_hidden_state
        assert_close(model.lm_head(state), expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_plain_cache_holds_the_targets_keys_and_the_sources_are_made_again(make_transformer, tokens):
    model, ids = make_transformer(), tokens(2, 5)
    cache = DynamicCache(config=model.config)
    steps = [model(**_inputs(model, ids, slice(t, t + 1)), past_key_values=cache).logits for t in range(5)]
    assert_close(torch.cat(steps, 1), model(**_inputs(model, ids)).logits, rtol=0, atol=1e-5)


def test_one_cache_is_enough(model, tokens):
    with pytest.raises(ValueError, match="two names of one argument"):
        model(**_inputs(model, tokens(2, 5)), cache=DynamicCache(), past_key_values=DynamicCache())


@torch.no_grad()
def test_the_library_finds_the_cache_by_its_own_name(model, tokens):
    output = model(**_inputs(model, tokens(2, 5)), use_cache=True)
    assert output[CACHE_NAME] is cache_of(output)
    assert cache_of(output).get_seq_length() == 5
    assert CACHE_NAME in model.config.keys_to_ignore_at_inference
    assert CACHE_NAME in model._skip_keys_device_placement


def test_nothing_that_a_model_does_will_end_with_a_later_version(model, tokens, tmp_path, library_warnings):
    ids = tokens(3, 6)
    for options in ({}, {"num_beams": 3}, {"do_sample": True}, {"use_cache": False}):
        model.generate(ids, max_new_tokens=4, **options)
    model.train()
    if model.supports_gradient_checkpointing:
        getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
    model(ids, labels=ids).loss.backward()
    model.save_pretrained(tmp_path)
    type(model).from_pretrained(tmp_path).eval()(**_inputs(model, ids), output_hidden_states=True)
    assert not [message for message in library_warnings if "deprecated" in message]


def test_layers_that_are_redone_leave_the_cache_alone(make_transformer, make_gpt, tokens):
    """The library takes the cache, found by its name, out of a layer's arguments, as redoing it would write all twice."""
    ids = tokens(2, 5)
    for make in (make_transformer, make_gpt):
        gradients = []
        for redo in (False, True):
            torch.manual_seed(0)
            model = make().train()
            if redo:
                getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
            cache = DynamicCache(config=model.config) if redo else None
            model(**_inputs(model, ids), **by_library_name(cache)).logits.square().mean().backward()
            gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
            assert not redo or cache.get_seq_length() == 0
        assert_close(*gradients)
