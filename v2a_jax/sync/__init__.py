"""How far a sound is from its picture: a network that judges, and conditions
nothing. Only its objective, the evaluation, the labeller `sync` and, to rank
finished takes where it is asked to, `soundtrack` may import this room.
"""
