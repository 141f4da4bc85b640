"""One file per drawing, found by its name (`ModalitySpec.picture`): `make(scale) -> draw`.

A drawing whose colours need words also has `legend(scale, value) -> picture or text`.
"""
