import pytest
import torch
from torch.testing import assert_close
from transformers import AutoModel, AutoModelForSeq2SeqLM
from transformers.modeling_outputs import BaseModelOutput

from transformer_theatre import TransformerModel
from transformer_theatre.modeling.cache_names import cache_of


VARIANTS = {
    "paper": {},
    "pre-norm": {"norm_first": True},
    "learned": {"position_embeddings": "learned", "max_position_embeddings": 40},
    "unscaled": {"scale_embedding": False},
    "untied": {"tie_word_embeddings": False},
    "two-vocabularies": {"share_encoder_decoder_embeddings": False},
    "three-matrices": {"share_encoder_decoder_embeddings": False, "tie_word_embeddings": False},
    "no-biases": {"bias": False, "norm_first": True},
    "gelu-uneven": {"activation_function": "gelu", "encoder_layers": 1, "decoder_layers": 3},
    "fairseq": {"position_embeddings": "sinusoidal-fairseq", "position_offset": 2, "output_bias": True},
    "own-source-vocabulary": {"share_encoder_decoder_embeddings": False, "source_vocab_size": 70, "output_bias": True},
}
variants = pytest.mark.parametrize("fields", VARIANTS.values(), ids=VARIANTS)


def _reference_logits(model, source, target):
    """Figure 1 by hand, from equations 1 and 2, for one sentence pair without padding."""
    config, state = model.config, model.state_dict()

    def linear(x, name):
        return x @ state[f"{name}.weight"].mT + (state[f"{name}.bias"] if config.bias else 0)

    def norm(x, name):
        return torch.nn.functional.layer_norm(
            x, (config.d_model,), state[f"{name}.weight"], state.get(f"{name}.bias"), 1e-5
        )

    def attention(x, memory, name, heads, causal):
        memory = x if memory is None else memory
        width = config.d_model // heads
        q, k, v = linear(x, f"{name}.q_proj"), linear(memory, f"{name}.k_proj"), linear(memory, f"{name}.v_proj")
        outputs = []
        for h in range(heads):
            part = slice(h * width, (h + 1) * width)
            scores = q[:, part] @ k[:, part].mT / width**0.5
            if causal:
                scores = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -torch.inf)
            outputs.append(scores.softmax(-1) @ v[:, part])
        return linear(torch.cat(outputs, -1), f"{name}.out_proj")

    def feed_forward(x, name):
        act = torch.relu if config.activation_function == "relu" else torch.nn.functional.gelu
        return linear(act(linear(x, f"{name}.fc1")), f"{name}.fc2")

    def attend(x, name, heads, causal=False, memory=None):
        if config.norm_first:
            return x + attention(norm(x, f"{name}_add_norm.norm"), memory, name, heads, causal)
        return norm(x + attention(x, memory, name, heads, causal), f"{name}_add_norm.norm")

    def feed(x, name):
        if config.norm_first:
            return x + feed_forward(norm(x, f"{name}_add_norm.norm"), name)
        return norm(x + feed_forward(x, name), f"{name}_add_norm.norm")

    def embed(ids, side):
        x = state[f"model.{side}.embed_tokens.weight"][ids] * (config.d_model**0.5 if config.scale_embedding else 1)
        if config.position_embeddings == "learned":
            return x + state[f"model.{side}.embed_positions.weight"][: len(ids)]
        fairseq = config.position_embeddings == "sinusoidal-fairseq"
        exponents = torch.arange(0, config.d_model, 2) / (config.d_model - 2 * fairseq)
        angles = (torch.arange(len(ids)) + config.position_offset)[:, None] / 10_000**exponents
        waves = torch.zeros_like(x)
        waves[:, 0::2], waves[:, 1::2] = angles.sin(), angles.cos()
        return x + waves

    memory = embed(source, "encoder")
    for i in range(config.encoder_layers):
        memory = attend(memory, f"model.encoder.layers.{i}.self_attention", config.encoder_attention_heads)
        memory = feed(memory, f"model.encoder.layers.{i}.feed_forward")
    memory = norm(memory, "model.encoder.norm") if config.norm_first else memory
    x = embed(target, "decoder")
    for i in range(config.decoder_layers):
        x = attend(x, f"model.decoder.layers.{i}.self_attention", config.decoder_attention_heads, causal=True)
        x = attend(x, f"model.decoder.layers.{i}.cross_attention", config.decoder_attention_heads, memory=memory)
        x = feed(x, f"model.decoder.layers.{i}.feed_forward")
    x = norm(x, "model.decoder.norm") if config.norm_first else x
    return x @ state["lm_head.weight"].mT + state.get("lm_head.bias", 0)


@variants
def test_logits_are_figure_1_by_hand(make_transformer, tokens, fields):
    model = make_transformer(**fields)
    for parameter in model.parameters():  # norms and biases start at 1 and 0, where mistakes hide
        torch.nn.init.normal_(parameter, std=0.3)
    source, target = tokens(1, 7), tokens(1, 5)
    expected = _reference_logits(model, source[0], target[0])
    assert_close(model(source, decoder_input_ids=target).logits[0], expected, atol=1e-5, rtol=1e-4)


@variants
def test_decoder_never_sees_the_future(make_transformer, tokens, fields):
    model, source, target = make_transformer(**fields), tokens(1, 6), tokens(1, 8)
    changed = target.clone()
    changed[:, 5:] = 3
    before = model(source, decoder_input_ids=target).logits[:, :5]
    assert_close(model(source, decoder_input_ids=changed).logits[:, :5], before)


def test_encoder_sees_the_whole_screen(make_transformer, tokens):
    encoder, source = make_transformer().get_encoder(), tokens(1, 6)
    changed = source.clone()
    changed[:, -1] = 49 - changed[:, -1] + 3
    assert not torch.allclose(encoder(source).last_hidden_state[:, 0], encoder(changed).last_hidden_state[:, 0])


@variants
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_on_either_side_changes_nothing(make_transformer, tokens, fields, side):
    model = make_transformer(**fields)
    source, target = tokens(2, 6), tokens(2, 5)
    expected = model(source, decoder_input_ids=target).logits
    where = (3, 0) if side == "left" else (0, 3)

    def pad(ids):
        padded = torch.nn.functional.pad(ids, where, value=model.config.pad_token_id)
        return padded, torch.nn.functional.pad(torch.ones_like(ids), where)

    (source, mask), (target, target_mask) = pad(source), pad(target)
    logits = model(source, mask, decoder_input_ids=target, decoder_attention_mask=target_mask).logits
    assert_close(logits[target_mask.bool()], expected.flatten(0, 1), atol=1e-5, rtol=1e-4)


@torch.no_grad()  # flex attention has no gradients on a CPU
@pytest.mark.parametrize("backend", ["sdpa", "flex_attention"])
@variants
def test_backends_agree_with_equation_1(make_transformer, tokens, fields, backend):
    model, source, target = make_transformer(**fields), tokens(2, 6), tokens(2, 5)
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])
    model.set_attn_implementation("eager")
    expected = model(source, mask, decoder_input_ids=target).logits
    model.set_attn_implementation(backend)
    assert_close(model(source, mask, decoder_input_ids=target).logits, expected, atol=1e-5, rtol=1e-4)


@variants
def test_cache_gives_what_the_whole_sequence_gives(make_transformer, tokens, fields):
    model, source, target = make_transformer(**fields), tokens(2, 6), tokens(2, 5)
    expected = model(source, decoder_input_ids=target).logits
    memory, past, steps = model.get_encoder()(source), None, []
    for t in range(target.shape[1]):
        output = model(
            encoder_outputs=memory, decoder_input_ids=target[:, t : t + 1], past_key_values=past, use_cache=True
        )
        past = cache_of(output)
        steps.append(output.logits)
    assert_close(torch.cat(steps, 1), expected, atol=1e-5, rtol=1e-4)


@variants
def test_three_way_tying_follows_its_switches(make_transformer, fields):
    model = make_transformer(**fields)
    source, target = model.model.encoder.embed_tokens.weight, model.model.decoder.embed_tokens.weight
    tied, shared = model.config.tie_word_embeddings, model.config.share_encoder_decoder_embeddings
    assert (source is target) == shared
    assert (model.lm_head.weight is target) == tied


@variants
def test_saved_model_comes_back(make_transformer, tokens, tmp_path, fields):
    model, source, target = make_transformer(**fields), tokens(2, 6), tokens(2, 5)
    model.save_pretrained(tmp_path)
    again = AutoModelForSeq2SeqLM.from_pretrained(tmp_path).eval()
    assert type(again) is type(model)
    assert_close(again(source, decoder_input_ids=target).logits, model(source, decoder_input_ids=target).logits)
    base = AutoModel.from_pretrained(tmp_path).eval()
    assert type(base) is TransformerModel
    expected = model.model(source, decoder_input_ids=target).last_hidden_state
    assert_close(base(source, decoder_input_ids=target).last_hidden_state, expected)


def test_gradients_reach_every_parameter(make_transformer, tokens):
    model = make_transformer(norm_first=True, position_embeddings="learned", tie_word_embeddings=False).train()
    model(tokens(2, 6), labels=tokens(2, 5)).loss.backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    # A key's bias adds the same to every score of a query, which the softmax takes away again.
    assert all(name.endswith("k_proj.bias") for name in silent)


def test_positions_far_beyond_the_hint_work_untrained(make_transformer, tokens):
    model = make_transformer(max_position_embeddings=8)
    assert model(tokens(1, 5000), decoder_input_ids=tokens(1, 2)).logits.isfinite().all()


def test_too_many_tokens_for_learned_positions_are_named(make_transformer, tokens):
    model = make_transformer(position_embeddings="learned", max_position_embeddings=8)
    with pytest.raises(ValueError, match="9 tokens are more than the model's max_position_embeddings=8"):
        model(tokens(1, 9), decoder_input_ids=tokens(1, 2))
    with pytest.raises(ValueError, match="9 tokens are more than the model's max_position_embeddings=8"):
        model.generate(tokens(1, 4), max_new_tokens=20, eos_token_id=None)


def test_an_unknown_activation_is_named(make_transformer):
    with pytest.raises(ValueError, match=r"activation_function='swishh' must be one of: .*relu"):
        make_transformer(activation_function="swishh")


def test_loss_is_the_mean_over_real_labels(make_transformer, tokens):
    model, source, labels = make_transformer(), tokens(2, 6), tokens(2, 5)
    labels[1, 3:] = -100
    logits = model(source, decoder_input_ids=model.prepare_decoder_input_ids_from_labels(labels)).logits
    picked = logits.log_softmax(-1).gather(-1, labels.clamp(min=0)[..., None])[..., 0]
    assert_close(model(source, labels=labels).loss, -picked[labels != -100].mean())


def test_loss_is_divided_by_the_items_of_the_whole_batch(make_transformer, tokens):
    model, source, labels = make_transformer(), tokens(2, 6), tokens(2, 5)
    assert_close(model(source, labels=labels, num_items_in_batch=40).loss, model(source, labels=labels).loss / 4)


def test_decoder_input_is_the_target_behind_the_start_token(make_transformer):
    model = make_transformer()
    shifted = model.prepare_decoder_input_ids_from_labels(torch.tensor([[7, 8, 5, 2], [9, 2, -100, -100]]))
    start, pad = model.config.decoder_start_token_id, model.config.pad_token_id
    assert shifted.tolist() == [[start, 7, 8, 5], [start, 9, 2, pad]]


def test_given_encoder_outputs_and_embeddings_stand_for_their_ids(make_transformer, tokens):
    model, source, target = make_transformer(), tokens(2, 6), tokens(2, 5)
    expected = model(source, decoder_input_ids=target).logits
    memory = model.get_encoder()(source)
    embed = model.get_input_embeddings()
    assert_close(model(encoder_outputs=memory, decoder_input_ids=target).logits, expected)
    as_tuple = (memory.last_hidden_state,)
    assert_close(model(encoder_outputs=as_tuple, decoder_input_ids=target).logits, expected)
    assert isinstance(memory, BaseModelOutput)
    assert_close(model(inputs_embeds=embed(source), decoder_inputs_embeds=embed(target)).logits, expected)


def test_neither_and_both_inputs_are_refused(make_transformer, tokens):
    model, source = make_transformer(), tokens(1, 3)
    with pytest.raises(ValueError, match="exactly one of input_ids and inputs_embeds"):
        model(source)
    with pytest.raises(ValueError, match="exactly one of input_ids and inputs_embeds"):
        model.get_encoder()(source, inputs_embeds=model.get_input_embeddings()(source))


def test_attentions_and_states_are_recorded(make_transformer, tokens):
    model = make_transformer()
    model.set_attn_implementation("eager")
    output = model(tokens(2, 6), decoder_input_ids=tokens(2, 5), output_attentions=True, output_hidden_states=True)
    assert [a.shape for a in output.encoder_attentions] == [(2, 4, 6, 6)] * 2
    assert [a.shape for a in output.decoder_attentions] == [(2, 2, 5, 5)] * 2
    assert [a.shape for a in output.cross_attentions] == [(2, 2, 5, 6)] * 2
    assert len(output.encoder_hidden_states) == len(output.decoder_hidden_states) == 3
    for weights in output.decoder_attentions:
        assert not weights.triu(1).any()


def test_two_vocabularies_have_their_sizes_and_cannot_be_resized_as_one(make_transformer, tokens):
    model = make_transformer(**VARIANTS["own-source-vocabulary"])
    output = model(torch.randint(50, 70, (2, 6)), labels=tokens(2, 5))
    assert output.logits.shape == (2, 5, 50)
    assert output.loss.isfinite()
    assert model.generate(torch.randint(50, 70, (2, 6)), num_beams=3, max_new_tokens=4).max() < 50
    assert model.get_input_embeddings() is model.resize_token_embeddings()
    with pytest.raises(
        ValueError, match=r"\(80\) cannot fit two vocabularies: source_vocab_size=70, and vocab_size=50"
    ):
        model.resize_token_embeddings(80)


@pytest.mark.parametrize("fields", [f for f in VARIANTS.values() if "source_vocab_size" not in f], ids=str)
@pytest.mark.parametrize("size", [60, 45])
def test_resized_embeddings_stay_tied_and_keep_their_rows(make_transformer, tokens, fields, size):
    model, source, target = make_transformer(**fields), tokens(2, 6) % 45, tokens(2, 5) % 45
    before = model(source, decoder_input_ids=target).logits
    ours, theirs = model.model.encoder, model.model.decoder
    sides, head = (
        ours.embed_tokens.weight is theirs.embed_tokens.weight,
        model.lm_head.weight is theirs.embed_tokens.weight,
    )
    model.resize_token_embeddings(size)
    assert (ours.embed_tokens.weight is theirs.embed_tokens.weight) == sides
    assert (model.lm_head.weight is theirs.embed_tokens.weight) == head
    assert model.config.vocab_size == size == len(ours.embed_tokens.weight) == len(theirs.embed_tokens.weight)
    logits = model(source, decoder_input_ids=target).logits
    assert logits.shape[-1] == size
    assert_close(logits[..., :45], before[..., :45])


def test_kept_logits_are_those_of_the_last_positions(make_transformer, tokens):
    model, source, target = make_transformer(), tokens(2, 6), tokens(2, 5)
    whole = model(source, decoder_input_ids=target).logits
    assert_close(model(source, decoder_input_ids=target, logits_to_keep=2).logits, whole[:, -2:])
    assert_close(model(source, decoder_input_ids=target, logits_to_keep=torch.tensor([0, 3])).logits, whole[:, [0, 3]])


def test_forward_compiles_without_graph_breaks(make_transformer, tokens):
    model, source, target = make_transformer(), tokens(2, 6), tokens(2, 5)
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    expected = model(source, mask, decoder_input_ids=target).logits
    assert_close(compiled(source, mask, decoder_input_ids=target).logits, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_loads_and_stays_near(make_transformer, tokens, tmp_path, dtype):
    model, source, target = make_transformer(), tokens(2, 6), tokens(2, 5)
    model.save_pretrained(tmp_path)
    half = AutoModelForSeq2SeqLM.from_pretrained(tmp_path, dtype=dtype, device_map="cpu").eval()
    logits = half(source, decoder_input_ids=target).logits
    assert logits.dtype == dtype
    assert_close(logits.float(), model(source, decoder_input_ids=target).logits, atol=0.1, rtol=0.1)


def test_weights_start_as_documented(make_transformer):
    model = make_transformer(vocab_size=2000, d_model=64)
    assert model.get_input_embeddings().weight.std().item() == pytest.approx(64**-0.5, rel=0.05)
    projection = model.model.encoder.layers[0].self_attention.q_proj
    assert projection.weight.abs().max().item() == pytest.approx((6 / 128) ** 0.5, rel=0.05)
    assert not projection.bias.any()
