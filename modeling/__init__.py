"""Models, and their registration with the library's Auto classes, the only side effect of importing this package."""

import transformers

from transformer_theatre.modeling.modeling_gpt import (
    GPTForCausalLM,
    GPTForMultipleChoice,
    GPTForSequenceClassification,
    GPTModel,
)
from transformer_theatre.modeling.modeling_layers import TheatrePreTrainedModel
from transformer_theatre.modeling.modeling_lstm import (
    LSTMForCausalLM,
    LSTMForConditionalGeneration,
    LSTMForMultipleChoice,
    LSTMForSequenceClassification,
    LSTMModel,
)
from transformer_theatre.modeling.modeling_transformer import TransformerForConditionalGeneration, TransformerModel
from transformer_theatre.modeling.remote_code import CodeExporter


AUTO_CLASSES: dict[str, list[type[TheatrePreTrainedModel]]] = {
    "AutoModel": [TransformerModel, GPTModel, LSTMModel],
    "AutoModelForSeq2SeqLM": [TransformerForConditionalGeneration, LSTMForConditionalGeneration],
    "AutoModelForCausalLM": [GPTForCausalLM, LSTMForCausalLM],
    "AutoModelForSequenceClassification": [GPTForSequenceClassification, LSTMForSequenceClassification],
    "AutoModelForMultipleChoice": [GPTForMultipleChoice, LSTMForMultipleChoice],
}

for _name, _models in AUTO_CLASSES.items():
    for _model in _models:
        transformers.AutoConfig.register(_model.config_class.model_type, _model.config_class, exist_ok=True)
        getattr(transformers, _name).register(_model.config_class, _model, exist_ok=True)

# Models do not know that they are published: the exporter stays here, and does not travel with them.
TheatrePreTrainedModel.code_exporter = CodeExporter(AUTO_CLASSES)

__all__ = [
    "AUTO_CLASSES",
    "GPTForCausalLM",
    "GPTForMultipleChoice",
    "GPTForSequenceClassification",
    "GPTModel",
    "LSTMForCausalLM",
    "LSTMForConditionalGeneration",
    "LSTMForMultipleChoice",
    "LSTMForSequenceClassification",
    "LSTMModel",
    "TransformerForConditionalGeneration",
    "TransformerModel",
]
