//! CRC-64/NVME of a whole from those of its parts, in microseconds.
//!
//! A CRC is a polynomial over GF(2) modulo another one, so putting `n` zero bytes behind a message multiplies its CRC by
//! x^8n. Libraries do that with matrices of 64 × 64 bits, squared for each bit of the length: with a hundred parts that
//! takes tens of milliseconds, at the end of a transfer, when everybody waits. Squaring the polynomial itself takes 64 steps.

/// The polynomial of CRC-64/NVME with its bits reversed, without x^64.
const POLYNOMIAL: u64 = 0x9a6c_9329_ac4b_c9b5;
/// The polynomial 1: the coefficient of x^0 is the highest bit.
const ONE: u64 = 1 << 63;
/// The polynomial x^8: one byte of zeros.
const BYTE: u64 = ONE >> 8;

/// The CRC-64/NVME of two sequences of bytes in a row, from that of the first, that of the second, and the second's length.
/// The CRC of nothing is 0.
pub const fn crc64_nvme_combined(first: u64, second: u64, second_bytes: u64) -> u64 {
    product(first, power_of_byte(second_bytes)) ^ second
}

/// x^8n modulo the polynomial.
const fn power_of_byte(mut n: u64) -> u64 {
    let (mut power, mut square) = (ONE, BYTE);
    while n > 0 {
        if n & 1 == 1 {
            power = product(power, square);
        }
        square = product(square, square);
        n >>= 1;
    }
    power
}

/// The product of two polynomials modulo the polynomial.
const fn product(one: u64, mut other: u64) -> u64 {
    let (mut sum, mut coefficient) = (0, ONE);
    while coefficient > 0 {
        if one & coefficient != 0 {
            sum ^= other;
        }
        // Times x; what falls out at the end is x^64, which is the rest of the polynomial.
        other = (other >> 1) ^ if other & 1 == 1 { POLYNOMIAL } else { 0 };
        coefficient >>= 1;
    }
    sum
}

#[cfg(test)]
mod tests {
    use crc_fast::{CrcAlgorithm::Crc64Nvme, checksum, checksum_combine};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_crc_of_a_whole_follows_from_those_of_its_halves(whole in any::<Vec<u8>>(), cut in any::<prop::sample::Index>()) {
            let (first, second) = whole.split_at(cut.index(whole.len() + 1));
            let crc = |bytes| checksum(Crc64Nvme, bytes);
            prop_assert_eq!(crc64_nvme_combined(crc(first), crc(second), second.len() as u64), crc(&whole));
        }

        #[test]
        fn lengths_of_any_size_are_taken(first in any::<u64>(), second in any::<u64>(), length in any::<u64>()) {
            // The library takes lengths in bits of an unsigned number of 64 bits.
            let length = length >> 3;
            prop_assert_eq!(
                crc64_nvme_combined(first, second, length),
                checksum_combine(Crc64Nvme, first, second, length)
            );
        }
    }

    #[test]
    fn nothing_changes_nothing() {
        assert_eq!(crc64_nvme_combined(0, 7, 3), 7);
        assert_eq!(crc64_nvme_combined(7, 0, 0), 7);
    }
}
