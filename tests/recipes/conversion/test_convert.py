"""A model from elsewhere, converted, does what it did; and what does not fit is refused by its name."""

import json
import os
import pickle
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from transformer_theatre.recipes.conversion.convert import EXPORTS, FORMATS
from transformer_theatre.recipes.conversion.exchange import to_ours, to_theirs
from transformer_theatre.recipes.conversion.parity import sized_by_target, without_faulty_cache
from transformer_theatre.recipes.theatre import main


SEPARATE = {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 60, "vocab_size": 50}
SEPARATE |= {"pad_token_id": 49, "decoder_start_token_id": 49}
SOURCES = {
    "marian": ("marian", {}),
    "marian-bin": ("marian", {"pickled": True, "activation_function": "relu", "scale_embedding": False}),
    "marian-separate": ("marian", SEPARATE),
    "marian-untied": ("marian", {**SEPARATE, "tie_word_embeddings": False, "activation_function": "gelu"}),
    "marian-wide": ("marian", {"d_model": 40, "encoder_attention_heads": 5, "max_position_embeddings": 37}),
    "marian-odd-no-bias": (
        "marian",
        {
            "bias": False,
            "encoder_layers": 1,
            "decoder_layers": 3,
            "d_model": 30,
            "encoder_attention_heads": 5,
            "decoder_attention_heads": 1,
            "encoder_ffn_dim": 37,
            "decoder_ffn_dim": 7,
        },
    ),
    "fsmt": ("fsmt", {}),
    "fsmt-tied": ("fsmt", {"src_vocab_size": 60, "tie_word_embeddings": True, "pickled": True}),
    "fsmt-padding-4": ("fsmt", {"pad_token_id": 4, "activation_function": "gelu", "scale_embedding": False}),
    "fsmt-odd": (
        "fsmt",
        {
            "src_vocab_size": 61,
            "tgt_vocab_size": 53,
            "encoder_layers": 3,
            "decoder_layers": 1,
            "d_model": 30,
            "encoder_attention_heads": 1,
            "decoder_attention_heads": 5,
            "encoder_ffn_dim": 37,
            "decoder_ffn_dim": 7,
            "activation_function": "swish",
        },
    ),
    "gpt2": ("gpt2", {}),
    "gpt2-bin": ("gpt2", {"pickled": True, "n_inner": 30, "activation_function": "relu"}),
    "gpt2-untied": ("gpt2", {"tie_word_embeddings": False, "layer_norm_epsilon": 1e-3}),
    "gpt2-odd": ("gpt2", {"vocab_size": 53, "n_embd": 35, "n_head": 5, "n_layer": 3, "n_inner": 13}),
    "openai-gpt": ("openai-gpt", {}),
    "openai-gpt-odd": ("openai-gpt", {"vocab_size": 53, "n_embd": 35, "n_head": 5, "n_layer": 1, "afn": "relu"}),
    "openai-gpt-silu": ("openai-gpt", {"afn": "silu", "pickled": True, "tie_word_embeddings": False}),
}
BOUND = 1e-5  # for logits of up to some 20, where the command allows 1e-4


def _format(name):
    return next(entry for entry in FORMATS if entry.name == name)


def _load(folder, kind):
    auto_class = AutoModelForSeq2SeqLM if kind in ("marian", "fsmt") else AutoModelForCausalLM
    return auto_class.from_pretrained(folder).eval()


def _inputs(kind, model):
    """A batch that is padded on the right, and what is scored: targets that never hold padding."""
    ids = torch.randint(5, 48, (3, 9))
    mask = torch.tensor([[1] * 9, [1] * 6 + [0] * 3, [1] * 2 + [0] * 7])
    if kind not in ("marian", "fsmt"):
        return {"input_ids": ids}
    ids = ids.masked_fill(mask == 0, model.config.pad_token_id)
    target = torch.cat([torch.full((3, 1), model.config.decoder_start_token_id), torch.randint(5, 48, (3, 6))], 1)
    return {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": target}


@pytest.mark.parametrize(("kind", "fields"), SOURCES.values(), ids=SOURCES)
def test_a_converted_model_has_the_logits_and_the_outputs_of_the_original(make_source, tmp_path, kind, fields):
    source = make_source(kind, **fields)
    assert main(["convert", str(source), str(tmp_path / "ours")]) == 0
    theirs, ours = _format(kind).read(source).reference, _load(tmp_path / "ours", kind)
    inputs = _inputs(kind, theirs)
    with torch.no_grad():
        expected = theirs(**inputs, use_cache=False).logits
        assert_close(ours(**inputs).logits, expected, atol=BOUND, rtol=0)
    assert expected.abs().max() > 1
    prompt = {name: value for name, value in inputs.items() if name != "decoder_input_ids"}
    for num_beams in (1, 4):
        options = {"num_beams": num_beams, "do_sample": False, "max_new_tokens": 12}
        with sized_by_target(theirs):
            expected = theirs.generate(**prompt, **options, **without_faulty_cache(theirs))
        assert ours.generate(**prompt, **options).tolist() == expected.tolist()

    report = json.loads((tmp_path / "ours" / "parity.json").read_text(encoding="utf-8"))
    assert report["largest_difference"] < BOUND
    assert report["greedy_identical"] == report["beam_4_identical"] == report["texts"] == 8


@pytest.mark.parametrize(
    ("kind", "fields"),
    [case for case in SOURCES.values() if case[0] in EXPORTS],
    ids=[n for n in SOURCES if "fsmt" not in n],
)
def test_there_and_back_every_tensor_is_the_same(make_source, kind, fields):
    entry = _format(kind)
    source = entry.read(make_source(kind, **fields))
    again = to_theirs(entry, to_ours(entry, source))
    expected = source.reference.state_dict()
    assert again.state_dict().keys() == expected.keys()
    for name, value in again.state_dict().items():
        assert torch.equal(value, expected[name]), name
    for name in ("d_model" if kind == "marian" else "n_embd", "eos_token_id", "vocab_size", "tie_word_embeddings"):
        assert getattr(again.config, name) == getattr(source.config, name)


@pytest.mark.parametrize("kind", EXPORTS)
def test_a_model_without_tokenizer_goes_there_and_back(make_source, tmp_path, capsys, kind):
    source = make_source(kind)
    assert main(["convert", str(source), str(tmp_path / "ours")]) == 0
    assert main(["convert", str(tmp_path / "ours"), str(tmp_path / "again"), "--to", kind]) == 0
    assert "The source holds no tokenizer" in capsys.readouterr().out
    before, after = (load_file(folder / "model.safetensors") for folder in (source, tmp_path / "again"))
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize("bias", [True, False], ids=["biases", "no-biases"])
def test_nanogpt_is_gpt_2_with_another_gelu(make_nanogpt, tmp_path, bias):
    source = make_nanogpt(bias=bias)
    assert main(["convert", str(source / "ckpt.pt"), str(tmp_path / "ours")]) == 0
    theirs, ours = _format("nanogpt").read(source).reference, _load(tmp_path / "ours", "gpt2")
    assert any(name.endswith(".bias") for name in ours.state_dict()) == ours.config.bias == bias
    ids = torch.randint(0, 65, (2, 20))
    with torch.no_grad():
        assert_close(ours(ids).logits, theirs(ids).logits, atol=BOUND, rtol=0)
        assert_close(to_theirs(_format("gpt2"), ours)(ids).logits, theirs(ids).logits, atol=BOUND, rtol=0)
    report = json.loads((tmp_path / "ours" / "parity.json").read_text(encoding="utf-8"))
    assert report["greedy_identical"] == report["beam_4_identical"] == report["texts"] == 8


def test_settings_of_generation_come_along(make_source, tmp_path):
    settings = {"num_beams": 3, "max_length": 40, "bad_words_ids": [[59]], "forced_eos_token_id": 0}
    source = make_source("marian", generation=settings)
    assert main(["convert", str(source), str(tmp_path / "ours")]) == 0
    found = _load(tmp_path / "ours", "marian").generation_config
    assert {name: getattr(found, name) for name in settings} == settings
    assert (found.decoder_start_token_id, found.eos_token_id, found.pad_token_id) == (59, 0, 59)
    assert found.use_cache


def test_half_precision_stays_half(make_source, tmp_path):
    source = make_source("gpt2")
    tensors = {name: value.half() for name, value in load_file(source / "model.safetensors").items()}
    save_file(tensors, source / "model.safetensors", {"format": "pt"})
    assert main(["convert", str(source), str(tmp_path / "ours")]) == 0
    ours = load_file(tmp_path / "ours" / "model.safetensors")
    assert {value.dtype for value in ours.values()} == {torch.float16}
    assert torch.equal(ours["model.embed_tokens.weight"], tensors["transformer.wte.weight"])


def test_weights_in_several_files_are_read_as_one(make_source, tmp_path):
    source = make_source("gpt2")
    model = _format("gpt2").read(source).reference
    (source / "model.safetensors").unlink()
    model.save_pretrained(source, max_shard_size="20KB")
    assert len(list(source.glob("model-*.safetensors"))) > 1
    assert main(["convert", str(source), str(tmp_path / "ours")]) == 0


def test_a_checkpoint_of_the_body_alone_has_names_without_prefix(make_source, tmp_path):
    source = make_source("gpt2")
    tensors = load_file(source / "model.safetensors")
    tensors = {name.removeprefix("transformer."): value for name, value in tensors.items()}
    masks = {f"h.{layer}.attn.bias": torch.ones(1, 1, 48, 48).tril() for layer in range(2)}
    save_file({**tensors, **masks}, source / "model.safetensors", {"format": "pt"})
    assert main(["convert", str(source), str(tmp_path / "ours")]) == 0


EXPORTED = {
    "marian": {},
    "marian-untied": {"tie_word_embeddings": False, "output_bias": True},
    "marian-separate": {"share_encoder_decoder_embeddings": False, "source_vocab_size": 320},
    "marian-no-biases": {"bias": False},
    "gpt2": {"norm_first": True, "activation_function": "gelu"},
    "gpt2-no-biases": {"norm_first": True, "bias": False},
    "openai-gpt": {"ffn_dim": 64, "tie_word_embeddings": False},
}


@pytest.mark.parametrize(("name", "fields"), EXPORTED.items(), ids=EXPORTED)
def test_our_model_becomes_theirs(make_ours, tmp_path, name, fields):
    kind = next(known for known in EXPORTS if name.startswith(known))
    source = make_ours(translates=kind == "marian", **fields)
    assert main(["convert", str(source), str(tmp_path / "theirs"), "--to", kind]) == 0
    theirs, ours = EXPORTS[kind].theirs.from_pretrained(tmp_path / "theirs").eval(), _load(source, kind)
    inputs = _inputs(kind, ours)
    with torch.no_grad():
        assert_close(theirs(**inputs).logits, ours(**inputs).logits, atol=BOUND, rtol=0)
    report = json.loads((tmp_path / "theirs" / "parity.json").read_text(encoding="utf-8"))
    assert report["greedy_identical"] == report["beam_4_identical"] == report["texts"] == 8
    assert sorted(path.suffix for path in (tmp_path / "theirs").iterdir() if path.suffix == ".py") == []


INEXPRESSIBLE = {
    "marian-norm-first": ("marian", {"norm_first": True}, "norm_first=True"),
    "marian-learned": ("marian", {"position_embeddings": "learned"}, "position_embeddings='learned'"),
    "marian-epsilon": ("marian", {"layer_norm_eps": 1e-6}, "layer_norm_eps=1e-06"),
    "gpt2-post-norm": ("gpt2", {}, "norm_first=False"),
    "openai-gpt-gelu": ("openai-gpt", {"ffn_dim": 64, "activation_function": "gelu"}, "activation_function='gelu'"),
    "openai-gpt-width": ("openai-gpt", {"ffn_dim": 60}, "ffn_dim=60"),
    "openai-gpt-translates": ("openai-gpt", {"translates": True}, "only a theatre_gpt model can become openai-gpt"),
}


@pytest.mark.parametrize(("kind", "fields", "message"), INEXPRESSIBLE.values(), ids=INEXPRESSIBLE)
def test_what_they_cannot_express_is_refused_by_its_name(make_ours, tmp_path, capsys, kind, fields, message):
    source = make_ours(**{"translates": kind == "marian", **fields})
    assert main(["convert", str(source), str(tmp_path / "theirs"), "--to", kind]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "theirs").exists()


REFUSED = {
    "marian-pre-norm": ("marian", {"normalize_before": True}, "normalize_before=True"),
    "marian-learned": ("marian", {"static_position_embeddings": False}, "static_position_embeddings=False"),
    "marian-norm-of-embedding": ("marian", {"normalize_embedding": True}, "normalize_embedding=True"),
    "marian-final-norm": ("marian", {"add_final_layer_norm": True}, "add_final_layer_norm=True"),
    "marian-layerdrop": ("marian", {"encoder_layerdrop": 0.5}, "encoder_layerdrop=0.5"),
    "marian-half-tied": ("marian", {"tie_word_embeddings": False}, "tie_word_embeddings=False"),
    "gpt2-scale": ("gpt2", {"scale_attn_weights": False}, "scale_attn_weights=False"),
    "gpt2-layer-scale": ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx=True"),
    "gpt2-cross": ("gpt2", {"add_cross_attention": True}, "add_cross_attention=True"),
}


@pytest.mark.parametrize(("kind", "fields", "message"), REFUSED.values(), ids=REFUSED)
def test_what_ours_cannot_express_is_refused_by_its_name(make_source, tmp_path, capsys, kind, fields, message):
    assert main(["convert", str(make_source(kind, **fields)), str(tmp_path / "ours")]) == 2
    assert message in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def _change(path, change):
    tensors = load_file(path / "model.safetensors")
    change(tensors)
    save_file(tensors, path / "model.safetensors", {"format": "pt"})


def _stranger(tensors):
    tensors["model.encoder.layers.0.adapter.weight"] = torch.zeros(3)


def _gap(tensors):
    del tensors["model.decoder.layers.0.fc1.bias"]


def _another_layer(tensors):
    tensors["model.decoder.layers.7.fc1.bias"] = torch.zeros(36)


def _another_shape(tensors):
    tensors["model.encoder.layers.1.fc1.weight"] = torch.zeros(21, 24)


def _other_positions(tensors):
    tensors["model.encoder.embed_positions.weight"] = torch.randn(64, 24)


def _other_head(tensors):
    tensors["lm_head.weight"] = tensors["model.shared.weight"] + 1e-3


DAMAGED = {
    "stranger": (
        _stranger,
        "no place in the model that its configuration describes: model.encoder.layers.0.adapter.weight",
    ),
    "gap": (_gap, "no value for it in the checkpoint: model.decoder.layers.0.feed_forward.fc1.bias"),
    "another-layer": (_another_layer, "model.decoder.layers.7.feed_forward.fc1.bias"),
    "another-shape": (_another_shape, "model.encoder.layers.1.f"),
    "other-positions": (_other_positions, "model.encoder.embed_positions.weight is not the fixed one"),
    "other-head": (_other_head, "lm_head.weight and model.shared.weight differ"),
}


@pytest.mark.parametrize(("change", "message"), DAMAGED.values(), ids=DAMAGED)
def test_tensors_that_do_not_fit_are_named(make_source, tmp_path, capsys, change, message):
    source = make_source("marian")
    _change(source, change)
    assert main(["convert", str(source), str(tmp_path / "ours")]) == 2
    assert message in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_fixed_tables_and_equal_copies_are_passed_over(make_source, tmp_path):
    source = make_source("marian")
    model = _format("marian").read(source).reference

    def add(tensors):
        tensors |= {name: value.clone() for name, value in model.state_dict().items()}

    _change(source, add)
    assert main(["convert", str(source), str(tmp_path / "ours")]) == 0


class _Harmful:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("kind", ["pytorch_model.bin", "ckpt.pt", "meta.pkl"])
def test_a_pickle_that_would_run_code_is_refused_and_runs_nothing(make_source, make_nanogpt, tmp_path, capsys, kind):
    harm = tmp_path / "harm"
    folder = make_source("marian", pickled=True) if kind == "pytorch_model.bin" else make_nanogpt(characters="abc")
    if kind == "meta.pkl":
        (folder / kind).write_bytes(pickle.dumps({"itos": _Harmful(harm)}))
    else:
        torch.save({"model": _Harmful(harm), "model_args": {}}, folder / kind)
    before = sorted(path.name for path in tmp_path.iterdir())
    assert main(["convert", str(folder), str(tmp_path / "ours")]) == 2
    assert "is not loaded" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    pickle.loads(pickle.dumps(_Harmful(harm)))  # the pickle is a harmful one
    assert harm.exists()


WRONG = {
    "nowhere": (["{folder}/nowhere", "{new}"], "There is no model"),
    "unknown-type": (["{folder}/bert", "{new}"], "is a bert model"),
    "no-model": (["{folder}/empty", "{new}"], "no model that is known"),
    "no-object": (["{folder}/list", "{new}"], "is no JSON object"),
    "no-weights": (["{folder}/weightless", "{new}"], "holds no weights"),
    "cut-weights": (["{folder}/cut", "{new}"], "cannot be read"),
    "occupied": (["{folder}/source", "{folder}/source"], "is not empty"),
    "no-sentences": (["{folder}/source", "{new}", "--sentences", "{folder}/nothing.txt"], "cannot be read"),
    "no-tokenizer": (["{folder}/source", "{new}", "--tokenizer", "{folder}/empty"], "holds no tokenizer"),
    "theirs-to-theirs": (["{folder}/source", "{new}", "--to", "gpt2"], "only a theatre_gpt model can become gpt2"),
    "unknown-format": (["{folder}/source", "{new}", "--to", "bert"], "invalid choice: 'bert'"),
    "two-bytes": (["{folder}/two.pt", "{new}"], "two.pt cannot be read: "),
    "no-checkpoint": (["{folder}/plain.pt", "{new}"], "is no checkpoint of nanoGPT"),
}


@pytest.mark.parametrize(("words", "message"), WRONG.values(), ids=WRONG)
def test_wrong_input_gets_one_line_and_leaves_nothing_behind(make_source, tmp_path, capsys, words, message):
    source = make_source("gpt2")
    for name, text in (("bert", '{"model_type": "bert"}'), ("list", "[]"), ("empty", None)):
        (tmp_path / name).mkdir()
        if text:
            (tmp_path / name / "config.json").write_text(text, encoding="utf-8")
    for name in ("weightless", "cut"):
        (tmp_path / name).mkdir()
        shutil.copy(source / "config.json", tmp_path / name)
    (tmp_path / "cut" / "model.safetensors").write_bytes((source / "model.safetensors").read_bytes()[:-9])
    torch.save({"weight": torch.zeros(1)}, tmp_path / "plain.pt")
    (tmp_path / "two.pt").write_bytes(b"ab")
    before = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))
    assert main(["convert", *(word.format(folder=tmp_path, new=tmp_path / "new") for word in words)]) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert len([line for line in errors.splitlines() if line.startswith("theatre: ")]) == 1
    assert sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*")) == before


def test_a_model_that_is_not_the_original_is_not_written(make_source, tmp_path, monkeypatch, capsys):
    def one_bias_less(entry, source):
        model = to_ours(entry, source)
        with torch.no_grad():
            model.model.layers[0].feed_forward.fc2.bias[3] += 0.05
        return model

    monkeypatch.setattr("transformer_theatre.recipes.conversion.convert.to_ours", one_bias_less)
    assert main(["convert", str(make_source("gpt2")), str(tmp_path / "deep" / "ours")]) == 1
    assert "the converted model is not the original" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_what_fails_while_it_is_written_leaves_nothing_behind(make_source, tmp_path, monkeypatch, capsys):
    def fail(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr("transformer_theatre.recipes.conversion.convert.write_card", fail)
    assert main(["convert", str(make_source("gpt2")), str(tmp_path / "deep" / "ours")]) == 1
    assert "No space left" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_help_lists_every_format(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["convert", "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for entry in FORMATS:
        assert f"  {entry.what:<61}{entry.name}\n" in text
    assert f"--to {{{','.join(EXPORTS)}}}" in text
