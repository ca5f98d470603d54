"""Event streams, as a client sees them: appended to, and the subscriptions to them."""
