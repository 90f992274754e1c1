"""The one exception that a user is meant to read: one line that says what, where and how to mend."""


class UserError(Exception):
    """A mistake in a config, a file or a command. The command line prints it in one line and exits with code 2.

    Args:
        what: what is wrong, with what was expected and what came.
        where: the file, key, leaf or option that it concerns.
        mend: what to do about it.
    """

    def __init__(self, what: str, where: str = "", mend: str = ""):
        self.what, self.where, self.mend = (" ".join(str(part).split()) for part in (what, where, mend))
        prefix = f"{self.where}: " if self.where else ""
        suffix = f" -> {self.mend}" if self.mend else ""
        super().__init__(f"{prefix}{self.what}{suffix}")
