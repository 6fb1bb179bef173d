"""The bar above a training, and the lines that it leaves."""

from transformers import TrainerCallback

from transformer_theatre.modeling.progress import progress_bar


# What a line after an evaluation shows: key of the log, words, digits.
_SHOWN = [
    ("loss", "validation loss", 4),
    ("perplexity", "perplexity", 2),
    ("bits_per_byte", "bits per byte", 4),
    ("bits_per_character", "bits per character", 4),
    ("bleu", "BLEU", 2),
    ("chrf", "chrF2", 2),
    ("accuracy", "accuracy", 4),
    ("f1", "F1", 4),
    ("matthews_correlation", "Matthews", 4),
    ("pearsonr", "Pearson", 4),
    ("spearmanr", "Spearman", 4),
]


class TokenProgress(TrainerCallback):
    """A progress bar with loss, tokens per second of all processes, and the time left."""

    def __init__(self):
        self.bar = None

    def on_train_begin(self, args, state, control, **kwargs):
        """Open the bar, at the step where a resumed run goes on."""
        if state.is_world_process_zero:
            self.bar = progress_bar(
                state.max_steps, "training", "step", shown=not args.disable_tqdm, initial=state.global_step
            )

    def on_step_end(self, args, state, control, **kwargs):
        """Move the bar."""
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Show the newest loss and speed, or write what an evaluation found."""
        if self.bar is None or not logs:
            return
        if "loss" in logs:
            shown = [f"loss {logs['loss']:.3f}"]
            shown += [f"{logs['tokens_per_second']:,.0f} tokens/s"] if "tokens_per_second" in logs else []
            shown += [f"MFU {100 * logs['mfu']:.1f} %"] if "mfu" in logs else []
            self.bar.set_postfix_str(", ".join(shown), refresh=False)
        elif "eval_loss" in logs:
            self.bar.write(f"step {state.global_step}: {measured(logs)}")

    def on_train_end(self, args, state, control, **kwargs):
        """Close the bar."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def measured(logs: dict[str, float]) -> str:
    """Put what an evaluation found into words, with the bounds of the 95 % intervals."""
    words = []
    for key, name, digits in _SHOWN:
        value, low, high = (logs.get(f"eval_{key}{suffix}") for suffix in ("", "_low", "_high"))
        if value is not None:
            bounds = "" if low is None or high is None else f" [{low:.{digits}f}, {high:.{digits}f}]"
            words.append(f"{name} {value:.{digits}f}{bounds}")
    return ", ".join(words)
