"""What several questions share: which runs are compared, means, intervals, tests, curves."""
