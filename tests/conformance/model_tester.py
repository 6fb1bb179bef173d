"""What the library's mixins are told of our models: the classes under test, a tiny configuration, and inputs."""

import torch
import transformers

from transformer_theatre.configuration import GPTConfig, LSTMConfig, TransformerConfig
from transformer_theatre.modeling import AUTO_CLASSES


TINY = {
    TransformerConfig: {
        "vocab_size": 99,
        "d_model": 32,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
        "max_position_embeddings": 100,
        "bos_token_id": 0,
        "pad_token_id": 1,
        "eos_token_id": 2,
        "decoder_start_token_id": 3,
    },
    # The library's overfit test learns the tokens 1 to 19, so these are no special ones here; its tests of sharded
    # training compare models in training mode whose random numbers differ, so nothing is dropped.
    GPTConfig: {
        "dropout": 0,
        "attention_dropout": 0,
        "classifier_dropout": 0,
        "vocab_size": 99,
        "d_model": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "ffn_dim": 64,
        "max_position_embeddings": 100,
        "bos_token_id": 97,
        "pad_token_id": 96,
        "eos_token_id": 98,
    },
    # The library's overfit test is short; so narrow an LSTM learns fast only where its weights start larger.
    LSTMConfig: {
        "initializer_range": 0.3,
        "dropout": 0,
        "vocab_size": 99,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "tie_word_embeddings": True,
        "share_encoder_decoder_embeddings": True,
        "bos_token_id": 97,
        "pad_token_id": 96,
        "eos_token_id": 98,
        "decoder_start_token_id": 95,
    },
}
# The tokens that are not special, first and last + 1.
PLAIN_TOKENS = {TransformerConfig: (4, 99), GPTConfig: (1, 96), LSTMConfig: (1, 95)}


def classes_of(config_class: type) -> dict[str, type]:
    """Map the name of each Auto class to our model class for this configuration."""
    return {name: c for name, classes in AUTO_CLASSES.items() for c in classes if c.config_class is config_class}


def announce_classes():
    """Enter our class names into the tables in which the mixins look up what labels and inputs a class takes."""
    for config_class in TINY:
        for auto_class, model_class in classes_of(config_class).items():
            table = getattr(transformers, auto_class)._model_mapping._model_mapping
            table[config_class.model_type] = model_class.__name__


class ModelTester:
    """The interface that the mixins expect of `self.model_tester`."""

    is_training = True
    batch_size = 13
    seq_length = encoder_seq_length = decoder_seq_length = 7
    key_length = encoder_key_length = decoder_key_length = 7
    num_labels = 3
    num_choices = 4

    def __init__(self, config_class: type, **fields):
        self.config_class = config_class
        self.arguments = {**TINY[config_class], **fields}
        config = self.get_config()
        self.vocab_size = config.vocab_size
        self.hidden_size = config.hidden_size
        self.num_hidden_layers = config.num_hidden_layers
        self.num_attention_heads = config.num_attention_heads
        self.pad_token_id = config.pad_token_id
        self.is_encoder_decoder = config.is_encoder_decoder
        classes = classes_of(config_class)
        self.base_model_class = classes["AutoModel"]
        self.causal_lm_class = classes.get("AutoModelForCausalLM")
        self.conditional_generation_class = classes.get("AutoModelForSeq2SeqLM")
        self.sequence_classification_class = classes.get("AutoModelForSequenceClassification")

    @property
    def language_model_class(self):
        return self.conditional_generation_class if self.is_encoder_decoder else self.causal_lm_class

    def get_config(self):
        return self.config_class(**self.arguments)

    def prepare_config_and_inputs_for_common(self):
        config = self.get_config()
        shape = (self.batch_size, self.seq_length)
        inputs = {"input_ids": self._tokens(shape), "attention_mask": torch.ones(shape, dtype=torch.long)}
        if self.is_encoder_decoder:
            inputs["input_ids"][:, -1] = config.eos_token_id
            inputs["decoder_input_ids"] = self._tokens(shape)
            inputs["decoder_attention_mask"] = inputs["attention_mask"].clone()
        return config, inputs

    def prepare_config_and_inputs_for_language_model(self):
        """Give what a language model needs to compute its loss."""
        config, inputs = self.prepare_config_and_inputs_for_common()
        inputs["labels"] = inputs["decoder_input_ids" if self.is_encoder_decoder else "input_ids"].clone()
        return config, inputs

    def _tokens(self, shape: tuple[int, int]) -> torch.Tensor:
        return torch.randint(*PLAIN_TOKENS[self.config_class], shape)
