"""The commands: `v2a <verb>`, one thin file a verb. Nothing imports this."""
