"""Programs that say something of clips; `v2a data annotate` runs them.

Each is a process of its own behind one contract (contract.py), so it may need
packages, a device or a licence that training does not. voice, sounds and sync run
networks of this package; whisper and captioner import theirs when they are run.
"""
