import pytest
import torch

from transformer_theatre import GPTConfig, GPTForCausalLM
from transformer_theatre.recipes.tokenization import train_character_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return train_character_tokenizer(["abcdefgh \n"])


@pytest.fixture
def model(tokenizer):
    torch.manual_seed(0)
    config = GPTConfig(
        vocab_size=len(tokenizer),
        d_model=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        ffn_dim=32,
        max_position_embeddings=16,
    )
    return GPTForCausalLM(config).eval()


def test_a_text_goes_on_beyond_the_context(model, tokenizer):
    model.generation_config.eos_token_id = None
    [text] = model.continue_text(["abc"], tokenizer=tokenizer, max_new_tokens=50, seed=1)
    # Special tokens that it draws have no text, so it may be shorter than 50, but not than the context of 16.
    assert 16 < len(tokenizer(text)["input_ids"]) <= 50
    assert model.continue_text(["abc"], tokenizer=tokenizer, max_new_tokens=50, seed=1) == [text]


@torch.no_grad()
def test_temperature_zero_takes_the_likeliest_token_of_the_newer_half(model, tokenizer):
    model.generation_config.eos_token_id = None
    ids = tokenizer("abc")["input_ids"]
    context = list(ids)
    for _ in range(40):
        if len(context) == 16:
            context = context[-8:]
        logits = model(torch.tensor([context])).logits[0, -1]
        logits[tokenizer.pad_token_id] = -torch.inf
        ids, context = [*ids, int(logits.argmax())], [*context, int(logits.argmax())]
    [written] = model.continue_text(["abc"], tokenizer=tokenizer, max_new_tokens=40, temperature=0)
    assert written == tokenizer.decode(ids[3:], skip_special_tokens=True)


def test_prompts_of_any_length_are_continued_as_if_each_were_alone(model, tokenizer):
    prompts = ["abc", "", "h", "abcdefgh gfedcb", "ba dc"]
    options = {"tokenizer": tokenizer, "max_new_tokens": 7, "temperature": 0}
    alone = [model.continue_text([prompt], **options)[0] for prompt in prompts]
    assert len(set(alone)) > 1
    short = [0, 1, 2, 4]  # these never fill the context, whatever is beside them
    together = model.continue_text([prompts[i] for i in short], **options)
    assert together == [alone[i] for i in short]
    assert model.continue_text(prompts, max_tokens_per_batch=1, **options) == alone


def test_score_is_the_log_softmax_of_forward_in_any_batch(model, tokenizer):
    texts = ["abc", "h", "abcdefgh gfedcb", "ba dc"]
    scores = model.score(texts, tokenizer=tokenizer, max_tokens_per_batch=20)
    for text, scored in zip(texts, scores, strict=True):
        ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer(text)["input_ids"]]])
        with torch.no_grad():
            loss = model(ids, labels=ids).loss
        assert len(scored) == len(text)
        assert -sum(scored) / len(scored) == pytest.approx(loss.item(), abs=1e-4)
    assert model.score([], tokenizer=tokenizer) == []


def test_a_prompt_that_fills_the_context_is_refused(model, tokenizer):
    with pytest.raises(ValueError, match="The prompt has 16 tokens; the model has 16 learned positions"):
        model.continue_text(["a", "abcdefgh" * 2], tokenizer=tokenizer)


def test_a_text_longer_than_the_context_is_not_scored(model, tokenizer):
    with pytest.raises(ValueError, match="Text 2 has 17 tokens; the model has 16 learned positions"):
        model.score(["a", "a" * 17], tokenizer=tokenizer)
    assert len(model.score(["a" * 16], tokenizer=tokenizer)[0]) == 16


def test_a_character_that_was_never_seen_is_named(model, tokenizer):
    with pytest.raises(ValueError, match="The prompt holds 'z'"):
        model.continue_text(["abz"], tokenizer=tokenizer)


def test_a_prompt_must_be_in_a_list(model, tokenizer):
    with pytest.raises(ValueError, match="prompts must be a list of strings, and has 'abc'"):
        model.continue_text("abc", tokenizer=tokenizer)
