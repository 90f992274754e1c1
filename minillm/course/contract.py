"""What a check of an exercise raises."""


class Mistake(Exception):
    """The student's function is wrong; the message names the mistake in a sentence that helps to find it."""
