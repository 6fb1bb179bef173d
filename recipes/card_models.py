"""What a model card says of a model: its paper, its size, and where it departs from the paper."""

import sys

from transformers import PreTrainedConfig, PreTrainedModel


_WHAT = {
    "theatre_transformer": 'The original Transformer ("Attention Is All You Need", 2017)',
    "theatre_gpt": 'A GPT ("Improving Language Understanding by Generative Pre-Training", 2018)',
    "theatre_lstm": "An LSTM, of the kind that the Transformer replaced",
}
CITATION = {
    "theatre_transformer": """@inproceedings{vaswani2017attention,
  title     = {Attention Is All You Need},
  author    = {Vaswani, Ashish and Shazeer, Noam and Parmar, Niki and Uszkoreit, Jakob and Jones, Llion and
               Gomez, Aidan N. and Kaiser, Lukasz and Polosukhin, Illia},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2017},
}""",
    "theatre_gpt": """@techreport{radford2018improving,
  title       = {Improving Language Understanding by Generative Pre-Training},
  author      = {Radford, Alec and Narasimhan, Karthik and Salimans, Tim and Sutskever, Ilya},
  institution = {OpenAI},
  year        = {2018},
}""",
    "theatre_lstm": """@inproceedings{luong2015effective,
  title     = {Effective Approaches to Attention-based Neural Machine Translation},
  author    = {Luong, Minh-Thang and Pham, Hieu and Manning, Christopher D.},
  booktitle = {Proceedings of the 2015 Conference on Empirical Methods in Natural Language Processing},
  year      = {2015},
}""",
}


def what_it_is(config: PreTrainedConfig) -> str:
    """Name the kind of model."""
    return _WHAT[config.model_type]


def architecture(config: PreTrainedConfig) -> str:
    """Describe a model's size in one line."""
    if config.model_type == "theatre_lstm":
        return _lstm(config)
    norm = "pre-norm" if config.norm_first else "post-norm"
    if config.is_encoder_decoder:
        return (
            f"encoder-decoder, {config.encoder_layers} + {config.decoder_layers} layers, width {config.d_model}, "
            f"{config.encoder_attention_heads} heads, feed-forward {config.encoder_ffn_dim}, {norm}, "
            f"{config.position_embeddings} positions"
        )
    return (
        f"decoder only, {config.num_hidden_layers} layers, width {config.d_model}, {config.num_attention_heads} heads, "
        f"feed-forward {config.ffn_dim}, {norm}, {config.max_position_embeddings} learned positions"
    )


def _lstm(config: PreTrainedConfig) -> str:
    size = f"{config.num_hidden_layers} LSTM layers of width {config.hidden_size}"
    if not config.is_encoder_decoder:
        return f"decoder only, {size}"
    direction = "bidirectional" if config.bidirectional else "backwards" if config.reverse_source else "forwards"
    attention = "without attention" if config.attention == "none" else "with Luong's attention"
    feeding = " and input feeding" if config.input_feeding else ""
    return f"encoder-decoder, {size} each, the encoder {direction}, {attention}{feeding}"


def departures(model: PreTrainedModel) -> str:
    """Take the list of departures from the paper from where it is kept: the docstring of the model's file."""
    text = sys.modules[type(model).__module__].__doc__ or ""
    start = text.find("Departures from")
    return text[start:].partition("\n\nLocal tensors")[0].partition(":\n")[2].strip() or text[start:].strip()
