//! From files to a response's body: one block is read by the blocking pool while the one before is sent.

use std::{
    fs::File,
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::Stream;
use rustix::{buffer::spare_capacity, io::pread};
use s3s::{
    StdError,
    stream::{ByteStream, RemainingLength},
};
use tokio::task::{JoinHandle, spawn_blocking};

use super::{
    data::{self, Data},
    record::Segment,
};

const BLOCK_BYTES: u64 = 512 << 10;

/// A range of an object's bytes, as a stream. Its files stay while it lives.
pub(super) struct ObjectBytes {
    /// The block that is being read, and the reader that comes back with it.
    reading: Option<JoinHandle<io::Result<(Bytes, Reader)>>>,
    remaining_bytes: u64,
}

struct Reader {
    data: Arc<Data>,
    segments: Vec<Segment>,
    /// The segment that is read next, and from where in it.
    segment: usize,
    offset_bytes: u64,
    remaining_bytes: u64,
    file: Option<File>,
    /// Held for its drop.
    _pin: data::Pin,
}

impl ObjectBytes {
    /// Stream `range` of the segments. The first file is opened at once, so that an error can still be answered.
    pub(super) fn open(data: Arc<Data>, pin: data::Pin, segments: Vec<Segment>, range: std::ops::Range<u64>) -> io::Result<Self> {
        let (mut segment, mut offset_bytes) = (0, range.start);
        while segments.get(segment).is_some_and(|segment| offset_bytes >= segment.size_bytes) {
            offset_bytes -= segments[segment].size_bytes;
            segment += 1;
        }
        let remaining_bytes = range.end - range.start;
        let file = match segments.get(segment) {
            Some(segment) if remaining_bytes > 0 => Some(data.read(segment.file)?),
            _ => None,
        };
        let reader = Reader { data, segments, segment, offset_bytes, remaining_bytes, file, _pin: pin };
        Ok(ObjectBytes { reading: reader.start(), remaining_bytes })
    }
}

impl Reader {
    fn start(self) -> Option<JoinHandle<io::Result<(Bytes, Reader)>>> {
        (self.remaining_bytes > 0).then(|| spawn_blocking(move || self.read()))
    }

    /// Read one block: from one segment, so it may be short.
    fn read(mut self) -> io::Result<(Bytes, Reader)> {
        let segment = self.segments.get(self.segment).copied().ok_or(io::ErrorKind::UnexpectedEof)?;
        let file = match self.file.take() {
            Some(file) => file,
            None => self.data.read(segment.file)?,
        };
        let wanted = BLOCK_BYTES.min(self.remaining_bytes).min(segment.size_bytes - self.offset_bytes);
        let wanted = usize::try_from(wanted).unwrap_or(0);
        let mut block = Vec::with_capacity(wanted);
        while block.len() < wanted {
            let offset = self.offset_bytes + block.len() as u64;
            match pread(&file, spare_capacity(&mut block), offset) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        block.truncate(wanted);
        self.offset_bytes += wanted as u64;
        self.remaining_bytes -= wanted as u64;
        if self.offset_bytes < segment.size_bytes {
            self.file = Some(file);
        } else {
            self.segment += 1;
            self.offset_bytes = 0;
        }
        Ok((block.into(), self))
    }
}

impl Stream for ObjectBytes {
    type Item = Result<Bytes, StdError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(reading) = &mut self.reading else { return Poll::Ready(None) };
        let result = std::task::ready!(Pin::new(reading).poll(context));
        self.reading = None;
        let (block, reader) = match result.map_err(io::Error::other).and_then(|result| result) {
            Ok(read) => read,
            Err(error) => {
                // The head is sent, so all that can be done is to break the connection; the operator must know why.
                tracing::error!(%error, "a data file could not be read");
                return Poll::Ready(Some(Err(Box::new(error))));
            }
        };
        self.remaining_bytes -= block.len() as u64;
        self.reading = reader.start();
        Poll::Ready(Some(Ok(block)))
    }
}

impl ByteStream for ObjectBytes {
    fn remaining_length(&self) -> RemainingLength {
        RemainingLength::new_exact(usize::try_from(self.remaining_bytes).unwrap_or(usize::MAX))
    }
}
