"""InfoNCE against sums done by hand."""

import math

import torch

from tonics.train.model.loss import in_batch_accuracy, info_nce


def test_two_pairs_by_hand():
    # cosines 0.6, 0 / 0.8, 1 at temperature 0.5: logits 1.2, 0 / 1.6, 2
    images = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    texts = torch.tensor([[0.6, 0.8], [0.0, 1.0]])
    loss, logits = info_nce(images, texts, torch.tensor(0.5))
    rows = [math.log(1 + math.exp(0 - 1.2)), math.log(1 + math.exp(1.6 - 2))]
    columns = [math.log(1 + math.exp(1.6 - 1.2)), math.log(1 + math.exp(0 - 2))]
    expected = (sum(rows) / 2 + sum(columns) / 2) / 2
    assert math.isclose(loss.item(), expected, rel_tol=1e-6)
    torch.testing.assert_close(logits, torch.tensor([[1.2, 0.0], [1.6, 2.0]]))


def test_perfect_and_blind_models():
    eye = torch.eye(8)
    assert info_nce(eye, eye, torch.tensor(0.01))[0] < 1e-6
    blind = torch.ones(8, 3) / math.sqrt(3)
    loss, logits = info_nce(blind, blind, torch.tensor(0.07))
    assert math.isclose(loss.item(), math.log(8), rel_tol=1e-5)
    assert in_batch_accuracy(logits).tolist() == [0, 0]  # ties are not hits


def test_float32_even_under_autocast():
    torch.manual_seed(0)
    images, texts = (torch.nn.functional.normalize(torch.randn(16, 32), dim=1) for _ in range(2))
    plain, _ = info_nce(images, texts, torch.tensor(0.05))
    with torch.autocast("cpu", torch.bfloat16):
        cast, logits = info_nce(images, texts, torch.tensor(0.05))
    assert logits.dtype == torch.float32
    assert cast == plain


def test_gradient_flows_to_both_sides_and_the_temperature():
    torch.manual_seed(0)
    inputs = [torch.randn(4, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    temperature = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    info_nce(*inputs, temperature)[0].backward()
    assert all(x.grad.abs().sum() > 0 for x in (*inputs, temperature))


def test_accuracy_by_hand():
    logits = torch.tensor([[3.0, 1, 0], [2, 1, 0], [0, 0, 5]])
    i2t, t2i = in_batch_accuracy(logits).tolist()
    assert math.isclose(i2t, 2 / 3, rel_tol=1e-6)  # row 1 prefers caption 0
    assert math.isclose(t2i, 2 / 3, rel_tol=1e-6)  # column 1 ties: not a hit
