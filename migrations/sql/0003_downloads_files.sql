-- Files, what each account stores, and the downloads that make files.
-- Times are the database's own, so that nodes whose clocks differ agree about leases.

-- What an account stores, and has set aside. Every change is one UPDATE whose WHERE holds the quota, so that no race
-- can go over it.
CREATE TABLE account_usage (
    account_id           uuid   PRIMARY KEY REFERENCES accounts (id),
    stored_bytes         bigint NOT NULL DEFAULT 0 CONSTRAINT account_usage_stored_not_negative CHECK (stored_bytes >= 0),
    reserved_bytes       bigint NOT NULL DEFAULT 0 CONSTRAINT account_usage_reserved_not_negative CHECK (reserved_bytes >= 0),
    files                bigint NOT NULL DEFAULT 0 CONSTRAINT account_usage_files_not_negative CHECK (files >= 0),
    unfinished_downloads bigint NOT NULL DEFAULT 0 CONSTRAINT account_usage_unfinished_not_negative CHECK (unfinished_downloads >= 0)
);
COMMENT ON TABLE  account_usage IS 'What an account stores, has set aside and is waiting for; one row per account that ever did.';
COMMENT ON COLUMN account_usage.account_id IS 'Whose.';
COMMENT ON COLUMN account_usage.stored_bytes IS 'Bytes of its files that are not deleted.';
COMMENT ON COLUMN account_usage.reserved_bytes IS 'Bytes set aside for running downloads: the sum of downloads.reserved_bytes.';
COMMENT ON COLUMN account_usage.files IS 'Its files that are not deleted.';
COMMENT ON COLUMN account_usage.unfinished_downloads IS 'Its downloads that are scheduled, queued, running or paused.';

CREATE TABLE files (
    id           uuid        PRIMARY KEY,
    account_id   uuid        NOT NULL REFERENCES accounts (id),
    name         text        NOT NULL CONSTRAINT files_name_length CHECK (octet_length(name) BETWEEN 1 AND 255),
    folder       text        NOT NULL CONSTRAINT files_folder_form CHECK (folder LIKE '/%' AND octet_length(folder) <= 1024),
    size_bytes   bigint      NOT NULL CONSTRAINT files_size_not_negative CHECK (size_bytes >= 0),
    content_type text        NOT NULL,
    sha256       bytea       CONSTRAINT files_sha256_length CHECK (octet_length(sha256) = 32),
    crc64        bigint      NOT NULL,
    etag         text        NOT NULL,
    object_key   text        NOT NULL CONSTRAINT files_object_key_unique UNIQUE,
    status       text        NOT NULL CONSTRAINT files_status_known CHECK (status IN ('pending', 'available', 'quarantined')),
    source       text        NOT NULL CONSTRAINT files_source_known CHECK (source IN ('download', 'upload')),
    download_id  uuid,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    deleted_at   timestamptz
);
COMMENT ON TABLE  files IS 'Objects that accounts own.';
COMMENT ON COLUMN files.id IS 'UUIDv7; lists are in its order.';
COMMENT ON COLUMN files.account_id IS 'Whose.';
COMMENT ON COLUMN files.name IS 'What people read, without a path; not unique.';
COMMENT ON COLUMN files.folder IS 'Where it lies: / or /films/2026.';
COMMENT ON COLUMN files.size_bytes IS 'Length of the object.';
COMMENT ON COLUMN files.content_type IS 'Media type as the source declared it; never trusted when the content is handed out.';
COMMENT ON COLUMN files.sha256 IS 'Digest of the content, 32 bytes; NULL when hashing was off.';
COMMENT ON COLUMN files.crc64 IS 'CRC-64/NVME of the content, its 64 bits as a signed number.';
COMMENT ON COLUMN files.etag IS 'Entity tag of the object, as the object store gave it.';
COMMENT ON COLUMN files.object_key IS 'Key in the bucket: <account>/<file>/<fence>, no text of a user in it.';
COMMENT ON COLUMN files.status IS 'pending, available or quarantined.';
COMMENT ON COLUMN files.source IS 'download or upload.';
COMMENT ON COLUMN files.download_id IS 'The download that made it; no foreign key, as downloads leave their list earlier.';
COMMENT ON COLUMN files.created_at IS 'When it was made.';
COMMENT ON COLUMN files.updated_at IS 'When it was last changed.';
COMMENT ON COLUMN files.deleted_at IS 'When its owner deleted it: from then on nobody sees it, and the purger deletes object and row.';
CREATE INDEX files_of_account ON files (account_id, id DESC) WHERE deleted_at IS NULL;
CREATE INDEX files_of_folder ON files (account_id, folder, id DESC) WHERE deleted_at IS NULL;

-- What is to be deleted in the bucket. Written in the transaction that makes the objects useless, worked off by the purger.
CREATE TABLE object_purges (
    id         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    prefix     text        NOT NULL CONSTRAINT object_purges_prefix_form CHECK (prefix LIKE '%/%/'),
    keep_key   text,
    file_id    uuid,
    due_at     timestamptz NOT NULL DEFAULT now(),
    attempt    integer     NOT NULL DEFAULT 0,
    last_error text,
    created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE  object_purges IS 'Objects and multipart uploads that are to be deleted in the bucket.';
COMMENT ON COLUMN object_purges.id IS 'Names the order.';
COMMENT ON COLUMN object_purges.prefix IS 'Everything below this prefix goes, multipart uploads too: <account>/<file>/.';
COMMENT ON COLUMN object_purges.keep_key IS 'But not this object: the one that won.';
COMMENT ON COLUMN object_purges.file_id IS 'The deleted file whose row goes with it, if it was one.';
COMMENT ON COLUMN object_purges.due_at IS 'Not before this. A later entry catches what a stopped worker still wrote.';
COMMENT ON COLUMN object_purges.attempt IS 'Tries so far.';
COMMENT ON COLUMN object_purges.last_error IS 'Why the last try failed.';
COMMENT ON COLUMN object_purges.created_at IS 'When it was asked for.';
CREATE INDEX object_purges_due ON object_purges (due_at, id);

CREATE TABLE downloads (
    id                  uuid        PRIMARY KEY,
    account_id          uuid        NOT NULL REFERENCES accounts (id),
    source_sealed       bytea       NOT NULL,
    display_url         text        NOT NULL,
    asked_name          text        CONSTRAINT downloads_asked_name_length CHECK (octet_length(asked_name) BETWEEN 1 AND 255),
    folder              text        NOT NULL CONSTRAINT downloads_folder_form CHECK (folder LIKE '/%' AND octet_length(folder) <= 1024),
    checksum_algorithm  text        CONSTRAINT downloads_checksum_known CHECK (checksum_algorithm IN ('sha256', 'sha512')),
    checksum            bytea,
    max_connections     integer     CONSTRAINT downloads_connections_range CHECK (max_connections BETWEEN 1 AND 64),
    priority            smallint    NOT NULL CONSTRAINT downloads_priority_range CHECK (priority BETWEEN 0 AND 9),
    max_attempts        integer     NOT NULL CONSTRAINT downloads_attempts_range CHECK (max_attempts BETWEEN 1 AND 100),
    start_at            timestamptz,

    status              text        NOT NULL CONSTRAINT downloads_status_known
                                    CHECK (status IN ('scheduled', 'queued', 'running', 'paused', 'completed', 'failed', 'canceled')),
    attempt             integer     NOT NULL DEFAULT 0,
    lost                integer     NOT NULL DEFAULT 0,
    queued_at           timestamptz NOT NULL DEFAULT now(),
    not_before          timestamptz,
    dispatch_no         bigint      NOT NULL DEFAULT 0,
    dispatched_at       timestamptz,

    worker              uuid,
    fence               bigint      NOT NULL DEFAULT 0,
    lease_until         timestamptz,

    file_id             uuid        NOT NULL,
    object_key          text,
    upload_id           text,
    part_size_bytes     bigint      CONSTRAINT downloads_part_size_positive CHECK (part_size_bytes > 0),
    size_bytes          bigint      CONSTRAINT downloads_size_not_negative CHECK (size_bytes >= 0),
    validator           text,
    source_content_type text,
    source_name         text,
    restarts            integer     NOT NULL DEFAULT 0,

    received_bytes      bigint      NOT NULL DEFAULT 0,
    mark_bytes          bigint      NOT NULL DEFAULT 0,
    reserved_bytes      bigint      NOT NULL DEFAULT 0 CONSTRAINT downloads_reserved_not_negative CHECK (reserved_bytes >= 0),
    bytes_per_second    bigint      NOT NULL DEFAULT 0,
    connections         integer     NOT NULL DEFAULT 0,

    sha256              bytea       CONSTRAINT downloads_sha256_length CHECK (octet_length(sha256) = 32),
    verified            text        NOT NULL DEFAULT 'none' CONSTRAINT downloads_verified_known CHECK (verified IN ('digest', 'length', 'none')),
    error_code          text,
    error_detail        text,
    error_retryable     boolean,

    created_at          timestamptz NOT NULL DEFAULT now(),
    started_at          timestamptz,
    finished_at         timestamptz,

    CONSTRAINT downloads_running_has_lease CHECK ((status = 'running') = (worker IS NOT NULL AND lease_until IS NOT NULL)),
    CONSTRAINT downloads_upload_has_key CHECK (upload_id IS NULL OR (object_key IS NOT NULL AND part_size_bytes IS NOT NULL)),
    CONSTRAINT downloads_ended_has_time CHECK ((status IN ('completed', 'failed', 'canceled')) = (finished_at IS NOT NULL)),
    CONSTRAINT downloads_ended_reserves_nothing CHECK (finished_at IS NULL OR reserved_bytes = 0)
);
COMMENT ON TABLE  downloads IS 'Jobs that turn a URL into a file. The row is the truth; the work queue only hands it out.';
COMMENT ON COLUMN downloads.id IS 'UUIDv7; lists are in its order.';
COMMENT ON COLUMN downloads.account_id IS 'Whose.';
COMMENT ON COLUMN downloads.source_sealed IS 'URL and request headers as JSON, AES-256-GCM under a key derived from the master key, bound to the id.';
COMMENT ON COLUMN downloads.display_url IS 'The URL without user, password, query and fragment: what may be shown and searched.';
COMMENT ON COLUMN downloads.asked_name IS 'Name of the file to be, if its owner chose one.';
COMMENT ON COLUMN downloads.folder IS 'Folder of the file to be.';
COMMENT ON COLUMN downloads.checksum_algorithm IS 'What checksum is, if its owner gave one.';
COMMENT ON COLUMN downloads.checksum IS 'What the content must digest to.';
COMMENT ON COLUMN downloads.max_connections IS 'Connections at most, if its owner said; the node''s limit holds as well.';
COMMENT ON COLUMN downloads.priority IS '0 (low) to 9 (high).';
COMMENT ON COLUMN downloads.max_attempts IS 'Tries in a row without progress, at most.';
COMMENT ON COLUMN downloads.start_at IS 'Not before this, as its owner asked.';
COMMENT ON COLUMN downloads.status IS 'scheduled, queued, running, paused, completed, failed or canceled.';
COMMENT ON COLUMN downloads.attempt IS 'Tries since the last one that stored something.';
COMMENT ON COLUMN downloads.lost IS 'Workers that were lost with it since something was last stored.';
COMMENT ON COLUMN downloads.queued_at IS 'Since when it waits for its turn; its age in the queue.';
COMMENT ON COLUMN downloads.not_before IS 'When the next try is due, after a failure.';
COMMENT ON COLUMN downloads.dispatch_no IS 'How often it was handed out; a work message with another number is void.';
COMMENT ON COLUMN downloads.dispatched_at IS 'When it was handed out, until a worker claims it.';
COMMENT ON COLUMN downloads.worker IS 'The node that runs it.';
COMMENT ON COLUMN downloads.fence IS 'Grows with every claim; each write of a worker names the one it got.';
COMMENT ON COLUMN downloads.lease_until IS 'When the worker counts as lost unless it renews.';
COMMENT ON COLUMN downloads.file_id IS 'The file to be; every object and upload of this download lies below <account>/<file>/.';
COMMENT ON COLUMN downloads.object_key IS 'Key of the adopted upload or, when completed, of the object.';
COMMENT ON COLUMN downloads.upload_id IS 'The adopted multipart upload.';
COMMENT ON COLUMN downloads.part_size_bytes IS 'Length of every part but the last, of the adopted upload.';
COMMENT ON COLUMN downloads.size_bytes IS 'Length of the content, once known.';
COMMENT ON COLUMN downloads.validator IS 'What goes into If-Range for the version whose parts are stored: a strong entity tag with its quotes, or a date.';
COMMENT ON COLUMN downloads.source_content_type IS 'Media type as the source declared it.';
COMMENT ON COLUMN downloads.source_name IS 'Name as the source proposed it, made safe.';
COMMENT ON COLUMN downloads.restarts IS 'How often it began from zero because the source had changed.';
COMMENT ON COLUMN downloads.received_bytes IS 'Bytes that are safely stored: the sum of its parts, or the whole.';
COMMENT ON COLUMN downloads.mark_bytes IS 'received_bytes when the running try began; more than that is progress.';
COMMENT ON COLUMN downloads.reserved_bytes IS 'Bytes of the account''s quota that are set aside for it.';
COMMENT ON COLUMN downloads.bytes_per_second IS 'Over the last seconds; 0 when it does not run.';
COMMENT ON COLUMN downloads.connections IS 'Connections that fetch right now.';
COMMENT ON COLUMN downloads.sha256 IS 'Digest of the content, when completed and hashing is on.';
COMMENT ON COLUMN downloads.verified IS 'What the content was checked against: digest, length or none.';
COMMENT ON COLUMN downloads.error_code IS 'The last failure, for programs.';
COMMENT ON COLUMN downloads.error_detail IS 'The last failure, for people.';
COMMENT ON COLUMN downloads.error_retryable IS 'Whether another try could go better.';
COMMENT ON COLUMN downloads.created_at IS 'When it was asked for.';
COMMENT ON COLUMN downloads.started_at IS 'When a worker first took it.';
COMMENT ON COLUMN downloads.finished_at IS 'When it ended.';
-- Lists, newest first.
CREATE INDEX downloads_of_account ON downloads (account_id, id DESC);
-- What the dispatcher picks from, account by account.
CREATE INDEX downloads_waiting ON downloads (account_id, priority DESC, queued_at, id)
    WHERE status = 'queued' AND dispatched_at IS NULL;
-- What was handed out or runs: the load of nodes and accounts, lapsed leases, lost work messages.
CREATE INDEX downloads_busy ON downloads (account_id, lease_until, dispatched_at)
    WHERE status = 'running' OR (status = 'queued' AND dispatched_at IS NOT NULL);
CREATE INDEX downloads_scheduled ON downloads (start_at) WHERE status = 'scheduled';
CREATE INDEX downloads_finished ON downloads (finished_at) WHERE finished_at IS NOT NULL;

CREATE TABLE download_parts (
    download_id uuid    NOT NULL REFERENCES downloads (id) ON DELETE CASCADE,
    part_number integer NOT NULL CONSTRAINT download_parts_number_range CHECK (part_number BETWEEN 1 AND 10000),
    size_bytes  bigint  NOT NULL CONSTRAINT download_parts_size_positive CHECK (size_bytes > 0),
    etag        text    NOT NULL,
    crc64       bigint  NOT NULL,
    PRIMARY KEY (download_id, part_number)
);
COMMENT ON TABLE  download_parts IS 'The ledger: parts of the adopted upload that are stored.';
COMMENT ON COLUMN download_parts.download_id IS 'Whose.';
COMMENT ON COLUMN download_parts.part_number IS 'As S3 counts: from 1.';
COMMENT ON COLUMN download_parts.size_bytes IS 'Its length.';
COMMENT ON COLUMN download_parts.etag IS 'As the object store gave it; completing names it, so another write of the part cannot slip in.';
COMMENT ON COLUMN download_parts.crc64 IS 'CRC-64/NVME of the part, its 64 bits as a signed number.';

CREATE TABLE download_nodes (
    node_id uuid        PRIMARY KEY,
    slots   integer     NOT NULL CONSTRAINT download_nodes_slots_not_negative CHECK (slots >= 0),
    seen_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE  download_nodes IS 'Nodes that run downloads, so that a dispatcher knows how much to hand out.';
COMMENT ON COLUMN download_nodes.node_id IS 'The node.';
COMMENT ON COLUMN download_nodes.slots IS 'Downloads that it runs at once; 0 when it stops.';
COMMENT ON COLUMN download_nodes.seen_at IS 'When it last said so.';
