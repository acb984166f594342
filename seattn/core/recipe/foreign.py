"""Other projects' names of optimizers, schedules and losses, and what a recipe has in place of each."""

# By field: other projects' names in small letters without signs, and what a recipe has in their place.
NEAREST = {
    "opt": {
        "ranger ranger21 rangerlite lookahead": "lookahead_radam",
        "sam": "seattn.sam_rho: 0.05, with any optimizer",
        "swa": "model_ema: true",
        "lbfgs asgd rprop": "sgd",
        "sophia shampoo soap": "kron",
    },
    "sched": {
        "exponential exp exponentiallr": "step with decay_epochs: 1 and decay_rate below 1",
        "onecycle onecyclelr 1cycle": "poly with decay_rate: 1.0 and warmup_prefix: true",
        "linear linearlr polynomial": "poly with decay_rate: 1.0",
        "none constant fixed": "step with decay_rate: 1.0",
        "plateau reducelronplateau": "multistep, or seattn.early_stop",
        "warmrestarts cosinewarmrestarts cosineannealingwarmrestarts sgdr": "cosine with lr_cycle_limit",
        "cosineannealing cosinelr cosineannealinglr": "cosine",
        "wsd trapezoid": "multistep",
    },
    "loss": {
        "ohem ohemcrossentropy hardmining topk": "cross_entropy with hardest: 0.5",
        "asl asymmetric polyloss gce ghm": "focal",
        "ce crossentropyloss softmax nll labelsmoothing": "cross_entropy, with smoothing",
        "bce bceloss bcewithlogits": "bce_loss: true",
        "ldam balancedsoftmax logitadjust classbalanced weightedcrossentropy": "cross_entropy with class_weights",
        "kd distillation kldiv": "cross_entropy with kd_model_name",
    },
}


def nearest(field: str, name: object) -> str | None:
    """What a recipe has in place of another project's `name` in a field, if this is known."""
    plain = "".join(character for character in str(name).lower() if character.isalnum())
    return next((right for names, right in NEAREST.get(field, {}).items() if plain in names.split()), None)
