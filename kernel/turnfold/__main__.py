"""`python -m turnfold` runs the command `turnfold`. The kernel imports no command line,
so the command is looked up at run time."""

from importlib import import_module

if __name__ == "__main__":
    import_module("turnfold_cli").main()
