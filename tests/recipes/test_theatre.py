"""The command as a user meets it: what goes in, what comes out, and one line where something is wrong."""

import io
import json
import math
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from transformer_theatre.recipes.checkpoints import write_manifest
from transformer_theatre.recipes.run_arguments import RunArguments
from transformer_theatre.recipes.stdin_lines import stdin_lines
from transformer_theatre.recipes.theatre import _read_prompt, main
from transformer_theatre.recipes.train import summary
from transformer_theatre.recipes.training import last_checkpoint


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A translator and a GPT, trained for a few steps through the command."""
    import random

    folder = tmp_path_factory.mktemp("trained")
    rng = random.Random(0)
    for split, size in (("train", 40), ("val", 6), ("test", 6)):
        lines = [" ".join(rng.choices(["ein", "hund", "katze", "haus"], k=rng.randint(2, 5))) for _ in range(size)]
        (folder / f"{split}.de").write_text("\n".join(lines) + "\n", encoding="utf-8")
        (folder / f"{split}.en").write_text("\n".join(line.upper() for line in lines) + "\n", encoding="utf-8")
    text = "To be, or not to be: that is the question.\n" * 60
    (folder / "play.txt").write_text(text, encoding="utf-8")
    small = ["--d_model", "16", "--max_steps", "3", "--use_cpu", "true", "--disable_tqdm", "true"]
    heads = ["--encoder_layers", "1", "--decoder_layers", "1", "--encoder_ffn_dim", "32", "--decoder_ffn_dim", "32"]
    files = [
        f"--{split}_{side}={name}.{code}"
        for split, name in (("train", "train"), ("validation", "val"), ("test", "test"))
        for side, code in (("source", "de"), ("target", "en"))
    ]
    assert (
        main(
            [
                "train",
                "multi30k-de-en/small",
                "--data_dir",
                str(folder),
                "--output_dir",
                str(folder / "mt"),
                "--bf16",
                "true",  # what is measured is the model as it is saved
                "--generation_alpha",
                "1.1",  # and as it is searched
                "--vocab_size",
                "300",
                *files,
                *small,
                *heads,
            ]
        )
        == 0
    )
    gpt = ["--num_hidden_layers", "1", "--ffn_dim", "32", "--per_device_eval_batch_size", "4"]
    assert (
        main(
            [
                "train",
                "shakespeare-char/cpu",
                "--train_text",
                str(folder / "play.txt"),
                "--output_dir",
                str(folder / "gpt"),
                *small,
                *gpt,
            ]
        )
        == 0
    )
    return folder


@pytest.fixture
def stdin(monkeypatch):
    """Put bytes on stdin."""

    def put(data):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))

    return put


def test_a_run_leaves_a_whole_model_folder(trained):
    names = {path.name for path in (trained / "mt").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "generation_config.json"} <= names
    assert {"README.md", "metrics.json", "recipe.yaml", "modeling_transformer.py"} <= names
    assert (trained / "mt" / "figures" / "attention.png").read_bytes().startswith(b"\x89PNG")
    metrics = json.loads((trained / "mt" / "metrics.json").read_text(encoding="utf-8"))
    assert {"test_bleu", "test_bleu_signature", "eval_nll", "train_steps", "train_tokens_per_second"} <= metrics.keys()
    assert metrics["train_steps"] == 3
    metrics = json.loads((trained / "gpt" / "metrics.json").read_text(encoding="utf-8"))
    assert {"eval_nll", "eval_perplexity", "eval_bits_per_byte"} <= metrics.keys()
    text_bytes = 43 * 60 // 10  # the last tenth of 60 lines
    bits = metrics["eval_nll"] * metrics["eval_tokens"] / math.log(2)
    assert metrics["eval_bits_per_byte"] == pytest.approx(bits / text_bytes, rel=0.01)


def test_a_model_folder_does_not_say_where_it_was_made(trained):
    names = (f"{trained}/", f"{Path.home()}/", *(name for name in [socket.gethostname()] if len(name) > 5))
    unsaid = [name.encode() for name in names]  # a short name is in any picture
    # What only a run that goes on needs, and nobody publishes.
    files = [path for name in ("mt", "gpt") for path in (trained / name).rglob("*") if path.is_file()]
    files = [path for path in files if "checkpoint-" not in str(path) and path.name != "training_args.bin"]
    assert {"recipe.yaml", "card.json", "metrics.json", "README.md"} <= {path.name for path in files}
    assert [(path, word) for path in files for word in unsaid if word in path.read_bytes()] == []
    recipe = yaml.safe_load((trained / "gpt" / "recipe.yaml").read_text(encoding="utf-8"))
    assert recipe["train_text"] == ["play.txt"]


def test_a_byte_order_mark_on_stdin_is_no_text(stdin):
    stdin("\ufeffein hund\r\nkatze\r\n".encode())
    assert list(stdin_lines()) == ["ein hund", "katze"]
    stdin("\ufeffein hund\r\nkatze".encode())
    assert _read_prompt() == "ein hund\nkatze"


def test_lines_in_are_lines_out(trained, stdin, capsys):
    stdin("ein hund\n\n  \nkatze\r\nein haus ohne Ende\u2028ein hund".encode())
    assert main(["translate", str(trained / "mt")]) == 0
    lines = capsys.readouterr().out.split("\n")
    assert len(lines) == 6  # five lines, each ended
    assert lines[1] == lines[2] == lines[5] == ""


def test_the_best_of_each_line_come_with_number_and_score(trained, stdin, capsys):
    lines = b"ein hund\n\nkatze\n"
    stdin(lines)
    assert main(["translate", str(trained / "mt"), "--num_beams", "3", "--n_best", "2", "--alpha", "0.6"]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [number for number, _, _ in rows] == ["1", "1", "2", "2", "3", "3"]
    assert all(float(rows[i][1]) >= float(rows[i + 1][1]) for i in (0, 2, 4))
    stdin(lines)
    assert main(["translate", str(trained / "mt"), "--num_beams", "3"]) == 0
    best = capsys.readouterr().out.split("\n")[:3]
    assert [rows[i][2] for i in (0, 2, 4)] == best


def test_nothing_in_is_nothing_out(trained, stdin, capsys):
    stdin(b"")
    assert main(["translate", str(trained / "mt")]) == 0
    assert capsys.readouterr().out == ""


def test_generate_begins_with_the_prompt(trained, stdin, capsys):
    assert main(["generate", str(trained / "gpt"), "--prompt", "To be", "--max_new_tokens", "90", "--seed", "1"]) == 0
    first = capsys.readouterr().out
    assert first.startswith("To be")
    for given in (b"To be", b"To be\n", b"To be\r\n"):  # as `echo` writes it
        stdin(given)
        assert main(["generate", str(trained / "gpt"), "--max_new_tokens", "90", "--seed", "1"]) == 0
        assert capsys.readouterr().out == first
    stdin(b"To be\n\n")
    assert main(["generate", str(trained / "gpt"), "--max_new_tokens", "9", "--seed", "1"]) == 0
    assert capsys.readouterr().out.startswith("To be\n")


def test_bytes_of_the_command_line_that_are_no_text_are_named(capsys):
    assert main(["generate", "model", "--prompt", os.fsdecode(b"To \xff\xfe")]) == 2
    assert r"byte 4 of 'To \udcff\udcfe' is no UTF-8" in capsys.readouterr().err


def test_evaluate_finds_what_training_measured(trained, capsys):
    metrics = json.loads((trained / "mt" / "metrics.json").read_text(encoding="utf-8"))
    files = ["--source", str(trained / "test.de"), "--target", str(trained / "test.en")]
    assert main(["evaluate", str(trained / "mt"), *files]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["bleu_signature"] == metrics["test_bleu_signature"]
    assert figures["alpha"] == metrics["test_alpha"] == 1.1
    for name in ("bleu", "bleu_lowercase", "chrf", "exact_match"):
        for side in ("", "_low", "_high"):
            assert figures[f"{name}{side}"] == pytest.approx(metrics[f"test_{name}{side}"])
    assert figures["interval_signature"] == metrics["interval_signature"]
    assert not any("moses" in key for key in {**figures, **metrics})  # the recipe was given another text
    assert main(["evaluate", str(trained / "mt"), *files, "--target_language", "en"]) == 0
    assert "bleu_moses_lowercase" in json.loads(capsys.readouterr().out)
    files = ["--source", str(trained / "val.de"), "--target", str(trained / "val.en")]
    assert main(["evaluate", str(trained / "mt"), *files]) == 0
    figures = json.loads(capsys.readouterr().out)
    for name in ("nll", "nll_low", "nll_high", "perplexity", "perplexity_low", "bits_per_byte", "tokens"):
        assert figures[name] == pytest.approx(metrics[f"eval_{name}"], rel=1e-6)


def _copy_without(folder, target, name):
    target.mkdir()
    for path in folder.iterdir():
        if path.is_file() and not path.name.startswith(name):
            (target / path.name).write_bytes(path.read_bytes())
    return target


WRONG = {
    "no-command": ([], 2, "COMMAND"),
    "unknown-command": (["trian"], 2, "invalid choice: 'trian'"),
    "more-than-beams": (
        ["translate", "{folder}/mt", "--n_best", "5", "--num_beams", "2"],
        2,
        "n_best=5 must be at most num_beams=2",
    ),
    "alpha": (["translate", "{folder}/mt", "--alpha", "-1"], 2, "alpha=-1.0 must be a number from 0 to 100"),
    "no-beams": (["translate", "{folder}/mt", "--num_beams", "0"], 2, "must be a whole number, 1 or more"),
    "unknown-recipe": (["train", "multi30k-de-en/smal"], 2, "did you mean 'multi30k-de-en/small'"),
    "unknown-option": (["train", "multi30k-de-en/small", "--lerning_rate", "1"], 2, "did you mean 'learning_rate'"),
    "wrong-type": (["train", "multi30k-de-en/small", "--seed", "one"], 2, "invalid int value: 'one'"),
    "missing-file": (
        ["train", "multi30k-de-en/small", "--data_dir", "{folder}", "--output_dir", "{new}"],
        2,
        "test_2016_flickr.de",
    ),
    "unequal-files": (
        [
            "train",
            "multi30k-de-en/small",
            "--data_dir",
            "{folder}",
            "--train_source",
            "train.de",
            "--train_target",
            "val.en",
            "--output_dir",
            "{new}",
        ],
        2,
        "has 40 lines but",
    ),
    "empty-file": (
        [
            "train",
            "multi30k-de-en/small",
            "--data_dir",
            "{folder}",
            "--train_source",
            "empty",
            "--train_target",
            "empty",
            "--output_dir",
            "{new}",
        ],
        2,
        "empty",
    ),
    "directory-for-a-file": (
        [
            "train",
            "multi30k-de-en/small",
            "--data_dir",
            "{folder}",
            "--train_source",
            "mt",
            "--train_target",
            "mt",
            "--output_dir",
            "{new}",
        ],
        2,
        "folder",
    ),
    "heads-that-do-not-divide": (
        [
            "train",
            "multi30k-de-en/small",
            "--data_dir",
            "{folder}",
            "--train_source",
            "train.de",
            "--train_target",
            "train.en",
            "--validation_source=val.de",
            "--validation_target=val.en",
            "--test_source=test.de",
            "--test_target=test.en",
            "--d_model",
            "30",
            "--vocab_size",
            "300",
            "--output_dir",
            "{new}",
        ],
        2,
        "encoder_attention_heads=8 must divide d_model=30",
    ),
    "unwritable-output": (
        ["train", "multi30k-de-en/small", "--output_dir", "{folder}/train.de/run"],
        2,
        "cannot be written",
    ),
    "occupied-output": (["train", "multi30k-de-en/small", "--output_dir", "{folder}/mt"], 2, "is not empty"),
    "foreign-output": (
        ["train", "multi30k-de-en/small", "--output_dir", "{folder}", "--overwrite", "true"],
        2,
        "delete it yourself",
    ),
    "no-model": (["translate", "{folder}/nowhere"], 2, "There is no model folder"),
    "resumed-with-another-size": (
        [
            "train",
            "{folder}/gpt/recipe.yaml",
            "--data_dir={folder}",
            "--output_dir={folder}/gpt",
            "--resume_from_checkpoint=true",
            "--d_model=32",
        ],
        2,
        "d_model=32 cannot go on from",
    ),
    "no-model-folder": (["translate", "{folder}"], 2, "config.json"),
    "gpt-for-translation": (["translate", "{folder}/gpt"], 2, "theatre generate"),
    "translator-for-text": (["generate", "{folder}/mt", "--prompt", "a"], 2, "theatre translate"),
    "no-text-to-score": (["evaluate", "{folder}/mt"], 2, "--source"),
}


@pytest.mark.parametrize(("words", "code", "message"), WRONG.values(), ids=WRONG)
def test_wrong_input_gets_one_line_and_leaves_nothing_behind(trained, tmp_path, capsys, words, code, message):
    (trained / "empty").touch()
    before = sorted(path.relative_to(trained) for path in trained.rglob("*"))
    words = [word.format(folder=trained, new=tmp_path / "new") for word in words]
    assert main(words) == code
    errors = capsys.readouterr().err
    assert "Traceback" not in errors
    assert message in errors
    assert len([line for line in errors.splitlines() if line.startswith("theatre: ")]) == 1
    assert not (tmp_path / "new").exists()
    assert sorted(path.relative_to(trained) for path in trained.rglob("*")) == before


def test_a_model_folder_without_tokenizer_is_named(trained, tmp_path, capsys):
    folder = _copy_without(trained / "mt", tmp_path / "copy", "tokenizer")
    assert main(["translate", str(folder)]) == 2
    assert "holds no tokenizer" in capsys.readouterr().err


def test_damaged_weights_are_named(trained, tmp_path, capsys):
    folder = _copy_without(trained / "mt", tmp_path / "copy", "nothing")
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    assert main(["translate", str(folder)]) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_weights_that_do_not_fit_are_refused(trained, tmp_path, capsys):
    folder = _copy_without(trained / "mt", tmp_path / "copy", "nothing")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "encoder_layers": 3}), encoding="utf-8")
    assert main(["translate", str(folder)]) == 2
    assert "do not fit TransformerForConditionalGeneration: missing keys" in capsys.readouterr().err


def test_a_failed_run_ends_with_one_line_and_1(trained, monkeypatch, capsys):
    def fail(*_, **__):
        raise RuntimeError("out\nof memory")

    monkeypatch.setattr("transformer_theatre.recipes.models.load", fail)
    assert main(["translate", str(trained / "mt")]) == 1
    assert capsys.readouterr().err == "theatre: failed: RuntimeError: out of memory (--traceback shows where)\n"


def test_a_refused_resume_leaves_the_recipe_of_the_run_as_it_was(trained, capsys):
    before = (trained / "gpt" / "recipe.yaml").read_bytes()
    words = ["--data_dir", str(trained), "--output_dir", str(trained / "gpt"), "--resume_from_checkpoint", "true"]
    assert main(["train", str(trained / "gpt" / "recipe.yaml"), *words, "--d_model", "32"]) == 2
    assert "d_model=32 cannot go on from" in capsys.readouterr().err
    assert (trained / "gpt" / "recipe.yaml").read_bytes() == before


def test_a_checkpoint_that_is_not_whole_is_passed_over(tmp_path):
    names = ["trainer_state.json", "config.json", "tokenizer.json", "scheduler.pt", "optimizer.pt"]
    for step, count in ((2, 5), (9, 4), (10, 0)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        for name in names[:count]:
            (tmp_path / f"checkpoint-{step}" / name).touch()
    for step in (2, 9):
        write_manifest(tmp_path / f"checkpoint-{step}")
    args = RunArguments(output_dir=str(tmp_path), resume_from_checkpoint="true")
    assert last_checkpoint(args) == str(tmp_path / "checkpoint-2")
    for name, problem in (
        ("checkpoint-9", "optimizer.pt is missing"),  # a whole checkpoint, of the model alone
        ("checkpoint-10", "manifest.json is missing: its save was not finished"),
        ("checkpoint-11", "there is no such folder"),
    ):
        args.resume_from_checkpoint = str(tmp_path / name)
        with pytest.raises(ValueError, match=f"{name} is no whole checkpoint to resume from: {problem}"):
            last_checkpoint(args)


def test_bytes_that_are_no_text_are_named_with_their_line(trained, stdin, capsys):
    stdin(b"ein hund\nein \xff hund\n")
    assert main(["translate", str(trained / "mt")]) == 2
    assert "stdin:2: byte 5 of the line is no UTF-8" in capsys.readouterr().err


def test_figures_are_listed_with_their_intervals():
    metrics = {
        "train_steps": 12_000,
        "speed": 34_567.8,
        "nll_low": 1.5,
        "nll": 1.61,
        "nll_high": 1.7,
        "signature": "bs",
    }
    lines = [
        "train_steps  12,000",
        "speed        34,568",
        "nll          1.6100  (1.5000 to 1.7000)",
        "signature    bs",
    ]
    assert summary(metrics).splitlines() == lines


def test_help_teaches(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    assert "theatre translate MODEL < source.txt" in capsys.readouterr().out
    assert main(["train", "--help"]) == 0
    assert "multi30k-de-en/small" in capsys.readouterr().out
    assert main(["train", "multi30k-de-en/small", "--help"]) == 0
    assert "--learning_rate 3e-3" in capsys.readouterr().out


def test_a_run_goes_on_where_it_was_stopped(trained, tmp_path):
    shared = [
        "train",
        "shakespeare-char/cpu",
        "--train_text",
        str(trained / "play.txt"),
        "--d_model",
        "16",
        "--num_hidden_layers",
        "1",
        "--ffn_dim",
        "32",
    ]
    shared += [
        "--use_cpu",
        "true",
        "--disable_tqdm",
        "true",
        "--save_steps",
        "2",
        "--eval_strategy",
        "no",
        "--dropout",
        "0.1",
    ]
    assert main([*shared, "--max_steps", "4", "--output_dir", str(tmp_path / "whole")]) == 0
    assert main([*shared, "--max_steps", "4", "--output_dir", str(tmp_path / "parts")]) == 0
    # As if it had been killed after step 2.
    shutil.rmtree(tmp_path / "parts" / "checkpoint-4")
    (tmp_path / "parts" / "model.safetensors").unlink()
    resumed = [
        *shared,
        "--max_steps",
        "4",
        "--output_dir",
        str(tmp_path / "parts"),
        "--resume_from_checkpoint",
        "true",
    ]
    assert main(resumed) == 0
    whole, parts = (tmp_path / name / "model.safetensors" for name in ("whole", "parts"))
    assert whole.read_bytes() == parts.read_bytes()


@pytest.mark.slow
def test_two_processes_make_one_folder(trained, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = ["torch.distributed.run", "--nproc_per_node", "2", "--master_addr", "127.0.0.1", "--master_port", port]
    command += ["-m", "transformer_theatre.recipes.train", str(trained / "mt" / "recipe.yaml")]
    command += ["--data_dir", str(trained), "--output_dir", str(tmp_path / "two")]
    result = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.count("The model is in") == 1
    one = json.loads((trained / "mt" / "metrics.json").read_text(encoding="utf-8"))
    two = json.loads((tmp_path / "two" / "metrics.json").read_text(encoding="utf-8"))
    assert one.keys() == two.keys()


@pytest.mark.slow
def test_a_closed_pipe_ends_quietly(trained):
    command = f'yes "ein hund" | head -50 | {sys.executable} -m transformer_theatre.recipes.theatre translate {trained / "mt"} | head -1'
    result = subprocess.run(command, shell=True, capture_output=True, text=True, env=os.environ, check=False)
    assert "Traceback" not in result.stderr
    assert result.stdout.count("\n") == 1


_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@pytest.mark.skipif(
    not _HUGE_PAGES.exists() or "[madvise]" not in _HUGE_PAGES.read_text(encoding="ascii"),
    reason="the system gives huge pages to all programs or to none",
)
def test_large_tensors_are_in_huge_pages_unless_the_user_says_no(trained):
    # Each new tensor of 64 MB is cleared page by page: 15,625 pages of 4 kB, or 31 of 2 MB.
    code = """
import resource, sys, transformer_theatre.recipes.theatre as theatre
theatre.main(["generate", sys.argv[1], "--prompt", "To be", "--max_new_tokens", "1"])
import torch
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.zeros(16_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    faults = {}
    for given in ({}, {"THP_MEM_ALLOC_ENABLE": "0"}):
        environment = {key: value for key, value in os.environ.items() if key != "THP_MEM_ALLOC_ENABLE"} | given
        done = subprocess.run(
            [sys.executable, "-c", code, str(trained / "gpt")],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        faults[bool(given)] = int(done.stdout.split()[-1])
    assert faults[True] > 100_000
    assert faults[False] < 20_000
