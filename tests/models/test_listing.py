"""The list of nets, and the file of their costs, which `make cards` writes."""

import pytest

from seattn.evaluation.profile.compare import parse_options, twin
from seattn.evaluation.profile.costs import measure_cost, measure_costs
from seattn.models.listing import COSTS, list_nets, our_models, read_costs, render_costs

SAMPLE = ("resnet20_cifar", "se_wrn28_10_cifar", "eca_mobilenetv2_cifar", "cbam_resnet18")


def test_every_net_has_costs_and_the_file_is_as_it_is_rendered():
    assert sorted(read_costs()) == sorted(our_models()), "make cards writes the costs of new nets"
    assert COSTS.read_text(encoding="utf-8") == render_costs(read_costs())


@pytest.mark.parametrize("name", SAMPLE)
def test_costs_are_those_of_the_net(name):
    assert read_costs()[name] == measure_cost(name)


@pytest.mark.slow
def test_all_costs_are_those_of_the_nets():
    assert read_costs() == measure_costs()


def test_nets_stand_by_family_beside_their_twins():
    nets = list_nets()
    families = [net.family for net in nets]
    assert families == sorted(families)
    names = [net.name for net in nets]
    place = names.index("resnet20_cifar")
    assert sorted(names[place - 2 : place + 2]) == [f"{kind}resnet20_cifar" for kind in ("cbam_", "eca_", "", "se_")]


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("se_resnet20_cifar", "resnet20_cifar"),
        ("eca_resnet20_cifar.cifar100", "resnet20_cifar.cifar100"),
        ("cbam_resnet50", "resnet50"),
        ("resnet20_cifar", None),
        ("seresnet50", None),
        ("ese_vovnet39b", None),
    ],
)
def test_the_plain_twin(name, plain):
    assert twin(name) == plain


def test_options_are_read_as_timm_reads_them():
    pairs = ["a=1", "b=pre", "c=[1, 2]", "d=None", "e=1/8", "f=x=y", "g="]
    expected = {"a": 1, "b": "pre", "c": [1, 2], "d": None, "e": "1/8", "f": "x=y", "g": ""}
    assert parse_options(pairs) == expected
