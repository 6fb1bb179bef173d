"""What the Trainer would only find wrong with its options when a run has begun, and another run's files are gone."""

from pathlib import Path

import torch
from transformers import PreTrainedModel, Trainer, get_scheduler
from transformers.integrations import get_reporting_integration_callbacks

from .first_line import first_line
from .run_arguments import RunArguments


def check_parts(args: RunArguments, model: PreTrainedModel):
    """Make the schedule, the optimizer's options and the reports of a run, and leave them again.

    Raises:
        ValueError: one cannot be made; the message names the option.
    """
    some = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    kind, more = getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type), args.lr_scheduler_kwargs or {}
    if not isinstance(more, dict):
        raise ValueError(f"lr_scheduler_kwargs={more} must map names to values, as in '{{\"min_lr\": 1e-4}}'.")
    steps = {"num_warmup_steps": 1, "num_training_steps": 100}
    try:
        get_scheduler(args.lr_scheduler_type, some, **steps, scheduler_specific_kwargs=more)
    except Exception as error:  # the library and torch raise their own
        raise ValueError(
            f"lr_scheduler_type={kind} with lr_scheduler_kwargs={more}: {first_line(error)}. "
            "--lr_scheduler_kwargs '{}' takes those of a recipe away."
        ) from None
    try:
        Trainer.get_optimizer_cls_and_kwargs(args, model)
    except Exception as error:  # of packages that are not there too
        name = getattr(args.optim, "value", args.optim)
        raise ValueError(f"optim={name} cannot be used: {first_line(error)}") from None
    for name in args.report_to:
        try:
            [report] = get_reporting_integration_callbacks([name])
            report()
        except Exception as error:
            raise ValueError(f"report_to={name} cannot be used: {first_line(error)}") from None


def check_source(model: PreTrainedModel, folder: Path):
    """Make sure that a run does not write over the model that it begins with.

    Raises:
        ValueError: it would.
    """
    source = Path(model.name_or_path or "").expanduser()
    if model.name_or_path and source.exists() and folder.resolve() in (source.resolve(), *source.resolve().parents):
        raise ValueError(
            f"The model that the run begins with, {source}, lies in the output folder {folder}: choose another --output_dir."
        )
