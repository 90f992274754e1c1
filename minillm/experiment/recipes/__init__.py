"""What the sections of a config put around a run: few labels, many tasks, attacks, rewording, prompts."""
