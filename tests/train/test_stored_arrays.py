"""One flipped bit anywhere in a checkpoint is found, and told by the name of its array."""

import pathlib
import shutil

import jax
import numpy as np
import pytest
from etils import epath

from fourm_jax.jobs import scrub
from fourm_jax.models import trained
from fourm_jax.train import checkpoint, state, stored_arrays
from fourm_jax.utils import digests, tree

# Under 1 KiB a part lies within the index, above it in a file of its own.
PARAMS = {"small": np.arange(3.0), "large": np.random.default_rng(0).normal(size=(40, 50))}


LATER = ("_CHECKPOINT_METADATA", "commit_success.txt")  # times and marks, which orbax adds


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Work directory with checkpoints of steps 1 and 2."""
    workdir = tmp_path_factory.mktemp("run")
    saver = checkpoint.Checkpointer(workdir, keep=2)
    for step in (1, 2):
        arrays = jax.tree.map(lambda x: jax.numpy.asarray(x + step, "float32"), PARAMS)  # noqa: B023
        saved = state.TrainState(
            step=jax.numpy.int32(step),
            params=arrays,
            model_state={},
            opt_state=(),
            ema_params=None,
            metrics={},
        )
        saver.save(saved, trained.Description(config={}, modalities={}), step)
    saver.close()
    return epath.Path(workdir)


def flip(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 16
    path.write_bytes(bytes(content))


def test_every_array_has_parts_and_they_cover_the_bytes_of_its_values(written):
    folder = written / "checkpoints" / "2"
    found = stored_arrays.find(folder / "state", folder)
    assert set(found) == {"step", "params.small", "params.large"}
    assert {name for name, _ in tree.named_leaves(PARAMS).items()} == {"small", "large"}
    lengths = {name: sum(part.length for part in parts) for name, parts in found.items()}
    assert lengths["params.large"] > 40 * 50 * 4 * 0.9  # random numbers hardly get smaller


def test_a_flipped_bit_in_any_part_of_any_array_is_told_by_its_name(written):
    folder = written / "checkpoints" / "2"
    assert digests.damaged(folder) == []
    for name, parts in stored_arrays.find(folder / "state", folder).items():
        for part in parts:
            for position in (0, part.length // 2, part.length - 1):
                flip(folder / part.file, part.offset + position)
                assert digests.damaged(folder) == [part.file]
                assert name in digests.damaged_arrays(folder, [part.file])
                flip(folder / part.file, part.offset + position)
    assert digests.damaged(folder) == []


def test_a_flipped_bit_in_any_file_is_found(written):
    folder = written / "checkpoints" / "2"
    for path in pathlib.Path(folder).rglob("*"):
        if path.is_dir() or path.name in LATER or not path.stat().st_size:
            continue
        flip(path, path.stat().st_size // 2)
        assert digests.damaged(folder), path
        flip(path, path.stat().st_size // 2)
    assert digests.damaged(folder) == []


def test_a_damaged_array_is_named_where_the_run_is_read_and_where_it_is_scrubbed(
    written, tmp_path, capsys
):
    shutil.copytree(written, tmp_path / "copy")
    folder = epath.Path(tmp_path / "copy" / "checkpoints" / "2")
    parts = stored_arrays.find(folder / "state", folder)["params.large"]
    flip(folder / parts[-1].file, parts[-1].offset + 7)
    assert trained.load(tmp_path / "copy").step == 1
    assert "2 cannot be read (array params.large in state/" in capsys.readouterr().out
    verdicts = [part.verdict for part in scrub.check(tmp_path / "copy")]
    assert verdicts[0] == "sound"
    assert verdicts[1].startswith("DAMAGED: array params.large in state/")


def test_a_checkpoint_of_before_is_read_and_scrub_says_that_it_has_no_digests(written, tmp_path):
    shutil.copytree(written, tmp_path / "copy")
    folder = epath.Path(tmp_path / "copy" / "checkpoints" / "2")
    (folder / digests.ARRAYS).unlink()
    (folder / digests.FILE).unlink()
    assert trained.load(tmp_path / "copy").step == 2
    verdicts = [part.verdict for part in scrub.check(tmp_path / "copy")]
    assert verdicts == ["sound", "no digests (written by an older version)"]


def test_a_checkpoint_with_digests_of_files_only_names_the_files(written, tmp_path):
    shutil.copytree(written, tmp_path / "copy")
    folder = epath.Path(tmp_path / "copy" / "checkpoints" / "2")
    (folder / digests.ARRAYS).unlink()
    digests.write(folder, except_names=("_CHECKPOINT_METADATA",))
    largest = stored_arrays.find(folder / "state", folder)["params.large"][-1].file
    flip(folder / largest, 0)
    (damaged,) = digests.damaged(folder)
    assert digests.describe_damage(folder, [damaged]) == f"{damaged} not as written"
