"""Item attributes -> one frozen text vector per item."""
