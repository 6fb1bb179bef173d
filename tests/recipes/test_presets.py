"""The preset chooses the model: its class, its options, and what a run of it leaves behind."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from transformer_theatre import LSTMForCausalLM, LSTMForConditionalGeneration
from transformer_theatre.configuration import configuration_gpt, configuration_lstm, configuration_transformer
from transformer_theatre.recipes.arguments import find_recipe, read_recipe
from transformer_theatre.recipes.model_arguments import preset_of, presets_for
from transformer_theatre.recipes.theatre import main
from transformer_theatre.recipes.train import SCRIPTS


TRANSFORMER_KEYS = ["d_model", "preset"] + [
    f"{side}_{part}" for side in ("encoder", "decoder") for part in ("layers", "attention_heads", "ffn_dim")
]
LSTM_LINES = ["preset: lstm-luong", "hidden_size: 16", "num_hidden_layers: 1", "reverse_source: false"]


def test_every_preset_belongs_to_one_model_and_one_task():
    modules = (configuration_gpt, configuration_lstm, configuration_transformer)
    names = [name for module in modules for name in module.PRESETS]
    assert len(set(names)) == len(names)
    pairs, running = presets_for("AutoModelForSeq2SeqLM"), presets_for("AutoModelForCausalLM")
    assert sorted([*pairs, *running]) == sorted(names)
    assert pairs["lstm-luong"] is LSTMForConditionalGeneration
    assert running["lstm-zaremba"] is LSTMForCausalLM


@pytest.mark.parametrize(
    ("lines", "words", "message"),
    [
        (
            ["preset: lstm-luang"],
            [],
            r"tiny.yaml:\d+: There is no preset 'lstm-luang' for task translation .*'lstm-luong'",
        ),
        (
            ["preset: 5"],
            [],
            r"tiny.yaml:\d+: There is no preset 5 .*Choose one of: transformer-base, .*lstm-sutskever",
        ),
        ([], ["--preset", "gpt-1"], r"^There is no preset 'gpt-1' for task translation"),
        ([], ["--preset=lstm-zaremba"], r"^There is no preset 'lstm-zaremba' for task translation"),
    ],
    ids=["misspelt", "number", "another task's", "a language model's"],
)
def test_unknown_presets_list_those_of_the_task(recipe_file, lines, words, message):
    recipe = read_recipe(recipe_file(*lines), list(SCRIPTS))
    with pytest.raises(ValueError, match=message):
        preset_of(recipe, words, "AutoModelForSeq2SeqLM", "transformer-base")


def test_the_command_line_chooses_over_the_recipe_and_the_recipe_over_the_default(recipe_file):
    task = ("AutoModelForSeq2SeqLM", "transformer-base")
    recipe = read_recipe(recipe_file("preset: lstm-luong"), list(SCRIPTS))
    assert preset_of(recipe, ["--preset", "lstm-sutskever", "--seed", "1"], *task) == "lstm-sutskever"
    assert preset_of(recipe, [], *task) == "lstm-luong"
    assert preset_of(read_recipe(recipe_file(without=["preset"]), list(SCRIPTS)), [], *task) == "transformer-base"


def test_an_option_of_another_model_is_named_with_the_preset(recipe_file, capsys):
    recipe = recipe_file(*LSTM_LINES, without=[key for key in TRANSFORMER_KEYS if key != "d_model"])
    assert main(["train", str(recipe)]) == 2
    message = capsys.readouterr().err
    assert "tiny.yaml:" in message
    assert "'d_model' is no option of task translation with preset lstm-luong" in message


def test_help_lists_the_options_of_the_chosen_model(capsys):
    assert main(["train", "multi30k-de-en/lstm", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "--input_feeding True" in shown
    assert "--preset lstm-luong" in shown
    assert all(name in shown for name in presets_for("AutoModelForSeq2SeqLM"))
    assert "--d_model" not in shown
    assert "--attn_implementation" not in shown
    assert main(["train", "dates/demo", "--preset", "lstm-luong", "--help"]) == 0
    assert "--input_feeding" in capsys.readouterr().out


def test_the_recipe_of_the_lstm_differs_from_the_transformers_in_the_model_and_its_rates():
    lstm, small = (
        read_recipe(find_recipe(f"multi30k-de-en/{name}"), list(SCRIPTS)).values for name in ("lstm", "small")
    )
    model = presets_for("AutoModelForSeq2SeqLM")
    fields = {
        name for kind in (model["lstm-luong"], model["transformer-base"]) for name in kind.config_class.__annotations__
    }
    differ = {key for key in {*lstm, *small} if lstm.get(key) != small.get(key)} - fields
    assert differ == {"preset", "attn_implementation", "learning_rate", "muon_learning_rate"}

    sizes = []
    for values in (lstm, small):
        model_class = model[values["preset"]]
        own = {name: value for name, value in values.items() if name in model_class.config_class.__annotations__}
        with torch.device("meta"):
            sizes.append(model_class(model_class.config_class.from_preset(values["preset"], **own)).num_parameters())
    assert sizes[0] == pytest.approx(sizes[1], rel=0.01)


@pytest.mark.parametrize("attention", ["luong", "none"])
def test_an_lstm_is_trained_and_translates(corpus, recipe_file, tmp_path, capsys, attention):
    feeding = f"input_feeding: {str(attention == 'luong').lower()}"
    recipe = recipe_file(*LSTM_LINES, f"attention: {attention}", feeding, "bf16: true", without=TRANSFORMER_KEYS)
    folder = tmp_path / "run"
    assert main(["train", str(recipe), "--data_dir", str(corpus), "--output_dir", str(folder)]) == 0
    assert "test_bleu_signature" in json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert (folder / "figures" / "attention.png").is_file() == (attention == "luong")
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "Luong" in card
    assert "Pairs of texts from train.de and train.en." in card
    assert ("without attention" in card) == (attention == "none")
    assert type(AutoModelForSeq2SeqLM.from_pretrained(folder)) is LSTMForConditionalGeneration
    capsys.readouterr()
    files = ["--source", str(corpus / "test.de"), "--target", str(corpus / "test.en")]
    assert main(["evaluate", str(folder), *files]) == 0
    assert "bleu" in json.loads(capsys.readouterr().out)
    assert main(["generate", str(folder), "--prompt", "ein"]) == 2
    assert "holds a theatre_lstm model, which translates: use `theatre translate`" in capsys.readouterr().err


def test_an_lstm_is_trained_and_continues_text(tmp_path, capsys):
    text = tmp_path / "text.txt"
    text.write_text("a small cat sees a big dog. " * 200, encoding="utf-8")
    lines = ["task: language_modeling", f"train_text: {text}", "tokenizer: character", "preset: lstm-zaremba"]
    lines += ["hidden_size: 16", "max_steps: 3", 'save_strategy: "no"', 'eval_strategy: "no"', "use_cpu: true"]
    recipe, folder = tmp_path / "lm.yaml", tmp_path / "run"
    recipe.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert main(["train", str(recipe), "--output_dir", str(folder), "--row_length", "32"]) == 0
    assert type(AutoModelForCausalLM.from_pretrained(folder)) is LSTMForCausalLM
    capsys.readouterr()
    assert main(["generate", str(folder), "--prompt", "a small", "--max_new_tokens", "200"]) == 0
    assert capsys.readouterr().out.startswith("a small")
    assert main(["evaluate", str(folder), "--text", str(text)]) == 0
    capsys.readouterr()
    assert main(["translate", str(folder)]) == 2
    assert "holds a theatre_lstm model, which continues text: use `theatre generate`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("preset", "words", "right"), [("gpt-char", "300", "between 2 and"), ("lstm-zaremba", "1", "2 or")]
)
def test_rows_that_the_model_does_not_take_are_named(tmp_path, capsys, preset, words, right):
    text, recipe = tmp_path / "text.txt", tmp_path / "lm.yaml"
    text.write_text("a small cat sees a big dog. " * 200, encoding="utf-8")
    recipe.write_text(f"task: language_modeling\ntrain_text: {text}\ntokenizer: character\n", encoding="utf-8")
    options = ["--preset", preset, "--row_length", words, "--output_dir", str(tmp_path / "run")]
    assert main(["train", str(recipe), *options]) == 2
    assert f"row_length={words} must be {right}" in capsys.readouterr().err
