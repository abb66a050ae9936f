"""`python -m nearcache.cli`: the same as the command `nearcache`."""

from nearcache.cli import main

if __name__ == "__main__":  # worker processes import this module again
    main()
