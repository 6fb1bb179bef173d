"""NanoGPT (https://github.com/karpathy/nanoGPT): `ckpt.pt`, as its train.py writes it, with `meta.pkl` beside it if any."""

import functools
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch.nn.functional import gelu, layer_norm, linear, scaled_dot_product_attention
from transformers import (
    GenerationMixin,
    GPT2Config,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.modeling_outputs import CausalLMOutput

from transformer_theatre.configuration.configuration_gpt import GPTConfig
from transformer_theatre.modeling.modeling_gpt import GPTForCausalLM
from transformer_theatre.recipes.tokenization import CHARACTERS, UNKNOWN_TOKEN
from transformer_theatre.recipes.weights import load_pickled_tensors

from .checkpoint import load_plain_pickle
from .format import Format, Source
from .gpt2 import embedding_pairs, final_norm_pairs, layer_pairs, masks, to_our_config
from .names import Names


# What torch.compile puts before every name.
_COMPILED = "_orig_mod."
_MODEL_ARGUMENTS = {"n_layer", "n_head", "n_embd", "block_size", "vocab_size"}
_NO_TOKENIZER = (
    "There is no meta.pkl beside the checkpoint. Give its tokenizer by --tokenizer: the data set's meta.pkl if it was "
    "trained on characters, GPT-2's tokenizer (a folder, or gpt2 on the Hub) if not."
)


class NanoGPT(PreTrainedModel, GenerationMixin):
    """The forward pass of nanoGPT's model.py, written out on its own tensors; to compare with.

    Args:
        config: sizes.
        tensors: nanoGPT's, float32; biases may be missing.
    """

    config_class = GPT2Config

    def __init__(self, config: PreTrainedConfig, tensors: dict[str, torch.Tensor]):
        super().__init__(config)
        self.tensors = {name.removeprefix("transformer."): value for name, value in tensors.items()}
        self.unused = torch.nn.Parameter(torch.zeros(1))  # says on which device the model is
        self.post_init()

    def _linear(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return linear(x, self.tensors[f"{name}.weight"], self.tensors.get(f"{name}.bias"))

    def _norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return layer_norm(x, x.shape[-1:], self.tensors[f"{name}.weight"], self.tensors.get(f"{name}.bias"), 1e-5)

    def prepare_inputs_for_generation(self, input_ids: torch.Tensor, **kwargs: Any) -> dict[str, torch.Tensor]:
        """Give all tokens at each step: there is no cache."""
        return {"input_ids": input_ids}

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **_: Any) -> CausalLMOutput:
        """Give the logits (batch, positions, vocabulary) of tokens (batch, positions); nanoGPT knows no padding."""
        x = self.tensors["wte.weight"][input_ids] + self.tensors["wpe.weight"][: input_ids.shape[1]]
        for index in range(self.config.n_layer):
            qkv = self._linear(self._norm(x, f"h.{index}.ln_1"), f"h.{index}.attn.c_attn")
            q, k, v = (part.unflatten(-1, (self.config.n_head, -1)).transpose(1, 2) for part in qkv.chunk(3, -1))
            context = scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
            x = x + self._linear(context, f"h.{index}.attn.c_proj")
            hidden = gelu(self._linear(self._norm(x, f"h.{index}.ln_2"), f"h.{index}.mlp.c_fc"))
            x = x + self._linear(hidden, f"h.{index}.mlp.c_proj")
        return CausalLMOutput(logits=self._linear(self._norm(x, "ln_f"), "lm_head"))


def read_characters(path: Path) -> PreTrainedTokenizerBase:
    """Make a tokenizer from `meta.pkl`, which nanoGPT's prepare.py writes for a data set of characters.

    Any other character becomes `<unk>`, whose id is the first that the model does not know.

    Raises:
        ValueError: it is no such file.
    """
    meta = load_plain_pickle(path)
    characters = meta.get("itos") if isinstance(meta, dict) else None
    if not isinstance(characters, dict) or sorted(characters) != list(range(len(characters))):
        raise ValueError(
            f"{path} holds no characters: it must have 'itos', a dictionary from 0, 1, 2, ... to characters."
        )
    vocabulary = {str(character): number for number, character in characters.items()}
    backend = Tokenizer(models.WordLevel({**vocabulary, UNKNOWN_TOKEN: len(characters)}, unk_token=UNKNOWN_TOKEN))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(CHARACTERS), "isolated")
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token=UNKNOWN_TOKEN,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
        split_special_tokens=True,
        padding_side="left",
    )


def _file(path: Path) -> Path:
    return path / "ckpt.pt" if path.is_dir() else path


def _matches(path: Path) -> bool:
    return _file(path).is_file() and _file(path).suffix == ".pt"


def _read(path: Path) -> Source:
    path = _file(path)
    checkpoint = load_pickled_tensors(path)
    arguments = checkpoint.get("model_args") if isinstance(checkpoint, dict) else None
    if not isinstance(arguments, dict) or not arguments.keys() >= _MODEL_ARGUMENTS or "model" not in checkpoint:
        needed = ", ".join(sorted(_MODEL_ARGUMENTS))
        raise ValueError(f"{path} is no checkpoint of nanoGPT: it must hold model, and model_args with {needed}.")
    meta = path.with_name("meta.pkl")
    tokenizer = read_characters(meta) if meta.is_file() else None
    end = 50_256 if tokenizer is None and arguments["vocab_size"] > 50_256 else None  # <|endoftext|>
    config = GPT2Config(
        vocab_size=arguments["vocab_size"],
        n_positions=arguments["block_size"],
        n_embd=arguments["n_embd"],
        n_layer=arguments["n_layer"],
        n_head=arguments["n_head"],
        activation_function="gelu",
        resid_pdrop=arguments.get("dropout", 0.0),
        attn_pdrop=arguments.get("dropout", 0.0),
        bos_token_id=end,
        eos_token_id=end,
    )
    tensors = {name.removeprefix(_COMPILED): value for name, value in checkpoint["model"].items()}
    load_reference = functools.partial(NanoGPT, config, {name: value.float() for name, value in tensors.items()})
    return Source(config, tensors, load_reference, tokenizer, _NO_TOKENIZER)


def _to_our_config(config: PreTrainedConfig, tensors: dict[str, torch.Tensor]) -> GPTConfig:
    """Make our configuration; a model has biases everywhere or nowhere."""
    ours = to_our_config(config, tensors)
    ours.bias = "transformer.ln_f.bias" in tensors
    return ours


def _names(config: PreTrainedConfig) -> Names:
    return Names([*embedding_pairs(config, "wte", "wpe"), *layer_pairs(), *final_norm_pairs()], masks())


NANOGPT = Format(
    name="nanogpt",
    what="nanoGPT: ckpt.pt, or a folder that holds it",
    matches=_matches,
    read=_read,
    ours=GPTForCausalLM,
    to_our_config=_to_our_config,
    names=_names,
)
