//! Digests of what passes through: a CRC that can be combined from parts, and SHA-2 over the whole, in order, beside the
//! transfer.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use aws_lc_rs::digest::{Context, SHA256, SHA512};
use bytes::Bytes;
use crc_fast::CrcAlgorithm;
use futures_util::{StreamExt as _, stream::BoxStream};
use tokio::task::{JoinSet, spawn_blocking};

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
    parts.iter().fold(empty, |whole, part| bowerbird_checksum::crc64_nvme_combined(whole, part.crc64, part.size_bytes))
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

impl Summed {
    /// The sum that was found instead of this one: `sha256 0123…`, in hexadecimal.
    pub(crate) fn instead_of(&self, expected: &Checksum) -> Option<String> {
        let (name, sum) = match expected {
            Checksum::Sha256(_) => ("sha256", self.sha256.as_ref().map(<[u8; 32]>::as_slice)),
            Checksum::Sha512(_) => ("sha512", self.sha512.as_ref().map(<[u8; 64]>::as_slice)),
        };
        let digits = sum?.iter().flat_map(|byte| [byte >> 4, byte & 15]).filter_map(|digit| char::from_digit(digit.into(), 16));
        Some(format!("{name} {}", digits.collect::<String>()))
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

/// Where the sums of everything before a part are put for whoever fetches it.
pub(crate) type Offer = Arc<Mutex<Option<Sums>>>;

/// Sums up parts in order, beside the transfer: a part that waits in memory on a thread that may block, a part that is being
/// fetched where it arrives, by whom the sums are lent to. Ends when dropped.
pub(crate) struct Hasher {
    /// At rest, unless a part is being summed up or they are lent.
    sums: Option<Sums>,
    waiting: VecDeque<Waiting>,
    working: JoinSet<Option<(u32, Sums)>>,
}

/// A part that waits for its turn, held in memory.
struct Waiting {
    number: u32,
    bytes: Bytes,
    loan: Option<Arc<Loan>>,
}

impl Hasher {
    pub(crate) fn new(sums: Sums) -> Hasher {
        Hasher { sums: Some(sums), waiting: VecDeque::new(), working: JoinSet::new() }
    }

    /// The next part. Bounded by the memory that parts may take.
    pub(crate) fn push(&mut self, number: u32, bytes: Bytes, loan: Option<Arc<Loan>>) {
        self.waiting.push_back(Waiting { number, bytes, loan });
        self.work();
    }

    /// The sums of everything that was pushed, for whoever has the next part come in. None if they are not at rest.
    ///
    /// Bytes that were just received are in the cache of the core that received them; hashing them there takes a quarter
    /// less time than when they have to come from memory again.
    pub(crate) fn lend(&mut self) -> Option<Sums> {
        self.sums.take()
    }

    /// What was lent comes back.
    pub(crate) fn give_back(&mut self, sums: Sums) {
        self.sums = Some(sums);
        self.work();
    }

    /// The next part that was summed up and is not needed any more. None: the runtime is going down.
    pub(crate) async fn summed(&mut self) -> Option<u32> {
        match self.working.join_next().await {
            None => std::future::pending().await,
            Some(Ok(Some((number, sums)))) => {
                self.give_back(sums);
                Some(number)
            }
            Some(_) => None,
        }
    }

    /// The sums, when everything that was pushed is in them.
    pub(crate) async fn finish(mut self) -> Option<Summed> {
        while !self.working.is_empty() {
            self.summed().await?;
        }
        Some(self.sums?.finish())
    }

    fn work(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        if let Some(sums) = self.sums.take()
            && let Some(Waiting { number, bytes, loan }) = self.waiting.pop_front()
        {
            self.working.spawn(async move { Some((number, sums.take_in(bytes, loan).await?)) });
        }
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

    #[test]
    fn the_sum_that_was_found_is_told_in_hexadecimal() {
        let summed = Summed { sha256: Some([0xa7; 32]), sha512: None };
        assert_eq!(summed.instead_of(&Checksum::Sha256([0; 32])), Some(format!("sha256 {}", "a7".repeat(32))));
        assert_eq!(summed.instead_of(&Checksum::Sha512([0; 64])), None);
    }

    #[tokio::test]
    async fn parts_are_summed_in_order_here_and_where_the_sums_are_lent() {
        let mut hasher = Hasher::new(Sums::wanted(true, None).expect("a sum is wanted"));
        hasher.push(1, Bytes::from(vec![1; 100_000]), None);
        hasher.push(2, Bytes::from_static(b"two"), None);
        assert!(hasher.lend().is_none(), "they are at work");
        assert_eq!((hasher.summed().await, hasher.summed().await), (Some(1), Some(2)));
        let mut lent = hasher.lend().expect("they are at rest");
        hasher.push(4, Bytes::from(vec![4; 200_000]), None);
        lent.update(b"three");
        hasher.give_back(lent);
        let mut whole = vec![1; 100_000];
        whole.extend_from_slice(b"twothree");
        whole.extend(vec![4; 200_000]);
        let expected = Sums::wanted(true, None).expect("a sum is wanted").of(whole.into()).await;
        assert_eq!(hasher.finish().await, expected);
    }
}
