"""Our weights copied into the library's models give our logits."""

import pytest
import torch
from torch.testing import assert_close
from transformers import OpenAIGPTConfig, OpenAIGPTDoubleHeadsModel, OpenAIGPTForSequenceClassification

from transformer_theatre import GPTForMultipleChoice, GPTForSequenceClassification
from transformer_theatre.recipes.conversion.exchange import to_theirs
from transformer_theatre.recipes.conversion.gpt2 import GPT2
from transformer_theatre.recipes.conversion.marian import MARIAN
from transformer_theatre.recipes.conversion.openai_gpt import OPENAI_GPT


def _shake(model):
    """Move norms and biases away from 1 and 0, where mistakes hide."""
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)


@pytest.mark.parametrize("scale", [True, False], ids=["scaled", "unscaled"])
def test_encoder_decoder_is_marian(make_transformer, tokens, scale):
    model = make_transformer(scale_embedding=scale)
    _shake(model)
    source, target = tokens(3, 7), tokens(3, 5)
    mask = torch.tensor([[1] * 7, [1] * 5 + [0] * 2, [1] * 3 + [0] * 4])
    with torch.no_grad():
        expected = to_theirs(MARIAN, model)(source, mask, decoder_input_ids=target).logits
        assert_close(model(source, mask, decoder_input_ids=target).logits, expected, atol=1e-5, rtol=1e-5)


def _to_gpt(model, theirs, names):
    """Copy the body of a GPT into one of the library's, by the table that `theatre convert` has."""
    ours = {name: value for name, value in model.state_dict().items() if name.startswith("model.")}
    body = {k: value.shape for k, value in theirs.state_dict().items() if k.startswith("transformer.")}
    theirs.load_state_dict(names(model.config).to_theirs(ours, body), strict=False)
    theirs.tie_weights()
    return theirs.eval()


def _sizes(config):
    return {
        "vocab_size": config.vocab_size,
        "n_embd": config.d_model,
        "n_layer": config.num_hidden_layers,
        "n_head": config.num_attention_heads,
        "n_positions": config.max_position_embeddings,
    }


def test_gpt_is_openai_gpt(make_gpt, tokens):
    model = make_gpt(ffn_dim=64)
    _shake(model)
    theirs = to_theirs(OPENAI_GPT, model)
    ids = tokens(3, 9)
    with torch.no_grad():
        assert_close(model(ids).logits, theirs(ids).logits, atol=1e-5, rtol=1e-5)


def test_gpt_with_norm_first_is_gpt_2(make_gpt, tokens):
    model = make_gpt(norm_first=True)
    _shake(model)
    theirs = to_theirs(GPT2, model)
    ids = tokens(3, 9)
    mask = torch.tensor([[1] * 9, [0] * 2 + [1] * 7, [1] * 9])
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad():
        expected = theirs(ids, attention_mask=mask, position_ids=positions).logits[mask.bool()]
        assert_close(model(ids, attention_mask=mask).logits[mask.bool()], expected, atol=1e-5, rtol=1e-5)


def test_classification_is_that_of_openai_gpt(make_gpt, tokens):
    model = GPTForSequenceClassification(make_gpt(ffn_dim=64, num_labels=3).config).eval()
    _shake(model)
    config = OpenAIGPTConfig(**_sizes(model.config), num_labels=3, pad_token_id=0)
    theirs = _to_gpt(model, OpenAIGPTForSequenceClassification(config), OPENAI_GPT.names)
    theirs.score.load_state_dict(model.classifier.state_dict())
    ids, mask = tokens(3, 9), torch.tensor([[1] * 9, [1] * 5 + [0] * 4, [1] * 2 + [0] * 7])
    with torch.no_grad():
        expected = theirs(ids * mask, attention_mask=mask, labels=torch.tensor([2, 0, 1]))
        output = model(ids * mask, attention_mask=mask, labels=torch.tensor([2, 0, 1]))
    assert_close(output.logits, expected.logits, atol=1e-5, rtol=1e-5)
    assert_close(output.loss, expected.loss, atol=1e-5, rtol=1e-5)


def test_multiple_choice_is_openai_gpt_with_two_heads(make_gpt, tokens):
    no_dropout = {"dropout": 0.0, "attention_dropout": 0.0, "classifier_dropout": 0.0}
    model = GPTForMultipleChoice(make_gpt(ffn_dim=64, lm_loss_weight=0.7, **no_dropout).config)
    _shake(model)
    config = OpenAIGPTConfig(**_sizes(model.config), summary_first_dropout=0.0)
    theirs = _to_gpt(model, OpenAIGPTDoubleHeadsModel(config), OPENAI_GPT.names)
    theirs.multiple_choice_head.summary.weight.data = model.classifier.weight.data
    theirs.multiple_choice_head.summary.bias.data.zero_()
    ids, right = tokens(6, 9).view(2, 3, 9), torch.tensor([2, 0])
    with torch.no_grad():
        expected = theirs(ids, mc_token_ids=torch.full((2, 3), 8), labels=ids, mc_labels=right)
        output = model.train()(ids, labels=right)
    assert_close(output.logits, expected.mc_logits, atol=1e-5, rtol=1e-5)
    assert_close(output.loss, expected.mc_loss + 0.7 * expected.loss, atol=1e-5, rtol=1e-5)
