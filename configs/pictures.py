"""Any-to-any model of your own pictures: pixels, tokens, edges, captions, palettes, metadata.

    python -m experiments.train --config=configs/pictures.py:size=small --workdir=runs/mine

Reads what `experiments.tokenize_dataset` with configs/pretokenize/pictures.py wrote to
runs/pictures/data (`data=` names another folder). Sizes are those of the published models, from
"tiny" (25 M parameters without embeddings) to "xlarge"; global batch 256, 128 + 128 tokens,
bfloat16: meant for a GPU or TPU. No run of it is recorded yet; `,runlocal` tries it.
"""

import ml_collections

from configs import fourm
from configs.data import pictures
from fourm_jax.models import sizes
from fourm_jax.utils import config as config_lib


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Return the config; arguments: size (`models.sizes`), data (folder of shards), runlocal."""
    args = config_lib.parse_arg(arg, size="tiny", data="runs/pictures/data", runlocal=False)
    config = fourm.get_config("mix=mod7,size=base").unlock()
    config.batch_size = 256
    config.num_steps = 100_000
    config.mesh = {"data": -1, "fsdp": 1, "tensor": 1}
    config.modalities.inputs = pictures.MODALITIES
    config.modalities.outputs = tuple(n for n in pictures.MODALITIES if n != "rgb@224")
    config.model.update(sizes.get(args.size))
    config.optimizer.update({"lr": 5e-4, "warmup_steps": 5_000, "clip_norm": 3.0})
    config.data = (pictures.get_config(f"data={args.data}"),)
    if args.runlocal:
        fourm.runlocal(config)
    return config.lock()
