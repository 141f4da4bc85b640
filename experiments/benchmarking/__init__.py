"""What the suites of experiments/benchmarks share: yardsticks, traces, comparison with before."""
