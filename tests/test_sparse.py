"""Sparse matrices: the same relevance as with the zeros written out."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import relprop
from relprop import rules

from .models import assert_same

pytestmark = pytest.mark.filterwarnings("ignore:Sparse")
ADJACENCY = torch.tensor([[0.5, 0, 0.5, 0], [0, 1, 0, 0], [-0.25, 0.25, 0, 0.5], [0, 0, 0, 0]]).double()


class Propagation(nn.Module):
    """relu(A x) W^T"""

    def __init__(self, adjacency: Tensor, product: Callable[[Any, Tensor], Tensor]):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.product = nn.Linear(3, 2).double(), product
        self.register_buffer("adjacency", adjacency)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.product(self.adjacency, x).relu())


PRODUCTS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Any, Tensor], Tensor]]] = {
    "sparse.mm": (Tensor.to_sparse, torch.sparse.mm),
    "mm": (Tensor.to_sparse, torch.mm),
    "@": (Tensor.to_sparse, lambda a, x: a @ x),
    "transposed": (lambda a: a.t().contiguous().to_sparse(), lambda a, x: a.t() @ x),
    "rows": (Tensor.to_sparse_csr, torch.sparse.mm),
    "rows @": (Tensor.to_sparse_csr, lambda a, x: a @ x),
    "made dense": (Tensor.to_sparse, lambda a, x: a.to_dense() @ x),
    "built": (
        Tensor.to_sparse,
        lambda a, x: torch.sparse_coo_tensor(a._indices(), a._values(), (4, 4)).coalesce() @ x,
    ),
}
x = torch.randn(4, 3, generator=torch.Generator().manual_seed(1)).double()


@pytest.mark.parametrize("rule", [rules.Epsilon(), rules.Gamma(0.3), rules.ZPlus(), rules.Flat()], ids=repr)
@pytest.mark.parametrize("name", PRODUCTS)
def test_products_with_a_sparse_matrix(name: str, rule: rules.Rule) -> None:
    store, product = PRODUCTS[name]
    sparse, dense = Propagation(store(ADJACENCY), product), Propagation(ADJACENCY, lambda a, x: a @ x)
    found, expected = (relprop.LRP(m, rule).explain(x, 1) for m in (sparse, dense))
    assert_same(found.relevance, expected.relevance, 1e-12)
    assert found.ledger.residual.abs().max() < 1e-12


def test_a_sparse_matrix_that_changes() -> None:
    """Its values are told like those of any other buffer."""
    model = Propagation(ADJACENCY.to_sparse(), torch.sparse.mm)
    lrp = relprop.LRP(model, rules.Gamma(0.3))
    lrp.attribute(x, 1)
    model.adjacency._values().mul_(2)
    changed = Propagation(2 * ADJACENCY, lambda a, x: a @ x)
    assert_same(lrp.attribute(x, 1), relprop.LRP(changed, rules.Gamma(0.3)).attribute(x, 1), 1e-12)


class Given(nn.Module):
    """A x, both given."""

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        return adjacency @ x


@pytest.mark.parametrize("store", [Tensor.to_sparse, Tensor.to_sparse_csr])
def test_a_sparse_input_is_explained(store: Callable[[Tensor], Tensor]) -> None:
    """R of a_ij is half of a_ij x_jc, and R of x_jc half of Σ_i a_ij x_jc: the product of two explained factors."""
    of_x, of_a = relprop.LRP(Given()).attribute((x, store(ADJACENCY)), 1)
    terms = ADJACENCY * x[:, 1]
    assert of_a.layout == torch.strided
    assert_same(of_a, terms / 2, 1e-12)
    assert_same(of_x[:, 1], terms.sum(0) / 2, 1e-12)
    alone = relprop.LRP(Given()).attribute((x, store(ADJACENCY)), 1, wrt="x")
    assert_same(alone[0][:, 1], terms.sum(0), 1e-12)


def test_values_in_one_place_add_up() -> None:
    """Weights of edges, of which two are the same edge."""

    class Edges(nn.Module):
        def forward(self, x: Tensor, weights: Tensor) -> Tensor:
            return torch.sparse.mm(torch.sparse_coo_tensor(torch.tensor([[0, 0, 1], [1, 1, 2]]), weights, (4, 4)), x)

    weights = torch.tensor([0.5, 0.25, -1.0]).double()
    of_x, of_weights = relprop.LRP(Edges()).attribute((x, weights), 1)
    assert_same(of_weights, weights * x[[1, 1, 2], 1] / 2, 1e-12)
    assert_same(of_x[1:3, 1], torch.tensor([0.75, -1.0]).double() * x[1:3, 1] / 2, 1e-12)


def test_a_model_is_left_as_it_is() -> None:
    model = Propagation(ADJACENCY.to_sparse(), torch.sparse.mm)
    before = deepcopy(model.state_dict())
    relprop.LRP(model).attribute(x, 1)
    assert model.adjacency.layout == torch.sparse_coo
    assert all(torch.equal(v.to_dense(), before[k].to_dense()) for k, v in model.state_dict().items())
