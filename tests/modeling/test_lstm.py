import pytest
import torch
from torch.testing import assert_close
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM, DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from transformer_theatre import LSTMConfig, LSTMForCausalLM, LSTMForConditionalGeneration, LSTMModel
from transformer_theatre.modeling.cache_names import cache_of
from transformer_theatre.modeling.decoding import Constraints, Rows, beam_search
from transformer_theatre.modeling.modeling_lstm_layers import LSTMEncoderOutput


VARIANTS = {
    "luong": {},
    "no-feeding": {"input_feeding": False},
    "sutskever": {"attention": "none", "input_feeding": False},
    "bidirectional": {"bidirectional": True, "reverse_source": False},
    "forwards-one-layer": {"reverse_source": False, "num_hidden_layers": 1},
    "tied": {"tie_word_embeddings": True, "share_encoder_decoder_embeddings": True},
}
variants = pytest.mark.parametrize("fields", VARIANTS.values(), ids=VARIANTS)


def _cell(state, name, x, h, c):
    """One LSTM cell (Zaremba et al., 2014, equations of section 3), in torch's order of gates."""
    gates = state[f"{name.format('weight_ih')}"] @ x + state[f"{name.format('bias_ih')}"]
    gates = gates + state[f"{name.format('weight_hh')}"] @ h + state[f"{name.format('bias_hh')}"]
    i, f, g, o = gates.chunk(4)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def _read(state, name, xs, width):
    """One layer in one direction over a list of vectors: every hidden state, and the last cell."""
    h, c, out = torch.zeros(width), torch.zeros(width), []
    for x in xs:
        h, c = _cell(state, name, x, h, c)
        out.append(h)
    return out, c


def _encode(model, source):
    """The encoder by hand, for one sentence: states in the order of the source, last hidden states and cells."""
    config, state = model.config, model.state_dict()
    xs = list(state["model.encoder.embed_tokens.weight"][source])
    finals = []
    for layer in range(config.num_hidden_layers):
        name = f"model.encoder.lstm.{{}}_l{layer}"
        if config.bidirectional:
            there, there_c = _read(state, name, xs, config.hidden_size // 2)
            back, back_c = _read(state, f"{name}_reverse", xs[::-1], config.hidden_size // 2)
            finals.append((torch.cat([there[-1], back[-1]]), torch.cat([there_c, back_c])))
            xs = [torch.cat(pair) for pair in zip(there, back[::-1], strict=True)]
        else:
            step = -1 if config.reverse_source else 1
            out, c = _read(state, name, xs[::step], config.hidden_size)
            finals.append((out[-1], c))
            xs = out[::step]
    return torch.stack(xs), finals


def _reference_logits(model, source, target):
    """The whole model by hand, from the equations of Luong et al., 2015, for one sentence pair without padding."""
    config, state = model.config, model.state_dict()
    memory, finals = _encode(model, source)
    fed, logits = torch.zeros(config.hidden_size), []
    for token in target:
        x = state["model.decoder.embed_tokens.weight"][token]
        x = torch.cat([x, fed]) if config.input_feeding else x
        for layer, (h, c) in enumerate(finals):
            finals[layer] = _cell(state, f"model.decoder.lstm.{{}}_l{layer}", x, h, c)
            x = finals[layer][0]
        if config.attention == "luong":
            scores = memory @ state["model.decoder.attention.key_proj.weight"].mT @ x  # equation 8, "general"
            context = scores.softmax(0) @ memory  # equation 7
            fed = x = (state["model.decoder.attention.combine.weight"] @ torch.cat([context, x])).tanh()  # equation 5
        logits.append(state["lm_head.weight"] @ x)
    return torch.stack(logits)


@variants
def test_logits_are_the_papers_equations_by_hand(make_lstm, tokens, fields):
    model = make_lstm(**fields)
    for parameter in model.parameters():  # biases start at 0, where mistakes hide
        torch.nn.init.normal_(parameter, std=0.4)
    source, target = tokens(1, 7), tokens(1, 5)
    expected = _reference_logits(model, source[0], target[0])
    assert_close(model(source, decoder_input_ids=target).logits[0], expected, atol=1e-5, rtol=1e-4)


@variants
@pytest.mark.parametrize("where", [(3, 0), (0, 3), (2, 1)], ids=["left", "right", "both"])
@pytest.mark.parametrize("use_cache", [False, True], ids="cache={}".format)
def test_padding_on_either_side_changes_nothing(make_lstm, tokens, fields, where, use_cache):
    model, source, target = make_lstm(**fields), tokens(2, 6), tokens(2, 5)
    expected = model(source, decoder_input_ids=target).logits

    def pad(ids):
        return torch.nn.functional.pad(ids, where, value=model.config.pad_token_id)

    masks = {
        "attention_mask": torch.nn.functional.pad(torch.ones_like(source), where),
        "decoder_attention_mask": torch.nn.functional.pad(torch.ones_like(target), where),
    }
    logits = model(pad(source), decoder_input_ids=pad(target), use_cache=use_cache, **masks).logits
    assert_close(logits[masks["decoder_attention_mask"].bool()], expected.flatten(0, 1), atol=1e-5, rtol=1e-4)


@variants
def test_rows_of_different_lengths_do_not_touch_each_other(make_lstm, tokens, fields):
    model, source, target = make_lstm(**fields), tokens(3, 6), tokens(3, 5)
    mask = torch.tensor([[1] * 6, [0, 0, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]])
    together = model(source, attention_mask=mask, decoder_input_ids=target).logits
    for row in range(3):
        alone = model(source[row][mask[row].bool()][None], decoder_input_ids=target[row : row + 1]).logits
        assert_close(together[row : row + 1], alone, atol=1e-5, rtol=1e-4)


@variants
def test_decoder_never_sees_the_future(make_lstm, tokens, fields):
    model, source, target = make_lstm(**fields), tokens(1, 6), tokens(1, 8)
    changed = target.clone()
    changed[:, 5:] = 3
    logits = model(source, decoder_input_ids=changed, use_cache=False).logits[:, :5]
    assert_close(logits, model(source, decoder_input_ids=target, use_cache=False).logits[:, :5])


def test_a_reversed_source_is_the_source_read_from_its_end(make_lstm, tokens):
    backwards, forwards = make_lstm(), make_lstm(reverse_source=False)
    forwards.load_state_dict(backwards.state_dict())
    source = tokens(2, 6)
    one, other = backwards.get_encoder()(source), forwards.get_encoder()(source.flip(1))
    assert_close(one.last_hidden_state, other.last_hidden_state.flip(1))
    assert_close(one.final_cell_state, other.final_cell_state)


def _steps(model, source, target, cache=None):
    """Read the target token by token: the logits, and the cache."""
    encoder_outputs, logits = model.get_encoder()(source), []
    for t in range(target.shape[1]):
        output = model(
            encoder_outputs=encoder_outputs,
            decoder_input_ids=target[:, t : t + 1],
            past_key_values=cache,
            use_cache=True,
        )
        cache = cache_of(output)
        logits.append(output.logits)
    return torch.cat(logits, 1), cache


@variants
def test_cache_gives_what_the_whole_sequence_gives(make_lstm, tokens, fields):
    model, source, target = make_lstm(**fields), tokens(2, 6), tokens(2, 5)
    logits, cache = _steps(model, source, target)
    assert_close(logits, model(source, decoder_input_ids=target, use_cache=False).logits, atol=1e-5, rtol=1e-4)
    assert isinstance(cache, EncoderDecoderCache)
    assert cache.get_seq_length() == 5


@variants
def test_after_the_first_token_the_cache_knows_all_of_the_source(make_lstm, tokens, fields):
    model, source, target = make_lstm(**fields), tokens(2, 6), tokens(2, 5)
    _, cache = _steps(model, source, target[:, :3])
    forgotten = BaseModelOutput(last_hidden_state=torch.full((2, 6, 16), torch.nan))
    output = model(encoder_outputs=forgotten, decoder_input_ids=target[:, 3:], past_key_values=cache, use_cache=True)
    whole = model(source, decoder_input_ids=target, use_cache=False).logits
    assert_close(output.logits, whole[:, 3:], atol=1e-5, rtol=1e-4)


@variants
def test_reordered_rows_go_on_as_if_each_were_alone(make_lstm, tokens, fields):
    model, source, target = make_lstm(**fields), tokens(3, 6), tokens(3, 6)
    order = torch.tensor([2, 0, 0, 1])
    _, cache = _steps(model, source, target[:, :3])
    cache.batch_select_indices(order)
    cache.reorder_cache(torch.tensor([0, 1, 2, 3]))
    then = torch.cat([target[order, :3], tokens(4, 3)], 1)
    logits, _ = _steps(model, source[order], then[:, 3:], cache)
    expected = model(source[order], decoder_input_ids=then, use_cache=False).logits
    assert_close(logits, expected[:, 3:], atol=1e-5, rtol=1e-4)


@variants
def test_beams_may_share_the_memory_of_their_source(make_lstm, tokens, fields):
    model, source, target = make_lstm(**fields), tokens(2, 6), tokens(2, 2)
    mask = torch.tensor([[1] * 6, [1, 1, 1, 1, 0, 0]])
    encoder_outputs = model.get_encoder()(source, attention_mask=mask)
    shared = {"encoder_outputs": encoder_outputs, "attention_mask": mask, "use_cache": True}
    cache = cache_of(model(decoder_input_ids=target, **shared))
    rows = torch.tensor([0, 0, 0, 1, 1, 1])
    cache.self_attention_cache.reorder_cache(
        rows
    )  # three beams of each source, which the cross-attention cache has once
    then = tokens(6, 2)
    logits = model(decoder_input_ids=then, past_key_values=cache, **shared).logits
    whole = torch.cat([target[rows], then], 1)
    expected = model(source[rows], attention_mask=mask[rows], decoder_input_ids=whole, use_cache=False).logits
    assert_close(logits, expected[:, 2:], atol=1e-5, rtol=1e-4)


@torch.no_grad()
@variants
def test_beam_search_finds_for_each_sentence_what_it_finds_alone(make_lstm, tokens, fields):
    model, source = make_lstm(**fields), tokens(3, 6)
    mask = torch.tensor([[1] * 6, [1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 0]])
    constraints = Constraints((model.config.eos_token_id,), (model.config.pad_token_id,))

    def search(rows):
        known = model.get_encoder()(source[rows], attention_mask=mask[rows])
        lengths = [6, 4, 5][rows]
        return beam_search(Rows(model, mask[rows], known), 1, lengths, constraints, num_beams=3, n_best=2)

    together = search(slice(0, 3))
    for row in range(3):
        for found, alone in zip(together[row], search(slice(row, row + 1))[0], strict=True):
            assert found.token_ids == alone.token_ids
            target = torch.tensor([[1, *found.token_ids]])
            logits = model(source[row][mask[row].bool()][None], decoder_input_ids=target[:, :-1]).logits
            expected = logits.log_softmax(-1).gather(-1, target[:, 1:, None]).sum().item()
            assert found.log_prob == pytest.approx(expected, abs=1e-4)


@variants
def test_a_rewound_cache_goes_on_as_a_fresh_one(make_lstm, tokens, fields):
    model, source, target = make_lstm(**fields), tokens(2, 6), tokens(2, 7)
    _, cache = _steps(model, source, target)
    cache.crop(-4)
    assert cache.get_seq_length() == 3
    other = tokens(2, 2)
    logits, _ = _steps(model, source, other, cache)
    whole = torch.cat([target[:, :3], other], 1)
    expected = model(source, decoder_input_ids=whole, use_cache=False).logits
    assert_close(logits, expected[:, 3:], atol=1e-5, rtol=1e-4)


def test_without_attention_only_the_final_state_knows_the_source(make_lstm, tokens):
    model, source, target = make_lstm(attention="none", input_feeding=False), tokens(2, 6), tokens(2, 5)
    known = model.get_encoder()(source)
    changed = LSTMEncoderOutput(**{**known, "last_hidden_state": torch.full_like(known.last_hidden_state, torch.nan)})
    expected = model(source, decoder_input_ids=target).logits
    assert_close(model(encoder_outputs=changed, decoder_input_ids=target).logits, expected)
    changed = LSTMEncoderOutput(**{**known, "final_cell_state": known.final_cell_state + 1})
    assert not torch.allclose(model(encoder_outputs=changed, decoder_input_ids=target).logits, expected)


@pytest.mark.parametrize("use_cache", [False, True], ids="cache={}".format)
@pytest.mark.parametrize("feeding", [False, True], ids="feeding={}".format)
def test_recorded_attention_sums_to_one_over_real_source_tokens(make_lstm, tokens, use_cache, feeding):
    model, mask = make_lstm(input_feeding=feeding), torch.tensor([[1] * 6, [0, 0, 1, 1, 1, 1]])
    shown = {"output_attentions": True, "output_hidden_states": True, "use_cache": use_cache}
    output = model(tokens(2, 6), attention_mask=mask, decoder_input_ids=tokens(2, 5), **shown)
    (weights,) = output.cross_attentions
    assert weights.shape == (2, 1, 5, 6)
    assert_close(weights.sum(-1), torch.ones(2, 1, 5))
    assert not weights[1, :, :, :2].any()
    assert [states.shape for states in output.decoder_hidden_states] == [(2, 5, 16)] * 2
    assert_close(output.encoder_hidden_states[-1], output.encoder_last_hidden_state)


@variants
def test_gradients_reach_every_parameter(make_lstm, tokens, fields):
    model = make_lstm(**fields).train()
    model(tokens(2, 6), labels=tokens(2, 5)).loss.backward()
    assert all(parameter.grad.any() for parameter in model.parameters())


def test_labels_are_aligned_with_the_logits(make_lstm, tokens):
    model, source, labels = make_lstm(), tokens(2, 6), tokens(2, 5)
    labels[1, 3:] = -100
    inputs = model.prepare_decoder_input_ids_from_labels(labels)
    assert inputs[1].tolist() == [1, *labels[1, :3].tolist(), 0]
    logits = model(source, decoder_input_ids=inputs).logits
    picked = logits.log_softmax(-1).gather(-1, labels.clamp(min=0)[..., None])[..., 0][labels != -100]
    assert_close(model(source, labels=labels).loss, -picked.mean())
    assert_close(model(source, labels=labels, num_items_in_batch=16).loss, -picked.sum() / 16)


def test_labels_of_a_language_model_are_shifted_by_it(make_lstm, tokens):
    model, ids = make_lstm(LSTMForCausalLM), tokens(2, 6)
    labels = ids.clone()
    labels[1, 4:] = -100
    picked = model(ids).logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
    assert_close(model(ids, labels=labels).loss, -picked[labels[:, 1:] != -100].mean())
    assert_close(model(ids[:, :-1], labels=labels).loss, model(ids, labels=labels).loss)  # the last one only predicted
    assert_close(model(ids, labels=labels, num_items_in_batch=16).loss, -picked[labels[:, 1:] != -100].sum() / 16)
    shifted = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=-100)
    assert_close(model(ids, labels=labels, shift_labels=shifted).loss, model(ids, labels=labels).loss)


def test_a_language_model_begins_with_zeros_and_keeps_what_it_has_read(make_lstm, tokens):
    model, ids = make_lstm(LSTMForCausalLM), tokens(2, 6)
    first = model(ids[:, :4], use_cache=True)
    assert isinstance(cache_of(first), DynamicCache)
    rest = model(ids[:, 4:], past_key_values=cache_of(first)).logits
    assert_close(torch.cat([first.logits, rest], 1), model(ids, use_cache=False).logits, atol=1e-5, rtol=1e-4)
    mask = torch.tensor([[1] * 6, [0, 0, 1, 1, 1, 1]])
    for use_cache in (False, True):
        logits = model(ids, attention_mask=mask, use_cache=use_cache).logits[1, 2:]
        assert_close(logits, model(ids[1:, 2:]).logits[0], atol=1e-5, rtol=1e-4)


def test_a_language_model_takes_no_source_from_its_configuration():
    config = LSTMConfig(vocab_size=50, hidden_size=16)
    model = LSTMForCausalLM(config)
    assert config.is_encoder_decoder
    assert not model.config.is_encoder_decoder
    assert not [name for name in model.state_dict() if "encoder." in name or "attention" in name]


def test_dropout_is_never_over_time(make_lstm, tokens):
    # In one layer without dropout on its input and output, nothing is left to drop.
    model = make_lstm(num_hidden_layers=1, dropout=0.5).train()
    model.model.encoder.dropout.p = model.model.decoder.dropout.p = 0.0
    source, target = tokens(2, 6), tokens(2, 5)
    logits = model(source, decoder_input_ids=target).logits
    assert_close(model.eval()(source, decoder_input_ids=target).logits, logits)
    # Between two layers there is.
    model = make_lstm(num_hidden_layers=2, dropout=0.5).train()
    model.model.encoder.dropout.p = model.model.decoder.dropout.p = 0.0
    logits = model(source, decoder_input_ids=target).logits
    assert not torch.allclose(model.eval()(source, decoder_input_ids=target).logits, logits)


def test_weights_start_uniform_and_forget_gates_open(make_lstm):
    model = make_lstm(hidden_size=64, initializer_range=0.1)
    for name, parameter in model.named_parameters():
        if "bias" not in name:
            assert parameter.abs().max() <= 0.1
            assert parameter.std().item() == pytest.approx(0.1 / 3**0.5, rel=0.05)
            continue
        expected = torch.zeros(4, 64)
        expected[1] = 1.0 if "bias_ih" in name else 0.0
        assert torch.equal(parameter, expected.flatten())


@variants
def test_saved_model_comes_back(make_lstm, tokens, tmp_path, fields):
    model, source, target = make_lstm(**fields), tokens(2, 6), tokens(2, 5)
    model.save_pretrained(tmp_path)
    expected = model(source, decoder_input_ids=target).logits
    again = AutoModelForSeq2SeqLM.from_pretrained(tmp_path).eval()
    assert_close(again(source, decoder_input_ids=target).logits, expected)
    base = AutoModel.from_pretrained(tmp_path).eval()
    assert type(base) is LSTMModel
    states = model.model(source, decoder_input_ids=target).last_hidden_state
    assert_close(base(source, decoder_input_ids=target).last_hidden_state, states)


def test_saved_language_model_comes_back(make_lstm, tokens, tmp_path):
    model, ids = make_lstm(LSTMForCausalLM), tokens(2, 6)
    model.save_pretrained(tmp_path)
    assert_close(AutoModelForCausalLM.from_pretrained(tmp_path).eval()(ids).logits, model(ids).logits)
    assert_close(AutoModel.from_pretrained(tmp_path).eval()(ids).last_hidden_state, model.model(ids).last_hidden_state)


@pytest.mark.parametrize("shares", [False, True], ids="shares={}".format)
@pytest.mark.parametrize("ties", [False, True], ids="ties={}".format)
def test_a_resized_vocabulary_fits_everywhere(make_lstm, tokens, shares, ties):
    model = make_lstm(share_encoder_decoder_embeddings=shares, tie_word_embeddings=ties)
    source, target = tokens(2, 6), tokens(2, 5)
    before = model(source, decoder_input_ids=target).logits
    model.resize_token_embeddings(60)
    assert (model.get_encoder().embed_tokens.weight is model.get_decoder().embed_tokens.weight) == shares
    assert (model.lm_head.weight is model.get_decoder().embed_tokens.weight) == ties
    after = model(source + 10, decoder_input_ids=target + 10).logits
    assert after.shape == (2, 5, 60)
    assert_close(model(source, decoder_input_ids=target).logits[..., :50], before)


def test_wrong_use_is_named(make_lstm, tokens):
    model, source, target = make_lstm(), tokens(2, 6), tokens(2, 5)
    only = BaseModelOutput(last_hidden_state=model.get_encoder()(source).last_hidden_state)
    with pytest.raises(ValueError, match="give encoder_outputs as the encoder returned them"):
        model(encoder_outputs=only, decoder_input_ids=target)
    with pytest.raises(ValueError, match="leave cache_implementation out"):
        model.generate(source, cache_implementation="static", max_new_tokens=3)
    with pytest.raises(ValueError, match="exactly one of input_ids and inputs_embeds"):
        model(source)
    with pytest.raises(ValueError, match="needs encoder_hidden_states"):
        model.get_decoder()(target)
    with pytest.raises(ValueError, match="use LSTMForCausalLM"):
        LSTMForConditionalGeneration(LSTMConfig.from_preset("lstm-zaremba"))
