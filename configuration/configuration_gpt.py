"""Configuration of the GPT (Radford et al., 2018, "Improving Language Understanding by Generative Pre-Training")."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig


# What differs from the defaults, which are GPT-1.
PRESETS: dict[str, dict[str, Any]] = {
    # Radford et al., 2018, section 4.1; 40,000 merges over 478 symbols.
    "gpt-1": {},
    # Radford et al., 2019, Table 2, first row (124M parameters by counting).
    "gpt-2": {
        "vocab_size": 50_257,
        "max_position_embeddings": 1024,
        "norm_first": True,
        "pad_token_id": None,
        "bos_token_id": 50_256,
        "eos_token_id": 50_256,
    },
    # nanoGPT's `train_shakespeare_char.py` (https://github.com/karpathy/nanoGPT): no biases, and GELU by the error function.
    "gpt-char": {
        "vocab_size": 68,
        "d_model": 384,
        "num_hidden_layers": 6,
        "num_attention_heads": 6,
        "ffn_dim": 1536,
        "max_position_embeddings": 256,
        "activation_function": "gelu",
        "bias": False,
        "norm_first": True,
        "dropout": 0.2,
        "attention_dropout": 0.2,
    },
}


@strict
class GPTConfig(PreTrainedConfig):
    """Decoder-only Transformer; the defaults are GPT-1, `norm_first=True` makes it GPT-2.

    Raises:
        huggingface_hub.errors.StrictDataclassError: a field has the wrong type, or the fields do not fit together; the
            message names the value and what would be right.
    """

    model_type = "theatre_gpt"
    keys_to_ignore_at_inference = ["past_key_values", "cache", "task_loss", "lm_loss"]
    attribute_map = {"hidden_size": "d_model", "intermediate_size": "ffn_dim"}
    base_model_tp_plan = {
        "layers.*.self_attention.q_proj": "colwise",
        "layers.*.self_attention.k_proj": "colwise",
        "layers.*.self_attention.v_proj": "colwise",
        "layers.*.self_attention.out_proj": "rowwise",
        "layers.*.feed_forward.fc1": "colwise",
        "layers.*.feed_forward.fc2": "rowwise",
    }

    vocab_size: int = 40_478  # tokens
    d_model: int = 768  # width of every sub-layer's output
    num_hidden_layers: int = 12  # n in equation 2
    num_attention_heads: int = 12  # attention functions side by side in each layer
    ffn_dim: int = 3072  # width inside the feed-forward network
    dropout: float | int = 0.1  # probability, on every sub-layer's output and on the embedding sum
    attention_dropout: float | int = 0.1  # probability, on the attention weights
    activation_dropout: float | int = 0.0  # probability, inside the feed-forward network
    activation_function: str = "gelu_new"  # the library's name; the tanh form of GELU, as GPT-1 and GPT-2 have it
    bias: bool = True  # of linear layers and normalisations, as in GPT-1 and GPT-2; nanoGPT has none
    norm_first: bool = False  # False: LayerNorm(x + Sublayer(x)), GPT-1; True: x + Sublayer(LayerNorm(x)), GPT-2
    max_position_embeddings: int = 512  # tokens; the limit of the learned positions
    classifier_dropout: float | int = 0.1  # probability, on what a fine-tuned model's classifier reads (section 4.1)
    lm_loss_weight: float | int = 0.5  # lambda in equation 5, of the language-modelling loss in fine-tuning; 0: none
    tie_word_embeddings: bool = True  # output projection = token embedding (section 3.1, W_e)
    layer_norm_eps: float = 1e-5  # added to the variance
    initializer_range: float = 0.02  # standard deviation of every weight at the start (section 4.1)
    pad_token_id: int | None = 0
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 1
    use_cache: bool = True  # keep keys and values between steps of generation

    @classmethod
    def from_preset(cls, name: str, **overrides: Any) -> "GPTConfig":
        """Build the configuration of a published model.

        Args:
            name: one of "gpt-1", "gpt-2", "gpt-char".
            **overrides: fields that replace the preset's.

        Raises:
            ValueError: no preset has this name; the message lists those there are.
        """
        if name not in PRESETS:
            raise ValueError(f"There is no preset {name!r} for {cls.__name__}. Choose one of: {', '.join(PRESETS)}.")
        return cls(**{**PRESETS[name], **overrides})

    def validate_architecture(self):
        """Check what no single field's type can say (run at construction and before saving)."""
        for name in ("vocab_size", "d_model", "num_hidden_layers", "ffn_dim", "max_position_embeddings"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be 1 or more.")
        if self.num_attention_heads < 1 or self.d_model % self.num_attention_heads:
            raise ValueError(f"num_attention_heads={self.num_attention_heads} must divide d_model={self.d_model}.")
        for name in ("dropout", "attention_dropout", "activation_dropout", "classifier_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be a probability: at least 0 and below 1.")
        if self.lm_loss_weight < 0:
            raise ValueError(f"lm_loss_weight={self.lm_loss_weight} must be 0 or more.")


__all__ = ["PRESETS", "GPTConfig"]
