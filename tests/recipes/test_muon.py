import copy

import pytest
import torch
from torch import nn
from transformers import set_seed

from transformer_theatre import (
    GPTConfig,
    GPTForCausalLM,
    GPTForSequenceClassification,
    LSTMConfig,
    LSTMForConditionalGeneration,
    TransformerConfig,
    TransformerForConditionalGeneration,
)
from transformer_theatre.recipes.muon import MuonBeside, hidden_matrices, with_muon
from transformer_theatre.recipes.noam import noam_rate, noam_schedule
from transformer_theatre.recipes.run_arguments import RunArguments


needs_muon = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon")

SIZES = {"vocab_size": 31, "d_model": 8}
SIDES = {
    f"{side}_{name}": value
    for side in ("encoder", "decoder")
    for name, value in (("layers", 1), ("attention_heads", 2), ("ffn_dim", 12))
}


def _model(kind):
    set_seed(3)
    if kind == "classifier":
        sizes = {"num_hidden_layers": 1, "num_attention_heads": 2, "ffn_dim": 12}
        return GPTForSequenceClassification(GPTConfig(**SIZES, **sizes))
    if kind == "gpt":
        return GPTForCausalLM(GPTConfig(**SIZES, num_hidden_layers=1, num_attention_heads=2, ffn_dim=12))
    if kind == "lstm":
        return LSTMForConditionalGeneration(LSTMConfig(vocab_size=31, hidden_size=8, num_hidden_layers=2))
    untied = {"tie_word_embeddings": False} if kind == "untied" else {}
    return TransformerForConditionalGeneration(TransformerConfig(**SIZES, **SIDES, **untied))


ATTENTION = [f"{part}_proj" for part in ("k", "out", "q", "v")]


@pytest.mark.parametrize("kind", ["transformer", "untied", "gpt", "classifier", "lstm"])
def test_muon_learns_the_matrices_of_hidden_layers_and_nothing_else(kind):
    names = hidden_matrices(_model(kind)).keys()
    if kind == "lstm":
        # An LSTM's own matrices hold four gates each.
        expected = {f"model.decoder.attention.{part}.weight" for part in ("combine", "key_proj")}
    else:
        layers = (
            ["model.layers.0"]
            if kind in ("gpt", "classifier")
            else ["model.encoder.layers.0", "model.decoder.layers.0"]
        )
        expected = {f"{layer}.self_attention.{part}.weight" for layer in layers for part in ATTENTION}
        expected |= {f"{layer}.feed_forward.{part}.weight" for layer in layers for part in ("fc1", "fc2")}
        if kind in ("transformer", "untied"):
            expected |= {f"model.decoder.layers.0.cross_attention.{part}.weight" for part in ATTENTION}
    assert names == expected


def _optimizer(model, rate=0.02, decay=0.1):
    weights = list(model.parameters())
    groups = [
        {"params": [weight for weight in weights if weight.dim() > 1], "weight_decay": decay},
        {"params": [weight for weight in weights if weight.dim() == 1], "weight_decay": 0.0},
    ]
    return with_muon(torch.optim.AdamW(groups, lr=0.001), model, rate, decay)


@needs_muon
@pytest.mark.parametrize("kind", ["transformer", "untied", "gpt", "lstm"])
def test_every_weight_is_in_one_group(kind):
    model = _model(kind)
    found = [id(weight) for group in _optimizer(model).param_groups for weight in group["params"]]
    assert sorted(found) == sorted(id(weight) for weight in model.parameters())


def _set_gradients(model, seed):
    generator = torch.Generator().manual_seed(seed)
    for weight in model.parameters():
        weight.grad = torch.randn(weight.shape, generator=generator)


@needs_muon
def test_an_update_is_that_of_torchs_two_optimizers():
    together, apart = _model("transformer"), _model("transformer")
    optimizer = _optimizer(together)
    matrices = hidden_matrices(apart)
    muon = torch.optim.Muon(matrices.values(), lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    others = {name: weight for name, weight in apart.named_parameters() if name not in matrices}
    adam = torch.optim.AdamW([w for w in others.values() if w.dim() > 1], lr=0.001, weight_decay=0.1)
    plain = torch.optim.AdamW([w for w in others.values() if w.dim() == 1], lr=0.001, weight_decay=0.0)
    for step in range(3):
        for model in (together, apart):
            _set_gradients(model, step)
        for one in (optimizer, muon, adam, plain):
            one.step()
    for name, weight in together.named_parameters():
        torch.testing.assert_close(weight, dict(apart.named_parameters())[name], rtol=0, atol=0, msg=name)


@needs_muon
def test_a_schedule_scales_both():
    optimizer = _optimizer(_model("gpt"))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    for step in range(4):
        adam, muon = ({group["lr"] for group in part.param_groups} for part in optimizer.parts)
        assert list(adam) == pytest.approx([0.001 * 0.5**step])
        assert list(muon) == pytest.approx([0.02 * 0.5**step])
        optimizer.step()
        schedule.step()


@needs_muon
def test_the_papers_schedule_gives_muon_its_shape():
    optimizer = _optimizer(_model("gpt"))
    schedule = noam_schedule(optimizer, d_model=64, warmup=3, factor=2.0)
    for step in range(1, 8):
        adam, muon = (part.param_groups[0]["lr"] for part in optimizer.parts)
        assert adam == pytest.approx(noam_rate(step, 64, 3, 2.0))
        assert muon == pytest.approx(0.02 * noam_rate(step, 64, 3) / noam_rate(3, 64, 3))
        optimizer.step()
        schedule.step()


@needs_muon
def test_a_state_that_is_loaded_goes_on_where_it_was():
    whole, resumed = _model("transformer"), _model("transformer")
    first = _optimizer(whole)
    for step in range(2):
        _set_gradients(whole, step)
        first.step()
    resumed.load_state_dict(whole.state_dict())
    second = _optimizer(resumed)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for model, optimizer in ((whole, first), (resumed, second)):
        _set_gradients(model, 5)
        for group in optimizer.param_groups:
            group["lr"] *= 0.5
        optimizer.step()
    for name, weight in whole.named_parameters():
        assert torch.equal(weight, dict(resumed.named_parameters())[name]), name
    assert isinstance(second, MuonBeside)


@needs_muon
def test_a_model_without_hidden_matrices_is_refused():
    config = LSTMConfig(
        vocab_size=31, hidden_size=8, attention="none", input_feeding=False
    )  # fmt: skip
    model = LSTMForConditionalGeneration(config)
    assert isinstance(model, nn.Module)
    with pytest.raises(ValueError, match="LSTMForConditionalGeneration has no hidden matrices"):
        _optimizer(model)


def test_an_older_torch_is_refused(monkeypatch, tmp_path):
    monkeypatch.delattr(torch.optim, "Muon", raising=False)
    with pytest.raises(ValueError, match=r"optimizer=muon needs torch 2\.9 or newer"):
        RunArguments(output_dir=str(tmp_path), optimizer="muon")


def test_the_command_line_takes_back_what_a_recipe_has(tmp_path):
    args = RunArguments(output_dir=str(tmp_path), optimizer="optim", average_last=0, ema_decay=0.9)
    assert args.optimizer is None
    assert args.save_total_limit == RunArguments(output_dir=str(tmp_path)).save_total_limit


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"average_last": 3, "save_strategy": "no"},
            "average_last=3 needs checkpoints, and save_strategy=no saves none",
        ),
        ({"optimizer": "adam"}, "optimizer=adam must be one of: muon, radam"),
        ({"muon_learning_rate": 0.1}, "has no use without --optimizer muon"),
        ({"optimizer": "radam", "muon_learning_rate": 0.1}, "has no use without --optimizer muon"),
    ],
)
def test_wrong_options_are_refused(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        RunArguments(output_dir=str(tmp_path), **options)
