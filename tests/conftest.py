"""What holds for every test: no network, a fair share of the processors, the same random numbers every time."""

import os
from collections.abc import Iterator

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch
from hypothesis import register_random, settings

from . import _torchvision  # noqa: F401  (before anything imports torchvision)

WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
torch.set_num_threads(max(1, torch.get_num_threads() // WORKERS))
os.environ["OMP_NUM_THREADS"] = str(torch.get_num_threads())  # for the processes that a test starts


class TorchRandom:
    """Torch's random numbers as hypothesis manages them: an example draws the same ones every time."""

    seed = staticmethod(torch.manual_seed)
    getstate = staticmethod(torch.get_rng_state)
    setstate = staticmethod(torch.set_rng_state)


TORCH_RANDOM = TorchRandom()  # hypothesis only keeps a weak reference
register_random(TORCH_RANDOM)
settings.register_profile("relprop", deadline=None, derandomize=True)
settings.load_profile("relprop")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--without-fused", action="store_true", help="run the formulas themselves, not fused.py")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--without-fused"):
        from relprop.rules.base import TWINS

        TWINS.clear()


def pytest_collectstart() -> None:
    """What a file draws when it is imported, it draws whatever was imported before it."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def float64() -> Iterator[None]:
    """Double precision for one test, and for that test only."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)
