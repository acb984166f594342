"""Residual nets of other projects for the tests of `seattn.models.checkpoints`: key names and arithmetic.

Shapes: B images, C channels, H x W pixels, R hidden channels.
"""

import torch
import torch.nn.functional as F
from torch import nn

# Path of each part: s and k = s + 1 count stages from 1, u and b units from 1 and 0, i convolutions from 1, j and n are
# the convolution's and norm's step in an nn.Sequential conv, norm, ReLU, conv, ...
TORCHVISION = {
    "stem": ("conv1", "bn1"),
    "body": ("layer{s}.{b}.conv{i}", "layer{s}.{b}.bn{i}"),
    "projection": ("layer{s}.{b}.downsample.0", "layer{s}.{b}.downsample.1"),
    "se": ("layer{s}.{b}.se.fc1", "layer{s}.{b}.se.fc2"),
    "head": ("fc",),
}
PYTORCHCV = {
    "stem": ("features.init_block.conv", "features.init_block.bn"),
    "body": ("features.stage{s}.unit{u}.body.conv{i}.conv", "features.stage{s}.unit{u}.body.conv{i}.bn"),
    "projection": ("features.stage{s}.unit{u}.identity_conv.conv", "features.stage{s}.unit{u}.identity_conv.bn"),
    "se": ("features.stage{s}.unit{u}.se.conv1", "features.stage{s}.unit{u}.se.conv2"),
    "head": ("output",),
}
NAMES = {
    "torchvision": TORCHVISION,
    "pytorchcv": PYTORCHCV,
    "pytorchcv-imagenet": {**PYTORCHCV, "stem": ("features.init_block.conv.conv", "features.init_block.conv.bn")},
    "pytorch-cifar100": {
        "stem": ("conv1.0", "conv1.1"),
        "body": ("conv{k}_x.{b}.residual_function.{j}", "conv{k}_x.{b}.residual_function.{n}"),
        "projection": ("conv{k}_x.{b}.shortcut.0", "conv{k}_x.{b}.shortcut.1"),
        "head": ("fc",),
    },
    "pytorch-cifar100-se": {
        "stem": ("pre.0", "pre.1"),
        "body": ("stage{s}.{b}.residual.{j}", "stage{s}.{b}.residual.{n}"),
        "projection": ("stage{s}.{b}.shortcut.0", "stage{s}.{b}.shortcut.1"),
        "se": ("stage{s}.{b}.excitation.0", "stage{s}.{b}.excitation.2"),
        "head": ("linear",),
    },
    "pytorch-cifar": {
        **TORCHVISION,
        "projection": ("layer{s}.{b}.shortcut.0", "layer{s}.{b}.shortcut.1"),
        "se": ("layer{s}.{b}.fc1", "layer{s}.{b}.fc2"),
        "head": ("linear",),
    },
    **{
        spelling: {**TORCHVISION, "se": tuple(f"layer{{s}}.{{b}}.{name}" for name in names)}
        for spelling, names in {
            "se.fc.0": ("se.fc.0", "se.fc.2"),
            "attention.fc.0": ("attention.fc.0", "attention.fc.2"),
            "fc.0": ("fc.0", "fc.2"),
            "se_module.fc1": ("se_module.fc1", "se_module.fc2"),
            "attn.conv_reduce": ("attn.conv_reduce", "attn.conv_expand"),
            "se.fc.reduce": ("se.fc.reduce", "se.fc.expand"),
        }.items()
    },
}


class Net(nn.Module):
    """A residual net whose parts stand under any names; the options are what projects do differently.

    Args:
        names: paths of the parts, as in `NAMES`.
        attn: "conv" or "linear" squeeze-excite, or None.
        shortcut: "projection"; "bare" without norm; "pooled" before the convolution; "A" without weights.
        pre: norm and ReLU before each convolution instead of after it.
        big_stem: ImageNet's 7 x 7 with max-pool.
    """

    def __init__(
        self,
        names,
        *,
        blocks=(2, 1, 1),
        widths=(16, 32, 64),
        bottleneck=False,
        attn="conv",
        attn_bias=True,
        gate=torch.sigmoid,
        conv_bias=False,
        relu_before_attn=False,
        shortcut="projection",
        pre=False,
        big_stem=False,
        stem_width=None,
        classes=10,
    ):
        super().__init__()
        self.gate, self.relu_before_attn, self.shortcut, self.pre_activation = gate, relu_before_attn, shortcut, pre
        width = stem_width or widths[0]
        conv = nn.Conv2d(3, width, 7, 2, 3, bias=False) if big_stem else nn.Conv2d(3, width, 3, 1, 1, bias=conv_bias)
        self.stem = self._put(names["stem"], (conv, nn.BatchNorm2d(width)))
        self.pool = nn.MaxPool2d(3, 2, 1) if big_stem else nn.Identity()
        self.parts = []
        for s, (count, planes) in enumerate(zip(blocks, widths, strict=True), start=1):
            for b in range(count):
                stride = 2 if s > 1 and b == 0 else 1
                out = planes * 4 if bottleneck else planes
                shapes = [(width, planes, 3, stride), (planes, planes, 3, 1)]
                if bottleneck:
                    shapes = [(width, planes, 1, 1), (planes, planes, 3, stride), (planes, out, 1, 1)]
                body = []
                for i, (c_in, c_out, side, step) in enumerate(shapes, start=1):
                    conv = nn.Conv2d(c_in, c_out, side, step, side // 2, bias=conv_bias)
                    place = {"s": s, "k": s + 1, "u": b + 1, "b": b, "i": i, "j": 3 * i - 3, "n": 3 * i - 2}
                    norm = nn.BatchNorm2d(c_in if pre else c_out)
                    body.append(self._put(names["body"], (conv, norm), place))
                projection = None
                if stride > 1 or width != out:
                    projection = self._project(names["projection"], width, out, stride, conv_bias, place)
                se = None
                if attn:
                    hidden = max(out // 16, 1)
                    kind = nn.Linear if attn == "linear" else lambda i, o, bias: nn.Conv2d(i, o, 1, bias=bias)
                    matrices = kind(out, hidden, bias=attn_bias), kind(hidden, out, bias=attn_bias)
                    se = self._put(names["se"], matrices, place)
                self.parts.append((body, projection, se, stride, out))
                width = out
        self.head = self._put(names["head"], (nn.Linear(width, classes),))

    def _project(self, paths, width, out, stride, bias, place):
        if self.shortcut == "A":
            return None
        if self.shortcut == "pooled":
            block = paths[0].rpartition(".")[0]
            paths, stride = (f"{block}.1", f"{block}.2"), 1
        conv = nn.Conv2d(width, out, 1, stride, bias=bias)
        return self._put(paths, (conv,) if self.shortcut == "bare" else (conv, nn.BatchNorm2d(out)), place)

    def _put(self, paths, modules, place=None):
        for path, module in zip(paths, modules, strict=False):
            *parents, last = path.format(**(place or {})).split(".")
            at = self
            for name in parents:
                if not hasattr(at, name):
                    at.add_module(name, nn.Module())
                at = getattr(at, name)
            at.add_module(last, module)
        return list(modules)  # a list: nn.Module would register its modules a second time

    def forward(self, x):
        conv, norm = self.stem
        x = self.pool(F.relu(norm(conv(x))))  # (B, C, H, W)
        for body, projection, se, stride, out in self.parts:
            y = x
            for i, (conv, norm) in enumerate(body):
                y = conv(F.relu(norm(y))) if self.pre_activation else norm(conv(y))
                if not self.pre_activation and (i < len(body) - 1 or (se and self.relu_before_attn)):
                    y = F.relu(y)
            if se is not None:
                y = y * self._excite(y, *se)
            if projection is not None:
                x = F.avg_pool2d(x, stride) if self.shortcut == "pooled" else x
                for module in projection:
                    x = module(x)
            elif x.shape != y.shape:
                grow = out - x.shape[1]
                x = F.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, grow // 2, grow - grow // 2))
            x = x + y if self.pre_activation else F.relu(x + y)
        return self.head[0](x.mean((2, 3)))

    def _excite(self, y, first, second):
        mean = y.mean((2, 3))  # (B, C)
        if isinstance(first, nn.Linear):
            return self.gate(second(F.relu(first(mean))))[:, :, None, None]
        return self.gate(second(F.relu(first(mean[:, :, None, None]))))  # (B, C, 1, 1)


def randomised(net, side=32):
    """`net` in eval, its norms with random scales and the statistics of one batch, so that nothing is the identity."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
            module.momentum = 1.0
    with torch.no_grad():
        net.train()(torch.randn(4, 3, side, side))
    return net.eval()
