import pytest
from transformers import AutoTokenizer

from transformer_theatre.recipes.symbol_tokenizer import train_symbol_tokenizer


WORDS = ["aardema", "abel", "o'neil", "hello"]
PHONEMES = ["AA R D EH M AH", "EY B AH L", "OW N IY L", "HH AH L OW"]


@pytest.fixture
def tokenizer():
    return train_symbol_tokenizer(WORDS, PHONEMES)


def ids(tokenizer, text):
    return tokenizer(text)["input_ids"]


def test_a_letter_is_a_token_and_so_is_a_symbol(tokenizer):
    for word, phonemes in zip(WORDS, PHONEMES, strict=True):
        assert len(ids(tokenizer, word)) == len(word) + 1  # and the end token
        assert len(ids(tokenizer, phonemes)) == len(phonemes.split()) + 1
    assert tokenizer.convert_ids_to_tokens([0, 1, 2, 3]) == ["<pad>", "<s>", "</s>", "<unk>"]
    assert ids(tokenizer, "AH")[-1] == tokenizer.eos_token_id


def test_text_becomes_itself_again_wherever_it_is_loaded(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    for text in [*WORDS, *PHONEMES, "hello abel", "AH", "HH AH L OW abel"]:
        assert loaded.decode(ids(loaded, text), skip_special_tokens=True) == text
        assert ids(loaded, text) == ids(tokenizer, text)


def test_letters_and_symbols_of_the_same_name_stay_apart():
    """A "B" that is a phoneme is not the letter "b"; but where both are written alike, they are the same token."""
    tokenizer = train_symbol_tokenizer(["ab"], ["AE B", "b"])
    assert set(ids(tokenizer, "ab")).isdisjoint(ids(tokenizer, "AE B")[:-1])
    assert ids(tokenizer, "b") != [tokenizer.unk_token_id, tokenizer.eos_token_id]
    assert tokenizer.decode(ids(tokenizer, "b b"), skip_special_tokens=True) == "b b"


def test_a_word_with_an_unknown_character_is_unknown(tokenizer):
    assert ids(tokenizer, "abel xyz")[-2] == tokenizer.unk_token_id
    assert ids(tokenizer, "ZH") == [tokenizer.unk_token_id, tokenizer.eos_token_id]


def test_a_word_may_be_long(tokenizer):
    assert tokenizer.unk_token_id not in ids(tokenizer, "abel" * 100)


@pytest.mark.parametrize(
    ("sources", "targets", "message"),
    [
        ([], [], "0 words and 0 symbols"),
        (["a"], [" "], "1 words and 0 symbols"),
        (["a"], ["##B"], "'##B' cannot begin"),
    ],
    ids=["nothing", "no target", "mark"],
)
def test_what_gives_no_tokenizer_is_refused(sources, targets, message):
    with pytest.raises(ValueError, match=message):
        train_symbol_tokenizer(sources, targets)
