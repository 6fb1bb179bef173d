"""Documents packed into rows, none of which sees another."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch.testing import assert_close
from transformers import DataCollatorForSeq2Seq
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from transformer_theatre import GPTConfig, GPTForCausalLM
from transformer_theatre.modeling.modeling_layers import eager_attention_forward
from transformer_theatre.recipes.bad_lines import StreamedBadLines
from transformer_theatre.recipes.document_rows import documents_apart, positions_in_documents
from transformer_theatre.recipes.run_arguments import RunArguments
from transformer_theatre.recipes.stream_rows import PackedRows
from transformer_theatre.recipes.text_streams import MemoryStream
from transformer_theatre.recipes.token_counter import TokenCounter
from transformer_theatre.recipes.tokenization import PIECE, encode_blocks, train_bpe_tokenizer
from transformer_theatre.recipes.trainer import TheatreTrainer


DOCUMENTS = ["to be or not", "a", "that is the question", "whether it is nobler", "in the mind to suffer"]


def flash_by_hand(module, query, key, value, attention_mask, scaling, dropout=0.0, *, cu_seq_lens_q, **kwargs):
    """What a flash kernel does with the documents of one row."""
    assert attention_mask is None
    assert len(query) == 1
    assert kwargs["max_length_q"] == int(cu_seq_lens_q.diff().max())
    parts = []
    for begin, end in zip(cu_seq_lens_q[:-1].tolist(), cu_seq_lens_q[1:].tolist(), strict=True):
        later = torch.full((end - begin, end - begin), -torch.inf).triu(1)
        document = (states[:, :, begin:end] for states in (query, key, value))
        parts.append(eager_attention_forward(module, *document, later, scaling, dropout)[0])
    return torch.cat(parts, 1), None


@pytest.fixture(params=["eager", "sdpa", "flex_attention", "flash_by_hand"])
def attention(request, monkeypatch):
    """Every implementation that runs on a CPU, and how the kernels that do not are called."""
    if request.param == "flex_attention":  # the same function, without minutes of compiling it
        with torch.compiler.set_stance("force_eager"):
            yield request.param
        return
    if request.param == "flash_by_hand":
        monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, request.param, flash_by_hand)
        masks = ALL_MASK_ATTENTION_FUNCTIONS._global_mapping
        monkeypatch.setitem(masks, request.param, masks["flash_attention_2"])
    yield request.param


@pytest.fixture
def tokenizer():
    return train_bpe_tokenizer(DOCUMENTS, 268, appends_eos=False)


@pytest.fixture
def model():
    fields = {"vocab_size": 268, "d_model": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 24}
    fields |= {"dropout": 0.0, "attention_dropout": 0.0}
    # Large weights: a token that sees what it should not sees something else.
    return GPTForCausalLM(
        GPTConfig(**fields, max_position_embeddings=48, initializer_range=0.3, norm_first=True)
    ).eval()


def one_by_one(model, rows, end):
    """Nats and number of the predictions in rows, of which each document, or part of one, is given alone."""
    model.set_attn_implementation("eager")
    nats, tokens = 0.0, 0
    for row in rows:
        places = sorted({0, len(row) - 1} | {at for at, token in enumerate(row) if token == end})
        for begin, last in pairwise(places):
            part = torch.tensor([row[begin : last + 1]])
            nats += float(model(part, labels=part).loss.detach()) * (last - begin)
            tokens += last - begin
    return nats, tokens


@torch.no_grad()
def test_packed_documents_have_the_loss_of_the_same_documents_one_by_one(attention, tokenizer, model):
    end = tokenizer.eos_token_id
    ids = [
        end,
        *(token for text in DOCUMENTS for token in [*tokenizer(text, add_special_tokens=False)["input_ids"], end]),
    ]
    nats, tokens = one_by_one(model, [ids], end)
    model.config.max_position_embeddings = 10_000  # each document fits the positions there are; the row need not
    [row] = encode_blocks(Dataset.from_dict({"text": DOCUMENTS}), tokenizer, 10_000, apart=True)
    assert [*row["input_ids"], row["labels"][-1]] == ids
    assert max(row["position_ids"]) < 48 < row["length"]
    model.config._attn_implementation = attention
    batch = DataCollatorForSeq2Seq(tokenizer)([{name: row[name] for name in row if name != "length"}])
    loss = model(**documents_apart(batch, attention)).loss
    assert_close(float(loss), nats / tokens, atol=1e-5, rtol=0)
    if attention == "eager":  # with the mask of padding, the library looks for no documents
        assert abs(float(model(**batch).loss) - nats / tokens) > 0.01


def test_the_trainer_measures_documents_that_rows_cut_as_if_each_part_was_alone(
    attention, tokenizer, model, tmp_path, monkeypatch
):
    blocks = encode_blocks(Dataset.from_dict({"text": DOCUMENTS}), tokenizer, 11, apart=True)
    blocks = blocks.filter(
        lambda row: row["labels"][1] != -100
    )  # the last one reaches back, and sees what others do not
    rows = [[*block["input_ids"], block["labels"][-1]] for block in blocks]
    nats, tokens = one_by_one(model, rows, tokenizer.eos_token_id)
    model.config._attn_implementation = attention
    args = RunArguments(output_dir=str(tmp_path), per_device_eval_batch_size=2, use_cpu=True, disable_tqdm=True)
    collate = DataCollatorForSeq2Seq(tokenizer)
    trainer = TheatreTrainer(
        model=model, args=args, data_collator=collate, eval_dataset=blocks, processing_class=tokenizer
    )
    assert trainer.evaluate()["eval_loss"] == pytest.approx(nats / tokens, abs=1e-5)


@pytest.mark.parametrize("attention", ["eager", "sdpa", "flash_by_hand"], indirect=True)
def test_all_implementations_train_alike(attention, tokenizer, model, tmp_path):
    blocks = encode_blocks(Dataset.from_dict({"text": DOCUMENTS}), tokenizer, 11, apart=True)
    options = {"optim": "sgd", "learning_rate": 0.1, "max_steps": 2, "lr_scheduler_type": "constant"}
    losses = {}
    for kind in ("eager", attention):
        twin = GPTForCausalLM(model.config)
        twin.load_state_dict(model.state_dict())
        twin.config._attn_implementation = kind
        args = RunArguments(
            output_dir=str(tmp_path), use_cpu=True, disable_tqdm=True, save_strategy="no", logging_steps=1, **options
        )
        trainer = TheatreTrainer(
            model=twin, args=args, data_collator=DataCollatorForSeq2Seq(tokenizer), train_dataset=blocks
        )
        trainer.train()
        losses[kind] = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[attention] == pytest.approx(losses["eager"], rel=1e-5)


def test_rows_of_a_stream_are_those_of_the_memory(tokenizer):
    blocks = encode_blocks(Dataset.from_dict({"text": DOCUMENTS}), tokenizer, 11, apart=True)
    stream = MemoryStream(Dataset.from_dict({"text": DOCUMENTS}), StreamedBadLines("error", "documents"), PIECE)
    rows = PackedRows(stream, tokenizer, 11, apart=True)
    rows.restart(0)
    found = [features for _, features in rows.encode(list(iter(lambda: next(rows, None), None)))]
    assert len(found) >= len(blocks) - 1  # what does not fill a row waits for the next epoch
    for features, block in zip(found, blocks, strict=False):
        assert {name: block[name] for name in features} == features


def test_positions_begin_anew_with_each_end_token_and_only_there():
    ids = np.array([7, 1, 5, 6, 1, 1, 8, 9])
    assert positions_in_documents(ids, 1).tolist() == [0, 0, 1, 2, 0, 0, 1, 2]
    assert positions_in_documents(ids, None).tolist() == list(range(8))


def test_attention_is_counted_within_documents():
    positions = torch.tensor([[0, 1, 2, 0, 1], [0, 1, 2, 3, 4]])
    counter = TokenCounter()
    counter.add({"attention_mask": torch.ones(2, 5), "position_ids": positions})
    assert counter.sums == [0, 10, 0, 3**2 + 2**2 + 5**2, 0]
