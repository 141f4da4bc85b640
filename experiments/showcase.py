"""Show what generation can do with a finished quickstart: a page of figures and galleries.

python -m experiments.showcase --source=runs/quickstart --output=runs/showcase

Captions to pictures, negative captions, the best of eight, recolouring under a mask, depth and
palette to pictures, a sweep of guidance, diversity over seeds; 20 minutes on 2 CPU cores for 256
held-out scenes, a minute for --num_records=16.
"""

from absl import flags

from experiments import cli

cli.set_environment()

from fourm_jax import loading  # noqa: E402
from fourm_jax.jobs import showcase  # noqa: E402

_SOURCE = cli.define_path("source", "runs/quickstart", "Work directory of a finished quickstart.")
_UPSCALER = cli.define_path(
    "upscaler", None, "Work directory of configs/super_resolution.py, to enlarge pictures with."
)
_OUTPUT = cli.define_path("output", "runs/showcase", "Folder of the page.", written="folder")
_RECORDS = flags.DEFINE_integer("num_records", 256, "Held-out scenes.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Of the draws.", lower_bound=0, upper_bound=2**32 - 1)


def main() -> None:
    """Read the run, make the page."""
    showcase.check_output(_OUTPUT.value)  # before a model is read
    scenes = showcase.read(_SOURCE.value, _RECORDS.value)
    generator = loading.load_generator(_SOURCE.value).rolled()
    upscaler = loading.load_generator(_UPSCALER.value).rolled() if _UPSCALER.value else None
    page = showcase.run(generator, scenes, _OUTPUT.value, upscaler=upscaler, seed=_SEED.value)
    print(f"showcase: {page}")


if __name__ == "__main__":
    cli.run(main)
