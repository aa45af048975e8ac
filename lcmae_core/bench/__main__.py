"""`python -m lcmae_core.bench`, the same as `lcmae bench`."""

from lcmae_core.bench import main

if __name__ == "__main__":
    raise SystemExit(main())
