"""A model of one class rebuilt as one of another, by a format's tables."""

from collections.abc import Mapping

import torch
from transformers import GenerationConfig, PreTrainedModel

from .format import Format, Source


def to_ours(entry: Format, source: Source) -> PreTrainedModel:
    """Build our model from one elsewhere, float32, with its settings for generation.

    Raises:
        ValueError: a field or a tensor has no place in ours; the message names it.
        huggingface_hub.errors.StrictDataclassError: our configuration cannot be built with these fields.
    """
    config = entry.to_our_config(source.config, source.tensors)
    with torch.device("meta"):
        model = entry.ours(config)
    tensors = entry.names(config).to_ours(source.tensors, _shapes(model))
    model.load_state_dict({name: value.float() for name, value in tensors.items()}, strict=False, assign=True)
    model.tie_weights()
    settings = source.reference.generation_config.to_dict()
    model.generation_config = GenerationConfig(**{k: v for k, v in settings.items() if k != "_from_model_config"})
    return model.eval()


def to_theirs(entry: Format, model: PreTrainedModel) -> PreTrainedModel:
    """Build a model of the library from ours, float32, with its settings for generation.

    Raises:
        ValueError: a field or a tensor of ours has no place there, or the format has no way back.
    """
    if entry.theirs is None or entry.to_their_config is None:
        raise ValueError(f"No model can be written in the format {entry.name}.")
    theirs = entry.theirs(entry.to_their_config(model.config))
    tensors = entry.names(model.config).to_theirs(_with_biases(model), _shapes(theirs), model.all_tied_weights_keys)
    theirs.load_state_dict({name: value.float() for name, value in tensors.items()}, strict=False)
    theirs.tie_weights()
    theirs.generation_config = GenerationConfig(**model.generation_config.to_dict())
    return theirs.eval()


def _with_biases(model: PreTrainedModel) -> Mapping[str, torch.Tensor]:
    """Name the tensors of a model, and biases of 0 where its configuration leaves them out: those formats have them all."""
    tensors: dict[str, torch.Tensor] = model.state_dict()
    if model.config.bias:
        return tensors
    with torch.device("meta"):
        biased = type(model)(type(model.config)(**{**model.config.to_dict(), "bias": True}))
    return {
        name: tensors.get(name, torch.zeros(value.shape, dtype=value.dtype))
        for name, value in biased.state_dict().items()
    }


def _shapes(model: PreTrainedModel) -> dict[str, torch.Size]:
    """Give the shape of every tensor of a model that is not tied to another."""
    tied = model.all_tied_weights_keys
    return {name: value.shape for name, value in model.state_dict().items() if name not in tied}
