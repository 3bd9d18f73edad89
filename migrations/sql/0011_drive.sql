-- The drive: folders, tags, search, trash, versions, shares.

-- Search by parts of names, and the account in the same index. Both are "trusted": the owner of the database may make them.
CREATE EXTENSION IF NOT EXISTS pg_trgm;
CREATE EXTENSION IF NOT EXISTS btree_gin;

CREATE TABLE folders (
    id           uuid        PRIMARY KEY,
    account_id   uuid        NOT NULL REFERENCES accounts (id),
    parent_id    uuid        REFERENCES folders (id),
    name         text        NOT NULL CONSTRAINT folders_name_length CHECK (octet_length(name) <= 255),
    path         text        COLLATE "C" NOT NULL CONSTRAINT folders_path_form CHECK (path LIKE '/%' AND octet_length(path) <= 1024),
    version      bigint      NOT NULL DEFAULT 1,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    deleted_at   timestamptz,
    trashed_with uuid,
    purge_after  timestamptz,
    purging_at   timestamptz,
    CONSTRAINT folders_root_stays CHECK (path <> '/' OR deleted_at IS NULL),
    CONSTRAINT folders_trash_is_whole CHECK ((deleted_at IS NULL) = (trashed_with IS NULL) AND (deleted_at IS NULL) = (purge_after IS NULL)),
    CONSTRAINT folders_purging_was_trashed CHECK (purging_at IS NULL OR deleted_at IS NOT NULL)
);
COMMENT ON TABLE  folders IS 'Where files lie. Each account that has any file has a root, whose path is /.';
COMMENT ON COLUMN folders.id IS 'UUIDv7; random for those that a migration made.';
COMMENT ON COLUMN folders.account_id IS 'Whose.';
COMMENT ON COLUMN folders.parent_id IS 'The folder that it is in; NULL for the root.';
COMMENT ON COLUMN folders.name IS 'Its name, the last part of its path; empty for the root.';
COMMENT ON COLUMN folders.path IS 'Its whole path, so that a folder is found, and everything below it, in one look. Of one in the trash: where it was.';
COMMENT ON COLUMN folders.version IS 'Grows with every change that its owner makes.';
COMMENT ON COLUMN folders.created_at IS 'When it was made.';
COMMENT ON COLUMN folders.updated_at IS 'When it was last changed.';
COMMENT ON COLUMN folders.deleted_at IS 'When it was moved to the trash.';
COMMENT ON COLUMN folders.trashed_with IS 'The folder that was moved to the trash and took this one along; itself for the one that was named.';
COMMENT ON COLUMN folders.purge_after IS 'Until then it can be restored, by the database''s clock.';
COMMENT ON COLUMN folders.purging_at IS 'When it was given up for good: from then on nothing brings it back.';
CREATE UNIQUE INDEX folders_path_unique ON folders (account_id, path) WHERE deleted_at IS NULL;
CREATE INDEX folders_of_parent ON folders (parent_id, name COLLATE "C");
CREATE INDEX folders_trashed ON folders (trashed_with) WHERE trashed_with IS NOT NULL;
CREATE INDEX folders_trash ON folders (account_id, deleted_at DESC, id DESC) WHERE trashed_with = id AND purging_at IS NULL;
CREATE INDEX folders_purging ON folders (purging_at) WHERE purging_at IS NOT NULL;

-- A folder for each path that a file names, and for each path above.
WITH RECURSIVE named AS (
    SELECT DISTINCT account_id, folder AS path FROM files
    UNION
    SELECT account_id, coalesce(nullif(regexp_replace(path, '/[^/]*$', ''), ''), '/') FROM named WHERE path <> '/'
)
INSERT INTO folders (id, account_id, name, path)
SELECT gen_random_uuid(), account_id, regexp_replace(path, '^.*/', ''), path FROM named;
UPDATE folders AS f SET parent_id = p.id FROM folders AS p
    WHERE f.path <> '/' AND p.account_id = f.account_id AND p.path = coalesce(nullif(regexp_replace(f.path, '/[^/]*$', ''), ''), '/');
ALTER TABLE folders ADD CONSTRAINT folders_root_has_no_parent CHECK ((path = '/') = (parent_id IS NULL));

ALTER TABLE files
    ADD COLUMN folder_id    uuid REFERENCES folders (id),
    ADD COLUMN tags         text[] NOT NULL DEFAULT '{}' CONSTRAINT files_tags_number CHECK (cardinality(tags) <= 50),
    ADD COLUMN description  text CONSTRAINT files_description_length CHECK (char_length(description) <= 2000),
    ADD COLUMN expires_at   timestamptz,
    ADD COLUMN version      bigint NOT NULL DEFAULT 1,
    ADD COLUMN trashed_with uuid,
    ADD COLUMN purge_after  timestamptz,
    ADD COLUMN purging_at   timestamptz;
UPDATE files AS f SET folder_id = d.id FROM folders AS d WHERE d.account_id = f.account_id AND d.path = f.folder;
-- What was deleted before there was a trash is on its way out; its bytes count until they are gone.
UPDATE files SET trashed_with = id, purge_after = deleted_at, purging_at = deleted_at WHERE deleted_at IS NOT NULL;
UPDATE account_usage AS u SET stored_bytes = u.stored_bytes + f.bytes
    FROM (SELECT account_id, sum(size_bytes)::bigint AS bytes FROM files WHERE deleted_at IS NOT NULL GROUP BY account_id) AS f
    WHERE f.account_id = u.account_id;
-- Names were not unique. All but the oldest of a name get a part of their id, which is longer than any number.
UPDATE files AS f SET name = left(regexp_replace(f.name, '(.)\.[^.]*$', '\1'), 50) || ' (' || right(f.id::text, 12) || ')'
        || left(coalesce(substring(f.name FROM '.(\.[^.]*)$'), ''), 10)
    FROM (SELECT id, row_number() OVER (PARTITION BY folder_id, name COLLATE "C" ORDER BY id) AS nth FROM files WHERE deleted_at IS NULL) AS n
    WHERE n.id = f.id AND n.nth > 1;
ALTER TABLE files
    ALTER COLUMN folder_id SET NOT NULL,
    ALTER COLUMN name SET STATISTICS 1000,
    DROP COLUMN folder,
    ADD CONSTRAINT files_trash_is_whole CHECK ((deleted_at IS NULL) = (trashed_with IS NULL) AND (deleted_at IS NULL) = (purge_after IS NULL)),
    ADD CONSTRAINT files_purging_was_trashed CHECK (purging_at IS NULL OR deleted_at IS NOT NULL);
COMMENT ON COLUMN files.id IS 'UUIDv7.';
COMMENT ON COLUMN files.name IS 'What people read, without a path; unique in its folder.';
COMMENT ON COLUMN files.folder_id IS 'Where it lies; of one in the trash, where it was.';
COMMENT ON COLUMN files.object_key IS 'Key in the bucket, no text of a user in it: below <account>/<file>/, or below another file''s that was put in its place.';
COMMENT ON COLUMN files.tags IS 'Words of its owner''s, each once.';
COMMENT ON COLUMN files.description IS 'What its owner says of it.';
COMMENT ON COLUMN files.expires_at IS 'When it moves to the trash by itself.';
COMMENT ON COLUMN files.version IS 'Grows with every change that its owner makes.';
COMMENT ON COLUMN files.deleted_at IS 'When it was moved to the trash.';
COMMENT ON COLUMN files.trashed_with IS 'The folder that was moved to the trash and took it along; itself if it was named.';
COMMENT ON COLUMN files.purge_after IS 'Until then it can be restored, by the database''s clock.';
COMMENT ON COLUMN files.purging_at IS 'When it was given up for good: from then on nothing brings it back, and the purger deletes object and row.';
COMMENT ON COLUMN account_usage.stored_bytes IS 'Bytes of its files and of their versions, until their objects are gone from the bucket; so the trash counts.';
COMMENT ON COLUMN account_usage.files IS 'Its files that are not in the trash.';

DROP INDEX files_of_account;
-- Lists in each order, and the ranges that go with it.
CREATE INDEX files_by_creation ON files (account_id, created_at, id) WHERE deleted_at IS NULL;
CREATE INDEX files_by_update ON files (account_id, updated_at, id) WHERE deleted_at IS NULL;
CREATE INDEX files_by_size ON files (account_id, size_bytes, id) WHERE deleted_at IS NULL;
CREATE INDEX files_by_name ON files (account_id, (lower(name)) COLLATE "C", id) WHERE deleted_at IS NULL;
CREATE INDEX files_by_type ON files (account_id, content_type COLLATE "C") WHERE deleted_at IS NULL;
CREATE INDEX files_not_available ON files (account_id, created_at, id) WHERE deleted_at IS NULL AND status <> 'available';
CREATE UNIQUE INDEX files_name_unique ON files (folder_id, name COLLATE "C") WHERE deleted_at IS NULL;
CREATE INDEX files_of_folder ON files (folder_id, created_at, id);
-- Parts of names and tags. Without a list of pending entries, which every search would have to read through.
CREATE INDEX files_search ON files USING gin (account_id, name gin_trgm_ops, tags) WITH (fastupdate = off) WHERE deleted_at IS NULL;
CREATE INDEX files_trashed ON files (trashed_with) WHERE trashed_with IS NOT NULL;
CREATE INDEX files_trash ON files (account_id, deleted_at DESC, id DESC) WHERE trashed_with = id AND purging_at IS NULL;
CREATE INDEX files_expiring ON files (expires_at) WHERE expires_at IS NOT NULL AND deleted_at IS NULL;

CREATE TABLE file_versions (
    id           uuid        PRIMARY KEY,
    file_id      uuid        NOT NULL REFERENCES files (id) ON DELETE CASCADE,
    account_id   uuid        NOT NULL REFERENCES accounts (id),
    size_bytes   bigint      NOT NULL CONSTRAINT file_versions_size_not_negative CHECK (size_bytes >= 0),
    content_type text        NOT NULL,
    sha256       bytea       CONSTRAINT file_versions_sha256_length CHECK (octet_length(sha256) = 32),
    crc64        bigint,
    etag         text        NOT NULL,
    object_key   text        NOT NULL CONSTRAINT file_versions_object_key_unique UNIQUE,
    replaced_at  timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz NOT NULL
);
COMMENT ON TABLE  file_versions IS 'Contents that files had before they were replaced.';
COMMENT ON COLUMN file_versions.id IS 'UUIDv7; lists are in its order.';
COMMENT ON COLUMN file_versions.file_id IS 'Whose content it was.';
COMMENT ON COLUMN file_versions.account_id IS 'Whose.';
COMMENT ON COLUMN file_versions.size_bytes IS 'Length of the object.';
COMMENT ON COLUMN file_versions.content_type IS 'As files.content_type.';
COMMENT ON COLUMN file_versions.sha256 IS 'As files.sha256.';
COMMENT ON COLUMN file_versions.crc64 IS 'As files.crc64.';
COMMENT ON COLUMN file_versions.etag IS 'As files.etag.';
COMMENT ON COLUMN file_versions.object_key IS 'Key in the bucket; nobody else''s.';
COMMENT ON COLUMN file_versions.replaced_at IS 'When another content took its place.';
COMMENT ON COLUMN file_versions.expires_at IS 'When it goes for good.';
CREATE INDEX file_versions_of_file ON file_versions (file_id, id DESC);
CREATE INDEX file_versions_expiring ON file_versions (expires_at);

ALTER TABLE object_purges
    ADD COLUMN object_key           text,
    ADD COLUMN account_id           uuid,
    ADD COLUMN freed_stored_bytes   bigint NOT NULL DEFAULT 0,
    ADD COLUMN freed_reserved_bytes bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN object_purges.object_key IS 'Only this object, and no other below the prefix.';
COMMENT ON COLUMN object_purges.account_id IS 'Whose, if something of its usage is freed.';
COMMENT ON COLUMN object_purges.freed_stored_bytes IS 'What the account stores less, once the objects are gone.';
COMMENT ON COLUMN object_purges.freed_reserved_bytes IS 'What was set aside for it, once the objects are gone.';
UPDATE object_purges AS p SET account_id = f.account_id, freed_stored_bytes = f.size_bytes FROM files AS f WHERE f.id = p.file_id;

CREATE TABLE shares (
    id               uuid        PRIMARY KEY,
    account_id       uuid        NOT NULL REFERENCES accounts (id),
    file_id          uuid        REFERENCES files (id) ON DELETE CASCADE,
    folder_id        uuid        REFERENCES folders (id) ON DELETE CASCADE,
    token_hash       bytea       NOT NULL CONSTRAINT shares_token_unique UNIQUE CONSTRAINT shares_token_length CHECK (octet_length(token_hash) = 32),
    password_hash    text,
    expires_at       timestamptz,
    max_downloads    bigint      CONSTRAINT shares_max_downloads_positive CHECK (max_downloads > 0),
    downloads        bigint      NOT NULL DEFAULT 0,
    failed_passwords integer     NOT NULL DEFAULT 0,
    locked_until     timestamptz,
    created_at       timestamptz NOT NULL DEFAULT now(),
    ended_at         timestamptz,
    ended_by         text        CONSTRAINT shares_ended_by_known CHECK (ended_by IN ('revoked', 'expired', 'trashed')),
    CONSTRAINT shares_of_one_thing CHECK (num_nonnulls(file_id, folder_id) = 1),
    CONSTRAINT shares_downloads_bounded CHECK (downloads >= 0 AND (max_downloads IS NULL OR downloads <= max_downloads)),
    CONSTRAINT shares_end_is_whole CHECK ((ended_at IS NULL) = (ended_by IS NULL))
);
COMMENT ON TABLE  shares IS 'Links to a file or a folder, for whoever has them.';
COMMENT ON COLUMN shares.id IS 'UUIDv7; lists are in its order.';
COMMENT ON COLUMN shares.account_id IS 'Whose.';
COMMENT ON COLUMN shares.file_id IS 'The file, if it is one.';
COMMENT ON COLUMN shares.folder_id IS 'The folder, if it is one.';
COMMENT ON COLUMN shares.token_hash IS 'SHA-256 of the token, which is 192 random bits; the token itself is nowhere.';
COMMENT ON COLUMN shares.password_hash IS 'Argon2id in PHC form, if a password is asked for.';
COMMENT ON COLUMN shares.expires_at IS 'When it ends.';
COMMENT ON COLUMN shares.max_downloads IS 'How often the content may be fetched.';
COMMENT ON COLUMN shares.downloads IS 'How often it was, or was begun to be.';
COMMENT ON COLUMN shares.failed_passwords IS 'Wrong passwords in a row.';
COMMENT ON COLUMN shares.locked_until IS 'Until then no password is looked at.';
COMMENT ON COLUMN shares.created_at IS 'When it was made.';
COMMENT ON COLUMN shares.ended_at IS 'When it ended.';
COMMENT ON COLUMN shares.ended_by IS 'revoked by its owner, expired, or trashed with what it leads to.';
CREATE INDEX shares_of_account ON shares (account_id, id DESC);
CREATE INDEX shares_of_file ON shares (file_id) WHERE file_id IS NOT NULL;
CREATE INDEX shares_of_folder ON shares (folder_id) WHERE folder_id IS NOT NULL;
CREATE INDEX shares_ended ON shares (ended_at) WHERE ended_at IS NOT NULL;
