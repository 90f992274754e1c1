"""The one exception that a user is meant to read: one line that says what, where and how to mend."""


class UserError(Exception):
    """A mistake in a config, a file or a command. The command line prints it in one line and exits with `code`.

    Args:
        what: what is wrong, with what was expected and what came.
        where: the file, key, leaf or option that it concerns.
        mend: what to do about it.
    """

    code = 2

    def __init__(self, what: str, where: str = "", mend: str = ""):
        self.what, self.where, self.mend = (" ".join(str(part).split()) for part in (what, where, mend))
        prefix = f"{self.where}: " if self.where else ""
        suffix = f" -> {self.mend}" if self.mend else ""
        super().__init__(f"{prefix}{self.what}{suffix}")


class Diverged(UserError):
    """Training came to values that are not finite, or to more bad steps than it may: of other settings it says nothing."""

    code = 3


def out_of_memory(error: BaseException) -> UserError | None:
    """What to say where the host's or a device's memory did not suffice; None where the error is another.

    JAX's error is known by its text alone, so that nobody need import jax to ask.
    """
    if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
        return None
    detail = str(error).removeprefix("RESOURCE_EXHAUSTED: ").split("\n")[0][:160]
    mend = "make train.batch_size, data.length or the model smaller, or train.shards larger, or spread the model over devices"
    return UserError(f"out of memory ({detail})", "", f"{mend} with mesh.rules = 'fsdp'; what was saved is intact")
