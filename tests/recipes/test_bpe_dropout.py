"""BPE-dropout against the library's own pieces, and against its definition."""

import gzip
import itertools
import random
from collections import Counter

import pytest
import torch
from datasets import Dataset

from transformer_theatre.recipes import bpe_dropout
from transformer_theatre.recipes.bpe_dropout import BpeDropout, draw_for
from transformer_theatre.recipes.dropout_rows import DropoutRows
from transformer_theatre.recipes.token_batches import TokenBatchSampler
from transformer_theatre.recipes.tokenization import encode_pairs, train_bpe_tokenizer, train_character_tokenizer


ODD = [
    "",
    " ",
    "  a  b ",
    "naïve café",
    "हिन्दी में",
    "日本語のテキスト",
    "👩‍👩‍👧 🏳️‍🌈",
    "a\u2028b\tc\r\n\nd",
    "don't 1234 </s> <pad>",
    "\u0000\ufffd",
]


@pytest.fixture(scope="module")
def sentences():
    rng = random.Random(0)
    words = ["hund", "hunde", "hundert", "garten", "gärten", "rennt", "rannte", "schnell", "schneller", "unten"]
    return [" ".join(rng.choices(words, k=rng.randint(3, 15))) for _ in range(400)]


@pytest.fixture(scope="module")
def tokenizer(sentences):
    return train_bpe_tokenizer(sentences, 320)


@pytest.mark.parametrize("appends_eos", [True, False], ids=["pairs", "text"])
def test_without_dropout_the_pieces_are_the_tokenizers_own(sentences, appends_eos):
    tokenizer = train_bpe_tokenizer(sentences + ODD, 400, appends_eos=appends_eos)
    split = BpeDropout(tokenizer, 0.0)
    for text in [*sentences, *ODD]:
        assert split.encode(text, random.Random(0)) == tokenizer(text)["input_ids"], repr(text)
        bare = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert split.encode_bare(text, random.Random(0)) == bare


def test_without_dropout_real_text_is_split_as_by_the_tokenizer(shared_data):
    folder = shared_data / "mt" / "multi30k_en_de"
    texts = []
    for side in ("de", "en"):
        with gzip.open(folder / f"train.{side}.gz", "rt", encoding="utf-8", newline="\n") as file:
            texts += [line.removesuffix("\n") for line in itertools.islice(file, 3000)]
    tokenizer = train_bpe_tokenizer(texts, 4000)
    split = BpeDropout(tokenizer, 0.0)
    assert [split.encode(text, random.Random(0)) for text in texts] == tokenizer(texts)["input_ids"]


def test_if_every_merge_is_left_out_bytes_are_left(tokenizer, sentences):
    split = BpeDropout(tokenizer, 1.0)
    for text in [*sentences[:50], *ODD]:
        pieces = split.encode_bare(text, random.Random(0))
        expected = tokenizer.backend_tokenizer.normalizer.normalize_str(text).encode()
        assert len(pieces) == len(expected)
        assert {len(piece) for piece in tokenizer.convert_ids_to_tokens(pieces)} <= {1}


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_text_comes_back_whatever_was_left_out(tokenizer, sentences, p):
    split = BpeDropout(tokenizer, p)
    for row, text in enumerate([*sentences[:100], *ODD]):
        pieces = split.encode(text, draw_for(1, 0, row))
        assert tokenizer.decode(pieces, skip_special_tokens=True) == tokenizer.decode(
            tokenizer(text)["input_ids"], skip_special_tokens=True
        )


def probabilities(word, ranks, p):
    """Algorithm 1 of the paper by enumeration: all ways to drop the possible merges, in all steps."""
    possible = [(ranks[pair], at) for at, pair in enumerate(itertools.pairwise(word)) if pair in ranks]
    found = Counter()
    for kept in itertools.product([True, False], repeat=len(possible)):
        chance = 1.0
        for keep in kept:
            chance *= (1 - p) if keep else p
        left = [merge for merge, keep in zip(possible, kept, strict=True) if keep]
        if not left:
            found[word] += chance
            continue
        _, at = min(left)
        for pieces, more in probabilities((*word[:at], word[at] + word[at + 1], *word[at + 2 :]), ranks, p).items():
            found[pieces] += chance * more
    return found


@pytest.mark.parametrize("p", [0.1, 0.4])
def test_pieces_are_as_likely_as_by_the_definition(p):
    tokenizer = train_bpe_tokenizer(["abab abab abc abab abcab abcab ababc"] * 5, 275, appends_eos=False)
    import json

    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    ranks = {tuple(merge): rank for rank, merge in enumerate(merges)}
    expected = probabilities(tuple("ababc"), ranks, p)
    assert len(expected) > 4
    assert sum(expected.values()) == pytest.approx(1)
    draws = 20_000
    split, draw = BpeDropout(tokenizer, p), random.Random(7)
    found = Counter(tuple(tokenizer.convert_ids_to_tokens(split.encode_bare("ababc", draw))) for _ in range(draws))
    assert found.keys() <= expected.keys()
    for pieces, chance in expected.items():
        deviation = (draws * chance * (1 - chance)) ** 0.5
        assert abs(found[pieces] - draws * chance) < 5 * deviation + 1, pieces


def test_what_is_remembered_changes_nothing(tokenizer, sentences, monkeypatch):
    def pieces():
        split = BpeDropout(tokenizer, 0.2)
        return [split.encode(text, draw_for(1, 2, row)) for row, text in enumerate(sentences)]

    expected = pieces()
    monkeypatch.setattr(bpe_dropout, "_MOST_SPLITS", 5)
    assert pieces() == expected


def test_text_with_a_special_token_is_left_to_a_tokenizer_that_sees_it(tokenizer):
    assert BpeDropout(tokenizer, 0.0).encode("a </s> b", random.Random(0)) is not None
    tokenizer = train_bpe_tokenizer(["a b"] * 3, 260)
    tokenizer.split_special_tokens = False
    assert BpeDropout(tokenizer, 0.0).encode("a </s> b", random.Random(0)) is None
    assert BpeDropout(tokenizer, 0.0).encode("a b", random.Random(0)) == tokenizer("a b")["input_ids"]


def test_other_tokenizers_are_refused():
    with pytest.raises(ValueError, match=r"needs a byte-level BPE tokenizer .* of type WordLevel"):
        BpeDropout(train_character_tokenizer(["abc"]), 0.1)


@pytest.fixture(scope="module")
def table(sentences, tokenizer):
    rng = random.Random(1)
    data = Dataset.from_dict({"source": sentences, "target": rng.sample(sentences, len(sentences))})
    return encode_pairs(data, tokenizer, 200)


def rows_of(table, tokenizer, **options):
    return DropoutRows(table, tokenizer, **{"p": 0.1, "seed": 1, **options})


def test_rows_follow_from_seed_epoch_and_number_alone(table, tokenizer):
    rows, plain = rows_of(table, tokenizer), table["input_ids"][:]
    first = rows.__getitems__(range(400))
    assert [rows[row] for row in (17, 3, 399)] == [first[row] for row in (17, 3, 399)]
    rows.begin_epoch(1)
    second = rows.__getitems__(range(400))
    rows.begin_epoch(0)
    assert rows.__getitems__(range(400)) == first
    assert rows_of(table, tokenizer, seed=2).__getitems__(range(400)) != first
    for one, other in ((first, second), (first, [{"input_ids": ids} for ids in plain])):
        assert sum(a["input_ids"] != b["input_ids"] for a, b in zip(one, other, strict=True)) > 300


@pytest.mark.parametrize("sides", ["source", "target"])
def test_only_the_chosen_side_is_split(table, tokenizer, sides):
    found = rows_of(table, tokenizer, sides=sides, p=0.5).__getitems__(range(100))
    same = {
        name: sum(row[name] == plain for row, plain in zip(found, table[name], strict=False))
        for name in ("input_ids", "labels")
    }
    chosen, other = ("input_ids", "labels") if sides == "source" else ("labels", "input_ids")
    assert same[other] == 100
    assert same[chosen] < 5


@pytest.mark.parametrize("p", [0.1, 0.5, 1.0])
def test_batches_hold_the_budget_in_every_epoch_and_hardly_a_row_stays_whole(table, tokenizer, p):
    budget = 600
    rows = rows_of(table, tokenizer, p=p, max_tokens=budget)
    lengths = torch.tensor([[len(row["input_ids"]), len(row["labels"])] for row in table])
    sampler = TokenBatchSampler(rows.expected_lengths(lengths), budget, seed=1, accumulation_steps=2)
    counts, whole, tokens, padded = set(), 0, 0, 0
    unlimited = rows_of(table, tokenizer, p=p)
    for epoch in range(3):
        sampler.sampler.set_epoch(epoch)
        rows.begin_epoch(epoch)
        unlimited.begin_epoch(epoch)
        batches = list(sampler)
        counts.add(len(batches))
        assert sorted(row for batch in batches for row in batch) == list(range(400))
        for batch in batches:
            found = rows.__getitems__(batch)
            sizes = [[len(row[name]) for row in found] for name in ("input_ids", "labels")]
            padded += sum(len(batch) * max(side) for side in sizes)
            tokens += sum(map(sum, sizes))
            assert sum(len(batch) * max(side) for side in sizes) <= budget
            free = unlimited.__getitems__(batch)
            whole += sum(
                a[name] != b[name] for a, b in zip(found, free, strict=True) for name in ("input_ids", "labels")
            )
    assert len(counts) == 1
    assert whole < 0.05 * 2 * 400 * 3
    assert tokens / padded > 0.65  # the two sides are of unrelated lengths


def test_a_row_that_just_fits_a_batch_is_read_without_dropout(tokenizer):
    text = "schnell " * 20
    table = encode_pairs(Dataset.from_dict({"source": [text], "target": [text]}), tokenizer, 200)
    most = len(table[0]["input_ids"])
    rows = rows_of(table, tokenizer, p=0.9, max_tokens=2 * most)
    assert rows[0]["input_ids"] == table[0]["input_ids"]
    assert rows.expected_lengths(torch.tensor([[most, most]])).tolist() == [[most, most]]


def test_rows_of_a_batch_are_found_though_they_are_split_otherwise(table, tokenizer):
    rows = rows_of(table, tokenizer, p=0.5)
    found = rows.__getitems__([5, 17])
    width = max(len(row["input_ids"]) for row in found)
    ids = torch.tensor([row["input_ids"] + [0] * (width - len(row["input_ids"])) for row in found])
    assert rows.rows_of({"input_ids": ids}) == [5, 17]
