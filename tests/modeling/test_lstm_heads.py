"""The fine-tuned LSTMs: what they read, and that a language model becomes one. Losses are those of the GPT's heads."""

import pytest
import torch
from torch.testing import assert_close
from transformers import AutoModelForMultipleChoice, AutoModelForSequenceClassification

from transformer_theatre import LSTMConfig, LSTMForCausalLM, LSTMForMultipleChoice, LSTMForSequenceClassification


SIZES = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "initializer_range": 0.5, "dropout": 0.0}
LANGUAGE_MODEL = {**SIZES, "attention": "none", "input_feeding": False, "is_encoder_decoder": False}
# Rows: one sequence; two orders; choices.
SHAPES = {
    "classes": (LSTMForSequenceClassification, (8, 9)),
    "both orders": (LSTMForSequenceClassification, (8, 2, 9)),
    "choices": (LSTMForMultipleChoice, (8, 3, 9)),
}
every_shape = pytest.mark.parametrize("kind", list(SHAPES))


def make(model_class, **fields):
    return model_class(LSTMConfig(**{**LANGUAGE_MODEL, "classifier_dropout": 0.0, **fields})).eval()


def batch_of(kind):
    model_class, shape = SHAPES[kind]
    lengths = torch.randint(2, shape[-1] + 1, shape[:-1])
    mask = (torch.arange(shape[-1]) < lengths[..., None]).long()
    batch = {"input_ids": torch.randint(3, 50, shape) * mask, "attention_mask": mask, "labels": torch.arange(8) % 2}
    return make(model_class), batch


def states_alone(model, ids, mask):
    """The last state of each sequence, read by itself and without padding."""
    ids, mask = ids.reshape(-1, ids.shape[-1]), mask.reshape(-1, mask.shape[-1]).bool()
    return torch.stack(
        [model.model(row[real][None]).last_hidden_state[0, -1] for row, real in zip(ids, mask, strict=True)]
    )


@every_shape
def test_logits_are_the_classifier_of_the_last_real_states(kind):
    model, batch = batch_of(kind)
    states = states_alone(model, batch["input_ids"], batch["attention_mask"]).view(*batch["input_ids"].shape[:-1], -1)
    if kind == "both orders":
        states = states.sum(1)
    expected = states @ model.classifier.weight.T
    logits = model(**batch).logits
    assert_close(logits, expected[..., 0] if kind == "choices" else expected, atol=1e-5, rtol=1e-4)
    order = batch["attention_mask"].argsort(dim=-1, stable=True)
    left = {name: batch[name].gather(-1, order) for name in ("input_ids", "attention_mask")}
    assert_close(model(**left).logits, logits, atol=1e-5, rtol=1e-4)


@every_shape
def test_training_adds_the_language_models_loss_of_each_sequence(kind):
    model, batch = batch_of(kind)
    language_model = make(LSTMForCausalLM)
    language_model.model, language_model.lm_head = model.model, model.lm_head
    ids, mask = (batch[name].reshape(-1, 9) for name in ("input_ids", "attention_mask"))
    alone = [row[real.bool()][None] for row, real in zip(ids, mask, strict=True)]
    expected = torch.stack([language_model(row, labels=row).loss for row in alone]).mean()
    evaluated = model(**batch)
    model.config.lm_loss_weight = 0.25
    trained = model.train()(**batch)
    assert_close(trained.lm_loss, expected, atol=1e-5, rtol=1e-5)
    assert_close(trained.loss, evaluated.loss + 0.25 * expected, atol=1e-5, rtol=1e-5)
    trained.loss.backward()
    assert not [name for name, parameter in model.named_parameters() if not parameter.grad.any()]


@pytest.mark.parametrize(
    "auto_class", [AutoModelForSequenceClassification, AutoModelForMultipleChoice], ids=lambda c: c.__name__
)
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_a_language_model_becomes_a_fine_tuned_one_and_only_the_classifier_is_new(tmp_path, auto_class, tied):
    language_model = make(LSTMForCausalLM, tie_word_embeddings=tied)
    language_model.save_pretrained(tmp_path)
    model, loading = auto_class.from_pretrained(tmp_path, output_loading_info=True)
    assert set(loading["missing_keys"]) == {"classifier.weight"}
    assert not loading["unexpected_keys"]
    state = model.state_dict()
    assert_close({name: state[name] for name in language_model.state_dict()}, dict(language_model.state_dict()))
    assert (model.lm_head.weight is model.model.decoder.embed_tokens.weight) == tied
    assert not model.config.is_encoder_decoder


def test_the_configuration_of_an_encoder_decoder_makes_a_language_models_head():
    config = LSTMConfig(**SIZES)
    model = LSTMForSequenceClassification(config)
    assert not model.config.is_encoder_decoder
    assert config.is_encoder_decoder
    assert not hasattr(model.model, "encoder")


@pytest.mark.parametrize(("field", "value"), [("classifier_dropout", 1.0), ("lm_loss_weight", -1.0)])
def test_wrong_fields_are_refused(field, value):
    with pytest.raises(Exception, match=f"{field}={value} must be"):
        LSTMConfig(**{field: value})
