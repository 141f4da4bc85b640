"""Evaluators: one file each, with `make(**options)` that returns an `evals.evaluator.Evaluator`."""
