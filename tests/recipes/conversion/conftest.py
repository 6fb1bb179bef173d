"""Tiny models of every format, as files; random, but with no weight where a mistake would hide."""

import json
import pickle

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    FSMTConfig,
    FSMTForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Tokenizer,
    MarianConfig,
    MarianMTModel,
    OpenAIGPTConfig,
    OpenAIGPTLMHeadModel,
)

from transformer_theatre import GPTConfig, GPTForCausalLM, TransformerConfig, TransformerForConditionalGeneration
from transformer_theatre.recipes.tokenization import train_bpe_tokenizer


WORDS = [
    "the",
    "dog",
    "ran",
    "home",
    "über",
    "die",
    "Straße",
    "and",
    "saw",
    "12",
    "cats,",
    "naïve",
    "ones!",
    "?",
    ".",
    "to",
    "be",
    "or",
    "not",
]
TEXTS = ["the dog ran home.", "über die Straße!", "12 cats, naïve ones ran and saw the dog home", "or not to be ?"]

MARIAN = {
    "vocab_size": 60,
    "d_model": 24,
    "encoder_layers": 3,
    "decoder_layers": 1,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 20,
    "decoder_ffn_dim": 36,
    "max_position_embeddings": 64,
    "activation_function": "swish",
    "scale_embedding": True,
    "pad_token_id": 59,
    "decoder_start_token_id": 59,
    "eos_token_id": 0,
    "forced_eos_token_id": 0,
    "static_position_embeddings": True,
    "normalize_before": False,
}
FSMT = {
    "langs": ["en", "de"],
    "src_vocab_size": 50,
    "tgt_vocab_size": 60,
    "d_model": 24,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 3,
    "encoder_ffn_dim": 20,
    "decoder_ffn_dim": 36,
    "max_position_embeddings": 64,
}
GPT = {"vocab_size": 50, "n_embd": 24, "n_layer": 2, "n_head": 3, "n_positions": 48}
CLASSES = {
    "marian": (MarianConfig, MarianMTModel, MARIAN),
    "fsmt": (FSMTConfig, FSMTForConditionalGeneration, FSMT),
    "gpt2": (GPT2Config, GPT2LMHeadModel, {**GPT, "bos_token_id": 1, "eos_token_id": 1}),
    "openai-gpt": (OpenAIGPTConfig, OpenAIGPTLMHeadModel, GPT),
}


def shake(model):
    """Move norms and biases away from 1 and 0, where mistakes hide; not the tables of sinusoids, which are fixed."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_floating_point() and "embed_positions" not in name and not name.endswith(("attn.bias",)):
            torch.nn.init.normal_(tensor.detach(), std=0.4, generator=generator)


@pytest.fixture
def make_source(tmp_path):
    """Write a tiny model of a format into a folder; keyword arguments replace fields of its configuration.

    Marian's bias of the logits is zero with `bias=False`, as OPUS-MT's is.
    """

    def make(kind, *, pickled=False, folder="source", generation=None, bias=True, **fields):
        config_class, model_class, defaults = CLASSES[kind]
        model = model_class(config_class(**{**defaults, **fields})).eval()
        shake(model)
        if not bias:
            model.final_logits_bias.zero_()
        for name, value in (generation or {}).items():
            setattr(model.generation_config, name, value)
        path = tmp_path / folder
        model.save_pretrained(path)
        if pickled:
            (path / "model.safetensors").unlink()
            torch.save(model.state_dict(), path / "pytorch_model.bin")
        return path

    return make


@pytest.fixture(scope="session")
def marian_tokenizer(tmp_path_factory):
    """A folder with the files of an OPUS-MT tokenizer: two SentencePiece models, and a vocabulary of both."""
    sentencepiece = pytest.importorskip("sentencepiece")
    folder = tmp_path_factory.mktemp("marian-tokenizer")
    vocabulary = {"</s>": 0, "<unk>": 1}
    for side, words in (("source", WORDS), ("target", [word.upper() for word in WORDS])):
        (folder / f"{side}.txt").write_text("\n".join(" ".join(words[i:] + words[:i]) for i in range(len(words))))
        sentencepiece.SentencePieceTrainer.train(
            input=str(folder / f"{side}.txt"),
            model_prefix=str(folder / side),
            vocab_size=60,
            hard_vocab_limit=False,
            character_coverage=1.0,
            minloglevel=2,
        )
        (folder / f"{side}.model").rename(folder / f"{side}.spm")
        processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / f"{side}.spm"))
        for number in range(3, processor.get_piece_size()):
            vocabulary.setdefault(processor.id_to_piece(number), len(vocabulary))
    vocabulary["<pad>"] = len(vocabulary)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "tokenizer_config.json").write_text(json.dumps({"source_lang": "en", "target_lang": "de"}))
    return folder


@pytest.fixture(scope="session")
def gpt2_tokenizer(tmp_path_factory):
    """A folder with vocab.json and merges.txt alone, as OpenAI published GPT-2's."""
    folder = tmp_path_factory.mktemp("gpt2-tokenizer")
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=alphabet, special_tokens=["<|endoftext|>"], show_progress=False
    )
    backend.train_from_iterator(TEXTS * 9, trainer)
    backend.model.save(str(folder))
    assert GPT2Tokenizer.from_pretrained(folder)("the dog")["input_ids"]
    return folder


def _nano_tensors(sizes, bias):
    width, tensors = sizes["n_embd"], {}
    shapes = {"wte": (sizes["vocab_size"], width), "wpe": (sizes["block_size"], width), "ln_f": (width,)}
    for layer in range(sizes["n_layer"]):
        shapes |= {f"h.{layer}.{name}": (width,) for name in ("ln_1", "ln_2")}
        shapes |= {f"h.{layer}.attn.c_attn": (3 * width, width), f"h.{layer}.attn.c_proj": (width, width)}
        shapes |= {f"h.{layer}.mlp.c_fc": (4 * width, width), f"h.{layer}.mlp.c_proj": (width, 4 * width)}
    for name, shape in shapes.items():
        tensors[f"_orig_mod.transformer.{name}.weight"] = 0.4 * torch.randn(shape)
        if bias and name not in ("wte", "wpe"):
            tensors[f"_orig_mod.transformer.{name}.bias"] = 0.4 * torch.randn(shape[0])
    tensors["_orig_mod.lm_head.weight"] = tensors["_orig_mod.transformer.wte.weight"]
    return tensors


@pytest.fixture
def make_nanogpt(tmp_path):
    """Write ckpt.pt, and meta.pkl beside it if `characters` are given."""

    def make(bias=False, characters=None, vocab_size=65, **more):
        folder = tmp_path / "out-nano"
        folder.mkdir()
        sizes = {"n_layer": 2, "n_head": 3, "n_embd": 24, "block_size": 40, "vocab_size": vocab_size}
        if characters:
            sizes["vocab_size"] = len(characters)
            meta = {"vocab_size": len(characters), "itos": dict(enumerate(characters))}
            meta["stoi"] = {character: number for number, character in enumerate(characters)}
            (folder / "meta.pkl").write_bytes(pickle.dumps(meta))
        checkpoint = {
            "model": {**_nano_tensors(sizes, bias), **more},
            "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 1e-3}]},
            "model_args": {**sizes, "bias": bias, "dropout": 0.2},
            "iter_num": 3,
            "best_val_loss": torch.tensor(1.5),
            "config": {"dataset": "shakespeare_char"},
        }
        torch.save(checkpoint, folder / "ckpt.pt")
        return folder

    return make


@pytest.fixture
def make_ours(tmp_path):
    """Write a tiny model of ours with its tokenizer; keyword arguments replace fields of its configuration."""

    def make(translates, **fields):
        tokenizer = train_bpe_tokenizer(TEXTS, 300, appends_eos=translates)
        width = {"vocab_size": len(tokenizer), "d_model": 16}
        if translates:
            sizes = {f"{side}_{name}": 2 for side in ("encoder", "decoder") for name in ("layers", "attention_heads")}
            sizes |= {"encoder_ffn_dim": 24, "decoder_ffn_dim": 20, "max_position_embeddings": 64}
            model = TransformerForConditionalGeneration(TransformerConfig(**{**width, **sizes, **fields}))
        else:
            sizes = {"num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 24, "max_position_embeddings": 48}
            model = GPTForCausalLM(GPTConfig(**{**width, **sizes, **fields}))
        shake(model)
        model.save_pretrained(tmp_path / "ours")
        tokenizer.save_pretrained(tmp_path / "ours")
        return tmp_path / "ours"

    return make
