import gzip
import json
from functools import partial
from itertools import pairwise

import pytest
from datasets import Dataset

from transformer_theatre.recipes.bad_lines import StreamedBadLines
from transformer_theatre.recipes.row_parsing import parse_fields
from transformer_theatre.recipes.text_data import document_files, open_dataset, pair_files, read_documents, read_pairs
from transformer_theatre.recipes.text_streams import DatasetStream, DocumentStream, LineStream


SOURCES = [f"quelle {number} äöü \u2028 x" for number in range(40)]
TARGETS = [f"target {number}" for number in range(40)]


def write(path, lines, end="\n"):
    text = "".join(line + end for line in lines).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def pairs_of(folder, kind):
    """Write the same pairs in some way; return what reads them."""
    bad = StreamedBadLines("skip", "pairs")
    if kind == "saved":
        Dataset.from_dict({"source": SOURCES, "target": TARGETS}).save_to_disk(folder / "saved")
        opened = open_dataset(folder / "saved", None, None, ("source", "target"), streaming=True)
        return DatasetStream("saved", opened, partial(parse_fields, fields=("source", "target")), bad)
    if kind == "streamed":
        data = Dataset.from_dict({"pair": [{"a": a, "b": b} for a, b in zip(SOURCES, TARGETS, strict=True)]})
        (folder / "parts").mkdir()
        for part in range(3):
            data.shard(3, part, contiguous=True).to_parquet(folder / "parts" / f"train-{part}.parquet")
        opened = open_dataset(folder / "parts", "train", None, ("pair.a", "pair.b"), streaming=True)
        return DatasetStream("parts", opened, partial(parse_fields, fields=("pair.a", "pair.b")), bad)
    rows = zip(SOURCES, TARGETS, strict=True)
    if kind == "tsv":
        paths, parse = pair_files(write(folder / "a.tsv.gz", map("\t".join, rows)), None, "source", "target")
    elif kind == "jsonl":
        lines = [json.dumps({"source": source, "target": target}) for source, target in rows]
        paths, parse = pair_files(write(folder / "a.jsonl", lines), None, "source", "target")
    else:
        end = "\r\n" if kind == "windows" else "\n"
        target = write(folder / "a.en.gz", TARGETS, end)
        paths, parse = pair_files(write(folder / "a.de", SOURCES, end), target, "source", "target")
    return LineStream(paths, parse, bad)


@pytest.mark.parametrize("kind", ["parallel", "windows", "tsv", "jsonl", "saved", "streamed"])
def test_pairs_come_in_order_and_go_on_from_any_place(tmp_path, kind):
    stream = pairs_of(tmp_path, kind)
    everything = list(stream)
    assert [row.texts for row in everything] == list(zip(SOURCES, TARGETS, strict=True))
    assert [row.number for row in everything] == list(range(1, 41))
    for stop in (0, 1, 13, 14, 39, 40):
        stream.restart()
        begun = [next(stream) for _ in range(stop)]
        place = json.loads(json.dumps(stream.place()))
        list(stream)
        stream.restart(place)
        assert stream.place() == place
        assert begun + list(stream) == everything


@pytest.mark.parametrize("separator", [None, "<end>", "\n", "\n\n"], ids=["file", "word", "line", "blank line"])
@pytest.mark.parametrize("part", [None, 5, 50, 10_000], ids="part={}".format)
def test_documents_in_parts_are_those_that_are_read_at_once(tmp_path, separator, part):
    folder = tmp_path / "texts"
    folder.mkdir()
    between = separator or "\n"
    texts = [[f"{'wort ' * (3 * number + 1)}ä\nzeile {number} <e  nd>" for number in range(n)] for n in (7, 3, 5)]
    for number, documents in enumerate(texts):
        write(folder / f"{number}.txt{'.gz' * (number == 1)}", [between.join(documents)], "")
    expected = read_documents(folder, separator=separator)
    files, parse = document_files(folder, "text", separator)
    assert parse is None
    stream = DocumentStream(files, separator, StreamedBadLines("error", "documents"), part)
    rows = list(stream)
    found, whole = [], ""
    for row in rows:
        whole += row.texts[0]
        if row.ends:
            found.append(whole)
            whole = ""
    assert [text for text in found if text.strip()] == expected["text"][:]
    if part in (5, 50) and separator != "\n":
        assert len(rows) > len(expected)
        assert all(not row.texts[0][:1].strip() for before, row in pairwise(rows) if not before.ends)
    first = {row.origin for before, row in zip([None, *rows], rows, strict=False) if before is None or before.ends}
    assert set(expected["origin"]) <= first
    for stop in range(0, len(rows), 3):
        stream.restart()
        begun = [next(stream) for _ in range(stop)]
        place = json.loads(json.dumps(stream.place()))
        stream.restart(place)
        assert begun + list(stream) == rows


def test_no_more_than_a_row_is_read_ahead(tmp_path):
    path = write(tmp_path / "a.tsv", ["a\tb"] * 100_000)
    paths, parse = pair_files(path, None, "source", "target")
    stream = LineStream(paths, parse, StreamedBadLines("error", "pairs"))
    next(stream)
    assert stream.place()["offsets"] == [4]


def test_bad_lines_are_named_once_however_often_they_are_read(tmp_path, caplog):
    path = write(tmp_path / "a.tsv", ["a\tb", "no tab", "c\td", "\tempty"] * 6)
    bad = StreamedBadLines("skip", "pairs")
    paths, parse = pair_files(path, None, "source", "target")
    stream = LineStream(paths, parse, bad)
    with caplog.at_level("WARNING", "transformers"):
        import transformers

        transformers.utils.logging.enable_propagation()
        for _ in range(3):
            stream.restart()
            assert len(list(stream)) == 12
            bad.close(12)
        transformers.utils.logging.disable_propagation()
    messages = [record.getMessage() for record in caplog.records]
    assert [f"{path}:{line}: " in message for line, message in zip((2, 4, 6), messages, strict=False)] == [True] * 3
    assert "10 so far" in messages[3]
    assert "Left out 12 of 24 pairs" in messages[4]
    assert len(messages) == 5


def test_a_bad_line_stops_a_stream_where_it_is(tmp_path):
    path = write(tmp_path / "a.tsv", ["a\tb", "no tab"])
    paths, parse = pair_files(path, None, "source", "target")
    stream = LineStream(paths, parse, StreamedBadLines("error", "pairs"))
    next(stream)
    with pytest.raises(ValueError, match=r"a\.tsv:2: the number of columns is 1"):
        next(stream)


def test_parallel_files_of_unequal_length_are_named(tmp_path):
    paths, parse = pair_files(
        write(tmp_path / "a.de", SOURCES), write(tmp_path / "a.en", TARGETS[:7]), "source", "target"
    )
    stream = LineStream(paths, parse, StreamedBadLines("error", "pairs"))
    with pytest.raises(ValueError, match=r"a\.en ends after 7 lines, and .*a\.de does not"):
        list(stream)


def test_a_limit_counts_good_rows(tmp_path):
    paths, parse = pair_files(write(tmp_path / "a.tsv", ["a\tb", "bad", "c\td", "e\tf"]), None, "source", "target")
    stream = LineStream(paths, parse, StreamedBadLines("skip", "pairs"), 2)
    assert [row.number for row in stream] == [1, 3]
    assert len(read_pairs(tmp_path / "a.tsv", bad_lines="skip")) == 3


def test_a_separator_that_separates_nothing_is_named(tmp_path):
    path = write(tmp_path / "a.txt", ["some text"])
    stream = DocumentStream([path], "<end>", StreamedBadLines("error", "documents"), 100)
    with pytest.raises(ValueError, match="separator='<end>' does not stand between"):
        list(stream)
