-- Who owns things, who is logged in, and what access tokens are signed with.

CREATE TABLE accounts (
    id                 uuid        PRIMARY KEY,
    account_name       text        NOT NULL CONSTRAINT accounts_name_form CHECK (account_name ~ '^[A-Za-z][A-Za-z0-9._-]{2,31}$'),
    email              text        CONSTRAINT accounts_email_length CHECK (octet_length(email) <= 254),
    email_verified_at  timestamptz,
    display_name       text        CONSTRAINT accounts_display_name_length CHECK (char_length(display_name) BETWEEN 1 AND 100),
    password_hash      text,
    role               text        NOT NULL CONSTRAINT accounts_role_known CHECK (role IN ('user', 'admin')),
    quota_bytes        bigint      NOT NULL CONSTRAINT accounts_quota_not_negative CHECK (quota_bytes >= 0),
    disabled_at        timestamptz,
    tokens_valid_after timestamptz,
    created_at         timestamptz NOT NULL,
    updated_at         timestamptz NOT NULL
);
COMMENT ON TABLE  accounts IS 'Who owns things.';
COMMENT ON COLUMN accounts.id IS 'UUIDv7.';
COMMENT ON COLUMN accounts.account_name IS 'The name to log in with, as its owner wrote it; unique without regard to case.';
COMMENT ON COLUMN accounts.email IS 'E-mail address, if given. Not unique and not trusted until it is verified.';
COMMENT ON COLUMN accounts.email_verified_at IS 'When its owner proved to read that address.';
COMMENT ON COLUMN accounts.display_name IS 'What people read.';
COMMENT ON COLUMN accounts.password_hash IS 'Argon2id in PHC form; NULL for an account that cannot log in by password.';
COMMENT ON COLUMN accounts.role IS 'user or admin.';
COMMENT ON COLUMN accounts.quota_bytes IS 'Bytes that it may store.';
COMMENT ON COLUMN accounts.disabled_at IS 'Since when it may do nothing; NULL when it may.';
COMMENT ON COLUMN accounts.tokens_valid_after IS 'Access tokens issued before this are void; NULL when none were voided.';
COMMENT ON COLUMN accounts.created_at IS 'When it was made.';
COMMENT ON COLUMN accounts.updated_at IS 'When its row was last changed.';
-- The constraint above allows ASCII only, so lower() folds the same way under every collation.
CREATE UNIQUE INDEX accounts_name_unique ON accounts (lower(account_name));

CREATE TABLE sessions (
    id           uuid        PRIMARY KEY,
    account_id   uuid        NOT NULL REFERENCES accounts (id),
    device_name  text        CONSTRAINT sessions_device_name_length CHECK (char_length(device_name) BETWEEN 1 AND 100),
    created_at   timestamptz NOT NULL,
    last_used_at timestamptz NOT NULL,
    expires_at   timestamptz NOT NULL,
    closed_at    timestamptz,
    close_reason text        CONSTRAINT sessions_close_reason_known CHECK (close_reason IN ('logout', 'expired', 'revoked', 'reuse', 'password_changed')),
    CONSTRAINT sessions_closed_has_reason CHECK ((closed_at IS NULL) = (close_reason IS NULL))
);
COMMENT ON TABLE  sessions IS 'Logins: one on one device, the family of the refresh tokens that followed from it.';
COMMENT ON COLUMN sessions.id IS 'UUIDv7; also `sid` of its access tokens.';
COMMENT ON COLUMN sessions.account_id IS 'Whose.';
COMMENT ON COLUMN sessions.device_name IS 'What its owner will recognise it by.';
COMMENT ON COLUMN sessions.created_at IS 'When its owner logged in.';
COMMENT ON COLUMN sessions.last_used_at IS 'When it was last refreshed.';
COMMENT ON COLUMN sessions.expires_at IS 'When it ends however often it is refreshed.';
COMMENT ON COLUMN sessions.closed_at IS 'When it was ended before that; NULL while it lives.';
COMMENT ON COLUMN sessions.close_reason IS 'Why it was ended.';
CREATE INDEX sessions_of_account ON sessions (account_id, id DESC) WHERE closed_at IS NULL;
CREATE INDEX sessions_by_expiry ON sessions (expires_at) WHERE closed_at IS NULL;

CREATE TABLE refresh_tokens (
    token_hash  bytea       PRIMARY KEY CONSTRAINT refresh_tokens_hash_length CHECK (octet_length(token_hash) = 32),
    family_id   uuid        NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    parent_hash bytea       CONSTRAINT refresh_tokens_parent_unique UNIQUE,
    created_at  timestamptz NOT NULL,
    expires_at  timestamptz NOT NULL,
    consumed_at timestamptz
);
COMMENT ON TABLE  refresh_tokens IS 'Refresh tokens, each good once. The tokens themselves are 256 random bits and are not kept.';
COMMENT ON COLUMN refresh_tokens.token_hash IS 'SHA-256 of the token.';
COMMENT ON COLUMN refresh_tokens.family_id IS 'The session that it belongs to.';
COMMENT ON COLUMN refresh_tokens.parent_hash IS 'The token that it was traded for; NULL for the first of a session. Unique: a token has one successor.';
COMMENT ON COLUMN refresh_tokens.created_at IS 'When it was issued.';
COMMENT ON COLUMN refresh_tokens.expires_at IS 'Until when it is good if it is not used.';
COMMENT ON COLUMN refresh_tokens.consumed_at IS 'When it was used; NULL while it is good.';
CREATE INDEX refresh_tokens_of_family ON refresh_tokens (family_id);

CREATE TABLE signing_keys (
    kid          text        PRIMARY KEY,
    state        text        NOT NULL CONSTRAINT signing_keys_state_known CHECK (state IN ('pending', 'active', 'retiring', 'gone')),
    modulus      text        NOT NULL,
    exponent     text        NOT NULL,
    private_key  bytea,
    created_at   timestamptz NOT NULL,
    activated_at timestamptz,
    retired_at   timestamptz,
    gone_at      timestamptz,
    CONSTRAINT signing_keys_private_while_needed CHECK ((private_key IS NOT NULL) = (state IN ('pending', 'active')))
);
COMMENT ON TABLE  signing_keys IS 'RSA keys that access tokens are signed with: pending (published), active (signs), retiring (still verifies), gone.';
COMMENT ON COLUMN signing_keys.kid IS 'RFC 7638 thumbprint of the public key.';
COMMENT ON COLUMN signing_keys.state IS 'pending, active, retiring or gone.';
COMMENT ON COLUMN signing_keys.modulus IS 'Public modulus, base64url without padding.';
COMMENT ON COLUMN signing_keys.exponent IS 'Public exponent, base64url without padding.';
COMMENT ON COLUMN signing_keys.private_key IS 'PKCS#8, encrypted: nonce, AES-256-GCM under the master key with the kid as associated data, tag. NULL once it signs no more.';
COMMENT ON COLUMN signing_keys.created_at IS 'When it was made and published.';
COMMENT ON COLUMN signing_keys.activated_at IS 'When it began to sign.';
COMMENT ON COLUMN signing_keys.retired_at IS 'When it stopped to sign.';
COMMENT ON COLUMN signing_keys.gone_at IS 'When it stopped to verify.';
-- However many replicas rotate at once, one key signs and one is next.
CREATE UNIQUE INDEX signing_keys_one_active ON signing_keys (state) WHERE state = 'active';
CREATE UNIQUE INDEX signing_keys_one_pending ON signing_keys (state) WHERE state = 'pending';

CREATE TABLE nodes (
    id           uuid        PRIMARY KEY,
    started_at   timestamptz NOT NULL,
    last_seen_at timestamptz NOT NULL,
    stopped_at   timestamptz
);
COMMENT ON TABLE  nodes IS 'Processes that run actors.';
COMMENT ON COLUMN nodes.id IS 'The node; kept in its data directory, so that it is the same after a restart.';
COMMENT ON COLUMN nodes.started_at IS 'When its process started, the last time.';
COMMENT ON COLUMN nodes.last_seen_at IS 'When it last said that it lives.';
COMMENT ON COLUMN nodes.stopped_at IS 'When it ended in order; NULL while it runs or after it was killed.';
