-- Checksums; see checksums.py. Rows from before have none.

ALTER TABLE record ADD COLUMN crc INTEGER;
ALTER TABLE message ADD COLUMN crc INTEGER;
ALTER TABLE state ADD COLUMN crc INTEGER;
ALTER TABLE attempt ADD COLUMN crc INTEGER;
ALTER TABLE reply ADD COLUMN crc INTEGER;
ALTER TABLE run ADD COLUMN start_crc INTEGER;
ALTER TABLE run ADD COLUMN end_crc INTEGER;

-- How many records the run had when it was last said when to wake it: a journal that is
-- shorter has lost its end. NULL: not known.
ALTER TABLE run ADD COLUMN length INTEGER;
