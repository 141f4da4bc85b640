"""Which kinds of tokens follow which in a text form: what keeps generated texts readable."""

import dataclasses

from fourm_jax.modalities import vocabulary

AXES = tuple(f"v{axis}" for axis in range(vocabulary.PUBLISHED.num_axes))
BEGIN, WORD, END = "begin", "word", "end"
TOKENS = (*AXES, WORD)  # kinds that are tokens of a text
Kinds = tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grammar:
    """What may follow a token, by the kind of that token alone.

        Grammar(begin=("v1", "end"), v1=("v0",), v0=("v1", "end"), bins=(("v1", range(35)),))

    Kinds are "v0" … "v3", coordinates of an axis; "word", pieces of words and class names; and
    "end". A text form of which more could be said, such as how many numbers make a pose, has the
    narrowest table that all of its texts obey.

    Attributes:
      begin: what a text may begin with; "end": it may be empty.
      v0, v1, v2, v3, word: what may follow such a token; (): the text form has none.
      bins: (axis, its coordinates) where not all of them occur.
      counted: (axis, kind, n): after "axis=c" come n · c tokens of that kind, and then others.
      keyed: (axis, other axis, sizes): "axis=c" is a key that a text has at most once, and one of
        the first sizes[c] coordinates of the other axis is its value; 0 of them: there is no such.
    """

    begin: Kinds
    v0: Kinds = ()
    v1: Kinds = ()
    v2: Kinds = ()
    v3: Kinds = ()
    word: Kinds = ()
    bins: tuple[tuple[str, range], ...] = ()
    counted: tuple[str, str, int] | None = None
    keyed: tuple[str, str, tuple[int, ...]] | None = None

    def __post_init__(self):
        for kind in (BEGIN, *self.kinds):
            for follower in self.after(kind):
                if follower not in (*self.kinds, END):
                    raise ValueError(
                        f"grammar: {follower!r} may follow {kind!r}, allowed: {END!r} and those "
                        f"that something may follow, {self.kinds}"
                    )
        if not set(self.begin) & set(TOKENS):
            raise ValueError(
                f"grammar: a text may begin with {self.begin}, allowed: at least one of {TOKENS}"
            )
        for axis, some in self.bins:
            if axis not in AXES or not some or some.step != 1:
                raise ValueError(
                    f"grammar: bins {some} of {axis!r}, allowed: at least one of {AXES}, one after "
                    "the other"
                )
        if self.counted is not None:
            axis, kind, each = self.counted
            if not {axis, kind} <= {*self.kinds} or axis not in AXES or axis == kind or each < 1:
                raise ValueError(
                    f"grammar: counted {self.counted}, allowed: an axis and another kind of "
                    f"{self.kinds}, and how many of it"
                )
        if self.keyed is not None:
            axis, other, sizes = self.keyed
            if not {axis, other} <= {*self.kinds} & {*AXES} or axis == other or not any(sizes):
                raise ValueError(
                    f"grammar: keyed {self.keyed}, allowed: two axes of {self.kinds}, and sizes of "
                    "which some are above 0"
                )
            if dict(self.bins).get(axis) != range(len(sizes)):
                raise ValueError(f"grammar: {len(sizes)} sizes, bins of {axis!r} must be as many")

    @property
    def kinds(self) -> Kinds:
        """Kinds of tokens that the text form has."""
        return tuple(kind for kind in TOKENS if getattr(self, kind))

    def after(self, kind: str) -> Kinds:
        """What may follow "begin" or a kind of token; anything, where the text form has none."""
        followers: Kinds = getattr(self, kind)
        return followers or (*self.kinds, END)
