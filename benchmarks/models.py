"""The models of the benchmark, with random weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tests import _torchvision  # noqa: F401  (before torchvision is imported)

CONVOLUTIONAL = ["lrp0", "epsilon", "epsilon_plus", "epsilon_gamma_box", "epsilon_alpha2_beta1"]
TRANSFORMER = ["lrp0", "epsilon", "attnlrp"]
RECURRENT = ["lrp0", "epsilon", "signal_takes_all"]


@dataclass
class Case:
    """A model, its inputs, and the composites that suit it. What is explained is the first output."""

    name: str
    model: nn.Module
    inputs: Tensor
    composites: list[str]

    @property
    def batch(self) -> int:
        return len(self.inputs)

    def gradient(self) -> Tensor:
        """Gradient x input: what everything is compared with."""
        x = self.inputs.clone().requires_grad_()
        (g,) = torch.autograd.grad(self.model(x)[:, 0].sum(), x)
        return g * self.inputs

    def to(self, device: torch.device) -> Case:
        return Case(self.name, self.model.to(device).eval(), self.inputs.to(device), self.composites)


Maker = Callable[[str, int], Case]


def _vision(name: str, batch: int) -> Case:
    import torchvision

    model = _lively(getattr(torchvision.models, name)(weights=None))
    x = torch.randn(batch, 3, 224, 224).clamp(-3, 3)  # the box of epsilon_gamma_box
    return Case(name, model, x, TRANSFORMER if name.startswith("vit") else CONVOLUTIONAL)


def _lively(model: nn.Module) -> nn.Module:
    """Untrained, EfficientNet's activations vanish, and the last layer of a ViT is zero: so would be relevance."""
    for p in model.parameters():
        if not p.any():
            nn.init.normal_(p, std=0.02)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for m in norms:
        m.momentum = 1.0  # statistics of the batch that comes
    if norms:
        with torch.no_grad():
            model.train()(torch.randn(4, 3, 224, 224))
    return model


class Reader(nn.Module):
    """An LSTM and a dense layer on its last step."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(40, 256, num_layers=2, batch_first=True)
        self.out = nn.Linear(256, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.lstm(x)[0][:, -1])  # type: ignore[no-any-return]


def _lstm(name: str, batch: int) -> Case:
    return Case(name, Reader(), torch.randn(batch, 200, 40), RECURRENT)


class FromEmbeddings(nn.Module):
    """A transformer from the embeddings of its tokens to the last hidden state of the last one."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(inputs_embeds=x).last_hidden_state[:, -1]  # type: ignore[no-any-return]


SIZES: dict[str, Any] = {"hidden_size": 512, "num_hidden_layers": 12, "num_attention_heads": 8, "vocab_size": 1000}


def _bert(name: str, batch: int) -> Case:
    from transformers.models.bert import modeling_bert as bert  # as LXT may have changed it

    model = bert.BertModel(bert.BertConfig(**SIZES, intermediate_size=2048))
    return Case(name, FromEmbeddings(model), torch.randn(batch, 128, 512), TRANSFORMER)


def _llama(name: str, batch: int) -> Case:
    from transformers.models.llama import modeling_llama as llama

    config = llama.LlamaConfig(**SIZES, intermediate_size=1408, num_key_value_heads=4, use_cache=False)
    tokens = int(name.split("_")[1])
    return Case(name, FromEmbeddings(llama.LlamaModel(config)), torch.randn(batch, tokens, 512), TRANSFORMER)


MODELS: dict[str, Maker] = {
    **dict.fromkeys(["vgg16", "resnet50", "efficientnet_b0", "vit_b_16"], _vision),
    "bert": _bert,
    **dict.fromkeys(["llama_128", "llama_512", "llama_2048"], _llama),
    "lstm": _lstm,
}


def make(name: str, batch: int, device: torch.device) -> Case:
    """A case by name."""
    torch.manual_seed(0)
    return MODELS[name](name, batch).to(device)
