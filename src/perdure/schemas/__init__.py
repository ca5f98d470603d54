"""What values look like, as JSON Schema: made from types, and compared. Pure."""
