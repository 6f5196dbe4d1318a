"""Network parts that two methods share."""
