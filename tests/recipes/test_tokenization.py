import json
import logging
from types import SimpleNamespace

import datasets
import pytest
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, DataCollatorForSeq2Seq, PreTrainedTokenizerFast

from transformer_theatre import GPTConfig, LSTMConfig
from transformer_theatre.recipes import tokenization
from transformer_theatre.recipes.text_data import read_documents
from transformer_theatre.recipes.tokenization import (
    encode_blocks,
    encode_pairs,
    load_tokenizer,
    note_limit,
    train_bpe_tokenizer,
    train_character_tokenizer,
)


CORPUS = [
    "the tree and the other tree, there in 2026",
    "der Baum und der andere Baum, dort im Jahr 2026",
    "\u0939\u093f\u0928\u094d\u0926\u0940 \u0939\u093f\u0928\u094d\u0926\u0940, \u6771\u4eac\u90fd\u6771\u4eac\u90fd",
] * 4
STRINGS = {
    "empty": "",
    "words": "the tree",
    "leading space": " the tree",
    "spaces": "   the   tree   ",
    "only spaces": "    ",
    "tab and newlines": "\tthe\n\n tree\r\n",
    "emoji": "\U0001f469\u200d\U0001f4bb\U0001f3fd\U0001f1e9\U0001f1ea",
    "combining marks": "e\u0301\u0323 \u0301 n\u0303o",
    "not normalised": "\ufb01 \u212b \uff21 \u00e9 e\u0301",
    "scripts": "\u05e9\u05dc\u05d5\u05dd \u0e44\u0e17\u0e22 \u6f22\u5b57\u304b\u306a \u0939\u093f\u0928\u094d\u0926\u0940",
    "odd white space": "a\u00a0b\u2028c\u3000d\x85e\x1ff\ufeffg",
    "controls": "\x00\x01\x7f",
    "private and last": "\ue000\U0010ffff\ufffd",
    "punctuation": "don't , do n't ... (\u201cso\u201d) ?!",
    "special tokens": "<pad> <s>a</s></s> <|endoftext|><unk>",
    "byte-level signs": "\u0120\u010a \u2581",
}


@pytest.fixture(autouse=True)
def quiet():
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


@pytest.fixture(scope="module")
def pair_tokenizer():
    return train_bpe_tokenizer(CORPUS, 320)


@pytest.fixture(scope="module")
def document_tokenizer():
    return train_bpe_tokenizer(CORPUS, 320, appends_eos=False)


def saved_and_loaded(tokenizer, folder):
    tokenizer.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def message_of(action, *arguments, **options):
    """Run what must fail, and return the message, which must be one line."""
    with pytest.raises(ValueError, match=r"\S") as caught:
        action(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("appends_eos", [True, False], ids=["pairs", "documents"])
@pytest.mark.parametrize("loaded", [False, True], ids=["fresh", "loaded"])
def test_byte_level_pieces_give_every_string_back(tmp_path, appends_eos, loaded):
    tokenizer = train_bpe_tokenizer(CORPUS, 320, appends_eos=appends_eos)
    tokenizer = saved_and_loaded(tokenizer, tmp_path) if loaded else tokenizer
    encoded = tokenizer(list(STRINGS.values()))["input_ids"]
    assert tokenizer.batch_decode(encoded, skip_special_tokens=True) == list(STRINGS.values())
    assert [tokenizer.decode(ids, skip_special_tokens=True) for ids in encoded] == list(STRINGS.values())


@pytest.mark.parametrize("appends_eos", [True, False], ids=["pairs", "documents"])
@pytest.mark.parametrize("text", STRINGS.values(), ids=list(STRINGS))
def test_characters_give_every_string_back(tmp_path, text, appends_eos):
    tokenizer = train_character_tokenizer(STRINGS.values(), appends_eos=appends_eos)
    ids = saved_and_loaded(tokenizer, tmp_path)(text)["input_ids"]
    assert len(ids) == len(text) + appends_eos
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


@pytest.mark.parametrize("make", [lambda **kw: train_bpe_tokenizer(CORPUS, 300, **kw), lambda **kw: train_character_tokenizer(CORPUS, **kw)], ids=["bpe", "character"])  # fmt: skip
def test_special_tokens_have_the_first_ids_and_survive_saving(tmp_path, make):
    for tokenizer in (make(appends_eos=True), saved_and_loaded(make(appends_eos=True), tmp_path / "pairs")):
        assert tokenizer.convert_ids_to_tokens([0, 1, 2]) == ["<pad>", "<s>", "</s>"]
        assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
        assert tokenizer("the")["input_ids"][-1] == 2
        assert [ids[-1] for ids in tokenizer(["the", ""])["input_ids"]] == [2, 2]
        assert tokenizer("the", "tree")["input_ids"] == tokenizer("the")["input_ids"] + tokenizer("tree")["input_ids"]
    for tokenizer in (make(appends_eos=False), saved_and_loaded(make(appends_eos=False), tmp_path / "documents")):
        assert tokenizer.convert_ids_to_tokens([0, 1]) == ["<pad>", "<|endoftext|>"]
        assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 1)
        assert not set(tokenizer("the tree")["input_ids"]) & {0, 1}
        assert tokenizer("")["input_ids"] == []
    assert tokenizer.model_input_names == ["input_ids", "attention_mask"]
    assert tokenizer.clean_up_tokenization_spaces is False


@pytest.mark.parametrize("appends_eos", [True, False], ids=["pairs", "documents"])
def test_typed_special_tokens_are_only_text(appends_eos, tmp_path):
    typed = "a</s>b<pad><s><|endoftext|>"
    bpe = train_bpe_tokenizer([typed] * 9, 400, appends_eos=appends_eos)
    characters = train_character_tokenizer([typed], appends_eos=appends_eos)
    for number, tokenizer in enumerate((bpe, characters)):
        for one in (tokenizer, saved_and_loaded(tokenizer, tmp_path / str(number))):
            special = [token for token in one(typed)["input_ids"] if token in one.all_special_ids]
            assert special == [one.eos_token_id] * appends_eos


def test_the_length_of_a_tokenizer_is_that_of_the_model_that_it_is_for():
    """Also where another model's said otherwise."""
    tokenizer = train_bpe_tokenizer(CORPUS, 300, model_max_length=32)
    learned = SimpleNamespace(position_embeddings="learned", max_position_embeddings=64)
    sinusoids = SimpleNamespace(position_embeddings="sinusoidal", max_position_embeddings=64)
    for config, limit in ((GPTConfig(max_position_embeddings=48), 48), (learned, 64)):
        note_limit(tokenizer, SimpleNamespace(config=config))
        assert tokenizer.model_max_length == limit
    for config in (LSTMConfig(), sinusoids):
        note_limit(tokenizer, SimpleNamespace(config=config))
        assert tokenizer.model_max_length > 10**9


def test_model_max_length_is_saved(tmp_path):
    for tokenizer in (
        train_bpe_tokenizer(CORPUS, 300, model_max_length=77),
        train_character_tokenizer(CORPUS, model_max_length=77),
    ):
        assert saved_and_loaded(tokenizer, tmp_path).model_max_length == 77


@pytest.mark.parametrize(("appends_eos", "special"), [(True, 3), (False, 2)], ids=["pairs", "documents"])
def test_the_smallest_vocabulary_is_the_bytes_and_the_special_tokens(appends_eos, special):
    tokenizer = train_bpe_tokenizer(CORPUS, 256 + special, appends_eos=appends_eos)
    assert len(tokenizer) == 256 + special
    ids = tokenizer("\u6771", add_special_tokens=False)["input_ids"]
    assert len(ids) == len("\u6771".encode()) + appends_eos  # with the space in front
    message = message_of(train_bpe_tokenizer, CORPUS, 255 + special, appends_eos=appends_eos)
    assert f"vocab_size={255 + special}" in message
    assert f"at least {256 + special}" in message


def test_the_vocabulary_has_the_size_asked_for(caplog):
    with caplog.at_level(logging.WARNING):
        assert len(train_bpe_tokenizer(CORPUS, 300)) == 300
    assert not caplog.records


def test_fewer_pieces_than_asked_for_are_reported(caplog):
    with caplog.at_level(logging.WARNING):
        tokenizer = train_bpe_tokenizer(CORPUS, 5000)
    assert len(tokenizer) < 5000
    (record,) = caplog.records
    assert f"{len(tokenizer):,} pieces" in record.message
    assert "vocab_size=5,000" in record.message


def test_what_occurs_once_makes_no_piece():
    assert len(train_bpe_tokenizer(["abcdefgh"], 300)) == 256 + 3
    assert len(train_bpe_tokenizer(["abcdefgh"] * 2, 300)) > 256 + 3


def test_training_twice_gives_the_same_vocabulary():
    first, second = (train_bpe_tokenizer(iter(CORPUS), 330).get_vocab() for _ in range(2))
    assert first == second


def test_the_first_word_of_a_pair_is_the_piece_it_is_elsewhere(pair_tokenizer):
    first, second, _ = pair_tokenizer("tree tree")["input_ids"]
    assert first == second


def test_a_continuation_decodes_to_exactly_what_follows_the_prompt(document_tokenizer):
    prompt, continuation = "the tree", " and the other"
    ids = document_tokenizer(prompt + continuation)["input_ids"]
    prompt_ids = document_tokenizer(prompt)["input_ids"]
    assert ids[: len(prompt_ids)] == prompt_ids
    assert document_tokenizer.decode(ids[len(prompt_ids) :]) == continuation


def test_digits_stand_alone_and_marks_stay_with_their_letters(pair_tokenizer):
    pieces = [pair_tokenizer.decode([number]) for number in range(3, len(pair_tokenizer))]
    assert not [piece for piece in pieces if sum(map(str.isdigit, piece)) > 1]
    hindi = "\u0939\u093f\u0928\u094d\u0926\u0940"
    assert len(pair_tokenizer(hindi, add_special_tokens=False)["input_ids"]) == 1


def test_lowercase_drops_case_and_nothing_else():
    tokenizer = train_bpe_tokenizer(CORPUS, 300, lowercase=True)
    for text in STRINGS.values():
        ids = tokenizer(text.upper())["input_ids"]
        assert tokenizer.decode(ids, skip_special_tokens=True) == text.upper().lower()
    assert tokenizer("THE Tree")["input_ids"] == tokenizer("the tree")["input_ids"]


@pytest.mark.parametrize(("appends_eos", "special"), [(True, 3), (False, 2)], ids=["pairs", "documents"])
def test_character_ids_are_the_sorted_characters(appends_eos, special):
    tokenizer = train_character_tokenizer(CORPUS, appends_eos=appends_eos)
    alphabet = sorted(set("".join(CORPUS)))
    assert tokenizer.unk_token_id == special
    assert tokenizer.convert_tokens_to_ids(alphabet) == list(range(special + 1, special + 1 + len(alphabet)))
    assert len(tokenizer) == special + 1 + len(alphabet)
    assert tokenizer("aQb", add_special_tokens=False)["input_ids"][1] == special


def test_tiny_shakespeare_has_65_characters_and_comes_back_exactly(shared_data):
    documents = read_documents(shared_data / "lm" / "tiny_shakespeare.txt")
    tokenizer = train_character_tokenizer(documents["text"])
    assert len(tokenizer) == 65 + 3
    blocks = encode_blocks(documents, tokenizer, 1024)
    predicted = [token for labels in blocks["labels"] for token in labels if token != -100]
    assert tokenizer.decode([blocks["input_ids"][0][0], *predicted]) == documents["text"][0]


@pytest.mark.parametrize("train", [lambda texts: train_bpe_tokenizer(texts, 300), train_character_tokenizer], ids=["bpe", "character"])  # fmt: skip
def test_a_tokenizer_needs_a_list_of_texts(train):
    with pytest.raises(TypeError, match="one string"):
        train("the tree")
    assert "empty" in message_of(train, [])


def test_a_tokenizer_folder_loads_beside_a_model_that_is_not_known(tmp_path, pair_tokenizer):
    pair_tokenizer.save_pretrained(tmp_path)
    config = {"model_type": "unheard_of", "auto_map": {"AutoConfig": "configuration_unheard.Unheard"}}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert load_tokenizer(tmp_path)("the tree")["input_ids"] == pair_tokenizer("the tree")["input_ids"]


def test_loading_a_tokenizer_runs_no_code_from_its_folder(tmp_path, pair_tokenizer):
    pair_tokenizer.save_pretrained(tmp_path)
    (tmp_path / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()", encoding="utf-8")
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings["auto_map"] = {"AutoTokenizer": [None, "code.Tokenizer"]}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    assert load_tokenizer(tmp_path)("the tree")["input_ids"] == pair_tokenizer("the tree")["input_ids"]
    assert not (tmp_path / "ran").exists()


def test_a_folder_without_tokenizer_is_an_error(tmp_path, pair_tokenizer):
    pair_tokenizer.save_pretrained(tmp_path / "spoken")
    assert f"{tmp_path} holds no tokenizer" in message_of(load_tokenizer, tmp_path)
    missing = message_of(load_tokenizer, tmp_path / "spokn")
    assert "no tokenizer folder" in missing
    assert "spoken" in missing
    assert "it is a file" in message_of(load_tokenizer, tmp_path / "spoken" / "tokenizer.json")
    (tmp_path / "spoken" / "tokenizer.json").write_text("{", encoding="utf-8")
    assert str(tmp_path / "spoken") in message_of(load_tokenizer, tmp_path / "spoken")


SOURCES = ["the tree", "the other tree and the other tree", "tree"]
TARGETS = ["der Baum", "der andere", "Baum Baum Baum Baum"]


@pytest.fixture
def pairs():
    origins = [f"train.tsv:{number}" for number in (1, 2, 3)]
    return Dataset.from_dict({"source": SOURCES, "target": TARGETS, "origin": origins})


def test_encoded_pairs_hold_both_sides_and_the_longer_length(pairs, pair_tokenizer):
    encoded = encode_pairs(pairs, pair_tokenizer, max_length=1000)
    for row, source, target in zip(encoded, SOURCES, TARGETS, strict=True):
        assert row["input_ids"] == pair_tokenizer(source)["input_ids"]
        assert row["labels"] == pair_tokenizer(target)["input_ids"]
        assert row["attention_mask"] == [1] * len(row["input_ids"])
        assert row["length"] == max(len(row["input_ids"]), len(row["labels"]))
        assert (row["source"], row["target"]) == (source, target)


def test_a_pair_as_long_as_max_length_fits_and_a_longer_one_is_named(pairs, pair_tokenizer):
    lengths = encode_pairs(pairs, pair_tokenizer, max_length=1000)["length"][:]
    longest = lengths.index(max(lengths))
    assert len(encode_pairs(pairs, pair_tokenizer, max(lengths))) == len(pairs)
    message = message_of(encode_pairs, pairs, pair_tokenizer, max(lengths) - 1)
    assert message.startswith(f"train.tsv:{longest + 1}: ")
    assert f"{max(lengths)} " in message
    assert f"max_length={max(lengths) - 1}" in message


def test_skipped_pairs_are_counted_and_named_and_the_rest_stays(pairs, pair_tokenizer, caplog):
    whole = encode_pairs(pairs, pair_tokenizer, max_length=1000)
    limit = sorted(whole["length"])[0]
    with caplog.at_level(logging.WARNING):
        encoded = encode_pairs(pairs, pair_tokenizer, limit, "skip")
    kept = [row for row in whole if row["length"] <= limit]
    assert list(encoded) == kept
    (record,) = caplog.records
    assert f"Left out {len(pairs) - len(kept)} of {len(pairs)} pairs" in record.message
    assert all(row["origin"] in record.message for row in whole if row["length"] > limit)
    assert "None of the 3 pairs" in message_of(encode_pairs, pairs, pair_tokenizer, 1, "skip")


def test_pairs_without_origin_are_named_by_number(pairs, pair_tokenizer):
    assert message_of(encode_pairs, pairs.remove_columns("origin"), pair_tokenizer, 1).startswith("pair 1: ")


def test_characters_never_seen_are_reported(pairs, caplog):
    seen = train_character_tokenizer([*SOURCES, *TARGETS], appends_eos=True)
    encode_pairs(pairs, seen, 100)
    assert not caplog.records
    unseen = train_character_tokenizer(SOURCES, appends_eos=True)
    strange = sum(character not in "".join(SOURCES) for character in "".join(TARGETS))
    encode_pairs(pairs, unseen, 100)
    encode_blocks(Dataset.from_dict({"text": TARGETS}), unseen, 5)
    assert [record.message.split(" tokens are <unk>")[0] for record in caplog.records] == [f"{strange}"] * 2


def stream_of(texts, tokenizer):
    """The tokens that blocks are cut from, written another way."""
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    if len(texts) == 1:
        return ids[0]
    end = [tokenizer.eos_token_id]
    return sum((document + end for document in ids), end)


def all_tokens(block):
    """Of a block that holds a whole text."""
    return [*block["input_ids"], block["labels"][-1]]


@pytest.mark.parametrize("texts", [CORPUS[:1], CORPUS[:3], ["a", "", "b"]], ids=["one", "three", "an empty one"])
@pytest.mark.parametrize(
    ("size", "stride"), [(1, None), (2, None), (7, None), (7, 1), (7, 3), (7, 7), (64, 32), (1000, None)]
)
def test_every_token_is_predicted_exactly_once(document_tokenizer, texts, size, stride):
    tokens = stream_of(texts, document_tokenizer)
    blocks = encode_blocks(Dataset.from_dict({"text": texts}), document_tokenizer, size, stride=stride)
    predicted = []
    for number, block in enumerate(blocks):
        start = max(0, min(number * (stride or size), len(tokens) - 1 - size))  # the last one reaches back
        row = tokens[start : start + size + 1]
        assert block["input_ids"] == row[:-1]  # the last token is predicted, and not read
        assert block["attention_mask"] == [1] * block["length"] == [1] * len(block["input_ids"])
        assert block["labels"][0] == -100  # nothing in the block comes before it
        assert all(label in (-100, token) for token, label in zip(row, block["labels"], strict=True))
        predicted += [label for label in block["labels"] if label != -100]
    assert predicted == tokens[1:]
    assert set(blocks["length"]) == {min(size, len(tokens) - 1)}


@pytest.mark.parametrize("texts", [CORPUS[:1], CORPUS[:3]], ids=["one", "three"])
def test_a_block_says_in_which_document_it_begins_and_where(document_tokenizer, texts):
    names = [f"text.txt:{number}" for number in range(1, len(texts) + 1)]
    parts = [document_tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    parts = parts if len(texts) == 1 else [[document_tokenizer.eos_token_id, *part] for part in parts]
    places = [
        f"{name} from token {at} on" for name, part in zip(names, parts, strict=True) for at in range(1, len(part) + 1)
    ]
    documents = Dataset.from_dict({"text": texts, "origin": names})
    blocks = encode_blocks(documents, document_tokenizer, 1)
    assert blocks["origin"][:] == places[: len(blocks)]
    assert "origin" not in encode_blocks(documents.remove_columns("origin"), document_tokenizer, 1).column_names


def test_predictions_have_at_least_the_context_that_the_stride_leaves(document_tokenizer):
    blocks = encode_blocks(Dataset.from_dict({"text": CORPUS[:1]}), document_tokenizer, 8, stride=3)
    for block in list(blocks)[1:-1]:  # the last one reaches back
        assert [label == -100 for label in block["labels"][: 8 - 3 + 2]] == [True] * (8 - 3 + 1) + [False]


def test_every_document_of_several_stands_between_end_tokens(document_tokenizer):
    (block,) = encode_blocks(Dataset.from_dict({"text": CORPUS[:3]}), document_tokenizer, 10_000)
    end = document_tokenizer.eos_token
    assert document_tokenizer.decode(all_tokens(block)) == end + "".join(text + end for text in CORPUS[:3])


def test_a_single_document_gets_no_end_token(document_tokenizer):
    (block,) = encode_blocks(Dataset.from_dict({"text": CORPUS[:1]}), document_tokenizer, 10_000)
    assert document_tokenizer.decode(all_tokens(block)) == CORPUS[0]


def test_a_batch_of_blocks_has_no_padding_and_predicts_each_token_once(document_tokenizer):
    blocks = encode_blocks(Dataset.from_dict({"text": CORPUS[:2]}), document_tokenizer, 16)
    tokens = len(stream_of(CORPUS[:2], document_tokenizer))
    assert (tokens - 1) % 16  # the last block has to reach back
    batch = DataCollatorForSeq2Seq(document_tokenizer)(list(blocks.remove_columns("length")))
    assert int((batch["labels"][:, 1:] != -100).sum()) == tokens - 1
    assert batch["attention_mask"].all()


def test_blocks_that_cannot_be_are_errors(document_tokenizer):
    text = Dataset.from_dict({"text": ["the tree"]})
    for size, stride in ((0, None), (8, 9), (8, 0)):
        assert f"block_size={size}" in message_of(encode_blocks, text, document_tokenizer, size, stride=stride)
    assert "has 1 tokens" in message_of(encode_blocks, Dataset.from_dict({"text": ["a"]}), document_tokenizer, 8)
    endless = PreTrainedTokenizerFast(tokenizer_object=document_tokenizer.backend_tokenizer)
    assert "end token" in message_of(encode_blocks, Dataset.from_dict({"text": ["a", "b"]}), endless, 8)


LONG = "".join(f"{text}\n \t{text}  \n\n" for text in STRINGS.values()) * 3


@pytest.mark.parametrize("kind", ["bpe", "character"])
def test_a_long_text_in_pieces_has_the_tokens_of_the_whole(monkeypatch, kind, tmp_path):
    if kind == "bpe":
        tokenizer = train_bpe_tokenizer([LONG], 500, appends_eos=False)  # with pieces of white space only
    else:
        tokenizer = train_character_tokenizer([LONG])
    tokenizer = saved_and_loaded(tokenizer, tmp_path)
    whole = tokenizer(LONG, verbose=False)["input_ids"]
    asked = []
    monkeypatch.setattr(
        tokenization, "pieces_of", lambda text, cut=tokenization.pieces_of: asked.extend(cut(text)) or asked
    )
    monkeypatch.setattr(tokenization, "PIECE", 5)
    (block,) = encode_blocks(Dataset.from_dict({"text": [LONG]}), tokenizer, len(whole))
    assert len(asked) > 50
    assert "".join(asked) == LONG
    assert all_tokens(block) == whole


def test_a_text_is_never_cut_for_a_tokenizer_whose_pieces_would_differ(monkeypatch, pair_tokenizer):
    monkeypatch.setattr(tokenization, "pieces_of", lambda _: pytest.fail("the text was cut"))
    words = Tokenizer(models.WordLevel({"a b": 0, "?": 1}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Split("\n", "removed")
    for tokenizer in (pair_tokenizer, PreTrainedTokenizerFast(tokenizer_object=words)):
        encode_blocks(Dataset.from_dict({"text": ["a b\na b\na b"]}), tokenizer, 4)
