//! A body in the blocks that it arrived in: sent without joining them, and sent again without keeping a copy.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// The bytes of an object or a part, in blocks. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Blocks(Arc<[Bytes]>);

impl Blocks {
    /// Length of all of it.
    pub fn size_bytes(&self) -> u64 {
        self.0.iter().map(|block| block.len() as u64).sum()
    }

    pub(super) fn into_byte_stream(self) -> ByteStream {
        if let [only] = &*self.0 {
            return ByteStream::from(only.clone());
        }
        ByteStream::new(SdkBody::retryable(move || {
            let remaining_bytes = self.size_bytes();
            SdkBody::from_body_1_x(BlocksBody { blocks: Arc::clone(&self.0), next: 0, remaining_bytes })
        }))
    }
}

impl From<Bytes> for Blocks {
    fn from(block: Bytes) -> Self {
        Blocks([block].into())
    }
}

impl From<Vec<Bytes>> for Blocks {
    fn from(blocks: Vec<Bytes>) -> Self {
        Blocks(blocks.into())
    }
}

impl From<Vec<u8>> for Blocks {
    fn from(block: Vec<u8>) -> Self {
        Bytes::from(block).into()
    }
}

impl From<&'static [u8]> for Blocks {
    fn from(block: &'static [u8]) -> Self {
        Bytes::from_static(block).into()
    }
}

struct BlocksBody {
    blocks: Arc<[Bytes]>,
    next: usize,
    remaining_bytes: u64,
}

impl Body for BlocksBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let block = self.blocks.get(self.next).cloned();
        self.next += 1;
        if let Some(block) = &block {
            self.remaining_bytes -= block.len() as u64;
        }
        Poll::Ready(block.map(|block| Ok(Frame::data(block))))
    }

    fn is_end_stream(&self) -> bool {
        self.next >= self.blocks.len()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining_bytes)
    }
}
