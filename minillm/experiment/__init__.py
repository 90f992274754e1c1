"""A run: from a config to a folder that holds everything needed to read it, resume it and replay it.

folder.py   the run's folder and manifest       data.py     config -> text -> tokens -> batches
setup.py    config -> model, step, shardings    examples.py how each objective reads
run.py      the run itself                      base.py     where parameters come from, other than chance
results.py  evaluation, baselines, samples      judging.py  what runs on labels are judged by
finish.py   the end of a run                    write.py    figure, report, summary
verify.py   replays a run                       fork.py     a run that branches off another
display.py  tables and progress                 tracking.py TensorBoard, Weights & Biases

recipes/    what sections of a config put around a run: few labels, many tasks, attacks, rewording, prompts
ask/        what is asked of a finished run: sample, eval, predict, prompt, search, drift, paraphrase, origin
many/       labs and sweeps: many runs, one table
paper/      what a run would cost: shapes, exchanges, time and memory
"""
