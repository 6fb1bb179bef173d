import copy
import subprocess
import sys

import pytest
import torch
from transformers import GenerationConfig, pipeline

from transformer_theatre import (
    LSTMConfig,
    LSTMForConditionalGeneration,
    TransformerConfig,
    TransformerForConditionalGeneration,
)
from transformer_theatre.modeling.text_to_text import EXTRA_LENGTH, Translation
from transformer_theatre.recipes.tokenization import train_bpe_tokenizer


TEXTS = ["a dog", "", "the small red house stands in the garden of a man", "  ", "cat", "dog cat house " * 9]


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe_tokenizer(TEXTS, 259 + 30)


@pytest.fixture(scope="module")
def make_model(tokenizer):
    def make(**fields):
        torch.manual_seed(0)
        sizes = {
            f"{side}_{k}": v
            for side in ("encoder", "decoder")
            for k, v in (("layers", 1), ("attention_heads", 2), ("ffn_dim", 32))
        }
        config = TransformerConfig(**{"vocab_size": len(tokenizer), "d_model": 16, **sizes, **fields})
        model = TransformerForConditionalGeneration(config).eval()
        with torch.no_grad():
            model.get_input_embeddings().weight.mul_(4)
        return model

    return make


@pytest.fixture(scope="module")
def model(make_model):
    return make_model()


@pytest.fixture(scope="module")
def saved(model, tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("num_beams", [1, 3])
def test_texts_come_back_in_order_as_if_each_were_alone(model, tokenizer, num_beams):
    options = {"tokenizer": tokenizer, "num_beams": num_beams}
    alone = [model.translate([text], **options)[0] for text in TEXTS]
    assert model.translate(TEXTS, max_tokens_per_batch=60, **options) == alone
    assert alone[1] == alone[3] == ""
    assert len(set(alone)) == 5


@pytest.fixture(scope="module", params=["transformer", "lstm", "lstm-both-ways", "lstm-without-attention"])
def any_model(request, make_model, tokenizer):
    """A model of each kind, in float64."""
    fields = {
        "lstm-both-ways": {"bidirectional": True, "reverse_source": False},
        "lstm-without-attention": {"attention": "none", "input_feeding": False},
    }.get(request.param, {})
    torch.manual_seed(0)
    if request.param == "transformer":
        return copy.deepcopy(make_model(encoder_layers=2, decoder_layers=2)).double()
    config = LSTMConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=2, initializer_range=0.5, **fields
    )
    return LSTMForConditionalGeneration(config).double().eval()


@pytest.mark.parametrize("num_beams", [1, 4])
def test_no_text_depends_on_those_beside_it(any_model, tokenizer, num_beams):
    """In float64: in float32 log-probabilities differ in the last digits, as matrices of other shapes are multiplied in another order."""
    texts = [*TEXTS, "a man", "the house stands in the small garden", "dog"]
    options = {"tokenizer": tokenizer, "num_beams": num_beams, "n_best": min(2, num_beams), "return_scores": True}

    def translated(texts, budget=8192):
        found = any_model.translate(texts, max_tokens_per_batch=budget, **options)
        return [each for best in found for each in (best if num_beams > 1 else [best])]

    alone = [each for text in texts for each in translated([text])]
    for budget in (60, 8192):
        together = translated(texts, budget)
        assert [each.tokens for each in together] == [each.tokens for each in alone]
        assert [each.log_prob for each in together] == pytest.approx([each.log_prob for each in alone], abs=2e-5)
    targets = texts[::-1]
    for source, target, scored in zip(
        texts, targets, any_model.score(texts, targets, tokenizer=tokenizer), strict=True
    ):
        assert scored == pytest.approx(any_model.score([source], [target], tokenizer=tokenizer)[0], abs=2e-6)


def test_no_texts_are_no_translations(model, tokenizer):
    assert model.translate([], tokenizer=tokenizer) == []
    assert model.score([], [], tokenizer=tokenizer) == []


def test_output_is_at_most_fifty_tokens_longer_than_input(model, tokenizer):
    model.generation_config.eos_token_id = None
    try:
        found = model.translate(["cat", TEXTS[5]], tokenizer=tokenizer, return_scores=True)
    finally:
        model.generation_config.eos_token_id = 2
    assert [len(each.tokens) for each in found] == [len(each.source_tokens) + EXTRA_LENGTH for each in found]


def forward(model, tokenizer, source, tokens, **options):
    """Read a source and what was written, all at once."""
    ids = tokenizer.convert_tokens_to_ids(tokens)
    before = torch.tensor([[model.config.decoder_start_token_id, *ids[:-1]]])
    with torch.no_grad():
        outputs = model(torch.tensor([tokenizer(source)["input_ids"]]), decoder_input_ids=before, **options)
    return outputs, torch.tensor(ids)


@pytest.mark.parametrize(
    "options", [{"num_beams": 4, "n_best": 3}, {"num_beams": 1}, {"do_sample": True, "n_best": 2}]
)
def test_scores_are_log_probabilities_of_forward_over_the_penalty(model, tokenizer, options):
    found = model.translate(TEXTS, tokenizer=tokenizer, return_scores=True, alpha=0.9, **options)
    for source, best in zip(TEXTS, found, strict=True):
        best = best if isinstance(best, list) else [best]
        assert [each.score for each in best] == sorted((each.score for each in best), reverse=True)
        for each in best if source.strip() else []:
            outputs, ids = forward(model, tokenizer, source, each.tokens)
            log_prob = outputs.logits[0].log_softmax(-1).gather(1, ids[:, None]).sum().item()
            assert each.log_prob == pytest.approx(log_prob, abs=1e-3)
            assert each.score == pytest.approx(log_prob / ((5 + len(ids)) / 6) ** 0.9, abs=1e-3)


def test_a_model_keeps_the_search_that_it_was_saved_with(model, tokenizer, tmp_path):
    model = copy.deepcopy(model)
    assert (model.default_num_beams, model.default_alpha) == (4, 0.6)
    ids = {name: getattr(model.config, name) for name in ("pad_token_id", "eos_token_id", "decoder_start_token_id")}
    model.generation_config = GenerationConfig(num_beams=3, alpha=1.7, max_new_tokens=9, **ids)
    model.save_pretrained(tmp_path)
    loaded = TransformerForConditionalGeneration.from_pretrained(tmp_path).eval()
    assert (loaded.default_num_beams, loaded.default_alpha) == (3, 1.7)
    options = {"tokenizer": tokenizer, "return_scores": True}
    assert loaded.translate(TEXTS, **options) == model.translate(TEXTS, num_beams=3, alpha=1.7, **options)
    assert loaded.translate(TEXTS, **options) != model.translate(TEXTS, num_beams=3, alpha=0.6, **options)
    ids = tokenizer(TEXTS[0], return_tensors="pt")["input_ids"]
    assert loaded.generate(ids).equal(model.generate(ids))  # the library minds no field that it does not know


def test_score_is_the_log_softmax_of_forward_in_any_batch(model, tokenizer):
    targets = ["house", "a", "the dog", "", "cat", "red house in the garden"]
    scores = model.score(TEXTS, targets, tokenizer=tokenizer, max_tokens_per_batch=50)
    for source, target, scored in zip(TEXTS, targets, scores, strict=True):
        inputs = tokenizer([source], text_target=[target], return_tensors="pt")
        with torch.no_grad():
            loss = model(**inputs).loss
        assert len(scored) == inputs["labels"].shape[1]
        assert -sum(scored) / len(scored) == pytest.approx(loss.item(), abs=1e-4)


def test_alignment_is_the_attention_of_the_last_layer(make_model, tokenizer):
    model = make_model(decoder_layers=2)
    found = model.translate(TEXTS, tokenizer=tokenizer, num_beams=2, n_best=2, return_alignment=True)
    assert model.config._attn_implementation == "sdpa"
    model.set_attn_implementation("eager")
    for source, best in zip(TEXTS, found, strict=True):
        for each in best if source.strip() else []:
            outputs, _ = forward(model, tokenizer, source, each.tokens, output_attentions=True)
            torch.testing.assert_close(each.alignment, outputs.cross_attentions[-1][0])
            assert each.source_tokens == tokenizer.convert_ids_to_tokens(tokenizer(source)["input_ids"])


def test_a_model_that_does_not_look_back_aligns_nothing(tokenizer):
    config = LSTMConfig(
        vocab_size=len(tokenizer), hidden_size=8, num_hidden_layers=1, attention="none", input_feeding=False
    )
    model = LSTMForConditionalGeneration(config).eval()
    with pytest.raises(ValueError, match="no attention to its source"):
        model.translate(["a dog"], tokenizer=tokenizer, return_alignment=True)
    assert len(model.translate(["a dog"], tokenizer=tokenizer)) == 1


def test_a_prefix_begins_the_translation(model, tokenizer):
    prefixes = ["the dog", "", "", "", "a cat in the house", "red"]
    found = model.translate(TEXTS, tokenizer=tokenizer, prefixes=prefixes, max_tokens_per_batch=60)
    free = model.translate(TEXTS, tokenizer=tokenizer)
    assert all(text.startswith(prefix) for text, prefix in zip(found, prefixes, strict=True) if text)
    assert found[2] == free[2]
    assert found[0] != free[0]


def test_a_prefix_does_not_hold_the_end(model, tokenizer):
    reads_names = copy.deepcopy(tokenizer)
    reads_names.split_special_tokens = False  # ours takes the end token's name for text; others do not
    with pytest.raises(ValueError, match="Prefix 3 holds '</s>', which ends a text"):
        model.translate(TEXTS[:3], tokenizer=reads_names, prefixes=["", "", "a</s>b"])
    [text] = model.translate(TEXTS[:1], tokenizer=tokenizer, prefixes=["a</s>b"])
    assert text.startswith("a</s>b")


def test_samples_are_drawn_again_by_the_same_seed(model, tokenizer):
    options = {"tokenizer": tokenizer, "do_sample": True, "n_best": 3}
    first = model.translate(TEXTS, seed=1, **options)
    assert model.translate(TEXTS, seed=1, **options) == first
    assert model.translate(TEXTS, seed=torch.tensor(1).numpy()[()], **options) == first
    assert model.translate(TEXTS, seed=2, **options) != first
    assert [len(best) for best in first] == [3] * len(TEXTS)
    assert len(set(first[2])) == 3


def test_a_model_in_training_is_left_in_training(make_model, tokenizer):
    model = make_model(dropout=0.5).train()
    assert model.translate(TEXTS, tokenizer=tokenizer) == model.eval().translate(TEXTS, tokenizer=tokenizer)
    model.train()
    model.translate(TEXTS, tokenizer=tokenizer)
    assert model.training


def test_the_tokenizer_beside_the_model_is_found(saved, model, tokenizer):
    again = TransformerForConditionalGeneration.from_pretrained(saved)
    assert again.translate(TEXTS) == model.translate(TEXTS, tokenizer=tokenizer)


STRANGER = """
import sys
sys.modules["transformer_theatre"] = None
from transformers import AutoModelForSeq2SeqLM, pipeline
folder = sys.argv[1]
model = AutoModelForSeq2SeqLM.from_pretrained(folder, trust_remote_code=True)
print(model.translate(["a dog", "cat"]))
translator = pipeline("translation", model=folder, trust_remote_code=True)
print([each["translation_text"] for each in translator(["a dog", "cat"])])
translator.save_pretrained(folder + "/again")
again = pipeline("translation", model=folder + "/again", trust_remote_code=True)
print([each["translation_text"] for each in again(["a dog", "cat"], return_alignment=True)])
"""


def test_strangers_translate_too_by_method_and_by_pipeline(saved, model, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    result = subprocess.run([sys.executable, "-c", STRANGER, str(saved)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [str(model.translate(["a dog", "cat"], tokenizer=tokenizer))] * 3


def test_translations_have_at_most_the_tokens_that_are_wanted(model, tokenizer):
    model.generation_config.eos_token_id = None
    try:
        found = model.translate(TEXTS, tokenizer=tokenizer, max_new_tokens=5, return_scores=True)
    finally:
        model.generation_config.eos_token_id = 2
    assert [len(each.tokens) for each in found] == [5 if text.strip() else 0 for text in TEXTS]


def test_what_every_text_begins_with_comes_before_its_prefix(make_model, tokenizer):
    model = make_model()
    model.generation_config.forced_bos_token_id = 40
    dog = tokenizer.convert_ids_to_tokens(tokenizer("the dog")["input_ids"][:-1])
    for prefixes, expected in ((None, []), (["the dog"], dog)):
        [found] = model.translate(["a cat"], tokenizer=tokenizer, prefixes=prefixes, return_scores=True)
        assert found.tokens[: 1 + len(expected)] == [*tokenizer.convert_ids_to_tokens([40]), *expected]


def test_the_pipeline_takes_options_of_translate(saved):
    translator = pipeline("translation", model=str(saved), trust_remote_code=True)
    [one] = translator("a dog", return_scores=True)
    assert {"translation_text", "score", "log_prob"} <= one.keys()
    assert [len(best) for best in translator(["a dog", "cat"], n_best=2)] == [2, 2]
    assert translator("cat") == translator(["cat"])
    with pytest.raises(ValueError, match="max_length: no option of `translate`, which has tokenizer, num_beams"):
        translator("cat", max_length=20)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_beams": 2, "n_best": 3}, "n_best=3 must be at most num_beams=2"),
        ({"num_beams": 0}, "num_beams=0 must be a whole number, 1 or more"),
        ({"num_beams": True}, "num_beams=True must be a whole number, 1 or more"),
        ({"temperature": 0.5, "seed": 0}, "temperature=0.5, seed=0: only a draw has these; give do_sample=True"),
        ({"prefixes": ["a"]}, "There are 1 prefixes for 6 texts"),
        (
            {"prefixes": ["a dog cat"] * 6, "max_new_tokens": 1},
            r"Prefix 1 has \d tokens; max_new_tokens=1 leaves none",
        ),
    ],
)
def test_options_that_do_not_fit_are_named(model, tokenizer, options, message):
    with pytest.raises(ValueError, match=message):
        model.translate(TEXTS, tokenizer=tokenizer, **options)


def test_a_model_from_nowhere_asks_for_its_tokenizer(model):
    with pytest.raises(ValueError, match="give its tokenizer="):
        model.translate(["a dog"])


def test_a_tokenizer_that_is_not_the_models_is_named(make_model, tokenizer):
    known, unknown = "\n", "house house"
    size = max(tokenizer(known)["input_ids"]) + 1
    assert size < 259 <= max(tokenizer(unknown)["input_ids"])  # byte-level BPE: pieces of several bytes begin at 259
    short = make_model(vocab_size=size, source_vocab_size=259, share_encoder_decoder_embeddings=False)
    for call, message in (
        (lambda: short.translate([known, unknown], tokenizer=tokenizer), "Text 2 has the token '.*house'"),
        (
            lambda: short.translate([known], tokenizer=tokenizer, prefixes=[unknown]),
            "Prefix 1 has the token '.*house'",
        ),
        (lambda: short.score([known, unknown], [known] * 2, tokenizer=tokenizer), "Source 2 has the token '.*house'"),
        (lambda: short.score([known], [unknown], tokenizer=tokenizer), f"Target 1 has .* the model has {size} tokens"),
    ):
        with pytest.raises(ValueError, match=f"{message}.*Is the tokenizer its own"):
            call()
    assert len(short.score([known, "ü"], [known] * 2, tokenizer=tokenizer)) == 2
    with pytest.raises(ValueError, match=r"tokenizer='somewhere' must be a tokenizer, and is of type str"):
        short.translate([known], tokenizer="somewhere")


def test_sides_of_different_number_are_refused(model, tokenizer):
    with pytest.raises(ValueError, match="There are 6 sources and 1 targets"):
        model.score(TEXTS, ["a"], tokenizer=tokenizer)


def test_a_source_longer_than_learned_positions_is_named(make_model, tokenizer):
    model = make_model(position_embeddings="learned", max_position_embeddings=8)
    with pytest.raises(ValueError, match=r"Text 12 has \d+ tokens; the model has 8 learned positions"):
        model.translate(["a", TEXTS[2]], tokenizer=tokenizer, first_number=11)
    [found] = model.translate(["a"], tokenizer=tokenizer, return_scores=True)
    assert len(found.tokens) <= 8
    with pytest.raises(ValueError, match=r"Prefix 1, with a token after it, has \d+ tokens; the model has 8 learned"):
        model.translate(["a"], tokenizer=tokenizer, prefixes=[TEXTS[2]])
    assert isinstance(found, Translation)
