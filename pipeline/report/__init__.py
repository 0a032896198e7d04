"""The tables that commands end with."""
