"""Text that appears while it is written."""

import io
import sys

import pytest
import torch
from transformers import TextIteratorStreamer

from transformer_theatre import GPTConfig, GPTForCausalLM
from transformer_theatre.recipes.theatre import main
from transformer_theatre.recipes.token_printer import TokenPrinter
from transformer_theatre.recipes.tokenization import train_bpe_tokenizer, train_character_tokenizer


TEXTS = [
    "plain words, and more",
    "G\u00fcte \u65e5\u672c\u8a9e \u0939\u093f\u0928\u094d\u0926\u0940 \U0001f3ad\U0001f3ad!",
    " begins and ends with a space \n",
    "\ufffd is a character too \ufffd",
    "",
]


@pytest.fixture(scope="module")
def byte_tokenizer():
    """A tokenizer without merges: every byte is a token, and most characters are several."""
    return train_bpe_tokenizer(["ab"], 258, appends_eos=False)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("kind", ["bytes", "pieces", "characters"])
def test_pieces_are_whole_characters_and_together_the_text(byte_tokenizer, text, kind):
    tokenizer = {
        "bytes": lambda: byte_tokenizer,
        "pieces": lambda: train_bpe_tokenizer(TEXTS * 3, 300, appends_eos=False),
        "characters": lambda: train_character_tokenizer(TEXTS),
    }[kind]()
    pieces: list[str] = []
    printer = TokenPrinter(tokenizer, pieces.append, before="prompt: ")
    printer.put(torch.tensor([[3, 4]]))
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    for token in ids:
        printer.put(torch.tensor([token]))
    printer.end()
    assert "".join(pieces) == "prompt: " + text
    assert all(pieces)
    if kind != "pieces" and "\ufffd" not in text:
        assert pieces[1:] == list(text)  # each character as soon as it is there


def test_half_a_character_at_the_end_is_written_at_the_end(byte_tokenizer):
    ids = byte_tokenizer("a\u65e5", add_special_tokens=False)["input_ids"][:-1]
    pieces: list[str] = []
    printer = TokenPrinter(byte_tokenizer, pieces.append)
    for token in [[[5]], *([token] for token in ids)]:
        printer.put(torch.tensor(token))
    assert pieces == ["a"]
    printer.end()
    assert "".join(pieces) == byte_tokenizer.decode(ids)


@pytest.fixture(scope="module")
def folder(byte_tokenizer, tmp_path_factory):
    """A model that writes any bytes."""
    torch.manual_seed(0)
    sizes = {"d_model": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "ffn_dim": 24}
    model = GPTForCausalLM(GPTConfig(vocab_size=258, max_position_embeddings=32, **sizes))
    path = tmp_path_factory.mktemp("writer")
    model.save_pretrained(path)
    byte_tokenizer.save_pretrained(path)
    return path


def test_what_streams_is_what_is_returned_beyond_the_context_too(folder, byte_tokenizer):
    model = GPTForCausalLM.from_pretrained(folder)
    options = {"tokenizer": byte_tokenizer, "max_new_tokens": 80, "seed": 3}
    [text] = model.continue_text(["abc"], **options)
    pieces: list[str] = []
    streamer = TextIteratorStreamer(byte_tokenizer, skip_prompt=True)
    assert model.continue_text(["abc"], streamer=TokenPrinter(byte_tokenizer, pieces.append), **options) == [text]
    assert len(pieces) > 5
    assert model.continue_text(["abc"], streamer=streamer, **options) == [text]
    assert "".join(streamer) == "".join(pieces) == text
    with pytest.raises(ValueError, match="for one prompt, not for 2"):
        model.continue_text(["a", "b"], streamer=streamer, **options)


class Terminal(io.TextIOWrapper):
    """A stdin at which a person sits."""

    def isatty(self):
        """Say so."""
        return True


def test_a_terminal_is_asked_line_after_line(folder, monkeypatch, capsys):
    encode = GPTForCausalLM._encode_prompt

    def refuse(model, prompt, *more):
        if "x" in prompt:
            raise ValueError("There is an x.")
        return encode(model, prompt, *more)

    monkeypatch.setattr(GPTForCausalLM, "_encode_prompt", refuse)
    monkeypatch.setattr(sys, "stdin", Terminal(io.BytesIO(b"ab\nx\nba\n"), encoding="utf-8"))
    assert main(["generate", str(folder), "--max_new_tokens", "3", "--temperature", "0"]) == 0
    shown = capsys.readouterr()
    assert "Ctrl-D ends" in shown.err
    assert "There is an x." in shown.err  # of the second line; the third is answered
    monkeypatch.undo()
    expected = []
    for prompt in ("ab", "ba"):
        assert main(["generate", str(folder), "--prompt", prompt, "--max_new_tokens", "3", "--temperature", "0"]) == 0
        expected.append(capsys.readouterr().out)
    assert shown.out == expected[0] + "\n" + expected[1]
