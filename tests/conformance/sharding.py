"""FSDP2 of a language model (the library's FSDP mixin drives `AutoModelForCausalLM` only)."""

import importlib
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from transformers.distributed import DistributedConfig
from transformers.modeling_layers import GradientCheckpointingLayer


def sharded_equals_whole(rank: int, folder: str, inputs: dict, module: str, name: str):
    """Sharded at load time: same loss and gradients as the whole model, and the same weights after a save."""
    model_class = getattr(importlib.import_module(module), name)
    whole = model_class.from_pretrained(folder).eval()
    plan = {
        f"{stack}.*": "free_full_weight"
        for stack, layers in whole.named_modules()
        if isinstance(layers, nn.ModuleList) and isinstance(layers[0], GradientCheckpointingLayer)
    }
    distribution = DistributedConfig(fsdp_size=dist.get_world_size(), fsdp_plan=plan)
    sharded = model_class.from_pretrained(folder, distributed_config=distribution).eval()

    losses = [model(**inputs).loss for model in (whole, sharded)]
    torch.testing.assert_close(*losses)
    for loss in losses:
        loss.backward()
    gradients = {name: parameter.grad.full_tensor() for name, parameter in sharded.named_parameters()}
    for name, parameter in whole.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], atol=1e-5, rtol=1e-4, msg=_about("gradient", name))

    saved = Path(folder) / "again"
    sharded.save_pretrained(saved, is_main_process=rank == 0)
    dist.barrier()
    weights = model_class.from_pretrained(saved).state_dict()
    for name, weight in whole.state_dict().items():
        torch.testing.assert_close(weight, weights[name], msg=_about("saved weight", name))


def _about(what: str, name: str):
    return lambda message: f"{what} of {name}: {message}"
