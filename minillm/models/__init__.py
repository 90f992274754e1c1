"""The models, by the name that a config gives them."""

from minillm.models import bert, gpt, lstm, rnn, transformer_xl

MODELS = {"bert": bert, "gpt": gpt, "lstm": lstm, "rnn": rnn, "transformer_xl": transformer_xl}
