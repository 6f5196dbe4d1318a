"""The worker process, its client, and the events between them."""
