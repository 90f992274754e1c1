"""How fast is this machine, and how fast are we on it? `minillm bench` answers with ratios from one interleaved run.

Each side (`ours` in JAX, `peer` in torch) is a long-lived worker process of its own that takes one step when asked, so
that the two runtimes share no threads and only one works at a time: A B C A B C ... A noisy or throttled minute then
slows every side alike, and the ratio of one round's times says more than any time alone.
"""
