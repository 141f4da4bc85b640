"""Recipes of tokenizers, which the configs of data sets fill in."""
