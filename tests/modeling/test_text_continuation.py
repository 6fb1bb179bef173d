import copy
import itertools

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


def test_a_tokenizer_that_is_not_the_models_is_named(model, tokenizer):
    model.resize_token_embeddings(len(tokenizer) - 2)
    known, unknown = (tokenizer.convert_ids_to_tokens(len(tokenizer) - distance) for distance in (3, 1))
    for call, what in (
        (lambda: model.continue_text([known, unknown], tokenizer=tokenizer), "Prompt 2"),
        (lambda: model.score([known, known + unknown], tokenizer=tokenizer), "Text 2"),
    ):
        with pytest.raises(ValueError, match=rf"{what} has the token .* the model has {len(tokenizer) - 2} tokens"):
            call()


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


@pytest.mark.parametrize("max_new_tokens", [7, 40])
def test_prompts_of_any_length_are_continued_as_if_each_were_alone(model, tokenizer, max_new_tokens):
    model.generation_config.eos_token_id = None
    with torch.no_grad():  # far tokens matter
        for parameter in model.parameters():
            parameter.mul_(30)
    prompts = ["abc", "", "h", "abcdefgh gfedcb", "ba dc"]
    options = {"tokenizer": tokenizer, "max_new_tokens": max_new_tokens, "temperature": 0}
    alone = [model.continue_text([prompt], **options)[0] for prompt in prompts]
    assert len(set(alone)) > 1
    assert model.continue_text(prompts, **options) == alone
    assert model.continue_text(prompts, max_tokens_per_batch=1, **options) == alone


def test_no_ngram_of_the_prompt_and_what_is_written_comes_twice(model, tokenizer):
    """Nor where the context was full in between: it has 16 tokens."""
    letters = tokenizer("abcdefgh \n", add_special_tokens=False)["input_ids"]
    model.generation_config.suppress_tokens = [i for i in range(len(tokenizer)) if i not in letters]
    model.generation_config.eos_token_id = None
    prompts = ["abcab", "h"]
    free, limited = (
        [
            prompt + text
            for prompt, text in zip(
                prompts,
                model.continue_text(
                    prompts, tokenizer=tokenizer, max_new_tokens=45, temperature=0, no_repeat_ngram_size=size
                ),
                strict=True,
            )
        ]
        for size in (0, 2)
    )

    def repeats(text):
        pairs = list(itertools.pairwise(text))
        return len(pairs) > len(set(pairs))

    assert all(map(repeats, free))
    assert [len(text) for text in limited] == [50, 46]
    assert repeats(limited[0][:5])  # the prompt's own
    assert not repeats(limited[0][3:])
    assert not repeats(limited[1])


def test_a_text_ends_where_nothing_may_come_next(model, tokenizer):
    model.generation_config.eos_token_id = None
    [text] = model.continue_text(["ab"], tokenizer=tokenizer, max_new_tokens=45, temperature=0, no_repeat_ngram_size=1)
    # Each token once, and padding never.
    ids = tokenizer("ab" + text, add_special_tokens=False)["input_ids"]
    assert len(set(ids)) == len(ids) == len("abcdefgh \n")


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


def test_a_document_begins_as_in_training_with_what_ends_one(model, tokenizer):
    other = copy.deepcopy(tokenizer)
    other.bos_token = "a"
    assert other.bos_token_id != other.eos_token_id
    assert model.score(["bc"], tokenizer=other) == model.score(["bc"], tokenizer=tokenizer)
    begun = [model.continue_text([""], tokenizer=each, max_new_tokens=8, temperature=0) for each in (other, tokenizer)]
    assert begun[0] == begun[1]


def test_of_a_prompt_that_fills_the_context_the_last_half_context_counts(model, tokenizer):
    options = {"tokenizer": tokenizer, "max_new_tokens": 8, "temperature": 0}
    for prompt in ("abcdefgh" * 2, "hgfedcba" * 9 + "abcdefgh"):
        long, short = model.continue_text([prompt, "abcdefgh"], **options)
        assert long == short
    assert model.continue_text(["b" * 7 + "abcdefgh"], **options) != [short]  # 15 of 16 positions: all of it counts


def test_a_text_longer_than_the_context_is_not_scored(model, tokenizer):
    with pytest.raises(ValueError, match="Text 2 has 17 tokens; the model has 16 learned positions"):
        model.score(["a", "a" * 17], tokenizer=tokenizer)
    assert len(model.score(["a" * 16], tokenizer=tokenizer)[0]) == 16


def test_a_character_that_was_never_seen_is_named(model, tokenizer):
    with pytest.raises(ValueError, match="Prompt 1 holds 'z'"):
        model.continue_text(["abz"], tokenizer=tokenizer)


def test_a_prompt_must_be_in_a_list(model, tokenizer):
    with pytest.raises(ValueError, match="prompts must be a list of strings, and is 'abc', of type str"):
        model.continue_text("abc", tokenizer=tokenizer)
