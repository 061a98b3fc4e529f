"""Architectures that the coverage suite tries, with random weights and in small configurations where there are any."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from tests import _torchvision  # noqa: F401  (before torchvision, timm and transformers are imported)

CLASSIFIERS = """
alexnet convnext_tiny densenet121 densenet169 efficientnet_b0 efficientnet_b3 efficientnet_v2_s googlenet inception_v3
maxvit_t mnasnet0_5 mobilenet_v2 mobilenet_v3_large mobilenet_v3_small regnet_x_400mf regnet_y_400mf regnet_y_1_6gf
resnet18 resnet34 resnet50 resnet101 resnext50_32x4d shufflenet_v2_x0_5 shufflenet_v2_x1_5 squeezenet1_0 squeezenet1_1
swin_t swin_v2_t vgg11 vgg13_bn vgg16 vgg16_bn vgg19 vit_b_16 vit_b_32 wide_resnet50_2
""".split()
SEGMENTATION = """
deeplabv3_mobilenet_v3_large deeplabv3_resnet50 fcn_resnet50 lraspp_mobilenet_v3_large
""".split()
VIDEO = """
r2plus1d_18 r3d_18 mc3_18 swin3d_t mvit_v2_s
""".split()
TIMM = """
gernet_s cait_xxs24_224 coat_tiny convit_tiny convmixer_768_32 crossvit_tiny_240 cs3darknet_s dla34 efficientformer_l1
efficientformerv2_s0 mixnet_s efficientvit_b0 efficientvit_m0 eva02_tiny_patch14_224 fasternet_t0 focalnet_tiny_srf
gcvit_xxtiny ghostnet_050 hardcorenas_a hgnet_tiny hieradet_small mambaout_femto caformer_s18 gmlp_ti16_224
mvitv2_tiny nest_tiny nextvit_small test_nfnet rdnet_tiny repvit_m1 res2net50d rexnet_100 selecsls42 legacy_senet154
sequencer2d_s skresnet18 swiftformer_xs swin_tiny_patch4_window7_224 swinv2_tiny_window8_256 tnt_s_patch16_224
tresnet_m twins_svt_small visformer_tiny test_vit test_vit_relpos samvit_base_patch16 xception41 xcit_nano_12_p8_224
mixer_s32_224 deit_tiny_patch16_224 beit_base_patch16_224 levit_128s poolformer_s12 pvt_v2_b0 volo_d1_224
inception_next_tiny csatv2 cpubone_s0 efficientvim_m1 gemma4_vit_167m nasnetalarge swin_s3_tiny_224
vit_small_patch14_dinov2
""".split()
CAUSAL = """
Llama Mistral Qwen2 Qwen3 Gemma Gemma2 Gemma3Text Phi Phi3 Olmo Olmo2 StableLm Cohere Granite SmolLM3 Mixtral Qwen2Moe
Qwen3Moe DeepseekV3 GptOss Mamba Mamba2 Jamba FalconMamba Rwkv Persimmon Starcoder2 Helium Bloom GPT2 GPTNeoX OPT
Falcon Lfm2 Qwen3Next Olmoe Ernie4_5
""".split()
ENCODERS = """
Bert Roberta DistilBert Electra Albert DebertaV2 Deberta ModernBert XLMRoberta MPNet NomicBert
""".split()
VISION = """
ViT Beit DeiT Swin Swinv2 ConvNext ResNet MobileViT EfficientNet Dinov2 PoolFormer Levit
""".split()

SMALL = {
    "vocab_size": 50,
    "hidden_size": 32,
    "d_model": 32,
    "n_embd": 32,
    "embedding_size": 32,
    "num_hidden_layers": 2,
    "n_layer": 2,
    "num_layers": 2,
    "num_attention_heads": 4,
    "n_head": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "num_local_experts": 4,
    "num_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
    "state_size": 8,
    "num_heads": 8,
    "expand": 2,
    "n_groups": 1,
    "chunk_size": 8,
    "attention_hidden_size": 32,
    "word_embed_proj_dim": 32,
    "ffn_dim": 48,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "attn_layer_period": 2,
    "attn_layer_offset": 1,
    "expert_layer_period": 2,
    "mamba_dt_rank": 4,
    "conv_L_cache": 3,
}
SPECIAL: dict[str, dict[str, Any]] = {
    "Mamba2": {"num_heads": 8, "head_dim": 8},
    "DeepseekV3": {"num_key_value_heads": 4, "head_dim": 8},
    "Persimmon": {"num_key_value_heads": 4},
    "Qwen3Next": {"layer_types": ["linear_attention", "full_attention"]},
    "Lfm2": {"layer_types": ["conv", "full_attention"]},
}


class Example:
    """A model, its inputs and a target."""

    def __init__(self, source: str, name: str, make: Callable[[], tuple[nn.Module, Any, Any]]):
        self.source, self.name, self.make = source, name, make


def examples() -> Iterator[Example]:
    """All architectures of the suite."""
    yield from (Example("torchvision", n, lambda n=n: _torchvision_model(n)) for n in CLASSIFIERS)  # type: ignore[misc]
    yield from (Example("segmentation", n, lambda n=n: _segmentation(n)) for n in SEGMENTATION)  # type: ignore[misc]
    yield from (Example("video", n, lambda n=n: _video(n)) for n in VIDEO)  # type: ignore[misc]
    yield from (Example("timm", n, lambda n=n: _timm(n)) for n in TIMM)  # type: ignore[misc]
    yield from (Example("hf-causal", n, lambda n=n: _causal(n)) for n in CAUSAL)  # type: ignore[misc]
    yield from (Example("hf-encoder", n, lambda n=n: _encoder(n)) for n in ENCODERS)  # type: ignore[misc]
    yield from (Example("hf-vision", n, lambda n=n: _vision(n)) for n in VISION)  # type: ignore[misc]
    for name, make in OTHERS.items():
        yield Example("hf-other", name, make)


def randomise(model: nn.Module) -> nn.Module:
    """Weights of a trained network's size: many initialisations make every output zero."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim < 2 or bool((p == 0).all()):
                p.add_(0.1 * torch.randn(p.shape, generator=generator))
            elif "head" in name or "classifier" in name or "fc" in name:
                p.copy_(torch.randn(p.shape, generator=generator) / p[0].numel() ** 0.5)
        for name, b in model.named_buffers():
            if name.endswith("running_mean"):
                b.add_(0.1 * torch.randn(b.shape, generator=generator))
    return model.double().eval()


def _torchvision_model(name: str) -> tuple[nn.Module, Any, Any]:
    import torchvision

    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    model = getattr(torchvision.models, name)(weights=None, **options)
    side = 299 if name == "inception_v3" else 224 if name.startswith(("vit", "maxvit", "swin")) else 96
    return randomise(model), torch.randn(2, 3, side, side).double(), 1


def _segmentation(name: str) -> tuple[nn.Module, Any, Any]:
    import torchvision

    model = getattr(torchvision.models.segmentation, name)(weights=None, weights_backbone=None, num_classes=5)
    return randomise(model), torch.randn(2, 3, 64, 64).double(), lambda out: out["out"][:, 1].flatten(1).mean(1)


def _video(name: str) -> tuple[nn.Module, Any, Any]:
    import torchvision

    side, frames = (224, 16) if name.startswith("mvit") else (64, 8)
    return (
        randomise(getattr(torchvision.models.video, name)(weights=None)),
        torch.randn(2, 3, frames, side, side).double(),
        1,
    )


def _timm(name: str) -> tuple[nn.Module, Any, Any]:
    import timm

    smaller = {"img_size": 256} if name.startswith("samvit") else {}  # at 1024 it takes more than 24 GiB
    model = timm.create_model(name, pretrained=False, **smaller)
    _, height, width = (3, *[smaller["img_size"]] * 2) if smaller else model.default_cfg["input_size"]
    if model.default_cfg.get("fixed_input_size") is not True and "test" not in name and height > 160:
        try:
            return _checked(randomise(model), torch.randn(2, 3, 128, 128).double())
        except Exception:  # many need the size they were made for
            pass
    return randomise(model), torch.randn(2, 3, height, width).double(), 1 if model.num_classes else _first


def _checked(model: nn.Module, x: Tensor) -> tuple[nn.Module, Any, Any]:
    with torch.no_grad():
        out = model(x)
    return model, x, 1 if out.ndim == 2 else _first


def _first(out: Tensor) -> Tensor:
    return out.flatten(1)[:, 0]


def _config(kind: str, **more: Any) -> Any:
    import transformers

    cls = getattr(transformers, f"{kind}Config")
    known = set(inspect.signature(cls.__init__).parameters) | set(getattr(cls, "__annotations__", {}))
    for base in cls.__mro__:
        known |= set(getattr(base, "__annotations__", {}))
    options = {k: v for k, v in {**SMALL, **SPECIAL.get(kind, {}), **more}.items() if k in known}
    return cls(**options)


def _causal(kind: str) -> tuple[nn.Module, Any, Any]:
    import transformers

    config = _config(kind)
    name = {"Gemma3Text": "Gemma3", "GPT2": "GPT2LMHead"}.get(kind, kind)
    cls = getattr(transformers, f"{name}ForCausalLM", None) or getattr(transformers, f"{name}Model")
    model = randomise(cls(config))
    return model, {"input_ids": torch.randint(3, 50, (2, 8))}, lambda out: out.logits[:, -1, 7]


def _encoder(kind: str) -> tuple[nn.Module, Any, Any]:
    import transformers

    cls = getattr(transformers, f"{kind}ForSequenceClassification", None) or getattr(transformers, f"{kind}Model")
    inputs = {"input_ids": torch.randint(3, 50, (2, 8)), "attention_mask": torch.ones(2, 8, dtype=torch.long)}
    inputs["attention_mask"][1, 6:] = 0

    def target(out: Any) -> Tensor:
        logits = getattr(out, "logits", None)
        return logits[:, 1] if logits is not None else out.last_hidden_state[:, 0, 0]

    return randomise(cls(_config(kind))), inputs, target


def _vision(kind: str) -> tuple[nn.Module, Any, Any]:
    import transformers

    sizes: dict[str, Any] = {"image_size": 64, "patch_size": 8}
    if kind in ("Swin", "Swinv2"):
        sizes = {
            "image_size": 64,
            "patch_size": 4,
            "embed_dim": 16,
            "depths": [2, 2],
            "num_heads": [2, 4],
            "window_size": 4,
        }
        config = getattr(transformers, f"{kind}Config")(**sizes)
    elif kind in ("ConvNext", "ResNet", "MobileViT", "EfficientNet", "PoolFormer", "Levit"):
        config = getattr(transformers, f"{kind}Config")()
        sizes = {"image_size": 224 if kind == "Levit" else 64}
    else:
        config = _config(kind, **sizes)
    model = randomise(getattr(transformers, f"{kind}ForImageClassification")(config))
    side = sizes["image_size"]
    return model, {"pixel_values": torch.randn(2, 3, side, side).double()}, lambda out: out.logits[:, 1]


def _segformer() -> tuple[nn.Module, Any, Any]:
    import transformers

    model = transformers.SegformerForSemanticSegmentation(transformers.SegformerConfig(depths=[1, 1, 1, 1]))
    x = {"pixel_values": torch.randn(2, 3, 64, 64).double()}
    return randomise(model), x, lambda out: out.logits[:, 1].flatten(1).mean(1)


def _bart() -> tuple[nn.Module, Any, Any]:
    import transformers

    config = transformers.BartConfig(
        vocab_size=50,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        max_position_embeddings=64,
    )
    inputs = {"input_ids": torch.randint(3, 50, (2, 8)), "decoder_input_ids": torch.randint(3, 50, (2, 5))}
    return randomise(transformers.BartForConditionalGeneration(config)), inputs, lambda out: out.logits[:, -1, 7]


def _t5() -> tuple[nn.Module, Any, Any]:
    import transformers

    config = transformers.T5Config(
        vocab_size=50, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, decoder_start_token_id=0
    )
    inputs = {"input_ids": torch.randint(3, 50, (2, 8)), "decoder_input_ids": torch.randint(3, 50, (2, 5))}
    return randomise(transformers.T5ForConditionalGeneration(config)), inputs, lambda out: out.logits[:, -1, 7]


def _clip() -> tuple[nn.Module, Any, Any]:
    import transformers

    tower = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    config = transformers.CLIPConfig(
        text_config={**tower, "vocab_size": 50, "max_position_embeddings": 16, "eos_token_id": 2},
        vision_config={**tower, "image_size": 32, "patch_size": 8},
        projection_dim=16,
    )
    inputs = {"input_ids": torch.randint(3, 50, (2, 8)), "pixel_values": torch.randn(2, 3, 32, 32).double()}
    return randomise(transformers.CLIPModel(config)), inputs, lambda out: out.logits_per_image.diagonal()


def _wav2vec2() -> tuple[nn.Module, Any, Any]:
    import transformers

    config = transformers.Wav2Vec2Config(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        conv_dim=(16, 16),
        conv_kernel=(10, 3),
        conv_stride=(5, 2),
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        classifier_proj_size=16,
    )
    model = randomise(transformers.Wav2Vec2ForSequenceClassification(config))
    return model, {"input_values": torch.randn(2, 400).double()}, lambda out: out.logits[:, 1]


def _ast() -> tuple[nn.Module, Any, Any]:
    import transformers

    config = _config("AST", max_length=64, num_mel_bins=32, patch_size=8)
    model = randomise(transformers.ASTForAudioClassification(config))
    return model, {"input_values": torch.randn(2, 64, 32).double()}, lambda out: out.logits[:, 1]


def _detr() -> tuple[nn.Module, Any, Any]:
    import transformers

    backbone = transformers.ResNetConfig(
        out_features=["stage4"], depths=[1, 1, 1, 1], embedding_size=16, hidden_sizes=[16, 32, 48, 64]
    )
    config = transformers.DetrConfig(
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone=None,
        backbone_config=backbone,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        num_queries=5,
    )
    model = randomise(transformers.DetrForObjectDetection(config))
    inputs = {"pixel_values": torch.randn(2, 3, 64, 64).double(), "pixel_mask": torch.ones(2, 64, 64, dtype=torch.long)}
    return model, inputs, lambda out: out.logits[:, 0, 1]


OTHERS: dict[str, Callable[[], tuple[nn.Module, Any, Any]]] = {
    "SegformerForSemanticSegmentation": _segformer,
    "BartForConditionalGeneration": _bart,
    "T5ForConditionalGeneration": _t5,
    "CLIPModel": _clip,
    "Wav2Vec2ForSequenceClassification": _wav2vec2,
    "ASTForAudioClassification": _ast,
    "DetrForObjectDetection": _detr,
}
