"""Attention and what surrounds it: published rules, equal answers of equal models, balanced books, memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import relprop
from relprop.composites import attnlrp, cp_lrp

from .attention_reference import relevance as reference

hf = pytest.importorskip("transformers")
hf.logging.set_verbosity_error()

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "vocab_size": 50,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
GQA = {**SIZES, "num_key_value_heads": 2, "head_dim": 8}
WINDOWS = {"sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"], "query_pre_attn_scalar": 8}


def llama(**o: Any) -> nn.Module:
    return hf.LlamaForCausalLM(hf.LlamaConfig(**GQA, attention_bias=True, **o))


def qwen3(**o: Any) -> nn.Module:
    return hf.Qwen3ForCausalLM(hf.Qwen3Config(**GQA, **o))


def gemma3(**o: Any) -> nn.Module:
    return hf.Gemma3ForCausalLM(hf.Gemma3TextConfig(**GQA, **WINDOWS, **o))


def mixtral(**o: Any) -> nn.Module:
    return hf.MixtralForCausalLM(hf.MixtralConfig(**GQA, num_local_experts=4, **o))


def gpt2(**o: Any) -> nn.Module:
    return hf.GPT2LMHeadModel(
        hf.GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=50, bos_token_id=1, eos_token_id=2, **o)
    )


def bert(**o: Any) -> nn.Module:
    return hf.BertForSequenceClassification(hf.BertConfig(**SIZES, num_labels=50, **o))


def vit(**o: Any) -> nn.Module:
    sizes = {**SIZES, "image_size": 16, "patch_size": 4, "num_labels": 50}
    return hf.ViTForImageClassification(hf.ViTConfig(**sizes, **o))


def randomised(model: nn.Module, scale: float = 0.3) -> nn.Module:
    """Random weights, biases and norms: as they are made, biases are zero and norms do nothing."""
    generator = torch.Generator().manual_seed(1)
    for name, p in model.named_parameters():
        one = "norm" in name.lower() and p.ndim == 1 and "weight" in name
        p.data.copy_(torch.randn(p.shape, generator=generator) * scale + one)
    return model.double().eval()


def tokens(padding: str) -> dict[str, Tensor]:
    ids = torch.randint(3, 50, (2, 8), generator=torch.Generator().manual_seed(2))
    mask = torch.ones(2, 8, dtype=torch.long)
    if padding == "left":
        mask[1, :3] = 0
    elif padding == "right":
        mask[1, 5:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def balances(explanation: Any, tolerance: float = 1e-9) -> None:
    """Sample by sample, what was handed out is what arrived, to a fraction of what was moved."""
    ledger = explanation.ledger
    moved = ledger.seed.abs() + sum(v.abs() for v in [*ledger.inputs.values(), *ledger.sinks.values()])
    assert (ledger.residual.abs() <= tolerance * moved).all(), ledger


@pytest.mark.parametrize("kind", ["eager", "sdpa"])
@pytest.mark.parametrize("make", [llama, qwen3, gemma3, mixtral, gpt2, bert, vit], ids=lambda f: f.__name__)
def test_published_rules_on_stock_models(make: Callable[..., nn.Module], kind: str) -> None:
    model = randomised(make(attn_implementation=kind))
    plain = randomised(make(attn_implementation="eager"))
    if make is vit:
        inputs = {"pixel_values": torch.randn(2, 3, 16, 16, dtype=torch.float64)}
    else:
        inputs = tokens("right" if make is bert else "left")

    def target(output: Any) -> Tensor:
        return output.logits[:, 7] if output.logits.ndim == 2 else output.logits[:, -1, 7]

    lrp = relprop.LRP(model)
    for composite, stop in ((attnlrp(epsilon=0, conv_gamma=0), False), (cp_lrp(epsilon=0, conv_gamma=0), True)):
        explanation = lrp.using(composite).explain(inputs, target=target)
        balances(explanation)
        expected = reference(plain, None if make is vit else plain.get_input_embeddings(), inputs, target, stop)
        if make is not vit:
            expected = expected.sum(-1)
        found = explanation.relevance["pixel_values" if make is vit else "input_ids"]
        assert (found - expected).abs().max() <= 1e-8 * expected.abs().max()


# -- other attention --------------------------------------------------------------------------------------------------


class SelfAttention(nn.Module):
    """One attention layer and a head; ``weigh`` makes the output of queries, keys and values [B, H, T, D]."""

    def __init__(self, weigh: Callable[..., Tensor]):
        super().__init__()
        self.qkv, self.head, self.weigh = nn.Linear(16, 48), nn.Linear(16, 3), weigh
        self.sink = nn.Parameter(torch.randn(4))
        self.relative = nn.Embedding(13, 4)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, 4, 4)).permute(2, 0, 3, 1, 4)
        return self.head(self.weigh(self, q, k, v).transpose(1, 2).flatten(2).mean(1))


def soft_capped_with_sink(m: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = (5 * torch.tanh(q @ k.mT / 5)).masked_fill(torch.ones(7, 7).triu(1).bool(), -math.inf)
    sink = m.sink.view(1, 4, 1, 1).expand(len(q), 4, 7, 1)
    return torch.cat([scores, sink], -1).softmax(-1)[..., :-1] @ v


def relative_positions(m: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    distance = torch.arange(7)[:, None] - torch.arange(7) + 6
    scores = torch.einsum("bhid,bhjd->bhij", q, k) + torch.einsum("bhid,ijd->bhij", q, m.relative(distance))
    return torch.softmax(scores, -1) @ v


def linear_attention(_: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k = F.elu(q) + 1, F.elu(k) + 1
    return q @ (k.mT @ v) / (q * k.sum(2, keepdim=True)).sum(-1, keepdim=True)


def causal_linear_attention(_: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    state = torch.cumsum(k.unsqueeze(-1) * v.unsqueeze(-2), 2)
    return torch.einsum("bhtd,bhtde->bhte", q, state)


def grouped_queries(_: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k[:, :2], v[:, :2], is_causal=True, scale=0.3, enable_gqa=True)


class Encoder(nn.Module):
    def __init__(self, **options: Any):
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, **options)
        nested = not options.get("norm_first", False)
        self.encoder, self.head = nn.TransformerEncoder(layer, 2, enable_nested_tensor=nested), nn.Linear(16, 3)

    def forward(self, x: Tensor, padding: Tensor | None = None) -> Tensor:
        return self.head(self.encoder(x, src_key_padding_mask=padding)[:, 0])


class CrossAttention(nn.Module):
    def __init__(self, **options: Any):
        super().__init__()
        self.attention, self.head = nn.MultiheadAttention(16, 4, batch_first=True, **options), nn.Linear(16, 3)

    def forward(self, q: Tensor, kv: Tensor) -> Tensor:
        return self.head(self.attention(q, kv, kv)[0].mean(1))


class EncoderDecoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.transformer, self.head = nn.Transformer(16, 4, 1, 1, 32, batch_first=True), nn.Linear(16, 3)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(y.shape[1], dtype=x.dtype)
        return self.head(self.transformer(x, y, tgt_mask=mask, tgt_is_causal=True)[:, -1])


X, Y = torch.randn(2, 7, 16, dtype=torch.float64), torch.randn(2, 5, 16, dtype=torch.float64)
PADDING = torch.tensor([[False] * 7, [False] * 5 + [True] * 2])
NETWORKS: dict[str, tuple[Callable[[], nn.Module], Any]] = {
    "soft_capped_with_sink": (lambda: SelfAttention(soft_capped_with_sink), X),
    "relative_positions": (lambda: SelfAttention(relative_positions), X),
    "linear_attention": (lambda: SelfAttention(linear_attention), X),
    "causal_linear_attention": (lambda: SelfAttention(causal_linear_attention), X),
    "grouped_queries": (lambda: SelfAttention(grouped_queries), X),
    "encoder": (lambda: Encoder(activation="gelu", norm_first=True), (X, PADDING)),
    "post_norm_encoder": (Encoder, X),
    "cross_attention": (lambda: CrossAttention(add_bias_kv=True, add_zero_attn=True), (Y, X)),
    "encoder_decoder": (EncoderDecoder, (X, Y)),
}


@pytest.mark.filterwarnings("ignore:inputs receive")  # attention without a softmax, and a random output next to zero
@pytest.mark.parametrize("name", NETWORKS)
def test_books_balance(name: str) -> None:
    make, inputs = NETWORKS[name]
    model = randomised(make())
    lrp = relprop.LRP(model)
    for composite in ("attnlrp", "cp_lrp", "gradient"):
        explanation = lrp.using(composite).explain(inputs, target=1)
        balances(explanation)
        assert "stopped" not in explanation.ledger.by_kind() or composite == "cp_lrp"
    if name in ("encoder", "post_norm_encoder", "cross_attention", "encoder_decoder", "soft_capped_with_sink"):
        # all relevance went to values: attention weights are constants, and hold nothing back
        kinds = lrp.using("cp_lrp").explain(inputs, target=1).ledger.by_kind()
        assert not set(kinds) & {"remainder", "stopped"}


def test_words_types_and_positions_are_separate_entries() -> None:
    model = randomised(hf.BertForSequenceClassification(hf.BertConfig(**SIZES)))
    kinds = torch.tensor([[0] * 4 + [1] * 4] * 2)
    positions = torch.arange(8).expand(2, 8).contiguous()
    inputs = {**tokens("right"), "token_type_ids": kinds, "position_ids": positions}
    explanation = relprop.LRP(model, "attnlrp").explain(inputs, target=1)
    balances(explanation)
    assert set(explanation.ledger.inputs) == {"input_ids", "token_type_ids", "position_ids"}
    for name, received in explanation.ledger.inputs.items():
        torch.testing.assert_close(explanation.relevance[name].sum(1), received)
    assert explanation.relevance["attention_mask"] is None


def test_two_token_inputs() -> None:
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 1, "num_heads": 4, "vocab_size": 50}
    config = hf.T5Config(**sizes, decoder_start_token_id=0)
    inputs = {**tokens("right"), "decoder_input_ids": torch.randint(3, 50, (2, 4))}
    lrp = relprop.LRP(randomised(hf.T5ForConditionalGeneration(config), 0.2), "attnlrp")
    explanation = lrp.explain(inputs, target=lambda output: output.logits[:, -1, 7])
    balances(explanation)
    assert explanation.relevance["input_ids"].abs().sum() > 0
    assert (explanation.relevance["input_ids"][1, 5:] == 0).all()  # padding
    assert explanation.relevance["decoder_input_ids"].shape == (2, 4)


# -- gates and activations --------------------------------------------------------------------------------------------


class Squeezed(nn.Module):
    """A layer, a function, a layer."""

    def __init__(self, function: Callable[[Tensor], Tensor], features: int = 12):
        super().__init__()
        self.a, self.b, self.function = nn.Linear(5, 12), nn.Linear(features, 3), function

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.function(self.a(x)))


WRITTEN: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu_new": lambda x: 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * torch.pow(x, 3)))),
    "gelu_python": lambda x: x * 0.5 * (1 + torch.erf(x / math.sqrt(2))),
    "gelu_quick": lambda x: x * torch.sigmoid(1.702 * x),
    "swish": lambda x: torch.sigmoid(x) * x,
    "mish": lambda x: x * torch.tanh(F.softplus(x)),
    "hardswish": lambda x: x * F.relu6(x + 3) / 6,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
}


@pytest.mark.parametrize("name", WRITTEN)
def test_an_activation_is_one_operation_however_it_is_written(name: str) -> None:
    """The identity rule: c is multiplied by f(x)/x, whatever f is made of."""
    model, x = randomised(Squeezed(WRITTEN[name])), torch.randn(4, 5, dtype=torch.float64)
    explanation = relprop.LRP(model, "lrp0").explain(x, target=1)
    balances(explanation)
    hidden = model.a(x)
    ratio = WRITTEN[name](hidden) / hidden
    expected = x * ((model.b.weight[1] * ratio) @ model.a.weight)
    torch.testing.assert_close(explanation.relevance, expected.detach(), rtol=1e-11, atol=1e-13)


def test_gates_stop_under_cp_lrp() -> None:
    def chosen(function: Callable[[Tensor], Tensor], features: int = 12) -> list[str]:
        scope = relprop.LRP(Squeezed(function, features).eval(), "cp_lrp").plan(torch.randn(2, 5)).scope
        return [str(node.target).split(".")[1] for node in scope.matches(relprop.select.gate())]

    def halves(x: Tensor) -> tuple[Tensor, Tensor]:
        return x[:, :6], x[:, 6:]

    assert chosen(lambda x: F.silu(halves(x)[0]) * halves(x)[1], 6) == ["silu"]
    assert chosen(lambda x: torch.tanh(halves(x)[0]) * torch.sigmoid(halves(x)[1]), 6) == ["sigmoid"]
    assert chosen(lambda x: F.silu(halves(x)[0]) * torch.sigmoid(halves(x)[1]), 6) == ["sigmoid"]
    assert chosen(lambda x: F.glu(x), 6) == ["sigmoid"]
    assert chosen(lambda x: torch.softmax(halves(x)[0], 1) * halves(x)[1], 6) == ["softmax"]
    assert chosen(lambda x: F.relu(halves(x)[0]) * F.relu(halves(x)[1]), 6) == []  # neither is more of a gate
    assert chosen(lambda x: F.gelu(x) * 0.5) == []  # scaled by a constant: nothing is gated
    assert chosen(lambda x: torch.softmax(x, 1)) == []  # probabilities that a layer reads


class MambaMixer(nn.Module):
    """A selective state space as Mamba has it, one step after the other."""

    def __init__(self, detached: bool = False):
        super().__init__()
        self.in_proj, self.x_proj, self.dt_proj = nn.Linear(6, 16), nn.Linear(8, 2 + 3 + 3, bias=False), nn.Linear(2, 8)
        self.out_proj, self.a, self.d = nn.Linear(8, 6), nn.Parameter(torch.rand(8, 3)), nn.Parameter(torch.rand(8))
        self.detached = detached

    def forward(self, x: Tensor) -> Tensor:
        def held(t: Tensor) -> Tensor:
            return t.detach() if self.detached else t

        def silu(t: Tensor) -> Tensor:
            return t * torch.sigmoid(t).detach() if self.detached else F.silu(t)

        u, z = self.in_proj(x).chunk(2, -1)
        u = silu(u)
        dt, b, c = self.x_proj(u).split([2, 3, 3], -1)
        dt = F.softplus(self.dt_proj(dt))
        decay, b = held(torch.exp(-dt[..., None] * self.a)), held(dt[..., None] * b[:, :, None])
        state, outputs = torch.zeros(len(x), 8, 3, dtype=x.dtype), []
        for t in range(x.shape[1]):
            state = decay[:, t] * state + b[:, t] * u[:, t, :, None]
            outputs.append((state @ held(c)[:, t, :, None])[..., 0])
        y = (torch.stack(outputs, 1) + u * self.d) * silu(z)
        y = y / 2 + (y / 2).detach() if self.detached else y
        return self.out_proj(y).sum((1, 2))[:, None]


def test_mamba_lrp() -> None:
    """Against the paper's own form: gradient x input with the state space detached, half through the output gate."""
    x = torch.randn(2, 5, 6, dtype=torch.float64)
    model, modified = randomised(MambaMixer()), MambaMixer(detached=True).double()
    modified.load_state_dict(model.state_dict())
    lrp = relprop.LRP(model, relprop.composites.mamba_lrp(epsilon=0))
    explanation = lrp.explain(x)
    balances(explanation)
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(modified(leaf).sum(), leaf)
    expected = x * gradient
    assert (explanation.relevance - expected).abs().max() <= 1e-8 * expected.abs().max()


# -- memory and precision ---------------------------------------------------------------------------------------------


class Largest(TorchDispatchMode):
    """The size of the largest tensor that any operation makes."""

    size = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        found = [x.numel() for x in torch.utils._pytree.tree_leaves(result) if isinstance(x, Tensor)]
        self.size = max(self.size, *found, 0)
        return result


@pytest.mark.parametrize("composite", ["attnlrp", "cp_lrp"])
def test_fused_attention_stays_fused(composite: str) -> None:
    model = SelfAttention(lambda _, q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True)).eval()
    lrp = relprop.LRP(model, composite)
    largest = []
    for length in (1024, 2048, 4096):
        x = torch.randn(1, length, 16)
        lrp.plan(x)  # captured before anything is counted
        with Largest() as made:
            lrp.attribute(x, target=0)
        largest.append(made.size)
    assert largest[1] == 2 * largest[0]
    assert largest[2] == 4 * largest[0]
    assert largest[2] < 4096 * 4096


def test_half_precision() -> None:
    """bfloat16 relevance of a transformer of 12 layers is within 5 % of single precision's."""
    model = hf.LlamaForCausalLM(hf.LlamaConfig(**{**GQA, "num_hidden_layers": 12}, use_cache=False)).eval().bfloat16()
    lrp = relprop.LRP(model)

    def explained(composite: str) -> Tensor:
        return lrp.using(composite).attribute(tokens("left"), target=lambda o: o.logits[:, -1, 7])["input_ids"]

    half = {composite: explained(composite) for composite in ("attnlrp", "cp_lrp")}
    model.float()
    for composite, found in half.items():
        single = explained(composite)
        assert found.dtype == torch.float32
        assert (found - single).abs().sum() <= 0.05 * single.abs().sum()
