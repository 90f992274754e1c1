"""The models, by the name that a config gives them."""

from minillm.models import autoencoder, bert, gpt, lstm, rnn, t5, transformer, transformer_xl, vit

MODELS = {
    "autoencoder": autoencoder,
    "bert": bert,
    "gpt": gpt,
    "lstm": lstm,
    "rnn": rnn,
    "t5": t5,
    "transformer": transformer,
    "transformer_xl": transformer_xl,
    "vit": vit,
}
