import pytest

from transformer_theatre import TransformerForConditionalGeneration
from transformer_theatre.recipes.arguments import (
    find_recipe,
    help_text,
    options_of,
    parse_recipe,
    portable,
    read_recipe,
    shipped_recipes,
    without_place,
)
from transformer_theatre.recipes.data_arguments import PairDataArguments
from transformer_theatre.recipes.model_arguments import model_arguments, model_config, presets_for
from transformer_theatre.recipes.run_arguments import RunArguments
from transformer_theatre.recipes.run_folder import begin_folder
from transformer_theatre.recipes.theatre import main
from transformer_theatre.recipes.train import SCRIPTS, for_text_of, script


TYPES = (
    model_arguments("AutoModelForSeq2SeqLM", "transformer-base"),
    PairDataArguments,
    RunArguments,
)


def _parse(path, *overrides):
    return parse_recipe(read_recipe(path, list(SCRIPTS)), [*overrides, "--output_dir", "unused"], *TYPES)


# There is no published figure that these can be held against.
NO_ANCHOR = {
    "multi30k-de-en/lstm",
    "gpt-2/small",
    "general-lm/small",
}
NO_ANCHOR |= {f"styles/{name}" for name in ("film-reviews", "fomc", "newswire", "poems", "sonnets")}


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_parses(name):
    recipe = read_recipe(find_recipe(name), list(SCRIPTS))
    types = script(recipe.task).argument_types(recipe, [])
    parse_recipe(recipe, ["--output_dir", "unused", "--bf16", "false"], *types)
    assert (recipe.anchor is None) == (name in NO_ANCHOR)


def test_numbers_that_yaml_takes_for_text_become_numbers(recipe_file):
    (_, _, args), _ = _parse(recipe_file("learning_rate: 1e-3", "adam_epsilon: 1e-9"))
    assert (args.learning_rate, args.adam_epsilon) == (0.001, 1e-9)


def test_the_command_line_wins_over_the_file(recipe_file):
    (model, _, args), given = _parse(
        recipe_file("dropout: 0.3"), "--dropout", "0.2", "--seed=7", "--learning-rate", "0.5"
    )
    assert (model.dropout, args.seed, args.learning_rate) == (0.2, 7, 0.5)
    assert (given["dropout"], given["seed"], given["d_model"]) == (0.2, 7, 16)


def test_a_recipe_as_it_was_run_does_not_say_where(recipe_file):
    places = [
        "--train_source",
        "/home/me/train.de",
        "--validation_source",
        "C:\\me\\val.de",
        "--tokenizer",
        "~/tokenizer",
    ]
    _, given = _parse(recipe_file(), *places, "--test_source", "../me/test.de", "--train_target", "raw/train.en")
    names = ("train_source", "validation_source", "tokenizer", "test_source", "train_target")
    assert [given[name] for name in names] == ["train.de", "val.de", "tokenizer", "test.de", "raw/train.en"]
    assert without_place({"a": ["/x/y", 1, True, None, "wmt/wmt14"]}) == {"a": ["y", 1, True, None, "wmt/wmt14"]}


def test_a_slash_in_a_text_is_no_path():
    words = {"label": {"0": "~no", "1": "/yes"}}
    for key, text in (
        ("template", "/{label}/ {text}"),
        ("template_words", words),
        ("sample_prompts", ["/a/b", "../c"]),
    ):
        assert portable(key, text) == text
    assert portable("train_text", ["/a/b.txt"]) == ["b.txt"]


def test_a_recipe_in_somebodys_home_is_not_named_after_them(recipe_file, monkeypatch):
    path = recipe_file()
    assert read_recipe(path, list(SCRIPTS)).name == "toy/tiny"
    monkeypatch.setenv("HOME", str(path.parent))
    monkeypatch.setenv("USERPROFILE", str(path.parent))
    assert read_recipe(path, list(SCRIPTS)).name == "tiny"


def test_false_and_empty_mean_what_they_say(recipe_file):
    (model, data, _), _ = _parse(recipe_file("norm_first: false", "data_dir:", "scale_embedding: False"))
    assert model.norm_first is False
    assert model.scale_embedding is False
    assert data.data_dir is None


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ["lerning_rate: 1e-3"],
            r"tiny.yaml:\d+: 'lerning_rate' is no option of task translation with preset transformer-base .did you mean 'learning_rate'",
        ),
        (["learning_rate: fast"], r"tiny.yaml:\d+: argument --learning_rate: invalid float value: 'fast'"),
        (["d_model: 12.5"], r"tiny.yaml:\d+: argument --d_model: invalid int value: '12.5'"),
        (["norm_first: maybe"], r"tiny.yaml:\d+: .*norm_first"),
        (["task: translate"], r"task: 'translate' must be one of: translation, language_modeling"),
        (["seed: [1"], r"is no YAML file"),
        (["no: 5"], r"each key a name"),
        (["anchor: 36.5"], r"tiny.yaml:\d+: anchor must have the keys"),
        (["seed: 1", "seed: 2"], r"tiny.yaml:\d+: 'seed' stands in line \d+ already"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_wrong_recipes_name_file_line_and_what_is_right(recipe_file, lines, message):
    with pytest.raises(ValueError, match=message):
        _parse(recipe_file(*lines))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--lr_scheduler_kwargs", "{min_lr: 1.0e-4}"],
            r"--lr_scheduler_kwargs '\{min_lr: 1.0e-4\}' is no JSON.*in double quotes",
        ),
        (["--dropuot", "0.1"], r"--dropuot is no option of task translation .* .did you mean 'dropout'"),
        (["--seed", "one"], r"argument --seed: invalid int value: 'one'"),
        (["--seed"], r"argument --seed: expected one argument"),
        (["stray"], r"unrecognized arguments: stray"),
        (["--drop", "0.1"], r"--drop is no option"),
        (["--learning_rate", "nan"], r"learning_rate=nan must be above 0"),
        (["--gradient_accumulation_steps", "0"], r"gradient_accumulation_steps=0 must be 1 or more"),
        (["--label_smoothing_factor", "2"], r"label_smoothing_factor=2.0 must be at least 0, and below 1"),
        (["--generation_num_beams", "0"], r"generation_num_beams=0 must be 1 or more"),
        (["--num_train_epochs", "0", "--max_steps", "-1"], r"num_train_epochs=0.0 must be above 0"),
        (
            ["--max_tokens_per_batch", "4096", "--per_device_train_batch_size", "8"],
            r"--per_device_train_batch_size 8 has no use beside max_tokens_per_batch",
        ),
        (["--max_length", "0"], r"max_length=0 must be 2 or more"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_wrong_options_are_named(recipe_file, words, message):
    with pytest.raises(ValueError, match=message):
        _parse(recipe_file(), *words)


def test_a_file_that_is_no_mapping_is_refused(tmp_path):
    path = tmp_path / "list.yaml"
    path.write_text("- 1\n- 2\n", encoding="utf-8")
    with pytest.raises(ValueError, match="must hold lines of `key: value`"):
        read_recipe(path, list(SCRIPTS))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["metrics: [bleu, rogue]"], r"metrics: 'rogue' must be one of: bleu, .*did you mean 'rouge'"),
        (["lowercase: true", "tokenizer: character"], "lowercase goes with .*\"bpe\", and not with 'character'"),
    ],
    ids=["metric", "lowercase"],
)
def test_what_does_not_exist_or_go_together_is_refused(recipe_file, lines, message):
    with pytest.raises(ValueError, match=message):
        _parse(recipe_file(*lines))


def test_metrics_are_one_word_or_several_and_can_be_run_again(recipe_file, tmp_path):
    for line, words, chosen in (
        ("metrics: rouge", [], ["rouge"]),
        ("metrics: [rouge, bleu]", [], ["rouge", "bleu"]),
        ("metrics: rouge", ["--metrics", "chrf", "bleu"], ["chrf", "bleu"]),
    ):
        parsed, given = _parse(recipe_file(line), *words)
        assert parsed[1].metrics == given["metrics"] == chosen
    assert "--metrics rouge bleu" in help_text(
        read_recipe(recipe_file("metrics: [rouge, bleu]"), list(SCRIPTS)), TYPES, everything=False
    )


def test_recipes_are_found_by_name_and_by_path():
    path = find_recipe("multi30k-de-en/small")
    assert find_recipe(str(path)) == path
    assert find_recipe("recipes/translation/multi30k-de-en/small.yaml").resolve() == path.resolve()
    with pytest.raises(ValueError, match=r"no recipe 'multi30k-de-en/smal' .did you mean 'multi30k-de-en/small'"):
        find_recipe("multi30k-de-en/smal")


def test_options_are_found_however_they_are_written():
    words = ["stray", "--a", "1", "--b=2", "--c-d", "3", "4", "--e", "--a=5=6", "--f", "-1"]
    assert options_of(words) == {"a": ["5=6"], "b": ["2"], "c_d": ["3", "4"], "e": [], "f": ["-1"]}


@pytest.mark.parametrize("preset", ["transformer-base", "gpt-1", "lstm-luong", "lstm-zaremba"])
def test_every_field_of_a_configuration_is_an_option_with_a_help_text(preset):
    task = "AutoModelForCausalLM" if preset in ("gpt-1", "lstm-zaremba") else "AutoModelForSeq2SeqLM"
    kind, model_class = model_arguments(task, preset), presets_for(task)[preset]
    config_class = model_class.config_class
    ids = {"pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id", "is_encoder_decoder", "use_cache"}
    converted = {"source_vocab_size", "output_bias", "position_offset"}  # of models from elsewhere only
    expected = set(config_class.__annotations__) - ids - converted - {"model_type"}
    chosen = {"preset", "attn_implementation"} if model_class._supports_sdpa else {"preset"}
    assert {f.name for f in kind.__dataclass_fields__.values()} == expected | chosen
    for part in kind.__dataclass_fields__.values():
        assert not part.metadata["help"].startswith(f"{part.name} ("), f"{part.name} has no comment in its own line"


def test_another_text_has_neither_the_licence_nor_the_anchor_of_the_recipes_own(caplog):
    recipe = read_recipe(find_recipe("shakespeare-char/cpu"), list(SCRIPTS))
    assert for_text_of(recipe, ["--data_dir", "elsewhere", "--train_sampling_strategy", "random"]) is recipe
    assert not caplog.messages
    mine = for_text_of(recipe, ["--train_text=mine.txt"])
    assert mine.anchor is None
    [warning] = caplog.messages
    assert "data_licence" in warning
    assert "train_text" not in warning
    assert not {"language", "data_licence", "train_text"} & mine.values.keys()
    pairs = for_text_of(
        read_recipe(find_recipe("multi30k-de-en/small"), list(SCRIPTS)), ["--train_source", "pairs.tsv"]
    )
    assert not {"train_target", "validation_source", "test_source"} & pairs.values.keys()
    assert pairs.values["d_model"] == 256


def test_arguments_depart_from_their_preset():
    kind = model_arguments("AutoModelForSeq2SeqLM", "transformer-base")
    arguments = kind(preset="transformer-tiny", dropout=0.05, attn_implementation="eager")
    config = model_config(TransformerForConditionalGeneration, arguments, vocab_size=123)
    assert (config.d_model, config.dropout, config.vocab_size) == (128, 0.05, 123)
    assert config._attn_implementation == "eager"


def test_a_recipe_as_run_can_be_run_again(recipe_file, tmp_path):
    words = ["--hub_token", "hf_secret", "--overwrite", "true", "--report_to", "none", "--dropout", "0.2"]
    first, given = _parse(
        recipe_file("lr_scheduler_kwargs: {a: 1}"), *words, "--accelerator_config", '{"even_batches": false}'
    )
    assert not {"hub_token", "overwrite", "output_dir"} & given.keys()
    begin_folder(tmp_path / "run", {"task": "translation", **given}, name="toy/tiny")
    second, again = _parse(tmp_path / "run" / "recipe.yaml")
    assert again == given
    assert second[:2] == first[:2]


def test_help_shows_every_option_with_the_recipes_own_value(recipe_file):
    text = help_text(read_recipe(recipe_file("dropout: 0.25"), list(SCRIPTS)), TYPES, everything=False)
    assert "--dropout 0.25" in text
    assert "--max_length 256" in text
    assert "tokens; a longer side of a pair is a bad line" in text
    assert "--torch_empty_cache_steps" not in text
    assert "--torch_empty_cache_steps" in help_text(read_recipe(recipe_file(), list(SCRIPTS)), TYPES, everything=True)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("seed: [1, 2]", "seed: [1, 2] must be one value"),
        ("preset: [gpt-char]", "preset: ['gpt-char'] must be one value"),
        ("train_text: {a: b}", "train_text: {'a': 'b'} must be one value"),
        ("train_text: [no, a.txt]", "holds False, which YAML made of a word: put it in quotes"),
    ],
)
def test_values_of_another_shape_are_named_with_their_line(tmp_path, capsys, line, message):
    (tmp_path / "a.yaml").write_text(f"task: language_modeling\n{line}\n", encoding="utf-8")
    assert main(["train", str(tmp_path / "a.yaml"), "--output_dir", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert f"{tmp_path / 'a.yaml'}:2: " in error
    assert message in error
