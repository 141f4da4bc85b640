"""Parts of weights that compute what they were trained for only beside others: heads, positions."""

import re
from collections.abc import Collection, Iterable, Sequence

from fourm_jax.modalities.spec import ModalitySpec
from fourm_jax.models import parts
from fourm_jax.models.weights import Weights

_BESIDE = re.compile(r"(?P<place>.+/)(bias|[qk]_norm/\w+)$")  # of the kernels at that place
_HEAD = re.compile(r"decoder_embedding/heads/(?P<owner>.+)$")
_POSITIONS = re.compile(r"(?P<side>\w+_embedding)/positions/table/(?P<place>.+)$")
_REGISTERS = "registers"  # that every block of the encoder sees


def check_dropped(
    dropped: Sequence[str],
    used: Collection[str],
    names: Collection[str],
    weights: Weights,
    specs: Sequence[ModalitySpec],
    source: str,
) -> None:
    """Refuse parts of the source without which others that are used compute something else.

    Args:
      names: of the new model. One that reads features of a decoder needs no heads.
      specs: of the new model. Positions of modalities that it lacks may go, and those of a grid
        that it has in another size.

    Raises:
      ValueError: names the first one, and a part that is used without it.
    """
    own_positions = _has_learned_positions(names, specs)
    for name in dropped:
        beside, head = _BESIDE.match(name), _HEAD.match(name)
        kept = sorted(one for one in used if beside and one.startswith(beside["place"]))
        table = f"decoder_embedding/tokens/{head['owner']}" if head else ""
        kept += [table] if table in used and table in names else []
        if name == _REGISTERS:
            kept += sorted(one for one in used if one.startswith("encoder/"))
        if not own_positions:
            kept += [one for one in _placed(name, weights.specs.values()) if one in used]
        if kept:
            raise ValueError(
                f"init: {kept[0]!r} of {source} was trained with {name!r}, which this model does "
                "not have: set model.use_bias, qk_norm, tie_heads, positions and num_registers as "
                "there, or start the former anew with init.reset"
            )


def _has_learned_positions(names: Iterable[str], specs: Iterable[ModalitySpec]) -> bool:
    """Whether more positions are parts than those of global modalities, which always are."""
    places = {match["place"] for name in names if (match := _POSITIONS.search(name))}
    return bool(places - {spec.name for spec in specs if spec.kind == "global"})


def _placed(name: str, specs: Iterable[ModalitySpec]) -> list[str]:
    """The tokens and contents that stand on learned positions; none of other parts."""
    match = _POSITIONS.match(name)
    if match is None:
        return []
    on_it = [spec for spec in specs if parts.place_of(spec) == match["place"]]
    owned = [(f"tokens/{spec.table}", f"contents_{spec.name}/kernel") for spec in on_it]
    return [f"{match['side']}/{one}" for both in owned for one in both]
