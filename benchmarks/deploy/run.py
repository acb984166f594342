"""Nets in PyTorch and as exported files: `python -m benchmarks.deploy.run`, or `make bench-deploy DATA_DIR=…`.

Exports two nets for CIFAR-10 to ONNX and OpenVINO, in float32 and 8 bits, scores each form on the test split, and times
all forms of a net in turns, in one process and with as many threads as torch has. Appends a row for each form and batch
size to benchmarks/results/deploy-<device>.csv. The exit code is 1 if a form was left out. On two cores it takes about
twelve minutes, most of them for the scores of the larger net; the time of each part is printed.
"""

import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks._command import Parser, command
from benchmarks.deploy.forms import Form, make_forms
from benchmarks.deploy.rows import EAGER, FORMS, DeployRow
from benchmarks.evidence.rows import RESULTS
from benchmarks.speed.rows import DEPLOY_PREFIX, device_slug
from benchmarks.speed.timing import Work, cpu_clock, interleave, ratios, spread
from seattn.core.files import require_writable
from seattn.core.records import append_rows
from seattn.core.rows import Conditions, conditions
from seattn.deploy.runtime import Run
from seattn.evaluation.matching import match_classes
from seattn.evaluation.scoring import image_batches, open_images, wilson_interval
from seattn.models.load import load_model

NETS = ("se_resnet20_cifar.cifar10", "se_resnet18_cifar.cifar10")
BATCH = 32
ROUNDS = {1: 40, BATCH: 15}
REST = 0.05  # seconds between calls; onnxruntime's threads wait actively for about half of that after a call
QUICK_IMAGES = 100


@command("deploy")
def main(arguments: Sequence[str] | None) -> int:
    parser = Parser(__doc__)
    parser.add_argument("--data-dir", type=Path, required=True, help="CIFAR-10, as for seattn evaluate: train and test")
    parser.add_argument("--net", action="append", choices=NETS, help="one of the nets; repeatable (default: all)")
    parser.add_argument("--quick", action="store_true", help="100 images and two rounds, to check that every form runs")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the CSV file to append the rows to")
    args = parser.parse_args(arguments)
    device = torch.device("cpu")
    where = conditions(device)
    out = args.out or (None if args.quick else RESULTS / f"{DEPLOY_PREFIX}{device_slug(device, where)}.csv")
    if out is not None:
        require_writable(out.parent)
        append_rows(DeployRow, out, [])
    complete = True
    for name in args.net or NETS:
        images, labels = _test_images(name, args.data_dir, QUICK_IMAGES if args.quick else None)
        with tempfile.TemporaryDirectory() as folder:
            forms = make_forms(name, args.data_dir, Path(folder), tuple(ROUNDS), _log)
            rows = _measure(name, forms, images, labels, where, quick=args.quick)
        complete = complete and len(rows) == len(ROUNDS) * len(FORMS)
        if out is not None:
            append_rows(DeployRow, out, rows)
    return 0 if complete else 1


def _log(line: str) -> None:
    print(line, flush=True)


def _test_images(name: str, data_dir: Path, most: int | None) -> tuple[Tensor, Tensor]:
    """The images of the test split as the net takes them, (N, C, H, W), and the net's output for each, (N,)."""
    net = load_model(name)
    images = open_images(data_dir, "test")
    outputs, _ = match_classes(images.class_names, net)
    if most is not None:
        images = images.subset(torch.arange(0, len(images), max(1, len(images) // most))[:most])
    x = torch.cat(list(image_batches(net, images, batch_size=256, workers=0, progress="")))
    return x.contiguous(), torch.tensor(outputs)[images.labels]


def _measure(
    name: str, forms: Mapping[str, Form], images: Tensor, labels: Tensor, where: Conditions, *, quick: bool
) -> list[DeployRow]:
    """The rows of one net."""
    correct = {}
    for form, made in forms.items():
        start = time.monotonic()
        correct[form] = count_correct(made.run, images, labels)
        seconds = time.monotonic() - start
        _log(f"{name}: {form} has {100 * correct[form] / len(labels):.2f} % of {len(labels)} images ({seconds:.0f} s)")
    rows = []
    for batch_size, rounds in ROUNDS.items():
        times = time_forms(forms, images[:batch_size], rounds=2 if quick else rounds)
        for form, made in forms.items():
            low, high = wilson_interval(correct[form], len(labels))
            calls, ratio = spread(times[form]), ratios(times[EAGER], times[form])
            rows.append(
                DeployRow(
                    name=name,
                    form=form,
                    version=made.version,
                    bytes=made.bytes,
                    images=len(labels),
                    top1=correct[form] / len(labels),
                    top1_low=low,
                    top1_high=high,
                    batch_size=batch_size,
                    n=len(times[form]),
                    median=calls.median,
                    p20=calls.p20,
                    p80=calls.p80,
                    ratio=ratio.median,
                    ratio_p20=ratio.p20,
                    ratio_p80=ratio.p80,
                    conditions=where,
                )
            )
            _log(
                f"{name}: {form}, {batch_size} images: {1e3 * calls.median:.3g} ms ({1e3 * calls.p20:.3g} to "
                f"{1e3 * calls.p80:.3g}), eager takes {ratio.median:.2f} × as long"
            )
    return rows


def count_correct(run: Run, images: Tensor, labels: Tensor) -> int:
    """The number of images (N, C, H, W) whose largest logit is at the label, (N,).

    Each call gets BATCH images: torch.compile would compile again for a smaller last batch.
    """
    correct = 0
    for start in range(0, len(images), BATCH):
        batch = images[start : start + BATCH]
        padded = torch.cat([batch, batch.new_zeros(BATCH - len(batch), *batch.shape[1:])])
        predicted = run(padded)[: len(batch)].argmax(1)  # (B,)
        correct += int((predicted == labels[start : start + BATCH]).sum())
    return correct


def time_forms(forms: Mapping[str, Form], x: Tensor, *, rounds: int) -> dict[str, list[float]]:
    """The seconds of a call of each form on x, (B, C, H, W), in each round."""
    works: dict[str, Work] = {name: partial(form.run, x) for name, form in forms.items()}
    return interleave(works, rested_clock, rounds=rounds, seconds=0)


def rested_clock(work: Work) -> float:
    """The seconds of a call that follows another call of the same work.

    The pause before both calls lets the threads of the other runtimes go to sleep: threads that wait actively for work
    would occupy the cores.
    """
    time.sleep(REST)
    work()
    return cpu_clock(work)


if __name__ == "__main__":
    sys.exit(main())
