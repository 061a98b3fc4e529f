"""A few architectures of ``make coverage``, one of each kind: the whole list takes an hour."""

from __future__ import annotations

import pytest
import torch

from benchmarks.architectures import examples
from benchmarks.coverage import try_one

FEW = {
    "hf-causal/Llama",  # rotary positions, grouped queries, SwiGLU
    "hf-causal/Mamba",  # a selective state space
    "hf-causal/Mixtral",  # experts chosen by a router
    "hf-encoder/DebertaV2",  # disentangled relative positions
    "timm/test_vit",
    "timm/test_nfnet",  # standardised weights
}


@pytest.mark.filterwarnings("ignore")  # of the models' own code
@pytest.mark.parametrize("name", sorted(FEW))
def test_architecture_works(name: str) -> None:
    """Every operation has a rule, the output equals the model's, the ledger balances to 1e-9."""
    example = next(e for e in examples() if f"{e.source}/{e.name}" == name)
    torch.manual_seed(0)
    row = try_one(example)
    assert row["status"].startswith("works"), row  # the router's models do not run in double precision themselves
