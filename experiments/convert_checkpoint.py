"""Convert a published trunk or tokenizer to our format, or back with --export.

python -m experiments.convert_checkpoint --source=EPFL-VILAB/4M-21_B --output=weights/4m21_b
python -m experiments.convert_checkpoint --source=weights/4m21_b --output=published --export
python -m experiments.convert_checkpoint --source=runs/mine/trunk --output=published --export

The source is a folder, a .safetensors file or a Hub id (extra [hub]); pickles are refused. Trunks
pass tensor by tensor. Every tensor is used, or derived (computed here, or equal to another one), or
of a part that this package does not have (the ControlNet of a VQControlNet); one that is left over
is an error, and then no output remains. With --export the source may also be a run folder, the work
directory of a training or a tokenizer; what the published format does not have is named.
"""

from absl import flags
from etils import epath

from experiments import cli

cli.set_environment(JAX_PLATFORMS="cpu")

from fourm_jax import loading  # noqa: E402
from fourm_jax.convert import checkpoint, fourm, fourm_config  # noqa: E402
from fourm_jax.utils import io, plain_data, run_folder  # noqa: E402

_SOURCE = cli.define_path("source", None, cli.SOURCE, required=True)
_OUTPUT = cli.define_path("output", None, "New folder.", required=True, written="folder")
_EXPORT = flags.DEFINE_bool("export", False, "Write the published names and layout.")
_OVERRIDES = cli.define_path(
    "overrides", None, "JSON file {modality: {field: value}}: vocabularies other than published."
)


def main() -> None:
    """Convert, or export."""
    print(checkpoint.LICENCE)
    if _EXPORT.value:
        export(loading.locate(_SOURCE.value))
    else:
        report = checkpoint.convert(_SOURCE.value, _OUTPUT.value, overrides=read_overrides())
        for kind in ("used", "derived", "unsupported"):
            for name in getattr(report, kind, ()):
                print(f"{kind} {name}")
        print(report)
    print(f"{_SOURCE.value} -> {_OUTPUT.value}")


def export(place: epath.Path) -> None:
    """Write what lies at `place` with the published names.

    Raises:
      ValueError: nothing there, or something that the published format cannot say.
    """
    if (place / run_folder.CHECKPOINTS).is_dir():
        trunk = loading.load_generator(place, tokenizers={})
        fourm.export(_OUTPUT.value, trunk.model, trunk.params)
    else:
        checkpoint.export(place, _OUTPUT.value)


def read_overrides() -> dict | None:
    """The overrides file, with published or our own field names."""
    if not _OVERRIDES.value:
        return None
    content = io.read_json(_OVERRIDES.value)
    plain_data.check(content, {}, _OVERRIDES.value)
    overrides = content.get("overrides", content)
    rules = {"overrides": plain_data.dict_of(plain_data.DICT)}
    plain_data.check({"overrides": overrides}, rules, _OVERRIDES.value)
    return fourm_config.spec_overrides(overrides)


if __name__ == "__main__":
    cli.run(main)
