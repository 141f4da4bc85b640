"""What a person fills in on the page -> a request and how to answer it."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8

from fourm_jax.demo import typed
from fourm_jax.generate import fitting
from fourm_jax.generate.generator import Generator
from fourm_jax.generate.guides import Guide
from fourm_jax.jobs import generation
from fourm_jax.jobs.generation import Job
from fourm_jax.jobs.requests import Request
from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.utils import picture_files

MAX_PIXELS = 2**24  # of an upload
MAX_STEPS = 4_096
STRONG, AWAY = 3.0, -2.0  # weights of a text and of one to stay away from, where none is typed


@dataclasses.dataclass(frozen=True, kw_only=True)
class Form:
    """The page, filled in; what is left empty has the defaults of generation.

    Attributes:
      picture: that was uploaded.
      mask: where it is made anew, of the picture's proportions and any size; None: nowhere.
      texts: by modality, as typed, see `typed.read`.
      files: by map, an uploaded picture or .npy file.
      weights: by modality, its part in guidance; without one it counts as every condition does.
      away: a text that results stay away from, with `away_weight`.
      guidance: by all conditions together; not beside `weights` that count or `away`.
      targets: what is generated.
    """

    picture: UInt8[np.ndarray, "h w 3"] | None = None
    mask: Bool[np.ndarray, "_h _w"] | None = None
    texts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)
    weights: Mapping[str, float] = dataclasses.field(default_factory=dict)
    away: str = ""
    away_weight: float = AWAY
    targets: Sequence[str] = ()
    num_steps: int | None = None
    guidance: float | None = None
    temperature: float | None = None
    seed: int = 0


def read_upload(path: str) -> UInt8[np.ndarray, "h w 3"]:
    """The picture in an uploaded file.

    Raises:
      ValueError: no picture, a damaged one, or one of more than `MAX_PIXELS` pixels.
    """
    try:
        height, width = picture_files.read_size(path)
        if height * width > MAX_PIXELS:
            raise ValueError(f"picture of {width} x {height} pixels, allowed: {MAX_PIXELS} in all")
        return picture_files.decode_rgb(path)
    except picture_files.PictureError as error:
        raise ValueError(f"the file cannot be used: {error}") from error


def fitted(
    mask: Bool[np.ndarray, "_h _w"], size: tuple[int, int]
) -> Bool[np.ndarray, "_height _width"]:
    """A mask in another size: of a smaller one every pixel that is touched at all."""
    rows, columns = (
        np.arange(max(old, new)) * new // max(old, new)
        for old, new in zip(mask.shape, size, strict=True)
    )
    sources = (
        np.arange(max(old, new)) * old // max(old, new)
        for old, new in zip(mask.shape, size, strict=True)
    )
    done = np.zeros(size, bool)
    np.logical_or.at(done, np.ix_(rows, columns), mask[np.ix_(*sources)])
    return done


def pixels_of(generator: Generator) -> ModalitySpec | None:
    """The modality that reads an uploaded picture, if the model has one."""
    inputs = [generator.spec(name) for name in generator.model.inputs]
    return next((spec for spec in inputs if spec.kind == "pixels" and spec.source), None)


def painted(generator: Generator) -> str:
    """The target that shows the same as an uploaded picture; "" where the model has none."""
    pixels = pixels_of(generator)
    names = [name for name in generator.model.outputs if name in generator.model.inputs]
    for spec in map(generator.spec, names):
        if pixels and spec.kind == "grid" and spec.source == pixels.source:
            return spec.name
    return ""


def maps_of(generator: Generator) -> list[str]:
    """Maps that may be uploaded: grids of images whose tokenizer is at hand."""
    found = []
    for spec in map(generator.spec, generator.model.inputs):
        is_decoded = spec.kind == "grid" and spec.tokenizer in generator.tokenizers
        if is_decoded and generator.tokenizer(spec.name).signal.is_image:
            found.append(spec.name)
    return [name for name in found if name != painted(generator)]


def texts_of(generator: Generator) -> list[str]:
    """Modalities that are typed."""
    specs = map(generator.spec, generator.model.inputs)
    return [s.name for s in specs if s.kind == "sequence" and s.tokenizer in generator.tokenizers]


def caption_of(generator: Generator) -> str:
    """The modality of free text, if the model has one."""
    specs = map(generator.spec, texts_of(generator))
    return next((spec.name for spec in specs if spec.text_form == "captions"), "")


def request(form: Form, generator: Generator, source: str) -> tuple[Request, Job]:
    """The request of a form, and how it is answered.

    Raises:
      ValueError: nothing to generate, or a value that means nothing; in words for the page.
    """
    _check(form)
    given, mask = _conditions(form, generator)
    guides = _guides(form, generator, given)
    kept = {name: value for name, value in given.items() if name not in {g.name for g in guides}}
    if not kept and not guides:
        raise ValueError("nothing is given: upload a picture or type something")
    if guides and form.guidance is not None:
        raise ValueError(
            f"guidance {form.guidance:g} is of all conditions together: leave it empty beside "
            "guidance by single ones and a text to stay away from, or leave those empty"
        )
    options: dict[str, Any] = {
        "targets": list(form.targets),
        "num_steps": form.num_steps,
        "guidance": form.guidance,
        "temperature": form.temperature,
        "guides": guides or None,
        "mask": mask,
    }
    options = {name: value for name, value in options.items() if value is not None}
    shown = {name: generation.plain(value) for name, value in kept.items()}
    return (
        Request(name="result", conditions=kept, given=shown, seed=form.seed),
        Job(options=options, source=source),
    )


def _check(form: Form) -> None:
    """Refuse what no model can do."""
    if not form.targets:
        raise ValueError("no target is chosen")
    if not 0 <= form.seed < 2**32:
        raise ValueError(f"seed {form.seed}, allowed: 0..{2**32 - 1}")
    if form.num_steps is not None and not 1 <= form.num_steps <= MAX_STEPS:
        raise ValueError(f"{form.num_steps} steps, allowed: 1..{MAX_STEPS}")
    if form.mask is not None and form.picture is None:
        raise ValueError("something is drawn, but there is no picture")


def _conditions(
    form: Form, generator: Generator
) -> tuple[dict[str, Any], Bool[np.ndarray, "_h _w"] | None]:
    """Values of all conditions, and the mask if a part of the picture is made anew."""
    given: dict[str, Any] = {}
    mask = None
    if form.picture is not None:
        if form.mask is not None and form.mask.any():
            mask = fitted(form.mask, form.picture.shape[:2])
        pixels, grid = pixels_of(generator), painted(generator)
        if mask is not None and grid not in form.targets:
            raise ValueError(f"a part of the picture is marked: choose {grid!r} as a target too")
        if grid in form.targets and mask is None:
            raise ValueError(
                f"{grid!r} shows the picture that is given: mark what is made anew, or do not "
                "generate it"
            )
        name = grid if mask is not None else pixels.name if pixels else grid
        if not name:
            raise ValueError("this model reads no picture")
        given[name] = form.picture
    for name, path in form.files.items():
        if path:
            spec = generator.spec(name)
            given[name] = fitting.read_picture(path, spec, generator.tokenizer(name).signal)
    for name, text in form.texts.items():
        value = typed.read(text, generator.spec(name))
        if value is not None:
            given[name] = value
    return given, mask


def _guides(form: Form, generator: Generator, given: Mapping[str, Any]) -> list[Guide]:
    """Conditions with a weight of their own, and the text to stay away from."""
    weights = {name: form.weights[name] for name in given if name in form.weights}
    away = form.away.strip()
    caption = caption_of(generator)
    if away and caption in given:
        weights.setdefault(caption, STRONG)
    guides = [Guide(name=name, value=given[name], weight=w) for name, w in weights.items()]
    if away:
        guides.append(Guide(name=caption, value=away, weight=form.away_weight))
    return guides
