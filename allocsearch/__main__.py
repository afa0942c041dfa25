"""`python -m allocsearch`."""

from allocsearch.cli import main

if __name__ == "__main__":
    main()
