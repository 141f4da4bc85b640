"""Train a model of your own pictures in one command: check, label, tokenize, train, report.

    python -m experiments.own_pictures --images=DIR --workdir=runs/mine

A folder of 1 to 100,000 pictures is enough; captions come from `name.txt` or `name.json` beside a
picture, else from telling file or folder names. Run it again to continue after an interruption.
--size=nano takes minutes on two CPU cores; small and base, of 224-pixel pictures, want a GPU.
WORKDIR/report.html and gallery.png show what was learned; `fourm generate --source=WORKDIR` draws.
"""

from absl import flags

from experiments import cli

# Two host devices keep two cores busier than one device with two threads; a GPU ignores this.
cli.set_environment(XLA_FLAGS="--xla_force_host_platform_device_count=2")

from configs import own_pictures as configs  # noqa: E402
from fourm_jax.jobs import own_pictures, own_pictures_report, phases  # noqa: E402
from fourm_jax.utils import progress  # noqa: E402

_IMAGES = cli.define_path("images", None, "Folder of the pictures.", required=True)
_WORKDIR = cli.define_path(
    "workdir",
    None,
    "Folder of this run's results, outside of the pictures'.",
    required=True,
    written="folder",
)
_SIZE = flags.DEFINE_enum("size", "nano", list(configs.NUM_STEPS), "How much is trained.")
_RUNLOCAL = flags.DEFINE_bool("runlocal", False, "Toy sizes: everything runs, little is learned.")


def main() -> None:
    """Run all phases."""
    workdir, size = _WORKDIR.value, _SIZE.value
    found = own_pictures.survey(_IMAGES.value, workdir)
    config = configs.make(
        size, len(found.files), captions=found.has_captions, runlocal=_RUNLOCAL.value
    )
    own_pictures.check(config, found, workdir, size)
    own_pictures.announce(found, config, size)
    record = phases.Phases(workdir, own_pictures.PHASES)
    own_pictures.prepare(config, found, workdir, record)
    report = own_pictures_report.run(config, found, workdir, record)
    progress.announce(f"report: {report}")


if __name__ == "__main__":
    cli.run(main)
