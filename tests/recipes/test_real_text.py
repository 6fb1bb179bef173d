"""The shipped recipes on the real text they are made for."""

import io
import json
import sys
from itertools import chain

import pytest

from transformer_theatre.recipes.arguments import parse_recipe
from transformer_theatre.recipes.compare_styles import main as compare_styles
from transformer_theatre.recipes.theatre import main
from transformer_theatre.recipes.token_batches import TokenBatchSampler
from transformer_theatre.recipes.tokenization import encode_pairs, train_bpe_tokenizer
from transformer_theatre.recipes.train import load_recipe
from transformer_theatre.recipes.train_translation import argument_types, as_test_set, read_split


@pytest.mark.slow
def test_multi30k_trains_and_translates_line_by_line(shared_data, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "de-en"
    data = shared_data / "mt" / "multi30k_en_de"
    options = ["--max_steps", "20", "--generation_num_beams", "1", "--eval_strategy", "no", "--save_strategy", "no"]
    options += ["--average_last", "0", "--warmup_steps", "5"]
    assert main(["train", "multi30k-de-en/small", "--data_dir", str(data), "--output_dir", str(folder), *options]) == 0
    output = capsys.readouterr().out
    assert "test_bleu_signature" in output
    assert "nrefs:1|case:mixed" in output
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["eval_perplexity"] < 8000 / 4  # far better than a uniform guess over the 8,000 pieces
    lines = (data / "test_2016_flickr.de").read_text(encoding="utf-8").split("\n")[:20]
    lines[7] = ""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\n".join(lines).encode()), encoding="utf-8"))
    assert main(["translate", str(folder), "--num_beams", "1"]) == 0
    translated = capsys.readouterr().out.split("\n")
    assert len(translated) == 21
    assert [number for number, line in enumerate(translated) if not line] == [7, 20]


@pytest.mark.slow
def test_shakespeare_reaches_nanogpts_figure(shared_data, tmp_path, capsys):
    data = shared_data / "lm"
    folder = tmp_path / "shakespeare"
    assert (
        main(
            [
                "train",
                "shakespeare-char/cpu",
                "--data_dir",
                str(data),
                "--output_dir",
                str(folder),
                "--save_strategy",
                "no",
            ]
        )
        == 0
    )
    assert "PASS: eval_nll" in capsys.readouterr().out
    assert main(["generate", str(folder), "--prompt", "ROMEO:", "--max_new_tokens", "200", "--seed", "1"]) == 0
    written = capsys.readouterr().out
    assert written.startswith("ROMEO:")
    assert len(written) >= 200
    assert main(["evaluate", str(folder), "--text", str(data / "tiny_shakespeare.txt")]) == 0
    assert json.loads(capsys.readouterr().out)["bits_per_byte"] < 2.8


SHRUNKEN = ["--d_model", "32", "--encoder_ffn_dim", "32", "--decoder_ffn_dim", "32", "--encoder_layers", "1"]
SHRUNKEN += ["--decoder_layers", "1", "--max_steps", "2", "--generation_num_beams", "1", "--max_train_samples", "2000"]
SHRUNKEN += ["--eval_strategy", "no", "--save_strategy", "no", "--use_cpu", "true"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "folder"),
    [
        ("enja/small", "mt/small_parallel_enja"),
        ("tatoeba-en-de/small", "mt/tatoeba_en_de"),
        ("g2p-cmudict/small", "g2p/cmudict"),
        ("summarisation-scitldr/small", "summarisation"),
        ("multi30k-en-de/tiny", "mt/multi30k_en_de"),
    ],
)
def test_a_recipe_runs_on_its_text_and_measures_what_it_answers_for(shared_data, tmp_path, recipe, folder):
    run = tmp_path / "run"
    words = ["--data_dir", str(shared_data / folder), "--output_dir", str(run), *SHRUNKEN]
    if recipe == "multi30k-en-de/tiny":
        pytest.importorskip("sacremoses")
        words += ["--average_last", "1", "--save_strategy", "steps", "--save_steps", "1"]
    if recipe == "summarisation-scitldr/small":
        words += ["--max_length", "200", "--bad_lines", "skip"]  # nothing has taught this model when to end
    assert main(["train", recipe, *words]) == 0
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    metric = load_recipe(recipe).anchor["metric"]
    assert metrics[f"{metric}_low"] <= metrics[metric] <= metrics[f"{metric}_high"]


SMALL_GPT = ["--d_model", "32", "--num_hidden_layers", "1", "--ffn_dim", "32", "--vocab_size", "2000"]
FEW_STEPS = ["--max_steps", "2", "--warmup_steps", "1", "--eval_strategy", "no", "--save_strategy", "no"]
FEW_STEPS += ["--load_best_model_at_end", "false", "--sample_tokens", "5", "--use_cpu", "true"]


@pytest.mark.slow
def test_styles_are_learned_from_their_text_and_compared(shared_data, tmp_path, capsys):
    """The recipes of docs/styles.md, from the base of the page to the table; two steps of a model that is all but nothing."""
    folders = {name: shared_data / name for name in ("film", "poetry", "business", "research_only")}
    styles = {"film-reviews": "film", "poems": "poetry", "fomc": "business", "newswire": "research_only"}
    base, runs = tmp_path / "base", tmp_path / "styles"
    words = ["--data_dir", str(shared_data), "--output_dir", str(base), *SMALL_GPT, *FEW_STEPS]
    assert main(["train", "general-lm/small", *words]) == 0
    for style, folder in [*styles.items(), ("sonnets", "poetry")]:
        start = runs / "poems" if style == "sonnets" else base
        words = [
            "--data_dir",
            str(folders[folder]),
            "--output_dir",
            str(runs / style),
            "--model_name_or_path",
            str(start),
        ]
        assert main(["train", f"styles/{style}", *words, *FEW_STEPS]) == 0
        metrics = json.loads((runs / style / "metrics.json").read_text(encoding="utf-8"))
        assert metrics["eval_perplexity"] < 2000  # no worse than a guess over the vocabulary
    output = tmp_path / "styles.json"
    words = [
        str(base),
        *(str(runs / style) for style in styles),
        "--data_dir",
        str(shared_data),
        "--output",
        str(output),
    ]
    assert compare_styles([*words, "--samples", "2", "--tokens", "5"]) == 1  # that much was not learned
    figures = json.loads(output.read_text(encoding="utf-8"))
    assert list(figures) == list(styles)
    assert all(found["judge"] > 0.9 for found in figures.values())


@pytest.mark.slow
def test_a_word_of_the_dictionary_is_one_text_with_all_its_pronunciations(shared_data, tmp_path, capsys):
    """The contract is checked on the words, not the rows, and a run is measured again to the same figures."""
    words = ["--data_dir", str(shared_data / "g2p" / "cmudict"), "--output_dir", str(tmp_path / "run"), *SHRUNKEN]
    assert [main(["verify", "g2p-cmudict/small", *words]) for _ in range(2)] == [1, 1]
    assert "FAIL: test_exact_match" in capsys.readouterr().out
    report = json.loads((tmp_path / "run-verification.json").read_text(encoding="utf-8"))
    assert report["runs"][0]["differs"] == report["runs"][0]["departs"] == {}
    recipe = load_recipe("g2p-cmudict/small")
    [data] = [
        part for part in parse_recipe(recipe, words, *argument_types(recipe, words))[0] if hasattr(part, "metrics")
    ]
    test = as_test_set(read_split(data, "test"), data)
    rows = (shared_data / "g2p" / "cmudict" / "val.tsv").read_text(encoding="utf-8").splitlines()
    assert len(test) == len({row.split("\t")[0] for row in rows}) < len(rows)
    assert sum(map(len, test["references"])) == len(set(rows))


@pytest.mark.slow
def test_no_more_than_a_twentieth_of_multi30k_is_padding(shared_data):
    """In batches of 4,096 tokens, both sides and padding counted."""
    recipe, words = load_recipe("multi30k-de-en/small"), ["--data_dir", str(shared_data / "mt" / "multi30k_en_de")]
    (_, data, args), _ = parse_recipe(recipe, words, *argument_types(recipe, words))
    pairs = read_split(data, "train")
    tokenizer = train_bpe_tokenizer(chain(pairs["source"], pairs["target"]), recipe.values["vocab_size"])
    rows = encode_pairs(pairs, tokenizer, data.max_length, "error")
    lengths = [[len(row["input_ids"]), len(row["labels"])] for row in rows]
    assert args.max_tokens_per_batch == 4096
    batches = list(TokenBatchSampler(lengths, 4096, seed=1))
    padded = [len(batch) * sum(max(lengths[row][side] for row in batch) for side in (0, 1)) for batch in batches]
    assert max(padded) <= 4096
    assert 1 - sum(map(sum, lengths)) / sum(padded) <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["post", "pre"])
def test_the_recipes_of_iwslt14_run_on_files_of_its_names(shared_data, tmp_path, kind):
    """A dry run: Multi30k stands in for the talks, lower-cased as they are."""
    pytest.importorskip("sacremoses")
    multi30k, folder = shared_data / "mt" / "multi30k_en_de", tmp_path / "data"
    folder.mkdir()
    for name, there in (("train", "val"), ("valid", "val"), ("test", "test_2016_flickr")):
        for side in ("de", "en"):
            text = (multi30k / f"{there}.{side}").read_text(encoding="utf-8").lower()
            (folder / f"{name}.{side}").write_text(text, encoding="utf-8")
    with (folder / "train.de").open("a") as source, (folder / "train.en").open("a") as target:
        source.write("wort " * 300 + "\n")  # the longest sentences of the talks have over 256 pieces
        target.write("word " * 300 + "\n")
    words = ["--data_dir", str(folder), "--output_dir", str(tmp_path / "run"), *SHRUNKEN, "--average_last", "0"]
    assert main(["train", f"iwslt14-de-en/{kind}-norm", *words]) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))
    assert "test_bleu_moses_lowercase" in metrics
    assert metrics["train_rows_too_long"] == 0
