"""End a run that gets no better."""

from transformers import TrainerCallback


class EarlyStopping(TrainerCallback):
    """End training when the metric was not better for a number of evaluations.

    All that it knows is in the log, which a resumed run has too.

    Args:
        patience: evaluations without a better metric.
    """

    def __init__(self, patience: int):
        self.patience = patience

    def on_evaluate(self, args, state, control, **kwargs):
        """Look at all evaluations until now."""
        name = f"eval_{(args.metric_for_best_model or 'loss').removeprefix('eval_')}"
        values = [entry[name] for entry in state.log_history if name in entry]
        if not values:
            return
        best = max(values) if args.greater_is_better else min(values)
        if len(values) - 1 - values.index(best) >= self.patience:
            control.should_training_stop = True
