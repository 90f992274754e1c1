"""The models, by the name that a config gives them."""

from minillm.models import gpt, lstm, rnn, transformer_xl

MODELS = {"gpt": gpt, "lstm": lstm, "rnn": rnn, "transformer_xl": transformer_xl}
