"""Any-to-any massively multimodal masked modelling in JAX (4M and 4M-21): a table of contents.

    generator = fourm_jax.load("runs/quickstart")  # or a checkpoint's folder, or a Hub id
    made = generator.generate({"caption": ["a small green cone"]}, ["tok_rgb", "tok_depth"])
    made.decoded["tok_rgb"].raw  # uint8 [1, 32, 32, 3]

Every name is imported when it is first used, so that `import fourm_jax` costs nothing.
"""

from etils import epy as _epy

__version__ = "0.1.0"
__all__ = [
    "Batch",
    "FourM",
    "Generated",
    "Generator",
    "Guide",
    "ModalitySpec",
    "Sampling",
    "Target",
    "TextTokenizer",
    "TokenBatch",
    "TrainedTokenizer",
    "convert_checkpoint",
    "export_checkpoint",
    "load",
    "load_config",
    "open_source",
    "resolve_modalities",
    "train_from_config",
]

with _epy.lazy_api_imports(globals()):
    # Read what is trained, and generate any modality from any others.
    from fourm_jax.loading import load
    from fourm_jax.generate.generator import Generated, Generator
    from fourm_jax.generate.grids import Sampling
    from fourm_jax.generate.guides import Guide
    from fourm_jax.generate.schedule import Target

    # Turn raw signals and texts into tokens and back.
    from fourm_jax.tokenizers.text import TextTokenizer
    from fourm_jax.tokenizers.trained import TrainedTokenizer

    # Use the trunk by itself: what it is, what it sees, and its modalities.
    from fourm_jax.models.fourm import FourM
    from fourm_jax.contracts import Batch, TokenBatch
    from fourm_jax.modalities.spec import ModalitySpec
    from fourm_jax.modalities.registry import resolve as resolve_modalities

    # Train from a config, and read records as training does.
    from fourm_jax.utils.config import load as load_config
    from fourm_jax.train.loop import train as train_from_config
    from fourm_jax.data.datasets import open_source

    # Exchange checkpoints with the published implementation.
    from fourm_jax.convert.checkpoint import convert as convert_checkpoint
    from fourm_jax.convert.checkpoint import export as export_checkpoint
