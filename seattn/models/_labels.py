"""What the data sets are: class names in the order of the outputs, channel mean and standard deviation."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DatasetInfo:
    """A data set as a model's cfg describes it; mean and std are of pixel values in 0..1, channels R, G, B."""

    label_names: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


_CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck"

_CIFAR100 = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish
forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale
willow_tree wolf woman worm
"""

DATASETS = {
    "cifar10": DatasetInfo(tuple(_CIFAR10.split()), (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": DatasetInfo(tuple(_CIFAR100.split()), (0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)),
}
