"""InfoNCE against sums done by hand."""

import math

import pytest
import torch

from tonics.train.model import loss as losses
from tonics.train.model.loss import info_nce, siglip


def test_two_pairs_by_hand():
    # cosines 0.6, 0 / 0.8, 1 at temperature 0.5: logits 1.2, 0 / 1.6, 2
    images = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    texts = torch.tensor([[0.6, 0.8], [0.0, 1.0]])
    loss, accuracy = info_nce(images, texts, torch.tensor(0.5))
    rows = [math.log(1 + math.exp(0 - 1.2)), math.log(1 + math.exp(1.6 - 2))]
    columns = [math.log(1 + math.exp(1.6 - 1.2)), math.log(1 + math.exp(0 - 2))]
    expected = (sum(rows) / 2 + sum(columns) / 2) / 2
    assert math.isclose(loss.item(), expected, rel_tol=1e-6)
    assert accuracy.tolist() == [1, 0.5]  # caption 0 prefers image 1


def test_perfect_and_blind_models():
    eye = torch.eye(8)
    assert info_nce(eye, eye, torch.tensor(0.01))[0] < 1e-6
    blind = torch.ones(8, 3) / math.sqrt(3)
    loss, accuracy = info_nce(blind, blind, torch.tensor(0.07))
    assert math.isclose(loss.item(), math.log(8), rel_tol=1e-5)
    assert accuracy.tolist() == [0, 0]  # ties are not hits


def test_float32_even_under_autocast():
    torch.manual_seed(0)
    images, texts = (torch.nn.functional.normalize(torch.randn(16, 32), dim=1) for _ in range(2))
    plain, _ = info_nce(images, texts, torch.tensor(0.05))
    with torch.autocast("cpu", torch.bfloat16):
        cast, accuracy = info_nce(images, texts, torch.tensor(0.05))
    assert cast.dtype == accuracy.dtype == torch.float32
    assert cast == plain


def test_gradient_flows_to_both_sides_and_the_temperature():
    torch.manual_seed(0)
    inputs = [torch.randn(4, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    temperature = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    info_nce(*inputs, temperature)[0].backward()
    assert all(x.grad.abs().sum() > 0 for x in (*inputs, temperature))


def test_accuracy_by_hand():
    images = torch.tensor([[3.0, 1, 0], [2, 1, 0], [0, 0, 5]])  # against unit captions: the logits
    _, accuracy = info_nce(images, torch.eye(3), torch.tensor(1.0))
    assert accuracy.tolist() == pytest.approx([2 / 3, 2 / 3])
    # row 1 prefers caption 0; column 1 ties: not a hit


def test_siglip_by_hand():
    images, texts = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.6, 0.8], [0.0, 1.0]])
    loss, accuracy = siglip(images, texts, torch.tensor(0.5), torch.tensor(-1.0))
    ours, others = (1.2 - 1, 2.0 - 1), (0.0 - 1, 1.6 - 1)
    expected = sum(math.log(1 + math.exp(-x)) for x in ours)
    expected += sum(math.log(1 + math.exp(x)) for x in others)
    assert math.isclose(loss.item(), expected / 2, rel_tol=1e-6)
    assert accuracy.tolist() == [1, 0.5]


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
@pytest.mark.parametrize("loss_of", ["info_nce", "siglip"])
def test_blocks_of_rows_change_nothing(loss_of, kind, monkeypatch):
    torch.manual_seed(0)
    rows = torch.nn.functional.normalize(torch.randn(2, 37, 8, dtype=kind), dim=-1)
    rows[1] += rows[0]

    def run(chunk):
        inputs = [*rows.clone(), torch.tensor(0.3, dtype=kind), torch.tensor(-2.0, dtype=kind)]
        inputs = [x.requires_grad_() for x in inputs]
        if loss_of == "siglip":
            loss, accuracy = siglip(*inputs, chunk=chunk)
        else:
            loss, accuracy = info_nce(*inputs[:3], chunk=chunk)
        loss.backward()
        return [loss.detach(), accuracy, *(x.grad for x in inputs if x.grad is not None)]

    whole, largest = run(37), []
    honest = losses._hits
    spied = lambda logits, own: (largest.append(logits.numel()), honest(logits, own))[1]  # noqa: E731
    monkeypatch.setattr(losses, "_hits", spied)
    for chunk in (1, 6, 36):
        close = 1e-12 if kind is torch.float64 else 1e-5
        for a, b in zip(whole, run(chunk), strict=True):
            torch.testing.assert_close(a, b, rtol=close, atol=close)
        assert max(largest) <= max(chunk * chunk, 37)
    assert whole[1].min() > 0
    assert whole[1].max() < 1
