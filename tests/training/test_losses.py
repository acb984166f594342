"""Losses against their equations."""

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from seattn.core.errors import UserError
from seattn.core.recipe import parse_recipe
from seattn.training.losses import FocalLoss, Teacher, class_weights, make_criterion

BASE = {"model": "resnet20_cifar", "lr": 0.1, "smoothing": 0.0}
NAMES = ("bird", "cat", "dog")
LABELS = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)


def recipe(**changes):
    return parse_recipe({**BASE, **changes})


@pytest.fixture
def logits():
    return torch.randn(8, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)


TARGET = torch.tensor([0, 1, 2, 0, 1, 2, 0, 0])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_focal_loss_of_gamma_0_is_cross_entropy(logits, smoothing):
    expected = F.cross_entropy(logits, TARGET, label_smoothing=smoothing)
    torch.testing.assert_close(FocalLoss(0.0, smoothing=smoothing)(logits, TARGET), expected)


def test_focal_loss_is_its_equation_and_takes_soft_targets(logits):
    weight = torch.tensor([0.5, 1.0, 2.0])
    p = logits.detach().softmax(1)[range(8), TARGET]
    expected = (weight[TARGET] * (1 - p) ** 2 * -p.log()).mean()
    loss = FocalLoss(2.0, weight=weight)
    torch.testing.assert_close(loss(logits, TARGET).detach(), expected)
    torch.testing.assert_close(loss(logits, F.one_hot(TARGET, 3).float()).detach(), expected)


def test_balanced_weights_give_every_class_the_same_say():
    weights = class_weights("balanced", LABELS, (*NAMES, "eel"))
    counts = torch.bincount(LABELS, minlength=4)
    torch.testing.assert_close(weights[:3] * counts[:3], torch.full((3,), 100 / 3))
    assert weights[3] == 1  # a class without images has no say, and no infinite weight


def test_effective_weights_are_cuis_and_lie_between_none_and_balanced():
    weights = class_weights("effective", LABELS, NAMES)
    expected = torch.tensor([(1 - 0.999) / (1 - 0.999**n) for n in (60, 30, 10)])
    torch.testing.assert_close(weights, expected / expected.mean())
    assert class_weights("none", LABELS, NAMES) is None


def test_classes_are_weighted_by_name_and_an_unknown_one_is_named_with_the_nearest():
    weights = recipe(seattn={"class_weights": {"cat": 2, "dog": 0.5}}).seattn.class_weights
    torch.testing.assert_close(class_weights(weights, LABELS, NAMES), torch.tensor([1.0, 2.0, 0.5]))
    assert class_weights(dict.fromkeys(NAMES, 2), LABELS, NAMES).dtype == torch.float32
    with pytest.raises(
        UserError, match=r"class_weights names 'kat', which is not a class of the data; did you mean 'cat'"
    ):
        class_weights({"kat": 2.0}, LABELS, NAMES)
    with pytest.raises(UserError, match=r"names 'ox', which is not a class of the data; known: bird, cat, dog"):
        class_weights({"ox": 2.0}, LABELS, NAMES)


def test_the_recipe_chooses_the_loss(logits):
    assert isinstance(make_criterion(recipe(), LABELS, NAMES), nn.CrossEntropyLoss)
    assert make_criterion(recipe(smoothing=0.1), LABELS, NAMES).label_smoothing == 0.1
    assert make_criterion(recipe(smoothing=0.1, mixup=0.2), LABELS, NAMES).label_smoothing == 0.0  # Mixup smooths
    focal = make_criterion(recipe(seattn={"loss": "focal", "focal_gamma": 1.0}), LABELS, NAMES)
    assert (type(focal), focal.gamma) == (FocalLoss, 1.0)
    weighted = make_criterion(recipe(seattn={"class_weights": "balanced"}), LABELS, NAMES)
    assert weighted.weight[2] > weighted.weight[0]
    bce = make_criterion(recipe(bce_loss=True), LABELS, NAMES)
    soft = F.one_hot(TARGET, 3).float()
    torch.testing.assert_close(bce(logits, TARGET), F.binary_cross_entropy_with_logits(logits, soft))


def test_distillation_is_hintons_loss_in_the_teachers_own_normalisation():
    net = timm.create_model("resnet20_cifar").eval()
    net.pretrained_cfg = {"mean": (0.1, 0.2, 0.3), "std": (0.5, 0.4, 0.3)}
    student = {"mean": (0.5, 0.5, 0.4), "std": (0.2, 0.25, 0.3)}
    teacher = Teacher(net, recipe(kd_model_name="t", kd_temperature=3.0, distill_loss_weight=0.7), student)
    pixels = torch.rand(2, 3, 32, 32)

    def normal(cfg):
        return (pixels - torch.tensor(cfg["mean"]).view(1, 3, 1, 1)) / torch.tensor(cfg["std"]).view(1, 3, 1, 1)

    x = normal(student)
    with torch.no_grad():
        torch.testing.assert_close(teacher(x), net(normal(net.pretrained_cfg)), atol=1e-4, rtol=1e-4)
    logits = torch.randn(2, 10, requires_grad=True)
    p, q = (teacher(x) / 3).softmax(1), (logits / 3).softmax(1)
    expected = 1.0 * 2.5 + 0.7 * 9 * (p * (p.log() - q.log())).sum(1).mean()
    torch.testing.assert_close(teacher.loss(logits, torch.tensor(2.5), x), expected)
    teacher.train()
    assert not net.training
    assert not any(p.requires_grad for p in teacher.parameters())


@pytest.mark.parametrize(
    ("weights", "expected"),
    [({}, (1, 1)), ({"task_loss_weight": 0.3}, (0.3, 0.7)), ({"distill_loss_weight": 2.0}, (1, 2))],
)
def test_the_two_weights_are_read_as_timm_reads_them(weights, expected):
    net = timm.create_model("resnet20_cifar")
    teacher = Teacher(net, recipe(kd_model_name="t", **weights), net.pretrained_cfg)
    assert (teacher.task_weight, teacher.weight) == pytest.approx(expected)


@pytest.mark.parametrize("soft", [False, True])
def test_the_hardest_part_of_a_batch_is_learnt(soft):
    torch.manual_seed(0)
    logits = torch.randn(8, 3, requires_grad=True)
    target = torch.randn(8, 3).softmax(1) if soft else torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
    criterion = make_criterion(recipe(smoothing=0.1, seattn={"hardest": 0.25}), LABELS, NAMES)
    loss = criterion(logits, target)
    losses = F.cross_entropy(logits, target, reduction="none")
    hardest = losses.argsort(descending=True)[:2]
    expected = F.cross_entropy(logits[hardest], target[hardest], label_smoothing=0.1)
    assert_close(loss, expected)
    loss.backward()
    learnt = logits.grad.abs().sum(1).nonzero().flatten()
    assert sorted(learnt.tolist()) == sorted(hardest.tolist())


def test_the_hardest_part_is_at_least_one_image_and_keeps_the_kind_of_loss():
    criterion = make_criterion(recipe(seattn={"hardest": 0.01, "loss": "focal"}), LABELS, NAMES)
    assert isinstance(criterion.criterion, FocalLoss)
    logits, target = torch.tensor([[4.0, 0, 0], [0, 0, 0]]), torch.tensor([0, 0])
    assert_close(criterion(logits, target), criterion.criterion(logits[1:], target[1:]))
    assert type(make_criterion(recipe(), LABELS, NAMES)) is torch.nn.CrossEntropyLoss
