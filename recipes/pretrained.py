"""Where a run begins: the weights of a model that was trained before, or its sizes with random weights."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel
from transformers.utils import logging

from .arguments import Recipe, options_of
from .first_line import first_line
from .model_arguments import model_arguments, preset_of_kind, presets_for
from .models import check_weights, load_config


# The only weights that a model may lack: those of the layer that fine-tuning adds.
_NEW = ("classifier.",)
# Options that name the model that a run begins with: its weights, or its sizes alone.
SOURCES = ("model_name_or_path", "config_name")


@dataclass
class PretrainedArguments:
    """What a run begins with."""

    _argument_group_name = "pre-trained model"

    model_name_or_path: str | None = field(
        default=None,
        metadata={
            "help": "folder of a pre-trained model, or its name on the Hub: its weights, sizes and tokenizer; default: random "
            "weights of `preset`"
        },
    )
    config_name: str | None = field(
        default=None,
        metadata={"help": "as model_name_or_path, but only its sizes and tokenizer: with random weights"},
    )

    def __post_init__(self):
        """Check that there is one beginning.

        Raises:
            ValueError: there are two.
        """
        if self.model_name_or_path and self.config_name:
            raise ValueError("Give model_name_or_path (its weights) or config_name (random weights), not both.")

    @property
    def source(self) -> str | None:
        """The folder, or name on the Hub, that sizes and tokenizer come from."""
        return self.model_name_or_path or self.config_name


def load_pretrained(path: str, auto_class: str, **overrides: Any) -> PreTrainedModel:
    """Load the weights of a pre-trained model to train on, in float32.

    Args:
        path: model folder, or name on the Hub.
        auto_class: name of the class that is to go on with them, such as "AutoModelForSequenceClassification".
        **overrides: fields of the configuration, such as `dropout`, and what else `from_pretrained` takes.

    Returns:
        The model. What its class has and the weights lack is new: only the classifier of a fine-tuned model may be.

    Raises:
        ValueError: there is no such model, it is of another kind, or its weights do not fit.
    """
    load_config(path, auto_class)
    before = logging.get_verbosity()
    logging.set_verbosity_error()  # the library would list the classifier as missing; what may be missing is looked at below
    try:
        model, loading = getattr(transformers, auto_class).from_pretrained(
            path, output_loading_info=True, dtype=torch.float32, **overrides
        )
    except Exception as error:  # safetensors, OSError, RuntimeError: all mean that the weights cannot be used
        raise ValueError(f"The weights of {path} cannot be trained on: {first_line(error)}") from None
    finally:
        logging.set_verbosity(before)
    check_weights(path, model, loading, new=_NEW)
    return model


def random_weights(path: str, auto_class: str, **overrides: Any) -> PreTrainedModel:
    """Build a model of the sizes of another, with random weights; the arguments are those of `load_pretrained`.

    Raises:
        ValueError: there is no such model, or it is of another kind.
    """
    load_config(path, auto_class)
    attention = overrides.pop("attn_implementation", None)
    config = transformers.AutoConfig.from_pretrained(path, **overrides)
    more = {"attn_implementation": attention} if attention else {}
    return getattr(transformers, auto_class).from_config(config, dtype=torch.float32, **more)


def preset_like(source: str, auto_class: str) -> str:
    """Name a preset of the kind of a pre-trained model.

    Raises:
        ValueError: there is no such model, or it is none of ours.
    """
    preset = preset_of_kind(load_config(source, auto_class).model_type, auto_class)
    assert preset is not None, source
    return preset


def source_of(recipe: Recipe, overrides: Sequence[str], names: Sequence[str] = SOURCES) -> str | None:
    """Name the model that a recipe, or the command line over it, begins with; None: random weights of a preset.

    Args:
        recipe: from `read_recipe`.
        overrides: of the command line.
        names: of the task's options for it.
    """
    words = options_of(overrides)
    given = [" ".join(words[name]) for name in names if words.get(name)]
    return given[0] if given else next(filter(None, map(recipe.values.get, names)), None)


# What may differ from the pre-trained model: no weight has another shape for it.
FREE = (
    "attn_implementation",
    "dropout",
    "attention_dropout",
    "activation_dropout",
    "classifier_dropout",
    "lm_loss_weight",
)


def for_model_of(recipe: Recipe, overrides: Sequence[str]) -> Recipe:
    """Take from a recipe what it says of its own model, where the command line names a pre-trained one.

    Its preset, sizes and tokenizer are then none of the recipe's any more; dropout and the like, `FREE`, stay where the
    pre-trained model has them.

    Raises:
        ValueError: there is no such model, or it is none of ours.
    """
    named = set(SOURCES) & options_of(overrides).keys()
    source = source_of(recipe, overrides)
    if not named or source is None:
        return recipe
    causal = "AutoModelForCausalLM"
    options = {name: {part.name for part in fields(model_arguments(causal, name))} for name in presets_for(causal)}
    about = set.union(*options.values()) - (set(FREE) & options[preset_like(source, causal)])
    about |= {"tokenizer", *SOURCES}
    return replace(recipe, values={key: value for key, value in recipe.values.items() if key not in about})


def check_sizes(source: str, chosen: dict[str, Any]):
    """Make sure that no option contradicts the pre-trained model.

    Args:
        source: its folder, or name on the Hub.
        chosen: options of the model that were given.

    Raises:
        ValueError: one does.
    """
    if fixed := [name for name in chosen if name not in FREE]:
        raise ValueError(
            f"{fixed[0]}={chosen[fixed[0]]} cannot be chosen beside {Path(source).name}, which decides it; {', '.join(FREE)} can."
        )
