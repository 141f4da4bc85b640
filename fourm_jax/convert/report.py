"""What became of every tensor of a published file: nothing is left over in silence."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Report:
    """Names of a file's tensors by what became of them.

    Attributes:
      used: read into parameters.
      derived: not needed: equal to another tensor, or to what we compute ourselves.
      unsupported: of a part that this package does not have (ControlNet, Stable Diffusion); not
        read.
    """

    used: tuple[str, ...]
    derived: tuple[str, ...]
    unsupported: tuple[str, ...] = ()

    def __str__(self) -> str:
        other = f"{len(self.unsupported)} not supported, " if self.unsupported else ""
        return f"{len(self.used)} tensors used, {len(self.derived)} derived, {other}0 left over"
