"""The commands, a file per kind; each is registered with its group where it is defined."""
