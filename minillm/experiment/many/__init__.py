"""Many runs: labs, sweeps, the order they wait in, and what their seeds say."""
