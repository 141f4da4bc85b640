"""Make an aligned data set of your own pictures; continues where it was killed.

python -m experiments.build_data --images=DIR --output=DIR --preview

Every picture becomes a record of pixels, Canny edges, colour palette, metadata and caption: from
`<name>.txt` or `<name>.json` beside it, else from its file name. Models add more, for example

    --models=depth=depth-anything/Depth-Anything-V2-Small-hf,clip=openai/clip-vit-base-patch16

(a folder or a Hub id each; only safetensors are read; needs the extra [labelers]). Pictures that
cannot be used are listed in OUTPUT/SPLIT.left_out.jsonl. Several processes share the work with
--process_id=0..P-1 --process_count=P.
"""

import pathlib

from absl import flags

from experiments import cli, processes
from fourm_jax.data.storage import left_out
from fourm_jax.jobs import build_data, build_preview, shard_job
from fourm_jax.labelers import base
from fourm_jax.utils import progress

CLASSICAL = ["rgb", "canny_edge", "color_palette", "metadata", "caption"]

_IMAGES = cli.define_path("images", None, "Folder of the pictures.", required=True)
_OUTPUT = cli.define_path(
    "output",
    None,
    "Folder of the shards, outside of the pictures'.",
    required=True,
    written="folder",
)
_SIZE = flags.DEFINE_integer("image_size", 256, "Pixels of the shorter side of what is stored.")
_LABELERS = cli.define_names("labelers", CLASSICAL, "Labelers without a model; rgb is a must.")
_MODELS = cli.define_names("models", [], f"LABELER=MODEL each; labelers: {base.names()}.")
_TEST = flags.DEFINE_float("test_fraction", 0.05, "Share of the pictures that is held out.")
_PREVIEW = flags.DEFINE_bool("preview", False, "Also draw OUTPUT/preview.png.")
processes.define()


def main() -> None:
    """Build both splits."""
    watch = progress.Stopwatch()
    results = run()
    for split in results:
        left_out.announce(_OUTPUT.value, split)
    counts = {split: result.num_records for split, result in results.items()}
    if None in counts.values():
        progress.announce("this process is done; others are still writing")
        return
    if not any(counts.values()):
        raise ValueError(f"none of the pictures of {_IMAGES.value} could be used")
    made = ", ".join(f"{count} {split} records" for split, count in counts.items())
    progress.announce(f"{made} -> {_OUTPUT.value} in {watch.seconds():.0f} s")
    if _PREVIEW.value:
        path = pathlib.Path(_OUTPUT.value, "preview.png")
        split = next(split for split, count in counts.items() if count)
        build_preview.draw(path.parent, split, path)
        progress.announce(f"look at {path}")


def run() -> dict[str, shard_job.Result]:
    """Do what the flags say."""
    models = dict(entry.partition("=")[::2] for entry in _MODELS.value)
    if not all(models.values()):
        given = ",".join(_MODELS.value)
        raise ValueError(f"--models={given}: expected LABELER=MODEL,… with each labeler once")
    job = build_data.Job(
        images=pathlib.Path(_IMAGES.value),
        output=pathlib.Path(_OUTPUT.value),
        labelers=build_data.make_labelers(_LABELERS.value, models, _SIZE.value),
        test_fraction=_TEST.value,
        **processes.share(),
        show_progress=True,
    )
    return build_data.build(job)


if __name__ == "__main__":
    cli.run(main)
