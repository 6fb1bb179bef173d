import subprocess
import sys

import pytest
import torch
from torch.testing import assert_close
from transformers import AutoModelForMultipleChoice, AutoModelForSequenceClassification

from transformer_theatre import GPTForCausalLM, GPTForMultipleChoice, GPTForSequenceClassification


NO_DROPOUT = {"dropout": 0.0, "attention_dropout": 0.0, "classifier_dropout": 0.0}
# Rows: one sequence; two orders; choices. Labels: classes, numbers, several numbers a row.
TASKS = {
    "classes": ((8, 9), {"num_labels": 3}, lambda: torch.randint(0, 3, (8,))),
    "number": ((8, 9), {"num_labels": 1}, lambda: torch.randn(8)),
    "numbers": ((8, 9), {"num_labels": 3, "problem_type": "regression"}, lambda: torch.randn(8, 3)),
    "several labels": ((8, 9), {"num_labels": 3}, lambda: torch.randint(0, 2, (8, 3)).float()),
    "both orders": ((8, 2, 9), {"num_labels": 2}, lambda: torch.randint(0, 2, (8,))),
    "choices": ((8, 4, 9), {}, lambda: torch.randint(0, 2, (8,))),
}
every_task = pytest.mark.parametrize("task", list(TASKS))


@pytest.fixture
def make_head(make_gpt):
    """Build a tiny fine-tuned model without dropout, whose weights are large enough for mistakes to show."""

    def make(model_class=GPTForSequenceClassification, **fields):
        model = model_class(make_gpt(**{**NO_DROPOUT, **fields}).config).eval()
        torch.nn.init.normal_(model.classifier.weight, std=0.3)
        return model

    return make


@pytest.fixture
def make_task(make_head):
    """Build a model and a batch for a task: rows of unequal length, the later choices of some rows missing."""

    def make(task, **fields):
        shape, more, labels = TASKS[task]
        model = make_head(
            GPTForMultipleChoice if task == "choices" else GPTForSequenceClassification, **more, **fields
        )
        lengths = torch.randint(2, shape[-1] + 1, shape[:-1])
        if task == "choices":
            lengths[::3, 2:] = 0
        mask = (torch.arange(shape[-1]) < lengths[..., None]).long()
        ids = torch.randint(3, 50, shape) * mask
        return model, {"input_ids": ids, "attention_mask": mask, "labels": labels()}

    return make


def cut(batch, rows):
    return {name: values[rows] for name, values in batch.items()}


def test_logits_are_the_classifier_of_the_last_real_state(make_head, tokens):
    model, ids = make_head(num_labels=3), tokens(3, 7)
    states = model.model(ids).last_hidden_state
    assert_close(model(ids).logits, states[:, -1] @ model.classifier.weight.T)
    mask = torch.tensor([[1] * 7, [1] * 4 + [0] * 3, [1] + [0] * 6])
    expected = torch.stack([states[0, 6], states[1, 3], states[2, 0]]) @ model.classifier.weight.T
    assert_close(model(ids, attention_mask=mask).logits, expected, atol=1e-5, rtol=1e-4)


def test_both_orders_are_added_before_the_classifier_and_either_may_come_first(make_head, tokens):
    model, ids = make_head(num_labels=3), tokens(4, 14).view(4, 2, 7)
    one, other = (model.model(ids[:, order]).last_hidden_state[:, -1] for order in (0, 1))
    logits = model(ids).logits
    assert_close(logits, (one + other) @ model.classifier.weight.T, atol=1e-5, rtol=1e-4)
    assert_close(model(ids.flip(1)).logits, logits)


def test_choices_are_scored_apart(make_head, tokens):
    model, ids = make_head(GPTForMultipleChoice), tokens(3, 20).view(3, 4, 5)
    for choice in range(4):
        state = model.model(ids[:, choice]).last_hidden_state[:, -1]
        assert_close(model(ids).logits[:, choice], state @ model.classifier.weight[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@every_task
def test_padding_on_either_side_changes_nothing(make_task, task, training):
    model, batch = make_task(task)
    model.train(training)
    left = {"labels": batch["labels"]}
    order = batch["attention_mask"].argsort(dim=-1, stable=True)
    for name in ("input_ids", "attention_mask"):
        left[name] = batch[name].gather(-1, order)
    assert left["attention_mask"][0, ..., 0].sum() < batch["attention_mask"][0, ..., 0].sum()
    more = {name: torch.nn.functional.pad(batch[name], (0, 5)) for name in ("input_ids", "attention_mask")}
    expected = model(**batch)
    for padded in (left, {**batch, **more}):
        output = model(**padded)
        assert_close(output.logits, expected.logits, atol=1e-5, rtol=1e-4)
        assert_close(output.loss, expected.loss)


@every_task
def test_without_a_mask_the_padding_token_tells(make_task, task):
    model, batch = make_task(task)
    mask = batch.pop("attention_mask")
    assert_close(model.train()(**batch).loss, model(**batch, attention_mask=mask).loss)
    model.config.pad_token_id = None
    assert_close(model(**batch).loss, model(**batch, attention_mask=torch.ones_like(mask)).loss)


def test_a_choice_that_is_all_padding_changes_nothing(make_task):
    model, batch = make_task("choices")
    model.train()
    wider = {name: torch.nn.functional.pad(batch[name], (0, 0, 0, 1)) for name in ("input_ids", "attention_mask")}
    gradients = []
    for inputs in (batch, {**batch, **wider}):
        model.zero_grad()
        output = model(**inputs)
        output.loss.backward()
        gradients.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
        assert_close(output.logits[:, :4], model(**batch).logits)
    assert (output.logits[:, 4] == torch.finfo(torch.float32).min).all()
    assert (output.logits.softmax(-1)[~wider["attention_mask"].any(-1)] == 0).all()
    assert_close(*gradients)


def expected_lm_loss(model, batch):
    """Mean over rows of the mean over their sequences of what GPTForCausalLM makes of each alone."""
    language_model = GPTForCausalLM(model.config)
    language_model.model, language_model.lm_head = model.model, model.lm_head
    means = []
    for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True):
        sequences = zip(ids.view(-1, ids.shape[-1]), mask.view(-1, ids.shape[-1]), strict=True)
        alone = [ids[mask.bool()][None] for ids, mask in sequences if mask.any()]
        means.append(torch.stack([language_model(ids, labels=ids).loss for ids in alone]).mean())
    return torch.stack(means).mean()


@every_task
def test_training_adds_the_language_models_loss_and_evaluation_does_not(make_task, task):
    model, batch = make_task(task, lm_loss_weight=0.25)
    evaluated = model(**batch)
    assert_close(evaluated.loss, evaluated.task_loss)
    assert evaluated.lm_loss is None
    trained = model.train()(**batch)
    assert_close(trained.task_loss, evaluated.task_loss)
    assert_close(trained.lm_loss, expected_lm_loss(model, batch), atol=1e-5, rtol=1e-5)
    assert_close(trained.loss, trained.task_loss + 0.25 * trained.lm_loss)
    model.config.lm_loss_weight = 0
    alone = model(**batch)
    assert alone.lm_loss is None
    assert_close(alone.loss, evaluated.task_loss)


def test_the_language_models_loss_of_rows_as_long_is_that_of_the_language_model(make_head, make_gpt, tokens, tmp_path):
    make_gpt(**NO_DROPOUT).save_pretrained(tmp_path)
    language_model = GPTForCausalLM.from_pretrained(tmp_path)
    model, ids = GPTForSequenceClassification.from_pretrained(tmp_path, num_labels=3).train(), tokens(5, 8)
    output = model(ids, labels=torch.zeros(5, dtype=torch.long))
    assert_close(output.lm_loss, language_model(ids, labels=ids).loss)


def test_task_losses_are_their_formulas(make_task):
    model, batch = make_task("classes")
    batch["labels"][2] = -100
    output, labels = model(**batch), batch["labels"]
    nll = -output.logits.log_softmax(-1)[torch.arange(8), labels.clamp(min=0)]
    assert_close(output.loss, nll[labels != -100].mean())
    model, batch = make_task("number")
    assert_close(model(**batch).loss, (model(**batch).logits[:, 0] - batch["labels"]).square().mean())
    model, batch = make_task("several labels")
    p = model(**batch).logits.sigmoid()
    assert_close(model(**batch).loss, -torch.where(batch["labels"] == 1, p, 1 - p).log().mean())
    model, batch = make_task("choices")
    assert_close(
        model(**batch).loss, -model(**batch).logits.softmax(-1)[torch.arange(8), batch["labels"]].log().mean()
    )


@pytest.mark.parametrize("size", [1, 2, 3, 8], ids="rows={}".format)
@every_task
def test_parts_of_an_update_add_up_to_it(make_task, task, size):
    model, batch = make_task(task)
    model.train()
    batch["labels"][5] = -100 if task != "several labels" else 0
    classes = batch["labels"].dtype == torch.long  # a number may be -100
    items = (batch["labels"] != -100).sum() if classes else torch.tensor(batch["labels"].numel())
    whole = model(**batch)
    parts = [model(**cut(batch, slice(start, start + size)), num_items_in_batch=items) for start in range(0, 8, size)]
    for name in ("task_loss", "lm_loss", "loss"):
        assert_close(sum(part[name] for part in parts), whole[name])


@pytest.mark.parametrize("task", ["classes", "both orders", "choices"])
def test_a_row_without_label_counts_in_neither_loss(make_task, task):
    model, batch = make_task(task)
    model.train()
    batch["labels"][5] = -100
    others = [0, 1, 2, 3, 4, 6, 7]
    assert_close(model(**batch).loss, model(**cut(batch, others)).loss)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize(
    "auto_class", [AutoModelForSequenceClassification, AutoModelForMultipleChoice], ids=lambda c: c.__name__
)
def test_a_language_model_becomes_a_fine_tuned_one_and_only_the_classifier_is_new(
    make_gpt, tmp_path, auto_class, tied
):
    language_model = make_gpt(tie_word_embeddings=tied, norm_first=True)
    language_model.save_pretrained(tmp_path)
    model, loading = auto_class.from_pretrained(tmp_path, output_loading_info=True)
    assert set(loading["missing_keys"]) == {"classifier.weight"}
    assert not loading["unexpected_keys"]
    assert not loading["mismatched_keys"]
    state = model.state_dict()
    assert_close({name: state[name] for name in language_model.state_dict()}, dict(language_model.state_dict()))
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied
    assert 0.01 < model.classifier.weight.std() < 0.03
    back, loading = GPTForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not loading["missing_keys"]
    assert type(back) is GPTForCausalLM


@every_task
def test_gradients_reach_every_parameter_in_training(make_task, task):
    model, batch = make_task(task, tie_word_embeddings=False)
    model.train()(**batch).loss.backward()
    assert not [name for name, parameter in model.named_parameters() if not parameter.grad.any()]


def test_embeddings_grow_and_stay_tied(make_task):
    model, batch = make_task("classes")
    before = model(**batch).logits
    model.resize_token_embeddings(53, mean_resizing=False)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert model.lm_head.weight.shape == (53, 16)
    assert_close(model(**batch).logits, before)
    batch["input_ids"][:, 0] = 52
    assert model.train()(**batch).loss.isfinite()


@every_task
def test_embeddings_in_place_of_tokens(make_task, task):
    model, batch = make_task(task)
    expected, embedded = model(**batch), model.model.embed_tokens(batch["input_ids"])
    inputs = {"inputs_embeds": embedded, "attention_mask": batch["attention_mask"], "labels": batch["labels"]}
    assert_close(model(**inputs).loss, expected.loss)
    positions = (batch["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    assert_close(model(**inputs, position_ids=positions).logits, expected.logits)
    with pytest.raises(ValueError, match="set lm_loss_weight=0"):
        model.train()(**inputs)
    model.config.lm_loss_weight = 0
    assert_close(model(**inputs).loss, expected.loss)


def test_wrong_inputs_are_named(make_head, tokens):
    classifier, choices, ids = make_head(), make_head(GPTForMultipleChoice), tokens(2, 12)
    with pytest.raises(ValueError, match=r"shape \(2, 3, 4\) must be \(batch, positions\) or \(batch, 2, positions\)"):
        classifier(ids.view(2, 3, 4))
    with pytest.raises(ValueError, match=r"shape \(2, 12\) must be \(batch, choices, positions\)"):
        choices(ids)
    for model in (classifier, choices):
        with pytest.raises(ValueError, match="exactly one of input_ids and inputs_embeds"):
            model(attention_mask=torch.ones_like(ids))
        with pytest.raises(ValueError, match="exactly one of input_ids and inputs_embeds"):
            model(ids, inputs_embeds=model.model.embed_tokens(ids))


@pytest.mark.slow
@every_task
def test_forward_compiles_without_graph_breaks(make_task, task):
    model, batch = make_task(task)
    model.train()(**batch)  # the library notes the kind of the labels in the configuration
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    assert_close(compiled(**batch).loss, model(**batch).loss)


STRANGER = """
import sys, torch

sys.modules["transformer_theatre"] = None  # importing the package now fails, as where it is not installed
import transformers

folder, auto_class, labels, *saved = sys.argv[1:]
model = getattr(transformers, auto_class).from_pretrained(folder, trust_remote_code=True, num_labels=int(labels)).train()
assert type(model).__module__.startswith("transformers_modules."), type(model).__module__
batch = torch.load(folder + "/batch.pt")
model(**batch).loss.backward()
torch.save(model.eval()(**batch).logits.detach(), folder + "/logits.pt")
for again in saved:
    model.save_pretrained(again)
"""


@pytest.mark.slow
@pytest.mark.parametrize("task", ["both orders", "choices"])
def test_a_stranger_fine_tunes_a_language_model_and_saves_it(make_task, make_gpt, tmp_path, task):
    model, batch = make_task(task)
    language_model, auto_class = GPTForCausalLM(model.config), f"AutoModel{type(model).__name__.removeprefix('GPT')}"
    language_model.save_pretrained(tmp_path / "lm")
    (tmp_path / "fine_tuned").mkdir()
    for folder in ("lm", "fine_tuned"):
        torch.save(batch, tmp_path / folder / "batch.pt")

    def stranger(folder, *saved):
        command = [sys.executable, "-c", STRANGER, str(tmp_path / folder), auto_class, "2", *map(str, saved)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr[-3000:]
        return torch.load(tmp_path / folder / "logits.pt")

    begun = stranger("lm", tmp_path / "fine_tuned")
    assert_close(stranger("fine_tuned"), begun)
    assert_close(type(model).from_pretrained(tmp_path / "fine_tuned")(**batch).logits, begun)
