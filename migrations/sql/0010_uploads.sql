-- Uploads: the right to put one object, until it is there, aborted or over.

ALTER TABLE account_usage
    ADD COLUMN unfinished_uploads bigint NOT NULL DEFAULT 0
        CONSTRAINT account_usage_unfinished_uploads_not_negative CHECK (unfinished_uploads >= 0);
COMMENT ON COLUMN account_usage.unfinished_uploads IS 'Its uploads that are pending or processing.';
COMMENT ON COLUMN account_usage.reserved_bytes IS 'Bytes set aside: the sum of downloads.reserved_bytes and of the sizes of unfinished uploads.';

ALTER TABLE files DROP CONSTRAINT files_status_known;
ALTER TABLE files
    ADD CONSTRAINT files_status_known CHECK (status IN ('pending', 'available', 'quarantined', 'missing')),
    ADD COLUMN upload_id uuid,
    ADD COLUMN found_as text CONSTRAINT files_found_as_known CHECK (found_as IN ('available', 'quarantined')),
    ALTER COLUMN crc64 DROP NOT NULL;
COMMENT ON COLUMN files.status IS 'pending, available, quarantined or missing: somebody else removed the object.';
COMMENT ON COLUMN files.upload_id IS 'The upload that made it; no foreign key, as uploads leave their list earlier.';
COMMENT ON COLUMN files.found_as IS 'What a missing file was before, and is again when its object is found.';
COMMENT ON COLUMN files.crc64 IS 'CRC-64/NVME of the content, its 64 bits as a signed number; NULL when the object store did not tell it.';
-- In the order in which a bucket is listed.
CREATE INDEX files_by_object ON files (object_key COLLATE "C") WHERE deleted_at IS NULL;

-- Whether a key of the bucket may still be written by a download.
CREATE INDEX downloads_by_file ON downloads (file_id);

CREATE TABLE uploads (
    id                uuid        PRIMARY KEY,
    account_id        uuid        NOT NULL REFERENCES accounts (id),
    file_id           uuid        NOT NULL CONSTRAINT uploads_file_unique UNIQUE,
    file_name         text        NOT NULL CONSTRAINT uploads_name_length CHECK (octet_length(file_name) BETWEEN 1 AND 255),
    size_bytes        bigint      NOT NULL CONSTRAINT uploads_size_not_negative CHECK (size_bytes >= 0),
    content_type      text,
    sha256            bytea       CONSTRAINT uploads_sha256_length CHECK (octet_length(sha256) = 32),
    object_key        text        NOT NULL CONSTRAINT uploads_object_key_unique UNIQUE,
    part_size_bytes   bigint      CONSTRAINT uploads_part_size_positive CHECK (part_size_bytes > 0),
    storage_upload_id text,
    links_until       timestamptz,

    status            text        NOT NULL DEFAULT 'pending' CONSTRAINT uploads_status_known
                                  CHECK (status IN ('pending', 'processing', 'completed', 'failed', 'aborted', 'expired')),
    etag              text,
    crc64             bigint,
    detected_type     text,
    verified          boolean     NOT NULL DEFAULT false,
    landed_at         timestamptz,
    check_attempt     integer     NOT NULL DEFAULT 0,
    error_code        text,
    error_detail      text,

    expires_at        timestamptz NOT NULL,
    created_at        timestamptz NOT NULL DEFAULT now(),
    finished_at       timestamptz,

    CONSTRAINT uploads_parts_have_size CHECK (storage_upload_id IS NULL OR part_size_bytes IS NOT NULL),
    CONSTRAINT uploads_processing_has_landed CHECK (status <> 'processing' OR (landed_at IS NOT NULL AND etag IS NOT NULL)),
    CONSTRAINT uploads_ended_has_time CHECK ((status IN ('pending', 'processing')) = (finished_at IS NULL)),
    CONSTRAINT uploads_failed_says_why CHECK ((status = 'failed') = (error_code IS NOT NULL))
);
COMMENT ON TABLE  uploads IS 'Rights to put one object. The row is the truth; what the object store tells is a hint to look.';
COMMENT ON COLUMN uploads.id IS 'UUIDv7; lists are in its order.';
COMMENT ON COLUMN uploads.account_id IS 'Whose.';
COMMENT ON COLUMN uploads.file_id IS 'The file to be; its object lies below <account>/<file>/.';
COMMENT ON COLUMN uploads.file_name IS 'Name of the file to be.';
COMMENT ON COLUMN uploads.size_bytes IS 'Length that was announced, and set aside; an object of another length is refused.';
COMMENT ON COLUMN uploads.content_type IS 'Media type that was announced, if one was.';
COMMENT ON COLUMN uploads.sha256 IS 'Digest that was announced, if one was; an object with another is refused.';
COMMENT ON COLUMN uploads.object_key IS 'Key in the bucket, no text of a user in it.';
COMMENT ON COLUMN uploads.part_size_bytes IS 'Length of every part but the last; NULL for an object that is put in one request.';
COMMENT ON COLUMN uploads.storage_upload_id IS 'What the object store calls the upload in parts, once it was begun.';
COMMENT ON COLUMN uploads.links_until IS 'When the last link that was given out for the whole object lapses: until then one may appear.';
COMMENT ON COLUMN uploads.status IS 'pending, processing (the object is there and is being looked at), completed, failed, aborted or expired.';
COMMENT ON COLUMN uploads.etag IS 'Entity tag of the object that landed.';
COMMENT ON COLUMN uploads.crc64 IS 'CRC-64/NVME of the object that landed, where the object store told it.';
COMMENT ON COLUMN uploads.detected_type IS 'Media type that the first bytes look like.';
COMMENT ON COLUMN uploads.verified IS 'Whether the object has the digest that was announced.';
COMMENT ON COLUMN uploads.landed_at IS 'When the object was first seen.';
COMMENT ON COLUMN uploads.check_attempt IS 'How often the external check was asked.';
COMMENT ON COLUMN uploads.error_code IS 'Why it failed, for programs.';
COMMENT ON COLUMN uploads.error_detail IS 'Why it failed, for people.';
COMMENT ON COLUMN uploads.expires_at IS 'When it is over if nothing has arrived.';
COMMENT ON COLUMN uploads.created_at IS 'When it was asked for.';
COMMENT ON COLUMN uploads.finished_at IS 'When it ended, however.';
CREATE INDEX uploads_of_account ON uploads (account_id, id DESC);
CREATE INDEX uploads_unfinished ON uploads (id) WHERE finished_at IS NULL;
CREATE INDEX uploads_finished ON uploads (finished_at) WHERE finished_at IS NOT NULL;
