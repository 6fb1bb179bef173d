"""`theatre evaluate` as a user meets it."""

import json
import shutil
import socket
import sys
from pathlib import Path

import hubcard
import pytest
import sacrebleu
from datasets import Dataset
from sacrebleu.significance import PairedTest
from transformers import AutoTokenizer

from transformer_theatre import GPTForCausalLM, LSTMConfig, LSTMForCausalLM
from transformer_theatre.recipes.scoring.texts import PairText
from transformer_theatre.recipes.scoring.worst import worst_outputs
from transformer_theatre.recipes.theatre import main


@pytest.fixture
def run(runs, tmp_path):
    """A copy of a run, to be written into, with the text beside it."""
    for name in ("test.de", "test.en", "val.de", "val.en", "toy.yaml", "train.de", "train.en"):
        shutil.copy(runs / name, tmp_path / name)
    shutil.copytree(runs / "one", tmp_path / "one")
    return tmp_path


def _evaluate(capsys, *words):
    assert main(["evaluate", *map(str, words)]) == 0
    printed = capsys.readouterr()
    return json.loads(printed.out), printed.err


def test_a_recipes_text_scores_what_training_measured(run, capsys):
    metrics = json.loads((run / "one" / "metrics.json").read_text(encoding="utf-8"))
    found, table = _evaluate(capsys, run / "one", run / "toy.yaml", "--data_dir", run, "--max_length=200")
    assert found == json.loads((run / "one" / "evaluation.json").read_text(encoding="utf-8"))
    for name in ("bleu", "bleu_low", "bleu_high", "chrf", "exact_match", "num_beams", "bleu_signature"):
        assert found["test"][name] == pytest.approx(metrics[f"test_{name}"]), name
    for name in ("nll", "nll_low", "perplexity", "bits_per_byte", "tokens"):
        assert found["validation"][name] == pytest.approx(metrics[f"eval_{name}"], rel=1e-6), name
    lines = [(run / name).read_text(encoding="utf-8").splitlines() for name in ("one/outputs/test.txt", "test.en")]
    assert len(lines[0]) == len(lines[1]) == found["test"]["texts"]
    assert found["test"]["ter"] == pytest.approx(sacrebleu.corpus_ter(lines[0], [lines[1]]).score)
    assert "test: test.de and test.en (60 texts, beam 2)" in table
    speed = found["test"]["speed"]
    assert speed["texts_per_second"] == pytest.approx(60 / speed["seconds"], rel=0.1)
    assert speed["peak_memory_bytes"] > 2**20


def test_the_card_is_written_again_with_what_was_found(run, capsys):
    before = (run / "one" / "README.md").read_text(encoding="utf-8")
    found, _ = _evaluate(capsys, run / "one", run / "toy.yaml", "--data_dir", run)
    card = (run / "one" / "README.md").read_text(encoding="utf-8")
    assert "| TER |" in card
    assert "| TER |" not in before
    assert "### Where it is worst" in card
    assert found["test"]["pictures"] == ["figures/test-by-length.png", "figures/test-texts.png"]
    assert "](figures/test-by-length.png)" in card
    assert hubcard.check_card(card, "model")[1:] == ([], [])
    for name in found["test"]["pictures"]:
        assert (run / "one" / name).read_bytes().startswith(b"\x89PNG")


def test_nothing_that_is_written_says_where_it_was_measured(run, capsys):
    _evaluate(capsys, run / "one", run / "toy.yaml", "--data_dir", run, "--baseline", run / "one")
    unsaid = [str(run).encode(), str(Path.home()).encode() + b"/"]
    unsaid += [name.encode() for name in [socket.gethostname()] if len(name) > 5]
    files = [run / "one" / name for name in ("evaluation.json", "README.md", "card.json", "outputs/test.txt")]
    assert [(path, word) for path in files for word in unsaid if word in path.read_bytes()] == []


def test_a_difference_has_the_p_value_of_sacrebleu(runs, run, capsys):
    words = [run / "one", run / "test.de", run / "test.en", "--baseline", runs / "two", "--output_dir", run / "new"]
    found, table = _evaluate(capsys, *words)
    assert not (runs / "two" / "evaluation.json").exists()
    comparison = found["comparison"]
    assert comparison["baseline"] == "two"
    assert set(comparison["figures"]) == {"bleu", "bleu_lowercase", "chrf", "ter", "exact_match", "bits_per_byte"} | (
        comparison["figures"].keys() & {"bleu_moses_lowercase"}
    )
    _, error = _evaluate(capsys, runs / "two", run / "test.de", run / "test.en", "--output_dir", run / "other")
    assert "Written into" in error
    ours, theirs = ((run / name / "outputs" / "output.txt").read_text(encoding="utf-8") for name in ("new", "other"))
    systems = [("two", theirs.split("\n")[:-1]), ("one", ours.split("\n")[:-1])]
    reference = (run / "test.en").read_text(encoding="utf-8").splitlines()
    signatures, scores = PairedTest(systems, {"c": sacrebleu.CHRF()}, [reference], test_type="bs")()
    row = comparison["figures"]["chrf"]
    assert row["p_value"] == scores["chrF2"][1].p_value
    assert row["signature"] == str(signatures["chrF2"])
    assert "Against two; p: of a difference as large by chance" in table
    assert found["pictures"][-1] == "figures/difference.png"
    assert (run / "new" / "figures" / "difference.png").is_file()
    # A file of the same outputs is the same baseline, but for what only a model has.
    words[words.index(runs / "two")] = run / "other" / "outputs" / "output.txt"
    again, _ = _evaluate(capsys, *words)
    for name in comparison["figures"].keys() - {"bits_per_byte"}:
        assert again["comparison"]["figures"][name] == comparison["figures"][name]
    assert "bits_per_byte" not in again["comparison"]["figures"]


def test_a_model_does_not_differ_from_itself(run, capsys):
    files = ["--source", run / "test.de", "--target", run / "test.en"]
    found, _ = _evaluate(capsys, run / "one", *files, "--baseline", run / "one")
    assert all(row["difference"] == 0 for row in found["comparison"]["figures"].values())


def test_the_worst_are_those_of_the_lowest_chrf_and_named_by_their_line(run, capsys):
    files = [run / "test.de", run / "test.en"]
    found, table = _evaluate(capsys, run / "one", *files, "--worst", "7")
    sources, references, outputs = (
        path.read_text(encoding="utf-8").split("\n") for path in (*files, run / "one" / "outputs" / "output.txt")
    )
    scores = [sacrebleu.sentence_chrf(out, [ref]).score for out, ref in zip(outputs[:60], references, strict=False)]
    assert [row["chrf"] for row in found["worst"]] == pytest.approx(sorted(scores)[:7])
    for row in found["worst"]:
        line = int(row["place"].rpartition(":")[2])
        assert row["place"] == f"test.de:{line}"
        assert row["number"] == line
        assert (row["source"], row["references"]) == (sources[line - 1], [references[line - 1]])
        assert row["output"] == outputs[line - 1]
        assert f"{row['place']}, chrF2 {row['chrf']:.1f}" in table


def test_what_is_right_is_not_among_the_worst():
    rows = {"source": ["a", "b"], "target": ["One.", "Two."], "origin": ["t:1", "t:2"]}
    text = PairText([], Dataset.from_dict(rows), Dataset.from_dict(rows), [], None, None)
    assert [row["place"] for row in worst_outputs(["One.", "Too."], text, [100.0, 40.0], 10)] == ["t:2"]


def test_a_language_model_is_scored_on_a_recipe_or_a_file(runs, tmp_path, capsys):
    metrics = json.loads((runs / "gpt" / "metrics.json").read_text(encoding="utf-8"))
    words = ["--data_dir", runs, "--output_dir", tmp_path / "new"]
    found, table = _evaluate(capsys, runs / "gpt", "shakespeare-char/cpu", *words, "--train_text", "play.txt")
    for name in ("nll", "perplexity", "bits_per_byte", "tokens"):
        assert found["validation"][name] == pytest.approx(metrics[f"eval_{name}"], rel=1e-6)
    assert "bits per byte" in table
    words = [runs / "gpt", runs / "play.txt", "--output_dir", tmp_path / "new", "--baseline", runs / "gpt-two"]
    found, table = _evaluate(capsys, *words)
    row = found["comparison"]["figures"]["nll"]
    assert row["model"] == pytest.approx(found["nll"])
    assert row["difference"] == pytest.approx(row["model"] - row["baseline"])
    assert found["worst"][0]["nll"] == max(entry["nll"] for entry in found["worst"])
    assert found["worst"][0]["text"] in (runs / "play.txt").read_text(encoding="utf-8")
    assert {path.name for path in (tmp_path / "new" / "figures").iterdir()} == {
        "validation-texts.png",
        "texts.png",
        "difference.png",
    }


def test_the_validation_text_that_is_named_is_measured_and_noted_without_the_training_text(runs, tmp_path, capsys):
    (tmp_path / "held.txt").write_text("To be, or not to be.\n" * 20, encoding="utf-8")
    words = ["shakespeare-char/cpu", "--data_dir", tmp_path, "--output_dir", tmp_path / "new"]
    found, _ = _evaluate(capsys, runs / "gpt", *words, "--validation_text", "held.txt")  # and no tiny_shakespeare.txt
    assert found["validation"]["files"] == ["held.txt"]
    assert found["validation"]["tokens"] == 21 * 20 - 1


def test_the_documents_of_a_file_are_apart_where_the_run_kept_them_apart(runs, tmp_path, capsys):
    lines = [json.dumps({"text": f"To be, or not {'to be ' * number}"}) for number in range(1, 9)]
    (tmp_path / "some.jsonl").write_text("\n".join(lines), encoding="utf-8")
    found = {}
    for apart in ("true", "false"):
        shutil.copytree(runs / "gpt", tmp_path / apart)
        with (tmp_path / apart / "recipe.yaml").open("a", encoding="utf-8") as recipe:
            recipe.write(f"attend_across_documents: {apart}\n")
        words = ["--data_dir", tmp_path, "--validation_text", "some.jsonl", "--attend_across_documents", apart]
        by_recipe, _ = _evaluate(
            capsys, tmp_path / apart, "shakespeare-char/cpu", *words, "--output_dir", tmp_path / "a"
        )
        by_file, _ = _evaluate(capsys, tmp_path / apart, tmp_path / "some.jsonl", "--output_dir", tmp_path / "b")
        found[apart] = by_file["nll"]
        assert by_file["nll"] == pytest.approx(by_recipe["validation"]["nll"], rel=1e-6)
    assert found["true"] != found["false"]


def test_a_language_model_is_scored_by_the_attention_that_is_asked_for(runs, tmp_path, capsys, monkeypatch):
    asked, set_attention = [], GPTForCausalLM.set_attn_implementation

    def spy(self, name):
        asked.append(name)
        return set_attention(self, name)

    monkeypatch.setattr(GPTForCausalLM, "set_attn_implementation", spy)
    words = ["shakespeare-char/cpu", "--data_dir", runs, "--train_text", "play.txt", "--output_dir", tmp_path]
    _evaluate(capsys, runs / "gpt", *words, "--attn_implementation", "eager")
    assert asked[-1] == "eager"


def test_a_file_is_read_as_the_run_has_read_its_text(runs, tmp_path, capsys):
    shutil.copytree(runs / "gpt", tmp_path / "rows")
    rows = [{"text": "To be.", "title": "not"}, {"text": "or not", "title": "To be"}]
    (tmp_path / "some.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    with (tmp_path / "rows" / "recipe.yaml").open("a", encoding="utf-8") as recipe:
        recipe.write("template: '{title}, {text}'\n")
    found, _ = _evaluate(capsys, tmp_path / "rows", tmp_path / "some.jsonl", "--output_dir", tmp_path / "a")
    texts = [f"{row['title']}, {row['text']}" for row in rows]
    assert found["tokens"] == sum(map(len, texts)) + len(texts)  # and an end for each
    shutil.copytree(runs / "gpt", tmp_path / "parts")
    (tmp_path / "some.txt").write_text("To be;or not;to be", encoding="utf-8")
    with (tmp_path / "parts" / "recipe.yaml").open("a", encoding="utf-8") as recipe:
        recipe.write("separator: ';'\n")
    found, _ = _evaluate(capsys, tmp_path / "parts", tmp_path / "some.txt", "--output_dir", tmp_path / "b")
    assert found["tokens"] == len("To beor notto be") + 3


def test_rows_without_the_fields_of_the_run_are_read_as_text_and_said_so(runs, tmp_path, capsys, caplog):
    shutil.copytree(runs / "gpt", tmp_path / "rows")
    with (tmp_path / "rows" / "recipe.yaml").open("a", encoding="utf-8") as recipe:
        recipe.write("template: '{title}, {text}'\n")
    (tmp_path / "some.jsonl").write_text('{"text": "To be."}\n{"text": "or not"}', encoding="utf-8")
    found, _ = _evaluate(capsys, tmp_path / "rows", tmp_path / "some.jsonl", "--output_dir", tmp_path / "a")
    assert found["tokens"] == len("To be.or not") + 2
    assert 'has the field "text", and no "title"' in caplog.text


def test_an_lstm_is_scored_on_the_recipe_of_a_gpt(runs, tmp_path, capsys):
    vocabulary = len(AutoTokenizer.from_pretrained(runs / "gpt"))
    config = LSTMConfig(vocab_size=vocabulary, hidden_size=8, num_hidden_layers=1, is_encoder_decoder=False)
    LSTMForCausalLM(config).save_pretrained(tmp_path / "lstm")
    for path in (runs / "gpt").glob("tokenizer*"):
        shutil.copy(path, tmp_path / "lstm")
    words = ["shakespeare-char/cpu", "--data_dir", runs, "--train_text", "play.txt", "--output_dir", tmp_path / "new"]
    assert "nll" in _evaluate(capsys, tmp_path / "lstm", *words)[0]["validation"]


def test_tokens_that_are_unknown_are_counted(runs, tmp_path, capsys):
    (tmp_path / "some.txt").write_text("To be, \u0436\u0436\u0436 or not.", encoding="utf-8")
    found, table = _evaluate(capsys, runs / "gpt", tmp_path / "some.txt", "--output_dir", tmp_path / "new")
    assert found["unknown_tokens"] == 3
    assert f"3 of {found['tokens']} tokens unknown" in table


def test_the_folder_of_another_model_gets_no_figures(runs, tmp_path, capsys):
    shutil.copytree(runs / "gpt-two", tmp_path / "other")
    before = (tmp_path / "other" / "README.md").read_bytes()
    words = ["evaluate", str(runs / "gpt"), str(runs / "play.txt"), "--output_dir", str(tmp_path / "other")]
    assert main(words) == 2
    assert "is the folder of another model than" in capsys.readouterr().err
    assert (tmp_path / "other" / "README.md").read_bytes() == before


@pytest.mark.parametrize("name", ["metrics.json", "card.json", "generation_config.json"])
def test_a_damaged_file_is_named_before_anything_is_scored(runs, tmp_path, capsys, name):
    shutil.copytree(runs / "gpt", tmp_path / "run")
    (tmp_path / "run" / name).write_text('{"a": ', encoding="utf-8")
    assert main(["evaluate", str(tmp_path / "run"), str(runs / "play.txt")]) == 2
    assert f"{tmp_path / 'run' / name} is damaged: " in capsys.readouterr().err
    assert not (tmp_path / "run" / "evaluation.json").exists()


def test_a_stride_that_is_too_long_is_named_as_in_training(runs, capsys):
    words = ["shakespeare-char/cpu", "--data_dir", str(runs), "--train_text", "play.txt", "--eval_stride", "999"]
    assert main(["evaluate", str(runs / "gpt"), *words]) == 2
    assert "eval_stride=999 must be at most row_length=64" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["--attend_across_documents", "false"], ["--eval_stride", "8"]], ids=["apart", "stride"]
)
def test_a_language_model_does_not_differ_from_itself(runs, tmp_path, capsys, words):
    words = ["shakespeare-char/cpu", "--data_dir", runs, "--train_text", "play.txt", *words]
    found, _ = _evaluate(capsys, runs / "gpt", *words, "--output_dir", tmp_path, "--baseline", runs / "gpt")
    row = found["validation"]["comparison"]["figures"]["nll"]
    assert (row["difference"], row["low"], row["high"], row["wins"], row["p_value"]) == (0, 0, 0, 0, 1)


def test_a_baseline_that_cannot_keep_documents_apart_is_refused(runs, tmp_path, capsys):
    config = LSTMConfig(vocab_size=32, hidden_size=8, num_hidden_layers=1, is_encoder_decoder=False)
    LSTMForCausalLM(config).save_pretrained(tmp_path / "lstm")
    for path in (runs / "gpt").glob("tokenizer*"):
        shutil.copy(path, tmp_path / "lstm")
    words = ["shakespeare-char/cpu", "--data_dir", str(runs), "--train_text", "play.txt"]
    words += ["--attend_across_documents", "false", "--baseline", str(tmp_path / "lstm")]
    assert main(["evaluate", str(runs / "gpt"), *words]) == 2
    assert "has no attention to keep the documents of a row apart" in capsys.readouterr().err


def test_a_file_of_outputs_is_compared_on_the_text_that_it_is_of(run, capsys):
    found, _ = _evaluate(capsys, run / "one", run / "toy.yaml", "--data_dir", run, "--baseline", run / "val.en")
    assert "comparison" in found["validation"]
    assert "comparison" not in found["test"]
    shutil.copy(run / "val.de", run / "test.de")
    shutil.copy(run / "val.en", run / "test.en")
    words = [str(run / "one"), str(run / "toy.yaml"), "--data_dir", str(run), "--baseline", str(run / "val.en")]
    assert main(["evaluate", *words]) == 2
    assert "the text 30 (validation) and 30 (test): name the files of one text" in capsys.readouterr().err


COMET = """
class Answer(dict):
    pass


class Model:
    def predict(self, samples, batch_size=16, gpus=1, num_workers=None, progress_bar=True):
        assert all(sample.keys() == {"src", "mt", "ref"} for sample in samples)
        return Answer(scores=[len(sample["mt"]) / (1 + len(sample["ref"])) for sample in samples])


def load_from_checkpoint(path, reload_hparams=False, strict=False, local_files_only=False):
    assert local_files_only
    open(path).close()
    print("a word on stdout")
    return Model()
"""


@pytest.mark.slow
def test_comet_scores_by_a_model_on_this_machine(run, capsys, monkeypatch):
    """The package is a stand-in with the interface of unbabel-comet 2.2.7; the process is another one."""
    (run / "packages" / "comet").mkdir(parents=True)
    (run / "packages" / "comet" / "__init__.py").write_text(COMET, encoding="utf-8")
    (run / "packages" / "unbabel_comet-9.9.dist-info").mkdir()
    metadata = "Metadata-Version: 2.1\nName: unbabel-comet\nVersion: 9.9\n"
    (run / "packages" / "unbabel_comet-9.9.dist-info" / "METADATA").write_text(metadata, encoding="utf-8")
    (run / "wmt99" / "checkpoints").mkdir(parents=True)
    checkpoint = run / "wmt99" / "checkpoints" / "model.ckpt"
    checkpoint.touch()
    words = ["evaluate", str(run / "one"), str(run / "test.de"), str(run / "test.en"), "--comet", str(checkpoint)]
    assert main(words) == 2
    assert "must be the file of a COMET model" in capsys.readouterr().err
    (run / "wmt99" / "hparams.yaml").touch()
    assert main(words) == 2
    assert "--comet needs the package unbabel-comet" in capsys.readouterr().err
    assert not (run / "one" / "evaluation.json").exists()
    words += ["--comet_python", sys.executable]
    assert main(words) == 1
    assert "COMET failed" in capsys.readouterr().err
    monkeypatch.setenv("PYTHONPATH", str(run / "packages"))
    found, table = _evaluate(capsys, *words[1:])
    outputs, references = (
        (run / name).read_text(encoding="utf-8").split("\n")[:-1] for name in ("one/outputs/output.txt", "test.en")
    )
    scores = [len(out) / (1 + len(ref)) for out, ref in zip(outputs, references, strict=True)]
    assert found["comet"] == pytest.approx(sum(scores) / len(scores))
    assert found["comet_low"] < found["comet"] < found["comet_high"]
    assert found["comet_signature"] == "model:wmt99|version:9.9"
    assert "COMET" in table


WRONG = {
    "nothing": (["{}/one"], "Say what to score the model on"),
    "no-file": (["{}/one", "{}/tset.de"], "is neither a file nor a recipe"),
    "no-recipe": (["{}/one", "multi30k-de-en/smal"], "did you mean 'multi30k-de-en/small'"),
    "three-files": (["{}/one", "{}/test.de", "{}/test.en", "{}/val.de"], "3 files are too many"),
    "twice": (["{}/one", "{}/test.de", "--text", "{}/play.txt"], "not both"),
    "another-option": (["{}/one", "{}/test.de", "{}/test.en", "--max_length=3"], "--max_length=3 is no option of"),
    "option-of-no-recipe": (["{}/one", "{}/toy.yaml", "--data_dir={}", "--max_lenght=3"], "did you mean 'max_length'"),
    "other-kind": (["{}/gpt", "{}/toy.yaml", "--data_dir={}"], "theatre generate"),
    "no-baseline": (["{}/one", "{}/test.de", "{}/test.en", "--baseline", "{}/nowhere"], "There is no model folder"),
    "short-baseline": (
        ["{}/one", "{}/test.de", "{}/test.en", "--baseline", "{}/val.en"],
        "has 30 lines, and the text 60",
    ),
    "short-baseline-of-a-recipe": (
        ["{}/one", "{}/toy.yaml", "--data_dir={}", "--baseline", "{}/train.en"],
        "(validation) and 60 (test): a file of outputs needs one for each",
    ),
    "baseline-of-another-kind": (["{}/one", "{}/test.de", "{}/test.en", "--baseline", "{}/gpt"], "theatre generate"),
    "gpt-with-file": (["{}/gpt", "{}/play.txt", "--baseline", "{}/val.en"], "of a language model give its folder"),
    "beams-of-a-gpt": (["{}/gpt", "{}/play.txt", "--num_beams", "3"], "--num_beams is for translators"),
    "metric": (["{}/one", "{}/test.de", "{}/test.en", "--metrics", "blue"], "invalid choice: 'blue'"),
    "beams": (["{}/one", "{}/test.de", "{}/test.en", "--num_beams", "0"], "must be a whole number"),
    "folder": (["{}/one", "{}/test.de", "{}/test.en", "--output_dir", "{}/test.de/x"], "cannot be written"),
}


@pytest.mark.parametrize(("words", "message"), WRONG.values(), ids=WRONG)
def test_wrong_input_gets_one_line_before_a_model_writes_and_leaves_nothing_behind(
    runs, capsys, monkeypatch, words, message
):
    monkeypatch.delattr("transformer_theatre.recipes.scoring.evaluate.measure_pairs")
    before = sorted(runs.rglob("*"))
    assert main(["evaluate", *(word.format(runs) for word in words)]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.out == ""
    assert sorted(runs.rglob("*")) == before


def test_help_teaches(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", "--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    for word in ("RECIPE", "--baseline", "evaluation.json", "p-value", "--comet"):
        assert word in shown
