"""Everything `experiments.own_pictures` does with a folder of pictures, at one of three sizes.

    python -m experiments.own_pictures --images=DIR --workdir=runs/mine --size=nano

| size  | pixels    | trunk (configs/pictures.py)  | trains on   |
|-------|-----------|------------------------------|-------------|
| nano  | 64 x 64   | 1.9 M, the quickstart's      | 2 CPU cores |
| small | 224 x 224 | "small" of the published     | one GPU     |
| base  | 224 x 224 | "base" of the published      | one GPU     |

Steps grow with the root of the number of pictures, from 0.2 to 4 times those for 3,000 pictures (of
the tokenizers: from 1). Four crops of each picture are learned; of fewer than 100 pictures, which
are learned by heart, the centred square alone.
"""

import ml_collections

from configs import pictures as trunks
from configs.data import pictures
from fourm_jax.utils import config as config_lib

LABELERS = ("rgb", "canny_edge", "color_palette", "metadata", "caption")  # no model needed
# For 3,000 pictures: steps of a tokenizer, of the trunk.
NUM_STEPS = {"nano": (1_000, trunks.NUM_STEPS), "small": (10_000, 20_000), "base": (20_000, 50_000)}
# Hardware and minutes: in any case, by steps (for 3,000 pictures) and by picture.
MINUTES = {
    "nano": ("2 CPU cores", 3.0, 10.0, 0.001),
    "small": ("an H100 GPU", 10.0, 60.0, 0.001),
    "base": ("an H100 GPU", 10.0, 300.0, 0.001),
}
USUAL = 3_000  # pictures
FEW = 100


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Return the config; arguments: size, pictures (how many), uncaptioned (no picture has a
    caption), runlocal (toy sizes)."""
    args = config_lib.parse_arg(arg, size="nano", pictures=USUAL, uncaptioned=False, runlocal=False)
    return make(args.size, args.pictures, captions=not args.uncaptioned, runlocal=args.runlocal)


def make(
    size: str, num_pictures: int, *, captions: bool, runlocal: bool = False
) -> ml_collections.ConfigDict:
    """Return all phases.

    Args:
      captions: whether any picture has one.
      runlocal: toy sizes, to try it.

    Raises:
      ValueError: no such size, no picture.
    """
    if num_pictures < 1:
        raise ValueError(f"{num_pictures} pictures, allowed: 1 and more")
    names = pictures.modalities(size, captions=captions)
    tokenizer_steps, trunk_steps = NUM_STEPS[size]
    tokenizer_steps = round(tokenizer_steps * max(growth(num_pictures), 1.0))
    trunk_steps = round(trunk_steps * growth(num_pictures))
    num_crops = 1 if num_pictures < FEW else 4
    # The job reads what it writes: jobs.run_phases puts its folders in place of these.
    config = ml_collections.ConfigDict()
    config.image_size = 64 if size == "nano" else 256  # of the shorter side; crops may be smaller
    config.labelers = LABELERS
    config.text_vocab_size = 4_608 if size == "nano" else 30_000
    config.pretokenize = pictures.tokenize(
        size, names, raw="", num_crops=num_crops, runlocal=runlocal
    )
    config.tokenizers = {
        name: pictures.tokenizer(name, size, "raw", num_steps=tokenizer_steps, runlocal=runlocal)
        for name in pictures.TOKENIZERS
    }
    config.trunk = trunks.make(
        size,
        names,
        data="",
        num_steps=trunk_steps,
        runlocal=runlocal,
        overrides=config.pretokenize.modalities.overrides.to_dict(),
    )
    rgb, edges = (name for name in names if name.startswith("tok_"))
    config.evaluation = {
        "num_records": 8 if runlocal else 64,  # of each split
        "num_shown": 2 if runlocal else 12,
        "condition": names[0],  # of the tasks that predict every other modality
        "picture": rgb,  # what is generated from each of these
        "cues": ("caption", edges) if captions else (edges, "color_palette"),
        "num_steps": 2 if runlocal else 16,  # of each generation
    }
    config.duration = duration(size, num_pictures)
    return config.lock()


def duration(size: str, num_pictures: int) -> str:
    """Roughly how long it takes, as text."""
    hardware, fixed, growing, per_picture = MINUTES[size]
    minutes = fixed + growing * growth(num_pictures) + per_picture * num_pictures
    return f"about {minutes:.0f} minutes on {hardware}"


def growth(num_pictures: int) -> float:
    """How many times the steps for `USUAL` pictures."""
    return min(max((num_pictures / USUAL) ** 0.5, 0.2), 4.0)
