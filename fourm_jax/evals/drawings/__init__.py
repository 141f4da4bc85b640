"""One file per drawing, found by its name (`ModalitySpec.picture`): `make(scale) -> draw`."""
