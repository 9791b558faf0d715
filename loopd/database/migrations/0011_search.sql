-- Search (§8.1): places, texts, and the catalogue of what other cities announced.

-- The rest of what an announcement says; NULL where it left it out.
ALTER TABLE heard ADD COLUMN state TEXT;
ALTER TABLE heard ADD COLUMN available_from_ms INTEGER;
ALTER TABLE heard ADD COLUMN expires_ms INTEGER;
