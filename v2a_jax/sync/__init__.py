"""How far a sound is from its picture: a network that judges, and conditions
nothing. Only its objective and the evaluation may import this room.
"""
