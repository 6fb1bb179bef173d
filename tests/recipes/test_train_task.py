"""Fine-tuning by a recipe, from rows in files to a model folder and its figures."""

import json
import random
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch.testing import assert_close
from transformers import AutoModelForMultipleChoice, AutoModelForSequenceClassification, AutoTokenizer, pipeline

from transformer_theatre import GPTConfig, GPTForCausalLM, LSTMConfig, LSTMForCausalLM
from transformer_theatre.recipes.classify import Classifier
from transformer_theatre.recipes.pretrained import load_pretrained
from transformer_theatre.recipes.task_metrics import TASK_METRICS
from transformer_theatre.recipes.task_trainer import TaskTrainer
from transformer_theatre.recipes.theatre import main
from transformer_theatre.recipes.tokenization import train_bpe_tokenizer
from transformer_theatre.recipes.train import load_recipe, train
from transformer_theatre.recipes.train_task import measure


WORDS = ["sun", "moon", "star", "rain", "snow", "wind"]
SIZES = {"d_model": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "ffn_dim": 32, "max_position_embeddings": 32}
COMMON = {
    "preset": "gpt-1",
    "vocab_size": 300,
    **SIZES,
    "num_train_epochs": 2,
    "per_device_train_batch_size": 8,
    "learning_rate": 0.003,
    "use_cpu": True,
    "disable_tqdm": True,
}
TASKS = {
    "classification": {"text_fields": ["2"], "label_field": "1", "labels": ["dry", "wet"], "metrics": ["f1", "accuracy"]},
    "entailment": {"text_fields": ["2", "3"], "label_field": "1"},
    "similarity": {"text_fields": ["2", "3"], "label_field": "1"},
    "multiple_choice": {"text_fields": ["2", "3", "4", "5"], "label_field": "1"},
}  # fmt: skip
every_task = pytest.mark.parametrize("task", TASKS)


def row(task, rng):
    text = rng.choices(WORDS, k=rng.randint(1, 6))
    if task == "classification":
        return [str(int("rain" in text)), " ".join(text)]
    if task == "entailment":
        return [str(int(text[0] == "sun")), " ".join(text), "sun"]
    if task == "similarity":
        other = rng.choices(WORDS, k=3)
        return [f"{len(set(text) & set(other)):.1f}", " ".join(text), " ".join(other)]
    answers = rng.sample(WORDS, 3)
    return [str(rng.randrange(3)), " ".join(text), *answers]


@pytest.fixture
def recipe(tmp_path):
    """Write the rows of a task and a recipe for them: `recipe("entailment", seed=3)`."""

    def write(task, **more):
        rng = random.Random(0)
        for split, size in (("train", 32), ("dev", 16), ("test", 24)):
            lines = ["\t".join(row(task, rng)) + "\n" for _ in range(size)]
            (tmp_path / f"{split}.tsv").write_text("".join(lines), encoding="utf-8")
        files = {"train_file": "train.tsv", "validation_file": "dev.tsv", "test_file": "test.tsv"}
        path = tmp_path / "toy" / "tiny.yaml"
        path.parent.mkdir(exist_ok=True)
        values = {"task": task, "data_dir": str(tmp_path), **files, **TASKS[task], **COMMON, **more}
        path.write_text(yaml.safe_dump({key: value for key, value in values.items() if value is not None}))
        return str(path)

    return write


@pytest.fixture
def language_model(tmp_path):
    """A folder with a tiny language model and its tokenizer, whose weights are its own."""

    def save(kind="gpt"):
        tokenizer = train_bpe_tokenizer([" ".join(WORDS)] * 3, 280, appends_eos=False)
        torch.manual_seed(5)
        if kind == "gpt":
            model = GPTForCausalLM(GPTConfig(vocab_size=len(tokenizer), **SIZES, dropout=0.3))
        else:
            sizes = {"hidden_size": 16, "num_hidden_layers": 1, "attention": "none", "input_feeding": False}
            model = LSTMForCausalLM(LSTMConfig(vocab_size=len(tokenizer), **sizes, is_encoder_decoder=False))
        folder = tmp_path / kind
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return str(folder)

    return save


def run(path, folder, *words):
    return train(load_recipe(path), ["--output_dir", str(folder), *words])


def figures(folder):
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))


@every_task
def test_what_is_reported_is_the_figure_of_the_predictions_and_can_be_measured_again(recipe, tmp_path, task):
    path, folder = recipe(task), tmp_path / "run"
    done = run(path, folder)
    metrics = figures(folder)
    names = {"similarity": ["pearsonr", "spearmanr"]}.get(task, TASKS[task].get("metrics", ["accuracy"]))
    rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    assert sorted(one["origin"] for one in rows) == sorted(f"test.tsv:{line}" for line in range(1, 25))
    lines = (tmp_path / "test.tsv").read_text(encoding="utf-8").splitlines()
    written = {f"test.tsv:{number}": line.split("\t")[0] for number, line in enumerate(lines, 1)}
    numbers = {name: number for number, name in enumerate(done.splits.names)}
    for one in rows:
        label = numbers.get(one["label"], one["label"])
        assert float(label) == float(written[one["origin"]])
    sides = [[numbers.get(one[side], one[side]) for one in rows] for side in ("prediction", "label")]
    for name in names:
        scored = TASK_METRICS[name](keep_in_memory=True).compute(predictions=sides[0], references=sides[1])
        for key, value in scored.items():
            assert metrics[f"test_{key}"] == pytest.approx(value, abs=1e-9)
    measured = measure(load_recipe(path), ["--output_dir", str(folder)], folder)
    assert measured == {key: pytest.approx(metrics[key]) for key in measured}
    assert {f"test_{name}" for name in names} <= measured.keys()
    assert "pipeline_tag: " in (folder / "README.md").read_text(encoding="utf-8")
    assert AutoTokenizer.from_pretrained(folder).model_max_length == done.model.config.max_position_embeddings
    if task == "classification":  # a text that is longer is cut by the library
        [found] = pipeline("text-classification", model=str(folder), device="cpu")("so " * 999, truncation=True)
        assert found["label"] in done.splits.names


def test_the_model_is_the_checkpoint_with_the_best_first_metric(recipe, tmp_path):
    folder = tmp_path / "run"
    done = run(recipe("classification", num_train_epochs=4, save_total_limit=5, learning_rate=0.02), folder)
    state = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
    measured = {entry["step"]: entry["eval_f1"] for entry in state["log_history"] if "eval_f1" in entry}
    assert len(measured) == 4
    best = max(measured.values())
    assert state["best_metric"] == best
    assert done.metrics["eval_f1"] == pytest.approx(best)
    kept = load_pretrained(state["best_model_checkpoint"], "AutoModelForSequenceClassification")
    assert_close(dict(done.model.state_dict()), dict(kept.state_dict()))


@pytest.mark.parametrize("kind", ["gpt", "lstm"])
@pytest.mark.parametrize("task", ["similarity", "multiple_choice"])
def test_a_run_begins_with_pretrained_weights_or_with_their_sizes_alone(recipe, language_model, tmp_path, kind, task):
    source = language_model(kind)
    words = ["--model_name_or_path", source, "--max_steps", "1", "--learning_rate", "1e-9", "--eval_strategy", "no"]
    words += ["--load_best_model_at_end", "false", "--save_strategy", "no", "--lm_loss_weight", "0"]
    path = recipe(task)
    assert main(["train", path, "--output_dir", str(tmp_path / "one"), *words]) == 0
    before = (GPTForCausalLM if kind == "gpt" else LSTMForCausalLM).from_pretrained(source)
    auto_class = AutoModelForMultipleChoice if task == "multiple_choice" else AutoModelForSequenceClassification
    after = auto_class.from_pretrained(tmp_path / "one")
    assert after.config.lm_loss_weight == 0
    assert after.config.dropout == before.config.dropout
    vocabulary = before.config.vocab_size
    assert after.config.vocab_size == vocabulary + 3
    old, new = before.model.state_dict(), after.model.state_dict()
    for name, weight in old.items():
        assert_close(new[name][: len(weight)], weight, atol=1e-6, rtol=1e-6)
    words[0] = "--config_name"
    assert main(["train", path, "--output_dir", str(tmp_path / "two"), *words]) == 0
    random_start = auto_class.from_pretrained(tmp_path / "two")
    assert random_start.config.vocab_size == vocabulary + 3
    embeddings = after.get_input_embeddings().weight, random_start.get_input_embeddings().weight
    assert (embeddings[0] - embeddings[1]).abs().max() > 1e-3
    as_run = yaml.safe_load((tmp_path / "two" / "recipe.yaml").read_text(encoding="utf-8"))
    assert as_run["config_name"] == Path(source).name
    assert not {"d_model", "preset", "vocab_size"} & as_run.keys()


def test_words_of_questions_are_those_of_the_run_and_not_of_its_start(recipe, language_model, tmp_path):
    source = Path(language_model("gpt"))
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    (source / "config.json").write_text(
        json.dumps(config | {"question_words": {"cause": "because"}}), encoding="utf-8"
    )
    words = ["--model_name_or_path", str(source), "--max_steps", "1", "--eval_strategy", "no"]
    words += ["--load_best_model_at_end", "false", "--save_strategy", "no"]
    path = recipe("multiple_choice")
    assert main(["train", path, "--output_dir", str(tmp_path / "none"), *words]) == 0
    assert json.loads((tmp_path / "none" / "config.json").read_text(encoding="utf-8"))["question_words"] is None
    # The label is the question too: it is 0, 1 or 2.
    words += ["--question_field", "1", "--question_words", *(f"{number}=after {number}" for number in range(3))]
    assert main(["train", path, "--output_dir", str(tmp_path / "some"), *words]) == 0
    found = json.loads((tmp_path / "some" / "config.json").read_text(encoding="utf-8"))["question_words"]
    assert found == {str(number): f"after {number}" for number in range(3)}


def test_only_the_classifier_may_be_new_in_pretrained_weights(recipe, language_model, tmp_path, caplog):
    source = language_model()
    model = load_pretrained(source, "AutoModelForSequenceClassification", num_labels=3, dropout=0.05)
    assert (model.config.dropout, model.classifier.weight.shape[0]) == (0.05, 3)
    assert "classifier" not in caplog.text
    model.save_pretrained(tmp_path / "three")
    with pytest.raises(ValueError, match="three cannot be trained on"):
        load_pretrained(str(tmp_path / "three"), "AutoModelForSequenceClassification", num_labels=2)
    with pytest.raises(ValueError, match=r"do not fit GPTForCausalLM: unexpected keys, first classifier.weight"):
        load_pretrained(str(tmp_path / "three"), "AutoModelForCausalLM")
    weights = load_file(tmp_path / "gpt" / "model.safetensors")
    weights.pop("model.layers.0.feed_forward.fc1.bias")
    save_file(weights, tmp_path / "gpt" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"missing keys, first model.layers.0.feed_forward.fc1.bias"):
        load_pretrained(source, "AutoModelForSequenceClassification")


def test_a_run_that_was_cut_off_ends_as_one_that_was_not(recipe, language_model, tmp_path):
    path, words = recipe("multiple_choice"), ["--model_name_or_path", language_model(), "--save_total_limit", "3"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert main(["train", path, "--output_dir", str(whole), *words]) == 0
    shutil.copytree(whole, cut)
    for name in ("model.safetensors", "metrics.json", "checkpoint-8"):
        thing = cut / name
        shutil.rmtree(thing) if thing.is_dir() else thing.unlink()
    assert main(["train", path, "--output_dir", str(cut), *words, "--resume_from_checkpoint", "true"]) == 0
    assert (cut / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert figures(cut)["test_accuracy"] == figures(whole)["test_accuracy"]


@pytest.mark.parametrize("task", ["similarity", "multiple_choice"])
def test_batches_of_a_number_of_tokens_count_all_sequences_of_a_row(recipe, tmp_path, monkeypatch, task):
    sizes = []

    def noted(self, model, inputs, items=None):
        sizes.append(inputs["input_ids"].numel())
        return learn(self, model, inputs, items)

    learn = TaskTrainer.training_step
    monkeypatch.setattr(TaskTrainer, "training_step", noted)
    run(recipe(task), tmp_path / "run", "--max_tokens_per_batch", "200", "--num_train_epochs", "1")
    assert max(sizes) <= 200
    assert max(sizes) > 120


@pytest.mark.parametrize(
    ("more", "words", "message"),
    [
        ({}, ["--model_name_or_path", "gpt", "--d_model", "8"], "d_model=8 cannot be chosen beside gpt"),
        ({}, ["--model_name_or_path", "gpt", "--tokenizer", "bpe"], "tokenizer=bpe has no use beside gpt"),
        ({}, ["--config_name", "gpt", "--preset", "gpt-2"], "preset=gpt-2 has no use beside gpt"),
        ({}, ["--model_name_or_path", "gpt", "--config_name", "gpt"], "Give model_name_or_path .* or config_name"),
        ({}, ["--model_name_or_path", "gtp"], "There is no model"),
        ({}, ["--label_smoothing_factor", "0.1"], "label_smoothing_factor=0.1 is for models that write text"),
        ({}, ["--max_tokens_per_batch", "auto"], "max_tokens_per_batch=auto is for models that write text"),
        ({}, ["--generation_num_beams", "2"], "--generation_num_beams is no option of task classification"),
        ({}, ["--dataset_config", "de-en"], "dataset_config=de-en is of a data set, and none is named"),
        ({}, ["--max_length", "33"], "max_length=33 must not exceed max_position_embeddings=32"),
        ({}, ["--metrics", "pearsonr"], "'pearsonr' is not of classes"),
        ({}, ["--metric_for_best_model", "bleu"], "metric_for_best_model=bleu must be one of: loss, f1, accuracy"),
        ({}, ["--preset", "transformer-base"], "There is no preset 'transformer-base' for task classification"),
        ({"train_file": None}, [], "There is nothing to train on"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_named_and_nothing_is_written(
    recipe, language_model, tmp_path, capsys, monkeypatch, more, words, message
):
    language_model()
    monkeypatch.chdir(tmp_path)
    assert main(["train", recipe("classification", **more), "--output_dir", str(tmp_path / "run"), *words]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert not (tmp_path / "run").exists()


def test_a_plan_is_not_made_for_a_task(recipe, capsys):
    assert main(["plan", recipe("entailment")]) == 2
    assert (
        "is of task entailment: a plan is made for translation and language_modeling only" in capsys.readouterr().err
    )


def test_help_shows_the_settings_of_the_paper(recipe, capsys):
    assert main(["train", recipe("entailment", learning_rate=None, num_train_epochs=None), "--help"]) == 0
    shown = capsys.readouterr().out
    for line in ("--learning_rate 6.25e-05", "--num_train_epochs 3.0", "--warmup_steps 0.002", "--weight_decay 0.01"):
        assert line in shown
    assert "--model_name_or_path" in shown


def test_a_model_that_learned_from_shorter_texts_is_given_no_longer_ones(recipe, tmp_path):
    path, folder = (
        recipe("classification", max_length=6, max_position_embeddings=None, test_share=None),
        tmp_path / "run",
    )
    done = run(path, folder)
    assert done.model.config.max_position_embeddings == 6
    known = [json.loads(line) for line in (folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    lines = (tmp_path / "test.tsv").read_text(encoding="utf-8").splitlines()
    found = Classifier(str(folder))([[line.split("\t")[1]] for line in lines])
    by_line = {int(one["origin"].partition(":")[2]): one["prediction"] for one in known}
    assert [answer.label for answer in found] == [by_line[number] for number in range(1, len(lines) + 1)]


def test_a_pretrained_model_answers_on_as_much_of_a_text_as_it_was_tuned_on(recipe, language_model, tmp_path):
    path = recipe("classification", **dict.fromkeys(("preset", "vocab_size", *SIZES)))
    done = run(path, tmp_path / "run", "--model_name_or_path", language_model(), "--max_length", "6")
    assert done.model.config.max_position_embeddings == 32
    classify = Classifier(str(tmp_path / "run"))
    assert classify([["sun " * 20], ["sun " * 4]])[0] == classify([["sun " * 4]])[0]
