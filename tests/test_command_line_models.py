"""The forms of MODEL: what each loads, reads and calls its classes, on small models that are saved here."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import relprop

from .command_line import Shell

pytest.importorskip("cyclopts", reason='the command line needs pip install "relprop[cli]"')
transformers = pytest.importorskip("transformers")
pytest.importorskip("PIL")

WORDS = ["[UNK]", "[PAD]", "a", "fine", "film", "dull", "and", "the", "end"]


@pytest.fixture
def shell(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return Shell(tmp_path, capsys)


def save_tokenizer(folder: str) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    own = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    own.pre_tokenizer = pre_tokenizers.Whitespace()
    wrapped = transformers.PreTrainedTokenizerFast(tokenizer_object=own, unk_token="[UNK]", pad_token="[PAD]")
    wrapped.save_pretrained(folder)


@pytest.fixture
def reader(shell):
    """A folder with a small BERT that tells reviews apart."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.BertConfig(vocab_size=len(WORDS), id2label={0: "bad", 1: "good"}, **sizes)
    transformers.BertForSequenceClassification(config).save_pretrained("reader")
    save_tokenizer("reader")
    return "reader"


@pytest.fixture
def writer(shell):
    """A folder with a small Llama."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=len(WORDS), **sizes)).save_pretrained("writer")
    save_tokenizer("writer")
    return "writer"


def test_a_text_is_read_by_the_tokenizer_beside_the_model(shell, reader):
    told = shell.json("explain", reader, "a fine film", "--target", "good", "--out", "a.npz")
    model = transformers.BertForSequenceClassification.from_pretrained(reader).eval()
    ids = torch.tensor([[2, 3, 4]])
    stored = relprop.load("a.npz")
    assert torch.equal(stored.inputs["input_ids"], ids)
    expected = relprop.LRP(model).explain(dict(stored.inputs), target=1)
    torch.testing.assert_close(stored.relevance["input_ids"], expected.relevance["input_ids"])
    assert told["explanations"][0]["targets"][0]["target"] == "good"
    assert told["explanations"][0]["input"] == "a fine film"


def test_texts_of_a_file_a_table_and_a_pipe(shell, reader, monkeypatch):
    import io

    texts = ["a fine film", "a dull film and the end"]
    Path("texts.txt").write_text("\n\n".join(texts))
    Path("texts.csv").write_text("stars,review\n5,a fine film\n1,a dull film and the end\n")
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(texts)))
    found = [
        shell.json("explain", reader, *words)["explanations"]
        for words in (["texts.txt"], ["texts.csv", "--columns", "review"], ["-"], texts)
    ]
    assert [one["input"] for one in found[0]] == texts
    assert all([one["targets"] for one in other] == [one["targets"] for one in found[0]] for other in found[1:])
    code, out, err = shell("explain", reader, "texts.txt", "--out", "out", "--format", "html", "--format", "png")
    assert code == 0, err
    assert out.count("texts-1.png") == out.count("texts-0.html") == 1
    assert "dull" in Path("out/texts-1.html").read_text()


def test_the_next_token_of_a_language_model(shell, writer):
    told = shell.json(
        "explain", writer, "a fine film and", "--target", "the", "--target", "predicted", "--out", "a.json"
    )
    model = transformers.LlamaForCausalLM.from_pretrained(writer).eval()
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[2, 3, 4, 6]])).logits[0, -1]
    values = [target["value"] for target in told["explanations"][0]["targets"]]
    assert values == pytest.approx([float(logits[WORDS.index("the")]), float(logits.max())], rel=1e-5)
    code, message = shell.error("explain", writer, "a fine film", "--target", "the end")
    assert (code, "is 2 tokens ('the', 'end')" in message) == (2, True)


def test_a_picture_is_prepared_as_the_folder_says(shell):
    from PIL import Image

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.ViTConfig(image_size=16, patch_size=8, id2label={0: "cat", 1: "dog"}, **sizes)
    transformers.ViTForImageClassification(config).save_pretrained("viewer")
    told = {"size": {"height": 16, "width": 16}, "image_mean": [0.5] * 3, "image_std": [0.25] * 3, "resample": 0}
    Path("viewer/preprocessor_config.json").write_text(json.dumps({**told, "rescale_factor": 1 / 255}))
    pixels = np.zeros((32, 64, 3), np.uint8)
    pixels[:, 32:] = 255
    Image.fromarray(pixels).save("half.png")
    code, _, err = shell("explain", "viewer", "half.png", "--out", "a.npz")
    assert (code, err) == (0, "")  # no note: the preprocessing is known
    stored = relprop.load("a.npz")
    assert stored.inputs.shape == (1, 3, 16, 16)
    assert stored.inputs[0, 0, 0].tolist() == [-2.0] * 8 + [2.0] * 8
    assert stored.classes == ["cat", "dog"]


def test_a_shorter_side_and_a_crop_make_the_share_of_the_picture_that_is_seen(shell):
    from relprop.cli.models.folder import _pixels

    told = {"size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": {"height": 224, "width": 224}}
    Path("preprocessor_config.json").write_text(json.dumps(told))
    pixels = _pixels(Path())
    assert (pixels.size, pixels.crop, pixels.mean) == ((224, 224), 224 / 256, (0.0,))


def test_weights_that_are_missing_or_pickled_are_refused(shell, reader):
    from safetensors.torch import load_file, save_file

    path = Path(reader, "model.safetensors")
    weights = load_file(path)
    kept = {name: value for name, value in weights.items() if "classifier" not in name}
    save_file(kept, path, metadata={"format": "pt"})
    code, message = shell.error("explain", reader, "a film")
    assert (code, "lacks 2 weights (classifier.bias, classifier.weight)" in message) == (1, True)
    path.unlink()
    torch.save(weights, Path(reader, "pytorch_model.bin"))
    code, message = shell.error("explain", reader, "a film")
    assert (code, "pickles, which are never loaded" in message) == (1, True)


def test_a_network_of_timm_with_weights_from_a_file(shell):
    from . import _torchvision  # noqa: F401

    timm = pytest.importorskip("timm")
    from safetensors.torch import save_file

    torch.manual_seed(0)
    model = timm.create_model("resnet10t", num_classes=7).eval()
    save_file(model.state_dict(), "w.safetensors")
    shell.picture(size=(40, 60))
    shell("explain", "timm:resnet10t:w.safetensors", "a.png", "--size", "64", "--target", 3, "--out", "a.npz")
    stored = relprop.load("a.npz")
    assert stored.inputs.shape == (1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(stored.inputs)[:, 3], stored.value)
    for word, said in {
        "timm:resnet10:w.safetensors": "did you mean resnet10t",
        "timm:resnet18:w.safetensors": "does not hold the weights of resnet18",
        "timm:resnet18": "needs weights",
        "timm:resnet18:w.pth": "pickles",
        "timm:resnet18:no.safetensors": "there is no file",
    }.items():
        assert said in shell.error("explain", word, "a.png")[1]


def test_a_table_in_parquet(shell):
    pyarrow = pytest.importorskip("pyarrow", reason='Parquet needs pip install "relprop[parquet]"')
    from pyarrow import parquet

    shell.module()
    values = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    parquet.write_table(pyarrow.table(dict(zip("abc", values.T, strict=True))), "x.parquet")
    assert shell("explain", "typed_models:rows", "x.parquet", "--columns", "c,a,b", "--out", "x.npz")[0] == 0
    np.testing.assert_allclose(relprop.load("x.npz").inputs, values[:, [2, 0, 1]], rtol=1e-6)


def test_the_page_explains_a_class_of_a_text_and_the_next_token(shell, reader, writer):
    pytest.importorskip("jinja2")
    from functools import partial

    from relprop.app import Limits
    from relprop.app.answers import Answers
    from relprop.app.asked import Explain
    from relprop.cli.options import InputOptions, ModelOptions
    from relprop.cli.served import served

    openers = {name: partial(served, name, ModelOptions(), InputOptions()) for name in (reader, writer)}
    answers = Answers(openers, Limits())
    text = "a fine film and"
    assert [guess.explained for guess in answers(Explain(reader, text, target="bad")).guesses].count(True) == 1
    model = transformers.LlamaForCausalLM.from_pretrained(writer).eval()
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[2, 3, 4, 6]])).logits[0, -1]
    for target, value in ((None, logits.max()), ("the", logits[WORDS.index("the")])):
        shown = answers(Explain(writer, text, target=target))
        assert f"{float(value):.4g}" in shown.texts
        assert "film" in shown.texts
