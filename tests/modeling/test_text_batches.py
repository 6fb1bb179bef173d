import json

import numpy as np
import pytest
import torch
from transformers import FSMTTokenizer

from transformer_theatre.modeling.text_batches import (
    batches_by_length,
    check_options,
    constraints_of,
    encode_targets,
    in_evaluation,
    list_of_texts,
    names_of_source,
    tokenizer_of,
)
from transformer_theatre.recipes.tokenization import train_bpe_tokenizer


@pytest.fixture
def two_vocabularies(tmp_path):
    """A tokenizer with letters of its own on either side, as that of the WMT19 models."""
    pytest.importorskip("sacremoses")
    for side, letters in (("src", "abcdef"), ("tgt", "fedcbaxyz")):
        pieces = ["<s>", "<pad>", "</s>", "<unk>", *letters, *(f"{letter}</w>" for letter in letters)]
        (tmp_path / f"vocab-{side}.json").write_text(json.dumps({piece: i for i, piece in enumerate(pieces)}))
    (tmp_path / "merges.txt").write_text("q q</w> 1\n")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"langs": ["en", "de"]}))
    return FSMTTokenizer.from_pretrained(tmp_path)


def test_targets_are_encoded_with_the_vocabulary_that_decodes_them(two_vocabularies):
    texts = ["xyz abc", "fed"]
    before = two_vocabularies("abc")["input_ids"]
    encoded = encode_targets(two_vocabularies, texts)
    assert [two_vocabularies.decode(ids, skip_special_tokens=True) for ids in encoded] == texts
    assert two_vocabularies("abc")["input_ids"] == before
    assert two_vocabularies.src_lang == "en"


def test_tokens_of_a_source_have_the_names_of_its_vocabulary(two_vocabularies):
    ids = two_vocabularies("cab q")["input_ids"]
    assert names_of_source(two_vocabularies, "cab q", ids) == ["c", "a", "b</w>", "<unk>", "</s>"]
    fast = train_bpe_tokenizer(["cab"], 262)
    assert names_of_source(fast, "cab", fast("cab")["input_ids"]) == fast.convert_ids_to_tokens(
        fast("cab")["input_ids"]
    )


@pytest.mark.parametrize(
    "texts", [(text for text in "ab"), ("a", "b"), np.array(["a", "b"]), {1: "a", 2: "b"}.values()], ids=type
)
def test_texts_are_read_from_whatever_gives_them_in_order(texts):
    assert list_of_texts("texts", texts) == ["a", "b"]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("a dog", "texts must be a list of strings, and is 'a dog', of type str"),
        (b"a dog", "of type bytes"),
        (None, "of type NoneType"),
        ({"a": "b"}, "of type dict"),
        ({"a"}, "of type set"),
        (5, "of type int"),
        (["a", None], "number 2 is 'None'"),
        ([["a"]], "number 1 is"),
        (["a", "b\ud800c"], r"Number 2 of texts has half a surrogate pair, '\\ud800', at character 2"),
    ],
)
def test_what_is_no_list_of_strings_is_named(texts, message):
    with pytest.raises(ValueError, match=message):
        list_of_texts("texts", texts)


@pytest.mark.parametrize(
    ("option", "right"),
    [
        ({"num_beams": 0}, "a whole number, 1 or more"),
        ({"num_beams": 2.5}, "a whole number, 1 or more"),
        ({"top_k": -1}, "a whole number, 0 or more"),
        ({"alpha": float("inf")}, "a number from 0 to 100"),
        ({"alpha": float("nan")}, "a number from 0 to 100"),
        ({"alpha": "1"}, "a number from 0 to 100"),
        ({"temperature": 1e-40}, "0, for the likeliest token each time, or a number from 0.0001 to 10000"),
        ({"seed": 2**63}, "a whole number from 0"),
        ({"top_p": 0}, "a number above 0, and at most 1"),
    ],
)
def test_options_out_of_range_are_named(option, right):
    [(name, value)] = option.items()
    with pytest.raises(ValueError, match=f"{name}={value!r} must be {right}"):
        check_options(**option)


def test_batches_hold_every_text_once_and_keep_to_the_budget():
    lengths = dict(enumerate([9, 1, 5, 5, 2, 30, 7]))
    batches = list(batches_by_length(lengths, 40, repeats=2))
    assert [index for batch in batches for index in batch] == sorted(lengths, key=lambda index: -lengths[index])
    assert all(2 * len(batch) * lengths[batch[0]] <= 40 or len(batch) == 1 for batch in batches)
    assert len(batches) < len(lengths)


def test_short_texts_do_not_make_batches_of_more_rows_than_wanted():
    batches = list(batches_by_length(dict.fromkeys(range(10), 1), 1000, repeats=2, most_rows=7))
    assert list(map(len, batches)) == [3, 3, 3, 1]


def test_parts_of_a_model_that_were_in_evaluation_stay_so(make_transformer):
    class Model(type(make_transformer())):
        modes = in_evaluation(lambda self: {module.training for module in self.modules()})

    model = Model(make_transformer().config).train()
    model.model.encoder.eval()
    before = {name: module.training for name, module in model.named_modules()}
    assert len(set(before.values())) == 2
    assert model.modes() == {False}
    assert {name: module.training for name, module in model.named_modules()} == before


def test_a_model_without_weights_is_named(make_transformer):
    with torch.device("meta"):
        model = make_transformer()
    with pytest.raises(ValueError, match="on the meta device, without weights"):
        model.translate(["a"])


def test_a_folder_without_a_tokenizer_is_named(make_transformer, tmp_path):
    make_transformer().save_pretrained(tmp_path)
    model = type(make_transformer()).from_pretrained(tmp_path)
    with pytest.raises(ValueError, match=rf"No tokenizer could be loaded from {tmp_path}, .*: give tokenizer="):
        tokenizer_of(model, None)


def test_settings_of_the_generation_configuration_are_heeded_or_named(make_transformer, caplog):
    model = make_transformer()
    settings = model.generation_config
    settings.bad_words_ids, settings.suppress_tokens, settings.no_repeat_ngram_size = [[7]], [9, 8], 3
    limits = constraints_of(model, None)
    assert limits.banned_token_ids == (model.config.pad_token_id, 7, 8, 9)
    assert limits.no_repeat_ngram_size == 3
    assert constraints_of(model, 0).no_repeat_ngram_size == 0
    assert not caplog.records
    settings.repetition_penalty, settings.stop_strings = 1.3, ["dog"]
    constraints_of(model, None)
    assert (
        "Only `generate` knows these settings of the generation configuration: repetition_penalty, stop_strings."
        in (caplog.text)
    )
    settings.bad_words_ids = [[5, 6]]
    with pytest.raises(ValueError, match="bad_words_ids of several tokens"):
        constraints_of(model, None)
