"""Models on several devices, where the library's mixins drive `AutoModelForCausalLM` only."""

import importlib
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM
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


def shared_equals_whole(rank: int, folder: str, inputs: dict, crosses: bool):
    """Every sub-layer shared by all devices: same loss, gradients and text as the whole model.

    `crosses` says that it has encoder-decoder attention.
    """
    auto_class = AutoModelForSeq2SeqLM if crosses else AutoModelForCausalLM
    whole = auto_class.from_pretrained(folder).eval()
    distribution = DistributedConfig(tp_size=dist.get_world_size())
    shared = auto_class.from_pretrained(folder, distributed_config=distribution).eval()
    cut = {name for name, parameter in shared.named_parameters() if isinstance(parameter, DTensor)}
    assert {name.partition(".layers.")[2].partition(".")[2] for name in cut} >= {
        f"{attention}_attention.{part}_proj.weight"
        for attention in (("self", "cross") if crosses else ("self",))
        for part in ("q", "k", "v", "out")
    } | {"feed_forward.fc1.weight", "feed_forward.fc2.weight"}, cut

    losses = [model(**inputs).loss for model in (whole, shared)]
    torch.testing.assert_close(*losses)
    for loss in losses:
        loss.backward()
    gradients = {name: parameter.grad for name, parameter in shared.named_parameters()}
    for name, parameter in whole.named_parameters():
        gradient = gradients[name].full_tensor() if isinstance(gradients[name], DTensor) else gradients[name]
        torch.testing.assert_close(parameter.grad, gradient, atol=1e-5, rtol=1e-4, msg=_about("gradient", name))
    sources = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    texts = [model.generate(**sources, max_new_tokens=8, num_beams=2) for model in (whole, shared)]
    assert torch.equal(*texts), texts


def _about(what: str, name: str):
    return lambda message: f"{what} of {name}: {message}"
