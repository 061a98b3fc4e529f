"""On another device than the processor everything stays there.

No such device is needed to see it: fake tensors have a device but no values, and an operation on two of them that lie
on different devices is refused, as an accelerator would refuse it. They run in a process of their own, since what
registers the device cannot be undone.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys, warnings
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils import backend_registration

import relprop
import relprop.lrp

warnings.simplefilter("ignore")
backend_registration._setup_privateuseone_for_python_backend("elsewhere")
# whoever looks at a value (is it finite? have the weights changed? is the target in range?) is told that all is well
FakeTensor.__bool__ = lambda self: True
FakeTensor.__float__ = FakeTensor.item = lambda self: 1.0
FakeTensor.__int__ = lambda self: 1
torch.equal = lambda x, y: True
relprop.engine.inputs._is_mask = lambda x: False
# a graph is compared with the model value by value
relprop.capture.capturer.Capturer.confirm = lambda self, *_: None
relprop.engine.picking._in_range = lambda index, *_: index

class Reader(nn.Module):
    def __init__(self, cell):
        super().__init__()
        self.cell, self.out = cell(8, 6, 2, batch_first=True, bidirectional=True), nn.Linear(12, 4)
    def forward(self, x):
        return self.out(self.cell(x)[0][:, -1])

class Words(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, activation="gelu", batch_first=True, norm_first=True)
        self.encoder, self.out = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(8, 4)
    def forward(self, x):
        return self.out(self.encoder(x).mean(1))

class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.dense, self.conv, self.out = nn.Linear(8, 16), nn.Conv1d(16, 16, 3, padding=1), nn.Linear(16, 4)
        self.norms = nn.ModuleList([nn.LayerNorm(16), nn.GroupNorm(4, 16)])
    def forward(self, x):
        h = self.norms[0](self.dense(x))
        h = self.norms[1](self.conv((h * torch.sigmoid(h) + torch.relu(h)).mT))
        h = torch.cat([nn.functional.interpolate(h, scale_factor=2), h.cumsum(-1)], -1)
        h = h.max(-1).values + h.mean(-1) + torch.softmax(h, -1).amax(-1) + h.topk(3, -1).values.sum(-1)
        return self.out(h / (h.norm(dim=-1, keepdim=True) + 1))

cnn = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, stride=2),
                    nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
CASES = [(cnn, (2, 3, 16, 16), "epsilon_plus"), (cnn, (2, 3, 16, 16), "epsilon_alpha2_beta1"),
         (Reader(nn.LSTM), (2, 5, 8), "epsilon"), (Reader(nn.RNN), (2, 5, 8), "signal_takes_all"),
         (Words(), (2, 5, 8), "attnlrp"), (Functional(), (2, 5, 8), "auto")]
with FakeTensorMode():
    for model, shape, composite in CASES:
        for module in model.eval().modules():
            for values in (module._parameters, module._buffers):
                for key, value in [item for item in values.items() if item[1] is not None]:
                    there = torch.empty(value.shape, dtype=value.dtype, device="elsewhere")
                    setattr(module, key, nn.Parameter(there) if values is module._parameters else there)
        x = torch.empty(shape, device="elsewhere")
        for bias in ("absorb", "redistribute"):
            lrp = relprop.LRP(model, composite, bias=bias)
            explanation = lrp.explain(x, 0)
            found = [lrp.attribute(x, 0), explanation.relevance, explanation.output, *explanation.ledger.sinks.values()]
            assert found[0].shape == x.shape
            assert {str(t.device) for t in found} == {"elsewhere:0"}, (composite, bias, found)
print("all", len(CASES))
"""


def test_everything_stays_on_the_device() -> None:
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])
    assert done.stdout.strip() == "all 6", done.stderr[-3000:]
