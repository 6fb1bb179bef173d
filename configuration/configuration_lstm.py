"""Configuration of the LSTMs that the Transformer replaced (Luong et al., 2015, https://arxiv.org/abs/1508.04025)."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig


# What differs from the defaults, which are Luong et al., 2015.
PRESETS: dict[str, dict[str, Any]] = {
    # Luong et al., 2015, section 4.1: 4 layers of 1,000 cells, reversed source, dropout 0.2; 50,000 words a side.
    "lstm-luong": {},
    # Sutskever et al., 2014 (https://arxiv.org/abs/1409.3215), section 3.4: the target's 80,000 words.
    "lstm-sutskever": {
        "vocab_size": 80_000,
        "attention": "none",
        "input_feeding": False,
        "dropout": 0.0,
        "initializer_range": 0.08,
    },
    # Zaremba et al., 2014 (https://arxiv.org/abs/1409.2329), section 4.1: the medium language model of Penn Treebank.
    "lstm-zaremba": {
        "vocab_size": 10_000,
        "hidden_size": 650,
        "num_hidden_layers": 2,
        "attention": "none",
        "input_feeding": False,
        "reverse_source": False,
        "dropout": 0.5,
        "initializer_range": 0.05,
        "is_encoder_decoder": False,
    },
}


@strict
class LSTMConfig(PreTrainedConfig):
    """Encoder-decoder of "Effective Approaches to Attention-based Neural Machine Translation", or a language model.

    With `is_encoder_decoder=False` there is no source, and what is said of it here has no effect.

    Raises:
        huggingface_hub.errors.StrictDataclassError: a field has the wrong type, or the fields do not fit together; the
            message names the value and what would be right.
    """

    model_type = "theatre_lstm"
    keys_to_ignore_at_inference = ["past_key_values", "cache", "task_loss", "lm_loss"]
    # The library sizes caches by it; a state is one "head".
    num_attention_heads = 1

    vocab_size: int = 50_000  # tokens (section 4.1)
    hidden_size: int = 1000  # width of embeddings and states (section 4.1)
    num_hidden_layers: int = 4  # LSTM layers of the encoder, and of the decoder (section 4.1)
    bidirectional: bool = False  # the encoder reads both ways, each half as wide, side by side (not in the paper)
    reverse_source: bool = True  # the encoder reads the source from its end (Sutskever et al., 2014, section 3.3)
    attention: str = "luong"  # "luong": global, general score (section 3.1); "none": Sutskever et al., 2014
    input_feeding: bool = True  # the decoder also reads its last attentional vector (section 3.3); needs attention
    dropout: float | int = 0.2  # probability, on embeddings, between layers and on the output, never over time
    classifier_dropout: float | int = 0.1  # probability, on what a fine-tuned model's classifier reads (GPT-1's)
    lm_loss_weight: float | int = 0.5  # of the language-modelling loss in fine-tuning (GPT-1, equation 5); 0: none
    tie_word_embeddings: bool = False  # output projection = target embedding (not in the paper)
    share_encoder_decoder_embeddings: bool = False  # source embedding = target embedding (not in the paper)
    initializer_range: float = 0.1  # every weight starts uniform between minus and plus this (section 4.1)
    pad_token_id: int | None = 0
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    decoder_start_token_id: int | None = 1  # what the decoder reads first
    is_encoder_decoder: bool = True
    use_cache: bool = True  # keep the states between steps of generation

    @classmethod
    def from_preset(cls, name: str, **overrides: Any) -> "LSTMConfig":
        """Build the configuration of a published model.

        Args:
            name: one of "lstm-luong", "lstm-sutskever", "lstm-zaremba".
            **overrides: fields that replace the preset's.

        Raises:
            ValueError: no preset has this name; the message lists those there are.
        """
        if name not in PRESETS:
            raise ValueError(f"There is no preset {name!r} for {cls.__name__}. Choose one of: {', '.join(PRESETS)}.")
        return cls(**{**PRESETS[name], **overrides})

    def validate_architecture(self):
        """Check what no single field's type can say (run at construction and before saving)."""
        for name in ("vocab_size", "hidden_size", "num_hidden_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be 1 or more.")
        if self.attention not in ("luong", "none"):
            raise ValueError(f'attention={self.attention!r} must be "luong" or "none".')
        if self.input_feeding and self.attention == "none":
            raise ValueError('input_feeding=True needs attention="luong": without attention there is nothing to feed.')
        if self.bidirectional and self.hidden_size % 2:
            raise ValueError(f"hidden_size={self.hidden_size} must be even: each direction has half of it.")
        if self.bidirectional and self.reverse_source:
            raise ValueError(
                "reverse_source=True has no use with bidirectional=True, which reads the source both ways: "
                "set one of them to false."
            )
        for name in ("dropout", "classifier_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be a probability: at least 0 and below 1.")
        if self.lm_loss_weight < 0:
            raise ValueError(f"lm_loss_weight={self.lm_loss_weight} must be 0 or more.")
        if self.initializer_range <= 0:
            raise ValueError(f"initializer_range={self.initializer_range} must be above 0.")


__all__ = ["PRESETS", "LSTMConfig"]
