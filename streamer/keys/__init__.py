"""CURVE on the public sockets: who comes in, and who is shown out."""
