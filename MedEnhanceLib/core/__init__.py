"""Basic types: volumes, geometry, origin, metrics, manifests, options."""
