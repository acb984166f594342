"""Several models answer together as by hand, alone and together on the same images; others are refused."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from seattn.__main__ import main
from seattn.core.errors import UserError
from seattn.evaluation.prediction import predict
from seattn.evaluation.probabilities.combination import combine
from seattn.evaluation.probabilities.ensemble import evaluate_ensemble
from seattn.evaluation.scoring import evaluate
from seattn.evaluation.statistics import newcombe_interval
from tests.helpers.report_runs import fake_run, write_images

NAMES = ("red", "green", "blue")
COLOURS = ((250, 10, 10), (10, 250, 10), (10, 10, 250))


class Brightest(nn.Module):
    """Answers the brightest channel, but takes the class `blind` for the one after it; sees images of one size only."""

    def __init__(self, blind: int, size: int, names: tuple[str, ...] = NAMES, seen: list[str] | None = None) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.num_classes, self.blind, self.size, self.seen = 3, blind, size, [] if seen is None else seen
        statistics = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "crop_pct": 1.0}
        self.pretrained_cfg = {"input_size": (3, size, size), "label_names": names, **statistics}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.shape[2:] == (self.size, self.size)
        self.seen.append(f"{self.blind}: {len(x)}")
        means = 2 * self.scale * x.mean((2, 3))  # (B, 3), by channel
        means = torch.where((means.argmax(1) == self.blind)[:, None], means.roll(1, 1), means)
        order = [NAMES.index(name) for name in self.pretrained_cfg["label_names"]]
        return means[:, order]


@pytest.fixture
def colours(tmp_path):
    for name, colour in zip(NAMES, COLOURS, strict=True):
        (tmp_path / name).mkdir()
        for number in range(2):
            Image.new("RGB", (9, 9), colour).save(tmp_path / name / f"{number}.png")
    return tmp_path


def test_average_and_vote_by_hand():
    first, second = torch.tensor([[0.6, 0.3, 0.1]]), torch.tensor([[0.5, 0.4, 0.1]])
    third = torch.tensor([[0.0001, 0.9899, 0.01]])
    scores = [p.log() + shift for p, shift in zip((first, second, third), (0, 7, -3), strict=True)]
    mean = (first + second + third) / 3
    torch.testing.assert_close(combine(scores, "average").softmax(1), mean)
    assert mean.argmax() == 1
    torch.testing.assert_close(combine(scores, "vote").softmax(1), (torch.tensor([[2.0, 1.0, 0.0]]) + mean) / 4)
    tie = combine([scores[0], scores[2]], "vote").softmax(1)
    assert tie.argmax() == 1  # one vote each: the mean of the probabilities decides
    with pytest.raises(UserError, match="--ensemble must be one of average, vote, got 'median'"):
        combine(scores, "median")


@pytest.mark.parametrize("ensemble", ["average", "vote"])
def test_models_of_other_sizes_and_orders_of_classes_correct_each_other(colours, ensemble):
    seen = []
    models = {
        "a": Brightest(0, 8, seen=seen),
        "b": Brightest(1, 12, ("blue", "red", "green"), seen=seen),
        "c": Brightest(2, 16, seen=seen),
    }
    done = evaluate_ensemble(models, colours, ensemble=ensemble, batch_size=4, workers=0)
    assert seen == ["0: 4", "1: 4", "2: 4", "0: 2", "1: 2", "2: 2"]  # batch by batch, not model by model
    assert (done.together.n, done.together.top1) == (6, 1)
    assert done.together.class_names == NAMES
    for member, net in zip(done.members, models.values(), strict=True):
        alone = evaluate(net, colours, workers=0)
        assert (member.top1, member.top1_low, member.top1_high) == (alone.top1, alone.top1_low, alone.top1_high)
        assert (member.gain.gained, member.gain.lost) == (2, 0)
        assert (member.gain.low, member.gain.high) == newcombe_interval(2, 0, 4, 6)
    assert json.loads(json.dumps(done.to_dict()))["members"][0]["gain"]["change"] == pytest.approx(1 / 3)


def test_predictions_together_by_hand(tmp_path):
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path in paths:
        Image.fromarray(rng.integers(256, size=(9, 9, 3), dtype=np.uint8)).save(path)
    (tmp_path / "bad.png").write_bytes(b"no image")
    models = {"a": Brightest(0, 8), "b": Brightest(1, 12, ("blue", "red", "green"))}
    alone = [predict(net, paths, topk=3) for net in models.values()]
    for number, found in enumerate(predict(models, paths, topk=3, batch_size=2)):
        each = [dict(zip(p[number].labels, p[number].probabilities, strict=True)) for p in alone]
        expected = {name: sum(p[name] for p in each) / 2 for name in NAMES}
        assert dict(zip(found.labels, found.probabilities, strict=True)) == pytest.approx(expected, rel=1e-4)
        assert found.indices == tuple(NAMES.index(label) for label in found.labels)
    with pytest.raises(UserError, match=r"cannot read image .*bad\.png"):
        predict(models, [tmp_path / "bad.png"])


def test_the_commands_take_several_models(tmp_path, capsys, fails):
    data = write_images(tmp_path / "data", {"test": 3}, NAMES)
    one, two = (str(fake_run(tmp_path / f"run{seed}", NAMES, weights=seed, result=False)) for seed in (1, 2))
    image = str(next(data.glob("test/red/*.png")))
    command = ["evaluate", one, two, "--data-dir", str(data), "--workers", "0", "--ensemble", "vote"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "gain: the 2 models together against the model alone" in out
    assert "n = 9" in out
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["ensemble"], [member["model"] for member in found["members"]]) == ("vote", [one, two])
    together = ["predict", image, "--ensemble", "average", "--model", one, "--model", two]
    assert main([*together, "--json"]) == 0
    assert sum(p["probability"] for p in json.loads(capsys.readouterr().out)[0]["predictions"]) == pytest.approx(1)

    scores = ("--data-dir", data)
    assert "2 models are given; --ensemble average or vote" in fails("evaluate", one, two, *scores)
    assert "--ensemble needs two models or more" in fails("evaluate", one, *scores, "--ensemble", "vote")
    assert f"{one} is given twice" in fails("evaluate", one, one, *scores, "--ensemble", "vote")
    weights = ("--checkpoint", "x.safetensors")
    assert "--checkpoint is for one model" in fails("evaluate", one, two, *scores, "--ensemble", "vote", *weights)
    assert "--ensemble average or vote" in fails(*[arg for arg in together if arg not in ("--ensemble", "average")])
    other = fake_run(tmp_path / "other", ("red", "green", "pink"), result=False)
    message = f"{one} has 3 classes, {other} 3, and only one of them has 'blue': an ensemble needs"
    assert message in fails("evaluate", one, other, *scores, "--ensemble", "average")
    assert message in fails("predict", image, "--model", one, "--model", other, "--ensemble", "average")


def test_two_classes_of_one_name_are_two_classes(tmp_path):
    """As ImageNet's two cranes; their outputs must not be mixed up, alone and in an ensemble."""
    for i, colour in enumerate(COLOURS):
        Image.new("RGB", (4, 4), colour).save(tmp_path / f"{i}.png")
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    net = Brightest(blind=3, size=4)
    net.pretrained_cfg["label_names"] = ("bird", "bird", "fish")
    net.forward = lambda x: 2 * net.scale * x.mean((2, 3))
    for model in (net, {"a": net, "b": net}):
        answers = predict(model, paths, topk=3)
        assert [answer.indices[0] for answer in answers] == [0, 1, 2]
        assert [answer.labels[0] for answer in answers] == ["bird", "bird", "fish"]
        assert all(sum(answer.probabilities) == pytest.approx(1) for answer in answers)
    folder = tmp_path / "photos"
    for name in ("bird", "fish"):
        (folder / name).mkdir(parents=True)
        shutil.copy(paths[0], folder / name)
    with pytest.raises(UserError, match="2 of the model's classes are called 'bird', so this class folder cannot"):
        evaluate(net, folder, workers=0)
