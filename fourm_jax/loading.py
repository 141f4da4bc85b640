"""A finished run folder -> a generator: `<run>/trunk`, `<run>/tokenizers/<name>`."""

from etils import epath

from fourm_jax.generate.generator import Generator
from fourm_jax.models import from_config, trained
from fourm_jax.tokenizers import base
from fourm_jax.utils import config as config_lib

TRUNK = "trunk"
TOKENIZERS = "tokenizers"


def load_generator(run: epath.PathLike) -> Generator:
    """Read the newest trunk and every tokenizer that it names.

    Raises:
      ValueError: no trunk in the folder, a missing tokenizer, or one that does not fit the trunk.
    """
    run = epath.Path(run)
    if not (run / TRUNK).is_dir():
        present = sorted(path.name for path in run.glob("*")) if run.is_dir() else "no folder"
        raise ValueError(f"no trained trunk in {run / TRUNK}; found: {present}")
    found = trained.load(run / TRUNK)
    model = from_config.make_model(config_lib.from_json(found.description.config))
    names = {spec.tokenizer: spec for spec in model.modalities if spec.tokenizer}
    folders = {name: run / TOKENIZERS / name for name in names}
    for name, folder in folders.items():
        if not folder.is_dir():
            raise ValueError(f"no tokenizer at {folder} for modality {names[name].name!r}")
    tokenizers = {name: base.load(folder) for name, folder in folders.items()}
    return Generator(model, found.params, tokenizers)
