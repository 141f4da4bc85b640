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

        Grammar(begin=("v1", "end"), v1=("v0",), v0=("v1", "end"), num_bins=(("v1", 35),))

    Kinds are "v0" … "v3", coordinates of an axis; "word", pieces of words and class names; and
    "end". A text form of which more could be said, such as how many numbers make a pose, has the
    narrowest table that all of its texts obey.

    Attributes:
      begin: what a text may begin with; "end": it may be empty.
      v0, v1, v2, v3, word: what may follow such a token; (): the text form has none.
      num_bins: (axis, n) where only the coordinates 0 … n - 1 of an axis occur.
    """

    begin: Kinds
    v0: Kinds = ()
    v1: Kinds = ()
    v2: Kinds = ()
    v3: Kinds = ()
    word: Kinds = ()
    num_bins: tuple[tuple[str, int], ...] = ()

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
        for axis, count in self.num_bins:
            if axis not in AXES or count < 1:
                raise ValueError(
                    f"grammar: {count} bins of {axis!r}, allowed: at least one of {AXES}"
                )

    @property
    def kinds(self) -> Kinds:
        """Kinds of tokens that the text form has."""
        return tuple(kind for kind in TOKENS if getattr(self, kind))

    def after(self, kind: str) -> Kinds:
        """What may follow "begin" or a kind of token; anything, where the text form has none."""
        followers: Kinds = getattr(self, kind)
        return followers or (*self.kinds, END)
