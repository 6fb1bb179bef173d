"""The metric by which the best checkpoints are chosen, and training is ended early."""

from collections.abc import Sequence
from typing import Any

from .nearest import nearest
from .run_arguments import RunArguments


_LIKELIHOOD = ["loss", "perplexity", "bits_per_byte", "bits_per_character"]
_WRITTEN = ["bleu", "bleu_lowercase", "bleu_moses_lowercase", "chrf", "exact_match"]


def check_best_metric(args: RunArguments, measured: Sequence[str] | None = None):
    """Make sure that what chooses among checkpoints will be measured.

    Args:
        args: of the run.
        measured: names of all figures of its validation; None: those of a text.

    Raises:
        ValueError: nothing measures the metric, or measures it when a checkpoint is saved.
    """
    name = (args.metric_for_best_model or "loss").removeprefix("eval_")
    known = _LIKELIHOOD + _WRITTEN if measured is None else list(measured)
    if measured is None and name in _WRITTEN and not args.predict_with_generate:
        raise ValueError(
            f"metric_for_best_model={args.metric_for_best_model} is measured on what the model writes: give "
            "predict_with_generate: true."
        )
    if name not in known:
        raise ValueError(
            f"metric_for_best_model={args.metric_for_best_model} must be one of: {', '.join(known)}{nearest(name, known)}."
        )
    strategies: list[Any] = [args.eval_strategy, args.save_strategy]
    evaluates, saves = (strategy.value for strategy in strategies)
    if args.early_stopping_patience and evaluates == "no":
        raise ValueError(f"early_stopping_patience={args.early_stopping_patience} needs an eval_strategy.")
    same_steps = evaluates != "steps" or args.save_steps % (args.eval_steps or args.logging_steps) == 0
    if args.average_best and saves != "best" and not (evaluates == saves and same_steps):
        raise ValueError(
            f"average_best={args.average_best} needs a measurement of each checkpoint: give the same eval_strategy and "
            "save_strategy (and steps)."
        )
