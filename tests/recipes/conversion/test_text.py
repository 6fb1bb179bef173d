"""Text in, text out: a converted model and its tokenizer do with text what the original and its own do."""

import io
import json
import shutil
import sys

import pytest
from datasets import Dataset
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    FSMTForConditionalGeneration,
    FSMTTokenizer,
    MarianMTModel,
    MarianTokenizer,
    OpenAIGPTTokenizer,
)

from transformer_theatre.recipes.conversion.carried_tokenizer import read_tokenizer
from transformer_theatre.recipes.theatre import main
from transformer_theatre.recipes.tokenization import encode_pairs, load_tokenizer


TEXTS = [
    "the dog ran home.",
    "über die Straße!",
    "12 cats, naïve ones ran and saw the dog home",
    "or not to be ?",
    "漢字 x",
]


@pytest.fixture
def put_on_stdin(monkeypatch):
    """Put lines on stdin."""

    def put(lines):
        data = io.BytesIO("".join(f"{line}\n" for line in lines).encode())
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(data, encoding="utf-8"))

    return put


def _copy_tokenizer(tokenizer, folder):
    for name in ("source.spm", "target.spm", "vocab.json", "merges.txt", "tokenizer_config.json"):
        if (tokenizer / name).exists():
            shutil.copy(tokenizer / name, folder)


def _translated_by(model, tokenizer, **options):
    """Translate one by one, up to the length that `theatre translate` has."""
    lines = []
    for text in TEXTS:
        inputs = tokenizer([text], return_tensors="pt")
        length = inputs["input_ids"].shape[1] + 50
        output = model.generate(**inputs, **options, max_new_tokens=length)
        lines.append(tokenizer.decode(output[0], skip_special_tokens=True))
    assert len(set(lines)) > 2
    return lines


def _translates_as_before(source, ours, original, original_tokenizer, put_on_stdin, capsys):
    """With the settings that came along, `generate` gives the text of the original; and so does our own greedy search."""
    assert main(["convert", str(source), str(ours)]) == 0
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(ours).eval(), load_tokenizer(ours)
    for options in ({}, {"num_beams": 1}):
        assert _translated_by(model, tokenizer, **options) == _translated_by(original, original_tokenizer, **options)
    capsys.readouterr()
    put_on_stdin(TEXTS)
    assert main(["translate", str(ours), "--num_beams", "1"]) == 0
    assert capsys.readouterr().out.split("\n")[:-1] == _translated_by(original, original_tokenizer, num_beams=1)


def test_opus_mt_translates_as_before(make_source, marian_tokenizer, tmp_path, put_on_stdin, capsys):
    size = len(json.loads((marian_tokenizer / "vocab.json").read_text(encoding="utf-8")))
    special = {"vocab_size": size, "pad_token_id": size - 1, "decoder_start_token_id": size - 1}
    # Without an end that is forced at the longest, which `theatre translate` does not do.
    settings = {"bad_words_ids": [[size - 1]], "num_beams": 3, "forced_eos_token_id": None}
    source = make_source("marian", **special, max_position_embeddings=128, generation=settings)
    _copy_tokenizer(marian_tokenizer, source)
    original, tokenizer = MarianMTModel.from_pretrained(source).eval(), MarianTokenizer.from_pretrained(source)
    _translates_as_before(source, tmp_path / "ours", original, tokenizer, put_on_stdin, capsys)


def test_opus_mt_keeps_its_tokenizer(make_source, marian_tokenizer, tmp_path):
    size = len(json.loads((marian_tokenizer / "vocab.json").read_text(encoding="utf-8")))
    source = make_source("marian", vocab_size=size, pad_token_id=size - 1, decoder_start_token_id=size - 1)
    _copy_tokenizer(marian_tokenizer, source)
    assert main(["convert", str(source), str(tmp_path / "ours")]) == 0
    ours, theirs = load_tokenizer(tmp_path / "ours"), MarianTokenizer.from_pretrained(source)
    for text in TEXTS:
        ids = theirs(text)["input_ids"]
        assert ours(text)["input_ids"] == ids
        assert ids[-1] == 0
        assert ours(text_target=text)["input_ids"] == theirs(text_target=text)["input_ids"]
        assert ours.decode(ids, skip_special_tokens=True) == theirs.decode(ids, skip_special_tokens=True)
    assert (tmp_path / "ours" / "source.spm").read_bytes() == (source / "source.spm").read_bytes()
    pairs = encode_pairs(Dataset.from_dict({"source": TEXTS[:1], "target": ["THE DOG RAN"]}), ours, 99)
    assert pairs["labels"][0] == theirs(text_target="THE DOG RAN")["input_ids"] != theirs("THE DOG RAN")["input_ids"]


def test_wmt19_translates_as_before(make_source, tmp_path, put_on_stdin, capsys):
    pytest.importorskip("sacremoses")
    settings = {"forced_eos_token_id": None, "bad_words_ids": [[1]]}
    source = make_source("fsmt", src_vocab_size=50, tgt_vocab_size=40, generation=settings)
    letters = "abcdefghijklmnopqrstuvwxyz"
    for side, size in (("src", 50), ("tgt", 40)):
        pieces = ["<s>", "<pad>", "</s>", "<unk>", *letters, *(f"{letter}</w>" for letter in letters[: size - 30])]
        vocabulary = {piece: number for number, piece in enumerate(pieces)}
        (source / f"vocab-{side}.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (source / "merges.txt").write_text("t h 9\nt he</w> 5\n", encoding="utf-8")
    (source / "tokenizer_config.json").write_text(json.dumps({"langs": ["en", "de"], "do_lower_case": True}))
    original, tokenizer = (
        FSMTForConditionalGeneration.from_pretrained(source).eval(),
        FSMTTokenizer.from_pretrained(source),
    )
    _translates_as_before(source, tmp_path / "ours", original, tokenizer, put_on_stdin, capsys)


def test_gpt_2_goes_on_as_before(make_source, gpt2_tokenizer, tmp_path, capsys):
    size = len(json.loads((gpt2_tokenizer / "vocab.json").read_text(encoding="utf-8")))
    source = make_source("gpt2", vocab_size=size, bos_token_id=0, eos_token_id=0)
    _copy_tokenizer(gpt2_tokenizer, source)
    assert main(["convert", str(source), str(tmp_path / "ours")]) == 0
    capsys.readouterr()
    words = ["generate", str(tmp_path / "ours"), "--prompt", "the dog", "--max_new_tokens", "20", "--temperature", "0"]
    assert main(words) == 0
    tokenizer, model = AutoTokenizer.from_pretrained(source), AutoModelForCausalLM.from_pretrained(source).eval()
    inputs = tokenizer(["the dog"], return_tensors="pt")
    output = model.generate(**inputs, max_new_tokens=20, do_sample=False)[0]
    assert capsys.readouterr().out == tokenizer.decode(output, skip_special_tokens=True) + "\n"
    assert load_tokenizer(tmp_path / "ours").is_fast


def test_openai_gpt_keeps_its_tokenizer(make_source, tmp_path):
    source = make_source("openai-gpt")
    pieces = [
        "<unk>",
        *"abcdefghijklmnopqrstuvw",
        *(f"{letter}</w>" for letter in "abcdefghijklmnopqrstuvw"),
        "th",
        "the</w>",
    ]
    (source / "vocab.json").write_text(json.dumps({piece: number for number, piece in enumerate(pieces)}))
    (source / "merges.txt").write_text("#version: 0.2\nt h\nth e</w>\n", encoding="utf-8")
    assert main(["convert", str(source), str(tmp_path / "ours")]) == 0
    ours, theirs = load_tokenizer(tmp_path / "ours"), OpenAIGPTTokenizer.from_pretrained(source)
    assert ours("The dog")["input_ids"] == theirs("the dog")["input_ids"]
    assert pieces.index("the</w>") in ours("The dog")["input_ids"]
    assert ours.decode(ours("The dog")["input_ids"]) == "the dog"


PLAY = "\n !,.:ABCDEFGHIKLMNOPRSTUVWYabcdefghijklmnopqrstuvwyz"


def test_nanogpt_goes_on_character_by_character(make_nanogpt, tmp_path, capsys):
    source = make_nanogpt(characters=PLAY)
    assert main(["convert", str(source), str(tmp_path / "ours")]) == 0
    tokenizer = load_tokenizer(tmp_path / "ours")
    text = "ROMEO:\nTo be,  or not! "
    assert tokenizer(text)["input_ids"] == [PLAY.index(character) for character in text]
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    capsys.readouterr()
    words = ["generate", str(tmp_path / "ours"), "--prompt", text, "--max_new_tokens", "60", "--seed", "1"]
    assert main(words) == 0
    written = capsys.readouterr().out
    assert written.startswith(text)
    assert len(written) == len(text) + 61
    assert main(["generate", str(tmp_path / "ours"), "--prompt", "größer"]) == 2
    assert "'ö'" in capsys.readouterr().err


def test_nanogpt_on_gpt_2_pieces_needs_their_tokenizer(make_nanogpt, gpt2_tokenizer, tmp_path, capsys):
    source = make_nanogpt(vocab_size=320)  # padded, as nanoGPT's 50304
    assert main(["convert", str(source), str(tmp_path / "without")]) == 0
    assert "Give its tokenizer by --tokenizer" in capsys.readouterr().out
    words = ["convert", str(source / "ckpt.pt"), str(tmp_path / "with"), "--tokenizer", str(gpt2_tokenizer)]
    assert main(words) == 0
    tokenizer = load_tokenizer(tmp_path / "with")
    assert tokenizer("the dog")["input_ids"] == read_tokenizer(gpt2_tokenizer)("the dog")["input_ids"]
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "with").config.vocab_size == 320
    assert main(["generate", str(tmp_path / "with"), "--prompt", "the dog", "--max_new_tokens", "5"]) == 0


def test_the_tokenizer_of_another_model_is_refused(make_source, gpt2_tokenizer, tmp_path, capsys):
    words = ["convert", str(make_source("gpt2")), str(tmp_path / "ours"), "--tokenizer", str(gpt2_tokenizer)]
    assert main(words) == 2
    assert "the model has 50 tokens" in capsys.readouterr().err


def test_a_missing_package_is_named(make_source, marian_tokenizer, tmp_path, monkeypatch, capsys):
    source = make_source("marian")
    _copy_tokenizer(marian_tokenizer, source)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["convert", str(source), str(tmp_path / "ours")]) == 2
    assert "needs the package sentencepiece: pip install 'transformer-theatre[convert]'" in capsys.readouterr().err


def test_texts_of_a_file_are_what_is_compared(make_source, gpt2_tokenizer, tmp_path):
    size = len(json.loads((gpt2_tokenizer / "vocab.json").read_text(encoding="utf-8")))
    source = make_source("gpt2", vocab_size=size)
    _copy_tokenizer(gpt2_tokenizer, source)
    (tmp_path / "texts.txt").write_text("the dog\n\nran home\n", encoding="utf-8")
    words = ["convert", str(source), str(tmp_path / "ours"), "--sentences", str(tmp_path / "texts.txt")]
    assert main(words) == 0
    report = json.loads((tmp_path / "ours" / "parity.json").read_text(encoding="utf-8"))
    assert (report["texts"], report["text_is"]) == (2, str(tmp_path / "texts.txt"))


def test_the_licence_comes_along(make_source, tmp_path):
    source = make_source("gpt2")
    card = "---\nlicense: cc-by-4.0\nlanguage:\n- de\ntags:\n- x\n---\n\n# Theirs\n"
    (source / "README.md").write_text(card, encoding="utf-8")
    assert main(["convert", str(source), str(tmp_path / "ours")]) == 0
    text = (tmp_path / "ours" / "README.md").read_text(encoding="utf-8")
    assert "license: cc-by-4.0" in text
    assert "- de\n" in text
    assert "outputs identical" in text
