"""What the commands of `python -m turnfold_model` share."""


class UnavailableError(RuntimeError):
    """A command cannot run on this machine: the text says what is missing (exit 2)."""
