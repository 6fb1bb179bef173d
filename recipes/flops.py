"""Floating-point operations of a model, counted on paper: those of its matrix products, a multiplication and an addition each.

The count is the usual one of "model FLOPs" (Kaplan et al., 2020, https://arxiv.org/abs/2001.08361, section 2.1; Chowdhery et al.,
2022, https://arxiv.org/abs/2204.02311, appendix B), with every matrix product written out in place of 6 * parameters, which
counts embeddings that are looked up and misses that only one side of an encoder-decoder reads a token:

    a projection of n inputs to m outputs      2 * n * m for each position
    attention of T queries to S keys           4 * T * S * d_model: scores, and their sum of the values; all S keys are
                                               counted, also those that a causal mask hides, as in PaLM
    an LSTM layer                              2 * 4 * width * (inputs + width) for each position
    backward                                   twice the forward pass: each product has a gradient for both its factors

Normalisations, activations, softmax, dropout and the optimizer are left out: they are bound by memory, not by arithmetic.
"""

from typing import Any


def forward_flops(
    config: Any, source_length: float, target_length: float, rows: float = 1, *, projects: bool = True
) -> float:
    """Count the operations of a forward pass over some rows.

    Args:
        config: `TransformerConfig`, `GPTConfig` or `LSTMConfig`.
        source_length: tokens of the source in each row; 0 for a language model.
        target_length: tokens of the target in each row, or of the text of a language model.
        rows: that are as long.
        projects: logits of every position are computed; a model that classifies, and writes nothing beside, needs none.

    Raises:
        ValueError: there is no formula for the model.
    """
    if config.model_type not in _FORMULAS:
        raise ValueError(f"There is no formula for {config.model_type!r}: only for {', '.join(_FORMULAS)}.")
    layers = _FORMULAS[config.model_type](config, source_length, target_length)
    logits = 2 * target_length * config.hidden_size * config.vocab_size if projects else 0
    return rows * (layers + logits)


def training_flops(
    config: Any,
    source_length: float,
    target_length: float,
    rows: float = 1,
    *,
    projects: bool = True,
    checkpoints_activations: bool = False,
) -> float:
    """Count the operations of a forward and a backward pass; see `forward_flops`.

    Args:
        config: as for `forward_flops`, and so are all arguments not listed here.
        source_length: tokens of the source in each row; 0 for a language model.
        target_length: tokens of the target in each row.
        rows: that are as long.
        projects: as for `forward_flops`.
        checkpoints_activations: count the layers' second forward pass too: what a device then does, where the other
            figure is what the model needs (of "hardware FLOPs utilisation" and "model FLOPs utilisation", the latter is
            compared between runs).
    """
    forward = forward_flops(config, source_length, target_length, rows, projects=projects)
    layers = forward_flops(config, source_length, target_length, rows, projects=False)
    return 3 * forward + (layers if checkpoints_activations else 0)


def training_flops_per_token(config: Any, source_length: float, target_length: float) -> float:
    """Count the operations of training for each token, of source and target together, of rows as long as this.

    Of rows of unequal length the mean length is close: only attention's share is not proportional to it.

    Args:
        config: as for `forward_flops`.
        source_length: tokens of the source in each row; 0 for a language model.
        target_length: tokens of the target in each row.
    """
    return training_flops(config, source_length, target_length) / (source_length + target_length)


def _attention(width: int, queries: float, keys: float) -> float:
    """Four projections, of queries and the result, and of keys and values; scores, and the sum of the values."""
    return 4 * width * width * (queries + keys) + 4 * queries * keys * width


def _transformer(config: Any, source: float, target: float) -> float:
    width = config.d_model
    encoder_layer = _attention(width, source, source) + 4 * source * width * config.encoder_ffn_dim
    decoder_layer = (
        _attention(width, target, target)
        + _attention(width, target, source)
        + 4 * target * width * config.decoder_ffn_dim
    )
    return config.encoder_layers * encoder_layer + config.decoder_layers * decoder_layer


def _gpt(config: Any, source: float, target: float) -> float:
    width, length = config.d_model, source + target
    layer = _attention(width, length, length) + 4 * length * width * config.ffn_dim
    return config.num_hidden_layers * layer


def _lstm_layers(inputs: int, width: int, layers: int, directions: int = 1) -> float:
    """The recurrent layers, for each position; every layer after the first reads both directions of the one before."""
    first = inputs + width
    others = (layers - 1) * (directions * width + width)
    return directions * 8 * width * (first + others)


def _lstm(config: Any, source: float, target: float) -> float:
    width, layers = config.hidden_size, config.num_hidden_layers
    if not config.is_encoder_decoder:
        return (source + target) * _lstm_layers(width, width, layers)
    attends = config.attention == "luong"
    directions = 2 if config.bidirectional else 1
    encoder = source * _lstm_layers(width, width // directions, layers, directions)
    decoder = target * _lstm_layers(2 * width if attends and config.input_feeding else width, width, layers)
    if not attends:
        return encoder + decoder
    # W_a of the source's states; scores, and the sum of the states; W_c of both side by side (equations 5, 7 and 8).
    looking_back = 2 * source * width * width + 4 * target * source * width + 4 * target * width * width
    return encoder + decoder + looking_back


_FORMULAS = {"theatre_transformer": _transformer, "theatre_gpt": _gpt, "theatre_lstm": _lstm}
