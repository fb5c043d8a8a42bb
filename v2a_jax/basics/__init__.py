"""What every room may use: settings, files, and a few phrases."""
