"""Exhibits of the showcase: what generation does with held-out scenes, in figures and pictures.

Each takes (generator, scenes, folder of its pictures, seed) and returns figures by name, and HTML.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Bool

from fourm_jax.evals import galleries, panels, pictures, report
from fourm_jax.evals.pictures import Picture
from fourm_jax.generate import editing
from fourm_jax.generate.generator import Generator
from fourm_jax.generate.guides import Guide
from fourm_jax.jobs import upscaling
from fourm_jax.scenes import caption_scores, detail, image_scores, layout, shape_probe
from fourm_jax.utils import io, picture_files

PICTURE, CAPTION, DEPTH, PALETTE = "tok_rgb", "caption", "tok_depth", "color_palette"
FIELDS = ("rgb", "caption", "depth", "color_palette", "det")
GUIDANCE = (1.0, 2.0, 3.0, 4.0, 6.0)
NUM_BEST, NUM_SEEDS, NUM_DIVERSE, NUM_ENLARGED = 8, 4, 32, 10
BATCH = 128  # rows at once; one size, so that all exhibits share programs
# Weights of a caption and of a text that pictures stay away from, written like those of training.
TOWARDS, AWAY = 2.0, -2.0
SHOWN_INSIDE = 0.2  # share of a mask from which on a colour counts as shown in it


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scenes:
    """Held-out records: fields of `FIELDS`, arrays or lists of n values."""

    fields: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.fields["caption"])

    def first(self, count: int) -> "Scenes":
        """The first of them."""
        return Scenes(fields={name: values[:count] for name, values in self.fields.items()})


def from_captions(
    generator: Generator, scenes: Scenes, output: epath.Path, seed: int
) -> tuple[dict[str, Any], list[str]]:
    """Pictures from captions, judged by their colours and by captioning them again."""
    captions = scenes.fields["caption"]
    made = _from_captions(generator, scenes, output, seed)
    bound = _decoded(generator, scenes.fields["rgb"])
    constant = np.broadcast_to(image_scores.COLOUR_F1.constant(scenes.fields["rgb"]), made.shape)
    numbers = {
        **judge(generator, made, captions),
        **{f"{key} (bound)": value for key, value in judge(generator, bound, captions).items()},
        **{f"{key} (constant)": v for key, v in judge(generator, constant, captions).items()},
        "pictures without an object": _share_empty(made),
    }
    sheet = _sheet([("caption", captions), ("generated", made), ("true", scenes.fields["rgb"])], 12)
    return numbers, [_shown("Pictures from captions", sheet, output, "from_captions")]


def judge(generator: Generator, made: np.ndarray, captions: Sequence[str]) -> dict[str, float]:
    """What is shown of what was asked for, by colours, by the probe (`shape_probe`), and by what
    the model's own captions say of the pictures."""
    again = generator.generate({"rgb": np.asarray(made)}, [CAPTION], batch_size=BATCH)
    said = again.decoded[CAPTION].texts
    return {
        "colour F1": image_scores.COLOUR_F1.score(made, captions),
        "shape F1": shape_probe.SHAPE_F1.score(made, captions),
        "shape and size F1": shape_probe.OBJECT_F1.score(made, captions),
        "places": shape_probe.PLACES.score(made, captions),
        "one pair by re-captioning": caption_scores.ANY_PAIR.score(said, captions),
        "all pairs by re-captioning": caption_scores.ALL_PAIRS.score(said, captions),
    }


def _share_empty(made: np.ndarray) -> float:
    return float(np.mean([not seen for seen in shape_probe.default().look(np.asarray(made))]))


def negative_caption(
    generator: Generator, scenes: Scenes, output: epath.Path, seed: int
) -> tuple[dict[str, Any], list[str]]:
    """Pictures away from one of the colours of their caption."""
    captions = scenes.fields["caption"]
    unwanted = [sorted(caption_scores.colour_shape_pairs(text))[0] for text in captions]
    away = [f"a large {colour} {shape}" for colour, shape in unwanted]
    before = _from_captions(generator, scenes, output, seed)
    guides = [
        Guide(name=CAPTION, value=captions, weight=TOWARDS),
        Guide(name=CAPTION, value=away, weight=AWAY),
    ]
    after = _paint(generator, {}, seed, guides=guides)
    columns = [list(layout.COLOURS).index(colour) for colour, _ in unwanted]
    shares = [
        float(image_scores.colour_shares(one)[np.arange(len(columns)), columns].mean())
        for one in (before, after)
    ]
    rest = [
        caption_scores.named_colours(text) - {colour}
        for text, (colour, _) in zip(captions, unwanted, strict=True)
    ]
    numbers = {
        "share of the colour": shares[0],
        "share with a negative caption": shares[1],
        "ratio": shares[1] / max(shares[0], 1e-9),
        "F1 of the other colours": image_scores.colour_f1(before, rest),
        "F1 of the other colours with a negative caption": image_scores.colour_f1(after, rest),
    }
    sheet = _sheet(
        [("caption", captions), ("plain", before), ("away from", away), ("negative", after)], 10
    )
    return numbers, [_shown("A negative caption", sheet, output, "negative_caption")]


def best_of(
    generator: Generator, scenes: Scenes, output: epath.Path, seed: int
) -> tuple[dict[str, Any], list[str]]:
    """The best of several pictures by how likely the caption is from them."""
    captions = scenes.fields["caption"]
    one = _from_captions(generator, scenes, output, seed)
    made = generator.best_of(
        {CAPTION: captions}, [PICTURE], NUM_BEST, verifier=CAPTION, seed=seed, batch_size=BATCH
    )
    best = made.decoded[PICTURE].raw
    numbers = {
        **{f"{key}, one sample": value for key, value in judge(generator, one, captions).items()},
        **{f"{k}, best of {NUM_BEST}": v for k, v in judge(generator, best, captions).items()},
    }
    sheet = _sheet([("caption", captions), ("one sample", one), (f"best of {NUM_BEST}", best)], 10)
    return numbers, [_shown("Best of several", sheet, output, "best_of")]


def recolour(
    generator: Generator, scenes: Scenes, output: epath.Path, seed: int
) -> tuple[dict[str, Any], list[str]]:
    """One object in another colour: its box generated anew from the changed caption."""
    rng = np.random.default_rng(seed)
    chosen = [
        (number, task) for number in range(len(scenes)) if (task := _task(scenes, number, rng))
    ]
    if not chosen:
        return {"scenes": 0}, []
    numbers_of = np.array([number for number, _ in chosen])
    true = scenes.fields["rgb"][numbers_of]
    captions = [task.caption for _, task in chosen]
    inside = np.stack([editing.box_mask([task.box], true.shape[1:3]) for _, task in chosen])
    masks = np.stack([_grown(box) for box in inside])
    made = (
        generator.generate(
            {PICTURE: true, CAPTION: captions}, [PICTURE], mask=masks, seed=seed, batch_size=BATCH
        )
        .decoded[PICTURE]
        .raw
    )
    original = _decoded(generator, true)
    new, old = ([getattr(task, name) for _, task in chosen] for name in ("colour", "before"))
    numbers = {
        "colour F1 inside": _f1_inside(made, inside, new),
        # What the tokenizer shows of the old colour: no new one can be plainer.
        "colour F1 inside (bound)": _f1_inside(original, inside, old),
        "colour F1 inside (unchanged)": _f1_inside(original, inside, new),
        "pixels changed outside": float((made != original)[~masks].sum()),
        "scenes": len(chosen),
    }
    boxed = [_framed(picture, task.box) for picture, (_, task) in zip(true, chosen, strict=True)]
    sheet = _sheet([("given", boxed), ("new caption", captions), ("edited", made)], 10)
    return numbers, [_shown("One object recoloured under a mask", sheet, output, "recolour")]


def _f1_inside(
    made: np.ndarray, inside: Bool[np.ndarray, "n h w"], colours: Sequence[str]
) -> float:
    """F1 of one colour per picture against those shown in a good part of its mask."""
    shown = image_scores.colour_shares(np.where(inside[..., None], made, np.uint8(128)))
    shown = shown / inside.mean(axis=(1, 2))[:, None] >= SHOWN_INSIDE
    wanted = np.zeros_like(shown)
    names = list(layout.COLOURS)
    wanted[np.arange(len(colours)), [names.index(colour) for colour in colours]] = True
    return float(2 * (shown & wanted).sum() / (shown.sum() + wanted.sum()))


def _grown(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """The mask and the pixels around it over which old and new are mixed."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    grown = np.zeros_like(mask)
    top, left = (max(int(found[0]) - editing.MARGIN, 0) for found in (rows, columns))
    grown[top : rows[-1] + editing.MARGIN + 1, left : columns[-1] + editing.MARGIN + 1] = True
    return grown


@dataclasses.dataclass(frozen=True)
class _Recolour:
    box: tuple[float, ...]
    before: str
    colour: str
    caption: str


def _task(scenes: Scenes, number: int, rng: np.random.Generator) -> _Recolour | None:
    """A change of an object whose shape is the only one of its kind; None where there is none."""
    caption, found = scenes.fields["caption"][number], scenes.fields["det"][number]
    pairs = sorted(caption_scores.colour_shape_pairs(caption))
    for colour, shape in pairs:
        rows = [row for row, name in enumerate(found["classes"]) if name == shape]
        if len(rows) == 1 and sum(other == shape for _, other in pairs) == 1:
            taken = caption_scores.named_colours(caption)
            new = str(rng.choice([name for name in layout.COLOURS if name not in taken]))
            box = tuple(float(value) for value in np.clip(found["boxes"][rows[0]], 0, 1))
            if box[2] > box[0] and box[3] > box[1]:
                changed = caption.replace(f"{colour} {shape}", f"{new} {shape}")
                return _Recolour(box, colour, new, changed)
    return None


def from_depth_and_palette(
    generator: Generator, scenes: Scenes, output: epath.Path, seed: int
) -> tuple[dict[str, Any], list[str]]:
    """Pictures of a given geometry in given colours.

    A trunk that reads no palette paints equally well with those of other scenes.
    """
    captions, depth = scenes.fields["caption"], np.stack(scenes.fields["depth"])
    palettes = list(scenes.fields["color_palette"])
    made = _paint(generator, {DEPTH: depth, PALETTE: palettes}, seed)
    swapped = _paint(generator, {DEPTH: depth, PALETTE: palettes[1:] + palettes[:1]}, seed)
    bound = judge(generator, _decoded(generator, scenes.fields["rgb"]), captions)
    every = [np.array(list(layout.COLOURS.values()), np.uint8)] * len(captions)
    numbers = {
        **judge(generator, made, captions),
        **{f"{key} (bound)": value for key, value in bound.items()},
        "colour F1, palettes of other scenes": image_scores.COLOUR_F1.score(swapped, captions),
        "colour F1 (the palette read by hue)": palette_f1(palettes, captions),
        "colour F1 (all colours, always)": palette_f1(every, captions),
    }
    painter = galleries.Painter(generator, {"depth": depth})
    drawn = [painter.paint(DEPTH, one) for one in depth[:10]]
    stripes = [painter.paint(PALETTE, one) for one in palettes[:10]]
    sheet = _sheet(
        [
            ("depth", drawn),
            ("palette", stripes),
            ("generated", made),
            ("true", scenes.fields["rgb"]),
        ],
        10,
    )
    return numbers, [_shown("From depth and palette", sheet, output, "depth_and_palette")]


def palette_f1(palettes: Sequence[np.ndarray], captions: Sequence[str]) -> float:
    """Colour F1 of pictures that show all colours of their palettes in equal parts."""
    most = max(map(len, palettes))
    swatches = np.stack([np.resize(palette, (1, most, 3)) for palette in palettes])
    return image_scores.COLOUR_F1.score(swatches.astype(np.uint8), captions)


def guidance_sweep(
    generator: Generator, scenes: Scenes, output: epath.Path, seed: int
) -> tuple[dict[str, Any], list[str]]:
    """How pictures from captions depend on the weight of the caption."""
    captions = scenes.fields["caption"]
    curves: dict[str, list[float]] = {}
    drafts = generator.spec(PICTURE).drafts  # the same for all weights
    given: dict[str, Any] = {CAPTION: captions}
    if drafts:
        first = generator.generate(given, [PICTURE], seed=seed, batch_size=BATCH)
        given |= {name: {"ids": first.ids[name], "known": first.known[name]} for name in drafts}
    for weight in GUIDANCE:
        made = _paint(generator, given, seed, guidance=weight)
        for name, value in judge(generator, made, captions).items():
            curves.setdefault(name, []).append(value)
    figure = report.curves({name: (list(GUIDANCE), v) for name, v in curves.items()}, "score")
    figure.axes[0].set_xlabel("guidance")
    note = "All other settings are the defaults."
    return {"guidance": list(GUIDANCE), **curves}, [report.figure_html("Guidance", note, figure)]


def diversity(
    generator: Generator, scenes: Scenes, output: epath.Path, seed: int
) -> tuple[dict[str, Any], list[str]]:
    """How much results of one condition differ between seeds."""
    few = scenes.first(NUM_DIVERSE)
    captions = few.fields["caption"]
    made = generator.generate(
        {CAPTION: captions}, [PICTURE], num_samples=NUM_SEEDS, seed=seed, batch_size=BATCH
    )
    ids = made.ids[PICTURE].reshape(len(few), NUM_SEEDS, -1)
    differ = np.mean([ids[:, a] != ids[:, b] for a in range(NUM_SEEDS) for b in range(a)])
    said = (
        generator.generate(
            {"rgb": few.fields["rgb"]}, [CAPTION], temperature=1.0, num_samples=NUM_SEEDS, seed=seed
        )
        .decoded[CAPTION]
        .texts
    )
    groups = [set(said[i : i + NUM_SEEDS]) for i in range(0, len(said), NUM_SEEDS)]
    numbers = {
        "share of picture tokens that differ between two seeds": float(differ),
        f"different captions of {NUM_SEEDS} at temperature 1": float(np.mean([*map(len, groups)])),
    }
    raw = made.decoded[PICTURE].raw.reshape(len(few), NUM_SEEDS, *few.fields["rgb"].shape[1:])
    columns = [(f"sample {number}", raw[:, number]) for number in range(NUM_SEEDS)]
    sheet = _sheet([("caption", captions), *columns], 8)
    return numbers, [_shown("Several answers to one caption", sheet, output, "diversity")]


def super_resolution(
    upscaler: Generator, generator: Generator, scenes: Scenes, output: epath.Path, seed: int
) -> tuple[dict[str, Any], list[str]]:
    """Pictures of twice the side by a second model: of true scenes, and of generated ones."""
    small = scenes.fields["rgb"]
    true = upscaling.true_pictures(small)
    made = {
        "": upscaling.enlarge(upscaler, small, batch_size=BATCH),
        " (bicubic)": detail.enlarged(small),
        " (bound)": upscaling.bound(upscaler, small, true),
    }
    numbers = {
        f"{key}{of}": value
        for of, one in made.items()
        for key, value in upscaling.judge(one, true).items()
    }
    for key, (low, high) in upscaling.gains(made[""], made[" (bicubic)"], true).items():
        numbers |= {f"{key} over bicubic, at least": low, f"{key} over bicubic, at most": high}
    captions = scenes.fields["caption"][:NUM_ENLARGED]
    painted = _paint(generator, {CAPTION: captions}, seed)
    chain = upscaling.enlarge(upscaler, painted)
    columns = [("given", small), ("bicubic", made[" (bicubic)"]), ("model", made[""])]
    sheet = _sheet([*columns, ("true", true)], NUM_ENLARGED)
    chained = _sheet([("caption", captions), ("painted", painted), ("enlarged", chain)], 10)
    return numbers, [
        _shown("Enlarged by a second model", sheet, output, "super_resolution"),
        _shown("From a caption, then enlarged", chained, output, "caption_enlarged"),
    ]


def _from_captions(
    generator: Generator, scenes: Scenes, output: epath.Path, seed: int
) -> np.ndarray:
    """Pictures from the captions with the defaults, which several exhibits show: made once."""
    path = output / "parts" / "from_captions.png"
    size = scenes.fields["rgb"].shape[1:]
    if not path.exists():
        made = _paint(generator, {CAPTION: scenes.fields["caption"]}, seed)
        io.write_bytes(path, pictures.png(made.reshape(-1, *size[1:])))
    return picture_files.decode_values(str(path)).reshape(-1, *size)


def _paint(
    generator: Generator, conditions: Mapping[str, Any], seed: int, **options: Any
) -> np.ndarray:
    """Pictures generated with the defaults, of all conditions at once."""
    made = generator.generate(conditions, [PICTURE], seed=seed, batch_size=BATCH, **options)
    return made.decoded[PICTURE].raw


def _decoded(generator: Generator, true: np.ndarray) -> np.ndarray:
    """What the tokenizer makes of true pictures: no generated one can be better."""
    tokenizer = generator.tokenizer(PICTURE)
    return tokenizer.decode(tokenizer.encode(true))


def _framed(picture: Picture, box: Sequence[float]) -> Picture:
    framed = panels.enlarged(picture)
    height, width = framed.shape[:2]
    left, right = int(box[0] * width), min(int(np.ceil(box[2] * width)), width) - 1
    top, bottom = int(box[1] * height), min(int(np.ceil(box[3] * height)), height) - 1
    framed[[top, bottom], left : right + 1] = 255
    framed[top : bottom + 1, [left, right]] = 255
    return framed


def _sheet(columns: Sequence[tuple[str, Any]], num_rows: int) -> Picture:
    """The first rows as one picture."""
    count = min(num_rows, *(len(values) for _, values in columns))
    rows = [("", [values[row] for _, values in columns]) for row in range(count)]
    return panels.table([name for name, _ in columns], rows)


def _shown(title: str, sheet: Picture, output: epath.Path, name: str) -> str:
    """HTML of a sheet, which also becomes a file."""
    io.write_bytes(output / f"{name}.png", pictures.png(sheet))
    return report.picture_html(title, sheet)


EXHIBITS: Sequence[Callable[..., tuple[dict[str, Any], list[str]]]] = (
    from_captions,
    negative_caption,
    best_of,
    recolour,
    from_depth_and_palette,
    guidance_sweep,
    diversity,
)
