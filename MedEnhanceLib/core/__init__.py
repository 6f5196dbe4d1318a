"""What everything else is made of: volumes, geometry, origin, metrics, manifests, options."""
