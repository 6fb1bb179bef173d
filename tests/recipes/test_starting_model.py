"""Training that starts from a trained model: its weights, its tokenizer, adapters, and what it writes on the way."""

import json
import random

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

from transformer_theatre.recipes.theatre import main
from transformer_theatre.recipes.trainer import TheatreTrainer


RECIPE = """
task: language_modeling
train_text: train.jsonl
validation_text: val.jsonl
attend_across_documents: false
max_steps: 4
per_device_train_batch_size: 4
learning_rate: 1e-2
lr_scheduler_type: constant
eval_strategy: steps
eval_steps: 2
save_strategy: steps
save_steps: 2
sample_tokens: 8
use_cpu: true
"""
SIZES = """
vocab_size: 280
preset: gpt-char
d_model: 16
num_hidden_layers: 2
num_attention_heads: 2
ffn_dim: 32
max_position_embeddings: 32
dropout: 0.1
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with text, and a model trained on it in `base`."""
    folder, rng = tmp_path_factory.mktemp("styles"), random.Random(0)
    for name, size in (("train", 60), ("val", 6)):
        with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            for number in range(size):
                words = " ".join(rng.choices(["day", "night", "sun", "moon", "rises"], k=12))
                file.write(json.dumps({"text": words, "title": f"Number {number}"}) + "\n")
    (folder / "base.yaml").write_text(RECIPE + SIZES, encoding="utf-8")
    assert train(folder, "base.yaml", "base") == 0
    (folder / "tune.yaml").write_text(
        RECIPE + f"model_name_or_path: {folder / 'base'}\ntemplate: '{{title}}: {{text}}'\n", encoding="utf-8"
    )
    return folder


def train(folder, recipe, run, *options):
    words = ["train", str(folder / recipe), "--data_dir", str(folder), "--output_dir", str(folder / run)]
    return main([*words, *options])


def weights(path):
    return load_file(path / "model.safetensors")


def test_a_run_starts_from_the_weights_the_tokenizer_and_the_sizes_of_a_model(trained, capsys):
    assert train(trained, "tune.yaml", "still", "--max_steps", "1", "--learning_rate", "1e-12") == 0
    for name, before in weights(trained / "base").items():
        torch.testing.assert_close(weights(trained / "still")[name], before, atol=1e-9, rtol=0)
    names = ["tokenizer.json", "base", "still"]
    assert (trained / names[1] / names[0]).read_bytes() == (trained / names[2] / names[0]).read_bytes()
    card = (trained / "still" / "README.md").read_text(encoding="utf-8")
    assert "fine-tuned" in card
    assert "the weights of base" in card
    assert "trained from scratch" not in card
    # What is measured is the text of the template.
    metrics = json.loads((trained / "still" / "metrics.json").read_text(encoding="utf-8"))
    rows = [json.loads(line) for line in (trained / "val.jsonl").read_text(encoding="utf-8").splitlines()]
    size = sum(len(f"{row['title']}: {row['text']}") for row in rows)
    nats = metrics["eval_nll"] * metrics["eval_tokens"]
    assert metrics["eval_bits_per_character"] == pytest.approx(
        nats / torch.log(torch.tensor(2.0)).item() / size, rel=1e-5
    )


def test_dropout_may_be_another_and_the_architecture_not(trained, capsys):
    options = ["--max_steps", "1", "--dropout", "0.3", "--attn_implementation", "eager"]
    assert train(trained, "tune.yaml", "dropout", *options) == 0
    assert json.loads((trained / "dropout" / "config.json").read_text(encoding="utf-8"))["dropout"] == 0.3
    for options, message in (
        (["--d_model", "32"], "d_model=32 cannot be"),
        (["--preset", "gpt-2"], "give one of them"),
        (["--tokenizer", "character"], "the tokenizer is that of"),
        (["--model_name_or_path", str(trained / "nowhere")], "There is no model folder"),
        (["--eval_stride", "33"], "eval_stride=33 must be at most row_length=32"),
        (["--lora_alpha", "99"], "lora_alpha=99.0 needs lora_rank"),
        (["--lora_dropout", "7"], "lora_dropout=7.0 needs lora_rank"),
        (["--temperature", "-1"], "temperature=-1.0 must be 0"),
    ):
        assert train(trained, "tune.yaml", "wrong", *options) == 2
        assert message in capsys.readouterr().err
        assert not (trained / "wrong").exists()


def test_how_it_writes_is_saved_and_used(trained, capsys):
    options = ["--temperature", "0.5", "--top_k", "3", "--top_p", "0.9", "--sample_prompts", "Number 1: day"]
    assert train(trained, "tune.yaml", "preset", *options) == 0
    assert capsys.readouterr().out.count("Number 1: day") >= 3  # two evaluations, and the end
    saved = json.loads((trained / "preset" / "generation_config.json").read_text(encoding="utf-8"))
    assert (saved["do_sample"], saved["temperature"], saved["top_k"], saved["top_p"]) == (True, 0.5, 3, 0.9)
    model = AutoModelForCausalLM.from_pretrained(trained / "preset")
    [preset] = model.continue_text(["day"], max_new_tokens=30, seed=1)
    assert [preset] == model.continue_text(["day"], max_new_tokens=30, seed=1, temperature=0.5, top_k=3, top_p=0.9)
    assert [preset] != model.continue_text(["day"], max_new_tokens=30, seed=1, temperature=5.0)
    writer = pipeline("text-generation", model=str(trained / "preset"), device="cpu")
    [found] = writer("day", max_new_tokens=4)
    assert found["generated_text"].startswith("day")
    # What is longer than the model's 32 positions is cut by the library.
    [found] = writer("day night " * 50, max_new_tokens=4, handle_long_generation="hole")
    assert found["generated_text"].startswith("day night")
    assert train(trained, "tune.yaml", "greedy", "--temperature", "0", "--max_steps", "1") == 0
    model = AutoModelForCausalLM.from_pretrained(trained / "greedy")
    assert model.continue_text(["day"], seed=1) == model.continue_text(["day"], seed=2)


def test_samples_change_nothing_of_what_is_learned(trained):
    assert train(trained, "base.yaml", "silent", "--sample_tokens", "0") == 0
    for name, before in weights(trained / "base").items():
        assert torch.equal(weights(trained / "silent")[name], before)


def test_a_model_that_was_saved_in_half_precision_learns_in_full(trained):
    """Of float32 weights near 1e-2, updates of 1e-5 change nearly all; of bfloat16, whose steps are 4e-5 there, a tenth."""
    AutoModelForCausalLM.from_pretrained(trained / "base").bfloat16().save_pretrained(trained / "half")
    AutoTokenizer.from_pretrained(trained / "base").save_pretrained(trained / "half")
    options = ["--model_name_or_path", str(trained / "half"), "--learning_rate", "1e-5"]
    assert train(trained, "tune.yaml", "full", *options, "--max_steps", "2") == 0
    # A run that goes on builds the model anew.
    assert train(trained, "tune.yaml", "full", *options, "--resume_from_checkpoint", "true") == 0
    before, after = weights(trained / "half"), weights(trained / "full")
    assert {value.dtype for value in after.values()} == {torch.float32}
    name = "model.layers.0.feed_forward.fc1.weight"
    assert (after[name] != before[name].float()).float().mean() > 0.95


def test_a_sliding_window_gives_every_prediction_more_context(trained):
    """The strided loop of the library's guide to perplexity, written another way: one prediction after the other."""
    options = ["--model_name_or_path", str(trained / "base"), "--max_steps", "1", "--learning_rate", "1e-12"]
    options += ["--eval_stride", "8", "--attend_across_documents", "true", "--per_device_train_batch_size", "1"]
    assert train(trained, "tune.yaml", "stride", *options) == 0
    metrics = json.loads((trained / "stride" / "metrics.json").read_text(encoding="utf-8"))
    model = AutoModelForCausalLM.from_pretrained(trained / "stride").eval()
    tokenizer = AutoTokenizer.from_pretrained(trained / "stride")
    rows = [json.loads(line) for line in (trained / "val.jsonl").read_text(encoding="utf-8").splitlines()]
    ids = [tokenizer.eos_token_id]
    for row in rows:
        ids += [*tokenizer(f"{row['title']}: {row['text']}", add_special_tokens=False)["input_ids"], ids[0]]
    nats = 0.0
    with torch.no_grad():
        for place in range(1, len(ids)):
            # Blocks of 32 begin every 8 tokens, the last as late as it can; the first that holds the token before predicts it.
            begin = 0 if place <= 32 else min((place - 33) // 8 * 8 + 8, len(ids) - 1 - 32)
            logits = model(torch.tensor([ids[begin:place]])).logits[0, -1]
            nats -= float(logits.log_softmax(-1)[ids[place]])
    assert metrics["eval_tokens"] == len(ids) - 1
    assert metrics["eval_nll"] == pytest.approx(nats / (len(ids) - 1), rel=1e-5)


def test_a_tokenizer_that_cannot_pad_will_do(trained):
    """GPT-2's has no token to pad with; rows of text need none."""
    assert train(trained, "base.yaml", "gpt2", "--max_steps", "1", "--eval_strategy", "no") == 0
    tokenizer = AutoTokenizer.from_pretrained(trained / "gpt2")
    tokenizer.pad_token = None
    tokenizer.save_pretrained(trained / "gpt2")
    tokenizer = AutoTokenizer.from_pretrained(trained / "gpt2")
    assert tokenizer.pad_token is None
    assert (
        train(trained, "tune.yaml", "unpadded", "--max_steps", "1", "--model_name_or_path", str(trained / "gpt2")) == 0
    )


def stopped(monkeypatch, step):
    def spy(self, *rest, old=TheatreTrainer.training_step):
        if self.state.global_step == step:
            raise RuntimeError("the power is gone")
        return old(self, *rest)

    monkeypatch.setattr(TheatreTrainer, "training_step", spy)


@pytest.mark.slow
@pytest.mark.parametrize("lora", [False, True], ids=["all weights", "LoRA"])
def test_a_run_that_goes_on_ends_where_an_uninterrupted_one_does(trained, monkeypatch, capsys, lora):
    if lora:
        pytest.importorskip("peft")
    options = ["--lora_rank", "2", "--lora_dropout", "0.1"] if lora else []
    assert train(trained, "tune.yaml", f"whole{lora}", *options) == 0
    with monkeypatch.context() as patch:
        stopped(patch, 3)
        assert train(trained, "tune.yaml", f"parts{lora}", *options) == 1
    assert train(trained, "tune.yaml", f"parts{lora}", *options, "--resume_from_checkpoint", "true") == 0
    one, other = weights(trained / f"whole{lora}"), weights(trained / f"parts{lora}")
    assert all(torch.equal(one[name], other[name]) for name in one)
    more = [*options, "--resume_from_checkpoint", "true", "--model_name_or_path", str(trained / f"whole{lora}")]
    assert train(trained, "tune.yaml", f"parts{lora}", *more) == 2
    assert f"its model_name_or_path was base, and is whole{lora} now" in capsys.readouterr().err
    monkeypatch.chdir(trained / "base")
    again = [*options, "--resume_from_checkpoint", "true", "--model_name_or_path"]
    for path in (".", "checkpoint-4/..", "../base"):
        assert train(trained, "tune.yaml", f"parts{lora}", *again, path) == 0


def test_adapters_learn_alone_and_end_as_a_plain_model(trained, capsys):
    pytest.importorskip("peft")
    assert train(trained, "tune.yaml", "lora", "--lora_rank", "2") == 0
    before, after = weights(trained / "base"), weights(trained / "lora")
    assert before.keys() == after.keys()
    for name in before:
        changes = not torch.equal(before[name], after[name])
        assert changes == (".layers." in name and "norm" not in name and name.endswith("weight")), name
        if changes:  # by a matrix of the adapters' rank
            assert torch.linalg.matrix_rank((after[name] - before[name]).double(), rtol=1e-4) <= 2
    apart = weights(trained / "lora" / "checkpoint-4")
    for name in before:
        base = name.removesuffix("weight") + "base_layer.weight"
        if base in apart:
            thin = [apart[base.replace("base_layer", f"lora_{side}.default")] for side in "BA"]
            torch.testing.assert_close(after[name], before[name] + 16 / 2 * thin[0] @ thin[1], atol=1e-6, rtol=1e-5)
    tokenizer = AutoTokenizer.from_pretrained(trained / "lora")
    AutoModelForCausalLM.from_pretrained(trained / "lora").continue_text(
        ["day"], tokenizer=tokenizer, max_new_tokens=3
    )
    # The figures of the folder are of the sum.
    measured = json.loads((trained / "lora" / "metrics.json").read_text(encoding="utf-8"))["eval_nll"]
    log = json.loads((trained / "lora" / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    assert measured == pytest.approx([entry["eval_loss"] for entry in log if "eval_loss" in entry][-1], rel=1e-5)
    assert train(trained, "tune.yaml", "lora", "--lora_rank", "3", "--resume_from_checkpoint", "true") == 2
    assert "lora_rank=3 cannot go on from" in capsys.readouterr().err
    more = ["--lora_rank", "2", "--lora_alpha", "64", "--resume_from_checkpoint", "true"]
    assert train(trained, "tune.yaml", "lora", *more) == 2
    assert "its lora_alpha was 16.0, and is 64.0 now" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--average_last", "2"], "lora_rank=2 does not go with average_last=2"),
        (["--ema_decay", "0.9"], "lora_rank=2 does not go with ema_decay=0.9"),
        (
            ["--push_to_hub", "true", "--hub_model_id", "user/model"],
            "lora_rank=2 does not go with hub_strategy=every_save",
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_adapters_are_neither_averaged_nor_published_apart(trained, capsys, words, message):
    pytest.importorskip("peft")
    assert train(trained, "tune.yaml", "refused", "--lora_rank", "2", *words) == 2
    assert message in capsys.readouterr().err
    assert not (trained / "refused").exists()


def test_adapters_need_a_model_to_stand_beside(trained, capsys):
    assert train(trained, "base.yaml", "wrong", "--lora_rank", "2") == 2
    assert "needs model_name_or_path" in capsys.readouterr().err
    recipe = yaml.safe_load((trained / "tune.yaml").read_text(encoding="utf-8"))
    assert "lora_rank" not in recipe


def test_a_run_goes_on_only_with_documents_as_they_were(trained, capsys):
    words = ["--resume_from_checkpoint", "true", "--attend_across_documents", "true"]
    assert train(trained, "base.yaml", "base", *words) == 2
    assert "its attend_across_documents was False, and is True now" in capsys.readouterr().err


def test_positions_that_rows_do_not_reach_are_not_there_or_named(trained, caplog):
    options = ["--max_steps", "1", "--row_length", "20"]
    assert train(trained, "base.yaml", "given", *options) == 0
    assert json.loads((trained / "given" / "config.json").read_text(encoding="utf-8"))["max_position_embeddings"] == 32
    assert "max_position_embeddings=32, and rows have 20 tokens" in caplog.text
    unsaid = SIZES.replace("max_position_embeddings: 32\n", "")
    (trained / "unsaid.yaml").write_text(RECIPE + unsaid, encoding="utf-8")
    assert train(trained, "unsaid.yaml", "unsaid", *options) == 0
    assert (
        json.loads((trained / "unsaid" / "config.json").read_text(encoding="utf-8"))["max_position_embeddings"] == 20
    )


@pytest.mark.parametrize("option", ["validation_split", "dataset_config"])
def test_options_of_a_data_set_that_is_not_named_are_refused(trained, capsys, option):
    assert train(trained, "base.yaml", "wrong", f"--{option}", "validation") == 2
    assert f"{option}=validation is of a data set, and none is named" in capsys.readouterr().err


def test_options_of_translation_are_none_of_a_language_models(trained, capsys):
    assert train(trained, "base.yaml", "wrong", "--predict_with_generate", "true") == 2
    assert "--predict_with_generate is no option of task language_modeling" in capsys.readouterr().err
    assert main(["train", str(trained / "base.yaml"), "--help"]) == 0
    shown = capsys.readouterr().out
    assert "--eval_num_beams" not in shown
    assert "--ema_decay" in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--lr_scheduler_type", "cosine", "--lr_scheduler_kwargs", '{"min_lr": 1e-4}'], "lr_scheduler_type=cosine with"),
        (["--lr_scheduler_type", "cosine_with_min_lr"], "lr_scheduler_type=cosine_with_min_lr with"),
        (["--optim", "lion_8bit"], "optim=lion_8bit cannot be used"),
        (["--report_to", "comet_ml"], "report_to=comet_ml cannot be used"),
        (["--tokenizer", "charcter"], "tokenizer=charcter is neither bpe nor character, and no folder"),
    ],
    ids=["schedule", "minimum", "optimizer", "reports", "tokenizer"],
)  # fmt: skip
def test_what_the_trainer_cannot_make_costs_no_earlier_run(trained, capsys, words, message):
    before = {path: path.read_bytes() for path in (trained / "base").rglob("*") if path.is_file()}
    assert train(trained, "base.yaml", "base", "--overwrite", "true", *words) == 2
    assert message in capsys.readouterr().err
    assert {path: path.read_bytes() for path in (trained / "base").rglob("*") if path.is_file()} == before


def test_a_model_is_not_written_over_by_what_begins_with_it(trained, capsys):
    before = weights(trained / "base")
    assert train(trained, "tune.yaml", "base", "--overwrite", "true") == 2
    assert "lies in the output folder" in capsys.readouterr().err
    assert weights(trained / "base").keys() == before.keys()


def test_a_folder_with_files_of_somebody_else_is_not_gone_on_in(trained, capsys):
    mine = trained / "mine"
    mine.mkdir()
    (mine / "config.json").write_text("{}", encoding="utf-8")
    words = ["--resume_from_checkpoint", str(trained / "base" / "checkpoint-2")]
    assert train(trained, "base.yaml", "mine", *words) == 2
    assert "mine is not empty" in capsys.readouterr().err
    assert (mine / "config.json").read_text(encoding="utf-8") == "{}"
