"""States that survive, and how a run goes on from them."""
