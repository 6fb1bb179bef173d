"""What the model writes, at each evaluation, so that a person sees it learn."""

from collections.abc import Sequence
from typing import Any

from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase, TrainerCallback

from .sharding import is_sharded


# Of each draw: the samples of two evaluations differ by the model alone.
_SEED = 0


class Samples(TrainerCallback):
    """Print, on the main process, how the model continues some prompts; it draws from numbers of its own.

    A model that processes share (`fsdp_size`) writes nothing: one process alone cannot use it.

    Args:
        tokenizer: of the model.
        prompts: what the samples begin with.
        tokens: of a sample, at most.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], tokens: int):
        self.tokenizer, self.prompts, self.tokens = tokenizer, list(prompts), tokens
        self.training = False

    def on_train_begin(self, args, state, control, **kwargs):
        """Print from now on."""
        self.training = True

    def on_train_end(self, args, state, control, **kwargs):
        """Leave the evaluation of the finished model alone."""
        self.training = False

    def on_evaluate(self, args, state, control, model: Any = None, **kwargs):
        """Print samples."""
        if not self.training or not state.is_world_process_zero or is_sharded(model):
            return
        written = model.continue_text(
            self.prompts, tokenizer=self.tokenizer, max_new_tokens=self.tokens, seed=_SEED, progress=False
        )
        for prompt, text in zip(self.prompts, written, strict=True):
            tqdm.write(f"--- step {state.global_step} writes:\n{prompt}{text}\n---")
