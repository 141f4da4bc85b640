"""Convert a published trunk or tokenizer to our format, or back with --export.

python -m experiments.convert_checkpoint --source=EPFL-VILAB/4M-21_B --output=weights/4m21_b
python -m experiments.convert_checkpoint --source=weights/4m21_b --output=published --export
python -m experiments.convert_checkpoint --source=runs/mine/trunk --output=published --export

The source is a folder, a .safetensors file or a Hub id (extra [hub]); pickles are refused. Trunks
pass tensor by tensor. Every tensor is used, or derived (computed here, or equal to another one), or
of a part that this package does not have (the ControlNet of a VQControlNet); one that is left over
is an error, and then no output remains. With --export the source may also be a tokenizer folder or
the run folder of a trunk, as training leaves them; what the published format does not have is
named.
"""

from absl import flags

from experiments import cli

cli.set_environment(JAX_PLATFORMS="cpu")

from fourm_jax.convert import checkpoint, fourm, fourm_config  # noqa: E402
from fourm_jax.models import from_config, trained  # noqa: E402
from fourm_jax.utils import config as config_lib  # noqa: E402
from fourm_jax.utils import io  # noqa: E402

_SOURCE = cli.define_path("source", None, cli.SOURCE, required=True)
_OUTPUT = cli.define_path("output", None, "New folder.", required=True)
_EXPORT = flags.DEFINE_bool("export", False, "Write the published names and layout.")
_OVERRIDES = cli.define_path(
    "overrides", None, "JSON file {modality: {field: value}}: vocabularies other than published."
)


def main() -> None:
    """Convert, or export."""
    print(checkpoint.LICENCE)
    if _EXPORT.value and (_SOURCE.value / trained.FOLDER).is_dir():
        export_run(_SOURCE.value, _OUTPUT.value)
    elif _EXPORT.value:
        checkpoint.export(_SOURCE.value, _OUTPUT.value)
    else:
        report = checkpoint.convert(_SOURCE.value, _OUTPUT.value, overrides=read_overrides())
        for kind in ("used", "derived", "unsupported"):
            for name in getattr(report, kind, ()):
                print(f"{kind} {name}")
        print(report)
    print(f"{_SOURCE.value} -> {_OUTPUT.value}")


def export_run(workdir: str, output: str) -> None:
    """Export the newest trunk of a training run.

    Raises:
      ValueError: no trunk, or one that the published format cannot say.
    """
    found = trained.load(workdir)
    config = config_lib.from_json(found.description.config)
    if config.task != "fourm":
        raise ValueError(f"{workdir} is the run of a tokenizer: export its tokenizer folder")
    fourm.export(output, from_config.make_model(config), found.params)


def read_overrides() -> dict | None:
    """The overrides file, with published or our own field names."""
    if not _OVERRIDES.value:
        return None
    content = io.read_json(_OVERRIDES.value)
    return fourm_config.spec_overrides(content.get("overrides", content))


if __name__ == "__main__":
    cli.run(main)
