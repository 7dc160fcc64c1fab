"""`python -m mixtura` is the command `mixtura`."""

from __future__ import annotations

from mixtura.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
