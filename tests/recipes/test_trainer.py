import json
import math
import socket
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file
from transformers import DataCollatorForSeq2Seq, set_seed, trainer

from transformer_theatre import (
    GPTConfig,
    GPTForCausalLM,
    LSTMConfig,
    LSTMForConditionalGeneration,
    TransformerConfig,
    TransformerForConditionalGeneration,
)
from transformer_theatre.recipes.likelihood import TextSize
from transformer_theatre.recipes.metrics import score_texts
from transformer_theatre.recipes.noam import noam_rate
from transformer_theatre.recipes.run_arguments import RunArguments
from transformer_theatre.recipes.run_counters import COUNTERS_FILE
from transformer_theatre.recipes.tokenization import train_bpe_tokenizer
from transformer_theatre.recipes.trainer import TheatreTrainer
from transformer_theatre.recipes.training import take_average


SIZES = {"d_model": 16, "dropout": 0.0, "attention_dropout": 0.0}


def _model(kind):
    set_seed(3)
    if kind == "gpt":
        return GPTForCausalLM(
            GPTConfig(vocab_size=300, num_hidden_layers=1, num_attention_heads=2, ffn_dim=32, **SIZES)
        )
    if kind == "lstm":
        return LSTMForConditionalGeneration(
            LSTMConfig.from_preset("lstm-luong", vocab_size=300, hidden_size=16, num_hidden_layers=1, dropout=0.0)
        )
    fields = {
        f"{side}_{name}": value
        for side in ("encoder", "decoder")
        for name, value in (("layers", 1), ("attention_heads", 2), ("ffn_dim", 32))
    }
    return TransformerForConditionalGeneration(TransformerConfig(vocab_size=300, **fields, **SIZES))


def _rows(kind, count=8):
    """Rows of unequal length, so that a mean of means is not the mean over tokens."""
    generator = torch.Generator().manual_seed(5)
    rows = []
    for index in range(count):
        ids = torch.randint(3, 300, (3 + 2 * index,), generator=generator).tolist()
        rows.append(
            {
                "input_ids": ids,
                "attention_mask": [1] * len(ids),
                "labels": ids if kind == "gpt" else ids[::-1][: 2 + index],
                **({} if kind == "gpt" else {"source": "text " * (1 + index), "target": "\u00e4 text" * (2 + index)}),
            }
        )
    return Dataset.from_list(rows)


def _trainer(kind, tmp_path, **options):
    options = {
        "max_steps": 3,
        "learning_rate": 0.05,
        "logging_steps": 1,
        "save_strategy": "no",
        "use_cpu": True,
        "train_sampling_strategy": "sequential",
        "lr_scheduler_type": "constant",
        "disable_tqdm": True,
        **options,
    }
    args = RunArguments(output_dir=str(tmp_path), **options)
    model, tokenizer = _model(kind), train_bpe_tokenizer(["text"], 259)
    return TheatreTrainer(
        model=model,
        args=args,
        text_size=TextSize(4321, 4000) if kind == "gpt" else None,
        data_collator=DataCollatorForSeq2Seq(tokenizer, None if kind == "gpt" else model),
        train_dataset=_rows(kind),
        eval_dataset=_rows(kind, 7),
        processing_class=tokenizer,
    )


def _train(kind, tmp_path, **options):
    trainer = _trainer(kind, tmp_path, **options)
    trainer.train()
    return trainer


def _log(trainer, name):
    return [entry[name] for entry in trainer.state.log_history if name in entry]


@pytest.mark.parametrize("smoothing", [0.0, 0.1], ids="smoothing={}".format)
@pytest.mark.parametrize("kind", ["seq2seq", "gpt"])
def test_accumulated_small_batches_train_like_one_big_batch(kind, smoothing, tmp_path):
    shared = {"label_smoothing_factor": smoothing, "optim": "sgd"}
    one = _train(kind, tmp_path, per_device_train_batch_size=8, **shared)
    for rows, batches in ((4, 2), (2, 4)):
        many = _train(kind, tmp_path, per_device_train_batch_size=rows, gradient_accumulation_steps=batches, **shared)
        # 2e-7 is what float32 makes of another order of adding up; in float64 the norms differ by 2e-16.
        assert _log(many, "loss") == pytest.approx(_log(one, "loss"), rel=1e-6)
        assert _log(many, "grad_norm") == pytest.approx(_log(one, "grad_norm"), rel=1e-6)


TWO_PROCESSES = """
import json, sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])
import test_trainer
from transformer_theatre.recipes.training import take_average

folder, kind, options, sharded = Path(sys.argv[2]), sys.argv[3], json.loads(sys.argv[4]), sys.argv[5] == "True"
if sharded:
    from transformers.distributed import DistributedConfig

    model_class = type(test_trainer._model(kind))
    distribution = DistributedConfig(fsdp_size=2)
    test_trainer._model = lambda kind: model_class.from_pretrained(folder / "start", distributed_config=distribution)
trainer = test_trainer._train(kind, folder, optim="sgd", label_smoothing_factor=0.1, **options)
if {"average_last", "average_best"} & options.keys():
    take_average(trainer)
evaluated = trainer.evaluate()
if kind == "seq2seq":
    evaluated["written"] = trainer.translate(trainer.eval_dataset, 2)
trainer.save_model(str(folder / "end"))
if trainer.is_world_process_zero():
    logged = [test_trainer._log(trainer, name) for name in ("loss", "grad_norm")]
    print("RESULT", json.dumps([*logged, evaluated]))
"""


@pytest.fixture
def launch(tmp_path, repository):
    """Run a script in processes that talk by gloo; return what the first prints behind "RESULT"."""

    def start(code, processes, *words):
        script = tmp_path / "script.py"
        script.write_text(code, encoding="utf-8")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        where = ["--master_addr", "127.0.0.1", "--master_port", str(port)]
        torchrun = ["torch.distributed.run", "--nproc_per_node", str(processes), *where, str(script)]
        command = [sys.executable, "-m", *torchrun, str(repository / "tests" / "recipes"), *words]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        line = [line for line in result.stdout.splitlines() if line.startswith("RESULT")]
        assert line, result.stderr[-3000:]
        return json.loads(line[0].removeprefix("RESULT"))

    return start


@pytest.fixture
def train_on_two(tmp_path, launch):
    """Train in two processes; return what is logged and measured."""

    def start(kind, sharded=False, **options):
        return launch(TWO_PROCESSES, 2, str(tmp_path), kind, json.dumps(options), str(sharded))

    return start


# What two processes do, and what one does that comes to the same.
SAME_UPDATE = {
    "rows": ({"per_device_train_batch_size": 4}, {"per_device_train_batch_size": 8}),
    "accumulated rows": (
        {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2},
        {"per_device_train_batch_size": 8},
    ),
    "tokens": ({"max_tokens_per_batch": 80}, {"max_tokens_per_batch": 80, "gradient_accumulation_steps": 2}),
    "accumulated tokens": (
        {"max_tokens_per_batch": 80, "gradient_accumulation_steps": 2},
        {"max_tokens_per_batch": 80, "gradient_accumulation_steps": 4},
    ),
}


@pytest.mark.parametrize(
    ("kind", "batches"),
    [
        ("seq2seq", "tokens"),
        pytest.param("gpt", "rows", marks=pytest.mark.slow),
        pytest.param("seq2seq", "rows", marks=pytest.mark.slow),
        pytest.param("gpt", "tokens", marks=pytest.mark.slow),
        pytest.param("seq2seq", "accumulated tokens", marks=pytest.mark.slow),
        pytest.param("gpt", "accumulated rows", marks=pytest.mark.slow),
    ],
)
def test_two_processes_train_and_evaluate_like_one(kind, batches, tmp_path, train_on_two):
    for_two, for_one = SAME_UPDATE[batches]
    losses, norms, evaluated = train_on_two(kind, **for_two)
    one = _train(kind, tmp_path, optim="sgd", label_smoothing_factor=0.1, **for_one)
    assert losses == pytest.approx(_log(one, "loss"), rel=1e-6)
    assert norms == pytest.approx(_log(one, "grad_norm"), rel=1e-6)
    # Seven rows on two processes: one of them is given a row that the other has too.
    assert evaluated["eval_loss"] == pytest.approx(one.evaluate()["eval_loss"], rel=1e-5)


@pytest.mark.skipif(
    find_spec("transformers.distributed.fsdp") is None, reason="this transformers cannot shard by itself"
)
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["seq2seq", "gpt"])
def test_processes_that_share_the_weights_train_and_average_like_one(kind, tmp_path, train_on_two):
    """FSDP2: each process has half of every weight, of its gradient and of its moving average."""
    average = {"ema_decay": 0.5, "save_strategy": "steps", "save_steps": 2, "save_only_model": True}
    average |= {"eval_strategy": "steps", "eval_steps": 1}  # which takes the average for the weights, for a while
    _model(kind).save_pretrained(tmp_path / "start")
    losses, norms, evaluated = train_on_two(kind, sharded=True, per_device_train_batch_size=4, **average)
    saved = load_file(tmp_path / "checkpoint-2" / "ema.safetensors"), load_file(tmp_path / "end" / "model.safetensors")
    one = _train(
        kind, tmp_path / "one", optim="sgd", label_smoothing_factor=0.1, per_device_train_batch_size=8, **average
    )
    assert losses == pytest.approx(_log(one, "loss"), rel=1e-5)
    assert norms == pytest.approx(_log(one, "grad_norm"), rel=1e-5)
    assert evaluated["eval_loss"] == pytest.approx(one.evaluate()["eval_loss"], rel=1e-5)
    expected = load_file(tmp_path / "one" / "checkpoint-2" / "ema.safetensors"), one.model.state_dict()
    for found, right in zip(saved, expected, strict=True):
        assert found
        for name, weight in found.items():
            torch.testing.assert_close(weight, right[name], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", ["seq2seq", "gpt"])
@pytest.mark.parametrize("batch", [1, 3, 7], ids="batch={}".format)
def test_evaluation_is_the_mean_over_tokens_whatever_the_batch(kind, batch, tmp_path):
    trainer = _train(kind, tmp_path, per_device_eval_batch_size=batch, label_smoothing_factor=0.2)
    measured = trainer.evaluate()
    total, count = 0.0, 0
    with torch.no_grad():
        for row in _rows(kind, 7):
            ids, labels = torch.tensor([row["input_ids"]]), torch.tensor([row["labels"]])
            if kind == "gpt":
                logits, labels = trainer.model(ids).logits[:, :-1], labels[:, 1:]
            else:
                shifted = trainer.model.prepare_decoder_input_ids_from_labels(labels)
                logits = trainer.model(ids, decoder_input_ids=shifted).logits
            total -= logits.log_softmax(-1).gather(-1, labels[..., None]).sum().item()
            count += labels.numel()
    assert measured["eval_loss"] == pytest.approx(total / count, rel=1e-5)
    assert measured["eval_perplexity"] == pytest.approx(math.exp(total / count), rel=1e-4)
    assert measured["eval_loss_low"] < measured["eval_loss"] < measured["eval_loss_high"]
    written = 4321 if kind == "gpt" else sum(len(text.encode()) for text in _rows(kind, 7)["target"])
    assert measured["eval_bits_per_byte"] == pytest.approx(total / math.log(2) / written, rel=1e-5)


def test_tokens_are_counted_without_their_padding(tmp_path):
    trainer = _train("seq2seq", tmp_path, per_device_train_batch_size=8, max_steps=1)
    rows = _rows("seq2seq")
    real = sum(len(row["input_ids"]) + len(row["labels"]) for row in rows)
    padded = 8 * (max(map(len, rows["input_ids"])) + max(map(len, rows["labels"])))
    assert (trainer.counter.real, trainer.counter.padded) == (real, padded)
    figures = trainer.counters.figures()
    assert figures["train_tokens"] == real
    assert figures["train_padding_share"] == pytest.approx(1 - real / padded)
    # Seconds are given to a hundredth.
    assert real / figures["train_tokens_per_second"] == pytest.approx(figures["train_seconds"], abs=0.006)
    [logged] = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert logged["padding_share"] == pytest.approx(1 - real / padded, abs=1e-4)
    assert {"tokens_per_second", "seconds_left"} <= logged.keys()
    assert "train_mfu" not in figures  # of a CPU no peak is known


@pytest.mark.parametrize("kind", ["seq2seq", "gpt"])
def test_batches_of_a_number_of_tokens_hold_no_more(kind, tmp_path, monkeypatch):
    sizes = []
    step = TheatreTrainer.training_step

    def spy(self, model, inputs, *rest):
        sides = [inputs["input_ids"], inputs["labels"]] if kind == "seq2seq" else [inputs["input_ids"]]
        sizes.append(sum(side.numel() for side in sides))
        return step(self, model, inputs, *rest)

    monkeypatch.setattr(TheatreTrainer, "training_step", spy)
    trainer = _train(kind, tmp_path, max_tokens_per_batch=60, max_steps=-1, num_train_epochs=2)
    assert max(sizes) <= 60
    assert len(sizes) == trainer.state.global_step == 2 * len(trainer.get_train_dataloader())
    assert trainer.counter.real == 2 * sum(
        len(row["input_ids"]) + (len(row["labels"]) if kind == "seq2seq" else 0) for row in _rows(kind)
    )


def test_evaluation_translates_with_the_averaged_weights(tmp_path, monkeypatch):
    scored = []
    scorer = "transformer_theatre.recipes.trainer.score_texts"
    monkeypatch.setattr(scorer, lambda *texts: scored.append(texts[:2]) or score_texts(*texts))
    trainer = _train("seq2seq", tmp_path, predict_with_generate=True, eval_num_beams=2, ema_decay=0.5, max_steps=8)
    measured = trainer.evaluate()
    rows = _rows("seq2seq", 7)

    def written(beams):
        return trainer.model.translate(rows["source"], tokenizer=trainer.processing_class, num_beams=beams)

    with trainer.average.in_place():
        expected, greedy = written(2), written(1)
    assert expected not in (greedy, written(2))  # the search and the weights both make a difference
    assert scored == [(expected, rows["target"])]
    logged = trainer.state.log_history[-1]
    for name, value in score_texts(expected, rows["target"]).items():
        assert logged[f"eval_{name}"] == value
        assert measured.get(f"eval_{name}") == (None if name.endswith("signature") else value)
    assert measured["eval_num_beams"] == 2


def test_a_language_model_does_not_translate(tmp_path):
    with pytest.raises(ValueError, match="predict_with_generate translates"):
        _trainer("gpt", tmp_path, predict_with_generate=True)


EVERY_STEP = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}


@pytest.fixture
def scores_of_a_text(monkeypatch):
    """Let what is written be worth 1, 9, 7, 8, 2 in turn."""
    turns = iter([1.0, 9.0, 7.0, 8.0, 2.0, 2.0, 2.0])
    monkeypatch.setattr(
        "transformer_theatre.recipes.trainer.score_texts", lambda *rest: {"bleu": next(turns), "bleu_signature": "x"}
    )


BY_BLEU = {"predict_with_generate": True, "metric_for_best_model": "bleu", "save_total_limit": None, "max_steps": 5}


def test_the_best_checkpoint_by_bleu_is_loaded_with_its_moving_average(tmp_path, scores_of_a_text):
    best = {"load_best_model_at_end": True, "ema_decay": 0.5}
    trainer = _train("seq2seq", tmp_path, **EVERY_STEP, **BY_BLEU, **best)
    folder = tmp_path / "checkpoint-2"
    assert trainer.state.best_model_checkpoint == str(folder)
    averaged = load_file(folder / "ema.safetensors")
    assert "averaged" in take_average(trainer)
    for name, weight in trainer.model.named_parameters():
        torch.testing.assert_close(weight.detach(), averaged[name], rtol=0, atol=0)


def test_the_best_by_bleu_are_averaged_also_where_training_ends_early(tmp_path, scores_of_a_text):
    chosen = {"average_best": 2, "early_stopping_patience": 2}
    trainer = _train("seq2seq", tmp_path, **EVERY_STEP, **BY_BLEU, **chosen)
    assert trainer.state.global_step == 4  # 9 is the second; the third and the fourth are no better
    assert take_average(trainer) == {"averaged": "checkpoints of steps 2, 4 (the best by bleu)"}
    saved = [load_file(tmp_path / f"checkpoint-{step}" / "model.safetensors") for step in (2, 4)]
    for name, weight in saved[0].items():
        torch.testing.assert_close(
            dict(trainer.model.named_parameters())[name].detach(), (weight + saved[1][name]) / 2
        )


def test_a_run_in_two_parts_counts_like_one(tmp_path):
    options = {"save_strategy": "steps", "save_steps": 2, "max_steps": 6, "per_device_train_batch_size": 3}
    whole = _train("seq2seq", tmp_path, **options)
    figures = whole.counters.figures()
    resumed = _trainer("seq2seq", tmp_path, **options)
    checkpoint = tmp_path / "checkpoint-4"
    saved = json.loads((checkpoint / COUNTERS_FILE).read_text(encoding="utf-8"))
    (checkpoint / COUNTERS_FILE).write_text(json.dumps({**saved, "seconds": 1000.0, "cpu_joules": 50.0}), "utf-8")
    resumed.counters.load(checkpoint)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    again = resumed.counters.figures()
    for name in ("train_tokens", "train_padding_share"):
        assert again[name] == figures[name]
    losses = [entry["loss"] for entry in whole.state.log_history if "loss" in entry]
    assert len(losses) == 6
    assert figures["train_loss"] == pytest.approx(sum(losses) / 6, abs=1e-4)
    assert again["train_loss"] == pytest.approx(figures["train_loss"], rel=1e-6)
    assert 1000 < again["train_seconds"] < 1100
    assert again["train_tokens_per_second"] == pytest.approx(figures["train_tokens"] / again["train_seconds"], abs=0.1)
    assert again["train_flops_per_second"] * again["train_seconds"] == pytest.approx(
        figures["train_flops_per_second"] * figures["train_seconds"], rel=0.2
    )


@pytest.mark.parametrize("kind", ["seq2seq", "gpt"])
def test_a_run_that_goes_on_warns_of_weights_that_are_missing_and_of_no_others(tmp_path, monkeypatch, kind):
    options = {"save_strategy": "steps", "save_steps": 2, "max_steps": 2}
    _train(kind, tmp_path, **options)
    warnings = []
    monkeypatch.setattr(trainer.logger, "warning", warnings.append)
    resumed = _trainer(kind, tmp_path, **options)
    assert resumed.model.config.tie_word_embeddings
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert warnings == []
    weights = tmp_path / "checkpoint-2" / "model.safetensors"
    tensors = load_file(weights)
    lost = next(name for name in tensors if name.endswith("fc1.weight"))
    save_file({name: value for name, value in tensors.items() if name != lost}, weights, {"format": "pt"})
    _trainer(kind, tmp_path, **options).train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert len(warnings) == 1
    assert lost in warnings[0]


@pytest.mark.parametrize("lost", ["the file", "updates"])
def test_where_a_part_was_not_counted_nothing_is_said_of_the_whole(tmp_path, lost):
    options = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4}
    _train("seq2seq", tmp_path, **options)
    path = tmp_path / "checkpoint-2" / COUNTERS_FILE
    saved = json.loads(path.read_text(encoding="utf-8"))
    path.unlink()
    if lost in saved:  # as an earlier version wrote it
        path.write_text(json.dumps({name: value for name, value in saved.items() if name != lost}), encoding="utf-8")
    resumed = _trainer("seq2seq", tmp_path, **options)
    resumed.counters.load(tmp_path / "checkpoint-2")
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    figures = resumed.counters.figures()
    assert figures["train_tokens_per_second"] > 0
    assert not {"train_loss", "train_tokens", "train_seconds", "train_cpu_energy_joules"} & figures.keys()


EVALUATE_ON_THREE = """
import json, sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])
import test_trainer

found = {}
for kind in ("seq2seq", "lstm", "gpt"):
    for count in (7, 2, 1):
        trainer = test_trainer._evaluated(kind, Path(sys.argv[2]), count)
        found[f"{kind} {count}"] = trainer.figures
if trainer.is_world_process_zero():
    print("RESULT", json.dumps(found))
"""


def _evaluated(kind, folder, count):
    """Measure a model that has not learned, on so many rows."""
    generates = {} if kind == "gpt" else {"predict_with_generate": True, "eval_num_beams": 2}
    trainer = _trainer(kind, folder, per_device_eval_batch_size=2, ema_decay=None, **generates)
    trainer.eval_dataset = _rows(kind, count)
    trainer.evaluate()
    if generates:
        trainer.figures["written"] = trainer.translate(trainer.eval_dataset, 2)
    return trainer


@pytest.mark.slow
def test_three_processes_measure_what_one_does_to_the_last_digit(tmp_path, launch):
    """Seven rows, which three processes cannot share evenly, and fewer rows than processes."""
    found = launch(EVALUATE_ON_THREE, 3, str(tmp_path))
    assert len(found) == 9
    for name, figures in found.items():
        kind, count = name.split()
        expected = _evaluated(kind, tmp_path, int(count)).figures
        assert figures.keys() == expected.keys()
        assert ("bleu" in figures) == (kind != "gpt")
        assert kind == "gpt" or len(set(figures["written"]) - {""}) == int(count)
        for key, value in expected.items():
            # What is padded otherwise is summed in another order, within a row; what is written is the same.
            likely = key.startswith(("nll", "perplexity", "bits"))
            assert figures[key] == (pytest.approx(value, rel=1e-6) if likely else value), (name, key)


@pytest.mark.skipif(
    find_spec("transformers.distributed.fsdp") is None, reason="this transformers cannot shard by itself"
)
@pytest.mark.slow
@pytest.mark.parametrize("chosen", ["average_last", "average_best"])
def test_processes_that_share_the_weights_translate_and_average_checkpoints_like_one(chosen, tmp_path, train_on_two):
    options = {
        **EVERY_STEP,
        "save_only_model": True,
        "predict_with_generate": True,
        "save_total_limit": None,
        chosen: 2,
    }
    _model("seq2seq").save_pretrained(tmp_path / "start")
    _, _, evaluated = train_on_two("seq2seq", sharded=True, per_device_train_batch_size=4, **options)
    one = _train(
        "seq2seq", tmp_path / "one", optim="sgd", label_smoothing_factor=0.1, per_device_train_batch_size=8, **options
    )
    take_average(one)
    expected = one.evaluate()
    written = one.translate(one.eval_dataset, 2)
    assert evaluated["written"] == written
    assert len(set(written) - {""}) > 1
    for name in ("eval_bleu", "eval_chrf", "eval_bleu_low"):
        assert evaluated[name] == expected[name]
    assert evaluated["eval_loss"] == pytest.approx(expected["eval_loss"], rel=1e-5)
    saved = load_file(tmp_path / "end" / "model.safetensors")
    for name, weight in saved.items():
        torch.testing.assert_close(weight, one.model.state_dict()[name], atol=1e-6, rtol=1e-5)


def test_the_papers_schedule_is_what_is_used(tmp_path):
    trainer = _train("seq2seq", tmp_path, noam_factor=2.0, warmup_steps=4, max_steps=8, learning_rate=0.1)
    # The library logs the rate of the update that was made.
    assert _log(trainer, "learning_rate") == pytest.approx([noam_rate(step, 16, 4, 2.0) for step in range(1, 9)])


def test_the_moving_average_is_what_is_evaluated(tmp_path):
    trainer = _train("seq2seq", tmp_path, ema_decay=0.9, max_steps=5)
    plain = {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}
    measured = trainer.evaluate()["eval_loss"]
    torch.testing.assert_close(dict(trainer.model.named_parameters()), plain, rtol=0, atol=0)
    average, trainer.average = trainer.average, None
    assert trainer.evaluate()["eval_loss"] != pytest.approx(measured, rel=1e-3)
    average.swap()
    assert trainer.evaluate()["eval_loss"] == pytest.approx(measured)


@pytest.mark.parametrize("kind", ["seq2seq", "gpt"])
def test_a_run_that_goes_on_ends_where_an_uninterrupted_one_does(kind, tmp_path):
    options = {
        "max_tokens_per_batch": 60,
        "ema_decay": 0.9,
        "noam_factor": 1.0,
        "warmup_steps": 4,
        "save_strategy": "steps",
        "save_steps": 5,
        "save_total_limit": None,
        "max_steps": 12,
        "gradient_accumulation_steps": 2,
    }

    def start(folder):
        trainer = _trainer(kind, folder, **options)
        for module in trainer.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.2
        return trainer

    whole = start(tmp_path / "whole")
    whole.train()
    resumed = start(tmp_path / "whole")
    checkpoint = tmp_path / "whole" / "checkpoint-5"
    resumed.average.load(checkpoint)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    for name, weight in whole.model.named_parameters():
        assert torch.equal(weight, dict(resumed.model.named_parameters())[name]), name
        assert torch.equal(whole.average.average[name], resumed.average.average[name]), name


def test_a_few_pairs_are_learned_by_heart(tmp_path):
    trainer = _train("seq2seq", tmp_path, max_steps=150, learning_rate=0.01, per_device_train_batch_size=8)
    assert _log(trainer, "loss")[-1] < 0.05
