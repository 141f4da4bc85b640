"""One modality more for the quickstart's model, from its weights, in two minutes on 2 CPU cores.

    python -m experiments.add_modality --source=runs/quickstart --workdir=runs/more \
        --config=configs/finetune/add_to_scenes.py:modality=tok_instance_edge

| modality          | kind                  | what is learned                                     |
|-------------------|-----------------------|-----------------------------------------------------|
| tok_instance_edge | tokens, 8 x 8 of 256  | outlines of objects, by the tokenizer of edges      |
| edge_map          | pixels of one channel | input only: the edges as a picture                  |
| poses             | vectors of 7 floats   | input only: where the objects stand, how large      |

Several at once: modality=tok_instance_edge+poses. The new parts learn at the full rate and the old
ones at `old_rate` times it (0: they stay bit-equal and the old outputs with them). `replay` is the
share of samples that follow the old masks on the old data.

`from_start` trains what the addition is compared with: a model that has the new modality from its
first step, beside the others and under the quickstart's own masks, for as many steps as the old
model and the addition together. Its data are the quickstart's scenes with the new modality.
"""

from collections.abc import Sequence
from typing import Any

import ml_collections

from configs import datasets, trunk
from configs.data import scenes as scenes_data
from fourm_jax.utils import config as config_lib
from fourm_jax.utils import errors

ADDED: dict[str, dict[str, Any]] = {
    "tok_instance_edge": {
        "kind": "grid",
        "vocab_size": 256,
        "grid": (8, 8),
        "source": "instance_edge",
        "tokenizer": "edge",
        "decoding_order": 12,
        "measure": ("f1:metric=edge_f1",),
    },
    "edge_map": {
        "kind": "pixels",
        "grid": (8, 8),
        "patch_size": 4,
        "num_channels": 1,
        "source": "edge",
    },
    "poses": {"kind": "embedding", "max_tokens": 4, "embedding_dim": 7, "source": "poses"},
}
# The same codes in another place: embeddings and head start from those of the similar modality.
SIMILAR = {"tok_instance_edge": "tok_edge"}
# From the start, a new modality has the share of the samples that this one has.
LIKE = "tok_edge"
# Of the old modalities those that the new data hold: tokenizing all twelve would take longer.
KNOWN = ("rgb", "tok_rgb", "tok_depth", "tok_semseg")
NUM_RECORDS = {"train": 4_096, "test": 256}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Return the job; arguments: modality, old_rate, replay, num_steps, from_start, runlocal."""
    args = config_lib.parse_arg(
        arg,
        modality="tok_instance_edge",
        old_rate=0.3,
        replay=0.6,
        num_steps=750,
        from_start=False,
        runlocal=False,
    )
    names = args.modality.split("+")
    for name in names:
        if name not in ADDED:
            raise ValueError(errors.unknown_value("modality to add", name, ADDED))
    known: tuple[str, ...] = KNOWN
    num_records, masks = NUM_RECORDS, mixture(names, KNOWN)
    if args.from_start:
        known, masks = scenes_data.NAMES, from_the_start(names)
        num_records = {**NUM_RECORDS, "train": scenes_data.NUM_RECORDS["train"]}
    config = ml_collections.ConfigDict()
    config.added = {name: ADDED[name] for name in names}
    config.similar = {name: SIMILAR[name] for name in names if name in SIMILAR}
    config.tokenize = datasets.tokenize(
        **scenes_data.RECORDS,
        modalities=(*known, *names),
        family="scenes",
        num_records={"train": 64, "test": 16} if args.runlocal else num_records,
        seed=None,
        overrides=scenes_data.OVERRIDES,
    )
    config.mixture = masks
    config.replay = 0.0 if args.from_start else args.replay
    config.old_rate = args.old_rate
    config.from_start = args.from_start
    config.num_steps = 4 if args.runlocal else args.num_steps
    config.optimizer = trunk.adamw(2e-3, warmup_steps=2 if args.runlocal else 50)
    return config.lock()


def mixture(new: Sequence[str], known: Sequence[str]) -> dict[str, Any]:
    """The picture to the new modalities, a bit of everything, and the new ones to the others."""
    made = [name for name in new if "vocab_size" in ADDED[name]]  # the others can only be seen
    tokens = [name for name in known if name.startswith("tok_")]
    kinds: list[tuple[float, dict[str, float], dict[str, float]]] = [  # weight, seen, asked
        (0.1, dict.fromkeys((*known, *new), 0.5), dict.fromkeys((*tokens, *made), 0.5)),
        (0.1, dict.fromkeys(new, 1.0), dict.fromkeys(tokens, 0.5)),
    ]
    if made:
        kinds.insert(0, (0.8, {"rgb": 1.0}, dict.fromkeys(made, 1.0)))
    weights, seen, asked = zip(*kinds, strict=True)
    return {
        "input_alphas": {n: [kind.get(n, 0.0) for kind in seen] for n in (*known, *new)},
        "target_alphas": {n: [kind.get(n, 0.0) for kind in asked] for n in (*tokens, *made)},
        "weights": weights,
        "input_range": (64, 64),
        "target_range": (96, 96),
        "share_leftover": False,
    }


def from_the_start(new: Sequence[str]) -> dict[str, Any]:
    """The quickstart's masks, with new modalities that have the share of LIKE."""
    masks = scenes_data.mixture()
    seen, asked = masks["input_alphas"], masks["target_alphas"]
    made = [name for name in new if "vocab_size" in ADDED[name]]
    return {
        **masks,
        "input_alphas": {**seen, **{n: list(seen[LIKE]) for n in new}},
        "target_alphas": {**asked, **{n: list(asked[LIKE]) for n in made}},
    }
