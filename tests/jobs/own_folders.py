"""Small folders of pictures, and the command over them with toy sizes."""

import numpy as np
from PIL import Image

from configs import own_pictures as configs
from fourm_jax.jobs import own_pictures, own_pictures_report, phases


def save(path, level=0, mode="RGB", size=(40, 32), **options):
    """A picture of stripes, so that it has edges and several colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(level)
    stripes = np.repeat(rng.integers(0, 256, (1, 5, 3), np.uint8), 8, 1)
    image = Image.fromarray(np.repeat(stripes, 32, 0)).resize(size)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    else:
        image = image.convert(mode)
    image.save(path, **options)
    return path


def start(images, workdir, size="nano"):
    """What the command does before its first phase, with toy sizes."""
    found = own_pictures.survey(images, workdir)
    config = configs.make(size, len(found.files), captions=found.has_captions, runlocal=True)
    own_pictures.check(config, found, workdir, size)
    own_pictures.announce(found, config, size)
    return config, found


def run(images, workdir, size="nano"):
    """All of it; returns the page."""
    config, found = start(images, workdir, size)
    record = phases.Phases(workdir, own_pictures.PHASES)
    own_pictures.prepare(config, found, workdir, record)
    return own_pictures_report.run(config, found, workdir, record)
