"""`theatre compare gpt1-ablation`: what is trained, what is not trained again, and what the table says."""

import json
import random

import numpy as np
import pytest
import torch
import yaml

from transformer_theatre import GPTConfig, GPTForCausalLM, GPTForSequenceClassification, LSTMConfig, LSTMForCausalLM
from transformer_theatre.recipes import ablation
from transformer_theatre.recipes.ablation import task_recipes
from transformer_theatre.recipes.ablation_report import PAPER, TITLES, Cell, paper_gain, plot, table
from transformer_theatre.recipes.data_folder import data_folder
from transformer_theatre.recipes.task_arguments import TaskDataArguments
from transformer_theatre.recipes.task_metrics import Accuracy
from transformer_theatre.recipes.task_splits import read_splits
from transformer_theatre.recipes.theatre import main
from transformer_theatre.recipes.tokenization import train_bpe_tokenizer
from transformer_theatre.recipes.train import load_recipe


SIZES = {"d_model": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "ffn_dim": 32, "max_position_embeddings": 32}


@pytest.fixture
def place(tmp_path):
    """A folder with two language models, two recipes, and their rows in folders of their own."""
    tokenizer = train_bpe_tokenizer(["sun moon rain"] * 3, 270, appends_eos=False)
    torch.manual_seed(0)
    models = {"gpt": GPTForCausalLM(GPTConfig(vocab_size=len(tokenizer), **SIZES))}
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "attention": "none", "input_feeding": False}
    models["lstm"] = LSTMForCausalLM(LSTMConfig(vocab_size=len(tokenizer), **sizes, is_encoder_decoder=False))
    for name, model in models.items():
        model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    rng = random.Random(1)
    for name, task in (("one", "classification"), ("two", "similarity")):
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True)
        texts = ["2"] if task == "classification" else ["2", "3"]
        for split in ("train", "test"):
            rows = [[str(number % 2), *(" ".join(rng.choices(["sun", "moon", "rain"], k=3)) for _ in texts)] for number in range(16)]  # fmt: skip
            (folder / f"{name}_{split}.tsv").write_text("".join("\t".join(row) + "\n" for row in rows))
        values = {"task": task, "train_file": f"{name}_train.tsv", "test_file": f"{name}_test.tsv"}
        values |= {"text_fields": texts, "label_field": 1, "attn_implementation": "eager", "d_model": 8, "seed": 3}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(values))
    return tmp_path


def compare(place, *words):
    words = ["--output_dir", str(place / "out"), "--data_dir", str(place / "data"), *words]
    words += ["--use_cpu", "true", "--disable_tqdm", "true", "--num_train_epochs", "1"]
    return main(["compare", "gpt1-ablation", "--pretrained", str(place / "gpt"), *words])


@pytest.mark.slow
def test_each_recipe_is_trained_in_every_way_once(place, capsys, monkeypatch):
    words = ["--pretrained_lstm", str(place / "lstm"), "--recipes", str(place / "one.yaml"), str(place / "two.yaml")]
    assert compare(place, *words) == 0
    base = place / "out"
    runs = sorted(path.parent for path in base.glob("**/metrics.json"))
    assert len(runs) == 8
    configs = {path.name: json.loads((path / "config.json").read_text()) for path in runs[:4]}
    assert configs["no-auxiliary-loss"]["lm_loss_weight"] == 0
    assert {name: config["model_type"] for name, config in configs.items() if name == "lstm"} == {
        "lstm": "theatre_lstm"
    }
    as_run = {path.name: yaml.safe_load((path / "recipe.yaml").read_text()) for path in runs[:4]}
    assert as_run["no-pretraining"]["config_name"] == as_run["full"]["model_name_or_path"] == "gpt"
    assert all("d_model" not in recipe and recipe["seed"] == 3 for recipe in as_run.values())

    report = json.loads((base / "ablation.json").read_text())
    for cell in report["cells"]:
        folder = next(path for path in runs if path.name == cell["variant"] and path.parent.name in cell["recipe"].replace("/", "-"))  # fmt: skip
        metrics = json.loads((folder / "metrics.json").read_text())
        assert cell["value"] == pytest.approx(metrics[f"test_{cell['metric']}"])
        assert cell["low"] == pytest.approx(metrics[f"test_{cell['metric']}_low"], abs=0.08)
    assert (base / "ablation.png").read_bytes().startswith(b"\x89PNG")
    assert "| Transformer without pre-training |" in (base / "ablation.md").read_text()

    def no_training(*_):
        raise AssertionError("trained again")

    monkeypatch.setattr(ablation, "train", no_training)
    text = (base / "ablation.md").read_text()
    assert compare(place, *words) == 0
    assert (base / "ablation.md").read_text() == text
    (runs[0] / "model.safetensors").unlink()
    assert compare(place, *words) == 1
    capsys.readouterr()
    assert compare(place, *words, "--learning_rate", "0.1") == 2
    assert "learning_rate was None, and it would be 0.1 now" in capsys.readouterr().err
    rows = place / "data" / "two" / "two_test.tsv"
    rows.write_text(rows.read_text().replace("sun", "star"))
    assert compare(place, *words) == 2
    assert "two_test.tsv was another one" in capsys.readouterr().err


def cell_of(recipe, variant, right, full):
    labels = np.ones(len(right), dtype=int)
    figures = [[Accuracy.figure(np.array(side), labels)] for side in (right, full)]
    return Cell.of(recipe, variant, "accuracy", len(right), *figures)


def test_a_gain_is_held_against_the_sign_in_the_paper():
    good, bad, same = [1] * 95 + [0] * 5, [1] * 60 + [0] * 40, [1] * 94 + [0] * 6
    assert cell_of("sst2/small", "no-pretraining", bad, good).verdict == "agrees"
    assert cell_of("sst2/small", "no-pretraining", good, bad).verdict == "disagrees"
    assert cell_of("sst2/small", "no-auxiliary-loss", good, bad).verdict == "agrees"
    assert cell_of("sst2/small", "lstm", same, good).verdict == "undecided"
    assert cell_of("copa/small", "no-auxiliary-loss", bad, good).verdict == "the paper does not say"
    assert cell_of("copa/small", "no-pretraining", bad, good).verdict == "agrees"
    cell = cell_of("rte/small", "no-pretraining", bad, good)
    assert cell.gain == pytest.approx(0.35)
    # Rows that both have right, or both wrong, do not make the difference uncertain.
    apart = 1.96 * np.std([1] * 35 + [0] * 65) / 10
    assert (cell.gain_low, cell.gain_high) == (pytest.approx(0.35 - apart, abs=0.02), pytest.approx(0.35 + apart, abs=0.02))  # fmt: skip


def test_seeds_are_meant():
    rows = [[1, 1, 1, 0], [1, 0, 0, 0]]
    figures = [Accuracy.figure(np.array(row), np.ones(4, dtype=int)) for row in rows]
    cell = Cell.of("sst2/small", "full", "accuracy", 4, figures, figures)
    assert (cell.value, cell.gain, cell.seeds) == (0.5, 0.0, 2)


def test_the_table_and_the_plot_have_all_that_was_measured(tmp_path):
    cells = [cell_of(name, variant, [1, 0, 1, 1], [1, 1, 1, 0]) for name in PAPER for variant in list(TITLES)[:3]]
    text = table(cells, has_lstm=False)
    assert "The LSTM was not trained" in text
    assert "| cola/small | pre-training | +0.0" in text.replace("-0.0", "+0.0")
    assert "+26.5" in text  # 45.4 - 18.9
    assert "LSTM, auxiliary loss" not in text
    plot(cells, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 5000


def test_the_papers_table_adds_up():
    """The drops that the paper's text names are those of the means of all eight tasks; each is above 0 here too."""
    assert paper_gain("stsb/small", "no-pretraining") == pytest.approx(51.1)
    assert all(paper_gain(name, "no-pretraining") > 0 for name in PAPER)
    assert paper_gain("ecare/small", "no-auxiliary-loss") is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--pretrained_lstm", "nowhere/at/all"], "There is no model folder nowhere/at/all"),
        (["--pretrained_lstm", "GPT"], "gpt holds a theatre_gpt model, and must hold a theatre_lstm"),
        (["--pretrained", "TASK"], "task holds a GPTForSequenceClassification, which answers a task"),
        (["--lm_loss_weight", "0"], "--lm_loss_weight is not for this comparison"),
        (["--recipes", "shakespeare-char/cpu"], "shakespeare-char/cpu is of task language_modeling"),
        (["--recipes", "copa/small"], "lie in no folder of"),
        (["--seeds", "1", "1"], "none of them twice"),
        (["--recipes", "cola/small", "cola/small"], "must be of different names"),
        (["--recipes", "ONE", "--learning_rat", "1"], "--learning_rat is no option"),
        (["--recipes", "UNTESTED"], "untested.yaml names no test rows, by which models are compared"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_before_anything_is_trained(place, capsys, words, message):
    GPTForSequenceClassification(GPTConfig(vocab_size=300, **SIZES)).save_pretrained(place / "task")
    untested = yaml.safe_load((place / "one.yaml").read_text(encoding="utf-8"))
    del untested["test_file"]
    (place / "untested.yaml").write_text(yaml.safe_dump(untested), encoding="utf-8")
    places = {"ONE": "one.yaml", "UNTESTED": "untested.yaml", "GPT": "gpt", "TASK": "task"}
    words = [str(place / places[word]) if word in places else word for word in words]
    assert compare(place, *words) == 2
    assert message in capsys.readouterr().err
    assert not (place / "out").exists()


def test_comparisons_are_listed_and_found(capsys):
    assert main(["compare", "--help"]) == 0
    assert "gpt1-ablation" in capsys.readouterr().out
    assert main(["compare", "gpt-ablation"]) == 2
    assert "did you mean 'gpt1-ablation'" in capsys.readouterr().err


@pytest.mark.parametrize("name", task_recipes())
def test_the_rows_of_every_recipe_are_found_and_read(name, shared_data):
    recipe = load_recipe(name)
    known = {part: recipe.values[part] for part in TaskDataArguments.__dataclass_fields__ if part in recipe.values}
    for part in ("text_fields", "label_field"):
        if part in known:
            known[part] = [str(word) for word in known[part]] if isinstance(known[part], list) else str(known[part])
    if isinstance(known["train_file"], str):
        known["train_file"] = [known["train_file"]]
    splits = read_splits(recipe.task, TaskDataArguments(data_dir=str(data_folder(recipe, shared_data)), **known))
    assert splits.rows.keys() == {"train", "validation", "test"}
    assert len(splits.rows["train"]) > 300
    assert all(len(rows) >= 25 and len(set(rows["label"])) > 1 for rows in splits.rows.values())
