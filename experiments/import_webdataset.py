"""Turn a data set of the published layout into ArrayRecord shards that training reads.

    ROOT/train/<modality>/shard-00000.tar …     one member per record; folders of files work, too
    ROOT/train/crop_settings/shard-00000.tar …  (crops, 5): top, left, height, width, flip

python -m experiments.import_webdataset --input=ROOT/train --split=train --output=DIR \
    --modalities=rgb@224,tok_rgb@224,tok_depth@224,caption,det --text_tokenizer=FILE_OR_DIR

Whatever is missing, damaged, hostile or inconsistent is listed in DIR/train.left_out.jsonl,
counted, and left out; the rest goes on. Killed and started again, it continues. Several processes
of one machine: --num_workers; several machines: --process_id=0..P-1 --process_count=P.
"""

from absl import flags

from experiments import cli, processes
from fourm_jax.data.crops import settings
from fourm_jax.data.storage import left_out
from fourm_jax.jobs import import_records, import_webdataset
from fourm_jax.utils import progress

_INPUT = cli.define_path("input", None, "Folder that holds one folder per modality.", required=True)
_OUTPUT = cli.define_path(
    "output", None, "Folder of the shards and of the report.", required=True, written="folder"
)
_SPLIT = flags.DEFINE_string("split", "train", "Name of the split that is written.")
_FAMILY = flags.DEFINE_string("family", "fourm", "Family of the modalities.")
_MODALITIES = cli.define_names(
    "modalities",
    None,
    "Modalities, or modality=folder where the folder has another name.",
    required=True,
)
_PICTURES = flags.DEFINE_string(
    "pictures", import_records.PICTURE, "Folder of the pictures; empty if there are none."
)
_CROPS = flags.DEFINE_string(
    "crop_settings",
    settings.SETTINGS,
    "Folder of the crop settings; empty if there are none: one centred square crop.",
)
_TOKENIZER = cli.define_path(
    "text_tokenizer", None, "File or folder of the tokenizer that turns texts into ids."
)
_INCOMPLETE = flags.DEFINE_enum(
    "incomplete",
    "drop",
    import_webdataset.INCOMPLETE,
    "What happens to a record of which some modality is missing or bad. A record without good crop "
    "settings or picture is always dropped.",
)
_SHARDS = flags.DEFINE_string("shards", "*", "Pattern of the shards to read, without .tar.")
_SEED = flags.DEFINE_integer("seed", 0, "Seed of what texts draw, such as the order of metadata.")
_WORKERS = flags.DEFINE_integer("num_workers", 1, "Processes of this machine.")
processes.define()


def main() -> None:
    """Import one split."""
    job = import_webdataset.Job(
        input=_INPUT.value,
        output=_OUTPUT.value,
        split=_SPLIT.value,
        modalities=tuple(_MODALITIES.value or ()),
        family=_FAMILY.value,
        pictures=_PICTURES.value,
        crop_settings=_CROPS.value,
        text_tokenizer=str(_TOKENIZER.value or ""),
        incomplete=_INCOMPLETE.value,
        shards=_SHARDS.value,
        seed=_SEED.value,
        num_workers=_WORKERS.value,
        **processes.share(),
        show_progress=True,
    )
    watch = progress.Stopwatch()
    result = import_webdataset.run(job)
    left_out.announce(job.output, job.split)
    if result.num_records is None:
        progress.announce("this share is done; other processes are still at work")
        return
    found = result.num_records + result.left_out.num_records
    progress.announce(
        f"{result.num_records} of {found} records ({result.left_out.num_incomplete} incomplete) -> "
        f"{job.output} in {watch.seconds():.0f} s"
    )


if __name__ == "__main__":
    cli.run(main)
