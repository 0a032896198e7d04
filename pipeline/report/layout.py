"""The look that all tables share."""

from typing import Any

from rich.box import SIMPLE_HEAD

LAYOUT: dict[str, Any] = {"box": SIMPLE_HEAD, "show_edge": False, "pad_edge": False}
