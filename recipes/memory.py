"""Memory that training takes on one device, by formula; docs/scaling.md has it in words, and beside what was measured.

What stays from update to update, in bytes for each parameter (Adam; half precision is torch's autocast, which keeps float32):

    weights 4, gradients 4, moments 8; in half precision 2 more, for the copies of the weights that it makes

What the backward pass needs of the forward pass, in units of positions * d_model, for each layer. "Read by n" is what n
projections read: 4 bytes, the same for all; in half precision 2 for each of them.

    self-attention     read by 3, queries, keys, values, context, dropout's mask, the sum before LayerNorm (4)
    cross-attention    read by 1, queries, context, mask, sum (4); for each position of the source keys, values, and read by 2
    feed-forward       read by 1, mask, sum (4); and what is between its matrices, in units of positions * ffn_dim

With fused attention the weights of attention are not kept; with eager attention rows * heads * queries * keys * 4 bytes are.
The output needs positions * vocab_size * 8 bytes at its peak, 4 with bf16: the logits, or their gradient once more when it is scaled
(smoothed_loss.py). With fp16 it needs 10, as that gradient is kept in float32.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes on one device at the peak of an update."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    logits: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.logits


@dataclass(frozen=True)
class Bytes:
    """How large a number is where it is kept for the backward pass.

    Args:
        half: half precision, by autocast.
        mask: of a mark of dropout: 1 on an accelerator, which keeps whether; on a CPU the factor, a number.
        scaled: the half precision is fp16, whose loss is scaled.
    """

    half: bool = False
    mask: int = 1
    scaled: bool = False

    @property
    def number(self) -> int:
        """Of what a projection returns."""
        return 2 if self.half else 4

    @property
    def logit_kept(self) -> int:
        """Of a logit's gradient, which is all that is kept of the output."""
        return 4 if self.scaled else self.number

    @property
    def logit(self) -> int:
        """Of a logit, at the peak."""
        return 10 if self.scaled else 2 * self.number

    def read_by(self, projections: int) -> int:
        """Of what so many projections read."""
        return 2 * projections if self.half else 4


# What activations keep between the feed-forward's matrices, bytes for each number, in full and in half precision: ReLU its
# result, which is what follows reads; GELU what it was given, too.
_KEPT = {"relu": (4, 2), "gelu": (8, 4), "gelu_new": (8, 4)}


def training_memory(
    config: Any,
    parameters: int,
    rows: int,
    source_length: int,
    target_length: int,
    *,
    bytes_of: Bytes = Bytes(),
    fused_attention: bool = True,
    checkpoints_activations: bool = False,
    fsdp_size: int = 1,
    keeps_average: bool = False,
    buckets: bool = False,
) -> TrainingMemory:
    """Return what an update takes at its peak, by the formula above.

    Args:
        config: `TransformerConfig` or `GPTConfig`.
        parameters: of the model, tied ones once.
        rows: of the batch of one device.
        source_length: positions of the source in each row, padding counted; 0 for a language model.
        target_length: positions of the target in each row, padding counted.
        bytes_of: precision.
        fused_attention: attention by sdpa or flash kernels, not by eager.
        checkpoints_activations: only the layers' inputs are kept, and one layer at a time is computed again.
        fsdp_size: devices that share weights, gradients and optimizer state.
        keeps_average: there is a moving average of the weights.
        buckets: each of several devices has all gradients, and DDP keeps them once more to send them.

    Raises:
        ValueError: there is no formula for the model.
    """
    own = parameters / fsdp_size
    # What is gathered where it is used: the embeddings, and two layers at a time.
    gathered = 0.0
    if fsdp_size > 1:
        embeddings = config.vocab_size * config.d_model
        gathered = 4 * (embeddings + 2 * (parameters - embeddings) / _layers(config))
    return TrainingMemory(
        weights=(4 + 4 * keeps_average) * own + 2 * parameters * bytes_of.half + gathered,
        gradients=(4 + 4 * buckets) * own,
        optimizer=8 * own,
        activations=kept_activations(
            config, rows, source_length, target_length, bytes_of, fused_attention, checkpoints_activations
        ),
        logits=bytes_of.logit * rows * target_length * config.vocab_size,
    )


def kept_activations(
    config: Any,
    rows: int,
    source_length: int,
    target_length: int,
    bytes_of: Bytes,
    fused_attention: bool = True,
    checkpoints_activations: bool = False,
) -> float:
    """Return the bytes that the backward pass needs of the forward pass, but for those of the output; see `training_memory`."""
    sizes = _Sizes(config, bytes_of, fused_attention)
    if config.model_type == "theatre_gpt":
        length = source_length + target_length
        layers = [rows * sizes.encoder_layer(length, config.ffn_dim, config.num_attention_heads)]
        layers *= config.num_hidden_layers
        inputs = [rows * length] * config.num_hidden_layers
    elif config.model_type == "theatre_transformer":
        source = rows * sizes.encoder_layer(source_length, config.encoder_ffn_dim, config.encoder_attention_heads)
        target = rows * sizes.decoder_layer(source_length, target_length)
        layers = [source] * config.encoder_layers + [target] * config.decoder_layers
        inputs = [rows * source_length] * config.encoder_layers + [rows * target_length] * config.decoder_layers
    else:
        raise ValueError(f"There is no formula for {config.model_type!r}: an LSTM's is its kernel's secret.")
    width = config.d_model
    # Dropout on the embeddings, the encoder's output where projections share it, and what the output projection reads.
    ends = rows * width * (source_length + target_length) * bytes_of.mask * (config.dropout > 0)
    ends += rows * width * target_length * bytes_of.read_by(1)
    if config.model_type == "theatre_transformer" and not bytes_of.half:
        ends += 4 * rows * width * source_length
    if config.norm_first:  # one LayerNorm more, at the end of each stack
        ends += rows * (source_length + target_length) * (4 * width + 8)
    if checkpoints_activations:
        return ends + 4 * width * sum(inputs) + max(layers)
    return ends + sum(layers)


def _layers(config: Any) -> int:
    if config.model_type == "theatre_gpt":
        return config.num_hidden_layers
    return config.encoder_layers + config.decoder_layers


class _Sizes:
    """Bytes that one row keeps in one layer."""

    def __init__(self, config: Any, bytes_of: Bytes, fused_attention: bool):
        self.config, self.bytes_of, self.fused = config, bytes_of, fused_attention
        self.width = config.d_model
        # Dropout's mask, the sum before LayerNorm, and LayerNorm's mean and scale.
        self.around = bytes_of.mask * (config.dropout > 0) * self.width + 4 * self.width + 8

    def encoder_layer(self, length: int, ffn_dim: int, heads: int) -> float:
        """Self-attention and feed-forward."""
        return self._self_attention(length, heads) + self._feed_forward(length, ffn_dim)

    def decoder_layer(self, source: int, target: int) -> float:
        """Self-attention, cross-attention and feed-forward."""
        heads = self.config.decoder_attention_heads
        reads = self.bytes_of.read_by(1) + 2 * self.bytes_of.number  # queries, context
        of_source = 2 * self.bytes_of.number + (self.bytes_of.read_by(2) if self.bytes_of.half else 0)
        cross = target * (reads * self.width + self.around) + source * of_source * self.width
        cross += self._weights(heads, target, source)
        return self._self_attention(target, heads) + cross + self._feed_forward(target, self.config.decoder_ffn_dim)

    def _self_attention(self, length: int, heads: int) -> float:
        reads = self.bytes_of.read_by(3) + 4 * self.bytes_of.number  # queries, keys, values, context
        return length * (reads * self.width + self.around) + self._weights(heads, length, length)

    def _weights(self, heads: int, queries: int, keys: int) -> float:
        if self.fused:
            return 4 * heads * queries  # the logarithm of each sum
        half = 2 * self.bytes_of.half  # a copy in half precision
        dropped = (self.bytes_of.mask + self.bytes_of.number) * (self.config.attention_dropout > 0)
        return (4 + half + dropped) * heads * queries * keys

    def _feed_forward(self, length: int, ffn_dim: int) -> float:
        function = self.config.activation_function
        if function not in _KEPT:
            raise ValueError(f"There is no formula for {function!r}: only for {', '.join(_KEPT)}.")
        kept = _KEPT[function][self.bytes_of.half]
        dropped = (self.bytes_of.mask + self.bytes_of.number) * (self.config.activation_dropout > 0)
        return length * (self.bytes_of.read_by(1) * self.width + self.around + (kept + dropped) * ffn_dim)
