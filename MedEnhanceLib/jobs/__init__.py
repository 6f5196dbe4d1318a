"""The only way in which anything long runs."""
