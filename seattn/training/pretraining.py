"""SimCLR: train a net without labels, to start a fine-tuning from its weights.

Chen et al., ICML 2020, https://arxiv.org/abs/2002.05709. Each image of a batch is augmented twice; the net learns to
find the other view of the same image among the views of all images. Loss and projection head are those of lightly.
Shapes: B images, and therefore 2 B views.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from seattn.core.device import torch_device
from seattn.core.errors import UserError
from seattn.core.recipe import Recipe, load_recipe
from seattn.core.rows import AccuracyRow, Conditions
from seattn.data.folders.splits import check_out, require_split
from seattn.evaluation.scoring import Evaluation
from seattn.models.load import WEIGHTS
from seattn.training.build import create_model
from seattn.training.driver import check_recipe, unchanged_random_state
from seattn.training.loop import TrainingRun
from seattn.training.processes import Distributed
from seattn.training.run_dir import RunDir

_TEMPERATURE = 0.5  # the paper's best value for CIFAR-10, appendix B.9


class Projected(nn.Module):
    """The net without its classifier, followed by the projection head, whose outputs the loss compares."""

    def __init__(self, net: Any) -> None:
        from lightly.models.modules.heads import SimCLRProjectionHead

        super().__init__()
        net.reset_classifier(0)
        features = net.head_hidden_size
        self.net, self.projection = net, SimCLRProjectionHead(features, features, 128)
        self.pretrained_cfg = net.pretrained_cfg
        if hasattr(net, "in_chans"):
            self.in_chans = net.in_chans

    def forward(self, x: Tensor) -> Tensor:
        """(2 B, C, H, W) to (2 B, 128)."""
        y: Tensor = self.projection(self.net(x))
        return y


class ContrastiveLoss(nn.Module):
    """The loss of the paper's equation 1, of projections (2 B, 128).

    Rows i and B + i are the two views of image i, as `TrainSplit` yields them.
    """

    def __init__(self) -> None:
        from lightly.loss import NTXentLoss

        super().__init__()
        self.loss = NTXentLoss(_TEMPERATURE)

    def forward(self, projections: Tensor, target: Tensor) -> Tensor:
        loss: Tensor = self.loss(*projections.float().chunk(2))
        return loss


class PretrainingRun(TrainingRun):
    """A run whose net learns from pairs of views; labels are not used, and no image is scored.

    Its recipe's batch_size counts views, which are twice the images.
    """

    labelled = False

    def _written(self) -> Recipe:
        return replace(self.recipe, batch_size=self.recipe.batch_size // 2)

    def _create_model(self, recipe: Recipe) -> Any:
        return Projected(create_model(recipe))

    def _prepare_data(self, data_dir: Path) -> None:
        """Set two views for each image, and drop the names of the classes."""
        self.data.train.views = 2
        self.data = replace(self.data, class_names=())

    def _criterion(self, recipe: Recipe) -> nn.Module:
        return ContrastiveLoss()

    def _score_held_out(self) -> Evaluation | None:
        return None

    def _finish(self, run_dir: RunDir, measured_in: Conditions, *, read_test: bool) -> AccuracyRow | None:
        run_dir.export(self.averaged.net, ())
        return None


def pretrain(
    recipe: Recipe | Path,
    data_dir: Path,
    out_dir: Path | None = None,
    *,
    resume: bool = False,
    device: str | None = None,
    skip_bad: bool = False,
) -> Path:
    """Train the recipe's net on the train split of `data_dir` without labels, in one process.

    The recipe's `batch_size` counts images, each of which is seen twice. Only the train split is opened. The recipe's
    keys on the loss, mixing, classes, alternate flips, held-out images, early stopping and a teacher are not used. The
    net in `out_dir` has no classifier; `finetune(out_dir, …)` gives it one.

    Args:
        recipe: a file of `zoo_configs/`, or the result of `load_recipe`.
        data_dir, out_dir, resume, device, skip_bad: as for `train`.

    Returns:
        The folder of the run.

    Raises:
        UserError: for a bad recipe, bad data, or an `out_dir` that cannot be used; nothing is half-written.
    """
    recipe = load_recipe(recipe) if isinstance(recipe, Path) else recipe
    require_lightly()
    processes = Distributed()
    if processes.many:
        raise UserError("pretrain runs in one process; start it without torchrun")
    target = torch_device(processes.device(device))
    check_recipe(recipe, target)
    path = out_dir or Path("runs") / f"{recipe.model}-simclr-s{recipe.seed}"
    if not resume:
        if (path / WEIGHTS).exists():
            raise UserError(
                f"the run in {path} is finished; give another --out to train again, or --resume with more epochs"
            )
        check_out(path, data_dir)
        if path.is_dir() and any(path.iterdir()) and not (path / "recipe.yaml").exists():
            raise UserError(f"{path} has other files than those of a run; give another --out")
    require_split(data_dir, "train")
    ours = replace(
        recipe.seattn,
        holdout=0.0,
        early_stop=None,
        balanced_head_epochs=0,
        sampling="shuffle",
        long_tail=1.0,
        flips="random",  # alternate flips would give both views of an image the same one
    )
    views = replace(
        recipe,
        num_classes=None,
        batch_size=2 * recipe.batch_size,
        mixup=0.0,
        cutmix=0.0,
        cutmix_minmax=None,
        kd_model_name=None,
        seattn=ours,
    )
    with unchanged_random_state(target):
        run_dir = RunDir(path, replace(views, batch_size=recipe.batch_size), resume=resume)
        try:
            run = PretrainingRun(
                views,
                data_dir,
                path=path,
                run_dir=run_dir,
                device=target,
                processes=processes,
                skip_bad=skip_bad,
            )
            run.run(read_test=False, on_epoch=None)
        finally:
            run_dir.close()
    return path


def require_lightly() -> None:
    """Raise UserError unless lightly is installed."""
    try:
        import lightly.loss  # noqa: F401
    except ImportError as error:
        raise UserError("pretrain needs lightly; install it with: pip install 'seattn[pretrain]'") from error
