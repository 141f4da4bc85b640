"""The walk over recorded numbers: shipped cases pass, and nothing wrong or unknown passes."""

import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from experiments.parity import quantity, tokenizers, walk
from tests import golden_cases

ROOT = pathlib.Path(__file__).parents[2]
FAST = (
    "fm",
    "lr_schedules",
    "posemb",
    "quantizers",
    "schedulers",
    "text",
    "tokenizers",
    "transforms",
)


def judged(directory) -> list[quantity.Result]:
    return list(walk.walk(directory))


def copied(tmp_path, folder, *parts) -> pathlib.Path:
    """A copy of a shipped folder (or of some of its entries) in an otherwise empty directory."""
    target = tmp_path / folder
    for part in parts or [""]:
        source = golden_cases.shipped(folder) / part
        if source.is_dir():
            shutil.copytree(source, target / part, dirs_exist_ok=True)
        else:
            target.mkdir(exist_ok=True)
            shutil.copy(source, target / part)
    return target


@pytest.mark.parametrize("folder", FAST)
def test_every_shipped_case_passes_and_no_quantity_of_it_could_be_wrong_unnoticed(
    tmp_path, monkeypatch, folder
):
    """Ten tolerances more at the largest number, one more id, another entry: each must fail."""
    target = copied(tmp_path, folder)
    for path in target.glob("fm_*"):
        in_another_form(path)
    judge, unnoticed = quantity.judge, []

    def also_changed(case, found):
        changed = dataclasses.replace(found, expected=changed_value(found), gaps=None)
        if changed.expected is not None and judge(case, changed).passed:
            unnoticed.append(f"{case}/{found.name}")
        return judge(case, found)

    monkeypatch.setattr(quantity, "judge", also_changed)
    results = judged(tmp_path)
    assert results
    assert not [str(result) for result in results if not result.passed]
    assert not unnoticed


def changed_value(found: quantity.Quantity):
    """What was recorded, but wrong in one place; None where nothing was."""
    try:
        value = np.array(found.expected)
    except ValueError:  # ragged
        return [*found.expected, "more"]
    if value.dtype.kind not in "fiub":
        return [found.expected]
    if not value.size:
        return None
    if value.dtype.kind != "f":
        value.flat[-1] = not value.flat[-1] if value.dtype.kind == "b" else value.flat[-1] + 1
        return value
    at = int(np.argmax(np.where(np.isfinite(value), np.abs(value), -1)))
    absolute, relative = found.tolerance
    value = value.astype(np.float64)
    value.flat[at] += 10 * (absolute + relative * abs(value.flat[at])) or 1e-3
    return value


def in_another_form(case):
    """The same trunk: its config is in the header alone, its batch has an image that it ignores."""
    (case / "config.json").unlink()
    inputs = load_file(case / "inputs.safetensors")
    batch = len(inputs["caption/input_mask"])
    image = {"tensor": np.zeros((batch, 3, 224, 224), np.float32)}
    image |= {name: np.zeros((batch, 196), bool) for name in ("input_mask", "target_mask")}
    inputs |= {f"rgb@224/{name}": value for name, value in image.items()}
    save_file(inputs, case / "inputs.safetensors")


def test_every_shipped_folder_has_a_reader():
    """Masking, DiVAE and the sampler have tests of their own (see ops, convert, generate)."""
    folders = sorted(path.name for path in golden_cases.SHIPPED.iterdir())
    assert set(folders) - {"generation", "masking", "divae"} == set(FAST)
    assert all(walk.reader_of(golden_cases.shipped(name)) for name in folders)


def test_shipped_schedules_and_filters_of_the_sampler_pass(tmp_path):
    """Its runs are those of tests/generate/test_published.py."""
    copied(tmp_path, "generation", "schedules.json", "top_k_top_p.safetensors")
    results = judged(tmp_path)
    cases = {result.case for result in results}
    assert cases == {"generation/schedules", "generation/top_k_top_p"}
    assert not [str(result) for result in results if not result.passed]


@golden_cases.FULL_SET
def test_texts_and_features_of_the_full_set_pass():
    """Texts and the features of the encoder, which do not ship as recorded."""
    for folder in ("text", "fm_vit"):
        results = list(walk.judge_folder(golden_cases.directory(folder)))
        assert results
        assert not [str(result) for result in results if not result.passed]


def test_one_changed_number_fails_its_quantity_alone(tmp_path):
    target = copied(tmp_path, "tokenizers", "mlp_memcodes")
    path = target / "mlp_memcodes" / "outputs.safetensors"
    arrays = load_file(path)
    arrays["base/quant"].flat[3] += 0.01
    save_file(arrays, path)
    failed = [result.quantity for result in judged(tmp_path) if not result.passed]
    assert failed == ["base/quant"]


def test_quantities_cases_and_folders_that_nobody_understands_fail(tmp_path):
    target = copied(tmp_path, "tokenizers", "mlp_memcodes")
    path = target / "mlp_memcodes" / "outputs.safetensors"
    arrays = load_file(path)
    save_file({**arrays, "base/surprise": np.zeros(2, np.float32)}, path)
    (target / "no_tokenizer").mkdir()
    (tmp_path / "new_folder").mkdir()
    (tmp_path / "walk").mkdir()  # a module of the package, but of no golden folder
    failed = {f"{r.case}/{r.quantity}" for r in judged(tmp_path) if not r.passed}
    assert failed == {
        "tokenizers/mlp_memcodes/base/surprise",
        "tokenizers/no_tokenizer/(error)",
        "new_folder/(folder)",
        "walk/(folder)",
    }


def test_schedules_with_unknown_arguments_or_names_fail(tmp_path):
    target = copied(tmp_path, "lr_schedules")
    path = target / "lr_schedules.json"
    cases = json.loads(path.read_text())[:2]
    cases[0]["function"] = "step_scheduler"
    cases[1]["args"]["momentum"] = 0.9
    path.write_text(json.dumps(cases))
    failed = [result.quantity for result in judged(tmp_path) if not result.passed]
    assert failed == ["values", "momentum"]


def test_the_command_prints_one_line_of_json_and_exits_with_1_on_failure(tmp_path):
    target = copied(tmp_path, "lr_schedules")
    command = [sys.executable, "-m", "experiments.verify_reference", f"--cases={tmp_path}"]

    def run():
        done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True)
        return done.returncode, done.stdout.splitlines()

    code, lines = run()
    assert code == 0
    assert json.loads(lines[-1]) == {"cases": 7, "quantities": 7, "failed": []}
    assert len(lines) == 8
    cases = json.loads((target / "lr_schedules.json").read_text())
    cases[3]["values"][2] *= 1.01
    (target / "lr_schedules.json").write_text(json.dumps(cases))
    code, lines = run()
    assert code == 1
    assert json.loads(lines[-1])["failed"] == ["lr_schedules/constant_scheduler-3/values"]


def test_one_golden_folder_alone_is_judged_like_a_directory_of_it(tmp_path):
    folder = copied(tmp_path, "lr_schedules")
    alone, inside = judged(folder), judged(tmp_path)
    assert [result.case for result in alone] == [result.case for result in inside]
    assert all(result.passed for result in alone)


def test_one_case_alone_is_judged_by_its_name_in_its_folder_also_through_a_link(tmp_path):
    folder = copied(tmp_path / "real", "tokenizers", "mlp_memcodes", "mlp_lucid_euclid")
    (tmp_path / "link").symlink_to(folder / "mlp_memcodes")
    for path in (folder / "mlp_memcodes", tmp_path / "link"):
        results = judged(path)
        assert {result.case for result in results} == {"tokenizers/mlp_memcodes"}
        assert all(result.passed for result in results)


def test_a_case_without_a_file_fails_and_the_others_go_on(tmp_path):
    target = copied(tmp_path, "tokenizers", "mlp_memcodes", "mlp_lucid_euclid")
    (target / "mlp_lucid_euclid" / "outputs.safetensors").unlink()
    results = judged(tmp_path)
    assert [r.case for r in results if not r.passed] == ["tokenizers/mlp_lucid_euclid"]
    assert sum(r.case == "tokenizers/mlp_memcodes" for r in results) > 5


def test_a_directory_without_cases_is_refused_and_a_folder_without_any_fails(tmp_path):
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ValueError, match="--cases="):
            judged(path)
    (tmp_path / "fm").mkdir()
    assert [f"{r.case}/{r.quantity}" for r in judged(tmp_path)] == ["fm/(error)"]


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"scheduler": "EulerScheduler"}, "run/EulerScheduler"),
        ({"guidance_scale": 2.0}, "run/guidance_scale"),
        ({"kwargs": {"sample_max_value": 2.0}}, "run/kwargs/sample_max_value"),
        ({"kwargs": {"skip_prk_steps": True}}, "run/kwargs/skip_prk_steps"),
    ],
)
def test_a_sampling_run_with_options_that_nobody_knows_is_not_understood(change, name):
    run = {"tag": "run", "scheduler": "DDIMScheduler", "steps": 3, "mode": "leading", "kwargs": {}}
    found = list(tokenizers.replay(None, None, run | change, {}, {}))
    assert [(q.name, q.understood) for q in found] == [(name, False)]


@pytest.mark.parametrize(
    ("found", "expected", "passed"),
    [
        (np.float32([1.0, 2.0]), np.float32([1.0001, 2.0]), True),
        (np.float32([1.0, 2.0]), np.float32([1.001, 2.0]), False),
        (np.float32([np.nan]), np.float32([1.0]), False),
        (np.float32([-np.inf]), np.float32([-np.inf]), True),
        (np.float32([-np.inf]), np.float32([0.0]), False),
        (np.int32([3]), np.int64([4]), False),
        (np.zeros((2, 1)), np.zeros(2), False),
        (["a", "b"], ["a", "c"], False),
        (["a"], ["a", "b"], False),
        ({"a": 1}, {"a": 1}, True),
    ],
)
def test_floats_may_differ_within_their_tolerance_and_all_else_not_at_all(found, expected, passed):
    assert quantity.judge("case", quantity.Quantity("q", found, expected)).passed is passed


def test_ids_may_differ_at_near_ties_only_and_the_verdict_says_so():
    found, expected = np.array([3, 7, 5]), np.array([3, 8, 5])
    for gap, passed, note in (
        (5e-5, True, "(1 of 3 differ at near ties, margin < 0.0001)"),
        (2e-4, False, ""),
        (-1.0, False, ""),
        (np.nan, False, ""),
    ):
        gaps = np.array([0.0, gap, 0.0])
        result = quantity.judge("case", quantity.Quantity("ids", found, expected, gaps=gaps))
        assert (result.passed, result.note) == (passed, note)
        assert note in str(result)


def test_an_id_at_a_near_tie_is_stated_and_what_follows_is_computed_from_the_recorded_one(tmp_path):
    """Two codes that are almost one: the other one is recorded, with all that follows from it."""
    target = copied(tmp_path, "tokenizers", "mlp_lucid_euclid") / "mlp_lucid_euclid"
    tensors = load_file(target / "model.safetensors")
    recorded = load_file(target / "outputs.safetensors")
    first = (0, *[0] * (recorded["base/tokens"].ndim - 1))
    used = int(recorded["base/tokens"][first])
    other = next(i for i in range(16) if i not in recorded["base/tokens"])
    codes, latent = tensors["quantize._codebook.embed"], recorded["base/quant_proj_out"][0, :, 0, 0]
    codes[other] = codes[used] + 1e-6 * (codes[used] - latent)  # a little farther away
    save_file(tensors, target / "model.safetensors")
    recorded["base/tokens"][first] = other
    save_file(recorded, target / "outputs.safetensors")
    results = {result.quantity: result for result in judged(tmp_path)}
    assert not [str(result) for result in results.values() if not result.passed]
    assert "differ at near ties, margin < 0.0001" in results["base/tokens"].note
