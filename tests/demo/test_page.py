"""The page in a real browser (`make test-demo`): Chromium, a tiny model, everything a person does.

Chromium is the system's (`apt-get install chromium`) or that of `playwright install chromium`.
"""

import functools
import json
import pathlib
import shutil
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from fourm_jax.demo.examples import Example
from fourm_jax.generate import state as states
from fourm_jax.generate.generator import Generator
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.models.fourm import FourM
from fourm_jax.tokenizers import base
from fourm_jax.tokenizers.text import TextTokenizer
from fourm_jax.tokenizers.trained import TrainedTokenizer

pytestmark = pytest.mark.browser
SIDE = 8  # pixels of a picture: 4 x 4 patches of 2
SPECS = (
    ModalitySpec(
        name="rgb", kind="pixels", grid=(4, 4), patch_size=2, num_channels=3, source="rgb"
    ),
    ModalitySpec(
        name="tok_rgb", kind="grid", vocab_size=16, grid=(4, 4), tokenizer="rgb", source="rgb"
    ),
    ModalitySpec(
        name="caption",
        kind="sequence",
        vocab_size=230,
        max_tokens=8,
        decoding_order=1,
        tokenizer="text",
        source="caption",
    ),
    ModalitySpec(
        name="color_palette",
        kind="sequence",
        vocab_size=230,
        max_tokens=24,
        tokenizer="text",
        source="color_palette",
        text_form="palette",
        table="caption",
    ),
)
MINUTE = 60_000  # ms


def random_like(tree, scale):
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(scale=scale, size=leaf.shape), leaf.dtype), tree
    )


def rgb_tokenizer():
    side = {"dim": 8, "depth": 1}
    arguments = {
        "signal": {
            "axes": "hwc",
            "dtype": "uint8",
            "num_channels": 3,
            "low": 0,
            "high": 255,
            "mean": 127.5,
            "std": 64.0,
        },
        "image_size": SIDE,
        "patch_size": 2,
        "num_codes": 16,
        "latent_dim": 4,
        "backbone": "patch_mlp",
        "encoder": side,
        "decoder": side,
    }
    module = base.build("vqvae", arguments)
    variables = random_like(base.abstract_variables(module), 1.0)
    return TrainedTokenizer(module, variables, base.make_card("rgb", "vqvae", arguments))


@functools.cache
def tiny_generator():
    names = tuple(spec.name for spec in SPECS)
    model = FourM(
        modalities=SPECS,
        inputs=names,
        outputs=names[1:3],
        dim=16,
        encoder_depth=1,
        decoder_depth=1,
        num_heads=2,
    )
    given = {"rgb": {"pixels": np.zeros((1, SIDE, SIDE, 3), np.uint8)}}
    state = states.create(given, ["tok_rgb"], specs=SPECS)
    targets = states.parallel_targets(1, jnp.zeros((1, 16), jnp.int32), jnp.ones((1, 16), bool))
    batch = states.token_batch([state], [targets], SPECS)
    params = random_like(jax.eval_shape(model.init, jax.random.key(0), batch)["params"], 0.4)
    text = TextTokenizer.train(["a red cone"], vocab_size=230, num_sentinels=10, num_bins=2)
    return Generator(model, params, {"rgb": rgb_tokenizer(), "text": text})


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A page that is up, with one example."""
    gradio = pytest.importorskip("gradio")
    from experiments import demo

    picture = np.full((SIDE, SIDE, 3), 90, np.uint8)
    shown = [Example(picture=picture, texts={"caption": "a red cone"})]
    folder = pathlib.Path(tmp_path_factory.mktemp("results"))
    page = demo.Page(gradio, tiny_generator(), "tiny", shown, folder)
    _, url, _ = demo.launch(page, "127.0.0.1", 0, 2**20, block=False)
    yield url
    page.blocks.close()


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser, address):
    opened = browser.new_page(viewport={"width": 1400, "height": 1400})
    outside = []
    opened.on("request", lambda one: outside.append(one.url))
    opened.goto(address)
    opened.wait_for_selector("#generate", timeout=MINUTE)
    yield opened
    foreign = [url for url in outside if not url.startswith((address, "data:", "blob:"))]
    opened.close()
    assert not foreign  # nothing is loaded from elsewhere


def status(page, start):
    page.wait_for_function(
        "start => document.querySelector('#status').innerText.startsWith(start)",
        arg=start,
        timeout=2 * MINUTE,
    )
    return page.inner_text("#status")


def upload(page, path):
    page.set_input_files("#upload input[type=file]", str(path))


def generate(page):
    page.click("#generate")
    return status(page, "done")


def results(page, tmp_path):
    """The files of the download."""
    with page.expect_download(timeout=MINUTE) as download:
        page.click("#results a[download]")
    download.value.save_as(tmp_path / "results.zip")
    with zipfile.ZipFile(tmp_path / "results.zip") as archive:
        archive.extractall(tmp_path / "results")
    return tmp_path / "results"


def test_a_caption_becomes_a_picture_with_its_json(page, tmp_path):
    page.fill("#text-caption textarea, #text-caption input", "a red cone")
    page.fill("#seed textarea, #seed input", "7")
    assert generate(page).startswith("done in")
    assert page.locator("#sheet img").count() == 1
    folder = results(page, tmp_path)
    said = json.loads((folder / "result.json").read_text())
    assert (said["conditions"], said["seed"]) == ({"caption": "a red cone"}, 7)
    alone = tiny_generator().generate({"caption": "a red cone"}, ["tok_rgb"], seed=7)
    with np.load(folder / "ids.npz") as ids:
        np.testing.assert_array_equal(ids["tok_rgb"], alone.ids["tok_rgb"][0])


def test_what_is_drawn_over_an_upload_is_made_anew_and_the_rest_stays(page, tmp_path):
    given = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    Image.fromarray(given).save(tmp_path / "given.png")
    upload(page, tmp_path / "given.png")
    status(page, f"picture of {SIDE} x {SIDE}")
    page.wait_for_timeout(2_000)  # the editor draws its background
    canvas = page.locator("#editor canvas").first.bounding_box()
    middle = canvas["x"] + canvas["width"] / 2, canvas["y"] + canvas["height"] / 2
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] + 5, middle[1] + 5)
    page.mouse.up()
    page.wait_for_timeout(500)
    generate(page)
    folder = results(page, tmp_path)
    mask = np.asarray(Image.open(folder / "given_mask.png"))[..., 0] > 0
    assert 0 < mask.mean() < 0.5
    tokens = tiny_generator().tokenizer("tok_rgb").encode(given[None]).reshape(-1)
    side = mask.shape[0] // 4
    touched = mask.reshape(4, side, 4, side).any(axis=(1, 3)).reshape(-1)
    with np.load(folder / "ids.npz") as ids:
        np.testing.assert_array_equal(ids["tok_rgb"][~touched], tokens[~touched])
    np.testing.assert_array_equal(np.asarray(Image.open(folder / "given_picture.png")), given)


def test_a_wrong_file_is_one_friendly_line(page, tmp_path):
    (tmp_path / "wrong.png").write_text("no picture")
    upload(page, tmp_path / "wrong.png")
    said = status(page, "error")
    assert said.startswith("error: the file cannot be used: unreadable picture")


def test_too_large_a_file_is_refused(page, tmp_path):
    (tmp_path / "large.png").write_bytes(bytes(3 * 2**20))
    upload(page, tmp_path / "large.png")
    page.get_by_text("exceed the maximum allowed size").first.wait_for(timeout=MINUTE)
    assert page.inner_text("#status") == ""


def test_a_wrong_form_is_one_friendly_line(page):
    page.click("#generate")
    assert status(page, "error") == "error: nothing is given: upload a picture or type something"


def test_colours_are_picked_and_an_example_fills_the_fields(page):
    page.get_by_text("color_palette", exact=True).first.click()
    page.click("#add-colour")
    field = page.locator("#text-color_palette textarea, #text-color_palette input")
    page.wait_for_function(
        "() => document.querySelector('#text-color_palette textarea').value == '#ff0000'",
        timeout=MINUTE,
    )
    assert field.input_value() == "#ff0000"
    page.locator("#taken").get_by_text("caption", exact=True).click()
    page.locator("#examples button").first.click()
    page.wait_for_function(
        "() => [...document.querySelectorAll('#text-caption textarea, #text-caption input')]"
        ".some(one => one.value == 'a red cone')",
        timeout=MINUTE,
    )


def test_a_request_is_cancelled(page):
    page.fill("#text-caption textarea, #text-caption input", "a red cone")
    page.fill("#steps textarea, #steps input", "16")
    page.click("#generate")
    page.click("#cancel")
    page.wait_for_function(
        "() => document.querySelector('#status').innerText == 'cancelled'", timeout=2 * MINUTE
    )
    assert page.locator("#results a[download]").count() == 0
    generate(page)  # the next one is not
