"""Training of the set network: clean targets, crops with fresh noise, losses, steps, export."""
