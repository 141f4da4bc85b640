"""The embedded scenes as a TFDS data set."""
