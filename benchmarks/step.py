"""`python benchmarks/step.py [options]`: the same as `lcmae bench`."""

from lcmae_core.bench import main

if __name__ == "__main__":
    raise SystemExit(main())
