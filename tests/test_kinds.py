"""Kinds of data beside images and series: tables, volumes, and texts whose pieces are merged into words."""

import re

import numpy as np
import pytest
import torch
from torch import nn

import relprop
from relprop import view

pytest.importorskip("matplotlib")


class Tokenizer:
    """As those of transformers: ids to pieces, and pieces to text."""

    all_special_tokens = ("[CLS]", "[SEP]", "[PAD]")
    pieces = ("[PAD]", "[CLS]", "[SEP]", "breath", "##taking", "film", ".")

    def convert_ids_to_tokens(self, ids):
        return [self.pieces[i] for i in ids]


class Text(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.fc = nn.Embedding(7, 4), nn.Linear(4, 2)

    def forward(self, ids):
        return self.fc(self.embedding(ids).relu().mean(1))


def test_a_table_has_a_bar_for_each_feature_the_strongest_on_top():
    model = nn.Linear(3, 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, -4.0, 2.0]]))
    e = relprop.LRP(model, "lrp0").explain(torch.tensor([[1.0, 1.0, 0.5]]).double())  # relevance 1, -4, 1
    (ax,) = e.figure(names=["age", "$bmi$", "sex"]).axes
    assert [bar.get_width() for bar in ax.patches] == pytest.approx([-4, 1, 1])
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels == [r"\$bmi\$ = 1", "age = 1", "sex = 0.5"]
    assert ax.patches[0].get_facecolor()[:3] == (0, 0, 1)
    assert ax.patches[1].get_facecolor()[:3] == (1, 0, 0)
    view.png(e.figure(names=["age", "$bmi$", "sex"]))
    (ax,) = view.table(e.relevance[0], largest=1).axes
    assert [bar.get_width() for bar in ax.patches] == pytest.approx([-4, 2])
    assert ax.get_yticklabels()[1].get_text() == "2 others"
    assert len(e.figure(kind="series").axes[0].patches) == 2
    with pytest.raises(ValueError, match="2 names for 3 features; pass one per feature"):
        e.figure(names=["age", "bmi"])
    with pytest.raises(ValueError, match="kind='pie'; a row of numbers is a 'series' or a 'table'"):
        e.figure(kind="pie")
    with pytest.raises(ValueError, match=r"relevance has shape \[1, 3\]; pass that of one row"):
        view.table(e.relevance)
    with pytest.raises(ValueError, match="largest=0"):
        view.table(e.relevance[0], largest=0)


def test_a_volume_is_drawn_in_its_slices_with_most_relevance():
    model = nn.Sequential(nn.Flatten(), nn.Linear(8 * 4 * 5, 1, bias=False)).double()
    with torch.no_grad():
        weight = model[1].weight.view(8, 4, 5)
        weight.zero_()
        for depth, strength in ((1, 3.0), (4, -5.0), (7, 1.0), (2, 2.0), (0, 0.5), (3, 0.7)):
            weight[depth] = strength
    e = relprop.LRP(model, "lrp0").explain(torch.ones(1, 1, 8, 4, 5).double(), lambda y: y[:, 0])
    fig = e.figure()
    panels = [ax for ax in fig.axes if ax.get_label() != "<colorbar>"]
    assert [ax.get_ylabel() for ax in panels[::3]] == [f"slice {i} of 8" for i in (0, 1, 2, 3, 4, 7)]
    assert np.allclose(panels[13].images[0].get_array(), -5)
    assert len({ax.images[0].get_clim() for ax in panels[1::3]}) == 1  # one scale
    assert fig.get_suptitle().startswith("y[:, 0]: ")
    one = e.figure(slices=-1)
    assert one.axes[0].get_ylabel() == "slice 7 of 8"
    assert e._repr_png_() is not None
    for bad in (8, [0, -9], [], "1"):
        with pytest.raises(ValueError, match=re.escape(f"slices={bad}; they are numbers from 0 to 7")):
            e.figure(slices=bad)


@pytest.mark.parametrize(
    ("pieces", "special", "words"),
    [
        # WordPiece
        (["[CLS]", "breath", "##taking", "!", "[SEP]", "[PAD]", "[PAD]"], {"[CLS]", "[SEP]", "[PAD]"},
         {"[CLS] ": [0], " breathtaking": [1, 2], " !": [3], "[SEP] ": [4], "[PAD] × 2 ": [5, 6]}),
        # byte-level BPE
        (["The", "\u0120cap", "ital", ",", "\u010a", "\u0120of"], (),
         {"The": [0], " capital": [1, 2], ",": [3], "\n": [4], " of": [5]}),
        # SentencePiece
        (["<s>", "\u2581phar", "macist", ".", "\u2581a"], {"<s>"},
         {"<s> ": [0], " pharmacist": [1, 2], ".": [3], " a": [4]}),
    ],
)  # fmt: skip
def test_pieces_are_merged_into_words(pieces, special, words):
    relevance = torch.arange(1.0, len(pieces) + 1)
    found, numbers = view.merged(pieces, relevance, special)
    assert found == list(words)
    assert numbers.tolist() == [sum(i + 1 for i in group) for group in words.values()]
    both, twice = view.merged(pieces, torch.stack([relevance, relevance], 1), special)
    assert both == found
    assert twice.tolist() == [2 * x for x in numbers]


def test_a_tokenizer_names_the_words(tmp_path):
    e = relprop.LRP(Text()).explain(torch.tensor([[1, 5, 3, 4, 6, 2, 0, 0]]), 1)
    r = e.relevance[0]
    page = e.html(Tokenizer())
    found = re.findall(r'<span title="(.*?)".*?>(.*?)</span>', page)[:6]
    assert [word for _, word in found] == ["[CLS] ", " film", " breathtaking", " .", "[SEP] ", "[PAD] × 2 "]
    assert float(found[2][0]) == pytest.approx(float(r[2] + r[3]), rel=1e-4)
    labels = [label.get_text() for label in e.figure(tokens=Tokenizer()).axes[0].texts]
    assert labels[2] == " breathtaking"
    series = relprop.LRP(nn.Linear(6, 2)).explain(torch.randn(2, 6))
    with pytest.raises(ValueError, match=r"a tokenizer names ids \[T\]; .* is \[6\] of torch\.float32"):
        series.figure(tokens=Tokenizer())
    with pytest.raises(ValueError, match="1 tokens for 2 positions"):
        view.merged(["a"], torch.zeros(2))
