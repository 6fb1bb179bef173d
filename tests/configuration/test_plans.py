"""Plans by which devices share a model: every preset of the two Transformers divides by 2, 4 and, where it is big, by 8."""

import pytest
import torch

from transformer_theatre import GPTConfig, GPTForCausalLM, TransformerConfig, TransformerForConditionalGeneration


def matrices(model, ending):
    return {name: weight for name, weight in model.named_parameters() if name.endswith(ending)}


@pytest.mark.parametrize(
    ("model_class", "preset", "devices"),
    [
        (TransformerForConditionalGeneration, "transformer-base", 8),
        (TransformerForConditionalGeneration, "transformer-big", 16),
        (TransformerForConditionalGeneration, "transformer-iwslt", 4),
        (TransformerForConditionalGeneration, "transformer-tiny", 4),
        (GPTForCausalLM, "gpt-1", 4),
        (GPTForCausalLM, "gpt-2", 4),
        (GPTForCausalLM, "gpt-char", 6),
    ],
)
def test_every_preset_can_be_shared(model_class, preset, devices):
    """Whole heads go to a device, and equal shares of what is cut."""
    config = model_class.config_class.from_preset(preset)
    with torch.device("meta"):
        model = model_class(config)
    plan = config.base_model_tp_plan
    cut = {name.rpartition(".")[2]: style for name, style in plan.items()}
    assert cut == {
        "q_proj": "colwise",
        "k_proj": "colwise",
        "v_proj": "colwise",
        "out_proj": "rowwise",
        "fc1": "colwise",
        "fc2": "rowwise",
    }
    for name, style in cut.items():
        found = matrices(model, f"{name}.weight")
        assert found
        for weight in found.values():
            assert weight.shape[0 if style == "colwise" else 1] % devices == 0
    heads = [getattr(config, name) for name in vars(config) if name.endswith("attention_heads")]
    assert heads
    assert all(count % devices == 0 for count in heads)


def test_every_linear_layer_of_a_stack_is_in_the_plan():
    for config_class, model_class in (
        (TransformerConfig, TransformerForConditionalGeneration),
        (GPTConfig, GPTForCausalLM),
    ):
        config = config_class()
        with torch.device("meta"):
            model = model_class(config)
        linear = {
            name.removeprefix("model.").replace(".0.", ".*.")
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear) and ".0." in name
        }
        assert linear == config.base_model_tp_plan.keys()
