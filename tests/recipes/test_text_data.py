import gzip
import json
import logging

import datasets
import pytest
from datasets import Dataset, DatasetDict

from transformer_theatre.recipes import text_data
from transformer_theatre.recipes.row_parsing import BadLineError, json_object
from transformer_theatre.recipes.text_data import is_local, load_documents, load_pairs, read_documents, read_pairs


SOURCES = ["Ein Haus.", " zwei  H\u00e4user ", 'Er sagt: "Ja"', "\U0001f3ad e\u0301"]
TARGETS = ["A house.", "two houses", 'He says "yes', "\u821e\u53f0"]


@pytest.fixture(autouse=True)
def quiet():
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


@pytest.fixture
def write(tmp_path):
    def write_file(name, content):
        data = content if isinstance(content, bytes) else content.encode("utf-8")
        path = tmp_path / name
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return path

    return write_file


def lines(texts):
    return "".join(f"{text}\n" for text in texts)


def tsv(*columns):
    return lines("\t".join(cells) for cells in zip(*columns, strict=True))


def json_lines(rows):
    return lines(json.dumps(row) for row in rows)


def message_of(action, *arguments, **options):
    """Run what must fail, and return the message, which must be one line."""
    with pytest.raises(ValueError, match=r"\S") as caught:
        action(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("packed", ["", ".gz"], ids=["plain", "gzipped"])
@pytest.mark.parametrize("kind", ["parallel", "tsv", "jsonl", "nested"])
def test_every_format_gives_the_same_pairs(write, kind, packed):
    flat = [{"source": s, "target": t} for s, t in zip(SOURCES, TARGETS, strict=True)]
    if kind == "parallel":
        source = write(f"text.de{packed}", lines(SOURCES))
        pairs = read_pairs(source, write(f"text.en{packed}", lines(TARGETS)))
    elif kind == "tsv":
        source = write(f"text.tsv{packed}", tsv(SOURCES, TARGETS))
        pairs = read_pairs(source)
    elif kind == "jsonl":
        source = write(f"text.jsonl{packed}", json_lines(flat))
        pairs = read_pairs(source)
    else:
        source = write(f"text.jsonl{packed}", json_lines({"id": 7, "translation": row} for row in flat))
        pairs = read_pairs(source, source_field="translation.source", target_field="translation.target")
    assert pairs[:] == {
        "source": SOURCES,
        "target": TARGETS,
        "origin": [f"{source.name}:{number}" for number in range(1, len(SOURCES) + 1)],
    }


@pytest.mark.parametrize("character", "\r\v\f\x1c\x1d\x1e\x85\u2028\u2029", ids=ascii)
def test_only_newlines_end_a_line(write, character):
    sources = [f"one{character}two", "three", f"{character}four"]
    pairs = read_pairs(write("a.de", lines(sources)), write("a.en", lines("abc")))
    assert list(pairs["source"]) == sources
    assert read_documents(write("a.txt", lines(sources)))["text"][0] == lines(sources)


def test_windows_line_ends_are_line_ends(write):
    windows = [
        write(name, text.replace("\n", "\r\n")) for name, text in (("w.de", lines(SOURCES)), ("w.en", lines(TARGETS)))
    ]
    unix = [write("u.de", lines(SOURCES)), write("u.en", lines(TARGETS))]
    assert read_pairs(*windows)[:]["source"] == read_pairs(*unix)[:]["source"]
    assert read_documents(windows[0])["text"][0] == read_documents(unix[0])["text"][0]


def test_the_last_line_needs_no_newline(write):
    pairs = read_pairs(write("a.tsv", tsv(SOURCES, TARGETS).removesuffix("\n")))
    assert list(pairs["target"]) == TARGETS


def test_a_byte_order_mark_is_no_part_of_the_first_line(write):
    marked = [f"\ufeff{text}" for text in SOURCES]
    pairs = read_pairs(write("a.de", lines(marked)), write("a.en", lines(TARGETS)))
    assert list(pairs["source"]) == [SOURCES[0], *marked[1:]]


def test_a_list_of_targets_makes_as_many_pairs(write, tmp_path):
    rows = [{"source": "a", "target": ["b", "c"]}, {"source": "d", "target": "e"}]
    pairs = read_pairs(write("a.jsonl", json_lines(rows)))
    assert list(zip(*(pairs[name] for name in ("source", "target", "origin")), strict=True)) == [
        ("a", "b", "a.jsonl:1"),
        ("a", "c", "a.jsonl:1"),
        ("d", "e", "a.jsonl:2"),
    ]
    Dataset.from_dict({"source": ["a"], "target": [["b", "c"]]}).save_to_disk(tmp_path / "saved")
    assert load_pairs(tmp_path / "saved")["target"][:] == ["b", "c"]


def test_columns_of_a_tsv_are_chosen_by_number(write):
    path = write("a.tsv", tsv(["x", "y", "z", "w"], TARGETS, SOURCES))
    pairs = read_pairs(path, source_field="3", target_field=2)
    assert pairs[:]["source"] == SOURCES
    assert pairs[:]["target"] == TARGETS


GOOD = {"source": "a", "target": "b"}
BAD_ROWS = {
    "empty side": ("a.tsv", "x\ty\n\tz\n", 2, ["column 1 is empty"]),
    "blank side": ("a.tsv", "x\ty\nx\t \u3000\n", 2, ["column 2 is empty"]),
    "too few columns": ("a.tsv", "x\ty\nx y\n", 2, ["columns is 1", "2 are needed"]),
    "blank line": ("a.tsv", "x\ty\n\nx\ty\n", 2, ["columns is 1"]),
    "malformed JSON": ("a.jsonl", json_lines([GOOD]) + '{"source": "a",\n', 2, ["not JSON", "character 16"]),
    "no object": ("a.jsonl", json_lines([GOOD, ["a", "b"]]), 2, ["['a', 'b']", "not a JSON object"]),
    "missing field": (
        "a.jsonl",
        json_lines([GOOD, {"source": "a", "x": {"en": "b"}}]),
        2,
        ['"target"', "source, x.en"],
    ),
    "no string": (
        "a.jsonl",
        json_lines([GOOD, {"source": "a", "target": 7}]),
        2,
        ['"target"', "7", "int", "not a string"],
    ),
    "no targets": ("a.jsonl", json_lines([{"source": "a", "target": []}]), 1, ['"target"', "[]", "not a string"]),
    "empty target": ("a.jsonl", json_lines([{"source": "a", "target": ["b", " "]}]), 1, ['"target"', "is empty"]),
    "number in a list": (
        "a.jsonl",
        json_lines([{"source": "a", "target": ["b", 7]}]),
        1,
        ['"target"', "not a string"],
    ),
    "list of sources": ("a.jsonl", json_lines([{"source": ["a"], "target": "b"}]), 1, ['"source"', "not a string"]),
    "null": ("a.jsonl", json_lines([{"source": None, "target": "b"}]), 1, ['"source"', "None", "not a string"]),
    "half a surrogate": (
        "a.jsonl",
        json_lines([GOOD, {"source": "\ud83d", "target": "b"}]),
        2,
        ['"source"', "surrogate"],
    ),
}


@pytest.mark.parametrize(("name", "content", "line", "words"), BAD_ROWS.values(), ids=list(BAD_ROWS))
def test_a_bad_line_is_named_with_its_file_line_and_cure(write, name, content, line, words):
    path = write(name, content)
    message = message_of(read_pairs, path)
    assert message.startswith(f"{path}:{line}: ")
    assert all(word in message for word in [*words, 'bad_lines="skip"'])


@pytest.mark.parametrize(("name", "content", "line", "words"), BAD_ROWS.values(), ids=list(BAD_ROWS))
def test_skipped_lines_are_counted_and_named(write, caplog, name, content, line, words):
    good = "kept\tgekept\n" if name.endswith(".tsv") else json_lines([{"source": "kept", "target": "gekept"}])
    path = write(name, content + good)
    with caplog.at_level(logging.WARNING):
        pairs = read_pairs(path, bad_lines="skip")
    total = (content + good).count("\n")
    assert len(pairs) == total - 1
    assert pairs[-1] == {"source": "kept", "target": "gekept", "origin": f"{name}:{total}"}
    (record,) = caplog.records
    assert f"Left out 1 of {total} pairs: {path}:{line}: " in record.message
    assert all(word in record.message for word in words)


def test_many_skipped_lines_make_one_warning_with_the_first_origins(write, caplog):
    count = 1500
    source = write("a.de", lines("" if number % 3 == 0 else "x" for number in range(count)))
    with caplog.at_level(logging.WARNING):
        pairs = read_pairs(source, write("a.en", lines("y" * count)), bad_lines="skip")
    assert [int(origin.split(":")[1]) - 1 for origin in pairs["origin"]] == [n for n in range(count) if n % 3]
    (record,) = caplog.records
    assert f"Left out {count // 3:,} of {count:,} pairs" in record.message
    assert [f"{source}:{line}:" in record.message for line in (1, 4, 7, 10)] == [True, True, True, False]
    assert f"and {count // 3 - 3:,} more" in record.message


def test_a_clean_file_makes_no_warning(write, caplog):
    with caplog.at_level(logging.WARNING):
        read_pairs(write("a.tsv", tsv(SOURCES, TARGETS)), bad_lines="skip")
    assert not caplog.records


def test_skipping_every_line_is_an_error(write):
    path = write("a.tsv", "one\ntwo\n")
    message = message_of(read_pairs, path, bad_lines="skip")
    assert "None of the 2 pairs" in message
    assert f"{path}:1:" in message


@pytest.mark.parametrize("mode", ["error", "skip"])
def test_files_of_unequal_length_are_always_an_error(write, mode):
    source, target = write("a.de", lines("abc")), write("a.en", lines("ab"))
    message = message_of(read_pairs, source, target, bad_lines=mode)
    assert f"{source} has 3 lines" in message
    assert f"{target} has 2" in message


@pytest.mark.parametrize("mode", ["error", "skip"])
@pytest.mark.parametrize("start", ["", "\ufeff"], ids=["plain", "marked"])
@pytest.mark.parametrize("name", ["a.tsv", "a.tsv.gz"])
def test_bytes_that_are_not_utf8_are_always_an_error(write, name, start, mode):
    content = f"{start}x\ty\r\n\u00e9\tz".encode() + b"\xe9\tq\n"
    path = write(name, content)
    message = message_of(read_pairs, path, bad_lines=mode)
    assert message.startswith(
        f"{path}:2: byte 0xe9 at offset {content.index(0xE9, content.index(b'z')):,} is not UTF-8"
    )


def truncated(data):
    return data[:-9]


def corrupted(data):
    return data[:-12] + bytes(255 - byte for byte in data[-12:])


def scrambled(data):
    return data[:30] + bytes(255 - byte for byte in data[30:60]) + data[60:]


def unpacked(data):
    return gzip.decompress(data)


@pytest.mark.parametrize("damage", [truncated, corrupted, scrambled, unpacked])
def test_a_damaged_gzip_is_an_error(write, damage):
    path = write("a.tsv.gz", tsv(SOURCES * 50, TARGETS * 50))
    path.write_bytes(damage(path.read_bytes()))
    message = message_of(read_pairs, path)
    assert message.startswith(f"{path} is not a whole gzip file")


@pytest.mark.parametrize("name", ["a.tsv", "a.jsonl.gz", "a.txt"])
@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf"], ids=["nothing", "only a mark"])
def test_an_empty_file_is_an_error(write, name, content):
    path = write(name, content)
    read = read_documents if name == "a.txt" else read_pairs
    assert message_of(read, path).startswith(f"{path} is empty")


def test_an_empty_side_of_parallel_files_is_an_error(write):
    source, empty = write("a.de", lines("abc")), write("a.en", b"")
    assert message_of(read_pairs, source, empty).startswith(f"{empty} is empty")


@pytest.mark.parametrize("read", [read_pairs, read_documents, load_pairs, load_documents])
def test_a_missing_file_is_named_with_its_neighbours(write, tmp_path, read):
    write("trains.tsv.gz", "x\ty\n")
    message = message_of(read, tmp_path / "train.tsv")
    assert str(tmp_path / "train.tsv") in message
    assert "trains.tsv.gz" in message.split("Near names")[1]
    assert "no folder" in message_of(read, tmp_path / "nowhere" / "train.tsv").lower()


def test_a_folder_is_no_file(tmp_path, write):
    assert message_of(read_pairs, tmp_path).startswith(f"{tmp_path} is a folder")
    assert message_of(read_pairs, write("a.de", "x\n"), tmp_path).startswith(f"{tmp_path} is a folder")


def test_settings_that_do_not_apply_are_errors(write):
    plain, table, rows = write("a.de", "x\n"), write("a.tsv", "x\ty\n"), write("a.jsonl", json_lines([GOOD]))
    assert "needs a target file" in message_of(read_pairs, plain)
    assert "translation.de" in message_of(read_pairs, plain, plain, source_field="translation.de")
    assert str(table) in message_of(read_pairs, plain, table)
    assert "target_field='de' must be a column's number" in message_of(read_pairs, table, target_field="de")
    assert "source_field='0'" in message_of(read_pairs, table, source_field=0)
    assert "bad_lines='ignore'" in message_of(read_pairs, table, bad_lines="ignore")
    assert "text_field='body'" in message_of(read_documents, plain, text_field="body")
    assert "separator" in message_of(read_documents, rows, separator="\n")


def test_a_text_file_is_one_document_to_the_last_character(write):
    text = "  One.\n\n\tTwo\u2028\x0c three  \n\n"
    path = write("a.txt.gz", text)
    assert read_documents(path)[:] == {"text": [text], "origin": ["a.txt.gz:1"]}


def test_a_folder_gives_its_text_files_by_name(write, tmp_path):
    for name in ("b.txt", "a.txt.gz", "c.md"):
        write(name, f"text of {name}\n")
    assert read_documents(tmp_path)[:] == {
        "text": ["text of a.txt.gz\n", "text of b.txt\n"],
        "origin": ["a.txt.gz:1", "b.txt:1"],
    }


def test_a_folder_without_text_is_an_error(write, tmp_path):
    write("c.md", "text")
    assert f"{tmp_path} holds no .txt" in message_of(read_documents, tmp_path)


def test_json_lines_give_a_document_a_row(write, caplog):
    path = write(
        "a.jsonl", json_lines([{"body": {"text": "one\ntwo"}}, {"body": {"text": ""}}, {"body": {"text": "three"}}])
    )
    assert message_of(read_documents, path, text_field="body.text").startswith(f"{path}:2: ")
    kept = read_documents(path, text_field="body.text", bad_lines="skip")
    assert kept[:] == {"text": ["one\ntwo", "three"], "origin": ["a.jsonl:1", "a.jsonl:3"]}
    assert "Left out 1 of 3 documents" in caplog.text


@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv"])
def test_a_table_is_no_running_text(write, name):
    with pytest.raises(ValueError, match=rf"{name} is a table and no running text: make a .jsonl file of it"):
        read_documents(write(name, "label,text\n1,good\n"))


@pytest.mark.parametrize("separator", ["\n", "<|endoftext|>", "\n<|endoftext|>\n", "\n\n"])
def test_a_separator_cuts_a_text_into_documents(write, separator):
    documents = ["one", "two", "three"]
    text = separator.join(documents) + separator
    found = read_documents(write("a.txt", text), separator=separator)
    assert list(found["text"]) == documents
    starts = [text[: text.index(document)].count("\n") + 1 for document in documents]
    assert list(found["origin"]) == [f"a.txt:{line}" for line in starts]


def test_a_separator_that_does_not_occur_is_an_error(write):
    assert "'<end>'" in message_of(read_documents, write("a.txt", "one\ntwo\n"), separator="<end>")


NESTED = {"translation": [{"de": s, "en": t} for s, t in zip(SOURCES, TARGETS, strict=True)], "id": [1, 2, 3, 4]}


def test_a_saved_dataset_gives_its_pairs(tmp_path):
    Dataset.from_dict(NESTED).save_to_disk(tmp_path / "saved")
    pairs = load_pairs(tmp_path / "saved", None, "translation.de", "translation.en")
    assert pairs[:] == {"source": SOURCES, "target": TARGETS, "origin": [f"saved:{number}" for number in (1, 2, 3, 4)]}
    message = message_of(load_pairs, tmp_path / "saved", "test", "translation.de", "translation.en")
    assert "split='test'" in message
    assert "without splits, which is called train" in message
    assert load_pairs(tmp_path / "saved", "train", "translation.de", "translation.en")["source"][:] == SOURCES


def test_splits_of_a_saved_dataset_are_chosen_by_name(tmp_path):
    parts = {name: Dataset.from_dict({"text": [f"the {name} text"]}) for name in ("train", "test")}
    DatasetDict(parts).save_to_disk(tmp_path / "saved")
    assert load_documents(tmp_path / "saved", "test")["text"][0] == "the test text"
    for split in (None, "validation"):
        message = message_of(load_documents, tmp_path / "saved", split)
        assert f"split={split!r}" in message
        assert "train, test" in message


def test_a_bad_row_of_a_dataset_is_named(tmp_path, caplog):
    Dataset.from_dict({"source": ["a", None, ""], "target": ["x", "y", "z"]}).save_to_disk(tmp_path / "saved")
    assert message_of(load_pairs, tmp_path / "saved").startswith(f"{tmp_path / 'saved'}:2: ")
    assert len(load_pairs(tmp_path / "saved", bad_lines="skip")) == 1
    assert "Left out 2 of 3 pairs" in caplog.text
    assert "the fields are: source, target" in message_of(load_pairs, tmp_path / "saved", source_field="de")


def test_what_is_spelled_as_a_path_never_reaches_the_hub(monkeypatch, tmp_path):
    monkeypatch.setattr(text_data, "load_dataset", lambda *_, **__: pytest.fail("asked the Hub"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    for name in (
        "/no/where",
        "./pairs",
        "~/no-such-folder",
        "a/b/c",
        "runs/pairs",
        "pairs.tsv",
        "data/pairs.jsonl.gz",
    ):
        assert is_local(name)
        message_of(load_pairs, name)
    assert not any(map(is_local, ("wmt14", "user/pairs")))


def test_a_name_that_is_no_path_is_loaded_from_the_hub(monkeypatch):
    asked = []

    def load_dataset(*arguments, **options):
        asked.append((arguments, options))
        return Dataset.from_dict(NESTED, split="validation")

    monkeypatch.setattr(text_data, "load_dataset", load_dataset)
    pairs = load_pairs("user/pairs", "validation", "translation.de", "translation.en", config_name="de-en")
    assert asked == [(("user/pairs", "de-en"), {"split": "validation"})]
    assert pairs["origin"][0] == "user/pairs[validation]:1"
    assert pairs[:]["target"] == TARGETS


def test_a_failure_of_the_hub_is_one_line(monkeypatch):
    def load_dataset(*_, **__):
        raise ConnectionError("no route\nmany\nmore\nlines")

    monkeypatch.setattr(text_data, "load_dataset", load_dataset)
    message = message_of(load_pairs, "user/pairs")
    assert "user/pairs" in message
    assert "no route" in message


def test_parallel_files_of_multi30k_read_whole(shared_data):
    folder = shared_data / "mt" / "multi30k_en_de"
    pairs = read_pairs(folder / "val.de", folder / "val.en")
    assert lines(pairs["source"]) == (folder / "val.de").read_bytes().decode()
    assert lines(pairs["target"]) == (folder / "val.en").read_bytes().decode()


def test_a_name_stands_for_the_file_packed_or_unpacked(write, tmp_path):
    write("a.tsv.gz", "x\ty\n")
    write("b.tsv", "x\ty\n")
    assert read_pairs(tmp_path / "a.tsv")["origin"] == ["a.tsv.gz:1"]
    assert read_pairs(tmp_path / "b.tsv.gz")["origin"] == ["b.tsv:1"]


@pytest.mark.parametrize("line", ["[" * 100_000, '{"text": ' + "9" * 5_000 + "}"], ids=["nested", "digits"])
def test_json_that_python_cannot_read_is_a_bad_line(line):
    with pytest.raises(BadLineError, match="the line is JSON that cannot be read"):
        json_object(line, "text")


def test_what_is_left_out_of_a_folder_is_named(tmp_path, caplog):
    for name in ("a.txt", "notes.md", "sub/b.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("Some text.", encoding="utf-8")
    assert read_documents(tmp_path)["text"][:] == ["Some text."]
    assert "1 files are read, and none of another ending or in a folder: not notes.md, sub." in caplog.text


def test_an_array_of_json_is_known_as_one(tmp_path):
    (tmp_path / "a.json").write_text('[\n{"text": "a"}\n]', encoding="utf-8")
    with pytest.raises(ValueError, match=r"a.json:1: .*one array for all is no JSON lines: `jq -c .\[\] FILE`"):
        read_documents(tmp_path / "a.json")
