"""What a tokenizer of transformers returns is an input as it is: in parts, with a mask, and as a picture."""

from __future__ import annotations

import pickle

import pytest
import torch

import relprop

from . import _torchvision  # noqa: F401  (before transformers is imported)
from .models import assert_same

transformers = pytest.importorskip("transformers")


def batch(types: bool) -> transformers.BatchEncoding:
    """Five texts, of which two are padded."""
    ids = torch.randint(1, 40, (5, 7), generator=torch.Generator().manual_seed(0))
    mask = torch.ones(5, 7).long()
    mask[1, 5:] = mask[3, 3:] = 0
    kinds = {"token_type_ids": (torch.arange(7) > 3).long().expand(5, 7).contiguous()} if types else {}
    return transformers.BatchEncoding({"input_ids": ids, **kinds, "attention_mask": mask})


@pytest.fixture(scope="module")
def bert() -> relprop.LRP:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=20,
        num_labels=3,
    )
    return relprop.LRP(transformers.BertForSequenceClassification(config).double().eval())


@pytest.fixture(scope="module")
def llama() -> relprop.LRP:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        use_cache=False,
    )
    return relprop.LRP(transformers.LlamaForCausalLM(config).double().eval())


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("name", ["bert", "llama"])
def test_parts_of_a_padded_batch(name: str, size: int, request: pytest.FixtureRequest) -> None:
    lrp, x = request.getfixturevalue(name), batch(types=name == "bert")
    target = 1 if name == "bert" else (-1, 3)
    whole, found = lrp.attribute(x, target), lrp.attribute(x, target, micro_batch=size)
    assert list(found) == list(x)
    assert_same(found["input_ids"], whole["input_ids"], 1e-12)
    assert found["attention_mask"] is None


def test_types_of_tokens_do_not_stop_a_picture(bert: relprop.LRP) -> None:
    """Both inputs have relevance, and the words are drawn: the ids of the larger table."""
    x = batch(types=True)
    explanation = bert.explain(x, 1)
    assert explanation.relevance["token_type_ids"].any()
    words = [f"w{i}" for i in range(7)]
    for one in (explanation, pickle.loads(pickle.dumps(explanation))):
        assert one.html(words, 1) == one.html(words, 1, wrt="input_ids")
        assert one.html(words, 1) != one.html(words, 1, wrt="token_type_ids")
        assert one._repr_html_() is not None
