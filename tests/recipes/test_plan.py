import re
import subprocess
import sys

import pytest

from transformer_theatre import GPTConfig, GPTForCausalLM, TransformerConfig, TransformerForConditionalGeneration
from transformer_theatre.recipes.arguments import find_recipe, read_recipe
from transformer_theatre.recipes.plan import largest_batch, make_plan
from transformer_theatre.recipes.theatre import main


# Table 3 and sections 5.1 to 6.1 of the paper.
PAPER = {
    "warmup_steps": 4000,
    "adam_beta1": 0.9,
    "adam_beta2": 0.98,
    "adam_epsilon": 1e-9,
    "label_smoothing_factor": 0.1,
}


@pytest.mark.parametrize(
    ("model", "dropout", "steps", "seconds_a_step", "averaged"),
    [("base", 0.1, 100_000, 0.4, 5), ("big", 0.3, 300_000, 1.0, 20)],
)
def test_recipes_of_wmt14_are_to_the_papers_letter(model, dropout, steps, seconds_a_step, averaged):
    plan = make_plan(f"wmt14-en-de/{model}", [], devices=8)
    args, config = plan.args, plan.config
    assert {name: getattr(args, name) for name in PAPER} == PAPER
    assert (args.noam_factor, args.max_grad_norm, args.weight_decay) == (1.0, 0, 0)
    assert (args.max_steps, args.average_last, args.generation_num_beams) == (steps, averaged, 4)
    assert args.save_steps * seconds_a_step == 600  # ten minutes
    assert args.save_total_limit >= averaged
    assert 8 * args.max_tokens_per_batch == 50_000
    assert (config.dropout, config.norm_first, config.vocab_size) == (dropout, False, 37_000)
    assert config.to_dict() == type(config).from_preset(f"transformer-{model}").to_dict()


def test_the_recipe_of_gpt_1_is_to_the_papers_letter():
    """Section 4.1 of Radford et al., 2018."""
    plan = make_plan("gpt-1/books", [], devices=8)
    args, config = plan.args, plan.config
    assert (args.learning_rate, args.warmup_steps, args.lr_scheduler_type.value) == (2.5e-4, 2000, "cosine")
    assert (args.num_train_epochs, args.weight_decay) == (100, 0.01)
    assert plan.tokens == 64 * 512
    assert config.vocab_size == 40_000 + 256 + 2  # merges, bytes, and tokens that are no text
    assert config.to_dict() == type(config).from_preset("gpt-1", vocab_size=config.vocab_size).to_dict()
    assert (config.num_hidden_layers, config.d_model, config.num_attention_heads, config.ffn_dim) == (
        12,
        768,
        12,
        3072,
    )
    assert {config.dropout, config.attention_dropout} == {0.1}
    assert not config.norm_first


def test_the_recipe_of_gpt_2_is_its_first_model_in_the_papers_batches():
    """Section 2.3 and table 2 of Radford et al., 2019; the rest is table 2.1 and appendix B of Brown et al., 2020."""
    plan = make_plan("gpt-2/small", [], devices=8)
    args, config = plan.args, plan.config
    assert 124e6 < plan.parameters < 125e6
    assert plan.tokens == 512 * 1024
    assert config.to_dict() == type(config).from_preset("gpt-2").to_dict()
    assert (args.learning_rate, args.adam_beta2, args.weight_decay, args.max_grad_norm) == (6e-4, 0.95, 0.1, 1.0)
    assert args.warmup_steps == round(375e6 / plan.tokens)


@pytest.mark.parametrize("kind", ["post", "pre"])
def test_recipes_of_iwslt14_differ_in_the_norm_alone(kind):
    recipes = {
        name: read_recipe(find_recipe(f"iwslt14-de-en/{name}-norm"), ["translation"]) for name in ("post", "pre")
    }
    differing = {key for key in recipes["post"].values if recipes["post"].values[key] != recipes["pre"].values[key]}
    assert differing == {"norm_first"}
    plan = make_plan(f"iwslt14-de-en/{kind}-norm", [])
    assert plan.config.norm_first == (kind == "pre")
    assert (plan.args.optimizer, plan.args.learning_rate, plan.args.num_train_epochs) == ("radam", 7e-4, 90)
    assert (plan.config.attention_dropout, plan.config.activation_dropout) == (0.1, 0.1)


def test_a_plan_counts_what_all_devices_do_together():
    eight, one = make_plan("wmt14-en-de/base", [], devices=8), make_plan("wmt14-en-de/base", [])
    accumulating = make_plan("wmt14-en-de/base", ["--gradient_accumulation_steps", "8"])
    assert eight.tokens == accumulating.tokens == 8 * one.tokens
    assert eight.operations == pytest.approx(8 * one.operations)
    assert eight.tokens == pytest.approx(50_000, rel=0.02)
    assert one.memory() == accumulating.memory()
    assert eight.memory().total == one.memory().total + 4 * one.parameters  # what DDP sends
    sharded = make_plan("wmt14-en-de/base", ["--fsdp_size", "8"], devices=8)
    assert sharded.memory().gradients == one.parameters * 4 / 8
    model = TransformerForConditionalGeneration(TransformerConfig())
    assert one.parameters == sum(weight.numel() for weight in model.parameters())


def test_the_largest_batch_fills_the_memory():
    tokens = largest_batch(make_plan("wmt14-en-de/big", []), 24)
    fitting, too_large = (
        make_plan("wmt14-en-de/big", ["--max_tokens_per_batch", str(size)]).memory().total
        for size in (tokens, tokens + 200)
    )
    assert fitting <= 0.75 * 24e9 < too_large
    assert largest_batch(make_plan("wmt14-en-de/big", []), 3) == 0


def test_rows_of_a_language_model_have_the_recipes_length():
    plan = make_plan("shakespeare-char/cpu", [])
    assert (plan.source_length, plan.target_length) == (0, plan.config.max_position_embeddings)
    assert plan.tokens == plan.args.per_device_train_batch_size * plan.target_length


def test_the_command_says_what_fits_and_what_it_costs(capsys):
    assert main(["plan", "wmt14-en-de/base", "--devices", "8", "--bf16", "true", "--price", "2"]) == 0
    output = capsys.readouterr().out
    plan = make_plan("wmt14-en-de/base", ["--bf16", "true"], devices=8)
    assert f"{plan.parameters:,} parameters, bfloat16" in output
    lines = {line[:10].strip(): line.split() for line in output.splitlines()}
    assert lines["T4"][-1] == "-"  # it has no bfloat16
    assert lines["H100"][-4] == "yes"
    hours, device_hours, cost = map(float, lines["H100"][-3:])
    assert device_hours == pytest.approx(8 * hours, abs=0.5)
    assert cost == pytest.approx(2 * device_hours, abs=1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["wmt14-en-de/base", "--device", "H1000"], "There is no device 'H1000'"),
        (["wmt14-en-de/base", "--utilisation", "30"], "utilisation=30.0 must be above 0, and 1 at most"),
        (["wmt14-en-de/base", "--devices", "0"], "devices=0 must be 1 or more"),
        (["wmt14-en-de/base", "--fsdp_size", "3", "--devices", "8"], "fsdp_size=3 must divide devices=8"),
        (["wmt14-en-de/base", "--device", "V100-32GB", "--warmup_step", "3"], "did you mean 'warmup_steps'"),
        (["wmt14-en-de/base", "--max_tokens_per_batch", "auto"], "give the plan a number"),
        (["wmt14-en-de/huge"], "There is no recipe 'wmt14-en-de/huge'"),
    ],
)
def test_wrong_words_are_named(words, message, capsys):
    assert main(["plan", *words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="a process knows its peak on Linux only")
@pytest.mark.parametrize("precision", [[], ["--bf16", "true"]], ids=["float32", "bfloat16"])
def test_memory_by_formula_is_near_what_an_update_takes(precision):
    """In a process of its own: one that had memory and gave it back has it at hand."""
    words = ["--max_tokens_per_batch", "1200", "--use_cpu", "true", "--encoder_layers", "2", "--decoder_layers", "2"]
    command = [sys.executable, "-m", "transformer_theatre.recipes.theatre", "plan", "wmt14-en-de/base", "--measure"]
    result = subprocess.run([*command, *words, *precision], capture_output=True, text=True, check=True)
    found = re.findall(r"GB: ([\d.]+) measured, ([\d.]+) by formula", result.stdout)
    kept, peak = ((float(measured), float(formula)) for measured, formula in found)
    assert kept[0] == pytest.approx(kept[1], rel=0.02)
    assert peak[0] == pytest.approx(peak[1], rel=0.2)


def test_a_plan_takes_the_words_of_training(tmp_path):
    config = GPTConfig(vocab_size=50, d_model=8, num_hidden_layers=1, num_attention_heads=2, ffn_dim=12)
    GPTForCausalLM(config).save_pretrained(tmp_path)
    plan = make_plan("imdb-lm/small", ["--model_name_or_path", str(tmp_path)])
    assert plan.parameters == GPTForCausalLM(config).num_parameters()
    assert make_plan("gpt-1/books", ["--row_length", "100"]).config.max_position_embeddings == 100
