"""`python -m loopd` is `loopd`."""

from loopd.cli import main

if __name__ == "__main__":
    main()
