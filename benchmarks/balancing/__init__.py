"""How well keys are chosen: the library's balancers beside an all-knowing choice, in virtual time."""
