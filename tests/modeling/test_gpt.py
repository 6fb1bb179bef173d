import pytest
import torch
from torch.testing import assert_close
from transformers import AutoModel, AutoModelForCausalLM

from transformer_theatre import GPTModel
from transformer_theatre.modeling.cache_names import cache_of


variants = pytest.mark.parametrize(
    "fields",
    [{}, {"norm_first": True}, {"tie_word_embeddings": False}, {"norm_first": True, "bias": False}],
    ids=["gpt-1", "gpt-2", "untied", "no-biases"],
)


@variants
def test_future_changes_nothing(make_gpt, tokens, fields):
    model, ids = make_gpt(**fields), tokens(1, 8)
    changed = ids.clone()
    changed[:, 5:] = 3
    assert_close(model(changed).logits[:, :5], model(ids).logits[:, :5])


@variants
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_on_either_side_changes_nothing(make_gpt, tokens, fields, side):
    model, ids = make_gpt(**fields), tokens(2, 6)
    where = (4, 0) if side == "left" else (0, 4)
    padded = torch.nn.functional.pad(ids, where, value=0)
    mask = torch.nn.functional.pad(torch.ones_like(ids), where)
    logits = model(padded, attention_mask=mask).logits[mask.bool()]
    assert_close(logits, model(ids).logits.flatten(0, 1), atol=1e-5, rtol=1e-4)


@torch.no_grad()  # flex attention has no gradients on a CPU
@pytest.mark.parametrize("backend", ["eager", "sdpa", "flex_attention"])
def test_packed_documents_do_not_see_one_another(make_gpt, tokens, backend):
    model = make_gpt()
    model.set_attn_implementation(backend)
    first, second = tokens(1, 5), tokens(1, 7)
    positions = torch.cat([torch.arange(5), torch.arange(7)])[None]
    packed = model(torch.cat([first, second], 1), position_ids=positions).logits
    apart = torch.cat([model(first).logits, model(second).logits], 1)
    assert_close(packed, apart, atol=1e-5, rtol=1e-4)


@torch.no_grad()
@variants
def test_backends_agree(make_gpt, tokens, fields):
    model, ids = make_gpt(**fields), tokens(2, 6)
    mask = torch.tensor([[1] * 6, [0, 0, 1, 1, 1, 1]])
    logits = {}
    for backend in ("eager", "sdpa", "flex_attention"):
        model.set_attn_implementation(backend)
        logits[backend] = model(ids, attention_mask=mask).logits[mask.bool()]
    assert_close(logits["sdpa"], logits["eager"], atol=1e-5, rtol=1e-4)
    assert_close(logits["flex_attention"], logits["eager"], atol=1e-5, rtol=1e-4)


@variants
def test_cache_gives_what_the_whole_sequence_gives(make_gpt, tokens, fields):
    model, ids = make_gpt(**fields), tokens(2, 6)
    past, steps = None, []
    for t in range(6):
        output = model(ids[:, t : t + 1], past_key_values=past, use_cache=True)
        past = cache_of(output)
        steps.append(output.logits)
    assert_close(torch.cat(steps, 1), model(ids).logits, atol=1e-5, rtol=1e-4)


def test_labels_are_shifted_by_the_model(make_gpt, tokens):
    model, ids = make_gpt(), tokens(2, 6)
    labels = ids.clone()
    labels[1, 4:] = -100
    picked = model(ids).logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
    assert_close(model(ids, labels=labels).loss, -picked[labels[:, 1:] != -100].mean())
    assert_close(model(ids, labels=labels, num_items_in_batch=16).loss, -picked[labels[:, 1:] != -100].sum() / 16)
    assert_close(model(ids[:, :-1], labels=labels).loss, model(ids, labels=labels).loss)  # the last one only predicted
    with pytest.raises(ValueError, match="one label for each token"):
        model(ids[:, :-2], labels=labels)
    shifted = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=-100)
    assert_close(model(ids, labels=labels, shift_labels=shifted).loss, model(ids, labels=labels).loss)


def test_saved_model_comes_back(make_gpt, tokens, tmp_path):
    model, ids = make_gpt(norm_first=True), tokens(2, 6)
    model.save_pretrained(tmp_path)
    assert_close(AutoModelForCausalLM.from_pretrained(tmp_path).eval()(ids).logits, model(ids).logits)
    base = AutoModel.from_pretrained(tmp_path).eval()
    assert type(base) is GPTModel
    assert_close(base(ids).last_hidden_state, model.model(ids).last_hidden_state)


def test_too_many_tokens_are_named(make_gpt, tokens):
    with pytest.raises(ValueError, match="65 tokens are more than the model's max_position_embeddings=64"):
        make_gpt()(tokens(1, 65))
    with pytest.raises(ValueError, match="65 tokens are more than the model's max_position_embeddings=64"):
        make_gpt().generate(tokens(1, 60), max_new_tokens=10, eos_token_id=None)


def test_forward_compiles_without_graph_breaks(make_gpt, tokens):
    model, ids = make_gpt(), tokens(2, 6)
    mask = torch.tensor([[1] * 6, [0, 0, 1, 1, 1, 1]])
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    assert_close(compiled(ids, attention_mask=mask).logits, model(ids, attention_mask=mask).logits)


@pytest.mark.parametrize("norm_first", [False, True], ids=["gpt-1", "gpt-2"])
def test_weights_start_as_the_papers_say(make_gpt, norm_first):
    model = make_gpt(norm_first=norm_first, d_model=64, ffn_dim=256, num_hidden_layers=8)
    layer = model.model.layers[3]
    std = 0.02 * (2 * 8) ** -0.5 if norm_first else 0.02
    assert layer.feed_forward.fc2.weight.std().item() == pytest.approx(std, rel=0.05)
    assert layer.self_attention.out_proj.weight.std().item() == pytest.approx(std, rel=0.05)
    assert layer.feed_forward.fc1.weight.std().item() == pytest.approx(0.02, rel=0.05)


def test_recorded_attention_is_causal_and_sums_to_one(make_gpt, tokens):
    model = make_gpt()
    model.set_attn_implementation("eager")
    output = model(tokens(2, 6), output_attentions=True, output_hidden_states=True)
    assert len(output.attentions) == 2
    assert len(output.hidden_states) == 3
    for weights in output.attentions:
        assert not weights.triu(1).any()
        assert_close(weights.sum(-1), torch.ones(2, 4, 6))
