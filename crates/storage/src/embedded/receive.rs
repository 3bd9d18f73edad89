//! From a request's body to durable bytes: small bodies stay in memory, larger ones go to a file.
//!
//! A file is written in blocks by the blocking pool while the next block arrives, hashed on the way, and fsynced before
//! anybody hears of it. At most two blocks of a request are in memory.

use std::{
    io::{self, IoSlice, Write},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::StreamExt;
use s3s::{TrailingHeaders, dto::StreamingBlob};
use tokio::{task, time::timeout};

use super::{
    checksum::{Checksums, Expectation, Hashers},
    data::{Data, NewFile},
    error::StoreError,
};

/// Bodies up to this length are kept in the index: one sync less, and shared with others.
pub(super) const INLINE_BYTES: u64 = 4096;
/// The longest body of one request: 5 GiB, as everywhere.
pub(super) const MAX_BODY_BYTES: u64 = 5 << 30;
/// How much of a refused body is read for the sake of the answer, and for how long.
const DISCARD_BYTES: usize = 64 << 20;
const DISCARD_TIME: Duration = Duration::from_secs(5);
const BLOCK_BYTES: usize = 1 << 20;
/// A client that sends nothing for so long has gone.
const STALL: Duration = Duration::from_mins(1);

/// A body that was read to its end, has the checksums it should, and is durable if it is a file.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) content: ReceivedContent,
    pub(super) size_bytes: u64,
    pub(super) checksums: Checksums,
}

/// Where the bytes are.
#[derive(Debug)]
pub(super) enum ReceivedContent {
    Memory(Vec<u8>),
    File(NewFile),
}

/// What is known before the first byte.
pub(super) struct Intake {
    pub(super) body: Option<StreamingBlob>,
    /// The declared length; a request without one is refused before.
    pub(super) length_bytes: u64,
    pub(super) expectation: Expectation,
    pub(super) trailer: Option<TrailingHeaders>,
    /// Whether a small body may stay in memory.
    pub(super) may_inline: bool,
}

/// A file that is being written, with its hashes so far.
struct Writer {
    new: NewFile,
    hashers: Hashers,
}

impl Writer {
    fn write(&mut self, blocks: &[Bytes]) -> io::Result<()> {
        for block in blocks {
            self.hashers.update(block);
        }
        let mut slices: Vec<IoSlice<'_>> = blocks.iter().map(|block| IoSlice::new(block)).collect();
        let mut rest = slices.as_mut_slice();
        while !rest.is_empty() {
            match self.new.file.write_vectored(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut rest, written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Read a body to its end.
pub(super) async fn receive(data: &Arc<Data>, mut intake: Intake) -> Result<Received, StoreError> {
    let received = receive_all(data, &mut intake).await;
    if received.is_err() {
        discard(intake.body.take()).await;
    }
    received
}

/// Read what is left of a body that is refused, within reason: a client that is still sending would be cut off before it
/// can read the answer.
pub(super) async fn discard(body: Option<StreamingBlob>) {
    let Some(mut body) = body else { return };
    let mut left = DISCARD_BYTES;
    let drain = async {
        while let Some(Ok(chunk)) = body.next().await {
            left = left.saturating_sub(chunk.len());
            if left == 0 {
                return;
            }
        }
    };
    // What was not read in time is given up; the connection ends with it.
    let _ = timeout(DISCARD_TIME, drain).await;
}

async fn receive_all(data: &Arc<Data>, intake: &mut Intake) -> Result<Received, StoreError> {
    if intake.length_bytes > MAX_BODY_BYTES {
        return Err(StoreError::TooLarge("a body may have 5 GiB; send larger objects in parts".to_owned()));
    }
    data.room_for(intake.length_bytes)?;
    let inline = intake.may_inline && intake.length_bytes <= INLINE_BYTES;
    let mut received_bytes = 0_u64;
    let mut block: Vec<Bytes> = Vec::new();
    let mut block_bytes = 0_usize;
    let mut writing: Option<task::JoinHandle<Result<Writer, StoreError>>> = None;

    if let Some(body) = &mut intake.body {
        while let Some(chunk) = timeout(STALL, body.next()).await.map_err(|_| StoreError::Stalled(STALL.as_secs()))? {
            let chunk = chunk.map_err(|error| body_error(&*error))?;
            received_bytes += chunk.len() as u64;
            if received_bytes > intake.length_bytes {
                return Err(StoreError::TooLarge("the body is longer than declared".to_owned()));
            }
            block_bytes += chunk.len();
            block.push(chunk);
            if block_bytes >= BLOCK_BYTES {
                let writer = joined(writing.take()).await?;
                writing = Some(write(data, &intake.expectation, writer, std::mem::take(&mut block)));
                block_bytes = 0;
            }
        }
    }
    if received_bytes != intake.length_bytes {
        return Err(StoreError::IncompleteBody);
    }
    if let Some(trailer) = &intake.trailer {
        trailer.read(|trailer| intake.expectation.add_trailer(trailer));
    }

    if inline {
        let mut hashers = Hashers::new(&intake.expectation);
        let bytes = block.concat();
        hashers.update(&bytes);
        let checksums = hashers.finish(&intake.expectation)?;
        return Ok(Received { content: ReceivedContent::Memory(bytes), size_bytes: received_bytes, checksums });
    }
    let writer = joined(writing.take()).await?;
    let writer = joined(Some(write(data, &intake.expectation, writer, block))).await?;
    let Some(Writer { new, hashers }) = writer else { return Err(StoreError::Stopping) };
    // Before the sync: nothing is gained by making durable what is refused.
    let checksums = hashers.finish(&intake.expectation)?;
    let new = blocking(move || {
        new.file.sync_data()?;
        Ok(new)
    })
    .await?;
    Ok(Received { content: ReceivedContent::File(new), size_bytes: received_bytes, checksums })
}

fn write(
    data: &Arc<Data>,
    expectation: &Expectation,
    writer: Option<Writer>,
    block: Vec<Bytes>,
) -> task::JoinHandle<Result<Writer, StoreError>> {
    let fresh = writer.is_none().then(|| (Arc::clone(data), Hashers::new(expectation)));
    task::spawn_blocking(move || {
        let mut writer = match (writer, fresh) {
            (Some(writer), _) => writer,
            (None, Some((data, hashers))) => Writer { new: data.create()?, hashers },
            (None, None) => return Err(StoreError::Stopping),
        };
        writer.write(&block)?;
        Ok(writer)
    })
}

async fn joined(writing: Option<task::JoinHandle<Result<Writer, StoreError>>>) -> Result<Option<Writer>, StoreError> {
    match writing {
        Some(writing) => writing.await.map_err(|_| StoreError::Stopping)?.map(Some),
        None => Ok(None),
    }
}

/// Run something that waits for the disk.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    task::spawn_blocking(work).await.map_err(|_| StoreError::Stopping)?
}

/// The protocol crate checks payload hashes and chunk signatures inside the body, and says so only in words.
fn body_error(error: &(dyn std::error::Error + Send + Sync + 'static)) -> StoreError {
    let words = error.to_string();
    if words.contains("Sha256Mismatch") {
        StoreError::PayloadHash
    } else if words.contains("SignatureMismatch") {
        StoreError::ChunkSignature
    } else if words.contains("FormatError") || words.contains("TooLarge") || words.contains("TooMany") {
        StoreError::Invalid("the chunks of the body are malformed".to_owned())
    } else {
        StoreError::IncompleteBody
    }
}
