"""`theatre classify`, and the library's own pipeline on the same models."""

import io
import sys

import pytest
import torch
from transformers import pipeline

from transformer_theatre import (
    GPTConfig,
    GPTForCausalLM,
    GPTForMultipleChoice,
    GPTForSequenceClassification,
    LSTMForSequenceClassification,
)
from transformer_theatre.recipes.stdin_lines import CHUNK
from transformer_theatre.recipes.task_inputs import add_task_tokens
from transformer_theatre.recipes.task_rows import RowFormat, _cells_of
from transformer_theatre.recipes.theatre import main
from transformer_theatre.recipes.tokenization import train_bpe_tokenizer


TEXTS = ["the tree", "a house by the river", "tree", "and the other tree, there", "river river river river"]
SIZES = {"d_model": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "ffn_dim": 32, "max_position_embeddings": 32}
LSTM_SIZES = {"hidden_size": 16, "attention": "none", "input_feeding": False, "initializer_range": 0.8}


@pytest.fixture
def fine_tuned(tmp_path):
    """Save a model for a task, whose answers differ from text to text: `fine_tuned("entailment")`."""

    def save(task, model_class=GPTForSequenceClassification, **fields):
        torch.manual_seed(2)
        plain = train_bpe_tokenizer(TEXTS * 3, 280, appends_eos=False)
        config_class = model_class.config_class
        sizes = SIZES if config_class is GPTConfig else LSTM_SIZES
        model = model_class(config_class(vocab_size=len(plain), **sizes, **fields)).eval()
        tokenizer = add_task_tokens(plain, model)
        torch.nn.init.normal_(model.classifier.weight, std=2.0)
        model.config.finetuning_task = task
        model.save_pretrained(tmp_path / "model")
        tokenizer.save_pretrained(tmp_path / "model")
        return model, tokenizer, str(tmp_path / "model")

    return save


def lines_of(capsys, *words):
    capsys.readouterr()
    assert main(["classify", *words]) == 0
    return capsys.readouterr().out.removesuffix("\n").split("\n")


def write(path, lines):
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(path)


def logits_alone(model, tokenizer, *texts):
    with torch.no_grad():
        return model(**tokenizer(*([text] for text in texts), return_tensors="pt")).logits[0]


@pytest.mark.parametrize("model_class", [GPTForSequenceClassification, LSTMForSequenceClassification])
def test_every_line_is_the_answer_of_the_librarys_pipeline(fine_tuned, tmp_path, capsys, model_class):
    names = {"id2label": {0: "bad", 1: "so so", 2: "good"}, "label2id": {"bad": 0, "so so": 1, "good": 2}}
    _, _, folder = fine_tuned("classification", model_class, **names)
    lines = lines_of(capsys, folder, write(tmp_path / "texts.txt", TEXTS))
    expected = pipeline("text-classification", model=folder)(TEXTS)
    assert lines == [f"{one['label']}\t{one['score']:.4f}" for one in expected]
    assert len(set(lines)) > 2


def test_pairs_are_read_as_the_library_reads_them_and_blank_lines_stay(fine_tuned, tmp_path, capsys):
    model, tokenizer, folder = fine_tuned("entailment", num_labels=2)
    pairs = [(a, b) for a in TEXTS for b in TEXTS[:2]]
    lines = [f"{a}\t{b}" for a, b in pairs]
    found = lines_of(capsys, folder, write(tmp_path / "pairs.tsv", [*lines[:3], "", *lines[3:]]))
    assert found.pop(3) == ""
    answers = [logits_alone(model, tokenizer, *pair).softmax(-1) for pair in pairs]
    assert found == [f"LABEL_{int(p.argmax())}\t{float(p.max()):.4f}" for p in answers]
    texts = [{"text": a, "text_pair": b} for a, b in pairs]
    expected = pipeline("text-classification", model=folder)(texts)
    assert found == [f"{one['label']}\t{one['score']:.4f}" for one in expected]


def test_texts_are_compared_in_both_orders_and_their_number_is_printed(fine_tuned, tmp_path, capsys):
    model, tokenizer, folder = fine_tuned("similarity", num_labels=1, problem_type="regression")
    found = lines_of(
        capsys, folder, write(tmp_path / "pairs.tsv", [f"{TEXTS[0]}\t{TEXTS[1]}", f"{TEXTS[1]}\t{TEXTS[0]}"])
    )
    # Alone, an order counts twice.
    expected = sum(logits_alone(model, tokenizer, *pair) / 2 for pair in (TEXTS[:2], TEXTS[1::-1]))
    assert found == [f"{float(expected[0]):.4f}"] * 2
    # The library's pipeline reads one order: of a text and itself both are the same.
    [found] = lines_of(capsys, folder, write(tmp_path / "same.tsv", [f"{TEXTS[0]}\t{TEXTS[0]}"]))
    same = {"text": TEXTS[0], "text_pair": TEXTS[0]}
    [read] = pipeline("text-classification", model=folder)([same], function_to_apply="none")
    assert read["score"] == pytest.approx(float(found), abs=1e-4)


def test_of_answers_the_number_of_the_chosen_one_is_printed(fine_tuned, tmp_path, capsys, monkeypatch):
    model, tokenizer, folder = fine_tuned("multiple_choice", GPTForMultipleChoice)
    rows = [TEXTS[:3], TEXTS[1:], [TEXTS[4], *TEXTS[:2]]]
    lines = ["\t".join(row) for row in rows]
    found = lines_of(capsys, folder, write(tmp_path / "rows.tsv", lines))
    for line, (context, *answers) in zip(found, rows, strict=True):
        with torch.no_grad():
            inputs = tokenizer([context] * len(answers), answers, padding=True, return_tensors="pt")
            p = model(**{name: values[None] for name, values in inputs.items()}).logits[0].softmax(-1)
        assert line == f"{int(p.argmax())}\t{float(p.max()):.4f}"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\n".join(lines).encode()), encoding="utf-8"))
    assert lines_of(capsys, folder) == found


def test_the_question_of_a_line_puts_its_word_behind_the_context_as_in_training(fine_tuned, tmp_path, capsys):
    words = {"cause": "because", "effect": "so"}
    form = RowFormat(("context", "one", "two"), question="question", question_words=words)
    model, tokenizer, folder = fine_tuned("multiple_choice", GPTForMultipleChoice, question_words=words)
    context, *answers = TEXTS[:3]
    found = []
    for question in words:
        trained = _cells_of({"context": context, "question": question, "one": answers[0], "two": answers[1]}, form)[0]
        with torch.no_grad():
            inputs = tokenizer([trained[0]] * 2, trained[1:], padding=True, return_tensors="pt")
            p = model(**{name: values[None] for name, values in inputs.items()}).logits[0].softmax(-1)
        found.append(f"{int(p.argmax())}\t{float(p.max()):.4f}")
    lines = ["\t".join([context, question, *answers]) for question in words]
    assert lines_of(capsys, folder, write(tmp_path / "rows.tsv", lines)) == found
    assert found[0] != found[1]
    for line, message in (
        (
            "\t".join(TEXTS[:3]),
            "the number of columns is 3, and a line must hold a context, its question (cause or effect) and two",
        ),
        ("\t".join(TEXTS[:4]), f"column 2, the question, is {TEXTS[1]!r}, and must be one of: cause, effect"),
    ):
        assert main(["classify", folder, write(tmp_path / "rows.tsv", [line])]) == 2
        assert message in capsys.readouterr().err


def test_a_person_who_types_a_wrong_line_is_told_so_and_goes_on(fine_tuned, capsys, monkeypatch):
    folder = fine_tuned("classification")[2]
    stdin = io.TextIOWrapper(io.BytesIO(b"a\tb\ntree\n"), encoding="utf-8")
    stdin.isatty = lambda: True
    monkeypatch.setattr(sys, "stdin", stdin)
    assert main(["classify", folder]) == 0
    found = capsys.readouterr()
    assert "theatre: the number of columns is 2, and a line must hold a text." in found.err
    assert len(found.out.splitlines()) == 1


@pytest.mark.parametrize(
    ("task", "model_class", "line", "message"),
    [
        ("classification", GPTForSequenceClassification, "a\tb", "rows.tsv:2: the number of columns is 2, and a line must hold a text."),
        ("entailment", GPTForSequenceClassification, "a", "rows.tsv:2: the number of columns is 1, and a line must hold two texts"),
        ("similarity", GPTForSequenceClassification, "a\t", "rows.tsv:2: the column 2 is empty."),
        ("multiple_choice", GPTForMultipleChoice, "a\tb", "rows.tsv:2: the number of columns is 2, and a line must hold a context"),
    ],
)  # fmt: skip
def test_a_line_with_other_columns_is_named(fine_tuned, tmp_path, capsys, task, model_class, line, message):
    folder = fine_tuned(task, model_class)[2]
    assert main(["classify", folder, write(tmp_path / "rows.tsv", ["", line])]) == 2
    assert message in capsys.readouterr().err


def test_the_name_of_a_file_says_that_it_is_no_text(fine_tuned, tmp_path, capsys):
    folder = fine_tuned("classification")[2]
    assert main(["classify", folder, write(tmp_path / "rows.jsonl", ['{"text": "the tree"}'])]) == 2
    assert "rows.jsonl: lines of .jsonl are no texts" in capsys.readouterr().err


def test_all_of_a_file_is_looked_at_before_its_first_answer(fine_tuned, tmp_path, capsys):
    folder = fine_tuned("classification")[2]
    assert main(["classify", folder, write(tmp_path / "rows.txt", ["tree"] * (CHUNK + 1) + ["a\tb"])]) == 2
    found = capsys.readouterr()
    assert found.out == ""
    assert f"rows.txt:{CHUNK + 2}: the number of columns is 2" in found.err


def test_a_language_model_is_no_classifier(tmp_path, capsys):
    plain = train_bpe_tokenizer(TEXTS * 3, 280, appends_eos=False)
    GPTForCausalLM(GPTConfig(vocab_size=len(plain), **SIZES)).save_pretrained(tmp_path / "model")
    plain.save_pretrained(tmp_path / "model")
    assert main(["classify", str(tmp_path / "model")]) == 2
    assert "holds a GPTForCausalLM, which continues text: fine-tune it first" in capsys.readouterr().err


def test_a_text_that_is_too_long_is_cut_and_named(fine_tuned, tmp_path, capsys, caplog):
    folder = fine_tuned("classification")[2]
    lines = lines_of(capsys, folder, write(tmp_path / "rows.txt", ["tree", "the tree " * 40, "the tree " * 60]))
    assert lines[1] == lines[2]
    assert "Cut 2 of 3 rows to max_length=32 tokens" in caplog.text
    assert "rows.txt:2" in caplog.text
