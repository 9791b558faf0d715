-- What of a record is still to be had: registered, less what was transferred and what is reserved, in the padded form
-- of `base_quantity`.
ALTER TABLE record ADD COLUMN left_base_quantity TEXT;
UPDATE record SET left_base_quantity = base_quantity;
