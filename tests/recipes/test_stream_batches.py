"""Batches of streams: their rows, their sizes, their order, and that they go on where they were."""

import itertools
import json
import random

import pytest
import torch
from transformers import DataCollatorForSeq2Seq

from transformer_theatre.recipes.bad_lines import StreamedBadLines
from transformer_theatre.recipes.bpe_dropout import BpeDropout
from transformer_theatre.recipes.stream_batches import NOTE, BatchNumbers, StreamBatches
from transformer_theatre.recipes.stream_rows import PackedRows, PairRows
from transformer_theatre.recipes.text_data import pair_files, read_documents
from transformer_theatre.recipes.text_streams import DocumentStream, LineStream
from transformer_theatre.recipes.tokenization import (
    IGNORED,
    PIECE,
    encode_blocks,
    train_bpe_tokenizer,
    train_character_tokenizer,
)


ROWS = 300


@pytest.fixture
def pairs_file(tmp_path):
    rng = random.Random(0)
    path = tmp_path / "pairs.tsv"
    lines = [f"{'wort ' * rng.randint(1, 12)}n{n}\t{'word ' * rng.randint(1, 12)}n{n}" for n in range(ROWS)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe_tokenizer(["wort word n 0 1 2 3 4 5 6 7 8 9"] * 3, 290)


@pytest.fixture(scope="module")
def text_tokenizer():
    return train_bpe_tokenizer([" wort word n1 22"] * 3, 270, appends_eos=False)


@pytest.fixture
def batches_of(pairs_file, tokenizer):
    """Make the batches of the pairs: `batches_of(buffer=50, max_tokens=200, p=0.1)`."""

    def make(*, p=0.0, seed=1, bad_lines="error", max_length=100, **options):
        paths, parse = pair_files(pairs_file, None, "source", "target")
        text = LineStream(paths, parse, StreamedBadLines(bad_lines, "pairs"))
        dropout = BpeDropout(tokenizer, p) if p else None
        tokens = options.get("max_tokens")
        most = tokens // 2 if tokens else None
        rows = PairRows(text, tokenizer, max_length, most=most, dropout=dropout, seed=seed)
        return StreamBatches(rows, DataCollatorForSeq2Seq(tokenizer), seed=seed, **options)

    return make


def take(batches, numbers):
    """Return the batches of some numbers: their rows by name, and their tensors."""
    found = []
    for number in numbers:
        [batch] = batches.__getitems__([number])
        found.append((batch[NOTE].origins, {name: batch[name].tolist() for name in ("input_ids", "labels")}))
    return found


def an_epoch(batches, epoch=0):
    """Return the names of the rows in the batches of an epoch."""
    found = []
    for number in itertools.count():
        [batch] = batches.__getitems__([number])
        state = batch[NOTE].state
        if state is not None and state.epoch > epoch:
            return found
        now = epoch if state is None else state.epoch
        if now == epoch and (found or state is not None):
            found.append(batch[NOTE].origins)


KINDS = {
    "tokens": {"max_tokens": 400},
    "rows": {"batch_size": 7},
    "grouped rows": {"batch_size": 7, "grouped": True},
}


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_every_row_comes_once_an_epoch_and_in_another_order_in_the_next(batches_of, options):
    batches = batches_of(buffer=100, **options)
    epochs = [[name for batch in an_epoch(batches, epoch) for name in batch] for epoch in range(2)]
    expected = sorted(f"pairs.tsv:{number}" for number in range(1, ROWS + 1))
    assert sorted(epochs[0]) == sorted(epochs[1]) == expected
    same_place = sum(a == b for a, b in zip(*epochs, strict=True))
    assert same_place < ROWS / 20
    assert [name for batch in an_epoch(batches_of(buffer=100, **options)) for name in batch] == epochs[0]
    other = [name for batch in an_epoch(batches_of(buffer=100, seed=2, **options)) for name in batch]
    assert sum(a == b for a, b in zip(epochs[0], other, strict=True)) < ROWS / 20


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0], ids="dropout={}".format)
def test_batches_hold_no_more_than_the_budget_and_are_filled_well(batches_of, p):
    found = [inputs for _, inputs in take(batches_of(buffer=200, max_tokens=400, p=p), range(60))]
    padded = [sum(len(side) * len(side[0]) for side in inputs.values()) for inputs in found]
    assert max(padded) <= 400
    assert sorted(padded)[len(padded) // 2] > 250
    real = sum(len([t for t in row if t > 0]) for inputs in found for side in inputs.values() for row in side)
    assert real / sum(padded) > 0.75


def test_the_buffer_is_bounded_and_mixes_far_rows(batches_of):
    batches = batches_of(buffer=60, max_tokens=400)
    seen, most_held, spread = 0, 0, []
    for batch_number in range(40):
        [batch] = batches.__getitems__([batch_number])
        numbers = [int(name.rpartition(":")[2]) for name in batch[NOTE].origins]
        spread.append(max(numbers) - min(numbers))
        seen += len(numbers)
        most_held = max(most_held, len(batches._buffer) + sum(map(len, batches._batches)))
        # What was read is what was seen and what is held, and no more.
        if batches._state.epoch == 0:
            assert batches.rows.text.number <= seen + 60
    assert most_held <= 60
    assert sorted(spread)[len(spread) // 2] > 15


@pytest.mark.parametrize(("world", "steps"), [(1, 4), (2, 2), (4, 1)])
def test_an_update_has_the_same_rows_on_any_number_of_processes(batches_of, world, steps):
    def updates(world, steps):
        ranks = [batches_of(buffer=60, max_tokens=300, world_size=world, rank=rank, p=0.2) for rank in range(world)]
        return [
            sorted(
                str(row)
                for ranks_batches in ranks
                for _, inputs in take(ranks_batches, range(update * steps, (update + 1) * steps))
                for row in ([t for t in ids if t > 0] for ids in [*inputs["input_ids"], *inputs["labels"]])
            )
            for update in range(8)
        ]

    assert updates(world, steps) == updates(1, 4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stop", [0, 1, 5, 17, 60, 95])
def test_a_stream_goes_on_from_its_state_to_the_same_batches(batches_of, kind, stop):
    options = {"buffer": 80, "p": 0.2, **KINDS[kind]}
    whole = batches_of(**options)
    expected = take(whole, range(stop + 30))
    begun, states = batches_of(**options), []
    for number in range(stop + 1):
        [batch] = begun.__getitems__([number])
        states += [batch[NOTE].state] * (batch[NOTE].state is not None)
    saved = json.loads(json.dumps(begun.dump(states[-1])))
    assert saved["batch"] <= stop
    again = batches_of(**options)
    again.start_from(again.load(saved))
    assert take(again, range(stop, stop + 30)) == expected[stop:]
    # Without the state it only takes longer.
    assert take(batches_of(**options), range(stop, stop + 30)) == expected[stop:]


def test_little_is_read_again_where_a_stream_goes_on(batches_of, monkeypatch):
    begun = batches_of(buffer=40, max_tokens=300)
    states = [begun.__getitems__([number])[0][NOTE].state for number in range(50)]
    [state] = [state for state in states if state is not None][-1:]
    read = []
    monkeypatch.setattr(LineStream, "_read", lambda self, old=LineStream._read: read.append(1) or old(self))
    again = batches_of(buffer=40, max_tokens=300)
    again.start_from(again.load(json.loads(json.dumps(begun.dump(state)))))
    again.__getitems__([49])
    assert len(read) <= 40


def test_lines_that_are_too_long_follow_the_rule_of_bad_lines(batches_of, pairs_file):
    with pairs_file.open("a", encoding="utf-8") as file:
        file.write(f"{'wort ' * 200}\tword\n")
    with pytest.raises(ValueError, match=rf"pairs\.tsv:{ROWS + 1}: the pair has \d+ source .* max_length=100 allows"):
        an_epoch(batches_of(buffer=400, batch_size=5))
    batches = batches_of(buffer=400, batch_size=5, bad_lines="skip")
    assert sum(map(len, an_epoch(batches))) == ROWS
    assert batches.rows.text.bad.counted == 1
    an_epoch(batches, 1)
    assert batches.rows.text.bad.counted == 1
    with pytest.raises(ValueError, match="max_tokens_per_batch leaves 20 to a side"):
        an_epoch(batches_of(buffer=400, max_tokens=40, max_length=300))


def test_a_buffer_that_does_not_fill_a_batch_is_refused(batches_of):
    with pytest.raises(
        ValueError, match=r"shuffle_buffer=10 rows are too few: half of them, 5, do not fill one batch of"
    ):
        take(batches_of(buffer=10, batch_size=8), [0])


@pytest.fixture
def documents(tmp_path):
    rng = random.Random(3)
    folder = tmp_path / "texts"
    folder.mkdir()
    for number in range(6):
        words = rng.choices(["wort", "word", "n1", "22"], k=rng.randint(30, 400))
        (folder / f"{number}.txt").write_text(" ".join(words), encoding="utf-8")
    return folder


@pytest.fixture
def packed(documents, text_tokenizer):
    def make(*, p=0.0, length=32, part=100, tokenizer=text_tokenizer, **options):
        text = DocumentStream(sorted(documents.iterdir()), None, StreamedBadLines("error", "documents"), part)
        dropout = BpeDropout(tokenizer, p) if p else None
        rows = PackedRows(text, tokenizer, length, dropout=dropout, seed=1)
        return StreamBatches(rows, DataCollatorForSeq2Seq(tokenizer), seed=1, **options)

    return make


@pytest.mark.parametrize("cut", [True, False], ids=["parts", "whole"])
def test_running_text_fills_rows_with_the_tokens_of_the_whole(packed, documents, tokenizer, text_tokenizer, cut):
    """Two epochs one after the other, as if the documents were there twice."""
    texts = read_documents(documents)
    tokenizer = text_tokenizer if cut else tokenizer
    blocks = encode_blocks(texts, tokenizer, 10**9)
    once = [*blocks["input_ids"][0], blocks["labels"][0][-1]]
    rows = packed(buffer=10, max_tokens=64, tokenizer=tokenizer).rows
    rows.restart(0)
    found = []
    for epoch in range(2):
        found += list(iter(lambda: next(rows, None), None))
        rows.restart(epoch + 1)
    features = [feature for _, feature in rows.encode(found)]
    assert {len(feature["input_ids"]) for feature in features} == {32}
    predicted = [token for feature in features for token in feature["labels"] if token != IGNORED]
    expected = [*once, *once[1:]][1:]
    assert predicted == expected[: len(predicted)]
    assert len(expected) - len(predicted) < 32


@pytest.mark.parametrize("stop", [None, 7])
def test_a_row_of_running_text_names_the_document_that_it_begins_in(packed, documents, text_tokenizer, stop):
    blocks = encode_blocks(read_documents(documents), text_tokenizer, 32)
    expected = [origin.partition(" from")[0] for origin in blocks["origin"]]
    assert len(set(expected)) == 6
    stream = packed(buffer=10, max_tokens=64)
    rows = stream.rows
    rows.restart(0)
    found = [next(rows).origin for _ in range(stop or 0)]
    if stop is not None:  # go on elsewhere
        place = json.loads(json.dumps(rows.place()))
        rows = packed(buffer=10, max_tokens=64).rows
        rows.restart(0, place)
    found += [row.origin for row in iter(lambda: next(rows, None), None)]
    assert found == expected[: len(found)]
    assert len(expected) - len(found) <= 1  # what does not fill a row waits


@pytest.mark.parametrize("stop", [0, 3, 20, 41])
def test_running_text_goes_on_from_its_state(packed, stop):
    options = {"buffer": 12, "max_tokens": 64, "p": 0.2}
    expected = take(packed(**options), range(stop + 15))
    begun, states = packed(**options), []
    for number in range(stop + 1):
        [batch] = begun.__getitems__([number])
        states += [batch[NOTE].state] * (batch[NOTE].state is not None)
        assert batch["attention_mask"].all()
        assert batch["input_ids"].shape == (2, 32)
    again = packed(**options)
    again.start_from(again.load(json.loads(json.dumps(begun.dump(states[-1])))))
    assert take(again, range(stop, stop + 15)) == expected[stop:]


def test_a_text_shorter_than_a_row_fills_rows_over_epochs(packed, documents):
    for path in sorted(documents.iterdir())[1:]:
        path.unlink()
    next(documents.iterdir()).write_text("wort word", encoding="utf-8")
    [(_, inputs)] = take(packed(buffer=4, max_tokens=32), [0])
    assert len(inputs["input_ids"][0]) == 32


@pytest.mark.parametrize("workers", [0, 1])
def test_a_process_of_its_own_makes_the_same_batches(batches_of, workers):
    batches = batches_of(buffer=50, max_tokens=300)
    loader = torch.utils.data.DataLoader(
        batches, batch_sampler=BatchNumbers(20), collate_fn=StreamBatches.first, num_workers=workers
    )
    found = [(batch[NOTE].origins, batch["input_ids"].tolist()) for batch in loader]
    expected = take(batches_of(buffer=50, max_tokens=300), range(20))
    assert found == [(origins, inputs["input_ids"]) for origins, inputs in expected]


@pytest.mark.parametrize("kind", ["pairs", "text"])
def test_text_that_the_tokenizer_does_not_know_is_named_once(tmp_path, caplog, kind):
    tokenizer = train_character_tokenizer(["ab\t\n"], appends_eos=kind == "pairs")
    path = tmp_path / "rows.tsv"
    path.write_text("ab\tba\n" + "xy\ta\n" * 5, encoding="utf-8")
    if kind == "pairs":
        paths, parse = pair_files(path, None, "source", "target")
        rows = PairRows(LineStream(paths, parse, StreamedBadLines("error", "pairs")), tokenizer, 50)
    else:
        text = DocumentStream([path], None, StreamedBadLines("error", "documents"), PIECE)
        rows = PackedRows(text, tokenizer, 4)
    for epoch in range(2):
        rows.restart(epoch)
        assert rows.encode(list(iter(lambda: next(rows, None), None)))
    told = [record.message for record in caplog.records if "--tokenizer_samples" in record.message]
    assert len(told) == 1
    assert told[0].startswith("rows.tsv:2 holds" if kind == "pairs" else "rows.tsv:1 holds")
