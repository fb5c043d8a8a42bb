"""From a config to what it describes; nobody below this room sees a config."""
