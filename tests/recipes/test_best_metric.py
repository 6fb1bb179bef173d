import pytest

from transformer_theatre.recipes.best_metric import check_best_metric
from transformer_theatre.recipes.early_stopping import EarlyStopping
from transformer_theatre.recipes.run_arguments import RunArguments


def _arguments(**options):
    return RunArguments(output_dir="runs/x", use_cpu=True, **options)


EVERY_EPOCH = {"eval_strategy": "epoch", "save_strategy": "epoch"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric_for_best_model": "bleu"}, "metric_for_best_model=bleu is measured on what the model writes"),
        ({"metric_for_best_model": "blue"}, r"must be one of: loss, .* \(did you mean 'bleu'\?\)"),
        ({"early_stopping_patience": 2, "eval_strategy": "no"}, "early_stopping_patience=2 needs an eval_strategy"),
        ({"average_best": 2, "eval_strategy": "no", "save_strategy": "epoch"}, "average_best=2 needs a measurement"),
        (
            {
                "average_best": 2,
                "eval_strategy": "steps",
                "eval_steps": 30,
                "save_strategy": "steps",
                "save_steps": 20,
            },
            "average_best=2 needs a measurement of each checkpoint",
        ),
    ],
    ids=["not-measured", "unknown", "no-evaluation", "never-measured", "other-steps"],
)
def test_what_will_not_be_measured_cannot_choose(options, message):
    with pytest.raises(ValueError, match=message):
        check_best_metric(_arguments(**options))


def test_what_is_measured_can_choose():
    check_best_metric(
        _arguments(average_best=2, metric_for_best_model="eval_bleu", predict_with_generate=True, **EVERY_EPOCH)
    )
    steps = {"eval_strategy": "steps", "eval_steps": 10, "save_strategy": "steps", "save_steps": 20}
    check_best_metric(_arguments(average_best=2, **steps))


def test_which_of_two_is_better_follows_from_the_metric():
    for name, greater in (("perplexity", False), ("eval_bits_per_byte", False), ("loss", False), ("bleu", True)):
        options = _arguments(metric_for_best_model=name, predict_with_generate=True, **EVERY_EPOCH)
        assert options.greater_is_better is greater


@pytest.mark.parametrize(
    ("name", "values", "stops"),
    [
        ("loss", [3.0, 2.0, 2.5, 2.2], True),
        ("loss", [3.0, 2.0, 2.5, 1.9], False),
        ("bleu", [1.0, 5.0, 4.0, 4.9], True),
        ("bleu", [1.0, 5.0, 4.0, 5.1], False),
        ("bleu", [1.0], False),
    ],
)
def test_training_ends_when_nothing_got_better_twice(name, values, stops):
    from types import SimpleNamespace

    args = _arguments(metric_for_best_model=name, predict_with_generate=True, **EVERY_EPOCH)
    # The log is all it knows: that a run was resumed in between changes nothing.
    state = SimpleNamespace(log_history=[{"step": n, f"eval_{name}": value} for n, value in enumerate(values)])
    control = SimpleNamespace(should_training_stop=False)
    EarlyStopping(2).on_evaluate(args, state, control)
    assert control.should_training_stop is stops
