"""The golden answer: the same in a process without the package, and not the same where anything has changed."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from transformer_theatre import GPTConfig, GPTForCausalLM, LSTMConfig, TransformerConfig
from transformer_theatre.modeling import AUTO_CLASSES
from transformer_theatre.recipes.golden import GOLDEN, ask_stranger, auto_class, write_golden
from transformer_theatre.recipes.stranger import compare, golden_input, load, read_golden
from transformer_theatre.recipes.tokenization import train_bpe_tokenizer, train_character_tokenizer


TEXT = ["ein hund sieht die katze", "die frau rennt schnell durch den garten", "zwei kinder spielen im haus"] * 4
FIELDS = {
    TransformerConfig: {"encoder_layers": 1, "decoder_layers": 1, "d_model": 16, "encoder_ffn_dim": 32},
    GPTConfig: {"num_hidden_layers": 1, "d_model": 16, "num_attention_heads": 2, "max_position_embeddings": 32},
    LSTMConfig: {"num_hidden_layers": 1, "hidden_size": 16},
}
CLASSES = {
    f"{name}-{model_class.config_class.model_type}": (name, model_class)
    for name, members in AUTO_CLASSES.items()
    for model_class in members
}


def save(model_class, folder, **fields):
    """Save a tiny model with its tokenizer."""
    appends_eos = "ConditionalGeneration" in model_class.__name__
    tokenizer = train_bpe_tokenizer(TEXT, 290, appends_eos=appends_eos)
    ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    config_class = model_class.config_class
    if config_class is not GPTConfig:
        ids["decoder_start_token_id"] = tokenizer.bos_token_id
    if model_class.__name__ == "LSTMForCausalLM":
        fields["is_encoder_decoder"] = False
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "decoder_ffn_dim": 32}
    more = heads if config_class is TransformerConfig else {}
    model = model_class(config_class(vocab_size=len(tokenizer), **{**FIELDS[config_class], **more, **ids, **fields}))
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model, tokenizer


@pytest.fixture
def translator(tmp_path):
    """A folder with a tiny translator and its golden file."""
    model_class = AUTO_CLASSES["AutoModelForSeq2SeqLM"][0]
    save(model_class, tmp_path / "model")
    write_golden(tmp_path / "model", tmp_path / "model" / GOLDEN)
    return tmp_path / "model"


@pytest.mark.parametrize(("name", "model_class"), CLASSES.values(), ids=CLASSES)
def test_every_class_answers_the_same_as_it_did(tmp_path, name, model_class):
    model, tokenizer = save(model_class, tmp_path / "model")
    assert auto_class(tmp_path / "model") == name
    write_golden(tmp_path / "model", tmp_path / GOLDEN)
    found = compare(model, tokenizer, tmp_path / GOLDEN)
    assert found["differs"] == []
    # Recurrent weights lie elsewhere in memory where they were loaded, and sums come out in another order.
    assert found["difference"] <= (1e-7 if "lstm" in model.config.model_type else 0.0)

    tensors, about = read_golden(tmp_path / GOLDEN)
    inputs = {key: value for key, value in tensors.items() if key not in ("logits", "generated_ids")}
    output = model(**inputs, return_dict=True)
    whole = output.logits if "logits" in output else output.last_hidden_state
    # Of running text only the states at real tokens are kept.
    if not model.config.is_encoder_decoder and whole.shape[:2] == inputs["input_ids"].shape and whole.dim() == 3:
        whole = torch.cat([row[: int(mask.sum())] for row, mask in zip(whole, inputs["attention_mask"], strict=True)])
    torch.testing.assert_close(tensors["logits"], whole.detach(), rtol=0, atol=1e-7)
    assert tensors["logits"].dtype == torch.float32
    assert ("generated_ids" in tensors) == ("LM" in name)
    assert (about["written"] is not None) == ("LM" in name)


def test_the_golden_input_tries_padding_and_the_tokenizer(translator):
    tensors, about = read_golden(translator / GOLDEN)
    assert tensors["attention_mask"].sum(1).unique().numel() == 2
    assert len(tensors["input_ids"][0].unique()) > 4
    assert about["text"].strip()


def test_the_same_model_has_the_same_file_to_the_byte(translator, tmp_path):
    first = (translator / GOLDEN).read_bytes()
    for _ in range(8):
        write_golden(translator, tmp_path / GOLDEN)
        assert (tmp_path / GOLDEN).read_bytes() == first


def test_a_model_without_a_tokenizer_has_a_golden_input_too(translator):
    model, _ = load(str(translator), auto_class(translator), has_tokenizer=False)
    text, inputs = golden_input(model, None)
    assert text is None
    assert inputs["input_ids"].max() < model.config.vocab_size


def test_a_changed_weight_a_changed_tokenizer_and_a_changed_search_are_seen(translator):
    model, tokenizer = load(str(translator), auto_class(translator), has_tokenizer=True)
    assert compare(model, tokenizer, translator / GOLDEN)["differs"] == []

    other = train_character_tokenizer(TEXT, appends_eos=True)
    assert "what the tokenizer makes of the golden text" in compare(model, other, translator / GOLDEN)["differs"]

    with torch.no_grad():
        next(model.parameters()).mul_(1.01)
    found = compare(model, tokenizer, translator / GOLDEN)
    assert found["difference"] > found["tolerance"]


def test_a_folder_that_is_no_model_of_ours_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"has no config\.json"):
        auto_class(tmp_path)
    (tmp_path / "config.json").write_text(
        '{"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}', encoding="utf-8"
    )
    with pytest.raises(ValueError, match=r"does not say which code loads the model \(auto_map\)"):
        auto_class(tmp_path)
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="cannot be read"):
        auto_class(tmp_path)


@pytest.mark.parametrize("name", ["AutoModelForSeq2SeqLM", "AutoModelForSequenceClassification"])
def test_weights_that_are_no_numbers_have_no_golden_answer(tmp_path, name):
    save(AUTO_CLASSES[name][0], tmp_path)
    weights = {key: tensor * float("nan") for key, tensor in load_file(tmp_path / "model.safetensors").items()}
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="no numbers"):
        write_golden(tmp_path, tmp_path / GOLDEN)
    assert not (tmp_path / GOLDEN).exists()


def test_weights_that_are_missing_are_not_drawn_at_random(translator):
    weights = load_file(translator / "model.safetensors")
    lost = next(name for name in weights if name.endswith("fc1.weight"))
    save_file(
        {name: tensor for name, tensor in weights.items() if name != lost},
        translator / "model.safetensors",
        {"format": "pt"},
    )
    with pytest.raises(
        ValueError, match=f"do not fit TransformerForConditionalGeneration: missing_keys, first {lost}"
    ):
        load(str(translator), "AutoModelForSeq2SeqLM", has_tokenizer=True)


@pytest.mark.slow
def test_a_stranger_gives_the_same_answer_to_the_bit_and_says_what_it_cannot_load(translator):
    answer = ask_stranger(translator, translator / GOLDEN)
    assert answer.passes
    assert answer.difference == 0.0

    code = translator / "decoding.py"
    text = code.read_text(encoding="utf-8")
    code.write_text("from transformer_theatre import TransformerConfig\n" + text, encoding="utf-8")
    with pytest.raises(RuntimeError, match="transformer_theatre"):
        ask_stranger(translator, translator / GOLDEN)
    code.write_text(text, encoding="utf-8")

    # Code that computes something else is not the same model, whatever its weights are.
    layers = translator / "modeling_transformer_layers.py"
    assert "scal" in layers.read_text(encoding="utf-8")
    config = json.loads((translator / "config.json").read_text(encoding="utf-8"))
    (translator / "config.json").write_text(json.dumps({**config, "scale_embedding": False}), encoding="utf-8")
    assert not ask_stranger(translator, translator / GOLDEN).passes

    shutil.rmtree(translator)
    with pytest.raises(RuntimeError):
        ask_stranger(translator, translator.parent / "none")


@pytest.mark.parametrize("positions", [1, 8, 12, 13, 20])
def test_a_model_of_few_positions_has_a_golden_answer(tmp_path, positions):
    model, tokenizer = save(GPTForCausalLM, tmp_path / "model", max_position_embeddings=positions)
    write_golden(tmp_path / "model", tmp_path / GOLDEN)
    assert compare(model, tokenizer, tmp_path / GOLDEN)["differs"] == []
