import json
import logging
import random
import socket
import subprocess
import sys
from itertools import cycle, permutations

import datasets
import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch.testing import assert_close
from transformers import PreTrainedTokenizerFast, Trainer, TrainingArguments, pipeline, set_seed

from transformer_theatre import GPTConfig, GPTForCausalLM, GPTForMultipleChoice, GPTForSequenceClassification
from transformer_theatre.recipes.run_arguments import RunArguments
from transformer_theatre.recipes.task_inputs import (
    TASK_TOKENS,
    TaskCollator,
    add_task_tokens,
    encode_classification,
    encode_entailment,
    encode_multiple_choice,
    encode_similarity,
)
from transformer_theatre.recipes.tokenization import train_bpe_tokenizer, train_character_tokenizer
from transformer_theatre.recipes.trainer import TheatreTrainer


CORPUS = ["the tree and the other tree, there in 2026", "a house by the river"] * 4
FIRST = ["the tree", "a house by the river", "and the other tree, there"]
SECOND = ["a tree", "the river", "a house"]
SIZES = {"d_model": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "ffn_dim": 32, "max_position_embeddings": 64}


@pytest.fixture(autouse=True)
def quiet():
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def make(model_class=GPTForSequenceClassification, appends_eos=False, **fields):
    """A model and its task tokenizer, whose vocabulary the model was not made for."""
    plain = train_bpe_tokenizer(CORPUS, 280, appends_eos=appends_eos)
    model = model_class(GPTConfig(vocab_size=len(plain), **SIZES, **fields)).eval()
    return model, add_task_tokens(plain, model)


@pytest.fixture(scope="module")
def tokenizer():
    return make()[1]


def framed(tokenizer, *texts):
    """The ids of figure 1, put together by hand."""
    parts = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    ids = [tokenizer.start_token_id, *parts[0]]
    for part in parts[1:]:
        ids += [tokenizer.delimiter_token_id, *part]
    return [*ids, tokenizer.extract_token_id]


def message_of(action, *arguments):
    with pytest.raises(ValueError, match=r"\S") as caught:
        action(*arguments)
    return str(caught.value)


def test_new_embeddings_begin_as_all_weights_do_and_the_others_stay():
    plain = train_bpe_tokenizer(CORPUS, 280, appends_eos=False)
    model = GPTForCausalLM(GPTConfig(vocab_size=280, **{**SIZES, "d_model": 512}))
    before = model.model.embed_tokens.weight.detach().clone()
    tokenizer = add_task_tokens(plain, model)
    after = model.model.embed_tokens.weight
    assert_close(after[:280], before)
    assert after[280:].std().item() == pytest.approx(0.02, rel=0.1)
    assert abs(after[280:].mean().item()) < 0.003
    assert model.lm_head.weight is after
    assert model.config.vocab_size == len(tokenizer) == 283
    assert [tokenizer.start_token_id, tokenizer.delimiter_token_id, tokenizer.extract_token_id] == [280, 281, 282]
    assert len(plain) == 280
    assert not set(plain("the tree")["input_ids"]) & {280, 281, 282}


def test_adding_the_tokens_again_adds_nothing():
    model, tokenizer = make()
    again = add_task_tokens(tokenizer, model)
    assert again.get_vocab() == tokenizer.get_vocab()
    assert model.config.vocab_size == len(again)
    assert again(FIRST, SECOND)["input_ids"] == tokenizer(FIRST, SECOND)["input_ids"]


def test_a_model_with_room_for_the_tokens_keeps_its_embeddings():
    model = GPTForCausalLM(GPTConfig(vocab_size=300, **SIZES))
    before = model.model.embed_tokens.weight
    add_task_tokens(train_bpe_tokenizer(CORPUS, 280, appends_eos=False), model)
    assert model.model.embed_tokens.weight is before


STRANGER = """
import json, sys

sys.modules["transformer_theatre"] = None
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
ids = [tokenizer.start_token_id, tokenizer.delimiter_token_id, tokenizer.extract_token_id]
print("RESULT", json.dumps([ids, tokenizer("the <extract>")["input_ids"], tokenizer("the tree", "a house")["input_ids"]]))
"""


@pytest.mark.parametrize("appends_eos", [False, True], ids=["documents", "pairs"])
def test_a_stranger_builds_the_same_inputs(tmp_path, appends_eos):
    tokenizer = make(appends_eos=appends_eos)[1]
    encode_entailment(Dataset.from_dict({"premise": FIRST, "hypothesis": SECOND}), tokenizer, 8)
    tokenizer.save_pretrained(tmp_path)
    command = [sys.executable, "-c", STRANGER, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "RESULT" in result.stdout, result.stderr[-3000:]
    ids, typed, pair = json.loads(result.stdout.partition("RESULT")[2])
    assert ids == [tokenizer.start_token_id, tokenizer.delimiter_token_id, tokenizer.extract_token_id]
    assert typed == framed(tokenizer, "the <extract>")
    assert typed.count(tokenizer.extract_token_id) == 1
    assert pair == framed(tokenizer, "the tree", "a house")
    assert json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))["truncation"] is None


@pytest.mark.parametrize("make_plain", [lambda: train_bpe_tokenizer(CORPUS, 280), lambda: train_character_tokenizer(CORPUS, model_max_length=50)], ids=["bpe", "characters"])  # fmt: skip
def test_what_the_tokenizer_was_it_stays(make_plain):
    plain = make_plain()
    tokenizer = add_task_tokens(plain, GPTForCausalLM(GPTConfig(vocab_size=len(plain), **SIZES)))
    for name in ("pad_token_id", "bos_token_id", "eos_token_id", "unk_token_id", "padding_side", "model_max_length"):
        assert getattr(tokenizer, name) == getattr(plain, name)
    text = "the tree <start> \u6771"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert ids == plain(text, add_special_tokens=False)["input_ids"]
    decoded = tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True)
    assert decoded == plain.decode(ids, skip_special_tokens=True)


def test_rows_are_framed_as_in_figure_1(tokenizer):
    answers = [["a tree"], ["the river", "a house", "the"], ["a", "b"]]
    data = Dataset.from_dict({"text": FIRST, "premise": FIRST, "hypothesis": SECOND, "first": FIRST, "second": SECOND, "context": FIRST, "answers": answers, "label": [0, 2, 1]})  # fmt: skip
    encoded = [encode(data, tokenizer, 64) for encode in (encode_classification, encode_entailment, encode_similarity, encode_multiple_choice)]  # fmt: skip
    for row, (a, b) in enumerate(zip(FIRST, SECOND, strict=True)):
        assert encoded[0][row]["input_ids"] == framed(tokenizer, a)
        assert encoded[1][row]["input_ids"] == framed(tokenizer, a, b)
        assert encoded[2][row]["input_ids"] == [framed(tokenizer, a, b), framed(tokenizer, b, a)]
        assert encoded[3][row]["input_ids"] == [framed(tokenizer, a, answer) for answer in answers[row]]
        assert [one[row]["length"] for one in encoded[:2]] == [
            len(framed(tokenizer, *texts)) for texts in ((a,), (a, b))
        ]
        assert encoded[3][row]["length"] == max(len(framed(tokenizer, a, answer)) for answer in answers[row])
    assert encoded[0].column_names == [*data.column_names, "input_ids", "length"]


def test_a_long_text_is_cut_at_its_end_and_no_special_token_is(tokenizer, caplog):
    long, short = "the tree and " * 9, "a house"
    part = {text: tokenizer(text, add_special_tokens=False)["input_ids"] for text in (long, short)}
    start, delimiter, extract = (getattr(tokenizer, f"{name}_id") for name in TASK_TOKENS)
    pairs = [(long, short), (short, long), (long, long), (short, short)]
    data = Dataset.from_dict({"first": [a for a, _ in pairs], "second": [b for _, b in pairs], "text": [long] * 4})
    with caplog.at_level(logging.WARNING):
        similar = encode_similarity(data, tokenizer, 15)
    room, half = 12 - len(part[short]), part[long][:6]
    expected = [start, *part[long][:room], delimiter, *part[short], extract]
    assert similar[0]["input_ids"][0] == similar[1]["input_ids"][1] == expected
    assert similar[1]["input_ids"][0] == [start, *part[short], delimiter, *part[long][:room], extract]
    assert similar[2]["input_ids"] == [[start, *half, delimiter, *half, extract]] * 2
    assert similar[3]["input_ids"][0] == framed(tokenizer, short, short)
    (record,) = caplog.records
    longest = len(framed(tokenizer, long, short))
    assert record.message == (
        f"Cut 3 of 4 rows to max_length=15 tokens a sequence; the first is row 1, with {longest} tokens."
    )
    classified = encode_classification(data.add_column("origin", [f"a.tsv:{i}" for i in range(4)]), tokenizer, 5)
    assert classified[0]["input_ids"] == [start, *part[long][:3], extract]
    assert "the first is a.tsv:0" in caplog.records[-1].message


def test_what_cannot_be_encoded_is_named(tokenizer):
    data = Dataset.from_dict({"context": ["a", "b"], "answers": [["a"], ["a", "b"]], "label": [0, 2]})
    assert message_of(encode_multiple_choice, data, tokenizer, 64) == (
        "row 2: label=2 must be the number of an answer: 0 to 1."
    )
    empty = Dataset.from_dict({"context": ["a"], "answers": [[]], "origin": ["b.jsonl:7"]})
    assert message_of(encode_multiple_choice, empty, tokenizer, 64).startswith("b.jsonl:7: there are no answers")
    missing = "The data has no column 'premise'; it has: context, answers, label."
    assert message_of(encode_entailment, data, tokenizer, 64) == missing
    texts = Dataset.from_dict({"text": ["a"], "first": ["a"], "second": ["b"]})
    assert "max_length=2 must be at least 3" in message_of(encode_classification, texts, tokenizer, 2)
    assert "max_length=4 must be at least 5" in message_of(encode_similarity, texts, tokenizer, 4)
    plain = train_bpe_tokenizer(CORPUS, 280)
    assert "add_task_tokens" in message_of(encode_classification, texts, plain, 64)


def test_a_tokenizer_without_padding_gets_it_beside_the_task_tokens():
    words = Tokenizer(WordLevel({word: number for number, word in enumerate(["a", "b", "c", "[UNK]"])}, "[UNK]"))
    words.pre_tokenizer = Whitespace()
    plain = PreTrainedTokenizerFast(tokenizer_object=words)
    model = GPTForSequenceClassification(GPTConfig(vocab_size=4, **SIZES, pad_token_id=None)).eval()
    tokenizer = add_task_tokens(plain, model)
    rows = encode_classification(Dataset.from_dict({"text": ["a b c a b c", "c"], "label": [0, 1]}), tokenizer, 64)
    rows = [{"input_ids": ids, "labels": 0} for ids in rows["input_ids"]]
    assert tokenizer.pad_token_id == model.config.pad_token_id
    assert tokenizer.pad_token_id not in {*rows[0]["input_ids"], *rows[1]["input_ids"]}
    assert model.get_input_embeddings().num_embeddings == len(tokenizer) == 4 + 1 + len(TASK_TOKENS)
    together = model(**TaskCollator(tokenizer)(rows)).logits
    for row, logits in zip(rows, together, strict=True):
        assert_close(model(input_ids=torch.tensor([row["input_ids"]])).logits[0], logits)


@pytest.mark.parametrize("side", ["left", "right"])
def test_batches_are_padded_where_the_tokenizer_says(tokenizer, side):
    tokenizer = make()[1]
    tokenizer.padding_side = side
    collate = TaskCollator(tokenizer)
    rows = [{"input_ids": [5, 6, 7], "label": 1, "length": 3}, {"input_ids": [8], "label": 0, "length": 1}]
    batch = collate(rows)
    padded = [0, 0, 8] if side == "left" else [8, 0, 0]
    assert batch["input_ids"].tolist() == [[5, 6, 7], padded]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [int(token != 0) for token in padded]]
    assert batch["labels"].tolist() == [1, 0]
    assert batch.keys() == {"input_ids", "attention_mask", "labels"}

    rows = [{"input_ids": [[5, 6], [7]], "label": 0.5}, {"input_ids": [[8], [9, 9, 9], [4]], "label": 2.0}]
    batch = collate(rows)
    expected = {
        "left": [[[0, 5, 6], [0, 0, 7], [0, 0, 0]], [[0, 0, 8], [9, 9, 9], [0, 0, 4]]],
        "right": [[[5, 6, 0], [7, 0, 0], [0, 0, 0]], [[8, 0, 0], [9, 9, 9], [4, 0, 0]]],
    }
    assert batch["input_ids"].tolist() == expected[side]
    assert batch["attention_mask"].equal((batch["input_ids"] != 0).long())
    assert_close(batch["labels"], torch.tensor([0.5, 2.0]))
    assert "labels" not in collate([{"input_ids": [5]}])
    assert collate([{"input_ids": [5], "labels": [1.0, 0.0]}])["labels"].tolist() == [[1.0, 0.0]]


TEXTS = [" ".join(CORPUS[0].split()[: 1 + row]) for row in range(8)]
NO_DROPOUT = {"dropout": 0.0, "attention_dropout": 0.0, "classifier_dropout": 0.0}
CLASSES, NUMBERS = [0, 1, 2, 0, 1, -100, 0, 1], [row / 4 for row in range(8)]
SEVERAL = [[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]] * 4
ANSWERS = [TEXTS[: 2 + row % 3] for row in range(8)]
TASKS = {
    "classes": (encode_classification, {"text": TEXTS, "label": CLASSES}, 3),
    "entailment": (encode_entailment, {"premise": TEXTS, "hypothesis": TEXTS[::-1], "label": CLASSES}, 3),
    "number": (encode_similarity, {"first": TEXTS, "second": SECOND[:1] * 8, "label": NUMBERS}, 1),
    "several labels": (encode_classification, {"text": TEXTS, "label": SEVERAL}, 3),
    "choices": (encode_multiple_choice, {"context": TEXTS, "answers": ANSWERS, "label": [0, 1] * 4}, 2),
}
every_task = pytest.mark.parametrize("task", list(TASKS))


def task_of(task):
    set_seed(3)
    encode, columns, labels = TASKS[task]
    model_class = GPTForMultipleChoice if task == "choices" else GPTForSequenceClassification
    model, tokenizer = make(model_class, num_labels=labels, **NO_DROPOUT)
    torch.nn.init.normal_(model.classifier.weight, std=0.5)
    return model, tokenizer, encode(Dataset.from_dict(columns), tokenizer, 64)


def train(task, tmp_path, batch, accumulation):
    model, tokenizer, data = task_of(task)
    args = RunArguments(
        output_dir=str(tmp_path),
        train_sampling_strategy="sequential",
        lr_scheduler_type="constant",
        disable_tqdm=True,
        max_steps=3,
        learning_rate=0.05,
        logging_steps=1,
        optim="sgd",
        save_strategy="no",
        use_cpu=True,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
    )
    trainer = TheatreTrainer(
        model=model, args=args, data_collator=TaskCollator(tokenizer), train_dataset=data, processing_class=tokenizer
    )
    trainer.train()
    return [[entry[name] for entry in trainer.state.log_history if name in entry] for name in ("loss", "grad_norm")]


@pytest.mark.slow
@every_task
def test_accumulated_small_batches_train_like_one_big_batch(task, tmp_path):
    losses, norms = train(task, tmp_path, 8, 1)
    assert len(losses) == len(norms) == 3
    for batch, accumulation in ((4, 2), (2, 4), (1, 8)):
        small_losses, small_norms = train(task, tmp_path, batch, accumulation)
        assert small_losses == pytest.approx(losses, rel=1e-5)
        assert small_norms == pytest.approx(norms, rel=1e-5)


TWO_PROCESSES = """
import json, os, sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])
from test_task_inputs import TASKS, train

results = {task: train(task, Path(sys.argv[2]), 2, 2) for task in TASKS}
if os.environ["RANK"] == "0":
    print("RESULT", json.dumps(results))
"""


@pytest.mark.slow
def test_two_processes_train_like_one(tmp_path, repository):
    script = tmp_path / "two.py"
    script.write_text(TWO_PROCESSES, encoding="utf-8")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    launch = ["torch.distributed.run", "--nproc_per_node", "2", "--master_addr", "127.0.0.1", "--master_port", port]
    command = [sys.executable, "-m", *launch, str(script), str(repository / "tests" / "recipes"), str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    line = [line for line in result.stdout.splitlines() if line.startswith("RESULT")]
    assert line, result.stderr[-3000:]
    for task, (losses, norms) in json.loads(line[0].removeprefix("RESULT")).items():
        expected_losses, expected_norms = train(task, tmp_path, 8, 1)
        assert losses == pytest.approx(expected_losses, rel=1e-5), task
        assert norms == pytest.approx(expected_norms, rel=1e-5), task


@every_task
def test_evaluation_gives_the_loss_of_the_labels_and_the_logits(task, tmp_path):
    model, tokenizer, data = task_of(task)
    args = TrainingArguments(str(tmp_path), per_device_eval_batch_size=8, use_cpu=True, disable_tqdm=True)
    output = Trainer(model, args, TaskCollator(tokenizer)).predict(data)
    batch = TaskCollator(tokenizer)(list(data))
    with torch.no_grad():
        expected = model.eval()(**batch)
    assert output.metrics["test_loss"] == pytest.approx(expected.task_loss.item(), rel=1e-5)
    assert_close(torch.tensor(output.predictions), expected.logits)


@pytest.mark.parametrize("batch", [1, 3], ids="batch={}".format)
def test_choices_are_predicted_also_where_batches_differ_in_their_number(tmp_path, batch):
    model, tokenizer, data = task_of("choices")
    args = TrainingArguments(str(tmp_path), per_device_eval_batch_size=batch, use_cpu=True, disable_tqdm=True)
    predicted = Trainer(model, args, TaskCollator(tokenizer)).predict(data).predictions.argmax(-1)
    with torch.no_grad():
        expected = model.eval()(**TaskCollator(tokenizer)(list(data))).logits.argmax(-1)
    assert predicted.tolist() == expected.tolist()


def test_the_librarys_pipeline_classifies_texts_and_pairs(tmp_path):
    model, tokenizer = make(num_labels=3, id2label={0: "no", 1: "maybe", 2: "yes"}, label2id={"no": 0, "maybe": 1, "yes": 2})  # fmt: skip
    torch.nn.init.normal_(model.classifier.weight)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    classify = pipeline("text-classification", model=str(tmp_path), device="cpu")
    inputs = [*FIRST, *({"text": a, "text_pair": b} for a, b in zip(FIRST, SECOND, strict=True))]
    rows = [framed(tokenizer, text) for text in FIRST]
    rows += [framed(tokenizer, a, b) for a, b in zip(FIRST, SECOND, strict=True)]
    for answers in (classify(FIRST, top_k=None) + [classify(pair, top_k=None) for pair in inputs[3:]], classify(inputs, top_k=None, batch_size=6)):  # fmt: skip
        for row, answer in zip(rows, answers, strict=True):
            expected = model(torch.tensor([row])).logits.softmax(-1)[0]
            scores = {one["label"]: one["score"] for one in answer}
            assert list(scores.values()) == sorted(scores.values(), reverse=True)
            assert [scores[label] for label in ("no", "maybe", "yes")] == pytest.approx(expected.tolist(), rel=1e-4)


@pytest.mark.slow
def test_a_tiny_gpt_learns_whether_the_premise_names_the_hypothesis(tmp_path):
    words = ["tree", "house", "river", "road", "cloud", "stone", "bird", "fish", "wind", "fire", "snow", "rain"]
    rows = [
        {"premise": f"{one} {other}", "hypothesis": word, "label": int(word in (one, other))}
        for one, other in permutations(words, 2)
        for word in words
    ]
    random.Random(0).shuffle(rows)
    held_out, rest = rows[:200], rows[200:]
    named, not_named = ([row for row in rest if row["label"] == label] for label in (1, 0))
    balanced = [row for pair in zip(cycle(named), not_named, strict=False) for row in pair]

    plain = train_bpe_tokenizer([" ".join(words)] * 4, 289)
    sizes = {**SIZES, "d_model": 64, "ffn_dim": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = GPTConfig(vocab_size=len(plain), norm_first=True, initializer_range=0.1, **sizes, **NO_DROPOUT)
    model = GPTForSequenceClassification(config)
    tokenizer = add_task_tokens(plain, model)
    training, test = (encode_entailment(Dataset.from_list(part), tokenizer, 16) for part in (balanced, held_out))
    args = TrainingArguments(
        str(tmp_path),
        max_steps=250,
        per_device_train_batch_size=64,
        learning_rate=3e-3,
        lr_scheduler_type="cosine",
        warmup_steps=20,
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = Trainer(model, args, TaskCollator(tokenizer), train_dataset=training)
    trainer.train()
    output = trainer.predict(test)
    correct = output.predictions.argmax(-1) == output.label_ids
    accuracy = [correct[output.label_ids == label].mean() for label in (0, 1)]
    assert sum(accuracy) / 2 > 0.75, accuracy  # 0.5 by chance, and 0.5 for one answer to all
