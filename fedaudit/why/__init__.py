"""Why it leaks: which layers, rounds, regions, shared things and clients give the faces away."""
