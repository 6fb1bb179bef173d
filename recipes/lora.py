"""Low-rank adapters (LoRA, Hu et al., 2021, https://arxiv.org/abs/2106.09685), by the package `peft`.

The model stays the class that it is, with two thin matrices beside each matrix of its layers. So checkpoints hold whole models,
adapters apart, and a run goes on from them like any other; the folder of a finished run holds the sum of both, and needs no peft.
"""

from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from .start_arguments import StartArguments
from .weights import read_weights


def add_adapters(model: PreTrainedModel, options: StartArguments):
    """Put adapters beside each matrix of the layers, in place; nothing else learns any more.

    Raises:
        ValueError: peft is not installed, or the model has no such matrices.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise ValueError(
            f"lora_rank={options.lora_rank} needs the package peft: pip install 'transformer-theatre[lora]'."
        ) from None
    matrices = [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and ".layers." in name]
    if not matrices:
        raise ValueError(
            f"lora_rank={options.lora_rank} has no use: {type(model).__name__} has no matrices for adapters."
        )
    config = LoraConfig(
        r=options.lora_rank or 0,
        lora_alpha=options.lora_alpha,  # type: ignore[arg-type]  # any number will do
        lora_dropout=options.lora_dropout,
        target_modules=matrices,
    )
    inject_adapter_in_model(config, model)
    for name, weight in model.named_parameters():
        weight.requires_grad = "lora_" in name


def same_adapters(model: PreTrainedModel, checkpoint: str | None):
    """Make sure that a checkpoint has the adapters, or none, of the model that is to go on from it.

    Raises:
        ValueError: it has others.
    """
    if checkpoint is None:
        return
    then, now = (
        {name: tuple(weight.shape) for name, weight in weights.items() if "lora_" in name}
        for weights in (read_weights(Path(checkpoint)), model.state_dict())
    )
    if then != now:
        ranks = [min((min(shape) for shape in shapes.values()), default=None) for shapes in (now, then)]
        raise ValueError(f"lora_rank={ranks[0]} cannot go on from {checkpoint}, which has lora_rank={ranks[1]}.")


def adapter_options(model: nn.Module) -> dict[str, float]:
    """Return `lora_alpha` and `lora_dropout` of the adapters of a model; nothing, where it has none."""
    for module in model.modules():
        if hasattr(module, "lora_alpha"):
            adapted: Any = module
            (alpha,), (dropout,) = adapted.lora_alpha.values(), adapted.lora_dropout.values()
            return {"lora_alpha": float(alpha), "lora_dropout": getattr(dropout, "p", 0.0)}
    return {}


def merge_adapters(model: nn.Module):
    """Add adapters to the matrices that they stand beside, in place; without adapters nothing changes."""
    found = [(name, module) for name, module in model.named_modules() if hasattr(module, "get_base_layer")]
    for name, module in found:
        adapted: Any = module
        adapted.merge()
        model.set_submodule(name, adapted.get_base_layer())
    if found:
        model.requires_grad_(True)
