"""One file per measure, found by its name (`ModalitySpec.measure`): `make(signal, **options)`."""
