//! Digests of what passes through: a CRC that can be combined from parts, and SHA-2 over the whole, in order, beside the
//! transfer.

use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256, SHA512};
use bytes::Bytes;
use crc_fast::CrcAlgorithm;
use futures_util::{StreamExt as _, stream::BoxStream};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::{JoinSet, spawn_blocking},
};

use crate::{ledger::PartRecord, memory::Loan, sink::SinkError, transfer::Checksum};

/// What is shorter is hashed where it is; what is longer on a thread that may block.
const INLINE_BYTES: usize = 64 * 1024;

/// A running CRC-64/NVME.
#[derive(Clone, Debug)]
pub(crate) struct Crc(crc_fast::Digest);

impl Crc {
    pub(crate) fn new() -> Self {
        Crc(crc_fast::Digest::new(CrcAlgorithm::Crc64Nvme))
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn value(&self) -> u64 {
        self.0.finalize()
    }
}

/// The CRC of the whole from those of its parts, which are in order.
pub(crate) fn combined_crc(parts: &[PartRecord]) -> u64 {
    let empty = Crc::new().value();
    parts
        .iter()
        .fold(empty, |whole, part| crc_fast::checksum_combine(CrcAlgorithm::Crc64Nvme, whole, part.crc64, part.size_bytes))
}

/// SHA-2 sums that are wanted, under way.
pub(crate) struct Sums {
    sha256: Option<Context>,
    sha512: Option<Context>,
}

/// SHA-2 sums of a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summed {
    pub(crate) sha256: Option<[u8; 32]>,
    pub(crate) sha512: Option<[u8; 64]>,
}

impl Summed {
    /// Whether the content is what it should be. What was not summed cannot be.
    pub(crate) fn fits(&self, expected: &Checksum) -> bool {
        match expected {
            Checksum::Sha256(sum) => self.sha256.as_ref() == Some(sum),
            Checksum::Sha512(sum) => self.sha512.as_ref() == Some(sum),
        }
    }
}

impl Sums {
    /// The sums that are needed; `None` if none is.
    pub(crate) fn wanted(sha256: bool, expected: Option<&Checksum>) -> Option<Sums> {
        let sha256 = sha256 || matches!(expected, Some(Checksum::Sha256(_)));
        let sha512 = matches!(expected, Some(Checksum::Sha512(_)));
        (sha256 || sha512)
            .then(|| Sums { sha256: sha256.then(|| Context::new(&SHA256)), sha512: sha512.then(|| Context::new(&SHA512)) })
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        if let Some(context) = &mut self.sha256 {
            context.update(bytes);
        }
        if let Some(context) = &mut self.sha512 {
            context.update(bytes);
        }
    }

    pub(crate) fn finish(self) -> Summed {
        Summed {
            sha256: self.sha256.and_then(|context| context.finish().as_ref().try_into().ok()),
            sha512: self.sha512.and_then(|context| context.finish().as_ref().try_into().ok()),
        }
    }

    /// Take these bytes in without holding up the tasks of this thread. `None` if the runtime is going down.
    /// The loan that the bytes are in is held as long as they are.
    async fn take_in(mut self, bytes: Bytes, loan: Option<Arc<Loan>>) -> Option<Sums> {
        if bytes.len() <= INLINE_BYTES {
            self.update(&bytes);
            return Some(self);
        }
        spawn_blocking(move || {
            self.update(&bytes);
            drop((bytes, loan));
            self
        })
        .await
        .ok()
    }

    /// The sums of a whole that is in memory.
    pub(crate) async fn of(self, bytes: Bytes) -> Option<Summed> {
        Some(self.take_in(bytes, None).await?.finish())
    }

    /// The sums of a whole that is read again, with its length and its CRC.
    pub(crate) async fn of_stream(
        mut self,
        mut stream: BoxStream<'static, Result<Bytes, SinkError>>,
    ) -> Result<(Summed, u64, u64), SinkError> {
        let (mut crc, mut size_bytes) = (Crc::new(), 0_u64);
        while let Some(bytes) = stream.next().await {
            let bytes = bytes?;
            crc.update(&bytes);
            size_bytes += bytes.len() as u64;
            self = self.take_in(bytes, None).await.ok_or_else(|| SinkError::Unavailable("the process is ending".into()))?;
        }
        Ok((self.finish(), size_bytes, crc.value()))
    }
}

/// Sums up parts in order, beside the transfer. Ends when dropped.
pub(crate) struct Hasher {
    parts: UnboundedSender<(u32, Bytes, Option<Arc<Loan>>)>,
    summed: UnboundedReceiver<u32>,
    working: JoinSet<Option<Summed>>,
}

impl Hasher {
    pub(crate) fn start(mut sums: Sums) -> Hasher {
        let (parts, mut coming) = unbounded_channel::<(u32, Bytes, Option<Arc<Loan>>)>();
        let (done, summed) = unbounded_channel();
        let mut working = JoinSet::new();
        working.spawn(async move {
            while let Some((number, bytes, loan)) = coming.recv().await {
                sums = sums.take_in(bytes, loan).await?;
                if done.send(number).is_err() {
                    break;
                }
            }
            Some(sums.finish())
        });
        Hasher { parts, summed, working }
    }

    /// The next part. Bounded by the memory that parts may take.
    pub(crate) fn push(&self, number: u32, bytes: Bytes, loan: Option<Arc<Loan>>) {
        drop(self.parts.send((number, bytes, loan)));
    }

    /// The next part that was summed up and is not needed any more.
    pub(crate) async fn summed(&mut self) -> Option<u32> {
        self.summed.recv().await
    }

    /// The sums, when everything that was pushed is in them.
    pub(crate) async fn finish(self) -> Option<Summed> {
        let Hasher { parts, summed, mut working } = self;
        drop(parts);
        let sums = working.join_next().await?.ok()?;
        drop(summed);
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crc_of_a_whole_is_that_of_its_parts() {
        let bytes: Vec<u8> = (0..1000_u32).flat_map(u32::to_le_bytes).collect();
        let crc = |bytes: &[u8]| {
            let mut crc = Crc::new();
            crc.update(bytes);
            crc.value()
        };
        let parts: Vec<PartRecord> = bytes
            .chunks(777)
            .zip(1..)
            .map(|(part, number)| PartRecord { number, size_bytes: part.len() as u64, etag: String::new(), crc64: crc(part) })
            .collect();
        assert_eq!(combined_crc(&parts), crc(&bytes));
        assert_eq!(combined_crc(&[]), crc(b""));
        assert_eq!(crc(b"123456789"), 0xae8b_1486_0a79_9888, "the check value of CRC-64/NVME");
    }

    #[tokio::test]
    async fn parts_are_summed_in_the_order_in_which_they_are_pushed() {
        let mut hasher = Hasher::start(Sums::wanted(true, None).expect("a sum is wanted"));
        hasher.push(1, Bytes::from(vec![1; 100_000]), None);
        hasher.push(2, Bytes::from_static(b"two"), None);
        assert_eq!((hasher.summed().await, hasher.summed().await), (Some(1), Some(2)));
        let mut whole = vec![1; 100_000];
        whole.extend_from_slice(b"two");
        let expected = Sums::wanted(true, None).expect("a sum is wanted").of(whole.into()).await;
        assert_eq!(hasher.finish().await, expected);
    }
}
