"""Whether a picture shows the colours that its caption names."""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from fourm_jax.scenes import caption_scores, layout

# A pixel has a named colour if it is saturated, not black, and within these degrees of its hue.
MIN_SATURATION, MIN_VALUE, MAX_HUE_DISTANCE = 0.4, 0.12, 16.0
MIN_SHARE = 0.01  # of the pixels, from which on a colour counts as shown


def nearest_colours(pictures: UInt8[np.ndarray, "n h w 3"]) -> Int[np.ndarray, "n h w"]:
    """Index into `layout.COLOURS` of the hue of every pixel, -1 where it has none of them.

    Ground and sky of the scenes are too pale to have one, and so is an average of scenes.
    """
    hue, saturated = _hue(np.asarray(pictures))
    tones, _ = _hue(np.array(list(layout.COLOURS.values()), np.uint8))
    distance = np.abs((hue[..., None] - tones + 180) % 360 - 180)
    close = saturated & (np.min(distance, axis=-1) <= MAX_HUE_DISTANCE)
    return np.where(close, np.argmin(distance, axis=-1), -1)


def colour_shares(pictures: UInt8[np.ndarray, "n h w 3"]) -> Float[np.ndarray, "n colours"]:
    """Share of the pixels of each picture that has each of `layout.COLOURS`."""
    nearest = nearest_colours(pictures)
    return np.stack(
        [np.mean(nearest == index, axis=(1, 2)) for index in range(len(layout.COLOURS))], axis=-1
    )


def colour_f1(pictures: UInt8[np.ndarray, "n h w 3"], colours: Sequence[Iterable[str]]) -> float:
    """F1 of the colours that pictures show against those asked for, counted over the set, 0..1.

    Args:
      pictures: one per entry of `colours`.
      colours: names that each picture should show, and no others (`caption_scores.named_colours`).

    Raises:
      ValueError: a colour that is not in `layout.COLOURS`, or another number of pictures.
    """
    names = tuple(layout.COLOURS)
    if len(pictures) != len(colours):
        raise ValueError(f"{len(pictures)} pictures for {len(colours)} lists of colours")
    wanted = np.zeros((len(pictures), len(names)), bool)
    for row, asked in zip(wanted, colours, strict=True):
        for colour in asked:
            if colour not in names:
                raise ValueError(f"colour {colour!r}, allowed: {names}")
            row[names.index(colour)] = True
    shown = colour_shares(pictures) >= MIN_SHARE
    total = wanted.sum() + shown.sum()
    return float(2 * np.sum(wanted & shown) / total) if total else 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class ColourF1:
    """`colour_f1` of pictures against the captions of their scenes (an `evals.measure.Measure`).

    Blank and average pictures show no colour and score 0.
    """

    metric: str = "colour_f1"
    unit: str = ""
    higher_is_better: bool = True

    def score(self, predicted: UInt8[np.ndarray, "n h w 3"], truth: Sequence[str]) -> float:
        """F1 over the set; `truth` are captions."""
        return colour_f1(predicted, [caption_scores.named_colours(text) for text in truth])

    def constant(self, values: UInt8[np.ndarray, "n h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """The mean picture."""
        return np.rint(values.mean(0)).astype(np.uint8)


COLOUR_F1 = ColourF1()


def _hue(
    colours: UInt8[np.ndarray, "... 3"],
) -> tuple[Float[np.ndarray, "..."], Bool[np.ndarray, "..."]]:
    """Hue in degrees (HSV), and whether the colour is strong enough to have one."""
    red, green, blue = np.moveaxis(colours.astype(np.float32) / 255, -1, 0)
    high, low = np.max(colours, axis=-1) / 255.0, np.min(colours, axis=-1) / 255.0
    spread = np.where(high > low, high - low, 1.0)
    sector = np.where(
        high == low,
        0.0,
        np.where(
            np.argmax(colours, axis=-1) == 0,
            (green - blue) / spread,
            np.where(
                np.argmax(colours, axis=-1) == 1,
                2 + (blue - red) / spread,
                4 + (red - green) / spread,
            ),
        ),
    )
    strong = (high - low >= MIN_SATURATION * np.maximum(high, 1e-6)) & (high >= MIN_VALUE)
    return (60 * sector) % 360, strong
