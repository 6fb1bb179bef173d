import pytest
from datasets import Dataset
from transformers import set_seed

from transformer_theatre import (
    LSTMConfig,
    LSTMForConditionalGeneration,
    TransformerConfig,
    TransformerForConditionalGeneration,
)
from transformer_theatre.recipes import shared_translation
from transformer_theatre.recipes.sharding import whole_copy
from transformer_theatre.recipes.shared_translation import translate_together
from transformer_theatre.recipes.tokenization import encode_pairs, train_bpe_tokenizer


WORDS = ["ein", "hund", "rennt", "schnell", "durch", "den", "tiefen", "schnee", "und", "zwei", "frauen", "lachen"]
SOURCES = [" ".join(WORDS[: 1 + (5 * i) % 11]) for i in range(9)]


@pytest.fixture
def tokenizer():
    return train_bpe_tokenizer(WORDS, 300)


def _model(kind, tokenizer):
    set_seed(3)
    ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    ids |= {"decoder_start_token_id": tokenizer.bos_token_id, "vocab_size": len(tokenizer)}
    if kind == "lstm":
        config = LSTMConfig.from_preset("lstm-luong", hidden_size=16, num_hidden_layers=1, **ids)
        return LSTMForConditionalGeneration(config)
    sizes = {f"{side}_{k}": v for side in ("encoder", "decoder") for k, v in (("layers", 1), ("ffn_dim", 32))}
    return TransformerForConditionalGeneration(
        TransformerConfig.from_preset("transformer-tiny", d_model=16, **sizes, **ids)
    )


@pytest.mark.parametrize("beams", [1, 3], ids="beams={}".format)
@pytest.mark.parametrize("kind", ["transformer", "lstm"])
def test_texts_that_are_shared_out_are_translated_as_by_one(kind, beams, tokenizer, monkeypatch):
    monkeypatch.setattr(shared_translation, "_TOKENS", 60)  # so that there are several batches
    model = _model(kind, tokenizer)
    texts = encode_pairs(Dataset.from_dict({"source": SOURCES, "target": SOURCES}), tokenizer, max_length=99)
    expected = model.translate(SOURCES, tokenizer=tokenizer, num_beams=beams, max_tokens_per_batch=60)
    assert len(set(expected)) > 3
    for world_size in (1, 2, 12):  # of 12 processes some have no text
        parts: list = []

        def gather(part, parts=parts):
            parts.append(part)
            return [pair for each in parts for pair in each]

        monkeypatch.setattr(shared_translation, "gather_object", gather)
        for rank in range(world_size):
            found = translate_together(model, tokenizer, texts, beams, rank=rank, world_size=world_size)
        assert found == expected  # of the last process, which has gathered from all


def test_a_model_that_nobody_shares_is_used_as_it_is(tokenizer):
    model = _model("transformer", tokenizer)
    assert whole_copy(model) is model
