"""`theatre verify`: the contract of a recipe, held against one run or several."""

import json
import statistics

import pytest
import yaml

from transformer_theatre.configuration.configuration_transformer import PRESETS
from transformer_theatre.recipes.theatre import main
from transformer_theatre.recipes.verify import without


ANCHOR = ["anchor:", "  metric: test_chrf", "  figure: 0", "  tolerance: 0.5", "  source: a toy"]


@pytest.fixture
def recipe(recipe_file):
    """Write the tiny recipe with an anchor that anything reaches, or with other lines."""

    def write(*lines, anchor=ANCHOR):
        path = recipe_file(*lines)
        path.write_text(path.read_text(encoding="utf-8") + "\n".join(anchor) + "\n", encoding="utf-8")
        return path

    return write


def verify(path, corpus, folder, *words):
    return main(["verify", str(path), "--data_dir", str(corpus), "--output_dir", str(folder), *words])


def report_of(folder):
    return json.loads(folder.with_name(f"{folder.name}-verification.json").read_text(encoding="utf-8"))


def test_a_run_is_trained_once_and_then_measured_again_to_the_same_figures(recipe, corpus, tmp_path, capsys):
    path, folder = recipe("dropout: 0.1"), tmp_path / "run"
    assert verify(path, corpus, folder, "--bf16", "true") == 0
    assert "PASS: test_chrf" in capsys.readouterr().out
    [first] = report_of(folder)["runs"]
    written = {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert verify(path, corpus, folder, "--bf16", "true") == 0
    assert "measuring it again" in capsys.readouterr().out
    [second] = report_of(folder)["runs"]
    assert (first["trained"], second["trained"]) == (True, False)
    assert second["value"] == pytest.approx(first["value"])
    assert second["differs"] == second["departs"] == {}
    assert {file.name: file.stat().st_mtime_ns for file in folder.iterdir()} == written
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "**Reproduction contract:** PASS: test" in card


def test_a_figure_that_the_saved_model_does_not_reach_is_named(recipe, corpus, tmp_path, capsys):
    path, folder = recipe(), tmp_path / "run"
    assert verify(path, corpus, folder) == 0
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    claimed = {**metrics, "test_chrf": metrics["test_chrf"] + 1}
    (folder / "metrics.json").write_text(json.dumps(claimed), encoding="utf-8")
    capsys.readouterr()
    assert verify(path, corpus, folder, "--generation_num_beams", "1") == 0
    shown = capsys.readouterr().out
    assert f"test_chrf is {claimed['test_chrf']} in its metrics.json, and " in shown
    assert "generation_num_beams was 2 in the run, and is 1 in the recipe" in shown


def test_a_missed_figure_and_one_that_is_not_measured_fail(recipe, corpus, tmp_path, capsys):
    missed = [line.replace("figure: 0", "figure: 100") for line in ANCHOR]
    path, folder = recipe(anchor=missed), tmp_path / "run"
    assert verify(path, corpus, folder) == 1
    [run] = report_of(folder)["runs"]
    assert f"FAIL: test_chrf {run['value']:.4g} against 100 ({run['value'] - 100:+.4g}" in capsys.readouterr().out
    path = recipe(anchor=[line.replace("test_chrf", "test_comet") for line in ANCHOR])
    assert verify(path, corpus, folder) == 1
    assert "NOT MEASURED: test_comet" in capsys.readouterr().out
    assert report_of(folder)["mean"] is None


@pytest.mark.slow
def test_seeds_are_trained_one_by_one_and_their_mean_decides(recipe, corpus, tmp_path):
    path, folder = recipe(), tmp_path / "run"
    assert verify(path, corpus, folder, "--seeds", "1", "2") == 0
    report = report_of(folder)
    values = [run["value"] for run in report["runs"]]
    assert [run["seed"] for run in report["runs"]] == [1, 2]
    assert [run["folder"] for run in report["runs"]] == [f"{folder}-seed1", f"{folder}-seed2"]
    assert report["mean"] == pytest.approx(statistics.fmean(values))
    assert report["spread"] == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
    weights = [(tmp_path / f"run-seed{seed}" / "model.safetensors").read_bytes() for seed in (1, 2)]
    assert weights[0] != weights[1]
    assert (
        verify(path, corpus, folder, "--seeds", "2", "3", "--disable_tqdm", "true") == 0
    )  # which changes nothing learnt
    assert [run["trained"] for run in report_of(folder)["runs"]] == [False, True]
    assert not folder.exists()


@pytest.mark.parametrize(
    "checkpoint",
    [pytest.param(True, id="from its checkpoint"), pytest.param(False, id="anew", marks=pytest.mark.slow)],
)
def test_a_seed_that_was_cut_off_is_finished(recipe, corpus, tmp_path, checkpoint):
    path, folder = recipe("save_strategy: steps", "save_steps: 2", "max_steps: 3"), tmp_path / "run"
    assert verify(path, corpus, folder, "--seeds", "1") == 0
    run = tmp_path / "run-seed1"
    whole = (run / "model.safetensors").read_bytes()
    (run / "model.safetensors").unlink()
    for child in sorted(run.glob("checkpoint-3/**/*"), reverse=True):
        child.unlink()
    state = run / "checkpoint-2" / "optimizer.pt"
    written = state.stat().st_mtime_ns
    if not checkpoint:
        state.unlink()
    assert verify(path, corpus, folder, "--seeds", "1") == 0
    assert report_of(folder)["runs"][0]["trained"]
    assert (run / "model.safetensors").read_bytes() == whole
    assert (state.stat().st_mtime_ns == written) is checkpoint


def test_a_language_model_is_measured_again_too(tmp_path, capsys):
    (tmp_path / "play.txt").write_text("To be, or not to be: that is the question.\n" * 60, encoding="utf-8")
    recipe = tmp_path / "toy" / "gpt.yaml"
    recipe.parent.mkdir()
    lines = [
        "task: language_modeling",
        "train_text: play.txt",
        "tokenizer: character",
        "preset: gpt-char",
        "d_model: 16",
    ]
    lines += [
        "num_hidden_layers: 1",
        "num_attention_heads: 2",
        "ffn_dim: 32",
        "max_position_embeddings: 32",
        "max_steps: 2",
    ]
    lines += ["use_cpu: true", "save_strategy: 'no'"]
    lines += ["anchor:", "  metric: eval_nll", "  figure: 0.1", "  lower_is_better: true", "  source: a toy"]
    recipe.write_text("\n".join(lines) + "\n", encoding="utf-8")
    folder = tmp_path / "run"
    assert [verify(recipe, tmp_path, folder) for _ in range(2)] == [1, 1]
    assert "FAIL: eval_nll" in capsys.readouterr().out
    [run] = report_of(folder)["runs"]
    assert not run["trained"]
    assert run["differs"] == {}


def test_a_run_of_another_recipe_is_not_taken_for_a_seed(recipe, corpus, tmp_path, capsys):
    path, folder = recipe(), tmp_path / "run"
    assert verify(path, corpus, folder, "--seeds", "1") == 0
    capsys.readouterr()
    assert verify(path, corpus, folder, "--seeds", "1", "--learning_rate", "1e-4") == 2
    assert (
        "run-seed1 holds a run in which learning_rate was 0.001, and it is 0.0001 in the recipe"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seeds", "1", "1"], "--seeds 1 1 must be whole numbers, none of them twice"),
        (["--seeds"], "--seeds must be whole numbers"),
        (["--seeds", "one"], "--seeds one must be whole numbers"),
        (["--seed", "3"], "--seed is not for `theatre verify`"),
        (["--overwrite", "true"], "--overwrite is not for `theatre verify`"),
        (["--train_source", "other.tsv"], "the text is not the recipe's own, so there is nothing"),
    ],
    ids=["twice", "none", "word", "seed", "overwrite", "other text"],
)
def test_what_cannot_be_verified_is_refused(recipe, corpus, tmp_path, capsys, words, message):
    assert verify(recipe(), corpus, tmp_path / "run", *words) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_recipe_without_anchor_has_nothing_to_verify(recipe_file, corpus, tmp_path, capsys):
    assert verify(recipe_file(), corpus, tmp_path / "run") == 2
    assert "has no anchor" in capsys.readouterr().err


def test_help_says_what_it_does(capsys):
    assert main(["verify", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "usage: theatre verify RECIPE" in shown
    assert "sample standard deviation" in shown.replace("\n      ", " ")


def test_options_are_left_out_with_their_words():
    words = ["--seeds", "1", "2", "--bf16", "true", "--output_dir=x", "--metrics", "bleu", "chrf"]
    assert without(words, {"seeds", "output_dir"}) == ["--bf16", "true", "--metrics", "bleu", "chrf"]


def test_a_run_whose_tokens_were_found_is_the_recipes_and_can_be_finished(recipe, corpus, tmp_path, capsys):
    path, folder = recipe('max_tokens_per_batch: "auto"', 'save_strategy: "steps"', "save_steps: 1"), tmp_path / "run"
    assert verify(path, corpus, folder) == 0
    found = yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))["max_tokens_per_batch"]
    for name in ("model.safetensors", "metrics.json"):
        (folder / name).unlink()
    assert verify(path, corpus, folder) == 0
    assert verify(path, corpus, folder) == 0
    assert report_of(folder)["runs"][0]["departs"] == {}
    assert yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))["max_tokens_per_batch"] == found


def test_a_preset_that_has_changed_since_the_run_is_named(recipe, corpus, tmp_path, capsys, monkeypatch):
    path, folder = recipe(), tmp_path / "run"
    assert verify(path, corpus, folder) == 0
    monkeypatch.setitem(PRESETS, "transformer-tiny", {**PRESETS["transformer-tiny"], "layer_norm_eps": 1e-3})
    capsys.readouterr()
    assert verify(path, corpus, folder) == 0
    assert report_of(folder)["runs"][0]["departs"] == {"layer_norm_eps": [1e-5, 1e-3]}
    assert f"{folder}: layer_norm_eps was 1e-05 in the run, and is 0.001 in the recipe." in capsys.readouterr().out


def test_weights_are_not_written_over_where_another_file_is_missing(recipe, corpus, tmp_path, capsys):
    path, folder = recipe('save_strategy: "no"'), tmp_path / "run"
    assert verify(path, corpus, folder) == 0
    (folder / "tokenizer.json").unlink()
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert verify(path, corpus, folder) == 2
    assert "run holds the weights of a model, and no tokenizer.json: put that back" in capsys.readouterr().err
    assert (folder / "model.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize("name", ["metrics.json", "recipe.yaml"])
def test_a_damaged_file_is_named(recipe, corpus, tmp_path, capsys, name):
    path, folder = recipe(), tmp_path / "run"
    assert verify(path, corpus, folder) == 0
    text = (folder / name).read_text(encoding="utf-8")
    damaged = text[:20] if name == "metrics.json" else text.partition("\n")[0] + "\n{a: [\n"
    (folder / name).write_text(damaged, encoding="utf-8")
    assert verify(path, corpus, folder) == 2
    assert f"{folder / name} is damaged: " in capsys.readouterr().err
