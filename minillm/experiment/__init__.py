"""A run: from a config to a folder that holds everything needed to read it, resume it and replay it.

folder.py   the run's folder and manifest       data.py    config -> text -> tokens -> batches
setup.py    config -> model, step, shardings    run.py     the run itself
results.py  evaluation, baselines, samples      write.py   figure, report, summary
reopen.py   sample, eval and compare            verify.py  replays a run
describe.py what a config would cost            display.py tables and progress
fork.py     a run that branches off another     tracking.py TensorBoard, Weights & Biases
lab.py      many runs, one table                sweep.py   a grid, or points from draws.py
workers.py  runs at once                        seeds.py   how far groups of seeds differ
collectives.py what devices exchange            program.py the compiled program that says so
estimate.py how long a step takes at least      scaling.py on more devices; hardware.py, costs.py its tables
"""
