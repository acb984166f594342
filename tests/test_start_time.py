"""What `import seattn` adds to `import timm`, and what `create_model` takes beside timm's nearest net.

Times are of the CPU, so that a busy machine does not decide, and ratios, so that a slow one does not; medians, or the
least, of turns that alternate.
"""

import statistics
import subprocess
import sys
import time

import pytest
import timm

import seattn  # noqa: F401  # registers the nets

IMPORT_SHARE = 0.06  # of what torch and timm take; 0.02 to 0.03 measured
CREATE_FACTOR = 1.5

# timm's ResNet-18 takes any widths, depths and attention; its stem is larger, which is little.
_CIFAR = {"layers": (3, 3, 3), "channels": (16, 32, 64)}
NEAREST = {
    "resnet20_cifar": ("resnet18", _CIFAR),
    "se_resnet20_cifar": ("resnet18", {**_CIFAR, "block_args": {"attn_layer": "se"}}),
    "cbam_resnet20_cifar": ("resnet18", {**_CIFAR, "block_args": {"attn_layer": "cbam"}}),
    "eca_resnet20_cifar": ("resnet18", {**_CIFAR, "block_args": {"attn_layer": "eca"}}),
    "se_resnet110_cifar": ("resnet18", {**_CIFAR, "layers": (18, 18, 18), "block_args": {"attn_layer": "se"}}),
    "se_resnet18": ("seresnet18", {}),
    "se_resnet50": ("seresnet50", {}),
    "preact_resnet18_cifar": ("resnetv2_18", {}),
    "mobilenetv2_cifar": ("mobilenetv2_100", {}),
    "se_resnet101": ("seresnet101", {}),
}
QUICK = ("resnet20_cifar", "se_resnet20_cifar", "eca_resnet20_cifar", "cbam_resnet20_cifar", "mobilenetv2_cifar")


@pytest.mark.parametrize("turns", [3, pytest.param(9, marks=pytest.mark.slow)])
def test_import_adds_little_to_timms(turns):
    """It imports none of the packages of the command line."""
    code = (
        "import sys, time; a = time.process_time(); import timm; b = time.process_time(); before = set(sys.modules); "
        "import seattn; print((time.process_time() - b) / (b - a), *set(sys.modules) - before)"
    )
    outputs = [subprocess.check_output([sys.executable, "-c", code], text=True).split() for _ in range(turns)]
    shares = [float(share) for share, *_ in outputs]
    assert statistics.median(shares) < IMPORT_SHARE, shares
    packages = {module.split(".")[0] for _, *modules in outputs for module in modules}
    assert packages.isdisjoint({"matplotlib", "optuna", "pydantic", "rich", "scipy", "sklearn", "typer"})


IMPORTS = {
    "seattn, timm": True,
    "timm, seattn": True,
    "torch, seattn, timm": False,
    "seattn.layers, timm": False,
    "seattn.data.transforms": True,  # imports timm itself
    "seattn.models.resnet_cifar": False,
    "seattn; seattn.accelerate": False,
    "seattn; from timm.models import create_model": False,
    "seattn, threading; t = threading.Thread(target=__import__, args=['timm']); t.start(); t.join()": False,
}


@pytest.mark.parametrize(
    "modules", [pytest.param(modules, marks=() if quick else pytest.mark.slow) for modules, quick in IMPORTS.items()]
)
def test_every_order_of_imports_registers_every_net(modules):
    code = (
        f"import {modules}\nimport sys, timm, seattn\n"
        "assert {'se_resnet20_cifar', 'cbam_resnet50', 'eca_mobilenetv2_cifar'} <= set(timm.list_models())\n"
        "assert not any(type(finder).__module__ == 'seattn.registration' for finder in sys.meta_path)\n"
        "assert set(seattn.__all__) <= set(dir(seattn)) and all(getattr(seattn, name) for name in seattn.__all__)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_the_package_alone_imports_neither_torch_nor_timm():
    code = "import sys, seattn; print([name for name in ('torch', 'timm', 'numpy') if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in NEAREST])
def test_create_model_takes_little_more_than_timms_nearest(name, device):
    nearest, options = NEAREST[name]
    our_times, timm_times = [], []
    for _ in range(7):
        for times, net, kwargs in ((our_times, name, {}), (timm_times, nearest, options)):
            begun = time.process_time()
            timm.create_model(net, device=device, **kwargs)
            times.append(time.process_time() - begun)
    assert min(our_times) < CREATE_FACTOR * min(timm_times), (our_times, timm_times)
