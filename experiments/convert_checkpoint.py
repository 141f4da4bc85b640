"""Convert a published trunk or tokenizer to our format, or back with --export.

python -m experiments.convert_checkpoint --source=EPFL-VILAB/4M-21_B --output=weights/4m21_b
python -m experiments.convert_checkpoint --source=weights/4m21_b --output=published --export

The source is a folder, a .safetensors file or a Hub id (extra [hub]); pickles are refused. Trunks
pass tensor by tensor. Every tensor is used, or derived (computed here, or equal to another one);
one that is left over is an error, and then no output remains.
"""

import json
import pathlib
import sys

from absl import app, flags

from experiments import cli

cli.set_environment(JAX_PLATFORMS="cpu")

from fourm_jax.convert import checkpoint, reference_batch  # noqa: E402

_SOURCE = flags.DEFINE_string("source", None, "Folder, .safetensors file or Hub id.")
_OUTPUT = flags.DEFINE_string("output", None, "New folder.")
_EXPORT = flags.DEFINE_bool("export", False, "Write the published names and layout.")
_OVERRIDES = flags.DEFINE_string(
    "overrides", "", "JSON file {modality: {field: value}}: vocabularies other than published."
)
flags.mark_flags_as_required(["source", "output"])


def main(argv: list[str]) -> None:
    """Convert; wrong input ends in one line."""
    if len(argv) > 1:
        sys.exit(f"error: unknown arguments {argv[1:]}")
    print(checkpoint.LICENCE)
    try:
        if _EXPORT.value:
            checkpoint.export(_SOURCE.value, _OUTPUT.value)
        else:
            report = checkpoint.convert(_SOURCE.value, _OUTPUT.value, overrides=read_overrides())
            for kind in ("used", "derived"):
                for name in getattr(report, kind):
                    print(f"{kind} {name}")
            print(f"{len(report.used)} tensors used, {len(report.derived)} derived, 0 left over")
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    print(f"{_SOURCE.value} -> {_OUTPUT.value}")


def read_overrides() -> dict | None:
    """The overrides file, with published or our own field names."""
    if not _OVERRIDES.value:
        return None
    content = json.loads(pathlib.Path(_OVERRIDES.value).read_text())
    return reference_batch.spec_overrides(content.get("overrides", content))


if __name__ == "__main__":
    app.run(main)
