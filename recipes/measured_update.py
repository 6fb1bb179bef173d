"""One real update of a model, on random tokens, and the memory that it took at its peak."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from .smoothed_loss import SmoothedLoss


@dataclass(frozen=True)
class MeasuredUpdate:
    """What an update took.

    Args:
        peak: bytes more than before the model was made, at the most.
        kept: bytes that the backward pass needed of the forward pass, weights left out.
        seconds: of a forward and a backward pass, and the optimizer's step.
    """

    peak: int
    kept: int
    seconds: float


class PeakMemory:
    """The most memory that was used since this was made, beyond what was used then.

    On an accelerator torch knows; on a CPU the system does, of the whole process (Linux).
    """

    def __init__(self, device: torch.device):
        self.device = device
        if device.type == "cpu":
            # Begins the count of VmHWM anew.
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        else:
            torch.accelerator.reset_peak_memory_stats()
        self.start = self._now("VmRSS")

    def bytes(self) -> int:
        """How much it was."""
        return self._now("VmHWM") - self.start

    def _now(self, name: str) -> int:
        if self.device.type != "cpu":
            return torch.accelerator.max_memory_allocated()
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * 1024
        raise ValueError("The memory of a CPU's process is only known on Linux.")


def measure_update(
    model_class: Any, config: Any, args: Any, rows: int, source_length: int, target_length: int
) -> MeasuredUpdate:
    """Make a model, and update it as its recipe does.

    The optimizer has made one update before, and gradients of a first batch are there already, as where they are accumulated:
    it is the most that training takes.

    Args:
        model_class: such as `TransformerForConditionalGeneration`.
        config: of the model.
        args: of the run: device, precision, label smoothing, Adam's numbers.
        rows: of the batch.
        source_length: tokens of the source in each row; 0 for a language model.
        target_length: tokens of the target in each row.
    """
    device: torch.device = args.device
    memory = PeakMemory(device)
    model = model_class(config).to(device).train()
    if checkpoints_activations(args):
        set_checkpointing(model, on=True)
    betas = (args.adam_beta1, args.adam_beta2)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, betas, args.adam_epsilon, fused=True)
    batch = {"labels": _tokens(config, rows, target_length, device)}
    batch["input_ids"] = _tokens(config, rows, source_length, device) if source_length else batch["labels"]
    loss = SmoothedLoss(args.label_smoothing_factor, shifts=not source_length)

    kept = _backward(model, loss, batch, args)
    optimizer.step()
    started = time.monotonic()
    _backward(model, loss, batch, args)
    optimizer.step()
    if device.type != "cpu":
        torch.accelerator.synchronize()
    return MeasuredUpdate(memory.bytes(), kept, time.monotonic() - started)


def checkpoints_activations(args: Any) -> bool:
    """Say whether layers are computed again in the backward pass; older versions of the library have one name for it."""
    return bool(getattr(args, "activation_checkpointing", None) or args.gradient_checkpointing)


def set_checkpointing(model: PreTrainedModel, *, on: bool):
    """Have a model's layers computed again in the backward pass, or not; by whichever name the library has for it."""
    word = "enable" if on else "disable"
    switch = getattr(model, f"activation_checkpointing_{word}", None) or getattr(
        model, f"gradient_checkpointing_{word}"
    )
    switch()


def _tokens(config: Any, rows: int, length: int, device: torch.device) -> torch.Tensor:
    return torch.randint(config.vocab_size, (rows, length), device=device)


def _backward(model: PreTrainedModel, loss: SmoothedLoss, batch: dict[str, torch.Tensor], args: Any) -> int:
    """Compute the gradients of a batch; return the bytes that were kept for them."""
    half = torch.bfloat16 if args.bf16 else torch.float16
    inputs = {**batch}
    labels = inputs.pop("labels")
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = model.prepare_decoder_input_ids_from_labels(labels)
    with KeptBytes(model) as kept, torch.autocast(args.device.type, half, enabled=args.bf16 or args.fp16):
        value = loss(model(**inputs, use_cache=False), labels)
    value.backward()
    return kept.bytes()


class KeptBytes(torch.autograd.graph.saved_tensors_hooks):
    """Counts what autograd keeps for the backward pass: every storage once, without a model's weights and without integers."""

    def __init__(self, model: nn.Module):
        self._weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        self._sizes: dict[int, int] = {}
        super().__init__(self._keep, lambda tensor: tensor)

    def __enter__(self) -> "KeptBytes":
        super().__enter__()
        return self

    def _keep(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if not tensor.dtype.is_signed or tensor.is_floating_point():
            self._sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    def bytes(self) -> int:
        """How much it was."""
        return sum(size for pointer, size in self._sizes.items() if pointer not in self._weights)
