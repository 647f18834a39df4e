"""What every method is: the contract and its defaults."""

from __future__ import annotations
