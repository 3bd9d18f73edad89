//! How content is cut into parts, and which of them are missing. Pure arithmetic.

use std::ops::Range;

use crate::ledger::PartRecord;

/// Parts of one upload at most (S3).
pub const MAX_PARTS: u32 = 10_000;
/// Of content whose length is unknown, parts double in size after so many.
const PARTS_PER_SIZE: u32 = 1000;
/// Part sizes above the smallest are whole multiples of this.
const ROUNDING_BYTES: u64 = 1024 * 1024;

/// The content has more bytes than parts of the largest size can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("content of {total_bytes} bytes does not fit into {MAX_PARTS} parts of {largest_part_bytes} bytes")]
pub struct TooLarge {
    /// Length of the content.
    pub total_bytes: u64,
    /// Size of the largest part that memory allows.
    pub largest_part_bytes: u64,
}

/// How content is cut: into equal parts, if its length is known.
#[expect(clippy::struct_field_names, reason = "the unit is part of the name")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    total_bytes: Option<u64>,
    part_size_bytes: u64,
    largest_part_bytes: u64,
}

impl Cut {
    /// Equal parts of at least `smallest`, as many as are allowed at most.
    pub fn new(total_bytes: u64, smallest: u64, largest: u64) -> Result<Cut, TooLarge> {
        let (smallest, largest) = (smallest.clamp(1, largest.max(1)), largest.max(1));
        let needed = total_bytes.div_ceil(u64::from(MAX_PARTS));
        let part_size_bytes = if needed <= smallest {
            smallest
        } else {
            needed.checked_next_multiple_of(ROUNDING_BYTES).filter(|rounded| *rounded <= largest).unwrap_or(needed)
        };
        if part_size_bytes > largest {
            return Err(TooLarge { total_bytes, largest_part_bytes: largest });
        }
        Ok(Cut { total_bytes: Some(total_bytes), part_size_bytes, largest_part_bytes: largest })
    }

    /// Parts that grow, for content whose length nobody says.
    pub fn unknown(smallest: u64, largest: u64) -> Cut {
        let largest = largest.max(1);
        Cut { total_bytes: None, part_size_bytes: smallest.clamp(1, largest), largest_part_bytes: largest }
    }

    /// The cut of an earlier run.
    pub fn resumed(total_bytes: Option<u64>, part_size_bytes: u64, largest: u64) -> Cut {
        let part_size_bytes = part_size_bytes.max(1);
        Cut { total_bytes, part_size_bytes, largest_part_bytes: largest.max(part_size_bytes) }
    }

    /// Length of the content, if known.
    pub fn total_bytes(&self) -> Option<u64> {
        self.total_bytes
    }

    /// Size of every part but the last, or of the first ones where the length is unknown.
    pub fn part_size_bytes(&self) -> u64 {
        self.part_size_bytes
    }

    /// Number of parts, if the length is known.
    pub fn count(&self) -> Option<u32> {
        let total = self.total_bytes?;
        u32::try_from(total.div_ceil(self.part_size_bytes)).ok()
    }

    /// The bytes of a part. None: there is no such part. Where the length is unknown, the last part may end earlier.
    pub fn range(&self, number: u32) -> Option<Range<u64>> {
        let index = u64::from(number.checked_sub(1)?);
        if let Some(total) = self.total_bytes {
            let first = index.checked_mul(self.part_size_bytes).filter(|first| *first < total)?;
            return Some(first..first.saturating_add(self.part_size_bytes).min(total));
        }
        if number > MAX_PARTS {
            return None;
        }
        let mut first = 0_u64;
        let mut left = index;
        let mut size = self.part_size_bytes;
        while left >= u64::from(PARTS_PER_SIZE) {
            first = first.checked_add(size.checked_mul(u64::from(PARTS_PER_SIZE))?)?;
            left -= u64::from(PARTS_PER_SIZE);
            size = size.saturating_mul(2).min(self.largest_part_bytes);
        }
        first = first.checked_add(size.checked_mul(left)?)?;
        Some(first..first.checked_add(size)?)
    }

    /// Those of the noted parts that fit this cut, sorted, each once. Where the length is unknown only those without a
    /// gap before them can be used, as nobody knows where the end is.
    pub fn usable(&self, noted: &[PartRecord]) -> Vec<PartRecord> {
        let mut parts: Vec<PartRecord> = noted
            .iter()
            .filter(|part| self.range(part.number).is_some_and(|range| range.end - range.start == part.size_bytes))
            .cloned()
            .collect();
        parts.sort_by_key(|part| part.number);
        parts.dedup_by_key(|part| part.number);
        if self.total_bytes.is_none() {
            let unbroken = parts.iter().zip(1..).take_while(|(part, number)| part.number == *number).count();
            parts.truncate(unbroken);
        }
        parts
    }
}

/// The parts that are still to be fetched, lowest first.
#[derive(Clone, Debug)]
pub struct Missing {
    cut: Cut,
    have: Vec<u32>,
    next: u32,
}

impl Missing {
    /// Everything of `cut` but `have`, which is sorted.
    pub fn new(cut: Cut, have: Vec<u32>) -> Missing {
        let mut missing = Missing { cut, have, next: 1 };
        missing.skip_what_is_there();
        missing
    }

    /// The lowest missing part, and its bytes.
    pub fn peek(&self) -> Option<(u32, Range<u64>)> {
        Some((self.next, self.cut.range(self.next)?))
    }

    /// Take the lowest missing part off.
    pub fn take(&mut self) -> Option<(u32, Range<u64>)> {
        let taken = self.peek()?;
        self.next += 1;
        self.skip_what_is_there();
        Some(taken)
    }

    /// Nothing is missing beyond what was taken: the content has turned out to end.
    pub fn end(&mut self) {
        self.next = u32::MAX;
    }

    /// Whether nothing is missing because the content ends there, and not because there are no more part numbers.
    pub fn is_at_the_end(&self) -> bool {
        self.next == u32::MAX || (self.cut.total_bytes().is_some() && self.peek().is_none())
    }

    /// End of the missing bytes that follow `number` without a gap; none if there is no end.
    pub fn run_end(&self, number: u32) -> Option<u64> {
        let total = self.cut.total_bytes()?;
        let position = self.have.partition_point(|have| *have <= number);
        Some(self.have.get(position).and_then(|have| self.cut.range(*have)).map_or(total, |range| range.start))
    }

    fn skip_what_is_there(&mut self) {
        while self.have.binary_search(&self.next).is_ok() {
            self.next += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn running_out_of_part_numbers_is_not_the_end_of_the_content() {
        let unknown = Cut::unknown(8 * MIB, 64 * MIB);
        let all: Vec<u32> = (1..=MAX_PARTS).collect();
        let mut missing = Missing::new(unknown, all);
        assert!(missing.peek().is_none());
        assert!(!missing.is_at_the_end());
        missing.end();
        assert!(missing.is_at_the_end());
    }

    fn noted(number: u32, size_bytes: u64) -> PartRecord {
        PartRecord { number, size_bytes, etag: format!("\"{number}\""), crc64: 0 }
    }

    #[test]
    fn a_gibibyte_is_128_parts_of_8_mib() {
        let cut = Cut::new(1024 * MIB, 8 * MIB, 64 * MIB).expect("fits");
        assert_eq!((cut.part_size_bytes(), cut.count()), (8 * MIB, Some(128)));
    }

    #[test]
    fn what_cannot_be_cut_is_too_large() {
        assert!(Cut::new(64 * MIB * 10_000, 8 * MIB, 64 * MIB).is_ok());
        assert!(Cut::new(64 * MIB * 10_000 + 1, 8 * MIB, 64 * MIB).is_err());
        assert!(Cut::new(u64::MAX, 8 * MIB, 64 * MIB).is_err());
    }

    #[test]
    fn parts_of_unknown_content_double_every_thousand() {
        let cut = Cut::unknown(8 * MIB, 32 * MIB);
        assert_eq!(cut.range(1000), Some(999 * 8 * MIB..8000 * MIB));
        assert_eq!(cut.range(1001), Some(8000 * MIB..8016 * MIB));
        assert_eq!(cut.range(2001).map(|range| range.end - range.start), Some(32 * MIB));
        assert_eq!(cut.range(9999).map(|range| range.end - range.start), Some(32 * MIB));
        assert_eq!(cut.range(10_001), None);
    }

    #[test]
    fn notes_that_do_not_fit_are_not_used() {
        let cut = Cut::new(25, 10, 100).expect("fits");
        let parts = cut.usable(&[noted(3, 5), noted(1, 10), noted(2, 9), noted(4, 10), noted(0, 10), noted(1, 10)]);
        assert_eq!(parts.iter().map(|part| part.number).collect::<Vec<_>>(), [1, 3]);
        let cut = Cut::unknown(10, 100);
        let parts = cut.usable(&[noted(1, 10), noted(2, 10), noted(4, 10)]);
        assert_eq!(parts.iter().map(|part| part.number).collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn a_run_of_missing_parts_ends_where_the_next_one_is_there() {
        let cut = Cut::new(100, 10, 100).expect("fits");
        let missing = Missing::new(cut, vec![1, 5, 6]);
        assert_eq!(missing.peek(), Some((2, 10..20)));
        assert_eq!(missing.run_end(2), Some(40));
        assert_eq!(missing.run_end(7), Some(100));
        assert_eq!(Missing::new(Cut::unknown(10, 100), vec![1]).run_end(2), None);
    }

    proptest! {
        #[test]
        fn parts_cover_everything_once_and_fit_the_limits(
            total in 0..(64 * MIB * 10_000), smallest in 1..(16 * MIB), probe in 1_u32..10_001
        ) {
            let largest = 64 * MIB;
            let cut = Cut::new(total, smallest, largest).expect("fits");
            let count = cut.count().expect("a known length");
            prop_assert!(count <= MAX_PARTS && cut.part_size_bytes() <= largest && cut.part_size_bytes() >= smallest);
            prop_assert_eq!(cut.range(count + 1), None);
            if count > 0 {
                prop_assert_eq!(cut.range(1).expect("a first part").start, 0);
                prop_assert_eq!(cut.range(count).expect("a last part").end, total);
            }
            if let (Some(part), Some(next)) = (cut.range(probe), cut.range(probe + 1)) {
                prop_assert_eq!(part.end, next.start);
                prop_assert_eq!(part.end - part.start, cut.part_size_bytes());
            }
        }

        #[test]
        fn what_is_there_and_what_is_missing_is_everything(total in 1_u64..500, size in 1_u64..20, seed in any::<u64>()) {
            let cut = Cut::new(total, size, 1000).expect("fits");
            let count = cut.count().expect("a known length");
            let have: Vec<u32> = (1..=count).filter(|number| (seed >> (number % 64)) & 1 == 1).collect();
            let mut missing = Missing::new(cut, have.clone());
            let mut all = have;
            while let Some((number, range)) = missing.take() {
                prop_assert_eq!(Some(range), cut.range(number));
                all.push(number);
            }
            all.sort_unstable();
            prop_assert_eq!(all, (1..=count).collect::<Vec<_>>());
        }

        #[test]
        fn parts_of_unknown_content_touch(number in 1_u32..10_000, size in 1_u64..(64 * MIB)) {
            let cut = Cut::unknown(size, 64 * MIB);
            prop_assert_eq!(cut.range(number).expect("a part").end, cut.range(number + 1).expect("a part").start);
        }
    }
}
