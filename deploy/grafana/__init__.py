"""The shipped dashboard and alert rules, and how they get beside Ray's own."""
