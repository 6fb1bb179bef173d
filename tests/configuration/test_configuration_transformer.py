import pytest
import torch
from huggingface_hub.errors import StrictDataclassError

from transformer_theatre import TransformerConfig, TransformerForConditionalGeneration
from transformer_theatre.configuration.configuration_transformer import PRESETS


def test_defaults_are_table_3_base():
    config = TransformerConfig()
    assert (config.encoder_layers, config.decoder_layers) == (6, 6)
    assert (config.d_model, config.encoder_ffn_dim, config.decoder_ffn_dim) == (512, 2048, 2048)
    assert (config.encoder_attention_heads, config.decoder_attention_heads) == (8, 8)
    assert (config.dropout, config.attention_dropout, config.activation_dropout) == (0.1, 0.0, 0.0)
    assert (config.norm_first, config.activation_function, config.position_embeddings) == (False, "relu", "sinusoidal")
    assert config.scale_embedding
    assert config.tie_word_embeddings
    assert config.share_encoder_decoder_embeddings
    assert (config.source_vocab_size, config.output_bias, config.position_offset) == (None, False, 0)


def test_big_is_table_3_big():
    config = TransformerConfig.from_preset("transformer-big")
    assert (config.d_model, config.encoder_ffn_dim, config.encoder_attention_heads) == (1024, 4096, 16)
    assert (config.dropout, config.encoder_layers) == (0.3, 6)


def _counted(config):
    """Count parameters by the paper's equations: V d + N (4 d^2 + ...) + N (8 d^2 + ...), each matrix with its bias."""
    d = config.d_model
    attention, norm = 4 * (d * d + d), 2 * d

    def feed_forward(width):
        return 2 * d * width + width + d

    encoder = config.encoder_layers * (attention + feed_forward(config.encoder_ffn_dim) + 2 * norm)
    decoder = config.decoder_layers * (2 * attention + feed_forward(config.decoder_ffn_dim) + 3 * norm)
    return config.vocab_size * d + encoder + decoder


@pytest.mark.parametrize(("preset", "millions"), [("transformer-base", 63.1), ("transformer-big", 214.2)])
def test_parameters_of_the_paper_models(preset, millions):
    config = TransformerConfig.from_preset(preset)
    with torch.device("meta"):
        model = TransformerForConditionalGeneration(config)
    assert model.num_parameters() == _counted(config)
    assert round(model.num_parameters() / 1e6, 1) == millions


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_build_and_can_be_overridden(preset):
    assert TransformerConfig.from_preset(preset, dropout=0.25).dropout == 0.25


def test_unknown_preset_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'transformer-huge'.*transformer-base, transformer-big"):
        TransformerConfig.from_preset("transformer-huge")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"d_model": 30}, r"encoder_attention_heads=8 must divide d_model=30"),
        ({"decoder_attention_heads": 3}, r"decoder_attention_heads=3 must divide d_model=512"),
        ({"position_embeddings": "rotary"}, r"'rotary' must be one of: sinusoidal, sinusoidal-fairseq, learned"),
        ({"position_offset": -1}, r"position_offset=-1 must be 0 or more"),
        (
            {"position_embeddings": "learned", "position_offset": 2},
            r"position_offset=2 must be 0 for learned positions",
        ),
        ({"source_vocab_size": 9}, r"source_vocab_size=9 must be None where share_encoder_decoder_embeddings=True"),
        (
            {"source_vocab_size": 0, "share_encoder_decoder_embeddings": False},
            r"source_vocab_size=0 must be 1 or more",
        ),
        ({"d_model": 9, "encoder_attention_heads": 1, "decoder_attention_heads": 1}, r"d_model=9 must be even"),
        ({"d_model": 0}, r"d_model=0 must be 1 or more"),
        ({"encoder_layers": -1}, r"encoder_layers=-1 must be 1 or more"),
        ({"dropout": 1.5}, r"dropout=1.5 must be a probability"),
        ({"d_model": "wide"}, r"d_model"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_wrong_fields_are_named(fields, message):
    with pytest.raises(StrictDataclassError, match=message):
        TransformerConfig(**fields)


def test_configuration_survives_json(tmp_path):
    config = TransformerConfig.from_preset("transformer-tiny", norm_first=True)
    config.save_pretrained(tmp_path)
    assert TransformerConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()


def test_library_names_reach_the_fields():
    assert TransformerConfig(hidden_size=64).d_model == 64
    assert TransformerConfig().num_attention_heads == 8
