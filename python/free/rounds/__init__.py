"""One round: draft, teacher, verify, advance.

Nothing here knows who runs the rounds, how wide they are or what they cost.
"""
