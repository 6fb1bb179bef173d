"""How many tokens a batch may have on a device: tried out on an accelerator, reckoned from two small batches on a CPU."""

import contextlib
import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils import logging

from .measured_update import KeptBytes, checkpoints_activations, set_checkpointing


logger = logging.get_logger(__name__)

# Beyond the paper's batch (25,000 source and 25,000 target tokens) more rows to an update help little: more updates do.
MOST_TOKENS = 50_000
# Of the free memory; the rest is for what comes and goes, and for the batches that wait.
_SHARE = 0.8
# Of what was tried out without running out of memory: other shapes fragment it otherwise.
_MARGIN = 0.9
# What a step on a CPU takes beside what backward keeps: the gradients of the largest activations, and their temporaries.
_TEMPORARY = 1.5
_PROBE_ROWS = (2, 6)


def tokens_that_fit(model: PreTrainedModel, args: Any, longest: int) -> int:
    """Find how many tokens a batch may have, padding counted, on the device of a run; the same on all of its processes.

    On an accelerator, steps are made on ever larger batches of the longest rows, until memory runs out or the most tokens are
    reached. On a CPU, where nobody says in time that memory runs out: `reckoned_tokens`. The model, its gradients and the random
    states are then as they were.

    Args:
        model: of the run, on any device.
        args: `RunArguments`.
        longest: tokens of the longest side of a row.

    Raises:
        ValueError: not even one row fits.
    """
    sides = 2 if model.config.is_encoder_decoder else 1
    device = args.device
    with _as_before(model):
        if device.type == "cpu":
            tokens = reckoned_tokens(model, args, longest, free_memory())
        else:
            with _checkpointing(model, args):
                tokens = tried_tokens(
                    lambda rows: _step(model.to(device), args, _batch(model, rows, longest)), sides * longest
                )
    if args.world_size > 1:
        smallest = torch.tensor(tokens, device=device)
        torch.distributed.all_reduce(smallest, torch.distributed.ReduceOp.MIN)
        tokens = int(smallest)
    if tokens < sides * longest:
        raise ValueError(
            f"max_tokens_per_batch=auto: not even one row of {longest} tokens on a side fits into the memory of {device}. Give "
            "a smaller max_length (or row_length), or a smaller model."
        )
    logger.warning(f"max_tokens_per_batch: auto is {tokens:,} on {device}.")
    return tokens


def tried_tokens(step: Callable[[int], Any], row_tokens: int) -> int:
    """Double the rows of a batch until memory runs out, halve the last leap twice, and leave a margin.

    Args:
        step: learns from a batch of some rows, or raises what means that memory ran out.
        row_tokens: of a row, on all sides.

    Returns:
        Tokens; 0 if one row is too many.
    """
    fitting, failing, rows = 0, None, 1
    while rows * row_tokens * _MARGIN <= MOST_TOKENS:
        if _runs(step, rows):
            fitting, rows = rows, rows * 2
        else:
            failing = rows
            break
    for _ in range(2):
        between = (fitting + (failing or fitting)) // 2
        if between <= fitting:
            break
        fitting, failing = (between, failing) if _runs(step, between) else (fitting, between)
    if failing is None:
        return MOST_TOKENS
    return max(int(fitting * row_tokens * _MARGIN), row_tokens * (fitting > 0))


def reckoned_tokens(model: PreTrainedModel, args: Any, longest: int, free: int) -> int:
    """Reckon the tokens of a batch on a CPU from the memory that is free.

    0.8 * free = 4 bytes * parameters * (gradient + 2 of Adam + moving average + buckets of several processes)
    + tokens * 1.5 * bytes that backward keeps for a token: the slope between two small batches.

    With activation checkpointing backward keeps what goes into each layer, and computes one layer at a time again.

    Args:
        model: on the CPU.
        args: `RunArguments`.
        longest: tokens of the longest side of a row.
        free: bytes.

    Returns:
        Tokens; 0 if not even the optimizer fits.
    """
    sides = 2 if model.config.is_encoder_decoder else 1
    copies = 3 + bool(args.ema_decay) + (args.world_size > 1)
    fixed = copies * sum(weight.nbytes for weight in model.parameters())
    a_row = _kept_for_a_row(model, args, longest)
    if checkpoints_activations(args):
        layers = sum(isinstance(module, GradientCheckpointingLayer) for module in model.modules())
        with _checkpointing(model, args):
            a_row = _kept_for_a_row(model, args, longest) + a_row / layers
    tokens = int((_SHARE * free - fixed) / (_TEMPORARY * a_row / longest / sides))
    return max(0, min(MOST_TOKENS, tokens))


def _kept_for_a_row(model: PreTrainedModel, args: Any, longest: int) -> float:
    few, more = (bytes_kept(model, args, _batch(model, rows, longest)) for rows in _PROBE_ROWS)
    return (more - few) / (_PROBE_ROWS[1] - _PROBE_ROWS[0])


@contextlib.contextmanager
def _checkpointing(model: PreTrainedModel, args: Any) -> Iterator[None]:
    """Compute layers again in the backward pass where the run will."""
    if not checkpoints_activations(args):
        yield
        return
    set_checkpointing(model, on=True)
    try:
        yield
    finally:
        set_checkpointing(model, on=False)


def bytes_kept(model: PreTrainedModel, args: Any, batch: dict[str, torch.Tensor]) -> int:
    """Count the bytes that a forward pass keeps for backward, without weights and integers."""
    model.train()
    with KeptBytes(model) as kept, _autocast(args, "cpu"):
        _loss(model, batch)
    return kept.bytes()


def free_memory() -> int:
    """Bytes that this process may still take: of the machine's, and of its control group's, a fair share for each process."""
    free = psutil.virtual_memory().available
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        with contextlib.suppress(OSError, ValueError):  # no such group, or "max"
            free = min(free, _number_in(limit) - _number_in(used))
    return max(0, free) // int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def _number_in(path: str) -> int:
    return int(Path(path).read_text(encoding="utf-8"))


def _batch(model: PreTrainedModel, rows: int, longest: int) -> dict[str, torch.Tensor]:
    ids = torch.full((rows, longest), model.config.vocab_size - 1, device=model.device)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids.clone()}


def _loss(model: PreTrainedModel, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return model(**batch, use_cache=False).loss


def _autocast(args: Any, device: str) -> Any:
    if not (args.bf16 or args.fp16):
        return contextlib.nullcontext()
    return torch.autocast(device, torch.bfloat16 if args.bf16 else torch.float16)


def _step(model: PreTrainedModel, args: Any, batch: dict[str, torch.Tensor]):
    """Learn from a batch, at rate 0, with an optimizer that has as much state as the run's."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, weight_decay=0.0)
    # A moving average, and the buckets from which several processes send their gradients.
    copies = bool(args.ema_decay) + (args.world_size > 1 and args.fsdp_size == 1)
    beside = [[weight.detach().clone() for weight in model.parameters()] for _ in range(copies)]
    with _autocast(args, model.device.type):
        loss = _loss(model, batch)
    loss.backward()
    optimizer.step()
    torch.accelerator.synchronize()
    del beside


def _runs(step: Callable[[int], Any], rows: int) -> bool:
    try:
        step(rows)
    except RuntimeError as error:  # not all devices raise torch.OutOfMemoryError
        if not isinstance(error, torch.OutOfMemoryError) and "out of memory" not in str(error).lower():
            raise
        return False
    finally:
        _release()
    return True


def _release():
    gc.collect()
    if torch.accelerator.is_available() and hasattr(torch, torch.accelerator.current_accelerator().type):
        empty = getattr(getattr(torch, torch.accelerator.current_accelerator().type), "empty_cache", None)
        if empty is not None:
            empty()


@contextlib.contextmanager
def _as_before(model: PreTrainedModel) -> Iterator[None]:
    """Put weights, mode, gradients, device and random states back."""
    anywhere: Any = model
    device, training = model.device, model.training
    weights = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
    devices = range(torch.accelerator.device_count()) if torch.accelerator.is_available() else ()
    kind = {"device_type": torch.accelerator.current_accelerator().type} if devices else {}
    with torch.random.fork_rng(list(devices), **kind):
        try:
            yield
        finally:
            model.zero_grad(set_to_none=True)
            anywhere.to(device).train(training)
            model.load_state_dict(weights)
            _release()
