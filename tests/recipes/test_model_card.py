import pytest
import yaml
from huggingface_hub import ModelCard

from transformer_theatre import GPTConfig, GPTForCausalLM, TransformerConfig, TransformerForConditionalGeneration
from transformer_theatre.recipes.model_card import escape, template_path, write_model_card


METRICS = {
    "test_bleu": 38.5612,
    "test_bleu_signature": "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0",
    "eval_perplexity": 5.25,
    "train_steps": 1234,
    "train_seconds": 60.0,
    "train_tokens_per_second": 4321.0,
    "train_padding_share": 0.125,
    "test_bleu_low": 37.25,
    "test_bleu_high": 39.75,
    "interval_signature": "bootstrap|bs:1000",
}


@pytest.fixture
def model():
    fields = {f"{side}_{k}": v for side in ("encoder", "decoder") for k, v in (("layers", 1), ("attention_heads", 2))}
    return TransformerForConditionalGeneration(TransformerConfig(vocab_size=50, d_model=16, **fields))


def _write(folder, model, **changes):
    options = {
        "name": "de-en",
        "recipe_name": "multi30k-de-en/small",
        "recipe": {"task": "translation", "seed": 1, "test_source": "test_2016_flickr.de", "learning_rate": 0.003},
        "metrics": METRICS,
        "data": "Pairs.",
        "languages": ["de", "en"],
        "example": "Ein Hund.",
    }
    return write_model_card(folder, model, **{**options, **changes}).read_text(encoding="utf-8")


def test_figures_stand_with_their_signature(model, tmp_path):
    text = _write(tmp_path, model)
    assert "38.56" in text
    assert escape(METRICS["test_bleu_signature"]) in text
    assert "12.5 % padding" in text
    assert f"{model.num_parameters():,}" in text


def test_figures_stand_with_their_interval_where_there_is_one(model, tmp_path):
    text = _write(tmp_path, model)
    assert "| bleu | 38.56 | 37.25 to 39.75 |" in text
    assert "| perplexity | 5.2500 |  |" in text
    assert escape("bootstrap|bs:1000") in text


def test_what_training_took_is_said_in_units_that_people_know(model, tmp_path):
    taken = {
        "train_mfu": 0.4321,
        "train_peak_memory_bytes": 3 * 2**30,
        "train_gpu_energy_joules": 1.8e6,
        "train_flops_per_second": 2.5e12,
        "train_rows": 29000,
        "train_rows_too_long": 17,
        "averaged": "checkpoints of steps 1, 2 (the best by bleu)",
    }
    text = _write(tmp_path, model, metrics={**METRICS, **taken})
    for words in ("43.2 % model FLOPs utilisation", "3,072 MiB", "0.5 kWh of the GPUs", "2,500.0 model GFLOP/s"):
        assert words in text
    assert "29,000 rows to train on; 17 more were too long." in text
    assert "The weights are an average: checkpoints of steps 1, 2 (the best by bleu)." in text
    assert "processors" not in text  # their energy was not measured


def test_what_was_not_measured_is_absent(model, tmp_path):
    text = _write(tmp_path, model, metrics={})
    assert "BLEU" not in text
    assert "Results" not in text
    assert "model-index" not in text
    assert "attention.png" not in text
    assert "optimizer steps" not in text


def test_metadata_is_what_the_hub_reads(model, tmp_path):
    _write(tmp_path, model)
    data = ModelCard.load(tmp_path / "README.md").data
    assert (data.library_name, data.pipeline_tag, data.language) == ("transformers", "translation", ["de", "en"])
    assert {(r.metric_type, r.metric_value) for r in data.eval_results} == {("bleu", 38.5612), ("perplexity", 5.25)}


def test_the_recipe_is_there_as_it_was_run(model, tmp_path):
    recipe = yaml.safe_load(_write(tmp_path, model).partition("```yaml\n")[2].partition("```")[0])
    expected = {"task": "translation", "seed": 1, "test_source": "test_2016_flickr.de", "learning_rate": 0.003}
    assert recipe == expected


def test_the_code_loads_the_folder_or_the_repository_never_the_name_of_a_recipe(model, tmp_path):
    assert 'name = "."  # this folder' in _write(tmp_path, model)
    assert 'name = "me/mine"  # its repository on the Hub' in _write(
        tmp_path, model, recipe={"hub_model_id": "me/mine"}
    )


def test_text_cannot_become_markup(model, tmp_path):
    text = _write(
        tmp_path,
        model,
        name="a|b<script>x",
        recipe_name="a|b<script>/x",
        contract="PASS | [link](http://evil)",
        example="```\n# Mine",
    )
    assert "<script>" not in text.partition("# ")[2].partition("## Use it")[0]
    assert "[link](" not in text
    assert text.count("```") == 6


def test_departures_are_those_of_the_docstring(model, tmp_path):
    assert "Xavier-uniform" in _write(tmp_path, model)
    gpt = GPTForCausalLM(GPTConfig(vocab_size=50, d_model=16, num_hidden_layers=1, num_attention_heads=2))
    text = _write(tmp_path, gpt, languages=["en"])
    assert "queries, keys and values have a projection each" in text
    assert "AutoModelForCausalLM" in text


def test_the_picture_is_shown_where_there_is_one(model, tmp_path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "attention.png").touch()
    assert "![Encoder-decoder attention of one example](figures/attention.png)" in _write(tmp_path, model)


def test_every_section_begins_on_a_line_of_its_own(model, tmp_path):
    text = _write(tmp_path, model, by_language={"German": 99.5}, contract="PASS: all")
    for heading in ("## Results", "## Departures from the paper", "## Training data", "## Citation"):
        assert f"\n\n{heading}\n\n" in text
    assert "| German | 99.50 |" in text
    assert template_path().is_file()
