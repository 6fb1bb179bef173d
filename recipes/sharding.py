"""Weights, gradients and optimizer state that devices share, each its part (FSDP2), by the library's own means.

What is written stays whole: the model folder, the moving average and optimizer.pt are the same as those of a run whose devices
have everything, so that a run may go on with another `fsdp_size` than it began with.
"""

import copy
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel


def check_sharding(fsdp_size: int, world_size: int):
    """Make sure that processes can share the weights.

    Args:
        fsdp_size: processes that share one copy of them.
        world_size: processes.

    Raises:
        ValueError: there are not as many, or not a multiple of them; or this transformers cannot.
    """
    if fsdp_size == 1:
        return
    if world_size % fsdp_size:
        raise ValueError(
            f"fsdp_size={fsdp_size} must divide the number of processes, {world_size}: `torchrun --nproc_per_node "
            f"{fsdp_size} -m transformer_theatre.recipes.train ...` starts {fsdp_size}."
        )
    if find_spec("transformers.distributed.fsdp") is None:
        raise ValueError(
            f"fsdp_size={fsdp_size} needs a newer transformers, which shards models itself (5.24 does). On GPUs, accelerate "
            "shards them with this one too: recipes/accelerate/fsdp2.yaml."
        )


def shard(model: PreTrainedModel, fsdp_size: int, world_size: int) -> PreTrainedModel:
    """Return a copy of a model whose weights `fsdp_size` processes share; all processes call it, with the same weights.

    Where there are more processes, each `fsdp_size` of them have a copy (HSDP).
    """
    from transformers.distributed import DistributedConfig

    copies = world_size // fsdp_size
    sizes: dict[str, Any] = {"fsdp_size": fsdp_size, **({"dp_replicate_size": copies} if copies > 1 else {})}
    return _loaded(type(model), model, model.state_dict(), distributed_config=DistributedConfig(**sizes))


def _loaded(model_class: Any, like_model: PreTrainedModel, values: Mapping[str, torch.Tensor], **options: Any) -> Any:
    """Build a model that is like another, with these weights."""
    config = copy.deepcopy(like_model.config)
    config.distributed_config = None
    attention = like_model.config._attn_implementation
    if attention is not None:
        options["attn_implementation"] = attention
    model = model_class.from_pretrained(None, config=config, state_dict=dict(values), **options)
    model.generation_config = like_model.generation_config
    return model.train(like_model.training)


def is_sharded(model: nn.Module) -> bool:
    """Say whether processes share the weights of a model."""
    return any(isinstance(weight, DTensor) for weight in model.parameters())


def like(value: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Copy a whole value to where a weight of the same shape is, shared by the same processes."""
    if isinstance(weight, DTensor) and not isinstance(value, DTensor):
        return distribute_tensor(value.to(weight.device), weight.device_mesh, weight.placements)
    return value.to(weight.device).clone()


def whole(value: torch.Tensor) -> torch.Tensor:
    """Put a value together, if processes share it; all of them call it."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def reshard(model: nn.Module):
    """Drop what a forward pass has put together and kept: it would hide that a process' own part has changed since."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


@torch.no_grad()
def load_weights(model: Any, values: Mapping[str, torch.Tensor]):
    """Give a model, shared or not, weights that were saved whole.

    Args:
        model: a `PreTrainedModel`.
        values: by name; a tied weight has one of its names.

    Raises:
        ValueError: they are not of this model.
    """
    own = model.state_dict()
    if set(values) - set(own) or set(own) - set(values) - set(model.all_tied_weights_keys):
        raise ValueError(f"{sorted(set(values) ^ set(own))[0]} is not both in the weights and in the model.")
    model.load_state_dict({name: like(value, own[name]) for name, value in values.items()}, strict=False)


@torch.no_grad()
def whole_copy(model: PreTrainedModel) -> PreTrainedModel:
    """Put a model together that processes share, and that none of them can use alone; all of them call it.

    Returns:
        A model in the same mode, on the CPU; `model` itself, where it is not shared.
    """
    if not is_sharded(model):
        return model
    # Sharding makes a class of its own, below the model's.
    model_class: Any = next(kind for kind in type(model).__mro__ if not issubclass(kind, FSDPModule))
    with torch.random.fork_rng(devices=[]):  # measuring changes nothing of the training that goes on
        return _loaded(model_class, model, {name: whole(weight) for name, weight in model.state_dict().items()})


def whole_optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return the state of an optimizer with every tensor put together; all processes call it."""
    packed = optimizer.state_dict()
    state = {
        index: {name: whole(value) if torch.is_tensor(value) else value for name, value in values.items()}
        for index, values in packed["state"].items()
    }
    return {**packed, "state": state}


def shared_optimizer_state(optimizer: torch.optim.Optimizer, packed: Mapping[str, Any]) -> dict[str, Any]:
    """Share out what `whole_optimizer_state` put together, as the optimizer's weights are shared.

    Args:
        optimizer: whose weights the state belongs to.
        packed: from `optimizer.state_dict()` of the same weights, shared or not.
    """
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    indices = [index for group in packed["param_groups"] for index in group["params"]]
    state = {}
    for index, weight in zip(indices, weights, strict=True):
        values = packed["state"].get(index, {})
        state[index] = {
            name: like(value, weight) if torch.is_tensor(value) and value.shape == weight.shape else value
            for name, value in values.items()
        }
    return {**packed, "state": state}
