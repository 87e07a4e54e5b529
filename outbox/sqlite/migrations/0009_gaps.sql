-- Why the last replay that covered it could not make up for it.
ALTER TABLE gaps ADD COLUMN stays TEXT NOT NULL DEFAULT '';
-- When an operator took it as it is, who, and why.
ALTER TABLE gaps ADD COLUMN accepted INTEGER;
ALTER TABLE gaps ADD COLUMN who TEXT NOT NULL DEFAULT '';
ALTER TABLE gaps ADD COLUMN why TEXT NOT NULL DEFAULT '';
