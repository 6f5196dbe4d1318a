"""The widgets of the panel: one module for each page, and for its larger parts."""
