"""Dropout where the paper has it (section 5.4): "to the output of each sub-layer, before it is added to the sub-layer input and
normalized", and "to the sums of the embeddings and the positional encodings in both the encoder and decoder stacks"."""

import pytest
import torch
from torch import nn

from transformer_theatre import GPTConfig, GPTForCausalLM, TransformerConfig, TransformerForConditionalGeneration


SIZES = {"vocab_size": 31, "d_model": 8, "dropout": 0.1, "attention_dropout": 0.0}


def _model(kind, norm_first):
    """A model whose every sub-layer says something, also of nothing: its biases are no zeros."""
    if kind == "gpt":
        config = GPTConfig(**SIZES, num_hidden_layers=2, num_attention_heads=2, ffn_dim=12, norm_first=norm_first)
        model = GPTForCausalLM(config)
    else:
        sides = {
            f"{side}_{name}": value
            for side, layers in (("encoder", 2), ("decoder", 3))
            for name, value in (("layers", layers), ("attention_heads", 2), ("ffn_dim", 12))
        }
        model = TransformerForConditionalGeneration(TransformerConfig(**SIZES, **sides, norm_first=norm_first))
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Linear) and module.bias is not None:
                module.bias.normal_()
    return model.train()


def _dropouts(model):
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Dropout) and module.p}


def _logits(model, kind):
    ids = torch.arange(3, 9)[None]
    return model(ids, **({"decoder_input_ids": ids} if kind == "transformer" else {})).logits


@pytest.mark.parametrize("norm_first", [False, True], ids=["post-norm", "pre-norm"])
@pytest.mark.parametrize("kind", ["transformer", "gpt"])
def test_dropout_is_on_every_embedding_sum_and_every_sub_layers_output(kind, norm_first):
    model = _model(kind, norm_first)
    dropouts = _dropouts(model)
    # A sum for each stack, two sub-layers in the encoder's layers and in the GPT's, three in the decoder's.
    assert len(dropouts) == (1 + 2 * 2 + 1 + 3 * 3 if kind == "transformer" else 1 + 2 * 2)
    for dropout in dropouts.values():
        dropout.p = 1.0
    # With all of them dropped, nothing is left that a layer could have added to.
    assert (_logits(model, kind) == 0).all()


@pytest.mark.parametrize("kind", ["transformer", "gpt"])
def test_every_dropout_stands_where_it_matters(kind):
    model = _model(kind, norm_first=True)
    dropouts = _dropouts(model)
    for dropout in dropouts.values():
        dropout.p = 1.0
    for name, dropout in dropouts.items():
        if ".encoder." in name:
            continue  # of the encoder's output, which is there anyway, only the decoder's dropped sub-layers would know
        dropout.p = 0.0
        assert (_logits(model, kind) != 0).any(), name
        dropout.p = 1.0


def test_the_encoders_dropouts_stand_where_they_matter():
    model = _model("transformer", norm_first=True)
    encoder = model.model.encoder
    for dropout in _dropouts(encoder).values():
        dropout.p = 1.0
    nothing = encoder(torch.arange(3, 9)[None]).last_hidden_state
    assert (nothing == 0).all()
    for name, dropout in [(n, d) for n, d in encoder.named_modules() if isinstance(d, nn.Dropout) and d.p]:
        dropout.p = 0.0
        assert (encoder(torch.arange(3, 9)[None]).last_hidden_state != 0).any(), name
        dropout.p = 1.0
