"""One's own pictures in one job: build records, learn tokenizers, tokenize, train the trunk.

The phases are those of `experiments.build_data` and of `run_phases`; each leaves its result in the
work directory and is skipped when it is there.
"""

import collections
import dataclasses
import pathlib

import jax
import ml_collections
import numpy as np
from etils import epath

from fourm_jax.data import picture_folder, sidecars
from fourm_jax.data.storage import left_out, shards
from fourm_jax.data.storage.left_out import LeftOutRecord
from fourm_jax.jobs import build_data, phases, run_phases
from fourm_jax.train import loop
from fourm_jax.utils import folder_lock, io, plain_data, progress

PHASES = ("build", *run_phases.PHASES, "evaluate", "report")
KEYS = ("duration", "image_size", "labelers", *run_phases.KEYS)
COUNTS = tuple(f"evaluation.{key}" for key in ("num_records", "num_shown"))
NUM_TEXTS = 16_384  # records that the text tokenizer learns from, spread over all
NUM_PROBED = 16  # pictures, spread over all, of which at least one must be good
FEWEST_TO_HOLD_OUT = 5  # pictures; of fewer all are trained on
MOST_HELD_OUT = 512
RUN = "own_pictures.json"  # what the work directory was made of
RULES = {
    "size": plain_data.TEXT,
    "pictures": plain_data.TEXT,
    "num_pictures": plain_data.integer(1, 2**63),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Survey:
    """What a folder of pictures holds.

    Attributes:
      images: the folder.
      files: its pictures, by their paths below it.
      others: files that are no pictures.
      has_captions: whether one of the pictures has a caption.
      num_held_out: pictures that are not trained on.
      test_fraction: that holds out so many, see `build_data.Job`.
    """

    images: pathlib.Path
    files: tuple[str, ...]
    others: tuple[LeftOutRecord, ...]
    has_captions: bool
    num_held_out: int
    test_fraction: float


def survey(images: epath.PathLike, workdir: epath.PathLike) -> Survey:
    """Look at a folder of pictures, without decoding more than a few.

    Raises:
      ValueError: no folder, no picture in it, none of those tried can be read, or a work directory
        inside it.
      OSError: a folder that may not be read.
    """
    folder = pathlib.Path(images)
    files, others = picture_folder.find(folder)
    if pathlib.Path(workdir).resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"workdir {workdir} lies inside the pictures {images}: take another one")
    _probe(folder, files)
    num_held_out, test_fraction = hold_out(files)
    return Survey(
        images=folder,
        files=tuple(files),
        others=tuple(others),
        has_captions=any(_is_captioned(folder, file) for file in files),
        num_held_out=num_held_out,
        test_fraction=test_fraction,
    )


def hold_out(files: list[str]) -> tuple[int, float]:
    """How many pictures are held out, and the fraction of `build_data` that does so.

    One in ten, at least one and at most `MOST_HELD_OUT`; of fewer than `FEWEST_TO_HOLD_OUT` none.
    """
    if len(files) < FEWEST_TO_HOLD_OUT:
        return 0, 0.0
    count = min(max(round(len(files) / 10), 1), MOST_HELD_OUT)
    ranks = sorted(build_data.rank(file) for file in files)
    return count, (ranks[count - 1] + ranks[count]) / 2


def _probe(folder: pathlib.Path, files: list[str]) -> None:
    """Refuse at once a folder in which nothing can be read."""
    tried = np.linspace(0, len(files) - 1, min(NUM_PROBED, len(files))).astype(int)
    error: ValueError | None = None
    for number in tried.tolist():
        result = left_out.attempt(picture_folder.read, folder / files[number], 16)
        if not isinstance(result, ValueError):
            return
        error = error or ValueError(f"{files[number]}: {result}")
    raise ValueError(
        f"none of {len(tried)} pictures, tried of {len(files)} in {folder}, can be used; {error}"
    )


def _is_captioned(folder: pathlib.Path, file: str) -> bool:
    found = left_out.attempt(sidecars.captions, folder / file, pathlib.PurePath(file).parent)
    return not isinstance(found, ValueError) and bool(found)


def check(
    config: ml_collections.ConfigDict, found: Survey, workdir: epath.PathLike, size: str
) -> None:
    """Refuse, before the first phase, what a later one would; note what the run is made of.

    Raises:
      ValueError: an invalid config, a labeler whose library is missing, a work directory that holds
        something else or a run over other pictures.
    """
    run_phases.check_keys(config, KEYS, COUNTS, "own pictures")
    build_data.make_labelers(config.labelers, {}, config.image_size)
    made_of = {
        "size": size,
        "pictures": picture_folder.fingerprint(found.images, found.files),
        "num_pictures": len(found.files),
    }
    path = epath.Path(workdir) / RUN
    if path.exists():
        before = io.read_json(path)
        plain_data.check(before, RULES, path, required=RULES)
        if before != made_of:
            raise ValueError(
                f"{workdir} holds a run of size {before['size']} over {before['num_pictures']} "
                f"pictures; asked: size {size} over {len(found.files)}, or what is in them has "
                "changed. Take another workdir, or delete this one"
            )
    elif run_phases.raw_dir(workdir).exists():
        raise ValueError(f"{workdir} holds a run of something else: take another workdir")
    run_phases.check(run_phases.locate(config, workdir), workdir)
    epath.Path(workdir).mkdir(parents=True, exist_ok=True)
    io.write_json(path, made_of)


def announce(found: Survey, config: ml_collections.ConfigDict, size: str) -> None:
    """Say what will be done, and roughly how long it takes."""
    total = len(found.files)
    progress.announce(f"{total:,} pictures in {found.images}")
    reasons = collections.Counter(other.reason for other in found.others)
    for reason, count in sorted(reasons.items()):
        first = next(other for other in found.others if other.reason == reason)
        progress.announce(f"  not used: {count:,} x {reason}, e.g. {first}")
    if found.num_held_out:
        progress.announce(f"  {found.num_held_out:,} of them, chosen by name, are held out")
    else:
        progress.announce(
            f"  fewer than {FEWEST_TO_HOLD_OUT}: none is held out, the report shows training only"
        )
    if not found.has_captions:
        progress.announce("  none has a caption (name.txt, a telling file or folder name)")
    steps = f"{config.trunk.num_steps:,} steps of {config.trunk.batch_size}"
    progress.announce(
        f"size {size}: pictures of {config.image_size} pixels, "
        f"trunk of width {config.trunk.model.dim}, {steps}; {config.duration}"
    )
    if config.trunk.dtype == "bfloat16" and jax.default_backend() == "cpu":
        progress.announce("  this size is meant for a GPU: on a CPU it takes weeks")


def prepare(
    config: ml_collections.ConfigDict,
    found: Survey,
    workdir: epath.PathLike,
    record: phases.Phases,
) -> loop.TrainResult:
    """Run the phases up to the trained trunk; return its final state.

    Args:
      config: see configs/own_pictures.py.
      workdir: of this job alone.
      record: keeps the seconds of each phase.

    Raises:
      ValueError: pictures of which none can be used, or a work directory that another process
        writes.
    """
    config, workdir = run_phases.locate(config, workdir), epath.Path(workdir)
    with folder_lock.hold(workdir):
        build(config, found, workdir, record)
        splits = splits_of(workdir)
        count = len(run_phases.open_raw(workdir, "train"))
        spread = np.linspace(0, count - 1, min(NUM_TEXTS, count)).astype(int)
        run_phases.train_text(config, workdir, record, numbers=spread.tolist())
        run_phases.train_tokenizers(config, workdir, record, held_out=splits[-1])
        run_phases.tokenize(config, workdir, record, splits=splits)
        for split in splits:
            left_out.announce(run_phases.data_dir(workdir), split)
        return run_phases.train_trunk(config, workdir, record)


def build(
    config: ml_collections.ConfigDict,
    found: Survey,
    workdir: epath.PathLike,
    record: phases.Phases,
) -> None:
    """Make the raw records, and say which pictures are left out.

    Raises:
      ValueError: no picture to train on can be used.
    """
    output = run_phases.raw_dir(workdir)
    wanted = ("train", "test") if found.num_held_out else ("train",)
    finished = all((output / f"{split}.json").exists() for split in wanted)
    doing = "reusing the" if finished else "making"
    with record.run("build", f"{doing} records of {len(found.files):,} pictures"):
        job = build_data.Job(
            images=found.images,
            output=output,
            labelers=build_data.make_labelers(config.labelers, {}, config.image_size),
            test_fraction=found.test_fraction,
            show_progress=not finished,
        )
        results = build_data.build(job)
        for split in results:
            left_out.announce(output, split)
        if not results["train"].num_records:
            raise ValueError(f"none of the pictures of {found.images} can be used")


def splits_of(workdir: epath.PathLike) -> tuple[str, ...]:
    """The splits that have records: the one to train on, and the held-out one where there is."""
    output = run_phases.raw_dir(workdir)
    found = shards.manifest_path(output, "test").exists()
    has_test = found and shards.read_manifest(output, "test").num_records
    return ("train", "test") if has_test else ("train",)
