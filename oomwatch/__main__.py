"""`python -m oomwatch`: the command, where its script is not on the path."""

from oomwatch.cli.main import main

if __name__ == "__main__":
    main()
