"""What a modality is: pure data that every other package may read; imports no jax."""
