"""`python -m launch.sweep` is the same as `v2a sweep`."""

from launch import cli

raise SystemExit(cli.main_of("sweep"))
