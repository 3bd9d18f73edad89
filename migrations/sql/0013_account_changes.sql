-- An account can change its address; whoever read the former one is told.

ALTER TABLE emails DROP CONSTRAINT emails_kind_known;
ALTER TABLE emails ADD CONSTRAINT emails_kind_known CHECK (kind IN ('notifications', 'verification', 'address_changed'));
ALTER TABLE emails DROP CONSTRAINT emails_verification_has_address;
ALTER TABLE emails ADD CONSTRAINT emails_to_an_address CHECK ((kind = 'notifications') = (address IS NULL));
COMMENT ON COLUMN emails.kind IS 'notifications, verification, or address_changed: to the address that an account had verified before.';
COMMENT ON COLUMN emails.address IS 'Where it goes, but of notifications: those go to the address that the account has verified when they are sent.';
