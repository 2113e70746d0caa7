"""`python -m regente` is the `regente` command."""

from regente.cli.main import main

if __name__ == "__main__":
    main()
