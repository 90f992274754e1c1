"""Every section of a config: its keys with their types, defaults and limits; `config.py` reads them."""
