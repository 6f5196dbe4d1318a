"""SPG: small sets of distilled images that train as whole cohorts do, and the audit of each set."""
