"""miniLLM: transformers from scratch in JAX, as pure functions over plain data, to read, run and prove."""

__version__ = "0.1.0"
