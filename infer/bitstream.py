"""The `.sc` format, of any version: codes written and read as streams (docs/format.md)."""

from infer.blocks import Block, Damage, Record, Tables
from infer.header import MAGIC, Header, is_sc
from infer.reader import Reader
from infer.version0 import read, write
from infer.writer import Writer

__all__ = [
    "MAGIC",
    "Block",
    "Damage",
    "Header",
    "Reader",
    "Record",
    "Tables",
    "Writer",
    "is_sc",
    "read",
    "write",
]
