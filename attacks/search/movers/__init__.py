"""What moves the free variables of a search: first order, round-wise, evolution, Gauss–Newton."""
