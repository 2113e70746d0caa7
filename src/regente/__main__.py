"""`python -m regente` is the `regente` command."""

from regente.cli import main

if __name__ == "__main__":
    main()
