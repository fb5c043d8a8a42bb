"""How far a sound is from its picture: a network that judges, and conditions
nothing. Only its objective, the evaluation and
the labeller `sync` may import this room.
"""
