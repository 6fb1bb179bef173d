import pytest
import torch

from transformer_theatre import GPTConfig, GPTForCausalLM, TransformerConfig, TransformerForConditionalGeneration
from transformer_theatre.recipes.decoding import EXTRA_LENGTH, _batches, continue_text, cross_attention, translate
from transformer_theatre.recipes.tokenization import train_bpe_tokenizer, train_character_tokenizer


TEXTS = ["a dog", "", "the small red house stands in the garden of a man", "  ", "cat", "dog cat house " * 9]


@pytest.fixture(scope="module")
def translator():
    torch.manual_seed(0)
    tokenizer = train_bpe_tokenizer(TEXTS, 259 + 30)
    fields = {
        f"{side}_{k}": v
        for side in ("encoder", "decoder")
        for k, v in (("layers", 1), ("attention_heads", 2), ("ffn_dim", 32))
    }
    model = TransformerForConditionalGeneration(
        TransformerConfig(vocab_size=len(tokenizer), d_model=16, **fields)
    ).eval()
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(4)
    return model, tokenizer


@pytest.fixture(scope="module")
def writer():
    torch.manual_seed(0)
    tokenizer = train_character_tokenizer(["abcdefgh \n"])
    config = GPTConfig(
        vocab_size=len(tokenizer),
        d_model=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        ffn_dim=32,
        max_position_embeddings=16,
    )
    return GPTForCausalLM(config).eval(), tokenizer


def test_texts_come_back_in_order_as_if_each_were_alone(translator):
    alone = [translate(*translator, [text], num_beams=1)[0] for text in TEXTS]
    assert translate(*translator, TEXTS, num_beams=1, batch_tokens=60) == alone
    assert alone[1] == alone[3] == ""


def test_beams_of_one_text_do_not_meet_those_of_another(translator):
    texts = ["a dog", "a cat", "a man"]
    alone = [translate(*translator, [text], num_beams=3)[0] for text in texts]
    assert translate(*translator, texts, num_beams=3) == alone
    assert len(set(alone)) > 1


def test_no_texts_are_no_translations(translator):
    assert translate(*translator, []) == []


def test_output_is_at_most_fifty_tokens_longer_than_input(translator):
    model, tokenizer = translator
    [text] = translate(model, tokenizer, ["cat"], num_beams=1)
    assert (
        len(tokenizer(text, add_special_tokens=False)["input_ids"])
        <= len(tokenizer("cat")["input_ids"]) + EXTRA_LENGTH
    )


def test_batches_hold_every_text_once_and_keep_to_the_budget():
    ids = {index: [0] * length for index, length in enumerate([9, 1, 5, 5, 2, 30, 7])}
    order = sorted(ids, key=lambda index: len(ids[index]), reverse=True)
    batches = list(_batches(order, ids, 20))
    assert [index for batch in batches for index in batch] == order
    assert all(len(batch) * len(ids[batch[0]]) <= 20 or len(batch) == 1 for batch in batches)


def test_a_source_longer_than_learned_positions_is_named(translator):
    model, tokenizer = translator
    config = type(model.config)(
        **{**model.config.to_dict(), "position_embeddings": "learned", "max_position_embeddings": 8}
    )
    with pytest.raises(ValueError, match=r"Line 12 has \d+ tokens; the model has 8 learned positions"):
        translate(type(model)(config), tokenizer, ["a", TEXTS[2]], first_line=11)


def test_cross_attention_has_a_row_for_each_token_written(translator):
    weights, source_ids, target_ids = cross_attention(*translator, TEXTS[2])
    assert weights.shape[1:] == (len(target_ids), len(source_ids))
    torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:2]))
    assert translator[0].config._attn_implementation == "sdpa"


def test_a_text_goes_on_beyond_the_context(writer):
    model, tokenizer = writer
    model.generation_config.eos_token_id = None
    text = continue_text(model, tokenizer, "abc", max_new_tokens=50, seed=1)
    # Special tokens that it draws have no text, so it may be shorter than 50, but not than the context of 16.
    assert 16 < len(tokenizer(text)["input_ids"]) <= 50
    assert continue_text(model, tokenizer, "abc", max_new_tokens=50, seed=1) == text


def test_temperature_zero_takes_the_likeliest_token(writer):
    model, tokenizer = writer
    ids = tokenizer("abc", return_tensors="pt")["input_ids"]
    for _ in range(5):
        ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], 1)
    written = continue_text(model, tokenizer, "abc", max_new_tokens=5, temperature=0)
    assert written == tokenizer.decode(ids[0, 3:], skip_special_tokens=True)


def test_a_prompt_that_fills_the_context_is_refused(writer):
    with pytest.raises(ValueError, match="The prompt has 16 tokens; the model has 16 learned positions"):
        continue_text(*writer, "abcdefgh" * 2)


def test_a_character_that_was_never_seen_is_named(writer):
    with pytest.raises(ValueError, match="The prompt holds 'z'"):
        continue_text(*writer, "abz")
