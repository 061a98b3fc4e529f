"""The models of the benchmark, with random weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tests import _torchvision  # noqa: F401  (before torchvision is imported)


@dataclass
class Case:
    """A model, its inputs, and what is explained."""

    name: str
    model: nn.Module
    inputs: Any
    target: Any
    explained: Callable[[Tensor], Tensor]
    """From inputs to the explained scalars, for the plain gradient."""
    composites: list[str] = field(default_factory=list)
    kind: str = "cnn"


def _vision(name: str) -> Callable[[int], Case]:
    def make(batch: int) -> Case:
        import torchvision

        model = getattr(torchvision.models, name)(weights=None).eval()
        x = torch.randn(batch, 3, 224, 224)
        composites = ["attnlrp"] if name.startswith("vit") else []
        return Case(f"{name} x{batch}", model, x, 0, lambda x: model(x)[:, 0], composites)

    return make


def _lstm(batch: int) -> Case:
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(40, 256, num_layers=2, batch_first=True)
            self.out = nn.Linear(256, 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.lstm(x)[0][:, -1])  # type: ignore[no-any-return]

    model = Reader().eval()
    x = torch.randn(batch, 200, 40)
    return Case(f"lstm x{batch}", model, x, 0, lambda x: model(x)[:, 0], ["auto"], "lstm")


def _transformer(name: str, tokens: int) -> Callable[[int], Case]:
    def make(batch: int) -> Case:
        from transformers import BertConfig, BertModel, LlamaConfig, LlamaModel

        sizes = {"hidden_size": 512, "num_hidden_layers": 12, "num_attention_heads": 8, "vocab_size": 1000}
        if name == "bert":
            model: nn.Module = BertModel(BertConfig(**sizes, intermediate_size=2048)).eval()
        else:
            config = LlamaConfig(**sizes, intermediate_size=1408, num_key_value_heads=4, use_cache=False)
            model = LlamaModel(config).eval()

        class FromEmbeddings(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.model = model

            def forward(self, x: Tensor) -> Tensor:
                return self.model(inputs_embeds=x).last_hidden_state[:, -1]  # type: ignore[no-any-return]

        wrapped = FromEmbeddings().eval()
        x = torch.randn(batch, tokens, 512)
        label = f"{name} {tokens} tokens x{batch}"
        return Case(label, wrapped, x, 0, lambda x: wrapped(x)[:, 0], ["attnlrp"], "transformer")

    return make


MODELS: dict[str, Callable[[int], Case]] = {
    **{name: _vision(name) for name in ("vgg16", "resnet50", "efficientnet_b0", "vit_b_16", "resnet18")},
    "lstm": _lstm,
    "bert": _transformer("bert", 128),
    **{f"llama_{n}": _transformer("llama", n) for n in (128, 512, 2048)},
}
DEFAULT = ["vgg16", "resnet50"]


def make(name: str, batch: int) -> Case:
    """A case by name."""
    if name not in MODELS:
        raise SystemExit(f"there is no model {name!r}; choose among {', '.join(MODELS)}")
    torch.manual_seed(0)
    return MODELS[name](batch)
