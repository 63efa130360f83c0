"""`python -m turnfold` is the command `turnfold`. The kernel imports no command line, so
the name is looked up when it is asked for."""

from importlib import import_module

if __name__ == "__main__":
    import_module("turnfold_cli").main()
