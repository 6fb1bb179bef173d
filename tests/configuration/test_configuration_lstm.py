import pytest
import torch
from huggingface_hub.errors import StrictDataclassError

from transformer_theatre import LSTMConfig, LSTMForCausalLM, LSTMForConditionalGeneration
from transformer_theatre.configuration.configuration_lstm import PRESETS


def test_defaults_are_luong_section_4_1():
    config = LSTMConfig()
    assert (config.num_hidden_layers, config.hidden_size, config.vocab_size) == (4, 1000, 50_000)
    assert (config.attention, config.input_feeding, config.reverse_source) == ("luong", True, True)
    assert (config.dropout, config.initializer_range, config.bidirectional) == (0.2, 0.1, False)
    assert not config.tie_word_embeddings
    assert not config.share_encoder_decoder_embeddings


def _cells(layers, inputs, width):
    """Count the parameters of LSTM layers: four gates, each with a matrix of inputs, one of states, and torch's two biases."""
    return 4 * width * (inputs + width + 2) + (layers - 1) * 4 * width * (2 * width + 2)


def _counted(config):
    d, layers = config.hidden_size, config.num_hidden_layers
    embedding, decoder = config.vocab_size * d, _cells(layers, d * (2 if config.input_feeding else 1), d)
    if not config.is_encoder_decoder:
        return 2 * embedding + decoder
    attention = 3 * d * d if config.attention == "luong" else 0
    return 3 * embedding + _cells(layers, d, d) + decoder + attention


@pytest.mark.parametrize(
    ("preset", "millions"), [("lstm-luong", 221.1), ("lstm-sutskever", 304.1), ("lstm-zaremba", 19.8)]
)
def test_parameters_of_the_presets(preset, millions):
    config = LSTMConfig.from_preset(preset)
    with torch.device("meta"):
        model = (LSTMForConditionalGeneration if config.is_encoder_decoder else LSTMForCausalLM)(config)
    assert model.num_parameters() == _counted(config)
    assert round(model.num_parameters() / 1e6, 1) == millions


def test_each_direction_of_a_bidirectional_encoder_has_half_the_width():
    config = LSTMConfig(vocab_size=100, hidden_size=16, num_hidden_layers=3, bidirectional=True, reverse_source=False)
    encoder = LSTMForConditionalGeneration(config).get_encoder()
    expected = 2 * (_cells(1, 16, 8) + 2 * 4 * 8 * (16 + 8 + 2))
    assert encoder.lstm.hidden_size == 8
    assert sum(p.numel() for p in encoder.lstm.parameters()) == expected


def test_sutskever_reads_backwards_without_attention():
    config = LSTMConfig.from_preset("lstm-sutskever")
    assert (config.attention, config.reverse_source, config.initializer_range) == ("none", True, 0.08)
    assert (config.num_hidden_layers, config.hidden_size) == (4, 1000)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_build_and_can_be_overridden(preset):
    assert LSTMConfig.from_preset(preset, dropout=0.25).dropout == 0.25


def test_unknown_preset_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'lstm-huge'.*lstm-luong, lstm-sutskever, lstm-zaremba"):
        LSTMConfig.from_preset("lstm-huge")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_size": 0}, r"hidden_size=0 must be 1 or more"),
        ({"num_hidden_layers": -1}, r"num_hidden_layers=-1 must be 1 or more"),
        ({"attention": "bahdanau"}, r"attention='bahdanau' must be \"luong\" or \"none\""),
        ({"attention": "none"}, r"input_feeding=True needs attention=\"luong\""),
        ({"bidirectional": True, "hidden_size": 15}, r"hidden_size=15 must be even: each direction has half"),
        ({"bidirectional": True}, r"reverse_source=True has no use with bidirectional=True"),
        ({"dropout": 1}, r"dropout=1 must be a probability"),
        ({"initializer_range": 0.0}, r"initializer_range=0.0 must be above 0"),
        ({"hidden_size": "wide"}, r"hidden_size"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_wrong_fields_are_named(fields, message):
    with pytest.raises(StrictDataclassError, match=message):
        LSTMConfig(**fields)


def test_configuration_survives_json(tmp_path):
    config = LSTMConfig.from_preset("lstm-zaremba", dropout=0.1)
    config.save_pretrained(tmp_path)
    assert LSTMConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()
    assert LSTMConfig.from_pretrained(tmp_path).num_attention_heads == 1
