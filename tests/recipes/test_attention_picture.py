import re
import warnings
from itertools import pairwise

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.image import imread
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from transformer_theatre.recipes import attention_picture
from transformer_theatre.recipes.attention_picture import EMPTY, OPEN_BOX, draw_attention, readable_tokens


TEXTS = ["Sonntag, 22. November 2026", "воскресенье, 22 ноября 2026", "2026年11月22日日曜日", "日曜日、日曜日"]


def attention(*shape):
    return torch.randn(shape).softmax(-1)


@pytest.fixture(scope="module")
def byte_level_tokenizer():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=275, special_tokens=["</s>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")


@pytest.mark.parametrize("text", TEXTS)
def test_readable_tokens_of_a_byte_level_tokenizer_keep_every_byte(byte_level_tokenizer, text):
    tokens = readable_tokens(byte_level_tokenizer, byte_level_tokenizer(text)["input_ids"])
    assert not any(" " in token or "\ufffd" in token for token in tokens)
    joined = "".join(tokens).replace(OPEN_BOX, " ").encode("utf-8")
    as_bytes = re.sub(rb"\\x([0-9a-f]{2})", lambda found: bytes.fromhex(found[1].decode()), joined)
    assert as_bytes.decode("utf-8") == text


def test_readable_tokens_show_incomplete_characters_in_hexadecimal(byte_level_tokenizer):
    ids = byte_level_tokenizer("\u00ff")["input_ids"]
    assert readable_tokens(byte_level_tokenizer, torch.tensor(ids)) == ["\\xc3", "\\xbf"]


def test_readable_tokens_keep_special_tokens_and_mark_spaces(byte_level_tokenizer):
    ids = [*byte_level_tokenizer("2026 ж")["input_ids"], byte_level_tokenizer.eos_token_id]
    tokens = readable_tokens(byte_level_tokenizer, ids)
    assert tokens[-1] == "</s>"
    assert "".join(tokens).count(OPEN_BOX) == 1


def test_readable_tokens_have_the_space_that_decoding_takes_from_the_first_piece(byte_level_tokenizer):
    ids = byte_level_tokenizer("2026 ж")["input_ids"]
    expected = readable_tokens(byte_level_tokenizer, ids)
    backend = Tokenizer.from_str(byte_level_tokenizer.backend_tokenizer.to_str())
    backend.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    stripping = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")
    assert readable_tokens(stripping, ids) == expected
    assert any(OPEN_BOX in token for token in expected)


def test_readable_tokens_of_sentencepiece_keep_the_space_of_a_lone_piece():
    tokenizer = Tokenizer(models.WordLevel({"\u2581a": 0, "b": 1, "<unk>": 2}, unk_token="<unk>"))
    tokenizer.decoder = decoders.Metaspace()
    assert readable_tokens(PreTrainedTokenizerFast(tokenizer_object=tokenizer), [0, 1]) == [f"{OPEN_BOX}a", "b"]


def test_panels_are_the_mean_and_the_heads():
    weights_HTS = attention(3, 2, 5).double().numpy()
    panels = [axes.images[0] for axes in drawn(weights_HTS).axes if axes.images]
    for panel, expected in zip(panels, [weights_HTS.mean(0), *weights_HTS], strict=True):
        np.testing.assert_allclose(panel.get_array(), expected)
    assert panels[0].get_clim() == (0, weights_HTS.mean(0).max())
    assert {panel.get_clim() for panel in panels[1:]} == {(0, weights_HTS.max())}


def test_two_dimensional_weights_have_one_panel():
    assert sum(len(axes.images) for axes in drawn(attention(1, 4, 4).numpy()).axes) == 1


def drawn(weights_HTS, source=None, target=None):
    source = source or [f"word{i}" for i in range(weights_HTS.shape[2])]
    target = target or [f"piece{i}" for i in range(weights_HTS.shape[1])]
    figure = attention_picture._figure(weights_HTS, source, target)
    FigureCanvasAgg(figure).draw()
    return figure


@pytest.mark.parametrize(("heads", "target", "source"), [(1, 3, 3), (4, 12, 30), (8, 60, 3), (2, 3, 60), (8, 60, 60)])
def test_no_two_labels_overlap_and_all_are_inside_the_picture(heads, target, source):
    figure = drawn(attention(heads, target, source).numpy())
    labels = [label for labels in tick_labels(figure.axes[0]) for label in labels]
    titles = [axes.title for axes in figure.axes if axes.title.get_text()]
    for labels_of_axis in tick_labels(figure.axes[0]):
        for one, other in pairwise(labels_of_axis):
            assert not one.get_window_extent().overlaps(other.get_window_extent())
    for label in labels + titles:
        box = label.get_window_extent()
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= figure.bbox.x1
        assert box.y1 <= figure.bbox.y1
    for title in titles[1:]:
        assert not any(title.get_window_extent().overlaps(label.get_window_extent()) for label in labels)


def test_long_labels_take_no_room_from_the_panel():
    weights = attention(4, 8, 20).numpy()
    short, long = drawn(weights, source=["x"] * 20), drawn(weights, source=["x" * 14] * 20)
    heights = [figure.axes[0].get_window_extent().height for figure in (short, long)]
    assert heights[1] == pytest.approx(heights[0], rel=0.1)


def tick_labels(axes):
    return axes.get_xticklabels(), axes.get_yticklabels()


@pytest.mark.parametrize(
    ("token", "label"),
    [
        ("Nov", "Nov"),
        (" Nov", f"{OPEN_BOX}Nov"),
        ("", EMPTY),
        ("\n", "U+000A"),
        ("年", "U+5E74"),
        ("ж", "ж"),
        ("Ελλ", "Ελλ"),
        ("</s>", "</s>"),
        ("x" * 99, "x" * 13 + "…"),
    ],
    ids=ascii,
)
def test_labels_are_visible_and_what_the_font_lacks_is_its_code_point(token, label):
    assert attention_picture._label(token) == label


def test_no_script_and_no_dollar_sign_makes_a_box_or_a_formula(tmp_path):
    tokens = ["日", "อา", "रवि", "الأحد", "מרץ", "კვი", "እሑድ", "\U0001f600", "$\\frac$", "$x^2$", " ", "\u200f"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns of each glyph that a font lacks
        draw_attention(attention(2, 12, 12), tokens, tokens, tmp_path / "a.png", title="明 costs $5 and $6_")


def test_numpy_and_tensors_of_any_type_make_the_same_picture(tmp_path):
    weights = attention(2, 3, 4).bfloat16()
    tokens = {"source_tokens": list("abcd"), "target_tokens": list("xyz")}
    one = draw_attention(weights.float().numpy(), **tokens, path=tmp_path / "one.png")
    other = draw_attention(weights.requires_grad_(), **tokens, path=str(tmp_path / "new" / "other.PNG"))
    np.testing.assert_array_equal(imread(one), imread(other))


def test_the_picture_does_not_depend_on_the_users_settings_and_leaves_them_alone(tmp_path):
    weights, tokens = attention(2, 3, 3), list("abc")
    plain = draw_attention(weights, tokens, tokens, tmp_path / "plain.png")
    with matplotlib.rc_context({"text.usetex": True, "font.size": 30, "axes.grid": True}):
        before = dict(matplotlib.rcParams)
        other = draw_attention(weights, tokens, tokens, tmp_path / "other.png")
        assert dict(matplotlib.rcParams) == before
    np.testing.assert_array_equal(imread(plain), imread(other))


def test_a_failing_disk_leaves_the_old_picture_and_nothing_half_written(tmp_path, monkeypatch):
    weights, tokens = attention(2, 3, 3), list("abc")
    path = draw_attention(weights, tokens, tokens, tmp_path / "a.png")
    old = path.read_bytes()

    def write_half(self, file, **_):
        file.write(old[:100])
        raise OSError("No space left on device")

    monkeypatch.setattr(FigureCanvasAgg, "print_figure", write_half)
    with pytest.raises(OSError, match="No space"):
        draw_attention(weights.flip(-1), tokens, tokens, path)
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


def test_wrong_input_is_refused_with_both_numbers(tmp_path):
    path = tmp_path / "a.png"
    not_finite = attention(3, 4)
    not_finite[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"\(2, 3, 4\).*3 target and 4 source.*4 target and 3 source"):
        draw_attention(attention(2, 3, 4), list("abc"), list("wxyz"), path)
    with pytest.raises(ValueError, match=r"\(1, 2, 3, 4\) must be"):
        draw_attention(attention(1, 2, 3, 4), list("abcd"), list("xyz"), path)
    with pytest.raises(ValueError, match=r"\(2, 0, 4\) must be"):
        draw_attention(attention(2, 0, 4), list("abcd"), [], path)
    with pytest.raises(ValueError, match="1 of 12 weights"):
        draw_attention(not_finite, list("abcd"), list("xyz"), path)
    with pytest.raises(ValueError, match=r"a\.pdf.*\.png"):
        draw_attention(attention(3, 4), list("abcd"), list("xyz"), tmp_path / "a.pdf")
    assert not list(tmp_path.iterdir())
