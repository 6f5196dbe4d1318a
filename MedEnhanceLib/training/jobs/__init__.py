"""The jobs of training, and what two methods make together, as no method imports another."""
