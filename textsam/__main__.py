"""`python -m textsam` is the command `textsam`."""

from __future__ import annotations

from textsam.cli.app import main

if __name__ == "__main__":
    main()
