"""The commands: `v2a COMMAND`, a module for each. Nothing imports this package."""
