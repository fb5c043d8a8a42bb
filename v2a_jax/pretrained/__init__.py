"""Networks whose weights come from elsewhere, each with its converter."""
