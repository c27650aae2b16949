"""`python -m llava.cli`: the command where its console script is not on the path."""

from llava.cli import run

if __name__ == "__main__":
    run()
