import gzip
import json

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from transformer_theatre.recipes.data_arguments import PairDataArguments, TextDataArguments
from transformer_theatre.recipes.task_arguments import TaskDataArguments
from transformer_theatre.recipes.task_rows import split_off
from transformer_theatre.recipes.task_splits import metrics_of, read_splits
from transformer_theatre.recipes.train_language_model import read_text, read_texts, stream_texts
from transformer_theatre.recipes.train_translation import read_split


def write(path, *lines):
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def read(tmp_path, task, **options):
    return read_splits(task, TaskDataArguments(data_dir=str(tmp_path), **options))


def message_of(tmp_path, task, **options):
    with pytest.raises(ValueError, match=r"\S") as caught:
        read(tmp_path, task, **options)
    return str(caught.value).replace(f"{tmp_path}/", "")


def test_columns_of_a_tsv_are_numbers_and_labels_are_numbered_by_their_names(tmp_path):
    write(tmp_path / "a.tsv", "good\tx\ta fine film", "bad\ty\ta dull film", "1\tz\tall right")
    options = {"train_file": ["a.tsv"], "text_fields": ["3"], "label_field": "1"}
    found = read(tmp_path, "classification", labels=["bad", "good"], **options)
    assert found.names == ["bad", "good"]
    assert found.rows["train"][:] == {
        "text": ["a fine film", "a dull film", "all right"],
        "label": [1, 0, 1],
        "origin": ["a.tsv:1", "a.tsv:2", "a.tsv:3"],
    }


def test_classes_without_names_are_the_labels_of_the_training_rows_in_order(tmp_path):
    write(tmp_path / "a.tsv", "10\ta", "9\tb", "10\tc")
    write(tmp_path / "b.tsv", "9\ta")
    options = {"train_file": ["a.tsv"], "test_file": "b.tsv", "text_fields": ["2"], "label_field": "1"}
    found = read(tmp_path, "classification", **options)
    assert (found.names, found.rows["train"]["label"][:], found.rows["test"]["label"][:]) == (
        ["9", "10"],
        [1, 0, 1],
        [0],
    )
    write(tmp_path / "b.tsv", "9\ta", "8\tb")
    assert message_of(tmp_path, "classification", **options).startswith(
        "b.tsv:2: the label '8' must be one of 9, 10 ("
    )


def test_several_files_of_json_lines_are_one_after_the_other(tmp_path):
    rows = [{"premise": "a b", "hypothesis": "a", "gold": {"label": True}}]
    rows += [{"premise": "c", "hypothesis": "d", "gold": {"label": 0}}]
    write(tmp_path / "a.jsonl", json.dumps(rows[0]))
    with gzip.open(tmp_path / "b.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write(json.dumps(rows[1]) + "\n")
    found = read(tmp_path, "entailment", train_file=["a.jsonl", "b.jsonl"], label_field="gold.label", labels=["no", "yes"])  # fmt: skip
    assert found.rows["train"][:] == {
        "premise": ["a b", "c"],
        "hypothesis": ["a", "d"],
        "label": [1, 0],
        "origin": ["a.jsonl:1", "b.jsonl.gz:1"],
    }


def test_pairs_are_compared_by_numbers_or_by_classes(tmp_path):
    write(tmp_path / "a.tsv", "2.5\ta\tb", "0\tc\td")
    options = {"train_file": ["a.tsv"], "text_fields": ["2", "3"], "label_field": "1"}
    found = read(tmp_path, "similarity", **options)
    assert found.rows["train"].select_columns(["first", "second", "label"])[0] == {"first": "a", "second": "b", "label": 2.5}  # fmt: skip
    assert found.names == []
    data = TaskDataArguments(**options)
    assert metrics_of("similarity", data) == ["pearsonr", "spearmanr"]
    data.labels = ["other", "same"]
    assert metrics_of("similarity", data) == ["accuracy"]
    data.metrics = ["pearsonr"]
    with pytest.raises(ValueError, match="'pearsonr' is not of classes, which have: accuracy, f1"):
        metrics_of("similarity", data)
    write(tmp_path / "a.tsv", "nan\ta\tb")
    assert message_of(tmp_path, "similarity", **options).startswith("a.tsv:1: the label 'nan' must be a number")


def test_what_is_asked_stands_behind_the_context(tmp_path):
    rows = [{"p": "It rained.", "q": q, "one": "x", "two": "y", "label": 1} for q in ("cause", "effect")]
    write(tmp_path / "a.jsonl", *map(json.dumps, rows))
    options = {"train_file": ["a.jsonl"], "text_fields": ["p", "one", "two"], "question_field": "q"}
    found = read(tmp_path, "multiple_choice", question_words=["cause=because", "effect=so then"], **options)
    assert found.rows["train"]["context"][:] == ["It rained. because", "It rained. so then"]
    assert found.rows["train"]["answers"][:] == [["x", "y"], ["x", "y"]]
    message = message_of(tmp_path, "multiple_choice", question_words=["cause=because"], **options)
    assert message.startswith("a.jsonl:2: the field \"q\" is 'effect', and must be one of: cause")
    write(tmp_path / "a.jsonl", json.dumps({**rows[0], "label": 2}))
    message = message_of(tmp_path, "multiple_choice", question_words=["cause=because"], **options)
    assert message.startswith("a.jsonl:1: the label '2' must be the number of the right answer, 0 to 1")


@pytest.mark.parametrize(
    ("lines", "options", "message"),
    [
        (["1\ta", "1"], {}, "a.tsv:2: the number of columns is 1, but 2 are needed"),
        (["1\ta", "\tb"], {}, "a.tsv:2: the column 1 is empty"),
        (["1\ta", "0\t "], {}, "a.tsv:2: the column 2 is empty"),
        (["1\ta", "maybe\tb"], {"labels": ["no", "yes"]}, "a.tsv:2: the label 'maybe' must be one of no, yes"),
        (["1\ta", "1\tb"], {}, "All training rows have the label '1'"),
        (["yes\ta", "1\tb"], {"labels": ["no", "yes"]}, "All training rows have the label 'yes'"),
        (["1\ta", "0\tb"], {"text_fields": ["1"]}, "label_field=1 is one of text_fields=1: the answer would be read"),
        (["1\ta"], {"text_fields": ["text"]}, "a.tsv: 'text' must be the number of a column, from 1"),
        (["1\ta"], {"text_fields": ["2", "1"]}, "text_fields=2 1 must name what task classification reads: text"),
        (["1\ta"], {"train_file": ["b.tsv"]}, "There is no file b.tsv. Near names"),
        (["1\ta", "0\tb"], {"test_file": "a.tsv", "test_share": 0.5}, "test_share=0.5 has no use beside rows of their own"),
        (["1\ta", "0\tb"], {"question_field": "1", "question_words": ["a=b"]}, "question_field=1 is for task multiple_choice"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_file_and_line(tmp_path, lines, options, message):
    write(tmp_path / "a.tsv", *lines)
    given = {"train_file": ["a.tsv"], "text_fields": ["2"], "label_field": "1", **options}
    assert message_of(tmp_path, "classification", **given).startswith(message)


def test_bad_rows_can_be_left_out(tmp_path):
    write(tmp_path / "a.tsv", "1\ta", "2", "maybe\tb", "0\tc")
    options = {"train_file": ["a.tsv"], "text_fields": ["2"], "label_field": "1", "labels": ["no", "yes"]}
    found = read(tmp_path, "classification", bad_lines="skip", **options)
    assert found.rows["train"]["origin"][:] == ["a.tsv:1", "a.tsv:4"]


def test_a_file_of_another_kind_is_refused(tmp_path):
    write(tmp_path / "a.csv", "1,a")
    assert "a.csv holds no rows that can be read" in message_of(tmp_path, "classification", train_file=["a.csv"])


def test_a_data_set_names_its_own_classes(tmp_path):
    kinds = Features({"text": Value("string"), "label": ClassLabel(names=["bad", "good"])})
    rows = Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=kinds)
    DatasetDict({"train": rows, "dev": rows}).save_to_disk(tmp_path / "saved")
    found = read_splits("classification", TaskDataArguments(dataset=str(tmp_path / "saved"), validation_split="dev"))
    assert found.rows.keys() == {"train", "validation"}
    assert (found.names, found.rows["train"]["label"][:]) == (["bad", "good"], [1, 0])


def test_classes_of_a_data_set_whose_names_are_numbers_are_not_taken_for_others(tmp_path):
    kinds = Features({"text": Value("string"), "label": ClassLabel(names=["1", "2", "3"])})
    rows = Dataset.from_dict({"text": ["a", "b", "c"], "label": [0, 1, 2]}, features=kinds)
    rows.save_to_disk(tmp_path / "saved")  # without splits: it is what is trained on
    found = read_splits("classification", TaskDataArguments(dataset=str(tmp_path / "saved")))
    assert (found.names, found.rows["train"]["label"][:]) == (["1", "2", "3"], [0, 1, 2])
    unknown = Dataset.from_dict({"text": ["a", "b", "c"], "label": [0, 1, -1]}, features=kinds)
    unknown.save_to_disk(tmp_path / "unknown")
    with pytest.raises(ValueError, match=r"unknown\[train\]:3: the label '-1' must be the number of a class, 0 to 2"):
        read_splits("classification", TaskDataArguments(dataset=str(tmp_path / "unknown")))


def test_classes_of_a_data_set_may_have_other_names_and_be_answers_or_numbers(tmp_path):
    kinds = Features({name: Value("string") for name in "abc"} | {"label": ClassLabel(names=["1", "0"])})
    rows = Dataset.from_dict({"a": ["a", "b"], "b": ["c", "d"], "c": ["e", "f"], "label": [1, 0]}, features=kinds)
    rows.save_to_disk(tmp_path / "saved")

    def found(task, fields, names=(), **more):
        data = TaskDataArguments(dataset=str(tmp_path / "saved"), text_fields=list(fields), **more)
        splits = read_splits(task, data, names)
        return splits.names, splits.rows["train"]["label"][:]

    assert found("classification", "a", labels=["good", "bad"]) == (["good", "bad"], [1, 0])
    assert found("classification", "a", ["good", "bad"]) == (["good", "bad"], [1, 0])
    assert found("multiple_choice", "abc") == ([], [1, 0])
    assert found("similarity", "ab") == ([], [1.0, 0.0])


@pytest.mark.parametrize(("names", "label"), [("123", "0"), ("023", "1")])
def test_where_names_are_numbers_no_other_number_is_a_label(tmp_path, names, label):
    write(tmp_path / "train.tsv", *(f"text {name}\t{name}" for name in names))
    write(tmp_path / "test.tsv", f"text\t{names[1]}", f"text\t{label}")
    with pytest.raises(ValueError, match=rf"test.tsv:2: the label '{label}' must be one of {', '.join(names)}"):
        read(
            tmp_path,
            "classification",
            train_file=["train.tsv"],
            test_file=["test.tsv"],
            text_fields=["1"],
            label_field="2",
        )


@pytest.mark.parametrize(
    ("data", "file"),
    [
        (TaskDataArguments, {"train_file": ["a.tsv"]}),
        (TaskDataArguments, {"test_file": ["a.tsv"], "test_split": "test"}),
        (TextDataArguments, {"train_text": ["a.txt"]}),
        (TextDataArguments, {"validation_text": ["a.txt"], "validation_split": "dev"}),
        (PairDataArguments, {"test_source": "a.de", "test_split": "test"}),
        (PairDataArguments, {"train_target": "a.de"}),
    ],
)
def test_a_split_is_from_a_data_set_or_from_files(data, file):
    split = next(iter(file)).partition("_")[0]
    with pytest.raises(ValueError, match=rf"dataset=saved, {split}_split=\w+ and {next(iter(file))}=.*; give one"):
        data(dataset="saved", **file)


def test_files_stand_beside_a_data_set_for_splits_that_it_lacks(tmp_path):
    rows = {"text": ["a b", "c d"], "label": ["x", "y"], "source": ["a", "b"], "target": ["c", "d"]}
    Dataset.from_dict(rows).save_to_disk(tmp_path / "saved")
    lines = [json.dumps({"text": "e f", "label": "y", "source": "e", "target": "f"})]
    write(tmp_path / "held.jsonl", *lines)
    where = {"data_dir": str(tmp_path), "dataset": str(tmp_path / "saved")}
    data = TextDataArguments(**where, validation_text=["held.jsonl"])
    for train, held in (read_texts(data), (read_text(data, "train"), stream_texts(data)[1])):
        assert (train["text"][:], held["text"][:]) == (["a b", "c d"], ["e f"])
    found = read_splits("classification", TaskDataArguments(**where, test_file=["held.jsonl"]))
    assert (found.rows["train"]["label"][:], found.rows["test"]["label"][:]) == ([0, 1], [1])
    pairs = PairDataArguments(**where, validation_source="held.jsonl")
    assert [read_split(pairs, split)["target"][:] for split in ("train", "validation")] == [["c", "d"], ["f"]]
    assert read_split(pairs, "test") is None


def test_a_share_is_always_the_same_and_rows_of_a_text_stay_together():
    texts = [f"text {number % 700}" for number in range(1400)]
    rows = Dataset.from_dict({"number": list(range(1400))})
    left, taken = split_off(rows, texts, 0.0, 0.2)
    assert sorted([*left["number"], *taken["number"]]) == list(range(1400))
    assert 0.15 < len(taken) / 1400 < 0.25
    chosen = {texts[number] for number in taken["number"]}
    assert not chosen & {texts[number] for number in left["number"]}
    fewer = split_off(rows.select(range(900)), texts[:900], 0.0, 0.2)[1]["number"]
    assert fewer[:] == [number for number in taken["number"] if number < 900]
    assert not chosen & {texts[number] for number in split_off(rows, texts, 0.2, 0.3)[1]["number"]}


def test_shares_of_the_training_rows_take_the_place_of_files(tmp_path):
    write(tmp_path / "a.tsv", *(f"{number % 2}\ttext {number}" for number in range(400)))
    options = {"train_file": ["a.tsv"], "text_fields": ["2"], "label_field": "1"}
    found = read(tmp_path, "classification", validation_share=0.25, test_share=0.25, max_train_samples=50, **options)
    splits = {split: set(rows["text"]) for split, rows in found.rows.items()}
    assert len(splits["train"]) == 50
    assert all(70 < len(splits[split]) < 130 for split in ("validation", "test"))
    assert len(set.union(*splits.values())) == sum(map(len, splits.values()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": ["a"]}, "labels=a must be two names or more"),
        ({"labels": ["a", "a"]}, "labels=a a must be two names or more, none of them twice"),
        ({"metrics": ["acuracy"]}, r"'acuracy' must be one of: accuracy, .*did you mean 'accuracy'"),
        ({"validation_share": 1.0}, "validation_share=1.0 must be at least 0, and below 1"),
        ({"validation_share": 0.6, "test_share": 0.6}, "leave nothing to train on"),
        ({"question_words": ["cause"], "question_field": "q"}, "'cause' must be a value and its words"),
        ({"question_field": "q"}, "question_field and question_words go together"),
        ({"max_length": 2}, "max_length=2 must be 3 or more"),
    ],
)  # fmt: skip
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        TaskDataArguments(**options)


def test_names_in_another_order_than_those_of_the_data_set_are_refused(tmp_path):
    kinds = Features({"text": Value("string"), "label": ClassLabel(names=["bad", "good"])})
    Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=kinds).save_to_disk(tmp_path / "saved")
    with pytest.raises(ValueError, match="labels=good bad: the data set has them in another order, bad good"):
        read_splits("classification", TaskDataArguments(dataset=str(tmp_path / "saved"), labels=["good", "bad"]))


def test_a_score_that_the_library_takes_for_no_label_is_named(tmp_path):
    write(tmp_path / "a.tsv", "2.5\ta\tb", "-100.0\tc\td")
    options = {"train_file": ["a.tsv"], "text_fields": ["2", "3"], "label_field": "1"}
    assert message_of(tmp_path, "similarity", **options).startswith("a.tsv:2: the label -100 is what the library")


def test_labels_that_are_none_are_named(tmp_path):
    options = {"train_file": ["a.jsonl"]}
    for label, problem in (
        ("NaN", "is empty"),
        ("[1]", "is [1], and must be one label"),
        ('{"a": 1}', "is {'a': 1}, and must be one label"),
        ('"one\\ntwo"', "is 'one\\ntwo', and a label is one line of text"),
    ):
        write(tmp_path / "a.jsonl", '{"text": "a", "label": "x"}', f'{{"text": "b", "label": {label}}}')
        assert message_of(tmp_path, "classification", **options).startswith(f'a.jsonl:2: the field "label" {problem}')


def test_one_label_is_one_class_however_it_is_written(tmp_path):
    write(tmp_path / "a.jsonl", *(f'{{"text": "a", "label": {label}}}' for label in ("1.0", "1", '"0 "', "0")))
    found = read(tmp_path, "classification", train_file=["a.jsonl"])
    assert (found.names, found.rows["train"]["label"][:]) == (["0", "1"], [1, 1, 0, 0])
    write(tmp_path / "a.tsv", "pos \ta", "pos\tb", "neg\tc")
    found = read(tmp_path, "classification", train_file=["a.tsv"], text_fields=["2"], label_field="1")
    assert (found.names, found.rows["train"]["label"][:]) == (["neg", "pos"], [1, 1, 0])


@pytest.mark.parametrize("word", ["نیمه‌خوب", "très\u00a0bien", "👩‍🔬", "a b"])
def test_labels_in_any_script_are_labels(tmp_path, word):
    write(tmp_path / "a.tsv", f"{word}\ta", "other\tb")
    found = read(tmp_path, "classification", train_file=["a.tsv"], text_fields=["2"], label_field="1")
    assert set(found.names) == {word, "other"}


@pytest.mark.parametrize("names", [["1.0", "0.0"], ["1", "0"], [" 1 ", "0"]])
def test_numbers_are_the_classes_of_their_names_however_they_are_written(tmp_path, names):
    write(tmp_path / "a.jsonl", *(f'{{"text": "a", "label": {label}}}' for label in ("1.0", "0.0", "1.0")))
    found = read(tmp_path, "classification", train_file=["a.jsonl"], labels=names)
    assert (found.names, found.rows["train"]["label"][:]) == (names, [0, 1, 0])
    write(tmp_path / "a.tsv", "1.0\ta", "2.0\tb")
    write(tmp_path / "b.jsonl", '{"text": "a", "label": 2.0}', '{"text": "a", "label": 1}')
    options = {"text_fields": ["2"], "label_field": "1"}
    found = read(tmp_path, "classification", train_file=["a.tsv"], **options)
    assert (found.names, found.rows["train"]["label"][:]) == (["1", "2"], [0, 1])
    found = read(tmp_path, "classification", train_file=["b.jsonl"], labels=["1.0", "2.0"])
    assert "the label '1' must be one of 2.0, 3.0 (" in message_of(
        tmp_path, "classification", train_file=["b.jsonl"], labels=["2.0", "3.0"]
    )
    assert found.rows["train"]["label"][:] == [1, 0]


def test_a_folder_that_has_the_name_of_a_format_is_read_and_nothing_around_it(tmp_path, monkeypatch):
    (tmp_path / "csv").mkdir()
    write(tmp_path / "csv" / "mine.csv", "text,label", "one,a", "two,b")
    write(tmp_path / "other.csv", "text,label", "three,x", "four,y")
    monkeypatch.chdir(tmp_path)
    assert read_splits("classification", TaskDataArguments(dataset="csv")).names == ["a", "b"]
