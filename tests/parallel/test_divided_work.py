"""Commands as two real processes that join: the results are those of one."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from fourm_jax.convert import safetensors_io
from fourm_jax.parallel import launcher
from fourm_jax.tokenizers import text
from fourm_jax.train.metrics import read_history
from fourm_jax.utils import interrupt
from tests.jobs import digit_tokenizers, published_tars
from tests.stress import children

WEIGHTS = "transfer/weights.safetensors"


@pytest.fixture(scope="module")
def trunk(nursery, tmp_path_factory):
    """Work directory of a tiny trunk."""
    workdir = tmp_path_factory.mktemp("trunk")
    child = nursery.train(workdir, task="trunk", num_steps=2, checkpoint_every=1)
    assert child.code() == 0, child.log
    return workdir


def run(nursery, name, arguments, count):
    """What the processes of a command print; with two of them, both join."""
    own = launcher.environments(count, cpu_devices=1, base={}) if count > 1 else [{}]
    processes = [nursery.command(name, arguments, one) for one in own]
    codes = [process.code() for process in processes]
    logs = [process.log for process in processes]
    assert codes == [0] * count, "\n".join(logs)
    return logs


@pytest.mark.scale
def test_two_processes_evaluate_to_the_last_bit_as_one_does(nursery, trunk, tmp_path):
    found = []
    for count in (1, 2):
        output = tmp_path / str(count)
        arguments = [
            f"--source={trunk}",
            "--evals=val_loss,retrieval",
            "--option=val_loss.batch_size=4",
            "--option=retrieval.first=tok_depth",
            "--option=retrieval.features=encoder",
            "--num_records=12",
            f"--output={output}",
        ]
        logs = run(nursery, "evaluate", arguments, count)
        assert [log.count("report: ") for log in logs] == [1, 0][:count]
        found.append(json.loads((output / "metrics.json").read_text()))
    one, two = ({key: found[key] for key in ("tasks", "data")} for found in found)
    assert one["tasks"]["val_loss/all"]["n"] > 12
    assert one == two


@pytest.mark.scale
def test_two_processes_that_hold_half_of_the_parameters_each_fine_tune_as_one_does(
    nursery, tmp_path
):
    config = "configs/finetune/scenes.py:task=cls,init=scratch,labels=64,runlocal"
    for count in (1, 2):
        mesh = ["--config.mesh.data=1", f"--config.mesh.fsdp={count}"]
        workdir = f"--workdir={tmp_path / str(count)}"
        run(nursery, "train", [f"--config={config}", *mesh, workdir], count)
    one, two = (read_history(tmp_path / str(count))[-1] for count in (1, 2))
    assert one["eval/accuracy"] == pytest.approx(two["eval/accuracy"], abs=0.01)
    one, two = (
        dict(safetensors_io.Tensors(safetensors_io.open_weights(tmp_path / str(n) / WEIGHTS)))
        for n in (1, 2)
    )
    assert one.keys() == two.keys()
    for name, array in one.items():
        np.testing.assert_allclose(array, two[name], atol=1e-3, err_msg=name)


@pytest.mark.scale
def test_two_processes_generate_what_one_does_for_every_row(nursery, trunk, tmp_path):
    (tmp_path / "pictures").mkdir()
    for number in range(3):
        picture = np.full((32, 32, 3), 80 * number, np.uint8)
        Image.fromarray(picture).save(tmp_path / "pictures" / f"{number}.png")
    for count in (1, 2):
        arguments = [
            f"--source={trunk}",
            f"--prompts={tmp_path / 'pictures'}",
            "--targets=tok_depth",
            "--num_steps=2",
            f"--output={tmp_path / str(count)}",
        ]
        logs = run(nursery, "generate", arguments, count)
        done = [re.search(r"(\d) of \d requests generated", log)[1] for log in logs]
        assert done == [["3"], ["2", "1"]][count - 1]
    names = {path.name for path in (tmp_path / "1").iterdir()}
    assert names == {path.name for path in (tmp_path / "2").iterdir()} and len(names) == 4
    for row in names - {"settings.json"}:
        paths = (tmp_path / str(count) / row / "ids.npz" for count in (1, 2))
        one, two = (np.load(path)["tok_depth"] for path in paths)
        np.testing.assert_array_equal(one, two)


def build(folder):
    """Pictures in a folder, and the command that makes records of them."""
    rng = np.random.default_rng(0)
    for number in range(4):
        picture = rng.integers(0, 255, (40, 40, 3), np.uint8)
        Image.fromarray(picture).save(folder / f"a_red_cone_{number}.png")
    return "build_data", [f"--images={folder}", "--image_size=32", "--test_fraction=0.3"]


def tokenize(folder):
    """Tokenizers in a folder, and the command that makes tokens of ten digits in three shards."""
    return "tokenize_dataset", [
        "--config=configs/data/digits.py:tokenize",
        f"--tokenizers={digit_tokenizers.save(folder)}",
        "--config.num_records.train=10",
        "--config.records_per_shard=4",
    ]


def read_published(folder):
    """Shards of the published layout, and the command that imports them."""
    published_tars.write(folder / "in")
    texts = ["a dog on the left", "two dogs 0 1 2"]
    text.TextTokenizer.train(texts, vocab_size=4608, class_names=["dog"]).save(folder / "words")
    names = "rgb@224,tok_rgb@224,caption,det"
    return "import_webdataset", [
        f"--input={folder / 'in'}",
        f"--modalities={names}",
        f"--text_tokenizer={folder / 'words'}",
    ]


@pytest.mark.scale
@pytest.mark.parametrize("prepare", [build, tokenize, read_published])
def test_processes_that_join_write_the_files_of_one_and_end_together(nursery, tmp_path, prepare):
    folder = tmp_path / "given"
    folder.mkdir()
    name, arguments = prepare(folder)
    for count in (1, 2):
        run(nursery, name, [*arguments, f"--output={tmp_path / str(count)}"], count)
    one, two = (
        {path.name: path.read_bytes() for path in (tmp_path / str(count)).iterdir()}
        for count in (1, 2)
    )
    assert one and one == two


@pytest.mark.scale
def test_flags_that_differ_between_processes_are_refused_by_all(nursery, trunk, tmp_path):
    own = launcher.environments(2, cpu_devices=1, base={})
    common = [f"--source={trunk}", "--evals=val_loss", f"--output={tmp_path}"]
    processes = [
        nursery.command("evaluate", [*common, f"--num_records={4 * number + 4}"], one)
        for number, one in enumerate(own)
    ]
    assert [process.code() for process in processes] == [children.ERROR] * 2
    for process in processes:
        assert "flags of the processes differ: num_records is 4 in process 0" in process.log
    assert interrupt.PEER_GONE not in [process.code() for process in processes]


@pytest.mark.scale
def test_every_command_passes_over_a_damaged_newest_checkpoint(nursery, trunk, tmp_path):
    source = tmp_path / "trunk"
    shutil.copytree(trunk, source)
    newest = source / "checkpoints" / "2"
    largest = max(newest.rglob("*"), key=lambda path: path.is_file() and path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-1])
    picture = tmp_path / "grey.png"
    Image.fromarray(np.full((32, 32, 3), 128, np.uint8)).save(picture)
    given = f"--conditions=rgb={picture}"
    commands = {
        "generate": [f"--source={source}", given, "--targets=tok_depth"],
        "evaluate": [f"--source={source}", "--evals=val_loss", "--num_records=4"],
        "embed": [f"--source={source}", "--condition=rgb", "--num_records=4"],
        "replay_step": [f"--workdir={source}", "--step=2"],
    }
    for name, arguments in commands.items():
        output = [] if name == "replay_step" else [f"--output={tmp_path / name}"]
        (log,) = run(nursery, name, [*arguments, *output], 1)
        assert "checkpoints/2 cannot be read" in log, f"{name}: {log}"
        assert "trying the one before" in log
    assert newest.exists()  # whoever reads renames nothing
