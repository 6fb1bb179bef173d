"""Configuration of the original encoder-decoder (Vaswani et al., 2017, https://arxiv.org/abs/1706.03762)."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig


# What differs from the defaults, which are the paper's base model at its English-German vocabulary.
PRESETS: dict[str, dict[str, Any]] = {
    # Table 3, row "base".
    "transformer-base": {},
    # Table 3, row "big" (English-German; the English-French big model has dropout 0.1).
    "transformer-big": {
        "d_model": 1024,
        "encoder_attention_heads": 16,
        "decoder_attention_heads": 16,
        "encoder_ffn_dim": 4096,
        "decoder_ffn_dim": 4096,
        "dropout": 0.3,
    },
    # fairseq's `transformer_iwslt_de_en`, the usual model for IWSLT14 German-English, with its 10,000 joint BPE pieces.
    "transformer-iwslt": {
        "vocab_size": 10_000,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 1024,
        "decoder_ffn_dim": 1024,
        "dropout": 0.3,
    },
    # Wu et al., 2021 (https://arxiv.org/abs/2105.14462), `transformer_tiny`, for Multi30k.
    "transformer-tiny": {
        "vocab_size": 10_000,
        "d_model": 128,
        "encoder_layers": 4,
        "decoder_layers": 4,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 256,
        "decoder_ffn_dim": 256,
        "dropout": 0.3,
    },
}


# How devices share a sub-layer: heads and the feed-forward's width are cut into columns, what joins them again into rows.
TENSOR_PARALLEL = {
    ("encoder.layers.*.self_attention", "decoder.layers.*.self_attention", "decoder.layers.*.cross_attention"): {
        "q_proj": "colwise",
        "k_proj": "colwise",
        "v_proj": "colwise",
        "out_proj": "rowwise",
    },
    ("encoder.layers.*.feed_forward", "decoder.layers.*.feed_forward"): {"fc1": "colwise", "fc2": "rowwise"},
}


@strict
class TransformerConfig(PreTrainedConfig):
    """Encoder-decoder of "Attention Is All You Need"; the defaults are Table 3, row "base".

    Raises:
        huggingface_hub.errors.StrictDataclassError: a field has the wrong type, or the fields do not fit together; the
            message names the value and what would be right.
    """

    model_type = "theatre_transformer"
    keys_to_ignore_at_inference = ["past_key_values", "cache"]
    attribute_map = {
        "hidden_size": "d_model",
        "num_hidden_layers": "encoder_layers",
        "num_attention_heads": "encoder_attention_heads",
        "intermediate_size": "encoder_ffn_dim",
    }
    base_model_tp_plan = {
        f"{sub_layer}.{projection}": style
        for sub_layers, styles in TENSOR_PARALLEL.items()
        for sub_layer in sub_layers
        for projection, style in styles.items()
    }
    base_model_fsdp_plan = {"encoder.layers.*": "free_full_weight", "decoder.layers.*": "free_full_weight"}

    vocab_size: int = 37_000  # tokens, shared by source and target (section 5.1)
    source_vocab_size: int | None = None  # tokens of the source; None: vocab_size (section 5.1)
    d_model: int = 512  # width of every sub-layer's output (section 3.1)
    encoder_layers: int = 6  # N (section 3.1)
    decoder_layers: int = 6  # N (section 3.1)
    encoder_attention_heads: int = 8  # h (section 3.2.2)
    decoder_attention_heads: int = 8  # h (section 3.2.2)
    encoder_ffn_dim: int = 2048  # d_ff (section 3.3)
    decoder_ffn_dim: int = 2048  # d_ff (section 3.3)
    dropout: float | int = 0.1  # P_drop: probability, on every sub-layer's output and embedding sum (section 5.4)
    attention_dropout: float | int = 0.0  # probability, on the attention weights (not in the paper)
    activation_dropout: float | int = 0.0  # probability, inside the feed-forward network (not in the paper)
    activation_function: str = "relu"  # the library's name of the activation in equation 2
    bias: bool = True  # of linear layers and normalisations (in equation 2, not in equation 1)
    norm_first: bool = False  # False: LayerNorm(x + Sublayer(x)), the paper; True: x + Sublayer(LayerNorm(x))
    position_embeddings: str = "sinusoidal"  # "sinusoidal" (section 3.5), "sinusoidal-fairseq" or "learned" (row E)
    position_offset: int = 0  # the first sinusoid's number; fairseq begins after the padding's (not in the paper)
    max_position_embeddings: int = 512  # tokens; a hint for sinusoids, which go on beyond it; learned ones end there
    scale_embedding: bool = True  # multiply embeddings by sqrt(d_model) (section 3.4)
    tie_word_embeddings: bool = True  # output projection = target embedding (section 3.4)
    share_encoder_decoder_embeddings: bool = True  # source embedding = target embedding (section 3.4)
    output_bias: bool = False  # the output projection has a bias, as Marian's has (not in the paper)
    layer_norm_eps: float = 1e-5  # added to the variance
    pad_token_id: int | None = 0
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    decoder_start_token_id: int | None = 1  # what the shifted-right output begins with (figure 1)
    is_encoder_decoder: bool = True
    use_cache: bool = True  # keep keys and values between steps of generation

    @classmethod
    def from_preset(cls, name: str, **overrides: Any) -> "TransformerConfig":
        """Build the configuration of a published model.

        Args:
            name: one of "transformer-base", "transformer-big", "transformer-iwslt", "transformer-tiny".
            **overrides: fields that replace the preset's.

        Raises:
            ValueError: no preset has this name; the message lists those there are.
        """
        if name not in PRESETS:
            raise ValueError(f"There is no preset {name!r} for {cls.__name__}. Choose one of: {', '.join(PRESETS)}.")
        return cls(**{**PRESETS[name], **overrides})

    def validate_architecture(self):
        """Check what no single field's type can say (run at construction and before saving)."""
        for name in (
            "vocab_size",
            "d_model",
            "encoder_layers",
            "decoder_layers",
            "encoder_ffn_dim",
            "decoder_ffn_dim",
            "max_position_embeddings",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be 1 or more.")
        for side in ("encoder", "decoder"):
            heads = getattr(self, f"{side}_attention_heads")
            if heads < 1 or self.d_model % heads:
                raise ValueError(f"{side}_attention_heads={heads} must divide d_model={self.d_model}.")
        self._validate_positions()
        own = self.source_vocab_size
        if own is not None and (own < 1 or self.share_encoder_decoder_embeddings):
            right = "1 or more" if own < 1 else "None where share_encoder_decoder_embeddings=True"
            raise ValueError(f"source_vocab_size={own} must be {right}.")
        for name in ("dropout", "attention_dropout", "activation_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be a probability: at least 0 and below 1.")

    def _validate_positions(self):
        kinds = ("sinusoidal", "sinusoidal-fairseq", "learned")
        if self.position_embeddings not in kinds:
            raise ValueError(f"position_embeddings={self.position_embeddings!r} must be one of: {', '.join(kinds)}.")
        if self.position_embeddings != "learned" and self.d_model % 2:
            raise ValueError(f"d_model={self.d_model} must be even: sinusoids come in pairs of sine and cosine.")
        if self.position_embeddings == "sinusoidal-fairseq" and self.d_model < 4:
            raise ValueError(f"d_model={self.d_model} must be 4 or more for fairseq's sinusoids.")
        if self.position_offset < 0 or (self.position_offset and self.position_embeddings == "learned"):
            right = "0 for learned positions" if self.position_offset > 0 else "0 or more"
            raise ValueError(f"position_offset={self.position_offset} must be {right}.")


__all__ = ["PRESETS", "TransformerConfig"]
