import itertools
import json

import hubcard
import pytest
import yaml
from huggingface_hub import ModelCard, metadata_load

from transformer_theatre import (
    GPTConfig,
    GPTForCausalLM,
    LSTMConfig,
    LSTMForConditionalGeneration,
    TransformerConfig,
    TransformerForConditionalGeneration,
)
from transformer_theatre.recipes.card_metadata import measured_on
from transformer_theatre.recipes.card_text import escape, fenced, plain, quoted, visible
from transformer_theatre.recipes.data_arguments import PairDataArguments, TextDataArguments
from transformer_theatre.recipes.environment import hardware, processor, versions
from transformer_theatre.recipes.hub_names import HUB_TASKS, LICENCES
from transformer_theatre.recipes.model_card import rewrite_model_card, template_path, write_model_card


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
    assert "| BLEU | 38.56 | 37.25 to 39.75 |" in text
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
    assert "29,000 pairs of texts to train on; 17 more were too long." in text
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


def test_a_model_that_writes_no_capital_letters_is_known_by_its_lower_cased_figures(model, tmp_path):
    more = {"test_bleu_lowercase": 41.5, "test_bleu_moses_lowercase": 41.6, "test_chrf": 51.9, "test_exact_match": 0.0}
    said = "The model writes no capital letters."
    assert said not in _write(tmp_path, model, metrics={**METRICS, **more})
    recipe = {"task": "translation", "test_source": "test.de", "lowercase": True}
    text = _write(tmp_path, model, metrics={**METRICS, **more}, recipe=recipe)
    assert said in text
    assert "| chrF2 | 51.90 |" in text
    shown = {(r.metric_type, r.metric_value) for r in ModelCard(text).data.eval_results}
    assert shown == {("bleu", 41.5), ("perplexity", 5.25)}


def test_the_recipe_is_there_as_it_was_run(model, tmp_path):
    recipe = yaml.safe_load(_write(tmp_path, model).partition("```yaml\n")[2].partition("```")[0])
    expected = {"task": "translation", "seed": 1, "test_source": "test_2016_flickr.de", "learning_rate": 0.003}
    assert recipe == expected


def test_the_code_loads_the_folder_never_the_name_of_a_recipe(model, tmp_path):
    assert 'name = "."  # this folder' in _write(tmp_path, model)


# What text from elsewhere may hold: the end of the metadata, headings, templates, HTML, tables, links, fences, marks of direction.
HOSTILE = """x
---
license: mit
---
# Heading {{ 7 * 7 }} {% raw %} {# no #} <script>a</script> <!-- | [l](http://evil.com) ![i](x.png) http://evil.com
www.evil.com @somebody `a` ```
~~~
$$x$$ &lt;b&gt; *b* _i_ \x1b[31m \u202eabc a---"""


def _hostile_card(folder, model):
    recipe = {"task": "translation", "intended_use": HOSTILE, "test_source": HOSTILE, "seed": 1}
    metrics = {**METRICS, "averaged": HOSTILE, "test_bleu_signature": HOSTILE, "train_hardware": HOSTILE}
    texts = {"name": HOSTILE, "recipe_name": HOSTILE, "contract": HOSTILE, "example": HOSTILE}
    row = {"place": HOSTILE, "chrf": 1.0, "source": HOSTILE, "references": [HOSTILE], "output": HOSTILE}
    compared = {"model": 1.0, "baseline": 2.0, "difference": -1.0, "low": -2.0, "high": 0.0, "p_value": 0.04}
    comparison = {"baseline": HOSTILE, "figures": {"bleu": {**compared, "signature": HOSTILE}}}
    test = {"bleu": 1.0, "bleu_signature": HOSTILE, "worst": [row], "comparison": comparison}
    (folder / "evaluation.json").write_text(json.dumps({"test": test}), encoding="utf-8")
    return _write(folder, model, recipe=recipe, metrics=metrics, by_language={HOSTILE: 1.0}, **texts)


def test_text_from_elsewhere_is_no_metadata(model, tmp_path):
    text = _hostile_card(tmp_path, model)
    raw, body = hubcard.split_card(text)
    assert body.lstrip().startswith("# x ")
    data, errors, warnings = hubcard.check_card(text, "model")
    assert (errors, warnings) == ([], [])
    assert data == yaml.safe_load(raw) == metadata_load(tmp_path / "README.md")
    assert data.keys() == {
        "language", "library_name", "metrics", "pipeline_tag", "tags", "model-index"
    }  # fmt: skip
    assert "49" not in data["model-index"][0]["name"]


def test_text_from_elsewhere_is_no_markup(model, tmp_path):
    markdown_it = pytest.importorskip("markdown_it")
    body = hubcard.split_card(_hostile_card(tmp_path, model))[1]
    tokens = markdown_it.MarkdownIt("commonmark").enable("table").parse(body)
    blocks = [token for token in tokens if token.type != "inline"]
    parts = [part for token in tokens for part in token.children or []]
    assert not any("html" in token.type for token in [*blocks, *parts])
    ours = {"text", "code_inline", "softbreak", "strong_open", "strong_close"}
    assert {part.type for part in parts} == ours
    assert [part.type for part in parts].count("strong_open") == 1  # before the contract
    titles = [after.content for token, after in itertools.pairwise(tokens) if token.type == "heading_open"]
    assert not any(title.startswith("Heading") for title in titles)
    code = [token for token in blocks if token.type == "fence"]
    assert [token.info for token in code] == ["python", "python", "bash", "yaml", "bibtex"]
    for token in code[:2]:
        compile(token.content, "card", "exec")
    recipe = yaml.safe_load(code[3].content)
    assert recipe["intended_use"] == HOSTILE
    # Every row of a table has as many cells as the lines of its template: the longest is that of a comparison.
    rows = " ".join(token.type for token in blocks).split("tr_open")[1:]
    assert {row.count("td_open") + row.count("th_open") for row in rows} == {2, 4, 5, 7}
    shown = "".join(part.content for part in parts if part.type == "text")
    assert "{{ 7 * 7 }} {% raw %} {# no #} <script>a</script>" in shown  # it is shown as it is


def test_links_without_brackets_and_unseen_characters_are_shown_as_text():
    assert "http://" not in escape("http://evil.com")
    assert "www." not in escape("see www.evil.com")
    assert "@somebody" not in escape("@somebody").replace("\\@", "")
    assert visible("a\x1b[31m\u202eb\nc") == "aU+001B[31mU+202Eb c"
    assert escape("- a") == "\\- a"
    assert escape("12. a") == "12\\. a"
    assert plain("a\n---\nb---") == "a -- b--"
    assert plain("\n") == "unnamed"


@pytest.mark.parametrize("text", ["", "it's", 'a "b" c', "a\n'b' \"c\"", "\u202e", "\\"])
def test_text_in_code_is_the_text(text):
    assert eval(quoted(text)) == text
    assert fenced(f"a\n````\n{text}", "python").startswith("`````python\n")


def test_a_fine_tuned_model_says_where_its_tokenizer_is_from_and_how_to_run_it_again(model, tmp_path):
    recipe = {"task": "translation", "tokenizer": "character", "model_name_or_path": "/home/me/base"}
    text = _write(tmp_path, model, recipe=recipe, recipe_name="mine/toy")
    assert "pieces of a tokenizer from elsewhere" in text
    assert "`theatre train recipe.yaml --data_dir FOLDER --model_name_or_path FOLDER_OF/base` runs it again" in text
    assert "mine" not in text
    text = _write(tmp_path, model, recipe={"task": "translation", "tokenizer": "character"}, recipe_name="dates/demo")
    assert "characters |" in text
    assert "`theatre train recipe.yaml --data_dir FOLDER` runs it again" in text
    assert "started from dates/demo of Transformer Theatre" in text


def test_departures_are_those_of_the_docstring(model, tmp_path):
    assert "Xavier-uniform" in _write(tmp_path, model)
    gpt = GPTForCausalLM(GPTConfig(vocab_size=50, d_model=16, num_hidden_layers=1, num_attention_heads=2))
    text = _write(tmp_path, gpt, languages=["en"], recipe={"task": "language_modeling"})
    assert "1. Queries, keys and values have a projection each" in text
    assert "AutoModelForCausalLM" in text


def test_the_picture_is_shown_where_there_is_one(model, tmp_path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "attention.png").touch()
    assert "![Encoder-decoder attention of one example](figures/attention.png)" in _write(tmp_path, model)


def test_every_section_begins_on_a_line_of_its_own(model, tmp_path):
    text = _write(tmp_path, model, by_language={"German": 99.5}, contract="PASS: all")
    for heading in ("## Results", "## Departures from the paper", "## Training data", "## Citation", "## Use it"):
        assert f"\n\n{heading}\n\n" in text
    assert "| German | 99.50 |" in text
    assert template_path().is_file()


def test_a_licence_or_language_or_data_set_that_the_hub_does_not_know_is_no_metadata(model, tmp_path):
    known = {"model_licence": "cc-by-nc-sa-4.0", "dataset": "wmt/wmt14", "hub_task": "summarization"}
    _write(tmp_path, model, recipe=known, languages=["de", "en", "de"])
    data, errors, _ = hubcard.check_card((tmp_path / "README.md").read_text(encoding="utf-8"), "model")
    assert errors == []
    assert (data["license"], data["datasets"], data["language"]) == ("cc-by-nc-sa-4.0", ["wmt/wmt14"], ["de", "en"])
    assert data["pipeline_tag"] == "summarization"
    assert data["model-index"][0]["results"][0]["dataset"]["type"] == "wmt/wmt14"
    text = _write(
        tmp_path, model, recipe={"dataset": "/data/me", "model_name_or_path": "/me/gpt"}, languages=["Deutsch"]
    )
    data, errors, _ = hubcard.check_card(text, "model")
    assert errors == []
    assert not {"license", "datasets", "language", "base_model"} & data.keys()


def test_the_licences_are_the_hubs():
    assert LICENCES <= hubcard.LICENSES
    assert {"apache-2.0", "mit", "cc-by-sa-4.0", "other"} <= LICENCES


@pytest.mark.parametrize("arguments", [PairDataArguments, TextDataArguments])
@pytest.mark.parametrize(
    ("option", "value", "right"),
    [
        ("model_licence", "Apache", "apache-2.0"),
        ("hub_task", "translate", "translation"),
        ("data_url", "my disk", "https://"),
    ],
)
def test_what_the_hub_would_refuse_is_refused_before_a_run(arguments, option, value, right):
    with pytest.raises(ValueError, match=f"{option}='{value}' must be .*{right}"):
        arguments(**{option: value})


def test_what_was_said_of_the_data_is_shown(model, tmp_path):
    recipe = {"task": "translation", "intended_use": "For captions.", "data_url": "https://example.org/a_b"}
    counted = {"train_rows": 29000, "train_rows_too_long": 0, "train_rows_bad": 3}
    text = _write(tmp_path, model, recipe=recipe, metrics={**METRICS, **counted})
    assert "For captions. It was trained" in text
    assert "29,000 pairs of texts to train on; none were too long; 3 more could not be used." in text
    assert "Source: <https://example.org/a_b>." in text


def test_the_procedure_says_with_what_it_was_trained_not_with_what_the_card_was_written(model, tmp_path):
    measured = {"train_torch_version": "2.6.0", "train_hardware": "an abacus", "train_processes": 8}
    text = _write(tmp_path, model, metrics={**METRICS, **measured, "train_transformers_version": "5.4.0"})
    assert "Software: PyTorch 2.6.0, transformers 5.4.0." in text
    assert "Device: 8 processes, each on an abacus." in text
    assert versions()["torch"] not in text


def test_the_kind_of_processor_is_named(tmp_path):
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Some  CPU @ 2 GHz\n", encoding="utf-8")
    assert processor(tmp_path / "cpuinfo") == "CPU Some CPU @ 2 GHz"
    assert processor(tmp_path / "none").startswith("CPU ")
    import torch

    assert f", {torch.get_num_threads()} thread" in hardware(torch.device("cpu"))


def test_a_model_that_was_trained_further_says_so(model, tmp_path):
    text = _write(tmp_path, model, recipe={"model_name_or_path": "me/gpt", "seed": 1})
    assert "| trained from | the weights of me/gpt, seed 1 |" in text
    assert metadata_load(tmp_path / "README.md")["base_model"] == "me/gpt"
    assert "trained from scratch" not in text


def test_the_card_is_written_again_with_what_was_evaluated_since(model, tmp_path):
    first = _write(tmp_path, model, contract="PASS: all", by_language={"German": 99.5})
    with pytest.raises(ValueError, match=r"has no metrics\.json"):
        rewrite_model_card(tmp_path, model)
    recipe = {"task": "translation", "seed": 1, "test_source": "test_2016_flickr.de", "learning_rate": 0.003}
    (tmp_path / "metrics.json").write_text(json.dumps(METRICS), encoding="utf-8")
    with pytest.raises(ValueError, match=r"has no recipe\.yaml"):
        rewrite_model_card(tmp_path, model)
    begin = "# Written by `theatre train` from the recipe multi30k-de-en/small\n"
    (tmp_path / "recipe.yaml").write_text(begin + yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    rewrite_model_card(tmp_path, model)
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == first
    figures = {"bleu": 38.5612, "ter": 50.5, "ter_signature": "nrefs:1|tok:tercom", "num_beams": 4}
    row = {"place": "test.de:7", "chrf": 2.5, "source": "Ein Hund.", "references": ["A dog."], "output": "A | cat"}
    evaluation = {"test": {**figures, "worst": [row], "pictures": ["figures/test-by-length.png"]}}
    (tmp_path / "evaluation.json").write_text(json.dumps(evaluation), encoding="utf-8")
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "test-by-length.png").touch()
    again = rewrite_model_card(tmp_path, model).read_text(encoding="utf-8")
    assert "| TER | 50.50 |  | lower is better: nrefs:1\\|tok:tercom; beam 4 |" in again
    assert "| test.de:7 | 2.5 | Ein Hund. | A dog. | A \\| cat |" in again
    assert "](figures/test-by-length.png)" in again
    assert "theatre translate . < source.txt" in again


def test_the_card_of_every_kind_of_model_is_valid(model, tmp_path):
    gpt = GPTForCausalLM(GPTConfig(vocab_size=50, d_model=16, num_hidden_layers=1, num_attention_heads=2))
    lstm = LSTMForConditionalGeneration(LSTMConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1))
    tasks = ("language_modeling", "classification", "multiple_choice")
    for one, task in ((model, "translation"), (lstm, "translation"), *((gpt, task) for task in tasks)):
        text = _write(tmp_path, one, recipe={"task": task})
        assert hubcard.check_card(text, "model")[1:] == ([], [])
        for code in text.split("```python\n")[1:]:
            compile(code.partition("```")[0], "card", "exec")
        assert metadata_load(tmp_path / "README.md")["pipeline_tag"] in HUB_TASKS


def test_rows_that_are_a_share_of_the_training_rows_have_their_name():
    assert measured_on("test", {"train_file": ["data/rows.jsonl"], "test_share": 0.1}) == "rows.jsonl"
    assert measured_on("test", {"train_file": ["data/rows.jsonl"], "test_file": "data/held.jsonl"}) == "held.jsonl"
