"""Options of training that are the library's own, and do what they say by its names, from a YAML file."""

import json
import math
import shutil

import pytest
import torch
import transformers

from transformer_theatre.recipes.measured_update import KeptBytes
from transformer_theatre.recipes.noam import noam_rate
from transformer_theatre.recipes.run_arguments import RunArguments
from transformer_theatre.recipes.train import load_recipe, train


CHECKPOINTING = (
    "activation_checkpointing"
    if "activation_checkpointing" in RunArguments.__dataclass_fields__
    else "gradient_checkpointing"
)
NO_TEST = ("test_source", "test_target", "validation_source", "validation_target")


@pytest.fixture
def run(recipe_file, corpus, tmp_path):
    """Train the tiny recipe with lines added; return what is logged, by name."""

    def start(*lines, name="run"):
        recipe = load_recipe(str(recipe_file("logging_steps: 1", *lines, without=NO_TEST)))
        done = train(recipe, ["--data_dir", str(corpus), "--output_dir", str(tmp_path / name)])
        history = json.loads((done.folder / "trainer_state.json").read_text("utf-8"))["log_history"]
        return {
            key: [entry[key] for entry in history if key in entry] for key in ("learning_rate", "loss", "grad_norm")
        }

    return start


def test_without_validation_text_nothing_is_called_the_best(run, caplog):
    best = ("load_best_model_at_end: true", "eval_strategy: epoch", "save_strategy: epoch")
    assert run("max_steps: 1", *best)["loss"]
    assert caplog.text.count("there is no best checkpoint to load: the model is that of the last step") == 1
    with pytest.raises(ValueError, match="early_stopping_patience=2 needs validation text"):
        run("max_steps: 1", *best, "early_stopping_patience: 2", name="patient")


STEPS, WARMUP, PEAK = 10, 3, 0.01


def _after_warmup(shape):
    """Of the library's schedules, which count updates from 0: a linear rise, then `shape` of the share that is done."""
    return [
        PEAK * (done / WARMUP if done < WARMUP else shape(done, (done - WARMUP) / (STEPS - WARMUP)))
        for done in range(STEPS)
    ]


SCHEDULES = {
    "inverse_sqrt": ((), _after_warmup(lambda done, share: math.sqrt(WARMUP / done))),
    "cosine": ((), _after_warmup(lambda done, share: (1 + math.cos(math.pi * share)) / 2)),
    "linear": ((), _after_warmup(lambda done, share: 1 - share)),
    "constant_with_warmup": ((), _after_warmup(lambda done, share: 1)),
    # Level for three updates, then down to a tenth in four.
    "warmup_stable_decay": (
        ("lr_scheduler_kwargs: {num_decay_steps: 4, min_lr_ratio: 0.1, decay_type: linear}",),
        [
            PEAK * (0.1 + 0.9 * level)
            for level in [done / WARMUP for done in range(WARMUP)] + [1] * 3 + [1 - done / 4 for done in range(4)]
        ],
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_have_the_librarys_names(name, run):
    lines, expected = SCHEDULES[name]
    options = [
        f"lr_scheduler_type: {name}",
        f"learning_rate: {PEAK}",
        f"warmup_steps: {WARMUP}",
        f"max_steps: {STEPS}",
    ]
    assert run(*options, *lines)["learning_rate"] == pytest.approx(expected)


def test_the_papers_schedule_has_a_factor(run):
    rates = run("noam_factor: 2.0", "warmup_steps: 3", "max_steps: 6")["learning_rate"]
    assert rates == pytest.approx([noam_rate(step, 16, 3, 2.0) for step in range(1, 7)])


def test_gradients_are_clipped_to_the_norm_that_is_given(run, monkeypatch):
    norms = []
    step = torch.optim.SGD.step

    def spy(self, *rest, **options):
        gradients = [weight.grad for group in self.param_groups for weight in group["params"]]
        norms.append(torch.nn.utils.get_total_norm(gradients).item())
        return step(self, *rest, **options)

    monkeypatch.setattr(torch.optim.SGD, "step", spy)
    clipped = run("optim: sgd", "max_grad_norm: 0.25", name="clipped")
    assert norms == pytest.approx([0.25] * 3, rel=1e-3)
    assert min(clipped["grad_norm"]) > 0.5  # what is logged is the norm before
    norms.clear()
    free = run("optim: sgd", "max_grad_norm: 0", name="free")
    assert norms == pytest.approx(free["grad_norm"], rel=1e-4)
    assert free["loss"][0] == pytest.approx(clipped["loss"][0])


def test_computing_layers_again_changes_memory_and_no_number(run, monkeypatch):
    # torch says what it kept for the backward pass.
    kept = []
    step = transformers.Trainer.compute_loss

    def spy(self, model, *rest, **options):
        with KeptBytes(model) as counted:
            loss = step(self, model, *rest, **options)
        kept.append(counted.bytes())
        return loss

    monkeypatch.setattr(transformers.Trainer, "compute_loss", spy)
    layers = ["dropout: 0.1", "encoder_layers: 3", "decoder_layers: 3", "vocab_size: 260"]
    plain = run(*layers, name="plain")
    plain_bytes = kept.copy()
    kept.clear()
    again = run(*layers, f"{CHECKPOINTING}: true", name="again")
    for key in ("loss", "grad_norm"):
        assert again[key] == pytest.approx(plain[key], rel=1e-5)
    assert max(kept) < 0.7 * min(plain_bytes)


def test_bf16_trains_on_a_cpu(run):
    full, half = (
        run(*lines, "max_steps: 6", "learning_rate: 1e-2", name=f"run{len(lines)}") for lines in ((), ("bf16: true",))
    )
    assert half["loss"] == pytest.approx(full["loss"], rel=0.02)
    assert half["loss"] != pytest.approx(full["loss"], rel=1e-6)
    assert half["loss"][-1] < half["loss"][0]


@pytest.mark.slow
@pytest.mark.skipif(
    not any(shutil.which(name) for name in ("c++", "g++", "clang++")), reason="torch.compile needs a C++ compiler here"
)
def test_a_compiled_model_trains_like_another(run):
    plain, compiled = (run(f"torch_compile: {word}", name=word) for word in ("false", "true"))
    for key in ("loss", "grad_norm"):
        assert compiled[key] == pytest.approx(plain[key], rel=1e-4)
