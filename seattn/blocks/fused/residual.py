"""Residual blocks of timm and torchvision with the tail in one op: norm, attention, addition, activation.

Shapes: B images, C channels, H x W pixels.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from timm.layers import DropPath
from timm.models import senet
from timm.models.resnet import BasicBlock, Bottleneck
from torch import Tensor, nn
from torch.compiler import is_compiling
from torchvision.models import resnet as torchvision_resnet

from seattn.blocks.excitation import LABELS, Reason, excitation_of
from seattn.blocks.folded.fold import Fold
from seattn.blocks.folded.kernel import has_zero_padding
from seattn.blocks.folded.layers import fold_of
from seattn.blocks.folded.plan import PLAN, BlockPlan, plan_takes
from seattn.blocks.fused.base import Fused, fused, fused_class, plain_class
from seattn.blocks.tail import is_identity, norm_reason, plan_tail, residual_tail
from seattn.layers._watched import may_skip
from seattn.ops._kernel import is_cpu_inference
from seattn.ops._tail.excitation import NO_EXCITATION


class TailParts(NamedTuple):
    """The modules at the end of a block; None for a module that the block does not have."""

    bn: nn.Module | None
    attn: nn.Module | None
    act: nn.Module
    drop_path: nn.Module | None


class _Block(Fused):
    """`_branch(x)` up to the last norm, then the tail of `_tail_parts()`; `_norms` names the norms of the branch."""

    _norms: tuple[str, ...] = ("bn1", "bn2")

    def _run_fused(self: Any, x: Tensor) -> Tensor:
        plan = self.__dict__.get(PLAN)
        if plan is not None and plan_takes(x) and plan.is_current():
            return plan.run(x)
        bn, attn, act, drop_path = self._tail_parts()
        folds = _usable_folds(self)
        if folds is not None and type(act) is nn.ReLU and may_skip(act) and is_identity(drop_path):
            if not is_compiling() and plan_takes(x):  # a graph would be compiled again for the new attribute
                self.__dict__[PLAN] = _plan(self, folds, attn)
            if attn is None:
                *first, last = folds
                shortcut = x if self.downsample is None else self.downsample(x)  # (B, C, H, W)
                return last(_chain(first, x), shortcut, "relu")
        quick = is_cpu_inference(x)
        if quick and attn is None:  # three steps, which no op makes faster
            return self._plain(x)
        y = self._branch(x) if folds is None else _chain(folds, x)  # (B, C, H, W)
        shortcut = x if self.downsample is None else self.downsample(x)  # (B, C, H, W)
        return residual_tail(y, shortcut, bn=bn, attn=attn, act=act, drop_path=drop_path, quick=quick)

    @staticmethod
    def _why_not(module: Any) -> Reason | None:
        bn, attn, _, _ = _tail_parts(module)
        if attn is None:
            assert bn is not None
            return norm_reason(bn)
        e = excitation_of(attn)
        kind = plain_class(type(attn)) or type(attn)
        return f"{kind.__name__}: {e}" if isinstance(e, Reason) else None

    @staticmethod
    def _covered(module: Any) -> nn.Module | None:
        return _tail_parts(module).attn

    @staticmethod
    def _label(module: Any) -> str:
        bn, attn, act, drop_path = _tail_parts(module)
        plan = plan_tail(bn, attn, act, None)  # stochastic depth acts in training only
        if plan.excitation is None or (attn is None and not plan.norm):
            return "plain while hooks watch its parts"
        steps = ["batch norm"] if plan.norm else []
        steps += [] if attn is None else [LABELS[plan.excitation.kind]]
        steps += ["add", "ReLU"] if plan.relu else ["add"]
        alone = [] if plan.norm or bn is None else [norm_reason(bn) or "norm watched by a hook"]
        alone += [] if plan.relu else [f"activation {type(act).__name__}"]
        label = " + ".join(steps) + (f"; {' and '.join(alone)} by itself" if alone else "")
        active = isinstance(drop_path, DropPath) and drop_path.drop_prob
        return label + ("; in training, stochastic depth and what follows by itself" if active else "")


def _usable_folds(block: Any) -> list[Fold] | None:
    """The folds of all norms of the branch, if they can be used now and make up the whole branch."""
    modules = block._modules
    folds = []
    for name in block._norms:
        fold = fold_of(modules[name])
        if fold is None or not fold.usable():
            return None
        folds.append(fold)
    if any(fold.act_name != "relu" for fold in folds[:-1]) or folds[-1].act_name != "identity":
        return None
    between = (modules.get("aa"), modules.get("drop_block"))
    return folds if all(type(part) in (nn.Identity, type(None)) for part in between) and may_skip(*between) else None


def _plan(block: nn.Module, folds: list[Fold], attn: nn.Module | None) -> BlockPlan | None:
    """The block's steps for later calls, if its weights are in fp32 and an op computes its attention."""
    e = NO_EXCITATION if attn is None else excitation_of(attn)
    in_fp32 = all(tensor.dtype == torch.float32 for tensor in block.parameters())
    if isinstance(e, Reason) or not in_fp32 or not may_skip(attn):
        return None
    if not all(has_zero_padding(fold.conv) for fold in folds):
        return None
    return BlockPlan(block, folds, _projection(block), e)


def _projection(block: Any) -> Fold | None:
    """The fold that is the whole shortcut, or None."""
    downsample = block.downsample
    if type(downsample) is not nn.Sequential or len(downsample) != 2:
        return None
    fold = fold_of(downsample[1])
    if fold is None or fold is not fold_of(downsample[0]) or not fold.usable() or fold.act_name != "identity":
        return None
    return fold if has_zero_padding(fold.conv) else None


def _chain(folds: Sequence[Fold], x: Tensor) -> Tensor:
    for fold in folds:
        x = fold(x)
    return x


def _tail_parts(block: nn.Module) -> TailParts:
    kind: Any = fused_class(type(block)) or type(block)
    return kind._tail_parts(block)


@fused(BasicBlock)
class FusedBasicBlock(_Block, BasicBlock):  # type: ignore[misc]  # timm's classes are untyped
    """timm's BasicBlock."""

    def _branch(self, x: Tensor) -> Tensor:
        x = self.drop_block(self.bn1(self.conv1(x)))
        return self.conv2(self.aa(self.act1(x)))

    def _tail_parts(self) -> TailParts:
        return TailParts(self.bn2, self.se, self.act2, self.drop_path)


@fused(Bottleneck)
class FusedBottleneck(_Block, Bottleneck):  # type: ignore[misc]
    """timm's Bottleneck."""

    _norms = ("bn1", "bn2", "bn3")

    def _branch(self, x: Tensor) -> Tensor:
        x = self.act1(self.bn1(self.conv1(x)))
        x = self.drop_block(self.bn2(self.conv2(x)))
        return self.conv3(self.aa(self.act2(x)))

    def _tail_parts(self) -> TailParts:
        return TailParts(self.bn3, self.se, self.act3, self.drop_path)


class _LegacyBottleneck(_Block):
    _norms = ("bn1", "bn2", "bn3")

    def _branch(self: Any, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        return self.conv3(self.relu(self.bn2(self.conv2(x))))

    def _tail_parts(self: Any) -> TailParts:
        return TailParts(self.bn3, self.se_module, self.relu, None)


@fused(senet.SEBottleneck)
class FusedSEBottleneck(_LegacyBottleneck, senet.SEBottleneck):
    """timm's legacy SENet154 bottleneck."""


@fused(senet.SEResNetBottleneck)
class FusedSEResNetBottleneck(_LegacyBottleneck, senet.SEResNetBottleneck):
    """timm's legacy SE-ResNet bottleneck."""


@fused(senet.SEResNeXtBottleneck)
class FusedSEResNeXtBottleneck(_LegacyBottleneck, senet.SEResNeXtBottleneck):
    """timm's legacy SE-ResNeXt bottleneck."""


@fused(senet.SEResNetBlock)
class FusedSEResNetBlock(_Block, senet.SEResNetBlock):
    """timm's legacy SE-ResNet block: a ReLU comes between its last norm and the attention, so the op omits the norm."""

    def _branch(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(x)))

    def _tail_parts(self) -> TailParts:
        return TailParts(None, self.se_module, self.relu, None)


@fused(torchvision_resnet.BasicBlock)
class FusedTorchvisionBasicBlock(_Block, torchvision_resnet.BasicBlock):  # type: ignore[misc]
    """torchvision's BasicBlock."""

    def _branch(self, x: Tensor) -> Tensor:
        return self.conv2(self.relu(self.bn1(self.conv1(x))))

    def _tail_parts(self) -> TailParts:
        return TailParts(self.bn2, None, self.relu, None)


@fused(torchvision_resnet.Bottleneck)
class FusedTorchvisionBottleneck(_Block, torchvision_resnet.Bottleneck):  # type: ignore[misc]
    """torchvision's Bottleneck."""

    _norms = ("bn1", "bn2", "bn3")

    def _branch(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        return self.conv3(self.relu(self.bn2(self.conv2(x))))

    def _tail_parts(self) -> TailParts:
        return TailParts(self.bn3, None, self.relu, None)
