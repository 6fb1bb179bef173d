import pytest
import torch

from transformer_theatre.recipes.smoothed_loss import SmoothedLoss


def logits_and_labels(rows=2, positions=5, vocabulary=11, dtype=torch.float32, more=0):
    logits = torch.randn(rows, positions, vocabulary, dtype=dtype, requires_grad=True)
    labels = torch.randint(0, vocabulary, (rows, positions + more))
    labels[1, 3:] = -100
    return logits, labels


def by_formula(logits, labels, shifts, epsilon):
    """Section 5.4, of the real tokens: (1 - epsilon) * -log p(label) + epsilon * mean of -log p over the vocabulary."""
    if shifts:
        labels = labels[:, 1:]
        logits = logits[:, : labels.shape[1]]
    log_p = logits.log_softmax(-1)
    nll = -log_p.gather(-1, labels.clamp(min=0)[..., None])[..., 0]
    return ((1 - epsilon) * nll - epsilon * log_p.mean(-1))[labels != -100]


@pytest.mark.parametrize(
    ("shifts", "more"), [(False, 0), (True, 0), (True, 1)], ids=["aligned", "shifted", "one more"]
)
@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_smoothed_loss_is_its_formula_and_so_is_its_gradient(shifts, more, epsilon):
    logits, labels = logits_and_labels(dtype=torch.float64, more=more)
    terms, loss = by_formula(logits, labels, shifts, epsilon), SmoothedLoss(epsilon, shifts)
    for found, right in (
        (loss({"logits": logits}, labels), terms.mean()),
        (loss({"logits": logits}, labels, 40), terms.sum() / 40),
    ):
        torch.testing.assert_close(found, right)
        torch.testing.assert_close(*(torch.autograd.grad(each, logits, retain_graph=True) for each in (found, right)))


def test_blocks_change_nothing():
    """A vocabulary of 37,000 pieces makes blocks of 7 rows; the last one is shorter."""
    logits, labels = logits_and_labels(2, 9, 37_000)
    loss, terms = SmoothedLoss(0.1, False)({"logits": logits}, labels), by_formula(logits, labels, False, 0.1)
    torch.testing.assert_close(loss, terms.mean())
    torch.testing.assert_close(
        *(torch.autograd.grad(each, logits, retain_graph=True) for each in (loss, terms.mean()))
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_full(dtype):
    logits, labels = logits_and_labels(40, 50, 300)
    half = logits.detach().to(dtype).requires_grad_()
    # As a gradient scaler has it: the loss is large, the gradient of a single number small.
    loss = SmoothedLoss(0.1, False)({"logits": half}, labels) * 2.0**14
    expected = by_formula(half.float(), labels, False, 0.1).mean() * 2.0**14
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    found, right = (torch.autograd.grad(each, half, retain_graph=True)[0].float() for each in (loss, expected))
    torch.testing.assert_close(found, right, rtol=2 * torch.finfo(dtype).eps, atol=1e-6)


def test_logits_that_are_far_apart_overflow_nowhere():
    logits = torch.tensor([[[0.0, 1e4, -1e4]]], requires_grad=True)
    loss = SmoothedLoss(0.1, False)({"logits": logits}, torch.tensor([[2]]))
    torch.testing.assert_close(loss, by_formula(logits, torch.tensor([[2]]), False, 0.1).mean())
    assert torch.autograd.grad(loss, logits)[0].isfinite().all()


def test_a_batch_that_is_only_padding_costs_nothing():
    logits, _ = logits_and_labels()
    loss = SmoothedLoss(0.1, False)({"logits": logits}, torch.full((2, 5), -100), 7)
    assert loss == 0
    assert not torch.autograd.grad(loss, logits)[0].any()
