"""The library's Trainer, whose pushes to the Hub are complete models, each in one commit, and whose failures are seen."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from transformers.trainer_utils import HubStrategy
from transformers.utils import logging

from .background_push import BackgroundPushes, interim_card
from .checkpointing import CheckpointingTrainer
from .hub_errors import patiently
from .hub_upload import Commit, Repository
from .publish import Wish, check_name, check_token, explained, publish


logger = logging.get_logger(__name__)
# What a finished run is still to publish, when its card is written.
_PENDING: list[Wish] = []


def wish_of(args: Any) -> Wish:
    """Say what the training arguments want to be published, and as what.

    Raises:
        ValueError: the name or the token is wrong; nothing was changed.
    """
    name = args.hub_model_id or Path(args.output_dir or "").absolute().name
    token = args.hub_token
    check_token(Repository(name, token))
    if "/" not in name:
        name = f"{patiently(lambda: HfApi(token=token).whoami(), 'asking the Hub whose token it is')['name']}/{name}"
    check_name(name)
    return Wish(Path(args.output_dir or ""), name, bool(args.hub_private_repo), args.hub_revision, token=token)


def publish_pending():
    """Publish what a run has finished, as `theatre publish` does.

    Raises:
        RuntimeError: it failed; the message says how to publish it later.
    """
    while _PENDING:
        wish = _PENDING.pop()
        try:
            publish(wish)
        except (ValueError, RuntimeError) as error:
            raise RuntimeError(
                f"{error} The model is whole in {wish.folder}: `theatre publish {wish.folder} {wish.name}` publishes it."
            ) from error


def forget_pending():
    """Publish nothing of a run that was not finished."""
    _PENDING.clear()


class PublishingTrainer(CheckpointingTrainer):
    """`Seq2SeqTrainer` whose `push_to_hub` and `hub_strategy` do what `theatre publish` does.

    - `every_save`: each checkpoint becomes the repository's model, in one commit with its code, tokenizer and golden answer, after
      a process without this package has loaded it. What is there of another step goes in the same commit.
    - `checkpoint`, `all_checkpoints`: the same model also as `last-checkpoint` or `checkpoint-N`. The optimizer's state stays
      here: it is a pickle, which runs code where it is loaded.
    - `end`, and the others in the end: the finished model.

    Pushes go on beside training. One that fails is reported with the next save and in the end, and leaves the repository as it was.
    """

    pushes: BackgroundPushes | None = None

    def init_hf_repo(self, token: str | None = None, private: bool | None = None):
        """Make the repository, before training begins.

        Raises:
            ValueError: the Hub refuses.
            RuntimeError: it does not answer.
        """
        if not self.is_world_process_zero():
            return
        wish = wish_of(self.args)
        wish.token = token or wish.token
        wish.private = wish.private if private is None else private
        repository = Repository(wish.name, wish.token, wish.revision)
        with explained(wish):
            repository.create(private=wish.private, branch=True)
        hub: Any = self  # as the library knows it
        self.wish, hub.hub_model_id, hub.push_in_progress = wish, wish.name, None
        self.pushes = BackgroundPushes(repository, wish.folder)

    def _push_from_checkpoint(self, checkpoint_folder: str):
        # What is written aside gets another name before an upload is done; `_save_checkpoint` asks again.
        strategy = HubStrategy(self.args.hub_strategy).value
        if self._aside is not None or strategy == "end" or self.pushes is None or self.signal.stopping:
            return
        step, steps = self.state.global_step, self.state.max_steps
        self.pushes.report()
        if self.pushes.busy and not self.args.hub_always_push:
            logger.info(f"step {step} is not pushed: an earlier one is still on its way.")
            return
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        checkpoint = Path(checkpoint_folder)
        state = f"Training is in progress: these are the weights of step {step:,} of {steps:,}."
        also_as = {"checkpoint": "last-checkpoint", "all_checkpoints": checkpoint.name}.get(strategy)
        try:
            self.pushes.push(checkpoint, f"step {step}", interim_card(checkpoint, self.wish.name, state), also_as)
        except (OSError, ValueError) as error:  # the run is worth more than its push
            self.pushes.failed.append(f"step {step}: {error}")
            logger.warning(f"step {step} is not pushed: {error}")

    def _finish_current_push(self):
        """Wait for the pushes that go on, and say which have failed."""
        if self.pushes is not None:
            self.pushes.finish()

    def save_whole_model(self):
        """Save the model; `publish_pending` publishes it, once its card is written."""
        super().save_whole_model()
        if self.args.push_to_hub and self.pushes is not None:
            _PENDING[:] = [self.wish]

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs,
    ) -> Any:
        """Save the model, and publish the output folder as `theatre publish` does; all processes call it.

        Args:
            commit_message: of the commit.
            blocking: wait for it.
            token: in place of `hub_token`.
            revision: in place of `hub_revision`.
            private: of a new repository, in place of `hub_private_repo`.
            **kwargs: of the library's model card; here the run's card is published, or a short one where it has none.

        Returns:
            A `Commit`; or a future of it, where it is not waited for.

        Raises:
            ValueError: the folder cannot be published, or the Hub refuses.
            RuntimeError: the Hub does not answer, or holds something else; the message says what.
        """
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        if self.pushes is None:
            self.init_hf_repo(token=token, private=private)
        self.save_whole_model()
        forget_pending()
        if not self.is_world_process_zero():
            return None
        self._finish_current_push()
        wish = self.wish
        wish.token, wish.revision = token or wish.token, revision or wish.revision
        wish.message = commit_message or wish.message
        state = f"Trained for {self.state.global_step:,} steps."
        wish.card = interim_card(wish.folder, wish.name, state)
        if blocking:
            return self._publish(wish)
        return ThreadPoolExecutor(1, "push").submit(self._publish, wish)

    def _publish(self, wish: Wish) -> Commit:
        return publish(wish, logger.info)
