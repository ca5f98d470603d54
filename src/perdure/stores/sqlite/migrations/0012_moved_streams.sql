-- Streams that came from another store keep their places, which may lie far apart. Such a stream has all numbers
-- that its places need: positions from its own number, times 2^40, on. The next stream has a number behind them.
ALTER TABLE stream ADD COLUMN sparse_to INTEGER NOT NULL DEFAULT 0; -- above this place each has an event
